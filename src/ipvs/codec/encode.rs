//! Requests as bytes.

use std::net::IpAddr;

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader};

use super::number::{AF_INET, AF_INET6, NETLINK_HEADER_LEN, command, flag, kind};
use super::{Acknowledge, FamilyNumber, Query};
use crate::ipvs::model::{
    Change, Daemon, DaemonRole, Destination, DestinationId, Family, Forwarding, Granularity,
    KernelName, Persistence, Service, ServiceId, Timeouts, Tunnel, TunnelChecksum,
};

/// The generic netlink controller, which knows every family's number.
const CONTROLLER: FamilyNumber = FamilyNumber(16);
const FAMILY_NAME: &[u8] = b"IPVS\0";
const FAMILY_VERSION: u8 = 1;
/// Appends the request for the family's number.
pub fn encode_family_query(sequence: u32, out: &mut Vec<u8>) {
    let get_family = command::CONTROLLER_GET_FAMILY;
    message(
        out,
        CONTROLLER,
        get_family,
        NLM_F_REQUEST | NLM_F_ACK,
        sequence,
        |attributes| {
            attributes.put(kind::CONTROLLER_FAMILY_NAME, FAMILY_NAME);
        },
    );
}

/// Appends the message that asks `query`.
pub fn encode_query(family: FamilyNumber, sequence: u32, query: &Query, out: &mut Vec<u8>) {
    let command = match query {
        Query::Services | Query::Service(_) => command::GET_SERVICE,
        Query::Destinations(_) => command::GET_DEST,
        Query::Timeouts => command::GET_CONFIG,
        Query::Daemons => command::GET_DAEMON,
        Query::Info => command::GET_INFO,
    };
    let flags = NLM_F_REQUEST
        | if query.is_dump() {
            NLM_F_DUMP
        } else {
            NLM_F_ACK
        };
    message(
        out,
        family,
        command,
        flags,
        sequence,
        |attributes| match query {
            Query::Service(id) | Query::Destinations(id) => put_service_id(attributes, id),
            _ => {}
        },
    );
}

/// Appends the message that asks for `change`.
pub fn encode_change(
    family: FamilyNumber,
    sequence: u32,
    acknowledge: Acknowledge,
    change: &Change,
    out: &mut Vec<u8>,
) {
    let command = match change {
        Change::AddService(_) => command::NEW_SERVICE,
        Change::EditService(_) => command::SET_SERVICE,
        Change::DeleteService(_) => command::DEL_SERVICE,
        Change::AddDestination(..) => command::NEW_DEST,
        Change::EditDestination(..) => command::SET_DEST,
        Change::DeleteDestination(..) => command::DEL_DEST,
        Change::Flush => command::FLUSH,
        Change::Zero(_) => command::ZERO,
        Change::SetTimeouts(_) => command::SET_CONFIG,
        Change::StartDaemon(_) => command::NEW_DAEMON,
        Change::StopDaemon { .. } => command::DEL_DAEMON,
    };
    let flags = match acknowledge {
        Acknowledge::Always => NLM_F_REQUEST | NLM_F_ACK,
        Acknowledge::OnlyRefusal => NLM_F_REQUEST,
    };
    message(
        out,
        family,
        command,
        flags,
        sequence,
        |attributes| match change {
            Change::AddService(service) | Change::EditService(service) => {
                put_service(attributes, service);
            }
            Change::DeleteService(id) | Change::Zero(Some(id)) => put_service_id(attributes, id),
            Change::AddDestination(id, destination) | Change::EditDestination(id, destination) => {
                put_service_id(attributes, id);
                attributes.nest(kind::DEST, |nest| put_destination(nest, destination));
            }
            Change::DeleteDestination(id, destination) => {
                put_service_id(attributes, id);
                attributes.nest(kind::DEST, |nest| put_destination_id(nest, destination));
            }
            Change::Flush | Change::Zero(None) => {}
            Change::SetTimeouts(timeouts) => put_timeouts(attributes, timeouts),
            Change::StartDaemon(daemon) => {
                attributes.nest(kind::DAEMON, |nest| put_daemon(nest, daemon));
            }
            Change::StopDaemon { role, sync_id } => attributes.nest(kind::DAEMON, |nest| {
                nest.put_u32(kind::daemon::STATE, daemon_state(*role));
                nest.put_u32(kind::daemon::SYNC_ID, u32::from(*sync_id));
            }),
        },
    );
}

/// Appends one message; `fill` writes its attributes.
fn message(
    out: &mut Vec<u8>,
    family: FamilyNumber,
    command: u8,
    flags: u16,
    sequence: u32,
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    let start = out.len();
    out.resize(start + NETLINK_HEADER_LEN, 0);
    out.extend_from_slice(&[command, FAMILY_VERSION, 0, 0]);
    fill(&mut Attributes { out });
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(out.len() - start).expect("a request has a few hundred bytes");
    header.message_type = family.0;
    header.flags = flags;
    header.sequence_number = sequence;
    header.emit(&mut out[start..start + NETLINK_HEADER_LEN]);
}

