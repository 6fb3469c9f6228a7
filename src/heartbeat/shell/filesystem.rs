//! The resource `Filesystem::DEVICE::FOLDER::TYPE[::OPTIONS]`: a mount.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Who uses the folder is asked to end so many times, then made to.
const TERM_ROUNDS: u32 = 3;
const KILL_ROUNDS: u32 = 3;

/// Between two attempts to unmount: a process needs time to end.
const ROUND: Duration = Duration::from_millis(300);

/// What is to be mounted.
#[derive(Debug)]
pub(super) struct Filesystem {
    device: PathBuf,
    folder: PathBuf,
    kind: String,
    options: Vec<String>,
}

impl Filesystem {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let [device, folder, rest @ ..] = arguments else {
            return Err("Filesystem needs a device and a folder".into());
        };
        Ok(Self {
            device: device.into(),
            folder: folder.into(),
            kind: rest.first().cloned().unwrap_or_else(|| "auto".into()),
            options: rest
                .get(1)
                .map(|options| options.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
        })
    }

    pub(super) fn is_mounted(&self) -> io::Result<bool> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let device = fs::canonicalize(&self.device).unwrap_or_else(|_| self.device.clone());
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        Ok(mounts.lines().any(|line| {
            let mut words = line.split(' ').map(unescape);
            words
                .next()
                .is_some_and(|word| word == self.device || word == device)
                && words.next().is_some_and(|word| word == folder)
        }))
    }

    pub(super) fn start(&self) -> io::Result<()> {
        if self.is_mounted()? {
            return Ok(());
        }
        if !self.folder.is_dir() {
            return Err(io::Error::other(format!(
                "{} is no folder",
                self.folder.display()
            )));
        }
        let (flags, data) = split_options(&self.options);
        let data = (!data.is_empty()).then_some(data.as_str());
        for kind in self.kinds()? {
            match mount(
                Some(&self.device),
                &self.folder,
                Some(kind.as_str()),
                flags,
                data,
            ) {
                Ok(()) => return Ok(()),
                // Of another type: the next may fit.
                Err(Errno::EINVAL) if self.kind == "auto" => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(format!(
            "no file system known to the kernel on {}",
            self.device.display()
        )))
    }

    /// Unmounts; processes that use the folder are ended first.
    pub(super) fn stop(&self) -> io::Result<()> {
        for round in 0..=TERM_ROUNDS + KILL_ROUNDS {
            if !self.is_mounted()? {
                return Ok(());
            }
            match umount2(&self.folder, MntFlags::empty()) {
                Ok(()) => continue,
                Err(Errno::EBUSY) => {}
                Err(error) => return Err(error.into()),
            }
            let signal = if round < TERM_ROUNDS {
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            };
            for pid in users_of(&self.folder) {
                // It may have ended meanwhile.
                let _ = kill(pid, signal);
            }
            thread::sleep(ROUND);
        }
        if self.is_mounted()? {
            return Err(Errno::EBUSY.into());
        }
        Ok(())
    }

    fn kinds(&self) -> io::Result<Vec<String>> {
        if self.kind != "auto" {
            return Ok(vec![self.kind.clone()]);
        }
        let known = fs::read_to_string("/proc/filesystems")?;
        let on_disks = known.lines().filter(|line| !line.starts_with("nodev"));
        Ok(on_disks.map(|line| line.trim().to_owned()).collect())
    }
}

/// Undoes the octal escapes of `/proc/mounts`.
fn unescape(word: &str) -> PathBuf {
    let mut text = word.to_owned();
    for (escape, letter) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        text = text.replace(escape, letter);
    }
    text.into()
}

/// Parts the flags of mount(2) from the options that the file system reads itself.
fn split_options(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "defaults" | "rw" | "" | "auto" | "noauto" => {}
            "ro" => flags |= MsFlags::MS_RDONLY,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// Returns the processes that run in, run from or have open what is in a folder.
fn users_of(folder: &Path) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id().to_string();
    processes
        .flatten()
        .filter(|process| process.file_name().to_string_lossy() != own)
        .filter_map(|process| {
            let pid: i32 = process.file_name().to_str()?.parse().ok()?;
            uses(&process.path(), folder).then(|| Pid::from_raw(pid))
        })
        .collect()
}

fn uses(process: &Path, folder: &Path) -> bool {
    let links = ["cwd", "root", "exe"].map(|name| process.join(name));
    let open = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    links
        .into_iter()
        .chain(open.map(|entry| entry.path()))
        .any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Filesystem {
        let arguments: Vec<String> = text.split("::").map(str::to_owned).collect();
        Filesystem::parse(&arguments).expect("a mount")
    }

    #[test]
    fn options_are_parted_between_kernel_and_file_system() {
        let wanted = parse("/dev/drbd0::/var/www::ext4::noatime,ro,errors=panic");
        let (flags, data) = split_options(&wanted.options);
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY);
        assert_eq!(data, "errors=panic");
    }

    #[test]
    fn what_is_mounted_is_seen() {
        assert!(
            parse("proc::/proc::proc")
                .is_mounted()
                .expect("/proc/mounts is readable")
        );
        assert!(
            !parse("proc::/nowhere::proc")
                .is_mounted()
                .expect("/proc/mounts is readable")
        );
    }

    #[test]
    fn too_few_words_are_refused() {
        let error = Filesystem::parse(&["/dev/sdb1".into()]).expect_err("no folder");
        assert_eq!(error, "Filesystem needs a device and a folder");
    }

    #[test]
    fn a_process_that_stands_in_a_folder_uses_it() {
        let here = std::env::current_dir().expect("a current folder");
        assert!(uses(Path::new("/proc/self"), &here));
        assert!(!uses(Path::new("/proc/self"), Path::new("/nowhere")));
    }
}
