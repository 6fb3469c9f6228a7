//! Several exercises one after the other, what they build on, and the way to where one begins: with
//! exercises so small that only the order of things is left.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::support::Lab;
use crate::topology::{MACHINES, state_of, wait_until};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "an_exercise_brings_the_lab_to_what_it_builds_on",
            what_it_builds_on,
        ),
        trial(
            "after_a_failure_only_what_does_not_build_on_it_runs",
            after_a_failure,
        ),
        trial(
            "goto_is_warm_the_second_time_and_in_another_lab",
            goto_is_warm,
        ),
        trial(
            "a_state_with_a_machine_off_comes_back_so_and_the_machine_starts",
            with_one_off,
        ),
        trial("a_goto_killed_half_way_leaves_a_lab_that_up_mends", killed),
    ]
}

/// Writes the lab halab brings along with other exercises: 01-a; 02-b on it; 03-c on that; 04-d alone.
fn folder(below: &Path) -> String {
    let root = below.join("lab");
    let name = root.to_str().expect("a plain path").to_owned();
    Lab::new("init").halab(["init", &name]).success();
    let playbooks = root.join("playbooks");
    fs::remove_dir_all(&playbooks).expect("removed");
    fs::create_dir(&playbooks).expect("created");
    // Checkpoints are named by the playbooks: those of an earlier run are not these.
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    for (exercise, needs) in [
        ("01-a", ""),
        ("02-b", "01-a"),
        ("03-c", "02-b"),
        ("04-d", ""),
    ] {
        let text = format!(
            "# {nonce}
- hosts: saisp-vm-2
  gather_facts: false
  vars:
    tools: agent
    breaks: ''
    exercise: {{title: A small one, needs: [{needs}], choices: {{tools: '{{{{ tools }}}}'}}}}
  tasks:
    - copy: {{content: '{{{{ tools }}}}', dest: /root/{exercise}}}
      tags: setup
    - command: cat /root/{exercise}
      register: found
      failed_when: found.stdout != tools or breaks == '{exercise}'
      changed_when: false
      tags: check
    - file: {{path: /root/{exercise}, state: absent}}
      tags: [never, teardown]
"
        );
        fs::write(playbooks.join(format!("{exercise}.yml")), text).expect("written");
    }
    name
}

fn files(lab: &Lab) -> String {
    lab.ssh("saisp-vm-2", "cd /root; grep -H . 0* | tr '\\n' ' '")
        .success()
        .trim()
        .to_owned()
}

fn what_it_builds_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = folder(dir.path());
    let lab = Lab::new("needs");
    let run = |more: &[&str]| {
        lab.halab(["--dir", &folder, "run", "02-b"].iter().chain(more))
            .success()
    };
    let said = run(&[]);
    assert!(said.contains("SETTING UP [01-a, tools=agent]"), "{said}");
    assert_eq!(files(&lab), "01-a:agent 02-b:agent");
    let said = run(&[]);
    assert!(!said.contains("SETTING UP"), "it stands: {said}");
    // Somebody's own work is not lost for it.
    lab.ssh("saisp-vm-2", "echo mine > /root/mine").success();
    let said = run(&["-e", "tools=native"]);
    let places: Vec<usize> = ["UNDOING [02-b", "UNDOING [01-a", "SETTING UP [01-a"]
        .iter()
        .map(|part| said.find(part).unwrap_or_else(|| panic!("{part}: {said}")))
        .collect();
    assert!(places.is_sorted(), "{said}");
    assert_eq!(files(&lab), "01-a:native 02-b:native");
    lab.ssh("saisp-vm-2", "test -e /root/mine").success();
}

fn after_a_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = folder(dir.path());
    let lab = Lab::new("order");
    let page = dir.path().join("report.html");
    let page = page.to_str().expect("a plain path");
    let said = lab
        .halab([
            "--dir",
            &folder,
            "run",
            "all",
            "--continue-on-error",
            "-e",
            "breaks=02-b",
            "--report",
            page,
        ])
        .failure(1);
    let (_, summary) = said.split_once("SUMMARY").expect("a summary");
    let ends: Vec<Vec<&str>> = summary
        .lines()
        .filter(|line| line.starts_with('0'))
        .map(|line| line.split_whitespace().take(4).collect())
        .collect();
    assert_eq!(
        ends,
        [
            ["01-a", "tools=agent", "done", "2"],
            ["02-b", "tools=agent", "FAILED", "1"],
            ["03-c", "tools=agent", "not", "run"],
            ["04-d", "tools=agent", "done", "2"],
        ],
        "{summary}"
    );
    // The last one began afresh.
    assert_eq!(files(&lab), "04-d:agent");
    let page = fs::read_to_string(page).expect("the report");
    assert!(page.contains("it builds on 02-b, which failed"), "{page}");
    let said = lab
        .halab(["--dir", &folder, "run", "01-a", "--tools", "both"])
        .success();
    assert!(said.contains("tools=native"), "{said}");
    assert_eq!(files(&lab), "01-a:native");
}

