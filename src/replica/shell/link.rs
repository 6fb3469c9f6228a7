//! TCP connections to the peer: bytes in and out without waiting, cut into packets.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno as Os;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket, sockopt,
};

use crate::replica::buffers::{Buffer, Pool};
use crate::replica::fields::narrow;
use crate::replica::message::{Dialect, Header, Packet, WireError};

/// What is read at once: many small packets, or the beginning of a large one.
const READ_BYTES: usize = 64 << 10;
/// A packet's head, its digest included, is never longer.
const HEAD_BYTES_MAX: usize = 24 + 64;
/// Data from this length on is read to where it stays, and not copied.
const LARGE_BYTES: usize = 16 << 10;
/// Parts handed to the kernel at once.
const PARTS_MAX: usize = 64;
/// How long a call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// How many packets are taken from one connection in one turn, so that the other is heard.
const PACKETS_PER_TURN: usize = 64;

/// A connection, or a call that is not answered yet.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    calling_until: Option<Instant>,
    out: VecDeque<Bytes>,
    /// Bytes that arrived, and which of them are no whole packet yet.
    arrived: Box<[u8]>,
    consumed: usize,
    end: usize,
    /// A large packet whose data is being read in place.
    large: Option<Large>,
    pool: Pool,
}

#[derive(Debug)]
struct Large {
    header: Header,
    head: Vec<u8>,
    data: Buffer,
    filled: usize,
}

/// What became of reading.
#[derive(Debug)]
pub enum Incoming {
    Packet(Packet),
    Closed(String),
    Garbled(String),
}

impl Link {
    /// Calls the peer from the own address.
    pub fn call(
        own: SocketAddr,
        peer: SocketAddr,
        pool: Pool,
        sizes: (u32, u32),
    ) -> io::Result<Self> {
        let fd = tcp_socket(peer)?;
        set_sizes(&fd, sizes);
        let from = SockaddrStorage::from(SocketAddr::new(own.ip(), 0));
        bind(fd.as_raw_fd(), &from)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(peer)) {
            Ok(()) | Err(Os::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(fd);
        let mut link = Self::new(stream, pool)?;
        link.calling_until = Some(Instant::now() + CALL_WITHIN);
        Ok(link)
    }

    /// Takes an accepted connection.
    pub fn new(stream: TcpStream, pool: Pool) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            calling_until: None,
            out: VecDeque::new(),
            arrived: vec![0; 2 * READ_BYTES].into(),
            consumed: 0,
            end: 0,
            large: None,
            pool,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub fn calling(&self) -> Option<Instant> {
        self.calling_until
    }

    /// The call was answered, or was not.
    pub fn call_answered(&mut self) -> io::Result<()> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        self.stream.peer_addr()?;
        self.calling_until = None;
        Ok(())
    }

    pub fn wants_to_write(&self) -> bool {
        self.calling_until.is_some() || !self.out.is_empty()
    }

    /// Lines a packet up; it goes with the next [`Self::write`].
    pub fn queue(&mut self, packet: &Packet, dialect: Dialect, volume: u16) {
        let head = packet.encode_head(dialect, volume);
        let payload = packet.payload().filter(|payload| !payload.is_empty());
        match payload {
            // Small ones in one piece: fewer parts for the kernel to look at.
            Some(payload) if payload.len() < 1024 => {
                let mut whole = head;
                whole.extend_from_slice(payload);
                self.out.push_back(whole.into());
            }
            Some(payload) => {
                self.out.push_back(head.into());
                self.out.push_back(payload.clone());
            }
            None => self.out.push_back(head.into()),
        }
    }

    /// Writes as much as the kernel takes.
    pub fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let parts: Vec<IoSlice<'_>> = self
                .out
                .iter()
                .take(PARTS_MAX)
                .map(|part| IoSlice::new(part))
                .collect();
            match io::Write::write_vectored(&mut &self.stream, &parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn written(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(part) = self.out.front_mut() else {
                return;
            };
            if part.len() > bytes {
                bytes::Buf::advance(part, bytes);
                return;
            }
            bytes -= part.len();
            self.out.pop_front();
        }
    }

