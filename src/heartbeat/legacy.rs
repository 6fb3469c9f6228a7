//! Who holds which groups, with `auto_failback legacy` (the default): heartbeat 1's protocol.
//!
//! ```text
//!  owner ──`ip-request` ipaddr=KEY──▶ other: stops the group if it has it
//!  owner ◀──`ip-request-resp` ipaddr=KEY ok=OK── other
//!  owner: starts the group
//! ```
//!
//! A node asks for each of its groups when it comes up; a node that leaves stops
//! everything and says `shutdone`. There is no stand-by.

use std::time::Duration;

use super::config::Group;
use super::effect::{Effect, Level, Reason};
use super::jobs::{Direction, Finished, GroupState, Work};
use super::message::Message;

/// Until a request that was not answered is repeated: scripts of the other node may run.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// Until a group that did not start is tried again.
const FAILED_START_WAIT: Duration = Duration::from_secs(30);

/// One node's view.
#[derive(Debug)]
pub struct Legacy {
    own_name: String,
    groups: Vec<LegacyGroup>,
    other_alive: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Leaving,
}

#[derive(Debug)]
struct LegacyGroup {
    key: String,
    is_own: bool,
    /// Starting it was decided, and giving it up was not.
    is_held: bool,
    /// When to ask for it (again).
    request_at: Option<Duration>,
    /// When to start it again after a failure.
    retry_at: Option<Duration>,
}

impl Legacy {
    pub fn new(own_name: &str, groups: &[Group]) -> Self {
        Self {
            own_name: own_name.into(),
            groups: groups
                .iter()
                .map(|group| LegacyGroup {
                    key: group.key().into(),
                    is_own: group.owner.text == own_name,
                    is_held: false,
                    request_at: None,
                    retry_at: None,
                })
                .collect(),
            other_alive: false,
            phase: Phase::Waiting,
        }
    }

    /// Whether the other node is known to hold nothing.
    pub fn other_holds_nothing(&self) -> bool {
        self.groups.iter().all(|group| group.is_held)
    }

    pub fn communication_up(&mut self, other_alive: bool, now: Duration, out: &mut Vec<Effect>) {
        self.phase = Phase::Running;
        self.other_alive = other_alive;
        if other_alive {
            for group in self.groups.iter_mut().filter(|group| group.is_own) {
                group.request_at = Some(now);
            }
            self.timeout(now, out);
        } else {
            self.take_all(out);
        }
    }

    pub fn other_alive(&mut self) {
        self.other_alive = true;
    }

    /// A request that the other node's old self did not answer is repeated at once.
    pub fn other_restarted(&mut self, now: Duration) {
        self.other_alive = true;
        for group in &mut self.groups {
            group.request_at = group.request_at.map(|_| now + Duration::from_secs(1));
        }
    }

    pub fn other_dead(&mut self, out: &mut Vec<Effect>) {
        self.other_alive = false;
        if self.phase == Phase::Running {
            self.take_all(out);
        }
    }

    /// Takes a message of the other node; `states` says what runs here.
    pub fn message(
        &mut self,
        from: &str,
        message: &Message,
        states: &[GroupState],
        out: &mut Vec<Effect>,
    ) {
        match message.kind() {
            "ip-request" => self.request(from, message, states, out),
            "ip-request-resp" => self.response(message, out),
            "shutdone" => self.shutdone(from, out),
            "ask_resources" | "hb_takeover" => out.push(Effect::Log(
                Level::Info,
                "Standby mode only implemented when auto_failback is on or off".into(),
            )),
            _ => {}
        }
    }

    pub fn finished(&mut self, work: &Finished<Reason>, now: Duration, out: &mut Vec<Effect>) {
        for index in &work.failed {
            // It may have been asked for meanwhile, and is the other node's then.
            let group = &mut self.groups[*index];
            group.retry_at = group.is_held.then_some(now + FAILED_START_WAIT);
        }
        match &work.reason {
            Reason::Give { to, key } => send_response(to, key, "yes", out),
            Reason::TakeLocal => out.push(Effect::Log(
                Level::Info,
                "Local Resource acquisition completed.".into(),
            )),
            Reason::TakeForeign => out.push(Effect::Log(
                Level::Info,
                "mach_down takeover complete.".into(),
            )),
            _ => {}
        }
    }

    pub fn shut_down(&mut self) {
        self.phase = Phase::Leaving;
        for group in &mut self.groups {
            group.is_held = false;
            group.request_at = None;
            group.retry_at = None;
        }
    }

