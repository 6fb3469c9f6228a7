//! Copying what differs: the target asks block by block, the source answers.
//!
//! ```text
//! source                                     target
//! WFBitMapS  ── bitmap ────────────────────> WFBitMapT     both mark what either marks
//!            <──────────────────── bitmap ── WFSyncUUID
//! SyncSource ── P_SYNC_UUID ───────────────> SyncTarget    its data is neither old nor new
//!            <── P_RS_DATA_REQUEST ──        in ascending order, a window at a time
//!            ── P_RS_DATA_REPLY ──>          written, then cleared, then acknowledged
//!            <── P_RS_WRITE_ACK ──           cleared here, too
//!            <── ping: all is seen ──>       flushed, bitmap and generations saved
//! Connected  <── P_STATE ─────────────────── Connected
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::core::{Engine, Purpose, range};
use super::session::AfterPing;
use super::types::{Action, DiskOp};
use crate::replica::device::Errno;
use crate::replica::digest::{self, Algorithm};
use crate::replica::fields::{BLOCK, SECTOR, SECTORS_PER_BLOCK, field32, wide};
use crate::replica::generation::{Extent, Generation};
use crate::replica::message::{
    AckKind, BlockAck, BlockId, BlockRequest, DATA_BYTES_MAX, DataHead, DataKind, DigestKind,
    Packet, RequestKind,
};
use crate::replica::state::{Connection, Disk, State};
use crate::replica::transfer::{BitmapPacket, BitmapSender, Received};

/// The most asked for at once: large enough that a packet's own cost does not count, small
/// enough that an application's write does not wait long for it.
const REQUEST_BYTES_MAX: u64 = 256 << 10;
/// With digests less: one block that differs brings all of it.
const CHECKSUM_BYTES_MAX: u64 = 64 << 10;
/// How much may be on its way while no application is in need of the disk: enough to keep
/// disk, network and processor busy at the same time; half of what the kernel allows itself.
const WINDOW_BYTES: u64 = 2 << 20;
/// A source locks extents of this size; a request must not reach into two.
const LOCK_SECTORS: u64 = (16 << 20) / SECTOR;
/// How often the bitmap of a running resync is saved: what a crash makes one copy again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// The speed shown is that of the last eight marks, three seconds each.
const MARK_EVERY: Duration = Duration::from_secs(3);
const MARKS: usize = 8;
/// For so long after its last request an application counts as busy.
const BUSY_FOR: Duration = Duration::from_millis(100);

/// A resync that is under way, on either side.
#[derive(Debug)]
pub(super) struct Resync {
    pub total: u64,
    pub pace: Pace,
    /// Blocks that could not be copied.
    pub failed: u64,
    pub same: u64,
    target: bool,
    next_bit: u64,
    /// Asked for and not yet written: first sector → bytes.
    outstanding: BTreeMap<u64, u32>,
    in_flight: u64,
    checksum: Option<Algorithm>,
    finishing: bool,
    checkpoint_at: Duration,
    budget: Budget,
    app_seen: Option<Duration>,
}

/// How fast something goes: marks of time and blocks left.
#[derive(Debug)]
pub(super) struct Pace {
    pub started: Duration,
    pub paused: Duration,
    paused_since: Option<Duration>,
    marks: VecDeque<(Duration, u64)>,
}

impl Pace {
    pub(super) fn new(now: Duration, left: u64) -> Self {
        Self {
            started: now,
            paused: Duration::ZERO,
            paused_since: None,
            marks: VecDeque::from([(now, left)]),
        }
    }

    pub(super) fn mark(&mut self, now: Duration, left: u64) {
        let due = self
            .marks
            .back()
            .is_none_or(|(at, marked)| now >= *at + MARK_EVERY && *marked != left);
        if due {
            self.marks.push_back((now, left));
            if self.marks.len() > MARKS {
                self.marks.pop_front();
            }
        }
    }

