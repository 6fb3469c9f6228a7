//! What is wrong in a file is said with file, line, column and caret, what was expected and the
//! nearest right name, with exit code 2, before the first task runs.

use std::fs;
use std::path::Path;

use crate::support::Lab;

/// A playbook that would leave `RAN` behind if its first task ran, then the mistake.
const BEFORE: &str = "- hosts: localhost
  connection: local
  gather_facts: false
  vars: {weight: 3}
  tasks:
  - name: First
    copy: {content: x, dest: RAN}
";

#[track_caller]
fn refused(rest: &str, expected: &[&str]) {
    refused_with(rest, &[], expected);
}

/// Runs `BEFORE` and the rest; checks what is said and that nothing ran.
#[track_caller]
fn refused_with(rest: &str, options: &[&str], expected: &[&str]) {
    let dir = tempfile::tempdir().expect("a folder");
    let ran = dir.path().join("ran");
    let playbook = dir.path().join("site.yml");
    let text = BEFORE.replace("RAN", ran.to_str().expect("a plain path")) + rest;
    fs::write(&playbook, text).expect("written");
    refused_file(&playbook, options, expected);
    assert!(!ran.exists(), "the first task ran");
}

#[track_caller]
fn refused_file(playbook: &Path, options: &[&str], expected: &[&str]) {
    let playbook = playbook.to_str().expect("a plain path");
    let said = Lab::new("bad")
        .halab([&["run", "-i", "localhost,", playbook], options].concat())
        .failure(2);
    for part in expected {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
    assert!(!said.contains("PLAY ["), "a play began:\n{said}");
}

#[test]
fn broken_yaml() {
    refused(
        "  - name: [open\n  - name: x\n",
        &["site.yml:", "this is not YAML"],
    );
}

#[test]
fn unknown_module() {
    refused(
        "  - coppy: {content: x, dest: /tmp/x}\n",
        &["site.yml:8:5", "coppy", "^^^^^", "`copy`"],
    );
}

#[test]
fn unknown_argument() {
    refused(
        "  - copy: {content: x, dset: /tmp/x}\n",
        &["site.yml:8:", "dset", "^^^^", "`dest`"],
    );
}

#[test]
fn unknown_keyword() {
    refused(
        "  - command: echo x\n    whne: true\n",
        &["site.yml:9:5", "whne", "^^^^", "`when`"],
    );
}

#[test]
fn wrong_type() {
    refused(
        "  - wait_for: {port: eighty}\n",
        &["site.yml:8:", "port", "eighty", "a whole number"],
    );
}

#[test]
fn missing_argument() {
    refused("  - copy: {content: x}\n", &["site.yml:8:", "dest"]);
}

#[test]
fn undefined_variable_in_a_template() {
    refused(
        "  - debug: {msg: \"weight {{ wieght }}\"}\n",
        &["site.yml:8:", "wieght", "^^^^^^", "`weight`"],
    );
}

#[test]
fn undefined_variable_in_when() {
    refused(
        "  - command: echo x\n    when: wieght > 2\n",
        &["site.yml:9:", "wieght", "^^^^^^", "`weight`"],
    );
}

#[test]
fn unknown_host_pattern() {
    let dir = tempfile::tempdir().expect("a folder");
    let playbook = dir.path().join("site.yml");
    fs::write(&playbook, "- hosts: localhots\n  tasks: []\n").expect("written");
    refused_file(
        &playbook,
        &[],
        &["site.yml:1:10", "localhots", "`localhost`"],
    );
}

#[test]
fn unknown_limit_tag_and_start() {
    refused_with("", &["-l", "localhots"], &["localhots", "`localhost`"]);
    refused_with("    tags: setup\n", &["-t", "setpu"], &["setpu", "`setup`"]);
    refused_with("", &["--start-at-task", "Frist"], &["Frist", "`First`"]);
}

#[test]
fn missing_template_file() {
    refused(
        "  - template: {src: nosuch.j2, dest: /tmp/x}\n",
        &["site.yml:8:", "nosuch.j2"],
    );
}

#[test]
fn template_syntax_error() {
    refused(
        "  - debug: {msg: \"{{ weight | }}\"}\n",
        &["site.yml:8:", "^"],
    );
}

#[test]
fn template_syntax_error_in_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("x.j2"), "one\n{% if weight %}\ntwo\n").expect("written");
    let playbook = dir.path().join("site.yml");
    fs::write(
        &playbook,
        "- hosts: localhost\n  connection: local\n  vars: {weight: 1}\n  tasks:\n  - template: {src: x.j2, dest: /tmp/x}\n",
    )
    .expect("written");
    refused_file(&playbook, &[], &["x.j2:"]);
}

#[test]
fn loop_of_imports() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a.yml"), "- import_tasks: b.yml\n").expect("written");
    fs::write(dir.path().join("b.yml"), "- import_tasks: a.yml\n").expect("written");
    let playbook = dir.path().join("site.yml");
    fs::write(
        &playbook,
        "- hosts: localhost\n  tasks:\n  - import_tasks: a.yml\n",
    )
    .expect("written");
    refused_file(&playbook, &[], &["b.yml:1:"]);
}

