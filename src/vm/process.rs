//! Processes as the kernel shows them, and the sockets they listen on.
//!
//! What runs in a lab is never remembered, only looked up: everything of a lab is in the lab's
//! own process namespace, so `/proc` tells it whole and true, whoever died in between.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Between two tries of something that takes a few milliseconds.
const POLL: Duration = Duration::from_millis(2);
/// `sun_path` less its ending zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// One process of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabProcess {
    pub pid: i32,
    pub words: Vec<String>,
}

impl LabProcess {
    /// Returns the machine's name, when this is a machine's QEMU, or becomes it: between its
    /// making and QEMU's beginning it still has the words of the launcher.
    pub fn machine(&self) -> Option<&str> {
        let is_launcher = self
            .words
            .windows(2)
            .any(|pair| pair == ["internal-hold", "launch"]);
        if !is_launcher && !self.words.first()?.contains("qemu-system") {
            return None;
        }
        let at = self.words.iter().position(|word| word == "-name")?;
        self.words.get(at + 1)?.strip_prefix("guest=")
    }
}

/// Returns the processes in the same process namespace as `init`, itself left out.
pub fn in_namespace_of(init: i32) -> Vec<LabProcess> {
    let Ok(namespace) = fs::read_link(format!("/proc/{init}/ns/pid")) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != init)
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|each| each == namespace)
        })
        .filter_map(|pid| {
            // A process that has ended and waits for its parent has no words.
            let words = command_words(pid)?;
            Some(LabProcess { pid, words })
        })
        .collect()
}

fn command_words(pid: i32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    (words.len() > 1).then_some(words)
}

/// Returns how long a process has been there and what it holds of memory, in KiB.
pub fn age_and_memory(pid: i32) -> Option<(Duration, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    Some((age(&stat, &uptime)?, resident))
}

/// Works a process's age out of `/proc/PID/stat` and `/proc/uptime`.
fn age(stat: &str, uptime: &str) -> Option<Duration> {
    // The kernel shows times to programs in hundredths of a second on every architecture.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The name may hold anything, so what follows is counted from its closing bracket:
    // the start is word 22 of the line, word 20 after the name.
    let (_, after_name) = stat.rsplit_once(')')?;
    let start: f64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs_f64(
        (uptime - start / TICKS_PER_SECOND).max(0.0),
    ))
}

/// Tells whether a process has ended with its last thread: it holds nothing any more, and whoever
/// should take note of its end may take seconds.
pub fn has_ended(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| is_dead(&stat))
}

/// Reads from `/proc/PID/stat` that no thread is left but a first one that has ended, or that is
/// being taken apart.
fn is_dead(stat: &str) -> bool {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut words = after_name.split_whitespace();
    let state = words.next();
    // The number of threads is word 20 of the line.
    let threads = words.nth(16);
    matches!(state, Some("Z" | "X")) && matches!(threads, Some("0" | "1"))
}

/// Kills processes and waits until they are gone: with their last thread, for until then they
/// hold their files and cables.
pub fn kill_and_wait(pids: &[i32], deadline: Duration) -> io::Result<()> {
    for pid in pids {
        match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    wait_for_end(pids, deadline)
}

/// Waits until processes are gone.
pub fn wait_for_end(pids: &[i32], deadline: Duration) -> io::Result<()> {
    let end = Instant::now() + deadline;
    let left = |end: Instant| end.saturating_duration_since(Instant::now());
    if pids.iter().all(|pid| ends_within(*pid, left(end))) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "a process that should have ended is still there",
    ))
}

/// Waits for the end of a process; tells whether it came in time.
pub fn ends_within(pid: i32, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while !has_ended(pid) {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// Connects to a unix socket, waiting for it to be there and to listen.
pub fn connect_socket(socket: &Path, deadline: Duration) -> io::Result<UnixStream> {
    let end = Instant::now() + deadline;
    loop {
        match connect_once(socket) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) && Instant::now() < end =>
            {
                thread::sleep(POLL);
            }
            other => return other,
        }
    }
}

/// A socket's path must be short; through a descriptor of its folder any is.
fn connect_once(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(socket);
    }
    let folder = fs::File::open(socket.parent().unwrap_or_else(|| Path::new(".")))?;
    let short: PathBuf = ["/proc/self/fd", &folder.as_raw_fd().to_string()]
        .iter()
        .collect();
    UnixStream::connect(short.join(socket.file_name().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_machine_is_known_by_its_name() {
        let process = |words: &[&str]| LabProcess {
            pid: 2,
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        let qemu = process(&["/usr/bin/qemu-system-x86_64", "-name", "guest=vm-1", "-S"]);
        assert_eq!(qemu.machine(), Some("vm-1"));
        assert_eq!(process(&["bash", "-name", "guest=vm-1"]).machine(), None);
        let launch = ["halab", "internal-hold", "launch", "7", "log", "--"];
        let begins = [&launch[..], &["qemu-system-x86_64", "-name", "guest=vm-1"]].concat();
        assert_eq!(process(&begins).machine(), Some("vm-1"));
    }

    #[test]
    fn a_socket_below_a_long_path_is_reached() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).expect("created");
        let folder = fs::File::open(&deep).expect("opened");
        let short = format!("/proc/self/fd/{}/s.sock", folder.as_raw_fd());
        let _listener = UnixListener::bind(short).expect("bound");
        let connected = connect_socket(&deep.join("s.sock"), Duration::ZERO);
        assert!(connected.is_ok(), "{connected:?}");
    }

    #[test]
    fn a_process_is_as_old_as_the_kernel_says() {
        let stat = format!("7 (a) b) S {} 150000 0 0", ["0"; 18].join(" "));
        assert_eq!(
            age(&stat, "1512.50 9.9"),
            Some(Duration::from_secs_f64(12.5))
        );
        assert_eq!(age("", "1.0"), None);
    }

    #[test]
    fn a_process_nobody_takes_note_of_has_ended() {
        let mut child = std::process::Command::new("true").spawn().expect("runs");
        let pid = i32::try_from(child.id()).expect("a process number");
        while !has_ended(pid) {
            thread::sleep(POLL);
        }
        child.wait().expect("its end was kept");
        assert!(has_ended(pid));
        let rest = format!("{} 1 0", ["0"; 16].join(" "));
        assert!(is_dead(&format!("7 (a) Z) Z {rest}")));
        assert!(!is_dead(&format!("7 (a) Z) S {rest}")));
    }

    #[test]
    fn a_process_is_awaited_to_its_last_thread_and_no_longer() {
        let stat = |state: &str, threads: &str| {
            format!(
                "7 (qemu) {state} {} {threads} 0 150000",
                ["0"; 16].join(" ")
            )
        };
        assert!(is_dead(&stat("Z", "1")) && is_dead(&stat("X", "0")));
        assert!(!is_dead(&stat("Z", "2")) && !is_dead(&stat("S", "1")));
        let child = std::process::Command::new("true").spawn().expect("runs");
        let pid = i32::try_from(child.id()).expect("a process number");
        // Nobody takes note of its end.
        assert!(ends_within(pid, Duration::from_secs(60)));
        drop(child);
    }

    #[test]
    fn this_process_is_not_in_a_namespace_of_nobody() {
        assert_eq!(in_namespace_of(-1), []);
    }
}
