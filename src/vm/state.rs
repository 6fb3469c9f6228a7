//! The lab's folder: what is in it, what is recorded, and who may change it.
//!
//! ```text
//! $XDG_STATE_HOME/halab/LAB/
//!   lab.json        the record: disks' layers, faults; written before QEMU is told
//!   lock  holder    who works on the lab; process 1 of its namespaces
//!   ssh_config known_hosts id_ed25519[.pub] host_keys/VM[.pub]
//!   disks/          layers; base.qcow2 is the image
//!   machines/VM/    sockets, serial.log, qemu.log, credentials
//!   snapshots/NAME/ manifest.json, VM.ram
//!   forwards/PID    open forwards, each locked by its process
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::argv::{DISKS_FOLDER, machine_folder};
use super::layers::Layers;
use super::lifecycle::{EndedBy, MachineState};
use super::spec::Accelerator;
use crate::playbook::exercise::Done;

const RECORD_FILE: &str = "lab.json";
const LOCK_FILE: &str = "lock";
/// Raised when the record's meaning changes.
const RECORD_VERSION: u32 = 1;
/// A look at the lock takes microseconds; a second command may be told a tenth of a second later.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);
const LOCK_POLL: Duration = Duration::from_millis(1);
/// A unix socket's path has 107 bytes; ssh and the openssh crate add this much to the
/// folder's: `/.ssh-connectionXXXXXX/master.XXXXXXXXXXXXXXXX`.
const SESSIONS_PATH_BYTES_MAX: usize = 107 - 46;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("failed to {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is damaged; `halab down --purge` starts afresh", path.display())]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the lab `{lab}` is in use: {holder}")]
    InUse { lab: String, holder: String },
}

/// What the kernel and QEMU do not know about a lab.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabRecord {
    pub version: u32,
    /// Whether the lab is meant to be up: machines that are missing have crashed.
    pub up: bool,
    /// What is being done to all machines, until it is done: a machine that is there may not
    /// yet have its memory.
    #[serde(default)]
    pub unfinished: Option<String>,
    /// The lab is a copy that was never whole: nothing in it is worth keeping.
    #[serde(default)]
    pub cloning: bool,
    /// The lab is being graded itself: its user's state is the snapshot `graded`.
    #[serde(default)]
    pub graded_in_place: bool,
    /// Of the topology the disks belong to.
    pub topology_key: String,
    /// What the machines were started with.
    pub boot: Option<BootFiles>,
    /// The snapshot the machines were last put into.
    pub state_of: Option<String>,
    /// The exercises that halab set up on the machines since, oldest first.
    #[serde(default)]
    pub done: Vec<Done>,
    /// Each machine's disks in the order of the topology.
    pub disks: BTreeMap<String, Vec<Layers>>,
    /// The number in the last layer's name: microseconds since 1970, or one more than before.
    pub next_layer: u64,
    #[serde(default)]
    pub faults: Faults,
}

/// What a machine needs besides its disks. The files are in the folder of disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFiles {
    pub kernel: String,
    pub initrd: String,
    pub accelerator: Accelerator,
}

/// What was broken on purpose and not mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    pub killed: BTreeSet<String>,
    /// Machines that were asked to shut down: no fault, but nothing that crashed either.
    #[serde(default)]
    pub shut_down: BTreeSet<String>,
    pub paused: BTreeSet<String>,
    /// `VM NIC` of each pulled cable.
    pub links_down: BTreeSet<(String, String)>,
    /// Per cent of packets lost, by `VM NIC`.
    #[serde(with = "loss_list")]
    pub loss: BTreeMap<(String, String), u8>,
}

impl Faults {
    /// Returns who asked for the end of a machine that is gone.
    pub fn ended_by(&self, machine: &str) -> EndedBy {
        if self.killed.contains(machine) {
            EndedBy::Kill
        } else if self.shut_down.contains(machine) {
            EndedBy::ShutDown
        } else {
            EndedBy::Nobody
        }
    }

    /// Whether a machine is there and cannot answer on a card: it is frozen, or that cable is out.
    pub fn is_unreachable(&self, machine: &str, nic: &str) -> bool {
        self.paused.contains(machine) || self.links_down.contains(&(machine.into(), nic.into()))
    }

    /// Names the machines that have no power, whoever took it.
    pub fn without_power(&self) -> BTreeSet<String> {
        self.killed.union(&self.shut_down).cloned().collect()
    }

    /// Takes down which machines have no power. One that crashed has none either, and nobody
    /// wants it back as it was.
    pub fn note_power(&mut self, states: &[(String, MachineState)]) {
        self.killed.clear();
        self.shut_down.clear();
        for (machine, state) in states {
            match state {
                MachineState::Running | MachineState::Paused => continue,
                MachineState::ShutDown => &mut self.shut_down,
                MachineState::Off | MachineState::Killed | MachineState::Crashed => {
                    &mut self.killed
                }
            }
            .insert(machine.clone());
        }
    }
}

