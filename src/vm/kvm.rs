//! Proves that KVM runs a guest, and remembers the answer.
//!
//! `/dev/kvm` may open, make a virtual machine and a processor, and still never run a guest, as
//! where one hypervisor hides inside another. So a guest is started: a boot sector that ends QEMU
//! with a code of its own, and once there is an image, its kernel up to the first process.
//!
//! The answer is kept for this boot of the host and this QEMU, so that neither a new kernel, a
//! change in the firmware nor an upgrade leaves a stale one behind.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::doctor::KvmFact;
use super::image::Image;
use super::probe;
use super::progress::Progress;
use super::spec::Accelerator;

/// A boot sector ends in a fifth of a second even when it is emulated; a busy host is not a broken one.
const SECTOR_DEADLINE: Duration = Duration::from_secs(10);

/// A kernel under KVM reaches its first process in a second or two.
const KERNEL_DEADLINE: Duration = Duration::from_secs(20);

/// How often a starting guest is looked at.
const POLL_PERIOD: Duration = Duration::from_millis(20);

/// What the boot sector writes to the exit port.
const EXIT_VALUE: u8 = 0x2a;

/// What QEMU then ends with: its exit device doubles the value and adds one.
const EXIT_CODE: i32 = 0x2a * 2 + 1;

/// Writes [`EXIT_VALUE`] to port 0xf4, then halts for good:
/// `mov dx, 0xf4; mov al, 0x2a; out dx, al; cli; hlt; jmp $-1`.
const SECTOR_CODE: [u8; 10] = [
    0xba, 0xf4, 0x00, 0xb0, EXIT_VALUE, 0xee, 0xfa, 0xf4, 0xeb, 0xfd,
];

/// What the kernel says when it hands over to the first process.
const KERNEL_IS_UP: &str = "Run /init as init process";

/// A program file, as told apart from the one an upgrade puts in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binary {
    path: PathBuf,
    bytes: u64,
    modified_ns: i64,
    inode: u64,
}

impl Binary {
    pub(super) fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            bytes: found.len(),
            modified_ns: found.mtime() * 1_000_000_000 + found.mtime_nsec(),
            inode: found.ino(),
        })
    }
}

/// What was learnt of this host at some cost.
#[derive(Debug, Default)]
pub(super) struct Memory {
    cache_dir: PathBuf,
    known: Known,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    qemu: Option<KnownQemu>,
    kvm: Option<KnownKvm>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownQemu {
    binary: Binary,
    says: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownKvm {
    binary: Binary,
    /// The host's own boot in which it was tried.
    boot: String,
    /// The image whose kernel ran; `None` when only the boot sector did.
    image: Option<String>,
    /// Why no guest runs; `None` when one did.
    broken: Option<String>,
}

impl Memory {
    /// A file that is damaged or of another version is as good as none.
    pub(super) fn load(cache_dir: &Path) -> Self {
        let known = fs::read(memory_file(cache_dir))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            cache_dir: cache_dir.to_owned(),
            known,
        }
    }

    /// Not being able to remember costs a second the next time, and nothing else.
    fn save(&self) {
        let file = memory_file(&self.cache_dir);
        let unfinished = file.with_extension(format!("json.{}", process::id()));
        let written = serde_json::to_vec(&self.known)
            .map_err(io::Error::from)
            .and_then(|bytes| {
                fs::create_dir_all(&self.cache_dir)?;
                fs::write(&unfinished, bytes)
            })
            .and_then(|()| fs::rename(&unfinished, &file));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
    }

    /// Returns the first line of `--version`, or what went wrong instead.
    pub(super) fn qemu_says(&mut self, binary: &Binary) -> String {
        if let Some(known) = &self.known.qemu
            && known.binary == *binary
        {
            return known.says.clone();
        }
        let output = Command::new(&binary.path)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let says = match output {
            Err(error) => return error.to_string(),
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text);
                text.lines().next().unwrap_or_default().to_owned()
            }
        };
        self.known.qemu = Some(KnownQemu {
            binary: binary.clone(),
            says: says.clone(),
        });
        self.save();
        says
    }

    /// Tells whether guests run under KVM, by the image's kernel where there is an image.
    ///
    /// Takes as long as [`SECTOR_DEADLINE`] and [`KERNEL_DEADLINE`] once in a boot of the host.
    pub(super) fn kvm(
        &mut self,
        qemu: Option<&Binary>,
        image: Option<&Image>,
        progress: &dyn Progress,
    ) -> KvmFact {
        if !Path::new("/dev/kvm").exists() {
            return KvmFact::Absent;
        }
        if let Err(reason) = probe::opens("/dev/kvm") {
            return KvmFact::Denied(reason);
        }
        let Some(qemu) = qemu else {
            return KvmFact::Untried;
        };
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known =
            self.known.kvm.as_ref().filter(|known| {
                known.binary == *qemu && known.boot == boot && known.answers(image)
            });
        if let Some(known) = known {
            return known.fact();
        }
        progress.step("trying whether KVM runs a guest");
        let outcome = try_guest(qemu, image, Accelerator::Kvm);
        progress.done();
        let known = KnownKvm {
            binary: qemu.clone(),
            boot,
            image: image.map(|image| image.hash.clone()),
            broken: outcome.err(),
        };
        let fact = known.fact();
        self.known.kvm = Some(known);
        self.save();
        fact
    }
}

