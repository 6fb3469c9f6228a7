//! What the tools ask for: done at once, asked of the peer first, or refused in the field's
//! words. While a handshake or another question is under way, commands wait for its end.

use super::core::{Asked, Engine, Parked, Step};
use super::metadata::new_size;
use super::session::{AfterPing, Phase};
use super::types::{Action, Save};
use crate::replica::control::{Answer, Command, Rejection, WaitUntil, failure};
use crate::replica::digest::Algorithm;
use crate::replica::generation::{Extent, Generation};
use crate::replica::message::{ChangeKind, Packet, UuidFlags};
use crate::replica::settings::{DiskSettings, NetSettings};
use crate::replica::state::{Change, Connection, Disk, Refusal, Role, State};

impl Engine {
    pub(super) fn command(&mut self, id: u64, command: Command) {
        if self.must_wait(&command) {
            self.park(id, command);
            return;
        }
        match command {
            Command::Status => {
                let status = self.status();
                self.answer(id, Answer::Status(Box::new(status)));
            }
            Command::Attach(settings) => self.command_attach(id, settings),
            Command::Detach { force } => self.command_detach(id, force),
            Command::Connect {
                net,
                discard_my_data,
                tentative,
            } => {
                let result = self.command_connect(net, discard_my_data, tentative);
                self.answer_with(id, result);
            }
            Command::Disconnect { force } => self.command_disconnect(id, force),
            Command::Primary { force } => self.command_primary(id, force),
            Command::Secondary => {
                let result = self.demote();
                self.answer_with(id, result.map_err(Rejection::from));
            }
            Command::Invalidate => self.command_invalidate(id),
            Command::InvalidateRemote => self.command_invalidate_remote(id),
            Command::Verify { start, stop } => {
                let change = Change::connection(Connection::VerifyS);
                self.ask(id, Step::Verify { start, stop }, change);
            }
            Command::Resize {
                size_sectors,
                assume_peer_has_space,
                assume_clean,
            } => {
                let result = self.resize(size_sectors, assume_peer_has_space, assume_clean);
                self.answer_with(id, result);
            }
            Command::Adjust { disk, net } => {
                self.adjust(disk, net);
                self.answer(id, Answer::Done);
            }
            Command::PauseSync => {
                let result = self.pause(true);
                self.answer_with(id, result);
            }
            Command::ResumeSync => {
                let result = self.pause(false);
                self.answer_with(id, result);
            }
            Command::SuspendIo => self.suspend(id, true),
            Command::ResumeIo => self.suspend(id, false),
            Command::Outdate => {
                let wanted = State {
                    disk: Disk::Outdated,
                    ..self.state
                };
                let result = self.try_change(wanted);
                self.answer_with(id, result.map_err(Rejection::from));
            }
            Command::NewCurrentUuid { clear_bitmap } => {
                let result = self.new_current_uuid(clear_bitmap);
                self.answer_with(id, result);
            }
            Command::Wait { until, deadline } => self.command_wait(id, until, deadline),
            Command::Down => self.command_down(id),
        }
    }

    /// Whether the command must wait for a handshake, another question, or requests.
    fn must_wait(&self, command: &Command) -> bool {
        let handshake = self.state.connection == Connection::WFReportParams;
        let busy = handshake || self.asked.is_some() || self.attaching.is_some();
        match command {
            Command::Status
            | Command::Wait { .. }
            | Command::SuspendIo
            | Command::ResumeIo
            | Command::Disconnect { force: true } => false,
            // Also for the peer's word that it has everything on its disk: the activity log
            // that covers it counts for a Primary only.
            Command::Secondary | Command::Down => {
                busy || !self.requests.is_empty() && !self.device_open
            }
            _ => busy,
        }
    }

    fn park(&mut self, id: u64, command: Command) {
        self.parked.push(Parked {
            id,
            command,
            deadline: None,
        });
    }

    /// Tries again what could not be done before.
    pub(super) fn retry_parked(&mut self) {
        let ready = |engine: &Self, parked: &Parked| match &parked.command {
            Command::Wait { until, .. } => engine.reached(*until).is_some(),
            command => !engine.must_wait(command),
        };
        let mut index = 0;
        while index < self.parked.len() {
            if ready(self, &self.parked[index]) {
                let parked = self.parked.remove(index);
                self.command(parked.id, parked.command);
            } else {
                index += 1;
            }
        }
    }

