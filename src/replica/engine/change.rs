//! From one state to the next: what is saved, what the peer is told, what begins and ends.

use super::core::Engine;
use super::types::Action;
use crate::replica::device::Presence;
use crate::replica::fields::SECTOR;
use crate::replica::generation::Extent;
use crate::replica::message::{Packet, UuidFlags, Uuids};
use crate::replica::state::{Connection, Disk, Refusal, Role, Rules, State};

impl Engine {
    /// What besides the state decides whether a state is allowed.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            device_open: self.device_open,
            fencing: self.disk_settings().is_some_and(|disk| disk.fencing),
            can_verify: self
                .net
                .as_ref()
                .is_some_and(|net| !net.verify_algorithm.is_empty()),
        }
    }

    /// Enters a state if it is allowed.
    pub(super) fn try_change(&mut self, wanted: State) -> Result<(), Refusal> {
        let wanted = wanted.settled();
        if let Some(refusal) = wanted.refusal(self.state, self.rules()) {
            return Err(refusal);
        }
        self.change(wanted);
        Ok(())
    }

    /// Enters a state, whatever is asked of it: the network is gone, the peer said so.
    pub(super) fn change(&mut self, wanted: State) {
        let old = self.state;
        let mut new = wanted.settled();
        if new.disk == Disk::Negotiating && new.connection < Connection::Connected {
            // Nobody is left to decide with: the disk is what its metadata says.
            if let Some(backing) = &self.disk {
                let current = backing.superblock.generations.current;
                if self.exposed.is_none() || self.exposed.same(current) {
                    (new.disk, new.peer_disk) = backing.prepared;
                    self.exposed = current;
                } else {
                    // Applications saw newer data, at the peer.
                    (new.disk, new.peer_disk) = (Disk::Diskless, Disk::DUnknown);
                }
            }
        }
        if new == old {
            return;
        }
        let unfit = old.disk == Disk::Negotiating && new.disk == Disk::Diskless;
        self.state = new;
        self.log(format!("{old} -> {new}"));
        self.consider_resync |= old.disk == Disk::Inconsistent
            && old.peer_disk == Disk::Inconsistent
            && old.peer == Role::Secondary
            && new.peer == Role::Primary;
        self.update_generations(old);
        if let Some(backing) = &mut self.disk
            && new.disk == Disk::UpToDate
            && new.peer_disk == Disk::UpToDate
        {
            backing.crashed_primary = false;
        }
        if unfit {
            self.log("its data is older than what applications saw: the disk is not attached");
            self.act(Action::CloseDisk);
            self.disk = None;
        }
        self.save_flags();
        self.stop_what_ended(old);
        self.tell_peer(old);
        self.update_presence();
        self.begin_what_starts(old);
    }

    /// A Primary whose peer is gone writes a new history; it is on disk before any write. So does a node that was
    /// Primary when the peer's disk missed a write: without a generation of its own nobody would look at its mark.
    fn update_generations(&mut self, old: State) {
        let new = self.state;
        if !lost_peers_data(old, new) {
            return;
        }
        let writes = new.role == Role::Primary || new.peer == Role::Primary;
        let alone = self
            .disk
            .as_ref()
            .is_some_and(|disk| disk.superblock.generations.bitmap.is_none());
        if (writes || self.peer_missed) && alone && new.disk >= Disk::UpToDate {
            self.new_generation();
            if self.established() {
                self.send_uuids(UuidFlags::default());
            }
        }
    }

    /// Starts a new generation of the data, and saves it.
    pub(super) fn new_generation(&mut self) {
        let random = self.random.next();
        let role = self.state.role;
        let Some(backing) = &mut self.disk else {
            return;
        };
        backing.superblock.generations.start(random, role);
        let current = backing.superblock.generations.current;
        self.exposed = current;
        self.peer_missed = false;
        self.log(format!("new current generation {current}"));
        self.save_superblock();
    }

    fn stop_what_ended(&mut self, old: State) {
        let new = self.state;
        let was_syncing = old.connection.syncing();
        if was_syncing && !new.connection.syncing() {
            self.resync_ended();
        }
        if old.connection.verifying() && !new.connection.verifying() {
            self.verify_ended();
        }
    }

    fn begin_what_starts(&mut self, old: State) {
        let new = self.state.connection;
        if old.connection == new {
            return;
        }
        match new {
            Connection::WFBitMapS => self.send_bitmap(),
            Connection::WFBitMapT => self.expect_bitmap(),
            Connection::StartingSyncS => self.start_resync_source(Extent::Everything),
            Connection::StartingSyncT => {
                self.mark_everything();
                self.change(State {
                    connection: Connection::WFSyncUUID,
                    ..self.state
                });
            }
            Connection::WFSyncUUID => {
                let early = self
                    .session
                    .as_mut()
                    .and_then(|session| session.early_start.take());
                if let Some(generation) = early {
                    self.start_resync_target(generation);
                }
            }
            Connection::VerifyS | Connection::VerifyT => self.begin_verify(),
            _ => {}
        }
    }

    /// Says what the peer cannot know by itself.
    fn tell_peer(&mut self, old: State) {
        let new = self.state;
        if new.connection < Connection::Connected {
            return;
        }
        if old.peer_disk == Disk::Diskless
            && new.peer_disk > Disk::Diskless
            && old.connection >= Connection::Connected
        {
            self.send_uuids(UuidFlags::default());
            self.send_state();
        } else if old.disk != Disk::Negotiating && new.disk == Disk::Negotiating {
            self.send_sizes();
            self.send_uuids(UuidFlags::default());
            self.send_state();
        } else if self.worth_telling(old) {
            self.send_state();
        }
    }

    fn worth_telling(&self, old: State) -> bool {
        let new = self.state;
        let newly_established = old.connection < Connection::Connected;
        let paused = old.paused.here() != new.paused.here();
        let disk_gone = old.disk != new.disk && new.disk <= Disk::Failed;
        let disk_spoiled = old.disk == Disk::UpToDate
            && new.disk == Disk::Inconsistent
            && new.connection <= Connection::Connected;
        let synced = old.connection >= Connection::SyncSource
            && old.disk < Disk::UpToDate
            && new.connection == Connection::Connected;
        let verified =
            old.connection == Connection::VerifyS && new.connection == Connection::Connected;
        newly_established || paused || disk_gone || disk_spoiled || synced || verified
    }

    /// Tells the peer what this node sees.
    pub(super) fn send_state(&mut self) {
        self.send(Packet::State(self.state.word()));
    }

    pub(super) fn send_uuids(&mut self, flags: UuidFlags) {
        let Some(backing) = &self.disk else {
            return;
        };
        if self.state.disk < Disk::Negotiating {
            return;
        }
        let generations = backing.superblock.generations;
        let inconsistent = self.state.disk == Disk::Negotiating
            && backing.prepared.0 == Disk::Inconsistent
            || self.state.disk == Disk::Inconsistent;
        let bits_set = backing.bitmap.bits_set();
        let flags = flags
            .with(UuidFlags::DISCARD_MY_DATA, self.discard_my_data)
            .with(UuidFlags::CRASHED_PRIMARY, backing.crashed_primary)
            .with(UuidFlags::DISK_INCONSISTENT, inconsistent);
        let uuids = Uuids {
            generations: [
                generations.current,
                generations.bitmap,
                generations.history[0],
                generations.history[1],
            ],
            bits_set,
            flags,
        };
        if let Some(session) = &mut self.session {
            session.bits_announced = bits_set;
        }
        self.send(Packet::Uuids(uuids));
    }

    /// Shows the device as the role and the disks allow.
    pub(super) fn update_presence(&mut self) {
        let bytes = self.sectors * SECTOR;
        let presence = if bytes == 0 {
            Presence::Absent
        } else if self.state.role == Role::Primary {
            Presence::Writable { bytes }
        } else {
            Presence::ReadOnly { bytes }
        };
        if presence != self.presence {
            self.presence = presence;
            self.act(Action::Present(presence));
        }
    }
}

/// Whether the peer's copy of the data got lost to this node.
fn lost_peers_data(old: State, new: State) -> bool {
    let had = matches!(
        old.peer_disk,
        Disk::Inconsistent | Disk::Consistent | Disk::UpToDate
    );
    let has_not = new.peer_disk < Disk::Inconsistent
        || matches!(new.peer_disk, Disk::Outdated | Disk::DUnknown);
    had && has_not
        || old.peer_disk == Disk::DUnknown
            && matches!(
                new.peer_disk,
                Disk::Diskless | Disk::Failed | Disk::Outdated
            )
}
