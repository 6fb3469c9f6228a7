//! What an IPVS table can hold: services, destinations, counters, time limits, sync
//! daemons, and the changes the kernel takes. The words are the kernel's.
//!
//! Bytes are [`codec`](super::codec)'s matter, the text forms `listing`'s.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

/// A protocol that IPVS can balance by address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| u16::from(protocol.number()) == number)
    }

    /// The name in `/etc/services`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// What makes a virtual service one and the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceId {
    /// Packets to this address and port; port 0 means every port.
    Address {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
    },
    /// Packets that netfilter gave this mark.
    Mark { family: Family, mark: NonZeroU32 },
}

impl ServiceId {
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Mark { family, .. } => *family,
        }
    }
}

/// A name the kernel keeps in a fixed field: no NUL, at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelName<const MAX: usize>(String);

/// The kernel's field has 16 bytes with the NUL.
pub type SchedulerName = KernelName<15>;
/// The persistence engine's; the kernel's field has 16 bytes with the NUL.
pub type EngineName = KernelName<15>;
/// A network interface's; the kernel's field has 16 bytes with the NUL.
pub type InterfaceName = KernelName<15>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("'{name}' has {} bytes, the kernel takes at most {max}", name.len())]
    TooLong { name: String, max: usize },
    #[error("a name with a NUL byte")]
    Nul,
}

impl<const MAX: usize> KernelName<MAX> {
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.contains('\0') {
            return Err(NameError::Nul);
        }
        if name.len() > MAX {
            return Err(NameError::TooLong {
                name: name.to_owned(),
                max: MAX,
            });
        }
        Ok(Self(name.to_owned()))
    }

    /// Cuts what does not fit, as ipvsadm does.
    pub fn cut(name: &str) -> Self {
        let name = name.split('\0').next().unwrap_or_default();
        let mut end = name.len().min(MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self(name[..end].to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for KernelName<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for KernelName<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The three switches a scheduler may give a meaning to (`sh` and `mh` name the first two
/// fallback and port).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SchedulerFlags([bool; 3]);

impl SchedulerFlags {
    pub fn new(flags: [bool; 3]) -> Self {
        Self(flags)
    }

    #[must_use]
    pub fn with(mut self, index: usize) -> Self {
        self.0[index] = true;
        self
    }

    pub fn get(self, index: usize) -> bool {
        self.0[index]
    }

    pub fn any(self) -> bool {
        self.0.contains(&true)
    }
}

/// Which clients count as one for persistence: those equal under this mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    Ipv4Mask(Ipv4Addr),
    /// 1 to 128 bits.
    Ipv6Prefix(u8),
}

impl Granularity {
    /// Every client by itself.
    pub fn single_client(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4Mask(Ipv4Addr::BROADCAST),
            Family::Ipv6 => Self::Ipv6Prefix(128),
        }
    }

    pub fn is_single_client(self) -> bool {
        matches!(
            self,
            Self::Ipv4Mask(Ipv4Addr::BROADCAST) | Self::Ipv6Prefix(128)
        )
    }
}

/// A client keeps its server until it was away for `timeout_s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Persistence {
    pub timeout_s: u32,
    pub granularity: Granularity,
}

/// A virtual service as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub id: ServiceId,
    /// `none` is the kernel's word for a service without a scheduler.
    pub scheduler: SchedulerName,
    pub scheduler_flags: SchedulerFlags,
    pub persistence: Option<Persistence>,
    /// Finds the client in a packet's content; only `sip` exists.
    pub engine: Option<EngineName>,
    /// Every UDP packet is scheduled by itself.
    pub one_packet: bool,
}

impl Service {
    /// A service with nothing but a scheduler.
    pub fn plain(id: ServiceId, scheduler: SchedulerName) -> Self {
        let scheduler_flags = SchedulerFlags::default();
        Self {
            id,
            scheduler,
            scheduler_flags,
            persistence: None,
            engine: None,
            one_packet: false,
        }
    }
}

/// What makes a destination of one service one and the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationId {
    pub address: IpAddr,
    /// 0: the packet's own port.
    pub port: u16,
}

