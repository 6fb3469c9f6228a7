//! What two nodes tell each other of themselves, and what follows: parameters, sizes,
//! generations, states, and changes that need both.

use super::core::{Engine, Step};
use super::metadata::new_size;
use super::session::kind_of;
use super::types::Action;
use crate::replica::digest::Algorithm;
use crate::replica::generation::{
    Conflict, Correction, Decision, Extent, Generation, Generations, Meeting, Outcome, Side,
    Source, decide,
};
use crate::replica::layout::DEVICE_SECTORS_MAX;
use crate::replica::message::{
    AckKind, BareKind, ChangeKind, DATA_BYTES_MAX, DataKind, DigestKind, FeatureFlags, NoticeKind,
    Packet, Protocol, QueueLimits, RequestKind, Sizes, SyncParameters, UuidFlags, Uuids,
};
use crate::replica::settings::ResyncSettings;
use crate::replica::state::{Change, Connection, Disk, GRANTED, Refusal, Role, State};

impl Engine {
    /// Says everything a peer must know, in the order it must be said.
    pub(super) fn announce_parameters(&mut self) {
        let protocol = self.own_protocol();
        self.send(Packet::Protocol(protocol));
        let parameters = self.own_parameters();
        self.send(Packet::SyncParameters(parameters));
        self.send_sizes();
        self.send_uuids(UuidFlags::default());
        self.send_state();
    }

    fn own_protocol(&self) -> Protocol {
        let net = self.net.as_ref().expect("there is a session");
        Protocol {
            protocol: net.protocol,
            after_split_brain: [
                net.policies.no_primary,
                net.policies.one_primary,
                net.policies.two_primaries,
            ],
            discard_my_data: self.discard_my_data,
            dry_run: self.tentative,
            two_primaries: net.two_primaries,
            integrity_algorithm: net.integrity_algorithm.clone(),
        }
    }

    pub(super) fn own_parameters(&self) -> SyncParameters {
        let net = self.net.as_ref().expect("there is a session");
        let resync = self
            .disk_settings()
            .map_or_else(ResyncSettings::default, |disk| disk.resync);
        SyncParameters {
            resync_rate_kib: resync.rate_kib,
            verify_algorithm: net.verify_algorithm.clone(),
            checksum_algorithm: net.checksum_algorithm.clone(),
            plan_ahead: resync.plan_ahead,
            delay_target: resync.delay_target,
            fill_target: resync.fill_target,
            max_rate_kib: resync.max_rate_kib,
        }
    }

    pub(super) fn send_sizes(&mut self) {
        self.send_sizes_as(self.sectors, 0);
    }

    /// Tells the sizes; a current one of 0 asks the peer for its own.
    pub(super) fn send_sizes_as(&mut self, current: u64, flags: u16) {
        let Some(session) = &self.session else {
            return;
        };
        let tail = session.dialect.features.has(FeatureFlags::WSAME);
        let disk = self
            .disk
            .as_ref()
            .filter(|_| self.state.disk >= Disk::Negotiating);
        let sizes = Sizes {
            available: disk.map_or(0, |disk| disk.usable_sectors),
            wanted: disk.map_or(0, |disk| disk.settings.size_sectors),
            current,
            bio_bytes_max: u32::try_from(DATA_BYTES_MAX).expect("1 MiB"),
            queue_order: 0,
            flags,
            limits: tail.then(|| QueueLimits {
                physical_block: 512,
                logical_block: 512,
                discards: disk.is_some_and(|disk| disk.discards),
            }),
        };
        self.send(Packet::Sizes(sizes));
    }

