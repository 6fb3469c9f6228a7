//! Saved states of a whole lab: what one consists of, and those the cache keeps warm.
//!
//! A snapshot is a folder with a manifest and one file of memory a machine; its disks are the
//! frozen layers that the manifest names. The cache holds the state `clean` for each
//! combination of image, topology and QEMU, with its layers beside it; a lab takes all of it
//! by hard links, so an entry may be replaced or deleted while labs use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::layers::Layers;
use super::state::{
    BootFiles, Faults, LabFolders, LabRecord, StateError, create_folder, link_or_copy, read_json,
    write_json,
};
use crate::playbook::exercise::Done;

/// The state every lab begins in.
pub const CLEAN: &str = "clean";
/// The state a lab was in when it went down.
pub const LAST: &str = "last";
/// The state a lab is in while it is graded in place: it goes back there.
pub const GRADED: &str = "graded";
/// The state a lab was copied in: where a copy begins.
pub const CLONED: &str = "cloned";
/// The state a lab was in when it was handed in.
pub const SUBMITTED: &str = "submitted";
const MANIFEST_FILE: &str = "manifest.json";
/// Raised when machines saved by an earlier halab would not fit.
const FORMAT: u32 = 2;

/// One saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub topology_key: String,
    pub boot: BootFiles,
    /// Each machine's frozen layers.
    pub disks: BTreeMap<String, Vec<Layers>>,
    /// The real boot that a clean state comes from; none for a state of the user's.
    pub build: Option<String>,
    /// Whether the guests have keys that are not this lab's.
    pub foreign_keys: bool,
    pub created_unix: u64,
    /// The exercises that stand on the machines.
    #[serde(default)]
    pub done: Vec<Done>,
    /// Which machines have no power in the state, and so no memory; and what else is broken in
    /// it. Only copies of running labs keep the latter: a state of the user's is loaded with
    /// everything mended, and with the machines off that were shut down.
    #[serde(default)]
    pub faults: Faults,
}

impl Manifest {
    pub fn new(
        record: &LabRecord,
        disks: BTreeMap<String, Vec<Layers>>,
        boot: BootFiles,
        created_unix: u64,
    ) -> Self {
        Self {
            format: FORMAT,
            topology_key: record.topology_key.clone(),
            boot,
            disks,
            build: None,
            foreign_keys: false,
            created_unix,
            done: record.done.clone(),
            faults: Faults::default(),
        }
    }

    pub fn read(folder: &Path) -> Result<Option<Self>, StateError> {
        let manifest: Option<Self> = read_json(&folder.join(MANIFEST_FILE))?;
        Ok(manifest.filter(|manifest| manifest.format == FORMAT))
    }

    pub fn write(&self, folder: &Path) -> Result<(), StateError> {
        write_json(&folder.join(MANIFEST_FILE), self)
    }

    /// Names every file in the folder of disks that the state needs.
    pub fn files(&self) -> BTreeSet<String> {
        files_of(&self.disks, Some(&self.boot))
    }
}

/// Names the files in the folder of disks that some disks and their machines need.
pub fn files_of(
    disks: &BTreeMap<String, Vec<Layers>>,
    boot: Option<&BootFiles>,
) -> BTreeSet<String> {
    let layers = disks.values().flatten().flat_map(Layers::names).cloned();
    let boot = boot.map(|boot| [boot.kernel.clone(), boot.initrd.clone()]);
    layers.chain(boot.into_iter().flatten()).collect()
}

/// Names a machine's file of memory.
pub fn memory_file(machine: &str) -> String {
    format!("{machine}.ram")
}

/// Makes a key of what must be equal for a saved state to fit.
pub fn key(parts: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    (FORMAT, parts).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Returns a lab's snapshots by name; damaged and foreign ones are left out.
pub fn list(folders: &LabFolders) -> Vec<(String, Manifest)> {
    let Ok(entries) = fs::read_dir(folders.snapshots()) else {
        return Vec::new();
    };
    let mut found: Vec<(String, Manifest)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_owned();
            if is_unfinished(&name) {
                return None;
            }
            let manifest = Manifest::read(&entry.path()).ok()??;
            Some((name, manifest))
        })
        .collect();
    found.sort_by_key(|(name, manifest)| (manifest.created_unix, name.clone()));
    found
}

