//! A packet socket on one interface: whole Ethernet frames out and in.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use nix::sys::time::TimeVal;

/// ARP's number among the protocols of Ethernet, in the network's byte order.
const ARP: u16 = 0x0806_u16.to_be();

/// Receives and sends ARP frames of one interface.
#[derive(Debug)]
pub struct ArpSocket(OwnedFd);

impl ArpSocket {
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        #[expect(
            unsafe_code,
            reason = "nix knows only some of the protocols of packet sockets"
        )]
        // SAFETY: no memory is passed; a descriptor that comes back is nobody else's.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind, i32::from(ARP));
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        bind(&socket, index)?;
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

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: ARP,
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "nix cannot make an address of a packet socket")]
    // SAFETY: the pointer is to a whole `sockaddr_ll` that outlives the call, with its length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
