//! IPVS values ↔ generic netlink messages.
//!
//! A message is the netlink header, a generic netlink header and attributes:
//!
//! | bytes | content | order |
//! |---|---|---|
//! | 4 | length with this header | host |
//! | 2 | type: the family's number, or 2 error, 3 done | host |
//! | 2 | flags | host |
//! | 4 | sequence number, the same in an answer | host |
//! | 4 | port, 0 | host |
//! | 1 | command | |
//! | 1 | version of the family | |
//! | 2 | 0 | |
//! | … | attributes: length (2), kind (2), value, padded to 4 | host |
//!
//! Orders inside values are mixed: addresses, ports and the IPv4 netmask in network order,
//! everything else, the multicast port too, in host order.
//!
//! The framing is `netlink-packet-core`'s; the kinds and values are here. Decoding takes
//! any bytes: what is too short, too long or unknown in a place that matters is a
//! [`CodecError`], unknown kinds are skipped as the kernel's rules ask.

mod decode;
mod encode;
pub mod entries;
mod number;

use netlink_packet_core::NetlinkBuffer;

pub use self::decode::{
    Counters, decode_daemon, decode_destination, decode_family, decode_info, decode_service,
    decode_timeouts,
};
pub use self::encode::{encode_change, encode_family_query, encode_query};
use self::number::{GENERIC_HEADER_LEN, TYPE_DONE, TYPE_ERROR, TYPE_NOOP, TYPE_OVERRUN};
use super::model::ServiceId;

/// The number the kernel gave to a family when its module was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyNumber(u16);

/// What can be asked without changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    Services,
    Service(ServiceId),
    Destinations(ServiceId),
    Timeouts,
    Daemons,
    Info,
}

impl Query {
    /// Whether many messages and a "done" answer it, rather than one message.
    pub fn is_dump(&self) -> bool {
        matches!(self, Self::Services | Self::Destinations(_) | Self::Daemons)
    }
}

/// Whether success is to be answered too; refusals always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    Always,
    OnlyRefusal,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("a netlink message whose length does not fit: {0}")]
    Frame(String),
    #[error("{what} lacks its {attribute}")]
    Missing {
        what: &'static str,
        attribute: &'static str,
    },
    #[error("the {attribute} has {found} bytes")]
    Length {
        attribute: &'static str,
        found: usize,
    },
    #[error("the {attribute} is {found}, which is not known")]
    Unknown { attribute: &'static str, found: u64 },
}

/// One message from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub sequence: u32,
    pub content: Content<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// An answer's attributes, for the `decode_…` functions.
    Attributes(&'a [u8]),
    /// The end of a dump, with the error number that ended it or 0.
    Done {
        errno: i32,
    },
    /// A request was carried out (0) or refused.
    Answer {
        errno: i32,
    },
    /// The kernel threw messages away.
    Overrun,
    Nothing,
}

/// Gives out the messages in what one read returned; ends after the first error.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, CodecError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let buffer = match NetlinkBuffer::new_checked(rest) {
            Ok(buffer) => buffer,
            Err(error) => {
                rest = &[];
                return Some(Err(CodecError::Frame(error.to_string())));
            }
        };
        let length = usize::try_from(buffer.length()).expect("checked against the buffer");
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(content(&buffer).map(|content| Message {
            sequence: buffer.sequence_number(),
            content,
        }))
    })
}

fn content<'a>(buffer: &NetlinkBuffer<&'a [u8]>) -> Result<Content<'a>, CodecError> {
    let payload = buffer.payload();
    Ok(match buffer.message_type() {
        TYPE_NOOP => Content::Nothing,
        TYPE_OVERRUN => Content::Overrun,
        TYPE_ERROR => Content::Answer {
            errno: error_number(payload)?,
        },
        // Old kernels send no number with the end of a dump.
        TYPE_DONE if payload.is_empty() => Content::Done { errno: 0 },
        TYPE_DONE => Content::Done {
            errno: error_number(payload)?,
        },
        _ => Content::Attributes(
            payload
                .get(GENERIC_HEADER_LEN..)
                .ok_or(CodecError::Length {
                    attribute: "generic netlink header",
                    found: payload.len(),
                })?,
        ),
    })
}

