//! Grading on real machines: what is right gets its points, what is wrong loses its own and is
//! named, and the graded lab is as it was.

use std::collections::BTreeMap;
use std::panic;
use std::time::Instant;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::Lab;
use crate::trial;

/// A script that waits, so many seconds at most, until the service's address is on a node.
macro_rules! owns_within {
    ($seconds:literal) => {
        concat!(
            "for n in $(seq ",
            $seconds,
            "); do ip -4 -o address show dev eth0 | grep -q 10.0.0.50 && exit 0; sleep 1; done; exit 1"
        )
    };
}

mod mistakes;
pub(crate) mod set_up;

use mistakes::Mistake;
use set_up::{EXERCISES, ONE, THREE, TWO, Way, on, set_up};

/// Which of the table's mistakes are run: `all`, or words of which one is in an exercise's or a
/// mistake's name, with commas between. The whole table takes half an hour.
const WHOLE_TABLE: &str = "HALAB_TEST_MISTAKES";
/// In an ordinary run, the first of these.
const ORDINARY: [&str; 2] = ["01-lvs-dr", "02-lvs-tun"];
/// Which exercises are set up in each way: `all`, or their names with commas between.
const EACH_WAY: &str = "HALAB_TEST_WAYS";

const MACHINES: [&str; 3] = [ONE, TWO, THREE];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("a_right_lab_gets_all_points_and_is_left_as_it_was", right),
        trial("a_clean_lab_earns_nothing", clean),
        trial("a_mistake_costs_its_points_and_is_named", mistakes),
    ];
    if std::env::var_os(EACH_WAY).is_some() {
        trials.push(trial("each_valid_way_gets_all_points", each_way));
    }
    trials
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
    set_up(&lab, "01-lvs-dr", Way::Text);
    let report = graded_without_a_trace(&lab, "01-lvs-dr");
    assert_eq!(lost(&report), BTreeMap::new(), "{report:#}");
    assert_eq!(report["points"], 20.0);
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

/// Grades beside a session with a running command, and finds the lab and the session as they were.
fn graded_without_a_trace(lab: &Lab, exercise: &str) -> Value {
    let session = lab.session("saisp-vm-2");
    for machine in MACHINES {
        let marked = lab.ssh(machine, "touch /root/mark");
        // The text has the director shut down from exercise 03 on.
        assert!(marked.code == 0 || machine == ONE, "{marked}");
    }
    let before = traces(lab);
    let report = grade(lab, exercise);
    let after = traces(lab);
    for machine in MACHINES {
        assert_eq!(after[machine], before[machine], "{exercise} on {machine}");
    }
    session.goes_on();
    let copy = lab
        .state_dir()
        .with_file_name(format!("{}.grade", lab.name));
    assert!(!copy.exists(), "the copy is still there");
    report
}

/// What a grading could leave: files, tables, addresses, processes, mounts, and the generations of
/// DRBD's data and of heartbeat.
fn traces(lab: &Lab) -> BTreeMap<&'static str, String> {
    const SCRIPT: &str = "find / -xdev -newer /root/mark -type f ! -path '/var/log/*' ! -path '/var/lib/systemd/*' ! -path '/root/.ssh/*'; \
        ip -o address | sed 's/ *valid_lft.*//'; iptables-save | grep -v '^#' | sed 's/ \\[.*//'; ipvsadm -S -n; \
        cat /proc/mounts /proc/sys/kernel/random/boot_id; \
        cat /var/lib/heartbeat/hb_generation /etc/ha.d/haresources 2>&1; for what in get-gi role cstate dstate; do drbdadm $what r0 2>&1; done; \
        ps -e -o pid=,args= | grep -v -e '^ *[0-9]* \\[' -e udev-worker -e sshd -e ' ps -e' -e 'sh -c' -e ' sed ' -e ' grep ' -e bash";
    MACHINES
        .iter()
        .map(|&machine| {
            let found = lab.ssh(machine, SCRIPT);
            (machine, format!("{}{}", found.stdout, found.stderr))
        })
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

