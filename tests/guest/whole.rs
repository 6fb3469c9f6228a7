//! The whole lab: every exercise in one command, exercise 05 with mixed pairs, a short campaign of faults.

use libtest_mimic::Trial;

use crate::grading::set_up::{EXERCISES, Way, set_up};
use crate::support::Lab;
use crate::trial;

/// The real heartbeat takes half a minute for what takes ours a second, and a campaign needs a minute a fault.
const LONG: &str = "HALAB_TEST_WHOLE";

/// Which node has whose heartbeat (`software`) and replication.
const PAIRS: [(&str, &str); 4] = [
    (
        "the kernel's DRBD under our heartbeat",
        r#"{"replication": "native", "software": "agent"}"#,
    ),
    (
        "our replication under heartbeat 3.0.6",
        r#"{"replication": "agent", "software": "package"}"#,
    ),
    (
        "the first node native, the second ours",
        r#"{"replication": {"saisp-vm-2": "native", "saisp-vm-3": "agent"},
            "software": {"saisp-vm-2": "package", "saisp-vm-3": "agent"}}"#,
    ),
    (
        "the first node ours, the second native",
        r#"{"replication": {"saisp-vm-2": "agent", "saisp-vm-3": "native"},
            "software": {"saisp-vm-2": "agent", "saisp-vm-3": "package"}}"#,
    ),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial("run_all_is_green_with_our_tools", || {
        run_all("all-a", "agent");
    })];
    if std::env::var_os(LONG).is_some() {
        trials.push(trial("run_all_is_green_with_the_packages", || {
            run_all("all-n", "native");
        }));
        trials.push(trial("exercise_05_is_green_with_mixed_pairs", mixed_pairs));
        trials.push(trial("a_campaign_of_faults_loses_nothing", campaign));
        trials.push(trial("grade_all_gives_a_finished_lab_all_points", finished));
    }
    trials
}

fn run_all(lab: &str, tools: &str) {
    let lab = Lab::new(lab);
    lab.halab(["up"]).success();
    let said = lab.halab(["run", "all", "--tools", tools]).success();
    for exercise in 0..7 {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("0{exercise}-")) && line.contains(" done "));
        assert!(
            line.is_some(),
            "no exercise 0{exercise} that is done in:\n{said}"
        );
    }
}

/// As who did the whole text leaves a lab: each exercise's state saved under its name.
fn finished() {
    let lab = Lab::new("finished");
    lab.halab(["up"]).success();
    for exercise in EXERCISES {
        set_up(&lab, exercise, Way::Agent);
        lab.halab(["snapshot", "save", exercise]).success();
    }
    let said = lab.halab(["--json", "grade", "all"]).success();
    let report: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(report["points"], 110.0, "{report:#}");
    assert_eq!(report["max"], 110.0);
    #[expect(
        clippy::print_stdout,
        reason = "how long it takes is for the reader to judge"
    )]
    {
        println!(
            "graded in {} s, the lab stood still for {} s",
            report["seconds"], report["paused_seconds"]
        );
    }
}

fn mixed_pairs() {
    let lab = Lab::new("mixed");
    lab.halab(["up"]).success();
    for (pair, choice) in PAIRS {
        lab.halab(["reset"]).success();
        for command in ["goto", "run"] {
            let finished = lab.halab([command, "05-ha-drbd", "-e", choice]);
            assert_eq!(
                finished.code, 0,
                "{command}, {pair}:\n{}{}",
                finished.stdout, finished.stderr
            );
        }
    }
}

fn campaign() {
    let lab = Lab::new("campaign");
    for tools in ["agent", "native"] {
        let said = lab
            .halab([
                "bench", "faults", "--count", "4", "--seed", "7", "--tools", tools, "--json",
            ])
            .success();
        let facts: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let faults = &facts["faults"];
        assert_eq!(faults["lost"], 0, "{said}");
        assert_eq!(faults["faults"].as_array().map(Vec::len), Some(4), "{said}");
        assert!(faults["acknowledged"].as_u64() > Some(50), "{said}");
    }
}
