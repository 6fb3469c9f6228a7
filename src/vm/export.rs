//! A lab into a hand-in, and a hand-in into a lab of its own: the files, and the machines.
//!
//! ```text
//!  export:  freeze all machines as a copy does ─► list with checksums ─► one file
//!  admit:   list checked ─► files into an empty lab ─► every disk's header checked
//!             ├─ with memory: load, hand over keys
//!             └─ disks alone: boot, keep the state
//! ```

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::argv::Beginning;
use super::handin::{
    self, DISK_HEAD_BYTES, Entry, HandIn, HandInError, Here, Place, own_files, sha256_of,
    work_files,
};
use super::lab::{Ingredients, Lab, LabError, disk_bytes};
use super::lifecycle::{self, MachineState};
use super::netns::Holder;
use super::progress::Progress;
use super::snapshot::{self, Manifest, SUBMITTED, collect_garbage, unfinished_name};
use super::spec::DiskContent;
use super::state::{Faults, LabLock, LabRecord, StateError, create_folder};
use crate::base::units::ByteSize;

/// The name of the state while it is packed.
const EXPORTED: &str = "exported";
/// The unit in which works are compared: a cluster of qcow2.
const PRINT_BYTES: usize = 64 << 10;

/// Whose work is exported, and how much of it.
#[derive(Clone, Debug)]
pub struct Order {
    pub student_name: String,
    pub student_id: String,
    /// With the machines' memory.
    pub running: bool,
    pub qemu: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub struct Exported {
    /// How long the machines stood still.
    pub paused: Duration,
    pub files: usize,
}

/// A hand-in that runs.
#[derive(Debug)]
pub struct Admitted {
    pub list: HandIn,
    /// What was done since the first boot, as hashes of its pieces, sorted.
    pub prints: Vec<u64>,
}

impl Lab {
    /// Writes the running lab's state as a hand-in.
    pub fn export(
        &self,
        lock: &LabLock,
        order: &Order,
        out: impl Write,
        progress: &dyn Progress,
    ) -> Result<Exported, LabError> {
        let holder = self.holder().ok_or(LabError::NotUp)?;
        if !order.running {
            self.write_caches(holder)?;
        }
        let done = self.freeze(holder, EXPORTED, progress).and_then(|paused| {
            progress.step("packing");
            let files = self.pack(order, out)?;
            Ok(Exported { paused, files })
        });
        // The state lies under a name that this deletes.
        self.flatten(lock, holder, progress)?;
        collect_garbage(&self.folders, &self.folders.record()?)?;
        progress.done();
        done
    }

    /// Without the memory, what a guest has not written yet would not be handed in.
    fn write_caches(&self, holder: Holder) -> Result<(), LabError> {
        let states = self.states(Some(holder), &self.folders.record()?);
        for (name, state) in states {
            if state == MachineState::Running {
                self.driver(holder, self.machine(&name)?).write_caches();
            }
        }
        Ok(())
    }

    fn pack(&self, order: &Order, out: impl Write) -> Result<usize, LabError> {
        let folder = self.folders.snapshot(&unfinished_name(EXPORTED));
        let state = Manifest::read(&folder)?.ok_or(LabError::NotUp)?;
        let path_of = |place: Place, name: &str| match place {
            Place::Disks => self.folders.disks().join(name),
            Place::Memory => folder.join(name),
        };
        let mut files = Vec::new();
        for (place, name) in own_files(&state, &self.topology, order.running) {
            let path = path_of(place, &name);
            let (bytes, sha256) = File::open(&path)
                .and_then(sha256_of)
                .map_err(|source| file_error("read", &path, source))?;
            files.push(Entry {
                name,
                place,
                bytes,
                sha256,
            });
        }
        let image_sha256 = match handin::base_of(&state, &self.topology) {
            Some(base) => image_sha256(&self.folders.disks().join(base))?,
            None => String::new(),
        };
        let mut list = handin::new_list(
            state,
            files,
            order.running,
            image_sha256,
            order.qemu.clone(),
        );
        list.lab.clone_from(&self.folders.lab);
        list.student_name.clone_from(&order.student_name);
        list.student_id.clone_from(&order.student_id);
        let open = |entry: &Entry| File::open(path_of(entry.place, &entry.name));
        handin::pack(&list, open, out).map_err(|source| HandInError::Write {
            name: "the hand-in".into(),
            source,
        })?;
        Ok(list.files.len())
    }

    /// Makes this lab, which is not there yet, of a hand-in, and starts it.
    pub fn admit(
        &self,
        _lock: &LabLock,
        ingredients: &Ingredients,
        input: impl Read,
        progress: &dyn Progress,
    ) -> Result<Admitted, LabError> {
        self.see_memory()?;
        self.folders.create()?;
        self.folders.save_record(&LabRecord {
            unfinished: Some("unpacking a hand-in".into()),
            cloning: true,
            ..LabRecord::default()
        })?;
        progress.step("unpacking the hand-in");
        let list = self.unpack(ingredients, input)?;
        let prints = prints(
            work_files(&list.state, &self.topology)
                .iter()
                .map(|name| self.folders.disks().join(name)),
        )?;
        let keys = self.keys()?;
        if list.running {
            self.load_with(SUBMITTED, &keys, progress)?;
        } else {
            self.boot_disks(progress)?;
        }
        Ok(Admitted { list, prints })
    }

