//! Destinations as the older interface (`getsockopt`) tells of them: one call a service, arrays
//! of fixed size, no attributes. Reading ten thousand takes a fifth of the time.
//!
//! It knows IPv4 alone, and nothing of tunnels: [`destinations`] returns `None` where it cannot
//! tell everything, and the caller asks by netlink. All numbers are in the host's order,
//! addresses and ports in the network's; structures are aligned to 8 bytes.
//!
//! | service | bytes | destination | bytes |
//! |---|---|---|---|
//! | protocol | 0, 2 | address | 0, 4 |
//! | address | 4, 4 | port | 4, 2 |
//! | port | 8, 2 | forwarding method | 8, 4 |
//! | mark | 12, 4 | weight | 12, 4 |
//! | scheduler, flags, timeout, netmask | 16, 28 | upper, lower threshold | 16, 8 |
//! | number of destinations | 44, 4 | active, inactive, persistent | 24, 12 |
//! | counters | 48, 56 | counters | 40, 56 |

use std::net::{IpAddr, Ipv4Addr};

use crate::ipvs::model::{
    Destination, DestinationEntry, DestinationId, Forwarding, Protocol, ServiceId, Statistics,
    Thresholds, Weight,
};

/// Before the services: their number.
const SERVICES_HEAD: usize = 8;
const SERVICE: usize = 104;
/// Before the destinations: the service's protocol, address, port and mark, as in a service, and
/// how many destinations fit.
const DESTINATIONS_HEAD: usize = 24;
const DESTINATION: usize = 96;

/// A question for so many services.
pub fn services_query(count: u32) -> Vec<u8> {
    let mut bytes = vec![0; SERVICES_HEAD + SERVICE * count as usize];
    bytes[..4].copy_from_slice(&count.to_ne_bytes());
    bytes
}

/// Each service and its number of destinations.
pub fn services(answer: &[u8]) -> impl Iterator<Item = (Place, u32)> {
    let entries = answer.get(SERVICES_HEAD..).unwrap_or_default();
    entries.chunks_exact(SERVICE).filter_map(|entry| {
        let place = Place {
            protocol: u16_at(entry, 0)?,
            address: Ipv4Addr::from_bits(u32::from_be_bytes(bytes_at(entry, 4)?)),
            port: u16::from_be_bytes(bytes_at(entry, 8)?),
            mark: u32_at(entry, 12)?,
        };
        Some((place, u32_at(entry, 44)?))
    })
}

/// How this interface names a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    protocol: u16,
    address: Ipv4Addr,
    port: u16,
    mark: u32,
}

impl Place {
    /// `None` for what it has no words for.
    pub fn of(id: ServiceId) -> Option<Self> {
        match id {
            ServiceId::Address {
                protocol,
                address: IpAddr::V4(address),
                port,
            } => Some(Self {
                protocol: match protocol {
                    Protocol::Tcp => 6,
                    Protocol::Udp => 17,
                    Protocol::Sctp => 132,
                },
                address,
                port,
                mark: 0,
            }),
            _ => None,
        }
    }

    /// A question for the destinations of this service, with room for one more than it had: if
    /// that comes too, the table has changed meanwhile.
    pub fn destinations_query(&self, count: u32) -> Vec<u8> {
        let room = count.saturating_add(1);
        let mut bytes = vec![0; DESTINATIONS_HEAD + DESTINATION * room as usize];
        bytes[..2].copy_from_slice(&self.protocol.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.address.octets());
        bytes[8..10].copy_from_slice(&self.port.to_be_bytes());
        bytes[16..20].copy_from_slice(&room.to_ne_bytes());
        bytes
    }
}

/// Reads the answer; `None` where it is not the whole truth: a tunnel, of which it tells too
/// little, a destination of another family, which it leaves out, or one that came or went.
pub fn destinations(answer: &[u8]) -> Option<Vec<DestinationEntry>> {
    let mut entries = answer.get(DESTINATIONS_HEAD..)?.chunks_exact(DESTINATION);
    let spare = entries.next_back()?;
    let all: Option<Vec<_>> = entries.map(destination).collect();
    (spare.iter().all(|byte| *byte == 0)).then_some(all?)
}