    pub fn released(&self, out: &mut Vec<Effect>) {
        out.push(Effect::Send(
            Message::of_type("shutdone").with("st", "dead"),
        ));
    }

    pub fn timeout(&mut self, now: Duration, out: &mut Vec<Effect>) {
        for (index, group) in self.groups.iter_mut().enumerate() {
            if group.request_at.is_some_and(|at| at <= now) {
                group.request_at = Some(now + REQUEST_WAIT);
                out.push(Effect::Send(
                    Message::of_type("ip-request").with("ipaddr", group.key.as_str()),
                ));
            }
            if group.retry_at.is_some_and(|at| at <= now) {
                group.retry_at = None;
                out.push(start(Reason::Retry, vec![index]));
            }
        }
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.groups
            .iter()
            .flat_map(|group| [group.request_at, group.retry_at])
            .flatten()
            .min()
    }

    fn request(
        &mut self,
        from: &str,
        message: &Message,
        states: &[GroupState],
        out: &mut Vec<Effect>,
    ) {
        let key = message.get("ipaddr").unwrap_or_default();
        let Some(index) = self.groups.iter().position(|group| group.key == key) else {
            out.push(Effect::Log(
                Level::Error,
                format!("{from} asks for `{key}`, which haresources here does not have: do the two files differ?"),
            ));
            send_response(from, key, "no", out);
            return;
        };
        let group = &mut self.groups[index];
        if group.is_own {
            out.push(Effect::Log(
                Level::Error,
                format!(
                    "{from} asks for `{key}`, which prefers this node: the two haresources differ"
                ),
            ));
            return;
        }
        let was_held = std::mem::take(&mut group.is_held);
        group.retry_at = None;
        if was_held || states[index] != GroupState::Stopped {
            out.push(Effect::Work(Work {
                reason: Reason::Give {
                    to: from.into(),
                    key: key.into(),
                },
                direction: Direction::Stop,
                groups: vec![index],
            }));
        } else {
            send_response(from, key, "no", out);
        }
    }

    fn response(&mut self, message: &Message, out: &mut Vec<Effect>) {
        let key = message.get("ipaddr").unwrap_or_default();
        let is_good = message
            .get("ok")
            .is_some_and(|ok| ok.eq_ignore_ascii_case("ok"));
        let found = self
            .groups
            .iter_mut()
            .enumerate()
            .find(|(_, group)| group.key == key && group.is_own && group.request_at.is_some());
        if let (Some((index, group)), true) = (found, is_good) {
            group.request_at = None;
            group.is_held = true;
            out.push(start(Reason::TakeLocal, vec![index]));
        }
    }

    fn shutdone(&mut self, from: &str, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Waiting => {}
            Phase::Leaving => out.push(Effect::Log(
                Level::Info,
                "Resource takeover cancelled - shutdown in progress.".into(),
            )),
            Phase::Running => {
                for text in [
                    format!("Received shutdown notice from '{from}'."),
                    format!("Resources being acquired from {from}."),
                ] {
                    out.push(Effect::Log(Level::Info, text));
                }
                self.take_all(out);
            }
        }
    }

    /// Takes what is not held, the other node's groups first: they are the ones missed.
    fn take_all(&mut self, out: &mut Vec<Effect>) {
        for (is_own, reason) in [(false, Reason::TakeForeign), (true, Reason::TakeLocal)] {
            let mut taken = Vec::new();
            for (index, group) in self.groups.iter_mut().enumerate() {
                if group.is_own == is_own && !group.is_held {
                    group.is_held = true;
                    group.request_at = None;
                    taken.push(index);
                    if is_own {
                        send_response(&self.own_name, &group.key, "yes", out);
                    }
                }
            }
            if !taken.is_empty() {
                out.push(start(reason, taken));
            }
        }
    }
}

fn start(reason: Reason, groups: Vec<usize>) -> Effect {
    Effect::Work(Work {
        reason,
        direction: Direction::Start,
        groups,
    })
}

