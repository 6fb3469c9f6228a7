//! What a machine is in, and how all machines of a lab go through an operation as one.
//!
//! A saved state is worth something only when all machines were stopped together: heartbeats
//! and replication streams must agree. So an operation is a list of *phases*, each done by all
//! machines side by side, and no machine enters a phase before all have left the one before:
//!
//! ```text
//!  save:  pause-all ──► save-all ──► resume-all ──► set-clocks (failure: resume-all)
//!  load:  start-all ──► load-all ──► resume-all ──► wake-all   (failure: kill-all)
//!  boot:  start-all ──► resume-all ──► await-boot-all ──► set-clocks (failure: kill-all)
//! ```
//!
//! [`Group`] takes what happened and says what to do next; a driver does it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What became of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// The lab is not up.
    Off,
    Running,
    /// Frozen by a fault, or by an operation that was cut short.
    Paused,
    /// Its power was cut by a fault.
    Killed,
    /// It was asked to shut down, by a command or by somebody in it, and did.
    ShutDown,
    /// Its QEMU is gone and nobody asked for that.
    Crashed,
}

impl MachineState {
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Killed => "killed",
            Self::ShutDown => "shut down",
            Self::Crashed => "crashed",
        }
    }

    /// Judges from what is there, whether the lab is up, and what was done to the machine.
    pub fn judge(process: MachineProcess, lab_is_up: bool, ended_by: EndedBy) -> Self {
        match (process, ended_by) {
            (MachineProcess::Paused, _) => Self::Paused,
            (MachineProcess::Running, _) => Self::Running,
            (MachineProcess::Gone, _) if !lab_is_up => Self::Off,
            (MachineProcess::Gone, EndedBy::Kill) => Self::Killed,
            (MachineProcess::Gone, EndedBy::ShutDown) => Self::ShutDown,
            (MachineProcess::Gone, EndedBy::Nobody) => Self::Crashed,
        }
    }

    /// Whether the machine is as somebody wants it: there, or asked to be away.
    pub fn is_wanted(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::ShutDown)
    }
}

/// Who asked for a machine's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    Nobody,
    Kill,
    ShutDown,
}

/// What is there of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineProcess {
    Gone,
    Running,
    /// QEMU is there and says that the guest does not run.
    Paused,
}

/// What `up` has to do, judged from all machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpPlan {
    /// Nothing: all run, or were shut down.
    Nothing,
    /// All are there, some paused without a fault that says so: let them go on.
    Resume,
    /// Some lost their power by a fault: give it back, the others keep what they have.
    PowerOn,
    /// Put the whole lab into its clean state.
    Load,
}

impl UpPlan {
    /// `paused_by_fault` are the machines somebody froze on purpose.
    pub fn new(machines: &[(String, MachineState)], paused_by_fault: &BTreeSet<String>) -> Self {
        let has = |wanted: &[MachineState]| {
            let mut states = machines.iter().map(|(_, state)| state);
            states.any(|state| wanted.contains(state))
        };
        let none_is_there = !has(&[MachineState::Running, MachineState::Paused]);
        if none_is_there || has(&[MachineState::Crashed, MachineState::Off]) {
            Self::Load
        } else if has(&[MachineState::Killed]) {
            Self::PowerOn
        } else if machines
            .iter()
            .any(|(name, state)| *state == MachineState::Paused && !paused_by_fault.contains(name))
        {
            Self::Resume
        } else {
            Self::Nothing
        }
    }
}

/// One thing done by every machine before any does the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Start,
    Pause,
    Save,
    Load,
    Resume,
    /// Set the clock, hand over keys, see that it answers.
    Wake,
    /// Make up for the time a save took and for what a boot does not know, where the machine listens.
    SetClock,
    /// Wait for the end of the boot and for idleness.
    AwaitBoot,
    Kill,
}

impl Phase {
    /// Completes "failed to … MACHINE".
    pub fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Save => "save",
            Self::Load => "load the saved state of",
            Self::Resume => "resume",
            Self::Wake => "wake",
            Self::SetClock => "set the clock of",
            Self::AwaitBoot => "boot",
            Self::Kill => "stop",
        }
    }

    /// Says what is going on while it goes on.
    pub fn progress(self) -> &'static str {
        match self {
            Self::Start => "starting QEMU",
            Self::Pause => "pausing the machines",
            Self::Save => "saving memory and disks",
            Self::Load => "loading memory",
            Self::Resume => "letting the machines go on",
            Self::Wake => "setting clocks, waiting for answers",
            Self::SetClock => "setting clocks",
            Self::AwaitBoot => "booting, waiting until every machine is idle",
            Self::Kill => "stopping the machines",
        }
    }
}

