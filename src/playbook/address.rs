//! What `ipaddr` and its kin tell of addresses and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value as Json, json};

/// An address and its prefix.
#[derive(Clone, Copy, Debug)]
struct Interface {
    address: IpAddr,
    prefix: u8,
    /// A prefix or mask was written.
    network: bool,
}

impl Interface {
    fn parse(text: &str) -> Option<Self> {
        let (address, mask) = match text.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = bits(address);
        let prefix = match mask {
            None => bits,
            Some(mask) => match mask.parse::<u8>() {
                Ok(prefix) => prefix,
                Err(_) => mask_prefix(mask.parse().ok()?)?,
            },
        };
        (prefix <= bits).then_some(Self {
            address,
            prefix,
            network: mask.is_some(),
        })
    }

    fn mask(self) -> u128 {
        let host = u32::from(bits(self.address)) - u32::from(self.prefix);
        let all = if self.address.is_ipv4() {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        };
        all & u128::MAX.checked_shl(host).unwrap_or(0)
    }

    fn inverse_mask(self) -> u128 {
        let all = if self.address.is_ipv4() {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        };
        all & !self.mask()
    }

    fn first(self) -> u128 {
        number(self.address) & self.mask()
    }

    fn last(self) -> u128 {
        self.first() | self.inverse_mask()
    }

    fn at(self, number: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }

    /// The n-th address of the network, from the end when negative, with the prefix.
    fn nth(self, index: i64) -> Option<String> {
        let number = if index < 0 {
            self.last()
                .checked_sub(u128::from(index.unsigned_abs()) - 1)?
        } else {
            self.first().checked_add(u128::from(index.unsigned_abs()))?
        };
        let inside = number >= self.first() && number <= self.last();
        inside.then(|| format!("{}/{}", self.at(number), self.prefix))
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn mask_prefix(mask: Ipv4Addr) -> Option<u8> {
    let mask = u32::from(mask);
    let ones = mask.leading_ones();
    (mask.count_ones() == ones).then(|| u8::try_from(ones).unwrap_or(32))
}

/// Answers a question about an address; `false` when the text is none. `None`: no such question.
pub(super) fn query(text: &str, question: &str, version: Option<u8>) -> Option<Json> {
    let parsed = Interface::parse(text.trim());
    let wanted = |found: &Interface| match version {
        Some(4) => found.address.is_ipv4(),
        Some(_) => found.address.is_ipv6(),
        None => true,
    };
    let Some(found) = parsed.filter(wanted) else {
        return known(question).then_some(Json::Bool(false));
    };
    let text = |address: u128| json!(found.at(address).to_string());
    Some(match question {
        "" => json!(text_of(found)),
        "address" | "ip" => json!(found.address.to_string()),
        "network" | "network_id" => text(found.first()),
        "netmask" => text(found.mask()),
        "hostmask" | "wildcard" => text(found.inverse_mask()),
        "broadcast" => text(found.last()),
        "prefix" => json!(found.prefix),
        "network/prefix" | "subnet" => {
            json!(format!("{}/{}", found.at(found.first()), found.prefix))
        }
        "net" => json!(
            found.network
                && number(found.address) == found.first()
                && found.prefix < bits(found.address)
        )
        .as_bool()
        .filter(|net| *net)
        .map_or(Json::Bool(false), |_| json!(text_of(found))),
        "address/prefix" | "gateway" | "gw" | "host/prefix" | "hostnet" | "router" | "cidr"
        | "host" => {
            json!(format!("{}/{}", found.address, found.prefix))
        }
        "address/netmask" => json!(format!("{}/{}", found.address, found.at(found.mask()))),
        "network/netmask" => json!(format!(
            "{}/{}",
            found.at(found.first()),
            found.at(found.mask())
        )),
        "size" => json!(
            u64::try_from(found.inverse_mask())
                .ok()
                .and_then(|size| size.checked_add(1))
        ),
        "first_usable" => text(found.first() + u128::from(found.inverse_mask() > 1)),
        "last_usable" => text(found.last() - u128::from(found.inverse_mask() > 1)),
        "int" => json!(u64::try_from(number(found.address)).ok()),
        "bool" => Json::Bool(true),
        "type" => json!(if found.network { "network" } else { "address" }),
        "version" => json!(if found.address.is_ipv4() { 4 } else { 6 }),
        "v4" | "ipv4" => kept(found.address.is_ipv4(), found),
        "v6" | "ipv6" => kept(found.address.is_ipv6(), found),
        "private" => kept(private(found.address), found),
        "public" => kept(!private(found.address) && !local(found.address), found),
        "loopback" | "lo" => kept(found.address.is_loopback(), found),
        "multicast" => kept(found.address.is_multicast(), found),
        other => {
            if let Ok(index) = other.parse::<i64>() {
                return Some(found.nth(index).map_or(Json::Bool(false), Json::String));
            }
            let network = Interface::parse(other)?;
            let inside = network.address.is_ipv4() == found.address.is_ipv4()
                && found.first() >= network.first()
                && found.last() <= network.last();
            kept(inside, found)
        }
    })
}

fn known(question: &str) -> bool {
    question.is_empty() || query("10.0.0.1/24", question, None).is_some()
}

fn text_of(found: Interface) -> String {
    if found.network {
        format!("{}/{}", found.address, found.prefix)
    } else {
        found.address.to_string()
    }
}

fn kept(keep: bool, found: Interface) -> Json {
    if keep {
        json!(text_of(found))
    } else {
        Json::Bool(false)
    }
}

fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.segments()[0] & 0xfe00 == 0xfc00,
    }
}

