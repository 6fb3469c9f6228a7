//! The application's requests: written here and there, answered when the protocol allows.
//!
//! A write passes: exchange on its range over → extents in the activity log → range free →
//! written here, sent there → answered → confirmed by the peer's next barrier → forgotten.
//! Until it is forgotten, a lost connection marks it as out of sync.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use bytes::Bytes;

use super::core::{Breakage, Engine, Pending, Purpose};
use super::metadata::{bytes_of, extents, length32};
use super::session::Session;
use super::types::{Action, DiskOp};
use crate::replica::device::{DeviceData, DeviceOp, DeviceReply, DeviceRequest, Errno};
use crate::replica::fields::{SECTOR, field32, wide};
use crate::replica::message::{
    AckKind, AreaKind, BlockAck, BlockId, BlockRequest, DATA_BYTES_MAX, DataHead, DataKind,
    FeatureFlags, NoticeKind, Packet, ReplicationProtocol, RequestKind, TRIM_BYTES_MAX, WriteFlags,
};
use crate::replica::settings::OnIoError;
use crate::replica::state::{Connection, Disk, Role, State};

/// No such medium: what the kernel says to who opens a Secondary.
const WRONG_MEDIUM: Errno = Errno(124);

/// One request that is not forgotten yet.
#[derive(Debug)]
pub(super) struct AppRequest {
    tag: u64,
    op: AppOp,
    pub sectors: Range<u64>,
    local: Part,
    remote: Part,
    /// Its extents, held in the activity log.
    pub extents: Option<RangeInclusive<u32>>,
    /// The number of the epoch it was sent in, until the peer confirms that.
    epoch: Option<u32>,
    started: Duration,
    replied: bool,
    /// A later write went to its place on this disk alone: whatever the peer still says of
    /// this one, the blocks differ.
    overtaken: bool,
}

#[derive(Debug)]
enum AppOp {
    Read(Option<Bytes>),
    Write { data: Bytes, fua: bool },
    Zero { unmap: bool },
    Flush,
}

/// How far one side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    None,
    Pending,
    Done,
    Failed,
}

/// Where a read was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadTry {
    Local,
    Remote,
}

/// Own writes between two barriers.
#[derive(Debug)]
pub(super) struct Epoch {
    number: u32,
    writes: Vec<u64>,
    /// Flushes that are done when the peer has all of it on its medium.
    flushes: Vec<u64>,
    closed: bool,
}

impl Engine {
    /// A request of an application.
    pub(super) fn device_request(&mut self, request: DeviceRequest) {
        if !self.takes_requests() || !self.suspended_requests.is_empty() {
            self.suspended_requests.push(request);
            return;
        }
        let tag = request.tag;
        if let Err(errno) = self.accept(request) {
            self.act(Action::Reply(DeviceReply {
                tag,
                result: Err(errno),
            }));
        }
    }

    fn takes_requests(&self) -> bool {
        let suspended = self.state.suspended != crate::replica::state::Suspended::default();
        !suspended && self.state.admits_requests()
    }

    /// Goes on with what came while input and output was suspended, or might not begin.
    pub(super) fn resume_requests(&mut self) {
        if self.suspended_requests.is_empty() || !self.takes_requests() {
            return;
        }
        for request in std::mem::take(&mut self.suspended_requests) {
            self.device_request(request);
        }
    }

