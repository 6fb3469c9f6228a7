//! Nobody dies who lives: the lab's own timers on two nodes with far more to do than they can.

use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::{NODES, PATIENCE};
use crate::support::Lab;
use crate::trial;

/// Minutes of it; without the variable it is not run.
const MINUTES: &str = "HALAB_TEST_HEARTBEAT_MINUTES";

/// Between two looks at who has the address.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn trials() -> Vec<Trial> {
    let minutes = std::env::var(MINUTES)
        .ok()
        .and_then(|text| text.parse().ok());
    let calm = |minutes: u64| {
        trial("heartbeat_no_false_takeover_under_load", move || {
            no_false_takeover(Duration::from_secs(60 * minutes));
        })
    };
    minutes.map(calm).into_iter().collect()
}

fn no_false_takeover(period: Duration) {
    let lab = Lab::new("hbcalm");
    lab.halab(["up"]).success();
    lab.halab(["run", "03-linux-ha", "--tags", "setup", "-e", "tools=agent"])
        .success();
    // Both processors' worth of arithmetic, and a disk that is always written to; they end by themselves.
    let busy = format!(
        "date +%s.%N > /run/busy-since; \
         for n in 1 2 3; do systemd-run --quiet --unit=busy-$n -p RuntimeMaxSec={} \
         sh -c 'while :; do :; done'; done; \
         systemd-run --quiet --unit=busy-disk -p RuntimeMaxSec={0} sh -c \
         'while :; do dd if=/dev/urandom of=/var/tmp/busy bs=1M count=32 conv=fsync; sha1sum /var/tmp/busy; done'",
        period.as_secs() + 600
    );
    let generation = "cat /var/lib/heartbeat/hb_generation";
    let [first, second] = NODES;
    for node in NODES {
        lab.ssh(node, &busy).success();
    }
    let before = NODES.map(|node| lab.ssh(node, generation).success());

    let end = Instant::now() + period;
    let mut looks = 0;
    while Instant::now() < end {
        for (node, is_owner) in [(first, true), (second, false)] {
            let said = lab.ssh(node, "ip -4 -o addr show dev eth0");
            // So busy that it lets nobody in: the journal will tell what this look would have seen.
            if said.code == 255 {
                continue;
            }
            assert_eq!(
                said.success().contains(" 10.0.0.50/"),
                is_owner,
                "{node} after {looks} looks\n{}",
                NODES.map(|node| journal(&lab, node)).join("\n")
            );
            looks += 1;
        }
        thread::sleep(LOOK_INTERVAL);
    }

    let mut report = Vec::new();
    for node in NODES {
        let running = "systemctl is-active busy-1 busy-2 busy-3 busy-disk; cat /proc/loadavg";
        let said = answer(&lab, node, running);
        assert_eq!(
            said.matches("active\n").count(),
            4,
            "{node} was not busy: {said}"
        );
        let lines = journal(&lab, node);
        for never in [
            "is dead",
            "acquir",
            "Releasing",
            "returning after partition",
        ] {
            assert!(!lines.contains(never), "{node}: {lines}");
        }
        let late = lines.matches("Late heartbeat").count();
        let load = said.lines().last().unwrap_or_default();
        report.push(format!("{node}: {late} late heartbeats, load {load}"));
    }
    let after = NODES.map(|node| answer(&lab, node, generation));
    assert_eq!(after, before, "a node began anew");
    said(&format!(
        "{looks} looks in {period:?}; {}",
        report.join("; ")
    ));
}

/// What heartbeat wrote since the load began.
fn journal(lab: &Lab, node: &str) -> String {
    let script = "journalctl -t heartbeat -o short-precise --no-pager --since @$(cut -d. -f1 /run/busy-since)";
    answer(lab, node, script)
}

/// What a node says that lets nobody in at first.
#[track_caller]
fn answer(lab: &Lab, node: &str, script: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = lab.ssh(node, script);
        if said.code != 255 || Instant::now() >= end {
            return said.success();
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the figure is for the reader of the run"
)]
fn said(report: &str) {
    eprintln!("{report}");
}
