//! `sysctl`: a kernel setting in its file, and in the running kernel.

use super::args::Args;
use super::coerce::boolean;

/// What a task comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The file's new content, where it changes.
    pub file: Option<String>,
    /// The value the running kernel gets.
    pub kernel: Option<String>,
    pub reloads: bool,
}

impl Plan {
    pub fn is_change(&self) -> bool {
        self.file.is_some() || self.kernel.is_some()
    }
}

/// Decides; `current` is the running kernel's value, absent when it has no such setting.
pub fn plan(args: Args<'_>, file: &str, current: Option<&str>) -> Plan {
    let name = args.word("name");
    let is_absent = args.word("state") == "absent";
    let value = wanted_value(args.word("value"));
    let content = if is_absent {
        without(file, name)
    } else {
        with(file, name, &value)
    };
    let content = Some(content).filter(|content| content != file);
    let differs = current.is_none_or(|current| !is_same(current, &value));
    Plan {
        kernel: (args.flag("sysctl_set") && !is_absent && differs).then_some(value),
        reloads: args.flag("reload") && content.is_some() && !is_absent,
        file: content,
    }
}

/// Returns a value as the kernel takes it: Ansible's words for true and false are 1 and 0.
fn wanted_value(text: &str) -> String {
    match boolean(&text.into()) {
        Some(true) => "1".to_owned(),
        Some(false) => "0".to_owned(),
        None => text.trim().to_owned(),
    }
}

/// Compares word by word: the kernel parts several values by tabs.
fn is_same(left: &str, right: &str) -> bool {
    left.split_whitespace().eq(right.split_whitespace())
}

/// Returns the settings of a file in order.
pub fn settings(file: &str) -> impl Iterator<Item = (&str, &str)> {
    file.lines().filter_map(setting)
}

/// Reads one line; a leading minus only says that errors do not matter.
fn setting(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    Some((name.trim().trim_start_matches('-').trim(), value.trim()))
}

fn with(file: &str, name: &str, value: &str) -> String {
    let line = format!("{name}={value}\n");
    let mut found = false;
    let mut content = String::new();
    for old in file.split_inclusive('\n') {
        match setting(old) {
            Some((known, current)) if known == name => {
                found = true;
                content.push_str(if is_same(current, value) { old } else { &line });
            }
            _ => content.push_str(old),
        }
    }
    if !found {
        if !content.is_empty() && !content.ends_with('\n') {
            content.push('\n');
        }
        content.push_str(&line);
    }
    content
}

fn without(file: &str, name: &str) -> String {
    let lines = file.split_inclusive('\n');
    lines
        .filter(|line| setting(line).is_none_or(|(known, _)| known != name))
        .collect()
}

/// Returns where the running kernel keeps a setting, below `/proc/sys`. A dot within an
/// interface's name is written as a slash: `net.ipv4.conf.eth0/1.arp_ignore`.
pub fn kernel_path(name: &str) -> Option<String> {
    let swapped: String = name
        .chars()
        .map(|char| match char {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let is_inside = swapped
        .split('/')
        .all(|part| !part.is_empty() && part != "..");
    is_inside.then_some(swapped)
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn planned(args: Value, file: &str, current: Option<&str>) -> Plan {
        let Value::Object(map) = args else {
            panic!("a mapping")
        };
        let args = coerce(lookup("sysctl").expect("known"), &map).expect("valid");
        plan(Args(&args), file, current)
    }

    #[test]
    fn the_file_gets_one_line_and_the_kernel_the_value_when_asked() {
        let plan = planned(
            json!({"name": "a.b", "value": "yes", "sysctl_set": true}),
            "# x\na.b = 0\n",
            Some("0"),
        );
        assert_eq!(plan.file.as_deref(), Some("# x\na.b=1\n"));
        assert_eq!(plan.kernel.as_deref(), Some("1"));
        let plan = planned(json!({"name": "a.b", "value": 2}), "x=1", None);
        assert_eq!(
            (plan.file.as_deref(), plan.kernel),
            (Some("x=1\na.b=2\n"), None)
        );
    }

    #[test]
    fn what_is_so_already_is_left() {
        let args = json!({"name": "a.b", "value": "4096 87380", "sysctl_set": true});
        assert!(!planned(args, "a.b = 4096\t87380\n", Some("4096\t87380")).is_change());
        assert!(
            !planned(
                json!({"name": "a.b", "state": "absent"}),
                "a.bc=1\n",
                Some("1")
            )
            .is_change()
        );
    }

    #[test]
    fn names_stay_below_the_settings() {
        assert_eq!(
            kernel_path("net.ipv4.conf.eth0/1.x").as_deref(),
            Some("net/ipv4/conf/eth0.1/x")
        );
        assert_eq!(kernel_path("a...b"), None);
        assert_eq!(kernel_path("//.passwd"), None);
    }

    proptest! {
        #[test]
        fn present_and_absent_undo_each_other(file in "([ab]\\.c ?= ?[0-9]\n|# .\n){0,5}", value in "[0-9]{1,3}") {
            let there = with(&file, "n.m", &value);
            prop_assert_eq!(with(&there, "n.m", &value), there.clone());
            prop_assert_eq!(without(&there, "n.m"), file);
        }
    }
}
