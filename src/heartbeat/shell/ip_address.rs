//! The resource `IPaddr`: an address on this host, and telling the neighbours so.
//!
//! What the argument leaves out comes from the address of the same network that the host
//! has already: interface, prefix, broadcast; the label is the first free `eth0:N`. After
//! the address is up, gratuitous ARP requests and replies are sent for five seconds, as
//! neighbours may listen to one kind only; not one is sent after the address was given up, for
//! neighbours would take it for news and leave the node that has it now.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::agent::error::ModuleError;
use crate::agent::netlink::RouteSocket;
use crate::agent::packet::ArpSocket;
use crate::heartbeat::config::Address as Wanted;
use crate::task::arp::{Station, parse_station, question};
use crate::task::link::{Address, Link, Network, Scope};
use crate::task::rtnetlink::Request;

/// Rounds of announcements, as heartbeat's `ARP_REPEAT`.
const ANNOUNCEMENTS: u32 = 10;

/// A round's request and its reply are so far apart, and so are the rounds.
const ANNOUNCEMENT_HALF: Duration = Duration::from_millis(250);

/// The announcements under way: for each address the number of the one that counts.
static ANNOUNCED: Mutex<Announced> = Mutex::new(Announced {
    last: 0,
    current: BTreeMap::new(),
});

#[derive(Debug)]
struct Announced {
    last: u64,
    current: BTreeMap<Ipv4Addr, u64>,
}

impl Announced {
    fn get() -> MutexGuard<'static, Self> {
        ANNOUNCED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of an earlier announcement of the address.
    fn begin(&mut self, ip: Ipv4Addr) -> u64 {
        self.last += 1;
        self.current.insert(ip, self.last);
        self.last
    }

    fn is_current(&self, ip: Ipv4Addr, number: u64) -> bool {
        self.current.get(&ip) == Some(&number)
    }

    fn end(&mut self, ip: Ipv4Addr) {
        self.current.remove(&ip);
    }
}

/// Whether the address is on this host. On the loopback it serves a load balancer and
/// does not count.
pub(super) fn is_up(wanted: &Wanted) -> Result<bool, ModuleError> {
    let mut socket = RouteSocket::open()?;
    Ok(find(&mut socket, wanted)?.is_some())
}

/// Brings the address up and announces it; twice is as once.
pub(super) fn start(wanted: &Wanted) -> Result<(), ModuleError> {
    let mut socket = RouteSocket::open()?;
    let links = socket.links()?;
    let addresses = socket.addresses()?;
    let address = complete(wanted, &links, &addresses)?;
    let link = links
        .into_iter()
        .find(|link| link.index == address.link)
        .expect("an address is completed with a link of the list");
    if find(&mut socket, wanted)?.is_none() {
        let attempt = format!("add the address {wanted} to {}", link.name);
        socket.change(&Request::AddAddress(address), &attempt)?;
    }
    announce(&link, wanted.ip);
    Ok(())
}

/// Takes the address away; twice is as once.
pub(super) fn stop(wanted: &Wanted) -> Result<(), ModuleError> {
    Announced::get().end(wanted.ip);
    let mut socket = RouteSocket::open()?;
    while let Some(address) = find(&mut socket, wanted)? {
        let attempt = format!("remove the address {wanted}");
        socket.change(&Request::RemoveAddress(address), &attempt)?;
    }
    Ok(())
}

fn find(socket: &mut RouteSocket, wanted: &Wanted) -> Result<Option<Address>, ModuleError> {
    let addresses = socket.addresses()?;
    Ok(addresses.into_iter().find(|address| {
        address.network.ip == IpAddr::V4(wanted.ip) && address.scope != Scope::HOST
    }))
}

/// Fills in what the resource leaves out.
fn complete(wanted: &Wanted, links: &[Link], known: &[Address]) -> Result<Address, ModuleError> {
    let named = wanted
        .interface
        .as_ref()
        .map(|name| {
            links
                .iter()
                .find(|link| link.name == *name)
                .ok_or_else(|| failed(format!("there is no interface {name}")))
        })
        .transpose()?;
    let neighbour = known
        .iter()
        .filter(|address| named.is_none_or(|link| link.index == address.link))
        .find(|address| holds(address.network, wanted.ip) && address.scope == Scope::GLOBAL);
    let index = named
        .map(|link| link.index)
        .or_else(|| neighbour.map(|neighbour| neighbour.link))
        .ok_or_else(|| {
            failed(format!(
                "no interface has an address in the network of {}: name one, as in {}/24/eth0",
                wanted.ip, wanted.ip
            ))
        })?;
    let prefix = wanted
        .prefix_length
        .or_else(|| neighbour.map(|neighbour| neighbour.network.prefix))
        .unwrap_or(32);
    let link = links.iter().find(|link| link.index == index);
    Ok(Address {
        link: index,
        network: Network {
            ip: wanted.ip.into(),
            prefix,
        },
        label: link.map(|link| label(wanted, &link.name, known)),
        broadcast: wanted.broadcast.or_else(|| broadcast(wanted.ip, prefix)),
        scope: Scope::GLOBAL,
    })
}

fn failed(what: String) -> ModuleError {
    ModuleError::system("find a place for the address")(io::Error::other(what))
}

fn holds(network: Network, ip: Ipv4Addr) -> bool {
    let IpAddr::V4(own) = network.ip else {
        return false;
    };
    network.prefix < 32 && mask(own, network.prefix) == mask(ip, network.prefix)
}

