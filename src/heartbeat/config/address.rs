//! The argument of `IPaddr`: `address[/bits[/interface[:label]][/broadcast]]`.

use std::fmt;
use std::net::Ipv4Addr;

/// An address to bring up; what is missing is found in the routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ip: Ipv4Addr,
    pub prefix_length: Option<u8>,
    pub interface: Option<String>,
    /// What follows the colon in `eth0:1`.
    pub label: Option<String>,
    pub broadcast: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("`{0}` is not an IPv4 address")]
    Ip(String),
    #[error("`{0}` is not a netmask: 1 to 32 bits")]
    Bits(String),
    #[error("`{0}` is too long for an interface (15 characters)")]
    Interface(String),
    #[error("`{0}` stands after the broadcast address")]
    Trailing(String),
}

/// What the kernel allows for an interface's name and an address's label.
const INTERFACE_NAME_MAX: usize = 15;

impl Address {
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let mut parts = text.split('/');
        let ip = parse_ip(parts.next().unwrap_or_default())?;
        let prefix_length = parts.next().map(parse_bits).transpose()?;
        let mut address = Self {
            ip,
            prefix_length,
            interface: None,
            label: None,
            broadcast: None,
        };
        for part in parts.filter(|part| !part.is_empty()) {
            if address.broadcast.is_some() {
                return Err(AddressError::Trailing(part.into()));
            }
            if part.starts_with(|letter: char| letter.is_ascii_digit()) {
                address.broadcast = Some(parse_ip(part)?);
            } else if address.interface.is_none() {
                address.set_interface(part)?;
            } else {
                return Err(AddressError::Trailing(part.into()));
            }
        }
        Ok(address)
    }

    fn set_interface(&mut self, part: &str) -> Result<(), AddressError> {
        if part.len() > INTERFACE_NAME_MAX {
            return Err(AddressError::Interface(part.into()));
        }
        let (interface, label) = match part.split_once(':') {
            Some((interface, label)) => (interface, Some(label.to_owned())),
            None => (part, None),
        };
        self.interface = Some(interface.to_owned());
        self.label = label;
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.ip)?;
        if let Some(bits) = self.prefix_length {
            write!(formatter, "/{bits}")?;
        }
        if let Some(interface) = &self.interface {
            write!(formatter, "/{interface}")?;
        }
        if let Some(label) = &self.label {
            write!(formatter, ":{label}")?;
        }
        if let Some(broadcast) = &self.broadcast {
            write!(formatter, "/{broadcast}")?;
        }
        Ok(())
    }
}

fn parse_ip(text: &str) -> Result<Ipv4Addr, AddressError> {
    text.parse().map_err(|_| AddressError::Ip(text.into()))
}

/// Reads a number of bits, or a netmask written as an address.
fn parse_bits(text: &str) -> Result<u8, AddressError> {
    let bits = if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let mask = u32::from(mask);
        (mask.leading_ones() == mask.count_ones()).then(|| mask.leading_ones().to_le_bytes()[0])
    } else {
        text.parse().ok()
    };
    bits.filter(|bits| (1..=32).contains(bits))
        .ok_or_else(|| AddressError::Bits(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_manual_is_read() {
        for text in [
            "10.0.0.50",
            "10.0.0.50/24",
            "10.0.0.50/24/eth0",
            "10.0.0.50/24/eth0:1",
            "10.0.0.50/24/10.0.0.255",
            "10.0.0.50/24/eth0:1/10.0.0.255",
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_netmask_may_be_written_as_an_address() {
        let address = Address::parse("10.0.0.50/255.255.255.0").expect("a netmask");
        assert_eq!(address.prefix_length, Some(24));
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        use AddressError::*;
        for (text, error) in [
            ("10.0.0", Ip("10.0.0".into())),
            ("10.0.0.1/33", Bits("33".into())),
            ("10.0.0.1/255.0.255.0", Bits("255.0.255.0".into())),
            ("10.0.0.1/24/eth0/10.0.0.255/x", Trailing("x".into())),
            ("10.0.0.1/24/eth0/eth1", Trailing("eth1".into())),
            (
                "10.0.0.1/24/a234567890123456",
                Interface("a234567890123456".into()),
            ),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
    }
}
