//! `arp_check`: who has an address? The question, the answers, the verdict.
//!
//! | bytes | Ethernet frame with ARP inside |
//! |---|---|
//! | 6, 6, 2 | receiver, sender, 0x0806 |
//! | 2, 2 | hardware 1 (Ethernet), protocol 0x0800 (IPv4) |
//! | 1, 1, 2 | lengths 6 and 4; 1 asks, 2 answers |
//! | 6, 4 | sender: station, address |
//! | 6, 4 | target: station, address |

use std::net::Ipv4Addr;

use super::args::Args;
use super::outcome::{Outcome, Refusal};

/// A hardware address.
pub type Station = [u8; 6];

const BROADCAST: Station = [0xff; 6];
const FRAME_BYTES: usize = 42;
const ARP_ETHERNET_IPV4: [u8; 8] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];
const ASKS: [u8; 2] = [0, 1];
const ANSWERS: [u8; 2] = [0, 2];

/// Returns the frame that asks everybody who has `target`.
pub fn question(own: Station, own_ip: Ipv4Addr, target: Ipv4Addr) -> [u8; FRAME_BYTES] {
    let parts: [&[u8]; 8] = [
        &BROADCAST,
        &own,
        &ARP_ETHERNET_IPV4,
        &ASKS,
        &own,
        &own_ip.octets(),
        &[0; 6],
        &target.octets(),
    ];
    let mut frame = [0; FRAME_BYTES];
    frame.copy_from_slice(&parts.concat());
    frame
}

/// Returns who answers that it has `target`; `None` for any other frame.
pub fn answer(frame: &[u8], target: Ipv4Addr) -> Option<Station> {
    let frame = frame.get(..FRAME_BYTES)?;
    let is_answer = frame[12..20] == ARP_ETHERNET_IPV4 && frame[20..22] == ANSWERS;
    let is_meant = frame[28..32] == target.octets();
    (is_answer && is_meant).then(|| frame[22..28].try_into().expect("six of the frame's bytes"))
}

/// Reads `52:54:00:12:34:56`.
pub fn parse_station(text: &str) -> Option<Station> {
    let mut station = [0; 6];
    let mut parts = text.trim().split([':', '-']);
    for octet in &mut station {
        *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(station)
}

/// Holds the answers against what was expected.
pub fn verdict(args: Args<'_>, answers: &[String]) -> Result<Outcome, Refusal> {
    let address = args.word("address");
    let seen = if answers.is_empty() {
        "nobody".to_owned()
    } else {
        answers.join(" and ")
    };
    let problem = match (args.text("expect"), args.number("answers")) {
        (Some(text), _) => {
            let expected = parse_station(text).ok_or_else(|| {
                Refusal::new(format!(
                    "`expect` must be a hardware address, found `{text}`"
                ))
            })?;
            let is_it = |answer: &String| parse_station(answer) == Some(expected);
            let fits = answers.len() == 1 && answers.iter().all(is_it);
            (!fits).then(|| format!("expected {text} alone to answer for {address}, found {seen}"))
        }
        (None, Some(count)) => {
            let fits = i64::try_from(answers.len()) == Ok(count);
            (!fits)
                .then(|| format!("expected {count} stations to answer for {address}, found {seen}"))
        }
        (None, None) => (answers.len() != 1)
            .then(|| format!("expected one station to answer for {address}, found {seen}")),
    };
    Ok(Outcome::changed(false)
        .failed_if(problem.is_some())
        .msg(problem.unwrap_or_else(|| format!("{address} is answered for by {seen}")))
        .with("address", address)
        .with("answers", answers.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::rtnetlink::station;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const OWN: Station = [2, 0, 0, 0, 0, 1];
    const TARGET: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn reply(from: Station) -> [u8; FRAME_BYTES] {
        let mut frame = question(from, TARGET, Ipv4Addr::new(10, 0, 0, 254));
        frame[20..22].copy_from_slice(&ANSWERS);
        frame
    }

    fn judged(args: &Value, answers: &[&str]) -> bool {
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let args = Args(args.as_object().expect("a mapping"));
        !verdict(args, &answers).expect("a verdict").failed
    }

    #[test]
    fn only_answers_for_the_address_count() {
        assert_eq!(answer(&reply(OWN), TARGET), Some(OWN));
        assert_eq!(answer(&reply(OWN), Ipv4Addr::new(10, 0, 0, 2)), None);
        assert_eq!(answer(&question(OWN, TARGET, TARGET), TARGET), None);
        assert_eq!(parse_station(&station(&OWN)), Some(OWN));
    }

    #[test]
    fn one_station_alone_may_answer_unless_told_otherwise() {
        let plain = json!({"address": "10.0.0.1"});
        assert!(judged(&plain, &["02:00:00:00:00:01"]));
        assert!(!judged(&plain, &[]));
        assert!(!judged(&plain, &["02:00:00:00:00:01", "02:00:00:00:00:02"]));
        let expected = json!({"address": "10.0.0.1", "expect": "02-00-00-00-00-01"});
        assert!(judged(&expected, &["02:00:00:00:00:01"]));
        assert!(!judged(&expected, &["02:00:00:00:00:02"]));
        assert!(judged(&json!({"address": "10.0.0.1", "answers": 0}), &[]));
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..80), text in ".*") {
            let _ = answer(&frame, TARGET);
            let _ = parse_station(&text);
        }
    }
}