/// JSON's keys are text, so the losses are a list.
mod loss_list {
    use super::BTreeMap;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Losses = BTreeMap<(String, String), u8>;

    pub(super) fn serialize<S: Serializer>(
        losses: &Losses,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        losses.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Losses, D::Error> {
        Ok(Vec::<((String, String), u8)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

/// Paths in the lab's folder.
#[derive(Clone, Debug)]
pub struct LabFolders {
    pub lab: String,
    pub root: PathBuf,
}

impl LabFolders {
    pub fn disks(&self) -> PathBuf {
        self.root.join(DISKS_FOLDER)
    }

    pub fn machine(&self, machine: &str) -> PathBuf {
        self.root.join(machine_folder(machine))
    }

    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub fn snapshot(&self, name: &str) -> PathBuf {
        self.snapshots().join(name)
    }

    pub fn forwards(&self) -> PathBuf {
        self.root.join("forwards")
    }

    pub fn ssh_config(&self) -> PathBuf {
        self.root.join("ssh_config")
    }

    /// Where the runs' SSH sessions have their control sockets.
    pub fn sessions(&self) -> PathBuf {
        folder_for_sockets(self.root.join("ssh"))
    }

    /// Ends the sessions that a killed run left: they would hold the lab's network until they
    /// notice that nobody answers. Their machines are gone, so nothing is lost.
    pub fn close_sessions(&self) {
        let entries = fs::read_dir(self.sessions()).into_iter().flatten();
        for folder in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let socket = folder.join("master");
            if socket.exists() {
                // A master that is gone already is what was wanted.
                let _ = Command::new("ssh")
                    .args(["-F", "none", "-O", "exit", "-S"])
                    .arg(&socket)
                    .arg("lab")
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
            }
            let _ = fs::remove_dir_all(&folder);
        }
    }

    /// Makes the folder and those in it that always are there. Nobody else may look in: keys
    /// and consoles are there.
    pub fn create(&self) -> Result<(), StateError> {
        for path in [self.disks(), self.snapshots(), self.forwards()] {
            create_folder(&path)?;
        }
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700)).map_err(|source| {
            StateError::File {
                what: "protect",
                path: self.root.clone(),
                source,
            }
        })
    }

    /// Returns the record; a lab that was never up has an empty one.
    pub fn record(&self) -> Result<LabRecord, StateError> {
        let record: Option<LabRecord> = read_json(&self.root.join(RECORD_FILE))?;
        Ok(record
            .filter(|record| record.version == RECORD_VERSION)
            .unwrap_or_default())
    }

    pub fn save_record(&self, record: &LabRecord) -> Result<(), StateError> {
        let record = LabRecord {
            version: RECORD_VERSION,
            ..record.clone()
        };
        write_json(&self.root.join(RECORD_FILE), &record)
    }
}

pub fn create_folder(path: &Path) -> Result<(), StateError> {
    fs::create_dir_all(path).map_err(|source| StateError::File {
        what: "create",
        path: path.to_owned(),
        source,
    })
}

/// Reads a JSON file, if there is one.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StateError::File {
                what: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::Damaged {
            path: path.to_owned(),
            source,
        })
}

pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec_pretty(value).expect("the lab's records are plain data");
    write_whole(path, &bytes, 0o600)
}

