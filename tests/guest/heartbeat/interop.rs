//! Our heartbeat and heartbeat 3.0.6 as one cluster, either way round: whatever happens, it ends
//! with the one owner that a pair of the real thing would end with.
//!
//! Where a pair of the real thing itself ends badly, more is asked of a pair with one of ours in it:
//!
//! | what a pair of 3.0.6 does | seen |
//! |---|---|
//! | a node that is stopped and is back before the other has taken over never gets its group back | `hb_takeover` mends it |
//! | after a cut that healed, a node may shut itself down instead of starting again | `systemctl start heartbeat` mends it |

use libtest_mimic::Trial;

use super::Software::{Agent, Package};
use super::{NODES, Pair, Software, is_long};
use crate::trial;

const FIRST: &str = NODES[0];
const SECOND: &str = NODES[1];

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![trial(
        "heartbeat_ours_first_and_the_real_one_second",
        || {
            everything("hbmix1", [Agent, Package]);
        },
    )];
    if is_long() {
        trials.push(trial(
            "heartbeat_the_real_one_first_and_ours_second",
            || {
                everything("hbmix2", [Package, Agent]);
            },
        ));
        // What the two above are held against: the same script with a pair of one kind.
        trials.push(trial("heartbeat_a_pair_of_real_ones", || {
            everything("hbreal", [Package, Package]);
        }));
        trials.push(trial("heartbeat_a_pair_of_ours", || {
            everything("hbours", [Agent, Agent]);
        }));
    }
    trials
}

fn everything(lab: &str, software: [Software; 2]) {
    let pair = Pair::start(lab, software);
    let service = |node: &str, verb: &str| {
        pair.on(node, &format!("systemctl {verb} heartbeat"))
            .success();
    };
    pair.both_see_both_active();
    pair.owner_is(FIRST, &NODES);

    // A clean stop, and failback at the return.
    service(FIRST, "stop");
    pair.owner_is(SECOND, &NODES);
    service(FIRST, "start");
    pair.both_see_both_active();
    comes_home(&pair);

    // Stand-by by hand, and the take-over of everything by hand.
    let by_hand = |node: &str, tool: &str, share: &str| {
        // One that comes while the other node's scripts still run is refused, by 3.0.6 too.
        pair.both_are_settled();
        let tool = pair.tool(node, tool);
        pair.on(node, &format!("{tool} {share}")).success();
    };
    by_hand(FIRST, "hb_standby", "all");
    pair.owner_is(SECOND, &NODES);
    by_hand(FIRST, "hb_takeover", "all");
    pair.owner_is(FIRST, &NODES);
    by_hand(SECOND, "hb_takeover", "all");
    pair.owner_is(SECOND, &NODES);
    by_hand(SECOND, "hb_standby", "failback");
    pair.owner_is(FIRST, &NODES);

    // Each starts again, under a new generation.
    for node in [SECOND, FIRST] {
        let before = pair.generation(node);
        service(node, "restart");
        pair.both_see_both_active();
        comes_home(&pair);
        assert!(pair.generation(node) > before, "{node} kept its generation");
    }

    // The cable out: both have it. The cable in: one has it.
    pair.lab
        .halab(["fault", "link", FIRST, "eth0", "down"])
        .success();
    pair.owner_is(SECOND, &[SECOND]);
    pair.lab
        .halab(["fault", "link", FIRST, "eth0", "up"])
        .success();
    pair.both_run_again();
    pair.both_see_both_active();
    comes_home(&pair);

    // The power off: the other has it. The power on: back home. Not in the middle of what came
    // before: 3.0.6 that shuts itself down after a healed cut takes nothing over.
    pair.both_are_settled();
    let machines = format!("{{\"machine\": \"{FIRST}\", \"other\": \"{SECOND}\"}}");
    pair.play("crash.yml", &machines);
    service(FIRST, "start");
    pair.both_see_both_active();
    comes_home(&pair);
}

/// The node that the group prefers has it; a pair of the real thing needs a hand at times.
#[track_caller]
fn comes_home(pair: &Pair) {
    if pair.software == [Package, Package] && pair.one_owner() != FIRST {
        let takeover = pair.tool(FIRST, "hb_takeover");
        pair.on(FIRST, &takeover).success();
    }
    pair.owner_is(FIRST, &NODES);
}
