//! The engine's parts, and how an event reaches them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::metadata::Backing;
use super::peer::PeerWrite;
use super::requests::{AppRequest, ReadTry};
use super::resync::Resync;
use super::session::Session;
use super::types::{Action, DiskIo, DiskOp, Event};
use super::verify::Verify;
use crate::replica::control::{Answer, Command, Counters, Rejection};
use crate::replica::device::{Errno, Presence};
use crate::replica::establish::{Establishing, LinkId};
use crate::replica::fields::SECTOR;
use crate::replica::generation::Generation;
use crate::replica::locks::RangeLocks;
use crate::replica::message::{BlockId, BlockRequest, Packet};
use crate::replica::settings::{DiskSettings, Names, NetSettings};
use crate::replica::state::{Connection, State};

/// A rule broken on purpose, to show that the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// Barriers are acknowledged before the disk was flushed.
    AcknowledgeBeforeFlush,
    /// A write that did not reach the peer is not marked.
    ForgetABit,
    /// A write begins before its extent is in the activity log.
    WriteBeforeLog,
}

/// One node of a pair.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a mark of its own, set and taken in different places"
)]
#[derive(Debug)]
pub struct Engine {
    pub(super) names: Names,
    pub(super) now: Duration,
    pub(super) actions: VecDeque<Action>,
    pub(super) random: Random,
    pub(super) state: State,
    pub(super) disk: Option<Backing>,
    /// Set while the disk is being opened: who asked.
    pub(super) attaching: Option<u64>,
    pub(super) net: Option<NetSettings>,
    pub(super) discard_my_data: bool,
    pub(super) tentative: bool,
    pub(super) establishing: Option<Establishing>,
    pub(super) next_link: u64,
    /// What the peer said before both connections were there.
    pub(super) early_features: Option<(LinkId, Packet)>,
    /// When the peer is looked for again.
    pub(super) retry_at: Option<Duration>,
    pub(super) session: Option<Session>,
    /// Of the device, in sectors; 0 while unknown.
    pub(super) sectors: u64,
    /// The generation of the data applications saw last; a diskless node holds on to it.
    pub(super) exposed: Generation,
    pub(super) presence: Presence,
    pub(super) requests: BTreeMap<u64, AppRequest>,
    /// Writes that wait for room in the activity log, or for an exchange on their range.
    pub(super) waiting_writes: VecDeque<u64>,
    /// Requests that came while input and output was suspended.
    pub(super) suspended_requests: Vec<crate::replica::device::DeviceRequest>,
    pub(super) locks: RangeLocks,
    pub(super) io: HashMap<u64, Pending>,
    /// Operations whose range is taken by others.
    pub(super) deferred: HashMap<u64, DiskOp>,
    pub(super) next_id: u64,
    pub(super) resync: Option<Resync>,
    pub(super) verify: Option<Verify>,
    /// Where the last verify that was cut short stopped.
    pub(super) verify_from: u64,
    pub(super) verify_range: (u64, Option<u64>),
    /// Commands that wait: for the peer, for a state, for the handshake to be over.
    pub(super) parked: Vec<Parked>,
    /// A command that asked the peer, and what it asked.
    pub(super) asked: Option<Asked>,
    pub(super) counters: Counters,
    pub(super) last_trouble: Option<String>,
    pub(super) device_open: bool,
    pub(super) consider_resync: bool,
    /// The disk's metadata could not be written while there was a Primary: when it is attached
    /// again, all of it counts as different.
    pub(super) distrusted: bool,
    /// The peer said of a write that its disk has not got it: marked here, in no generation yet.
    pub(super) peer_missed: bool,
    /// What applications saw last is on the disk that was lost, and nowhere else.
    pub(super) sole_data_lost: bool,
    pub(super) breakage: Option<Breakage>,
}

/// An operation that is under way on the disk.
#[derive(Debug)]
pub(super) struct Pending {
    pub range: Option<Range<u64>>,
    pub purpose: Purpose,
    /// Of the connection it began on; 0 without one.
    pub session: u64,
}

