//! Who has an address: questions with all their answers, and announcements nobody asked for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::frame::{Arp, Mac};

/// How long a question waits for answers: the first to answer may not be the only one.
const ANSWERS_WINDOW: Duration = Duration::from_millis(400);
/// After so long nobody will answer; the asker asks again after a second.
const UNANSWERED_AFTER: Duration = Duration::from_millis(900);
/// The same frame on another interface comes within this time.
const SAME_FRAME_WITHIN: Duration = Duration::from_millis(20);
/// Addresses that are kept: more than a lab's networks have.
const ADDRESSES_MAX: usize = 4096;

/// Something ARP came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArpEvent {
    /// Asked and answered, by one station or more, in the order of their answers.
    Answered {
        at: Duration,
        address: Ipv4Addr,
        asked_by: Option<Mac>,
        answers: Vec<(Mac, u64)>,
    },
    /// Asked, and nobody has it.
    Unanswered {
        at: Duration,
        address: Ipv4Addr,
        asked_by: Mac,
        frame: u64,
    },
    /// Gratuitous ARP: a station says that the address is its own.
    Announced {
        at: Duration,
        address: Ipv4Addr,
        station: Mac,
        /// Who had it until now, where that was another.
        before: Option<Mac>,
        frame: u64,
    },
}

#[derive(Debug)]
struct Exchange {
    at: Duration,
    asked_by: Option<Mac>,
    frame: u64,
    answers: Vec<(Mac, u64)>,
}

/// All addresses asked for and answered for.
#[derive(Debug, Default)]
pub struct ArpTable {
    open: BTreeMap<Ipv4Addr, Exchange>,
    /// What was said last of an address: not said again while it stays so.
    said: BTreeMap<Ipv4Addr, Vec<Mac>>,
    owners: BTreeMap<Ipv4Addr, BTreeMap<Mac, u64>>,
    current: BTreeMap<Ipv4Addr, Mac>,
    announced: BTreeMap<(Ipv4Addr, Mac), Duration>,
}

impl ArpTable {
    /// Takes one packet; returns what is known at once, which is an announcement.
    pub fn take(&mut self, frame: u64, at: Duration, arp: &Arp) -> Option<ArpEvent> {
        if self.owners.len() + self.open.len() + self.announced.len() > ADDRESSES_MAX {
            return None;
        }
        if arp.is_gratuitous() {
            return self.announcement(frame, at, arp);
        }
        if arp.asks {
            let exchange = self.open.entry(arp.target_address).or_insert(Exchange {
                at,
                asked_by: Some(arp.sender),
                frame,
                answers: Vec::new(),
            });
            exchange.asked_by.get_or_insert(arp.sender);
            return None;
        }
        let exchange = self.open.entry(arp.sender_address).or_insert(Exchange {
            at,
            asked_by: None,
            frame,
            answers: Vec::new(),
        });
        if !exchange.answers.iter().any(|(mac, _)| *mac == arp.sender) {
            exchange.answers.push((arp.sender, frame));
        }
        self.owns(arp);
        None
    }

    fn owns(&mut self, arp: &Arp) {
        let owners = self.owners.entry(arp.sender_address).or_default();
        *owners.entry(arp.sender).or_default() += 1;
        self.current.insert(arp.sender_address, arp.sender);
    }

    fn announcement(&mut self, frame: u64, at: Duration, arp: &Arp) -> Option<ArpEvent> {
        let key = (arp.sender_address, arp.sender);
        let again = self.announced.insert(key, at);
        if again.is_some_and(|before| at.saturating_sub(before) < SAME_FRAME_WITHIN) {
            return None;
        }
        let before = self.current.get(&arp.sender_address).copied();
        self.owns(arp);
        let before = before.filter(|station| *station != arp.sender);
        // Announcements come in bursts; the first of a burst says it.
        let is_news = before.is_some() || again.is_none();
        is_news.then_some(ArpEvent::Announced {
            at,
            address: arp.sender_address,
            station: arp.sender,
            before,
            frame,
        })
    }

