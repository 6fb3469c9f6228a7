//! Mode, owner and group of a file: wanted + actual → what has to be changed.

use serde_json::{Map, Value};

use super::accounts::Accounts;
use super::args::Args;
use super::mode::{FileKind, MODE_MASK, Mode};
use super::outcome::Refusal;

/// What a task wants of a file, beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub mode: Option<Mode>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// What a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actual {
    /// Permission bits only.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub is_directory: bool,
    pub is_link: bool,
}

/// What has to be done; owner and group first, for a change of owner drops set-id bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}

impl Actual {
    /// Returns what the kernel leaves of the mode when the owner changes: a program does
    /// not go on running as its old owner.
    fn mode_of_new_owner(self) -> u32 {
        let is_group_program = self.mode & 0o010 != 0;
        match (self.is_directory, is_group_program) {
            (true, _) => self.mode,
            (false, true) => self.mode & !0o6000,
            (false, false) => self.mode & !0o4000,
        }
    }
}

impl Wanted {
    /// Reads `mode`, `owner` and `group`; `preserve` takes `preserved`.
    pub fn from_args(
        args: Args<'_>,
        accounts: &Accounts,
        preserved: Option<u32>,
    ) -> Result<Self, Refusal> {
        let mode = match args.text("mode") {
            None => None,
            Some("preserve") => preserved.map(Mode::Octal),
            Some(text) => Some(
                Mode::parse(text)
                    .map_err(|error| Refusal::new(format!("mode `{text}`: {error}")))?,
            ),
        };
        let uid = args.text("owner").map(|owner| {
            let uid = accounts.uid(owner);
            uid.ok_or_else(|| Refusal::new(format!("chown failed: failed to look up user {owner}")))
        });
        let gid = args.text("group").map(|group| {
            let gid = accounts.gid(group);
            gid.ok_or_else(|| {
                Refusal::new(format!("chgrp failed: failed to look up group {group}"))
            })
        });
        Ok(Self {
            mode,
            uid: uid.transpose()?,
            gid: gid.transpose()?,
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the change that brings a file there. A link has no mode of its own.
    pub fn change(&self, actual: Actual, umask: u32) -> Change {
        let kind = if actual.is_directory {
            FileKind::Directory
        } else {
            FileKind::Other
        };
        let changes_owner = self.uid.is_some_and(|uid| uid != actual.uid)
            || self.gid.is_some_and(|gid| gid != actual.gid);
        let current = if changes_owner {
            actual.mode_of_new_owner()
        } else {
            actual.mode
        };
        let mode = self
            .mode
            .as_ref()
            .filter(|_| !actual.is_link)
            .map(|mode| mode.applied(current, kind, umask));
        Change {
            uid: self.uid.filter(|uid| *uid != actual.uid),
            gid: self.gid.filter(|gid| *gid != actual.gid),
            mode: mode.filter(|mode| *mode != current & MODE_MASK),
        }
    }
}

impl Change {
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Returns before and after in Ansible's words, for a difference.
    pub fn described(self, actual: Actual) -> (Map<String, Value>, Map<String, Value>) {
        let mut before = Map::new();
        let mut after = Map::new();
        let mut note = |name: &str, old: Value, new: Value| {
            before.insert(name.to_owned(), old);
            after.insert(name.to_owned(), new);
        };
        if let Some(uid) = self.uid {
            note("owner", actual.uid.into(), uid.into());
        }
        if let Some(gid) = self.gid {
            note("group", actual.gid.into(), gid.into());
        }
        if let Some(mode) = self.mode {
            note("mode", octal(actual.mode).into(), octal(mode).into());
        }
        (before, after)
    }
}

/// Returns permission bits as Ansible prints them: `0644`.
pub fn octal(mode: u32) -> String {
    format!("0{:03o}", mode & MODE_MASK)
}

#[cfg(test)]
mod tests {
    use super::super::accounts::example;
    use super::*;
    use serde_json::json;

    const FILE: Actual = Actual {
        mode: 0o644,
        uid: 0,
        gid: 0,
        is_directory: false,
        is_link: false,
    };

    fn wanted(value: &Value) -> Result<Wanted, Refusal> {
        let map = value.as_object().expect("a mapping");
        Wanted::from_args(Args(map), &example(), Some(0o755))
    }

    #[test]
    fn only_what_differs_is_changed() {
        let wanted = wanted(&json!({"mode": "0644", "owner": "ann", "group": "0"})).expect("valid");
        let change = wanted.change(FILE, 0o022);
        assert_eq!(
            change,
            Change {
                uid: Some(1000),
                gid: None,
                mode: None
            }
        );
        let (before, after) = change.described(FILE);
        assert_eq!(
            (&before["owner"], &after["owner"]),
            (&json!(0), &json!(1000))
        );
    }

    #[test]
    fn set_id_bits_are_set_again_after_a_change_of_owner() {
        let wanted = wanted(&json!({"mode": "4755", "owner": "ann"})).expect("valid");
        let actual = Actual {
            mode: 0o4755,
            ..FILE
        };
        assert_eq!(wanted.change(actual, 0).mode, Some(0o4755));
    }

    #[test]
    fn unknown_names_are_refused_and_preserve_takes_the_sources_mode() {
        let error = wanted(&json!({"owner": "eve"})).expect_err("no such user");
        assert_eq!(error.msg, "chown failed: failed to look up user eve");
        let preserved = wanted(&json!({"mode": "preserve"})).expect("valid");
        assert_eq!(preserved.mode, Some(Mode::Octal(0o755)));
    }
}