/// Writes attributes at the end of a message.
struct Attributes<'a> {
    out: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    fn put(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inner| inner.out.extend_from_slice(value));
        while !self.out.len().is_multiple_of(4) {
            self.out.push(0);
        }
    }

    fn put_u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    fn put_u16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_ne_bytes());
    }

    fn put_port(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_be_bytes());
    }

    fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    fn put_name<const MAX: usize>(&mut self, kind: u16, name: &KernelName<MAX>) {
        let mut bytes = name.as_str().as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// The kernel keeps both families in 16 bytes, IPv4 in the first four.
    fn put_address(&mut self, kind: u16, address: IpAddr) {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        self.put(kind, &bytes);
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        fill(&mut Attributes { out: self.out });
        let length = u16::try_from(self.out.len() - start).expect("values are bounded names");
        self.out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.out[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
    }
}

fn put_service_id(attributes: &mut Attributes<'_>, id: &ServiceId) {
    attributes.nest(kind::SERVICE, |nest| put_service_id_fields(nest, id));
}

fn put_service_id_fields(nest: &mut Attributes<'_>, id: &ServiceId) {
    use kind::service as k;
    nest.put_u16(k::FAMILY, family_number(id.family()));
    match id {
        ServiceId::Mark { mark, .. } => nest.put_u32(k::MARK, mark.get()),
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            nest.put_u16(k::PROTOCOL, protocol.number().into());
            nest.put_address(k::ADDRESS, *address);
            nest.put_port(k::PORT, *port);
        }
    }
}

fn put_service(attributes: &mut Attributes<'_>, service: &Service) {
    use kind::service as k;
    attributes.nest(kind::SERVICE, |nest| {
        put_service_id_fields(nest, &service.id);
        nest.put_name(k::SCHEDULER, &service.scheduler);
        if let Some(engine) = &service.engine {
            nest.put_name(k::ENGINE, engine);
        }
        // The second word says which flags are meant: all.
        let mut flags = service_flags(service).to_ne_bytes().to_vec();
        flags.extend_from_slice(&u32::MAX.to_ne_bytes());
        nest.put(k::FLAGS, &flags);
        let persistence = service.persistence.unwrap_or_else(|| Persistence {
            timeout_s: 0,
            granularity: Granularity::single_client(service.id.family()),
        });
        nest.put_u32(k::TIMEOUT, persistence.timeout_s);
        match persistence.granularity {
            Granularity::Ipv4Mask(mask) => nest.put(k::NETMASK, &mask.octets()),
            Granularity::Ipv6Prefix(bits) => nest.put_u32(k::NETMASK, bits.into()),
        }
    });
}

fn service_flags(service: &Service) -> u32 {
    let mut flags = 0;
    if service.persistence.is_some() {
        flags |= flag::PERSISTENT;
    }
    if service.one_packet {
        flags |= flag::ONE_PACKET;
    }
    for index in (0..3).filter(|index| service.scheduler_flags.get(*index)) {
        flags |= flag::SCHEDULER << index;
    }
    flags
}

fn put_destination_id(nest: &mut Attributes<'_>, id: &DestinationId) {
    use kind::destination as k;
    nest.put_u16(k::FAMILY, family_number(Family::of(id.address)));
    nest.put_address(k::ADDRESS, id.address);
    nest.put_port(k::PORT, id.port);
}

fn put_destination(nest: &mut Attributes<'_>, destination: &Destination) {
    use kind::destination as k;
    put_destination_id(nest, &destination.id);
    let (method, tunnel) = match destination.forwarding {
        Forwarding::Masquerading => (0, None),
        Forwarding::Local => (1, None),
        Forwarding::Tunnel(tunnel) => (2, Some(tunnel)),
        Forwarding::Route => (3, None),
        Forwarding::Bypass => (4, None),
    };
    nest.put_u32(k::FORWARDING, method);
    nest.put_u32(k::WEIGHT, destination.weight.get());
    nest.put_u32(k::UPPER, destination.thresholds.upper);
    nest.put_u32(k::LOWER, destination.thresholds.lower);
    match tunnel {
        None => {}
        Some(Tunnel::Ipip) => nest.put_u8(k::TUNNEL_TYPE, 0),
        Some(Tunnel::Gue { port, checksum }) => {
            nest.put_u8(k::TUNNEL_TYPE, 1);
            nest.put_port(k::TUNNEL_PORT, port);
            nest.put_u16(k::TUNNEL_FLAGS, checksum_number(checksum));
        }
        Some(Tunnel::Gre { checksum }) => {
            nest.put_u8(k::TUNNEL_TYPE, 2);
            nest.put_u16(k::TUNNEL_FLAGS, checksum_number(checksum));
        }
    }
}

fn put_timeouts(attributes: &mut Attributes<'_>, timeouts: &Timeouts) {
    attributes.put_u32(kind::TIMEOUT_TCP, timeouts.tcp_s);
    attributes.put_u32(kind::TIMEOUT_TCP_FIN, timeouts.tcp_fin_s);
    attributes.put_u32(kind::TIMEOUT_UDP, timeouts.udp_s);
}

fn put_daemon(nest: &mut Attributes<'_>, daemon: &Daemon) {
    use kind::daemon as k;
    nest.put_u32(k::STATE, daemon_state(daemon.role));
    nest.put_name(k::INTERFACE, &daemon.interface);
    nest.put_u32(k::SYNC_ID, daemon.sync_id.into());
    if let Some(bytes) = daemon.message_bytes_max {
        nest.put_u16(k::MESSAGE_MAX, bytes);
    }
    match daemon.group {
        None => {}
        Some(IpAddr::V4(group)) => nest.put(k::GROUP, &group.octets()),
        Some(IpAddr::V6(group)) => nest.put(k::GROUP6, &group.octets()),
    }
    if let Some(port) = daemon.port {
        nest.put_u16(k::PORT, port);
    }
    if let Some(ttl) = daemon.ttl {
        nest.put_u8(k::TTL, ttl);
    }
}

fn daemon_state(role: DaemonRole) -> u32 {
    match role {
        DaemonRole::Master => 1,
        DaemonRole::Backup => 2,
    }
}

fn family_number(family: Family) -> u16 {
    match family {
        Family::Ipv4 => AF_INET,
        Family::Ipv6 => AF_INET6,
    }
}

fn checksum_number(checksum: TunnelChecksum) -> u16 {
    match checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => 1,
        TunnelChecksum::Remote => 2,
    }
}
