//! `halab capture`: records what passes the lab's networks and explains it while it does; or
//! explains what was recorded.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;

use super::args;
use super::exit::Exit;
use super::settings::Settings;
use super::topology::{open, read_topology};
use crate::base::diagnostic::nearest;
use crate::capture::conversation::INTERFACES_MAX;
use crate::capture::frame::Mac;
use crate::capture::names::Names;
use crate::capture::path::Interface;
use crate::capture::pcapng::{FileEnd, Heading, Piece, Recorded, Sink, WriteError, Writer, read};
use crate::capture::socket::{FRAME_BYTES_MAX, PacketSocket};
use crate::capture::summary::Summary;
use crate::capture::text::{Style, View};
use crate::capture::tracker::{Event, Tracker};
use crate::vm::netns::NetnsError;
use crate::vm::spec::Topology;

/// How long to wait for a frame before looking what is due.
const PATIENCE_MS: u16 = 100;
/// Frames of one interface that are taken before another has its turn.
const TURN_FRAMES: usize = 256;

#[derive(Debug, thiserror::Error)]
enum CaptureError {
    #[error("there is no network and no card `{typed}`{}; there are {}", hint(.near.as_deref()), .known.join(", "))]
    NoInterface {
        typed: String,
        near: Option<String>,
        known: Vec<String>,
    },
    #[error("at most {INTERFACES_MAX} interfaces can be watched at once")]
    TooMany,
    #[error("failed to watch {interface}")]
    Watch {
        interface: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to receive on {interface}")]
    Receive {
        interface: String,
        #[source]
        source: io::Error,
    },
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

pub fn capture(settings: &Settings, args: &args::Capture) -> anyhow::Result<Exit> {
    match &args.read {
        Some(file) => explain_file(settings, args, file),
        None => watch(settings, args),
    }
}

/// An interface of the lab's namespace, as it was asked for.
struct Watched {
    device: String,
    interface: Interface,
}

/// Finds what is meant: a network's name, `VM:NIC`, a machine with one card, or a tap's own name.
fn resolve(topology: &Topology, typed: &str) -> Result<Watched, CaptureError> {
    if let Some(network) = topology.network(typed) {
        let client = network.client.map_or_else(
            || "a cable".to_owned(),
            |client| format!("the switch; {} is on it as {client}", topology.client.name),
        );
        return Ok(Watched {
            device: network.name.clone(),
            interface: Interface {
                name: network.name.clone(),
                description: client,
                station: None,
            },
        });
    }
    let mut known: Vec<String> = topology
        .networks
        .iter()
        .map(|network| network.name.clone())
        .collect();
    for machine in &topology.machines {
        for nic in &machine.nics {
            let name = format!("{}:{}", machine.name, nic.name);
            if typed == name
                || typed == nic.tap
                || (typed == machine.name && machine.nics.len() == 1)
            {
                return Ok(Watched {
                    device: nic.tap.clone(),
                    interface: Interface {
                        description: format!(
                            "the cable of {}'s {} to {}",
                            machine.name, nic.name, nic.network
                        ),
                        name,
                        station: Some(Mac(nic.mac.0)),
                    },
                });
            }
            known.push(name);
        }
    }
    Err(CaptureError::NoInterface {
        typed: typed.to_owned(),
        near: nearest(typed, known.iter().map(String::as_str)).map(str::to_owned),
        known,
    })
}

/// Who is who, by the topology.
fn names(topology: &Topology) -> Names {
    let mut names = Names::default();
    for machine in &topology.machines {
        for nic in &machine.nics {
            names.add_station(Mac(nic.mac.0), &machine.name);
            if let Some(cidr) = nic.address {
                names.add_address(cidr.address.into(), &machine.name);
            }
        }
    }
    for cidr in topology
        .networks
        .iter()
        .filter_map(|network| network.client)
    {
        names.add_address(cidr.address.into(), &topology.client.name);
    }
    names
}

/// The hardware address of a device in this process's network.
fn station_of(device: &str) -> Option<Mac> {
    let addresses = getifaddrs().ok()?;
    addresses
        .filter(|address| address.interface_name == device)
        .find_map(|address| address.address?.as_link_addr()?.addr())
        .map(Mac)
}

fn watch(settings: &Settings, args: &args::Capture) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let typed = if args.interfaces.is_empty() {
        vec![default_interface(&lab.topology)]
    } else {
        args.interfaces.clone()
    };
    if typed.len() > INTERFACES_MAX {
        return Err(CaptureError::TooMany.into());
    }
    let watched: Vec<Watched> = typed
        .iter()
        .map(|typed| resolve(&lab.topology, typed))
        .collect::<Result<_, _>>()?;
    let holder = lab.holder().ok_or(NetnsError::NotUp)?;
    // The file is the user's: it is made before this process becomes the lab's.
    let file = args.write.as_deref().map(create).transpose()?;
    // Signals wait from here on for the loop to take them.
    let signals = signals()?;
    holder.enter_network()?;

    let mut names = names(&lab.topology);
    for network in lab
        .topology
        .networks
        .iter()
        .filter(|network| network.client.is_some())
    {
        if let Some(mac) = station_of(&network.name) {
            names.add_station(mac, &lab.topology.client.name);
        }
    }
    let sockets: Vec<PacketSocket> = watched
        .iter()
        .map(|watched| {
            PacketSocket::open(&watched.device).map_err(|source| CaptureError::Watch {
                interface: watched.interface.name.clone(),
                source,
            })
        })
        .collect::<Result<_, _>>()?;
    let interfaces: Vec<Interface> = watched
        .iter()
        .map(|watched| watched.interface.clone())
        .collect();
    let recorder = match file {
        None => None,
        Some(file) => {
            let stations: Vec<Option<Mac>> = watched
                .iter()
                .map(|watched| {
                    watched
                        .interface
                        .station
                        .or_else(|| station_of(&watched.device))
                })
                .collect();
            let heading = Heading {
                program: concat!("halab ", env!("CARGO_PKG_VERSION")),
                comment: &format!("halab capture, lab {}", settings.lab),
                interfaces: &interfaces,
                stations: &stations,
                names: &names,
            };
            Some(Writer::new(file, heading)?)
        }
    };
    let to_stdout = args.write.as_deref() != Some(Path::new("-"));
    let mut output = Output::new(settings.json, to_stdout, &interfaces);
    output.begin(args.write.as_deref());
    Session {
        tracker: Tracker::new(names, interfaces.clone()),
        interfaces,
        sockets,
        recorder,
        signals,
        bound: Bound {
            frames: args.count,
            until: args
                .duration
                .map(|seconds| Instant::now() + Duration::from_secs_f64(seconds)),
        },
        frames: 0,
        dropped: 0,
    }
    .run(&mut output)
}

/// The first network the client is on.
fn default_interface(topology: &Topology) -> String {
    let with_client = topology
        .networks
        .iter()
        .find(|network| network.client.is_some());
    with_client.map_or_else(|| "br0".to_owned(), |network| network.name.clone())
}

fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&set, flags)?)
}

