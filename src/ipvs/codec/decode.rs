//! Answers' attributes as values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use netlink_packet_core::NlasIterator;

use super::number::{AF_INET, AF_INET6, flag, kind};
use super::{CodecError, FamilyNumber};
use crate::ipvs::model::{
    Daemon, DaemonRole, Destination, DestinationEntry, DestinationId, Family, Forwarding,
    Granularity, Info, KernelName, Persistence, Protocol, SchedulerFlags, Service, ServiceId,
    Statistics, Thresholds, Timeouts, Tunnel, TunnelChecksum, Weight,
};

/// An attribute as it came, read by the type that belongs to its kind.
struct Attribute<'a> {
    kind: u16,
    value: &'a [u8],
}

impl Attribute<'_> {
    fn array<const N: usize>(&self, attribute: &'static str) -> Result<[u8; N], CodecError> {
        self.value.try_into().map_err(|_| CodecError::Length {
            attribute,
            found: self.value.len(),
        })
    }

    fn u8(&self, attribute: &'static str) -> Result<u8, CodecError> {
        self.array(attribute).map(u8::from_ne_bytes)
    }

    fn u16(&self, attribute: &'static str) -> Result<u16, CodecError> {
        self.array(attribute).map(u16::from_ne_bytes)
    }

    fn port(&self, attribute: &'static str) -> Result<u16, CodecError> {
        self.array(attribute).map(u16::from_be_bytes)
    }

    fn u32(&self, attribute: &'static str) -> Result<u32, CodecError> {
        self.array(attribute).map(u32::from_ne_bytes)
    }

    /// A counter: 32 bits in the old nest, 64 in the new one.
    fn counter(&self, attribute: &'static str) -> Result<u64, CodecError> {
        match self.value.len() {
            4 => self.u32(attribute).map(u64::from),
            _ => self.array(attribute).map(u64::from_ne_bytes),
        }
    }

    fn name<const MAX: usize>(
        &self,
        attribute: &'static str,
    ) -> Result<KernelName<MAX>, CodecError> {
        let name = self
            .value
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        KernelName::new(&name).map_err(|_| CodecError::Length {
            attribute,
            found: self.value.len(),
        })
    }

    /// 4 or 16 bytes; an IPv4 address may stand in the first four of 16.
    fn address(&self, family: Family, attribute: &'static str) -> Result<IpAddr, CodecError> {
        let wrong = CodecError::Length {
            attribute,
            found: self.value.len(),
        };
        match family {
            Family::Ipv4 => {
                let octets: &[u8; 4] = self.value.first_chunk().ok_or(wrong)?;
                Ok(Ipv4Addr::from(*octets).into())
            }
            Family::Ipv6 => Ok(Ipv6Addr::from(self.array::<16>(attribute)?).into()),
        }
    }
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, CodecError>> {
    NlasIterator::new(bytes).map(|item| match item {
        Ok(item) => {
            let value = &item.into_inner()[4..usize::from(item.length())];
            Ok(Attribute {
                kind: item.kind(),
                value,
            })
        }
        Err(error) => Err(CodecError::Frame(error.to_string())),
    })
}

/// Finds the one nest of this kind in a message's attributes.
fn nest<'a>(bytes: &'a [u8], wanted: u16, what: &'static str) -> Result<&'a [u8], CodecError> {
    for attribute in attributes(bytes) {
        let attribute = attribute?;
        if attribute.kind == wanted {
            return Ok(attribute.value);
        }
    }
    Err(CodecError::Missing {
        what: "an answer",
        attribute: what,
    })
}

fn family_of(number: u16) -> Result<Family, CodecError> {
    match number {
        AF_INET => Ok(Family::Ipv4),
        AF_INET6 => Ok(Family::Ipv6),
        _ => Err(CodecError::Unknown {
            attribute: "address family",
            found: number.into(),
        }),
    }
}

pub fn decode_family(bytes: &[u8]) -> Result<FamilyNumber, CodecError> {
    for attribute in attributes(bytes) {
        let attribute = attribute?;
        if attribute.kind == kind::CONTROLLER_FAMILY_NUMBER {
            return attribute.u16("family number").map(FamilyNumber);
        }
    }
    Err(CodecError::Missing {
        what: "the controller's answer",
        attribute: "family number",
    })
}

pub fn decode_service(
    bytes: &[u8],
    counters: Counters,
) -> Result<(Service, Statistics), CodecError> {
    let nest = nest(bytes, kind::SERVICE, "service")?;
    let mut fields = ServiceFields::default();
    for attribute in attributes(nest) {
        fields.take(&attribute?)?;
    }
    fields.finish(counters)
}

