//! UDP sockets of the media: unicast, broadcast, multicast.
//!
//! Every message goes out on all media, from the host's own address: after a cable was out, a
//! resource's address may come first on the interface, and a neighbour that has it too does not
//! answer who asks in its name. Media that share interface and port share one socket for
//! receiving. No address is shared with another program (`SO_REUSEPORT` is
//! not set): two daemons on one port would each get a part of the packets.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::sockopt::{BindToDevice, Broadcast, Ipv4Tos, RcvBuf, RcvBufForce, ReuseAddr};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket};

use crate::agent::net::resolve;
use crate::agent::netlink::RouteSocket;
use crate::base::diagnostic::Diagnostic;
use crate::heartbeat::codec::MESSAGE_BYTES_MAX;
use crate::heartbeat::config::{Medium, MediumKind};
use crate::task::link::{Address, Link};

/// `IPTOS_LOWDELAY`, as heartbeat sends with.
const LOW_DELAY: i32 = 0x10;

/// What a socket keeps while this process is busy elsewhere: some thousand packets.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;

/// Packets read from one socket before the others have their turn.
const PACKETS_PER_TURN_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Media {
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    buffer: Vec<u8>,
    /// Addresses that move between nodes.
    resources: Vec<Ipv4Addr>,
}

#[derive(Debug)]
struct Sender {
    medium: Medium,
    socket: UdpSocket,
    to: SocketAddrV4,
    failed: bool,
}

#[derive(Debug)]
struct Receiver {
    /// Index of the medium whose link a packet proves.
    medium: usize,
    socket: UdpSocket,
}

/// A medium that began or ceased to fail.
#[derive(Debug)]
pub(super) struct SendChange {
    pub(super) medium: usize,
    /// `None`: it works again.
    pub(super) error: Option<io::Error>,
}

impl Media {
    /// Opens all sockets; every problem is reported at its place in ha.cf. Nothing is sent from
    /// an address of `resources`.
    pub(super) fn open(
        media: &[Medium],
        resources: Vec<Ipv4Addr>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut network = Network::read().map_err(|error| {
            vec![Diagnostic::error(format!(
                "failed to list the interfaces: {error}"
            ))]
        })?;
        let mut opened = Self {
            senders: Vec::new(),
            receivers: Vec::new(),
            buffer: vec![0; MESSAGE_BYTES_MAX + 1],
            resources,
        };
        let mut seen = HashSet::new();
        let mut problems = Vec::new();
        for (index, medium) in media.iter().enumerate() {
            if let Err(problem) = opened.open_one(index, medium, &mut network, &mut seen) {
                problems.push(*problem);
            }
        }
        if problems.is_empty() {
            Ok(opened)
        } else {
            Err(problems)
        }
    }

    fn open_one(
        &mut self,
        index: usize,
        medium: &Medium,
        network: &mut Network,
        seen: &mut HashSet<(String, u16, Ipv4Addr)>,
    ) -> Result<(), Box<Diagnostic>> {
        let link = network.link(medium)?;
        let (to, bound_to) = match &medium.kind {
            MediumKind::Unicast { peer } => {
                let to = resolve_peer(&peer.text).map_err(|error| {
                    Diagnostic::error(format!(
                        "cannot find the address of `{}`: {error}",
                        peer.text
                    ))
                    .at(&peer.origin)
                    .help("write the other node's IPv4 address, or add its name to /etc/hosts")
                })?;
                (to, Ipv4Addr::UNSPECIFIED)
            }
            MediumKind::Broadcast => (network.broadcast_of(link.index), Ipv4Addr::UNSPECIFIED),
            MediumKind::Multicast { group, .. } => (*group, *group),
        };
        let own = network.own_address(link.index, &self.resources);
        let failed = |what: &str, error: &io::Error| {
            Box::new(
                Diagnostic::error(format!(
                    "failed to {what} on {}: {error}",
                    medium.interface.text
                ))
                .at(&medium.interface.origin),
            )
        };
        let sender = open_sender(medium, own).map_err(|error| failed("open a socket", &error))?;
        self.senders.push(Sender {
            medium: medium.clone(),
            socket: sender,
            to: SocketAddrV4::new(to, medium.port),
            failed: false,
        });
        let key = (medium.interface.text.clone(), medium.port, bound_to);
        if !seen.insert(key) {
            return Ok(());
        }
        let socket = open_receiver(medium, bound_to, own).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                Box::new(port_taken(medium))
            } else {
                failed(&format!("listen at port {}", medium.port), &error)
            }
        })?;
        self.receivers.push(Receiver {
            medium: index,
            socket,
        });
        Ok(())
    }

    /// Returns what poll is to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receivers
            .iter()
            .map(|receiver| receiver.socket.as_fd())
    }

    /// Sends on every medium; a medium that fails does not stop the others.
    pub(super) fn send(&mut self, packet: &[u8]) -> Vec<SendChange> {
        let mut changes = Vec::new();
        for (medium, sender) in self.senders.iter_mut().enumerate() {
            let error = sender.socket.send_to(packet, sender.to).err();
            // A full queue is a lost packet, which the protocol repairs.
            let error = error.filter(|error| error.kind() != io::ErrorKind::WouldBlock);
            let error = error.and_then(|error| sender.mend(packet, &self.resources, error));
            if error.is_some() != sender.failed {
                sender.failed = error.is_some();
                changes.push(SendChange { medium, error });
            }
        }
        changes
    }

    /// Reads what has come, up to a bound, and hands each packet on. Returns whether more may be there.
    pub(super) fn receive(&mut self, mut take: impl FnMut(usize, &[u8])) -> bool {
        let mut is_more = false;
        for receiver in &self.receivers {
            let mut turn = 0;
            while let Ok(length) = receiver.socket.recv(&mut self.buffer) {
                take(receiver.medium, &self.buffer[..length]);
                turn += 1;
                if turn == PACKETS_PER_TURN_MAX {
                    is_more = true;
                    break;
                }
            }
        }
        is_more
    }
}