    /// Puts a hand-in's files into the lab's folder, as its snapshot [`SUBMITTED`].
    fn unpack(&self, ingredients: &Ingredients, input: impl Read) -> Result<HandIn, LabError> {
        let (base, boot) = self.place_image(ingredients)?;
        let topology_key = self.topology_key();
        let image_sha256 = image_sha256(&ingredients.disk)?;
        let here = Here {
            topology: &self.topology,
            topology_key: &topology_key,
            image_sha256: &image_sha256,
            qemu: &ingredients.qemu_version,
            boot: &boot,
            base: &base,
        };
        let folder = self.folders.snapshot(&unfinished_name(SUBMITTED));
        let _ = fs::remove_dir_all(&folder);
        create_folder(&folder)?;
        let list = handin::unpack(
            input,
            |list| {
                list.check(&here)?;
                self.see_space(list.files.iter().map(|entry| entry.bytes).sum())
            },
            |entry| {
                let path = match entry.place {
                    Place::Disks => self.folders.disks().join(&entry.name),
                    Place::Memory => folder.join(&entry.name),
                };
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
            },
        )?;
        self.check_disks(&list, disk_bytes(&ingredients.disk)?)?;
        let manifest = Manifest {
            build: None,
            foreign_keys: true,
            done: Vec::new(),
            ..list.state.clone()
        };
        manifest.write(&folder)?;
        snapshot::finish(&self.folders, SUBMITTED)?;
        Ok(list)
    }

    fn see_space(&self, needed: u64) -> Result<(), HandInError> {
        let available = nix::sys::statvfs::statvfs(&self.folders.root)
            .map(|stat| stat.blocks_available().saturating_mul(stat.fragment_size()));
        match available {
            Ok(available) if available < needed => Err(HandInError::NoSpace {
                needed: ByteSize::from_bytes(needed),
                available: ByteSize::from_bytes(available),
            }),
            _ => Ok(()),
        }
    }

    fn check_disks(&self, list: &HandIn, image_bytes: u64) -> Result<(), LabError> {
        for machine in &self.topology.machines {
            let disks = list.state.disks.get(&machine.name).into_iter().flatten();
            for (layers, disk) in disks.zip(&machine.disks) {
                let (bytes, own) = match &disk.content {
                    DiskContent::Root => (image_bytes, layers.names().len() - 1),
                    DiskContent::Blank { size, .. } => (size.bytes(), layers.names().len()),
                    DiskContent::Image { path } => (disk_bytes(path)?, layers.names().len()),
                };
                for name in &layers.names()[..own] {
                    let path = self.folders.disks().join(name);
                    let mut head = Vec::new();
                    File::open(&path)
                        .and_then(|file| file.take(DISK_HEAD_BYTES as u64).read_to_end(&mut head))
                        .map_err(|source| file_error("read", &path, source))?;
                    handin::check_disk(name, &head, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Boots the machines from the disks as they were handed in, and keeps that state. Those that
    /// were shut down stay so; a power cut is no part of a disk.
    fn boot_disks(&self, progress: &dyn Progress) -> Result<(), LabError> {
        let manifest = Manifest::read(&self.folders.snapshot(SUBMITTED))?.ok_or(LabError::NotUp)?;
        let mut record = LabRecord {
            up: true,
            cloning: true,
            unfinished: Some("booting a hand-in".into()),
            topology_key: self.topology_key(),
            boot: Some(manifest.boot.clone()),
            faults: Faults {
                shut_down: manifest.faults.shut_down.clone(),
                ..Faults::default()
            },
            ..LabRecord::default()
        };
        record.disks = self.with_new_tops(&mut record.next_layer, &manifest.disks)?;
        self.folders.save_record(&record)?;
        let holder = self.start_holder()?;
        let mut tasks = self.tasks(&record, &self.keys()?, Beginning::Boot)?;
        for task in &mut tasks {
            // A boot leaves keys alone that are there.
            task.hand_over_keys = true;
        }
        self.group_but(
            &record.faults.without_power(),
            lifecycle::BOOT_FOREIGN,
            holder,
            &tasks,
            progress,
        )?;
        self.save_state(holder, SUBMITTED, lifecycle::SAVE, None, progress)?;
        let record = LabRecord {
            unfinished: None,
            cloning: false,
            ..self.folders.record()?
        };
        self.folders.save_record(&record)?;
        progress.done();
        Ok(())
    }
}

fn file_error(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

fn image_sha256(path: &Path) -> Result<String, StateError> {
    let (_, hash) = File::open(path)
        .and_then(sha256_of)
        .map_err(|source| file_error("read", path, source))?;
    Ok(hash)
}

/// Hashes the pieces of some files that hold anything; sorted, each once.
fn prints(paths: impl Iterator<Item = PathBuf>) -> Result<Vec<u64>, StateError> {
    let mut found = Vec::new();
    let mut piece = vec![0; PRINT_BYTES];
    for path in paths {
        let failed = |source| file_error("read", &path, source);
        let mut file = BufReader::with_capacity(1 << 20, File::open(&path).map_err(failed)?);
        loop {
            piece.clear();
            let count = (&mut file)
                .take(PRINT_BYTES as u64)
                .read_to_end(&mut piece)
                .map_err(failed)?;
            if count == 0 {
                break;
            }
            if piece.iter().any(|byte| *byte != 0) {
                let mut hasher = DefaultHasher::new();
                hasher.write(&piece);
                found.push(hasher.finish());
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