    /// Blocks a second of late, and whether nothing has moved for long.
    pub(super) fn recent(&self, now: Duration, left: u64) -> (u64, bool) {
        const STALLED_AFTER: Duration = Duration::from_secs(180);
        let Some((at, marked)) = self.marks.front() else {
            return (0, false);
        };
        let millis = now.saturating_sub(*at).as_millis().max(1);
        let blocks = marked.saturating_sub(left);
        let rate = u128::from(blocks) * 1000 / millis;
        let newest = self.marks.back().map_or(*at, |(at, _)| *at);
        (
            u64::try_from(rate).unwrap_or(u64::MAX),
            now >= newest + STALLED_AFTER,
        )
    }

    pub(super) fn elapsed(&self, now: Duration) -> Duration {
        let paused_now = self
            .paused_since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since));
        now.saturating_sub(self.started + self.paused + paused_now)
    }

    fn set_paused(&mut self, now: Duration, paused: bool) {
        match (self.paused_since, paused) {
            (None, true) => self.paused_since = Some(now),
            (Some(since), false) => {
                self.paused += now.saturating_sub(since);
                self.paused_since = None;
            }
            _ => {}
        }
    }
}

/// Bytes that may still be asked for under the configured rate.
#[derive(Debug)]
struct Budget {
    bytes: u64,
    filled: Duration,
}

impl Budget {
    /// Fills up what the rate gives since the last time, at most a tenth of a second's worth.
    fn fill(&mut self, now: Duration, rate_kib: u64) {
        let micros = now.saturating_sub(self.filled).as_micros();
        let gained = u128::from(rate_kib) * 1024 * micros / 1_000_000;
        if gained > 0 {
            let most = (rate_kib * 1024 / 10).max(2 * REQUEST_BYTES_MAX);
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.bytes = self.bytes.saturating_add(gained).min(most);
            self.filled = now;
        }
    }
}

impl Engine {
    fn new_resync(&mut self, target: bool) -> Resync {
        let left = self.disk.as_ref().map_or(0, |disk| disk.bitmap.bits_set());
        let checksum = self
            .net
            .as_ref()
            .filter(|_| target)
            .filter(|net| !net.checksum_after_crash_only || self.somebody_crashed())
            .and_then(|net| Algorithm::by_name(&net.checksum_algorithm));
        self.log(format!(
            "resync begins as {}: {} KiB",
            if target { "target" } else { "source" },
            left * 4
        ));
        Resync {
            total: left,
            pace: Pace::new(self.now, left),
            failed: 0,
            same: 0,
            target,
            next_bit: 0,
            outstanding: BTreeMap::new(),
            in_flight: 0,
            checksum,
            finishing: false,
            checkpoint_at: self.now + CHECKPOINT_EVERY,
            budget: Budget {
                bytes: REQUEST_BYTES_MAX,
                filled: self.now,
            },
            app_seen: None,
        }
    }

    fn somebody_crashed(&self) -> bool {
        let here = self.disk.as_ref().is_some_and(|disk| disk.crashed_primary);
        let there = self
            .session
            .as_ref()
            .and_then(|session| session.peer_uuids)
            .is_some_and(|uuids| {
                uuids
                    .flags
                    .has(crate::replica::message::UuidFlags::CRASHED_PRIMARY)
            });
        here || there
    }

    /// Sends the whole bitmap.
    pub(super) fn send_bitmap(&mut self) {
        let compress = self.net.as_ref().is_some_and(|net| net.use_rle);
        let mut sender = BitmapSender::new(compress);
        let mut packets = Vec::new();
        if let Some(backing) = &self.disk {
            while let Some(packet) = sender.next_packet(&backing.bitmap) {
                packets.push(match packet {
                    BitmapPacket::Plain(bytes) => Packet::Bitmap(bytes.into()),
                    BitmapPacket::Compressed { encoding, code } => Packet::CompressedBitmap {
                        encoding,
                        code: code.into(),
                    },
                });
            }
        }
        self.expect_bitmap();
        for packet in packets {
            self.send(packet);
        }
    }

    pub(super) fn expect_bitmap(&mut self) {
        if let Some(session) = &mut self.session
            && session.bitmap_receiver.is_none()
        {
            session.bitmap_receiver = Some(crate::replica::transfer::BitmapReceiver::default());
        }
    }