    pub(super) fn command_timed_out(&mut self, parked: &Parked) {
        self.answer_with(parked.id, Err(failure::wait_timed_out()));
    }

    fn command_wait(&mut self, id: u64, until: WaitUntil, deadline: Option<std::time::Duration>) {
        match self.reached(until) {
            Some(true) => self.answer(id, Answer::Done),
            Some(false) => self.answer_with(id, Err(failure::wait_timed_out())),
            None => {
                let now = self.now;
                self.parked.push(Parked {
                    id,
                    command: Command::Wait { until, deadline },
                    deadline: deadline.map(|within| now + within),
                });
            }
        }
    }

    /// Whether the state is there (true), will never be (false), or may come yet.
    fn reached(&self, until: WaitUntil) -> Option<bool> {
        let state = self.state;
        let there = match until {
            WaitUntil::Connected => state.connection >= Connection::Connected,
            WaitUntil::InSync => {
                state.connection == Connection::Connected
                    && state.disk == Disk::UpToDate
                    && state.peer_disk == Disk::UpToDate
            }
        };
        if there {
            Some(true)
        } else {
            (state.connection == Connection::StandAlone).then_some(false)
        }
    }

    fn command_attach(&mut self, id: u64, settings: DiskSettings) {
        if self.disk.is_some() {
            self.answer_with(id, Err(failure::already_attached()));
            return;
        }
        self.attaching = Some(id);
        self.act(Action::OpenDisk(Box::new(settings)));
    }

    fn command_detach(&mut self, id: u64, force: bool) {
        if self.disk.is_none() {
            self.answer(id, Answer::Done);
            return;
        }
        if force {
            self.lose_disk("detached by force");
            self.answer(id, Answer::Done);
            return;
        }
        let wanted = State {
            disk: Disk::Failed,
            ..self.state
        };
        if let Some(refusal) = wanted.settled().refusal(self.state, self.rules()) {
            self.answer_with(id, Err(refusal.into()));
        } else if self.established() {
            self.ask(id, Step::Detach, Change::disk(Disk::Failed));
        } else {
            self.detach();
            self.answer(id, Answer::Done);
        }
    }

    fn command_connect(
        &mut self,
        net: NetSettings,
        discard_my_data: bool,
        tentative: bool,
    ) -> Result<(), Rejection> {
        if self.net.is_some() {
            return Err(failure::already_connected());
        }
        check_algorithms(&net)?;
        self.net = Some(net);
        self.discard_my_data = discard_my_data;
        self.tentative = tentative;
        self.change(State {
            connection: Connection::Unconnected,
            ..self.state
        });
        self.look_for_peer();
        Ok(())
    }

    fn command_disconnect(&mut self, id: u64, force: bool) {
        if self.net.is_none() {
            self.answer(id, Answer::Done);
        } else if force || !self.established() {
            self.stand_alone();
            self.answer(id, Answer::Done);
        } else {
            self.ask_disconnect(Some(id), false);
        }
    }

    /// Asks the peer to let go; with `outdate`, by calling this node's data outdated.
    pub(super) fn ask_disconnect(&mut self, id: Option<u64>, outdate: bool) {
        let mut change = Change::connection(Connection::Disconnecting);
        if outdate {
            change = change.and(Change::disk(Disk::Outdated));
        }
        let outdates_primary = outdate && self.state.role == Role::Primary;
        let wanted = change.applied_to(self.state).map(State::settled);
        let refusal = match wanted {
            Some(wanted) if !outdates_primary => wanted.refusal(self.state, self.rules()),
            _ => Some(Refusal::RefusedByPeer),
        };
        match (refusal, id) {
            (None, _) => {
                self.asked = Some(Asked {
                    id,
                    step: Step::Disconnect { outdate },
                });
                self.send(Packet::Change(ChangeKind::Connection, change));
            }
            (Some(refusal), Some(id)) => self.answer_with(id, Err(refusal.into())),
            // The resource goes down, whatever anybody thinks of it.
            (Some(_), None) => self.stand_alone(),
        }
    }

