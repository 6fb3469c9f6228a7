//! Packet sockets: whole Ethernet frames of one interface, with the kernel's times.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimestampns};
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt};

/// Bytes of frames the kernel keeps while this program is busy: a second of a busy lab.
const KERNEL_BUFFER_BYTES: usize = 16 << 20;
/// Longest frame: a card that leaves cutting to the other side sends up to 64 KiB at once.
pub const FRAME_BYTES_MAX: usize = 128 << 10;

/// Receives everything that passes an interface, in both directions.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// One frame; its bytes are in the buffer it was received into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer.
    pub captured: usize,
    /// Bytes on the wire.
    pub length: u32,
    /// Since 1970.
    pub at: Duration,
    /// Sent by this host, or passed on to the machine behind a tap.
    pub outgoing: bool,
}

impl PacketSocket {
    /// Opens and begins to receive. The interface is made to take every frame while the socket
    /// lives: a bridge hands up what it passes between its ports only then.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let socket = raw_socket(0)?;
        if setsockopt(&socket, RcvBufForce, &KERNEL_BUFFER_BYTES).is_err() {
            setsockopt(&socket, RcvBuf, &KERNEL_BUFFER_BYTES)?;
        }
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        take_every_frame(&socket, index)?;
        bind(&socket, index, ALL)?;
        Ok(Self(socket))
    }

    /// Receives one frame, if one is there.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut space = nix::cmsg_space!(libc::timespec);
        let room = buffer.len();
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let message =
            match recvmsg::<LinkAddr>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => message,
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        let mut at = Duration::ZERO;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmTimestampns(time) = control {
                at = Duration::new(
                    u64::try_from(time.tv_sec()).unwrap_or(0),
                    u32::try_from(time.tv_nsec()).unwrap_or(0),
                );
            }
        }
        let outgoing = message
            .address
            .is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
        Ok(Some(Received {
            captured: message.bytes.min(room),
            length: u32::try_from(message.bytes).unwrap_or(u32::MAX),
            at,
            outgoing,
        }))
    }

    /// Waits until a frame is there, at most so long.
    pub fn wait(&self, within: Duration) -> io::Result<()> {
        let mut waits = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let milliseconds = u16::try_from(within.as_millis()).unwrap_or(u16::MAX);
        match poll(&mut waits, PollTimeout::from(milliseconds)) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns how many frames the kernel had no room for since the last call.
    pub fn dropped(&self) -> io::Result<u64> {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = length_of(&statistics)?;
        #[expect(
            unsafe_code,
            reason = "nix does not know this option of packet sockets"
        )]
        // SAFETY: the pointer is to a whole `tpacket_stats` that outlives the call, with its length.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        checked(result)?;
        Ok(statistics.tp_drops.into())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Every protocol of Ethernet, in the network's byte order.
const ALL: u16 = 0x0003_u16.to_be();

/// Makes a packet socket for a protocol of Ethernet, given in the network's byte order; none: it receives nothing until it is bound.
pub fn raw_socket(protocol: u16) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    #[expect(
        unsafe_code,
        reason = "nix knows only some of the protocols of packet sockets"
    )]
    // SAFETY: no memory is passed; a descriptor that comes back is nobody else's.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, kind, i32::from(protocol));
        checked(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Binds a packet socket to an interface and a protocol, in the network's byte order.
pub fn bind(socket: &OwnedFd, index: u32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol,
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = length_of(&address)?;
    #[expect(unsafe_code, reason = "nix cannot make an address of a packet socket")]
    // SAFETY: the pointer is to a whole `sockaddr_ll` that outlives the call, with its length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    checked(result)
}

fn take_every_frame(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let wish = libc::packet_mreq {
        mr_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(io::Error::other)?,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let length = length_of(&wish)?;
    #[expect(
        unsafe_code,
        reason = "nix does not know this option of packet sockets"
    )]
    // SAFETY: the pointer is to a whole `packet_mreq` that outlives the call, with its length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const wish).cast(),
            length,
        )
    };
    checked(result)
}

fn length_of<T>(value: &T) -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