    /// A part of the peer's bitmap.
    pub(super) fn bitmap_part(&mut self, encoding: Option<u8>, bytes: &[u8]) {
        let (Some(session), Some(backing)) = (&mut self.session, &mut self.disk) else {
            return;
        };
        let Some(receiver) = &mut session.bitmap_receiver else {
            self.protocol_error("a bitmap that nobody waits for");
            return;
        };
        let received = match encoding {
            Some(encoding) => receiver.compressed(&mut backing.bitmap, encoding, bytes),
            None => receiver.plain(&mut backing.bitmap, bytes),
        };
        match received {
            Ok(Received::More) => {}
            Ok(Received::All) => {
                session.bitmap_receiver = None;
                self.bitmap_complete();
            }
            Err(error) => self.protocol_error(&format!("the peer's bitmap: {error}")),
        }
    }

    fn bitmap_complete(&mut self) {
        match self.state.connection {
            Connection::WFBitMapT => {
                self.send_bitmap();
                if let Some(session) = &mut self.session {
                    session.bitmap_receiver = None;
                }
                self.change(State {
                    connection: Connection::WFSyncUUID,
                    ..self.state
                });
            }
            Connection::WFBitMapS => self.start_resync_source(Extent::Marked),
            _ => {}
        }
    }

    pub(super) fn start_resync_source(&mut self, extent: Extent) {
        let random = self.random.next();
        let Some(backing) = &mut self.disk else {
            return;
        };
        let generation = backing.superblock.generations.start_resync_source(random);
        backing.unsaved = true;
        if extent == Extent::Everything {
            // The first write says both that all is different and that a resync began: marks
            // that no generation speaks of would stay for ever.
            self.mark_everything();
        }
        self.save_bitmap();
        self.resync = Some(self.new_resync(false));
        self.change(State {
            connection: Connection::SyncSource,
            peer_disk: Disk::Inconsistent,
            ..self.state
        });
        self.save_flags();
        self.send(Packet::SyncUuid(generation));
    }

    pub(super) fn start_resync_target(&mut self, generation: Generation) {
        if !matches!(
            self.state.connection,
            Connection::WFSyncUUID | Connection::Behind
        ) {
            if let Some(session) = &mut self.session {
                session.early_start = Some(generation);
            }
            return;
        }
        let role = self.state.role;
        let Some(backing) = &mut self.disk else {
            return;
        };
        backing
            .superblock
            .generations
            .start_resync_target(generation, role);
        backing.unsaved = true;
        self.save_bitmap();
        self.act(Action::Handler("before-resync-target"));
        self.resync = Some(self.new_resync(true));
        self.change(State {
            connection: Connection::SyncTarget,
            disk: Disk::Inconsistent,
            ..self.state
        });
        self.save_flags();
    }

    /// The state is no resync's any more.
    pub(super) fn resync_ended(&mut self) {
        self.resync = None;
    }

    pub(super) fn resync_deadline(&self) -> Option<Duration> {
        let resync = self.resync.as_ref()?;
        let running = self.state.connection == Connection::SyncTarget;
        let starved = running && resync.in_flight < WINDOW_BYTES && !resync.finishing;
        Some(if starved {
            (self.now + Duration::from_millis(20)).min(resync.checkpoint_at)
        } else {
            resync.checkpoint_at
        })
    }

    pub(super) fn resync_tick(&mut self) {
        let now = self.now;
        let left = self.disk.as_ref().map_or(0, |disk| disk.bitmap.bits_set());
        let paused = matches!(
            self.state.connection,
            Connection::PausedSyncS | Connection::PausedSyncT
        );
        let Some(resync) = &mut self.resync else {
            return;
        };
        resync.pace.set_paused(now, paused);
        resync.pace.mark(now, left);
        if resync.checkpoint_at <= now {
            resync.checkpoint_at = now + CHECKPOINT_EVERY;
            if !resync.finishing {
                self.checkpoint();
            }
        }
    }