#[test]
fn missing_inventory() {
    let dir = tempfile::tempdir().expect("a folder");
    let playbook = dir.path().join("site.yml");
    fs::write(&playbook, "- hosts: all\n  tasks: []\n").expect("written");
    let said = Lab::new("bad")
        .halab([
            "run",
            "-i",
            "/nonexistent/hosts.ini",
            playbook.to_str().expect("a plain path"),
        ])
        .failure(2);
    assert!(said.contains("/nonexistent/hosts.ini"), "{said}");
}

#[test]
fn unknown_exercise() {
    let said = Lab::new("bad")
        .halab(["run", "01-lvs-rd", "--syntax-check"])
        .failure(2);
    assert!(said.contains("01-lvs-dr"), "{said}");
}

#[test]
fn every_problem_of_a_file_is_said_at_once() {
    refused(
        "  - coppy: {}\n  - copy: {dset: x}\n  - debug: {msg: \"{{ wieght }}\"}\n",
        &["site.yml:8:", "site.yml:9:", "site.yml:10:"],
    );
}

/// Runs `up` with a changed topology; nothing may start.
#[track_caller]
fn refused_topology(change: impl FnOnce(&Path, String) -> String, expected: &[&str]) {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("lab");
    let lab = Lab::new("badtopo");
    lab.halab(["init", folder.to_str().expect("a plain path")])
        .success();
    let file = folder.join("vm/topology.yml");
    let text = fs::read_to_string(&file).expect("readable");
    fs::write(&file, change(&folder, text)).expect("written");
    let said = lab
        .halab(["--dir", folder.to_str().expect("a plain path"), "up"])
        .failure(2);
    for part in expected {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
}

#[test]
fn two_equal_addresses() {
    refused_topology(
        |_, text| text.replace("10.0.0.30/24", "10.0.0.20/24"),
        &["topology.yml:", "10.0.0.20", "^"],
    );
}

#[test]
fn unknown_network() {
    refused_topology(
        |_, text| text.replacen("network: br0", "network: br1", 1),
        &["topology.yml:", "br1", "`br0`"],
    );
}

#[test]
fn a_disk_that_is_not_qcow2() {
    refused_topology(
        |folder, text| {
            fs::write(folder.join("vm/mine.qcow2"), "not a disk").expect("written");
            text.replacen("{root: true}", "{root: true, image: mine.qcow2}", 1)
        },
        &["topology.yml:", "mine.qcow2", "qcow2"],
    );
}

#[test]
fn a_loop_of_includes() {
    refused_topology(
        |folder, text| {
            fs::write(folder.join("vm/more.yml"), "include: topology.yml\n").expect("written");
            format!("include: more.yml\n{text}")
        },
        &["more.yml:1:", "topology.yml"],
    );
}

#[test]
fn an_exercise_that_is_not_there_does_not_begin() {
    let said = Lab::new("goto").halab(["goto", "01-lvs-rd"]).failure(2);
    assert!(said.contains("there is no exercise `01-lvs-rd`"), "{said}");
    assert!(said.contains("did you mean `01-lvs-dr`"), "{said}");
    let said = Lab::new("goto")
        .halab(["goto", "01-lvs-dr", "--tools", "both"])
        .failure(2);
    assert!(said.contains("one set of tools"), "{said}");
}

#[test]
fn both_tools_are_for_whole_exercises() {
    let said = Lab::new("both")
        .halab(["run", "01-lvs-dr", "--tools", "both", "--check"])
        .failure(2);
    assert!(
        said.contains("`--tools both` runs whole exercises"),
        "{said}"
    );
}

#[test]
fn a_report_that_could_not_be_written_is_refused_before_anything_is_graded() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("plain").to_owned();
    let (missing, folder, one) = (path("none/x.csv"), path(""), path("one"));
    let same = format!("{}/./one", dir.path().display());
    let taken = path("taken");
    fs::write(&taken, "a page of last week").expect("written");
    for (options, expected) in [
        (vec!["--csv", &missing], "--csv cannot be written to"),
        (vec!["--html", &folder], "is a folder"),
        (
            vec!["--junit", &one, "--csv", &same],
            "--junit and --csv name the same file",
        ),
        (vec!["--csv", "-", "--html", "-"], "name the same file"),
        (
            vec!["--submission", &taken, "--html", &taken],
            "--html takes a folder",
        ),
    ] {
        let said = Lab::new("bad")
            .halab([vec!["grade", "01-lvs-dr"], options].concat())
            .failure(2);
        assert!(said.contains(expected), "`{expected}` is not said:\n{said}");
    }
    assert!(!dir.path().join("one").exists());
    let kept = fs::read_to_string(&taken).expect("it is there");
    assert_eq!(kept, "a page of last week");
}
