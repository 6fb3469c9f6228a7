//! What a campaign costs those who live through it: each daemon's memory and descriptors over its life, and how far
//! the machines' clocks are off.
//!
//! A node that boots has new daemons, so every life is judged by itself: by how its last third stands to its second.
//! In the first a daemon still takes what it keeps for later, which is bounded.

use std::collections::BTreeMap;
use std::time::Duration;

/// Says, in a node's own shell, what is parsed here: a line for each daemon of heartbeat and of the replication, and
/// one with the clock. The moment a process began tells a number that is used again from the one before.
pub(crate) const QUESTION: &str = r#"for p in /proc/[0-9]*; do
  read -r name < $p/comm || continue
  case $name in heartbeat|halab-agent*) ;; *) continue ;; esac
  began=$(cut -d')' -f2- $p/stat | cut -d' ' -f21)
  [ -n "$began" ] || continue
  kib() { sed -n "s/^$1:[^0-9]*\([0-9]*\) kB/\1/p" $p/status; }
  rss=$(kib VmRSS) own=$(kib RssAnon)
  echo "daemon ${p#/proc/} $began ${rss:-0} ${own:-0} $(ls $p/fd | wc -l) $(tr '\0' ' ' < $p/cmdline)"
done 2>/dev/null
echo clock $(date +%s%N)"#;

/// A daemon at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub pid: u64,
    /// When it began, in the kernel's ticks since the boot.
    pub began: u64,
    pub memory_kib: u64,
    /// Of it what it allocated: the rest is its program.
    pub allocated_kib: u64,
    pub descriptors: u64,
    pub name: String,
}

/// What a node says of its daemons and its clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub daemons: Vec<Sample>,
    /// Since 1970.
    pub clock: Option<Duration>,
}

impl Census {
    pub(crate) fn parse(answer: &str) -> Self {
        let mut census = Self::default();
        for line in answer.lines() {
            match line.split_once(' ') {
                Some(("daemon", rest)) => census.daemons.extend(sample(rest)),
                Some(("clock", nanoseconds)) => {
                    let nanoseconds = nanoseconds.trim().parse().ok();
                    census.clock = nanoseconds.map(Duration::from_nanos);
                }
                _ => {}
            }
        }
        census
    }

    /// How far the clock is off for one that asked and heard at these moments: nothing for any moment between.
    /// One that stood still is behind by as much, which is known from the outside only as at least and at most.
    pub(crate) fn clock_off(
        &self,
        stood_still: [Duration; 2],
        asked: Duration,
        heard: Duration,
    ) -> Option<Duration> {
        let clock = self.clock?;
        let [earliest, latest] = stood_still.map(|span| clock + span);
        Some(
            asked
                .saturating_sub(latest)
                .max(earliest.saturating_sub(heard)),
        )
    }
}

fn sample(text: &str) -> Option<Sample> {
    let mut words = text.split_whitespace();
    let mut number = || words.next()?.parse().ok();
    let (pid, began) = (number()?, number()?);
    let (memory_kib, allocated_kib, descriptors) = (number()?, number()?, number()?);
    let command: Vec<&str> = words.collect();
    Some(Sample {
        pid,
        began,
        memory_kib,
        allocated_kib,
        descriptors,
        name: daemon(&command)?,
    })
}

/// What a process is called among the daemons; `None` for one that is none: a client of theirs, what serves halab.
fn daemon(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let program = program.rsplit('/').next()?.trim_end_matches(':');
    match program {
        // 3.0.6 names its processes itself: `heartbeat: master control process`, `heartbeat: write: bcast eth0`.
        "heartbeat" => Some(
            ["heartbeat", &arguments.join(" ")]
                .join(" ")
                .trim()
                .to_owned(),
        ),
        // Its file has its build's number in its name where halab put it.
        _ if program.starts_with("halab-agent") => match arguments {
            ["heartbeat", ..] => Some("heartbeat".to_owned()),
            ["replica", "serve", ..] => Some("replication".to_owned()),
            ["drbd", "proc", "serve"] => Some("replication, /proc/drbd".to_owned()),
            _ => None,
        },
        _ => None,
    }
}

/// The lives of all daemons of a campaign.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Daemons {
    /// By the daemon's name.
    lives: BTreeMap<String, BTreeMap<Life, Vec<Moment>>>,
    boots: BTreeMap<String, u32>,
}