/// Deletes what no snapshot and no machine needs: files of disks, unfinished snapshots.
pub fn collect_garbage(folders: &LabFolders, record: &LabRecord) -> Result<(), StateError> {
    let mut needed = files_of(&record.disks, record.boot.as_ref());
    for (_, manifest) in list(folders) {
        needed.extend(manifest.files());
    }
    delete_all_but(&folders.disks(), |name| needed.contains(name))?;
    delete_all_but(&folders.snapshots(), |name| !is_unfinished(name))
}

/// Where a snapshot is built; it gets its name when it is whole.
pub fn unfinished_name(name: &str) -> String {
    format!(".{name}.unfinished")
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with('.')
}

fn delete_all_but(folder: &Path, keep: impl Fn(&str) -> bool) -> Result<(), StateError> {
    let error = |path: &Path, source| StateError::File {
        what: "clean up",
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(found) if found.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(error(folder, source)),
    };
    for entry in entries {
        let entry = entry.map_err(|source| error(folder, source))?;
        if entry.file_name().to_str().is_some_and(&keep) {
            continue;
        }
        let path = entry.path();
        let gone = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        gone.map_err(|source| error(&path, source))?;
    }
    Ok(())
}

/// The cache's place for one combination of image, topology and QEMU.
#[derive(Clone, Debug)]
pub struct WarmEntry {
    folder: PathBuf,
}

impl WarmEntry {
    pub fn new(cache_dir: &Path, key: &str) -> Self {
        Self {
            folder: cache_dir.join("warm").join(key),
        }
    }

    /// The place of a state that somebody's exercises led to.
    pub fn checkpoint(cache_dir: &Path, key: &str) -> Self {
        Self {
            folder: cache_dir.join("checkpoints").join(key),
        }
    }

    /// Deletes the oldest entries beside this one, so that only so many are left.
    pub fn prune(&self, left: usize) {
        let Some(entries) = self.folder.parent().and_then(|all| fs::read_dir(all).ok()) else {
            return;
        };
        let mut by_age: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .filter(|(_, path)| *path != self.folder)
            .collect();
        by_age.sort();
        let surplus = (by_age.len() + 1).saturating_sub(left);
        for (_, path) in by_age.into_iter().take(surplus) {
            // Labs that took it have links of their own; one that stays only takes space.
            let _ = fs::remove_dir_all(path);
        }
    }

    pub fn manifest(&self) -> Result<Option<Manifest>, StateError> {
        Manifest::read(&self.folder)
    }

    pub fn is_there(&self) -> bool {
        matches!(self.manifest(), Ok(Some(_)))
    }

    /// Puts a lab's snapshot into the cache, in place of an earlier one.
    pub fn publish(&self, folders: &LabFolders, name: &str) -> Result<(), StateError> {
        match Manifest::read(&folders.snapshot(name))? {
            Some(manifest) => self.put(folders, name, &manifest),
            None => Ok(()),
        }
    }

    /// The same for a state whose guests have the keys of this lab.
    pub fn publish_for_others(&self, folders: &LabFolders, name: &str) -> Result<(), StateError> {
        match Manifest::read(&folders.snapshot(name))? {
            Some(mut manifest) => {
                manifest.foreign_keys = true;
                self.put(folders, name, &manifest)
            }
            None => Ok(()),
        }
    }

    fn put(&self, folders: &LabFolders, name: &str, manifest: &Manifest) -> Result<(), StateError> {
        let from = folders.snapshot(name);
        let unfinished = self
            .folder
            .with_extension(format!("unfinished-{}", std::process::id()));
        let _ = fs::remove_dir_all(&unfinished);
        create_folder(&unfinished)?;
        link_state(manifest, &folders.disks(), &from, &unfinished, &unfinished)?;
        manifest.write(&unfinished)?;
        let _ = fs::remove_dir_all(&self.folder);
        fs::rename(&unfinished, &self.folder).map_err(|source| StateError::File {
            what: "write",
            path: self.folder.clone(),
            source,
        })
    }

