//! The kernel's rtnetlink socket: one request, its answers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::error::ModuleError;
use crate::task::link::{Address, Link};
use crate::task::rtnetlink::{Answer, Request, decode, encode, is_dump};

/// A dump's datagrams are at most this long.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// The kernel answers at once; loading a tunnel's module takes it seconds on slow guests.
const ANSWER_TIMEOUT_SECONDS: i64 = 30;

#[derive(Debug)]
pub struct RouteSocket {
    socket: OwnedFd,
    sequence: u32,
}

impl RouteSocket {
    pub fn open() -> Result<Self, ModuleError> {
        let failed = || ModuleError::errno("open a netlink socket");
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .map_err(failed())?;
        let timeout = TimeVal::seconds(ANSWER_TIMEOUT_SECONDS);
        setsockopt(&socket, ReceiveTimeout, &timeout).map_err(failed())?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed())?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    pub fn links(&mut self) -> Result<Vec<Link>, ModuleError> {
        let answers = self.ask(&Request::Links, "list the interfaces")?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            Answer::Link(link) => Some(link),
            _ => None,
        });
        Ok(links.collect())
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>, ModuleError> {
        let answers = self.ask(&Request::Addresses, "list the addresses")?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            Answer::Address(address) => Some(address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Sends a change and waits for the kernel's verdict; `attempt` names it in errors.
    pub fn change(&mut self, request: &Request, attempt: &str) -> Result<(), ModuleError> {
        self.ask(request, attempt).map(drop)
    }

    fn ask(&mut self, request: &Request, attempt: &str) -> Result<Vec<Answer>, ModuleError> {
        self.sequence += 1;
        let message = encode(request, self.sequence);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())
            .map_err(ModuleError::errno(attempt))?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
                .map_err(ModuleError::errno(attempt))?;
            let decoded = decode(&buffer[..length])
                .map_err(|error| ModuleError::system(attempt)(io::Error::other(error)))?;
            for answer in decoded {
                match answer {
                    Answer::Done => return Ok(answers),
                    Answer::Verdict(0) if !is_dump(request) => return Ok(answers),
                    Answer::Verdict(0) => {}
                    Answer::Verdict(code) => {
                        let source = io::Error::from_raw_os_error(code);
                        return Err(ModuleError::system(attempt)(source));
                    }
                    other => answers.push(other),
                }
            }
        }
    }
}
