//! Where playbooks, inventories, templates and variable files come from.
//!
//! The language asks through [`SourceLoader`]; [`Disk`](super::loader::Disk) is the shell that reads this
//! machine's files, [`Memory`] holds texts for tests. Here are also the rules of where a
//! file named in a playbook is looked for.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What the language may know of the machine it runs on.
pub trait SourceLoader: Send + Sync + std::fmt::Debug {
    /// Reads a whole text; the error says why not, in words.
    fn read(&self, path: &str) -> Result<String, String>;

    fn is_file(&self, path: &str) -> bool;

    fn is_directory(&self, path: &str) -> bool;

    /// Names (not paths) in a directory, sorted; none when it cannot be read.
    fn list(&self, path: &str) -> Vec<String>;

    /// A variable of the environment.
    fn environment(&self, name: &str) -> Option<String>;

    /// An absolute path without `.` and `..`.
    fn absolute(&self, path: &str) -> String;
}

/// Texts by path; the working directory is `/`.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub files: BTreeMap<String, String>,
    pub environment: BTreeMap<String, String>,
}

impl Memory {
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = files
            .into_iter()
            .map(|(path, text)| (normal(&Path::new("/").join(path)), text.to_owned()));
        Self {
            files: files.collect(),
            environment: BTreeMap::new(),
        }
    }
}

impl SourceLoader for Memory {
    fn read(&self, path: &str) -> Result<String, String> {
        let found = self.files.get(&self.absolute(path));
        found.cloned().ok_or_else(|| "no such file".to_owned())
    }

    fn is_file(&self, path: &str) -> bool {
        self.files.contains_key(&self.absolute(path))
    }

    fn is_directory(&self, path: &str) -> bool {
        let prefix = format!("{}/", self.absolute(path).trim_end_matches('/'));
        self.files.keys().any(|file| file.starts_with(&prefix))
    }

    fn list(&self, path: &str) -> Vec<String> {
        let prefix = format!("{}/", self.absolute(path).trim_end_matches('/'));
        let rests = self
            .files
            .keys()
            .filter_map(|file| file.strip_prefix(&prefix));
        let mut names: Vec<String> = rests
            .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        names.dedup();
        names
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    fn absolute(&self, path: &str) -> String {
        normal(&Path::new("/").join(path))
    }
}

/// Takes `.` and `..` out of an absolute path without looking at links.
pub(super) fn normal(path: &Path) -> String {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean.to_string_lossy().into_owned()
}

/// Joins a folder and a name as the user would type it.
pub fn join(folder: &str, name: &str) -> String {
    if name.starts_with('/') || folder.is_empty() || folder == "." {
        return name.to_owned();
    }
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// The folder a path stands in; empty for a bare name.
pub fn folder_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(slash) => &path[..slash],
        None => "",
    }
}

/// Where Ansible looks for a file named in a task: first `KIND/` (`templates`, `files`,
/// `vars`, `tasks`) beside the task's own file, then that folder, then the same beside the playbook.
pub fn candidates(kind: &str, name: &str, folders: &[&str]) -> Vec<String> {
    if name.starts_with('/') {
        return vec![name.to_owned()];
    }
    let mut paths: Vec<String> = Vec::new();
    for folder in folders {
        for path in [join(&join(folder, kind), name), join(folder, name)] {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths
}

/// Returns the first of [`candidates`] that is there; the error lists where it was looked for.
pub fn find(
    loader: &dyn SourceLoader,
    kind: &str,
    name: &str,
    folders: &[&str],
) -> Result<String, Vec<String>> {
    let paths = candidates(kind, name, folders);
    let found = paths.iter().find(|path| loader.is_file(path)).cloned();
    found.ok_or(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_beside_the_task_then_beside_the_playbook() {
        assert_eq!(
            candidates("templates", "a.j2", &["roles/x", "."]),
            [
                "roles/x/templates/a.j2",
                "roles/x/a.j2",
                "templates/a.j2",
                "a.j2"
            ]
        );
    }

    #[test]
    fn memory_answers_like_a_disk() {
        let memory = Memory::new([("group_vars/all.yml", "a: 1"), ("site.yml", "[]")]);
        assert!(memory.is_directory("group_vars"));
        assert_eq!(memory.list("."), ["group_vars", "site.yml"]);
        assert_eq!(memory.read("./x/../site.yml").expect("it is there"), "[]");
    }
}
