//! The topology in real guests: up, reset, snapshots, faults, two labs.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::exercises::recap;
use crate::support::Lab;
use crate::trial;

pub(crate) const MACHINES: [&str; 3] = ["saisp-vm-1", "saisp-vm-2", "saisp-vm-3"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("reset_puts_every_machine_back_and_sets_its_clock", reset),
        trial("a_snapshot_keeps_processes_and_files", snapshots),
        trial(
            "two_labs_have_the_same_addresses_and_run_01_at_once",
            two_labs,
        ),
        trial("faults_are_done_shown_and_mended", faults),
        trial("a_machine_that_powered_itself_off_costs_no_work", own_end),
        trial("reset_and_down_work_whatever_is_broken", under_fire),
        trial("a_second_command_is_told_who_has_the_lab", in_use),
    ]
}

pub(crate) fn status(lab: &Lab) -> Value {
    let text = lab.halab(["--json", "status"]).success();
    serde_json::from_str(&text).expect("status is JSON")
}

/// Returns a machine's state as `status` shows it.
pub(crate) fn state_of(lab: &Lab, machine: &str) -> String {
    let status = status(lab);
    let machines = status["machines"].as_array().expect("a list");
    let found = machines
        .iter()
        .find(|each| each["name"] == machine)
        .expect("the machine is in the topology");
    found["state"].as_str().expect("a word").to_owned()
}

fn unix_seconds() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(now.as_secs()).expect("a date of today")
}

fn reset() {
    let lab = Lab::new("reset");
    lab.halab(["up"]).success();
    for round in 0..3 {
        lab.ssh("saisp-vm-2", "touch /root/mine; sync").success();
        lab.halab(["reset"]).success();
        lab.ssh("saisp-vm-2", "test -e /root/mine").failure(1);
        for machine in MACHINES {
            let guest: i64 = lab
                .ssh(machine, "date +%s")
                .success()
                .trim()
                .parse()
                .expect("seconds");
            let behind = unix_seconds() - guest;
            assert!(
                (-2..=5).contains(&behind),
                "{machine}, round {round}: {behind} s"
            );
        }
    }
}

/// The text has the director shut down by hand; whoever then types `up` keeps what the others have.
fn own_end() {
    let lab = Lab::new("ownend");
    lab.halab(["up"]).success();
    lab.ssh("saisp-vm-2", "touch /root/mine").success();
    // It answers as long as it can: whether this connection ends well is luck.
    lab.ssh("saisp-vm-1", "poweroff");
    let end = Instant::now() + Duration::from_secs(300);
    while state_of(&lab, "saisp-vm-1") == "running" {
        assert!(Instant::now() < end, "{}", status(&lab));
    }
    assert_eq!(state_of(&lab, "saisp-vm-1"), "shutdown");
    let up = lab.halab(["--json", "up"]).success();
    assert!(up.contains("was-up"), "{up}");
    lab.ssh("saisp-vm-2", "test -e /root/mine").success();
    let refused = lab.ssh("saisp-vm-1", "true").failure(2);
    let mended = "saisp-vm-1 is shut down; `halab fault resume saisp-vm-1`";
    assert!(refused.contains(mended), "{refused}");
    lab.halab(["fault", "resume", "saisp-vm-1"]).success();
    lab.ssh("saisp-vm-1", "true").success();
    assert_eq!(status(&lab)["broken"].to_string(), "[]");
}

fn snapshots() {
    let lab = Lab::new("snap");
    lab.halab(["up"]).success();
    lab.ssh(
        "saisp-vm-3",
        "echo kept > /root/kept; systemd-run --unit=ticker sh -c 'while :; do sleep 1; done'",
    )
    .success();
    lab.halab(["snapshot", "save", "mine"]).success();
    lab.ssh("saisp-vm-3", "rm /root/kept; systemctl stop ticker")
        .success();
    lab.halab(["snapshot", "load", "mine"]).success();
    let found = lab.ssh("saisp-vm-3", "cat /root/kept; systemctl is-active ticker");
    assert_eq!(found.success(), "kept\nactive\n");
    lab.halab(["down"]).success();
    lab.halab(["snapshot", "load", "last"]).success();
    lab.ssh("saisp-vm-3", "systemctl is-active ticker")
        .success();
    let listed = lab.halab(["snapshot", "list"]).success();
    for name in ["clean", "mine", "last"] {
        assert!(listed.contains(name), "{listed}");
    }
    lab.halab(["snapshot", "rm", "mine"]).success();
    let refused = lab.halab(["snapshot", "load", "mine"]).failure(2);
    assert!(refused.contains("no snapshot `mine`"), "{refused}");
}