    fn command_primary(&mut self, id: u64, force: bool) {
        if self.state.role == Role::Primary {
            self.answer(id, Answer::Done);
            return;
        }
        // A Primary that stands in the way may be dead, and nobody noticed yet: whoever takes over cannot wait for
        // the next ping.
        let refusal = self.would_refuse(Change::role(Role::Primary));
        if refusal == Some(Refusal::TwoPrimaries) && self.established() {
            self.after_ping(AfterPing::Promote { id, force });
        } else {
            self.promote_or_refuse(id, force);
        }
    }

    /// The connection went before the other Primary gave a sign of life.
    pub(super) fn promote_after_loss(&mut self, waiting: &[AfterPing]) {
        for what in waiting {
            if let AfterPing::Promote { id, force } = *what {
                self.park(id, Command::Primary { force });
            }
        }
    }

    pub(super) fn promote_or_refuse(&mut self, id: u64, force: bool) {
        let mut change = Change::role(Role::Primary);
        let mut forced = false;
        let mut refusal = self.would_refuse(change);
        let disk = self.state.disk;
        if force
            && refusal == Some(Refusal::NoUpToDateDisk)
            && disk >= Disk::Inconsistent
            && disk < Disk::UpToDate
        {
            change = change.and(Change::disk(Disk::UpToDate));
            forced = true;
            refusal = self.would_refuse(change);
        }
        match refusal {
            Some(refusal) => self.answer_with(id, Err(refusal.into())),
            None if self.established() => {
                self.ask(id, Step::Promote { force: forced }, change);
            }
            None => {
                self.promote(forced);
                self.answer(id, Answer::Done);
            }
        }
    }

    fn would_refuse(&self, change: Change) -> Option<Refusal> {
        match change.applied_to(self.state) {
            Some(wanted) => wanted.admitted(self.state, self.rules()).err(),
            None => Some(Refusal::InTransientState),
        }
    }

    /// Asks the peer for a change both must make, if it is allowed from here.
    fn ask(&mut self, id: u64, step: Step, change: Change) {
        if let Some(refusal) = self.would_refuse(change) {
            self.answer_with(id, Err(refusal.into()));
            return;
        }
        if !self.established() {
            self.answer_with(id, Err(Refusal::NeedsConnection.into()));
            return;
        }
        self.asked = Some(Asked { id: Some(id), step });
        self.send(Packet::Change(ChangeKind::Volume, change));
    }

    /// The peer agreed.
    pub(super) fn step_granted(&mut self, asked: &Asked) {
        let connection = |connection| State {
            connection,
            ..self.state
        };
        match asked.step {
            Step::Promote { force } => self.promote(force),
            Step::Detach => self.detach(),
            Step::Invalidate => {
                let wanted = connection(Connection::StartingSyncT);
                self.change(wanted);
            }
            Step::InvalidateRemote => {
                let wanted = connection(Connection::StartingSyncS);
                self.change(wanted);
            }
            Step::Verify { start, stop } => {
                match connection(Connection::VerifyS).admitted(self.state, self.rules()) {
                    Ok(wanted) => {
                        self.verify_range = (start.unwrap_or(self.verify_from), stop);
                        self.change(wanted);
                    }
                    Err(refusal) => {
                        // Something else began meanwhile; the peer waits for a verify.
                        self.send_state();
                        if let Some(id) = asked.id {
                            self.answer_with(id, Err(refusal.into()));
                        }
                        return;
                    }
                }
            }
            Step::Disconnect { outdate } => {
                self.stand_alone();
                if outdate {
                    self.change(State {
                        disk: Disk::Outdated,
                        ..self.state
                    });
                }
            }
        }
        if let Some(id) = asked.id {
            self.answer(id, Answer::Done);
        }
    }