fn destination(entry: &[u8]) -> Option<DestinationEntry> {
    /// The bits of the word that hold the method.
    const METHOD: u32 = 0x7;
    let address = Ipv4Addr::from_bits(u32::from_be_bytes(bytes_at(entry, 0)?));
    if address.is_unspecified() {
        // Nothing was written here.
        return None;
    }
    let forwarding = match u32_at(entry, 8)? & METHOD {
        0 => Forwarding::Masquerading,
        1 => Forwarding::Local,
        3 => Forwarding::Route,
        4 => Forwarding::Bypass,
        _ => return None,
    };
    Some(DestinationEntry {
        destination: Destination {
            id: DestinationId {
                address: IpAddr::V4(address),
                port: u16::from_be_bytes(bytes_at(entry, 4)?),
            },
            forwarding,
            weight: Weight::new(u32_at(entry, 12)?)?,
            thresholds: Thresholds {
                upper: u32_at(entry, 16)?,
                lower: u32_at(entry, 20)?,
            },
        },
        active: u32_at(entry, 24)?,
        inactive: u32_at(entry, 28)?,
        persistent: u32_at(entry, 32)?,
        statistics: Statistics::default(),
    })
}

fn bytes_at<const N: usize>(entry: &[u8], at: usize) -> Option<[u8; N]> {
    entry.get(at..at + N)?.try_into().ok()
}

fn u16_at(entry: &[u8], at: usize) -> Option<u16> {
    bytes_at(entry, at).map(u16::from_ne_bytes)
}

fn u32_at(entry: &[u8], at: usize) -> Option<u32> {
    bytes_at(entry, at).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place() -> Place {
        Place::of(ServiceId::Address {
            protocol: Protocol::Tcp,
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            port: 80,
        })
        .expect("an IPv4 service")
    }

    /// An answer as the kernel gives it: the question with entries written into it.
    fn answer(room: u32, methods: &[u32]) -> Vec<u8> {
        let mut bytes = place().destinations_query(room);
        for (index, method) in methods.iter().enumerate() {
            let entry = &mut bytes[DESTINATIONS_HEAD + DESTINATION * index..];
            entry[..4].copy_from_slice(&[10, 0, 0, 20]);
            entry[4..6].copy_from_slice(&8080_u16.to_be_bytes());
            entry[8..12].copy_from_slice(&method.to_ne_bytes());
            entry[12..16].copy_from_slice(&5_u32.to_ne_bytes());
            entry[16..20].copy_from_slice(&9_u32.to_ne_bytes());
            entry[20..24].copy_from_slice(&7_u32.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn destinations_are_read_as_they_are() {
        let found = destinations(&answer(2, &[0x100, 3])).expect("the whole truth");
        let destination = &found[1].destination;
        assert_eq!(found[0].destination.forwarding, Forwarding::Masquerading);
        assert_eq!(destination.forwarding, Forwarding::Route);
        assert_eq!(destination.id.port, 8080);
        assert_eq!(destination.weight.get(), 5);
        assert_eq!(destination.thresholds, Thresholds { upper: 9, lower: 7 });
        assert_eq!(destinations(&answer(0, &[])), Some(vec![]));
    }

    #[test]
    fn half_the_truth_is_none() {
        // A tunnel, one that is left out, and one that came meanwhile.
        assert_eq!(destinations(&answer(1, &[2])), None);
        assert_eq!(destinations(&answer(2, &[3])), None);
        assert_eq!(destinations(&answer(1, &[3, 3])), None);
    }

    #[test]
    fn services_are_read_with_their_number_of_destinations() {
        let mut bytes = services_query(1);
        let entry = &mut bytes[SERVICES_HEAD..];
        entry[..2].copy_from_slice(&6_u16.to_ne_bytes());
        entry[4..8].copy_from_slice(&[10, 0, 0, 1]);
        entry[8..10].copy_from_slice(&80_u16.to_be_bytes());
        entry[44..48].copy_from_slice(&12_u32.to_ne_bytes());
        assert_eq!(services(&bytes).collect::<Vec<_>>(), [(place(), 12)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = destinations(&bytes);
            let _ = services(&bytes).count();
        }
    }
}