    /// Whether the application is at the disk, so that a resync had better hold back.
    fn application_busy(&mut self) -> bool {
        let busy = self.unanswered() > 0 || self.counters.unacknowledged > 0;
        let now = self.now;
        let Some(resync) = &mut self.resync else {
            return false;
        };
        if busy {
            resync.app_seen = Some(now);
        }
        resync.app_seen.is_some_and(|at| now < at + BUSY_FOR)
    }

    /// Asks for as much as the window and the rate allow.
    pub(super) fn advance_resync(&mut self) {
        if self.state.connection != Connection::SyncTarget {
            return;
        }
        let busy = self.application_busy();
        let now = self.now;
        let (Some(resync), Some(backing)) = (&mut self.resync, &self.disk) else {
            return;
        };
        let settings = backing.settings.resync;
        let rate = if settings.plan_ahead == 0 {
            settings.rate_kib
        } else {
            settings.max_rate_kib
        };
        resync.budget.fill(now, rate.into());
        let window = if busy {
            (u64::from(settings.fill_target) * SECTOR).clamp(BLOCK, WINDOW_BYTES)
        } else {
            WINDOW_BYTES
        };
        while let Some(resync) = &mut self.resync
            && resync.in_flight < window
            && resync.budget.bytes > 0
        {
            let Some((sector, bytes)) = self.next_block(busy) else {
                break;
            };
            if self.locks.overlaps(&range(sector, bytes)) {
                // A write that is not sent yet would be overtaken by the older block.
                if let Some(resync) = &mut self.resync {
                    resync.next_bit = sector / SECTORS_PER_BLOCK;
                }
                break;
            }
            self.ask_for(sector, bytes);
        }
        self.finish_if_all_is_copied();
    }

    /// The next stretch that is marked and not asked for.
    fn next_block(&mut self, busy: bool) -> Option<(u64, u32)> {
        let (resync, backing) = (self.resync.as_mut()?, self.disk.as_ref()?);
        let bitmap = &backing.bitmap;
        let most = match (resync.checksum, busy) {
            (Some(_), _) | (_, true) => CHECKSUM_BYTES_MAX,
            _ => REQUEST_BYTES_MAX,
        };
        let first = loop {
            let Some(bit) = bitmap.next_set(resync.next_bit) else {
                // From the front again, for what was refused in between.
                let again = resync.outstanding.is_empty()
                    && resync.next_bit > 0
                    && bitmap.bits_set() > resync.failed;
                if !again {
                    return None;
                }
                resync.next_bit = 0;
                continue;
            };
            break bit;
        };
        let start = first * SECTORS_PER_BLOCK;
        let limit = (start / LOCK_SECTORS + 1) * LOCK_SECTORS / SECTORS_PER_BLOCK;
        let end = bitmap
            .next_clear(first)
            .min(first + most / BLOCK)
            .min(limit);
        resync.next_bit = end;
        let end = (end * SECTORS_PER_BLOCK).min(bitmap.sectors());
        Some((start, field32((end - start) * SECTOR)))
    }

    fn ask_for(&mut self, sector: u64, bytes: u32) {
        let Some(resync) = &mut self.resync else {
            return;
        };
        resync.outstanding.insert(sector, bytes);
        resync.in_flight += u64::from(bytes);
        resync.budget.bytes = resync.budget.bytes.saturating_sub(bytes.into());
        if resync.checksum.is_some() {
            let op = DiskOp::Read {
                byte: sector * SECTOR,
                len: bytes,
            };
            let purpose = Purpose::ChecksumTarget { sector, bytes };
            self.disk_io(Some(range(sector, bytes)), op, purpose);
        } else {
            self.send(Packet::Request(
                RequestKind::Resync,
                block_request(sector, bytes),
            ));
        }
    }

