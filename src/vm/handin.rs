//! What a student hands in, as one file: the differences of every disk to the image, and the
//! machines' memory where it was asked for.
//!
//! ```text
//! zstd( tar( hand-in.json ─ who, of which lab, every file's length and SHA-256
//!            disks/NAME.qcow2 …  memory/MACHINE.ram … ) )
//! ```
//!
//! The file comes from somebody who may gain by what it does to its reader. So the list at its
//! front is checked as a whole before anything is written; a file that is not in the list, that
//! is longer, or that is of another content ends the reading; names are plain and choose no
//! folder; and of a disk only the header is looked at ([`check_disk`]), for what it would make
//! QEMU open. What is in the disks is for the machine in QEMU alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layers::{LAYERS_MAX, Layers};
use super::qcow2::{BACKING_NAME_BYTES_MAX, HEAD_BYTES, Header};
use super::snapshot::{Manifest, memory_file};
use super::spec::{DiskContent, Machine, Topology};
use crate::base::hex::hex;
use crate::base::units::ByteSize;

/// Raised when hand-ins of an earlier halab would not be understood.
const FORMAT: u32 = 1;
const LIST_NAME: &str = "hand-in.json";
const LIST_BYTES_MAX: u64 = 1 << 20;
/// Three machines with two disks of [`LAYERS_MAX`] layers each, and their memory.
const FILES_MAX: usize = 512;
/// A name or number of somebody's.
pub const OWNER_CHARS_MAX: usize = 100;
/// Fast, and a third of the size; what is in memory hardly gets smaller at higher levels.
const COMPRESSION_LEVEL: i32 = 3;
/// The most memory a reader gives the compression's window: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// Most that a hand-in may be once unpacked, in bytes.
pub const UNPACKED_BYTES_MAX: u64 = 16 << 30;

#[derive(Debug, thiserror::Error)]
pub enum HandInError {
    #[error("it is no hand-in of halab's: {reason}")]
    NoHandIn { reason: String },
    #[error("it is of format {found}, this halab reads {FORMAT}; use the halab it was made with")]
    Format { found: u32 },
    #[error("it does not fit this lab: {reason}")]
    OtherLab { reason: String },
    #[error("it was tampered with or damaged: {reason}")]
    Damaged { reason: String },
    #[error("it needs {needed} of disk once unpacked, {available} are free")]
    NoSpace {
        needed: ByteSize,
        available: ByteSize,
    },
    #[error("failed to write {name}")]
    Write { name: String, source: io::Error },
}

fn damaged(reason: impl Into<String>) -> HandInError {
    HandInError::Damaged {
        reason: reason.into(),
    }
}

fn other_lab(reason: impl Into<String>) -> HandInError {
    HandInError::OtherLab {
        reason: reason.into(),
    }
}

/// The list at the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandIn {
    pub format: u32,
    /// The halab that made it.
    pub halab: String,
    pub student_name: String,
    pub student_id: String,
    pub lab: String,
    pub exported_unix: u64,
    /// Of the image's disk, on which all root disks stand.
    pub image_sha256: String,
    pub qemu: String,
    /// Whether the machines' memory is in it: what is set up by commands alone lives there.
    pub running: bool,
    pub state: Manifest,
    pub files: Vec<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub place: Place,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Disks,
    Memory,
}

impl Entry {
    fn path(&self) -> String {
        let folder = match self.place {
            Place::Disks => "disks",
            Place::Memory => "memory",
        };
        format!("{folder}/{}", self.name)
    }
}

/// What must be the same on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub topology: &'a Topology,
    pub topology_key: &'a str,
    pub image_sha256: &'a str,
    pub qemu: &'a str,
    pub boot: &'a super::state::BootFiles,
    /// The image's name among the disks.
    pub base: &'a str,
}