    /// A packet of the data connection, once the handshake is done.
    pub(super) fn data_packet(&mut self, packet: Packet) {
        match packet {
            Packet::Data(DataKind::Write, head, data) => self.peer_write(head, data),
            Packet::Data(DataKind::ReadReply, head, data) => self.read_reply(head, data),
            Packet::Data(DataKind::ResyncReply, head, data) => self.resync_reply(head, data),
            Packet::Area(kind, head, bytes) => self.peer_area(kind, head, bytes),
            Packet::Barrier(barrier) => self.peer_barrier(barrier),
            Packet::Request(RequestKind::Read, request) => self.peer_read(request),
            Packet::Request(RequestKind::Resync | RequestKind::ThinResync, request) => {
                self.resync_request(request);
            }
            Packet::Request(RequestKind::Verify, request) => self.verify_request(request),
            Packet::Digest(DigestKind::VerifyReply, request, digest) => {
                self.verify_reply(request, digest);
            }
            Packet::Digest(DigestKind::ChecksumResync, request, digest) => {
                self.checksum_request(request, digest);
            }
            Packet::Notice(NoticeKind::OutOfSync, sector, bytes) => {
                self.mark(super::core::range(sector, bytes));
            }
            Packet::Notice(NoticeKind::Deallocated, sector, bytes) => {
                self.resync_deallocated(sector, bytes);
            }
            Packet::Bitmap(words) => self.bitmap_part(None, &words),
            Packet::CompressedBitmap { encoding, code } => {
                self.bitmap_part(Some(encoding), &code);
            }
            Packet::SyncParameters(parameters) => self.peer_parameters(&parameters),
            Packet::Protocol(protocol) => self.peer_protocol(protocol),
            Packet::ProtocolUpdate(protocol) => self.peer_protocol_update(&protocol),
            Packet::Uuids(uuids) => self.peer_uuids(uuids),
            Packet::Sizes(sizes) => self.peer_sizes(sizes),
            Packet::State(word) => self.peer_state(word),
            Packet::SyncUuid(generation) => self.start_resync_target(generation),
            Packet::Change(kind, change) => self.peer_change(kind, change),
            Packet::Bare(BareKind::UnplugRemote) | Packet::DelayProbe => {}
            other => self.protocol_error(&format!("{} on the data connection", kind_of(&other))),
        }
    }

    pub(super) fn protocol_error(&mut self, why: &str) {
        self.lose(Connection::ProtocolError, why);
    }

    /// A packet of the meta connection, once the handshake is done.
    pub(super) fn meta_packet(&mut self, packet: Packet) {
        match packet {
            Packet::Bare(BareKind::PingAck) => self.ping_answered(),
            Packet::Ack(kind, ack) => match kind {
                AckKind::VerifyResult => self.verify_result(ack),
                AckKind::IsInSync => self.resync_in_sync(ack),
                AckKind::ResyncReadFailed => self.resync_refused(ack, true),
                AckKind::ResyncCancelled => self.resync_refused(ack, false),
                _ => self.write_acknowledged(kind, ack),
            },
            Packet::BarrierAck { barrier, count } => self.barrier_acknowledged(barrier, count),
            Packet::ChangeReply(_, code) => self.change_replied(code),
            Packet::DelayProbe => {}
            other => self.protocol_error(&format!("{} on the meta connection", kind_of(&other))),
        }
    }

    fn peer_protocol(&mut self, theirs: Protocol) {
        let own = self.own_protocol();
        let policies_differ = own
            .after_split_brain
            .iter()
            .zip(theirs.after_split_brain)
            .position(|(own, theirs)| own.seen_from_the_peer() != theirs);
        let trouble = if own.protocol != theirs.protocol {
            Some(format!(
                "protocol is {} here and {} there",
                own.protocol, theirs.protocol
            ))
        } else if let Some(index) = policies_differ {
            Some(format!(
                "after-sb-{index}pri is {:?} here and {:?} there",
                own.after_split_brain[index], theirs.after_split_brain[index]
            ))
        } else if own.discard_my_data && theirs.discard_my_data {
            Some("both nodes were told to discard their data".to_owned())
        } else if own.two_primaries != theirs.two_primaries {
            Some("allow-two-primaries is set on one node and not on the other".to_owned())
        } else if own.integrity_algorithm != theirs.integrity_algorithm {
            Some(format!(
                "data-integrity-alg is `{}` here and `{}` there",
                own.integrity_algorithm, theirs.integrity_algorithm
            ))
        } else {
            None
        };
        if let Some(trouble) = trouble {
            self.give_up(&trouble);
        } else if let Some(session) = &mut self.session {
            session.peer_protocol = Some(theirs);
        }
    }

    fn peer_protocol_update(&mut self, theirs: &Protocol) {
        if let (Some(session), Some(net)) = (&mut self.session, &mut self.net) {
            session.integrity = Algorithm::by_name(&theirs.integrity_algorithm);
            net.protocol = theirs.protocol;
            net.two_primaries = theirs.two_primaries;
        }
    }

