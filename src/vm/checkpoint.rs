//! States that took long to reach, kept for every lab: where an exercise begins.
//!
//! A checkpoint is a snapshot of the whole lab in the cache, named by everything that made it:
//! the machines, the agent, the playbooks, what was chosen. It appears there by one rename, so
//! it is whole or not there. The way to it is written into the lab's record before the first
//! step: whoever kills it half way leaves a lab that `status` shows as such and `up` mends.

use std::hash::Hash;

use super::lab::{Ingredients, Lab, LabError};
use super::lifecycle;
use super::progress::Progress;
use super::snapshot::{self, Manifest, WarmEntry};
use super::state::LabLock;
use crate::playbook::exercise::Done;

/// Checkpoints kept: the beginnings of all exercises with both sets of tools. Each has the memory
/// of all machines.
const CHECKPOINTS_MAX: usize = 12;

/// Where a checkpoint is, or will be.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    entry: WarmEntry,
    key: String,
    /// Its name among the lab's snapshots.
    pub name: String,
}

impl Lab {
    /// Names a checkpoint by the machines and by everything else that made it.
    pub fn checkpoint(
        &self,
        ingredients: &Ingredients,
        name: &str,
        made_of: &impl Hash,
    ) -> Checkpoint {
        let key = snapshot::key(&(self.warm_key(ingredients), "checkpoint", made_of));
        Checkpoint {
            entry: WarmEntry::checkpoint(&self.cache_dir, &key),
            key,
            name: name.to_owned(),
        }
    }

    /// Puts the machines into a checkpoint; false where there is none yet.
    pub fn load_checkpoint(
        &self,
        lock: &LabLock,
        checkpoint: &Checkpoint,
        progress: &dyn Progress,
    ) -> Result<bool, LabError> {
        let own = Manifest::read(&self.folders.snapshot(&checkpoint.name))?;
        let is_own = own.is_some_and(|own| own.build.as_ref() == Some(&checkpoint.key));
        if !is_own && !checkpoint.entry.adopt(&self.folders, &checkpoint.name)? {
            return Ok(false);
        }
        self.load(lock, &checkpoint.name, progress)?;
        if !is_own {
            // The guests have got this lab's keys; the next time they need not.
            let holder = self.holder().ok_or(LabError::NotUp)?;
            let build = Some(checkpoint.key.clone());
            self.save_state(holder, &checkpoint.name, lifecycle::SAVE, build, progress)?;
            progress.done();
        }
        Ok(true)
    }

    /// Keeps the machines' state as a checkpoint, here and for other labs.
    pub fn keep_checkpoint(
        &self,
        _lock: &LabLock,
        checkpoint: &Checkpoint,
        progress: &dyn Progress,
    ) -> Result<(), LabError> {
        let holder = self.holder().ok_or(LabError::NotUp)?;
        let build = Some(checkpoint.key.clone());
        self.save_state(holder, &checkpoint.name, lifecycle::SAVE, build, progress)?;
        progress.done();
        // The guests have this lab's keys, which no other lab has.
        checkpoint
            .entry
            .publish_for_others(&self.folders, &checkpoint.name)?;
        checkpoint.entry.prune(CHECKPOINTS_MAX);
        Ok(())
    }

    /// Writes down that the machines are on their way to a state; `None`: they are there.
    pub fn set_under_way(&self, _lock: &LabLock, what: Option<String>) -> Result<(), LabError> {
        let mut record = self.folders.record()?;
        record.unfinished = what;
        Ok(self.folders.save_record(&record)?)
    }

    /// Returns the exercises that stand on the machines, oldest first.
    pub fn done(&self) -> Result<Vec<Done>, LabError> {
        Ok(self.folders.record()?.done)
    }

    pub fn set_done(&self, _lock: &LabLock, done: Vec<Done>) -> Result<(), LabError> {
        let mut record = self.folders.record()?;
        record.done = done;
        Ok(self.folders.save_record(&record)?)
    }
}