/// Names the files of a state that every lab of the same image has: they are not handed in.
pub fn shared_files(state: &Manifest, topology: &Topology) -> BTreeSet<String> {
    let roots = topology.machines.iter().filter_map(|machine| {
        let layers = state.disks.get(&machine.name)?.first()?;
        let is_root = machine.disks.first()?.content == DiskContent::Root;
        is_root.then(|| layers.names().last().cloned()).flatten()
    });
    let boot = [state.boot.kernel.clone(), state.boot.initrd.clone()];
    roots.chain(boot).collect()
}

/// Names the image that a state's root disks stand on.
pub fn base_of(state: &Manifest, topology: &Topology) -> Option<String> {
    let boot = [&state.boot.kernel, &state.boot.initrd];
    shared_files(state, topology)
        .into_iter()
        .find(|name| !boot.contains(&name))
}

/// Names the files that a state hands in.
pub fn own_files(state: &Manifest, topology: &Topology, running: bool) -> Vec<(Place, String)> {
    let shared = shared_files(state, topology);
    let disks = state
        .files()
        .into_iter()
        .filter(|name| !shared.contains(name))
        .map(|name| (Place::Disks, name));
    let off = state.faults.without_power();
    let awake = state
        .disks
        .keys()
        .filter(|machine| running && !off.contains(*machine))
        .map(|machine| (Place::Memory, memory_file(machine)));
    disks.chain(awake).collect()
}

/// Names the layers that hold what was done since the first boot: two hand-ins with the same
/// content there are the same work.
pub fn work_files(state: &Manifest, topology: &Topology) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for machine in &topology.machines {
        let disks = state.disks.get(&machine.name).into_iter().flatten();
        for (layers, disk) in disks.zip(&machine.disks) {
            let below = match disk.content {
                // The image, and what the first boot wrote.
                DiskContent::Root => 2,
                _ => 1,
            };
            let count = layers.names().len().saturating_sub(below);
            names.extend(layers.names()[..count].iter().cloned());
        }
    }
    names
}

impl HandIn {
    /// Sees whether the list holds together and belongs to this lab.
    pub fn check(&self, here: &Here<'_>) -> Result<(), HandInError> {
        let owner = [&self.student_name, &self.student_id, &self.lab];
        if owner
            .iter()
            .any(|text| text.chars().count() > OWNER_CHARS_MAX)
        {
            return Err(damaged("a name in it is longer than names are"));
        }
        if self.state.topology_key != here.topology_key {
            return Err(other_lab(
                "its machines or networks are others than vm/topology.yml says",
            ));
        }
        self.check_disks(here)?;
        if self.image_sha256 != here.image_sha256 || self.state.boot != *here.boot {
            return Err(other_lab(
                "it was made on another build of the guest image; have all use the same one: copy the image's folder in the cache of one machine to the others before the class",
            ));
        }
        if self.running && self.qemu != here.qemu {
            return Err(other_lab(format!(
                "its machines ran under {}, here is {}; export it without --running, or grade it where QEMU is the same",
                printable(&self.qemu),
                here.qemu
            )));
        }
        self.check_faults(here.topology)?;
        self.check_files(here.topology)
    }

    fn check_disks(&self, here: &Here<'_>) -> Result<(), HandInError> {
        let wanted: BTreeSet<&str> = here.topology.machine_names().collect();
        let found: BTreeSet<&str> = self.state.disks.keys().map(String::as_str).collect();
        if wanted != found {
            return Err(damaged("its disks are of other machines than it says"));
        }
        for machine in &here.topology.machines {
            let disks = &self.state.disks[&machine.name];
            if disks.len() != machine.disks.len() {
                return Err(damaged(format!(
                    "{} has {} disks in it",
                    machine.name,
                    disks.len()
                )));
            }
            for (layers, disk) in disks.iter().zip(&machine.disks) {
                check_layers(machine, layers, &disk.content, here.base)?;
            }
        }
        Ok(())
    }