    fn peer_parameters(&mut self, theirs: &SyncParameters) {
        let Some(net) = &mut self.net else {
            return;
        };
        if self.state.connection < Connection::Connected {
            let differs = [
                (
                    "verify-alg",
                    &net.verify_algorithm,
                    &theirs.verify_algorithm,
                ),
                (
                    "csums-alg",
                    &net.checksum_algorithm,
                    &theirs.checksum_algorithm,
                ),
            ]
            .into_iter()
            .find(|(_, own, theirs)| own != theirs);
            if let Some((name, own, theirs)) = differs {
                let why = format!("{name} is `{own}` here and `{theirs}` there");
                self.give_up(&why);
                return;
            }
        } else {
            net.verify_algorithm.clone_from(&theirs.verify_algorithm);
            net.checksum_algorithm
                .clone_from(&theirs.checksum_algorithm);
        }
        if let Some(backing) = &mut self.disk {
            let resync = &mut backing.settings.resync;
            resync.rate_kib = theirs.resync_rate_kib;
            resync.plan_ahead = theirs.plan_ahead;
            resync.delay_target = theirs.delay_target;
            resync.fill_target = theirs.fill_target;
            resync.max_rate_kib = theirs.max_rate_kib;
        }
    }

    fn peer_sizes(&mut self, theirs: Sizes) {
        let Some(session) = &mut self.session else {
            return;
        };
        let largest = theirs.available.max(theirs.wanted).max(theirs.current);
        if largest > DEVICE_SECTORS_MAX {
            self.protocol_error(&format!(
                "a size of {largest} sectors, and a device has {DEVICE_SECTORS_MAX} at most"
            ));
            return;
        }
        session.peer_sizes = Some(theirs);
        let before = self.sectors;
        if let Some(backing) = self
            .disk
            .as_ref()
            .filter(|_| self.state.disk >= Disk::Negotiating)
        {
            let own_wish = backing.settings.size_sectors;
            let wanted = if self.state.connection < Connection::Connected {
                match (own_wish, theirs.wanted) {
                    (0, wish) | (wish, 0) => wish,
                    (own, theirs) => own.min(theirs),
                }
            } else {
                theirs.wanted
            };
            let fits = new_size(
                backing.usable_sectors,
                backing.superblock.agreed_sectors,
                theirs.available,
                wanted,
            );
            let Some(size) = fits else {
                self.give_up(&format!(
                    "a size of {wanted} sectors is configured, and it does not fit both disks"
                ));
                return;
            };
            let late = self.state.connection < Connection::Connected
                || self.state.peer_disk == Disk::Diskless;
            if size < before && self.state.disk >= Disk::Outdated && late {
                self.give_up(&format!(
                    "the peer's disk is too small: {size} sectors, and the device has {before}"
                ));
                return;
            }
            self.disk
                .as_mut()
                .expect("it was there")
                .settings
                .size_sectors = wanted;
            self.set_size(size);
            self.save_flags();
        } else {
            self.diskless_size(theirs);
        }
        if self.state.connection > Connection::WFReportParams {
            if theirs.current != self.sectors {
                self.send_sizes_as(self.sectors, theirs.flags);
            }
            if self.sectors > before && self.state.connection == Connection::Connected {
                self.device_grew(before, theirs.flags);
            }
        }
    }

    /// Without a disk the peer knows best.
    fn diskless_size(&mut self, theirs: Sizes) {
        let size = [theirs.current, theirs.wanted, theirs.available]
            .into_iter()
            .find(|size| *size > 0)
            .unwrap_or(0);
        let unknown = size == 0 || size == self.sectors;
        if unknown || self.sectors > 0 && theirs.available == 0 {
            return;
        }
        if size < self.sectors && self.state.role == Role::Primary {
            self.give_up(&format!(
                "the peer's device is too small: {size} sectors, and {} are in use here",
                self.sectors
            ));
        } else {
            self.set_size(size);
        }
    }

    /// New space is unlike on both nodes until it is copied.
    fn device_grew(&mut self, before: u64, flags: u16) {
        const NO_RESYNC: u16 = 2;
        let both =
            self.state.disk >= Disk::Inconsistent && self.state.peer_disk >= Disk::Inconsistent;
        if !both || flags & NO_RESYNC != 0 {
            return;
        }
        self.mark(before..self.sectors);
        let source = match (self.state.role, self.state.peer) {
            (own, peer) if own == peer => self
                .session
                .as_ref()
                .is_some_and(|session| session.resolves_conflicts),
            (own, _) => own == Role::Primary,
        };
        if source {
            self.start_resync_source(Extent::Marked);
        } else {
            self.change(State {
                connection: Connection::WFSyncUUID,
                ..self.state
            });
        }
    }