/// Writes a file so that a reader sees the old one or the new one, whoever dies when.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let error = |source| StateError::File {
        what: "write",
        path: path.to_owned(),
        source,
    };
    let unfinished = path.with_extension(format!("unfinished-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(mode)
        .open(&unfinished)
        .map_err(error)?;
    file.write_all(bytes).map_err(error)?;
    fs::rename(&unfinished, path).map_err(error)
}

/// The right to change a lab, held until dropped. Dies with its process.
#[derive(Debug)]
pub struct LabLock {
    _file: Flock<File>,
}

impl LabLock {
    /// Takes the lock or says who has it. `command` is what the other one will be told.
    pub fn take(folders: &LabFolders, command: &str) -> Result<Self, StateError> {
        create_folder(&folders.root)?;
        let path = folders.root.join(LOCK_FILE);
        let error = |what, source| StateError::File {
            what,
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| error("open", source))?;
        match lock_patiently(file, LOCK_PATIENCE) {
            Ok(file) => {
                let text = format!("process {}: {command}", std::process::id());
                file.set_len(0)
                    .and_then(|()| (&*file).write_all(text.as_bytes()))
                    .map_err(|source| error("write", source))?;
                Ok(Self { _file: file })
            }
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => Err(StateError::InUse {
                lab: folders.lab.clone(),
                holder: fs::read_to_string(&path).unwrap_or_default(),
            }),
            Err(source) => Err(error("lock", source)),
        }
    }

    /// Says who works on the lab now.
    pub fn holder(folders: &LabFolders) -> Option<String> {
        let path = folders.root.join(LOCK_FILE);
        locked_text(&path)
    }
}

/// A folder in which sockets' paths are short enough; a deep home gives way to the runtime folder.
pub fn folder_for_sockets(folder: PathBuf) -> PathBuf {
    if folder.as_os_str().len() <= SESSIONS_PATH_BYTES_MAX {
        return folder;
    }
    let base = env::var_os("XDG_RUNTIME_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    // Two users, and two labs of one, keep theirs apart.
    base.join(format!(
        "halab-ssh-{}-{:x}",
        Uid::current(),
        hasher.finish()
    ))
}

/// Locks a file for this process alone, trying again for a while: whoever looks whether it is
/// locked locks it too, for a moment.
pub fn lock_patiently(file: File, patience: Duration) -> io::Result<Flock<File>> {
    let end = Instant::now() + patience;
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < end => {
                file = unlocked;
                thread::sleep(LOCK_POLL);
            }
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// Returns a file's text when somebody holds a lock on it.
pub fn locked_text(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => None,
        Err((mut file, _)) => {
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            Some(text)
        }
    }
}

/// Puts a file under a second name, or copies it where the names are on different disks.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<(), StateError> {
    let error = |source| StateError::File {
        what: "write",
        path: to.to_owned(),
        source,
    };
    let unfinished = to.with_extension(format!("unfinished-{}", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    if fs::hard_link(from, &unfinished).is_err() {
        fs::copy(from, &unfinished).map_err(error)?;
    }
    fs::rename(&unfinished, to).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(dir: &Path) -> LabFolders {
        LabFolders {
            lab: "test".into(),
            root: dir.join("test"),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folders = folders(dir.path());
        folders.create().expect("created");
        assert_eq!(folders.record().expect("none yet"), LabRecord::default());
        let mut record = LabRecord {
            version: RECORD_VERSION,
            up: true,
            next_layer: 7,
            ..LabRecord::default()
        };
        record.faults.loss.insert(("a".into(), "eth0".into()), 30);
        record
            .disks
            .insert("a".into(), vec![Layers::new("b".into())]);
        folders.save_record(&record).expect("saved");
        assert_eq!(folders.record().expect("read"), record);
    }

    #[test]
    fn the_second_command_is_told_who_has_the_lab() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folders = folders(dir.path());
        let first = LabLock::take(&folders, "halab up").expect("free");
        let refused = LabLock::take(&folders, "halab reset").expect_err("taken");
        let text = refused.to_string();
        assert!(text.ends_with("halab up"), "{text}");
        assert!(LabLock::holder(&folders).is_some());
        drop(first);
        assert_eq!(LabLock::holder(&folders), None);
        LabLock::take(&folders, "halab reset").expect("free again");
    }

    #[test]
    fn a_look_at_the_lock_is_no_holder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folders = folders(dir.path());
        drop(LabLock::take(&folders, "halab up").expect("free"));
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    LabLock::holder(&folders);
                }
            });
            let taken: Vec<bool> = (0..200)
                .map(|_| LabLock::take(&folders, "halab up").is_ok())
                .collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken.iter().all(|taken| *taken), "{taken:?}");
        });
    }

    #[test]
    fn a_folder_too_deep_for_sockets_is_replaced() {
        let deep = |lab: &str| PathBuf::from(format!("/home/{}/{lab}", "x".repeat(80)));
        let one = folder_for_sockets(deep("one"));
        assert!(one.as_os_str().len() <= SESSIONS_PATH_BYTES_MAX);
        assert_ne!(one, folder_for_sockets(deep("two")));
        let short = PathBuf::from("/root/.local/state/halab/default/ssh");
        assert_eq!(folder_for_sockets(short.clone()), short);
    }

    #[test]
    fn whoever_has_no_power_is_taken_down_with_the_reason() {
        let states = |states: &[(&str, MachineState)]| -> Vec<(String, MachineState)> {
            let owned = |(name, state): &(&str, MachineState)| ((*name).to_owned(), *state);
            states.iter().map(owned).collect()
        };
        let mut faults = Faults::default();
        faults.note_power(&states(&[
            ("a", MachineState::ShutDown),
            ("b", MachineState::Paused),
            ("c", MachineState::Crashed),
        ]));
        assert_eq!(faults.shut_down, BTreeSet::from(["a".to_owned()]));
        let both = BTreeSet::from(["a".to_owned(), "c".to_owned()]);
        assert_eq!(faults.without_power(), both);
        assert_eq!(faults.ended_by("a"), EndedBy::ShutDown);
        assert_eq!(faults.ended_by("c"), EndedBy::Kill);
        faults.note_power(&states(&[("a", MachineState::Running)]));
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn a_damaged_record_says_how_to_go_on() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folders = folders(dir.path());
        folders.create().expect("created");
        fs::write(folders.root.join(RECORD_FILE), "{").expect("written");
        let error = folders.record().expect_err("damaged");
        assert!(error.to_string().contains("halab down --purge"), "{error}");
    }
}
