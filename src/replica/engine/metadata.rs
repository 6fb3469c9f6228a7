//! The disk's other half: superblock, activity log and bitmap, from attach to detach.
//!
//! What must be on disk before what:
//!
//! * bits of an evicted extent → transaction that evicts it → first write to the new extent;
//! * data → the clearing of its bits on disk (a save says so, and the data is flushed first);
//! * generations and flags → any word to the peer, any answer to an application.

use bytes::Bytes;

use super::core::{Breakage, Engine, Pending, Purpose};
use super::types::{Action, DiskOp, OpenedDisk, Save};
use crate::replica::activity::{self, ActivityLog, EXTENT_BITS, EXTENT_SECTORS, Entered, Saving};
use crate::replica::bitmap::Bitmap;
use crate::replica::control::{Rejection, failure};
use crate::replica::device::Errno;
use crate::replica::fields::{SECTOR, SECTORS_PER_BLOCK, narrow, wide};
use crate::replica::layout::{Flags, Layout, LayoutError, PAGE, Placement, Superblock};
use crate::replica::settings::{DiskSettings, MetaDisk, OnIoError};
use crate::replica::state::{Connection, Disk, Role, State};

/// An attached disk.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a mark of its own, set and taken in different places"
)]
#[derive(Debug)]
pub(super) struct Backing {
    pub settings: DiskSettings,
    pub layout: Layout,
    pub superblock: Superblock,
    pub bitmap: Bitmap,
    pub log: ActivityLog,
    /// The most that can be offered, in sectors.
    pub usable_sectors: u64,
    pub crashed_primary: bool,
    pub discards: bool,
    /// Bits were cleared since the data was last flushed.
    pub unstable_clears: bool,
    /// Generations or sizes changed since the superblock was written.
    pub unsaved: bool,
    /// What the disks will be once a disk attached while connected is decided upon.
    pub prepared: (Disk, Disk),
}

impl Backing {
    fn new(opened: OpenedDisk) -> Result<Self, Rejection> {
        let placement = match &opened.settings.meta {
            MetaDisk::Internal => Placement::Internal,
            MetaDisk::External(_) => Placement::External {
                metadata_sectors: opened.metadata_sectors,
            },
            MetaDisk::Indexed(_, index) => Placement::Indexed {
                index: *index,
                metadata_sectors: opened.metadata_sectors,
            },
        };
        let ring = Superblock::ring(&opened.superblock).map_err(|error| refused(&error))?;
        let layout =
            Layout::of(placement, opened.device_sectors, ring).map_err(|error| refused(&error))?;
        let superblock =
            Superblock::decode(&opened.superblock, &layout).map_err(|error| refused(&error))?;
        let size = new_size(
            layout.usable_sectors,
            superblock.agreed_sectors,
            0,
            opened.settings.size_sectors,
        )
        .ok_or_else(|| {
            failure::disk_too_small().because(format!(
                "{} sectors are wanted, and {} are there",
                opened.settings.size_sectors, layout.usable_sectors
            ))
        })?;
        if superblock.flags.has(Flags::CONSISTENT) && size < superblock.agreed_sectors {
            return Err(failure::disk_would_shrink().because(format!(
                "it held {} sectors, and {size} are there",
                superblock.agreed_sectors
            )));
        }
        let was_primary = superblock.flags.has(Flags::PRIMARY);
        let mut bitmap = opened.bitmap;
        bitmap.resize(size);
        if !superblock.clean() && was_primary {
            let changed = activity::replay(opened.activity.chunks(PAGE))
                .map_err(|error| failure::io_of_metadata().because(error))?;
            for extent in changed {
                let start = u64::from(extent) * EXTENT_SECTORS;
                bitmap.mark_sectors(start..start + EXTENT_SECTORS);
            }
        }
        if superblock.agreed_sectors < size {
            // Space nobody has agreed on yet is like nothing at the peer's.
            bitmap.mark_sectors(superblock.agreed_sectors..size);
        }
        let crashed_primary = was_primary || superblock.flags.has(Flags::CRASHED_PRIMARY);
        if superblock.flags.has(Flags::FULL_SYNC)
            || crashed_primary && superblock.flags.has(Flags::ACTIVITY_DISABLED)
        {
            bitmap.mark_all();
        }
        Ok(Self {
            log: ActivityLog::new(opened.settings.al_extents),
            settings: opened.settings,
            layout,
            superblock,
            bitmap,
            usable_sectors: layout.usable_sectors,
            crashed_primary,
            discards: opened.discards,
            unstable_clears: false,
            unsaved: false,
            prepared: (Disk::Negotiating, Disk::DUnknown),
        })
    }

