//! A second running lab, the same to the byte: what goes on in the first, what is in the second.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::kills::qemus_of;
use crate::support::{Finished, Lab, finish};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_copy_is_the_same_and_its_source_goes_on", copies),
        trial("a_copy_keeps_what_is_broken", broken),
        trial("a_kill_in_the_middle_of_copying_loses_nothing", kills),
        trial("layers_do_not_pile_up_with_copies", layers),
    ]
}

/// Runs `halab` on another lab of the same user.
fn other<const N: usize>(lab: &Lab, name: &str, words: [&str; N]) -> Finished {
    let mut all = vec!["--lab", name];
    all.extend(words);
    finish(lab.command(all))
}

fn purge(lab: &Lab, name: &str) {
    other(lab, name, ["down", "--purge"]).success();
}

fn copies() {
    let lab = Lab::new("orig");
    lab.halab(["up"]).success();
    lab.ssh(
        "saisp-vm-2",
        "echo mine > /root/mine; ip address add 10.0.0.77/24 dev eth0; (while sleep 1; do :; done) >/dev/null 2>&1 </dev/null & echo $! > /run/loop.pid",
    )
    .success();
    // A session with a running command, such as a student's editor.
    let session = lab.session("saisp-vm-2");

    let said = lab.halab(["--json", "clone", "copy"]).success();
    let facts: Value = serde_json::from_str(&said).expect("JSON");
    assert!(facts["paused_seconds"].is_f64(), "{facts}");
    let look = ["ssh", "saisp-vm-2", "--"];
    let state = "cat /root/mine; ip -o address show to 10.0.0.77 | wc -l; kill -0 $(cat /run/loop.pid) && echo lives";
    let expected = "mine\n1\nlives\n";
    assert_eq!(
        other(&lab, "copy", [look[0], look[1], look[2], state]).success(),
        expected
    );
    // What happens in one does not happen in the other.
    let change = "rm /root/mine; ip address del 10.0.0.77/24 dev eth0; kill $(cat /run/loop.pid)";
    other(&lab, "copy", [look[0], look[1], look[2], change]).success();
    assert_eq!(lab.ssh("saisp-vm-2", state).success(), expected);
    // A copy goes back to where it began, and can be copied itself.
    other(&lab, "copy", ["reset", "--to", "cloned"]).success();
    other(&lab, "copy", ["clone", "grandchild"]).success();

    session.goes_on();

    let said = lab.halab(["clone", "copy"]).failure(2);
    assert!(said.contains("there is a lab `copy` already"), "{said}");
    let said = lab.halab(["clone", "orig"]).failure(2);
    assert!(said.contains("onto itself"), "{said}");
    let said = lab.halab(["clone", "../x"]).failure(2);
    assert!(said.contains("cannot be a lab's name"), "{said}");
    // Whoever goes first leaves the others whole.
    lab.halab(["down", "--purge"]).success();
    other(&lab, "copy", ["reset", "--to", "cloned"]).success();
    assert_eq!(
        other(&lab, "copy", [look[0], look[1], look[2], state]).success(),
        expected
    );
    purge(&lab, "copy");
    assert_eq!(
        other(&lab, "grandchild", [look[0], look[1], look[2], state]).success(),
        expected
    );
    purge(&lab, "grandchild");
    let said = lab.halab(["clone", "late"]).failure(2);
    assert!(said.contains("not up"), "{said}");
}

/// The text itself has the reader shut a machine down.
fn broken() {
    let lab = Lab::new("broken");
    lab.halab(["up"]).success();
    lab.halab(["fault", "kill", "saisp-vm-1"]).success();
    lab.halab(["fault", "link", "saisp-vm-2", "eth1", "down"])
        .success();
    lab.halab(["fault", "pause", "saisp-vm-3"]).success();
    lab.halab(["clone", "copy2"]).success();
    let text = other(&lab, "copy2", ["--json", "status"]).success();
    let status: Value = serde_json::from_str(&text).expect("JSON");
    let states: Vec<&str> = status["machines"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|machine| machine["state"].as_str())
        .collect();
    assert_eq!(states, ["killed", "running", "paused"], "{status}");
    let carrier = "ip link set eth1 up; sleep 1; cat /sys/class/net/eth1/carrier";
    let look = other(&lab, "copy2", ["ssh", "saisp-vm-2", "--", carrier]).success();
    assert_eq!(look, "0\n");
    purge(&lab, "copy2");
    let text = lab.halab(["--json", "status"]).success();
    assert!(text.contains("saisp-vm-2 eth1 unplugged"), "{text}");
}

/// The moments are spread over a copy by a fixed sequence, so that a failure comes again.
fn kills() {
    let lab = Lab::new("cut");
    lab.halab(["up"]).success();
    lab.ssh("saisp-vm-3", "echo mine > /root/mine").success();
    for delay_ms in [60, 250, 500, 900, 1600] {
        let mut child = lab
            .command(["clone", "half"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        thread::sleep(Duration::from_millis(delay_ms));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        lab.halab(["up"]).success();
        assert_eq!(
            lab.ssh("saisp-vm-3", "cat /root/mine").success(),
            "mine\n",
            "after a kill at {delay_ms} ms"
        );
        other(&lab, "half", ["status"]).success();
        purge(&lab, "half");
    }
    lab.halab(["clone", "half"]).success();
    purge(&lab, "half");
    lab.halab(["down"]).success();
    assert!(qemus_of(&lab).is_empty());
}

fn layers() {
    let lab = Lab::new("deep");
    lab.halab(["up"]).success();
    lab.ssh("saisp-vm-1", "echo first > /root/first; sync")
        .success();
    for _ in 0..15 {
        lab.halab(["snapshot", "save", "again"]).success();
    }
    lab.ssh("saisp-vm-1", "echo last > /root/last; sync")
        .success();
    lab.halab(["clone", "flat"]).success();
    let record = std::fs::read_to_string(lab.state_dir().join("lab.json")).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    for (machine, disks) in record["disks"].as_object().expect("by machine") {
        for layers in disks.as_array().expect("a list") {
            let depth = layers.as_array().expect("a list").len();
            assert!(depth <= 3, "{machine} has {depth} layers: {layers}");
        }
    }
    // Read from the disk, not from what the machine remembers.
    let look = "echo 3 > /proc/sys/vm/drop_caches; cat /root/first /root/last";
    assert_eq!(lab.ssh("saisp-vm-1", look).success(), "first\nlast\n");
    let copy = other(&lab, "flat", ["ssh", "saisp-vm-1", "--", look]).success();
    assert_eq!(copy, "first\nlast\n");
    purge(&lab, "flat");
    lab.halab(["reset", "--to", "again"]).success();
    lab.ssh("saisp-vm-1", "test -e /root/first && ! test -e /root/last")
        .success();
}