/// Which life: of all that a process can be told by, nothing alone is its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Life {
    node: String,
    boot: u32,
    pid: u64,
    began: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Moment {
    at: Duration,
    memory_kib: u64,
    allocated_kib: u64,
    descriptors: u64,
}

/// One kind of daemon over all its lives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    pub name: String,
    pub lives: usize,
    /// The longest life that was watched, and what it had in each third of it (medians).
    pub longest: Duration,
    pub memory_kib: [u64; 3],
    pub allocated_kib: [u64; 3],
    pub descriptors: [u64; 3],
    /// Of all lives.
    pub memory_most_kib: u64,
    pub descriptors_most: u64,
    /// Lives in which one of both grew.
    pub grown: usize,
}

/// Fewer samples than these say nothing of a life.
const SAMPLES_MIN: usize = 6;
/// What a daemon may have more of at the end of a life than at its beginning, and not count as grown: a few pages
/// more of its program were touched, a connection is just being made.
const MEMORY_SLACK_KIB: u64 = 1024;
const DESCRIPTORS_SLACK: u64 = 4;

impl Daemons {
    /// The node boots: what lives on it from now on is new.
    pub(crate) fn boots(&mut self, node: &str) {
        *self.boots.entry(node.to_owned()).or_default() += 1;
    }

    pub(crate) fn take(&mut self, node: &str, at: Duration, census: &Census) {
        let boot = self.boots.get(node).copied().unwrap_or(0);
        for daemon in &census.daemons {
            let lives = self.lives.entry(daemon.name.clone()).or_default();
            let life = Life {
                node: node.to_owned(),
                boot,
                pid: daemon.pid,
                began: daemon.began,
            };
            lives.entry(life).or_default().push(Moment {
                at,
                memory_kib: daemon.memory_kib,
                allocated_kib: daemon.allocated_kib,
                descriptors: daemon.descriptors,
            });
        }
    }

    pub(crate) fn summaries(&self) -> Vec<Summary> {
        let summaries = self
            .lives
            .iter()
            .map(|(name, lives)| summary(name, lives.values()));
        summaries.collect()
    }

    pub(crate) fn have_grown(&self) -> bool {
        self.summaries().iter().any(|summary| summary.grown > 0)
    }
}

fn summary<'a>(name: &str, lives: impl ExactSizeIterator<Item = &'a Vec<Moment>>) -> Summary {
    let mut summary = Summary {
        name: name.to_owned(),
        lives: lives.len(),
        longest: Duration::ZERO,
        memory_kib: [0; 3],
        allocated_kib: [0; 3],
        descriptors: [0; 3],
        memory_most_kib: 0,
        descriptors_most: 0,
        grown: 0,
    };
    for life in lives {
        let memory = thirds(life, |moment| moment.memory_kib);
        let allocated = thirds(life, |moment| moment.allocated_kib);
        let descriptors = thirds(life, |moment| moment.descriptors);
        let most = |value: fn(&Moment) -> u64| life.iter().map(value).max().unwrap_or(0);
        summary.memory_most_kib = summary
            .memory_most_kib
            .max(most(|moment| moment.memory_kib));
        summary.descriptors_most = summary
            .descriptors_most
            .max(most(|moment| moment.descriptors));
        let has_grown = memory[2] > memory[1] + MEMORY_SLACK_KIB
            || descriptors[2] > descriptors[1] + DESCRIPTORS_SLACK;
        summary.grown += usize::from(life.len() >= SAMPLES_MIN && has_grown);
        let watched = match life.as_slice() {
            [first, .., last] => last.at.saturating_sub(first.at),
            _ => Duration::ZERO,
        };
        if watched >= summary.longest {
            summary.longest = watched;
            summary.memory_kib = memory;
            summary.allocated_kib = allocated;
            summary.descriptors = descriptors;
        }
    }
    summary
}

