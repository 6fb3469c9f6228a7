//! Our heartbeat and heartbeat 3.0.6 as one cluster, either way round: whatever happens, it ends
//! with the one owner that a pair of the real thing would end with.

use libtest_mimic::Trial;

use super::Software::{Agent, Package};
use super::{NODES, Pair, Software, is_long};
use crate::trial;

const FIRST: &str = NODES[0];
const SECOND: &str = NODES[1];

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("heartbeat_ours_first_and_the_real_one_second", || {
            everything("hbmix1", [Agent, Package]);
        }),
        trial("heartbeat_the_real_one_first_and_ours_second", || {
            everything("hbmix2", [Package, Agent]);
        }),
    ];
    if is_long() {
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
    pair.owner_is(FIRST, &NODES);

    // Stand-by by hand, and the take-over of everything by hand.
    let standby = pair.tool(FIRST, "hb_standby");
    pair.on(FIRST, &standby).success();
    pair.owner_is(SECOND, &NODES);
    let takeover = pair.tool(FIRST, "hb_takeover");
    pair.on(FIRST, &takeover).success();
    pair.owner_is(FIRST, &NODES);
    let takeover = pair.tool(SECOND, "hb_takeover");
    pair.on(SECOND, &takeover).success();
    pair.owner_is(SECOND, &NODES);
    let standby = pair.tool(SECOND, "hb_standby");
    pair.on(SECOND, &format!("{standby} failback")).success();
    pair.owner_is(FIRST, &NODES);

    // Each starts again, under a new generation.
    for node in [SECOND, FIRST] {
        let before = pair.generation(node);
        service(node, "restart");
        pair.both_see_both_active();
        pair.owner_is(FIRST, &NODES);
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
    pair.both_see_both_active();
    pair.owner_is(FIRST, &NODES);

    // The power off: the other has it. The power on: back home.
    pair.on(FIRST, "sync").success();
    pair.lab.halab(["fault", "kill", FIRST]).success();
    pair.owner_is(SECOND, &[SECOND]);
    pair.play("boot.yml", &format!("machine={FIRST}"));
    service(FIRST, "start");
    pair.both_see_both_active();
    pair.owner_is(FIRST, &NODES);
}
