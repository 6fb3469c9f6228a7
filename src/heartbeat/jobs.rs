//! Starts and stops groups of resources, one command at a time.
//!
//! ```text
//! start a group:  status ── running ──▶ next resource
//!                   └─ not running ──▶ start ── good ──▶ next resource
//!                                        └─ failed ──▶ stop the whole group, report
//! stop a group:   stop (last resource first) ── good ──▶ the resource before
//!                   └─ failed ──▶ again every second, ten times ──▶ status
//!                        status ── stopped ──▶ the resource before
//!                               └─ running ──▶ the node must be restarted
//! withdraw a group:  stop (its addresses alone, the last first) ── good or failed ──▶ the one before
//! ```
//!
//! Pieces of work wait in line as in heartbeat: one action at a time, in the order asked
//! for, so that what was decided later also happens later.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::Group;

/// Attempts to stop a resource before its status decides.
const STOP_ATTEMPTS_MAX: u32 = 10;

const STOP_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What is done with the groups of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Start,
    Stop,
    /// Stops what only one node may have (addresses, file systems, DRBD), after a
    /// crash of this daemon; services that run on both nodes are left alone.
    CleanUp,
    /// Stops addresses alone, before a [`Direction::Stop`] that may take as long as its slowest
    /// service: another node has them too, and clients are to find that one.
    Withdraw,
}

/// Some groups to start or to stop, for a reason that only the asker understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work<Reason> {
    pub reason: Reason,
    pub direction: Direction,
    /// Indices into haresources' lines.
    pub groups: Vec<usize>,
}

/// One call of one resource's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceCommand {
    /// Comes back with the outcome.
    pub token: u64,
    pub group: usize,
    pub resource: usize,
    pub verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Status,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Status => "status",
        }
    }
}

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `start` or `stop` ended well; `status` says running.
    Good,
    /// `start` or `stop` failed; `status` says not running.
    Bad,
}

/// What is known of a group on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupState {
    Stopped,
    Starting,
    Running,
    Stopping,
    /// Did not start here and was stopped again.
    Failed,
}

/// A piece of work is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished<Reason> {
    pub reason: Reason,
    pub groups: Vec<usize>,
    /// Groups that did not start and were stopped again.
    pub failed: Vec<usize>,
}

/// What a call of [`Jobs::outcome`] or [`Jobs::next`] has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobEvent<Reason> {
    Finished(Finished<Reason>),
    /// A group begins or ends a step worth a line in the log.
    GroupStarts(usize),
    GroupStops(usize),
    StartFailed(usize, usize),
    StopFailed(usize, usize),
    /// A resource runs and cannot be stopped.
    Stuck(usize, usize),
}

/// The line of work.
#[derive(Debug)]
pub struct Jobs<Reason> {
    /// Number of resources of each group.
    sizes: Vec<usize>,
    /// Which resources [`Direction::CleanUp`] stops.
    exclusive: Vec<Vec<bool>>,
    /// Which resources [`Direction::Withdraw`] stops.
    addresses: Vec<Vec<bool>>,
    states: Vec<GroupState>,
    waiting: VecDeque<Work<Reason>>,
    current: Option<Current<Reason>>,
    token: u64,
}

#[derive(Debug)]
struct Current<Reason> {
    work: Work<Reason>,
    /// Position in `work.groups`.
    at: usize,
    step: Step,
    /// When the step's command may be given; `None` when it has been.
    due: Option<Duration>,
    failed: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Enter,
    StartStatus(usize),
    Start(usize),
    /// Stops what is left of a group; `undo` when its start failed.
    Stop {
        resource: usize,
        attempt: u32,
        undo: bool,
    },
    StopStatus {
        resource: usize,
        undo: bool,
    },
    CleanStatus(usize),
}

impl<Reason: Clone> Jobs<Reason> {
    pub fn new(groups: &[Group]) -> Self {
        Self {
            sizes: groups.iter().map(|group| group.resources.len()).collect(),
            exclusive: marked(groups, is_exclusive),
            addresses: marked(groups, is_address),
            states: vec![GroupState::Stopped; groups.len()],
            waiting: VecDeque::new(),
            current: None,
            token: 0,
        }
    }

    pub fn states(&self) -> &[GroupState] {
        &self.states
    }

