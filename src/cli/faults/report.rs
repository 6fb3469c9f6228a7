//! A campaign as a table and as JSON: each fault, then how long the service was away by kind of fault.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::daemons::{Daemons, Summary};
use super::plan::{Fault, Kind};

/// How many lost records are named; the rest is counted.
const NAMED_MAX: usize = 10;

/// One fault and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trial {
    pub number: usize,
    pub fault: Fault,
    pub node: String,
    /// Whether the node had the service.
    pub had_service: bool,
    /// The longest time without an acknowledgement: from the fault on, and from its mending on.
    pub away: Duration,
    pub again: Duration,
    /// From the mending until the cluster was whole.
    pub whole: Option<Duration>,
    pub acknowledged: usize,
    /// The nodes had parted, and were brought together by hand.
    pub split: bool,
    /// For how long two machines answered for the address.
    pub shared: Duration,
    pub problems: Vec<Problem>,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Lost(Vec<u64>),
    TwoOwners(Duration),
    AvoidableSplit,
    /// The nodes parted, and neither says that it detected a split brain.
    SplitNotTold,
    /// It was told to shut down and did not; its power was cut.
    NotDown(String),
    NotWhole(String),
    Unread(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(numbers) => {
                let named: Vec<String> =
                    numbers.iter().take(NAMED_MAX).map(u64::to_string).collect();
                let more = if numbers.len() > NAMED_MAX {
                    ", …"
                } else {
                    ""
                };
                let (count, named) = (numbers.len(), named.join(", "));
                write!(
                    formatter,
                    "{count} acknowledged records are not there: {named}{more}"
                )
            }
            Self::TwoOwners(span) => write!(
                formatter,
                "two machines answered for the address, for {:.1} s",
                span.as_secs_f64()
            ),
            Self::AvoidableSplit => formatter.write_str(
                "the nodes wrote apart from each other, which this fault is no reason for",
            ),
            Self::SplitNotTold => formatter.write_str(
                "the nodes have parted, and neither says that it detected a split brain",
            ),
            Self::NotDown(why) => write!(
                formatter,
                "told to shut down, it did not, and its power was cut: {why}"
            ),
            Self::NotWhole(why) => write!(formatter, "the cluster did not become whole: {why}"),
            Self::Unread(why) => write!(formatter, "the records could not be read: {why}"),
        }
    }
}

/// What came of a campaign, as far as it got.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub trials: Vec<Trial>,
    pub daemons: Daemons,
    /// How often a node did not say what its daemons take.
    pub uncounted: usize,
    /// The most that a node's clock was off, but for what it stood still.
    pub clock_off: Duration,
    pub ending: Option<Ending>,
}

/// The lab was saved and loaded while the client wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub saved: Duration,
    pub loaded: Duration,
    /// From the beginning of the load until the cluster was whole.
    pub whole: Duration,
    /// The most that a node's clock is off after it.
    pub clocks: Duration,
}

/// What a clock may be off in an hour on a busy machine.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// A whole campaign.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Played<'a> {
    pub seed: u64,
    pub tools: &'a str,
    pub planned: usize,
    pub outcome: &'a Outcome,
}

/// The times of one kind of fault.
struct Kinds<'a> {
    kind: Kind,
    had_service: bool,
    trials: Vec<&'a Trial>,
}

impl Played<'_> {
    pub(crate) fn has_problems(&self) -> bool {
        let outcome = self.outcome;
        outcome
            .trials
            .iter()
            .any(|trial| !trial.problems.is_empty())
            || outcome.daemons.have_grown()
            || outcome.uncounted > 0
            || outcome.clock_off > CLOCK_SLACK
            || outcome
                .ending
                .is_some_and(|ending| ending.clocks > CLOCK_SLACK)
    }

    fn lost(&self) -> usize {
        let problems = self.outcome.trials.iter().flat_map(|trial| &trial.problems);
        problems
            .map(|problem| match problem {
                Problem::Lost(numbers) => numbers.len(),
                _ => 0,
            })
            .sum()
    }

    fn acknowledged(&self) -> usize {
        self.outcome
            .trials
            .iter()
            .map(|trial| trial.acknowledged)
            .sum()
    }

    fn kinds(&self) -> Vec<Kinds<'_>> {
        let mut kinds: BTreeMap<(Kind, bool), Vec<&Trial>> = BTreeMap::new();
        for trial in &self.outcome.trials {
            // Those who had the service first.
            let key = (trial.fault.kind, !trial.had_service);
            kinds.entry(key).or_default().push(trial);
        }
        kinds
            .into_iter()
            .map(|((kind, had_none), trials)| Kinds {
                kind,
                had_service: !had_none,
                trials,
            })
            .collect()
    }
}

