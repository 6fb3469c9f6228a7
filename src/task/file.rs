//! `file`: (wanted state, what is at the path) → one step; attributes follow separately.

use super::args::Args;
use super::outcome::Refusal;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum There {
    Absent,
    File,
    /// A file with more than one name.
    Hard,
    Directory {
        is_empty: bool,
    },
    Link {
        target: String,
    },
}

/// What is known of the path and of `src`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub there: There,
    pub leads_to: End,
    pub source_exists: bool,
    /// The path and `src` are one and the same file already.
    pub is_source: bool,
}

/// Where a path leads when links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Nothing,
    Directory,
    /// A file, or what is treated as one.
    Other,
}

impl End {
    fn word(self) -> &'static str {
        match self {
            Self::Nothing => "absent",
            Self::Directory => "directory",
            Self::Other => "file",
        }
    }
}

/// What has to be done to the path itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Remove,
    /// With all the directories above it.
    MakeDirectory,
    MakeEmptyFile,
    SymbolicLink {
        target: String,
        replaces: Replaces,
    },
    HardLink {
        source: String,
        replaces: Replaces,
    },
}

/// What a link takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    Nothing,
    File,
    EmptyDirectory,
}

/// The state a task ends in, and the step there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub state: &'static str,
    pub step: Step,
}

impl There {
    /// Returns Ansible's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::File => "file",
            Self::Hard => "hard",
            Self::Directory { .. } => "directory",
            Self::Link { .. } => "link",
        }
    }
}

pub fn plan(args: Args<'_>, facts: &Facts) -> Result<Plan, Refusal> {
    let path = args.word("path");
    let state = state(args, &facts.there);
    if args.flag("recurse") && state != "directory" {
        return Err(
            Refusal::new("recurse option requires state to be 'directory'").with("path", path),
        );
    }
    if args.has("src") && !matches!(state, "link" | "hard") {
        return Err(
            Refusal::new("src option requires state to be 'link' or 'hard'").with("path", path),
        );
    }
    let step = match state {
        "absent" if facts.there == There::Absent => Step::Nothing,
        "absent" => Step::Remove,
        "directory" => directory(args, facts)?,
        "link" => link(args, facts)?,
        "hard" => hard_link(args, facts)?,
        "touch" if facts.there == There::Absent => Step::MakeEmptyFile,
        "touch" => Step::Nothing,
        _ => file(args, facts)?,
    };
    Ok(Plan { state, step })
}