/// A capture file, or a pipe to whoever reads one.
enum CaptureFile {
    File(File),
    Pipe(io::Stdout),
}

fn create(path: &Path) -> anyhow::Result<CaptureFile> {
    if path == Path::new("-") {
        return Ok(CaptureFile::Pipe(io::stdout()));
    }
    let file = File::create(path).with_context(|| format!("failed to make {}", path.display()))?;
    Ok(CaptureFile::File(file))
}

impl Write for CaptureFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Pipe(pipe) => pipe.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Pipe(pipe) => pipe.flush(),
        }
    }
}

impl Sink for CaptureFile {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_len(length),
            Self::Pipe(_) => Ok(()),
        }
    }
}

/// When a capture ends by itself.
struct Bound {
    frames: Option<u64>,
    until: Option<Instant>,
}

struct Session {
    tracker: Tracker,
    interfaces: Vec<Interface>,
    sockets: Vec<PacketSocket>,
    recorder: Option<Writer<CaptureFile>>,
    signals: SignalFd,
    bound: Bound,
    frames: u64,
    dropped: u64,
}

/// A frame that waits for its turn among those of other interfaces.
struct Waiting {
    interface: usize,
    at: Duration,
    length: u32,
    outgoing: bool,
    bytes: Vec<u8>,
}