impl Kinds<'_> {
    fn node(&self) -> &'static str {
        if self.had_service { "owner" } else { "other" }
    }

    /// The upper median and the worst.
    fn times(&self, time: impl Fn(&Trial) -> Option<Duration>) -> (Duration, Duration) {
        let mut times: Vec<Duration> = self.trials.iter().filter_map(|trial| time(trial)).collect();
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        (at(times.len() / 2), at(times.len().saturating_sub(1)))
    }
}

/// One line of the table, for whoever watches.
pub(crate) fn line(trial: &Trial) -> String {
    let seconds = |span: Duration| format!("{:.1}", span.as_secs_f64());
    let mut line = format!(
        "{:>4}  {:<9} {:<11} {:<6} {:>7} {:>7} {:>7} {:>7} {:>8}{}",
        trial.number,
        trial.fault.kind,
        trial.node,
        if trial.had_service { "owner" } else { "other" },
        seconds(trial.fault.lasts),
        seconds(trial.away),
        seconds(trial.again),
        trial.whole.map_or_else(|| "-".to_owned(), seconds),
        trial.acknowledged,
        if trial.split {
            "  split brain, mended"
        } else {
            ""
        },
    );
    if !trial.shared.is_zero() {
        let _ = write!(line, "  two answered for {} s", seconds(trial.shared));
    }
    for problem in &trial.problems {
        let _ = write!(line, "\n      {problem}");
    }
    line
}

/// The table's head.
pub(crate) fn head() -> String {
    format!(
        "{:>4}  {:<9} {:<11} {:<6} {:>7} {:>7} {:>7} {:>7} {:>8}",
        "", "fault", "node", "was", "lasts", "away", "again", "whole", "records"
    )
}

pub(crate) fn as_table(campaign: &Played<'_>) -> String {
    let mut table = head();
    for trial in &campaign.outcome.trials {
        let _ = write!(table, "\n{}", line(trial));
    }
    let _ = write!(
        table,
        "\n\n{:<16} {:>6} {:>13} {:>7} {:>13} {:>7} {:>13} {:>7}",
        "seconds",
        "faults",
        "away, median",
        "worst",
        "again, median",
        "worst",
        "whole, median",
        "worst"
    );
    for kinds in campaign.kinds() {
        let _ = write!(
            table,
            "\n{:<16} {:>6}",
            format!("{}, {}", kinds.kind, kinds.node()),
            kinds.trials.len()
        );
        for (median, worst) in [
            kinds.times(|trial| Some(trial.away)),
            kinds.times(|trial| Some(trial.again)),
            kinds.times(|trial| trial.whole),
        ] {
            let _ = write!(
                table,
                " {:>13.1} {:>7.1}",
                median.as_secs_f64(),
                worst.as_secs_f64()
            );
        }
    }
    table.push_str(&daemons_table(campaign.outcome));
    let count = |is: fn(&Trial) -> bool| {
        campaign
            .outcome
            .trials
            .iter()
            .filter(|trial| is(trial))
            .count()
    };
    let _ = write!(
        table,
        "\n\nseed {}, tools {}: {} of {} faults, {} records acknowledged, {} lost, {} split brains, {} faults ended badly",
        campaign.seed,
        campaign.tools,
        campaign.outcome.trials.len(),
        campaign.planned,
        campaign.acknowledged(),
        campaign.lost(),
        count(|trial| trial.split),
        count(|trial| !trial.problems.is_empty()),
    );
    table
}