    /// What is broken in the state is done to the machines that it is loaded into.
    fn check_faults(&self, topology: &Topology) -> Result<(), HandInError> {
        let faults = &self.state.faults;
        let machines = faults
            .killed
            .iter()
            .chain(&faults.shut_down)
            .chain(&faults.paused);
        let cards = faults.links_down.iter().chain(faults.loss.keys());
        let is_known = machines
            .map(|name| topology.machine(name).is_some())
            .chain(cards.map(|(name, nic)| {
                topology
                    .machine(name)
                    .is_some_and(|machine| machine.nic(nic).is_some())
            }));
        if is_known.into_iter().all(|known| known) {
            Ok(())
        } else {
            Err(damaged("a fault in it is of no machine or card"))
        }
    }

    fn check_files(&self, topology: &Topology) -> Result<(), HandInError> {
        let wanted: BTreeSet<(Place, String)> = own_files(&self.state, topology, self.running)
            .into_iter()
            .collect();
        let found: BTreeSet<(Place, String)> = self
            .files
            .iter()
            .map(|entry| (entry.place, entry.name.clone()))
            .collect();
        if self.files.len() > FILES_MAX || found.len() != self.files.len() {
            return Err(damaged("its list names too many files, or one twice"));
        }
        if let Some((_, name)) = wanted.symmetric_difference(&found).next() {
            return Err(damaged(format!(
                "its list of files and its disks do not agree on {}",
                printable(name)
            )));
        }
        let total = self
            .files
            .iter()
            .fold(0_u64, |total, entry| total.saturating_add(entry.bytes));
        if total > UNPACKED_BYTES_MAX {
            return Err(damaged(format!(
                "it would be {} GiB large, at most {} are taken",
                total >> 30,
                UNPACKED_BYTES_MAX >> 30
            )));
        }
        Ok(())
    }
}

fn check_layers(
    machine: &Machine,
    layers: &Layers,
    content: &DiskContent,
    base: &str,
) -> Result<(), HandInError> {
    let names = layers.names();
    if names.is_empty() || names.len() > LAYERS_MAX {
        return Err(damaged(format!(
            "a disk of {} has {} layers",
            machine.name,
            names.len()
        )));
    }
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        return Err(damaged(format!(
            "`{}` is no name of a disk's layer",
            printable(name)
        )));
    }
    let unique: BTreeSet<&String> = names.iter().collect();
    if unique.len() != names.len() {
        return Err(damaged(format!(
            "a disk of {} is below itself",
            machine.name
        )));
    }
    // Only the root disks stand on the image, and nothing else on anything of this machine's.
    let stands_on_base = names.last().is_some_and(|name| name == base);
    let is_above = names[..names.len() - 1].iter().any(|name| name == base);
    if stands_on_base != (*content == DiskContent::Root) || is_above {
        return Err(if *content == DiskContent::Root {
            other_lab("it was made on another guest image")
        } else {
            damaged(format!("a disk of {} stands on the image", machine.name))
        });
    }
    Ok(())
}

/// A name that is a file's and no path.
fn is_plain(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 160;
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|each| each.is_ascii_alphanumeric() || b"-_.".contains(&each))
}

/// For messages about what somebody else wrote.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|each| !each.is_control())
        .take(OWNER_CHARS_MAX)
        .collect()
}

/// Looks at a disk's first bytes: it must be qcow2 of that size that makes QEMU open nothing but
/// what halab tells it. `head` is up to 4 KiB.
pub fn check_disk(name: &str, head: &[u8], disk_bytes: u64) -> Result<(), HandInError> {
    let header = Header::parse(&head[..head.len().min(HEAD_BYTES)])
        .map_err(|error| damaged(format!("{name} is no qcow2 disk: {error}")))?;
    if header.has_external_data {
        return Err(damaged(format!(
            "{name} wants its content from another file of this machine"
        )));
    }
    if header.is_encrypted {
        return Err(damaged(format!("{name} is encrypted")));
    }
    if header.disk_bytes != disk_bytes {
        return Err(damaged(format!(
            "{name} is a disk of {} bytes, the lab's has {disk_bytes}",
            header.disk_bytes
        )));
    }
    let Some((at, length)) = header.backing_name else {
        return Ok(());
    };
    let outside = || {
        damaged(format!(
            "the backing file that {name} names is none of the lab's"
        ))
    };
    let (at, length) = usize::try_from(at)
        .ok()
        .zip(usize::try_from(length).ok())
        .filter(|(_, length)| *length <= BACKING_NAME_BYTES_MAX)
        .ok_or_else(outside)?;
    let backing = at
        .checked_add(length)
        .and_then(|end| head.get(at..end))
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or_else(outside)?;
    if is_plain(backing) {
        Ok(())
    } else {
        Err(damaged(format!(
            "{name} names the backing file `{}`, which is none of the lab's",
            printable(backing)
        )))
    }
}

