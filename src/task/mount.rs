//! `mount`: a file system in the table of mounts, and mounted.

use super::args::Args;

/// What a task comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The table's new content, where it changes.
    pub table: Option<String>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    MakeDirectory,
    /// As the table says.
    Mount,
    /// Without the table, as the arguments say.
    MountDirectly,
    Remount,
    Unmount,
    RemoveDirectory,
}

impl Plan {
    pub fn is_change(&self) -> bool {
        self.table.is_some() || !self.steps.is_empty()
    }
}

/// What is known of the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub is_mounted: bool,
    pub directory_exists: bool,
}

pub fn plan(args: Args<'_>, table: &str, facts: Facts) -> Plan {
    let mut steps = Vec::new();
    let state = args.word("state");
    let changed = |content: String| Some(content).filter(|content| content != table);
    let table = match state {
        "present" | "mounted" => changed(with_entry(table, args)),
        "absent" => changed(without_entry(table, args.word("path"))),
        _ => None,
    };
    let makes_directory = !facts.directory_exists && args.text("fstype") != Some("swap");
    match state {
        "mounted" | "ephemeral" if !facts.is_mounted => {
            if makes_directory {
                steps.push(Step::MakeDirectory);
            }
            steps.push(if state == "mounted" {
                Step::Mount
            } else {
                Step::MountDirectly
            });
        }
        "mounted" if table.is_some() => steps.push(Step::Remount),
        "remounted" => steps.push(Step::Remount),
        "unmounted" | "absent" if facts.is_mounted => steps.push(Step::Unmount),
        _ => {}
    }
    if state == "absent" && facts.directory_exists && (table.is_some() || facts.is_mounted) {
        steps.push(Step::RemoveDirectory);
    }
    Plan { table, steps }
}

/// Returns the options as the table has them.
pub fn options(args: Args<'_>) -> String {
    let options = args.text("opts").unwrap_or("defaults");
    let waits_for_nobody =
        !args.flag("boot") && !options.split(',').any(|option| option == "noauto");
    if waits_for_nobody {
        format!("{options},noauto")
    } else {
        options.to_owned()
    }
}

fn entry(args: Args<'_>) -> String {
    let fields = [
        escaped(args.word("src")),
        escaped(args.word("path")),
        args.word("fstype").to_owned(),
        escaped(&options(args)),
        args.word("dump").to_owned(),
        args.word("passno").to_owned(),
    ];
    format!("{}\n", fields.join(" "))
}

fn escaped(field: &str) -> String {
    field
        .replace('\\', "\\134")
        .replace(' ', "\\040")
        .replace('\t', "\\011")
}

fn with_entry(table: &str, args: Args<'_>) -> String {
    let line = entry(args);
    let wanted: Vec<&str> = line.split_whitespace().collect();
    let mut found = false;
    let mut content = String::new();
    for old in table.split_inclusive('\n') {
        if !is_entry_of(old, args.word("path")) {
            content.push_str(old);
            continue;
        }
        let is_same = !found && same_fields(old, &wanted);
        content.push_str(match (found, is_same) {
            // A second entry for the place would hide behind the first.
            (true, _) => "",
            (false, true) => old,
            (false, false) => &line,
        });
        found = true;
    }
    if !found {
        if !content.is_empty() && !content.ends_with('\n') {
            content.push('\n');
        }
        content.push_str(&line);
    }
    content
}

fn without_entry(table: &str, path: &str) -> String {
    let lines = table.split_inclusive('\n');
    lines.filter(|line| !is_entry_of(line, path)).collect()
}

fn is_entry_of(line: &str, path: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with('#') && line.split_whitespace().nth(1) == Some(&escaped(path))
}

/// Compares an entry field by field; the last two may be left out.
fn same_fields(line: &str, wanted: &[&str]) -> bool {
    let mut fields: Vec<&str> = line.split_whitespace().collect();
    fields.resize(fields.len().max(wanted.len()), "0");
    fields == wanted
}

/// Returns whether a place is among the kernel's mounts (`/proc/self/mounts`).
pub fn is_mounted(mounts: &str, path: &str) -> bool {
    mounts.lines().any(|line| is_entry_of(line, path))
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Map, Value, json};

    fn args(state: &str) -> Map<String, Value> {
        let value =
            json!({"path": "/mnt/a b", "src": "/dev/sdb1", "fstype": "ext4", "state": state});
        let Value::Object(map) = value else {
            panic!("a mapping")
        };
        coerce(lookup("mount").expect("known"), &map).expect("valid")
    }

    const ENTRY: &str = "/dev/sdb1 /mnt/a\\040b ext4 defaults 0 0\n";
    const NOTHING: Facts = Facts {
        is_mounted: false,
        directory_exists: false,
    };
    const MOUNTED: Facts = Facts {
        is_mounted: true,
        directory_exists: true,
    };

    #[test]
    fn a_new_mount_is_entered_and_mounted_once() {
        let args = args("mounted");
        let first = plan(Args(&args), "# table\n", NOTHING);
        assert_eq!(
            first.table.as_deref(),
            Some(format!("# table\n{ENTRY}").as_str())
        );
        assert_eq!(first.steps, [Step::MakeDirectory, Step::Mount]);
        let second = plan(Args(&args), &first.table.expect("an entry"), MOUNTED);
        assert!(!second.is_change());
    }

    #[test]
    fn an_entry_that_leaves_out_its_last_fields_is_the_same() {
        let args = args("present");
        assert!(
            !plan(
                Args(&args),
                "/dev/sdb1 /mnt/a\\040b ext4 defaults\n",
                NOTHING
            )
            .is_change()
        );
    }

    #[test]
    fn changed_options_remount() {
        let args = args("mounted");
        let changed = plan(Args(&args), &ENTRY.replace("defaults", "ro"), MOUNTED);
        assert_eq!(
            (changed.table.as_deref(), changed.steps),
            (Some(ENTRY), vec![Step::Remount])
        );
    }

    #[test]
    fn absent_takes_everything_away_and_then_nothing() {
        let args = args("absent");
        let first = plan(Args(&args), ENTRY, MOUNTED);
        assert_eq!(first.steps, [Step::Unmount, Step::RemoveDirectory]);
        assert_eq!(first.table.as_deref(), Some(""));
        assert!(!plan(Args(&args), "", NOTHING).is_change());
    }

    #[test]
    fn mounts_are_found_by_their_place() {
        assert!(is_mounted(ENTRY, "/mnt/a b"));
        assert!(!is_mounted(ENTRY, "/mnt/a"));
    }
}