/// What an operation on the disk is for.
#[derive(Debug)]
pub(super) enum Purpose {
    AppRead(u64),
    AppWrite(u64),
    AppFlush(u64),
    PeerWrite(PeerWrite),
    PeerRead {
        sector: u64,
        block_id: BlockId,
        bytes: u32,
    },
    EpochFlush {
        session: u64,
        barrier: u32,
        count: u32,
    },
    /// The source reads what the target asked for.
    ResyncSource {
        sector: u64,
        bytes: u32,
    },
    /// The source compares the target's digest with its data.
    ChecksumSource {
        sector: u64,
        bytes: u32,
        digest: Bytes,
    },
    /// The target reads what it has, to send its digest.
    ChecksumTarget {
        sector: u64,
        bytes: u32,
    },
    ResyncWrite {
        sector: u64,
        bytes: u32,
    },
    /// The target's data is stable: the resync may be declared complete.
    ResyncFlush,
    /// Neighbouring blocks, read at once.
    VerifyAnswer(Vec<BlockRequest>),
    VerifyCompare(Vec<(BlockRequest, Bytes)>),
    /// The bitmap may be written out once the data is stable.
    Checkpoint,
}

impl Purpose {
    /// Whether it belongs to what the two nodes tell each other on one connection.
    pub(super) fn is_an_exchange(&self) -> bool {
        match self {
            Self::PeerRead { .. }
            | Self::ResyncSource { .. }
            | Self::ChecksumSource { .. }
            | Self::ChecksumTarget { .. }
            | Self::ResyncWrite { .. }
            | Self::ResyncFlush
            | Self::VerifyAnswer(_)
            | Self::VerifyCompare(_) => true,
            // These look themselves at what became of their connection.
            Self::AppRead(_)
            | Self::AppWrite(_)
            | Self::AppFlush(_)
            | Self::PeerWrite(_)
            | Self::EpochFlush { .. }
            | Self::Checkpoint => false,
        }
    }
}

/// A command that is not answered yet.
#[derive(Debug)]
pub(super) struct Parked {
    pub id: u64,
    pub command: Command,
    pub deadline: Option<Duration>,
}

/// A question to the peer that is not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    pub id: Option<u64>,
    pub step: Step,
}

/// What happens once the peer agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Promote {
        force: bool,
    },
    Detach,
    Invalidate,
    InvalidateRemote,
    Verify {
        start: Option<u64>,
        stop: Option<u64>,
    },
    Disconnect {
        outdate: bool,
    },
}

/// A stream of numbers; reproducible from its seed.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

impl Engine {
    /// A node with neither disk nor connection; `seed` must not be guessable.
    pub fn new(names: Names, seed: u64) -> Self {
        Self {
            names,
            now: Duration::ZERO,
            actions: VecDeque::new(),
            random: Random(seed),
            state: State::UNCONFIGURED,
            disk: None,
            attaching: None,
            net: None,
            discard_my_data: false,
            tentative: false,
            establishing: None,
            // Own calls are odd, accepted connections even.
            next_link: 1,
            early_features: None,
            retry_at: None,
            session: None,
            sectors: 0,
            exposed: Generation::NONE,
            presence: Presence::Absent,
            requests: BTreeMap::new(),
            waiting_writes: VecDeque::new(),
            suspended_requests: Vec::new(),
            locks: RangeLocks::default(),
            io: HashMap::new(),
            deferred: HashMap::new(),
            next_id: 1,
            resync: None,
            verify: None,
            verify_from: 0,
            verify_range: (0, None),
            parked: Vec::new(),
            asked: None,
            counters: Counters::default(),
            last_trouble: None,
            device_open: false,
            consider_resync: false,
            distrusted: false,
            peer_missed: false,
            sole_data_lost: false,
            breakage: None,
        }
    }

