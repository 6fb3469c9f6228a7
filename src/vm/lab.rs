//! A lab as a whole: up, down, reset, snapshots.
//!
//! There is one way to a running lab: load a snapshot. `up` loads `clean`, which comes from
//! the cache; where the cache has none, the machines are first booted for real, saved and
//! stopped again. Keys of the booting machines are thrown away with them: a lab hands over its
//! own after its first load, and then saves `clean` again, so that no later load needs to.
//!
//! ```text
//!  up ──► cache has `clean`? ──no──► boot, wait for rest, save, stop, publish
//!                │ yes                                    │
//!                └────────► take it (hard links) ◄────────┘
//!                                   │
//!                     load, hand over keys, save as the lab's own `clean`
//!  reset ──► kill QEMUs ──► new empty layers ──► start, load memory, resume together, wake
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::argv::Beginning;
use super::driver::{MachineDriver, MachineError, Task};
use super::guest::GuestKeys;
use super::handin::HandInError;
use super::keys::{self, KeyError};
use super::layers::{LAYERS_MAX, Layers, partition_table};
use super::lifecycle::{
    self, EndedBy, Group, GroupAction, GroupEvent, MachineProcess, MachineState, Operation, Phase,
    UpPlan,
};
use super::netns::{Holder, NetnsError};
use super::network::ip_batch;
use super::offer::{GuestProgram, Offer};
use super::process::{age_and_memory, ends_within, in_namespace_of};
use super::progress::Progress;
use super::qcow2;
use super::qmp::Qmp;
use super::snapshot::{
    self, CLEAN, LAST, Manifest, WarmEntry, collect_garbage, memory_file, unfinished_name,
};
use super::spec::{Accelerator, Disk, DiskContent, LabAccess, Machine, Topology};
use super::state::{
    BootFiles, Faults, LabFolders, LabLock, LabRecord, StateError, create_folder, link_or_copy,
};
use crate::base::units::ByteSize;

/// For the first greetings of all SSH servers after a load: tenths of a second, and half a minute
/// where a dozen emulated guests share two cores.
const GREETING_DEADLINE_SECONDS: u64 = 120;
/// For a look at a running machine that may be busy with somebody else's question.
const STATUS_PATIENCE: Duration = Duration::from_millis(800);
/// A QEMU that was killed gives its memory back in less.
const END_PATIENCE: Duration = Duration::from_millis(300);
const SNAPSHOT_NAME_CHARS_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("failed to {} {machine}", .phase.verb())]
    Phase {
        phase: Phase,
        machine: String,
        source: Box<MachineError>,
    },
    #[error("failed to act on {machine}")]
    Machine {
        machine: String,
        source: Box<MachineError>,
    },
    #[error("the lab is not up; `halab up` starts it")]
    NotUp,
    #[error("the topology has changed since the lab came up; `halab down`, then `halab up`")]
    TopologyChanged,
    #[error("{machine} is {}, so the lab's state cannot be saved as a whole", .state.word())]
    NotWhole {
        machine: String,
        state: MachineState,
    },
    #[error("there is no snapshot `{name}`{}", there_are(.known))]
    NoSnapshot { name: String, known: Vec<String> },
    #[error("the snapshot `{name}` is of another topology than the lab has now")]
    OtherTopology { name: String },
    #[error(
        "`{name}` cannot be a snapshot's name: letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
    )]
    SnapshotName { name: String },
    #[error("`{name}` is the state the lab begins in and stays; choose another name")]
    CleanStays { name: String },
    #[error("a disk of {machine} has {LAYERS_MAX} layers of snapshots; load an earlier one first")]
    TooManyLayers { machine: String },
    #[error("failed to make the disk {file}: {reason}")]
    MakeDisk { file: String, reason: String },
    #[error("failed to read the disk's layer {}", path.display())]
    ReadLayer { path: PathBuf, source: io::Error },
    #[error("the machines run, but not every SSH server answers: {reason}")]
    NoGreeting { reason: String },
    #[error("there is no machine `{name}`{}", there_are(.known))]
    NoMachine { name: String, known: Vec<String> },
    #[error("{machine} has no network card `{nic}`{}", there_are(.known))]
    NoNic {
        machine: String,
        nic: String,
        known: Vec<String>,
    },
    #[error("{machine} is {}; `halab fault resume {machine}` gives it its power back", .state.word())]
    MachineIs {
        machine: String,
        state: MachineState,
    },
    #[error(
        "there is a lab `{name}` already; `halab --lab {name} down --purge` forgets it, or choose another name"
    )]
    CloneIsThere { name: String },
    #[error("a lab cannot be copied onto itself")]
    CloneOfItself,
    #[error(
        "the copy's machines need {needed} of memory and {available} are free; stop something first"
    )]
    NoMemory {
        needed: ByteSize,
        available: ByteSize,
    },
    #[error(transparent)]
    HandIn(#[from] HandInError),
    #[error("failed to shape {machine}'s traffic: {reason}")]
    Shape { machine: String, reason: String },
    #[error(transparent)]
    Network(#[from] NetnsError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    State(#[from] StateError),
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; there are {}", names.join(", "))
    }
}

