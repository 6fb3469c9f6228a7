//! Numbers, times, addresses and ports as ipvsadm reads them.

use std::net::{IpAddr, Ipv6Addr};

use super::{UsageError, refused_with};
use crate::ipvs::model::Protocol;
use crate::ipvs::names::Names;

/// The longest time the kernel's timers are trusted with: 31 days.
const TIMEOUT_MAX_S: i64 = 31 * 24 * 60 * 60;

pub(super) fn timeout(text: &str, min: i64) -> Result<u32, UsageError> {
    number(text, min, TIMEOUT_MAX_S).ok_or_else(|| {
        refused_with(
            format!("invalid timeout value `{text}' specified"),
            format!("give seconds, {min} to {TIMEOUT_MAX_S}"),
        )
    })
}

/// The C library's `strtol` over the whole text, within limits that fit the result.
pub(super) fn number<T: TryFrom<i64>>(text: &str, min: i64, max: i64) -> Option<T> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    // Rust takes what C takes: one sign, then decimal digits.
    let value: i64 = text.parse().ok()?;
    (min..=max)
        .contains(&value)
        .then(|| T::try_from(value).ok())
        .flatten()
}

/// Reads `host[:port]`: the address, and the port if one was given.
///
/// A bare IPv6 address has no port; one in brackets must have one. An IPv4 address in
/// brackets loses its port, and a mere number is nothing, as with ipvsadm.
pub(super) fn host_and_port(
    text: &str,
    protocol: Option<Protocol>,
    names: &Names,
) -> Option<(IpAddr, Option<u16>)> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let port = rest.strip_prefix(':')?;
            if host.parse::<Ipv6Addr>().is_ok() {
                (host, Some(port))
            } else {
                (host, None)
            }
        }
        None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let address = host_address(host, names)?;
    let port = match port {
        None => None,
        Some(port) => Some(number(port, 0, 65535).or_else(|| names.port(protocol?, port))?),
    };
    Some((address, port))
}

fn host_address(host: &str, names: &Names) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    names.address(host).map(IpAddr::V4)
}

/// The C library's `atoi`: digits at the front, whatever follows.
pub(super) fn leading_number(text: &str) -> Option<u8> {
    let text = text.trim_start();
    let end = text
        .find(|found: char| !found.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end]
        .parse()
        .ok()
        .filter(|bits| (1..=128).contains(bits))
}