/// The medians of the three thirds of a life.
fn thirds(life: &[Moment], value: impl Fn(&Moment) -> u64) -> [u64; 3] {
    let third = life.len().div_ceil(3);
    let middle = (life.len() - third) / 2;
    let median = |part: &[Moment]| {
        let mut values: Vec<u64> = part.iter().map(&value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    [0, middle, life.len() - third].map(|begin| median(&life[begin..begin + third]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "daemon 465 3391 3288 520 14 /usr/local/lib/halab/halab-agent heartbeat -f 
daemon 343 2101 3368 600 9 /usr/local/lib/halab/halab-agent serve 
daemon 571 3500 9120 5120 22 /usr/local/lib/halab/halab-agent-965e7265138a3956 replica serve r0 0 0 /dev/drbd0 
daemon 405 2511 2712 240 6 /usr/local/lib/halab/halab-agent-965e7265138a3956 drbd proc serve 
daemon 610 3600 6120 1120 8 heartbeat: master control process
daemon 611 3601 5120 900 7 heartbeat: write: bcast eth0
daemon x 3601 5120 900 7 heartbeat: read
clock 1795887600123456789
";

    fn census(memory_kib: u64, descriptors: u64) -> Census {
        Census {
            daemons: vec![Sample {
                pid: 465,
                began: 3391,
                memory_kib,
                allocated_kib: memory_kib / 2,
                descriptors,
                name: "heartbeat".into(),
            }],
            clock: None,
        }
    }

    fn watched(values: impl IntoIterator<Item = (u64, u64)>) -> Daemons {
        let mut daemons = Daemons::default();
        for (minute, (memory, descriptors)) in (0..).zip(values) {
            daemons.take(
                "a",
                Duration::from_secs(minute * 60),
                &census(memory, descriptors),
            );
        }
        daemons
    }

    #[test]
    fn daemons_are_told_from_what_has_their_program_only() {
        let census = Census::parse(ANSWER);
        let named: Vec<(&str, [u64; 3])> = census
            .daemons
            .iter()
            .map(|daemon| {
                let figures = [daemon.memory_kib, daemon.allocated_kib, daemon.descriptors];
                (daemon.name.as_str(), figures)
            })
            .collect();
        assert_eq!(
            named,
            [
                ("heartbeat", [3288, 520, 14]),
                ("replication", [9120, 5120, 22]),
                ("replication, /proc/drbd", [2712, 240, 6]),
                ("heartbeat master control process", [6120, 1120, 8]),
                ("heartbeat write: bcast eth0", [5120, 900, 7]),
            ]
        );
        assert_eq!(
            census.clock,
            Some(Duration::from_nanos(1_795_887_600_123_456_789))
        );
    }

    #[test]
    fn a_clock_may_be_behind_by_what_it_stood_still() {
        let seconds = Duration::from_secs;
        let census = Census {
            clock: Some(seconds(90)),
            ..Census::default()
        };
        let off = |stood_still, asked, heard| {
            let stood_still = [stood_still, stood_still + 1].map(seconds);
            let off = census.clock_off(stood_still, seconds(asked), seconds(heard));
            off.expect("a clock")
        };
        assert_eq!(off(0, 89, 91), Duration::ZERO);
        assert_eq!(off(10, 99, 101), Duration::ZERO);
        assert_eq!(off(10, 101, 102), Duration::ZERO);
        assert_eq!(off(0, 96, 97), seconds(5));
        assert_eq!(off(0, 80, 81), seconds(9));
    }

    #[test]
    fn what_goes_up_and_down_has_not_grown() {
        let values = (0..60).map(|minute| (3000 + 40 * (minute % 7), 14 + minute % 3));
        let summary = watched(values).summaries().remove(0);
        assert_eq!((summary.lives, summary.grown), (1, 0));
        assert_eq!(summary.longest, Duration::from_secs(59 * 60));
        assert_eq!(
            (summary.memory_most_kib, summary.descriptors_most),
            (3240, 16)
        );
    }

    #[test]
    fn a_leak_is_found() {
        let memory = watched((0..60).map(|minute| (3000 + 60 * minute, 14)));
        assert!(memory.have_grown());
        let descriptors = watched((0..60).map(|minute| (3000, 14 + minute / 4)));
        let summary = descriptors.summaries().remove(0);
        assert_eq!((summary.grown, summary.descriptors), (1, [16, 21, 26]));
    }

    #[test]
    fn what_is_kept_for_later_is_no_leak() {
        let kept = watched((0..60).map(|minute| (3000 + 200 * minute.min(15), 14)));
        assert!(!kept.have_grown());
    }

    #[test]
    fn a_boot_begins_another_life_even_with_the_same_number() {
        let mut daemons = watched((0..10).map(|_| (3000, 14)));
        daemons.boots("a");
        for minute in 10..20 {
            daemons.take("a", Duration::from_secs(minute * 60), &census(9000, 14));
        }
        let summary = daemons.summaries().remove(0);
        assert_eq!((summary.lives, summary.grown), (2, 0));
    }
}
