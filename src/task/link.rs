//! Interfaces and their addresses: (wanted, actual) → the least changes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::args::Args;
use super::outcome::Refusal;

/// The kernel's limit for an interface's name, and for an address's label.
const NAME_BYTES_MAX: usize = 15;

/// One interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub is_up: bool,
    pub answers_arp: bool,
    pub mtu: u32,
    /// `dummy`, `ipip`, …; empty for hardware and the loopback.
    pub kind: String,
    /// `52:54:00:12:34:56`, empty where there is none.
    pub station: String,
    pub tunnel: Option<Tunnel>,
}

/// The ends of an IP-in-IP tunnel; unspecified means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub local: Ipv4Addr,
    pub remote: Ipv4Addr,
    pub ttl: u8,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub network: Network,
    pub label: Option<String>,
    pub broadcast: Option<Ipv4Addr>,
    pub scope: Scope,
}

/// An address with the length of its network's prefix: `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub ip: IpAddr,
    pub prefix: u8,
}

/// How far an address is valid, in the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope(pub u8);

impl Scope {
    pub const GLOBAL: Self = Self(0);
    pub const LINK: Self = Self(253);
    pub const HOST: Self = Self(254);
}

impl Network {
    /// Reads `10.0.0.1/24`; without a prefix it is the address alone.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let wrong = || {
            Refusal::new(format!(
                "`{text}` is not an address with a prefix length, such as 10.0.0.1/24"
            ))
        };
        let ip: IpAddr = ip.trim().parse().map_err(|_| wrong())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix.trim().parse().map_err(|_| wrong())?,
        };
        if prefix > longest {
            return Err(wrong());
        }
        Ok(Self { ip, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.ip, self.prefix)
    }
}

/// What has to be done to an interface's addresses, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressChange {
    Remove(Address),
    Add(Address),
}

/// Decides for `ip_address`; `actual` are the interface's addresses.
pub fn plan_address(
    args: Args<'_>,
    link: u32,
    actual: &[Address],
) -> Result<Vec<AddressChange>, Refusal> {
    let wanted = wanted_address(args, link)?;
    let there = actual
        .iter()
        .find(|address| address.network == wanted.network);
    Ok(match (args.word("state"), there) {
        ("absent", None) => Vec::new(),
        ("absent", Some(there)) => vec![AddressChange::Remove(there.clone())],
        (_, None) => vec![AddressChange::Add(wanted)],
        (_, Some(there)) if is_as_wanted(args, there, &wanted) => Vec::new(),
        // The kernel changes neither label nor scope of an address it has.
        (_, Some(there)) => vec![
            AddressChange::Remove(there.clone()),
            AddressChange::Add(wanted),
        ],
    })
}

fn is_as_wanted(args: Args<'_>, there: &Address, wanted: &Address) -> bool {
    (wanted.label.is_none() || there.label == wanted.label)
        && (wanted.broadcast.is_none() || there.broadcast == wanted.broadcast)
        && (!args.has("scope") || there.scope == wanted.scope)
}

fn wanted_address(args: Args<'_>, link: u32) -> Result<Address, Refusal> {
    let network = Network::parse(args.word("address"))?;
    let interface = args.word("interface");
    let label = args.text("label");
    if let Some(label) = label {
        if network.ip.is_ipv6() {
            return Err(Refusal::new("an IPv6 address has no label"));
        }
        // Old tools take what stands before the colon for the interface's name.
        if !label.starts_with(interface) || label.len() > NAME_BYTES_MAX {
            return Err(Refusal::new(format!(
                "the label `{label}` must begin with `{interface}` and have at most \
                 {NAME_BYTES_MAX} characters"
            )));
        }
    }
    let broadcast =
        match args.text("broadcast") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| {
                Refusal::new(format!("the broadcast `{text}` is not an IPv4 address"))
            })?),
        };
    let is_loopback = network.ip.is_loopback();
    let scope = match args.text("scope") {
        Some("host") => Scope::HOST,
        Some("link") => Scope::LINK,
        _ if is_loopback => Scope::HOST,
        _ => Scope::GLOBAL,
    };
    Ok(Address {
        link,
        network,
        label: label.map(str::to_owned),
        broadcast,
        scope,
    })
}