fn memory_file(cache_dir: &Path) -> PathBuf {
    cache_dir.join("host.json")
}

impl KnownKvm {
    /// Where the boot sector did not run, no kernel will; where it did, the kernel still has to.
    fn answers(&self, image: Option<&Image>) -> bool {
        self.broken.is_some()
            || image.is_none_or(|image| self.image.as_deref() == Some(image.hash.as_str()))
    }

    fn fact(&self) -> KvmFact {
        match &self.broken {
            Some(reason) => KvmFact::Broken(reason.clone()),
            None => KvmFact::Works,
        }
    }
}

/// Boots the sector, then the kernel. An error says in words what happened instead.
fn try_guest(qemu: &Binary, image: Option<&Image>, accelerator: Accelerator) -> Result<(), String> {
    let folder = Scratch::new().map_err(|error| format!("there is no room to try: {error}"))?;
    boot_sector(qemu, accelerator, &folder)?;
    match image {
        Some(image) => boot_kernel(qemu, accelerator, &folder, image),
        None => Ok(()),
    }
}

fn boot_sector(qemu: &Binary, accelerator: Accelerator, folder: &Scratch) -> Result<(), String> {
    let disk = folder.path.join("sector");
    fs::write(&disk, sector()).map_err(|error| format!("there is no room to try: {error}"))?;
    let mut command = qemu_command(qemu, accelerator, folder);
    command
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .args(["-device", "virtio-blk-pci,drive=sector"])
        .arg("-drive")
        .arg(format!(
            "if=none,id=sector,format=raw,readonly=on,file={}",
            escaped(&disk)
        ));
    let mut guest = Guest::start(command)?;
    match guest.wait(SECTOR_DEADLINE, || false)? {
        Ended::Exit(status) if status.code() == Some(EXIT_CODE) => Ok(()),
        Ended::Exit(_) => Err(folder.complaint()),
        Ended::Seen | Ended::Deadline => Err(format!(
            "a boot sector did not run within {} s",
            SECTOR_DEADLINE.as_secs()
        )),
    }
}

fn boot_kernel(
    qemu: &Binary,
    accelerator: Accelerator,
    folder: &Scratch,
    image: &Image,
) -> Result<(), String> {
    let serial = folder.path.join("serial");
    let mut command = qemu_command(qemu, accelerator, folder);
    command
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", "console=ttyS0 panic=-1 root=/dev/none"])
        .arg("-serial")
        .arg(format!("file:{}", escaped(&serial)));
    let mut guest = Guest::start(command)?;
    let is_up = || {
        fs::read(&serial).is_ok_and(|said| String::from_utf8_lossy(&said).contains(KERNEL_IS_UP))
    };
    match guest.wait(KERNEL_DEADLINE, is_up)? {
        Ended::Seen => Ok(()),
        Ended::Exit(_) => Err(folder.complaint()),
        Ended::Deadline => Err(format!(
            "the machines' kernel did not come up within {} s",
            KERNEL_DEADLINE.as_secs()
        )),
    }
}

