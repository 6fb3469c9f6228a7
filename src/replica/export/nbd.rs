//! NBD: the kernel's network block device over a socket pair, where there is no ublk.
//!
//! One thread lends itself to the kernel for the device's life; everything else happens
//! in the export's own thread. The device does not survive its daemon.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::load_module;
use super::node::Node;
use super::wire::{Kind, REQUEST_BYTES, Request, reply};
use crate::replica::buffers::{Buffer, Pool};
use crate::replica::device::{
    DeviceData, DeviceOp, DeviceReply, DeviceRequest, Errno, Export, Presence,
};

mod ioctl {
    //! The device's commands; all take a plain number.
    use nix::{ioctl_none, ioctl_write_int_bad, request_code_none};
    ioctl_write_int_bad!(set_socket, request_code_none!(0xab, 0));
    ioctl_write_int_bad!(set_block_bytes, request_code_none!(0xab, 1));
    ioctl_none!(do_it, 0xab, 3);
    ioctl_none!(clear_socket, 0xab, 4);
    ioctl_write_int_bad!(set_blocks, request_code_none!(0xab, 7));
    ioctl_none!(disconnect, 0xab, 8);
    ioctl_write_int_bad!(set_flags, request_code_none!(0xab, 10));
}

/// Has flags, read only, flush, FUA, trim, write-zeroes.
const HAS_FLAGS: i32 = 1;
const READ_ONLY: i32 = 1 << 1;
const FEATURES: i32 = HAS_FLAGS | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6;

/// The device counts in these; whole sectors, as DRBD does.
const BLOCK_BYTES: u64 = 512;

/// More than the kernel sends in one request.
const REQUEST_BYTES_MAX: u32 = 32 << 20;

/// The kernel gives a device its size when the lent thread comes to it, long before this.
const START_TIME: Duration = Duration::from_secs(10);
const START_LOOK: Duration = Duration::from_millis(1);

/// The module's own limit of devices is below it.
const DEVICES_MAX: u32 = 1024;

/// A device over NBD.
#[derive(Debug)]
pub(super) struct Nbd {
    node: Node,
    live: Option<Live>,
    pool: Pool,
    generation: u32,
}

#[derive(Debug)]
struct Live {
    device: File,
    socket: UnixStream,
    lent: Option<JoinHandle<io::Result<()>>>,
    presence: Presence,
    /// The handle of each tag handed out, and what is read of the request after them.
    handles: HashMap<u32, (u64, Kind)>,
    next_tag: u32,
    header: Partial,
}

/// A request as far as it was read.
#[derive(Debug, Default)]
struct Partial {
    bytes: [u8; REQUEST_BYTES],
    filled: usize,
    /// A write, its buffer, and how much of it is there.
    write: Option<(Request, Buffer, usize)>,
}

