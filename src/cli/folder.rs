//! The lab's folder: the user's own, or the one inside the binary, laid out in the cache.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use include_dir::{Dir, DirEntry, include_dir};

static PLAYBOOKS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/playbooks");
static TEMPLATES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");
static VM: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/vm");

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{} is not a lab's folder: it has no vm/topology.yml; `halab init DIR` writes one", path.display())]
    NotALab { path: PathBuf },
    #[error("{} is there already and not empty; name a new folder", path.display())]
    NotEmpty { path: PathBuf },
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// A folder with `vm/`, `playbooks/` and `templates/`.
#[derive(Clone, Debug)]
pub struct LabFolder {
    pub root: PathBuf,
}

impl LabFolder {
    pub fn open(root: &Path) -> Result<Self, FolderError> {
        if !root.join("vm/topology.yml").is_file() {
            return Err(FolderError::NotALab {
                path: root.to_owned(),
            });
        }
        // The processes that are started with it have working directories of their own.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Ok(Self { root })
    }

    /// Lays the embedded lab out under a name made of its content, once.
    pub fn embedded(cache_dir: &Path) -> Result<Self, FolderError> {
        let root = cache_dir.join(format!("lab-{:016x}", embedded_hash()));
        if !root.is_dir() {
            let unfinished = cache_dir.join(format!(".lab-{}.unfinished", process::id()));
            let _ = fs::remove_dir_all(&unfinished);
            write_embedded(&unfinished)?;
            if let Err(source) = fs::rename(&unfinished, &root) {
                // Another halab may have been faster; then its copy is as good.
                let _ = fs::remove_dir_all(&unfinished);
                if !root.is_dir() {
                    return Err(FolderError::Write { path: root, source });
                }
            }
        }
        Ok(Self { root })
    }

    /// Writes the embedded lab into a new folder of the user's.
    pub fn init(root: &Path) -> Result<Self, FolderError> {
        if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) || root.is_file() {
            return Err(FolderError::NotEmpty {
                path: root.to_owned(),
            });
        }
        write_embedded(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }
}

fn parts() -> [(&'static str, &'static Dir<'static>); 3] {
    [
        ("playbooks", &PLAYBOOKS),
        ("templates", &TEMPLATES),
        ("vm", &VM),
    ]
}

fn embedded_hash() -> u64 {
    fn visit(dir: &Dir<'_>, hasher: &mut DefaultHasher) {
        for entry in dir.entries() {
            match entry {
                DirEntry::Dir(dir) => visit(dir, hasher),
                DirEntry::File(file) => (file.path(), file.contents()).hash(hasher),
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    for (name, dir) in parts() {
        name.hash(&mut hasher);
        visit(dir, &mut hasher);
    }
    hasher.finish()
}

fn write_embedded(root: &Path) -> Result<(), FolderError> {
    for (name, dir) in parts() {
        let path = root.join(name);
        fs::create_dir_all(&path)
            .and_then(|()| dir.extract(&path))
            .map_err(|source| FolderError::Write { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_lab_is_laid_out_once_and_whole() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let first = LabFolder::embedded(cache.path()).expect("laid out");
        let second = LabFolder::embedded(cache.path()).expect("found again");
        assert_eq!(first.root, second.root);
        assert!(LabFolder::open(&first.root).is_ok_and(|folder| folder.root == first.root));
    }

    #[test]
    fn init_leaves_a_folder_with_content_alone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("mine"), "x").expect("written");
        let refused = LabFolder::init(dir.path());
        assert!(matches!(refused, Err(FolderError::NotEmpty { .. })));
    }
}
