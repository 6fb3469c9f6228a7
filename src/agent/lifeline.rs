//! What can end a running task from outside: a cancellation, its deadline, the end of
//! the agent. Whoever waits inside a module waits here; children are known here and die
//! with their whole process group.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::ModuleError;

/// One for each task, shared by its thread and the loop that serves.
#[derive(Debug, Default)]
pub struct Lifeline {
    state: Mutex<State>,
    changed: Condvar,
    deadline: Option<Deadline>,
    /// Children stay in this process's own group, which somebody else kills.
    shares_group: bool,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

#[derive(Debug, Default)]
struct State {
    is_cut: bool,
    groups: HashSet<Pid>,
}

impl Lifeline {
    /// A task that started at `now` and may take so long.
    pub fn new(now: Instant, limit: Option<Duration>) -> Self {
        Self {
            deadline: limit.and_then(|limit| {
                let at = now.checked_add(limit)?;
                Some(Deadline { at, limit })
            }),
            ..Self::default()
        }
    }

    /// The only task of a helper process, which is killed with all its children.
    pub fn of_helper() -> Self {
        Self {
            shares_group: true,
            ..Self::default()
        }
    }

    pub fn shares_group(&self) -> bool {
        self.shares_group
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|deadline| deadline.at)
    }

    /// Ends the task: kills its children and wakes whoever waits.
    pub fn cut(&self) {
        let mut state = self.lock();
        state.is_cut = true;
        for group in &state.groups {
            // It may have ended by itself; there is nothing left to kill then.
            let _ = killpg(*group, Signal::SIGKILL);
        }
        self.changed.notify_all();
    }

    /// Returns why the task may not go on, if it may not.
    pub fn check(&self) -> Result<(), ModuleError> {
        if let Some(deadline) = self.deadline
            && Instant::now() >= deadline.at
        {
            return Err(deadline.error());
        }
        if self.lock().is_cut {
            return Err(ModuleError::Cancelled);
        }
        Ok(())
    }

    /// Waits; comes back early, with the reason, when the task is ended.
    pub fn wait(&self, span: Duration) -> Result<(), ModuleError> {
        let end = Instant::now() + span;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.is_cut || now >= end || self.deadline().is_some_and(|at| now >= at) {
                drop(state);
                return self.check();
            }
            let until = self.deadline().map_or(end, |at| at.min(end));
            let waited = self.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a child's group into care until the guard is dropped. A child of a task
    /// that was ended meanwhile is killed at once.
    pub fn adopt(&self, group: Pid) -> Adopted<'_> {
        let mut state = self.lock();
        if !self.shares_group {
            state.groups.insert(group);
            if state.is_cut {
                let _ = killpg(group, Signal::SIGKILL);
            }
        }
        Adopted {
            lifeline: self,
            group,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two lines of this file leaves the set whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deadline {
    fn error(self) -> ModuleError {
        ModuleError::TimedOut {
            seconds: self.limit.as_secs_f64(),
        }
    }
}

/// A child in care.
#[derive(Debug)]
pub struct Adopted<'a> {
    lifeline: &'a Lifeline,
    group: Pid,
}

impl Adopted<'_> {
    /// Kills the child and all of its group.
    pub fn kill(&self) {
        if !self.lifeline.shares_group {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

impl Drop for Adopted<'_> {
    fn drop(&mut self) {
        self.lifeline.lock().groups.remove(&self.group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_the_lifeline_is_cut() {
        let lifeline = Lifeline::new(Instant::now(), None);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lifeline.wait(Duration::from_secs(3600)));
            lifeline.cut();
            let ended = waiting.join().expect("no panic");
            assert!(matches!(ended, Err(ModuleError::Cancelled)));
        });
    }

    #[test]
    fn a_deadline_ends_a_longer_wait() {
        let lifeline = Lifeline::new(Instant::now(), Some(Duration::from_millis(1)));
        let ended = lifeline.wait(Duration::from_secs(3600));
        assert!(matches!(ended, Err(ModuleError::TimedOut { .. })));
    }
}
