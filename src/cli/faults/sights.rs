//! What the client saw, as lines between two processes and as values: which records were acknowledged, by whom and
//! when; who answers for the service's address.
//!
//! | line | |
//! |---|---|
//! | `ack NUMBER NODE SENT DONE` | the record was answered in time |
//! | `owners AT MAC,MAC…` | who answered the question for the address; a line when that changes |
//! | `kept NUMBER,NUMBER…` | what is there, when asked |
//! | `unread REASON` | that it cannot be read |
//!
//! Times are milliseconds since 1970.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Ack(Ack),
    Owners { at: u64, macs: BTreeSet<String> },
    Kept(BTreeSet<u64>),
    Unread(String),
}

/// A record that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub number: u64,
    pub node: String,
    pub sent: u64,
    pub done: u64,
}

impl Line {
    pub(crate) fn text(&self) -> String {
        let list = |items: Vec<String>| items.join(",");
        match self {
            Self::Ack(ack) => format!("ack {} {} {} {}", ack.number, ack.node, ack.sent, ack.done),
            Self::Owners { at, macs } => {
                format!("owners {at} {}", list(macs.iter().cloned().collect()))
            }
            Self::Kept(numbers) => {
                format!(
                    "kept {}",
                    list(numbers.iter().map(u64::to_string).collect())
                )
            }
            Self::Unread(reason) => format!("unread {}", reason.replace('\n', " ")),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut words = rest.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        Some(match word {
            "ack" => {
                let number = number()?;
                let node = words.next()?.to_owned();
                let mut time = || words.next()?.parse().ok();
                Self::Ack(Ack {
                    number,
                    node,
                    sent: time()?,
                    done: time()?,
                })
            }
            "owners" => Self::Owners {
                at: number()?,
                macs: listed(words.next()?).map(str::to_owned).collect(),
            },
            "kept" => Self::Kept(
                listed(rest)
                    .map(|number| number.parse().ok())
                    .collect::<Option<_>>()?,
            ),
            "unread" => Self::Unread(rest.to_owned()),
            _ => return None,
        })
    }
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

/// Everything seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sights {
    pub acks: Vec<Ack>,
    /// Each with the moment from which it held.
    pub owners: Vec<(u64, BTreeSet<String>)>,
}

impl Sights {
    /// Takes a line in; what was asked for is given back.
    pub(crate) fn take(&mut self, line: Line) -> Option<Result<BTreeSet<u64>, String>> {
        match line {
            Line::Ack(ack) => self.acks.push(ack),
            Line::Owners { at, macs } => self.owners.push((at, macs)),
            Line::Kept(numbers) => return Some(Ok(numbers)),
            Line::Unread(reason) => return Some(Err(reason)),
        }
        None
    }

    /// Returns the longest time without an acknowledgement that touches a span; `since` leaves out those that
    /// began before it.
    pub(crate) fn away(&self, from: u64, to: u64, since: u64) -> Duration {
        let mut times: Vec<u64> = self.acks.iter().map(|ack| ack.done).collect();
        times.sort_unstable();
        let longest = times
            .windows(2)
            .map(|pair| (pair[0], pair[1]))
            .filter(|(begin, end)| *end >= from && *begin <= to && *begin >= since)
            .map(|(begin, end)| end - begin)
            .max();
        Duration::from_millis(longest.unwrap_or(0))
    }

    /// Returns for how long more than one machine answered for the address within a span.
    pub(crate) fn two_owners(&self, from: u64, to: u64) -> Duration {
        let ends = self.owners.iter().skip(1).map(|(at, _)| *at).chain([to]);
        let shared = self
            .owners
            .iter()
            .zip(ends)
            .filter(|((_, macs), _)| macs.len() > 1)
            .map(|((at, _), end)| {
                let overlap = end.min(to).saturating_sub((*at).max(from));
                // Seen once is seen, however short.
                if (from..=to).contains(at) {
                    overlap.max(1)
                } else {
                    overlap
                }
            })
            .sum();
        Duration::from_millis(shared)
    }