fn local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_multicast() || address.is_unspecified()
        }
    }
}

/// The network itself, how many subnets of a prefix it has, or one of them.
pub(super) fn subnet(text: &str, prefix: Option<u8>, index: Option<i64>) -> Option<String> {
    let found = Interface::parse(text)?;
    let Some(prefix) = prefix else {
        return Some(format!("{}/{}", found.at(found.first()), found.prefix));
    };
    if prefix < found.prefix || prefix > bits(found.address) {
        return None;
    }
    let count = 1_u128.checked_shl(u32::from(prefix - found.prefix))?;
    let Some(index) = index else {
        return Some(count.to_string());
    };
    let index = if index < 0 {
        count.checked_sub(u128::from(index.unsigned_abs()))?
    } else {
        u128::from(index.unsigned_abs())
    };
    if index >= count {
        return None;
    }
    let step = 1_u128.checked_shl(u32::from(bits(found.address) - prefix))?;
    Some(format!(
        "{}/{prefix}",
        found.at(found.first() + index * step)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_about_addresses() {
        let ask = |text: &str, question: &str| query(text, question, None).expect("a question");
        assert_eq!(ask("10.0.0.10/24", "address"), json!("10.0.0.10"));
        assert_eq!(ask("10.0.0.10/24", "network"), json!("10.0.0.0"));
        assert_eq!(ask("10.0.0.10/24", "netmask"), json!("255.255.255.0"));
        assert_eq!(ask("10.0.0.10/24", "prefix"), json!(24));
        assert_eq!(
            ask("10.0.0.10/255.255.255.0", "broadcast"),
            json!("10.0.0.255")
        );
        assert_eq!(ask("10.0.0.0/24", "1"), json!("10.0.0.1/24"));
        assert_eq!(ask("10.0.0.0/24", "-2"), json!("10.0.0.254/24"));
        assert_eq!(ask("10.0.0.7", "10.0.0.0/24"), json!("10.0.0.7"));
        assert_eq!(ask("10.1.0.7", "10.0.0.0/24"), json!(false));
        assert_eq!(ask("nonsense", ""), json!(false));
        assert_eq!(ask("fe80::1/64", "network"), json!("fe80::"));
        assert_eq!(query("10.0.0.1", "colour", None), None);
        assert_eq!(
            subnet("10.0.0.0/24", Some(26), Some(1)).as_deref(),
            Some("10.0.0.64/26")
        );
    }
}