/// A disk that begins with the boot sector; the firmware passes over anything smaller than a track.
fn sector() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[..SECTOR_CODE.len()].copy_from_slice(&SECTOR_CODE);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// The machine type and processor of the lab's machines, and nothing else.
fn qemu_command(qemu: &Binary, accelerator: Accelerator, folder: &Scratch) -> Command {
    let errors = fs::File::create(folder.errors()).map_or_else(|_| Stdio::null(), Stdio::from);
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(&qemu.path)
        .args(["-machine", "q35"])
        .args(["-accel", &accelerator.to_string()])
        .args(["-cpu", cpu_model(accelerator)])
        .args(["-m", "256", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot"])
        .env("PATH", probe::search_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
    command
}

/// The processor that the lab's machines get.
fn cpu_model(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "max",
    }
}

/// In an option's value QEMU reads a doubled comma as one.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// A QEMU that does not outlive its value.
struct Guest(Child);

enum Ended {
    Exit(ExitStatus),
    /// What was waited for is there.
    Seen,
    Deadline,
}

impl Guest {
    fn start(mut command: Command) -> Result<Self, String> {
        command
            .spawn()
            .map(Self)
            .map_err(|error| format!("QEMU does not start: {error}"))
    }

    fn wait(&mut self, deadline: Duration, is_seen: impl Fn() -> bool) -> Result<Ended, String> {
        let started = Instant::now();
        loop {
            let exited = self.0.try_wait().map_err(|error| error.to_string())?;
            // A guest may say what is waited for and end before the next look.
            if is_seen() {
                return Ok(Ended::Seen);
            }
            if let Some(status) = exited {
                return Ok(Ended::Exit(status));
            }
            if started.elapsed() > deadline {
                return Ok(Ended::Deadline);
            }
            thread::sleep(POLL_PERIOD);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder for one trial.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("halab-kvm-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    fn errors(&self) -> PathBuf {
        self.path.join("errors")
    }

    /// What QEMU complained of first: what follows is the consequence.
    fn complaint(&self) -> String {
        let said = fs::read_to_string(self.errors()).unwrap_or_default();
        said.lines()
            .find(|line| !line.trim().is_empty() && !line.contains("warning:"))
            .map_or_else(
                || "QEMU ended without a word".to_owned(),
                |line| {
                    line.trim_start_matches("qemu-system-x86_64: ")
                        .trim_start_matches("error: ")
                        .to_owned()
                },
            )
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(image: Option<&str>, broken: Option<&str>) -> KnownKvm {
        KnownKvm {
            binary: Binary {
                path: "/q".into(),
                bytes: 1,
                modified_ns: 1,
                inode: 1,
            },
            boot: "b".into(),
            image: image.map(str::to_owned),
            broken: broken.map(str::to_owned),
        }
    }

    #[test]
    fn a_boot_sector_says_nothing_of_the_kernel_unless_it_failed() {
        let image = Image::in_cache(Path::new("/c"), "new");
        assert!(!remembered(None, None).answers(Some(&image)));
        assert!(!remembered(Some("old"), None).answers(Some(&image)));
        assert!(remembered(Some("new"), None).answers(Some(&image)));
        assert!(remembered(None, Some("hangs")).answers(Some(&image)));
        assert!(remembered(Some("old"), None).answers(None));
    }

    #[test]
    fn the_boot_sector_runs_where_qemu_is() {
        let Some(qemu) = probe::find_program(super::super::doctor::QEMU) else {
            return;
        };
        let binary = Binary::at(&qemu).expect("it was found just now");
        assert_eq!(try_guest(&binary, None, Accelerator::Tcg), Ok(()));
    }

    #[test]
    fn damaged_memory_is_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("host.json"), "{").expect("written");
        assert!(Memory::load(dir.path()).known.kvm.is_none());
    }
}