impl Sender {
    /// Sends from the address that the interface has now: the one of the start may be gone.
    fn mend(
        &mut self,
        packet: &[u8],
        resources: &[Ipv4Addr],
        error: io::Error,
    ) -> Option<io::Error> {
        let Ok(network) = Network::read() else {
            return Some(error);
        };
        let name = &self.medium.interface.text;
        let Some(link) = network.links.iter().find(|link| link.name == *name) else {
            return Some(error);
        };
        let own = network.own_address(link.index, resources);
        let again = open_sender(&self.medium, own).and_then(|socket| {
            socket.send_to(packet, self.to)?;
            Ok(socket)
        });
        match again {
            Ok(socket) => {
                self.socket = socket;
                None
            }
            Err(_) => Some(error),
        }
    }
}

fn port_taken(medium: &Medium) -> Diagnostic {
    Diagnostic::error(format!(
        "someone is already listening on port {} [{}]",
        medium.port, medium.interface.text
    ))
    .at(&medium.interface.origin)
    .help(format!("`ss -lunp sport = {}` shows who", medium.port))
    .help("another heartbeat? `systemctl stop heartbeat` ends it")
}

fn open_sender(medium: &Medium, own: Option<Ipv4Addr>) -> io::Result<UdpSocket> {
    let socket = open_socket(medium)?;
    if matches!(medium.kind, MediumKind::Unicast { .. }) {
        setsockopt(&socket, Ipv4Tos, &LOW_DELAY)?;
    }
    if matches!(medium.kind, MediumKind::Broadcast) {
        setsockopt(&socket, Broadcast, &true)?;
    }
    if let MediumKind::Multicast { ttl, looped, .. } = &medium.kind {
        socket.set_multicast_ttl_v4(*ttl)?;
        socket.set_multicast_loop_v4(*looped)?;
    }
    if let Some(own) = own {
        let from = SockaddrIn::from(SocketAddrV4::new(own, 0));
        bind(socket.as_raw_fd(), &from)?;
    }
    Ok(socket)
}

fn open_receiver(
    medium: &Medium,
    bound_to: Ipv4Addr,
    own: Option<Ipv4Addr>,
) -> io::Result<UdpSocket> {
    let socket = open_socket(medium)?;
    // In a flood the other node's few packets must find a place too. Who may not have so much
    // (it takes CAP_NET_ADMIN) has what the system allows.
    if setsockopt(&socket, RcvBufForce, &RECEIVE_BYTES).is_err() {
        setsockopt(&socket, RcvBuf, &RECEIVE_BYTES)?;
    }
    if bound_to.is_multicast() {
        // Several groups may share a port, and several programs a group.
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    let at = SockaddrIn::from(SocketAddrV4::new(bound_to, medium.port));
    bind(socket.as_raw_fd(), &at)?;
    if bound_to.is_multicast() {
        socket.join_multicast_v4(&bound_to, &own.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
    }
    Ok(socket)
}

fn open_socket(medium: &Medium) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(
        &socket,
        BindToDevice,
        &OsString::from(&medium.interface.text),
    )?;
    Ok(UdpSocket::from(socket))
}

fn resolve_peer(name: &str) -> Result<Ipv4Addr, String> {
    match resolve(name) {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(address)) => Err(format!("{address} is not an IPv4 address")),
        Err(error) => Err(error.to_string()),
    }
}

/// The host's interfaces and addresses at the start.
struct Network {
    links: Vec<Link>,
    addresses: Vec<Address>,
}

impl Network {
    fn read() -> Result<Self, crate::agent::error::ModuleError> {
        let mut socket = RouteSocket::open()?;
        Ok(Self {
            links: socket.links()?,
            addresses: socket.addresses()?,
        })
    }

    fn link(&self, medium: &Medium) -> Result<Link, Box<Diagnostic>> {
        let name = &medium.interface.text;
        if let Some(link) = self.links.iter().find(|link| link.name == *name) {
            return Ok(link.clone());
        }
        let names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
        Err(Box::new(
            Diagnostic::error(format!("there is no interface `{name}`"))
                .at(&medium.interface.origin)
                .label(format!("this host has {}", names.join(", ")))
                .nearest(name, names),
        ))
    }

    /// Returns the first address of an interface that stays there.
    fn own_address(&self, link: u32, resources: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        self.of(link)
            .filter_map(|address| match address.network.ip {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
            .find(|ip| !resources.contains(ip))
    }

    fn broadcast_of(&self, link: u32) -> Ipv4Addr {
        self.of(link)
            .find_map(|address| address.broadcast)
            .unwrap_or(Ipv4Addr::BROADCAST)
    }

    fn of(&self, link: u32) -> impl Iterator<Item = &Address> {
        self.addresses
            .iter()
            .filter(move |address| address.link == link)
    }
}