/// What was found of a service so far. The address waits for the family, wherever that
/// stands.
#[derive(Default)]
struct ServiceFields<'a> {
    family: Option<Family>,
    protocol: Option<u16>,
    address: Option<&'a [u8]>,
    port: u16,
    mark: u32,
    scheduler: Option<KernelName<15>>,
    flags: u32,
    timeout_s: u32,
    netmask: [u8; 4],
    engine: Option<KernelName<15>>,
    /// In 32 bits and in 64; only one of them is read.
    statistics: Option<&'a [u8]>,
    wide_statistics: Option<&'a [u8]>,
}

impl<'a> ServiceFields<'a> {
    fn take(&mut self, attribute: &Attribute<'a>) -> Result<(), CodecError> {
        use kind::service as k;
        match attribute.kind {
            k::FAMILY => self.family = Some(family_of(attribute.u16("address family")?)?),
            k::PROTOCOL => self.protocol = Some(attribute.u16("protocol")?),
            k::ADDRESS => self.address = Some(attribute.value),
            k::PORT => self.port = attribute.port("port")?,
            k::MARK => self.mark = attribute.u32("firewall mark")?,
            k::SCHEDULER => self.scheduler = Some(attribute.name("scheduler's name")?),
            k::FLAGS => {
                let words: [u8; 8] = attribute.array("flags")?;
                let flags = words.first_chunk().expect("8 bytes begin with 4");
                self.flags = u32::from_ne_bytes(*flags);
            }
            k::TIMEOUT => self.timeout_s = attribute.u32("persistence timeout")?,
            k::NETMASK => self.netmask = attribute.array("netmask")?,
            k::ENGINE => self.engine = Some(attribute.name("engine's name")?),
            k::STATS => self.statistics = Some(attribute.value),
            k::STATS64 => self.wide_statistics = Some(attribute.value),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, counters: Counters) -> Result<(Service, Statistics), CodecError> {
        let missing = |attribute| CodecError::Missing {
            what: "a service",
            attribute,
        };
        let family = self.family.ok_or_else(|| missing("address family"))?;
        let id = match NonZeroU32::new(self.mark) {
            Some(mark) => ServiceId::Mark { family, mark },
            None => self.address_id(family)?,
        };
        let persistence = (self.flags & flag::PERSISTENT != 0)
            .then(|| self.granularity(family))
            .transpose()?
            .map(|granularity| Persistence {
                timeout_s: self.timeout_s,
                granularity,
            });
        let service = Service {
            id,
            scheduler: self.scheduler.ok_or_else(|| missing("scheduler"))?,
            scheduler_flags: SchedulerFlags::new(
                [0, 1, 2].map(|index| self.flags & (flag::SCHEDULER << index) != 0),
            ),
            persistence,
            engine: self.engine.filter(|engine| !engine.as_str().is_empty()),
            one_packet: self.flags & flag::ONE_PACKET != 0,
        };
        Ok((
            service,
            counters.decode(self.wide_statistics.or(self.statistics))?,
        ))
    }

    fn address_id(&self, family: Family) -> Result<ServiceId, CodecError> {
        let missing = |attribute| CodecError::Missing {
            what: "a service",
            attribute,
        };
        let number = self.protocol.ok_or_else(|| missing("protocol"))?;
        let protocol = Protocol::from_number(number).ok_or_else(|| CodecError::Unknown {
            attribute: "protocol",
            found: number.into(),
        })?;
        let value = self.address.ok_or_else(|| missing("address"))?;
        let address = Attribute {
            kind: kind::service::ADDRESS,
            value,
        }
        .address(family, "address")?;
        Ok(ServiceId::Address {
            protocol,
            address,
            port: self.port,
        })
    }

    fn granularity(&self, family: Family) -> Result<Granularity, CodecError> {
        match family {
            Family::Ipv4 => Ok(Granularity::Ipv4Mask(self.netmask.into())),
            Family::Ipv6 => match u32::from_ne_bytes(self.netmask) {
                bits @ 1..=128 => Ok(Granularity::Ipv6Prefix(
                    u8::try_from(bits).expect("the range above fits a byte"),
                )),
                bits => Err(CodecError::Unknown {
                    attribute: "prefix",
                    found: bits.into(),
                }),
            },
        }
    }
}

/// Decodes one destination of a service whose family is `service`: old kernels do not
/// send the destination's own.
pub fn decode_destination(
    bytes: &[u8],
    service: Family,
    counters: Counters,
) -> Result<DestinationEntry, CodecError> {
    let nest = nest(bytes, kind::DEST, "destination")?;
    let mut fields = DestinationFields::default();
    for attribute in attributes(nest) {
        fields.take(&attribute?)?;
    }
    fields.finish(service, counters)
}

#[derive(Default)]
struct DestinationFields<'a> {
    family: Option<Family>,
    address: Option<&'a [u8]>,
    port: u16,
    method: u32,
    weight: u32,
    thresholds: Thresholds,
    active: u32,
    inactive: u32,
    persistent: u32,
    tunnel_type: u8,
    tunnel_port: u16,
    tunnel_flags: u16,
    /// In 32 bits and in 64; only one of them is read.
    statistics: Option<&'a [u8]>,
    wide_statistics: Option<&'a [u8]>,
}