/// The first bytes that [`check_disk`] wants: the longest backing file's name is within them.
pub const DISK_HEAD_BYTES: usize = 4096;

/// Hashes a file to its end.
pub fn sha256_of(mut file: impl Read) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, hex(&hash.finalize())));
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// Writes a hand-in. `open` gives each file's content.
pub fn pack<F: Read>(
    list: &HandIn,
    mut open: impl FnMut(&Entry) -> io::Result<F>,
    out: impl Write,
) -> io::Result<()> {
    let mut compressed = zstd::Encoder::new(out, COMPRESSION_LEVEL)?;
    compressed.include_checksum(true)?;
    let mut archive = tar::Builder::new(compressed);
    let text = serde_json::to_vec_pretty(list)?;
    archive.append_data(&mut header(text.len() as u64), LIST_NAME, &*text)?;
    for entry in &list.files {
        // One that has become longer since is cut, one that is shorter is an error.
        let content = open(entry)?.take(entry.bytes);
        archive.append_data(&mut header(entry.bytes), entry.path(), content)?;
    }
    archive.into_inner()?.finish()?.flush()
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header
}

/// Reads the list alone.
pub fn list_of(input: impl Read) -> Result<HandIn, HandInError> {
    let mut archive = open(input)?;
    let mut entries = archive.entries().map_err(no_hand_in)?;
    read_list(&mut entries)
}

/// Unpacks a hand-in: `begin` sees the list before anything is written, and `create` makes the
/// place for each file. Every file is there and as the list says when this returns.
pub fn unpack<W: Write>(
    input: impl Read,
    begin: impl FnOnce(&HandIn) -> Result<(), HandInError>,
    mut create: impl FnMut(&Entry) -> io::Result<W>,
) -> Result<HandIn, HandInError> {
    let mut archive = open(input)?;
    let mut entries = archive.entries().map_err(no_hand_in)?;
    let list = read_list(&mut entries)?;
    begin(&list)?;
    let mut missing: BTreeMap<String, &Entry> = list
        .files
        .iter()
        .map(|entry| (entry.path(), entry))
        .collect();
    for found in entries {
        let mut found = found.map_err(cut_short)?;
        let path = String::from_utf8_lossy(&found.path_bytes()).into_owned();
        let entry = missing
            .remove(&path)
            .ok_or_else(|| damaged(format!("{} is in it and not in its list", printable(&path))))?;
        if found.size() != entry.bytes || !found.header().entry_type().is_file() {
            return Err(damaged(format!(
                "{} is not the file that its list names",
                entry.name
            )));
        }
        let write = |source| HandInError::Write {
            name: entry.name.clone(),
            source,
        };
        let mut out = create(entry).map_err(write)?;
        copy_checked(&mut found, &mut out, entry)?;
    }
    if let Some(entry) = missing.values().next() {
        return Err(damaged(format!("{} is missing", entry.name)));
    }
    see_end(archive.into_inner())?;
    Ok(list)
}

/// Reads on to the end of the compression, where the checksum of everything is.
fn see_end(mut rest: impl Read) -> Result<(), HandInError> {
    /// An archive is filled up to whole blocks.
    const PADDING_BYTES_MAX: u64 = 64 << 10;
    let padding =
        io::copy(&mut (&mut rest).take(PADDING_BYTES_MAX), &mut io::sink()).map_err(cut_short)?;
    if padding == PADDING_BYTES_MAX {
        return Err(damaged("something follows behind its last file"));
    }
    Ok(())
}