    pub fn is_idle(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    pub fn push(&mut self, work: Work<Reason>) {
        self.waiting.push_back(work);
    }

    /// Forgets work that has not begun; what is under way goes on to its end.
    pub fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Returns the reasons of all work that is not finished.
    pub fn reasons(&self) -> impl Iterator<Item = &Reason> {
        self.current
            .iter()
            .map(|current| &current.work.reason)
            .chain(self.waiting.iter().map(|work| &work.reason))
    }

    pub fn deadline(&self) -> Option<Duration> {
        match &self.current {
            Some(current) => current.due,
            None => (!self.waiting.is_empty()).then_some(Duration::ZERO),
        }
    }

    /// Returns the command to run now, if one is due; at most one is under way.
    pub fn next(
        &mut self,
        now: Duration,
        events: &mut Vec<JobEvent<Reason>>,
    ) -> Option<ResourceCommand> {
        loop {
            if self.current.is_none() {
                let work = self.waiting.pop_front()?;
                self.current = Some(Current {
                    work,
                    at: 0,
                    step: Step::Enter,
                    due: Some(now),
                    failed: Vec::new(),
                });
            }
            let current = self.current.as_mut().expect("it was just put there");
            if current.due.is_none_or(|due| due > now) {
                return None;
            }
            let Some(group) = current.work.groups.get(current.at).copied() else {
                let current = self.current.take().expect("it is there");
                events.push(JobEvent::Finished(Finished {
                    reason: current.work.reason,
                    groups: current.work.groups,
                    failed: current.failed,
                }));
                continue;
            };
            if current.step == Step::Enter {
                self.enter(group, events);
                continue;
            }
            current.due = None;
            let (resource, verb) = match current.step {
                Step::Enter => unreachable!("entered above"),
                Step::Start(resource) => (resource, Verb::Start),
                Step::Stop { resource, .. } => (resource, Verb::Stop),
                Step::StartStatus(resource)
                | Step::StopStatus { resource, .. }
                | Step::CleanStatus(resource) => (resource, Verb::Status),
            };
            self.token += 1;
            return Some(ResourceCommand {
                token: self.token,
                group,
                resource,
                verb,
            });
        }
    }

    fn enter(&mut self, group: usize, events: &mut Vec<JobEvent<Reason>>) {
        let last = self.sizes[group] - 1;
        let to_clean = last_marked(&self.exclusive[group][..=last]);
        let to_withdraw = last_marked(&self.addresses[group][..=last]);
        let current = self.current.as_mut().expect("work is entered");
        current.step = match current.work.direction {
            Direction::Start => {
                self.states[group] = GroupState::Starting;
                events.push(JobEvent::GroupStarts(group));
                Step::StartStatus(0)
            }
            Direction::Stop => {
                self.states[group] = GroupState::Stopping;
                events.push(JobEvent::GroupStops(group));
                Step::Stop {
                    resource: last,
                    attempt: 1,
                    undo: false,
                }
            }
            Direction::CleanUp => {
                let Some(resource) = to_clean else {
                    current.at += 1;
                    return;
                };
                Step::CleanStatus(resource)
            }
            Direction::Withdraw => {
                let Some(resource) = to_withdraw else {
                    current.at += 1;
                    return;
                };
                Step::Stop {
                    resource,
                    attempt: 1,
                    undo: false,
                }
            }
        };
    }

    /// Takes what came of the command with this token; others are ignored.
    pub fn outcome(
        &mut self,
        token: u64,
        outcome: Outcome,
        now: Duration,
        events: &mut Vec<JobEvent<Reason>>,
    ) {
        let Some(current) = self.current.as_mut() else {
            return;
        };
        if token != self.token || current.due.is_some() {
            return;
        }
        let group = current.work.groups[current.at];
        current.due = Some(now);
        match (current.step, outcome) {
            (Step::StartStatus(resource), Outcome::Bad) => current.step = Step::Start(resource),
            (Step::StartStatus(resource) | Step::Start(resource), Outcome::Good) => {
                self.started(group, resource);
            }
            (Step::Start(resource), Outcome::Bad) => {
                events.push(JobEvent::StartFailed(group, resource));
                current.failed.push(group);
                self.states[group] = GroupState::Stopping;
                current.step = Step::Stop {
                    resource: self.sizes[group] - 1,
                    attempt: 1,
                    undo: true,
                };
            }
            // After a failure too: a stop of the whole group follows, which has the patience.
            (Step::Stop { resource, .. }, _) if current.work.direction == Direction::Withdraw => {
                self.withdrawn(group, resource);
            }
            (Step::Stop { resource, undo, .. }, Outcome::Good)
            | (Step::StopStatus { resource, undo }, Outcome::Bad) => {
                self.stopped(group, resource, undo);
            }
            (
                Step::Stop {
                    resource,
                    attempt,
                    undo,
                },
                Outcome::Bad,
            ) => {
                events.push(JobEvent::StopFailed(group, resource));
                if attempt < STOP_ATTEMPTS_MAX {
                    current.due = Some(now + STOP_RETRY_INTERVAL);
                    current.step = Step::Stop {
                        resource,
                        attempt: attempt + 1,
                        undo,
                    };
                } else {
                    current.step = Step::StopStatus { resource, undo };
                }
            }
            (Step::StopStatus { resource, .. }, Outcome::Good) => {
                events.push(JobEvent::Stuck(group, resource));
                current.due = None;
            }
            (Step::CleanStatus(resource), Outcome::Good) => {
                current.step = Step::Stop {
                    resource,
                    attempt: 1,
                    undo: false,
                };
            }
            (Step::CleanStatus(resource), Outcome::Bad) => self.stopped(group, resource, false),
            (Step::Enter, _) => unreachable!("entering is no command"),
        }
    }

    fn started(&mut self, group: usize, resource: usize) {
        let current = self.current.as_mut().expect("a command was under way");
        if resource + 1 < self.sizes[group] {
            current.step = Step::StartStatus(resource + 1);
        } else {
            self.states[group] = GroupState::Running;
            self.next_group();
        }
    }

    fn stopped(&mut self, group: usize, resource: usize, undo: bool) {
        let current = self.current.as_ref().expect("a command was under way");
        let step = if current.work.direction == Direction::CleanUp {
            last_marked(&self.exclusive[group][..resource]).map(Step::CleanStatus)
        } else {
            (resource > 0).then(|| Step::Stop {
                resource: resource - 1,
                attempt: 1,
                undo,
            })
        };
        if let Some(step) = step {
            self.current.as_mut().expect("it is there").step = step;
        } else {
            self.states[group] = if undo {
                GroupState::Failed
            } else {
                GroupState::Stopped
            };
            self.next_group();
        }
    }

    fn withdrawn(&mut self, group: usize, resource: usize) {
        match last_marked(&self.addresses[group][..resource]) {
            Some(resource) => {
                let current = self.current.as_mut().expect("a command was under way");
                current.step = Step::Stop {
                    resource,
                    attempt: 1,
                    undo: false,
                };
            }
            None => self.next_group(),
        }
    }

    fn next_group(&mut self) {
        let current = self.current.as_mut().expect("a group was under way");
        current.at += 1;
        current.step = Step::Enter;
    }
}

fn marked(groups: &[Group], is: fn(&str) -> bool) -> Vec<Vec<bool>> {
    let of_group = |group: &Group| {
        let scripts = group.resources.iter().map(|one| one.script.as_str());
        scripts.map(is).collect()
    };
    groups.iter().map(of_group).collect()
}

fn last_marked(marks: &[bool]) -> Option<usize> {
    marks.iter().rposition(|is_marked| *is_marked)
}

fn is_address(script: &str) -> bool {
    matches!(script, "IPaddr" | "IPaddr2")
}

/// Whether harm is done when two nodes have the resource at once.
fn is_exclusive(script: &str) -> bool {
    matches!(script, "IPaddr" | "IPaddr2" | "Filesystem" | "drbddisk")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;
    use crate::heartbeat::config::haresources;

    fn groups() -> Vec<Group> {
        let text = "a drbddisk::r0 10.0.0.50 apache2\nb 10.0.0.51\n";
        haresources::parse(&Source::new("haresources", text), &mut Vec::new()).groups
    }

    fn work(direction: Direction, groups: &[usize]) -> Work<&'static str> {
        Work {
            reason: "test",
            direction,
            groups: groups.to_vec(),
        }
    }