/// Phases, and the one that mends a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub phases: &'static [Phase],
    pub mend: Phase,
}

pub const SAVE: Operation = Operation {
    phases: &[Phase::Pause, Phase::Save, Phase::Resume, Phase::SetClock],
    mend: Phase::Resume,
};
/// As [`SAVE`], without the clocks: what lies between its two ends is the time the machines
/// stand still.
pub const FREEZE: Operation = Operation {
    phases: &[Phase::Pause, Phase::Save, Phase::Resume],
    mend: Phase::Resume,
};
pub const SET_CLOCKS: Operation = Operation {
    phases: &[Phase::SetClock],
    mend: Phase::SetClock,
};
/// Saves and leaves the machines paused: for those about to be stopped.
pub const SAVE_LAST: Operation = Operation {
    phases: &[Phase::Pause, Phase::Save],
    mend: Phase::Resume,
};
pub const LOAD: Operation = Operation {
    phases: &[Phase::Start, Phase::Load, Phase::Resume, Phase::Wake],
    mend: Phase::Kill,
};
/// A machine that boots reads its hardware's clock, which tells whole seconds only.
pub const BOOT: Operation = Operation {
    phases: &[
        Phase::Start,
        Phase::Resume,
        Phase::AwaitBoot,
        Phase::SetClock,
    ],
    mend: Phase::Kill,
};
/// As [`BOOT`], of disks whose keys are another lab's.
pub const BOOT_FOREIGN: Operation = Operation {
    phases: &[Phase::Start, Phase::Resume, Phase::AwaitBoot, Phase::Wake],
    mend: Phase::Kill,
};
pub const RESUME: Operation = Operation {
    phases: &[Phase::Resume, Phase::SetClock],
    mend: Phase::Resume,
};

/// What a driver tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    Begin,
    Done { machine: usize },
    Failed { machine: usize },
}

/// What a driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAction {
    /// Every machine does this, and each reports its end once.
    All(Phase),
    /// All phases are done.
    Finish,
    /// A phase failed and the mending is over.
    GiveUp,
}

/// All machines on their way through one operation.
#[derive(Debug)]
pub struct Group {
    operation: Operation,
    /// Index of the phase under way; past the end while mending.
    phase: usize,
    machine_count: usize,
    reported: BTreeSet<usize>,
    failed: bool,
    mending: bool,
}

impl Group {
    pub fn new(operation: Operation, machine_count: usize) -> Self {
        Self {
            operation,
            phase: 0,
            machine_count,
            reported: BTreeSet::new(),
            failed: false,
            mending: false,
        }
    }

    /// Takes one event; an action comes once all machines have reported.
    pub fn handle(&mut self, event: GroupEvent) -> Option<GroupAction> {
        match event {
            GroupEvent::Begin => return Some(GroupAction::All(self.operation.phases[0])),
            GroupEvent::Done { machine } => self.reported.insert(machine),
            GroupEvent::Failed { machine } => {
                self.failed = true;
                self.reported.insert(machine)
            }
        };
        if self.reported.len() < self.machine_count {
            return None;
        }
        self.reported.clear();
        Some(self.next())
    }