    pub(super) fn checksum_read_done(
        &mut self,
        sector: u64,
        bytes: u32,
        result: Result<Bytes, Errno>,
    ) {
        let algorithm = self.resync.as_ref().and_then(|resync| {
            let asked = resync.outstanding.contains_key(&sector);
            resync.checksum.filter(|_| asked)
        });
        let Some(algorithm) = algorithm else {
            return;
        };
        let request = block_request(sector, bytes);
        if let Ok(data) = result {
            let digest = Bytes::from(algorithm.of(&data));
            self.send(Packet::Digest(DigestKind::ChecksumResync, request, digest));
            return;
        }
        self.local_error("a resync's read failed");
        // What cannot be read is copied.
        if self.resync.is_some() {
            self.send(Packet::Request(RequestKind::Resync, request));
        }
    }

    /// One request is over, one way or another.
    fn settled_block(&mut self, sector: u64) -> bool {
        let Some(resync) = &mut self.resync else {
            return false;
        };
        match resync.outstanding.remove(&sector) {
            Some(bytes) => {
                resync.in_flight -= u64::from(bytes);
                true
            }
            None => false,
        }
    }

    pub(super) fn resync_reply(&mut self, head: DataHead, data: Bytes) {
        let data = match self.checked(data) {
            Ok(data) => data,
            Err(why) => return self.protocol_error(why),
        };
        let asked = self
            .resync
            .as_ref()
            .and_then(|resync| resync.outstanding.get(&head.sector).copied());
        if asked.map(u64::from) != Some(wide(data.len())) {
            self.protocol_error("a resync's block that nobody asked for");
            return;
        }
        let bytes = field32(wide(data.len()));
        self.counters.received_kib += u64::from(bytes) / 1024;
        let op = DiskOp::Write {
            byte: head.sector * SECTOR,
            data,
            stable: false,
        };
        let purpose = Purpose::ResyncWrite {
            sector: head.sector,
            bytes,
        };
        self.disk_io(Some(range(head.sector, bytes)), op, purpose);
    }

    /// The source has nothing but zeroes there.
    pub(super) fn resync_deallocated(&mut self, sector: u64, bytes: u32) {
        if self.fits_device(sector, bytes, DATA_BYTES_MAX).is_err() {
            self.protocol_error("sectors past the end of the device");
            return;
        }
        let op = DiskOp::Zero {
            byte: sector * SECTOR,
            len: bytes.into(),
            unmap: true,
        };
        let purpose = Purpose::ResyncWrite { sector, bytes };
        self.disk_io(Some(range(sector, bytes)), op, purpose);
    }

    pub(super) fn resync_write_done(
        &mut self,
        sector: u64,
        bytes: u32,
        result: &Result<Bytes, Errno>,
    ) {
        if !self.settled_block(sector) {
            // Of a resync that was cut off: its bits stay set.
            return;
        }
        if result.is_ok() {
            let cleared = self.clear(range(sector, bytes));
            self.acknowledge(AckKind::ResyncWritten, sector, BlockId::SYNCER, bytes);
            self.resync_progressed(cleared);
        } else {
            self.acknowledge(AckKind::WriteFailed, sector, BlockId::SYNCER, bytes);
            self.count_failed(bytes);
            self.local_error("a resync's write failed");
        }
    }

    fn count_failed(&mut self, bytes: u32) {
        if let Some(resync) = &mut self.resync {
            resync.failed += u64::from(bytes).div_ceil(BLOCK);
        }
    }

    pub(super) fn resync_progressed(&mut self, cleared: u64) {
        if cleared == 0 {
            return;
        }
        let now = self.now;
        let left = self.disk.as_ref().map_or(0, |disk| disk.bitmap.bits_set());
        if let Some(resync) = &mut self.resync {
            resync.pace.mark(now, left);
        }
    }

    /// The source found the target's block the same by its digest.
    pub(super) fn resync_in_sync(&mut self, ack: BlockAck) {
        if self.settled_block(ack.sector) {
            let cleared = self.clear(range(ack.sector, ack.bytes));
            if let Some(resync) = &mut self.resync {
                resync.same += cleared;
            }
            self.resync_progressed(cleared);
        }
    }

    /// The source does not answer a request.
    pub(super) fn resync_refused(&mut self, ack: BlockAck, failed: bool) {
        if self.settled_block(ack.sector) {
            if failed {
                self.count_failed(ack.bytes);
            }
        } else {
            self.verify_refused(ack);
        }
    }

