//! A second running lab, the same to the byte: for trying something without risk, and for
//! grading, which breaks what it looks at.
//!
//! The machines are paused together, their disks frozen as layers, their memory written to files,
//! and they go on. The copy takes all of it by hard links, so nothing is ever copied, and starts
//! in a namespace of its own with the same addresses. Afterwards the two share files that nobody
//! writes again and nothing else: either may go first.
//!
//! ```text
//!  source:  pause-all ─► new layers, memory to files ─► resume-all ─► clocks
//!                                   │ hard links
//!  copy:    keys, snapshots, state ─┴─► start, load memory, resume together, wake
//! ```
//!
//! A machine that has no power (a fault, or its user shut it down) has none in the copy either.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::argv::Beginning;
use super::lab::{Lab, LabError, unix_now};
use super::layers::node_name;
use super::lifecycle;
use super::netns::Holder;
use super::progress::Progress;
use super::qmp::FlattenBase;
use super::snapshot::{
    self, CLONED, GRADED, Manifest, collect_garbage, copy_into, memory_file, unfinished_name,
};
use super::state::{LabLock, LabRecord, StateError, create_folder, link_or_copy};
use crate::base::units::ByteSize;

/// What QEMU needs beside a guest's memory: its own, and translated code.
const OVERHEAD_MIB: u64 = 160;

/// A stack of layers that is worth making lower: far below what a snapshot refuses.
const LAYERS_HIGH: usize = 16;
/// The image and what the first boot wrote, which most of a lab's snapshots share.
const LAYERS_KEPT: usize = 2;
/// A disk's differences move at a hundred MiB a second.
const FLATTEN_DEADLINE: Duration = Duration::from_secs(120);

/// What became of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Cloned {
    /// How long the source's machines stood still.
    pub paused: Duration,
}

impl Lab {
    /// Copies this running lab into one that is not there yet; both run afterwards.
    pub fn clone_into(
        &self,
        lock: &LabLock,
        copy: &Self,
        copy_lock: &LabLock,
        progress: &dyn Progress,
    ) -> Result<Cloned, LabError> {
        if copy.folders.root == self.folders.root {
            return Err(LabError::CloneOfItself);
        }
        let holder = self.holder().ok_or(LabError::NotUp)?;
        copy.claim(self)?;
        let done = self.copy_to(holder, copy, progress);
        if done.is_err() {
            // Half a copy is worth nothing, and its source goes on whatever happened to it.
            let _ = copy.down(copy_lock, true, progress);
        }
        self.flatten(lock, holder, progress)?;
        collect_garbage(&self.folders, &self.folders.record()?)?;
        done
    }

    fn copy_to(
        &self,
        holder: Holder,
        copy: &Self,
        progress: &dyn Progress,
    ) -> Result<Cloned, LabError> {
        let paused = self.freeze(holder, CLONED, progress)?;
        // The state lies under a name that the next clean-up deletes: it belongs to the copy.
        let frozen = unfinished_name(CLONED);
        copy_into(&self.folders, &frozen, &copy.folders, CLONED)?;
        for (name, _) in snapshot::list(&self.folders) {
            if name != CLONED {
                copy_into(&self.folders, &name, &copy.folders, &name)?;
            }
        }
        copy_keys(&self.folders.root, &copy.folders.root)?;
        let keys = copy.keys()?;
        copy.load_with(CLONED, &keys, progress)?;
        Ok(Cloned { paused })
    }

    /// Keeps the lab's state, whatever is broken in it, and marks it as being graded itself.
    pub fn begin_grading_in_place(
        &self,
        lock: &LabLock,
        progress: &dyn Progress,
    ) -> Result<Cloned, LabError> {
        let holder = self.holder().ok_or(LabError::NotUp)?;
        let paused = self.freeze(holder, GRADED, progress)?;
        snapshot::finish(&self.folders, GRADED)?;
        self.folders.save_record(&LabRecord {
            graded_in_place: true,
            ..self.folders.record()?
        })?;
        self.flatten(lock, holder, progress)?;
        Ok(Cloned { paused })
    }

    /// Puts the lab back to where it was before it was graded in place.
    pub fn end_grading_in_place(&self, progress: &dyn Progress) -> Result<(), LabError> {
        self.load_with(GRADED, &self.keys()?, progress)?;
        let record = LabRecord {
            graded_in_place: false,
            state_of: None,
            ..self.folders.record()?
        };
        self.folders.save_record(&record)?;
        let path = self.folders.snapshot(GRADED);
        fs::remove_dir_all(&path).map_err(|source| StateError::File {
            what: "delete",
            path,
            source,
        })?;
        Ok(collect_garbage(&self.folders, &record)?)
    }