    /// What the disk is, as far as its superblock knows.
    fn found_disk(&self) -> (Disk, Disk) {
        let flags = self.superblock.flags;
        let peer = if flags.has(Flags::PEER_OUTDATED) {
            Disk::Outdated
        } else {
            Disk::DUnknown
        };
        let disk = if !flags.has(Flags::CONSISTENT) {
            Disk::Inconsistent
        } else if !flags.has(Flags::WAS_UP_TO_DATE) {
            Disk::Outdated
        } else if peer == Disk::Outdated || !self.settings.fencing {
            Disk::UpToDate
        } else {
            Disk::Consistent
        };
        (disk, peer)
    }

    fn bitmap_writes(&self, pages: Vec<(u64, Bytes)>) -> Vec<(u64, Bytes)> {
        pages
            .into_iter()
            .map(|(page, bytes)| {
                let at = self.layout.bitmap_byte() + page * wide(PAGE);
                (at, bytes)
            })
            .collect()
    }

    fn log_at(&self, number: u32) -> u64 {
        self.layout.activity_byte() + self.layout.ring.block_of(number) * wide(PAGE)
    }

    /// The log with nothing in it.
    fn empty_log(&self) -> Vec<(u64, Bytes)> {
        let block = Bytes::from(activity::initialized_block());
        (0..self.layout.ring.blocks())
            .map(|index| {
                (
                    self.layout.activity_byte() + index * wide(PAGE),
                    block.clone(),
                )
            })
            .collect()
    }
}

fn refused(error: &LayoutError) -> Rejection {
    match error {
        LayoutError::TooSmall { .. } => failure::disk_too_small().because(error),
        LayoutError::Unclean => failure::unclean_metadata().because(error),
        _ => failure::no_metadata().because(format!(
            "{error}; `drbdadm create-md` writes new metadata, and forgets what is there"
        )),
    }
}

/// What two nodes' device will be, in sectors: what fits both, or what was agreed before;
/// none when more was asked for than fits.
pub(super) fn new_size(own: u64, agreed: u64, peer: u64, wanted: u64) -> Option<u64> {
    let least = |one: u64, other: u64| if other > 0 && other < one { other } else { one };
    let fits = if own > 0 && peer > 0 {
        own.min(peer)
    } else if agreed > 0 {
        least(least(agreed, own), peer)
    } else {
        own.max(peer)
    };
    match wanted {
        0 => Some(fits),
        wanted if wanted <= fits => Some(wanted),
        _ => None,
    }
}

impl Engine {
    /// The answer to the request to open the disk.
    pub(super) fn disk_opened(&mut self, opened: Result<Box<OpenedDisk>, Rejection>) {
        let asker = self.attaching.take();
        let result = opened.and_then(|opened| self.attach(*opened));
        if result.is_err() {
            self.act(Action::CloseDisk);
            self.state.disk = Disk::Diskless;
        }
        if let Some(asker) = asker {
            self.answer_with(asker, result);
        }
    }

    fn attach(&mut self, opened: OpenedDisk) -> Result<(), Rejection> {
        let backing = Backing::new(opened)?;
        let current = backing.superblock.generations.current;
        let somebody_writes = self.state.role == Role::Primary || self.state.peer == Role::Primary;
        if somebody_writes
            && self.state.peer_disk != Disk::UpToDate
            && !self.exposed.is_none()
            && !self.exposed.same(current)
        {
            return Err(failure::different_data());
        }
        let size = backing.bitmap.sectors();
        let (disk, peer_disk) = backing.found_disk();
        if backing.crashed_primary {
            self.log("this node was Primary when it stopped: its last changes are marked");
        }
        self.disk = Some(backing);
        self.sole_data_lost = false;
        self.set_size(size);
        if std::mem::take(&mut self.distrusted) {
            self.mark_everything();
        }
        self.save_bitmap();
        // Everything is marked on disk now: the next attach has no reason to mark it again.
        if let Some(backing) = &mut self.disk {
            backing.superblock.flags = backing.superblock.flags.with(Flags::FULL_SYNC, false);
        }
        let empty = self.disk.as_ref().expect("it was just set").empty_log();
        self.save(Save {
            flush_data: false,
            writes: empty,
        });
        if self.state.connection == Connection::Connected {
            let backing = self.disk.as_mut().expect("it was just set");
            backing.prepared = (disk, peer_disk);
            if let Some(session) = &mut self.session {
                // What the peer said before may be older than this disk's last end: it says it
                // again when it hears of the disk.
                session.peer_uuids = None;
            }
            self.save_superblock();
            self.change(State {
                disk: Disk::Negotiating,
                ..self.state
            });
        } else {
            let peer_disk = if self.state.peer_disk == Disk::DUnknown {
                peer_disk
            } else {
                self.state.peer_disk
            };
            self.exposed = current;
            self.change(State {
                disk,
                peer_disk,
                ..self.state
            });
            self.save_superblock();
        }
        Ok(())
    }

