//! The peer's writes and reads: done in the order they came, acknowledged when done, and
//! stable before the barrier behind them is acknowledged.

use bytes::Bytes;

use super::core::{Breakage, Engine, Purpose, range};
use super::metadata::length32;
use super::requests::with_digest;
use super::session::AfterPing;
use super::types::DiskOp;
use crate::replica::device::Errno;
use crate::replica::digest;
use crate::replica::fields::{SECTOR, wide};
use crate::replica::message::{
    AckKind, AreaKind, BlockAck, BlockId, BlockRequest, DATA_BYTES_MAX, DataHead, DataKind, Packet,
    TRIM_BYTES_MAX, WriteFlags,
};
use crate::replica::state::{Connection, Disk, Role};

/// A write of the peer that is under way.
#[derive(Debug)]
pub(super) struct PeerWrite {
    /// Of the connection it came on.
    session: u64,
    head: DataHead,
    bytes: u32,
}

impl Engine {
    pub(super) fn peer_write(&mut self, head: DataHead, data: Bytes) {
        let data = match self.checked(data) {
            Ok(data) => data,
            Err(why) => return self.protocol_error(why),
        };
        let bytes = length32(wide(data.len()));
        let op = DiskOp::Write {
            byte: head.sector.saturating_mul(SECTOR),
            data,
            stable: head.flags.has(WriteFlags::FUA),
        };
        self.write_for_peer(head, bytes, op, DATA_BYTES_MAX);
    }

    pub(super) fn peer_area(&mut self, kind: AreaKind, head: DataHead, bytes: u32) {
        let op = DiskOp::Zero {
            byte: head.sector.saturating_mul(SECTOR),
            len: u64::from(bytes),
            unmap: kind == AreaKind::Trim || head.flags.has(WriteFlags::DISCARD),
        };
        self.write_for_peer(head, bytes, op, TRIM_BYTES_MAX);
    }

    fn write_for_peer(&mut self, head: DataHead, bytes: u32, op: DiskOp, most: u64) {
        if let Err(why) = self.fits_device(head.sector, bytes, most) {
            self.protocol_error(why);
            return;
        }
        let Some(session) = &mut self.session else {
            return;
        };
        session.epoch_count += 1;
        session.epoch_active += 1;
        self.counters.unacknowledged += 1;
        self.counters.received_kib += u64::from(bytes) / 1024;
        let write = PeerWrite {
            session: session.serial,
            head,
            bytes,
        };
        if self.disk.is_none() || self.state.disk < Disk::Inconsistent {
            self.peer_write_done(&write, &Err(Errno::IO));
            return;
        }
        if head.flags.has(WriteFlags::ACK_RECEIVED) {
            self.acknowledge(AckKind::Received, head.sector, head.block_id, bytes);
        }
        let sectors = range(head.sector, bytes);
        if self.state.peer_disk < Disk::Inconsistent && self.state.peer == Role::Primary {
            // The only disk there is: its writes must be found after a crash, and no log is kept
            // of them.
            self.mark_on_disk(sectors.clone());
        } else if !self.established() {
            // The peer is on its way out, and whether it has this itself it cannot say any more.
            self.mark(sectors.clone());
        }
        if sectors.is_empty() {
            self.peer_write_done(&write, &Ok(Bytes::new()));
            return;
        }
        self.disk_io(Some(sectors), op, Purpose::PeerWrite(write));
    }