    /// Breaks a rule, for tests of the tests.
    pub fn break_rule(&mut self, breakage: Breakage) {
        self.breakage = Some(breakage);
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Whether packets of the data connection may be brought; while an epoch is being
    /// flushed the peer's next writes had better wait where they are.
    pub fn wants_data(&self) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.closing_epoch.is_none())
    }

    /// Whether a connection is the one for data.
    pub fn is_data_link(&self, link: LinkId) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.data == link)
    }

    /// The settings of the connection, while there are any.
    pub fn net(&self) -> Option<&NetSettings> {
        self.net.as_ref()
    }

    pub fn handle(&mut self, now: Duration, event: Event) {
        self.now = now;
        match event {
            Event::Tick => self.tick(),
            Event::Command {
                id,
                command,
                device_open,
            } => {
                self.device_open = device_open;
                self.command(id, *command);
            }
            Event::Withdrawn(id) => self.parked.retain(|parked| parked.id != id),
            Event::DiskOpened(opened) => self.disk_opened(opened),
            Event::Io { id, result } => self.io_done(id, result),
            Event::SaveFailed => self.save_failed(),
            Event::Device(request) => self.device_request(request),
            Event::Accepted(link) => self.accepted(link),
            Event::Connected(link) => self.connected(link),
            Event::Closed(link, why) => self.closed(link, &why),
            Event::Packet(link, packet) => self.packet(link, packet),
            Event::Garbled(link, why) => self.garbled(link, &why),
        }
        self.settle();
    }

    /// What follows from what just happened.
    fn settle(&mut self) {
        self.advance_backlog();
        self.resume_requests();
        self.advance_resync();
        self.advance_verify();
        self.retry_waiting_writes();
        self.retry_parked();
    }

    /// Begins what was gathered; call it when no more events are at hand.
    pub fn end_turn(&mut self) {
        self.read_for_verify();
    }

    pub fn take_actions(&mut self) -> impl Iterator<Item = Action> + use<> {
        std::mem::take(&mut self.actions).into_iter()
    }

    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub fn next_deadline(&self) -> Option<Duration> {
        let commands = self.parked.iter().filter_map(|parked| parked.deadline);
        let establishing = self
            .establishing
            .as_ref()
            .and_then(Establishing::next_deadline);
        commands
            .chain(establishing)
            .chain(self.retry_at)
            .chain(
                self.session
                    .as_ref()
                    .map(|session| self.session_deadline(session)),
            )
            .chain(self.resync_deadline())
            .min()
    }

    fn tick(&mut self) {
        self.session_tick();
        self.resync_tick();
        let now = self.now;
        let (late, waiting) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked| parked.deadline.is_some_and(|deadline| deadline <= now));
        self.parked = waiting;
        for parked in late {
            self.command_timed_out(&parked);
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn log(&mut self, text: impl Into<String>) {
        self.act(Action::Log(text.into()));
    }

    pub(super) fn answer(&mut self, id: u64, answer: Answer) {
        self.act(Action::Answer {
            id,
            answer: Box::new(answer),
        });
    }

    pub(super) fn answer_with(&mut self, id: u64, result: Result<(), Rejection>) {
        match result {
            Ok(()) => self.answer(id, Answer::Done),
            Err(rejection) => self.answer(id, Answer::Refused(rejection)),
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Sends on the data connection, if there is one.
    pub(super) fn send(&mut self, packet: Packet) {
        if let Some(session) = &self.session {
            let link = match packet.socket() {
                crate::replica::message::Socket::Data => session.data,
                crate::replica::message::Socket::Meta => session.meta,
            };
            self.actions.push_back(Action::Send {
                link,
                packet,
                dialect: session.dialect,
            });
        }
    }

    /// Begins an operation on the disk, once nobody else is at its range.
    pub(super) fn disk_io(&mut self, range: Option<Range<u64>>, op: DiskOp, purpose: Purpose) {
        let id = self.fresh_id();
        let free = range.clone().is_none_or(|range| self.locks.take(range, id));
        let pending = Pending {
            range,
            purpose,
            session: self.session_serial(),
        };
        self.io.insert(id, pending);
        if free {
            self.submit(id, op);
        } else {
            self.deferred.insert(id, op);
        }
    }

    /// Hands an operation to the disk, and counts it.
    pub(super) fn submit(&mut self, id: u64, op: DiskOp) {
        self.counters.local_pending += 1;
        match &op {
            DiskOp::Read { len, .. } => self.counters.read_kib += u64::from(*len) / 1024,
            DiskOp::Write { data, .. } => {
                self.counters.written_kib += crate::replica::fields::wide(data.len()) / 1024;
            }
            DiskOp::Zero { len, .. } => self.counters.written_kib += len / 1024,
            DiskOp::Flush => {}
        }
        self.act(Action::Disk(DiskIo { id, op }));
    }

    pub(super) fn release(&mut self, range: &Range<u64>) {
        for id in self.locks.release(range) {
            if let Some(op) = self.deferred.remove(&id) {
                self.submit(id, op);
            } else {
                self.start_write(id);
            }
        }
    }

    fn io_done(&mut self, id: u64, result: Result<Bytes, Errno>) {
        let Some(pending) = self.io.remove(&id) else {
            // Of a disk that was given up meanwhile.
            return;
        };
        self.counters.local_pending -= 1;
        let result = self.judged(&pending, result);
        let range = pending.range;
        let stale = pending.session != self.session_serial();
        match pending.purpose {
            purpose if stale && purpose.is_an_exchange() => {
                // What it was for ended with its connection, and the next one asks anew.
                if result.is_err() {
                    self.local_error("an operation for a connection that is gone failed");
                }
            }
            Purpose::AppRead(request) => self.app_read_done(request, ReadTry::Local, result),
            Purpose::AppWrite(request) => self.app_write_done(request, &result),
            Purpose::AppFlush(request) => self.app_flush_done(request, &result),
            Purpose::PeerWrite(write) => self.peer_write_done(&write, &result),
            Purpose::PeerRead {
                sector,
                block_id,
                bytes,
            } => self.peer_read_done(sector, block_id, bytes, result),
            Purpose::EpochFlush {
                session,
                barrier,
                count,
            } => self.epoch_flushed(session, barrier, count, &result),
            Purpose::ResyncSource { sector, bytes } => self.resync_read_done(sector, bytes, result),
            Purpose::ChecksumSource {
                sector,
                bytes,
                digest,
            } => self.checksum_compared(sector, bytes, &digest, result),
            Purpose::ChecksumTarget { sector, bytes } => {
                self.checksum_read_done(sector, bytes, result);
            }
            Purpose::ResyncWrite { sector, bytes } => {
                self.resync_write_done(sector, bytes, &result);
            }
            Purpose::ResyncFlush => self.resync_flushed(&result),
            Purpose::VerifyAnswer(blocks) => self.verify_read_done(&blocks, &result),
            Purpose::VerifyCompare(blocks) => self.verify_compared(&blocks, &result),
            Purpose::Checkpoint => self.checkpoint_flushed(&result),
        }
        if let Some(range) = range {
            self.release(&range);
        }
    }

    /// An operation on the disk failed: what the configuration says about it.
    fn judged(&mut self, pending: &Pending, result: Result<Bytes, Errno>) -> Result<Bytes, Errno> {
        if let Err(errno) = &result {
            let what = match &pending.purpose {
                Purpose::AppRead(_)
                | Purpose::PeerRead { .. }
                | Purpose::ResyncSource { .. }
                | Purpose::ChecksumSource { .. }
                | Purpose::ChecksumTarget { .. }
                | Purpose::VerifyAnswer(_)
                | Purpose::VerifyCompare(_) => "read",
                _ => "write",
            };
            let at = pending.range.as_ref().map_or(0, |range| range.start);
            self.log(format!("local {what} error {} at sector {at}", errno.0));
        }
        result
    }

    /// The number of the present connection; 0 without one.
    pub(super) fn session_serial(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.serial)
    }

    pub(super) fn established(&self) -> bool {
        self.state.connection >= Connection::Connected
    }

    /// The settings of the disk, while one is attached.
    pub fn disk_settings(&self) -> Option<&DiskSettings> {
        self.disk.as_ref().map(|disk| &disk.settings)
    }
}

/// A range of sectors from a place on the wire.
pub(super) fn range(sector: u64, bytes: u32) -> Range<u64> {
    sector..sector + u64::from(bytes) / SECTOR
}