    /// Sets the device's size, in sectors, and remembers it on disk.
    pub(super) fn set_size(&mut self, sectors: u64) {
        if let Some(backing) = &mut self.disk {
            if backing.bitmap.sectors() != sectors {
                backing.bitmap.resize(sectors);
            }
            backing.unsaved |= backing.superblock.agreed_sectors != sectors;
            backing.superblock.agreed_sectors = sectors;
        }
        if self.sectors != sectors {
            self.sectors = sectors;
            self.log(format!("size = {} KiB", sectors / 2));
        }
        self.update_presence();
    }

    pub(super) fn save(&mut self, save: Save) {
        if !save.writes.is_empty() || save.flush_data {
            self.act(Action::Save(save));
        }
    }

    /// Writes the superblock as things are now.
    pub(super) fn save_superblock(&mut self) {
        let flags = self.flags();
        let Some(backing) = &mut self.disk else {
            return;
        };
        backing.superblock.flags = flags;
        backing.unsaved = false;
        backing.superblock.activity_extents = backing.settings.al_extents.into();
        let writes = vec![(
            backing.layout.superblock_byte(),
            Bytes::from(backing.superblock.encode(&backing.layout)),
        )];
        self.save(Save {
            flush_data: false,
            writes,
        });
    }

    /// Writes the superblock if its flags are not what they should be.
    pub(super) fn save_flags(&mut self) {
        if self
            .disk
            .as_ref()
            .is_some_and(|backing| backing.unsaved || backing.superblock.flags != self.flags())
        {
            self.save_superblock();
        }
    }

    /// The superblock's flags for the present state.
    fn flags(&self) -> Flags {
        let Some(backing) = &self.disk else {
            return Flags::default();
        };
        let old = backing.superblock.flags;
        if self.state.disk < Disk::Inconsistent {
            return old.with(Flags::ACTIVITY_CLEAN, false);
        }
        let state = self.state;
        let writes_through = state.peer_disk < Disk::Inconsistent && state.peer == Role::Primary;
        let peer_outdated =
            state.peer_disk >= Disk::Inconsistent && state.peer_disk <= Disk::Outdated;
        old.with(Flags::ACTIVITY_CLEAN, false)
            .with(Flags::CRASHED_PRIMARY, backing.crashed_primary)
            .with(
                Flags::PRIMARY,
                state.role == Role::Primary || writes_through,
            )
            .with(
                Flags::CONNECTED,
                state.connection > Connection::WFReportParams,
            )
            .with(Flags::CONSISTENT, state.disk > Disk::Inconsistent)
            .with(Flags::WAS_UP_TO_DATE, state.disk > Disk::Outdated)
            .with(Flags::PEER_OUTDATED, peer_outdated)
    }

    /// Writes every page of the bitmap that changed.
    pub(super) fn save_bitmap(&mut self) {
        let Some(backing) = &mut self.disk else {
            return;
        };
        let pages = backing.bitmap.take_unsaved();
        self.save_pages(pages);
    }

    fn save_pages(&mut self, pages: Vec<(u64, Bytes)>) {
        let Some(backing) = &mut self.disk else {
            return;
        };
        if pages.is_empty() {
            return;
        }
        self.counters.bitmap_writes += wide(pages.len());
        let writes = backing.bitmap_writes(pages);
        let flush_data = std::mem::take(&mut backing.unstable_clears);
        self.save(Save { flush_data, writes });
    }

    /// Counts everything as different, in a way that a crash in the middle does not undo.
    pub(super) fn mark_everything(&mut self) {
        let Some(backing) = &mut self.disk else {
            return;
        };
        backing.superblock.flags = backing.superblock.flags.with(Flags::FULL_SYNC, true);
        self.save_superblock();
        let backing = self.disk.as_mut().expect("it was there");
        backing.bitmap.mark_all();
        self.save_bitmap();
        let backing = self.disk.as_mut().expect("it was there");
        backing.superblock.flags = backing.superblock.flags.with(Flags::FULL_SYNC, false);
        self.save_superblock();
    }