/// What machines are made of, besides the topology.
#[derive(Clone, Debug)]
pub struct Ingredients {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// Changes whenever the image does.
    pub image_hash: String,
    pub accelerator: Accelerator,
    pub qemu_version: String,
    /// What machines are given when they boot. Not a part of the clean state's key: a state with
    /// an older one is as good, and the newer comes with the first task.
    /// Asked for only then.
    pub agent: fn() -> Option<GuestProgram>,
}

/// How `up` came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpOutcome {
    WasUp,
    Resumed,
    /// Machines whose power was cut have booted; the others went on all the while.
    PoweredOn,
    Warm,
    Cold,
}

/// One machine as `status` shows it.
#[derive(Clone, Debug)]
pub struct MachineStatus {
    pub name: String,
    pub address: Ipv4Addr,
    pub state: MachineState,
    pub pid: Option<i32>,
    pub age: Option<Duration>,
    pub resident_kib: Option<u64>,
}

/// A lab, up or not.
#[derive(Debug)]
pub struct Lab {
    pub topology: Topology,
    pub folders: LabFolders,
    pub(super) cache_dir: PathBuf,
    /// Runs this program again for this lab.
    halab: Vec<String>,
}

impl Lab {
    pub fn new(
        topology: Topology,
        folders: LabFolders,
        cache_dir: PathBuf,
        halab: Vec<String>,
    ) -> Self {
        Self {
            topology,
            folders,
            cache_dir,
            halab,
        }
    }

    /// Takes the right to change the lab.
    pub fn lock(&self, command: &str) -> Result<LabLock, LabError> {
        Ok(LabLock::take(&self.folders, command)?)
    }

    pub fn access(&self) -> LabAccess {
        let mut enter = self.halab.clone();
        enter.extend(["internal-enter", "--"].map(String::from));
        LabAccess {
            ssh_config: self.folders.ssh_config(),
            enter,
        }
    }

    pub fn holder(&self) -> Option<Holder> {
        Holder::find(&self.folders.root)
    }

    pub fn machine(&self, name: &str) -> Result<&Machine, LabError> {
        self.topology
            .machine(name)
            .ok_or_else(|| LabError::NoMachine {
                name: name.to_owned(),
                known: self.topology.machine_names().map(str::to_owned).collect(),
            })
    }

    /// Brings the lab up, whatever an earlier command left.
    pub fn up(
        &self,
        lock: &LabLock,
        ingredients: &Ingredients,
        cold: bool,
        progress: &dyn Progress,
    ) -> Result<UpOutcome, LabError> {
        self.folders.create()?;
        if let Some(holder) = self.holder()
            && !cold
            && let Some(outcome) = self.mend(lock, holder, progress)?
        {
            return Ok(outcome);
        }
        let keys = self.keys()?;
        let entry = WarmEntry::new(&self.cache_dir, &self.warm_key(ingredients));
        let outcome = if !cold && self.adopt(&entry)? {
            UpOutcome::Warm
        } else {
            self.build_clean(ingredients, progress)?;
            entry.publish(&self.folders, CLEAN)?;
            UpOutcome::Cold
        };
        self.load_with(CLEAN, &keys, progress)?;
        self.own_clean(progress)?;
        Ok(outcome)
    }

