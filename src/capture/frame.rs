//! A frame's headers, down to TCP, through one tunnel: bytes to a value. Any bytes are a frame or none; nothing
//! here fails, for what cannot be read is [`Content::Other`].
//!
//! | tunnel | how it is recognised |
//! |---|---|
//! | IPIP | IP protocol 4 (or 41 for IPv6) |
//! | GRE | IP protocol 47 with an IP packet inside |
//! | GUE | UDP to any port whose content is a GUE header (version 0, no control message) and then an IPv4 header with a right checksum, or an IPv6 header |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::{
    ArpOperation, EtherType, Ipv4HeaderSlice, LaxIpSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice,
    TransportSlice, UdpHeaderSlice, ip_number,
};
use serde::{Serialize, Serializer};

/// A station's hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Reads `52:54:00:12:34:56`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut mac = [0; 6];
        let mut parts = text.trim().split([':', '-']);
        for octet in &mut mac {
            *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame<'a> {
    pub source: Mac,
    pub destination: Mac,
    pub content: Content<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    Arp(Arp),
    Ip(Packet<'a>),
    /// Anything else, with its number among Ethernet's protocols.
    Other(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    pub asks: bool,
    pub sender: Mac,
    pub sender_address: Ipv4Addr,
    pub target: Mac,
    pub target_address: Ipv4Addr,
}

impl Arp {
    /// Says to everybody who has an address, without having been asked.
    pub fn is_gratuitous(&self) -> bool {
        self.sender_address == self.target_address
    }
}

/// An IP packet: the inner one, where it came through a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet<'a> {
    pub wrapping: Option<Wrapping>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// IPv4's identification; zero in IPv6.
    pub id: u16,
    pub transport: Transport<'a>,
}

/// A tunnel's outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Wrapping {
    pub kind: Tunnel,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// GUE's UDP port at the far end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tunnel {
    Ipip,
    Gre,
    Gue,
}

impl Tunnel {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ipip => "IPIP",
            Self::Gre => "GRE",
            Self::Gue => "GUE",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Transport<'a> {
    Tcp(Tcp<'a>),
    Udp(Udp<'a>),
    Icmp(Icmp),
    /// A later part of a packet; its ports were in the first.
    Fragment,
    /// Another protocol, or one whose header is cut off.
    Other(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    pub source: u16,
    pub destination: u16,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub flags: Flags,
    /// As sent, even where the capture holds less of it.
    pub payload_bytes: u32,
    pub payload: &'a [u8],
}

/// The flags that open, carry and end a connection.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a bit of TCP's header"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    pub source: u16,
    pub destination: u16,
    pub payload: &'a [u8],
}

/// An ICMP message, with the connection it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub about: Option<Quoted>,
}

/// The head of a packet as ICMP quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub protocol: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Packet<'_> {
    /// Both ends, where the packet has ports.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let (source, destination) = match &self.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.destination),
            Transport::Udp(udp) => (udp.source, udp.destination),
            _ => return None,
        };
        Some((
            SocketAddr::new(self.source, source),
            SocketAddr::new(self.destination, destination),
        ))
    }
}

impl<'a> Frame<'a> {
    /// Reads an Ethernet frame; `None` when it is shorter than Ethernet's header.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let sliced = LaxSlicedPacket::from_ethernet(bytes).ok()?;
        let Some(LinkSlice::Ethernet2(link)) = &sliced.link else {
            return None;
        };
        let content = match &sliced.net {
            Some(LaxNetSlice::Arp(arp)) => match arp.to_packet().try_eth_ipv4() {
                Ok(arp) => Content::Arp(Arp {
                    asks: arp.operation == ArpOperation::REQUEST,
                    sender: Mac(arp.sender_mac),
                    sender_address: arp.sender_ipv4_addr(),
                    target: Mac(arp.target_mac),
                    target_address: arp.target_ipv4_addr(),
                }),
                Err(_) => Content::Other(EtherType::ARP.0),
            },
            Some(net) => ip(net, sliced.transport.as_ref(), None)
                .map_or_else(|| Content::Other(link.ether_type().0), Content::Ip),
            None => Content::Other(link.ether_type().0),
        };
        Some(Self {
            source: Mac(link.source()),
            destination: Mac(link.destination()),
            content,
        })
    }
}

/// An IP header's facts, of either version.
struct Header {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    id: u16,
    later_fragment: bool,
    /// What follows this header and its extensions, as sent.
    payload_bytes: u32,
}

fn header(net: &LaxNetSlice<'_>) -> Option<Header> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some(Header {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                ttl: header.ttl(),
                id: header.identification(),
                later_fragment: header.fragments_offset().value() > 0,
                payload_bytes: u32::from(header.total_len())
                    .saturating_sub(u32::from(header.ihl()) * 4),
            })
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some(Header {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                ttl: header.hop_limit(),
                id: 0,
                later_fragment: ip.is_payload_fragmented(),
                payload_bytes: u32::from(header.payload_length()),
            })
        }
        LaxNetSlice::Arp(_) => None,
    }
}

