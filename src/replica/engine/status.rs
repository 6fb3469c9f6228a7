//! What the tools see of a node.

use super::core::Engine;
use super::resync::Pace;
use crate::replica::control::{Counters, Progress, Status};
use crate::replica::fields::wide;
use crate::replica::generation::Generations;
use crate::replica::state::Connection;

/// KiB of a block.
const BLOCK_KIB: u64 = 4;

impl Engine {
    pub fn status(&self) -> Status {
        let state = self.state;
        let generations = self.generations().map_or([0; 4], |generations| {
            [
                generations.current.0,
                generations.bitmap.0,
                generations.history[0].0,
                generations.history[1].0,
            ]
        });
        let net_settings = self.net.clone().map(|mut net| {
            net.authentication = None;
            net
        });
        Status {
            names: self.names.clone(),
            connection: state.connection,
            role: state.role,
            peer: state.peer,
            disk: state.disk,
            peer_disk: state.peer_disk,
            suspended: state.suspended,
            paused: state.paused,
            protocol: self.net.as_ref().map(|net| net.protocol),
            counters: self.counted(),
            progress: self.progress(),
            device_sectors: self.sectors,
            generations,
            flags: self
                .disk
                .as_ref()
                .map_or(0, |backing| backing.superblock.flags.0),
            backing_disk: self
                .disk_settings()
                .map(|settings| settings.disk.display().to_string()),
            disk_settings: self.disk_settings().cloned(),
            net_settings,
            last_trouble: self.last_trouble.clone(),
        }
    }

    /// The data's generations, while a disk is attached.
    pub fn generations(&self) -> Option<Generations> {
        let backing = self.disk.as_ref()?;
        Some(backing.superblock.generations)
    }

    fn counted(&self) -> Counters {
        let epochs = self
            .session
            .as_ref()
            .map_or(0, |session| wide(session.epochs.len()));
        Counters {
            application_pending: self.unanswered(),
            peer_pending: self.waiting_for_peer(),
            epochs: epochs.max(1),
            out_of_sync_kib: self
                .disk
                .as_ref()
                .map_or(0, |backing| backing.bitmap.bits_set() * BLOCK_KIB),
            ..self.counters
        }
    }

    fn progress(&self) -> Option<Progress> {
        if let Some(verify) = &self.verify {
            return Some(self.progress_of(
                &verify.pace,
                verify.total,
                verify.left,
                true,
                verify.found,
            ));
        }
        let (resync, backing) = (self.resync.as_ref()?, self.disk.as_ref()?);
        let left = backing.bitmap.bits_set();
        Some(self.progress_of(&resync.pace, resync.total, left, false, resync.failed))
    }

    fn progress_of(
        &self,
        pace: &Pace,
        total: u64,
        left: u64,
        verifying: bool,
        found_blocks: u64,
    ) -> Progress {
        let (recent, stalled) = pace.recent(self.now, left);
        let elapsed_ms = Self::elapsed_ms(pace.elapsed(self.now));
        let done = total.saturating_sub(left);
        let asks = matches!(
            self.state.connection,
            Connection::SyncTarget | Connection::VerifyS
        );
        let want = self
            .disk_settings()
            .map(|settings| u64::from(settings.resync.max_rate_kib));
        Progress {
            verifying,
            total_blocks: total,
            left_blocks: left,
            elapsed_ms,
            speed_kib: recent * BLOCK_KIB,
            average_kib: done * BLOCK_KIB * 1000 / elapsed_ms.max(1),
            want_kib: want.filter(|_| asks),
            seconds_left: left.checked_div(recent),
            stalled,
            found_blocks,
        }
    }
}