    /// Whether a place on the wire is one of the device.
    pub(super) fn fits_device(
        &self,
        sector: u64,
        bytes: u32,
        most: u64,
    ) -> Result<(), &'static str> {
        let bytes = u64::from(bytes);
        if !bytes.is_multiple_of(SECTOR) {
            return Err("a length that is not in whole sectors");
        }
        if bytes > most {
            return Err("more at once than a packet may have");
        }
        match sector.checked_add(bytes / SECTOR) {
            Some(end) if end <= self.sectors => Ok(()),
            _ => Err("sectors past the end of the device"),
        }
    }

    /// Takes the digest off, where one is configured, and compares it.
    pub(super) fn checked(&self, mut data: Bytes) -> Result<Bytes, &'static str> {
        let Some(algorithm) = self.session.as_ref().and_then(|session| session.integrity) else {
            return Ok(data);
        };
        if data.len() < algorithm.bytes() {
            return Err("data without its digest");
        }
        let expected = data.split_to(algorithm.bytes());
        if digest::same(&algorithm.of(&data), &expected) {
            Ok(data)
        } else {
            Err("data whose digest is another: it was changed on its way")
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        kind: AckKind,
        sector: u64,
        block_id: BlockId,
        bytes: u32,
    ) {
        if let Some(session) = &mut self.session {
            let sequence = session.next_sequence();
            self.send(Packet::Ack(
                kind,
                BlockAck {
                    sector,
                    block_id,
                    bytes,
                    sequence,
                },
            ));
        }
    }

    pub(super) fn peer_write_done(&mut self, write: &PeerWrite, result: &Result<Bytes, Errno>) {
        let sectors = range(write.head.sector, write.bytes);
        let flags = write.head.flags;
        let of_this_session = self
            .session
            .as_ref()
            .is_some_and(|session| session.serial == write.session);
        if result.is_err() && self.disk.is_some() {
            self.mark(sectors.clone());
            self.local_error("a write of the peer failed");
        }
        if !of_this_session {
            return;
        }
        self.counters.unacknowledged = self.counters.unacknowledged.saturating_sub(1);
        let syncing = self.state.connection >= Connection::SyncSource
            && self.state.connection <= Connection::PausedSyncT;
        let (sector, id, bytes) = (write.head.sector, write.head.block_id, write.bytes);
        if result.is_err() {
            self.acknowledge(AckKind::WriteFailed, sector, id, bytes);
        } else if flags.has(WriteFlags::ACK_WRITTEN) {
            if syncing && flags.has(WriteFlags::MAY_SET_IN_SYNC) {
                let cleared = self.clear(sectors);
                self.resync_progressed(cleared);
                self.acknowledge(AckKind::ResyncWritten, sector, id, bytes);
            } else {
                self.acknowledge(AckKind::Written, sector, id, bytes);
            }
        }
        if let Some(session) = &mut self.session {
            session.epoch_active = session.epoch_active.saturating_sub(1);
            if result.is_ok() {
                session.epoch_written.push((sector, id, bytes));
            }
        }
        self.close_peer_epoch();
    }

    /// The disk goes, and what it acknowledged since the last barrier may not be on its medium:
    /// the peer takes back that it is.
    pub(super) fn take_back_epoch(&mut self) {
        let written = self
            .session
            .as_mut()
            .map(|session| std::mem::take(&mut session.epoch_written));
        for (sector, id, bytes) in written.into_iter().flatten() {
            self.acknowledge(AckKind::WriteFailed, sector, id, bytes);
        }
    }

    /// Everything before the barrier must be on the medium before it is acknowledged, and
    /// before anything after it is written.
    pub(super) fn peer_barrier(&mut self, barrier: u32) {
        if let Some(session) = &mut self.session {
            session.closing_epoch = Some(barrier);
            self.close_peer_epoch();
        }
    }

    fn close_peer_epoch(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        let Some(barrier) = session.closing_epoch else {
            return;
        };
        if session.epoch_active > 0 || session.flushing {
            return;
        }
        let (serial, count) = (session.serial, session.epoch_count);
        session.flushing = true;
        // A disk on its way out was flushed, or what it had not flushed was taken back.
        let flushes = self.state.disk >= Disk::Inconsistent
            && self
                .disk_settings()
                .is_some_and(|settings| settings.disk_flushes);
        if flushes && count > 0 && self.breakage != Some(Breakage::AcknowledgeBeforeFlush) {
            let purpose = Purpose::EpochFlush {
                session: serial,
                barrier,
                count,
            };
            self.disk_io(None, DiskOp::Flush, purpose);
        } else {
            self.epoch_flushed(serial, barrier, count, &Ok(Bytes::new()));
        }
    }

    pub(super) fn epoch_flushed(
        &mut self,
        serial: u64,
        barrier: u32,
        count: u32,
        result: &Result<Bytes, Errno>,
    ) {
        let current = self.session.as_ref().is_some_and(|session| {
            session.flushing && session.serial == serial && session.closing_epoch == Some(barrier)
        });
        if !current {
            return;
        }
        if result.is_err() {
            self.take_back_epoch();
            if self.disk.is_some() {
                self.local_error("a flush failed");
            }
        }
        let Some(session) = &mut self.session else {
            return;
        };
        session.epoch_written.clear();
        session.flushing = false;
        session.closing_epoch = None;
        session.epoch_count = 0;
        let remind = std::mem::take(&mut session.remind);
        self.send(Packet::BarrierAck { barrier, count });
        if remind {
            self.after_ping(AfterPing::Remind);
        }
    }

    pub(super) fn peer_read(&mut self, request: BlockRequest) {
        let BlockRequest {
            sector,
            block_id,
            bytes,
        } = request;
        if let Err(why) = self.fits_device(sector, bytes, DATA_BYTES_MAX) {
            self.protocol_error(why);
            return;
        }
        if self.disk.is_none() || self.state.disk != Disk::UpToDate {
            self.acknowledge(AckKind::ReadFailed, sector, block_id, bytes);
            return;
        }
        let op = DiskOp::Read {
            byte: sector * SECTOR,
            len: bytes,
        };
        let purpose = Purpose::PeerRead {
            sector,
            block_id,
            bytes,
        };
        self.disk_io(Some(range(sector, bytes)), op, purpose);
    }

    pub(super) fn peer_read_done(
        &mut self,
        sector: u64,
        block_id: BlockId,
        bytes: u32,
        result: Result<Bytes, Errno>,
    ) {
        if let Ok(data) = result {
            self.send_data(DataKind::ReadReply, sector, block_id, &data);
        } else {
            self.acknowledge(AckKind::ReadFailed, sector, block_id, bytes);
            self.local_error("a read for the peer failed");
        }
    }

    /// Answers with data.
    pub(super) fn send_data(
        &mut self,
        kind: DataKind,
        sector: u64,
        block_id: BlockId,
        data: &Bytes,
    ) {
        let Some(session) = &self.session else {
            return;
        };
        self.counters.sent_kib += wide(data.len()) / 1024;
        let data = match session.integrity {
            Some(algorithm) => with_digest(algorithm, data),
            None => data.clone(),
        };
        let head = DataHead {
            sector,
            block_id,
            sequence: 0,
            flags: WriteFlags::default(),
        };
        self.send(Packet::Data(kind, head, data));
    }
}
