//! `/dev/drbdN`: the name under which applications know the device.
//!
//! While the node is Secondary the name is there and leads to DRBD's own major number,
//! which nobody serves: opening it fails, as a Secondary's device does. Scripts that wait
//! for the name find it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};

/// DRBD's registered major number.
const DRBD_MAJOR: u64 = 147;

/// The name; gone with this value.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
    minor: u32,
    /// The device it leads to, while there is one.
    target: Option<PathBuf>,
}

impl Node {
    pub(super) fn new(path: &str, minor: u32) -> io::Result<Self> {
        // The module's own device of that number shows in sysfs.
        if Path::new(&format!("/sys/block/drbd{minor}")).exists() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!(
                    "the kernel's DRBD has a device of minor {minor}; take it down first (drbdsetup-84 down …)"
                ),
            ));
        }
        let mut node = Self {
            path: path.into(),
            minor,
            target: None,
        };
        node.point_nowhere()?;
        Ok(node)
    }

    /// Makes the name lead to a device's own node.
    pub(super) fn point_to(&mut self, device: &Path) -> io::Result<()> {
        let metadata = fs::metadata(device)?;
        if !metadata.file_type().is_block_device() {
            return Err(io::Error::other(format!(
                "{} is no block device",
                device.display()
            )));
        }
        self.make(metadata.rdev())?;
        self.target = Some(device.to_owned());
        Ok(())
    }

    pub(super) fn point_nowhere(&mut self) -> io::Result<()> {
        self.target = None;
        self.make(makedev(DRBD_MAJOR, u64::from(self.minor)))
    }

    fn make(&self, device: u64) -> io::Result<()> {
        if let Ok(metadata) = fs::symlink_metadata(&self.path) {
            if !metadata.file_type().is_block_device() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} is there and is no block device", self.path.display()),
                ));
            }
            if metadata.rdev() == device {
                return Ok(());
            }
            fs::remove_file(&self.path)?;
        } else if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mode = Mode::from_bits_truncate(0o660);
        mknod(&self.path, SFlag::S_IFBLK, mode, device)?;
        Ok(())
    }

    /// Whether somebody but this program holds the device open, or something in the
    /// kernel stands on it.
    pub(super) fn in_use(&self) -> bool {
        let device = self.target.as_deref();
        device.is_some_and(|device| is_claimed(device) || is_open(device))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Mounted anywhere, swapped to, or part of another device. Asking by an exclusive open
/// would be shorter, and would make a mount at the same moment fail.
fn is_claimed(device: &Path) -> bool {
    let Ok(number) = fs::metadata(device).map(|metadata| metadata.rdev()) else {
        return false;
    };
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let holders = fs::read_dir(format!("/sys/block/{name}/holders"));
    if holders.is_ok_and(|mut holders| holders.next().is_some()) {
        return true;
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps
        .lines()
        .any(|line| line.starts_with(&*device.to_string_lossy()))
    {
        return true;
    }
    let field = format!(" {}:{} ", major(number), minor(number));
    let mut seen = HashSet::new();
    processes()
        .filter(|process| {
            // Processes share their mounts; one of each is enough.
            fs::read_link(process.join("ns/mnt")).is_ok_and(|namespace| seen.insert(namespace))
        })
        .filter_map(|process| fs::read_to_string(process.join("mountinfo")).ok())
        .any(|mounts| mounts.contains(&field))
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy()
                .starts_with(|char: char| char.is_ascii_digit())
        })
        .map(|entry| entry.path())
}

/// Whether any other process has the device open.
fn is_open(device: &Path) -> bool {
    let Ok(wanted) = fs::metadata(device).map(|metadata| metadata.rdev()) else {
        return false;
    };
    let own = PathBuf::from(format!("/proc/{}", std::process::id()));
    processes()
        .filter(|process| *process != own)
        .flat_map(|process| {
            fs::read_dir(process.join("fd"))
                .into_iter()
                .flatten()
                .flatten()
        })
        .filter_map(|descriptor| fs::metadata(descriptor.path()).ok())
        .any(|metadata| metadata.file_type().is_block_device() && metadata.rdev() == wanted)
}
