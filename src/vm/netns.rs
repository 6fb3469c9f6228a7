//! The lab's namespaces: made by a holder, entered by commands, gone with the holder.
//!
//! ```text
//!  halab up ──► internal-hold hold ──unshare──► internal-hold init     (process 1 of the lab)
//!                                                 │ network, bridges, taps; then waits
//!  internal-hold launch ──setns──► qemu           │
//!  internal-enter       ──setns──► the command    │ all die with it
//!  internal-connect     ──setns──► a socket, handed to ssh
//!  internal-hold offer  ──setns──► the agent, for machines that boot
//! ```
//!
//! The holder is process 1 of a process namespace in which everything of the lab runs: when
//! it is killed the kernel kills the rest, and with the last process the network namespace,
//! its bridges and taps are gone. It holds a lock on [`HOLDER_FILE`] for as long as it lives
//! and writes its own process number there, so nobody has to remember anything about it.
//!
//! Root makes plain namespaces; anybody else a user namespace around them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, getgid, getppid, getuid, sethostname, setsid};

use super::network::{IP_BATCH_END, SYSCTLS};
use super::process::has_ended;
use super::state::lock_patiently;

/// In the lab's folder: locked by the holder, holds its process number.
pub const HOLDER_FILE: &str = "holder";
/// Said by the holder once the network is there.
const READY: &str = "ready";
/// Making a dozen interfaces takes a tenth of a second; a loaded host may need more.
const HOLDER_DEADLINE: Duration = Duration::from_secs(20);
/// Looks whether a holder lives take its lock for a moment, and must not pass for one.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Holders left half made by a killed command that are cleared away before a start gives up: one
/// is what a kill leaves, another what a second kill leaves.
const LEFT_HOLDERS_MAX: usize = 3;
/// For one TCP connection inside the lab.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A server greets at once; a guest that was just resumed may take a moment.
const BANNER_PAUSE: Duration = Duration::from_millis(15);

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("failed to start the holder of the lab's network")]
    Start(#[source] io::Error),
    #[error("failed to make the lab's network: {reason}")]
    Make { reason: String },
    #[error("the lab is not up; `halab up` starts it")]
    NotUp,
    #[error("failed to enter the lab's network")]
    Enter(#[source] io::Error),
    #[error("failed to run `{command}`")]
    Run { command: String, source: io::Error },
    #[error("failed to connect to {address}")]
    Connect {
        address: SocketAddrV4,
        source: io::Error,
    },
    #[error("failed to hand the connection over")]
    HandOver(#[source] io::Error),
    #[error("failed to stop the holder of the lab's network")]
    Stop(#[source] io::Error),
}

/// A living holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
}

impl Holder {
    /// Finds the lab's holder, if it lives. One that still makes the network is waited for: it may
    /// be what a killed command left, and whoever overlooked it would start a second.
    pub fn find(lab_folder: &Path) -> Option<Self> {
        let path = lab_folder.join(HOLDER_FILE);
        let end = Instant::now() + HOLDER_DEADLINE;
        loop {
            let file = File::open(&path).ok()?;
            if Flock::lock(file, FlockArg::LockSharedNonblock).is_ok() {
                // Nobody holds it: the holder is gone.
                return None;
            }
            let text = fs::read_to_string(&path).ok()?;
            // It may have the lock and not yet have written its number.
            match text.trim().parse() {
                Ok(pid) => return Some(Self { pid }),
                Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(2)),
                Err(_) => return None,
            }
        }
    }

    /// Starts a holder whose network is built by this `ip -batch`; returns when it is.
    pub fn start(
        halab: &[String],
        lab_folder: &Path,
        hostname: &str,
        ip_batch: &str,
    ) -> Result<Self, NetnsError> {
        let mut left = 0;
        loop {
            let started = Self::start_once(halab, lab_folder, hostname, ip_batch);
            match (&started, Self::find(lab_folder)) {
                // A killed command's holder came up in between.
                (Err(NetnsError::Make { .. }), Some(other)) if left < LEFT_HOLDERS_MAX => {
                    other.stop()?;
                    left += 1;
                }
                _ => return started,
            }
        }
    }

    fn start_once(
        halab: &[String],
        lab_folder: &Path,
        hostname: &str,
        ip_batch: &str,
    ) -> Result<Self, NetnsError> {
        let mut child = Command::new(&halab[0])
            .args(&halab[1..])
            .args(["internal-hold", "hold", hostname])
            .current_dir(lab_folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(NetnsError::Start)?;
        child
            .stdin
            .take()
            .expect("asked for above")
            .write_all(ip_batch.as_bytes())
            .map_err(NetnsError::Start)?;
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("asked for above"));
        stdout.read_line(&mut said).map_err(NetnsError::Start)?;
        if said.trim() != READY {
            let mut reason = String::new();
            let _ = child
                .stderr
                .take()
                .expect("asked for above")
                .read_to_string(&mut reason);
            let _ = child.wait();
            return Err(NetnsError::Make {
                reason: reason.trim().to_owned(),
            });
        }
        child.wait().map_err(NetnsError::Start)?;
        Self::find(lab_folder).ok_or(NetnsError::NotUp)
    }

    /// Kills the holder, and with it everything in the lab; returns when it is gone.
    pub fn stop(self) -> Result<(), NetnsError> {
        match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(NetnsError::Stop(error.into())),
        }
        let end = Instant::now() + HOLDER_DEADLINE;
        // Nothing of the lab runs any more when its process 1 waits to be taken note of; in a
        // container nobody may ever do that.
        while !has_ended(self.pid) {
            if Instant::now() >= end {
                return Err(NetnsError::Stop(io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Puts this process into the lab's network. Only before a second thread starts.
    pub fn enter_network(self) -> Result<(), NetnsError> {
        self.enter(&[
            ("user", CloneFlags::CLONE_NEWUSER),
            ("net", CloneFlags::CLONE_NEWNET),
        ])
    }

    /// Puts this process into the lab's network, and the children it will have into the lab's
    /// process namespace, so that they end with the lab. It cannot start threads afterwards.
    pub fn enter_with_children(self) -> Result<(), NetnsError> {
        self.enter(&[
            ("user", CloneFlags::CLONE_NEWUSER),
            ("net", CloneFlags::CLONE_NEWNET),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("pid", CloneFlags::CLONE_NEWPID),
        ])
    }

    fn enter(self, kinds: &[(&str, CloneFlags)]) -> Result<(), NetnsError> {
        // All are opened first: inside the user namespace the holder's files are out of reach.
        let mut files = Vec::new();
        for (name, flag) in kinds {
            let path = format!("/proc/{}/ns/{name}", self.pid);
            let theirs = fs::read_link(&path).map_err(NetnsError::Enter)?;
            let own = fs::read_link(format!("/proc/self/ns/{name}")).map_err(NetnsError::Enter)?;
            if theirs != own {
                files.push((File::open(&path).map_err(NetnsError::Enter)?, *flag));
            }
        }
        for (file, flag) in &files {
            setns(file, *flag).map_err(|error| NetnsError::Enter(error.into()))?;
        }
        Ok(())
    }
}

/// `internal-hold hold HOSTNAME`: makes the namespaces and leaves a process 1 in them.
pub fn hold(halab: &[String], hostname: &str) -> Result<(), NetnsError> {
    let make = |error: nix::errno::Errno| NetnsError::Make {
        reason: format!("the kernel refused a namespace: {}", error.desc()),
    };
    let (uid, gid) = (getuid(), getgid());
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUTS;
    if !Uid::effective().is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    let _ = setsid();
    unshare(flags).map_err(make)?;
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {uid} 1")),
            ("gid_map", format!("0 {gid} 1")),
        ] {
            fs::write(format!("/proc/self/{file}"), text).map_err(|error| NetnsError::Make {
                reason: format!("failed to write {file}: {error}"),
            })?;
        }
    }
    let _ = sethostname(hostname);
    Command::new(&halab[0])
        .args(&halab[1..])
        .args(["internal-hold", "init"])
        .spawn()
        .map(drop)
        .map_err(NetnsError::Start)
}

/// `internal-hold init`: process 1 of the lab. Never returns while the lab is up.
pub fn init(lab_folder: &Path) -> Result<(), NetnsError> {
    let make = |what: &str, error: &dyn std::fmt::Display| NetnsError::Make {
        reason: format!("failed to {what}: {error}"),
    };
    // Blocked from the start, so that no child's end is missed.
    let mut children_end = SigSet::empty();
    children_end.add(Signal::SIGCHLD);
    children_end
        .thread_block()
        .map_err(|error| make("block a signal", &error))?;
    let path = lab_folder.join(HOLDER_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| make("open the holder's file", &error))?;
    let lock = lock_patiently(file, LOCK_PATIENCE)
        .map_err(|error| make("lock the holder's file (another holder lives)", &error))?;
    // The old number, if any, must not be read as ours.
    lock.set_len(0).map_err(|error| make("write", &error))?;
    build_network()?;
    // /proc belongs to the host, so it names this process as the host does.
    let own = fs::read_link("/proc/self").map_err(|error| make("read /proc/self", &error))?;
    (&*lock)
        .write_all(own.display().to_string().as_bytes())
        .map_err(|error| make("write the holder's file", &error))?;
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{READY}").and_then(|()| stdout.flush());
    leave_terminal();
    loop {
        reap();
        // An error here would make the loop spin; without SIGCHLD nothing is to be done.
        if children_end.wait().is_err() {
            thread::sleep(Duration::from_secs(1));
        }
    }
}

fn build_network() -> Result<(), NetnsError> {
    let make = |reason: String| NetnsError::Make { reason };
    for (path, value) in SYSCTLS {
        if Path::new(path).exists() {
            fs::write(path, value).map_err(|error| make(format!("{path}: {error}")))?;
        }
    }
    let mut batch = String::new();
    io::stdin()
        .read_to_string(&mut batch)
        .map_err(|error| make(format!("failed to read the network's plan: {error}")))?;
    if batch.lines().last() != Some(IP_BATCH_END) {
        return Err(make("the network's plan ends in the middle".into()));
    }
    let output = run_ip(&batch)
        .map_err(|error| make(format!("failed to run `ip` (package iproute2): {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let hint = if Path::new("/dev/net/tun").exists() {
        ""
    } else {
        "; /dev/net/tun is missing: `modprobe tun`"
    };
    Err(make(format!("ip: {}{hint}", said.trim())))
}

fn run_ip(batch: &str) -> io::Result<Output> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    ip.stdin
        .take()
        .expect("asked for above")
        .write_all(batch.as_bytes())?;
    ip.wait_with_output()
}

/// Whoever started the holder waits for the end of these.
fn leave_terminal() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// `internal-hold launch PARENT LOG -- CMD…`: starts a command in the lab and leaves it there.
/// Ends with the process it works for, which names itself: a machine that started later would be
/// in the next command's way.
pub fn launch(holder: Holder, parent: i32, log: &Path, words: &[String]) -> Result<(), NetnsError> {
    let run = |source| NetnsError::Run {
        command: words.first().cloned().unwrap_or_default(),
        source,
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(run)?;
    let _ = setsid();
    holder.enter_with_children()?;
    end_with(Pid::from_raw(parent)).map_err(run)?;
    Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(run)?)
        .stderr(log)
        .spawn()
        .map(drop)
        .map_err(run)
}

/// Ends this process with the one it works for. To be asked for after entering the lab: whoever
/// gains rights, as in a user namespace, loses the signal.
fn end_with(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // It ended before the signal was asked for.
        return Err(io::Error::other("the command it works for has ended"));
    }
    Ok(())
}

/// `internal-enter -- CMD…`: runs a command as the client machine and returns its exit status.
/// Signals of the terminal are the command's to handle; others are passed on to it.
pub fn run_inside(holder: Holder, words: &[String]) -> Result<u8, NetnsError> {
    let run = |source| NetnsError::Run {
        command: words.first().cloned().unwrap_or_default(),
        source,
    };
    holder.enter_with_children()?;
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| run(error.into()))?;
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .spawn()
        .map_err(run)?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process number"));
    loop {
        if let Some(status) = child.try_wait().map_err(run)? {
            let by_signal = || 128 + status.signal().unwrap_or(0);
            let code = status.code().unwrap_or_else(by_signal);
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
        if let Ok(signal @ (Signal::SIGTERM | Signal::SIGHUP)) = signals.wait() {
            let _ = kill(pid, signal);
        }
    }
}

/// `internal-connect ADDRESS PORT`: connects inside the lab and sends the socket over standard
/// output, as ssh's `ProxyUseFdpass` wants it.
pub fn connect_and_hand_over(holder: Holder, address: SocketAddrV4) -> Result<(), NetnsError> {
    let parent = getppid();
    holder.enter_network()?;
    end_with(parent).map_err(NetnsError::Enter)?;
    let stream = connect_inside(address)?;
    let descriptors = [stream.as_raw_fd()];
    sendmsg::<()>(
        io::stdout().as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::empty(),
        None,
    )
    .map(drop)
    .map_err(|error| NetnsError::HandOver(error.into()))
}

fn connect_inside(address: SocketAddrV4) -> Result<TcpStream, NetnsError> {
    TcpStream::connect_timeout(&address.into(), CONNECT_DEADLINE)
        .map_err(|source| NetnsError::Connect { address, source })
}

/// `internal-hold greet PARENT SECONDS ADDRESS…`: returns once an SSH server greets at each address.
/// Ends with the process it works for: it may wait for a machine that is gone, inside the lab.
pub fn await_greetings(
    holder: Holder,
    parent: i32,
    deadline: Duration,
    addresses: &[Ipv4Addr],
) -> Result<(), NetnsError> {
    holder.enter_network()?;
    end_with(Pid::from_raw(parent)).map_err(NetnsError::Enter)?;
    let end = Instant::now() + deadline;
    thread::scope(|scope| {
        let waits: Vec<_> = addresses
            .iter()
            .map(|address| {
                scope.spawn(move || await_greeting(SocketAddrV4::new(*address, 22), end))
            })
            .collect();
        waits
            .into_iter()
            .try_for_each(|wait| wait.join().expect("waiting does not panic"))
    })
}

fn await_greeting(address: SocketAddrV4, end: Instant) -> Result<(), NetnsError> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let greeting = greeting(address, left.max(BANNER_PAUSE));
        match greeting {
            Ok(()) => return Ok(()),
            Err(source) if left.is_zero() => {
                return Err(NetnsError::Connect { address, source });
            }
            Err(_) => thread::sleep(BANNER_PAUSE),
        }
    }
}

fn greeting(address: SocketAddrV4, patience: Duration) -> io::Result<()> {
    let end = Instant::now() + patience;
    let connect = patience.min(Duration::from_secs(1));
    let mut stream = TcpStream::connect_timeout(&address.into(), connect)?;
    // One that was accepted is waited for: another try would give a busy guest more to do.
    let left = end.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(left.max(BANNER_PAUSE)))?;
    let mut begin = [0; 4];
    stream.read_exact(&mut begin).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "it took the connection and said nothing",
            )
        } else {
            error
        }
    })?;
    if &begin == b"SSH-" {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what listens there is no SSH server",
        ))
    }
}

/// The command that runs this program again for a lab, in whose folder it may not be.
pub fn halab_command(lab: &str, folder: &Path) -> io::Result<Vec<String>> {
    let program: PathBuf = std::env::current_exe()?;
    Ok(vec![
        program.display().to_string(),
        "--lab".into(),
        lab.into(),
        "--dir".into(),
        folder.display().to_string(),
    ])
}
