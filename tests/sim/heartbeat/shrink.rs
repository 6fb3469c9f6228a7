//! Takes away from a failing scenario whatever the failure does not need.

use std::fmt::Write as _;

use super::scenario::{Noise, Scenario};
use super::world::World;

/// Lines of the trace that are shown: the end is where it went wrong.
const TRACE_LINES: usize = 120;

/// Returns the smallest failing form of a scenario found, with its trace.
pub(crate) fn shrunk_report(scenario: &Scenario) -> String {
    let scenario = shrink(scenario.clone());
    let (result, trace) = World::run_traced(&scenario);
    let mut report = format!(
        "{}\nreplay with HALAB_SIM_SEED={} HALAB_SIM_RUNS=1; shrunk to:\n",
        result.expect_err("a shrunk scenario fails still"),
        scenario.seed
    );
    let noise = scenario.noise;
    let _ = writeln!(
        report,
        "world {} nodes, failback {}, keepalive {:?}, deadtime {:?}, {noise:?}, drift {:?}",
        scenario.nodes,
        scenario.failback,
        scenario.keepalive,
        scenario.deadtime,
        scenario.drift_ppm
    );
    for fault in &scenario.faults {
        let _ = writeln!(report, "fault at {:?}: {:?}", fault.at, fault.kind);
    }
    for line in &trace[trace.len().saturating_sub(TRACE_LINES)..] {
        let _ = writeln!(report, "{line}");
    }
    report
}

fn shrink(mut scenario: Scenario) -> Scenario {
    let fails = |scenario: &Scenario| World::run(scenario).is_err();
    let mut quiet = scenario.clone();
    quiet.noise = Noise {
        delay_max: scenario.noise.delay_max,
        ..Noise::default()
    };
    quiet.drift_ppm.fill(0);
    if fails(&quiet) {
        scenario = quiet;
    }
    let mut at = 0;
    while at < scenario.faults.len() {
        let mut fewer = scenario.clone();
        fewer.faults.remove(at);
        if fails(&fewer) {
            scenario = fewer;
            at = 0;
        } else {
            at += 1;
        }
    }
    scenario
}