    /// Keeps the stack of layers low: every copy puts one on each disk, and a lab is copied
    /// whenever it is graded. The machines run meanwhile, and what is frozen stays as it is.
    pub(super) fn flatten(
        &self,
        _lock: &LabLock,
        holder: Holder,
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        let mut record = self.folders.record()?;
        for machine in &self.topology.machines {
            let driver = self.driver(holder, machine);
            for index in 0..machine.disks.len() {
                let Some(layers) = record
                    .disks
                    .get(&machine.name)
                    .and_then(|all| all.get(index))
                else {
                    continue;
                };
                if layers.names().len() <= LAYERS_HIGH || driver.pid().is_none() {
                    continue;
                }
                let file = layers.names()[layers.names().len() - LAYERS_KEPT].clone();
                let base = FlattenBase {
                    node: node_name(&file),
                    file,
                };
                let top = layers.top_node();
                let flat = layers.flattened(LAYERS_KEPT);
                if let Err(error) =
                    driver.with_qmp(|qmp| qmp.flatten(&top, &base, FLATTEN_DEADLINE))
                {
                    progress.note(&format!(
                        "the layers of {}'s disk stay as many as they are: {error}",
                        machine.name
                    ));
                    continue;
                }
                if let Some(all) = record.disks.get_mut(&machine.name) {
                    all[index] = flat;
                }
                // Only now: until then the list with all layers is the true one, and afterwards
                // it would still be a right one.
                self.folders.save_record(&record)?;
            }
        }
        Ok(())
    }

    /// Makes the folder of a copy that is not there yet, or was never finished.
    fn claim(&self, source: &Self) -> Result<(), LabError> {
        let record = self.folders.record()?;
        let was_used = self.holder().is_some() || !record.topology_key.is_empty();
        if was_used && !record.cloning {
            return Err(LabError::CloneIsThere {
                name: self.folders.lab.clone(),
            });
        }
        if let Some(holder) = self.holder() {
            holder.stop()?;
        }
        self.see_memory()?;
        self.folders.create()?;
        self.folders.save_record(&LabRecord {
            unfinished: Some(format!("copying the lab `{}`", source.folders.lab)),
            cloning: true,
            next_layer: source.folders.record()?.next_layer,
            ..LabRecord::default()
        })?;
        Ok(())
    }

    /// Refuses to start machines that there is no memory for.
    pub(super) fn see_memory(&self) -> Result<(), LabError> {
        let needed = self.memory_needed();
        match available_memory() {
            Some(available) if available < needed => Err(LabError::NoMemory { needed, available }),
            _ => Ok(()),
        }
    }

    /// What all machines take of the host's memory.
    pub fn memory_needed(&self) -> ByteSize {
        let machines = self.topology.machines.iter();
        ByteSize::from_mib(
            machines
                .map(|machine| machine.memory.mib() + OVERHEAD_MIB)
                .sum(),
        )
    }

    /// Freezes all machines that have power as one, under a name that no command knows; returns
    /// how long they stood still.
    pub(super) fn freeze(
        &self,
        holder: Holder,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<Duration, LabError> {
        let mut record = self.folders.record()?;
        if record.topology_key != self.topology_key() {
            return Err(LabError::TopologyChanged);
        }
        let mut faults = record.faults.clone();
        faults.note_power(&self.states(Some(holder), &record));
        let off = faults.without_power();
        let frozen = self.put_new_tops(&mut record)?;
        let unfinished = unfinished_name(name);
        let folder = self.folders.snapshot(&unfinished);
        let _ = fs::remove_dir_all(&folder);
        create_folder(&folder)?;
        let mut tasks = self.tasks(&record, &BTreeMap::new(), Beginning::Load)?;
        for (task, machine) in tasks.iter_mut().zip(&self.topology.machines) {
            task.memory = format!("snapshots/{unfinished}/{}", memory_file(&machine.name));
        }
        let begun = Instant::now();
        self.group_but(&off, lifecycle::FREEZE, holder, &tasks, progress)?;
        let paused = begun.elapsed();
        self.group_but(&off, lifecycle::SET_CLOCKS, holder, &tasks, progress)?;
        let boot = record.boot.clone().ok_or(LabError::NotUp)?;
        let manifest = Manifest {
            faults,
            ..Manifest::new(&record, frozen, boot, unix_now().as_secs())
        };
        manifest.write(&folder)?;
        Ok(paused)
    }
}

/// The copy's machines have the source's keys, so the copy's owner has them too.
fn copy_keys(from: &Path, to: &Path) -> Result<(), StateError> {
    for name in ["id_ed25519", "id_ed25519.pub"] {
        link_or_copy(&from.join(name), &to.join(name))?;
    }
    let (from, to) = (from.join("host_keys"), to.join("host_keys"));
    create_folder(&to)?;
    let entries = fs::read_dir(&from).map_err(|source| StateError::File {
        what: "read",
        path: from.clone(),
        source,
    })?;
    for entry in entries.flatten() {
        link_or_copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Returns what the kernel thinks may be used without swapping.
pub fn available_memory() -> Option<ByteSize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(ByteSize::from_mib(kib >> 10))
}