impl<'a> DestinationFields<'a> {
    fn take(&mut self, attribute: &Attribute<'a>) -> Result<(), CodecError> {
        use kind::destination as k;
        match attribute.kind {
            k::FAMILY => {
                let number = attribute.u16("address family")?;
                // 0: the service's.
                self.family = (number != 0).then(|| family_of(number)).transpose()?;
            }
            k::ADDRESS => self.address = Some(attribute.value),
            k::PORT => self.port = attribute.port("port")?,
            k::FORWARDING => self.method = attribute.u32("forwarding method")?,
            k::WEIGHT => self.weight = attribute.u32("weight")?,
            k::UPPER => self.thresholds.upper = attribute.u32("upper threshold")?,
            k::LOWER => self.thresholds.lower = attribute.u32("lower threshold")?,
            k::ACTIVE => self.active = attribute.u32("active connections")?,
            k::INACTIVE => self.inactive = attribute.u32("inactive connections")?,
            k::PERSISTENT => self.persistent = attribute.u32("persistent connections")?,
            k::TUNNEL_TYPE => self.tunnel_type = attribute.u8("tunnel type")?,
            k::TUNNEL_PORT => self.tunnel_port = attribute.port("tunnel port")?,
            k::TUNNEL_FLAGS => self.tunnel_flags = attribute.u16("tunnel flags")?,
            k::STATS => self.statistics = Some(attribute.value),
            k::STATS64 => self.wide_statistics = Some(attribute.value),
            _ => {}
        }
        Ok(())
    }

    fn finish(self, service: Family, counters: Counters) -> Result<DestinationEntry, CodecError> {
        let value = self.address.ok_or(CodecError::Missing {
            what: "a destination",
            attribute: "address",
        })?;
        let address = Attribute {
            kind: kind::destination::ADDRESS,
            value,
        }
        .address(self.family.unwrap_or(service), "address")?;
        let weight = Weight::new(self.weight).ok_or_else(|| CodecError::Unknown {
            attribute: "weight",
            found: self.weight.into(),
        })?;
        let destination = Destination {
            id: DestinationId {
                address,
                port: self.port,
            },
            forwarding: self.forwarding()?,
            weight,
            thresholds: self.thresholds,
        };
        Ok(DestinationEntry {
            destination,
            active: self.active,
            inactive: self.inactive,
            persistent: self.persistent,
            statistics: counters.decode(self.wide_statistics.or(self.statistics))?,
        })
    }

    fn forwarding(&self) -> Result<Forwarding, CodecError> {
        /// The bits of the word that hold the method.
        const METHOD: u32 = 0x7;
        Ok(match self.method & METHOD {
            0 => Forwarding::Masquerading,
            1 => Forwarding::Local,
            2 => Forwarding::Tunnel(self.tunnel()?),
            3 => Forwarding::Route,
            4 => Forwarding::Bypass,
            found => {
                return Err(CodecError::Unknown {
                    attribute: "forwarding method",
                    found: found.into(),
                });
            }
        })
    }

    fn tunnel(&self) -> Result<Tunnel, CodecError> {
        let checksum = match self.tunnel_flags {
            0 => TunnelChecksum::None,
            1 => TunnelChecksum::Full,
            2 => TunnelChecksum::Remote,
            found => {
                return Err(CodecError::Unknown {
                    attribute: "tunnel flags",
                    found: found.into(),
                });
            }
        };
        match self.tunnel_type {
            0 => Ok(Tunnel::Ipip),
            1 => Ok(Tunnel::Gue {
                port: self.tunnel_port,
                checksum,
            }),
            2 => Ok(Tunnel::Gre { checksum }),
            found => Err(CodecError::Unknown {
                attribute: "tunnel type",
                found: found.into(),
            }),
        }
    }
}

