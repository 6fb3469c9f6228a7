//! Exercise 03, end to end.

use std::collections::BTreeMap;

use libtest_mimic::Trial;

use super::{NODES, is_long};
use crate::exercises::recap;
use crate::support::Lab;
use crate::trial;

/// The text's, as `playbooks/vars/heartbeat.yml` has it.
const SECRET: &str = "42ade27dad9045964fab10a395ffe4e0f726a80b";

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial("exercise_03_is_green_and_leaves_no_trace", || {
        whole("ex03a", "tools=agent");
    })];
    // The real thing takes half a minute for what takes ours a second.
    if is_long() {
        trials.push(trial("exercise_03_is_green_with_the_package", || {
            whole("ex03n", "tools=native");
        }));
    }
    trials
}

fn whole(lab: &str, tools: &str) {
    let lab = Lab::new(lab);
    lab.halab(["up"]).success();
    let clean = traces(&lab);
    let run = |more: &[&str]| {
        let finished = lab.halab(
            ["run", "03-linux-ha", "-e", tools, "-vvv", "--diff"]
                .iter()
                .chain(more),
        );
        assert!(!finished.stdout.contains(SECRET), "the key is shown");
        assert!(!finished.stderr.contains(SECRET), "the key is shown");
        finished.success()
    };
    run(&[]);
    let again = run(&["--tags", "setup"]);
    for (host, counts) in recap(&again) {
        assert_eq!(
            counts["changed"], 0,
            "{host} changed the second time:\n{again}"
        );
    }
    run(&["--tags", "teardown"]);
    assert_eq!(traces(&lab), clean, "after the teardown of {tools}");
    let again = run(&["--tags", "teardown"]);
    for (host, counts) in recap(&again) {
        assert_eq!(counts["changed"], 0, "{host} had more to undo:\n{again}");
    }
}

/// What the exercise may leave behind on the nodes. The generation stays on purpose: a node that
/// came back with an old one would be taken for a replay of itself.
fn traces(lab: &Lab) -> BTreeMap<&'static str, String> {
    const SCRIPT: &str = "ip -o -4 addr | sed 's/ *valid_lft.*//'; ip route; cat /etc/hosts; \
        ls -l /etc/ha.d | sed 1d | cut -c1-30,50-; ls /usr/local/sbin /etc/systemd/system; cat /etc/init.d/heartbeat | sha1sum; \
        systemctl is-active heartbeat apache2; ss -lun | grep :694; true";
    NODES
        .iter()
        .map(|&node| (node, lab.ssh(node, SCRIPT).success()))
        .collect()
}