fn copy_checked(
    found: &mut impl Read,
    out: &mut impl Write,
    entry: &Entry,
) -> Result<(), HandInError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = found.read(&mut buffer).map_err(cut_short)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count])
            .map_err(|source| HandInError::Write {
                name: entry.name.clone(),
                source,
            })?;
    }
    if hex(&hash.finalize()) != entry.sha256 {
        return Err(damaged(format!("{} has another checksum", entry.name)));
    }
    out.flush().map_err(|source| HandInError::Write {
        name: entry.name.clone(),
        source,
    })
}

type Archive<R> = tar::Archive<zstd::Decoder<'static, io::BufReader<R>>>;

fn open<R: Read>(input: R) -> Result<Archive<R>, HandInError> {
    let mut decoder = zstd::Decoder::new(input).map_err(no_hand_in)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(no_hand_in)?;
    Ok(tar::Archive::new(decoder))
}

#[derive(Deserialize)]
struct OfFormat {
    format: u32,
}

fn read_list<R: Read>(entries: &mut tar::Entries<'_, R>) -> Result<HandIn, HandInError> {
    let nothing = |reason: &str| HandInError::NoHandIn {
        reason: reason.to_owned(),
    };
    let first = entries.next().ok_or_else(|| nothing("it is empty"))?;
    let first = first.map_err(no_hand_in)?;
    if &*first.path_bytes() != LIST_NAME.as_bytes() || first.size() > LIST_BYTES_MAX {
        return Err(nothing("it does not begin with its list of files"));
    }
    let mut text = Vec::new();
    first
        .take(LIST_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(no_hand_in)?;
    // The format alone first: another one may have another shape.
    let format: OfFormat =
        serde_json::from_slice(&text).map_err(|error| nothing(&error.to_string()))?;
    if format.format != FORMAT {
        return Err(HandInError::Format {
            found: format.format,
        });
    }
    serde_json::from_slice(&text).map_err(|error| nothing(&error.to_string()))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what `map_err` calls takes the error"
)]
fn no_hand_in(error: io::Error) -> HandInError {
    HandInError::NoHandIn {
        reason: error.to_string(),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what `map_err` calls takes the error"
)]
fn cut_short(error: io::Error) -> HandInError {
    damaged(error.to_string())
}

/// The list of a hand-in that is about to be written.
pub fn new_list(
    state: Manifest,
    files: Vec<Entry>,
    running: bool,
    image_sha256: String,
    qemu: String,
) -> HandIn {
    HandIn {
        format: FORMAT,
        halab: env!("CARGO_PKG_VERSION").to_owned(),
        student_name: String::new(),
        student_id: String::new(),
        lab: String::new(),
        exported_unix: state.created_unix,
        image_sha256,
        qemu,
        running,
        state,
        files,
    }
}

#[cfg(test)]
mod tests {
    use super::super::qcow2::empty_overlay;
    use super::super::spec::{Accelerator, Client, Disk};
    use super::super::state::{BootFiles, Faults, LabRecord};
    use super::*;
    use proptest::prelude::*;

    const DISK_BYTES: u64 = 4 << 30;

    fn topology() -> Topology {
        let disk = |name: &str, content| Disk {
            name: name.into(),
            content,
        };
        Topology {
            networks: vec![],
            machines: vec![Machine {
                name: "one".into(),
                groups: vec![],
                memory: ByteSize::from_mib(384),
                nics: vec![],
                disks: vec![
                    disk("sda", DiskContent::Root),
                    disk(
                        "sdb",
                        DiskContent::Blank {
                            file: "data.qcow2".into(),
                            size: ByteSize::from_mib(64),
                            partitions: 0,
                        },
                    ),
                ],
            }],
            client: Client {
                name: "client".into(),
                groups: vec![],
            },
        }
    }

