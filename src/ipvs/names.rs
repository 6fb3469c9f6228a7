//! Names for addresses and ports: what `/etc/hosts` and `/etc/services` say, and for what
//! they do not know, what the machine's own name service does.
//!
//! A static program has no name service switch: whatever else `/etc/nsswitch.conf` names (the
//! machine's own addresses by `myhostname`, DNS) is asked of `getent`, which has one. Here
//! are the questions and answers as texts; a shell runs the program. Numbers are understood
//! in every form the C library takes (`10.1` is `10.0.0.1`).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{LazyLock, OnceLock};

use super::model::Protocol;

/// The names that are known; none at all gives numeric output.
#[derive(Debug)]
pub struct Names {
    sources: Sources,
    tables: OnceLock<Tables>,
    /// What the name service said of addresses that the files do not know.
    learned: HashMap<IpAddr, Option<String>>,
}

/// Where names come from; each is asked when it is needed and not before.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    pub texts: fn() -> Texts,
    /// Asks the name service for addresses' names: what `getent hosts ADDRESS…` prints.
    pub hosts: fn(&[IpAddr]) -> String,
    /// Asks it for a name's IPv4 addresses: what `getent ahostsv4 NAME` prints.
    pub addresses: fn(&str) -> String,
}

/// What the two files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub hosts: String,
    pub services: String,
}

impl Sources {
    const NONE: Self = Self {
        texts: Texts::default,
        hosts: |_| String::new(),
        addresses: |_| String::new(),
    };
}

static NONE: LazyLock<Names> = LazyLock::new(|| Names::when_needed(Sources::NONE));

impl Names {
    /// No names: everything is written as a number.
    pub fn none() -> &'static Self {
        &NONE
    }

    /// Asks when the first name is wanted; most commands never want one.
    pub fn when_needed(sources: Sources) -> Self {
        Self {
            sources,
            tables: OnceLock::new(),
            learned: HashMap::new(),
        }
    }

    /// The names of these two texts.
    pub fn new(hosts: &str, services: &str) -> Self {
        let mut names = Self::when_needed(Sources::NONE);
        names.tables = OnceLock::from(Tables::new(hosts, services));
        names
    }

    /// Finds out the names of all these addresses, with one question for those that are new.
    pub fn learn(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let unknown = |address: &IpAddr| {
            !self.learned.contains_key(address) && !self.tables().hosts.contains_key(address)
        };
        let new: BTreeSet<IpAddr> = addresses.into_iter().filter(unknown).collect();
        if new.is_empty() {
            return;
        }
        let new: Vec<IpAddr> = new.into_iter().collect();
        let answer = (self.sources.hosts)(&new);
        self.learned
            .extend(new.iter().map(|address| (*address, None)));
        for line in answer.lines() {
            let mut words = line.split_whitespace();
            let (Some(address), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            // A machine's own address is answered with all that it has, asked for or not.
            let found = address.parse().ok();
            if let Some(entry) = found.and_then(|address: IpAddr| self.learned.get_mut(&address)) {
                entry.get_or_insert_with(|| name.to_owned());
            }
        }
    }

    /// Returns an address's name, where the files know it or it was learned.
    pub fn host(&self, address: IpAddr) -> Option<&str> {
        let in_file = self.tables().hosts.get(&address);
        let learned = || self.learned.get(&address)?.as_ref();
        in_file.or_else(learned).map(String::as_str)
    }

    pub fn service(&self, protocol: Protocol, port: u16) -> Option<&str> {
        let key = (port, protocol.name().to_owned());
        self.tables().services.get(&key).map(String::as_str)
    }

    /// Returns the IPv4 address of a number or a name.
    pub fn address(&self, text: &str) -> Option<Ipv4Addr> {
        let in_file = || {
            self.tables()
                .addresses
                .get(&text.to_ascii_lowercase())
                .copied()
        };
        loose_ipv4(text)
            .or_else(in_file)
            .or_else(|| self.address_from_service(text))
    }

    fn address_from_service(&self, name: &str) -> Option<Ipv4Addr> {
        // What cannot be a name is not asked for, least of all an option of the program asked.
        let is_name = |char: char| char.is_ascii_alphanumeric() || "-._".contains(char);
        if name.is_empty() || name.starts_with('-') || !name.chars().all(is_name) {
            return None;
        }
        let answer = (self.sources.addresses)(name);
        let first = answer.split_whitespace().next()?;
        first.parse().ok()
    }

    pub fn port(&self, protocol: Protocol, name: &str) -> Option<u16> {
        let key = (name.to_owned(), protocol.name().to_owned());
        self.tables().ports.get(&key).copied()
    }

    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| {
            let texts = (self.sources.texts)();
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
    fn what_the_files_do_not_know_is_asked_once() {
        fn hosts(addresses: &[IpAddr]) -> String {
            let asked = [1, 2, 9].map(|last| IpAddr::from([10, 0, 0, last]));
            assert_eq!(addresses, asked);
            "10.0.0.7        saisp-vm-1\n10.0.0.2        saisp-vm-1 alias\n\
             10.0.0.1        saisp-vm-1\n10.0.0.2  later\nnonsense\n"
                .to_owned()
        }
        let mut names = Names::when_needed(Sources {
            texts: || Texts {
                hosts: HOSTS.to_owned(),
                services: String::new(),
            },
            hosts,
            ..Sources::NONE
        });
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        names.learn([1, 20, 2, 9, 1].map(address));
        // A second question would be refused above.
        names.learn([9, 2].map(address));
        let found = [1, 2, 9, 20].map(|last| names.host(address(last)));
        assert_eq!(
            found,
            [
                Some("saisp-vm-1"),
                Some("saisp-vm-1"),
                None,
                Some("saisp-vm-2")
            ]
        );
    }

    #[test]
    fn a_name_that_is_in_no_file_is_asked_for_unless_it_is_none() {
        fn addresses(name: &str) -> String {
            assert_eq!(name, "saisp-vm-1");
            "10.0.0.10       STREAM saisp-vm-1\n10.0.0.10       DGRAM  \n".to_owned()
        }
        let names = Names::when_needed(Sources {
            addresses,
            ..Sources::NONE
        });
        assert_eq!(names.address("saisp-vm-1"), Some([10, 0, 0, 10].into()));
        for none in ["", "-s", "--help", "a b", "10.0.0.1/24", "é"] {
            assert_eq!(names.address(none), None, "{none}");
        }
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