fn two_labs() {
    let (one, two) = (Lab::new("one"), Lab::new("two"));
    one.halab(["up"]).success();
    two.halab(["up"]).success();
    one.ssh("saisp-vm-1", "echo one > /root/which").success();
    two.ssh("saisp-vm-1", "echo two > /root/which").success();
    assert_eq!(one.ssh("saisp-vm-1", "cat /root/which").success(), "one\n");
    assert_eq!(two.ssh("saisp-vm-1", "cat /root/which").success(), "two\n");
    for lab in [&one, &two] {
        let page = lab.client("curl -s http://10.0.0.20/").success();
        assert!(page.contains("saisp-vm-2"), "{page}");
    }
    let key = |lab: &Lab| std::fs::read(lab.state_dir().join("id_ed25519")).expect("a key");
    assert_ne!(key(&one), key(&two), "each lab has keys of its own");

    let exercises = [&one, &two].map(|lab| {
        lab.command(["run", "01-lvs-dr"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started")
    });
    for exercise in exercises {
        let output = exercise.wait_with_output().expect("it was started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(recap(&said).len(), 3, "{said}");
    }
}

fn faults() {
    let lab = Lab::new("faults");
    lab.halab(["up"]).success();
    let reaches = |lab: &Lab| {
        lab.client("curl -s -o /dev/null --max-time 3 http://10.0.0.20/")
            .code
            == 0
    };
    assert!(reaches(&lab));
    lab.halab(["fault", "link", "saisp-vm-2", "eth0", "down"])
        .success();
    assert!(!reaches(&lab), "the cable is out");
    let broken = status(&lab)["broken"].to_string();
    assert!(broken.contains("saisp-vm-2 eth0 unplugged"), "{broken}");
    lab.halab(["fault", "link", "saisp-vm-2", "eth0", "up"])
        .success();
    assert!(reaches(&lab), "the cable is back");

    lab.halab(["fault", "pause", "saisp-vm-2"]).success();
    assert_eq!(state_of(&lab, "saisp-vm-2"), "paused");
    lab.halab(["fault", "resume", "saisp-vm-2"]).success();
    assert_eq!(state_of(&lab, "saisp-vm-2"), "running");
    assert!(reaches(&lab));

    lab.halab(["fault", "kill", "saisp-vm-2"]).success();
    assert_eq!(state_of(&lab, "saisp-vm-2"), "killed");
    assert!(!reaches(&lab));
    // Whoever cut one machine's power keeps what they did on the others.
    lab.ssh("saisp-vm-3", "touch /root/kept").success();
    lab.halab(["up"]).success();
    assert_eq!(state_of(&lab, "saisp-vm-2"), "running");
    assert!(reaches(&lab), "up gives the power back");
    clock_is_right(&lab, "saisp-vm-2");
    lab.ssh("saisp-vm-3", "ls /root/kept").success();

    lab.halab(["fault", "kill", "saisp-vm-2"]).success();
    lab.halab(["reset"]).success();
    assert!(reaches(&lab), "reset gives the power back");
    assert_eq!(status(&lab)["broken"].to_string(), "[]");
}

/// A machine's hardware tells it whole seconds only when it boots.
fn clock_is_right(lab: &Lab, machine: &str) {
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        i128::try_from(now.expect("after 1970").as_nanos()).expect("a century")
    };
    let asked = now();
    let said = lab.ssh(machine, "date +%s%N").success();
    let heard = now();
    let clock: i128 = said.trim().parse().expect("a number");
    let slack = 500_000_000;
    assert!(
        (asked - slack..=heard + slack).contains(&clock),
        "asked at {asked}, it said {clock}, heard at {heard}"
    );
}

fn under_fire() {
    let lab = Lab::new("fire");
    let faults: [&[&[&str]]; 4] = [
        &[&["kill", "saisp-vm-2"]],
        &[&["pause", "saisp-vm-2"]],
        &[
            &["link", "saisp-vm-2", "eth0", "down"],
            &["link", "saisp-vm-2", "eth1", "down"],
        ],
        &[&["kill", "saisp-vm-3"], &["pause", "saisp-vm-2"]],
    ];
    lab.halab(["up"]).success();
    for broken in faults {
        for way in [&["reset"][..], &["down", "up"]] {
            for fault in broken {
                lab.halab([&["fault"], *fault].concat()).success();
            }
            for &command in way {
                lab.halab([command]).success();
            }
            let states = MACHINES.map(|machine| state_of(&lab, machine));
            assert_eq!(states, ["running"; 3], "{broken:?}, {way:?}");
            assert_eq!(status(&lab)["broken"].to_string(), "[]");
            let page = "curl -s -o /dev/null --max-time 20 http://10.0.0.20/";
            lab.client(page).success();
        }
    }
}

fn in_use() {
    let lab = Lab::new("held");
    lab.halab(["up"]).success();
    let mut first = lab
        .command(["down"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lock = lab.state_dir().join("lock");
    wait_until("the first command has the lab", || {
        std::fs::read_to_string(&lock).is_ok_and(|text| text.contains("halab down"))
    });
    let second = lab.halab(["reset"]);
    first.wait().expect("ends");
    // Where the first was faster, the second finds a lab that is down.
    let said = second.failure(2);
    assert!(
        said.contains("in use: process") || said.contains("not up"),
        "{said}"
    );
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what}, within 30 s");
        thread::sleep(Duration::from_millis(5));
    }
}