    /// The connection went before the peer answered.
    pub(super) fn asked_in_vain(&mut self) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        match (asked.id, asked.step) {
            (Some(id), Step::Promote { force }) => self.park(id, Command::Primary { force }),
            (Some(id), Step::Disconnect { .. }) => {
                self.park(id, Command::Disconnect { force: true });
            }
            (Some(id), Step::Detach) => self.park(id, Command::Detach { force: false }),
            (Some(id), _) => self.answer_with(id, Err(Refusal::NeedsConnection.into())),
            (None, _) => {}
        }
    }

    /// Becomes Primary; the generation that says so is on disk before anybody may write.
    fn promote(&mut self, forced: bool) {
        let state = self.state;
        let peer_has_nothing =
            state.connection < Connection::Connected || state.peer_disk <= Disk::Failed;
        let random = self.random.next();
        // What the last Primary flushed may be only in this disk's cache: its barrier got lost.
        if self.disk.is_some() {
            self.save(Save {
                flush_data: true,
                writes: Vec::new(),
            });
        }
        if let Some(backing) = &mut self.disk {
            let generations = &mut backing.superblock.generations;
            if forced || peer_has_nothing && generations.bitmap.is_none() {
                generations.start(random, Role::Primary);
            }
            generations.current = generations.current.held_as(Role::Primary);
            self.exposed = generations.current;
            backing.unsaved = true;
        }
        self.change(State {
            role: Role::Primary,
            disk: if forced { Disk::UpToDate } else { state.disk },
            ..state
        });
        self.save_flags();
        if self.parameters_exchanged() {
            if forced {
                self.send_uuids(UuidFlags::default());
            }
            self.send_state();
        }
    }

    fn parameters_exchanged(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.phase == Phase::Parameters)
    }

    fn demote(&mut self) -> Result<(), Refusal> {
        if self.state.role == Role::Secondary {
            return Ok(());
        }
        let wanted = State {
            role: Role::Secondary,
            ..self.state
        };
        if let Some(refusal) = wanted.refusal(self.state, self.rules()) {
            return Err(refusal);
        }
        if let Some(backing) = &mut self.disk {
            let current = &mut backing.superblock.generations.current;
            *current = current.held_as(Role::Secondary);
            backing.unsaved = true;
        }
        // What was marked, and the data itself, must outlive the activity log, which counts
        // for a Primary only.
        if self.disk.is_some() {
            self.save(Save {
                flush_data: true,
                writes: Vec::new(),
            });
        }
        self.save_bitmap();
        self.change(wanted);
        self.save_flags();
        if self.parameters_exchanged() {
            self.send_state();
        }
        Ok(())
    }

    fn command_invalidate(&mut self, id: u64) {
        let alone = self.state.connection == Connection::StandAlone;
        if alone && self.state.role == Role::Secondary {
            let wanted = State {
                disk: Disk::Inconsistent,
                ..self.state
            };
            let result = if self.disk.is_some() {
                self.try_change(wanted).map_err(Rejection::from)
            } else {
                Err(failure::no_disk())
            };
            if result.is_ok() {
                self.mark_everything();
            }
            self.answer_with(id, result);
        } else {
            let change = Change::connection(Connection::StartingSyncT);
            self.ask(id, Step::Invalidate, change);
        }
    }

    fn command_invalidate_remote(&mut self, id: u64) {
        let alone = self.state.connection == Connection::StandAlone;
        if alone && self.state.role == Role::Primary && self.disk.is_some() {
            self.mark_everything();
            self.change(State {
                peer_disk: Disk::Inconsistent,
                ..self.state
            });
            self.answer(id, Answer::Done);
        } else {
            let change = Change::connection(Connection::StartingSyncS);
            self.ask(id, Step::InvalidateRemote, change);
        }
    }

    fn resize(
        &mut self,
        size_sectors: u64,
        assume_peer_has_space: bool,
        assume_clean: bool,
    ) -> Result<(), Rejection> {
        const NO_RESYNC: u16 = 2;
        if self.state.connection > Connection::Connected {
            return Err(failure::resize_while_syncing());
        }
        if self.established()
            && self.state.role != Role::Primary
            && self.state.peer != Role::Primary
        {
            return Err(failure::resize_needs_primary());
        }
        let peer = self
            .session
            .as_ref()
            .and_then(|session| session.peer_sizes)
            .map_or(0, |sizes| sizes.available);
        let Some(backing) = &mut self.disk else {
            return Err(failure::no_disk());
        };
        let peer = if peer == 0 && assume_peer_has_space {
            backing.usable_sectors
        } else {
            peer
        };
        let before = self.sectors;
        let size = new_size(
            backing.usable_sectors,
            backing.superblock.agreed_sectors,
            peer,
            size_sectors,
        )
        .ok_or_else(|| {
            failure::disk_too_small().because(format!("{size_sectors} sectors are wanted"))
        })?;
        backing.settings.size_sectors = size_sectors;
        self.set_size(size);
        self.save_flags();
        if self.established() {
            let flags = if assume_clean { NO_RESYNC } else { 0 };
            self.send_sizes_as(0, flags);
            if !assume_clean && size > before {
                self.mark(before..size);
                if self.state.role == Role::Primary {
                    self.start_resync_source(Extent::Marked);
                }
            }
        }
        Ok(())
    }

    fn adjust(&mut self, disk: Option<DiskSettings>, net: Option<NetSettings>) {
        if let (Some(settings), Some(backing)) = (disk, &mut self.disk)
            && settings.disk == backing.settings.disk
            && settings.meta == backing.settings.meta
        {
            backing.settings = settings;
        }
        let Some(mut settings) = net else {
            return;
        };
        let Some(current) = &self.net else {
            return;
        };
        if check_algorithms(&settings).is_err() {
            return;
        }
        if settings.authentication.is_none() {
            settings.authentication.clone_from(&current.authentication);
        }
        self.net = Some(settings);
        if self.established() {
            let parameters = self.own_parameters();
            self.send(Packet::SyncParameters(parameters));
        }
    }

    fn pause(&mut self, pause: bool) -> Result<(), Rejection> {
        if self.state.paused.by_user == pause {
            return Err(if pause {
                failure::pause_is_set()
            } else {
                failure::pause_is_clear()
            });
        }
        let mut wanted = self.state;
        wanted.paused.by_user = pause;
        self.change(wanted);
        Ok(())
    }

    fn suspend(&mut self, id: u64, suspend: bool) {
        let mut wanted = self.state;
        wanted.suspended.by_user = suspend;
        self.change(wanted);
        if !suspend {
            self.resume_requests();
        }
        self.answer(id, Answer::Done);
    }

    fn new_current_uuid(&mut self, clear_bitmap: bool) -> Result<(), Rejection> {
        let random = self.random.next();
        let role = self.state.role;
        let (state, established) = (self.state, self.established());
        let Some(backing) = &mut self.disk else {
            return Err(failure::no_disk());
        };
        let generations = &mut backing.superblock.generations;
        let created = generations.current == Generation::JUST_CREATED;
        let skip =
            established && state.connection == Connection::Connected && created && clear_bitmap;
        if !skip && state.connection != Connection::StandAlone {
            return Err(failure::connected());
        }
        generations.set_bitmap(Generation::NONE);
        generations.start(random, role);
        if skip {
            generations.bitmap = Generation::NONE;
        }
        if clear_bitmap {
            backing.bitmap.clear_all();
        }
        backing.unsaved = true;
        self.save_bitmap();
        self.save_flags();
        if skip {
            self.send_uuids(UuidFlags::SKIP_INITIAL_SYNC);
            self.change(State {
                disk: Disk::UpToDate,
                peer_disk: Disk::UpToDate,
                ..self.state
            });
        }
        Ok(())
    }

    fn command_down(&mut self, id: u64) {
        if let Err(refusal) = self.demote() {
            self.answer_with(id, Err(refusal.into()));
            return;
        }
        if self.net.is_some() && self.established() {
            self.ask_disconnect(None, false);
            if self.asked.is_some() {
                self.park(id, Command::Down);
                return;
            }
        }
        if self.net.is_some() {
            self.stand_alone();
        }
        if self.disk.is_some() {
            self.detach();
        }
        self.answer(id, Answer::Done);
        self.act(Action::Exit);
    }
}

fn check_algorithms(net: &NetSettings) -> Result<(), Rejection> {
    let known = |name: &str| Algorithm::by_name(name).is_some();
    let hint = |name: &str| format!("`{name}`; known here are {}", Algorithm::names());
    if let Some(authentication) = &net.authentication {
        let keyed = Algorithm::by_name(&authentication.algorithm)
            .and_then(|algorithm| algorithm.keyed(b"", b""));
        if keyed.is_none() {
            return Err(
                failure::unknown_secret_algorithm().because(hint(&authentication.algorithm))
            );
        }
    }
    let named = [
        (&net.verify_algorithm, failure::unknown_verify_algorithm()),
        (
            &net.checksum_algorithm,
            failure::unknown_checksum_algorithm(),
        ),
        (
            &net.integrity_algorithm,
            failure::unknown_integrity_algorithm(),
        ),
    ];
    for (name, rejection) in named {
        if !name.is_empty() && !known(name) {
            return Err(rejection.because(hint(name)));
        }
    }
    Ok(())
}
