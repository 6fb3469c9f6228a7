//! Packet sockets on one interface (whole Ethernet frames out and in), and a machine's clock over
//! ICMP.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect, recv, send,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;

use crate::capture::socket::{bind, raw_socket};

/// ARP's number among the protocols of Ethernet, in the network's byte order.
const ARP: u16 = 0x0806_u16.to_be();

/// All protocols, in the network's byte order.
const ALL: u16 = 0x0003_u16.to_be();

/// Receives and sends ARP frames of one interface.
#[derive(Debug)]
pub struct ArpSocket(PacketSocket);

impl ArpSocket {
    pub fn open(interface: &str) -> io::Result<Self> {
        PacketSocket::open(interface, ARP).map(Self)
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Receives one frame; `None` when none came in time.
    pub fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        within: Duration,
    ) -> io::Result<Option<&'b [u8]>> {
        self.0.receive(buffer, within)
    }
}

/// Receives frames of one interface.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// All that passes on the interface, whoever it is for: a bridge then sees what its ports
    /// exchange.
    pub fn open_all(interface: &str) -> io::Result<Self> {
        let socket = Self::open(interface, ALL)?;
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(if_nametoindex(interface)?).map_err(io::Error::other)?,
            mr_type: libc::PACKET_MR_PROMISC
                .try_into()
                .map_err(io::Error::other)?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of_val(&request)).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "nix does not know this option")]
        // SAFETY: the pointer is to a whole `packet_mreq` that outlives the call, with its length.
        let result = unsafe {
            libc::setsockopt(
                socket.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast(),
                length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(socket)
    }

    fn open(interface: &str, protocol: u16) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let socket = raw_socket(protocol)?;
        bind(&socket, index, protocol)?;
        Ok(Self(socket))
    }

    /// Receives one frame; `None` when none came in time.
    pub fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        within: Duration,
    ) -> io::Result<Option<&'b [u8]>> {
        receive(&self.0, buffer, within)
    }
}

fn receive<'b>(
    socket: &OwnedFd,
    buffer: &'b mut [u8],
    within: Duration,
) -> io::Result<Option<&'b [u8]>> {
    // Zero would mean: wait for ever.
    let within = within.max(Duration::from_micros(1));
    let seconds = libc::time_t::try_from(within.as_secs()).unwrap_or(libc::time_t::MAX);
    let timeout = TimeVal::new(seconds, within.subsec_micros().into());
    setsockopt(socket, ReceiveTimeout, &timeout)?;
    match recv(socket.as_raw_fd(), buffer, MsgFlags::empty()) {
        Ok(length) => Ok(Some(&buffer[..length])),
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Asks a machine for its time (ICMP timestamps, RFC 792): milliseconds since midnight.
#[derive(Debug)]
pub struct ClockProbe(OwnedFd);

/// What one question came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockAnswer {
    /// There and back.
    pub way: Duration,
    pub ahead_seconds: f64,
}

impl ClockProbe {
    /// Longest wait for an answer.
    const PATIENCE: Duration = Duration::from_millis(500);

    pub fn open(address: Ipv4Addr) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Inet,
            SockType::Raw,
            flags,
            SockProtocol::Icmp,
        )?;
        connect(
            socket.as_raw_fd(),
            &SockaddrIn::from(SocketAddrV4::new(address, 0)),
        )?;
        Ok(Self(socket))
    }

    /// `None`: no answer came.
    pub fn ask(&self, number: u32) -> io::Result<Option<ClockAnswer>> {
        let tag = [std::process::id().to_be_bytes(), number.to_be_bytes()].concat();
        // The process and the question, two bytes each.
        let tag = [tag[2], tag[3], tag[6], tag[7]];
        let mut question = [0; 20];
        question[0] = ICMP_TIMESTAMP;
        question[4..8].copy_from_slice(&tag);
        let sum = checksum(&question);
        question[2..4].copy_from_slice(&sum.to_be_bytes());
        let sent = (Instant::now(), day_millis());
        send(self.0.as_raw_fd(), &question, MsgFlags::empty())?;
        let mut buffer = [0; 256];
        while let Some(left) = Self::PATIENCE.checked_sub(sent.0.elapsed()) {
            let Some(packet) = receive(&self.0, &mut buffer, left)? else {
                return Ok(None);
            };
            let header = packet
                .first()
                .map_or(0, |first| usize::from(first & 0x0f) * 4);
            let Some(answer) = packet.get(header..header + 20) else {
                continue;
            };
            if answer[0] != ICMP_TIMESTAMP_REPLY || answer[4..8] != tag {
                continue;
            }
            let way = sent.0.elapsed();
            let theirs = u32::from_be_bytes([answer[12], answer[13], answer[14], answer[15]]);
            let ours = sent.1 + way.as_secs_f64() * 500.0;
            return Ok(Some(ClockAnswer {
                way,
                ahead_seconds: day_difference(f64::from(theirs), ours) / 1000.0,
            }));
        }
        Ok(None)
    }
}

const ICMP_TIMESTAMP: u8 = 13;
const ICMP_TIMESTAMP_REPLY: u8 = 14;
const DAY_MILLIS: f64 = 86_400_000.0;

fn day_millis() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64() * 1000.0 % DAY_MILLIS
}

/// The shorter way round: at midnight one clock may have begun the new day.
fn day_difference(theirs: f64, ours: f64) -> f64 {
    (theirs - ours + DAY_MILLIS * 1.5) % DAY_MILLIS - DAY_MILLIS / 2.0
}

/// The internet's checksum: the ones' complement of the ones' complement sum.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to sixteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_over_midnight() {
        assert!((day_difference(10.0, DAY_MILLIS - 10.0) - 20.0).abs() < 1e-6);
        assert!((day_difference(DAY_MILLIS - 10.0, 10.0) + 20.0).abs() < 1e-6);
        assert!((day_difference(500.0, 510.0) + 10.0).abs() < 1e-6);
    }

    #[test]
    fn a_checksum_makes_the_whole_sum_to_nothing() {
        let mut packet = [13, 0, 0, 0, 1, 2, 3, 4];
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&packet), 0);
    }
}