    fn peer_uuids(&mut self, theirs: Uuids) {
        if let Some(session) = &mut self.session {
            session.peer_uuids = Some(theirs);
        }
        let current = theirs.generations[0];
        let no_disk = self.state.disk < Disk::Inconsistent;
        let primary = self.state.role == Role::Primary;
        let meeting =
            self.state.connection < Connection::Connected || self.state.peer_disk == Disk::Diskless;
        if meeting && self.shows_other_data(self.state) {
            return;
        }
        let skip = theirs.flags.has(UuidFlags::SKIP_INITIAL_SYNC)
            && self.state.connection == Connection::Connected;
        if let Some(backing) = &mut self.disk
            && skip
            && backing.superblock.generations.current == Generation::JUST_CREATED
        {
            backing.superblock.generations.current = current.held_as(self.state.role);
            backing.superblock.generations.bitmap = Generation::NONE;
            backing.bitmap.clear_all();
            backing.unsaved = true;
            self.save_bitmap();
            self.change(State {
                disk: Disk::UpToDate,
                peer_disk: Disk::UpToDate,
                ..self.state
            });
            self.save_flags();
        } else if no_disk && (primary || self.established()) {
            self.exposed = current;
        }
    }

    /// Applications here would go on with other data than they saw: not with this peer.
    fn shows_other_data(&mut self, state: State) -> bool {
        let current = self
            .session
            .as_ref()
            .and_then(|session| session.peer_uuids)
            .map(|uuids| uuids.generations[0]);
        let Some(current) = current else {
            return false;
        };
        let other = self.sole_data_lost || !self.exposed.same(current);
        let no_disk = state.disk < Disk::Inconsistent;
        if !other || !no_disk || state.role != Role::Primary {
            return false;
        }
        self.give_up(&format!(
            "applications saw the data of generation {}, and the peer has {current}",
            self.exposed
        ));
        true
    }

    fn peer_state(&mut self, word: u32) {
        let Some(theirs) = State::from_word(word) else {
            self.protocol_error(&format!("a state {word:#x}, which stands for nothing"));
            return;
        };
        let old = self.state;
        if old.connection <= Connection::TearDown {
            return;
        }
        let Some(peer_disk) = self.peers_disk(theirs) else {
            return;
        };
        let mut peer_disk = peer_disk;
        let mut connection = old.connection;
        if connection == Connection::WFReportParams {
            connection = Connection::Connected;
        }
        if theirs.connection == Connection::Ahead {
            connection = Connection::Behind;
        }
        let both_have_disks = theirs.disk >= Disk::Negotiating && old.disk >= Disk::Negotiating;
        let knows = self
            .session
            .as_ref()
            .is_some_and(|session| session.peer_uuids.is_some());
        if both_have_disks && !knows && old.disk == Disk::Negotiating {
            // Said before the peer heard of this disk.
            return;
        }
        let waits = matches!(
            old.connection,
            Connection::WFBitMapT | Connection::WFSyncUUID
        );
        if waits && theirs.disk <= Disk::Failed {
            self.lose(
                Connection::NetworkFailure,
                "the source lost its disk, and the data here is older",
            );
            return;
        }
        if knows && both_have_disks && self.must_decide(theirs) {
            match self.decide(theirs.role, peer_disk) {
                Some(decided) => connection = decided,
                None if self.state.disk == Disk::Negotiating => {
                    connection = Connection::Connected;
                    self.lose_disk("its data does not fit the peer's");
                }
                None if theirs.disk == Disk::Negotiating => {
                    connection = Connection::Connected;
                    self.log("the peer's disk does not fit ours: it is not attached there");
                    peer_disk = Disk::Diskless;
                }
                None => return,
            }
        }
        self.consider_resync = false;
        self.enter_peer_state(old, theirs, connection, peer_disk);
    }

