//! Looks at the host: who runs halab, and what is there. Decides nothing; [`super::doctor`] does.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::apt::{self, AptSource, OsRelease};
use super::doctor::{self, HostFacts};
use super::image::Image;
use super::kvm;
use super::progress::Progress;

/// Where system programs lie that an ordinary user's search path leaves out.
const SYSTEM_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Tells whether this process has root's rights.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The user's search path, with the system's folders behind it.
pub fn search_path() -> OsString {
    match env::var_os("PATH") {
        Some(mut path) if !path.is_empty() => {
            path.push(":");
            path.push(SYSTEM_PATHS);
            path
        }
        _ => SYSTEM_PATHS.into(),
    }
}

pub fn os_release() -> OsRelease {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    OsRelease::parse(&text)
}

/// Reads apt's sources; a file that cannot be read is as good as none.
pub fn apt_sources() -> Vec<AptSource> {
    let mut sources = apt::parse_list(&read("/etc/apt/sources.list"));
    let entries = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(apt::parse_list(&read(&file))),
            Some("sources") => sources.extend(apt::parse_deb822(&read(&file))),
            _ => {}
        }
    }
    sources
}

/// The mirror this machine's own apt uses, where that has Debian's packages.
pub fn debian_mirror() -> String {
    apt::debian_mirror(&os_release(), &apt_sources())
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Looks at everything that [`super::doctor`] judges, KVM and QEMU with the help of what is remembered.
pub fn examine(cache_dir: &Path, image: &Image, progress: &dyn Progress) -> HostFacts {
    let qemu = find_program(doctor::QEMU).and_then(|path| kvm::Binary::at(&path));
    let is_built = image.is_built();
    let mut memory = kvm::Memory::load(cache_dir);
    let kvm = memory.kvm(qemu.as_ref(), is_built.then_some(image), progress);
    HostFacts {
        is_root: is_root(),
        user: user_name(),
        os: os_release(),
        missing_programs: doctor::PROGRAMS
            .iter()
            .map(|program| program.name)
            .filter(|name| find_program(name).is_none())
            .collect(),
        qemu: qemu.as_ref().map(|binary| memory.qemu_says(binary)),
        kvm,
        has_debian_keyring: Path::new(doctor::DEBIAN_KEYRING).exists(),
        memory_bytes: available_memory(&read("/proc/meminfo")),
        disk_bytes: free_disk(cache_dir),
        cache_dir: cache_dir.to_owned(),
        image_is_built: is_built,
        namespaces: try_namespaces(),
        tun: opens("/dev/net/tun"),
    }
}

/// Finds a program on the search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| {
            fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
        })
}

/// Opens a device for reading and writing, as QEMU will.
pub(super) fn opens(path: &str) -> Result<(), String> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Makes the kinds of namespaces that a lab and an image build live in, for a moment.
fn try_namespaces() -> Result<(), String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--pid", "--fork"]);
    if !is_root() {
        unshare.args(["--user", "--map-root-user", "--map-auto"]);
    }
    let output = unshare
        .args(["--", "true"])
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("unshare does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().last().unwrap_or("unshare failed").to_owned())
}

/// The user's name without asking a name service: the programs are linked statically.
fn user_name() -> String {
    let own = fs::metadata("/proc/self")
        .map_or(0, |own| own.uid())
        .to_string();
    read("/etc/passwd")
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&own.as_str()))
        .and_then(|fields| fields.first().map(|&name| name.to_owned()))
        .unwrap_or(own)
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let (_, rest) = meminfo.split_once("MemAvailable:")?;
    let kibibytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Asks `df`, for the nearest folder above that is there already.
fn free_disk(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|folder| folder.exists())?;
    let output = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(there)
        .env("LC_ALL", "C")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .nth(1)?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_what_programs_can_have() {
        let text = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:   8000 kB\n";
        assert_eq!(available_memory(text), Some(8000 * 1024));
        assert_eq!(available_memory("MemTotal: 1 kB\n"), None);
    }
}
