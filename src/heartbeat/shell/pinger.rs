//! Echo requests to ping nodes (ICMP, RFC 792), and who answers.
//!
//! | bytes | echo request and reply |
//! |---|---|
//! | 1, 1, 2 | type 8 asks, 0 answers; code 0; checksum |
//! | 2, 2 | who asks, and which question |

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
};

use crate::agent::packet::checksum;

const REQUEST: u8 = 8;
const REPLY: u8 = 0;

/// Answers read in one turn: others wait as well.
const ANSWERS_PER_TURN_MAX: usize = 64;

/// The socket, when ha.cf names ping nodes.
#[derive(Debug)]
pub(super) struct Pinger {
    socket: Option<OwnedFd>,
    /// Tells own answers from those to another program's questions.
    tag: [u8; 2],
    number: u16,
}

impl Pinger {
    pub(super) fn open(asks: bool) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let open = || {
            socket(
                AddressFamily::Inet,
                SockType::Raw,
                flags,
                SockProtocol::Icmp,
            )
        };
        let [.., high, low] = std::process::id().to_be_bytes();
        Ok(Self {
            socket: asks.then(open).transpose()?,
            tag: [high, low],
            number: 0,
        })
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Asks each host once; one that cannot be reached is as one that does not answer.
    pub(super) fn ask(&mut self, hosts: &[Ipv4Addr]) {
        let Some(socket) = &self.socket else { return };
        self.number = self.number.wrapping_add(1);
        let [high, low] = self.number.to_be_bytes();
        let mut request = [REQUEST, 0, 0, 0, self.tag[0], self.tag[1], high, low];
        let sum = checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&sum);
        for host in hosts {
            let to = SockaddrIn::from(SocketAddrV4::new(*host, 0));
            let _ = sendto(socket.as_raw_fd(), &request, &to, MsgFlags::empty());
        }
    }

    /// Returns who has answered.
    pub(super) fn answers(&self) -> Vec<Ipv4Addr> {
        let Some(socket) = &self.socket else {
            return Vec::new();
        };
        let mut buffer = [0; 128];
        let mut hosts = Vec::new();
        for _ in 0..ANSWERS_PER_TURN_MAX {
            let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
                break;
            };
            hosts.extend(answer(&buffer[..length], self.tag));
        }
        hosts
    }
}

/// Reads an IP packet: the sender of an answer to a question of ours.
fn answer(packet: &[u8], tag: [u8; 2]) -> Option<Ipv4Addr> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let icmp = packet.get(header..header + 8)?;
    (icmp[0] == REPLY && icmp[4..6] == tag).then(|| from.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_own_questions_count() {
        let mut packet = vec![0x45; 1];
        packet.extend([0; 11]);
        packet.extend([10, 0, 0, 254, 10, 0, 0, 20]);
        packet.extend([REPLY, 0, 0, 0, 7, 9, 0, 1]);
        assert_eq!(answer(&packet, [7, 9]), Some(Ipv4Addr::new(10, 0, 0, 254)));
        assert_eq!(answer(&packet, [7, 8]), None);
        packet[20] = REQUEST;
        assert_eq!(answer(&packet, [7, 9]), None);
        assert_eq!(answer(&packet[..27], [7, 9]), None);
    }
}
