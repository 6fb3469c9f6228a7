//! The daemon's loop: what happened goes into the engine, what it wants is done in order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::control_socket::{Client, ControlListener, Said};
use super::file_store::{FileStore, Finished};
use super::link::{Incoming, Link, listen_on};
use super::record::RecordFile;
use crate::replica::buffers::Pool;
use crate::replica::control::{Answer, Command};
use crate::replica::device::{DeviceReply, Export, Presence};
use crate::replica::engine::{Action, Engine, Event};
use crate::replica::establish::LinkId;
use crate::replica::message::{BareKind, Packet};
use crate::replica::recovery::{Next, Record, Recovery};
use crate::replica::settings::{DiskSettings, Names};
use crate::replica::state::Role;

/// Names the command a stop signal stands for.
const STOP: u64 = 0;
/// Names the commands that repeat what a dead daemon was told.
const RECOVER: u64 = u64::MAX;
/// How long the loop sleeps when nothing is due, so that a lost wake-up is no disaster.
const NAP_MAX: Duration = Duration::from_secs(5);
/// How long memory lies idle, at least, before it is given back.
const TIDY_PAUSE: Duration = Duration::from_secs(10);
/// How often an own address that is not there yet is tried again.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// What the daemon speaks to besides the engine.
pub trait Surroundings {
    /// A line for the log.
    fn log(&mut self, line: &str);
    /// Runs a handler of the configuration.
    fn handler(&mut self, name: &str);
}

/// An export that shows nothing; for a node that is never Primary.
#[derive(Debug, Default)]
pub struct NoExport;

impl Export for NoExport {
    fn present(&mut self, _: Presence) -> io::Result<()> {
        Ok(())
    }
    fn in_use(&self) -> bool {
        false
    }
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn take(&mut self, _: &mut Vec<crate::replica::device::DeviceRequest>) -> io::Result<()> {
        Ok(())
    }
    fn reply(&mut self, _: DeviceReply) {}
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One resource's daemon.
pub struct Daemon<'a> {
    engine: Engine,
    export: Box<dyn Export + 'a>,
    surroundings: Box<dyn Surroundings + 'a>,
    /// Memory for the data of all requests, the export's too.
    pool: Pool,
    tidy_at: Instant,
    store: Option<FileStore>,
    links: BTreeMap<LinkId, Link>,
    listener: Option<TcpListener>,
    listen_at: Option<Instant>,
    control: ControlListener,
    clients: HashMap<u64, Client>,
    next_client: u64,
    next_accepted: u64,
    /// Actions that wait for a save.
    queue: VecDeque<Action>,
    began: Instant,
    over: bool,
    /// What is told to this daemon is kept there.
    record: RecordFile,
    recovery: Option<Recovery>,
    recover_at: Option<Duration>,
    /// Why the last step of the recovery was refused.
    refused: String,
    /// How the engine wants the device to look.
    presence: Presence,
}

impl std::fmt::Debug for Daemon<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Daemon({:?})", self.engine.state())
    }
}

/// What was ready, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signal,
    Control,
    Client(u64),
    Listener,
    Link(LinkId),
    Store,
    Export,
}