/// Reads one IP packet, and once the one inside it.
fn ip<'a>(
    net: &LaxNetSlice<'a>,
    transport: Option<&TransportSlice<'a>>,
    wrapping: Option<Wrapping>,
) -> Option<Packet<'a>> {
    let header = header(net)?;
    let payload = net.ip_payload_ref()?;
    if wrapping.is_none()
        && !header.later_fragment
        && let Some((kind, port, inner)) = unwrapped(payload.ip_number.0, payload.payload)
    {
        let wrapping = Wrapping {
            kind,
            source: header.source,
            destination: header.destination,
            port,
        };
        let sliced = LaxSlicedPacket::from_ip(inner).ok()?;
        if let Some(packet) = ip(
            sliced.net.as_ref()?,
            sliced.transport.as_ref(),
            Some(wrapping),
        ) {
            return Some(packet);
        }
    }
    Some(Packet {
        wrapping,
        source: header.source,
        destination: header.destination,
        ttl: header.ttl,
        id: header.id,
        transport: if header.later_fragment {
            Transport::Fragment
        } else {
            self::transport(transport, payload.ip_number.0, header.payload_bytes)
        },
    })
}

fn transport<'a>(
    slice: Option<&TransportSlice<'a>>,
    protocol: u8,
    ip_payload_bytes: u32,
) -> Transport<'a> {
    match slice {
        Some(TransportSlice::Tcp(tcp)) => Transport::Tcp(Tcp {
            source: tcp.source_port(),
            destination: tcp.destination_port(),
            sequence: tcp.sequence_number(),
            acknowledgment: tcp.acknowledgment_number(),
            flags: Flags {
                syn: tcp.syn(),
                ack: tcp.ack(),
                fin: tcp.fin(),
                rst: tcp.rst(),
            },
            payload_bytes: ip_payload_bytes.saturating_sub(u32::from(tcp.data_offset()) * 4),
            payload: tcp.payload(),
        }),
        Some(TransportSlice::Udp(udp)) => Transport::Udp(Udp {
            source: udp.source_port(),
            destination: udp.destination_port(),
            payload: udp.payload(),
        }),
        Some(TransportSlice::Icmpv4(icmp)) => Transport::Icmp(Icmp {
            kind: icmp.type_u8(),
            code: icmp.code_u8(),
            about: quoted(icmp.payload()),
        }),
        _ => Transport::Other(protocol),
    }
}

/// Returns the packet inside a tunnel's packet.
fn unwrapped(protocol: u8, payload: &[u8]) -> Option<(Tunnel, Option<u16>, &[u8])> {
    if protocol == ip_number::IPV4.0 || protocol == ip_number::IPV6.0 {
        return Some((Tunnel::Ipip, None, payload));
    }
    if protocol == ip_number::GRE.0 {
        return Some((Tunnel::Gre, None, inside_gre(payload)?));
    }
    if protocol == ip_number::UDP.0 {
        let udp = UdpHeaderSlice::from_slice(payload).ok()?;
        let inner = inside_gue(payload.get(8..)?)?;
        return Some((Tunnel::Gue, Some(udp.destination_port()), inner));
    }
    None
}

/// GRE (RFC 2784 and 2890): two bytes of flags and version, two of protocol, then four each
/// for checksum, key and sequence number where their flag is set.
fn inside_gre(payload: &[u8]) -> Option<&[u8]> {
    const CHECKSUM_KEY_SEQUENCE: u8 = 0b1011_0000;
    let (flags, version) = (payload.first()?, payload.get(1)? & 0b111);
    let protocol = u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?]);
    let is_ip = protocol == EtherType::IPV4.0 || protocol == EtherType::IPV6.0;
    if version != 0 || !is_ip {
        return None;
    }
    let fields = (flags & CHECKSUM_KEY_SEQUENCE).count_ones() as usize;
    payload.get(4 + 4 * fields..)
}

/// GUE, version 0: two bits of version, one for control messages, five for the length of the
/// optional fields in words; the inner protocol; two bytes of flags.
fn inside_gue(payload: &[u8]) -> Option<&[u8]> {
    let first = *payload.first()?;
    if first & 0b1110_0000 != 0 {
        return None;
    }
    let inner = payload.get(4 + 4 * usize::from(first & 0b1_1111)..)?;
    let protocol = *payload.get(1)?;
    let is_ip = if protocol == ip_number::IPV4.0 {
        let header = Ipv4HeaderSlice::from_slice(inner).ok()?;
        header.header_checksum() == header.to_header().calc_header_checksum()
    } else {
        protocol == ip_number::IPV6.0 && inner.first().is_some_and(|byte| byte >> 4 == 6)
    };
    is_ip.then_some(inner)
}