    /// Returns the exchanges that are over by now.
    pub fn due(&mut self, now: Duration) -> Vec<ArpEvent> {
        let over: Vec<Ipv4Addr> = self
            .open
            .iter()
            .filter(|(_, exchange)| {
                let window = if exchange.answers.is_empty() {
                    UNANSWERED_AFTER
                } else {
                    ANSWERS_WINDOW
                };
                now.saturating_sub(exchange.at) >= window
            })
            .map(|(address, _)| *address)
            .collect();
        over.into_iter()
            .filter_map(|address| self.close(address))
            .collect()
    }

    /// Returns what is still open at the end.
    pub fn finish(&mut self) -> Vec<ArpEvent> {
        self.due(Duration::MAX)
    }

    fn close(&mut self, address: Ipv4Addr) -> Option<ArpEvent> {
        let exchange = self.open.remove(&address)?;
        let mut stations: Vec<Mac> = exchange.answers.iter().map(|(mac, _)| *mac).collect();
        stations.sort_unstable();
        if self.said.get(&address) == Some(&stations) {
            return None;
        }
        self.said.insert(address, stations);
        match (exchange.asked_by, exchange.answers.is_empty()) {
            (Some(asked_by), true) => Some(ArpEvent::Unanswered {
                at: exchange.at,
                address,
                asked_by,
                frame: exchange.frame,
            }),
            (asked_by, _) => Some(ArpEvent::Answered {
                at: exchange.at,
                address,
                asked_by,
                answers: exchange.answers,
            }),
        }
    }

    /// Everybody who ever answered for an address or announced it, with how often.
    pub fn owners(&self) -> &BTreeMap<Ipv4Addr, BTreeMap<Mac, u64>> {
        &self.owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

    fn question() -> Arp {
        Arp {
            asks: true,
            sender: Mac([9; 6]),
            sender_address: CLIENT,
            target: Mac([0; 6]),
            target_address: VIP,
        }
    }

    fn answer(station: u8) -> Arp {
        Arp {
            asks: false,
            sender: Mac([station; 6]),
            sender_address: VIP,
            target: Mac([9; 6]),
            target_address: CLIENT,
        }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn all_answers_to_one_question_are_told_together_and_once() {
        let mut table = ArpTable::default();
        table.take(1, ms(0), &question());
        table.take(2, ms(1), &answer(1));
        table.take(3, ms(3), &answer(2));
        assert_eq!(table.due(ms(100)), []);
        let expected = ArpEvent::Answered {
            at: ms(0),
            address: VIP,
            asked_by: Some(Mac([9; 6])),
            answers: vec![(Mac([1; 6]), 2), (Mac([2; 6]), 3)],
        };
        assert_eq!(table.due(ms(500)), [expected]);
        table.take(4, ms(600), &question());
        table.take(5, ms(601), &answer(2));
        table.take(6, ms(602), &answer(1));
        assert_eq!(table.finish(), []);
        assert_eq!(table.owners()[&VIP].len(), 2);
    }

    #[test]
    fn a_question_without_an_answer_is_told() {
        let mut table = ArpTable::default();
        table.take(1, ms(0), &question());
        table.take(2, ms(500), &question());
        assert_eq!(table.due(ms(500)), []);
        assert!(matches!(
            table.due(ms(1000))[..],
            [ArpEvent::Unanswered { frame: 1, .. }]
        ));
    }

    #[test]
    fn an_announcement_says_who_had_the_address_before() {
        let mut table = ArpTable::default();
        table.take(1, ms(0), &answer(1));
        let mut announcement = answer(2);
        announcement.target_address = VIP;
        let expected = ArpEvent::Announced {
            at: ms(900),
            address: VIP,
            station: Mac([2; 6]),
            before: Some(Mac([1; 6])),
            frame: 2,
        };
        assert_eq!(table.take(2, ms(900), &announcement), Some(expected));
        // On another interface, and the rest of the burst.
        assert_eq!(table.take(3, ms(901), &announcement), None);
        assert_eq!(table.take(4, ms(1400), &announcement), None);
    }
}
