//! `failover_watch`: what was seen on the wire while one node lost its service and the other took
//! it, as a timeline.
//!
//! It looks from outside, as a client would, so that it says the same of any heartbeat: packets on
//! the lab's network, requests for the page, and the survivor's journal for what happens inside.
//! All times are the watcher's; the survivor's clock is compared with it first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use super::arp::Station;
use super::outcome::{Outcome, Refusal};
use super::rtnetlink::station;
use crate::heartbeat::codec;

/// Most that is kept of one watch; two nodes at four heartbeats a second fill an hour.
pub const SIGHTS_MAX: usize = 50_000;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The service's address, which moves.
    pub address: Ipv4Addr,
    /// Each node's own address.
    pub nodes: BTreeMap<String, Ipv4Addr>,
    /// heartbeat's UDP port.
    pub port: u16,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A message of a node, with its type, its `st` or `rsc_hold`, and its `info`.
    Message {
        from: String,
        kind: String,
        state: String,
        info: String,
    },
    /// ARP says unasked at which station the service's address is.
    Announced(Station),
    /// The page was answered by another than before.
    AnsweredBy(String),
    /// The page is not answered any more.
    NoAnswer,
}

/// When something was seen, from the watch's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub at: Duration,
    pub sight: Sight,
}

/// Reads an Ethernet frame; with what it says comes the station it came from.
pub fn frame(frame: &[u8], subject: &Subject) -> Option<(Sight, Station)> {
    let from: Station = frame.get(6..12)?.try_into().ok()?;
    match frame.get(12..14)? {
        [0x08, 0x06] => announcement(frame, subject).map(|sight| (sight, from)),
        [0x08, 0x00] => message(frame.get(14..)?, subject).map(|sight| (sight, from)),
        _ => None,
    }
}

/// ARP about the address by whoever has it: sender and target are the address itself.
fn announcement(frame: &[u8], subject: &Subject) -> Option<Sight> {
    let arp = frame.get(14..42)?;
    let own = subject.address.octets();
    let is_unasked = arp[14..18] == own && arp[24..28] == own;
    is_unasked.then(|| Sight::Announced(arp[8..14].try_into().expect("six bytes")))
}

fn message(packet: &[u8], subject: &Subject) -> Option<Sight> {
    const UDP: u8 = 17;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let is_fragment = packet.get(6)? & 0x3f != 0 || *packet.get(7)? != 0;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let udp = packet.get(header..total)?;
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    if *packet.get(9)? != UDP || port != subject.port || is_fragment {
        return None;
    }
    let message = codec::peek(udp.get(8..)?)?;
    let field = |name: &str| message.get(name).unwrap_or_default().to_owned();
    let state = match message.get("st") {
        Some(state) => state.to_owned(),
        None => field("rsc_hold"),
    };
    Some(Sight::Message {
        from: field("src"),
        kind: message.kind().to_owned(),
        state,
        info: field("info"),
    })
}

/// A line of the survivor's journal, at the watcher's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalLine {
    /// From the watch's beginning; before it is negative and left out.
    pub at: Duration,
    pub text: String,
}