    /// Marks sectors as different here and there.
    pub(super) fn mark(&mut self, sectors: std::ops::Range<u64>) {
        if let Some(backing) = &mut self.disk {
            backing.bitmap.mark_sectors(sectors);
        }
    }

    /// Marks sectors, on disk before anything that comes after.
    pub(super) fn mark_on_disk(&mut self, sectors: std::ops::Range<u64>) {
        let Some(backing) = &mut self.disk else {
            return;
        };
        let bits = sectors.start / SECTORS_PER_BLOCK..sectors.end.div_ceil(SECTORS_PER_BLOCK);
        backing.bitmap.mark_sectors(sectors);
        let pages = backing.bitmap.take_unsaved_of(bits);
        self.save_pages(pages);
    }

    /// Clears sectors: they are known to be the same.
    pub(super) fn clear(&mut self, sectors: std::ops::Range<u64>) -> u64 {
        let Some(backing) = &mut self.disk else {
            return 0;
        };
        let cleared = backing.bitmap.clear_sectors(sectors);
        backing.unstable_clears |= cleared > 0;
        cleared
    }

    /// Enters a write's extents in the activity log; false when there is no room.
    pub(super) fn enter_log(&mut self, extents: std::ops::RangeInclusive<u32>) -> bool {
        let Some(backing) = &mut self.disk else {
            return true;
        };
        match backing.log.enter(extents) {
            Entered::Hot => true,
            Entered::Full => false,
            Entered::Save(saving) => {
                self.save_log(&saving);
                true
            }
        }
    }

    fn save_log(&mut self, saving: &Saving) {
        let Some(backing) = &mut self.disk else {
            return;
        };
        let mut pages = Vec::new();
        for extent in &saving.evicted {
            let start = u64::from(*extent) * EXTENT_BITS;
            pages.extend(backing.bitmap.take_unsaved_of(start..start + EXTENT_BITS));
        }
        self.save_pages(pages);
        self.counters.activity_writes += 1;
        let backing = self.disk.as_ref().expect("it was there");
        let writes = vec![(
            backing.log_at(saving.transaction.number),
            Bytes::from(saving.transaction.encode()),
        )];
        if self.breakage != Some(Breakage::WriteBeforeLog) {
            // What left the log is not looked at after a crash: its data must be stable.
            self.save(Save {
                flush_data: !saving.evicted.is_empty(),
                writes,
            });
        }
    }

    /// Gives up the disk in order: what is marked is saved, and the metadata is clean.
    pub(super) fn detach(&mut self) {
        // What was acknowledged is stable before anything else is said or answered.
        self.save(Save {
            flush_data: true,
            writes: Vec::new(),
        });
        self.change(State {
            disk: Disk::Failed,
            ..self.state
        });
        self.fail_pending_io();
        self.mark_unconfirmed();
        self.save_bitmap();
        if let Some(backing) = &mut self.disk {
            let empty = backing.empty_log();
            backing.superblock.flags = backing.superblock.flags.with(Flags::ACTIVITY_CLEAN, true);
            let superblock = (
                backing.layout.superblock_byte(),
                Bytes::from(backing.superblock.encode(&backing.layout)),
            );
            self.save(Save {
                flush_data: true,
                writes: empty,
            });
            self.save(Save {
                flush_data: false,
                writes: vec![superblock],
            });
        }
        self.drop_disk();
    }

    /// The disk is of no use any more.
    pub(super) fn lose_disk(&mut self, why: &str) {
        if self.disk.is_none() || self.state.disk <= Disk::Failed {
            return;
        }
        self.log(format!("the disk is given up: {why}"));
        if self
            .disk_settings()
            .is_some_and(|settings| settings.on_io_error == OnIoError::CallLocalIoError)
        {
            self.act(Action::Handler("local-io-error"));
        }
        let primary = self.state.role == Role::Primary;
        let peer_has_it = self.established() && self.state.peer_disk == Disk::UpToDate;
        self.sole_data_lost = primary && self.state.disk == Disk::UpToDate && !peer_has_it;
        self.change(State {
            disk: Disk::Failed,
            ..self.state
        });
        if primary && peer_has_it {
            self.disown_data();
        }
        self.take_back_epoch();
        self.fail_pending_io();
        self.drop_disk();
    }

