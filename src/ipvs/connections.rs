//! The table of connections: `/proc/net/ip_vs_conn` in, ipvsadm's `-L -c` out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::listing::address_and_port;
use super::model::Protocol;
use super::names::Names;

/// One line of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As the kernel writes it: `TCP`, `UDP`, `SCTP`, or `IP` in a firewall mark's template.
    pub protocol: String,
    pub client: (IpAddr, u16),
    pub virtual_service: (IpAddr, u16),
    pub server: (IpAddr, u16),
    pub state: String,
    pub expires_s: u32,
    /// A persistence engine and what it found in the packet.
    pub engine: Option<(String, String)>,
}

/// Whether the engines' columns are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engines {
    Hidden,
    Shown,
}

impl Connection {
    /// Reads one line; `None` for the title and for what is not a connection.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let protocol = words.next()?.to_owned();
        let mut place = || Some((address(words.next()?)?, port(words.next()?)?));
        let (client, virtual_service, server) = (place()?, place()?, place()?);
        let state = words.next()?.to_owned();
        let expires_s = words.next()?.parse().ok()?;
        let engine = words.next().zip(words.next());
        let engine = engine.map(|(name, data)| (name.to_owned(), data.to_owned()));
        Some(Self {
            protocol,
            client,
            virtual_service,
            server,
            state,
            expires_s,
            engine,
        })
    }

    fn row(&self, engines: Engines, names: &Names) -> String {
        let protocol = Protocol::ALL
            .into_iter()
            .find(|one| one.name().to_uppercase() == self.protocol);
        let [client, service, server] = [self.client, self.virtual_service, self.server]
            .map(|(address, port)| address_and_port(address, port, protocol, names));
        let expires = format!("{:02}:{:02}", self.expires_s / 60, self.expires_s % 60);
        let Self {
            protocol, state, ..
        } = self;
        let row = format!("{protocol:<3} {expires:<6} {state:<11} {client:<18} {service:<18} ");
        match (&self.engine, engines) {
            (Some((name, data)), Engines::Shown) => {
                format!("{row}{server:<18} {name:<16} {data}\n")
            }
            _ => format!("{row}{server}\n"),
        }
    }
}

/// Hexadecimal for IPv4, the usual form for IPv6, sometimes in brackets.
fn address(word: &str) -> Option<IpAddr> {
    let word = word.trim_start_matches('[').trim_end_matches(']');
    if word.contains(':') {
        return word.parse().ok();
    }
    u32::from_str_radix(word, 16)
        .ok()
        .map(|bits| Ipv4Addr::from_bits(bits).into())
}

fn port(word: &str) -> Option<u16> {
    u16::from_str_radix(word, 16).ok()
}

/// Returns every address in the kernel's `table`.
pub fn addresses(table: &str) -> Vec<IpAddr> {
    let connections = table.lines().filter_map(Connection::parse);
    connections
        .flat_map(|one| [one.client.0, one.virtual_service.0, one.server.0])
        .collect()
}

/// Returns the listing of the kernel's `table`.
pub fn listing(table: &str, engines: Engines, names: &Names) -> String {
    let mut out = "IPVS connection entries\n".to_owned();
    let (state, client, service) = ("state", "source", "virtual");
    let _ = write!(out, "pro expire {state:<11} {client:<18} {service:<18} ");
    let _ = match engines {
        Engines::Hidden => writeln!(out, "destination"),
        Engines::Shown => writeln!(out, "{:<18} {:<16} pe_data", "destination", "pe name"),
    };
    for connection in table.lines().filter_map(Connection::parse) {
        out.push_str(&connection.row(engines, names));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A0000FE D0D0 0A000001 0050 0A00001E 0050 FIN_WAIT        117
UDP 2001:0db8:0000:0000:0000:0000:0000:0005 13C4 2001:0db8:0000:0000:0000:0000:0000:0001 13C4 0A000014 13C4 UDP              9 sip a84b4c76
";

    #[test]
    fn connections_are_shown_as_ipvsadm_shows_them() {
        assert_eq!(
            listing(TABLE, Engines::Hidden, &Names::new("", "http 80/tcp")),
            "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 01:57  FIN_WAIT    10.0.0.254:53456   10.0.0.1:http      10.0.0.30:http
UDP 00:09  UDP         [2001:db8::5]:5060 [2001:db8::1]:5060 10.0.0.20:5060
"
        );
    }

    #[test]
    fn engines_have_two_more_columns() {
        let shown = listing(TABLE, Engines::Shown, Names::none());
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[1],
            "pro expire state       source             virtual            \
             destination        pe name          pe_data"
        );
        assert!(
            lines[3].ends_with(" 10.0.0.20:5060     sip              a84b4c76"),
            "{}",
            lines[3]
        );
    }
}