/// Reads `journalctl -o short-unix`. `clock_ahead` is by how much the journal's clock is before
/// the watcher's, `began` when the watch began by the watcher's.
pub fn journal(text: &str, began: f64, clock_ahead: f64) -> Vec<JournalLine> {
    let line = |line: &str| {
        let (stamp, text) = line.split_once(' ')?;
        let at = stamp.parse::<f64>().ok()? - clock_ahead - began;
        Some(JournalLine {
            at: Duration::try_from_secs_f64(at).ok()?,
            text: text.to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// What is asked of a timeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    pub lost: String,
    pub survivor: String,
    /// Seconds that the timers alone take, and which timers.
    pub floor: Option<(f64, String)>,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub at: Duration,
    pub what: String,
}

/// The times that matter, from the last sign of life (or the first of leaving).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    pub rows: Vec<(f64, String)>,
    pub dead_seconds: Option<f64>,
    pub announced_seconds: Option<f64>,
    pub answer_seconds: Option<f64>,
    /// Without an answer, as a client saw it.
    pub outage_seconds: Option<f64>,
}

/// Puts the sights of one failover in order.
pub fn timeline(
    seen: &[Seen],
    stations: &BTreeMap<String, Station>,
    journal: &[JournalLine],
    question: &Question,
) -> Result<Timeline, Refusal> {
    let Question { lost, survivor, .. } = question;
    let answer = seen
        .iter()
        .filter(|seen| seen.sight == Sight::AnsweredBy(survivor.clone()))
        .map(|seen| seen.at)
        .next_back()
        .ok_or_else(|| {
            Refusal::new(format!("{survivor} has not answered since the watch began"))
        })?;
    let zero = beginning(seen, lost, answer).ok_or_else(|| {
        Refusal::new(format!(
            "no heartbeat of {lost} was seen before {survivor} answered"
        ))
    })?;
    let mut rows = vec![zero.clone()];
    rows.extend(wire_rows(seen, lost, zero.at, answer));
    rows.extend(journal_rows(journal, lost, survivor, zero.at, answer));
    let announced = seen.iter().find(|seen| {
        matches!(&seen.sight, Sight::Announced(at) if stations.get(survivor) == Some(at))
            && seen.at >= zero.at
    });
    if let Some(Seen {
        at,
        sight: Sight::Announced(at_station),
    }) = announced
    {
        rows.push(Row {
            at: *at,
            what: format!(
                "ARP: the address is at {} ({survivor})",
                station(at_station)
            ),
        });
    }
    rows.push(Row {
        at: answer,
        what: format!("first answer of {survivor}"),
    });
    rows.sort_by_key(|row| row.at);
    let since = |at: Duration| at.as_secs_f64() - zero.at.as_secs_f64();
    let dead = rows.iter().find(|row| row.what.contains("is dead"));
    let last_answer = last_answer(seen, lost, answer);
    Ok(Timeline {
        dead_seconds: dead.map(|row| since(row.at)),
        announced_seconds: announced.map(|seen| since(seen.at)),
        answer_seconds: Some(since(answer)),
        outage_seconds: last_answer.map(|last| answer.as_secs_f64() - last.as_secs_f64()),
        rows: rows
            .into_iter()
            .map(|row| (since(row.at), row.what))
            .collect(),
    })
}

/// The moment everything is counted from: the first word of leaving, else the last sign of life.
fn beginning(seen: &[Seen], lost: &str, answer: Duration) -> Option<Row> {
    let before = || seen.iter().filter(|seen| seen.at <= answer);
    let leaves = before().find(|seen| {
        matches!(&seen.sight, Sight::Message { from, kind, info, .. }
            if from == lost && (kind == "shutdone" || info == "shutdown" || info == "me"))
    });
    if let Some(leaves) = leaves {
        return Some(Row {
            at: leaves.at,
            what: format!("{lost} says that it gives its resources up"),
        });
    }
    let last = before().rfind(|seen| {
        matches!(&seen.sight, Sight::Message { from, kind, .. } if from == lost && kind == "status")
    })?;
    Some(Row {
        at: last.at,
        what: format!("last heartbeat of {lost}"),
    })
}

fn wire_rows(seen: &[Seen], lost: &str, zero: Duration, answer: Duration) -> Vec<Row> {
    let mut rows = Vec::new();
    let within = seen
        .iter()
        .filter(|seen| seen.at > zero && seen.at <= answer);
    for Seen { at, sight } in within {
        let what = match sight {
            Sight::Message { from, kind, .. } if from == lost && kind == "shutdone" => {
                format!("{lost} has given everything up")
            }
            _ => continue,
        };
        rows.push(Row { at: *at, what });
    }
    // A busy server may miss a request or two before it is really gone.
    let end = last_answer(seen, lost, answer).filter(|end| *end > zero);
    rows.extend(end.map(|at| Row {
        at,
        what: "the page is not answered any more".to_owned(),
    }));
    rows
}

/// What the survivor's journal says: that the other is dead, and every resource it starts.
fn journal_rows(
    journal: &[JournalLine],
    lost: &str,
    survivor: &str,
    zero: Duration,
    answer: Duration,
) -> Vec<Row> {
    let dead = format!("node {lost}: is dead");
    let mut rows: Vec<Row> = Vec::new();
    // A little later than the answer: the page may be served before the last resource is started.
    let end = answer + Duration::from_secs(5);
    for line in journal
        .iter()
        .filter(|line| line.at >= zero && line.at <= end)
    {
        let what = if line.text.contains(&dead) {
            format!("{survivor}: {lost} is dead")
        } else if let Some(resource) = started(&line.text) {
            format!("{survivor}: starts {resource}")
        } else {
            continue;
        };
        // Journals may hold a line twice, from standard error and from syslog.
        if rows.iter().all(|row| row.what != what) {
            rows.push(Row { at: line.at, what });
        }
    }
    rows
}

/// Reads `Running /etc/ha.d//resource.d/IPaddr 10.0.0.50 start`.
fn started(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("info: Running ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (script, arguments) = words.strip_suffix(&["start"])?.split_first()?;
    let mut name = script.rsplit('/').next()?.to_owned();
    for argument in arguments {
        let _ = write!(name, " {argument}");
    }
    Some(name)
}

/// When the lost node's page went, for good.
fn last_answer(seen: &[Seen], lost: &str, answer: Duration) -> Option<Duration> {
    let mut last = None;
    for Seen { at, sight } in seen.iter().filter(|seen| seen.at <= answer) {
        match sight {
            Sight::NoAnswer => last = last.or(Some(*at)),
            Sight::AnsweredBy(who) if who == lost => last = None,
            _ => {}
        }
    }
    last
}

/// Returns the result: the timeline in words and its numbers.
pub fn outcome(timeline: &Timeline, question: &Question, unsure: Option<&str>) -> Outcome {
    let mut lines: Vec<String> = timeline
        .rows
        .iter()
        .map(|(at, what)| format!("{at:>8.3} s  {what}"))
        .collect();
    let answer = timeline.answer_seconds.unwrap_or_default();
    if let Some((floor, timers)) = &question.floor {
        lines.push(format!(
            "{answer:.3} s in all; the floor that {timers} set is {floor:.3} s, so {:.3} s are the takeover's own",
            (answer - floor).max(0.0)
        ));
    }
    if let Some(why) = unsure {
        lines.push(why.to_owned());
    }
    Outcome::changed(false)
        .with("timeline", lines)
        .with("dead_seconds", seconds(timeline.dead_seconds))
        .with("announced_seconds", seconds(timeline.announced_seconds))
        .with("answer_seconds", seconds(timeline.answer_seconds))
        .with("outage_seconds", seconds(timeline.outage_seconds))
}

fn seconds(value: Option<f64>) -> Value {
    // Milliseconds are what the clocks are compared to.
    value.map_or(Value::Null, |value| {
        json!((value * 1000.0).round() / 1000.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, sight: Sight) -> Seen {
        Seen {
            at: Duration::from_millis(millis),
            sight,
        }
    }

    fn message(from: &str, kind: &str, info: &str) -> Sight {
        Sight::Message {
            from: from.into(),
            kind: kind.into(),
            state: String::new(),
            info: info.into(),
        }
    }

    const STATION: Station = [0x52, 0x54, 0, 0, 3, 0];

    fn asked(floor: f64) -> Question {
        Question {
            lost: "vm-2".into(),
            survivor: "vm-3".into(),
            floor: Some((floor, "deadtime".into())),
        }
    }

    #[test]
    fn a_death_is_told_from_the_last_heartbeat_on() {
        let seen = [
            at(0, Sight::AnsweredBy("vm-2".into())),
            at(100, message("vm-2", "status", "")),
            at(350, message("vm-2", "status", "")),
            at(360, message("vm-3", "status", "")),
            at(500, Sight::NoAnswer),
            at(1400, Sight::Announced(STATION)),
            at(1420, Sight::AnsweredBy("vm-3".into())),
        ];
        let text = "1000.9 vm-3 heartbeat[1]: [1]: WARN: node vm-2: is dead\n\
                    1001.360 vm-3 heartbeat[1]: [1]: WARN: node vm-2: is dead\n\
                    1001.380 vm-3 ResourceManager[2]: info: Running /etc/ha.d//resource.d/IPaddr 10.0.0.50 start\n";
        // The survivor's clock is 10 ms ahead; the first line is a second before the watch.
        let journal = journal(text, 1001.0 - 1.0, 0.010);
        assert_eq!(journal[1].at, Duration::from_millis(1350));
        let stations = BTreeMap::from([("vm-3".to_owned(), STATION)]);
        let timeline = timeline(&seen, &stations, &journal[1..], &asked(1.0)).expect("a timeline");
        assert_eq!(timeline.dead_seconds, Some(1.0));
        let shown = outcome(&timeline, &asked(1.0), None).into_result(false);
        assert_eq!(
            shown["timeline"],
            json!([
                "   0.000 s  last heartbeat of vm-2",
                "   0.150 s  the page is not answered any more",
                "   1.000 s  vm-3: vm-2 is dead",
                "   1.020 s  vm-3: starts IPaddr 10.0.0.50",
                "   1.050 s  ARP: the address is at 52:54:00:00:03:00 (vm-3)",
                "   1.070 s  first answer of vm-3",
                "1.070 s in all; the floor that deadtime set is 1.000 s, so 0.070 s are the takeover's own",
            ])
        );
        assert_eq!(shown["outage_seconds"], json!(0.92));
    }

    #[test]
    fn a_goodbye_is_told_from_its_first_word_on() {
        let seen = [
            at(0, Sight::AnsweredBy("vm-2".into())),
            at(100, message("vm-2", "resource", "shutdown")),
            at(150, message("vm-2", "shutdone", "")),
            at(180, message("vm-2", "status", "")),
            at(200, Sight::AnsweredBy("vm-3".into())),
        ];
        let timeline = timeline(&seen, &BTreeMap::new(), &[], &asked(0.0)).expect("a timeline");
        assert_eq!(
            timeline.rows[0].1,
            "vm-2 says that it gives its resources up"
        );
        assert!((timeline.answer_seconds.expect("an answer") - 0.1).abs() < 1e-9);
    }

    #[test]
    fn without_an_answer_there_is_no_timeline() {
        let seen = [at(0, message("vm-2", "status", ""))];
        let refused = timeline(&seen, &BTreeMap::new(), &[], &asked(0.0)).expect_err("refused");
        assert!(refused.msg.contains("vm-3 has not answered"), "{refused}");
    }

    #[test]
    fn frames_are_read_for_what_concerns_the_service() {
        let subject = Subject {
            address: Ipv4Addr::new(10, 0, 0, 50),
            nodes: BTreeMap::new(),
            port: 694,
        };
        let arp = super::super::arp::question(STATION, subject.address, subject.address);
        assert_eq!(
            frame(&arp, &subject),
            Some((Sight::Announced(STATION), STATION))
        );
        let other =
            super::super::arp::question(STATION, Ipv4Addr::new(10, 0, 0, 20), subject.address);
        assert_eq!(frame(&other, &subject), None);
        let body = b"###\n11:(0)t=status,11:(0)src=vm-2,12:(0)st=active,%%%\n4:1 ab,";
        let mut packet = vec![0; 12];
        packet.extend([0x08, 0x00]);
        let length = u16::try_from(28 + body.len()).expect("short");
        packet.extend([0x45, 0]);
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 20, 10, 0, 0, 30]);
        packet.extend([0x80, 0, 0x02, 0xb6, 0, 0, 0, 0]);
        packet.extend(body);
        // Ethernet pads short frames; the datagram ends where its header says.
        packet.extend([0; 4]);
        let (sight, _) = frame(&packet, &subject).expect("a message");
        assert!(
            matches!(sight, Sight::Message { kind, state, .. } if kind == "status" && state == "active")
        );
        for length in 0..packet.len() - 4 {
            let _ = frame(&packet[..length], &subject);
        }
    }
}
