//! The exercises, end to end: set up, checked, set up again, undone.

use std::collections::BTreeMap;

use libtest_mimic::Trial;

use crate::support::Lab;
use crate::trial;

const MACHINES: [&str; 3] = ["saisp-vm-1", "saisp-vm-2", "saisp-vm-3"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "exercise_01_is_green_with_every_choice_and_leaves_no_trace",
            every_choice_of_01,
        ),
        trial(
            "exercise_00_is_green_with_both_tool_sets_and_leaves_no_trace",
            both_tools_of_00,
        ),
        trial(
            "exercise_02_is_green_with_both_tool_sets_and_leaves_no_trace",
            both_tools_of_02,
        ),
        trial(
            "check_mode_changes_nothing_on_a_clean_lab",
            check_mode_changes_nothing,
        ),
        trial("a_wrong_choice_is_refused_in_words", wrong_choice),
    ]
}

fn every_choice_of_01() {
    let choices = [
        &["tools=agent", "rs=iptables"],
        &["tools=native", "rs=iptables"],
        &["tools=agent", "rs=loopback"],
        &["tools=native", "rs=loopback"],
    ];
    every_choice("01-lvs-dr", choices.map(|choice| &choice[..]));
}

fn both_tools_of_00() {
    every_choice("00-lvs-nat", [&["tools=agent"][..], &["tools=native"]]);
}

fn both_tools_of_02() {
    every_choice("02-lvs-tun", [&["tools=agent"][..], &["tools=native"]]);
}

/// With each choice the exercise is green, its second set-up changes nothing, and its teardown
/// leaves what was there before.
fn every_choice<const N: usize>(exercise: &str, choices: [&[&str]; N]) {
    let lab = Lab::new("exercise");
    lab.halab(["up"]).success();
    let clean = traces(&lab);
    for choice in choices {
        let run = |tags: &[&str]| {
            let mut words = vec!["run", exercise];
            words.extend(choice.iter().flat_map(|each| ["-e", each]));
            words.extend(tags);
            lab.halab(words).success()
        };
        run(&[]);
        let again = run(&["--tags", "setup"]);
        for (host, counts) in recap(&again) {
            assert_eq!(
                counts["changed"], 0,
                "{host} changed the second time, {exercise} {choice:?}:\n{again}"
            );
        }
        run(&["--tags", "teardown"]);
        assert_eq!(
            traces(&lab),
            clean,
            "after the teardown of {exercise} {choice:?}"
        );
        let again = run(&["--tags", "teardown"]);
        for (host, counts) in recap(&again) {
            assert_eq!(
                counts["changed"], 0,
                "{host} had more to undo, {exercise} {choice:?}:\n{again}"
            );
        }
    }
}

fn check_mode_changes_nothing() {
    let lab = Lab::new("check");
    lab.halab(["up"]).success();
    let clean = traces(&lab);
    lab.halab(["reset"]).success();
    for tools in ["tools=agent", "tools=native"] {
        lab.halab([
            "run",
            "01-lvs-dr",
            "--tags",
            "setup",
            "--check",
            "--diff",
            "-e",
            tools,
        ])
        .success();
        assert_eq!(traces(&lab), clean, "after --check with {tools}");
    }
}

fn wrong_choice() {
    let lab = Lab::new("choice");
    lab.halab(["up"]).success();
    let said = lab.halab(["run", "01-lvs-dr", "-e", "rs=magic"]).failure(1);
    assert!(
        said.contains("rs is iptables or loopback; found tools=agent rs=magic"),
        "{said}"
    );
}

/// What an exercise may leave behind on the machines, as text.
fn traces(lab: &Lab) -> BTreeMap<&'static str, String> {
    // The settings come first: asking for the table of LVS loads its module, and with it more
    // settings, which go with the modules at the end.
    const SCRIPT: &str = "sysctl -a 2>/dev/null | grep '^net[.]' \
        | grep -v -e rss_key -e nf_conntrack_count -e retrans_time -e base_reachable; \
        ip -o addr | sed 's/ *valid_lft.*//; s/[\\]//'; ip route; ip rule; \
        iptables-save | grep -v '^#' | sed 's/ \\[.*//'; ls /etc/sysctl.d; \
        ipvsadm -ln; \
        for module in ip_vs nf_conntrack nf_defrag_ipv6 nf_defrag_ipv4; do modprobe -q -r $module; done; true";
    MACHINES
        .iter()
        .map(|&machine| (machine, lab.ssh(machine, SCRIPT).success()))
        .collect()
}

/// Reads a run's PLAY RECAP: host, then count by name.
pub(crate) fn recap(output: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let (_, lines) = output
        .split_once("PLAY RECAP")
        .unwrap_or_else(|| panic!("no recap:\n{output}"));
    lines
        .lines()
        .filter_map(|line| line.split_once(" : "))
        .map(|(host, counts)| {
            let counts = counts
                .split_whitespace()
                .filter_map(|field| field.split_once('='))
                .map(|(name, count)| (name.to_owned(), count.parse().expect("a count")))
                .collect();
            (host.trim().to_owned(), counts)
        })
        .collect()
}