    /// Returns who acknowledged how many since a moment.
    pub(crate) fn kept_by(&self, since: u64) -> BTreeMap<&str, usize> {
        let mut kept = BTreeMap::new();
        for ack in self.acks.iter().filter(|ack| ack.done >= since) {
            *kept.entry(ack.node.as_str()).or_default() += 1;
        }
        kept
    }

    /// Returns what was acknowledged and is not there. Of what was acknowledged since `asked` nothing is said.
    pub(crate) fn lost(&self, kept: &BTreeSet<u64>, asked: u64) -> BTreeSet<u64> {
        let acknowledged = self.acks.iter().filter(|ack| ack.done < asked);
        let numbers = acknowledged.map(|ack| ack.number);
        numbers.filter(|number| !kept.contains(number)).collect()
    }
}

/// Reads the file of records: one is whole when it ends with a full stop.
pub(crate) fn records(text: &str) -> BTreeSet<u64> {
    text.lines()
        .filter_map(|line| line.strip_suffix('.')?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(number: u64, done: u64) -> Line {
        Line::Ack(Ack {
            number,
            node: "b".into(),
            sent: done - 1,
            done,
        })
    }

    fn owners(at: u64, macs: &[&str]) -> Line {
        Line::Owners {
            at,
            macs: macs.iter().map(|&mac| mac.to_owned()).collect(),
        }
    }

    fn seen(lines: impl IntoIterator<Item = Line>) -> Sights {
        let mut sights = Sights::default();
        for line in lines {
            assert_eq!(sights.take(line), None);
        }
        sights
    }

    #[test]
    fn lines_come_back_as_they_were() {
        let lines = [
            ack(7, 1234),
            owners(5, &["02:a", "02:b"]),
            owners(6, &[]),
            Line::Kept([1, 2, 30].into()),
            Line::Kept([].into()),
            Line::Unread("no route to host".into()),
        ];
        for line in lines {
            assert_eq!(Line::parse(&line.text()), Some(line));
        }
        for text in [
            "",
            "ack 1",
            "ack x b 1 2",
            "owners",
            "kept 1,x",
            "something",
        ] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_service_is_away_between_two_acknowledgements() {
        let sights = seen([
            ack(1, 1000),
            ack(2, 1100),
            ack(4, 3600),
            ack(3, 3500),
            ack(5, 9000),
        ]);
        let away = |from, to, since| sights.away(from, to, since).as_millis();
        assert_eq!(away(1200, 3000, 0), 2400);
        // It began before, and is counted there.
        assert_eq!(away(3000, 3550, 3000), 100);
        assert_eq!(away(1200, 4000, 0), 5400);
        assert_eq!(away(9500, 9900, 0), 0);
    }

    #[test]
    fn two_answers_to_one_question_are_two_owners() {
        let sights = seen([
            owners(100, &["a"]),
            owners(200, &["a", "b"]),
            owners(450, &["b"]),
            owners(900, &["a", "b"]),
        ]);
        let shared = |from, to| sights.two_owners(from, to).as_millis();
        assert_eq!(shared(0, 800), 250);
        assert_eq!(shared(300, 400), 100);
        assert_eq!(shared(500, 800), 0);
        assert_eq!(shared(500, 900), 1);
        assert_eq!(shared(500, 1000), 100);
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let sights = seen([ack(1, 10), ack(3, 30), ack(4, 40)]);
        assert_eq!(sights.lost(&[1].into(), 40), [3].into());
        // Not acknowledged, and there all the same.
        assert_eq!(sights.lost(&[1, 2, 3].into(), 40), [].into());
        assert_eq!(sights.lost(&[].into(), 41), [1, 3, 4].into());
        assert_eq!(sights.kept_by(30), [("b", 2)].into());
    }

    #[test]
    fn a_record_that_was_cut_short_is_none() {
        assert_eq!(
            records("\n1.\n\n12.\n\n3\n4.5\n\n\0\0.\n67."),
            [1, 12, 67].into()
        );
    }
}
