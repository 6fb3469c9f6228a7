//! `arp_check`: asks who has an address and collects everybody who answers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::super::error::ModuleError;
use super::super::netlink::RouteSocket;
use super::super::packet::ArpSocket;
use super::super::work::Work;
use super::network::unknown_interface;
use crate::task::arp::{answer, parse_station, question, verdict};
use crate::task::outcome::{Outcome, Refusal};
use crate::task::rtnetlink::station;

/// Most questions of one check.
const COUNT_MAX: u64 = 100;

pub(super) fn arp_check(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let address = args.word("address");
    let target: Ipv4Addr = address
        .parse()
        .map_err(|_| Refusal::new(format!("`{address}` is not an IPv4 address")))?;
    let wait = Duration::from_secs_f64(args.seconds("timeout").unwrap_or(1.0));
    let count = args.amount("count").clamp(1, COUNT_MAX);
    let answers = ask(work, args.word("interface"), target, count, wait)?;
    Ok(verdict(args, &answers)?)
}

/// Asks so many times on an interface; returns everybody who answered, in that order.
pub(super) fn ask(
    work: &Work,
    interface: &str,
    target: Ipv4Addr,
    count: u64,
    wait: Duration,
) -> Result<Vec<String>, ModuleError> {
    let mut routes = RouteSocket::open()?;
    let links = routes.links()?;
    let Some(link) = links.into_iter().find(|link| link.name == interface) else {
        return Err(unknown_interface(&mut routes, interface)?);
    };
    let own = parse_station(&link.station)
        .ok_or_else(|| Refusal::new(format!("{interface} has no hardware address to ask from")))?;
    let own_ip = routes
        .addresses()?
        .into_iter()
        .find_map(|address| match address.network.ip {
            IpAddr::V4(ip) if address.link == link.index => Some(ip),
            _ => None,
        });
    let failed = || ModuleError::system(format!("ask for {target} on {interface}"));
    let socket = ArpSocket::open(interface).map_err(failed())?;
    // An interface without an address asks as a prober does.
    let question = question(own, own_ip.unwrap_or(Ipv4Addr::UNSPECIFIED), target);
    let mut answers: Vec<String> = Vec::new();
    let mut buffer = [0; 2048];
    for _ in 0..count {
        work.lifeline.check()?;
        socket.send(&question).map_err(failed())?;
        let deadline = Instant::now() + wait;
        // Everybody has the whole time: the first to answer may not be the only one.
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let frame = socket.receive(&mut buffer, left).map_err(failed())?;
            let Some(from) = frame.and_then(|frame| answer(frame, target)) else {
                continue;
            };
            let from = station(&from);
            if !answers.contains(&from) {
                answers.push(from);
            }
        }
    }
    Ok(answers)
}