    /// What the peer's disk counts as; none when its word needs nothing more done.
    fn peers_disk(&mut self, theirs: State) -> Option<Disk> {
        let own = self.state;
        let mut peer_disk = theirs.disk;
        if theirs.disk == Disk::Negotiating {
            let inconsistent = self
                .session
                .as_ref()
                .and_then(|session| session.peer_uuids)
                .is_some_and(|uuids| uuids.flags.has(UuidFlags::DISK_INCONSISTENT));
            peer_disk = if inconsistent {
                Disk::Inconsistent
            } else {
                Disk::Consistent
            };
        }
        let was_lesser = matches!(own.peer_disk, Disk::Inconsistent | Disk::Consistent);
        if was_lesser
            && peer_disk == Disk::UpToDate
            && own.connection > Connection::Connected
            && own.disk == Disk::UpToDate
        {
            if theirs.connection > Connection::Connected
                && theirs.connection < Connection::SyncSource
            {
                peer_disk = Disk::Inconsistent;
            } else if own.connection >= Connection::SyncSource
                && theirs.connection == Connection::Connected
            {
                self.peer_finished_resync();
                return None;
            }
        }
        if own.connection == Connection::VerifyT
            && own.disk == Disk::UpToDate
            && theirs.connection == Connection::Connected
            && peer_disk == Disk::UpToDate
        {
            self.finish_verify();
            return None;
        }
        if own.peer_disk == Disk::UpToDate
            && peer_disk == Disk::Inconsistent
            && own.connection == Connection::Connected
            && theirs.connection > Connection::SyncSource
        {
            peer_disk = Disk::UpToDate;
        }
        Some(peer_disk)
    }

    fn must_decide(&self, theirs: State) -> bool {
        let own = self.state;
        let connected = own.connection == Connection::Connected;
        let attaching = theirs.disk == Disk::Negotiating || own.disk == Disk::Negotiating;
        let asked = theirs.connection >= Connection::StartingSyncS
            && theirs.connection <= Connection::WFBitMapT;
        own.connection < Connection::Connected
            || connected && (attaching || asked)
            || self.consider_resync
    }

    fn enter_peer_state(
        &mut self,
        old: State,
        theirs: State,
        connection: Connection,
        peer_disk: Disk,
    ) {
        let mut disk = self.state.disk;
        if matches!(connection, Connection::Connected | Connection::WFBitMapS)
            && disk == Disk::Negotiating
            && let Some(backing) = &self.disk
        {
            disk = backing.prepared.0;
            self.exposed = backing.superblock.generations.current;
        }
        let mut wanted = State {
            connection,
            peer: theirs.role,
            peer_disk,
            disk,
            ..self.state
        };
        wanted.paused.by_peer = theirs.paused.here();
        let establishes =
            old.connection < Connection::Connected && wanted.connection >= Connection::Connected;
        if establishes && self.shows_other_data(wanted) {
            return;
        }
        if establishes {
            let device_open = std::mem::take(&mut self.device_open);
            let entered = self.try_change(wanted);
            self.device_open = device_open;
            if let Err(refusal) = entered {
                self.give_up(&format!("the two nodes do not fit: {refusal}"));
                return;
            }
        } else {
            self.change(wanted);
        }
        if old.connection > Connection::WFReportParams
            && self.state.connection > Connection::Connected
            && theirs.connection <= Connection::Connected
            && theirs.disk != Disk::Negotiating
        {
            self.send_uuids(UuidFlags::default());
            self.send_state();
        }
        self.discard_my_data = false;
        self.save_flags();
    }

    /// Compares both nodes' data; none when the two cannot go on together.
    fn decide(&mut self, peer_role: Role, peer_disk: Disk) -> Option<Connection> {
        let outcome = self.weigh(peer_role, peer_disk)?;
        self.log(format!(
            "decision by rule {}: {}",
            outcome.comparison.rule,
            match outcome.result {
                Ok(decision) => format!("{decision:?}"),
                Err(conflict) => conflict.to_string(),
            }
        ));
        if outcome.split_brain {
            self.act(Action::Handler("initial-split-brain"));
        }
        let decision = match outcome.result {
            Ok(decision) => decision,
            Err(conflict) => {
                self.decision_failed(conflict);
                return None;
            }
        };
        if self.is_trial() {
            let text = format!("a trial connection: the decision would be {decision:?}");
            self.lose(Connection::Disconnecting, &text);
            return None;
        }
        Some(match decision {
            Decision::InSync => Connection::Connected,
            Decision::Resync(source, extent) => {
                if extent == Extent::Everything {
                    self.mark_everything();
                }
                match source {
                    Source::Own => Connection::WFBitMapS,
                    Source::Peer => Connection::WFBitMapT,
                }
            }
        })
    }