/// Returns the wanted state; none given means the one that is.
fn state(args: Args<'_>, there: &There) -> &'static str {
    const STATES: &[&str] = &["absent", "directory", "file", "hard", "link", "touch"];
    match args.text("state") {
        Some(given) => STATES
            .iter()
            .find(|state| **state == given)
            .unwrap_or(&"file"),
        None if *there != There::Absent => there.word(),
        None if args.flag("recurse") => "directory",
        None => "file",
    }
}

fn file(args: Args<'_>, facts: &Facts) -> Result<Step, Refusal> {
    let path = args.word("path");
    let there = match &facts.there {
        There::File | There::Hard => return Ok(Step::Nothing),
        There::Link { .. } if args.flag("follow") => match facts.leads_to {
            End::Other => return Ok(Step::Nothing),
            end => end.word(),
        },
        other => other.word(),
    };
    Err(
        Refusal::new(format!("file ({path}) is {there}, cannot continue"))
            .with("path", path)
            .with("state", there),
    )
}

fn directory(args: Args<'_>, facts: &Facts) -> Result<Step, Refusal> {
    let there = match &facts.there {
        There::Absent => return Ok(Step::MakeDirectory),
        There::Directory { .. } => return Ok(Step::Nothing),
        There::Link { .. } if args.flag("follow") => match facts.leads_to {
            End::Directory => return Ok(Step::Nothing),
            End::Nothing => "link to nothing",
            End::Other => "file",
        },
        other => other.word(),
    };
    let path = args.word("path");
    let msg = format!("{path} already exists as a {there}");
    Err(Refusal::new(msg).with("path", path))
}

fn link(args: Args<'_>, facts: &Facts) -> Result<Step, Refusal> {
    let path = args.word("path");
    let Some(src) = args.text("src") else {
        return match facts.there {
            There::Link { .. } => Ok(Step::Nothing),
            _ => Err(Refusal::new("src is required for creating new symlinks")),
        };
    };
    let force = args.flag("force");
    if !force && !facts.source_exists {
        let msg = format!(
            "src file does not exist, use 'force=yes' if you really want to create the link: {src}"
        );
        return Err(Refusal::new(msg).with("path", path).with("src", src));
    }
    let replaces = match &facts.there {
        There::Absent => Replaces::Nothing,
        There::Link { target } if target == src => return Ok(Step::Nothing),
        There::Link { .. } => Replaces::File,
        There::Directory { is_empty: false } if force => {
            let msg = format!("the directory {path} is not empty, refusing to convert it");
            return Err(Refusal::new(msg).with("path", path));
        }
        There::Directory { .. } if force => Replaces::EmptyDirectory,
        There::File | There::Hard if force => Replaces::File,
        other => {
            let there = other.word();
            let msg = format!("refusing to convert from {there} to symlink for {path}");
            return Err(Refusal::new(msg).with("path", path));
        }
    };
    Ok(Step::SymbolicLink {
        target: src.to_owned(),
        replaces,
    })
}

fn hard_link(args: Args<'_>, facts: &Facts) -> Result<Step, Refusal> {
    let path = args.word("path");
    let Some(src) = args.text("src") else {
        return match facts.there {
            There::Hard => Ok(Step::Nothing),
            _ => Err(Refusal::new("src is required for creating new hardlinks")),
        };
    };
    let refuse = |msg: String| Err(Refusal::new(msg).with("dest", path).with("src", src));
    if !facts.source_exists {
        return refuse("src does not exist".to_owned());
    }
    let replaces = match &facts.there {
        There::Absent => Replaces::Nothing,
        _ if facts.is_source => return Ok(Step::Nothing),
        There::Link { .. } => Replaces::File,
        There::File | There::Hard if args.flag("force") => Replaces::File,
        other => {
            let there = other.word();
            return refuse(format!("Cannot link, {there} exists at destination"));
        }
    };
    Ok(Step::HardLink {
        source: src.to_owned(),
        replaces,
    })
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Value, json};

    fn planned(mut args: Value, there: There) -> Result<Step, String> {
        args["path"] = "/x".into();
        let Value::Object(map) = args else {
            panic!("a mapping")
        };
        let args = coerce(lookup("file").expect("known"), &map).expect("valid");
        let facts = Facts {
            leads_to: match there {
                There::Absent => End::Nothing,
                There::Directory { .. } => End::Directory,
                _ => End::Other,
            },
            there,
            source_exists: true,
            is_source: false,
        };
        let planned = plan(Args(&args), &facts);
        planned.map(|plan| plan.step).map_err(|refusal| refusal.msg)
    }

    const EMPTY: There = There::Directory { is_empty: true };

    #[test]
    fn what_is_there_needs_no_step() {
        assert_eq!(planned(json!({}), There::File), Ok(Step::Nothing));
        assert_eq!(
            planned(json!({"state": "directory"}), EMPTY),
            Ok(Step::Nothing)
        );
        assert_eq!(
            planned(json!({"state": "absent"}), There::Absent),
            Ok(Step::Nothing)
        );
        assert_eq!(
            planned(json!({"state": "touch"}), There::File),
            Ok(Step::Nothing)
        );
    }

    #[test]
    fn one_thing_never_silently_becomes_another() {
        assert_eq!(
            planned(json!({}), There::Absent),
            Err("file (/x) is absent, cannot continue".to_owned())
        );
        assert_eq!(
            planned(json!({"state": "directory"}), There::File),
            Err("/x already exists as a file".to_owned())
        );
        let link = json!({"state": "link", "src": "/y"});
        assert_eq!(
            planned(link, There::File),
            Err("refusing to convert from file to symlink for /x".to_owned())
        );
    }

    #[test]
    fn a_link_is_turned_to_its_new_target() {
        let link = json!({"state": "link", "src": "/y"});
        let old = There::Link {
            target: "/z".to_owned(),
        };
        let target = "/y".to_owned();
        assert_eq!(
            planned(link.clone(), old),
            Ok(Step::SymbolicLink {
                target: target.clone(),
                replaces: Replaces::File
            })
        );
        assert_eq!(planned(link, There::Link { target }), Ok(Step::Nothing));
    }

    #[test]
    fn force_replaces_files_and_empty_directories_only() {
        let link = json!({"state": "link", "src": "/y", "force": true});
        let Ok(Step::SymbolicLink { replaces, .. }) = planned(link.clone(), EMPTY) else {
            panic!("a link");
        };
        assert_eq!(replaces, Replaces::EmptyDirectory);
        planned(link, There::Directory { is_empty: false }).unwrap_err();
    }

    #[test]
    fn recursion_is_for_directories() {
        planned(json!({"recurse": true, "state": "file"}), There::File).unwrap_err();
        assert_eq!(
            planned(json!({"recurse": true}), There::Absent),
            Ok(Step::MakeDirectory)
        );
    }
}
