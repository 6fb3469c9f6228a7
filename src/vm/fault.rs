//! Breaks machines and cables on purpose, and mends them. Each fault says whether it changed
//! anything, and is written down, so that `status` can show what is broken.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::argv::Beginning;
use super::guest;
use super::lab::{Lab, LabError, acting, run_group};
use super::lifecycle::{self, MachineProcess, MachineState};
use super::netns::Holder;
use super::network::loss_batch;
use super::progress::Progress;
use super::state::{Faults, LabLock, LabRecord};

impl Lab {
    pub fn set_link(
        &self,
        _lock: &LabLock,
        machine: &str,
        nic: &str,
        up: bool,
    ) -> Result<bool, LabError> {
        let place = self.nic(machine, nic)?;
        let (holder, mut record) = self.running(machine)?;
        let changed = record.faults.links_down.contains(&place) == up;
        let driver = self.driver(holder, self.machine(machine)?);
        driver
            .with_qmp(|qmp| qmp.set_link(nic, up))
            .map_err(|source| acting(machine, source))?;
        if up {
            record.faults.links_down.remove(&place);
        } else {
            record.faults.links_down.insert(place);
        }
        self.folders.save_record(&record)?;
        Ok(changed)
    }

    pub fn set_paused(
        &self,
        _lock: &LabLock,
        machine: &str,
        paused: bool,
    ) -> Result<bool, LabError> {
        let (holder, mut record) = self.running(machine)?;
        let driver = self.driver(holder, self.machine(machine)?);
        let changed = driver
            .with_qmp(|qmp| {
                let was_paused = !qmp.is_running()?;
                if paused { qmp.pause() } else { qmp.resume() }?;
                Ok(was_paused != paused)
            })
            .map_err(|source| acting(machine, source))?;
        if paused {
            record.faults.paused.insert(machine.to_owned());
        } else {
            record.faults.paused.remove(machine);
        }
        self.folders.save_record(&record)?;
        Ok(changed)
    }

    /// Lets a machine go on that was frozen, or boots one that has no power.
    pub fn resume(
        &self,
        lock: &LabLock,
        machine: &str,
        progress: &dyn Progress,
    ) -> Result<bool, LabError> {
        match self.running(machine) {
            Err(LabError::MachineIs { .. }) => self.power_on(lock, machine, progress),
            Err(error) => Err(error),
            Ok(_) => self.set_paused(lock, machine, false),
        }
    }

    /// Cuts a machine's power.
    pub fn kill(&self, _lock: &LabLock, machine: &str) -> Result<bool, LabError> {
        let spec = self.machine(machine)?;
        let holder = self.holder().ok_or(LabError::NotUp)?;
        let mut record = self.folders.record()?;
        let driver = self.driver(holder, spec);
        let changed = driver.pid().is_some();
        // First, so that a kill of this very process does not make it look like a crash.
        record.faults.killed.insert(machine.to_owned());
        record.faults.paused.remove(machine);
        record.faults.links_down.retain(|(name, _)| name != machine);
        self.folders.save_record(&record)?;
        driver.kill().map_err(|source| acting(machine, source))?;
        Ok(changed)
    }

    /// Has a machine shut itself down, and waits until it has.
    pub fn shut_down(&self, _lock: &LabLock, machine: &str) -> Result<bool, LabError> {
        let (holder, mut record) = self.running(machine)?;
        let driver = self.driver(holder, self.machine(machine)?);
        // First, so that a kill of this very process does not make it look like a crash.
        record.faults.shut_down.insert(machine.to_owned());
        record.faults.paused.remove(machine);
        record.faults.links_down.retain(|(name, _)| name != machine);
        self.folders.save_record(&record)?;
        driver
            .shut_down()
            .map_err(|source| acting(machine, source))?;
        Ok(true)
    }

    /// Gives a machine without power its power back: it boots from its disks as they are.
    pub fn power_on(
        &self,
        _lock: &LabLock,
        machine: &str,
        progress: &dyn Progress,
    ) -> Result<bool, LabError> {
        let spec = self.machine(machine)?;
        let holder = self.holder().ok_or(LabError::NotUp)?;
        let driver = self.driver(holder, spec);
        if driver.pid().is_some() {
            return Ok(false);
        }
        let mut record = self.folders.record()?;
        let index = self
            .topology
            .machines
            .iter()
            .position(|each| each.name == machine)
            .expect("found above");
        let mut task = self
            .tasks(&record, &self.keys()?, Beginning::Boot)?
            .remove(index);
        // A disk from another lab's state lets only that one in.
        task.take = Some(guest::admit_script(&task.keys));
        run_group(
            lifecycle::BOOT,
            std::slice::from_ref(&driver),
            std::slice::from_ref(&task),
            progress,
        )?;
        progress.done();
        record.faults.killed.remove(machine);
        record.faults.shut_down.remove(machine);
        self.folders.save_record(&record)?;
        Ok(true)
    }