    /// Reads what is there, and appends the packets that are whole.
    pub fn read(&mut self, into: &mut Vec<Incoming>) {
        let enough = into.len() + PACKETS_PER_TURN;
        loop {
            match self.cut(into) {
                Ok(()) => {}
                Err(error) => {
                    into.push(Incoming::Garbled(error.to_string()));
                    return;
                }
            }
            if into.len() >= enough {
                return;
            }
            match self.read_more() {
                Ok(0) => {
                    into.push(Incoming::Closed(
                        "the peer closed the connection".to_owned(),
                    ));
                    return;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    into.push(Incoming::Closed(error.to_string()));
                    return;
                }
            }
        }
    }

    /// Whether whole packets were left for the next turn.
    pub fn has_more(&self) -> bool {
        let rest = &self.arrived[self.consumed..self.end];
        match Header::decode(rest) {
            Ok(Some((header, size))) => rest.len() >= size + narrow(header.length.into()),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        if let Some(large) = &mut self.large {
            let room = &mut large.data.as_mut()[large.filled..];
            let read = self.stream.read(room)?;
            large.filled += read;
            return Ok(read);
        }
        if self.consumed == self.end || self.end > READ_BYTES {
            self.arrived.copy_within(self.consumed..self.end, 0);
            self.end -= self.consumed;
            self.consumed = 0;
        }
        let read = self.stream.read(&mut self.arrived[self.end..])?;
        self.end += read;
        Ok(read)
    }

    /// Cuts what arrived into packets.
    fn cut(&mut self, into: &mut Vec<Incoming>) -> Result<(), WireError> {
        if let Some(large) = &self.large {
            if large.filled < large.data.as_ref().len() {
                return Ok(());
            }
            let large = self.large.take().expect("it was there");
            let packet =
                Packet::decode_parts(large.header, Bytes::from(large.head), large.data.freeze())?;
            into.push(Incoming::Packet(packet));
        }
        let enough = into.len() + PACKETS_PER_TURN;
        while into.len() < enough {
            let rest = &self.arrived[self.consumed..self.end];
            let Some((header, size)) = Header::decode(rest)? else {
                break;
            };
            let length = narrow(header.length.into());
            let body = &rest[size..];
            let head_bytes = header.data_offset();
            if let Some(head_bytes) = head_bytes.filter(|_| length >= LARGE_BYTES)
                && body.len() < length
            {
                if body.len() < head_bytes.max(HEAD_BYTES_MAX.min(length)) {
                    break;
                }
                self.begin_large(header, size, head_bytes);
                break;
            }
            if body.len() < length {
                break;
            }
            // Data goes to an aligned place of its own; everything else is small.
            let packet = match head_bytes.filter(|head| length > *head) {
                Some(head) => {
                    let data = self.pool.copy(&body[head..length]);
                    let head = Bytes::copy_from_slice(&body[..head]);
                    Packet::decode_parts(header, head, data)?
                }
                None => Packet::decode(header, Bytes::copy_from_slice(&body[..length]))?,
            };
            self.consumed += size + length;
            into.push(Incoming::Packet(packet));
        }
        Ok(())
    }

    fn begin_large(&mut self, header: Header, size: usize, head_bytes: usize) {
        let start = self.consumed + size;
        let head = self.arrived[start..start + head_bytes].to_vec();
        let there = &self.arrived[start + head_bytes..self.end];
        let length = narrow(header.length.into()) - head_bytes;
        let mut data = self.pool.take(length);
        data.as_mut()[..there.len()].copy_from_slice(there);
        self.large = Some(Large {
            header,
            head,
            data,
            filled: there.len(),
        });
        self.consumed = 0;
        self.end = 0;
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Stream, flags, None)?)
}

/// Sets the sizes of the kernel's buffers (to send, to receive), where they are given.
fn set_sizes(fd: &impl AsFd, (send, receive): (u32, u32)) {
    if send > 0 {
        let _ = setsockopt(fd, sockopt::SndBuf, &narrow(send.into()));
    }
    if receive > 0 {
        let _ = setsockopt(fd, sockopt::RcvBuf, &narrow(receive.into()));
    }
}

/// Listens on the own address, as long as the peer is being looked for.
pub fn listen_on(own: SocketAddr) -> io::Result<TcpListener> {
    /// More than two callers at once are no peers.
    const BACKLOG: i32 = 5;
    let fd = tcp_socket(own)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(own))?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}