/// The kernel sends error numbers negated.
fn error_number(payload: &[u8]) -> Result<i32, CodecError> {
    let found = payload.len();
    let bytes = payload.first_chunk().ok_or(CodecError::Length {
        attribute: "error number",
        found,
    })?;
    Ok(i32::from_ne_bytes(*bytes).saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::number::NETLINK_HEADER_LEN;
    use super::*;
    use crate::ipvs::model::{
        Change, Daemon, DaemonRole, Destination, DestinationId, Family, Forwarding, Granularity,
        KernelName, Persistence, Protocol, SchedulerFlags, Service, Thresholds, Tunnel,
        TunnelChecksum, Weight,
    };
    use std::net::IpAddr;
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    const FAMILY: FamilyNumber = FamilyNumber(0x1d);

    fn encoded(change: &Change) -> Vec<u8> {
        let mut out = Vec::new();
        encode_change(FAMILY, 7, Acknowledge::Always, change, &mut out);
        out
    }

    fn attributes_of(bytes: &[u8]) -> &[u8] {
        match messages(bytes).next().unwrap().unwrap() {
            Message {
                sequence: 7,
                content: Content::Attributes(attributes),
            } => attributes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_service_has_the_bytes_the_kernel_reads() {
        let id = ServiceId::Address {
            protocol: Protocol::Tcp,
            address: [10, 0, 0, 1].into(),
            port: 80,
        };
        #[rustfmt::skip]
        let expected = [
            68, 0, 0, 0,  0x1d, 0,  5, 0,  7, 0, 0, 0,  0, 0, 0, 0,
            3, 1, 0, 0, // delete a service
            48, 0, 1, 0, // the service's nest
            6, 0, 1, 0,  2, 0,  0, 0, // IPv4
            6, 0, 2, 0,  6, 0,  0, 0, // TCP
            20, 0, 3, 0,  10, 0, 0, 1,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
            6, 0, 4, 0,  0, 80,  0, 0,
        ];
        assert_eq!(encoded(&Change::DeleteService(id)), expected);
    }

    #[test]
    fn refusals_and_the_end_of_a_dump_are_told_apart() {
        let message = |kind: u8, errno: i32| {
            let mut bytes = vec![20, 0, 0, 0, kind, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(&errno.to_ne_bytes());
            bytes
        };
        let bytes = [message(2, -17), message(2, 0), message(3, 0)].concat();
        let contents: Vec<_> = messages(&bytes)
            .map(|found| found.unwrap().content)
            .collect();
        assert_eq!(
            contents,
            [
                Content::Answer { errno: 17 },
                Content::Answer { errno: 0 },
                Content::Done { errno: 0 }
            ]
        );
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from)
        ]
    }

    fn service_ids() -> impl Strategy<Value = ServiceId> {
        let protocol = prop::sample::select(&Protocol::ALL[..]);
        let family = prop::sample::select(vec![Family::Ipv4, Family::Ipv6]);
        prop_oneof![
            (protocol, addresses(), any::<u16>()).prop_map(|(protocol, address, port)| {
                ServiceId::Address {
                    protocol,
                    address,
                    port,
                }
            }),
            (family, any::<NonZeroU32>())
                .prop_map(|(family, mark)| ServiceId::Mark { family, mark }),
        ]
    }

    fn services() -> impl Strategy<Value = Service> {
        let persistence = prop::option::of((any::<u32>(), any::<[u8; 4]>(), 1..=128_u8));
        let name = "[a-z]{1,15}".prop_map(|name| KernelName::cut(&name));
        let engine = prop::option::of(name.clone());
        (
            service_ids(),
            name,
            any::<[bool; 3]>(),
            persistence,
            engine,
            any::<bool>(),
        )
            .prop_map(
                |(id, scheduler, flags, persistence, engine, one_packet)| Service {
                    persistence: persistence.map(|(timeout_s, mask, bits)| Persistence {
                        timeout_s,
                        granularity: match id.family() {
                            Family::Ipv4 => Granularity::Ipv4Mask(mask.into()),
                            Family::Ipv6 => Granularity::Ipv6Prefix(bits),
                        },
                    }),
                    scheduler_flags: SchedulerFlags::new(flags),
                    id,
                    scheduler,
                    engine,
                    one_packet,
                },
            )
    }

    fn forwardings() -> impl Strategy<Value = Forwarding> {
        let checksum = prop::sample::select(vec![
            TunnelChecksum::None,
            TunnelChecksum::Full,
            TunnelChecksum::Remote,
        ]);
        prop_oneof![
            Just(Forwarding::Masquerading),
            Just(Forwarding::Local),
            Just(Forwarding::Route),
            Just(Forwarding::Bypass),
            Just(Forwarding::Tunnel(Tunnel::Ipip)),
            checksum
                .clone()
                .prop_map(|checksum| Forwarding::Tunnel(Tunnel::Gre { checksum })),
            (any::<u16>(), checksum)
                .prop_map(|(port, checksum)| Forwarding::Tunnel(Tunnel::Gue { port, checksum })),
        ]
    }

    fn destinations() -> impl Strategy<Value = Destination> {
        (
            addresses(),
            any::<u16>(),
            forwardings(),
            0..=i32::MAX as u32,
            any::<(u32, u32)>(),
        )
            .prop_map(
                |(address, port, forwarding, weight, (upper, lower))| Destination {
                    id: DestinationId { address, port },
                    forwarding,
                    weight: Weight::new(weight).unwrap(),
                    thresholds: Thresholds { upper, lower },
                },
            )
    }

    fn daemons() -> impl Strategy<Value = Daemon> {
        (
            prop::sample::select(vec![DaemonRole::Master, DaemonRole::Backup]),
            "[a-z0-9.]{1,15}".prop_map(|name| KernelName::cut(&name)),
            any::<(u8, Option<u16>, Option<u16>, Option<u8>)>(),
            prop::option::of(addresses()),
        )
            .prop_map(
                |(role, interface, (sync_id, message_bytes_max, port, ttl), group)| Daemon {
                    role,
                    interface,
                    sync_id,
                    message_bytes_max,
                    group,
                    port,
                    ttl,
                },
            )
    }

    proptest! {
        #[test]
        fn every_service_comes_back_as_it_went(service in services()) {
            let bytes = encoded(&Change::AddService(service.clone()));
            let (found, _) = decode_service(attributes_of(&bytes), Counters::Read).unwrap();
            prop_assert_eq!(found, service);
        }

        #[test]
        fn every_destination_comes_back_as_it_went(id in service_ids(), destination in destinations()) {
            let bytes = encoded(&Change::AddDestination(id, destination));
            let found = decode_destination(attributes_of(&bytes), id.family(), Counters::Read).unwrap();
            prop_assert_eq!(found.destination, destination);
        }

        #[test]
        fn every_daemon_comes_back_as_it_went(daemon in daemons()) {
            let bytes = encoded(&Change::StartDaemon(daemon.clone()));
            prop_assert_eq!(decode_daemon(attributes_of(&bytes)).unwrap(), daemon);
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            // Each message takes at least a header's bytes, so work and memory are bounded.
            prop_assert!(messages(&bytes).count() <= bytes.len() / NETLINK_HEADER_LEN + 1);
            decode_everything(&bytes);
        }

        #[test]
        fn a_damaged_message_is_decoded_or_refused(
            service in services(),
            destination in destinations(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encoded(&Change::AddDestination(service.id, destination));
            bytes.extend(encoded(&Change::AddService(service)));
            for (place, value) in damage {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            for found in messages(&bytes).flatten() {
                if let Content::Attributes(attributes) = found.content {
                    decode_everything(attributes);
                }
            }
        }
    }

    fn decode_everything(bytes: &[u8]) {
        let _ = decode_family(bytes);
        for counters in [Counters::Read, Counters::Skipped] {
            let _ = decode_service(bytes, counters);
            let _ = decode_destination(bytes, Family::Ipv4, counters);
            let _ = decode_destination(bytes, Family::Ipv6, counters);
        }
        let _ = decode_daemon(bytes);
        let _ = decode_timeouts(bytes);
        let _ = decode_info(bytes);
    }
}
