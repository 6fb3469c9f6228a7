//! `cat /proc/drbd`: a file system of one file, mounted over the module's own entry.
//!
//! Nobody but a kernel module can make an entry in /proc, and nothing can be mounted where
//! there is none. So the distribution's module is loaded for its entry alone, and a small
//! process answers reads of a file mounted over it, by FUSE: each open asks the daemons,
//! so the text is never old and costs nothing while nobody reads. A plain file bound there
//! would need somebody to rewrite it every moment, and a pipe would hang its readers when
//! its writer is gone. Without the module (or FUSE) the text is `halab-agent drbd proc`'s.
//!
//! Unloading the module, as the init script does when it stops, takes the mount with it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::command::complain;
use super::daemon;
use crate::replica::control::{SOCKET_DIR, Status};
use crate::replica::text::proc::proc_text;

const ENTRY: &str = "/proc/drbd";
/// Stands as the mount's source, by which it is known.
const SOURCE: &str = "halab-agent";

const MOUNT_WAIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// The largest request: the kernel asks for this much room.
const REQUEST_BYTES_MAX: usize = 1 << 17;
/// A list of devices is far below it; more open files than this nobody has.
const OPEN_MAX: usize = 1024;

/// Returns the text that `/proc/drbd` shows.
pub(super) fn text() -> String {
    let program = format!("halab-agent {}", env!("CARGO_PKG_VERSION"));
    proc_text(&statuses(), &program)
}

/// Asks every daemon there is.
pub(super) fn statuses() -> Vec<Status> {
    resources()
        .iter()
        .filter_map(|resource| daemon::status(resource))
        .collect()
}

fn resources() -> Vec<String> {
    let entries = fs::read_dir(SOCKET_DIR).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            Some(
                entry
                    .file_name()
                    .to_str()?
                    .strip_suffix(".sock")?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    names
}

/// Makes `/proc/drbd` show ours; says so where it cannot.
pub(super) fn show() {
    if is_mounted() {
        return;
    }
    if !Path::new(ENTRY).exists() {
        let _ = Process::new("modprobe").args(["-q", "drbd"]).status();
    }
    let started = Path::new(ENTRY).exists() && start_server().is_ok();
    if !started {
        complain(
            "note: /proc/drbd cannot be shown on this machine (it needs the drbd module for the name, and FUSE); `halab-agent drbd proc` prints its text",
        );
    }
}

fn start_server() -> io::Result<()> {
    let program = std::env::current_exe()?;
    Process::new("setsid")
        .arg("--fork")
        .arg(program)
        .args(["drbd", "proc", "serve"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let deadline = Instant::now() + MOUNT_WAIT;
    while !is_mounted() {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Shows the module's own entry again once no daemon is left.
pub(super) fn hide_when_unused() {
    if resources().is_empty() && is_mounted() {
        let _ = umount2(ENTRY, MntFlags::MNT_DETACH);
    }
}

fn is_mounted() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.contains(&format!("{SOURCE} {ENTRY} fuse "))
}

/// Mounts the file and answers until it is unmounted.
pub(super) fn serve() -> u8 {
    match serve_requests() {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("{ENTRY}: {error}"));
            1
        }
    }
}

fn serve_requests() -> io::Result<()> {
    let mut device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=100444,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some(SOURCE),
        ENTRY,
        Some("fuse"),
        flags,
        Some(options.as_str()),
    )?;
    let mut files = Files::default();
    let mut request = vec![0; REQUEST_BYTES_MAX];
    loop {
        let len = match device.read(&mut request) {
            Ok(len) => len,
            // Unmounted.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        files.answer(&mut device, &request[..len])?;
    }
}

/// The files that are open, each with the text of its moment.
#[derive(Default)]
struct Files {
    open: HashMap<u64, String>,
    next: u64,
}

// What the kernel asks, of which this file system knows only some.
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
/// Of an open file: reads come here, not to a cache.
const DIRECT_IO: u32 = 1;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

/// len u32, operation u32, unique u64, node u64, and who asks.
const HEADER_BYTES: usize = 40;

impl Files {
    fn answer(&mut self, device: &mut File, request: &[u8]) -> io::Result<()> {
        let u32_at = |at: usize| {
            let bytes = request
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let unique = u64_at(8);
        let reply = match u32_at(4) {
            FORGET | BATCH_FORGET | INTERRUPT => return Ok(()),
            INIT => Ok(init()),
            GETATTR => Ok(attributes()),
            OPEN if self.open.len() < OPEN_MAX => {
                self.next += 1;
                self.open.insert(self.next, text());
                let mut bytes = self.next.to_ne_bytes().to_vec();
                bytes.extend(DIRECT_IO.to_ne_bytes());
                bytes.extend(0u32.to_ne_bytes());
                Ok(bytes)
            }
            OPEN => Err(libc::EMFILE),
            READ => {
                let text = self
                    .open
                    .get(&u64_at(HEADER_BYTES))
                    .map_or("", String::as_str);
                let start = usize::try_from(u64_at(HEADER_BYTES + 8)).unwrap_or(usize::MAX);
                let size = usize::try_from(u32_at(HEADER_BYTES + 16)).unwrap_or(0);
                let rest = text.as_bytes().get(start..).unwrap_or(&[]);
                Ok(rest[..rest.len().min(size)].to_vec())
            }
            RELEASE => {
                self.open.remove(&u64_at(HEADER_BYTES));
                Ok(Vec::new())
            }
            DESTROY => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        };
        let (error, body) = match reply {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let len = u32::try_from(16 + body.len()).expect("answers are small");
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(i32::to_ne_bytes(error));
        bytes.extend(unique.to_ne_bytes());
        bytes.extend(body);
        match device.write_all(&bytes) {
            // Whoever asked does not wait any more.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

/// Version 7.31, nothing optional.
fn init() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for value in [7u32, 31, 0, 0, 0, 4096, 1] {
        bytes.extend(value.to_ne_bytes());
    }
    bytes.resize(64, 0);
    bytes
}

/// A file that everybody may read; its size is not known before it is.
fn attributes() -> Vec<u8> {
    const MODE: u32 = 0o100_444;
    let mut bytes = vec![0; 104];
    // Valid for a second; node 1.
    bytes[0..8].copy_from_slice(&1u64.to_ne_bytes());
    bytes[16..24].copy_from_slice(&1u64.to_ne_bytes());
    bytes[76..80].copy_from_slice(&MODE.to_ne_bytes());
    bytes[80..84].copy_from_slice(&1u32.to_ne_bytes());
    bytes[96..100].copy_from_slice(&4096u32.to_ne_bytes());
    bytes
}