/// Reads the packet that an ICMP error quotes: its IP header and at least eight bytes more.
fn quoted(bytes: &[u8]) -> Option<Quoted> {
    let (ip, _) = LaxIpSlice::from_slice(bytes).ok()?;
    let payload = ip.payload();
    let ports = payload.payload.get(..4)?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some(Quoted {
        protocol: payload.ip_number.0,
        source: SocketAddr::new(ip.source_addr(), port(0)),
        destination: SocketAddr::new(ip.destination_addr(), port(2)),
    })
}

/// Number of TCP among IP's protocols.
pub const TCP: u8 = ip_number::TCP.0;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use etherparse::{Ipv4Header, PacketBuilder, TcpHeader};
    use proptest::prelude::*;

    pub(crate) const CLIENT: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];
    pub(crate) const DIRECTOR: [u8; 6] = [0x52, 0x54, 0, 0, 1, 0];

    fn tcp(port: u16) -> TcpHeader {
        let mut header = TcpHeader::new(port, 80, 1000, 65535);
        header.syn = true;
        header
    }

    fn plain() -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(CLIENT, DIRECTOR)
            .ipv4([10, 0, 0, 254], [10, 0, 0, 1], 64)
            .tcp_header(tcp(4000));
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"GET /").expect("a packet");
        bytes
    }

    /// The same packet behind an outer header and what stands between them.
    fn wrapped(protocol: u8, between: &[u8]) -> Vec<u8> {
        let inner = &plain()[14..];
        let length = u16::try_from(between.len() + inner.len()).expect("short");
        let outer = Ipv4Header::new(length, 64, protocol.into(), [10, 0, 0, 10], [10, 0, 0, 20])
            .expect("a header");
        let mut bytes = plain()[..14].to_vec();
        outer.write(&mut bytes).expect("memory");
        bytes.extend_from_slice(between);
        bytes.extend_from_slice(inner);
        bytes
    }

    fn packet(bytes: &[u8]) -> Packet<'_> {
        match Frame::parse(bytes).expect("a frame").content {
            Content::Ip(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_packet_is_read_to_its_payload() {
        let bytes = plain();
        let packet = packet(&bytes);
        assert_eq!(packet.wrapping, None);
        assert_eq!(packet.ttl, 64);
        let Transport::Tcp(tcp) = packet.transport else {
            panic!("TCP expected")
        };
        assert_eq!(
            (tcp.source, tcp.destination, tcp.sequence),
            (4000, 80, 1000)
        );
        assert!(tcp.flags.syn && !tcp.flags.ack);
        assert_eq!((tcp.payload, tcp.payload_bytes), (&b"GET /"[..], 5));
    }

    #[test]
    fn every_tunnel_is_seen_through() {
        let udp_to = |port: u16, length: usize| {
            let length = u16::try_from(length).expect("short");
            let mut header = vec![0x30, 0x39];
            header.extend(port.to_be_bytes());
            header.extend((8 + length).to_be_bytes());
            header.extend([0, 0]);
            header
        };
        let inner = plain().len() - 14;
        let mut gue = udp_to(6080, 4 + inner);
        gue.extend([0, 4, 0, 0]);
        let mut gue_with_field = udp_to(6080, 8 + inner);
        gue_with_field.extend([1, 4, 0x01, 0, 0, 0, 0, 0]);
        let cases: [(u8, Vec<u8>, Tunnel, Option<u16>); 5] = [
            (4, vec![], Tunnel::Ipip, None),
            (47, vec![0, 0, 8, 0], Tunnel::Gre, None),
            (47, vec![0x80, 0, 8, 0, 1, 2, 0, 0], Tunnel::Gre, None),
            (17, gue, Tunnel::Gue, Some(6080)),
            (17, gue_with_field, Tunnel::Gue, Some(6080)),
        ];
        for (protocol, between, kind, port) in cases {
            let bytes = wrapped(protocol, &between);
            let found = packet(&bytes);
            let wrapping = found.wrapping.expect("a tunnel");
            assert_eq!((wrapping.kind, wrapping.port), (kind, port));
            assert_eq!(wrapping.source.to_string(), "10.0.0.10");
            assert_eq!(found.destination.to_string(), "10.0.0.1");
            assert_eq!(found.ends().expect("ports").0.port(), 4000);
        }
    }

    #[test]
    fn a_name_server_s_packet_is_no_tunnel() {
        let builder = PacketBuilder::ethernet2(CLIENT, DIRECTOR)
            .ipv4([10, 0, 0, 254], [10, 0, 0, 1], 64)
            .udp(5353, 53);
        let mut bytes = Vec::new();
        builder
            .write(
                &mut bytes,
                &[
                    0, 4, 0, 0, 0x45, 0, 0, 40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9,
                ],
            )
            .expect("a packet");
        assert!(matches!(packet(&bytes).transport, Transport::Udp(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::parse(&bytes);
        }

        #[test]
        fn any_change_to_a_tunnelled_packet_is_still_read(
            at in 0..94_usize, byte: u8, cut in 0..100_usize,
        ) {
            let mut bytes = wrapped(17, &[0x30, 0x39, 0x17, 0xc0, 0, 57, 0, 0, 0, 4, 0, 0]);
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = Frame::parse(&bytes);
        }
    }
}