    fn finish_if_all_is_copied(&mut self) {
        let (Some(resync), Some(backing)) = (&mut self.resync, &self.disk) else {
            return;
        };
        let done = resync.target
            && !resync.finishing
            && resync.outstanding.is_empty()
            && backing.bitmap.bits_set() <= resync.failed;
        if done {
            resync.finishing = true;
            self.disk_io(None, DiskOp::Flush, Purpose::ResyncFlush);
        }
    }

    pub(super) fn resync_flushed(&mut self, result: &Result<Bytes, Errno>) {
        if result.is_err() {
            // Both nodes took for equal what may not be on the medium; on disk it is marked yet.
            self.lose_disk("it could not be flushed");
            return;
        }
        if self.resync.is_some() {
            self.save_bitmap();
            // The source must have seen every acknowledgement before it hears of the end.
            self.after_ping(AfterPing::Finish);
        }
    }

    /// A resync or verify is over, and the peer has seen everything before.
    pub(super) fn finish_exchange(&mut self) {
        match self.state.connection {
            Connection::SyncTarget | Connection::PausedSyncT => self.finish_as_target(),
            Connection::VerifyS | Connection::VerifyT => self.finish_verify(),
            _ => {}
        }
    }

    fn finish_as_target(&mut self) {
        let role = self.state.role;
        let (Some(resync), Some(session), Some(backing)) =
            (&mut self.resync, &mut self.session, &mut self.disk)
        else {
            return;
        };
        if !resync.finishing {
            return;
        }
        if backing.bitmap.bits_set() > resync.failed {
            // Marked again meanwhile: more is to be copied.
            resync.finishing = false;
            resync.next_bit = 0;
            return;
        }
        let failed = resync.failed;
        let summary = summary(resync, self.now);
        session.remind = session.epoch_count > 0;
        if failed == 0
            && let Some(uuids) = &mut session.peer_uuids
        {
            let source = super::agreement::generations_of(uuids);
            self.peer_missed = false;
            let generations = &mut backing.superblock.generations;
            generations.finish_resync_target(source, role);
            uuids.generations = [
                generations.current,
                generations.bitmap,
                generations.history[0],
                generations.history[1],
            ];
            backing.unsaved = true;
        }
        self.exposed = self
            .disk
            .as_ref()
            .expect("it was there")
            .superblock
            .generations
            .current;
        self.log(summary);
        self.change(State {
            connection: Connection::Connected,
            disk: if failed == 0 {
                Disk::UpToDate
            } else {
                Disk::Inconsistent
            },
            peer_disk: Disk::UpToDate,
            ..self.state
        });
        self.act(Action::Handler("after-resync-target"));
    }

    /// The target says that it has everything.
    pub(super) fn peer_finished_resync(&mut self) {
        let (Some(resync), Some(backing)) = (&self.resync, &mut self.disk) else {
            return;
        };
        if backing.bitmap.bits_set() > resync.failed {
            self.log("the target says the resync is complete, and here blocks are still marked");
            return;
        }
        let failed = resync.failed;
        if failed == 0 {
            self.peer_missed = false;
            let generations = &mut backing.superblock.generations;
            generations.finish_resync_source();
            backing.unsaved = true;
            // Both have the same now; this node may be the target of the next one.
            if let Some(uuids) = self
                .session
                .as_mut()
                .and_then(|session| session.peer_uuids.as_mut())
            {
                uuids.generations = [
                    generations.current,
                    generations.bitmap,
                    generations.history[0],
                    generations.history[1],
                ];
            }
        }
        let summary = summary(resync, self.now);
        self.log(summary);
        self.save_bitmap();
        self.change(State {
            connection: Connection::Connected,
            peer_disk: if failed == 0 {
                Disk::UpToDate
            } else {
                Disk::Inconsistent
            },
            ..self.state
        });
        self.save_flags();
    }