impl Nbd {
    pub(super) fn open(path: &str, minor: u32, pool: &Pool) -> io::Result<Self> {
        load_module("nbd", "/dev/nbd0");
        if !Path::new("/dev/nbd0").exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "this kernel has neither ublk nor NBD: modprobe ublk_drv, or modprobe nbd, says why",
            ));
        }
        Ok(Self {
            node: Node::new(path, minor)?,
            live: None,
            pool: pool.clone(),
            generation: 0,
        })
    }

    #[expect(unsafe_code, reason = "ioctl commands are unsafe to call")]
    fn start(&mut self, presence: Presence, bytes: u64) -> io::Result<()> {
        let path = free_device()?;
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        let (ours, kernels) = UnixStream::pair()?;
        let read_only = match presence {
            Presence::ReadOnly { .. } => READ_ONLY,
            _ => 0,
        };
        let fd = device.as_raw_fd();
        // SAFETY: the device is open, and every command takes a number.
        unsafe {
            ioctl::set_block_bytes(fd, number(BLOCK_BYTES)?)?;
            ioctl::set_blocks(fd, number(bytes / BLOCK_BYTES)?)?;
            ioctl::set_flags(fd, FEATURES | read_only)?;
            ioctl::set_socket(fd, kernels.as_raw_fd())?;
        }
        let lent = device.try_clone()?;
        let lent = thread::Builder::new().name("nbd".into()).spawn(move || {
            // SAFETY: the device is open; the call lasts as long as the device is served.
            let ended = unsafe { ioctl::do_it(lent.as_raw_fd()) };
            drop(kernels);
            ended.map(drop).map_err(io::Error::from)
        })?;
        ours.set_nonblocking(true)?;
        self.generation = self.generation.wrapping_add(1);
        self.live = Some(Live {
            device,
            socket: ours,
            lent: Some(lent),
            presence,
            handles: HashMap::new(),
            next_tag: 0,
            header: Partial::default(),
        });
        self.wait_for_size(&path, bytes)?;
        self.node.point_to(&path)
    }

    /// Until the lent thread has begun, the device is there and has no bytes: whoever opens it
    /// then is told that it is empty.
    fn wait_for_size(&mut self, path: &Path, bytes: u64) -> io::Result<()> {
        let wanted = (bytes / BLOCK_BYTES).to_string();
        let name = path.file_name().unwrap_or_default();
        let size = Path::new("/sys/block").join(name).join("size");
        let begun = Instant::now();
        loop {
            let shown = fs::read_to_string(&size)?;
            if shown.trim() == wanted {
                return Ok(());
            }
            let ended = self.live.as_mut().and_then(Live::ended);
            let late = begun.elapsed() > START_TIME;
            if ended.is_some() || late {
                self.live = None;
                return Err(ended.unwrap_or_else(|| {
                    io::Error::other(format!(
                        "{} has {} sectors instead of {wanted} after {START_TIME:?}",
                        path.display(),
                        shown.trim()
                    ))
                }));
            }
            thread::sleep(START_LOOK);
        }
    }

    fn stop(&mut self) -> io::Result<()> {
        self.node.point_nowhere()?;
        self.live = None;
        Ok(())
    }
}

/// The first device that nobody serves.
fn free_device() -> io::Result<PathBuf> {
    (0..DEVICES_MAX)
        .map(|number| (number, PathBuf::from(format!("/sys/block/nbd{number}"))))
        .take_while(|(_, sysfs)| sysfs.exists())
        .find(|(_, sysfs)| !sysfs.join("pid").exists())
        .map(|(number, _)| PathBuf::from(format!("/dev/nbd{number}")))
        .ok_or_else(|| io::Error::new(io::ErrorKind::ResourceBusy, "every NBD device is in use"))
}

/// A number as the command takes it.
fn number(value: u64) -> io::Result<i32> {
    i32::try_from(value).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{value} sectors are more than NBD's old commands can say (1 TiB)"),
        )
    })
}

impl Live {
    /// Why the kernel no longer serves the device, if it does not.
    fn ended(&mut self) -> Option<io::Error> {
        let lent = self.lent.take_if(|lent| lent.is_finished())?;
        Some(match lent.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::ErrorKind::NotConnected.into(),
        })
    }

    /// Reads the next whole request; `None` when no more is there.
    fn read_request(&mut self, pool: &Pool) -> io::Result<Option<(Request, Option<Buffer>)>> {
        loop {
            if let Some((request, mut buffer, mut filled)) = self.header.write.take() {
                let more = read_some(&mut self.socket, &mut buffer.as_mut()[filled..])?;
                filled += more.unwrap_or(0);
                if filled == buffer.as_ref().len() {
                    return Ok(Some((request, Some(buffer))));
                }
                self.header.write = Some((request, buffer, filled));
                if more.is_none() {
                    return Ok(None);
                }
                continue;
            }
            let filled = self.header.filled;
            let Some(more) = read_some(&mut self.socket, &mut self.header.bytes[filled..])? else {
                return Ok(None);
            };
            self.header.filled += more;
            if self.header.filled < REQUEST_BYTES {
                continue;
            }
            self.header.filled = 0;
            let request = Request::decode(&self.header.bytes).map_err(io::Error::other)?;
            if request.kind != Kind::Write {
                return Ok(Some((request, None)));
            }
            if request.bytes > REQUEST_BYTES_MAX {
                return Err(io::Error::other(format!(
                    "a request of {} bytes",
                    request.bytes
                )));
            }
            let buffer = pool.take(request.bytes as usize);
            self.header.write = Some((request, buffer, 0));
        }
    }
}