    /// Puts the cache's state into a lab as its snapshot of that name.
    pub fn adopt(&self, folders: &LabFolders, name: &str) -> Result<bool, StateError> {
        let Some(manifest) = Manifest::read(&self.folder)? else {
            return Ok(false);
        };
        let unfinished = folders.snapshot(&unfinished_name(name));
        let _ = fs::remove_dir_all(&unfinished);
        create_folder(&unfinished)?;
        link_state(
            &manifest,
            &self.folder,
            &self.folder,
            &folders.disks(),
            &unfinished,
        )?;
        manifest.write(&unfinished)?;
        finish(folders, name)?;
        Ok(true)
    }
}

/// Puts a lab's snapshot into another lab that has the same keys, under another name.
pub fn copy_into(
    from: &LabFolders,
    name: &str,
    to: &LabFolders,
    to_name: &str,
) -> Result<(), StateError> {
    let folder = from.snapshot(name);
    let Some(manifest) = Manifest::read(&folder)? else {
        return Ok(());
    };
    let unfinished = to.snapshot(&unfinished_name(to_name));
    let _ = fs::remove_dir_all(&unfinished);
    create_folder(&unfinished)?;
    link_state(&manifest, &from.disks(), &folder, &to.disks(), &unfinished)?;
    manifest.write(&unfinished)?;
    finish(to, to_name)
}

/// Links all files of a state: layers from one folder, memory from another.
fn link_state(
    manifest: &Manifest,
    disks: &Path,
    memory: &Path,
    to_disks: &Path,
    to_memory: &Path,
) -> Result<(), StateError> {
    for file in manifest.files() {
        let (from, to) = (disks.join(&file), to_disks.join(&file));
        if !to.exists() {
            link_or_copy(&from, &to)?;
        } else if !is_same(&from, &to).unwrap_or(false) {
            // Labs of before layers had names that nobody else gives.
            return Err(StateError::File {
                what: "take over",
                path: from,
                source: io::Error::other(format!("{} is another layer", to.display())),
            });
        }
    }
    let without_power = manifest.faults.without_power();
    let has_memory = |machine: &&String| !without_power.contains(*machine);
    for machine in manifest.disks.keys().filter(has_memory) {
        let file = memory_file(machine);
        link_or_copy(&memory.join(&file), &to_memory.join(&file))?;
    }
    Ok(())
}

/// Whether two names are of one file, or of a copy of it.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (first, second) = (fs::metadata(one)?, fs::metadata(other)?);
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return Ok(true);
    }
    Ok(first.len() == second.len() && fs::read(one)? == fs::read(other)?)
}