    /// Runs all work; `answer` says what comes of each command. Returns the transcript.
    fn run(jobs: &mut Jobs<&'static str>, answer: impl Fn(&str) -> Outcome) -> Vec<String> {
        let mut said = Vec::new();
        let mut now = Duration::ZERO;
        let mut events = Vec::new();
        loop {
            if let Some(command) = jobs.next(now, &mut events) {
                let shown = format!(
                    "{} {}.{}",
                    command.verb.name(),
                    command.group,
                    command.resource
                );
                jobs.outcome(command.token, answer(&shown), now, &mut events);
                said.push(shown);
            } else if let Some(deadline) = jobs.deadline() {
                now = deadline;
            } else {
                said.extend(events.iter().map(|event| format!("{event:?}")));
                return said;
            }
        }
    }

    fn not_running(command: &str) -> Outcome {
        if command.starts_with("status") {
            Outcome::Bad
        } else {
            Outcome::Good
        }
    }

    #[test]
    fn a_group_starts_from_the_left_and_stops_from_the_right() {
        let mut jobs = Jobs::new(&groups());
        jobs.push(work(Direction::Start, &[0]));
        jobs.push(work(Direction::Stop, &[0]));
        let said = run(&mut jobs, not_running);
        assert_eq!(
            said[..9],
            [
                "status 0.0",
                "start 0.0",
                "status 0.1",
                "start 0.1",
                "status 0.2",
                "start 0.2",
                "stop 0.2",
                "stop 0.1",
                "stop 0.0"
            ]
        );
        assert!(jobs.is_idle());
        assert_eq!(jobs.states()[0], GroupState::Stopped);
    }

