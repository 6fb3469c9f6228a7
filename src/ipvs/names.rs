//! Names for addresses and ports, from the texts of `/etc/hosts` and `/etc/services`.
//!
//! A static program has no name service switch, so these two files are all there is: no
//! DNS. Numbers are understood in every form the C library takes (`10.1` is `10.0.0.1`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{LazyLock, OnceLock};

use super::model::Protocol;

/// The names that are known; none at all gives numeric output.
#[derive(Debug)]
pub struct Names {
    read: fn() -> Texts,
    tables: OnceLock<Tables>,
}

/// What the two files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub hosts: String,
    pub services: String,
}

static NONE: LazyLock<Names> = LazyLock::new(|| Names::when_needed(Texts::default));

impl Names {
    /// No names: everything is written as a number.
    pub fn none() -> &'static Self {
        &NONE
    }

    /// Reads the texts when the first name is asked for; most commands never do.
    pub fn when_needed(read: fn() -> Texts) -> Self {
        Self {
            read,
            tables: OnceLock::new(),
        }
    }

    /// The names of these two texts.
    pub fn new(hosts: &str, services: &str) -> Self {
        let tables = OnceLock::from(Tables::new(hosts, services));
        Self {
            read: Texts::default,
            tables,
        }
    }

    pub fn host(&self, address: IpAddr) -> Option<&str> {
        self.tables().hosts.get(&address).map(String::as_str)
    }

    pub fn service(&self, protocol: Protocol, port: u16) -> Option<&str> {
        let key = (port, protocol.name().to_owned());
        self.tables().services.get(&key).map(String::as_str)
    }

    /// Returns the IPv4 address of a number or a name.
    pub fn address(&self, text: &str) -> Option<Ipv4Addr> {
        let of_name = || {
            self.tables()
                .addresses
                .get(&text.to_ascii_lowercase())
                .copied()
        };
        loose_ipv4(text).or_else(of_name)
    }

    pub fn port(&self, protocol: Protocol, name: &str) -> Option<u16> {
        let key = (name.to_owned(), protocol.name().to_owned());
        self.tables().ports.get(&key).copied()
    }

    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| {
            let texts = (self.read)();
            Tables::new(&texts.hosts, &texts.services)
        })
    }
}

#[derive(Debug, Default)]
struct Tables {
    /// Each address's first name.
    hosts: HashMap<IpAddr, String>,
    /// Each name's first IPv4 address.
    addresses: HashMap<String, Ipv4Addr>,
    services: HashMap<(u16, String), String>,
    ports: HashMap<(String, String), u16>,
}

impl Tables {
    /// Lines that make no sense are passed over, as the C library does.
    fn new(hosts: &str, services: &str) -> Self {
        let mut tables = Self::default();
        for words in lines(hosts) {
            tables.take_host(&words);
        }
        for words in lines(services) {
            tables.take_service(&words);
        }
        tables
    }

    fn take_host(&mut self, words: &[&str]) {
        let [address, names @ ..] = words else { return };
        let (Ok(address), Some(first)) = (address.parse::<IpAddr>(), names.first()) else {
            return;
        };
        self.hosts
            .entry(address)
            .or_insert_with(|| (*first).to_owned());
        let Some(address) = as_ipv4(address) else {
            return;
        };
        for name in names {
            self.addresses
                .entry(name.to_ascii_lowercase())
                .or_insert(address);
        }
    }

    fn take_service(&mut self, words: &[&str]) {
        let [name, port_and_protocol, aliases @ ..] = words else {
            return;
        };
        let Some((port, protocol)) = port_and_protocol.split_once('/') else {
            return;
        };
        let Ok(port) = port.parse::<u16>() else {
            return;
        };
        self.services
            .entry((port, protocol.to_owned()))
            .or_insert_with(|| (*name).to_owned());
        for name in std::iter::once(name).chain(aliases) {
            self.ports
                .entry(((*name).to_owned(), protocol.to_owned()))
                .or_insert(port);
        }
    }
}

/// The words of each line that has any before its comment.
fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| {
            line.split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect()
        })
        .filter(|words: &Vec<&str>| !words.is_empty())
}

/// The C library answers IPv4 questions from IPv6 lines that mean the same host.
fn as_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) if address.is_loopback() => Some(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    }
}

/// Reads one to four numbers, decimal, octal (`010`) or hexadecimal (`0xa`), the last of
/// which fills what is left of the address.
fn loose_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(c_number).collect::<Option<_>>()?;
    let (last, front) = parts.split_last()?;
    if front.len() > 3 || front.iter().any(|part| *part > 255) {
        return None;
    }
    let tail_bits = 8 * (4 - u32::try_from(front.len()).ok()?);
    if *last >= 1 << tail_bits {
        return None;
    }
    let head = front.iter().fold(0, |value, part| value << 8 | part);
    u32::try_from(head << tail_bits | last)
        .ok()
        .map(Ipv4Addr::from)
}

fn c_number(text: &str) -> Option<u64> {
    let (digits, radix) = if let Some(digits) = text.strip_prefix("0x") {
        (digits, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "127.0.0.1 localhost\n10.0.0.20\tsaisp-vm-2 web # first\n\
                         10.0.0.20 second\n::1 ip6-localhost loopback\nnonsense line\n";
    const SERVICES: &str = "# comment\nhttp 80/tcp www\nhttp 80/udp\nssh\t22/tcp\nbad line\n";

    #[test]
    fn the_first_line_names_an_address_or_port() {
        let names = Names::new(HOSTS, SERVICES);
        assert_eq!(names.host([10, 0, 0, 20].into()), Some("saisp-vm-2"));
        assert_eq!(names.host([10, 0, 0, 99].into()), None);
        assert_eq!(names.service(Protocol::Tcp, 80), Some("http"));
        assert_eq!(names.service(Protocol::Sctp, 80), None);
    }

    #[test]
    fn names_aliases_and_loose_numbers_are_found() {
        let names = Names::new(HOSTS, SERVICES);
        assert_eq!(names.address("WEB"), Some([10, 0, 0, 20].into()));
        assert_eq!(names.address("loopback"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(names.port(Protocol::Tcp, "www"), Some(80));
        assert_eq!(names.port(Protocol::Udp, "www"), None);
        for (text, expected) in [
            ("10.1", Some([10, 0, 0, 1])),
            ("0x7f.1", Some([127, 0, 0, 1])),
            ("010.0.0.1", Some([8, 0, 0, 1])),
            ("10.0.0.256", None),
            ("256.1", None),
            ("1.2.3.4.5", None),
            ("", None),
            ("+1", None),
        ] {
            assert_eq!(names.address(text), expected.map(Ipv4Addr::from), "{text}");
        }
    }
}
