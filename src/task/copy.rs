//! `copy`: what is copied, and where exactly it lands.

use std::path::PathBuf;

use super::outcome::Refusal;

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Bytes that came with the task, and the name a directory completes with.
    Content {
        bytes: Vec<u8>,
        name: Option<String>,
    },
    File {
        path: PathBuf,
        mode: u32,
    },
    Directory(PathBuf),
}

/// What is at the destination as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationFacts {
    pub is_directory: bool,
    /// Something is there that is no directory.
    pub is_other: bool,
    pub parent_exists: bool,
}

/// Where a copy lands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub path: String,
    /// A destination with a closing slash is a directory that may have to be made.
    pub makes_parents: bool,
}

/// Returns where a source of this name lands: in a directory under its own name.
pub fn place(
    dest: &str,
    name: Option<&str>,
    facts: DestinationFacts,
) -> Result<Destination, Refusal> {
    let is_directory = facts.is_directory || dest.ends_with('/');
    if is_directory {
        let name = name.ok_or_else(|| {
            Refusal::new(format!(
                "can not use content with a dir as dest: {dest} is a directory, name the file in it"
            ))
        })?;
        return Ok(Destination {
            path: format!("{}/{name}", dest.trim_end_matches('/')),
            makes_parents: !facts.is_directory,
        });
    }
    if !facts.parent_exists {
        return Err(missing_parent(dest));
    }
    Ok(Destination {
        path: dest.to_owned(),
        makes_parents: false,
    })
}

fn missing_parent(dest: &str) -> Refusal {
    let parent = dest.rsplit_once('/').map_or("", |(parent, _)| parent);
    Refusal::new(format!("Destination directory {parent} does not exist"))
}

/// Where a copied directory lands, and which directory gets `mode`, `owner` and `group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPlace {
    pub target: String,
    pub attributed: String,
}

/// Returns where a directory lands. `takes_contents`: the source was written with a
/// closing slash and means what is in it.
pub fn place_directory(
    dest: &str,
    name: &str,
    takes_contents: bool,
    facts: DestinationFacts,
) -> Result<DirectoryPlace, Refusal> {
    if facts.is_other {
        return Err(Refusal::new(format!(
            "cannot copy a directory to {dest}, which is a file"
        )));
    }
    if !facts.parent_exists && !dest.ends_with('/') {
        return Err(missing_parent(dest));
    }
    let plain = dest.trim_end_matches('/').to_owned();
    let inside = format!("{plain}/{name}");
    let is_directory = facts.is_directory || dest.ends_with('/');
    Ok(match (takes_contents, is_directory) {
        (true, _) => DirectoryPlace {
            target: plain.clone(),
            attributed: plain,
        },
        (false, true) => DirectoryPlace {
            target: inside.clone(),
            attributed: inside,
        },
        // As in Ansible, a destination that is made by the way gets the attributes.
        (false, false) => DirectoryPlace {
            target: inside,
            attributed: plain,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: DestinationFacts = DestinationFacts {
        is_directory: false,
        is_other: false,
        parent_exists: true,
    };

    #[test]
    fn a_directory_is_completed_with_the_sources_name() {
        let directory = DestinationFacts {
            is_directory: true,
            ..NOTHING
        };
        let placed = place("/etc", Some("motd"), directory).expect("placed");
        assert_eq!(
            (placed.path.as_str(), placed.makes_parents),
            ("/etc/motd", false)
        );
        let placed = place("/new/", Some("motd"), NOTHING).expect("placed");
        assert_eq!(
            (placed.path.as_str(), placed.makes_parents),
            ("/new/motd", true)
        );
        place("/etc", None, directory).unwrap_err();
    }

    #[test]
    fn a_file_needs_its_directory() {
        assert_eq!(
            place("/a/b", Some("x"), NOTHING).expect("placed").path,
            "/a/b"
        );
        let facts = DestinationFacts {
            parent_exists: false,
            ..NOTHING
        };
        let error = place("/a/b", Some("x"), facts).expect_err("refused");
        assert_eq!(error.msg, "Destination directory /a does not exist");
    }

    #[test]
    fn a_directory_lands_inside_unless_its_contents_are_meant() {
        let placed = |dest, takes_contents| {
            let placed = place_directory(dest, "d", takes_contents, NOTHING).expect("placed");
            (placed.target, placed.attributed)
        };
        let pair = |target: &str, attributed: &str| (target.to_owned(), attributed.to_owned());
        assert_eq!(placed("/n", true), pair("/n", "/n"));
        assert_eq!(placed("/n/", false), pair("/n/d", "/n/d"));
        assert_eq!(placed("/n", false), pair("/n/d", "/n"));
    }
}