/// Reads what is there; `None` when nothing is.
fn read_some(socket: &mut UnixStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    match socket.read(into) {
        Ok(0) if !into.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

/// Writes all of two parts; the kernel always takes answers.
fn write_both(socket: &mut UnixStream, header: &[u8], data: &[u8]) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    let result = (|| {
        let mut slices = [IoSlice::new(header), IoSlice::new(data)];
        let mut rest = &mut slices[..];
        while !rest.is_empty() && rest.iter().any(|slice| !slice.is_empty()) {
            let written = socket.write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    })();
    socket.set_nonblocking(true)?;
    result
}

impl Drop for Live {
    #[expect(unsafe_code, reason = "ioctl commands are unsafe to call")]
    fn drop(&mut self) {
        // SAFETY: the device is open, and these commands take nothing.
        unsafe {
            let _ = ioctl::disconnect(self.device.as_raw_fd());
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            let _ = ioctl::clear_socket(self.device.as_raw_fd());
        }
        if let Some(lent) = self.lent.take() {
            let _ = lent.join();
        }
    }
}

impl Export for Nbd {
    fn present(&mut self, presence: Presence) -> io::Result<()> {
        let shown = self
            .live
            .as_ref()
            .map_or(Presence::Absent, |live| live.presence);
        match (shown, presence) {
            (shown, wanted) if shown == wanted => Ok(()),
            (_, Presence::Absent) => self.stop(),
            (Presence::Writable { .. }, Presence::Writable { bytes }) => {
                self.resize(presence, bytes)
            }
            (shown, Presence::ReadOnly { bytes } | Presence::Writable { bytes }) => {
                if shown != Presence::Absent {
                    self.stop()?;
                }
                self.start(presence, bytes)
            }
        }
    }

    fn in_use(&self) -> bool {
        self.node.in_use()
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.live.as_ref().map(|live| live.socket.as_fd())
    }

    fn take(&mut self, requests: &mut Vec<DeviceRequest>) -> io::Result<()> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        while let Some((request, data)) = live.read_request(&self.pool)? {
            let op = match (request.kind, data) {
                (Kind::Read, _) => DeviceOp::Read {
                    offset: request.offset,
                    len: request.bytes,
                },
                (Kind::Write, Some(data)) => DeviceOp::Write {
                    offset: request.offset,
                    data: data.freeze(),
                    fua: request.fua,
                },
                (Kind::Flush, _) => DeviceOp::Flush,
                (Kind::Trim, _) => DeviceOp::Discard {
                    offset: request.offset,
                    len: request.bytes.into(),
                },
                (Kind::WriteZeroes, _) => DeviceOp::WriteZeroes {
                    offset: request.offset,
                    len: request.bytes.into(),
                },
                // Is answered by the end.
                (Kind::Disconnect | Kind::Write, _) => continue,
            };
            let tag = live.next_tag;
            live.next_tag = live.next_tag.wrapping_add(1);
            live.handles.insert(tag, (request.handle, request.kind));
            requests.push(DeviceRequest {
                tag: u64::from(self.generation) << 32 | u64::from(tag),
                op,
            });
        }
        Ok(())
    }

    fn reply(&mut self, answer: DeviceReply) {
        let Some(live) = &mut self.live else {
            return;
        };
        let tag = u32::try_from(answer.tag & u64::from(u32::MAX)).expect("it was masked");
        if answer.tag >> 32 != u64::from(self.generation) {
            return;
        }
        let Some((handle, _)) = live.handles.remove(&tag) else {
            return;
        };
        let (error, data) = match &answer.result {
            Ok(DeviceData::Done) => (0, &[][..]),
            Ok(DeviceData::Read(data)) => (0, &data[..]),
            Err(Errno(number)) => (number.unsigned_abs(), &[][..]),
        };
        // A broken socket shows at the next take.
        let _ = write_both(&mut live.socket, &reply(handle, error), data);
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Nbd {
    #[expect(unsafe_code, reason = "ioctl commands are unsafe to call")]
    fn resize(&mut self, presence: Presence, bytes: u64) -> io::Result<()> {
        if let Some(live) = &mut self.live {
            // SAFETY: the device is open, and the command takes a number.
            unsafe { ioctl::set_blocks(live.device.as_raw_fd(), number(bytes / BLOCK_BYTES)?)? };
            live.presence = presence;
        }
        Ok(())
    }
}