impl<'a> Daemon<'a> {
    pub fn new(
        names: Names,
        export: Box<dyn Export + 'a>,
        surroundings: Box<dyn Surroundings + 'a>,
        pool: Pool,
    ) -> io::Result<Self> {
        let control = ControlListener::new(&names.resource)?;
        let (record, left) = RecordFile::open(&names.resource);
        let mut seed = [0; 8];
        io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut seed)?;
        Ok(Self {
            engine: Engine::new(names, u64::from_ne_bytes(seed)),
            export,
            surroundings,
            pool,
            tidy_at: Instant::now() + TIDY_PAUSE,
            store: None,
            links: BTreeMap::new(),
            listener: None,
            listen_at: None,
            control,
            clients: HashMap::new(),
            next_client: STOP + 1,
            next_accepted: 2,
            queue: VecDeque::new(),
            began: Instant::now(),
            over: false,
            record,
            recovery: left.map(|record| Recovery::new(record, Duration::ZERO)),
            recover_at: None,
            refused: String::new(),
            presence: Presence::Absent,
        })
    }

    /// Runs until the resource is taken down, or a signal says stop.
    pub fn run(&mut self) -> io::Result<()> {
        let signals = stop_signals()?;
        while !self.over {
            self.perform()?;
            self.recover()?;
            let ready = self.wait(&signals)?;
            for source in ready {
                self.hear(source, &signals)?;
            }
            self.handle(Event::Tick);
            self.engine.end_turn();
            self.tidy();
        }
        self.perform()?;
        self.record.remove();
        self.export.present(Presence::Absent)
    }

    /// Goes on with what a daemon that died was told.
    fn recover(&mut self) -> io::Result<()> {
        self.recover_at = None;
        while let Some(recovery) = &mut self.recovery {
            match recovery.next(self.began.elapsed(), self.engine.state()) {
                Next::Tell(command) => {
                    self.handle(Event::Command {
                        id: RECOVER,
                        command,
                        device_open: false,
                    });
                    self.perform()?;
                }
                Next::Wait(at) => {
                    self.recover_at = Some(at);
                    break;
                }
                Next::Abandon(why) => self.abandon(why)?,
                Next::Over => {
                    self.surroundings.log("what was told before is done again");
                    self.recovery = None;
                }
            }
        }
        Ok(())
    }

    fn abandon(&mut self, why: &str) -> io::Result<()> {
        if self.export.interrupted() {
            self.surroundings
                .log(&format!("who uses the device gets errors: {why}"));
            self.export.abandon()?;
            self.export.present(self.presence)?;
        }
        Ok(())
    }

    /// Keeps what this daemon was told for the next one, before anybody relies on it.
    fn remember(&mut self) {
        let recovering = self
            .recovery
            .as_ref()
            .filter(|recovery| !recovery.is_over());
        let record = match recovering {
            Some(recovery) => recovery.record().clone(),
            None => Record {
                disk: self.engine.disk_settings().cloned(),
                net: self.engine.net().cloned(),
                primary: self.engine.state().role == Role::Primary,
            },
        };
        if let Err(error) = self.record.write(record) {
            self.surroundings
                .log(&format!("what is told is not kept: {error}"));
        }
    }

    fn tidy(&mut self) {
        let now = Instant::now();
        if now >= self.tidy_at {
            self.tidy_at = now + TIDY_PAUSE;
            self.pool.tidy();
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.engine.handle(now, event);
    }

    /// Waits for whatever happens first.
    fn wait(&mut self, signals: &SignalFd) -> io::Result<Vec<Source>> {
        let timeout = self.timeout();
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let readable = PollFlags::POLLIN;
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::new(fd, flags));
        };
        add(Source::Signal, signals.as_fd(), readable);
        add(Source::Control, self.control.fd(), readable);
        for (id, client) in &self.clients {
            add(Source::Client(*id), client.fd(), readable);
        }
        if let Some(listener) = &self.listener {
            add(Source::Listener, listener.as_fd(), readable);
        }
        for (id, link) in &self.links {
            let mut flags = PollFlags::empty();
            if self.reads(*id) && link.calling().is_none() {
                flags |= readable;
            }
            if link.wants_to_write() {
                flags |= PollFlags::POLLOUT;
            }
            add(Source::Link(*id), link.fd(), flags);
        }
        if let Some(store) = &self.store {
            add(Source::Store, store.wake(), readable);
        }
        if let Some(fd) = self.export.wake() {
            add(Source::Export, fd, readable);
        }
        let timeout = PollTimeout::try_from(timeout.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = sources
            .into_iter()
            .zip(&fds)
            .filter(|(source, fd)| {
                let events = fd.revents().unwrap_or(PollFlags::empty());
                let more = matches!(source, Source::Link(id) if self.reads(*id)
                    && self.links[id].has_more());
                more || !events.is_empty()
            })
            .map(|(source, _)| source)
            .collect();
        Ok(ready)
    }

    /// Whether packets of a connection may be taken now.
    fn reads(&self, link: LinkId) -> bool {
        self.engine.wants_data() || !self.engine.is_data_link(link)
    }

    fn timeout(&self) -> Duration {
        let more = self
            .links
            .iter()
            .any(|(id, link)| self.reads(*id) && link.has_more());
        if more {
            return Duration::ZERO;
        }
        let now = self.now();
        let clock = Instant::now();
        let due = self
            .engine
            .next_deadline()
            .map_or(NAP_MAX, |at| at.saturating_sub(now));
        let due = self
            .recover_at
            .map_or(due, |at| due.min(at.saturating_sub(now)));
        self.links
            .values()
            .filter_map(Link::calling)
            .chain(self.listen_at)
            .map(|at| at.saturating_duration_since(clock))
            .fold(due, Duration::min)
            .min(NAP_MAX)
            // Rounded up: to wake a little early is to wake twice.
            .saturating_add(Duration::from_millis(1))
    }

    fn hear(&mut self, source: Source, signals: &SignalFd) -> io::Result<()> {
        match source {
            Source::Signal => {
                if signals.read_signal()?.is_some() {
                    self.stop();
                }
            }
            Source::Control => {
                if let Ok(client) = self.control.accept() {
                    self.clients.insert(self.next_client, client);
                    self.next_client += 1;
                }
            }
            Source::Client(id) => self.hear_client(id),
            Source::Listener => self.accept(),
            Source::Link(id) => self.hear_link(id),
            Source::Store => self.hear_store(),
            Source::Export => self.hear_export()?,
        }
        Ok(())
    }

    /// A signal: down if that is allowed, and otherwise as a crash, which loses nothing.
    fn stop(&mut self) {
        let command = Command::Down;
        let device_open = self.export.in_use();
        self.handle(Event::Command {
            id: STOP,
            command: Box::new(command),
            device_open,
        });
    }

    fn hear_client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match client.read() {
            Said::Nothing => {}
            Said::Gone => {
                self.clients.remove(&id);
                self.handle(Event::Withdrawn(id));
            }
            Said::Command(command) => {
                let device_open = self.export.in_use();
                self.handle(Event::Command {
                    id,
                    command,
                    device_open,
                });
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        let Ok(link) = Link::new(stream, self.pool.clone()) else {
            return;
        };
        let id = LinkId(self.next_accepted);
        self.next_accepted += 2;
        self.links.insert(id, link);
        self.handle(Event::Accepted(id));
    }

    fn hear_link(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.calling().is_some() {
            match link.call_answered() {
                Ok(()) => self.handle(Event::Connected(id)),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                Err(error) => self.close(id, &error.to_string()),
            }
            return;
        }
        if let Err(error) = link.write() {
            self.close(id, &error.to_string());
            return;
        }
        if !self.reads(id) {
            return;
        }
        let mut incoming = Vec::new();
        self.links
            .get_mut(&id)
            .expect("it was there")
            .read(&mut incoming);
        for what in incoming {
            match what {
                Incoming::Packet(packet) => self.handle(Event::Packet(id, packet)),
                Incoming::Closed(why) => self.close(id, &why),
                Incoming::Garbled(why) => self.handle(Event::Garbled(id, why)),
            }
        }
    }

    fn close(&mut self, id: LinkId, why: &str) {
        self.links.remove(&id);
        self.handle(Event::Closed(id, why.to_owned()));
    }

    fn hear_store(&mut self) {
        let mut finished = Vec::new();
        if let Some(store) = &mut self.store {
            store.take(&mut finished);
        }
        for what in finished {
            match what {
                Finished::Io { id, result } => self.handle(Event::Io { id, result }),
                Finished::Saved(Ok(())) => {}
                Finished::Saved(Err(errno)) => {
                    self.surroundings
                        .log(&format!("metadata could not be written: error {}", errno.0));
                    self.handle(Event::SaveFailed);
                }
            }
        }
    }

    fn hear_export(&mut self) -> io::Result<()> {
        let mut requests = Vec::new();
        self.export.take(&mut requests)?;
        for request in requests {
            self.handle(Event::Device(request));
        }
        Ok(())
    }

    /// Does what the engine wants, in order, up to a save that is not finished.
    fn perform(&mut self) -> io::Result<()> {
        self.remember();
        loop {
            self.gather();
            let saving = self.store.as_ref().is_some_and(FileStore::saving);
            if saving {
                break;
            }
            let Some(action) = self.queue.pop_front() else {
                break;
            };
            self.perform_one(action)?;
        }
        self.call_late();
        if self.listen_at.is_some_and(|at| at <= Instant::now()) {
            self.listen();
        }
        if let Some(store) = &mut self.store {
            store.submit()?;
        }
        self.write_links();
        self.export.flush()
    }

    /// Takes the engine's actions; answers to pings wait for no disk.
    fn gather(&mut self) {
        while let Some(action) = self.engine.next_action() {
            if let Action::Send {
                packet: Packet::Bare(BareKind::PingAck),
                ..
            } = action
            {
                self.send(action);
            } else {
                self.queue.push_back(action);
            }
        }
    }

    fn send(&mut self, action: Action) {
        if let Action::Send {
            link,
            packet,
            dialect,
        } = action
        {
            let volume = self.engine.names().volume;
            if let Some(link) = self.links.get_mut(&link) {
                link.queue(&packet, dialect, volume);
            }
        }
    }

    fn perform_one(&mut self, action: Action) -> io::Result<()> {
        match action {
            Action::Send { .. } => self.send(action),
            Action::Disk(io) => {
                if let Some(store) = &mut self.store {
                    store.begin(io);
                }
            }
            Action::Save(save) => {
                if let Some(store) = &mut self.store {
                    store.begin_save(save);
                    self.hear_store();
                }
            }
            Action::Reply(reply) => self.export.reply(reply),
            Action::Present(presence) => {
                self.presence = presence;
                if let Err(error) = self.export.present(presence) {
                    self.surroundings.log(&format!("the device: {error}"));
                }
                // What came while the device was made ready wakes nobody any more.
                self.hear_export()?;
            }
            Action::Answer { id, answer } => self.answer(id, &answer),
            Action::OpenDisk(settings) => self.open_disk(&settings),
            Action::CloseDisk => self.close_disk()?,
            Action::Listen => self.listen(),
            Action::StopListening => {
                self.listener = None;
                self.listen_at = None;
            }
            Action::Call(link) => self.call(link),
            Action::Close(link) => {
                // What was sent before must go before the end does.
                if let Some(mut link) = self.links.remove(&link) {
                    let _ = link.write();
                }
            }
            Action::Handler(name) => self.surroundings.handler(name),
            Action::Log(line) => self.surroundings.log(&line),
            Action::Exit => self.over = true,
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, answer: &Answer) {
        if id == STOP {
            if let Answer::Refused(rejection) = answer {
                self.surroundings
                    .log(&format!("stopped while it could not go down: {rejection}"));
                self.over = true;
            }
            return;
        }
        if id == RECOVER {
            self.recovery_answered(answer);
        } else if let Some(mut client) = self.clients.remove(&id) {
            client.answer(answer);
        }
    }

    fn recovery_answered(&mut self, answer: &Answer) {
        let accepted = match answer {
            Answer::Refused(rejection) => {
                let text = rejection.to_string();
                if text != self.refused {
                    self.surroundings.log(&format!("recovery waits: {text}"));
                    self.refused = text;
                }
                false
            }
            _ => true,
        };
        let now = self.now();
        let next = self
            .recovery
            .as_mut()
            .and_then(|recovery| recovery.answered(now, accepted));
        if let Some(Next::Abandon(why)) = next
            && let Err(error) = self.abandon(why)
        {
            self.surroundings.log(&format!("the device: {error}"));
        }
    }

    fn open_disk(&mut self, settings: &DiskSettings) {
        let opened = FileStore::open(settings, self.pool.clone()).map(|(store, opened)| {
            self.store = Some(store);
            Box::new(opened)
        });
        self.handle(Event::DiskOpened(opened));
    }

    /// Everything that was begun is over before the disk is let go.
    fn close_disk(&mut self) -> io::Result<()> {
        if let Some(mut store) = self.store.take() {
            let mut finished = Vec::new();
            while !store.idle() {
                store.submit()?;
                let mut fds = [PollFd::new(store.wake(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(100u8));
                store.take(&mut finished);
            }
        }
        Ok(())
    }

    fn listen(&mut self) {
        let Some(own) = self.engine.net().map(|net| net.own) else {
            return;
        };
        match listen_on(own) {
            Ok(listener) => {
                self.listener = Some(listener);
                self.listen_at = None;
            }
            Err(error) => {
                if self.listen_at.is_none() {
                    self.surroundings
                        .log(&format!("cannot listen on {own}: {error}"));
                }
                self.listen_at = Some(Instant::now() + LISTEN_AGAIN);
            }
        }
    }

    fn call(&mut self, id: LinkId) {
        let called = self.engine.net().map(|net| {
            let sizes = (net.sndbuf_size, net.rcvbuf_size);
            Link::call(net.own, net.peer, self.pool.clone(), sizes)
        });
        match called {
            Some(Ok(link)) => {
                self.links.insert(id, link);
            }
            Some(Err(error)) => self.handle(Event::Closed(id, error.to_string())),
            None => self.handle(Event::Closed(id, "no peer is configured".to_owned())),
        }
    }

    /// Calls nobody answered.
    fn call_late(&mut self) {
        let now = Instant::now();
        let late: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.calling().is_some_and(|until| until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.close(id, "nobody answered the call");
        }
    }

    fn write_links(&mut self) {
        let failed: Vec<(LinkId, String)> = self
            .links
            .iter_mut()
            .filter(|(_, link)| link.calling().is_none() && link.wants_to_write())
            .filter_map(|(id, link)| link.write().err().map(|error| (*id, error.to_string())))
            .collect();
        for (id, why) in failed {
            self.close(id, &why);
        }
    }
}

/// Signals that end the daemon, as something that can be waited for.
fn stop_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}