    fn next(&mut self) -> GroupAction {
        if self.mending {
            return GroupAction::GiveUp;
        }
        if self.failed {
            self.mending = true;
            return GroupAction::All(self.operation.mend);
        }
        self.phase += 1;
        match self.operation.phases.get(self.phase) {
            Some(phase) => GroupAction::All(*phase),
            None => GroupAction::Finish,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs an operation in which one machine fails in one phase; returns all actions.
    fn run(
        operation: Operation,
        machines: usize,
        failure: Option<(Phase, usize)>,
    ) -> Vec<GroupAction> {
        let mut group = Group::new(operation, machines);
        let mut actions = vec![group.handle(GroupEvent::Begin).expect("the first phase")];
        while let Some(&GroupAction::All(phase)) = actions.last() {
            for machine in (0..machines).rev() {
                let event = if failure == Some((phase, machine)) {
                    GroupEvent::Failed { machine }
                } else {
                    GroupEvent::Done { machine }
                };
                let action = group.handle(event);
                assert_eq!(
                    action.is_some(),
                    machine == 0,
                    "only the last report moves on"
                );
                actions.extend(action);
            }
        }
        actions
    }

    #[test]
    fn nobody_is_saved_before_all_are_paused_nor_resumed_before_all_are_saved() {
        assert_eq!(
            run(SAVE, 3, None),
            [
                GroupAction::All(Phase::Pause),
                GroupAction::All(Phase::Save),
                GroupAction::All(Phase::Resume),
                GroupAction::All(Phase::SetClock),
                GroupAction::Finish
            ]
        );
    }

    #[test]
    fn a_failed_save_lets_all_go_on() {
        assert_eq!(
            run(SAVE, 3, Some((Phase::Save, 1))),
            [
                GroupAction::All(Phase::Pause),
                GroupAction::All(Phase::Save),
                GroupAction::All(Phase::Resume),
                GroupAction::GiveUp
            ]
        );
    }

    #[test]
    fn a_failed_load_leaves_nothing_half_up() {
        let actions = run(LOAD, 2, Some((Phase::Start, 0)));
        assert_eq!(
            actions[1..],
            [GroupAction::All(Phase::Kill), GroupAction::GiveUp]
        );
    }

    #[test]
    fn a_machine_that_reports_twice_counts_once() {
        let mut group = Group::new(SAVE, 2);
        group.handle(GroupEvent::Begin);
        assert_eq!(group.handle(GroupEvent::Done { machine: 0 }), None);
        assert_eq!(group.handle(GroupEvent::Done { machine: 0 }), None);
        assert!(group.handle(GroupEvent::Done { machine: 1 }).is_some());
    }

    #[test]
    fn a_machine_is_judged_by_what_is_there_and_what_was_asked() {
        use MachineProcess::{Gone, Paused, Running};
        assert_eq!(
            MachineState::judge(Running, true, EndedBy::Nobody),
            MachineState::Running
        );
        assert_eq!(
            MachineState::judge(Paused, true, EndedBy::Kill),
            MachineState::Paused
        );
        assert_eq!(
            MachineState::judge(Gone, true, EndedBy::Kill),
            MachineState::Killed
        );
        assert_eq!(
            MachineState::judge(Gone, true, EndedBy::ShutDown),
            MachineState::ShutDown
        );
        assert_eq!(
            MachineState::judge(Gone, true, EndedBy::Nobody),
            MachineState::Crashed
        );
        assert_eq!(
            MachineState::judge(Gone, false, EndedBy::Nobody),
            MachineState::Off
        );
    }

    #[test]
    fn up_mends_what_an_interrupted_command_left() {
        let lab = |second| {
            vec![
                ("a".to_owned(), MachineState::Running),
                ("b".to_owned(), second),
            ]
        };
        let none = BTreeSet::new();
        assert_eq!(
            UpPlan::new(&lab(MachineState::Running), &none),
            UpPlan::Nothing
        );
        assert_eq!(
            UpPlan::new(&lab(MachineState::Paused), &none),
            UpPlan::Resume
        );
        assert_eq!(
            UpPlan::new(
                &lab(MachineState::Paused),
                &BTreeSet::from(["b".to_owned()])
            ),
            UpPlan::Nothing
        );
        assert_eq!(
            UpPlan::new(&lab(MachineState::Crashed), &none),
            UpPlan::Load
        );
    }

    #[test]
    fn up_gives_a_killed_machine_its_power_back_while_there_are_others() {
        use MachineState::{Crashed, Killed, Paused, Running, ShutDown};
        let plan = |states: &[MachineState]| {
            let named = |state: &MachineState| ("a".to_owned(), *state);
            UpPlan::new(
                &states.iter().map(named).collect::<Vec<_>>(),
                &BTreeSet::new(),
            )
        };
        assert_eq!(plan(&[Running, Killed]), UpPlan::PowerOn);
        assert_eq!(plan(&[Paused, ShutDown, Killed]), UpPlan::PowerOn);
        assert_eq!(plan(&[Killed, Killed]), UpPlan::Load);
        assert_eq!(plan(&[ShutDown, Killed]), UpPlan::Load);
        assert_eq!(plan(&[Running, Killed, Crashed]), UpPlan::Load);
        assert_eq!(plan(&[Running, ShutDown]), UpPlan::Nothing);
    }
}