fn mask(ip: Ipv4Addr, prefix: u8) -> u32 {
    u32::from(ip) & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn broadcast(ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (prefix < 31).then(|| Ipv4Addr::from(u32::from(ip) | hosts))
}

/// Returns the wanted label, or the first free one: `eth0:0`.
fn label(wanted: &Wanted, interface: &str, known: &[Address]) -> String {
    let taken = |label: &String| {
        known
            .iter()
            .any(|address| address.label.as_ref() == Some(label))
    };
    if let Some(own) = &wanted.label {
        return format!("{interface}:{own}");
    }
    (0..=known.len())
        .map(|number| format!("{interface}:{number}"))
        .find(|label| !taken(label))
        .expect("addresses are fewer than numbers")
}

/// Tells the neighbours in the background, the first time at once.
fn announce(link: &Link, ip: Ipv4Addr) {
    let (Ok(socket), Some(own)) = (ArpSocket::open(&link.name), parse_station(&link.station))
    else {
        // The loopback and tunnels have no neighbours to tell.
        return;
    };
    let frames = [question(own, ip, ip), reply(own, ip)];
    let number = Announced::get().begin(ip);
    // Sent while nobody can give the address up: what is sent, is true.
    let send = move |frame: &[u8]| {
        let announced = Announced::get();
        let is_true = announced.is_current(ip, number);
        if is_true {
            // An interface that goes down meanwhile ends nothing but the announcement.
            let _ = socket.send(frame);
        }
        is_true
    };
    send(&frames[0]);
    thread::spawn(move || {
        send(&frames[1]);
        for _ in 1..ANNOUNCEMENTS {
            for frame in &frames {
                thread::sleep(ANNOUNCEMENT_HALF);
                if !send(frame) {
                    return;
                }
            }
        }
    });
}

/// Returns a reply that nobody asked for: the address is at this station.
fn reply(own: Station, ip: Ipv4Addr) -> [u8; 42] {
    // A question and its answer differ in the operation and in the target's station.
    const OPERATION_LOW_BYTE: usize = 21;
    const TARGET_STATION: std::ops::Range<usize> = 32..38;
    let mut frame = question(own, ip, ip);
    frame[OPERATION_LOW_BYTE] = 2;
    frame[TARGET_STATION].copy_from_slice(&own);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0() -> Link {
        Link {
            index: 2,
            name: "eth0".into(),
            station: "52:54:00:00:00:02".into(),
            ..Link::default()
        }
    }

    fn own(text: &str, label: &str) -> Address {
        Address {
            link: 2,
            network: Network::parse(text).expect("a network"),
            label: Some(label.into()),
            broadcast: None,
            scope: Scope::GLOBAL,
        }
    }

    fn completed(text: &str, known: &[Address]) -> Result<Address, ModuleError> {
        complete(&Wanted::parse(text).expect("an address"), &[eth0()], known)
    }

    #[test]
    fn the_labs_address_goes_beside_the_hosts_own() {
        let address = completed("10.0.0.50", &[own("10.0.0.20/24", "eth0")]).expect("a place");
        assert_eq!(
            address.network,
            Network::parse("10.0.0.50/24").expect("a network")
        );
        assert_eq!(address.label.as_deref(), Some("eth0:0"));
        assert_eq!(address.broadcast, Some(Ipv4Addr::new(10, 0, 0, 255)));
    }

    #[test]
    fn a_label_that_is_taken_is_passed_over() {
        let known = [own("10.0.0.20/24", "eth0"), own("10.0.0.60/24", "eth0:0")];
        let address = completed("10.0.0.50", &known).expect("a place");
        assert_eq!(address.label.as_deref(), Some("eth0:1"));
    }

    #[test]
    fn an_address_of_no_network_needs_an_interface() {
        let error = completed("10.9.9.9", &[own("10.0.0.20/24", "eth0")]).expect_err("no place");
        assert!(
            crate::base::chain::Chain(&error)
                .to_string()
                .contains("name one")
        );
        let address = completed("10.9.9.9/28/eth0:5", &[]).expect("a place");
        assert_eq!((address.link, address.network.prefix), (2, 28));
        assert_eq!(address.label.as_deref(), Some("eth0:5"));
    }

    #[test]
    fn an_announcement_ends_with_its_address_or_with_a_newer_one() {
        let ip = Ipv4Addr::new(10, 0, 0, 50);
        let other = Ipv4Addr::new(10, 0, 0, 60);
        let mut announced = Announced {
            last: 0,
            current: BTreeMap::new(),
        };
        let (first, its) = (announced.begin(ip), announced.begin(other));
        assert!(announced.is_current(ip, first));
        let second = announced.begin(ip);
        assert!(!announced.is_current(ip, first) && announced.is_current(ip, second));
        announced.end(ip);
        assert!(!announced.is_current(ip, second));
        assert!(announced.is_current(other, its));
    }

    #[test]
    fn a_reply_names_the_own_station_twice() {
        let own = parse_station("52:54:00:00:00:02").expect("a station");
        let frame = reply(own, Ipv4Addr::new(10, 0, 0, 50));
        assert_eq!(frame[20..22], [0, 2]);
        assert_eq!(frame[22..28], own);
        assert_eq!(frame[32..38], own);
        assert_eq!(frame[28..32], frame[38..42]);
    }
}
