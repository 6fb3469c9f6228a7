//! Who holds which groups, with `auto_failback on` or `off`: the protocol between two nodes.
//!
//! ```text
//!  Init ──communication up: `starting`──▶ Starting ──`starting` heard──▶ BothStarting
//!                                             └──`resource` heard──▶ Received ◀──┘
//!  Received ──the other is stable, or 10 s, or both just began──▶ Stable ──stop──▶ Shutdown
//!  any but Shutdown ──the other died or left──▶ Stable, holding all
//! ```
//!
//! Stand-by, seen from both ends (`ask_resources`, its `info` in quotes):
//!
//! ```text
//!  giver: "me" ──▶ Asked ──"other"──▶ Releasing ──stopped: "done"──▶ Released ──"done"──▶ over
//!  taker: "me" heard: "other" ──▶ Promised ──"done"──▶ Acquiring ──started: "done"──▶ over
//! ```
//!
//! A share is claimed when starting its groups is decided and given up when they are
//! stopped, so at no time do two claims meet while both nodes hear each other. Beyond
//! heartbeat: an old report that comes late is not believed over a newer one; when
//! both have just begun, neither waits ten seconds for the other; groups that nobody
//! holds are adopted; a node whose groups are held by a living other one gives way; and a
//! node that came back during the other's takeover says twice that it is stable, for
//! heartbeat looks only then whether groups are to go home.

use std::time::Duration;

use super::effect::{Effect, Level, Reason, Share};
use super::jobs::{Direction, Finished, Work};
use super::message::Message;

/// Wait for the other node to become stable after its first report.
const RECEIVED_WAIT: Duration = Duration::from_secs(10);

/// Wait for an answer to a wish to stand by.
const STANDBY_ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Wait for the other node's scripts during stand-by.
const STANDBY_SCRIPTS_WAIT: Duration = Duration::from_secs(60 * 60);

/// From a failed start of a group until the other node is asked to have it.
const FAILED_START_WAIT: Duration = Duration::from_secs(30);

/// Until a failback that was not answered is asked for again.
const FAILBACK_RETRY_WAIT: Duration = Duration::from_secs(10);

/// How long nobody must hold this node's own groups before it adopts them: longer than a
/// lost report takes to be sent again.
const ADOPT_LOCAL_WAIT: Duration = Duration::from_secs(2);

/// The same for the other node's groups, which it should adopt itself.
const ADOPT_FOREIGN_WAIT: Duration = Duration::from_secs(10);

/// From a report that must not stay the last one, if it comes late, to the one that does.
const REPORT_AGAIN_WAIT: Duration = Duration::from_secs(2);

/// The `info` of a report that ends a stand-by which was not answered; heartbeat ignores it,
/// and its own taker waits the hour out.
const CANCELLED: &str = "standby cancelled";

/// The `info` of a report that the groups of a node that died or left are taken.
const MACH_DOWN: &str = "mach_down";

/// Whether groups go back to their owner when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Init,
    Starting,
    BothStarting,
    Received { until: Duration },
    Stable,
    Shutdown,
}

/// A stand-by under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standby {
    stage: Stage,
    /// As the giver sees it.
    share: Share,
    until: Duration,
}

/// What the other node would give, and until when it waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    share: Share,
    until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    Releasing,
    Released,
    Promised,
    Acquiring,
}

/// One node's view of who holds what.
#[derive(Debug)]
pub struct Resources {
    own_name: String,
    own_groups: Vec<usize>,
    other_groups: Vec<usize>,
    failback: Failback,
    state: State,
    /// What this node holds, from its own point of view.
    mine: Share,
    /// What the other node holds, from its point of view.
    others: Share,
    other: Other,
    standby: Option<Standby>,
    needs_failback: bool,
    failback_not_before: Duration,
    /// Sequence number of the newest report believed, and of the newest that says how stable.
    newest_report: u64,
    newest_stability: u64,
    /// A wish to stand by that came before the report which says that its sender is stable.
    early_wish: Option<Wish>,
    local_orphaned: Option<Duration>,
    foreign_orphaned: Option<Duration>,
    /// The other node took this one's groups before this one was stable.
    taken_before_stable: bool,
    report_again: Option<Duration>,
    /// Groups that did not start, and when to do something about it.
    failed: Vec<(Duration, usize)>,
}

/// What is known of the other node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Other {
    alive: bool,
    stand: Stand,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stand {
    /// It said `starting` and has held nothing since.
    Fresh,
    #[default]
    InFlux,
    Stable,
    /// It announced that it gives everything up.
    Leaving,
}

impl Resources {
    pub fn new(
        own_name: &str,
        own_groups: Vec<usize>,
        other_groups: Vec<usize>,
        failback: Failback,
    ) -> Self {
        Self {
            own_name: own_name.into(),
            own_groups,
            other_groups,
            failback,
            state: State::Init,
            mine: Share::NONE,
            others: Share::NONE,
            other: Other::default(),
            standby: None,
            needs_failback: false,
            failback_not_before: Duration::ZERO,
            newest_report: 0,
            newest_stability: 0,
            early_wish: None,
            local_orphaned: None,
            foreign_orphaned: None,
            taken_before_stable: false,
            report_again: None,
            failed: Vec::new(),
        }
    }