/// Whether a list of words, or `all`, names something.
fn names(list: &str, what: &str) -> bool {
    list == "all" || list.split(',').any(|word| what.contains(word))
}

fn each_way() {
    let wanted = std::env::var(EACH_WAY).expect("this trial runs when it is set");
    let mut wrong = Vec::new();
    for exercise in EXERCISES.iter().filter(|each| names(&wanted, each)) {
        let lab = Lab::new("ways");
        lab.halab(["up"]).success();
        let report = grade(&lab, exercise);
        if report["points"] != 0.0 {
            wrong.push(format!("{exercise} in a clean lab: {report:#}"));
        }
        for way in Way::ALL {
            lab.halab(["reset"]).success();
            set_up(&lab, exercise, way);
            let report = graded_without_a_trace(&lab, exercise);
            say(&format!(
                "{exercise} {way:?}: {} of {}, paused for {} s",
                report["points"], report["max"], report["paused_seconds"]
            ));
            if !lost(&report).is_empty() || report["points"] != report["max"] {
                wrong.push(format!("{exercise} {way:?}: {report:#}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[expect(
    clippy::print_stdout,
    reason = "a long table is followed while it is made"
)]
fn say(line: &str) {
    println!("{line}");
}

fn mistakes() {
    let wanted = std::env::var(WHOLE_TABLE).ok();
    let mut wrong = Vec::new();
    for exercise in EXERCISES {
        let chosen: Vec<&Mistake> = match &wanted {
            None if ORDINARY.contains(&exercise) => mistakes::of(exercise).take(1).collect(),
            None => Vec::new(),
            Some(list) => mistakes::of(exercise)
                .filter(|each| names(list, &format!("{exercise} {}", each.name)))
                .collect(),
        };
        if !chosen.is_empty() {
            wrong.extend(table(exercise, &chosen));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Makes each mistake in the same right lab, and says which are not judged as the table has it.
fn table(exercise: &str, chosen: &[&Mistake]) -> Vec<String> {
    let lab = Lab::new("wrong");
    lab.halab(["up"]).success();
    set_up(&lab, exercise, Way::Text);
    lab.halab(["snapshot", "save", "done"]).success();
    let mut wrong = Vec::new();
    let report = grade(&lab, exercise);
    if !lost(&report).is_empty() {
        wrong.push(format!("{exercise}, done right, lost {:?}", lost(&report)));
    }
    for mistake in chosen {
        let begun = Instant::now();
        let made = panic::catch_unwind(|| {
            lab.halab(["reset", "--to", "done"]).success();
            for (machine, script) in mistake.done {
                on(&lab, machine, script);
            }
            grade(&lab, exercise)
        });
        // It has said why; the others are worth knowing too.
        let Ok(report) = made else {
            wrong.push(format!("{exercise} {}: it could not be made", mistake.name));
            continue;
        };
        let (found, told) = (lost(&report), first_cause(&report));
        say(&format!(
            "{exercise} {}: lost {found:?}, told `{told}`, {:.0} s",
            mistake.name,
            begun.elapsed().as_secs_f64()
        ));
        wrong.extend(held_against(mistake, &found, &told));
    }
    wrong
}

/// What a student reads first of what cost points; a remark costs none.
fn first_cause(report: &Value) -> String {
    let checks = report["checks"].as_array().expect("a list");
    checks
        .iter()
        .filter(|check| check["verdict"] == "failed" && check["max"] != 0.0)
        .find_map(|check| check["causes"][0].as_str())
        .unwrap_or("no diagnosis")
        .to_owned()
}

/// Says where a report is not what the table expects of it.
fn held_against(mistake: &Mistake, found: &BTreeMap<String, f64>, told: &str) -> Option<String> {
    let expected: BTreeMap<String, f64> = mistake
        .lost
        .iter()
        .map(|(id, points)| ((*id).to_owned(), *points))
        .collect();
    if *found == expected && told.contains(mistake.diagnosis) {
        return None;
    }
    Some(format!(
        "{} {}: expected {expected:?} and `{}`, found {found:?} and `{told}`",
        mistake.exercise, mistake.name, mistake.diagnosis
    ))
}