    fn boot() -> BootFiles {
        BootFiles {
            kernel: "vmlinuz-1".into(),
            initrd: "initrd-1".into(),
            accelerator: Accelerator::Tcg,
        }
    }

    fn state() -> Manifest {
        let root = Layers::new("base-1.qcow2".into())
            .with_top("one-sda.first.qcow2".into())
            .with_top("one-sda.7.qcow2".into());
        let data = Layers::new("data.first.qcow2".into()).with_top("one-sdb.8.qcow2".into());
        let disks = BTreeMap::from([("one".to_owned(), vec![root, data])]);
        let record = LabRecord {
            topology_key: "key".into(),
            ..LabRecord::default()
        };
        Manifest::new(&record, disks, boot(), 1)
    }

    fn content(name: &str) -> Vec<u8> {
        name.repeat(1000).into_bytes()
    }

    fn list(running: bool) -> HandIn {
        let state = state();
        let files = own_files(&state, &topology(), running)
            .into_iter()
            .map(|(place, name)| {
                let (bytes, sha256) = sha256_of(&*content(&name)).expect("memory is read");
                Entry {
                    name,
                    place,
                    bytes,
                    sha256,
                }
            })
            .collect();
        let mut list = new_list(state, files, running, "image".into(), "QEMU 10".into());
        list.student_name = "Ana".into();
        list
    }

    fn packed(list: &HandIn, content: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        let open = |entry: &Entry| Ok(io::Cursor::new(content(&entry.name)));
        pack(list, open, &mut out).expect("memory is written");
        out
    }

    fn checked(list: &HandIn) -> Result<(), HandInError> {
        let boot = boot();
        let topology = topology();
        list.check(&Here {
            topology: &topology,
            topology_key: "key",
            image_sha256: "image",
            qemu: "QEMU 10",
            boot: &boot,
            base: "base-1.qcow2",
        })
    }

    fn unpacked(bytes: &[u8]) -> Result<(HandIn, Vec<String>), HandInError> {
        let mut names = Vec::new();
        let list = unpack(bytes, checked, |entry| {
            names.push(entry.name.clone());
            Ok(io::sink())
        })?;
        Ok((list, names))
    }

    fn refusal(bytes: &[u8]) -> String {
        unpacked(bytes).expect_err("a refusal").to_string()
    }

    #[test]
    fn what_is_packed_is_unpacked_and_the_image_is_not_in_it() {
        for running in [false, true] {
            let list = list(running);
            let (found, names) = unpacked(&packed(&list, content)).expect("whole");
            assert_eq!(found, list);
            assert_eq!(names.len(), if running { 5 } else { 4 });
            assert!(
                !names
                    .iter()
                    .any(|name| name.contains("base") || name.contains("vmlinuz"))
            );
        }
        let works = work_files(&state(), &topology());
        assert_eq!(
            works.into_iter().collect::<Vec<_>>(),
            ["one-sda.7.qcow2", "one-sdb.8.qcow2"]
        );
    }

    #[test]
    fn a_machine_that_is_off_has_no_memory_to_hand_in() {
        let mut state = state();
        state.faults.shut_down.insert("one".into());
        let files = own_files(&state, &topology(), true);
        assert!(files.iter().all(|(place, _)| *place == Place::Disks));
    }

    #[test]
    fn other_content_under_the_same_name_is_noticed() {
        let bytes = packed(&list(false), |name| {
            let mut content = content(name);
            content[3] ^= 1;
            content
        });
        assert!(
            refusal(&bytes).contains("has another checksum"),
            "{}",
            refusal(&bytes)
        );
        let whole = packed(&list(false), content);
        let cut = refusal(&whole[..whole.len() / 2]);
        assert!(
            cut.contains("damaged") || cut.contains("no hand-in"),
            "{cut}"
        );
    }