    /// Says on the disk that its data is not what applications see: the write that failed here is
    /// answered from the peer, and a peer that never hears of this disk's end keeps the generation
    /// that both have.
    fn disown_data(&mut self) {
        if let Some(backing) = &mut self.disk {
            backing.superblock.flags = backing
                .superblock
                .flags
                .with(Flags::CONSISTENT, false)
                .with(Flags::WAS_UP_TO_DATE, false);
            self.save_superblock();
        }
    }

    fn drop_disk(&mut self) {
        self.act(Action::CloseDisk);
        self.disk = None;
        for request in self.requests.values_mut() {
            request.extents = None;
        }
        self.change(State {
            disk: Disk::Diskless,
            ..self.state
        });
    }

    /// Whatever is under way on the disk counts as failed; where it lands nobody knows.
    fn fail_pending_io(&mut self) {
        let mut ids: Vec<u64> = self.io.keys().copied().collect();
        ids.sort_unstable();
        // Operations that had not begun hold no range; applications' writes that wait for one
        // go on without this disk.
        let deferred = std::mem::take(&mut self.deferred);
        self.locks
            .forget_waiting(|holder| deferred.contains_key(&holder));
        for id in ids {
            let Some(Pending {
                range,
                purpose,
                session,
            }) = self.io.remove(&id)
            else {
                continue;
            };
            if session == self.session_serial() || !purpose.is_an_exchange() {
                self.abandon(purpose);
            }
            if let Some(range) = range.filter(|_| !deferred.contains_key(&id)) {
                self.release(&range);
            }
        }
        self.counters.local_pending = 0;
    }

    fn abandon(&mut self, purpose: Purpose) {
        let failed = Err(Errno::IO);
        match purpose {
            Purpose::AppRead(request) => {
                self.app_read_done(request, super::requests::ReadTry::Local, failed);
            }
            Purpose::AppWrite(request) => self.app_write_done(request, &failed),
            Purpose::AppFlush(request) => self.app_flush_done(request, &failed),
            Purpose::PeerWrite(write) => self.peer_write_done(&write, &failed),
            Purpose::PeerRead {
                sector,
                block_id,
                bytes,
            } => self.peer_read_done(sector, block_id, bytes, failed),
            Purpose::EpochFlush {
                session,
                barrier,
                count,
            } => self.epoch_flushed(session, barrier, count, &failed),
            Purpose::ResyncSource { sector, bytes }
            | Purpose::ChecksumSource { sector, bytes, .. } => {
                self.resync_read_done(sector, bytes, failed);
            }
            Purpose::VerifyAnswer(blocks) => self.verify_read_done(&blocks, &failed),
            Purpose::VerifyCompare(_)
            | Purpose::ChecksumTarget { .. }
            | Purpose::ResyncWrite { .. }
            | Purpose::ResyncFlush
            | Purpose::Checkpoint => {}
        }
    }

    pub(super) fn save_failed(&mut self) {
        let Some(backing) = self
            .disk
            .as_mut()
            .filter(|_| self.state.disk > Disk::Failed)
        else {
            return;
        };
        // Writes that were to be found through what was just not written may be on their way to
        // both disks: nothing on this one can be believed in.
        if self.state.role == Role::Primary || self.state.peer == Role::Primary {
            self.distrusted = true;
            backing.superblock.flags = backing.superblock.flags.with(Flags::FULL_SYNC, true);
            self.save_superblock();
        }
        self.lose_disk("its metadata could not be written");
    }

    /// Begins to write out what was cleared so far: the data first.
    pub(super) fn checkpoint(&mut self) {
        if self.disk.is_some() {
            self.disk_io(None, DiskOp::Flush, Purpose::Checkpoint);
        }
    }

    pub(super) fn checkpoint_flushed(&mut self, result: &Result<Bytes, Errno>) {
        if result.is_ok() {
            self.save_bitmap();
        } else {
            self.lose_disk("it could not be flushed");
        }
    }
}

/// The extents of the activity log a range of sectors lies in.
pub(super) fn extents(sectors: &std::ops::Range<u64>) -> std::ops::RangeInclusive<u32> {
    let number = |sector: u64| u32::try_from(sector / EXTENT_SECTORS).unwrap_or(u32::MAX - 1);
    number(sectors.start)..=number(sectors.end.saturating_sub(1).max(sectors.start))
}

/// Bytes of a range of sectors.
pub(super) fn bytes_of(sectors: &std::ops::Range<u64>) -> u64 {
    (sectors.end - sectors.start) * SECTOR
}

/// A length in bytes that is known to fit the wire.
pub(super) fn length32(bytes: u64) -> u32 {
    u32::try_from(narrow(bytes)).unwrap_or(u32::MAX)
}