    #[test]
    fn what_runs_is_not_started() {
        let mut jobs = Jobs::new(&groups());
        jobs.push(work(Direction::Start, &[1]));
        let said = run(&mut jobs, |_| Outcome::Good);
        assert_eq!(said[0], "status 1.0");
        assert!(said[1].starts_with("GroupStarts"), "{said:?}");
        assert_eq!(jobs.states()[1], GroupState::Running);
    }

    #[test]
    fn a_failed_start_stops_the_whole_group_and_is_reported() {
        let mut jobs = Jobs::new(&groups());
        jobs.push(work(Direction::Start, &[0, 1]));
        let said = run(&mut jobs, |command| match command {
            "start 0.1" => Outcome::Bad,
            other => not_running(other),
        });
        assert_eq!(said[4..7], ["stop 0.2", "stop 0.1", "stop 0.0"]);
        assert_eq!(jobs.states(), [GroupState::Failed, GroupState::Running]);
        assert!(
            said.last().expect("an event").contains("failed: [0]"),
            "{said:?}"
        );
    }

    #[test]
    fn a_stop_is_tried_ten_times_and_then_believed_if_the_status_agrees() {
        let mut jobs = Jobs::new(&groups());
        jobs.push(work(Direction::Stop, &[1]));
        let said = run(&mut jobs, |_| Outcome::Bad);
        assert_eq!(said.iter().filter(|line| *line == "stop 1.0").count(), 10);
        assert_eq!(jobs.states()[1], GroupState::Stopped);
    }

    #[test]
    fn a_resource_that_runs_on_after_ten_stops_is_stuck() {
        let mut jobs = Jobs::new(&groups());
        jobs.push(work(Direction::Stop, &[1]));
        let said = run(&mut jobs, |command| match command {
            "status 1.0" => Outcome::Good,
            _ => Outcome::Bad,
        });
        assert_eq!(said.last().map(String::as_str), Some("Stuck(1, 0)"));
        assert!(!jobs.is_idle());
    }

    #[test]
    fn cleaning_up_leaves_services_alone() {
        let mut jobs = Jobs::new(&groups());
        jobs.push(work(Direction::CleanUp, &[0, 1]));
        let said = run(&mut jobs, |_| Outcome::Good);
        assert_eq!(
            said[..6],
            [
                "status 0.1",
                "stop 0.1",
                "status 0.0",
                "stop 0.0",
                "status 1.0",
                "stop 1.0"
            ]
        );
    }

    #[test]
    fn addresses_are_withdrawn_before_anything_slow_is_stopped() {
        for outcome in [Outcome::Good, Outcome::Bad] {
            let mut jobs = Jobs::new(&groups());
            jobs.push(work(Direction::Start, &[0, 1]));
            run(&mut jobs, not_running);
            jobs.push(work(Direction::Withdraw, &[1, 0]));
            jobs.push(work(Direction::Stop, &[0]));
            let withdrawn = run(&mut jobs, |_| outcome);
            assert_eq!(withdrawn[..3], ["stop 1.0", "stop 0.1", "stop 0.2"]);
            assert_eq!(jobs.states()[1], GroupState::Running, "it is stopped later");
        }
    }

    #[test]
    fn an_outcome_of_an_earlier_command_is_ignored() {
        let mut jobs = Jobs::new(&groups());
        jobs.push(work(Direction::Start, &[1]));
        let mut events = Vec::new();
        let command = jobs.next(Duration::ZERO, &mut events).expect("a command");
        jobs.outcome(
            command.token + 1,
            Outcome::Good,
            Duration::ZERO,
            &mut events,
        );
        assert_eq!(jobs.next(Duration::ZERO, &mut events), None);
        assert_eq!(jobs.states()[1], GroupState::Starting);
    }
}