fn send_response(to: &str, key: &str, had_it: &str, out: &mut Vec<Effect>) {
    out.push(Effect::Send(
        Message::of_type("ip-request-resp")
            .with("dest", to)
            .with("ipaddr", key)
            .with("weown", had_it)
            .with("ok", "OK"),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::Source;
    use crate::heartbeat::config::haresources;

    const NOW: Duration = Duration::from_secs(5);
    const STOPPED: [GroupState; 2] = [GroupState::Stopped; 2];

    fn legacy(own_name: &str) -> Legacy {
        let text = "a 10.0.0.50 apache2\nb 10.0.0.51\n";
        let read = haresources::parse(&Source::new("haresources", text), &mut Vec::new());
        Legacy::new(own_name, &read.groups)
    }

    fn shown(out: &[Effect]) -> Vec<String> {
        out.iter()
            .filter_map(|effect| match effect {
                Effect::Send(message) => Some(message.to_string()),
                Effect::Work(work) => Some(format!("{:?} {:?}", work.direction, work.groups)),
                Effect::Log(..) | Effect::Usurped => None,
            })
            .collect()
    }

    fn request(key: &str) -> Message {
        Message::of_type("ip-request").with("ipaddr", key)
    }

    #[test]
    fn an_owner_asks_and_starts_when_it_is_answered() {
        let mut owner = legacy("a");
        let mut out = Vec::new();
        owner.communication_up(true, NOW, &mut out);
        assert_eq!(shown(&out), ["ip-request ipaddr=10.0.0.50"]);
        let answer = Message::of_type("ip-request-resp")
            .with("ipaddr", "10.0.0.50")
            .with("ok", "OK");
        let mut out = Vec::new();
        owner.message("b", &answer, &STOPPED, &mut out);
        assert_eq!(shown(&out), ["Start [0]"]);
        let mut out = Vec::new();
        owner.message("b", &answer, &STOPPED, &mut out);
        assert_eq!(shown(&out), [""; 0], "a second answer starts nothing");
    }

    #[test]
    fn a_holder_stops_the_group_before_it_answers() {
        let mut holder = legacy("b");
        holder.communication_up(false, NOW, &mut Vec::new());
        let mut out = Vec::new();
        holder.message(
            "a",
            &request("10.0.0.50"),
            &[GroupState::Running; 2],
            &mut out,
        );
        assert_eq!(shown(&out), ["Stop [0]"]);
        let Effect::Work(work) = out.remove(0) else {
            panic!("the first is work");
        };
        let finished = Finished {
            reason: work.reason,
            groups: work.groups,
            failed: Vec::new(),
        };
        holder.finished(&finished, NOW, &mut out);
        assert_eq!(
            shown(&out),
            ["ip-request-resp dest=a ipaddr=10.0.0.50 weown=yes ok=OK"]
        );
    }

    #[test]
    fn who_does_not_have_it_says_so() {
        let mut out = Vec::new();
        legacy("b").message("a", &request("10.0.0.50"), &STOPPED, &mut out);
        assert_eq!(
            shown(&out),
            ["ip-request-resp dest=a ipaddr=10.0.0.50 weown=no ok=OK"]
        );
    }

    #[test]
    fn two_different_files_are_noticed() {
        for key in ["10.0.0.99", "10.0.0.51"] {
            let mut out = Vec::new();
            legacy("b").message("a", &request(key), &STOPPED, &mut out);
            assert!(format!("{out:?}").contains("differ"), "{out:?}");
        }
    }

    /// The other node came back and asked while the start was failing: trying again would have made
    /// two owners.
    #[test]
    fn a_group_that_was_given_away_during_its_failing_start_is_not_tried_again() {
        let mut legacy = legacy("a");
        legacy.communication_up(false, NOW, &mut Vec::new());
        let starting = [GroupState::Stopped, GroupState::Starting];
        let ask = request("10.0.0.51");
        legacy.message("b", &ask, &starting, &mut Vec::new());
        let failed = Finished {
            reason: Reason::TakeForeign,
            groups: vec![1],
            failed: vec![1],
        };
        legacy.finished(&failed, NOW, &mut Vec::new());
        let mut out = Vec::new();
        legacy.timeout(NOW + FAILED_START_WAIT, &mut out);
        assert!(shown(&out).is_empty(), "{out:?}");
    }

    #[test]
    fn a_leave_and_a_death_are_taken_over_once() {
        let mut node = legacy("b");
        node.communication_up(true, NOW, &mut Vec::new());
        let mut out = Vec::new();
        node.message("a", &Message::of_type("shutdone"), &STOPPED, &mut out);
        node.other_dead(&mut out);
        assert_eq!(
            shown(&out),
            [
                "Start [0]",
                "ip-request-resp dest=b ipaddr=10.0.0.51 weown=yes ok=OK",
                "Start [1]",
            ]
        );
    }
}