    /// Asks a machine something in a shell of its own, which needs neither its network nor its sshd.
    pub fn ask(&self, machine: &str, script: &str, deadline: Duration) -> Result<String, LabError> {
        let spec = self.machine(machine)?;
        let holder = self.holder().ok_or(LabError::NotUp)?;
        let answer = self.driver(holder, spec).ask(script, deadline);
        answer.map_err(|source| acting(machine, source))
    }

    /// Loses a share of the packets on their way to a card.
    pub fn set_loss(
        &self,
        _lock: &LabLock,
        machine: &str,
        nic: &str,
        percent: u8,
    ) -> Result<bool, LabError> {
        let place = self.nic(machine, nic)?;
        self.holder().ok_or(LabError::NotUp)?;
        let mut record = self.folders.record()?;
        let before = record.faults.loss.get(&place).copied().unwrap_or(0);
        if before == percent {
            return Ok(false);
        }
        // Written down first, so that a rule is never in force unknown to `status`.
        record
            .faults
            .loss
            .insert(place.clone(), before.max(percent));
        self.folders.save_record(&record)?;
        let shaped = self.shape(machine, nic, percent);
        let now = if shaped.is_ok() { percent } else { before };
        if now == 0 {
            record.faults.loss.remove(&place);
        } else {
            record.faults.loss.insert(place, now);
        }
        self.folders.save_record(&record)?;
        shaped.map(|()| true)
    }

    /// Returns the lab's record of what is broken.
    pub fn faults(&self) -> Result<Faults, LabError> {
        Ok(self.folders.record()?.faults)
    }

    pub(super) fn clear_losses(&self, faults: &Faults) {
        for (machine, nic) in faults.loss.keys() {
            if self.nic(machine, nic).is_ok() {
                // A rule that was written down and never set is no failure.
                let _ = self.shape(machine, nic, 0);
            }
        }
    }

    pub(super) fn shape(&self, machine: &str, nic: &str, percent: u8) -> Result<(), LabError> {
        let spec = self.machine(machine)?;
        let tap = spec.nic(nic).map_or("", |nic| nic.tap.as_str());
        let enter = self.access().enter;
        let shaped = feed(
            Command::new(&enter[0])
                .args(&enter[1..])
                .args(["tc", "-batch", "-"]),
            &loss_batch(tap, percent),
        );
        let reason = match shaped {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => shaping_reason(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => error.to_string(),
        };
        Err(LabError::Shape {
            machine: machine.to_owned(),
            reason,
        })
    }

    fn nic(&self, machine: &str, nic: &str) -> Result<(String, String), LabError> {
        let spec = self.machine(machine)?;
        if spec.nic(nic).is_some() {
            return Ok((machine.to_owned(), nic.to_owned()));
        }
        Err(LabError::NoNic {
            machine: machine.to_owned(),
            nic: nic.to_owned(),
            known: spec.nics.iter().map(|nic| nic.name.clone()).collect(),
        })
    }

    /// Fails, and says what became of it, where a machine has no power.
    pub(crate) fn running(&self, machine: &str) -> Result<(Holder, LabRecord), LabError> {
        let spec = self.machine(machine)?;
        let holder = self.holder().ok_or(LabError::NotUp)?;
        let record = self.folders.record()?;
        if self.driver(holder, spec).pid().is_none() {
            let ended_by = self.ended_by(&record, machine);
            return Err(LabError::MachineIs {
                machine: machine.to_owned(),
                state: MachineState::judge(MachineProcess::Gone, record.up, ended_by),
            });
        }
        Ok((holder, record))
    }
}

/// Runs a command that reads a few lines.
fn feed(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // One that ended early says why on its other output.
    let _ = child
        .stdin
        .take()
        .expect("asked for above")
        .write_all(input.as_bytes());
    child.wait_with_output()
}

/// Adds the way out to what `tc` says when the host's kernel cannot lose packets.
fn shaping_reason(said: &str) -> String {
    let said = said.trim();
    if said.contains("kind is unknown") || said.contains("kind not found") {
        format!(
            "{said}; the host's kernel needs its modules sch_ingress and cls_bpf (`modprobe -a sch_ingress cls_bpf` as root)"
        )
    } else {
        said.to_owned()
    }
}