/// Gives a snapshot that is whole its name, in place of an earlier one of that name.
pub fn finish(folders: &LabFolders, name: &str) -> Result<(), StateError> {
    let from = folders.snapshot(&unfinished_name(name));
    let to = folders.snapshot(name);
    let error = |source| StateError::File {
        what: "write",
        path: to.clone(),
        source,
    };
    if to.exists() {
        // At once, so that a kill leaves the old state or the new one under the name.
        let exchange = RenameFlags::RENAME_EXCHANGE;
        if renameat2(AT_FDCWD, &from, AT_FDCWD, &to, exchange).is_ok() {
            let _ = fs::remove_dir_all(&from);
            return Ok(());
        }
        // A file system that cannot: the name is free for a moment.
        fs::remove_dir_all(&to).map_err(error)?;
    }
    fs::rename(&from, &to).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::spec::Accelerator;

    fn lab(dir: &Path, name: &str) -> LabFolders {
        let folders = LabFolders {
            lab: name.into(),
            root: dir.join(name),
        };
        folders.create().expect("created");
        folders
    }

    fn boot() -> BootFiles {
        BootFiles {
            kernel: "vmlinuz".into(),
            initrd: "initrd".into(),
            accelerator: Accelerator::Tcg,
        }
    }

    fn saved(folders: &LabFolders) -> Manifest {
        for file in ["vmlinuz", "initrd", "base", "one-sda.1", "stray"] {
            fs::write(folders.disks().join(file), file).expect("written");
        }
        let layers = Layers::new("base".into()).with_top("one-sda.1".into());
        let disks = BTreeMap::from([("one".to_owned(), vec![layers])]);
        let manifest = Manifest::new(&LabRecord::default(), disks, boot(), 1);
        let folder = folders.snapshot(&unfinished_name(CLEAN));
        create_folder(&folder).expect("created");
        fs::write(folder.join("one.ram"), "memory").expect("written");
        manifest.write(&folder).expect("written");
        finish(folders, CLEAN).expect("named");
        manifest
    }

    #[test]
    fn a_state_goes_through_the_cache_into_another_lab() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (first, second) = (lab(dir.path(), "first"), lab(dir.path(), "second"));
        let manifest = saved(&first);
        let entry = WarmEntry::new(&dir.path().join("cache"), "k");
        assert!(!entry.adopt(&second, CLEAN).expect("nothing there"));
        entry.publish(&first, CLEAN).expect("published");
        entry.publish(&first, CLEAN).expect("published again");
        assert!(entry.adopt(&second, CLEAN).expect("adopted"));
        fs::remove_dir_all(dir.path().join("cache")).expect("removed");
        assert_eq!(list(&second), [(CLEAN.to_owned(), manifest)]);
        let memory = fs::read(second.snapshot(CLEAN).join("one.ram")).expect("there");
        assert_eq!(memory, b"memory");
        assert!(second.disks().join("one-sda.1").exists());
    }

    #[test]
    fn a_machine_that_is_off_has_no_memory_in_the_state() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (first, second) = (lab(dir.path(), "first"), lab(dir.path(), "second"));
        let mut manifest = saved(&first);
        let folder = first.snapshot(CLEAN);
        fs::remove_file(folder.join("one.ram")).expect("removed");
        manifest.faults.shut_down.insert("one".into());
        manifest.write(&folder).expect("written");
        let entry = WarmEntry::checkpoint(&dir.path().join("cache"), "k");
        entry.publish_for_others(&first, CLEAN).expect("published");
        assert!(entry.adopt(&second, "before").expect("adopted"));
        let (_, adopted) = list(&second).remove(0);
        assert_eq!(adopted.faults, manifest.faults);
        assert!(second.disks().join("one-sda.1").exists());
    }

    #[test]
    fn a_layer_of_the_same_name_is_not_taken_for_the_other() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (first, second) = (lab(dir.path(), "first"), lab(dir.path(), "second"));
        saved(&first);
        let entry = WarmEntry::new(&dir.path().join("cache"), "k");
        entry.publish_for_others(&first, CLEAN).expect("published");
        fs::write(second.disks().join("one-sda.1"), "somebody's own").expect("written");
        let refused = entry.adopt(&second, CLEAN).expect_err("another layer");
        assert!(refused.to_string().contains("one-sda.1"), "{refused}");
        assert!(list(&second).is_empty());
        fs::write(second.disks().join("one-sda.1"), "one-sda.1").expect("written");
        assert!(entry.adopt(&second, CLEAN).expect("adopted"));
        assert!(list(&second)[0].1.foreign_keys);
        assert!(!list(&first)[0].1.foreign_keys);
    }

    #[test]
    fn only_so_many_checkpoints_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = lab(dir.path(), "first");
        saved(&first);
        let entry = |key: &str| WarmEntry::checkpoint(&dir.path().join("cache"), key);
        for key in ["a", "b", "c"] {
            entry(key).publish_for_others(&first, CLEAN).expect("kept");
        }
        entry("b").prune(1);
        let there: Vec<bool> = ["a", "b", "c"]
            .iter()
            .map(|key| entry(key).is_there())
            .collect();
        assert_eq!(there, [false, true, false]);
    }

    #[test]
    fn only_what_nothing_needs_is_deleted() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folders = lab(dir.path(), "lab");
        saved(&folders);
        create_folder(&folders.snapshot(&unfinished_name("cut-short"))).expect("created");
        let mut record = LabRecord::default();
        record
            .disks
            .insert("one".into(), vec![Layers::new("one-sda.2".into())]);
        fs::write(folders.disks().join("one-sda.2"), "").expect("written");
        collect_garbage(&folders, &record).expect("collected");
        let mut left: Vec<String> = fs::read_dir(folders.disks())
            .expect("there")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["base", "initrd", "one-sda.1", "one-sda.2", "vmlinuz"]
        );
        assert_eq!(fs::read_dir(folders.snapshots()).expect("there").count(), 1);
    }
}
