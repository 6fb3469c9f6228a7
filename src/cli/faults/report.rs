//! A campaign as a table and as JSON: each fault, then how long the service was away by kind of fault.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

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
            Self::NotWhole(why) => write!(formatter, "the cluster did not become whole: {why}"),
            Self::Unread(why) => write!(formatter, "the records could not be read: {why}"),
        }
    }
}

/// A whole campaign.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Played<'a> {
    pub seed: u64,
    pub tools: &'a str,
    pub planned: usize,
    pub trials: &'a [Trial],
}

/// The times of one kind of fault.
struct Kinds<'a> {
    kind: Kind,
    had_service: bool,
    trials: Vec<&'a Trial>,
}

impl Played<'_> {
    pub(crate) fn has_problems(&self) -> bool {
        self.trials.iter().any(|trial| !trial.problems.is_empty())
    }

    fn lost(&self) -> usize {
        let problems = self.trials.iter().flat_map(|trial| &trial.problems);
        problems
            .map(|problem| match problem {
                Problem::Lost(numbers) => numbers.len(),
                _ => 0,
            })
            .sum()
    }

    fn acknowledged(&self) -> usize {
        self.trials.iter().map(|trial| trial.acknowledged).sum()
    }

    fn kinds(&self) -> Vec<Kinds<'_>> {
        let mut kinds: BTreeMap<(Kind, bool), Vec<&Trial>> = BTreeMap::new();
        for trial in self.trials {
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
    for trial in campaign.trials {
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
    let count = |is: fn(&Trial) -> bool| campaign.trials.iter().filter(|trial| is(trial)).count();
    let _ = write!(
        table,
        "\n\nseed {}, tools {}: {} of {} faults, {} records acknowledged, {} lost, {} split brains, {} faults ended badly",
        campaign.seed,
        campaign.tools,
        campaign.trials.len(),
        campaign.planned,
        campaign.acknowledged(),
        campaign.lost(),
        count(|trial| trial.split),
        count(|trial| !trial.problems.is_empty()),
    );
    table
}

pub(crate) fn as_json(campaign: &Played<'_>) -> Value {
    let faults: Vec<Value> = campaign
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
    json!({
        "seed": campaign.seed,
        "tools": campaign.tools,
        "planned": campaign.planned,
        "acknowledged": campaign.acknowledged(),
        "lost": campaign.lost(),
        "kinds": kinds,
        "faults": faults,
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

    fn campaign(trials: &[Trial]) -> Played<'_> {
        Played {
            seed: 7,
            tools: "agent",
            planned: 9,
            trials,
        }
    }

    #[test]
    fn the_median_and_the_worst_of_each_kind_are_shown() {
        let trials = [
            trial(1, Kind::Kill, true, 2000),
            trial(2, Kind::Kill, true, 9000),
            trial(3, Kind::Kill, true, 2500),
            trial(4, Kind::Kill, false, 200),
        ];
        let table = as_table(&campaign(&trials));
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
        assert!(!campaign(&trials).has_problems());
    }

    #[test]
    fn what_was_lost_is_named_and_counted() {
        let mut bad = trial(1, Kind::Pause, true, 100);
        bad.problems = vec![
            Problem::Lost((1..=12).collect()),
            Problem::TwoOwners(Duration::from_millis(300)),
        ];
        let trials = [bad];
        let table = as_table(&campaign(&trials));
        assert!(
            table.contains(
                "\n      12 acknowledged records are not there: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …\n      two machines answered for the address, for 0.3 s\n"
            ),
            "{table}"
        );
        let facts = as_json(&campaign(&trials));
        assert_eq!(facts["lost"], 12);
        assert_eq!(facts["kinds"][0]["away"]["worst_seconds"], 0.1);
        assert!(campaign(&trials).has_problems());
    }
}
