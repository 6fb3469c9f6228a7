//! Help, completions, a lab folder of one's own, playbooks on this machine.

use std::fs;

use crate::support::Lab;

#[test]
fn help_names_every_command() {
    let said = Lab::new("help").halab(["--help"]).success();
    for command in [
        "up", "down", "reset", "status", "run", "snapshot", "ssh", "shell", "doctor",
    ] {
        assert!(
            said.contains(&format!("  {command} ")),
            "{command} is not in:\n{said}"
        );
    }
    assert!(
        !said.contains("internal"),
        "inner commands are shown:\n{said}"
    );
}

#[test]
fn a_wrong_flag_is_refused_with_the_nearest() {
    let said = Lab::new("flag")
        .halab(["run", "--tag", "x", "01-lvs-dr"])
        .failure(2);
    assert!(said.contains("--tags"), "{said}");
}

#[test]
fn a_lab_name_that_is_a_path_is_refused() {
    let said = Lab::new("../other").halab(["status"]).failure(2);
    assert!(said.contains("cannot be a lab's name"), "{said}");
}

#[test]
fn init_writes_a_folder_that_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("mylab");
    let folder = folder.to_str().expect("a plain path");
    let lab = Lab::new("init");
    lab.halab(["init", folder]).success();
    for file in ["vm/topology.yml", "vm/image.yml", "playbooks/01-lvs-dr.yml"] {
        assert!(
            fs::exists(format!("{folder}/{file}")).expect("readable"),
            "{file} is missing"
        );
    }
    lab.halab(["--dir", folder, "run", "01-lvs-dr", "--syntax-check"])
        .success();
    lab.halab(["init", folder]).failure(2);
}

#[test]
fn a_playbook_runs_on_this_machine_without_a_lab() {
    let dir = tempfile::tempdir().expect("a folder");
    let playbook = dir.path().join("site.yml");
    fs::write(
        &playbook,
        "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n  - command: echo hello\n    register: said\n  - assert: {that: said.stdout == 'hello'}\n",
    )
    .expect("written");
    let playbook = playbook.to_str().expect("a plain path");
    let said = Lab::new("local")
        .halab(["run", "-i", "localhost,", playbook])
        .success();
    assert!(said.contains("changed: [localhost]"), "{said}");
    assert!(said.contains("PLAY RECAP"), "{said}");
}