    fn accept(&mut self, request: DeviceRequest) -> Result<(), Errno> {
        let (offset, length, op, most) = match request.op {
            DeviceOp::Read { offset, len } => {
                (offset, u64::from(len), AppOp::Read(None), DATA_BYTES_MAX)
            }
            DeviceOp::Write { offset, data, fua } => {
                let length = wide(data.len());
                (offset, length, AppOp::Write { data, fua }, DATA_BYTES_MAX)
            }
            DeviceOp::Discard { offset, len } => {
                (offset, len, AppOp::Zero { unmap: true }, TRIM_BYTES_MAX)
            }
            DeviceOp::WriteZeroes { offset, len } => {
                (offset, len, AppOp::Zero { unmap: false }, TRIM_BYTES_MAX)
            }
            DeviceOp::Flush => (0, 0, AppOp::Flush, 0),
        };
        let aligned = offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR);
        let end = offset.checked_add(length).ok_or(Errno::INVALID)?;
        if !aligned || length > most || end > self.sectors * SECTOR {
            return Err(Errno::INVALID);
        }
        let write = !matches!(op, AppOp::Read(_));
        if self.state.role != Role::Primary {
            return Err(if write {
                Errno::READ_ONLY
            } else {
                WRONG_MEDIUM
            });
        }
        if matches!(op, AppOp::Zero { .. }) && !self.peer_can_zero() {
            return Err(Errno::NOT_SUPPORTED);
        }
        let id = self.fresh_id();
        let request = AppRequest {
            tag: request.tag,
            op,
            sectors: offset / SECTOR..end / SECTOR,
            local: Part::None,
            remote: Part::None,
            extents: None,
            epoch: None,
            started: self.now,
            replied: false,
            overtaken: false,
        };
        let flush = matches!(request.op, AppOp::Flush);
        self.requests.insert(id, request);
        if flush {
            self.start_flush(id);
        } else if write {
            self.queue_write(id);
        } else {
            self.start_read(id);
        }
        Ok(())
    }

    /// Without a packet for it, zeroes must come as data.
    fn peer_can_zero(&self) -> bool {
        self.session.as_ref().is_none_or(|session| {
            session.dialect.features.has(FeatureFlags::WZEROES)
                && session.dialect.features.has(FeatureFlags::WSAME)
        })
    }

    fn start_read(&mut self, id: u64) {
        let sectors = self.requests[&id].sectors.clone();
        let local = self
            .disk
            .as_ref()
            .is_some_and(|disk| match self.state.disk {
                Disk::UpToDate => true,
                Disk::Inconsistent => !disk.bitmap.any_set(sectors.clone()),
                _ => false,
            });
        if local {
            self.request_mut(id).local = Part::Pending;
            let op = DiskOp::Read {
                byte: sectors.start * SECTOR,
                len: length32(bytes_of(&sectors)),
            };
            self.disk_io(None, op, Purpose::AppRead(id));
        } else {
            self.read_from_peer(id);
        }
    }

    fn request_mut(&mut self, id: u64) -> &mut AppRequest {
        self.requests.get_mut(&id).expect("a request in progress")
    }

    fn read_from_peer(&mut self, id: u64) {
        let possible = self.established() && self.state.peer_disk == Disk::UpToDate;
        let now = self.now;
        let request = self.request_mut(id);
        if !possible {
            request.remote = Part::Failed;
            self.advance_request(id);
            return;
        }
        request.remote = Part::Pending;
        request.started = now;
        let packet = Packet::Request(
            RequestKind::Read,
            BlockRequest {
                sector: request.sectors.start,
                block_id: BlockId(id),
                bytes: length32(bytes_of(&request.sectors)),
            },
        );
        self.send(packet);
    }

    pub(super) fn app_read_done(&mut self, id: u64, from: ReadTry, result: Result<Bytes, Errno>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let part = if result.is_ok() {
            Part::Done
        } else {
            Part::Failed
        };
        match from {
            ReadTry::Local => request.local = part,
            ReadTry::Remote => request.remote = part,
        }
        match result {
            Ok(data) => request.op = AppOp::Read(Some(data)),
            Err(_) if from == ReadTry::Local => {
                // The next one need not try here, and a resync writes the place anew.
                let sectors = request.sectors.clone();
                self.mark(sectors);
                self.local_error("an application's read failed");
                self.read_from_peer(id);
                return;
            }
            Err(_) => {}
        }
        self.advance_request(id);
    }

    pub(super) fn read_reply(&mut self, head: DataHead, data: Bytes) {
        let data = match self.checked(data) {
            Ok(data) => data,
            Err(why) => return self.protocol_error(why),
        };
        let id = head.block_id.0;
        let fits = self.requests.get(&id).is_some_and(|request| {
            request.remote == Part::Pending
                && matches!(request.op, AppOp::Read(_))
                && request.sectors.start == head.sector
                && bytes_of(&request.sectors) == wide(data.len())
        });
        if fits {
            self.counters.received_kib += wide(data.len()) / 1024;
            self.app_read_done(id, ReadTry::Remote, Ok(data));
        } else {
            self.protocol_error("data that nobody asked for");
        }
    }

    fn start_flush(&mut self, id: u64) {
        self.close_epoch();
        if self.state.disk != Disk::UpToDate {
            self.flush_at_peer(id);
        }
        if self.disk.is_some() && self.state.disk >= Disk::Inconsistent {
            self.request_mut(id).local = Part::Pending;
            self.disk_io(None, DiskOp::Flush, Purpose::AppFlush(id));
        } else {
            self.advance_request(id);
        }
    }

    /// Where the data here is not all there is, a flush waits for the peer to have what was
    /// written so far on its medium.
    fn flush_at_peer(&mut self, id: u64) {
        let possible = self.established() && self.state.peer_disk == Disk::UpToDate;
        let epoch = self
            .session
            .as_mut()
            .filter(|_| possible)
            .and_then(|session| session.epochs.iter_mut().rfind(|epoch| epoch.closed));
        let remote = match epoch {
            Some(epoch) => {
                epoch.flushes.push(id);
                Part::Pending
            }
            None if possible => Part::Done,
            None => Part::Failed,
        };
        self.request_mut(id).remote = remote;
    }

    pub(super) fn app_flush_done(&mut self, id: u64, result: &Result<Bytes, Errno>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.local = if result.is_ok() {
            Part::Done
        } else {
            Part::Failed
        };
        if result.is_err() {
            self.local_error("a flush failed");
        }
        let here = result.is_ok() && self.state.disk == Disk::UpToDate;
        if !here && self.request_mut(id).remote == Part::None {
            // What was written and not flushed may be lost here; the peer has it.
            self.close_epoch();
            self.flush_at_peer(id);
        }
        self.advance_request(id);
    }

    fn queue_write(&mut self, id: u64) {
        if self.waiting_writes.is_empty() && self.admit_write(id) {
            return;
        }
        self.waiting_writes.push_back(id);
    }

    /// Tries again what waited for room in the activity log or for an exchange.
    pub(super) fn retry_waiting_writes(&mut self) {
        while let Some(id) = self.waiting_writes.front().copied() {
            if self.requests.contains_key(&id) && !self.admit_write(id) {
                return;
            }
            self.waiting_writes.pop_front();
        }
    }

    /// Enters a write in the log and takes its range; false when it must wait.
    fn admit_write(&mut self, id: u64) -> bool {
        let sectors = self.requests[&id].sectors.clone();
        if self.exchange_overlaps(&sectors) {
            return false;
        }
        if self.disk.is_some() && self.state.disk >= Disk::Inconsistent {
            let extents = extents(&sectors);
            if !self.enter_log(extents.clone()) {
                return false;
            }
            self.request_mut(id).extents = Some(extents);
        }
        if self.locks.take(sectors, id) {
            self.start_write(id);
        }
        true
    }

    fn replicates(&self) -> bool {
        let state = self.state;
        state.peer_disk == Disk::UpToDate && self.established()
            || state.peer_disk >= Disk::Inconsistent
                && state.connection >= Connection::WFBitMapT
                && state.connection <= Connection::PausedSyncT
    }

    /// Writes here and sends there; the range is free, the log is written.
    pub(super) fn start_write(&mut self, id: u64) {
        let replicates = self.replicates();
        let announces = matches!(
            self.state.connection,
            Connection::WFBitMapS | Connection::Ahead
        );
        // Without a peer to send to, only good data may be written to: on any other disk the
        // peer's older data will win, and what was answered would be lost.
        let local = self.disk.is_some()
            && (self.state.disk == Disk::UpToDate
                || replicates && self.state.disk >= Disk::Inconsistent);
        let now = self.now;
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.started = now;
        let sectors = request.sectors.clone();
        if local {
            request.local = Part::Pending;
            let op = match &request.op {
                AppOp::Write { data, fua } => DiskOp::Write {
                    byte: sectors.start * SECTOR,
                    data: data.clone(),
                    stable: *fua,
                },
                AppOp::Zero { unmap } => DiskOp::Zero {
                    byte: sectors.start * SECTOR,
                    len: bytes_of(&sectors),
                    unmap: *unmap,
                },
                AppOp::Read(_) | AppOp::Flush => unreachable!("only writes take ranges"),
            };
            let io = self.fresh_id();
            let pending = Pending {
                range: None,
                purpose: Purpose::AppWrite(id),
                session: self.session_serial(),
            };
            self.io.insert(io, pending);
            self.submit(io, op);
        } else {
            request.local = Part::None;
        }
        if replicates {
            self.send_write(id);
            if !local {
                // On a disk that is just being attached it is missing.
                self.mark(sectors.clone());
            }
        } else {
            self.mark(sectors.clone());
            self.overtake(&sectors);
            if announces {
                let bytes = length32(bytes_of(&sectors));
                self.send(Packet::Notice(NoticeKind::OutOfSync, sectors.start, bytes));
            }
            if !local {
                self.request_mut(id).local = Part::Failed;
            }
        }
        if !local {
            self.release(&sectors);
        }
        self.advance_request(id);
    }

    /// Acknowledgements that are still on their way speak of what was there before.
    fn overtake(&mut self, sectors: &Range<u64>) {
        for request in self.requests.values_mut() {
            let common = request.sectors.start < sectors.end && sectors.start < request.sectors.end;
            request.overtaken |= request.epoch.is_some() && common;
        }
    }

    fn send_write(&mut self, id: u64) {
        let syncing = self.state.connection >= Connection::SyncSource
            && self.state.connection <= Connection::PausedSyncT;
        let Some(net) = &self.net else {
            return;
        };
        let (protocol, most) = (net.protocol, net.max_epoch_size);
        let Some(session) = &mut self.session else {
            return;
        };
        let request = self.requests.get_mut(&id).expect("a request in progress");
        request.epoch = Some(session.open_epoch(id));
        request.remote = match protocol {
            ReplicationProtocol::A => Part::Done,
            ReplicationProtocol::B | ReplicationProtocol::C => Part::Pending,
        };
        let head = DataHead {
            sector: request.sectors.start,
            block_id: BlockId(id),
            sequence: session.next_sequence(),
            flags: WriteFlags::default()
                .with(WriteFlags::MAY_SET_IN_SYNC, syncing)
                .with(
                    WriteFlags::ACK_WRITTEN,
                    syncing || protocol == ReplicationProtocol::C,
                )
                .with(WriteFlags::ACK_RECEIVED, protocol == ReplicationProtocol::B),
        };
        let bytes = bytes_of(&request.sectors);
        let full = session
            .epochs
            .back()
            .is_some_and(|epoch| wide(epoch.writes.len()) >= u64::from(most));
        let packet = match &request.op {
            AppOp::Write { data, fua } => {
                let flags = head.flags.with(WriteFlags::FUA, *fua);
                let data = match session.integrity {
                    Some(algorithm) => with_digest(algorithm, data),
                    None => data.clone(),
                };
                Packet::Data(DataKind::Write, DataHead { flags, ..head }, data)
            }
            AppOp::Zero { unmap } => {
                let flags = head
                    .flags
                    .with(WriteFlags::ZEROES, true)
                    .with(WriteFlags::DISCARD, *unmap);
                Packet::Area(AreaKind::Zeroes, DataHead { flags, ..head }, field32(bytes))
            }
            AppOp::Read(_) | AppOp::Flush => unreachable!("only writes are replicated"),
        };
        self.counters.sent_kib += bytes / 1024;
        self.send(packet);
        if full {
            self.close_epoch();
        }
    }

    /// Ends the open epoch with a barrier, if anything was sent in it.
    fn close_epoch(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        let Some(epoch) = session.epochs.back_mut().filter(|epoch| !epoch.closed) else {
            return;
        };
        epoch.closed = true;
        let number = epoch.number;
        self.send(Packet::Barrier(number));
    }

    pub(super) fn app_write_done(&mut self, id: u64, result: &Result<Bytes, Errno>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let sectors = request.sectors.clone();
        request.local = if result.is_ok() {
            Part::Done
        } else {
            Part::Failed
        };
        if result.is_err() {
            self.mark(sectors.clone());
            self.local_error("an application's write failed");
        }
        self.release(&sectors);
        self.advance_request(id);
    }

    /// An error of the disk, as the configuration wants it dealt with.
    pub(super) fn local_error(&mut self, what: &str) {
        let Some(policy) = self.disk_settings().map(|disk| disk.on_io_error) else {
            return;
        };
        match policy {
            // Where nobody has better data, an error is the application's to deal with, and no
            // reason to let the peer's older data win.
            OnIoError::PassOn => {
                if self.state.disk > Disk::Inconsistent && self.state.peer_disk == Disk::UpToDate {
                    self.log(format!("{what}: the disk is Inconsistent"));
                    self.change(State {
                        disk: Disk::Inconsistent,
                        ..self.state
                    });
                }
            }
            OnIoError::Detach | OnIoError::CallLocalIoError => self.lose_disk(what),
        }
    }

    /// Answers a request when both sides are far enough, and forgets it when nothing of it
    /// is open any more.
    fn advance_request(&mut self, id: u64) {
        let state = self.state;
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if request.local == Part::Pending || request.remote == Part::Pending {
            return;
        }
        if !request.replied {
            request.replied = true;
            // A write counts where the data is good: the other disk's will be replaced.
            let here = request.local == Part::Done && state.disk == Disk::UpToDate;
            let there = request.remote == Part::Done && state.peer_disk == Disk::UpToDate;
            let succeeded = match request.op {
                AppOp::Read(_) => request.local == Part::Done || request.remote == Part::Done,
                AppOp::Flush => here || request.remote == Part::Done,
                AppOp::Write { .. } | AppOp::Zero { .. } => here || there,
            };
            let result = match (&mut request.op, succeeded) {
                (AppOp::Read(data), true) => data.take().map(DeviceData::Read).ok_or(Errno::IO),
                (_, true) => Ok(DeviceData::Done),
                (_, false) => Err(Errno::IO),
            };
            let (tag, epoch) = (request.tag, request.epoch);
            self.act(Action::Reply(DeviceReply { tag, result }));
            let open = self
                .session
                .as_ref()
                .and_then(|session| session.epochs.back())
                .filter(|last| !last.closed)
                .map(|last| last.number);
            if epoch.is_some() && epoch == open {
                self.close_epoch();
            }
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: u64) {
        let over = self
            .requests
            .get(&id)
            .is_some_and(|request| request.replied && request.epoch.is_none());
        if !over {
            return;
        }
        let request = self.requests.remove(&id).expect("it was there");
        if let (Some(extents), Some(backing)) = (request.extents, &mut self.disk) {
            backing.log.leave(extents);
        }
    }

    /// The peer's word on a write, a resync's block, or a read that failed there.
    pub(super) fn write_acknowledged(&mut self, kind: AckKind, ack: BlockAck) {
        if ack.block_id == BlockId::SYNCER {
            self.resync_acknowledged(kind, ack);
            return;
        }
        let id = ack.block_id.0;
        let known = self.requests.get(&id).is_some_and(|request| {
            request.sectors.start == ack.sector
                && request.remote != Part::None
                && !matches!(request.op, AppOp::Flush)
        });
        if !known {
            if kind == AckKind::WriteFailed {
                self.peer_missed = true;
                self.mark(super::core::range(ack.sector, ack.bytes));
            } else {
                self.protocol_error("an acknowledgement of something that was not sent");
            }
            return;
        }
        let request = self.requests.get_mut(&id).expect("it is known");
        let sectors = request.sectors.clone();
        match kind {
            AckKind::Received | AckKind::Written | AckKind::Superseded => {
                request.remote = Part::Done;
            }
            AckKind::ResyncWritten => {
                request.remote = Part::Done;
                // Only what both disks have, and have last, is in sync.
                if request.local != Part::Failed && !request.overtaken {
                    self.clear(sectors);
                }
            }
            AckKind::WriteFailed => {
                request.remote = Part::Failed;
                self.peer_missed = true;
                self.mark(sectors);
            }
            AckKind::ReadFailed => {
                self.app_read_done(id, ReadTry::Remote, Err(Errno::IO));
                return;
            }
            _ => {
                self.protocol_error("an answer that needs two Primaries");
                return;
            }
        }
        self.advance_request(id);
    }

    /// The peer has everything of an epoch on its disk.
    pub(super) fn barrier_acknowledged(&mut self, barrier: u32, count: u32) {
        let Some(session) = &mut self.session else {
            return;
        };
        let fits = session.epochs.front().is_some_and(|epoch| {
            epoch.closed && epoch.number == barrier && wide(epoch.writes.len()) == u64::from(count)
        });
        if !fits {
            self.protocol_error("a barrier's acknowledgement that fits no epoch");
            return;
        }
        let epoch = session.epochs.pop_front().expect("it fits");
        for id in epoch.writes {
            if let Some(request) = self.requests.get_mut(&id) {
                request.epoch = None;
            }
            self.forget_if_over(id);
        }
        for id in epoch.flushes {
            if let Some(request) = self.requests.get_mut(&id) {
                request.remote = Part::Done;
            }
            self.advance_request(id);
        }
    }

    /// The peer is gone: what it did not confirm is marked, and answered from here.
    pub(super) fn requests_lost_peer(&mut self, session: Option<Session>) {
        drop(session);
        let ids: Vec<u64> = self.requests.keys().copied().collect();
        for id in ids {
            let Some(request) = self.requests.get_mut(&id) else {
                continue;
            };
            if request.epoch.take().is_some() {
                let sectors = request.sectors.clone();
                if request.remote == Part::Pending {
                    request.remote = Part::Failed;
                }
                if self.breakage != Some(Breakage::ForgetABit) {
                    self.mark(sectors);
                }
                self.advance_request(id);
            } else if request.remote == Part::Pending {
                request.remote = Part::Failed;
                if matches!(request.op, AppOp::Read(_)) && request.local == Part::None {
                    self.start_read(id);
                } else {
                    self.advance_request(id);
                }
            }
        }
    }

    /// Before the disk is given up: what the peer may not have is marked.
    pub(super) fn mark_unconfirmed(&mut self) {
        let unconfirmed: Vec<Range<u64>> = self
            .requests
            .values()
            .filter(|request| request.epoch.is_some())
            .map(|request| request.sectors.clone())
            .collect();
        for sectors in unconfirmed {
            self.mark(sectors);
        }
    }

    /// Since when the oldest request waits for the peer.
    pub(super) fn oldest_unanswered(&self) -> Option<Duration> {
        self.requests
            .values()
            .filter(|request| request.remote == Part::Pending || request.epoch.is_some())
            .map(|request| request.started)
            .min()
    }

    /// Requests that are not answered yet.
    pub(super) fn unanswered(&self) -> u64 {
        wide(
            self.requests
                .values()
                .filter(|request| !request.replied)
                .count(),
        )
    }

    /// Requests that wait for the peer.
    pub(super) fn waiting_for_peer(&self) -> u64 {
        let waiting = |request: &&AppRequest| request.remote == Part::Pending;
        wide(self.requests.values().filter(waiting).count())
    }
}

impl Session {
    /// Adds a write to the open epoch; returns the epoch's number.
    fn open_epoch(&mut self, id: u64) -> u32 {
        if self.epochs.back().is_none_or(|epoch| epoch.closed) {
            self.next_barrier = self.next_barrier.wrapping_add(1);
            self.epochs.push_back(Epoch {
                number: self.next_barrier,
                writes: Vec::new(),
                flushes: Vec::new(),
                closed: false,
            });
        }
        let epoch = self.epochs.back_mut().expect("one is open");
        epoch.writes.push(id);
        epoch.number
    }
}

/// A digest, and the data it is of.
pub(super) fn with_digest(algorithm: crate::replica::digest::Algorithm, data: &Bytes) -> Bytes {
    let mut both = algorithm.of(data);
    both.extend_from_slice(data);
    both.into()
}
