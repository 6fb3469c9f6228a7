//! For tests: the frames of a lab with a client, a director and two real servers, built by another's hand.

use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, IpNumber, Ipv4Header, TcpHeader,
};

use super::frame::Mac;
use super::names::Names;
use super::path::{Explained, Interface};
use super::summary::Summary;
use super::tracker::{Event, Tracker};

pub(crate) const CLIENT: Station = Station(0xfe, [10, 0, 0, 254]);
pub(crate) const DIRECTOR: Station = Station(1, [10, 0, 0, 10]);
pub(crate) const SERVER: Station = Station(2, [10, 0, 0, 20]);
pub(crate) const VIP: [u8; 4] = [10, 0, 0, 1];

/// A machine: the number in its hardware address, and its own address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station(u8, pub(crate) [u8; 4]);

impl Station {
    pub(crate) fn mac(self) -> [u8; 6] {
        [0x52, 0x54, 0, 0, self.0, 0]
    }
}

/// A segment between two addresses.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) source: ([u8; 4], u16),
    pub(crate) destination: ([u8; 4], u16),
    pub(crate) id: u16,
    pub(crate) ttl: u8,
    pub(crate) sequence: u32,
    /// Letters of the flags: S, A, F, R.
    pub(crate) flags: &'static str,
    pub(crate) payload: &'static [u8],
}

/// From a client's port to an address's port 80.
pub(crate) fn request(to: [u8; 4], flags: &'static str, payload: &'static [u8]) -> Segment {
    Segment {
        source: (CLIENT.1, 40_000),
        destination: (to, 80),
        id: 100,
        ttl: 64,
        sequence: if flags.contains('S') { 1000 } else { 1001 },
        flags,
        payload,
    }
}

/// The other way.
pub(crate) fn reply(from: [u8; 4], flags: &'static str, payload: &'static [u8]) -> Segment {
    Segment {
        source: (from, 80),
        destination: (CLIENT.1, 40_000),
        id: 500,
        ttl: 64,
        sequence: if flags.contains('S') { 7000 } else { 7001 },
        flags,
        payload,
    }
}

impl Segment {
    pub(crate) fn with_id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// Behind so many bytes of payload.
    pub(crate) fn behind(mut self, bytes: u32) -> Self {
        self.sequence += bytes;
        self
    }

    pub(crate) fn passed_on(mut self) -> Self {
        self.ttl -= 1;
        self
    }

    fn packet(&self) -> Vec<u8> {
        let mut tcp = TcpHeader::new(self.source.1, self.destination.1, self.sequence, 64_000);
        tcp.syn = self.flags.contains('S');
        tcp.ack = self.flags.contains('A');
        tcp.fin = self.flags.contains('F');
        tcp.rst = self.flags.contains('R');
        let mut body = Vec::new();
        tcp.write(&mut body).expect("memory");
        body.extend_from_slice(self.payload);
        let mut packet = ip(self.source.0, self.destination.0, IpNumber::TCP, &body);
        // The TTL and the identification; nobody looks at the checksum of a plain packet.
        packet[8] = self.ttl;
        packet[4..6].copy_from_slice(&self.id.to_be_bytes());
        packet
    }

    /// In a frame between two stations.
    pub(crate) fn frame(&self, from: Station, to: Station) -> Vec<u8> {
        ethernet(from, to.mac(), EtherType::IPV4, &self.packet())
    }

    /// In a frame, inside an IPIP packet between the stations' own addresses.
    pub(crate) fn in_ipip(&self, from: Station, to: Station) -> Vec<u8> {
        let outer = ip(from.1, to.1, IpNumber::IPV4, &self.packet());
        ethernet(from, to.mac(), EtherType::IPV4, &outer)
    }
}

pub(crate) fn ip(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: IpNumber,
    body: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short");
    let header = Ipv4Header::new(length, 64, protocol, source, destination).expect("short");
    let mut packet = Vec::new();
    header.write(&mut packet).expect("memory");
    packet.extend_from_slice(body);
    packet
}

