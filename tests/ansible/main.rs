//! halab beside ansible-core: the same playbooks, the same output and counts.
//!
//! `cases.txt` lists playbooks and arguments; `record` keeps what ansible-core 2.19 printed
//! in `expected/`. Here halab runs each case and must say the same, line by line, after what
//! cannot be equal (times, ansible-core's wording of errors in templates) is evened out.

#[path = "../support/programs.rs"]
mod programs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use programs::program;
use serde_json::{Map, Value};

/// Parts of a result that both must agree on. Others tell of the tool that made them.
const COMPARED: &[&str] = &[
    "assertion",
    "attempts",
    "censored",
    "changed",
    "cmd",
    "evaluated_to",
    "failed_when_result",
    "item",
    "msg",
    "rc",
    "stderr",
    "stdout",
    "unreachable",
];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ansible")
}

/// One line of `cases.txt`.
struct Case {
    playbook: String,
    arguments: Vec<String>,
    recording: PathBuf,
}

fn cases() -> Vec<Case> {
    let text = fs::read_to_string(corpus().join("cases.txt")).expect("cases.txt");
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(case).collect()
}

fn case(line: &str) -> Case {
    let mut words = line.split_whitespace().map(str::to_owned);
    let playbook = words.next().expect("a line that is not empty");
    Case {
        recording: corpus().join(format!("expected/{}.txt", file_name(line))),
        playbook,
        arguments: words.collect(),
    }
}

/// As `record` names a case: runs of other characters become one hyphen.
fn file_name(line: &str) -> String {
    let mut name = String::new();
    for each in line.trim().chars() {
        if each.is_ascii_lowercase() || each.is_ascii_digit() || each == '_' {
            name.push(each);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    name
}

/// What a run printed and whether it ended well.
#[derive(Debug, PartialEq)]
struct Said {
    ended_well: bool,
    lines: Vec<String>,
}

fn recorded(case: &Case) -> Said {
    let text = fs::read_to_string(&case.recording)
        .unwrap_or_else(|error| panic!("{}: {error}", case.recording.display()));
    let (status, output) = text.split_once('\n').expect("the exit status stands first");
    Said {
        ended_well: status == "exit 0",
        lines: evened(output),
    }
}

fn run(case: &Case) -> (Said, String) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let home = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(program("halab"))
        .args(["run", "-i", "inventory.ini", "-f", "1", "-e"])
        .arg(format!("work={}", work.path().display()))
        .args(&case.arguments)
        .arg(format!("playbooks/{}.yml", case.playbook))
        .current_dir(corpus())
        .env("XDG_STATE_HOME", home.path())
        .env("XDG_CACHE_HOME", home.path())
        .env("HALAB_AGENT", program("halab-agent"))
        .stdin(Stdio::null())
        .output()
        .expect("halab starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let playbooks = corpus().join("playbooks");
    let stdout = stdout
        .replace(&work.path().display().to_string(), "WORK")
        .replace(&playbooks.display().to_string(), "PLAYBOOKS");
    let said = Said {
        ended_well: output.status.success(),
        lines: evened(&stdout),
    };
    (said, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn evened(output: &str) -> Vec<String> {
    let mut in_error = false;
    let mut lines: Vec<String> = Vec::new();
    for line in output.lines() {
        // ansible-core explains an error before the line that tells of it; so does halab,
        // in its own words and on stderr.
        let tells = ["fatal: ", "failed: ", "TASK [", "PLAY "];
        in_error = (in_error || line.starts_with("[ERROR]: "))
            && !tells.iter().any(|word| line.starts_with(word));
        if !in_error {
            lines.push(evened_line(line));
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// Leaves of a result on one line what both must agree on, and of a temporary file's
/// name in a diff that there is one.
fn evened_line(line: &str) -> String {
    if line.starts_with("+++ after: ") {
        return "+++ after: SOURCE".to_owned();
    }
    let Some((head, json)) = line.split_once(" => {") else {
        return line.to_owned();
    };
    let Ok(Value::Object(result)) = serde_json::from_str(&format!("{{{json}")) else {
        return line.to_owned();
    };
    let mut kept: Map<String, Value> = result
        .into_iter()
        .filter(|(name, _)| COMPARED.contains(&name.as_str()))
        .collect();
    if let Some(Value::String(msg)) = kept.get_mut("msg")
        && ["undefined", "Task failed", "` has no `"]
            .iter()
            .any(|words| msg.contains(words))
    {
        "WHAT IS WRONG IN THE PLAYBOOK".clone_into(msg);
    }
    let sorted: std::collections::BTreeMap<String, Value> = kept.into_iter().collect();
    format!(
        "{head} => {}",
        serde_json::to_string(&sorted).expect("JSON")
    )
}

/// The first line that differs, with what stands around it.
fn difference(expected: &[String], found: &[String]) -> String {
    let at = expected
        .iter()
        .zip(found)
        .position(|(expected, found)| expected != found)
        .unwrap_or_else(|| expected.len().min(found.len()));
    let around = |lines: &[String]| -> String {
        let from = at.saturating_sub(3).min(lines.len());
        let to = (at + 6).min(lines.len());
        lines[from..to].join("\n")
    };
    format!(
        "--- ansible-core\n{}\n--- halab\n{}",
        around(expected),
        around(found)
    )
}

#[test]
fn every_playbook_runs_as_in_ansible_core() {
    let wanted = std::env::var("HALAB_CASE").unwrap_or_default();
    let mut problems = Vec::new();
    let cases = cases();
    let count = cases.len();
    for case in cases {
        let name = case
            .recording
            .file_stem()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        if !name.starts_with(&wanted) {
            continue;
        }
        let expected = recorded(&case);
        let (found, stderr) = run(&case);
        if expected != found {
            problems.push(format!(
                "{name}: ended well {} and {}\n{}\n--- stderr\n{stderr}",
                expected.ended_well,
                found.ended_well,
                difference(&expected.lines, &found.lines)
            ));
        }
    }
    assert!(
        problems.is_empty(),
        "{} of {count} differ:\n\n{}",
        problems.len(),
        problems.join("\n\n")
    );
}