/// What has to be done to an interface, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    Add {
        name: String,
        kind: String,
        tunnel: Option<Tunnel>,
    },
    Remove,
    SetMtu(u32),
    AnswerArp(bool),
    Bring(Direction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

/// Decides for `ip_link`.
pub fn plan_link(args: Args<'_>, actual: Option<&Link>) -> Result<Vec<LinkChange>, Refusal> {
    let name = checked_name(args)?;
    let kind = args.text("type");
    if args.word("state") == "absent" {
        return Ok(actual.map(|_| LinkChange::Remove).into_iter().collect());
    }
    let mut changes = Vec::new();
    match (actual, kind) {
        (None, None) => {
            return Err(Refusal::new(format!(
                "there is no interface `{name}`; `type` says which kind to make"
            )));
        }
        (None, Some(kind)) => changes.push(LinkChange::Add {
            name: name.to_owned(),
            kind: kind.to_owned(),
            tunnel: None,
        }),
        (Some(link), Some(kind)) if link.kind != kind => return Err(other_kind(link, kind)),
        (Some(_), _) => {}
    }
    if let Some(mtu) = args.number("mtu") {
        let mtu = u32::try_from(mtu)
            .map_err(|_| Refusal::new(format!("`mtu` must be a number of bytes, found {mtu}")))?;
        if actual.is_none_or(|link| link.mtu != mtu) {
            changes.push(LinkChange::SetMtu(mtu));
        }
    }
    if let Some(arp) = args.flag_if_given("arp")
        && actual.is_none_or(|link| link.answers_arp != arp)
    {
        changes.push(LinkChange::AnswerArp(arp));
    }
    changes.extend(bring(args, actual));
    Ok(changes)
}

/// Decides for `ip_tunnel`.
pub fn plan_tunnel(args: Args<'_>, actual: Option<&Link>) -> Result<Vec<LinkChange>, Refusal> {
    let name = checked_name(args)?;
    if args.word("state") == "absent" {
        return Ok(actual.map(|_| LinkChange::Remove).into_iter().collect());
    }
    let wanted = wanted_tunnel(args)?;
    let mode = args.word("mode");
    let mut changes = Vec::new();
    let add = LinkChange::Add {
        name: name.to_owned(),
        kind: mode.to_owned(),
        tunnel: Some(wanted),
    };
    let mut kept = actual;
    match actual {
        None => changes.push(add),
        Some(link) if link.kind != mode => return Err(other_kind(link, mode)),
        Some(link) if link.tunnel != Some(wanted) => {
            // Its addresses go with it; those who want them ask for them afterwards.
            changes.extend([LinkChange::Remove, add]);
            kept = None;
        }
        Some(_) => {}
    }
    changes.extend(bring(args, kept));
    Ok(changes)
}

fn wanted_tunnel(args: Args<'_>) -> Result<Tunnel, Refusal> {
    let end = |name: &str| -> Result<Ipv4Addr, Refusal> {
        let text = args.word(name);
        if text == "any" {
            return Ok(Ipv4Addr::UNSPECIFIED);
        }
        let parsed = text.parse();
        parsed
            .map_err(|_| Refusal::new(format!("`{name}` must be an IPv4 address, found `{text}`")))
    };
    Ok(Tunnel {
        local: end("local")?,
        remote: end("remote")?,
        ttl: u8::try_from(args.amount("ttl"))
            .map_err(|_| Refusal::new("`ttl` must be between 0 and 255"))?,
    })
}

fn bring(args: Args<'_>, actual: Option<&Link>) -> Option<LinkChange> {
    let is_up = actual.is_some_and(|link| link.is_up);
    match args.word("state") {
        "up" if !is_up => Some(LinkChange::Bring(Direction::Up)),
        "down" if is_up => Some(LinkChange::Bring(Direction::Down)),
        _ => None,
    }
}

fn checked_name(args: Args<'_>) -> Result<&str, Refusal> {
    let name = args.word("name");
    let is_valid = (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.contains(|char: char| char == '/' || char.is_whitespace());
    if is_valid {
        Ok(name)
    } else {
        Err(Refusal::new(format!("`{name}` is not an interface's name")))
    }
}

fn other_kind(link: &Link, wanted: &str) -> Refusal {
    let kind = if link.kind.is_empty() {
        "another kind"
    } else {
        &link.kind
    };
    Refusal::new(format!(
        "the interface {} is {kind}, not {wanted}",
        link.name
    ))
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Map, Value, json};

    fn args(module: &str, value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else {
            panic!("a mapping")
        };
        coerce(lookup(module).expect("known"), &map).expect("valid")
    }

    fn address(text: &str, label: Option<&str>) -> Address {
        Address {
            link: 2,
            network: Network::parse(text).expect("valid"),
            label: label.map(str::to_owned),
            broadcast: None,
            scope: Scope::GLOBAL,
        }
    }

    fn planned(value: Value, actual: &[Address]) -> Result<Vec<AddressChange>, Refusal> {
        plan_address(Args(&args("ip_address", value)), 2, actual)
    }

    #[test]
    fn an_address_is_added_once_and_removed_once() {
        let vip = json!({"interface": "eth0", "address": "10.0.0.1/24", "label": "eth0:1"});
        let there = address("10.0.0.1/24", Some("eth0:1"));
        assert_eq!(
            planned(vip.clone(), &[]),
            Ok(vec![AddressChange::Add(there.clone())])
        );
        assert_eq!(
            planned(vip.clone(), std::slice::from_ref(&there)),
            Ok(vec![])
        );
        let mut absent = vip;
        absent["state"] = "absent".into();
        assert_eq!(
            planned(absent.clone(), std::slice::from_ref(&there)),
            Ok(vec![AddressChange::Remove(there)])
        );
        assert_eq!(planned(absent, &[address("10.0.0.1/32", None)]), Ok(vec![]));
    }

    #[test]
    fn another_label_means_another_address() {
        let vip = json!({"interface": "eth0", "address": "10.0.0.1/24", "label": "eth0:1"});
        let bare = address("10.0.0.1/24", Some("eth0"));
        let changes = planned(vip, std::slice::from_ref(&bare)).expect("valid");
        assert_eq!(changes[0], AddressChange::Remove(bare));
        assert_eq!(changes.len(), 2);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_with_a_reason() {
        for (label, address) in [
            ("br0:1", "10.0.0.1/24"),
            ("eth0:1234567890123", "10.0.0.1/24"),
            ("eth0:1", "::1/128"),
        ] {
            let value = json!({"interface": "eth0", "address": address, "label": label});
            assert!(planned(value, &[]).is_err(), "{label} {address}");
        }
        let error = planned(json!({"interface": "eth0", "address": "10.0.0.1/33"}), &[]);
        assert!(error.expect_err("refused").msg.contains("10.0.0.1/33"));
    }

    #[test]
    fn a_tunnel_with_other_ends_is_made_anew() {
        let wanted = args("ip_tunnel", json!({"name": "tun0", "local": "10.0.0.20"}));
        let tunnel = Tunnel {
            local: Ipv4Addr::new(10, 0, 0, 20),
            remote: Ipv4Addr::UNSPECIFIED,
            ttl: 0,
        };
        let mut link = Link {
            name: "tun0".to_owned(),
            kind: "ipip".to_owned(),
            is_up: true,
            tunnel: Some(tunnel),
            ..Link::default()
        };
        assert_eq!(plan_tunnel(Args(&wanted), Some(&link)), Ok(vec![]));
        link.tunnel = None;
        let changes = plan_tunnel(Args(&wanted), Some(&link)).expect("valid");
        assert_eq!(changes.len(), 3);
        assert_eq!(changes[2], LinkChange::Bring(Direction::Up));
    }

    #[test]
    fn an_interface_is_made_only_when_its_type_is_told() {
        let plain = args("ip_link", json!({"name": "d0"}));
        plan_link(Args(&plain), None).unwrap_err();
        let dummy = args(
            "ip_link",
            json!({"name": "d0", "type": "dummy", "mtu": 1400, "arp": false}),
        );
        let changes = plan_link(Args(&dummy), None).expect("valid");
        assert_eq!(
            changes[1..],
            [
                LinkChange::SetMtu(1400),
                LinkChange::AnswerArp(false),
                LinkChange::Bring(Direction::Up)
            ]
        );
    }
}