    /// The target asks for a block.
    pub(super) fn resync_request(&mut self, request: BlockRequest) {
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
            self.acknowledge(AckKind::ResyncReadFailed, sector, block_id, bytes);
            return;
        }
        let op = DiskOp::Read {
            byte: sector * SECTOR,
            len: bytes,
        };
        let purpose = Purpose::ResyncSource { sector, bytes };
        self.disk_io(Some(range(sector, bytes)), op, purpose);
    }

    pub(super) fn resync_read_done(
        &mut self,
        sector: u64,
        bytes: u32,
        result: Result<Bytes, Errno>,
    ) {
        if let Ok(data) = result {
            self.send_data(DataKind::ResyncReply, sector, BlockId::SYNCER, &data);
        } else {
            self.acknowledge(AckKind::ResyncReadFailed, sector, BlockId::SYNCER, bytes);
            self.count_failed(bytes);
            self.local_error("a resync's read failed");
        }
    }

    pub(super) fn checksum_request(&mut self, request: BlockRequest, digest: Bytes) {
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
            self.acknowledge(AckKind::ResyncReadFailed, sector, block_id, bytes);
            return;
        }
        let op = DiskOp::Read {
            byte: sector * SECTOR,
            len: bytes,
        };
        let purpose = Purpose::ChecksumSource {
            sector,
            bytes,
            digest,
        };
        self.disk_io(Some(range(sector, bytes)), op, purpose);
    }

    pub(super) fn checksum_compared(
        &mut self,
        sector: u64,
        bytes: u32,
        digest: &Bytes,
        result: Result<Bytes, Errno>,
    ) {
        let algorithm = self
            .net
            .as_ref()
            .and_then(|net| Algorithm::by_name(&net.checksum_algorithm));
        let same = match (&result, algorithm) {
            (Ok(data), Some(algorithm)) => digest::same(&algorithm.of(data), digest),
            _ => false,
        };
        if same {
            let cleared = self.clear(range(sector, bytes));
            if let Some(resync) = &mut self.resync {
                resync.same += cleared;
            }
            self.acknowledge(AckKind::IsInSync, sector, BlockId::SYNCER, bytes);
        } else {
            self.resync_read_done(sector, bytes, result);
        }
    }

    /// The target's word on a block it got.
    pub(super) fn resync_acknowledged(&mut self, kind: AckKind, ack: BlockAck) {
        match kind {
            // Of a resync that ended meanwhile: what was written since is here alone.
            _ if self.resync.is_none() => {}
            AckKind::ResyncWritten | AckKind::Written => {
                let cleared = self.clear(range(ack.sector, ack.bytes));
                self.resync_progressed(cleared);
            }
            AckKind::WriteFailed => self.count_failed(ack.bytes),
            _ => self.protocol_error("an answer to a resync that is none"),
        }
    }

    /// Whether a write must wait: a block of its range is being copied or compared.
    pub(super) fn exchange_overlaps(&self, sectors: &Range<u64>) -> bool {
        let copying = self
            .resync
            .as_ref()
            .is_some_and(|resync| overlaps(&resync.outstanding, sectors));
        copying
            || self
                .verify
                .as_ref()
                .is_some_and(|verify| overlaps(&verify.outstanding, sectors))
    }
}

/// Whether any of the ranges (first sector → bytes) reaches into these sectors.
fn overlaps(ranges: &BTreeMap<u64, u32>, sectors: &Range<u64>) -> bool {
    ranges
        .range(..sectors.end)
        .next_back()
        .is_some_and(|(start, bytes)| range(*start, *bytes).end > sectors.start)
}

fn block_request(sector: u64, bytes: u32) -> BlockRequest {
    BlockRequest {
        sector,
        block_id: BlockId::SYNCER,
        bytes,
    }
}

fn summary(resync: &Resync, now: Duration) -> String {
    let seconds = resync.pace.elapsed(now).as_secs().max(1);
    let kib = resync.total * 4;
    format!(
        "resync done: {kib} KiB in {seconds} s, {} KiB/s; {} KiB had equal digests, {} blocks failed",
        kib / seconds,
        resync.same * 4,
        resync.failed
    )
}