    /// Returns what `cl_status rscstatus` says.
    pub fn status(&self) -> String {
        if self.is_stable() && self.standby.is_none() {
            self.mine.to_string()
        } else {
            "transition".into()
        }
    }

    /// Whether nothing is under way that a shutdown should wait for.
    pub fn is_settled(&self) -> bool {
        self.standby.is_none()
    }

    /// Whether the other node is known to hold nothing (no fencing would be needed).
    pub fn other_holds_nothing(&self) -> bool {
        self.others == Share::NONE
    }

    /// The node may take part now.
    pub fn communication_up(&mut self, other_alive: bool, out: &mut Vec<Effect>) {
        self.other.alive = other_alive;
        out.push(Effect::Send(Message::of_type("starting")));
        if other_alive {
            self.state = State::Starting;
        } else {
            self.take_all(out);
        }
    }

    /// The other node was heard again, or for the first time.
    pub fn other_alive(&mut self) {
        self.other.alive = true;
    }

    /// The other node runs in a new generation: whatever was agreed with the old one is void.
    pub fn other_restarted(&mut self) {
        self.other = Other {
            alive: true,
            stand: Stand::InFlux,
        };
        self.standby = None;
        self.newest_report = 0;
        self.newest_stability = 0;
        self.early_wish = None;
        self.needs_failback = true;
    }

    /// The other node is silent: everything is ours.
    pub fn other_dead(&mut self, out: &mut Vec<Effect>) {
        self.other = Other::default();
        self.others = Share::NONE;
        self.standby = None;
        self.early_wish = None;
        // What is held already was perhaps on its way home: it goes when the other returns.
        self.needs_failback = true;
        if !matches!(self.state, State::Init | State::Shutdown) {
            self.take_all(out);
        }
    }

    /// Takes a message of the other node.
    pub fn message(
        &mut self,
        from: &str,
        sequence: u64,
        message: &Message,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        match message.kind() {
            "starting" => self.starting(out),
            "resource" => self.report(from, sequence, message, now, out),
            "ask_resources" => self.ask_resources(from, message, now, out),
            "hb_takeover" => self.takeover(message, now, out),
            "shutdone" => self.shutdone(from, out),
            _ => {}
        }
        self.look_for_orphans(now);
    }

    /// Work that this protocol asked for is done.
    pub fn finished(&mut self, work: &Finished<Reason>, now: Duration, out: &mut Vec<Effect>) {
        self.failed
            .retain(|(_, group)| !work.groups.contains(group));
        let again = now + FAILED_START_WAIT;
        // One that was given away meanwhile is the other node's.
        let held = self.groups(self.mine);
        let failed = work.failed.iter().filter(|group| held.contains(group));
        self.failed.extend(failed.map(|group| (again, *group)));
        match work.reason {
            Reason::TakeLocal => {
                self.send_held(Some("req_our_resources()"), out);
                log(out, Level::Info, "Local Resource acquisition completed.");
            }
            Reason::TakeForeign => {
                out.push(Effect::Send(
                    Message::of_type("resource")
                        .with("rsc_hold", "foreign")
                        .with("info", MACH_DOWN),
                ));
                log(out, Level::Info, "mach_down takeover complete.");
                self.needs_failback = true;
            }
            Reason::StandbyRelease => self.standby_released(now, out),
            Reason::StandbyAcquire => self.standby_acquired(out),
            Reason::CleanUp | Reason::Retry | Reason::Give { .. } | Reason::ReleaseAll => {}
        }
        self.try_failback(now, out);
    }

    /// The user wants this node to give groups to the other one.
    pub fn stand_by(
        &mut self,
        share: Share,
        now: Duration,
        out: &mut Vec<Effect>,
    ) -> Result<(), String> {
        if !self.other.alive {
            return Err("the other node is not there to take the resources".into());
        }
        if let Some(standby) = &self.standby {
            return Err(format!(
                "a stand-by is in progress ({} s left)",
                standby.until.saturating_sub(now).as_secs()
            ));
        }
        if !self.is_stable() {
            return Err("local resources are in flux".into());
        }
        if self.other.stand != Stand::Stable {
            return Err("the other node's resources are in flux".into());
        }
        log(
            out,
            Level::Info,
            format!("{} wants to go standby [{share}]", self.own_name),
        );
        self.other.stand = Stand::InFlux;
        self.standby = Some(Standby {
            stage: Stage::Asked,
            share,
            until: now + STANDBY_ANSWER_WAIT,
        });
        send_standby(share, "me", out);
        Ok(())
    }

    /// Announces that this node leaves; the caller stops the groups and then calls
    /// [`Self::released`].
    pub fn shut_down(&mut self, out: &mut Vec<Effect>) {
        self.state = State::Shutdown;
        self.mine = Share::NONE;
        self.standby = None;
        self.failed.clear();
        self.report_again = None;
        self.send_held(Some("shutdown"), out);
    }