/// What the daemons took, and what became of clocks and snapshots.
fn daemons_table(outcome: &Outcome) -> String {
    let summaries = outcome.daemons.summaries();
    let mut table = String::new();
    if !summaries.is_empty() {
        let _ = write!(
            table,
            "\n\n{:<34} {:>5} {:>8} {:>20} {:>7} {:>20} {:>14} {:>6}",
            "daemon",
            "lives",
            "longest",
            "memory, KiB",
            "most",
            "of it allocated",
            "descriptors",
            "most"
        );
    }
    for summary in &summaries {
        let change = |thirds: [u64; 3]| thirds.map(|value| value.to_string()).join(" → ");
        let _ = write!(
            table,
            "\n{:<34} {:>5} {:>6} s {:>20} {:>7} {:>20} {:>14} {:>6}{}",
            summary.name,
            summary.lives,
            summary.longest.as_secs(),
            change(summary.memory_kib),
            summary.memory_most_kib,
            change(summary.allocated_kib),
            change(summary.descriptors),
            summary.descriptors_most,
            grown(summary),
        );
    }
    if outcome.uncounted > 0 {
        let _ = write!(
            table,
            "\n{} times a node did not say what its daemons take",
            outcome.uncounted
        );
    }
    if let Some(ending) = &outcome.ending {
        let seconds = |span: Duration| format!("{:.1} s", span.as_secs_f64());
        let _ = write!(
            table,
            "\n\nclocks off by at most {}; saved in {}, loaded in {}, whole after {}, clocks then off by {}",
            seconds(outcome.clock_off),
            seconds(ending.saved),
            seconds(ending.loaded),
            seconds(ending.whole),
            seconds(ending.clocks),
        );
    }
    table
}

fn grown(summary: &Summary) -> String {
    match summary.grown {
        0 => String::new(),
        1 => "  grew in one life".to_owned(),
        count => format!("  grew in {count} lives"),
    }
}