/// Whether totals and rates are wanted: they are half of what is to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counters {
    Read,
    /// Zeros stand for them.
    Skipped,
}

impl Counters {
    fn decode(self, nest: Option<&[u8]>) -> Result<Statistics, CodecError> {
        match self {
            Self::Read => decode_statistics(nest),
            Self::Skipped => Ok(Statistics::default()),
        }
    }
}

fn decode_statistics(bytes: Option<&[u8]>) -> Result<Statistics, CodecError> {
    let mut statistics = Statistics::default();
    for attribute in attributes(bytes.unwrap_or_default()) {
        let attribute = attribute?;
        let field = match attribute.kind {
            1 => &mut statistics.connections,
            2 => &mut statistics.in_packets,
            3 => &mut statistics.out_packets,
            4 => &mut statistics.in_bytes,
            5 => &mut statistics.out_bytes,
            6 => &mut statistics.connection_rate,
            7 => &mut statistics.in_packet_rate,
            8 => &mut statistics.out_packet_rate,
            9 => &mut statistics.in_byte_rate,
            10 => &mut statistics.out_byte_rate,
            // Padding, and what later kernels may count.
            _ => continue,
        };
        *field = attribute.counter("counter")?;
    }
    Ok(statistics)
}

pub fn decode_timeouts(bytes: &[u8]) -> Result<Timeouts, CodecError> {
    let mut timeouts = Timeouts {
        tcp_s: 0,
        tcp_fin_s: 0,
        udp_s: 0,
    };
    for attribute in attributes(bytes) {
        let attribute = attribute?;
        match attribute.kind {
            kind::TIMEOUT_TCP => timeouts.tcp_s = attribute.u32("TCP timeout")?,
            kind::TIMEOUT_TCP_FIN => timeouts.tcp_fin_s = attribute.u32("TCP FIN timeout")?,
            kind::TIMEOUT_UDP => timeouts.udp_s = attribute.u32("UDP timeout")?,
            _ => {}
        }
    }
    Ok(timeouts)
}

pub fn decode_info(bytes: &[u8]) -> Result<Info, CodecError> {
    let mut info = Info {
        version: 0,
        connection_table_size: 0,
    };
    for attribute in attributes(bytes) {
        let attribute = attribute?;
        match attribute.kind {
            kind::INFO_VERSION => info.version = attribute.u32("version")?,
            kind::INFO_TABLE_SIZE => {
                info.connection_table_size = attribute.u32("connection table's size")?;
            }
            _ => {}
        }
    }
    Ok(info)
}

pub fn decode_daemon(bytes: &[u8]) -> Result<Daemon, CodecError> {
    use kind::daemon as k;
    let missing = |attribute| CodecError::Missing {
        what: "a sync daemon",
        attribute,
    };
    let (mut role, mut interface) = (None, None);
    let (mut message_bytes_max, mut group, mut port, mut ttl) = (None, None, None, None);
    let mut sync_id = 0;
    for attribute in attributes(nest(bytes, kind::DAEMON, "sync daemon")?) {
        let attribute = attribute?;
        match attribute.kind {
            k::STATE => role = Some(decode_role(attribute.u32("state")?)?),
            k::INTERFACE => interface = Some(attribute.name("interface's name")?),
            k::SYNC_ID => {
                let found = attribute.u32("sync id")?;
                sync_id = u8::try_from(found).map_err(|_| CodecError::Unknown {
                    attribute: "sync id",
                    found: found.into(),
                })?;
            }
            k::MESSAGE_MAX => message_bytes_max = Some(attribute.u16("longest message")?),
            k::GROUP => group = Some(attribute.address(Family::Ipv4, "multicast group")?),
            k::GROUP6 => group = Some(attribute.address(Family::Ipv6, "multicast group")?),
            k::PORT => port = Some(attribute.u16("multicast port")?),
            k::TTL => ttl = Some(attribute.u8("multicast TTL")?),
            _ => {}
        }
    }
    Ok(Daemon {
        role: role.ok_or_else(|| missing("state"))?,
        interface: interface.ok_or_else(|| missing("interface"))?,
        sync_id,
        message_bytes_max,
        group,
        port,
        ttl,
    })
}

fn decode_role(state: u32) -> Result<DaemonRole, CodecError> {
    match state {
        1 => Ok(DaemonRole::Master),
        2 => Ok(DaemonRole::Backup),
        _ => Err(CodecError::Unknown {
            attribute: "daemon's state",
            found: state.into(),
        }),
    }
}