pub(crate) fn ethernet(from: Station, to: [u8; 6], kind: EtherType, body: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        source: from.mac(),
        destination: to,
        ether_type: kind,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// A UDP packet between two stations' own addresses.
pub(crate) fn udp(from: Station, to: Station, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short");
    let mut body = Vec::new();
    for field in [40_000, port, length, 0] {
        body.extend(field.to_be_bytes());
    }
    body.extend_from_slice(payload);
    ethernet(
        from,
        to.mac(),
        EtherType::IPV4,
        &ip(from.1, to.1, IpNumber::UDP, &body),
    )
}

/// "Port unreachable" about a segment.
pub(crate) fn unreachable(from: Station, to: Station, about: &Segment) -> Vec<u8> {
    let mut body = vec![3, 3, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&about.packet()[..28]);
    ethernet(
        from,
        to.mac(),
        EtherType::IPV4,
        &ip(VIP, to.1, IpNumber::ICMP, &body),
    )
}

pub(crate) fn arp_question(from: Station, about: [u8; 4]) -> Vec<u8> {
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: from.mac(),
        sender_ipv4: from.1,
        target_mac: [0; 6],
        target_ipv4: about,
    };
    ethernet(from, [0xff; 6], EtherType::ARP, &arp.to_bytes())
}

pub(crate) fn arp_answer(from: Station, to: Station, about: [u8; 4]) -> Vec<u8> {
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: from.mac(),
        sender_ipv4: about,
        target_mac: to.mac(),
        target_ipv4: to.1,
    };
    ethernet(from, to.mac(), EtherType::ARP, &arp.to_bytes())
}

pub(crate) fn names() -> Names {
    let mut names = Names::default();
    let hosts = [
        (CLIENT, "client"),
        (DIRECTOR, "director"),
        (SERVER, "server"),
    ];
    for (station, name) in hosts {
        names.add_station(Mac(station.mac()), name);
        names.add_address(Ipv4Addr::from(station.1).into(), name);
    }
    names
}

/// A whole request through a tunnel, with the answer past the director.
pub(crate) fn tunnelled() -> Vec<Vec<u8>> {
    let there = [
        request(VIP, "S", b""),
        request(VIP, "A", b"GET / HTTP/1.1\r\n").with_id(101),
        request(VIP, "FA", b"").with_id(102).behind(16),
    ];
    let back = [
        reply(VIP, "SA", b""),
        reply(VIP, "A", b"HTTP/1.1 200 OK\r\n").with_id(501),
        reply(VIP, "FA", b"").with_id(502).behind(17),
    ];
    let mut frames = Vec::new();
    for (there, back) in there.into_iter().zip(back) {
        frames.push(there.frame(CLIENT, DIRECTOR));
        frames.push(there.passed_on().in_ipip(DIRECTOR, SERVER));
        frames.push(back.frame(SERVER, CLIENT));
    }
    frames
}

/// What a tracker makes of frames that come a millisecond apart on one interface.
pub(crate) fn explained(frames: &[Vec<u8>]) -> (Vec<Explained>, Vec<Event>, Summary) {
    let on_bridge: Vec<(usize, &[u8])> = frames.iter().map(|frame| (0, &frame[..])).collect();
    explained_on(&["br0"], &on_bridge)
}

/// The same with a name and a place for each of several interfaces; a name with a colon is the server's cable.
pub(crate) fn explained_on(
    interfaces: &[&str],
    frames: &[(usize, &[u8])],
) -> (Vec<Explained>, Vec<Event>, Summary) {
    let interfaces = interfaces.iter().map(|name| Interface {
        name: (*name).to_owned(),
        description: String::new(),
        station: name.contains(':').then(|| Mac(SERVER.mac())),
    });
    let mut tracker = Tracker::new(names(), interfaces.collect());
    for (number, (interface, frame)) in (0..).zip(frames) {
        let length = u32::try_from(frame.len()).expect("short");
        tracker.take(Duration::from_millis(number), *interface, frame, length);
    }
    let mut events = tracker.events();
    let summary = tracker.finish(0);
    events.extend(tracker.events());
    let requests = events
        .iter()
        .filter_map(|event| match event {
            Event::Request(explained) => Some((**explained).clone()),
            _ => None,
        })
        .collect();
    (requests, events, summary)
}