    /// Looks at a lab that is up: `None` when it has to be loaded anew.
    fn mend(
        &self,
        lock: &LabLock,
        holder: Holder,
        progress: &dyn Progress,
    ) -> Result<Option<UpOutcome>, LabError> {
        let record = self.folders.record()?;
        if record.topology_key != self.topology_key() {
            return Err(LabError::TopologyChanged);
        }
        if record.graded_in_place {
            progress.note("a grading in place was interrupted: the lab goes back to where it was");
            self.end_grading_in_place(progress)?;
            return Ok(Some(UpOutcome::Resumed));
        }
        if let Some(what) = &record.unfinished {
            progress.note(&format!(
                "{what} was interrupted: the lab goes back to `{CLEAN}`"
            ));
            return Ok(None);
        }
        let states = self.states(Some(holder), &record);
        match UpPlan::new(&states, &record.faults.paused) {
            UpPlan::Nothing => Ok(Some(UpOutcome::WasUp)),
            UpPlan::Resume => {
                let tasks = self.tasks(&record, &self.keys()?, Beginning::Load)?;
                self.group(lifecycle::RESUME, holder, &tasks, progress)?;
                Ok(Some(UpOutcome::Resumed))
            }
            UpPlan::PowerOn => {
                for (name, state) in states {
                    if state == MachineState::Killed {
                        progress.note(&format!(
                            "{name} was killed: it boots from its disks, the others keep what they have"
                        ));
                        self.power_on(lock, &name, progress)?;
                    }
                }
                // Another may stand still since a command was interrupted.
                let mended = self.mend(lock, holder, progress)?;
                Ok(mended.map(|_| UpOutcome::PoweredOn))
            }
            UpPlan::Load => {
                for (name, state) in states {
                    if matches!(state, MachineState::Crashed | MachineState::Killed) {
                        progress.note(&format!(
                            "{name} is {}: the lab goes back to `{CLEAN}`",
                            state.word()
                        ));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Takes the cache's clean state, where the lab has not got it yet.
    fn adopt(&self, entry: &WarmEntry) -> Result<bool, LabError> {
        if !entry.is_there() {
            return Ok(false);
        }
        let build = |manifest: Option<Manifest>| manifest.and_then(|manifest| manifest.build);
        let own = build(Manifest::read(&self.folders.snapshot(CLEAN))?);
        if own.is_some() && own == build(entry.manifest()?) {
            return Ok(true);
        }
        Ok(entry.adopt(&self.folders, CLEAN)?)
    }

    /// Saves the clean state once more where it had no keys of this lab's. The machines have
    /// just been loaded and got them.
    fn own_clean(&self, progress: &dyn Progress) -> Result<(), LabError> {
        let manifest = self.snapshot(CLEAN)?;
        if !manifest.foreign_keys {
            return Ok(());
        }
        let holder = self.holder().ok_or(LabError::NotUp)?;
        self.save_state(holder, CLEAN, lifecycle::SAVE, manifest.build, progress)?;
        progress.done();
        Ok(collect_garbage(&self.folders, &self.folders.record()?)?)
    }

    /// Boots all machines for real, waits until they are idle, saves them as the clean state
    /// and stops them.
    fn build_clean(
        &self,
        ingredients: &Ingredients,
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        self.stop_all()?;
        let build = format!("{:x}", unix_now().as_millis());
        progress.step("preparing the disks");
        let (boot, disks) = self.base_disks(ingredients, &build)?;
        let mut record = LabRecord {
            up: true,
            unfinished: Some("the first boot".into()),
            topology_key: self.topology_key(),
            boot: Some(boot),
            next_layer: self.folders.record()?.next_layer,
            ..LabRecord::default()
        };
        record.disks = self.with_new_tops(&mut record.next_layer, &disks)?;
        self.folders.save_record(&record)?;
        let holder = self.start_holder()?;
        let keys = self.throwaway_keys()?;
        let mut tasks = self.tasks(&record, &keys, Beginning::Boot)?;
        let offer = self.offer(ingredients, progress);
        for task in &mut tasks {
            task.take = offer.as_ref().map(Offer::script);
        }
        self.group(lifecycle::BOOT, holder, &tasks, progress)?;
        drop(offer);
        self.save_state(holder, CLEAN, lifecycle::SAVE_LAST, None, progress)?;
        self.stop_all()?;
        self.rename_layers(&build)?;
        self.folders.save_record(&LabRecord {
            topology_key: record.topology_key,
            next_layer: record.next_layer,
            ..LabRecord::default()
        })?;
        Ok(())
    }

    /// Offers the agent where the machines see the client. Without it they get it with the first
    /// task.
    fn offer(&self, ingredients: &Ingredients, progress: &dyn Progress) -> Option<Offer> {
        let client = self.topology.client_address()?;
        let agent = (ingredients.agent)()?;
        Offer::begin(&self.halab, &agent, client)
            .inspect_err(|error| progress.note(&format!("the agent is not offered: {error}")))
            .ok()
    }

    /// Gives the clean state's layers names that no other build of it has, for they will lie
    /// beside others' in many labs.
    fn rename_layers(&self, build: &str) -> Result<(), LabError> {
        let folder = self.folders.snapshot(CLEAN);
        let mut manifest = Manifest::read(&folder)?.ok_or_else(|| LabError::NoSnapshot {
            name: CLEAN.into(),
            known: vec![],
        })?;
        for (machine, disks) in &mut manifest.disks {
            let spec = self.machine(machine)?;
            for (layers, disk) in disks.iter_mut().zip(&spec.disks) {
                let name = format!("{machine}-{}.{build}.qcow2", disk.name);
                let path = self.folders.disks();
                link_or_copy(&path.join(layers.top()), &path.join(&name))?;
                *layers = layers.below_top().with_top(name);
            }
        }
        manifest.build = Some(build.to_owned());
        manifest.foreign_keys = true;
        Ok(manifest.write(&folder)?)
    }

    /// Puts all machines into a saved state; the lab is up afterwards.
    pub fn load(
        &self,
        _lock: &LabLock,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        let keys = self.keys()?;
        self.load_with(name, &keys, progress)
    }

    pub(super) fn load_with(
        &self,
        name: &str,
        keys: &BTreeMap<String, GuestKeys>,
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        let manifest = self.snapshot(name)?;
        if manifest.topology_key != self.topology_key() {
            return Err(LabError::OtherTopology { name: name.into() });
        }
        progress.step(Phase::Start.progress());
        let old = self.folders.record()?;
        let unfinished = Some(format!("loading `{name}`"));
        // Before the first machine is killed: none that is on its way out may pass for one that
        // runs, and no network without machines for a lab of another topology.
        self.folders.save_record(&LabRecord {
            up: true,
            unfinished: unfinished.clone(),
            topology_key: self.topology_key(),
            ..old.clone()
        })?;
        let holder = match self.holder() {
            Some(holder) => {
                self.kill_machines(holder)?;
                self.clear_losses(&old.faults);
                holder
            }
            None => self.start_holder()?,
        };
        self.folders.close_sessions();
        let mut record = LabRecord {
            up: true,
            unfinished,
            topology_key: self.topology_key(),
            boot: Some(manifest.boot.clone()),
            state_of: Some(name.to_owned()),
            done: manifest.done.clone(),
            next_layer: old.next_layer,
            graded_in_place: old.graded_in_place,
            faults: manifest.faults.clone(),
            ..LabRecord::default()
        };
        record.disks = self.with_new_tops(&mut record.next_layer, &manifest.disks)?;
        self.folders.save_record(&record)?;
        let mut tasks = self.tasks(&record, keys, Beginning::Load)?;
        for (task, machine) in tasks.iter_mut().zip(&self.topology.machines) {
            task.memory = format!("snapshots/{name}/{}", memory_file(&machine.name));
            task.hand_over_keys = manifest.foreign_keys;
        }
        self.group_but(
            &manifest.faults.without_power(),
            lifecycle::LOAD,
            holder,
            &tasks,
            progress,
        )?;
        for ((machine, nic), percent) in &manifest.faults.loss {
            self.shape(machine, nic, *percent)?;
        }
        if name == CLEAN {
            // What every lab begins with is reached by its network; a state of the user's may
            // have any fault.
            self.await_greetings()?;
        }
        record.unfinished = None;
        self.folders.save_record(&record)?;
        progress.done();
        Ok(collect_garbage(&self.folders, &record)?)
    }

    /// Saves all machines as one under a name.
    pub fn save(
        &self,
        _lock: &LabLock,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        check_snapshot_name(name)?;
        let holder = self.holder().ok_or(LabError::NotUp)?;
        self.save_state(holder, name, lifecycle::SAVE, None, progress)?;
        progress.done();
        Ok(collect_garbage(&self.folders, &self.folders.record()?)?)
    }

    pub(super) fn save_state(
        &self,
        holder: Holder,
        name: &str,
        operation: Operation,
        build: Option<String>,
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        let mut record = self.folders.record()?;
        if record.topology_key != self.topology_key() {
            return Err(LabError::TopologyChanged);
        }
        let mut power = Faults::default();
        power.note_power(&self.whole(holder, &record)?);
        let frozen = self.put_new_tops(&mut record)?;
        let unfinished = unfinished_name(name);
        let folder = self.folders.snapshot(&unfinished);
        let _ = fs::remove_dir_all(&folder);
        create_folder(&folder)?;
        let mut tasks = self.tasks(&record, &BTreeMap::new(), Beginning::Load)?;
        for (task, machine) in tasks.iter_mut().zip(&self.topology.machines) {
            task.memory = format!("snapshots/{unfinished}/{}", memory_file(&machine.name));
        }
        self.group_but(&power.without_power(), operation, holder, &tasks, progress)?;
        let boot = record.boot.clone().ok_or(LabError::NotUp)?;
        let manifest = Manifest {
            build,
            faults: power,
            ..Manifest::new(&record, frozen, boot, unix_now().as_secs())
        };
        manifest.write(&folder)?;
        Ok(snapshot::finish(&self.folders, name)?)
    }

    /// Makes an empty layer for every disk, to be put on it when its machine is frozen;
    /// returns what lies below.
    pub(super) fn put_new_tops(
        &self,
        record: &mut LabRecord,
    ) -> Result<BTreeMap<String, Vec<Layers>>, LabError> {
        let frozen = record.disks.clone();
        if let Some((machine, _)) = frozen.iter().find(|(_, disks)| {
            disks
                .iter()
                .any(|layers| layers.names().len() >= LAYERS_MAX)
        }) {
            return Err(LabError::TooManyLayers {
                machine: machine.clone(),
            });
        }
        // Written down before QEMU hears of it: a new layer that is never used is empty, and
        // an empty layer in the list changes nothing.
        record.disks = self.with_new_tops(&mut record.next_layer, &frozen)?;
        self.folders.save_record(record)?;
        Ok(frozen)
    }

    /// Returns the machines' states when each is as somebody wants it: one that was shut down is
    /// a part of the whole, one that lost its power is not.
    fn whole(
        &self,
        holder: Holder,
        record: &LabRecord,
    ) -> Result<Vec<(String, MachineState)>, LabError> {
        let states = self.states(Some(holder), record);
        match states.iter().find(|(_, state)| !state.is_wanted()) {
            Some((machine, state)) => Err(LabError::NotWhole {
                machine: machine.clone(),
                state: *state,
            }),
            None => Ok(states),
        }
    }

    /// Forgets a saved state.
    pub fn remove_snapshot(&self, _lock: &LabLock, name: &str) -> Result<(), LabError> {
        if name == CLEAN {
            return Err(LabError::CleanStays { name: name.into() });
        }
        self.snapshot(name)?;
        let path = self.folders.snapshot(name);
        fs::remove_dir_all(&path).map_err(|source| StateError::File {
            what: "delete",
            path,
            source,
        })?;
        Ok(collect_garbage(&self.folders, &self.folders.record()?)?)
    }

    fn snapshot(&self, name: &str) -> Result<Manifest, LabError> {
        let found = if check_snapshot_name(name).is_ok() || name == CLEAN {
            Manifest::read(&self.folders.snapshot(name))?
        } else {
            None
        };
        found.ok_or_else(|| LabError::NoSnapshot {
            name: name.to_owned(),
            known: snapshot::list(&self.folders)
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
        })
    }

    /// Stops everything. Keeps the lab's state as the snapshot `last` when it is whole, and
    /// says so; with `purge` keeps nothing at all.
    pub fn down(
        &self,
        _lock: &LabLock,
        purge: bool,
        progress: &dyn Progress,
    ) -> Result<bool, LabError> {
        let mut record = self.folders.record()?;
        let mut kept = false;
        if let (Some(holder), false) = (self.holder(), purge) {
            match self.save_state(holder, LAST, lifecycle::SAVE_LAST, None, progress) {
                Ok(()) => kept = true,
                Err(error) => progress.note(&format!("the lab's state is not kept: {error}")),
            }
            record.next_layer = self.folders.record()?.next_layer;
        }
        progress.step(Phase::Kill.progress());
        self.stop_all()?;
        progress.done();
        if purge {
            let path = &self.folders.root;
            fs::remove_dir_all(path).map_err(|source| StateError::File {
                what: "delete",
                path: path.clone(),
                source,
            })?;
            return Ok(false);
        }
        let record = LabRecord {
            topology_key: record.topology_key,
            next_layer: record.next_layer,
            ..LabRecord::default()
        };
        self.folders.save_record(&record)?;
        collect_garbage(&self.folders, &record)?;
        Ok(kept)
    }

    fn stop_all(&self) -> Result<(), LabError> {
        if let Some(holder) = self.holder() {
            holder.stop()?;
        }
        self.folders.close_sessions();
        let machines = self.folders.root.join("machines");
        let Ok(entries) = fs::read_dir(&machines) else {
            return Ok(());
        };
        // Sockets and credentials mean nothing any more; the logs stay for who asks why.
        for entry in entries.filter_map(Result::ok) {
            for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                if !file.file_name().to_string_lossy().ends_with(".log") {
                    let _ = fs::remove_file(file.path());
                }
            }
        }
        Ok(())
    }

    fn kill_machines(&self, holder: Holder) -> Result<(), LabError> {
        let drivers = self.drivers(holder);
        thread::scope(|scope| {
            let kills: Vec<_> = drivers
                .iter()
                .map(|driver| (driver, scope.spawn(move || driver.kill())))
                .collect();
            kills.into_iter().try_for_each(|(driver, kill)| {
                kill.join()
                    .expect("killing does not panic")
                    .map_err(|source| LabError::Phase {
                        phase: Phase::Kill,
                        machine: driver.machine.name.clone(),
                        source: Box::new(source),
                    })
            })
        })
    }

    pub(super) fn start_holder(&self) -> Result<Holder, LabError> {
        let batch = ip_batch(&self.topology);
        let name = &self.topology.client.name;
        Ok(Holder::start(
            &self.halab,
            &self.folders.root,
            name,
            &batch,
        )?)
    }

    pub(super) fn keys(&self) -> Result<BTreeMap<String, GuestKeys>, LabError> {
        let mut connect = self.halab.clone();
        connect.push("internal-connect".into());
        Ok(keys::ensure(&self.folders, &self.topology, &connect)?)
    }

    /// Keys for a boot whose machines end as a saved state: nobody will ever log in with them.
    fn throwaway_keys(&self) -> Result<BTreeMap<String, GuestKeys>, LabError> {
        let host_key = keys::throwaway_host_key(&self.folders.root)?;
        let keys = GuestKeys {
            authorized_keys: String::new(),
            host_key,
        };
        Ok(self
            .topology
            .machine_names()
            .map(|name| (name.to_owned(), keys.clone()))
            .collect())
    }

    pub(super) fn topology_key(&self) -> String {
        snapshot::key(&self.topology)
    }

    pub(super) fn warm_key(&self, ingredients: &Ingredients) -> String {
        snapshot::key(&(
            &self.topology,
            self.image_stamps(),
            &ingredients.image_hash,
            ingredients.accelerator,
            &ingredients.qemu_version,
            super::argv::MACHINE_TYPE,
            super::argv::cpu_model(ingredients.accelerator),
        ))
    }

    /// Tells when an image of the user's was changed.
    fn image_stamps(&self) -> Vec<Option<(u64, SystemTime)>> {
        self.topology
            .machines
            .iter()
            .flat_map(|machine| &machine.disks)
            .filter_map(|disk| match &disk.content {
                DiskContent::Image { path } => Some(path),
                _ => None,
            })
            .map(|path| {
                let metadata = fs::metadata(path).ok()?;
                Some((metadata.len(), metadata.modified().ok()?))
            })
            .collect()
    }

    /// Puts the image beside the lab's disks; returns its name there.
    pub(super) fn place_image(
        &self,
        ingredients: &Ingredients,
    ) -> Result<(String, BootFiles), LabError> {
        let folder = self.folders.disks();
        let hash: String = ingredients.image_hash.chars().take(16).collect();
        let place = |from: &Path, name: String| -> Result<String, LabError> {
            let to = folder.join(&name);
            if !to.exists() {
                link_or_copy(from, &to)?;
            }
            Ok(name)
        };
        let base = place(&ingredients.disk, format!("base-{hash}.qcow2"))?;
        let boot = BootFiles {
            kernel: place(&ingredients.kernel, format!("vmlinuz-{hash}"))?,
            initrd: place(&ingredients.initrd, format!("initrd-{hash}"))?,
            accelerator: ingredients.accelerator,
        };
        Ok((base, boot))
    }

    /// Lays out what the disks are layers on.
    fn base_disks(
        &self,
        ingredients: &Ingredients,
        build: &str,
    ) -> Result<(BootFiles, BTreeMap<String, Vec<Layers>>), LabError> {
        let folder = self.folders.disks();
        let (base, boot) = self.place_image(ingredients)?;
        let mut all = BTreeMap::new();
        for machine in &self.topology.machines {
            let mut disks = Vec::new();
            for disk in &machine.disks {
                let name = base_disk(&folder, machine, disk, &base, build)?;
                disks.push(Layers::new(name));
            }
            all.insert(machine.name.clone(), disks);
        }
        Ok((boot, all))
    }

    /// Puts an empty layer on every disk.
    pub(super) fn with_new_tops(
        &self,
        next_layer: &mut u64,
        disks: &BTreeMap<String, Vec<Layers>>,
    ) -> Result<BTreeMap<String, Vec<Layers>>, LabError> {
        let folder = self.folders.disks();
        let mut all = BTreeMap::new();
        for machine in &self.topology.machines {
            let below = disks
                .get(&machine.name)
                .ok_or_else(|| LabError::OtherTopology {
                    name: machine.name.clone(),
                })?;
            let mut stacked = Vec::new();
            for (layers, disk) in below.iter().zip(&machine.disks) {
                // A layer may end up beside another lab's, in the cache or in a third lab: the
                // time makes its name one that nobody else gives.
                *next_layer = (*next_layer + 1).max(unix_micros());
                let name = format!("{}-{}.{next_layer}.qcow2", machine.name, disk.name);
                let bytes = disk_bytes(&folder.join(layers.top()))?;
                let overlay = qcow2::empty_overlay(bytes, layers.top());
                let path = folder.join(&name);
                fs::write(&path, overlay).map_err(|source| StateError::File {
                    what: "write",
                    path,
                    source,
                })?;
                stacked.push(layers.with_top(name));
            }
            all.insert(machine.name.clone(), stacked);
        }
        Ok(all)
    }

    /// Returns what an operation does with each machine, in their order.
    pub(super) fn tasks(
        &self,
        record: &LabRecord,
        keys: &BTreeMap<String, GuestKeys>,
        beginning: Beginning,
    ) -> Result<Vec<Task>, LabError> {
        let boot = record.boot.clone().ok_or(LabError::NotUp)?;
        self.topology
            .machines
            .iter()
            .map(|machine| {
                let disks = record.disks.get(&machine.name).ok_or(LabError::NotUp)?;
                Ok(Task {
                    disks: disks.clone(),
                    boot: boot.clone(),
                    beginning,
                    keys: keys.get(&machine.name).cloned().unwrap_or(GuestKeys {
                        authorized_keys: String::new(),
                        host_key: String::new(),
                    }),
                    hand_over_keys: false,
                    memory: String::new(),
                    stays_paused: record.faults.paused.contains(&machine.name),
                    links_down: record
                        .faults
                        .links_down
                        .iter()
                        .filter(|(name, _)| *name == machine.name)
                        .map(|(_, nic)| nic.clone())
                        .collect(),
                    take: None,
                })
            })
            .collect()
    }

    fn drivers(&self, holder: Holder) -> Vec<MachineDriver<'_>> {
        self.topology
            .machines
            .iter()
            .map(|machine| MachineDriver::new(machine, &self.folders, &self.halab, holder))
            .collect()
    }

    pub(super) fn driver<'lab>(
        &'lab self,
        holder: Holder,
        machine: &'lab Machine,
    ) -> MachineDriver<'lab> {
        MachineDriver::new(machine, &self.folders, &self.halab, holder)
    }

    /// Takes all machines through an operation together.
    fn group(
        &self,
        operation: Operation,
        holder: Holder,
        tasks: &[Task],
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        run_group(operation, &self.drivers(holder), tasks, progress)
    }

    /// Takes all machines but those without power through an operation together.
    pub(super) fn group_but(
        &self,
        without: &BTreeSet<String>,
        operation: Operation,
        holder: Holder,
        tasks: &[Task],
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        let (drivers, tasks): (Vec<_>, Vec<_>) = self
            .drivers(holder)
            .into_iter()
            .zip(tasks.iter().cloned())
            .filter(|(driver, _)| !without.contains(&driver.machine.name))
            .unzip();
        if drivers.is_empty() {
            return Ok(());
        }
        run_group(operation, &drivers, &tasks, progress)
    }

    /// Waits until the client sees every SSH server greet, but those of machines that cannot: without power, frozen,
    /// with the client's cable out.
    pub fn await_greetings(&self) -> Result<(), LabError> {
        let holder = self.holder().ok_or(LabError::NotUp)?;
        let faults = self.folders.record()?.faults;
        let addresses = self
            .topology
            .machines
            .iter()
            .filter(|machine| self.driver(holder, machine).pid().is_some())
            .filter(|machine| {
                let nic = self.topology.nic_for_client(machine);
                nic.is_some_and(|nic| !faults.is_unreachable(&machine.name, &nic.name))
            })
            .map(|machine| self.topology.address_for_client(machine).to_string());
        let output = Command::new(&self.halab[0])
            .args(&self.halab[1..])
            .args(["internal-hold", "greet", &std::process::id().to_string()])
            .arg(GREETING_DEADLINE_SECONDS.to_string())
            .args(addresses)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| LabError::NoGreeting {
                reason: error.to_string(),
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(LabError::NoGreeting {
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Returns each machine's state, asking QEMU itself where it runs.
    pub fn states(
        &self,
        holder: Option<Holder>,
        record: &LabRecord,
    ) -> Vec<(String, MachineState)> {
        let processes = holder.map_or_else(Vec::new, |holder| in_namespace_of(holder.pid));
        // Without its network nothing of a lab is there, whatever was meant to be.
        let lab_is_up = record.up && holder.is_some();
        self.topology
            .machine_names()
            .map(|name| {
                let process = processes
                    .iter()
                    .find(|process| process.machine() == Some(name))
                    .map_or(MachineProcess::Gone, |process| {
                        self.ask_qemu(name, process.pid)
                    });
                let ended_by = self.ended_by(record, name);
                let state = MachineState::judge(process, lab_is_up, ended_by);
                (name.to_owned(), state)
            })
            .collect()
    }

    /// Returns who asked for the end of a machine that is gone: where no command did, perhaps
    /// somebody in the guest, who typed `poweroff`.
    pub(super) fn ended_by(&self, record: &LabRecord, machine: &str) -> EndedBy {
        let ended_in_order = || {
            let file = self.folders.machine(machine).join(super::argv::PID_FILE);
            !file.exists()
        };
        match record.faults.ended_by(machine) {
            EndedBy::Nobody if ended_in_order() => EndedBy::ShutDown,
            known => known,
        }
    }

    /// A machine that does not answer in time is taken to run, unless it is on its way out.
    fn ask_qemu(&self, machine: &str, pid: i32) -> MachineProcess {
        let socket = self
            .folders
            .machine(machine)
            .join(super::argv::STATUS_SOCKET);
        match Qmp::connect(&socket, STATUS_PATIENCE).and_then(|mut qmp| qmp.is_running()) {
            Ok(false) => MachineProcess::Paused,
            Err(_) if ends_within(pid, END_PATIENCE) => MachineProcess::Gone,
            Ok(true) | Err(_) => MachineProcess::Running,
        }
    }

    pub fn machine_statuses(&self, record: &LabRecord) -> Vec<MachineStatus> {
        let holder = self.holder();
        let processes = holder.map_or_else(Vec::new, |holder| in_namespace_of(holder.pid));
        self.states(holder, record)
            .into_iter()
            .zip(&self.topology.machines)
            .map(|((name, state), machine)| {
                let pid = processes
                    .iter()
                    .find(|process| process.machine() == Some(&name))
                    .map(|process| process.pid);
                let (age, resident_kib) = pid.and_then(age_and_memory).unzip();
                MachineStatus {
                    name,
                    address: self.topology.address_for_client(machine),
                    state,
                    pid,
                    age,
                    resident_kib,
                }
            })
            .collect()
    }
}

pub(super) fn acting(machine: &str, source: MachineError) -> LabError {
    LabError::Machine {
        machine: machine.to_owned(),
        source: Box::new(source),
    }
}

/// Takes machines through an operation: one thread a machine and phase, and the first failure
/// is the one that is told.
pub(super) fn run_group(
    operation: Operation,
    drivers: &[MachineDriver<'_>],
    tasks: &[Task],
    progress: &dyn Progress,
) -> Result<(), LabError> {
    let mut group = Group::new(operation, drivers.len());
    let mut first_failure = None;
    let (sender, reports) = mpsc::channel();
    thread::scope(|scope| {
        let mut action = group.handle(GroupEvent::Begin);
        loop {
            match action {
                Some(GroupAction::Finish) => return Ok(()),
                Some(GroupAction::GiveUp) => {
                    return Err(first_failure.expect("only a failure makes a group give up"));
                }
                Some(GroupAction::All(phase)) => {
                    progress.step(phase.progress());
                    for (machine, (driver, task)) in drivers.iter().zip(tasks).enumerate() {
                        let sender = sender.clone();
                        scope.spawn(move || {
                            let _ = sender.send((machine, phase, driver.run(phase, task)));
                        });
                    }
                }
                None => {}
            }
            let (machine, phase, result) = reports
                .recv()
                .expect("this function keeps a sender of its own");
            action = group.handle(match result {
                Ok(()) => GroupEvent::Done { machine },
                Err(source) => {
                    first_failure.get_or_insert_with(|| LabError::Phase {
                        phase,
                        machine: drivers[machine].machine.name.clone(),
                        source: Box::new(source),
                    });
                    GroupEvent::Failed { machine }
                }
            });
        }
    })
}

fn check_snapshot_name(name: &str) -> Result<(), LabError> {
    if name == CLEAN {
        return Err(LabError::CleanStays { name: name.into() });
    }
    let fits = name.len() <= SNAPSHOT_NAME_CHARS_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|each| each.is_ascii_alphanumeric() || b"-_.".contains(&each));
    if fits {
        Ok(())
    } else {
        Err(LabError::SnapshotName { name: name.into() })
    }
}

fn unix_micros() -> u64 {
    u64::try_from(unix_now().as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Reads a disk's size from its top layer.
pub(super) fn disk_bytes(path: &Path) -> Result<u64, LabError> {
    let error = |source| LabError::ReadLayer {
        path: path.to_owned(),
        source,
    };
    let mut head = [0; qcow2::HEAD_BYTES];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut head))
        .map_err(error)?;
    qcow2::Header::parse(&head)
        .map(|header| header.disk_bytes)
        .map_err(|reason| error(io::Error::new(io::ErrorKind::InvalidData, reason)))
}

/// Returns the name of the file a disk's layers stand on, making it where it is the disk's own.
fn base_disk(
    folder: &Path,
    machine: &Machine,
    disk: &Disk,
    base: &str,
    build: &str,
) -> Result<String, LabError> {
    match &disk.content {
        DiskContent::Root => Ok(base.to_owned()),
        DiskContent::Image { path } => {
            let name = format!("{}-{}-image.{build}.qcow2", machine.name, disk.name);
            let to = folder.join(&name);
            fs::copy(path, &to).map_err(|source| StateError::File {
                what: "copy the image to",
                path: to,
                source,
            })?;
            Ok(name)
        }
        DiskContent::Blank {
            file,
            size,
            partitions,
        } => {
            let stem = file.strip_suffix(".qcow2").unwrap_or(file);
            let name = format!("{stem}.{build}.qcow2");
            let make = |reason: String| LabError::MakeDisk {
                file: name.clone(),
                reason,
            };
            let raw = folder.join(format!("{stem}.{build}.raw"));
            fs::write(&raw, partition_table(*size, *partitions))
                .and_then(|()| fs::OpenOptions::new().write(true).open(&raw))
                .and_then(|raw| raw.set_len(size.bytes()))
                .map_err(|error| make(error.to_string()))?;
            let output = Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2"])
                .args([&raw, &folder.join(&name)])
                .stdin(Stdio::null())
                .output()
                .map_err(|error| make(format!("failed to run qemu-img: {error}")))?;
            let _ = fs::remove_file(&raw);
            if !output.status.success() {
                return Err(make(String::from_utf8_lossy(&output.stderr).trim().into()));
            }
            Ok(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshots_name_is_no_path_and_not_the_clean_one() {
        for name in ["", "..", "a/b", ".a", CLEAN, &"x".repeat(65)] {
            assert!(check_snapshot_name(name).is_err(), "{name}");
        }
        check_snapshot_name("after-01").expect("a name");
    }
}
