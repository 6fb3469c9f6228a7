//! Grading on real machines: what is right gets its points, what is wrong loses its own and is
//! named, and the graded lab is as it was.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::Lab;
use crate::trial;

mod mistakes;

use mistakes::{MISTAKES, Mistake};

/// `all` runs every mistake of the table; each is a reset, some commands and a grading.
const WHOLE_TABLE: &str = "HALAB_TEST_MISTAKES";
/// In an ordinary run, of each exercise.
const MISTAKES_EACH: usize = 1;

const MACHINES: [&str; 3] = ["saisp-vm-1", "saisp-vm-2", "saisp-vm-3"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_right_lab_gets_all_points_and_is_left_as_it_was", right),
        trial("a_clean_lab_earns_nothing", clean),
        trial("a_mistake_costs_its_points_and_is_named", mistakes),
    ]
}

/// Grades and returns the report.
pub(crate) fn grade(lab: &Lab, exercise: &str) -> Value {
    let done = lab.halab(["--json", "grade", exercise]);
    assert!(done.code == 0 || done.code == 1, "{done}");
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"))
}

/// Checks that lost points, and how many.
fn lost(report: &Value) -> BTreeMap<String, f64> {
    let checks = report["checks"].as_array().expect("a list");
    checks
        .iter()
        .map(|check| {
            let points = |name: &str| check[name].as_f64().expect("a number");
            let id = check["id"].as_str().expect("a word").to_owned();
            (id, points("max") - points("points"))
        })
        .filter(|(_, lost)| *lost > 0.0)
        .collect()
}

fn right() {
    let lab = Lab::new("right");
    lab.halab(["up"]).success();
    set_up(&lab, "01-lvs-dr");
    let mut session = lab
        .command([
            "ssh",
            "saisp-vm-2",
            "--",
            "echo begun; read line; echo \"$line\"",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ssh starts");
    let mut stdout = session.stdout.take().expect("piped");
    let mut begun = [0; 6];
    stdout.read_exact(&mut begun).expect("the session greets");
    for machine in MACHINES {
        lab.ssh(machine, "touch /root/mark").success();
    }
    let before = traces(&lab);
    let report = grade(&lab, "01-lvs-dr");
    assert_eq!(lost(&report), BTreeMap::new(), "{report:#}");
    assert_eq!(report["points"], 20.0);
    assert_eq!(traces(&lab), before);
    let mut stdin = session.stdin.take().expect("piped");
    stdin.write_all(b"still here\n").expect("the session reads");
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert!(session.wait().expect("ends").success());
    assert_eq!(rest, "still here\n");
    let copy = lab.state_dir().with_file_name("right.grade");
    assert!(!copy.exists(), "the copy is still there");
    // The text's other way on the real servers.
    for machine in ["saisp-vm-2", "saisp-vm-3"] {
        let other_way = "iptables -t nat -F; sysctl -q -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2; ip address add 10.0.0.1/32 dev lo";
        lab.ssh(machine, other_way).success();
    }
    let report = grade(&lab, "01-lvs-dr");
    assert_eq!(lost(&report), BTreeMap::new(), "{report:#}");
    // The other exercise's checks do not take this one for theirs.
    let report = grade(&lab, "02-lvs-tun");
    assert!(lost(&report).contains_key("method"), "{report:#}");
}

/// What a grading could leave: files, tables, addresses, processes, mounts.
fn traces(lab: &Lab) -> BTreeMap<&'static str, String> {
    const SCRIPT: &str = "find / -xdev -newer /root/mark -type f ! -path '/var/log/*' ! -path '/var/lib/systemd/*' ! -path '/root/.ssh/*'; \
        ip -o address | sed 's/ *valid_lft.*//'; iptables-save | grep -v '^#' | sed 's/ \\[.*//'; ipvsadm -S -n; \
        cat /proc/mounts; ps -e -o args= | grep -v -e '^\\[' -e udev-worker -e sshd -e '^ps' -e '^sh -c' -e 'find /' -e '^sed' -e '^grep' -e '^sort' -e bash | sort";
    MACHINES
        .iter()
        .map(|&machine| (machine, lab.ssh(machine, SCRIPT).success()))
        .collect()
}

fn clean() {
    let lab = Lab::new("blank");
    lab.halab(["up"]).success();
    for exercise in ["01-lvs-dr", "02-lvs-tun"] {
        let report = grade(&lab, exercise);
        assert_eq!(report["points"], 0.0, "{report:#}");
    }
}

/// Sets an exercise up by the text's commands, with the distribution's tools.
fn set_up(lab: &Lab, exercise: &str) {
    let director = |flag: &str| {
        format!(
            "ip address add 10.0.0.1/24 dev eth0 label eth0:1; ipvsadm -A -t 10.0.0.1:80; \
             ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.20:80 {flag}; ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.30:80 {flag}"
        )
    };
    match exercise {
        "01-lvs-dr" => {
            lab.ssh("saisp-vm-1", &director("-g")).success();
            for machine in ["saisp-vm-2", "saisp-vm-3"] {
                let rule = "iptables -t nat -A PREROUTING -d 10.0.0.1 -j REDIRECT";
                lab.ssh(machine, rule).success();
            }
        }
        "02-lvs-tun" => {
            lab.ssh("saisp-vm-1", &director("-i")).success();
            for (machine, address) in [("saisp-vm-2", "10.0.0.20"), ("saisp-vm-3", "10.0.0.30")] {
                let tunnel = format!(
                    "ip tunnel add tun0 mode ipip local {address}; ip address add 10.0.0.1/24 dev tun0; ip link set tun0 up"
                );
                lab.ssh(machine, &tunnel).success();
            }
        }
        other => panic!("{other} has no mistakes yet"),
    }
}

fn mistakes() {
    let whole = std::env::var(WHOLE_TABLE).is_ok_and(|value| value == "all");
    let mut wrong = Vec::new();
    for exercise in ["01-lvs-dr", "02-lvs-tun"] {
        let lab = Lab::new("wrong");
        lab.halab(["up"]).success();
        set_up(&lab, exercise);
        lab.halab(["snapshot", "save", "done"]).success();
        let own = MISTAKES.iter().filter(|each| each.exercise == exercise);
        for mistake in own.take(if whole { usize::MAX } else { MISTAKES_EACH }) {
            lab.halab(["reset", "--to", "done"]).success();
            for (machine, script) in mistake.done {
                lab.ssh(machine, script).success();
            }
            wrong.extend(held_against(mistake, &grade(&lab, exercise)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Says where a report is not what the table expects of it.
fn held_against(mistake: &Mistake, report: &Value) -> Option<String> {
    let expected: BTreeMap<String, f64> = mistake
        .lost
        .iter()
        .map(|(id, points)| ((*id).to_owned(), *points))
        .collect();
    let found = lost(report);
    let checks = report["checks"].as_array().expect("a list");
    let first = checks
        .iter()
        .filter(|check| check["verdict"] == "failed")
        .find_map(|check| check["causes"][0].as_str())
        .unwrap_or("no diagnosis");
    if found == expected && first.contains(mistake.diagnosis) {
        return None;
    }
    Some(format!(
        "{} {}: expected {expected:?} and `{}`, found {found:?} and `{first}`",
        mistake.exercise, mistake.name, mistake.diagnosis
    ))
}