fn goto_is_warm() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = folder(dir.path());
    let (one, two) = (Lab::new("goto1"), Lab::new("goto2"));
    let goto = |lab: &Lab| lab.halab(["--dir", &folder, "goto", "03-c"]).success();
    let said = goto(&one);
    assert!(said.contains("SETTING UP [02-b"), "{said}");
    one.ssh("saisp-vm-2", "rm /root/0*").success();
    let said = goto(&one);
    assert!(!said.contains("SETTING UP"), "{said}");
    assert_eq!(files(&one), "01-a:agent 02-b:agent");
    one.halab(["down"]).success();
    let said = goto(&two);
    assert!(!said.contains("SETTING UP"), "{said}");
    assert_eq!(files(&two), "01-a:agent 02-b:agent");
    // What stands came along: nothing is set up for the exercise itself.
    let said = two.halab(["--dir", &folder, "run", "03-c"]).success();
    assert!(!said.contains("SETTING UP"), "{said}");
}

/// The first exercise of the folder shuts the director down, as the text's 03 does.
fn with_one_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = folder(dir.path());
    let first = Path::new(&folder).join("playbooks/01-a.yml");
    let mut text = fs::read_to_string(&first).expect("written above");
    text.push_str(
        "
- hosts: client
  gather_facts: false
  tasks:
    - vm: {name: saisp-vm-1, state: stopped}
      tags: setup
    - vm: {name: saisp-vm-1, state: running}
      tags: [never, teardown]
",
    );
    fs::write(&first, text).expect("written");
    let (one, two) = (Lab::new("off1"), Lab::new("off2"));
    let goto = |lab: &Lab| lab.halab(["--dir", &folder, "goto", "03-c"]).success();
    let states = |lab: &Lab| MACHINES.map(|machine| state_of(lab, machine));
    let as_saved = ["shutdown", "running", "running"];
    one.halab(["up"]).success();
    one.ssh("saisp-vm-1", "echo kept > /root/kept").success();
    one.halab(["snapshot", "save", "all-on"]).success();
    let said = goto(&one);
    assert!(!said.contains("not kept"), "{said}");
    assert_eq!(states(&one), as_saved);
    one.ssh("saisp-vm-2", "rm /root/0*").success();
    let said = goto(&one);
    assert!(!said.contains("SETTING UP"), "it is warm: {said}");
    assert_eq!(states(&one), as_saved);
    assert_eq!(files(&one), "01-a:agent 02-b:agent");
    one.halab(["snapshot", "load", "all-on"]).success();
    assert_eq!(states(&one), ["running"; 3]);
    one.ssh("saisp-vm-1", "test -e /root/kept").success();
    // Another way of being off: somebody in the machine said so, and the lab goes down like that.
    let _ = one.ssh("saisp-vm-1", "poweroff");
    wait_until("it is off", || state_of(&one, "saisp-vm-1") == "shutdown");
    let said = one.halab(["down"]).success();
    assert!(!said.contains("not kept"), "{said}");
    one.halab(["snapshot", "load", "last"]).success();
    assert_eq!(states(&one), as_saved);
    one.halab(["down"]).success();

    let said = goto(&two);
    assert!(!said.contains("SETTING UP"), "it is warm here too: {said}");
    assert_eq!(states(&two), as_saved);
    // Its disk comes from a lab with other keys, and it has not met this one yet.
    let undo = ["--dir", &folder, "run", "01-a", "--tags", "teardown"];
    two.halab(undo).success();
    assert_eq!(states(&two), ["running"; 3]);
    let said = two.ssh("saisp-vm-1", "hostname").success();
    assert_eq!(said, "saisp-vm-1\n");
    two.halab(["reset"]).success();
    assert_eq!(states(&two), ["running"; 3]);
}

fn killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = folder(dir.path());
    let lab = Lab::new("killgoto");
    lab.halab(["up"]).success();
    let mut child = lab
        .command(["--dir", &folder, "goto", "02-b"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let record = lab.state_dir().join("lab.json");
    let end = Instant::now() + Duration::from_secs(120);
    while !fs::read_to_string(&record).is_ok_and(|text| text.contains("the way to")) {
        assert!(Instant::now() < end, "the way is begun within 120 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let status = lab.halab(["status"]).success();
    assert!(status.contains("half way up"), "{status}");
    lab.halab(["up"]).success();
    lab.ssh("saisp-vm-2", "test ! -e /root/01-a").success();
    let listed = lab.halab(["snapshot", "list"]).success();
    assert!(!listed.contains("before-02-b"), "{listed}");
}