/// How a packet gets to the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// Network address translation.
    Masquerading,
    /// To the director itself.
    Local,
    Tunnel(Tunnel),
    /// Direct routing: a new destination MAC address, nothing else.
    Route,
    /// To the packet's own destination.
    Bypass,
}

/// What the packet is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tunnel {
    Ipip,
    Gue { port: u16, checksum: TunnelChecksum },
    Gre { checksum: TunnelChecksum },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelChecksum {
    #[default]
    None,
    Full,
    Remote,
}

/// A server's share of the work: 0 takes no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    pub const ONE: Self = Self(1);

    /// The kernel reads it as a signed number.
    pub fn new(weight: u32) -> Option<Self> {
        i32::try_from(weight).is_ok().then_some(Self(weight))
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// With more connections than `upper` a server gets no new ones until it has fewer than
/// `lower`; 0 is no limit. The kernel refuses a `lower` above `upper`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Thresholds {
    pub upper: u32,
    pub lower: u32,
}

/// A real server of one service as it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub id: DestinationId,
    pub forwarding: Forwarding,
    pub weight: Weight,
    pub thresholds: Thresholds,
}

/// Totals since the last zeroing, and rates a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub connections: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub connection_rate: u64,
    pub in_packet_rate: u64,
    pub out_packet_rate: u64,
    pub in_byte_rate: u64,
    pub out_byte_rate: u64,
}

/// A destination with what the kernel counts of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationEntry {
    pub destination: Destination,
    pub active: u32,
    pub inactive: u32,
    /// Clients bound to it by persistence.
    pub persistent: u32,
    pub statistics: Statistics,
}

/// A service with its destinations, in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    pub service: Service,
    pub statistics: Statistics,
    pub destinations: Vec<DestinationEntry>,
}

impl ServiceEntry {
    /// Returns the addresses of the service and its destinations.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own = match self.service.id {
            ServiceId::Address { address, .. } => Some(address),
            ServiceId::Mark { .. } => None,
        };
        let found = &self.destinations;
        own.into_iter()
            .chain(found.iter().map(|found| found.destination.id.address))
    }
}

/// How long idle connections are kept, in seconds; 0 in a change leaves the value alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp_s: u32,
    pub tcp_fin_s: u32,
    pub udp_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonRole {
    Master,
    Backup,
}

/// A thread in the kernel that tells another director of this one's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    pub role: DaemonRole,
    pub interface: InterfaceName,
    /// A backup with 0 takes every master's messages.
    pub sync_id: u8,
    /// The kernel's own choice where these are `None`.
    pub message_bytes_max: Option<u16>,
    pub group: Option<IpAddr>,
    pub port: Option<u16>,
    pub ttl: Option<u8>,
}

/// The kernel module's version and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// 0x010201 is 1.2.1.
    pub version: u32,
    pub connection_table_size: u32,
}

/// One thing the kernel can be asked to do to the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddService(Service),
    /// Destinations and connections stay.
    EditService(Service),
    DeleteService(ServiceId),
    AddDestination(ServiceId, Destination),
    /// Running connections keep the forwarding method they began with.
    EditDestination(ServiceId, Destination),
    DeleteDestination(ServiceId, DestinationId),
    /// Deletes every service.
    Flush,
    /// Sets the counters of one service, or of all, to zero.
    Zero(Option<ServiceId>),
    SetTimeouts(Timeouts),
    StartDaemon(Daemon),
    StopDaemon {
        role: DaemonRole,
        sync_id: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_fit_is_refused_or_cut() {
        let long = "a-very-long-scheduler";
        assert_eq!(
            SchedulerName::new(long),
            Err(NameError::TooLong {
                name: long.to_owned(),
                max: 15
            })
        );
        assert_eq!(SchedulerName::cut(long).as_str(), "a-very-long-sch");
        assert_eq!(
            SchedulerName::cut("fourteen-bytesé").as_str(),
            "fourteen-bytes"
        );
        assert_eq!(SchedulerName::new("r\0r"), Err(NameError::Nul));
    }

    #[test]
    fn a_weight_above_the_signed_range_does_not_exist() {
        assert_eq!(Weight::new(1 << 31), None);
        assert_eq!(
            Weight::new(i32::MAX as u32).map(Weight::get),
            Some(i32::MAX as u32)
        );
    }
}
