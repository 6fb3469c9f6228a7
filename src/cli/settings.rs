//! What will be done: the common flags joined with the environment and the defaults, made once.

use std::env;
use std::path::{Path, PathBuf};

use super::args::Common;
use super::folder::{FolderError, LabFolder};

/// Longest name of a lab: its sockets' paths must stay below 108 bytes.
const LAB_NAME_CHARS_MAX: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "`{name}` cannot be a lab's name: letters, digits, `-`, `_` and `.`, at most {LAB_NAME_CHARS_MAX}, beginning with a letter or digit"
    )]
    LabName { name: String },
    #[error(
        "neither {variable} nor HOME is set, so there is no place to keep the lab; set one of them"
    )]
    NoHome { variable: &'static str },
    #[error("failed to open the lab's folder")]
    Folder(#[from] FolderError),
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// The lab's name.
    pub lab: String,
    /// `$XDG_STATE_HOME/halab/LAB`: everything about this lab.
    pub state_dir: PathBuf,
    /// `$XDG_CACHE_HOME/halab`: images and warm snapshots, shared by all labs of the user.
    pub cache_dir: PathBuf,
    /// Where `vm/`, `playbooks/` and `templates/` are.
    pub folder: LabFolder,
    pub verbose: u8,
    pub json: bool,
}

impl Settings {
    pub fn new(common: &Common) -> Result<Self, SettingsError> {
        if !lab_name_is_valid(&common.lab) {
            return Err(SettingsError::LabName {
                name: common.lab.clone(),
            });
        }
        let state_home = base_dir("XDG_STATE_HOME", ".local/state")?;
        let cache_dir = base_dir("XDG_CACHE_HOME", ".cache")?.join("halab");
        let folder = match &common.dir {
            Some(dir) => LabFolder::open(dir)?,
            None => LabFolder::embedded(&cache_dir)?,
        };
        Ok(Self {
            lab: common.lab.clone(),
            state_dir: state_home.join("halab").join(&common.lab),
            cache_dir,
            folder,
            verbose: common.verbose,
            json: common.json,
        })
    }
}

impl Settings {
    /// The same for another lab.
    pub fn for_lab(&self, name: &str) -> Result<Self, SettingsError> {
        if !lab_name_is_valid(name) {
            return Err(SettingsError::LabName { name: name.into() });
        }
        Ok(Self {
            lab: name.to_owned(),
            state_dir: self.state_dir.with_file_name(name),
            ..self.clone()
        })
    }
}

fn lab_name_is_valid(name: &str) -> bool {
    name.len() <= LAB_NAME_CHARS_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|each| each.is_ascii_alphanumeric() || "-_.".contains(each))
}

/// The XDG rule: the variable when it is an absolute path, else below HOME.
fn base_dir(variable: &'static str, below_home: &str) -> Result<PathBuf, SettingsError> {
    if let Some(dir) = env::var_os(variable).map(PathBuf::from)
        && dir.is_absolute()
    {
        return Ok(dir);
    }
    env::var_os("HOME")
        .map(|home| Path::new(&home).join(below_home))
        .ok_or(SettingsError::NoHome { variable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_name_is_no_path() {
        for name in ["", "..", "a/b", ".hidden", "a b", &"x".repeat(33)] {
            assert!(!lab_name_is_valid(name), "{name}");
        }
        assert!(lab_name_is_valid("class-2026_a.1"));
    }
}
