//! Requests answered from a plain file or block device: the export without an engine, to
//! test it and to see what it costs by itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Backend, open};
use crate::replica::buffers::Pool;
use crate::replica::device::{DeviceData, DeviceOp, DeviceReply, DeviceRequest, Errno, Presence};

/// Serves a file under a device's path until `stop` can be read. Says `ready` once the
/// device is there.
pub fn serve(
    backend: Backend,
    file: &str,
    path: &str,
    minor: u32,
    stop: &UnixStream,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let bytes = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
    let pool = Pool::default();
    let mut export = open(backend, path, minor, &pool)?;
    export.present(Presence::Writable { bytes })?;
    ready();
    let mut requests: Vec<DeviceRequest> = Vec::new();
    loop {
        {
            let wake = export.wake().ok_or(io::ErrorKind::NotConnected)?;
            let mut waited = [
                PollFd::new(wake, PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waited, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if waited[1].any().unwrap_or(false) {
                break;
            }
        }
        export.take(&mut requests)?;
        for request in requests.drain(..) {
            let result = perform(&file, &pool, request.op)
                .map_err(|error| Errno(error.raw_os_error().unwrap_or(Errno::IO.0)));
            export.reply(DeviceReply {
                tag: request.tag,
                result,
            });
        }
        export.flush()?;
    }
    export.present(Presence::Absent)
}

fn perform(file: &File, pool: &Pool, op: DeviceOp) -> io::Result<DeviceData> {
    match op {
        DeviceOp::Read { offset, len } => {
            let mut buffer = pool.take(len as usize);
            file.read_exact_at(buffer.as_mut(), offset)?;
            return Ok(DeviceData::Read(buffer.freeze()));
        }
        DeviceOp::Write { offset, data, fua } => {
            file.write_all_at(&data, offset)?;
            if fua {
                file.sync_data()?;
            }
        }
        DeviceOp::Flush => file.sync_data()?,
        DeviceOp::Discard { offset, len } => {
            allocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?;
        }
        DeviceOp::WriteZeroes { offset, len } => {
            allocate(file, FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len)?;
        }
    }
    Ok(DeviceData::Done)
}

fn allocate(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
    let signed =
        |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, signed(offset)?, signed(len)?)?;
    Ok(())
}