    #[test]
    fn a_list_that_reaches_out_of_the_lab_is_refused_before_anything_is_written() {
        type Change = fn(&mut HandIn);
        let changes: [(&str, Change); 8] = [
            ("is no name of a disk's layer", |list| {
                list.state.disks.get_mut("one").expect("there")[0] =
                    Layers::new("base-1.qcow2".into()).with_top("../../etc/x".into());
            }),
            ("do not agree", |list| list.files[0].name = "../x".into()),
            ("do not agree", |list| {
                list.files.pop();
            }),
            ("twice", |list| list.files.push(list.files[0].clone())),
            ("GiB large", |list| list.files[0].bytes = u64::MAX),
            ("of no machine or card", |list| {
                list.state.faults = Faults {
                    killed: ["two; reboot".to_owned()].into(),
                    ..Faults::default()
                };
            }),
            ("stands on the image", |list| {
                list.state.disks.get_mut("one").expect("there")[1] =
                    Layers::new("base-1.qcow2".into()).with_top("one-sdb.8.qcow2".into());
            }),
            ("below itself", |list| {
                list.state.disks.get_mut("one").expect("there")[1] =
                    Layers::new("a".into()).with_top("a".into());
            }),
        ];
        for (expected, change) in changes {
            let mut list = list(false);
            change(&mut list);
            let found = checked(&list).expect_err(expected).to_string();
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }

    #[test]
    fn a_hand_in_of_another_lab_says_what_is_other() {
        type Change = fn(&mut HandIn);
        let changes: [(&str, Change); 4] = [
            ("vm/topology.yml", |list| {
                list.state.topology_key = "x".into();
            }),
            ("another build of the guest image", |list| {
                list.image_sha256 = "x".into();
            }),
            ("another build of the guest image", |list| {
                list.state.boot.kernel = "vmlinuz-2".into();
            }),
            ("ran under x", |list| list.qemu = "x\u{1b}".into()),
        ];
        for (expected, change) in changes {
            let mut list = list(true);
            change(&mut list);
            let found = checked(&list).expect_err(expected).to_string();
            assert!(found.contains(expected), "{expected}: {found}");
            assert!(!found.contains('\u{1b}'), "{found}");
        }
        let mut later = list(true);
        later.format = 9;
        assert!(refusal(&packed(&later, content)).contains("format 9"));
    }

    #[test]
    fn a_disk_makes_qemu_open_nothing_of_the_hosts() {
        let disk = |backing: &str| empty_overlay(DISK_BYTES, backing);
        let check = |bytes: &[u8]| check_disk("d", &bytes[..DISK_HEAD_BYTES], DISK_BYTES);
        check(&disk("one-sda.first.qcow2")).expect("a layer of the lab's");
        for backing in [
            "/etc/shadow",
            "../x",
            "json:{\"driver\":\"file\"}",
            "nbd://h/x",
        ] {
            let found = check(&disk(backing)).expect_err(backing).to_string();
            assert!(found.contains("none of the lab's"), "{found}");
        }
        let mut external = disk("a");
        external[79] |= 4;
        assert!(check(&external).is_err());
        let mut encrypted = disk("a");
        encrypted[35] = 1;
        assert!(check(&encrypted).is_err());
        assert!(check_disk("d", &disk("a")[..DISK_HEAD_BYTES], 1).is_err());
        assert!(check_disk("d", b"#!/bin/sh", DISK_BYTES).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(unpacked(&bytes).is_err());
            let _ = check_disk("d", &bytes, DISK_BYTES);
        }

        #[test]
        fn a_changed_byte_is_noticed_or_changes_nothing(at in any::<prop::sample::Index>(), bit in 0..8) {
            let list = list(false);
            let mut bytes = packed(&list, content);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Ok((found, _)) = unpacked(&bytes) {
                prop_assert_eq!(found, list);
            }
        }

        #[test]
        fn any_head_of_a_disk_is_judged(mut bytes in proptest::collection::vec(any::<u8>(), 80..4096)) {
            bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
            let _ = check_disk("d", &bytes, DISK_BYTES);
        }
    }
}