pub(crate) fn as_json(campaign: &Played<'_>) -> Value {
    let faults: Vec<Value> = campaign
        .outcome
        .trials
        .iter()
        .map(|trial| {
            let problems = trial.problems.iter().map(ToString::to_string);
            json!({
                "number": trial.number,
                "fault": trial.fault.kind.name(),
                "node": trial.node,
                "had_service": trial.had_service,
                "lasts_seconds": trial.fault.lasts.as_secs_f64(),
                "away_seconds": trial.away.as_secs_f64(),
                "away_again_seconds": trial.again.as_secs_f64(),
                "whole_seconds": trial.whole.map(|span| span.as_secs_f64()),
                "acknowledged": trial.acknowledged,
                "split_brain": trial.split,
                "two_answered_seconds": trial.shared.as_secs_f64(),
                "problems": problems.collect::<Vec<_>>(),
            })
        })
        .collect();
    let kinds: Vec<Value> = campaign
        .kinds()
        .iter()
        .map(|kinds| {
            let times = |time: fn(&Trial) -> Option<Duration>| {
                let (median, worst) = kinds.times(time);
                json!({"median_seconds": median.as_secs_f64(), "worst_seconds": worst.as_secs_f64()})
            };
            json!({
                "fault": kinds.kind.name(),
                "had_service": kinds.had_service,
                "faults": kinds.trials.len(),
                "away": times(|trial| Some(trial.away)),
                "away_again": times(|trial| Some(trial.again)),
                "whole": times(|trial| trial.whole),
            })
        })
        .collect();
    let daemons: Vec<Value> = campaign
        .outcome
        .daemons
        .summaries()
        .iter()
        .map(|summary| {
            json!({
                "name": summary.name,
                "lives": summary.lives,
                "grown": summary.grown,
                "longest_seconds": summary.longest.as_secs_f64(),
                "memory_kib": summary.memory_kib,
                "memory_most_kib": summary.memory_most_kib,
                "allocated_kib": summary.allocated_kib,
                "descriptors": summary.descriptors,
                "descriptors_most": summary.descriptors_most,
            })
        })
        .collect();
    let ending = campaign.outcome.ending.map(|ending| {
        json!({
            "saved_seconds": ending.saved.as_secs_f64(),
            "loaded_seconds": ending.loaded.as_secs_f64(),
            "whole_seconds": ending.whole.as_secs_f64(),
            "clocks_off_seconds": ending.clocks.as_secs_f64(),
        })
    });
    json!({
        "seed": campaign.seed,
        "tools": campaign.tools,
        "planned": campaign.planned,
        "acknowledged": campaign.acknowledged(),
        "lost": campaign.lost(),
        "kinds": kinds,
        "faults": faults,
        "daemons": daemons,
        "uncounted": campaign.outcome.uncounted,
        "clocks_off_seconds": campaign.outcome.clock_off.as_secs_f64(),
        "save_and_load": ending,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(number: usize, kind: Kind, had_service: bool, away_ms: u64) -> Trial {
        Trial {
            number,
            fault: Fault {
                kind,
                node: 0,
                lasts: Duration::from_secs(3),
                rest: Duration::ZERO,
            },
            node: "saisp-vm-2".into(),
            had_service,
            away: Duration::from_millis(away_ms),
            again: Duration::ZERO,
            whole: Some(Duration::from_secs(9)),
            acknowledged: 100,
            split: false,
            shared: Duration::ZERO,
            problems: Vec::new(),
        }
    }

    fn outcome(trials: &[Trial]) -> Outcome {
        Outcome {
            trials: trials.to_vec(),
            ..Outcome::default()
        }
    }

    fn campaign(outcome: &Outcome) -> Played<'_> {
        Played {
            seed: 7,
            tools: "agent",
            planned: 9,
            outcome,
        }
    }

    #[test]
    fn a_clock_that_is_off_is_a_problem() {
        let mut outcome = outcome(&[trial(1, Kind::Kill, true, 2000)]);
        assert!(!campaign(&outcome).has_problems());
        outcome.clock_off = Duration::from_millis(1100);
        assert!(campaign(&outcome).has_problems());
    }

    #[test]
    fn the_median_and_the_worst_of_each_kind_are_shown() {
        let trials = [
            trial(1, Kind::Kill, true, 2000),
            trial(2, Kind::Kill, true, 9000),
            trial(3, Kind::Kill, true, 2500),
            trial(4, Kind::Kill, false, 200),
        ];
        let table = as_table(&campaign(&outcome(&trials)));
        let line = |begin: &str| {
            let line = table.lines().find(|line| line.starts_with(begin));
            line.expect("a line").split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(
            line("kill, owner")[..5],
            ["kill,", "owner", "3", "2.5", "9.0"]
        );
        assert_eq!(
            line("kill, other")[..5],
            ["kill,", "other", "1", "0.2", "0.2"]
        );
        assert!(
            table.ends_with(
                "seed 7, tools agent: 4 of 9 faults, 400 records acknowledged, 0 lost, 0 split brains, 0 faults ended badly"
            ),
            "{table}"
        );
        assert!(!campaign(&outcome(&trials)).has_problems());
    }

    #[test]
    fn what_was_lost_is_named_and_counted() {
        let mut bad = trial(1, Kind::Pause, true, 100);
        bad.problems = vec![
            Problem::Lost((1..=12).collect()),
            Problem::TwoOwners(Duration::from_millis(300)),
        ];
        let trials = [bad];
        let table = as_table(&campaign(&outcome(&trials)));
        assert!(
            table.contains(
                "\n      12 acknowledged records are not there: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …\n      two machines answered for the address, for 0.3 s\n"
            ),
            "{table}"
        );
        let facts = as_json(&campaign(&outcome(&trials)));
        assert_eq!(facts["lost"], 12);
        assert_eq!(facts["kinds"][0]["away"]["worst_seconds"], 0.1);
        assert!(campaign(&outcome(&trials)).has_problems());
    }
}