    fn is_trial(&self) -> bool {
        self.tentative
            || self
                .session
                .as_ref()
                .and_then(|session| session.peer_protocol.as_ref())
                .is_some_and(|protocol| protocol.dry_run)
    }

    fn decision_failed(&mut self, conflict: Conflict) {
        match conflict {
            Conflict::SplitBrain => self.act(Action::Handler("split-brain")),
            Conflict::PrimaryWouldLose => self.act(Action::Handler("pri-lost")),
            _ => {}
        }
        let meets_disk = self.established();
        if !meets_disk {
            self.give_up(&conflict.to_string());
        }
    }

    fn weigh(&mut self, peer_role: Role, peer_disk: Disk) -> Option<Outcome> {
        let (Some(session), Some(net), Some(backing)) =
            (&mut self.session, &self.net, &mut self.disk)
        else {
            return None;
        };
        let uuids = session.peer_uuids?;
        let own = Side {
            generations: backing.superblock.generations,
            role: self.state.role,
            attaching: self.state.disk == Disk::Negotiating,
            disk: if self.state.disk == Disk::Negotiating {
                backing.prepared.0
            } else {
                self.state.disk
            },
            bits_set: session.bits_announced,
            crashed_primary: backing.crashed_primary,
            discard_my_data: self.discard_my_data,
        };
        let peer = Side {
            generations: generations_of(&uuids),
            role: peer_role,
            disk: peer_disk,
            attaching: false,
            bits_set: uuids.bits_set,
            crashed_primary: uuids.flags.has(UuidFlags::CRASHED_PRIMARY),
            discard_my_data: uuids.flags.has(UuidFlags::DISCARD_MY_DATA),
        };
        let meeting = Meeting {
            resolves_conflicts: session.resolves_conflicts,
            crashed_meets_primary: session.dialect.features.has(FeatureFlags::WSAME),
        };
        let outcome = decide(&own, &peer, meeting, net.policies);
        match outcome.comparison.correction {
            Some(Correction::Own(corrected)) => {
                backing.superblock.generations = corrected;
                backing.unsaved = true;
            }
            Some(Correction::Peer(corrected)) => {
                session.peer_uuids = Some(Uuids {
                    generations: [
                        corrected.current,
                        corrected.bitmap,
                        corrected.history[0],
                        corrected.history[1],
                    ],
                    ..uuids
                });
            }
            None => {}
        }
        Some(outcome)
    }

    /// The peer asks for a change that needs both nodes.
    fn peer_change(&mut self, kind: ChangeKind, change: Change) {
        let code = match self.granted(change) {
            Ok(wanted) => {
                self.change(wanted);
                GRANTED
            }
            Err(refusal) => {
                self.log(format!("a change the peer asked for is refused: {refusal}"));
                refusal.code()
            }
        };
        self.send(Packet::ChangeReply(kind, code));
    }

    fn granted(&mut self, change: Change) -> Result<State, Refusal> {
        let busy = self.asked.is_some()
            && self
                .session
                .as_ref()
                .is_some_and(|session| session.resolves_conflicts);
        if busy {
            return Err(Refusal::ConcurrentChange);
        }
        if self.state.connection < Connection::Connected {
            return Err(Refusal::InTransientState);
        }
        let wanted = change
            .mirrored()
            .applied_to(self.state)
            .ok_or(Refusal::InTransientState)?;
        // Only a Secondary's own doing may be refused for its open device.
        let rules = crate::replica::state::Rules {
            device_open: false,
            ..self.rules()
        };
        wanted.admitted(self.state, rules)
    }

    /// The peer answered what was asked.
    fn change_replied(&mut self, code: i32) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        if code >= GRANTED {
            self.step_granted(&asked);
        } else if asked.step == (Step::Disconnect { outdate: false }) {
            // The peer would be Primary without good data: it may go on with its own if ours
            // is outdated from now on.
            self.ask_disconnect(asked.id, true);
        } else {
            self.log(format!("the peer refused with {code}"));
            if let Some(id) = asked.id {
                self.answer_with(id, Err(Refusal::RefusedByPeer.into()));
            }
        }
    }
}

pub(super) fn generations_of(uuids: &Uuids) -> Generations {
    let [current, bitmap, younger, older] = uuids.generations;
    Generations {
        current,
        bitmap,
        history: [younger, older],
    }
}