    pub fn released(&self, out: &mut Vec<Effect>) {
        out.push(Effect::Send(
            Message::of_type("shutdone").with("st", "dead"),
        ));
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if let State::Received { until } = self.state
            && until <= now
        {
            if self.other.stand == Stand::Leaving {
                self.state = State::Received {
                    until: now + RECEIVED_WAIT,
                };
            } else {
                log(out, Level::Info, "local resource transition completed.");
                self.become_stable(false, now, out);
            }
        }
        if self.standby.is_some_and(|standby| standby.until <= now) {
            log(
                out,
                Level::Warning,
                "No reply to standby request.  Standby request cancelled.",
            );
            self.standby = None;
            self.needs_failback |= self.mine.foreign;
            self.failback_not_before = now + FAILBACK_RETRY_WAIT;
            self.send_held(Some(CANCELLED), out);
        }
        if self.report_again.take_if(|at| *at <= now).is_some() && self.is_stable() {
            self.send_held(None, out);
        }
        self.retry_failed(now, out);
        self.adopt_orphans(now, out);
        self.try_failback(now, out);
        self.look_for_orphans(now);
    }

    pub fn deadline(&self) -> Option<Duration> {
        let received = match self.state {
            State::Received { until } => Some(until),
            _ => None,
        };
        let failback = (self.wants_failback()).then_some(self.failback_not_before);
        [
            received,
            self.standby.map(|standby| standby.until),
            self.local_orphaned.map(|since| since + ADOPT_LOCAL_WAIT),
            self.foreign_orphaned
                .map(|since| since + ADOPT_FOREIGN_WAIT),
            self.report_again,
            self.failed.iter().map(|(at, _)| *at).min(),
            failback,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn is_stable(&self) -> bool {
        self.state == State::Stable
    }

    fn starting(&mut self, out: &mut Vec<Effect>) {
        self.other = Other {
            alive: true,
            stand: Stand::Fresh,
        };
        match self.state {
            State::Init => return,
            State::Starting => self.state = State::BothStarting,
            _ => {}
        }
        self.send_held(None, out);
    }

    /// A `resource` message: what the other node holds.
    fn report(
        &mut self,
        from: &str,
        sequence: u64,
        message: &Message,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let Some(share) = message.get("rsc_hold").and_then(Share::parse) else {
            log(out, Level::Error, "a `resource` message without a share");
            return;
        };
        let was_taken = message.get("info") == Some(MACH_DOWN);
        self.taken_before_stable |= was_taken && !self.is_stable();
        let mut both_began = false;
        if sequence >= self.newest_report {
            self.newest_report = sequence;
            self.others = match (message.get("rtype"), share) {
                (Some("full"), share) => share,
                (_, Share::NONE) => Share::NONE,
                (_, share) => self.others.with(share),
            };
            match message.get("info") {
                Some("shutdown") => self.other.stand = Stand::Leaving,
                Some(CANCELLED) => {
                    let promised = |standby: &mut Standby| standby.stage == Stage::Promised;
                    self.standby.take_if(promised);
                }
                _ => {}
            }
            let begins = matches!(self.state, State::Starting | State::BothStarting);
            both_began = begins && self.other.stand == Stand::Fresh && self.others == Share::NONE;
            if begins {
                let until = now + RECEIVED_WAIT;
                self.state = State::Received { until };
            }
        }
        // Scripts report what they took without a word about stability: what the daemon said
        // before counts still, even when it comes later.
        let mut said_unstable = false;
        if let Some(word) = message.get("isstable")
            && sequence >= self.newest_stability
        {
            self.newest_stability = sequence;
            match word {
                "1" => said_unstable = self.other_is_stable(from, now, out),
                _ if self.other.stand == Stand::Stable => self.other.stand = Stand::InFlux,
                _ => {}
            }
        }
        let is_waiting = matches!(self.state, State::Received { .. });
        if is_waiting && (self.other.stand == Stand::Stable || both_began) {
            self.become_stable(said_unstable, now, out);
        } else if was_taken {
            self.groups_taken(now, out);
        }
        self.audit(out);
    }

    /// The other node has taken this one's groups just now, and this one has come back meanwhile.
    /// heartbeat gives groups back when the node they prefer becomes stable: one that was stable
    /// before its groups were taken becomes it a second time.
    fn groups_taken(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.is_stable() && self.say_unstable(now, out) {
            self.send_held(None, out);
        }
    }

    /// Says that this node is not stable, so that it can become it; the caller says that it is.
    fn say_unstable(&mut self, now: Duration, out: &mut Vec<Effect>) -> bool {
        let is_away = self.others.foreign && !self.mine.local && !self.own_groups.is_empty();
        let wants = self.failback == Failback::On && is_away && self.standby.is_none();
        if wants {
            self.send_report(false, None, out);
            self.report_again = Some(now + REPORT_AGAIN_WAIT);
        }
        wants
    }

    /// Returns whether it has said that this node is not stable.
    fn other_is_stable(&mut self, from: &str, now: Duration, out: &mut Vec<Effect>) -> bool {
        if self.other.stand == Stand::Stable {
            return false;
        }
        self.other.stand = Stand::Stable;
        log(out, Level::Info, "remote resource transition completed.");
        let answers = self.state != State::Init && self.state != State::Shutdown;
        if answers {
            self.send_held(None, out);
        }
        if let Some(wish) = self.early_wish.take().filter(|wish| wish.until > now) {
            self.promise(from, wish.share, now, out);
        }
        self.try_failback(now, out);
        answers && !self.is_stable()
    }

    fn become_stable(&mut self, said_unstable: bool, now: Duration, out: &mut Vec<Effect>) {
        self.take_local(out);
        self.state = State::Stable;
        if std::mem::take(&mut self.taken_before_stable) {
            // heartbeat takes a node that left for stable once it has taken its groups.
            if said_unstable {
                self.report_again = Some(now + REPORT_AGAIN_WAIT);
            } else {
                self.say_unstable(now, out);
            }
        }
        self.send_held(None, out);
        self.try_failback(now, out);
    }

    fn take_local(&mut self, out: &mut Vec<Effect>) {
        if self.mine.local || self.others.foreign || self.own_groups.is_empty() {
            log(
                out,
                Level::Info,
                "Local Resource acquisition completed. (none)",
            );
            self.mine.local |= self.own_groups.is_empty();
            return;
        }
        self.mine.local = true;
        self.start(Reason::TakeLocal, Share::LOCAL, out);
    }

    /// Takes whatever is not held yet; the other node is gone.
    fn take_all(&mut self, out: &mut Vec<Effect>) {
        self.state = State::Stable;
        let missing = Share::ALL.without(self.mine);
        self.mine = Share::ALL;
        if missing.foreign {
            self.start(Reason::TakeForeign, Share::FOREIGN, out);
        }
        if missing.local {
            self.start(Reason::TakeLocal, Share::LOCAL, out);
        }
        self.send_held(None, out);
    }

    fn start(&self, reason: Reason, share: Share, out: &mut Vec<Effect>) {
        out.push(Effect::Work(Work {
            reason,
            direction: Direction::Start,
            groups: self.groups(share),
        }));
    }

    fn groups(&self, share: Share) -> Vec<usize> {
        let local = self.own_groups.iter().filter(|_| share.local);
        let foreign = self.other_groups.iter().filter(|_| share.foreign);
        foreign.chain(local).copied().collect()
    }

    fn send_held(&self, info: Option<&str>, out: &mut Vec<Effect>) {
        self.send_report(self.is_stable() && info != Some("standby"), info, out);
    }

    fn send_report(&self, is_stable: bool, info: Option<&str>, out: &mut Vec<Effect>) {
        let mut message = Message::of_type("resource")
            .with("rsc_hold", self.mine.to_string())
            .with("rtype", "full")
            .with("isstable", if is_stable { "1" } else { "0" });
        if let Some(info) = info {
            message = message.with("info", info);
        }
        out.push(Effect::Send(message));
    }

    fn shutdone(&mut self, from: &str, out: &mut Vec<Effect>) {
        self.others = Share::NONE;
        self.standby = None;
        self.other.stand = Stand::InFlux;
        if matches!(self.state, State::Init) {
            return;
        }
        if self.state == State::Shutdown {
            log(
                out,
                Level::Info,
                "Resource takeover cancelled - shutdown in progress.",
            );
            return;
        }
        log(
            out,
            Level::Info,
            format!("Received shutdown notice from '{from}'."),
        );
        log(
            out,
            Level::Info,
            format!("Resources being acquired from {from}."),
        );
        self.needs_failback = true;
        self.take_all(out);
    }

    fn audit(&self, out: &mut Vec<Effect>) {
        // A share without groups may be called held by both: nothing runs twice by it.
        let both = self.mine.and(self.others.mirrored());
        if self.standby.is_none() && self.is_stable() && !self.groups(both).is_empty() {
            log(out, Level::Error, "Both machines own our resources!");
            out.push(Effect::Usurped);
        }
    }

    fn takeover(&mut self, message: &Message, now: Duration, out: &mut Vec<Effect>) {
        // heartbeat's script maps what it knows and takes the rest for `all`.
        let share = match message.get("rsc_hold") {
            Some("local") => Share::FOREIGN,
            Some("foreign") => Share::LOCAL,
            _ => Share::ALL,
        };
        if let Err(refusal) = self.stand_by(share, now, out) {
            log(
                out,
                Level::Info,
                format!("hb_takeover request ignored: {refusal}"),
            );
        }
    }

    fn ask_resources(
        &mut self,
        from: &str,
        message: &Message,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let (Some(share), Some(info)) = (
            message.get("rsc_hold").and_then(Share::parse),
            message.get("info"),
        ) else {
            log(
                out,
                Level::Error,
                "an `ask_resources` message without share or info",
            );
            return;
        };
        match (self.standby, info) {
            (None, "me") => self.promise(from, share, now, out),
            (Some(standby), "me") => log(
                out,
                Level::Warning,
                format!(
                    "Standby in progress - new request from {from} ignored [{} seconds left]",
                    standby.until.saturating_sub(now).as_secs()
                ),
            ),
            (
                Some(Standby {
                    stage: Stage::Asked,
                    share,
                    ..
                }),
                "other",
            ) => {
                self.release(from, share, now, out);
            }
            (
                Some(Standby {
                    stage: Stage::Promised,
                    share,
                    ..
                }),
                "done",
            ) => {
                self.acquire(from, share, now, out);
            }
            (
                Some(Standby {
                    stage: Stage::Released,
                    share,
                    ..
                }),
                "done",
            ) => {
                log(
                    out,
                    Level::Info,
                    format!("Other node completed standby takeover of {share} resources."),
                );
                self.standby = None;
                self.send_held(None, out);
            }
            _ => {}
        }
    }

    /// Step 2, at the taker.
    fn promise(&mut self, from: &str, share: Share, now: Duration, out: &mut Vec<Effect>) {
        if !self.is_stable() || self.other.stand != Stand::Stable {
            let side = if self.is_stable() {
                "Other side"
            } else {
                "local resources"
            };
            log(
                out,
                Level::Info,
                format!("standby message [{share}] from {from} ignored.  {side} in flux."),
            );
            // It may have overtaken the report that says otherwise.
            let until = now + STANDBY_ANSWER_WAIT;
            self.early_wish = self.is_stable().then_some(Wish { share, until });
            return;
        }
        log(
            out,
            Level::Info,
            format!("{from} wants to go standby [{share}]"),
        );
        self.other.stand = Stand::InFlux;
        self.standby = Some(Standby {
            stage: Stage::Promised,
            share,
            until: now + STANDBY_SCRIPTS_WAIT,
        });
        send_standby(share, "other", out);
    }

    /// Step 3, at the giver.
    fn release(&mut self, from: &str, share: Share, now: Duration, out: &mut Vec<Effect>) {
        log(
            out,
            Level::Info,
            format!("standby: {from} can take our {share} resources"),
        );
        log(
            out,
            Level::Info,
            format!("give up {share} HA resources (standby)."),
        );
        self.mine = self.mine.without(share);
        self.standby = Some(Standby {
            stage: Stage::Releasing,
            share,
            until: now + STANDBY_SCRIPTS_WAIT,
        });
        self.failed.retain(|(_, group)| {
            let own = self.own_groups.contains(group);
            !(if own { share.local } else { share.foreign })
        });
        self.send_held(Some("standby"), out);
        out.push(Effect::Work(Work {
            reason: Reason::StandbyRelease,
            direction: Direction::Stop,
            groups: self.groups(share),
        }));
    }

    /// Step 4, at the giver.
    fn standby_released(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let Some(standby) = &mut self.standby else {
            return;
        };
        if standby.stage != Stage::Releasing {
            return;
        }
        standby.stage = Stage::Released;
        standby.until = now + STANDBY_SCRIPTS_WAIT;
        let share = standby.share;
        log(
            out,
            Level::Info,
            format!("Local standby process completed [{share}]."),
        );
        send_standby(share, "done", out);
    }

    /// Step 4, at the taker.
    fn acquire(&mut self, from: &str, share: Share, now: Duration, out: &mut Vec<Effect>) {
        let mapped = share.mirrored();
        log(
            out,
            Level::Info,
            format!("standby: acquire [{share}] resources from {from}"),
        );
        log(
            out,
            Level::Info,
            format!("acquire {mapped} HA resources (standby)."),
        );
        self.mine = self.mine.with(mapped);
        self.others = self.others.without(share);
        self.standby = Some(Standby {
            stage: Stage::Acquiring,
            share,
            until: now + STANDBY_SCRIPTS_WAIT,
        });
        self.start(Reason::StandbyAcquire, mapped, out);
    }

    /// Step 5, at the taker.
    fn standby_acquired(&mut self, out: &mut Vec<Effect>) {
        let Some(Standby {
            stage: Stage::Acquiring,
            share,
            ..
        }) = self.standby
        else {
            return;
        };
        self.standby = None;
        self.send_held(None, out);
        send_standby(share, "done", out);
        log(
            out,
            Level::Info,
            format!("Standby resource acquisition done [{share}]."),
        );
    }

    fn wants_failback(&self) -> bool {
        self.failback == Failback::On
            && self.needs_failback
            && self.is_stable()
            && self.other.alive
            && self.other.stand == Stand::Stable
            && self.standby.is_none()
            && self.mine.foreign
            && !self.others.local
    }

    fn try_failback(&mut self, now: Duration, out: &mut Vec<Effect>) {
        if self.wants_failback() && now >= self.failback_not_before {
            self.needs_failback = false;
            log(
                out,
                Level::Info,
                "the other node is back: its resources go home",
            );
            self.stand_by(Share::FOREIGN, now, out)
                .expect("what a stand-by asks for was asked for just now");
        }
    }

    fn look_for_orphans(&mut self, now: Duration) {
        let settled = self.is_stable()
            && self.other.alive
            && self.other.stand == Stand::Stable
            && self.standby.is_none();
        let local = settled && !self.mine.local && !self.others.foreign;
        let foreign = settled && !self.mine.foreign && !self.others.local;
        note_since(&mut self.local_orphaned, local, now);
        note_since(&mut self.foreign_orphaned, foreign, now);
    }

    fn adopt_orphans(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.look_for_orphans(now);
        let due = |since: Option<Duration>, wait| since.is_some_and(|since| since + wait <= now);
        if due(self.local_orphaned, ADOPT_LOCAL_WAIT) {
            log(out, Level::Warning, "No one owns our local resources!");
            self.take_local(out);
            self.send_held(None, out);
        }
        if due(self.foreign_orphaned, ADOPT_FOREIGN_WAIT) {
            log(out, Level::Warning, "No one owns foreign resources!");
            self.mine.foreign = true;
            self.start(Reason::TakeForeign, Share::FOREIGN, out);
            self.send_held(None, out);
        }
    }

    /// A group that does not start here may start there; without a there, here again.
    fn retry_failed(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let due: Vec<usize> = self
            .failed
            .iter()
            .filter(|(at, _)| *at <= now)
            .map(|(_, group)| *group)
            .collect();
        if due.is_empty() {
            return;
        }
        // Until it has started somewhere: the other node may die before it has taken the group.
        for (at, _) in self.failed.iter_mut().filter(|(at, _)| *at <= now) {
            *at = now + FAILED_START_WAIT;
        }
        if !self.is_stable() {
            return;
        }
        let share = due.iter().fold(Share::NONE, |share, group| {
            share.with(if self.own_groups.contains(group) {
                Share::LOCAL
            } else {
                Share::FOREIGN
            })
        });
        if self.stand_by(share, now, out).is_err() {
            out.push(Effect::Work(Work {
                reason: Reason::Retry,
                direction: Direction::Start,
                groups: due,
            }));
        }
    }
}

fn note_since(since: &mut Option<Duration>, holds: bool, now: Duration) {
    *since = holds.then(|| since.unwrap_or(now));
}

fn send_standby(share: Share, info: &str, out: &mut Vec<Effect>) {
    out.push(Effect::Send(
        Message::of_type("ask_resources")
            .with("rsc_hold", share.to_string())
            .with("info", info),
    ));
}

fn log(out: &mut Vec<Effect>, level: Level, text: impl Into<String>) {
    out.push(Effect::Log(level, text.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn resources(failback: Failback) -> Resources {
        Resources::new("a", vec![0], vec![1], failback)
    }

    fn held(share: &str, stable: &str) -> Message {
        Message::of_type("resource")
            .with("rsc_hold", share)
            .with("rtype", "full")
            .with("isstable", stable)
    }

    fn ask(share: &str, info: &str) -> Message {
        Message::of_type("ask_resources")
            .with("rsc_hold", share)
            .with("info", info)
    }

    /// What was done, logs aside, one line each.
    fn shown(out: &[Effect]) -> Vec<String> {
        out.iter()
            .filter_map(|effect| match effect {
                Effect::Send(message) => Some(message.to_string()),
                Effect::Work(work) => Some(format!(
                    "{:?} {:?} {:?}",
                    work.direction, work.groups, work.reason
                )),
                Effect::Usurped => Some("usurped".into()),
                Effect::Log(..) => None,
            })
            .collect()
    }

    fn receive(resources: &mut Resources, sequence: u64, message: &Message) -> Vec<String> {
        let mut out = Vec::new();
        resources.message("b", sequence, message, NOW, &mut out);
        shown(&out)
    }

    fn finish(resources: &mut Resources, reason: Reason) -> Vec<String> {
        let mut out = Vec::new();
        let work = Finished {
            reason,
            groups: Vec::new(),
            failed: Vec::new(),
        };
        resources.finished(&work, NOW, &mut out);
        shown(&out)
    }

    /// A node that came up alone and holds everything.
    fn alone(failback: Failback) -> Resources {
        let mut resources = resources(failback);
        resources.communication_up(false, &mut Vec::new());
        finish(&mut resources, Reason::TakeForeign);
        finish(&mut resources, Reason::TakeLocal);
        resources
    }

    #[test]
    fn a_node_alone_takes_everything() {
        let mut out = Vec::new();
        resources(Failback::On).communication_up(false, &mut out);
        assert_eq!(
            shown(&out),
            [
                "starting",
                "Start [1] TakeForeign",
                "Start [0] TakeLocal",
                "resource rsc_hold=all rtype=full isstable=1"
            ]
        );
    }

    #[test]
    fn two_nodes_that_just_began_do_not_wait() {
        let mut resources = resources(Failback::On);
        resources.communication_up(true, &mut Vec::new());
        assert_eq!(
            receive(&mut resources, 1, &Message::of_type("starting")),
            ["resource rsc_hold=none rtype=full isstable=0"]
        );
        assert_eq!(
            receive(&mut resources, 2, &held("none", "0")),
            [
                "Start [0] TakeLocal",
                "resource rsc_hold=local rtype=full isstable=1"
            ]
        );
    }

    #[test]
    fn a_node_in_flux_that_did_not_just_begin_is_waited_for() {
        let mut resources = resources(Failback::On);
        resources.communication_up(true, &mut Vec::new());
        assert!(receive(&mut resources, 1, &held("none", "0")).is_empty());
        assert_eq!(resources.deadline(), Some(NOW + RECEIVED_WAIT));
        let mut out = Vec::new();
        resources.timeout(NOW + RECEIVED_WAIT, &mut out);
        assert_eq!(shown(&out)[0], "Start [0] TakeLocal");
    }

    #[test]
    fn groups_go_back_to_a_node_that_returns() {
        let mut resources = alone(Failback::On);
        resources.other_restarted();
        let held_all = "resource rsc_hold=all rtype=full isstable=1";
        assert_eq!(
            receive(&mut resources, 1, &Message::of_type("starting")),
            [held_all]
        );
        assert!(receive(&mut resources, 2, &held("none", "0")).is_empty());
        assert_eq!(
            receive(&mut resources, 3, &held("none", "1")),
            [held_all, "ask_resources rsc_hold=foreign info=me"]
        );
        assert_eq!(
            receive(&mut resources, 4, &ask("foreign", "other")),
            [
                "resource rsc_hold=local rtype=full isstable=0 info=standby",
                "Stop [1] StandbyRelease"
            ]
        );
        assert_eq!(
            finish(&mut resources, Reason::StandbyRelease),
            ["ask_resources rsc_hold=foreign info=done"]
        );
        receive(&mut resources, 5, &held("local", "1"));
        assert_eq!(
            receive(&mut resources, 6, &ask("foreign", "done")),
            ["resource rsc_hold=local rtype=full isstable=1"]
        );
        assert_eq!(resources.status(), "local");
    }

    #[test]
    fn groups_stay_with_failback_off() {
        let mut resources = alone(Failback::Off);
        resources.other_restarted();
        receive(&mut resources, 1, &Message::of_type("starting"));
        assert_eq!(
            receive(&mut resources, 3, &held("none", "1")),
            ["resource rsc_hold=all rtype=full isstable=1"]
        );
        assert_eq!(resources.status(), "all");
    }

    #[test]
    fn the_taker_starts_when_the_giver_is_done_and_not_before() {
        let mut resources = resources(Failback::On);
        resources.communication_up(true, &mut Vec::new());
        receive(&mut resources, 1, &held("all", "1"));
        assert_eq!(resources.status(), "none");
        assert_eq!(
            receive(&mut resources, 2, &ask("foreign", "me")),
            ["ask_resources rsc_hold=foreign info=other"]
        );
        assert!(
            receive(
                &mut resources,
                3,
                &held("local", "0").with("info", "standby")
            )
            .is_empty()
        );
        assert_eq!(
            receive(&mut resources, 4, &ask("foreign", "done")),
            ["Start [0] StandbyAcquire"]
        );
        assert_eq!(
            finish(&mut resources, Reason::StandbyAcquire),
            [
                "resource rsc_hold=local rtype=full isstable=1",
                "ask_resources rsc_hold=foreign info=done"
            ]
        );
    }

    #[test]
    fn a_clean_leave_is_taken_over_at_once_and_a_second_notice_changes_nothing() {
        let mut resources = resources(Failback::On);
        resources.communication_up(true, &mut Vec::new());
        receive(&mut resources, 1, &held("local", "1"));
        assert!(
            receive(
                &mut resources,
                2,
                &held("none", "0").with("info", "shutdown")
            )
            .is_empty()
        );
        assert_eq!(
            receive(
                &mut resources,
                3,
                &Message::of_type("shutdone").with("st", "dead")
            ),
            [
                "Start [1] TakeForeign",
                "resource rsc_hold=all rtype=full isstable=1"
            ]
        );
        assert_eq!(
            receive(
                &mut resources,
                4,
                &Message::of_type("shutdone").with("st", "dead")
            ),
            ["resource rsc_hold=all rtype=full isstable=1"]
        );
    }

    #[test]
    fn an_old_report_that_comes_late_is_not_believed() {
        let mut resources = resources(Failback::Off);
        resources.communication_up(true, &mut Vec::new());
        receive(&mut resources, 9, &held("local", "1"));
        receive(&mut resources, 5, &held("all", "1"));
        assert_eq!(resources.others, Share::LOCAL);
    }

    #[test]
    fn a_wish_that_overtook_the_report_before_it_is_answered_when_that_comes() {
        let mut resources = resources(Failback::Off);
        resources.communication_up(true, &mut Vec::new());
        receive(&mut resources, 1, &held("all", "1"));
        receive(&mut resources, 2, &held("all", "0"));
        assert!(receive(&mut resources, 4, &ask("foreign", "me")).is_empty());
        assert!(
            receive(&mut resources, 3, &held("all", "1"))
                .contains(&"ask_resources rsc_hold=foreign info=other".into())
        );
    }

    /// A script's report says nothing about stability: the daemon's older one still counts.
    #[test]
    fn stability_is_believed_though_a_scripts_report_overtook_it() {
        let mut resources = resources(Failback::Off);
        resources.communication_up(true, &mut Vec::new());
        let taken = Message::of_type("resource")
            .with("rsc_hold", "foreign")
            .with("info", MACH_DOWN);
        receive(&mut resources, 9, &taken);
        receive(&mut resources, 8, &held("all", "1"));
        assert_eq!(resources.status(), "none");
    }

    #[test]
    fn a_wish_that_is_not_answered_is_cancelled() {
        let mut resources = alone(Failback::Off);
        resources.other_restarted();
        receive(&mut resources, 1, &Message::of_type("starting"));
        receive(&mut resources, 2, &held("none", "1"));
        resources
            .stand_by(Share::ALL, NOW, &mut Vec::new())
            .expect("both are stable");
        assert_eq!(
            resources.stand_by(Share::ALL, NOW, &mut Vec::new()),
            Err("a stand-by is in progress (10 s left)".into())
        );
        resources.timeout(NOW + STANDBY_ANSWER_WAIT, &mut Vec::new());
        assert_eq!(resources.status(), "all");
    }

    #[test]
    fn a_death_during_standby_ends_it_and_takes_everything() {
        let mut resources = alone(Failback::On);
        resources.other_restarted();
        receive(&mut resources, 1, &Message::of_type("starting"));
        receive(&mut resources, 2, &held("none", "1"));
        receive(&mut resources, 3, &ask("foreign", "other"));
        let mut out = Vec::new();
        resources.other_dead(&mut out);
        assert_eq!(shown(&out)[0], "Start [1] TakeForeign");
        assert!(finish(&mut resources, Reason::StandbyRelease).is_empty());
        assert_eq!(resources.status(), "all");
    }

    /// The node that is asked to take its groups back dies before it answers: nothing is taken from
    /// it, for it held nothing, and yet it has to be asked again.
    #[test]
    fn a_node_that_dies_while_its_groups_go_home_gets_them_at_its_next_return() {
        let mut resources = alone(Failback::On);
        let home = "ask_resources rsc_hold=foreign info=me".to_owned();
        for sequence in [1, 3] {
            resources.other_restarted();
            receive(&mut resources, sequence, &Message::of_type("starting"));
            let said = receive(&mut resources, sequence + 1, &held("none", "1"));
            assert!(said.contains(&home), "{said:?}");
            resources.other_dead(&mut Vec::new());
        }
    }

    #[test]
    fn what_nobody_holds_is_adopted_by_its_owner() {
        let mut resources = resources(Failback::On);
        resources.communication_up(true, &mut Vec::new());
        receive(&mut resources, 1, &held("all", "1"));
        receive(&mut resources, 2, &held("local", "1"));
        let mut out = Vec::new();
        resources.timeout(NOW + ADOPT_LOCAL_WAIT, &mut out);
        assert_eq!(shown(&out)[0], "Start [0] TakeLocal");
    }

    #[test]
    fn a_node_whose_groups_another_holds_is_usurped() {
        let mut resources = alone(Failback::Off);
        resources.other_restarted();
        assert!(receive(&mut resources, 1, &held("all", "1")).contains(&"usurped".into()));
    }

    /// heartbeat says `all` after the other's shutdown, also when no group prefers the other:
    /// taking that for a usurper made the other restart for ever.
    #[test]
    fn a_node_without_groups_of_its_own_cannot_be_usurped() {
        let mut resources = Resources::new("a", Vec::new(), vec![0], Failback::On);
        resources.communication_up(true, &mut Vec::new());
        receive(&mut resources, 1, &held("all", "1"));
        assert!(!receive(&mut resources, 2, &held("all", "1")).contains(&"usurped".into()));
    }

    /// heartbeat's script takes seconds; a node that is back before it ends said too early that it
    /// is stable, and never got its groups back.
    #[test]
    fn a_node_that_is_back_before_its_groups_were_taken_says_again_that_it_is_stable() {
        let taken = Message::of_type("resource")
            .with("rsc_hold", "foreign")
            .with("info", MACH_DOWN);
        let unstable_and_stable = [
            "resource rsc_hold=none rtype=full isstable=0",
            "resource rsc_hold=none rtype=full isstable=1",
        ];
        let fresh = resources;
        let returned = |failback| {
            let mut resources = fresh(failback);
            resources.communication_up(true, &mut Vec::new());
            receive(&mut resources, 1, &held("all", "1"));
            resources
        };
        let mut resources = returned(Failback::On);
        assert_eq!(receive(&mut resources, 2, &taken), unstable_and_stable);
        // The first of the two may be lost, and come last when it is sent again.
        let mut out = Vec::new();
        resources.timeout(NOW + REPORT_AGAIN_WAIT, &mut out);
        assert_eq!(shown(&out), unstable_and_stable[1..]);
        assert_eq!(resources.deadline(), None);
        assert!(receive(&mut returned(Failback::Off), 2, &taken).is_empty());

        // heartbeat takes a node that left for stable, once it has taken its groups.
        let mut resources = fresh(Failback::On);
        resources.communication_up(true, &mut Vec::new());
        assert!(receive(&mut resources, 2, &taken).is_empty());
        assert_eq!(
            receive(&mut resources, 3, &held("all", "1")),
            unstable_and_stable
        );
    }

    /// Its own group did not start, and the other node holds nothing.
    fn after_a_failed_start() -> Resources {
        let mut resources = resources(Failback::Off);
        resources.communication_up(true, &mut Vec::new());
        receive(&mut resources, 1, &held("none", "1"));
        let work = Finished {
            reason: Reason::TakeLocal,
            groups: vec![0],
            failed: vec![0],
        };
        resources.finished(&work, NOW, &mut Vec::new());
        resources
    }

    #[test]
    fn a_group_that_was_offered_to_a_node_which_then_died_is_tried_again_here() {
        let mut resources = after_a_failed_start();
        let later = NOW + FAILED_START_WAIT;
        let mut out = Vec::new();
        resources.timeout(later, &mut out);
        assert_eq!(shown(&out), ["ask_resources rsc_hold=local info=me"]);
        out.clear();
        resources.other_dead(&mut out);
        resources.timeout(later + FAILED_START_WAIT, &mut out);
        assert!(shown(&out).contains(&"Start [0] Retry".into()), "{out:?}");
    }

    #[test]
    fn a_group_that_does_not_start_is_offered_to_the_other_node_after_a_while() {
        let mut resources = after_a_failed_start();
        receive(&mut resources, 2, &held("local", "1"));
        let mut out = Vec::new();
        resources.timeout(NOW + FAILED_START_WAIT, &mut out);
        assert_eq!(shown(&out), ["ask_resources rsc_hold=local info=me"]);
    }
}
