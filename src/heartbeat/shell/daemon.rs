//! The daemon: reads the files, runs a node, and starts a new one when a run says so.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::control::Control;
use super::driver::{Outside, run};
use super::journal::Journal;
use super::media::Media;
use super::paths::Paths;
use super::pinger::Pinger;
use super::resource::handlers;
use super::store;
use super::worker::Worker;
use crate::base::diagnostic::{Diagnostic, Source};
use crate::heartbeat::config::{Config, Files, check};
use crate::heartbeat::effect::Level;
use crate::heartbeat::node::{Exit, Identity};

/// Why the daemon did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum DaemonError {
    /// Exit code 6, as heartbeat's.
    #[error("the configuration has problems")]
    Configuration(Vec<Diagnostic>),
    #[error("failed to {attempt}")]
    Outside {
        attempt: &'static str,
        #[source]
        source: io::Error,
    },
}

fn outside(attempt: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::Outside { attempt, source }
}

/// Reads and checks the files; remarks are returned beside the configuration.
pub(super) fn read_config(paths: &Paths) -> Result<(Config, Vec<Diagnostic>), DaemonError> {
    let ha_cf = read_source(&paths.ha_cf())?;
    let authkeys = read_source(&paths.authkeys())?;
    let haresources = read_source(&paths.haresources())?;
    let metadata = fs::metadata(paths.authkeys()).map_err(outside("look at authkeys"))?;
    let checked = check(&Files {
        ha_cf,
        authkeys,
        authkeys_mode: metadata.mode(),
        authkeys_owner: metadata.uid(),
        haresources,
        host_name: node_name(paths),
    });
    match checked.config {
        Some(config) => Ok((config, checked.diagnostics)),
        None => Err(DaemonError::Configuration(checked.diagnostics)),
    }
}

fn read_source(path: &Path) -> Result<Arc<Source>, DaemonError> {
    let name = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => Ok(Source::new(name, String::from_utf8_lossy(&bytes))),
        Err(error) => Err(DaemonError::Configuration(vec![
            Diagnostic::error(format!("cannot open {name}: {error}"))
                .help("heartbeat needs ha.cf, authkeys and haresources in /etc/ha.d"),
        ])),
    }
}

fn node_name(paths: &Paths) -> String {
    let override_name = fs::read_to_string(paths.node_info()).ok();
    let first_line = override_name
        .as_deref()
        .and_then(|text| text.lines().next())
        .map(str::trim)
        .filter(|name| !name.is_empty());
    first_line.map_or_else(host_name, str::to_owned)
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Runs in the foreground until stopped. Remarks about the configuration go to `remark`.
pub(super) fn serve(paths: &Paths, remark: impl Fn(&[Diagnostic])) -> Result<(), DaemonError> {
    let mut signals = catch_signals().map_err(outside("catch signals"))?;
    let (config, remarks) = read_config(paths)?;
    remark(&remarks);
    let mut journal = Journal::open(&config.own_name, &config.ha_cf.log);
    let version = env!("CARGO_PKG_VERSION");
    journal.write(
        Level::Info,
        &format!("Configuration validated. Starting heartbeat (halab-agent {version})"),
    );
    // Sockets first: an interface or port that is missing must leave nothing behind.
    let first_media = open_media(&config).map_err(DaemonError::Configuration)?;
    handlers(&config.resources.groups, paths).map_err(DaemonError::Configuration)?;
    let mut control =
        Control::listen(&paths.control_socket()).map_err(outside("open the tools' socket"))?;
    fs::write(paths.pid(), format!("{}\n", std::process::id()))
        .map_err(outside("write the pid file"))?;
    tell_systemd("READY=1");
    if config.ha_cf.realtime {
        ask_for_realtime(&mut journal);
    }
    let result = serve_runs(
        &config,
        paths,
        first_media,
        &mut control,
        &mut signals,
        &mut journal,
    );
    for path in [paths.pid(), paths.control_socket()] {
        // Leftovers are replaced at the next start.
        let _ = fs::remove_file(path);
    }
    result
}

fn open_media(config: &Config) -> Result<Media, Vec<Diagnostic>> {
    let groups = config.resources.groups.iter();
    let resources = groups.flat_map(|group| &group.resources);
    let addresses = resources.filter_map(|resource| Some(resource.address.as_ref()?.ip));
    Media::open(&config.ha_cf.media, addresses.collect())
}

fn serve_runs(
    config: &Config,
    paths: &Paths,
    first_media: Media,
    control: &mut Control,
    signals: &mut SignalFd,
    journal: &mut Journal,
) -> Result<(), DaemonError> {
    let started = Instant::now();
    let mut media = Some(first_media);
    loop {
        let generation = store::next_generation(paths, &config.ha_cf, unix_now())
            .map_err(outside("save the generation"))?;
        journal.write(Level::Info, &format!("Heartbeat generation: {generation}"));
        let uuid = store::uuid(paths, &config.ha_cf, &config.own_name)
            .map_err(outside("save the UUID"))?;
        let identity = Identity {
            uuid,
            generation,
            seed: seed(),
        };
        let media = match media.take() {
            Some(media) => media,
            None => open_media(config).map_err(DaemonError::Configuration)?,
        };
        let handlers =
            handlers(&config.resources.groups, paths).map_err(DaemonError::Configuration)?;
        let worker = Worker::start(handlers).map_err(outside("start the resources' thread"))?;
        let asks = !config.ha_cf.ping.is_empty();
        let pinger = Pinger::open(asks).map_err(outside("open a socket for echo requests"))?;
        let outside_world = Outside {
            media,
            worker,
            pinger,
            control,
            signals,
            journal,
            started,
        };
        match run(config.clone(), identity, outside_world).map_err(outside("wait for events"))? {
            Exit::Stopped => return Ok(()),
            Exit::Restart { after } => {
                journal.write(Level::Info, &format!("starting again in {after:?}"));
                if sleep_or_signal(after, signals).map_err(outside("wait for a signal"))? {
                    return Ok(());
                }
            }
        }
    }
}

/// Tells systemd of the unit's state (`Type=notify`); nobody listens otherwise.
fn tell_systemd(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    // A state that is not heard of is systemd's to complain of.
    let _ = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
}

/// SIGTERM and SIGINT come through a descriptor, in every thread blocked.
fn catch_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// Sleeps between two runs. Returns whether a signal ended the sleep.
fn sleep_or_signal(length: Duration, signals: &mut SignalFd) -> io::Result<bool> {
    const STEP: Duration = Duration::from_millis(100);
    let end = Instant::now() + length;
    while Instant::now() < end {
        if signals.read_signal()?.is_some() {
            return Ok(true);
        }
        thread::sleep(STEP.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(false)
}

/// A busy host must not starve the heartbeat. Threads and scripts started from here do not
/// inherit it.
fn ask_for_realtime(journal: &mut Journal) {
    let parameters = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    #[expect(unsafe_code, reason = "nix does not wrap scheduling classes")]
    // SAFETY: the pointer is to a whole `sched_param` that outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result != 0 {
        let error = io::Error::last_os_error();
        journal.write(Level::Warning, &format!("no real-time scheduling: {error}"));
    }
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn seed() -> u64 {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    u64::from(nanos) << 32 | u64::from(std::process::id())
}