impl Session {
    fn run(mut self, output: &mut Output) -> anyhow::Result<Exit> {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut lost = None;
        let mut failed = None;
        while !self.is_over(output) {
            self.wait()?;
            let waiting = match self.receive(&mut buffer) {
                Ok(waiting) => waiting,
                Err(CaptureError::Receive { interface, source })
                    if source.raw_os_error() == Some(nix::libc::ENETDOWN) =>
                {
                    lost = Some(interface);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            for frame in &waiting {
                if self
                    .bound
                    .frames
                    .is_some_and(|frames| self.frames >= frames)
                {
                    break;
                }
                self.take(frame);
            }
            if let Some(recorder) = &mut self.recorder
                && let Err(error) = recorder.flush()
            {
                self.recorder = None;
                failed = Some(error);
                break;
            }
            if waiting.is_empty() {
                self.tracker.tick(now());
            }
            output.events(&self.tracker.events());
        }
        self.end(output, lost.as_deref(), failed)
    }

    fn end(
        mut self,
        output: &mut Output,
        lost: Option<&str>,
        failed: Option<WriteError>,
    ) -> anyhow::Result<Exit> {
        let mut dropped = Vec::new();
        for socket in &self.sockets {
            // A device that is gone has nothing more to say.
            dropped.push(socket.dropped().unwrap_or(0));
        }
        self.dropped += dropped.iter().sum::<u64>();
        let summary = self.tracker.finish(self.dropped);
        output.events(&self.tracker.events());
        output.summary(&summary);
        let finished = match (self.recorder, failed) {
            (_, Some(error)) => Err(error),
            (Some(recorder), None) => recorder.finish(now(), &dropped).map(drop),
            (None, None) => Ok(()),
        };
        if let Some(interface) = lost {
            super::note(&format!("{interface} is gone: the lab went down"));
        }
        finished?;
        Ok(Exit::Done)
    }

    fn is_over(&mut self, output: &Output) -> bool {
        let signalled = matches!(self.signals.read_signal(), Ok(Some(_)));
        signalled
            || output.closed
            || self
                .bound
                .frames
                .is_some_and(|frames| self.frames >= frames)
            || self
                .bound
                .until
                .is_some_and(|until| Instant::now() >= until)
    }

    /// Waits for a frame, a signal, or for what is due.
    fn wait(&self) -> io::Result<()> {
        let mut waits: Vec<PollFd<'_>> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        waits.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        match poll(&mut waits, PollTimeout::from(PATIENCE_MS)) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what is there from every interface, in the order of time.
    fn receive(&self, buffer: &mut [u8]) -> Result<Vec<Waiting>, CaptureError> {
        let mut waiting = Vec::new();
        for (interface, socket) in self.sockets.iter().enumerate() {
            for _ in 0..TURN_FRAMES {
                let received = socket
                    .receive(buffer)
                    .map_err(|source| CaptureError::Receive {
                        interface: self.interfaces[interface].name.clone(),
                        source,
                    })?;
                let Some(received) = received else { break };
                waiting.push(Waiting {
                    interface,
                    at: received.at,
                    length: received.length,
                    outgoing: received.outgoing,
                    bytes: buffer[..received.captured].to_vec(),
                });
            }
        }
        waiting.sort_by_key(|frame| frame.at);
        Ok(waiting)
    }

    fn take(&mut self, frame: &Waiting) {
        self.frames += 1;
        let remark = self
            .tracker
            .take(frame.at, frame.interface, &frame.bytes, frame.length);
        if let Some(recorder) = &mut self.recorder {
            recorder.add(&Recorded {
                interface: u32::try_from(frame.interface).expect("few interfaces"),
                at: frame.at,
                bytes: &frame.bytes,
                length: frame.length,
                outgoing: Some(frame.outgoing),
                remark: remark.as_deref(),
            });
        }
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn explain_file(settings: &Settings, args: &args::Capture, path: &Path) -> anyhow::Result<Exit> {
    // What the file does not say, the lab's topology may; a file can be explained without either.
    let known =
        read_topology(settings).map_or_else(|_| Names::default(), |topology| names(&topology));
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut tracker = Tracker::new(Names::default(), Vec::new());
    let mut output = Output::new(settings.json, true, &[]);
    let mut interfaces: Vec<String> = Vec::new();
    let mut frames = 0;
    let mut has_names = false;
    let end = read(file, &mut |piece| match piece {
        Piece::Interface(interface) => {
            interfaces.push(interface.name.clone());
            tracker.add_interface(interface);
        }
        Piece::Names(names) => {
            has_names = true;
            tracker.add_names(names);
        }
        Piece::Frame {
            interface,
            at,
            bytes,
            length,
        } => {
            if !has_names {
                has_names = true;
                tracker.add_names(known.clone());
            }
            if args.count.is_none_or(|count| frames < count) {
                frames += 1;
                tracker.take(at, interface, bytes, length);
                output.events(&tracker.events());
            }
        }
    })
    .with_context(|| format!("failed to read {}", path.display()))?;
    let summary = tracker.finish(0);
    output.events(&tracker.events());
    interfaces.retain(|name| !name.is_empty());
    output.interfaces = if interfaces.is_empty() {
        path.display().to_string()
    } else {
        interfaces.join(", ")
    };
    output.summary(&summary);
    if end == FileEnd::CutShort {
        super::note(&format!(
            "{} ends in the middle of a frame; the {frames} before it are explained",
            path.display()
        ));
    }
    Ok(Exit::Done)
}

/// Where the explanation goes.
struct Output {
    view: View,
    json: bool,
    to_stdout: bool,
    interfaces: String,
    /// Nobody reads any more.
    closed: bool,
}

impl Output {
    fn new(json: bool, to_stdout: bool, interfaces: &[Interface]) -> Self {
        let is_terminal = if to_stdout {
            io::stdout().is_terminal()
        } else {
            io::stderr().is_terminal()
        };
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = if is_terminal {
            terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0))
        } else {
            100
        };
        let names: Vec<&str> = interfaces
            .iter()
            .map(|interface| interface.name.as_str())
            .collect();
        Self {
            view: View::new(Style {
                width,
                colour: is_terminal && !no_colour,
            }),
            json,
            to_stdout,
            interfaces: names.join(", "),
            closed: false,
        }
    }

    fn begin(&mut self, file: Option<&Path>) {
        if self.json {
            let facts = json!({"event": "capture", "interfaces": self.interfaces, "file": file});
            self.say(&facts.to_string());
            return;
        }
        let into = file.map_or_else(String::new, |file| format!(" into {}", file.display()));
        super::note(&format!(
            "watching {}{into}; Ctrl-C ends it and sums up",
            self.interfaces
        ));
    }

    fn events(&mut self, events: &[Event]) {
        for event in events {
            if self.json {
                let line = serde_json::to_string(event).expect("an event is plain data");
                self.say(&line);
            } else {
                for line in self.view.event(event) {
                    self.say(&line);
                }
            }
        }
    }

    fn summary(&mut self, summary: &Summary) {
        if self.json {
            let mut facts = serde_json::to_value(summary).expect("a summary is plain data");
            if let Some(facts) = facts.as_object_mut() {
                facts.shift_insert(0, "event".to_owned(), json!("summary"));
            }
            self.say(&facts.to_string());
        } else {
            for line in self.view.summary(summary, &self.interfaces) {
                self.say(&line);
            }
        }
    }

    fn say(&mut self, line: &str) {
        let written = if self.to_stdout {
            writeln!(io::stdout(), "{line}")
        } else {
            writeln!(io::stderr(), "{line}")
        };
        self.closed |= written.is_err();
    }
}
