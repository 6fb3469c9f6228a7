//! A packet socket on one interface: whole Ethernet frames out and in.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use nix::sys::time::TimeVal;

use crate::capture::socket::{bind, raw_socket};

/// ARP's number among the protocols of Ethernet, in the network's byte order.
const ARP: u16 = 0x0806_u16.to_be();

/// Receives and sends ARP frames of one interface.
#[derive(Debug)]
pub struct ArpSocket(OwnedFd);

impl ArpSocket {
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let socket = raw_socket(ARP)?;
        bind(&socket, index, ARP)?;
        Ok(Self(socket))
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Receives one frame; `None` when none came in time.
    pub fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        within: Duration,
    ) -> io::Result<Option<&'b [u8]>> {
        // Zero would mean: wait for ever.
        let within = within.max(Duration::from_micros(1));
        let seconds = libc::time_t::try_from(within.as_secs()).unwrap_or(libc::time_t::MAX);
        let timeout = TimeVal::new(seconds, within.subsec_micros().into());
        setsockopt(&self.0, ReceiveTimeout, &timeout)?;
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
