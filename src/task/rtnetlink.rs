//! rtnetlink messages about interfaces and addresses: values ↔ bytes.
//!
//! | bytes | field of every message |
//! |---|---|
//! | 4 | length, header included |
//! | 2 | type |
//! | 2 | flags |
//! | 4 | sequence number |
//! | 4 | port, zero from us |
//! | n | a fixed part by type, then attributes (2 length, 2 type, value, padding to 4) |
//!
//! All numbers are in the host's byte order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::{Address, Link, Network, Scope, Tunnel};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_IPTUN_LOCAL: u16 = 2;
const IFLA_IPTUN_REMOTE: u16 = 3;
const IFLA_IPTUN_TTL: u16 = 4;
const IFLA_IPTUN_PMTUDISC: u16 = 10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const HEADER_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;

/// One question or change. All but the two dumps are acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Links,
    Addresses,
    AddLink {
        name: String,
        kind: String,
        tunnel: Option<Tunnel>,
    },
    RemoveLink(u32),
    SetMtu(u32, u32),
    AnswerArp(u32, bool),
    BringUp(u32, bool),
    AddAddress(Address),
    RemoveAddress(Address),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Link(Link),
    Address(Address),
    /// A dump's end.
    Done,
    /// Zero acknowledges; else the error number.
    Verdict(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a netlink message that ends at byte {at} of {length}")]
pub struct CutShort {
    at: usize,
    length: usize,
}

/// Returns the bytes of a request.
pub fn encode(request: &Request, sequence: u32) -> Vec<u8> {
    let (kind, flags, body) = match request {
        Request::Links => (RTM_GETLINK, DUMP, link_part(0, 0, 0)),
        Request::Addresses => (RTM_GETADDR, DUMP, vec![0; ADDRESS_BYTES]),
        Request::AddLink { name, kind, tunnel } => {
            let mut body = link_part(0, 0, 0);
            put(&mut body, IFLA_IFNAME, &c_text(name));
            put(&mut body, IFLA_LINKINFO, &link_info(kind, *tunnel));
            (RTM_NEWLINK, ACKNOWLEDGE | CREATE | EXCLUSIVE, body)
        }
        Request::RemoveLink(index) => (RTM_DELLINK, ACKNOWLEDGE, link_part(*index, 0, 0)),
        Request::SetMtu(index, mtu) => {
            let mut body = link_part(*index, 0, 0);
            put(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
            (RTM_NEWLINK, ACKNOWLEDGE, body)
        }
        Request::AnswerArp(index, answers) => {
            let flags = if *answers { 0 } else { IFF_NOARP };
            (
                RTM_NEWLINK,
                ACKNOWLEDGE,
                link_part(*index, flags, IFF_NOARP),
            )
        }
        Request::BringUp(index, is_up) => {
            let flags = if *is_up { IFF_UP } else { 0 };
            (RTM_NEWLINK, ACKNOWLEDGE, link_part(*index, flags, IFF_UP))
        }
        Request::AddAddress(address) => (
            RTM_NEWADDR,
            ACKNOWLEDGE | CREATE | EXCLUSIVE,
            address_part(address),
        ),
        Request::RemoveAddress(address) => (RTM_DELADDR, ACKNOWLEDGE, address_part(address)),
    };
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("names and labels are short");
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Whether the kernel answers with many messages and an end.
pub fn is_dump(request: &Request) -> bool {
    matches!(request, Request::Links | Request::Addresses)
}

fn link_part(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut part = vec![0; 4];
    for field in [index, flags, change] {
        part.extend(field.to_ne_bytes());
    }
    part
}

fn link_info(kind: &str, tunnel: Option<Tunnel>) -> Vec<u8> {
    let mut info = Vec::new();
    put(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    if let Some(tunnel) = tunnel {
        let mut data = Vec::new();
        put(&mut data, IFLA_IPTUN_LOCAL, &tunnel.local.octets());
        put(&mut data, IFLA_IPTUN_REMOTE, &tunnel.remote.octets());
        put(&mut data, IFLA_IPTUN_TTL, &[tunnel.ttl]);
        put(&mut data, IFLA_IPTUN_PMTUDISC, &[1]);
        put(&mut info, IFLA_INFO_DATA, &data);
    }
    info
}

fn address_part(address: &Address) -> Vec<u8> {
    let (family, octets) = match address.network.ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let mut part = vec![family, address.network.prefix, 0, address.scope.0];
    part.extend(address.link.to_ne_bytes());
    put(&mut part, IFA_LOCAL, &octets);
    put(&mut part, IFA_ADDRESS, &octets);
    if let Some(broadcast) = address.broadcast {
        put(&mut part, IFA_BROADCAST, &broadcast.octets());
    }
    if let Some(label) = &address.label {
        put(&mut part, IFA_LABEL, &c_text(label));
    }
    part
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("names and labels are short");
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn c_text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Reads all messages of one datagram; kinds we did not ask for are left out.
pub fn decode(mut datagram: &[u8]) -> Result<Vec<Answer>, CutShort> {
    let mut answers = Vec::new();
    while !datagram.is_empty() {
        let length = u32_at(datagram, 0).and_then(|length| usize::try_from(length).ok());
        let cut = CutShort {
            at: datagram.len(),
            length: length.unwrap_or(HEADER_BYTES),
        };
        let length = length.ok_or(cut)?;
        let message = datagram
            .get(..length)
            .filter(|_| length >= HEADER_BYTES)
            .ok_or(cut)?;
        answers.extend(answer(message).ok_or(cut)?);
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(answers)
}

/// Returns what a message says: `None` when it is cut short, nothing when it is foreign.
fn answer(message: &[u8]) -> Option<Vec<Answer>> {
    let body = &message[HEADER_BYTES..];
    Some(match u16_at(message, 4)? {
        NLMSG_DONE => vec![Answer::Done],
        NLMSG_ERROR => {
            let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
            vec![Answer::Verdict(code.checked_neg()?)]
        }
        RTM_NEWLINK => vec![Answer::Link(link(body)?)],
        RTM_NEWADDR => address(body)?,
        _ => Vec::new(),
    })
}

fn link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        is_up: flags & IFF_UP != 0,
        answers_arp: flags & IFF_NOARP == 0,
        ..Link::default()
    };
    for (kind, value) in Attributes(body.get(LINK_BYTES..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_ADDRESS => link.station = station(value),
            IFLA_LINKINFO => read_info(&mut link, value),
            _ => {}
        }
    }
    Some(link)
}

fn read_info(link: &mut Link, info: &[u8]) {
    let mut data = None;
    for (kind, value) in Attributes(info) {
        match kind {
            IFLA_INFO_KIND => link.kind = text(value),
            IFLA_INFO_DATA => data = Some(value),
            _ => {}
        }
    }
    // The numbers of a kind's data mean something else for each kind.
    if let Some(data) = data.filter(|_| link.kind == "ipip") {
        link.tunnel = Some(tunnel(data));
    }
}

fn tunnel(data: &[u8]) -> Tunnel {
    let mut tunnel = Tunnel {
        local: Ipv4Addr::UNSPECIFIED,
        remote: Ipv4Addr::UNSPECIFIED,
        ttl: 0,
    };
    for (kind, value) in Attributes(data) {
        match (kind, ip(value), value) {
            (IFLA_IPTUN_LOCAL, Some(IpAddr::V4(ip)), _) => tunnel.local = ip,
            (IFLA_IPTUN_REMOTE, Some(IpAddr::V4(ip)), _) => tunnel.remote = ip,
            (IFLA_IPTUN_TTL, _, [ttl]) => tunnel.ttl = *ttl,
            _ => {}
        }
    }
    tunnel
}

/// Returns an address; nothing for a family that has none of ours.
fn address(body: &[u8]) -> Option<Vec<Answer>> {
    let [_, prefix, _, scope] = *body.get(..4)? else {
        return None;
    };
    let (mut local, mut peer, mut label, mut broadcast) = (None, None, None, None);
    for (kind, value) in Attributes(body.get(ADDRESS_BYTES..)?) {
        match kind {
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => peer = ip(value),
            IFA_LABEL => label = Some(text(value)),
            IFA_BROADCAST => broadcast = ip(value),
            _ => {}
        }
    }
    // IPv6 addresses come without the local one.
    let Some(ip) = local.or(peer) else {
        return Some(Vec::new());
    };
    Some(vec![Answer::Address(Address {
        link: u32_at(body, 4)?,
        network: Network { ip, prefix },
        label,
        broadcast: match broadcast {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        },
        scope: Scope(scope),
    })])
}

/// The attributes of a message; ends at the first that is cut short.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        // The two highest bits are marks, not part of the number.
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Returns a hardware address as it is written: `52:54:00:12:34:56`.
pub fn station(octets: &[u8]) -> String {
    let parts: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Makes the kernel's answer out of our own request: the formats are the same.
    fn echoed(request: &Request) -> Vec<Answer> {
        decode(&encode(request, 7)).expect("whole")
    }

    proptest! {
        #[test]
        fn addresses_survive_the_wire(ip in any::<[u8; 4]>(), prefix in 0u8..=32, label in proptest::option::of("eth0:[0-9]{1,5}")) {
            let address = Address {
                link: 3,
                network: Network { ip: IpAddr::from(ip), prefix },
                label,
                broadcast: Some(Ipv4Addr::new(10, 0, 0, 255)),
                scope: Scope::HOST,
            };
            prop_assert_eq!(echoed(&Request::AddAddress(address.clone())), [Answer::Address(address)]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_cut_message_is_taken_for_a_whole_one(cut in 1usize..40) {
            let message = encode(&Request::SetMtu(1, 1400), 1);
            prop_assume!(cut < message.len());
            prop_assert!(decode(&message[..cut]).is_err());
        }
    }

    #[test]
    fn tunnels_survive_the_wire() {
        let tunnel = Tunnel {
            local: Ipv4Addr::new(10, 0, 0, 20),
            remote: Ipv4Addr::UNSPECIFIED,
            ttl: 64,
        };
        let request = Request::AddLink {
            name: "tun0".to_owned(),
            kind: "ipip".to_owned(),
            tunnel: Some(tunnel),
        };
        let [Answer::Link(link)] = &echoed(&request)[..] else {
            panic!("a link")
        };
        assert_eq!((link.name.as_str(), link.tunnel), ("tun0", Some(tunnel)));
    }

    #[test]
    fn verdicts_are_error_numbers() {
        let mut message = encode(&Request::RemoveLink(1), 1);
        message.truncate(HEADER_BYTES);
        message[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        message.extend((-17i32).to_ne_bytes());
        message[..4].copy_from_slice(&20u32.to_ne_bytes());
        assert_eq!(decode(&message), Ok(vec![Answer::Verdict(17)]));
    }
}
