//! Plays a campaign: breaks, mends, waits until the cluster is whole again, and has the records compared.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::client::unix_ms;
use super::daemons::{self, Census};
use super::judge::{Health, NodeView, health, is_two_owners, question};
use super::plan::{Fault, Kind};
use super::report::{Ending, Outcome, Problem, Trial};
use super::sights::{Line, Sights};
use crate::vm::lab::{Lab, unix_now};
use crate::vm::progress::{Progress, Quiet};
use crate::vm::state::LabLock;

/// The text's own: the address of the service, where its data is, the resource.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const MOUNT_POINT: &str = "/var/www";
const RESOURCE: &str = "r0";
/// The state to which the lab goes back when a fault ended badly.
const BEGINNING: &str = "faults";
/// The state that is saved and loaded at the end, under what runs there.
const END: &str = "faults-end";
/// For one answer of a node that lives, however busy.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// From one look at both nodes to the next: each costs an emulated machine a tenth of a second.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// Until the cluster is whole again by itself: reconnecting takes DRBD up to ten seconds, a resync less.
const WHOLE_LIMIT: Duration = Duration::from_secs(120);
/// Until the replication has met again over its own cable.
const MEET_LIMIT: Duration = Duration::from_secs(45);
/// For the service to take a record, and to be read.
const SERVICE_LIMIT: Duration = Duration::from_secs(60);
/// Of a journal that is kept.
const JOURNAL_BYTES_MAX: usize = 200_000;

/// At least and at most.
const NO_TIME: [Duration; 2] = [Duration::ZERO; 2];

/// What a campaign works on.
pub(crate) struct Campaign<'a> {
    pub lab: &'a Lab,
    pub lock: &'a LabLock,
    /// Runs this program again for the lab.
    pub halab: Vec<String>,
    /// The two nodes.
    pub nodes: [String; 2],
    /// The network on which the service's address is.
    pub interface: String,
    /// Where the journals of faults that ended badly are kept.
    pub logs: Option<PathBuf>,
    /// From one fault to the next, at least.
    pub every: Option<Duration>,
    pub progress: &'a dyn Progress,
    /// Somebody wants no more of it.
    pub is_to_end: &'a (dyn Fn() -> bool + Sync),
}

/// What came of a fault once it was mended.
#[derive(Debug, Default)]
struct After {
    split: bool,
    /// From the mending on.
    whole: Option<Duration>,
    problems: Vec<Problem>,
}

/// What is known while it goes on.
struct Course<'c> {
    campaign: &'c Campaign<'c>,
    client: Client,
    owner: usize,
    /// Lost already, and told.
    lost: BTreeSet<u64>,
    /// How often each node had told of a split brain since it booted.
    told: [u32; 2],
    /// For how long, at least and at most, each node has stood still since it booted: its clock is behind by that.
    stood_still: [[Duration; 2]; 2],
}

impl Campaign<'_> {
    /// Plays the faults one after the other; `tell` hears of each as it ends.
    pub(crate) fn run(
        &self,
        faults: &[Fault],
        outcome: &mut Outcome,
        tell: &mut dyn FnMut(&Trial),
    ) -> anyhow::Result<()> {
        self.await_whole(SERVICE_LIMIT)?.map_err(|why| {
            anyhow::anyhow!("the cluster is not whole before the first fault: {why}")
        })?;
        self.lab.save(self.lock, BEGINNING, &Quiet)?;
        let begun = Instant::now();
        let mut course = Course::begin(self)?;
        let mut turn = Instant::now();
        for (index, fault) in faults.iter().enumerate() {
            let number = index + 1;
            self.progress.step(&format!(
                "fault {number} of {}: {} of {}",
                faults.len(),
                fault.kind,
                self.nodes[fault.node]
            ));
            while Instant::now() < turn && !(self.is_to_end)() {
                thread::sleep(LOOK_PAUSE.min(turn.saturating_duration_since(Instant::now())));
            }
            turn = Instant::now() + self.every.unwrap_or_default();
            let trial = course.play(number, *fault, outcome)?;
            if (self.is_to_end)() {
                bail!("interrupted");
            }
            let is_over = trial
                .problems
                .iter()
                .any(|problem| matches!(problem, Problem::NotWhole(_) | Problem::Unread(_)));
            tell(&trial);
            outcome.trials.push(trial);
            if is_over {
                drop(course);
                self.lab.load(self.lock, BEGINNING, &Quiet)?;
                for node in &self.nodes {
                    outcome.daemons.boots(node);
                }
                course = Course::begin(self)?;
            }
            if course.count_daemons(begun.elapsed(), outcome).is_err() {
                outcome.uncounted += 1;
            }
        }
        self.progress.step("saving and loading what runs");
        outcome.ending = Some(self.end(&course)?);
        Ok(())
    }

    /// Saves the lab while the client writes, loads it, and waits until all is as it was.
    fn end(&self, course: &Course<'_>) -> anyhow::Result<Ending> {
        let begun = Instant::now();
        self.lab.save(self.lock, END, &Quiet)?;
        let saved = begun.elapsed();
        course
            .client
            .await_ack(unix_ms(), SERVICE_LIMIT)
            .context("the service is gone after a save")?;
        let begun = Instant::now();
        self.lab.load(self.lock, END, &Quiet)?;
        let loaded = begun.elapsed();
        let whole = self.await_whole(WHOLE_LIMIT)?;
        if !matches!(whole, Ok(Some(_))) {
            bail!("the cluster is not whole after a load: {whole:?}");
        }
        let whole = begun.elapsed();
        course
            .client
            .await_ack(unix_ms(), SERVICE_LIMIT)
            .context("the service is gone after a load")?;
        let mut clocks = Duration::ZERO;
        for node in [0, 1] {
            clocks = clocks.max(self.census(node, NO_TIME)?.1);
        }
        Ok(Ending {
            saved,
            loaded,
            whole,
            clocks,
        })
    }

    /// Asks a node for its daemons, and how far its clock is off beyond the time for which it stood still.
    fn census(
        &self,
        node: usize,
        stood_still: [Duration; 2],
    ) -> anyhow::Result<(Census, Duration)> {
        let asked = unix_now();
        let answer = self.ask(node, daemons::QUESTION)?;
        let census = Census::parse(&answer);
        let off = census.clock_off(stood_still, asked, unix_now());
        let off = off.with_context(|| format!("{} does not tell the time", self.nodes[node]))?;
        Ok((census, off))
    }

    fn ask(&self, node: usize, script: &str) -> anyhow::Result<String> {
        let answer = self.lab.ask(&self.nodes[node], script, ASK_LIMIT);
        answer.with_context(|| format!("failed to ask {}", self.nodes[node]))
    }

    /// Looks at both nodes at once. One that does not answer says nothing of itself.
    fn look(&self) -> [NodeView; 2] {
        let view = |node: usize| {
            let script = question(&ADDRESS.to_string(), MOUNT_POINT, &self.nodes[1 - node]);
            let answer = self.ask(node, &script);
            answer
                .map(|text| NodeView::parse(&text))
                .unwrap_or_default()
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| view(0));
            let second = view(1);
            [first.join().expect("looking does not panic"), second]
        })
    }

    /// Waits until the cluster is whole (its owner), has parted (none), or the time is over (why).
    fn await_whole(&self, limit: Duration) -> anyhow::Result<Result<Option<usize>, String>> {
        let end = Instant::now() + limit;
        loop {
            if (self.is_to_end)() {
                bail!("interrupted");
            }
            match health(&self.look()) {
                Health::Whole { owner } => return Ok(Ok(Some(owner))),
                Health::Parted => return Ok(Ok(None)),
                Health::NotYet(why) if Instant::now() > end => return Ok(Err(why)),
                Health::NotYet(_) => thread::sleep(LOOK_PAUSE),
            }
        }
    }

    /// Waits until the replication has met again; returns whether it has parted for good.
    fn await_meeting(&self) -> bool {
        let end = Instant::now() + MEET_LIMIT;
        loop {
            let views = self.look();
            if health(&views) == Health::Parted {
                return true;
            }
            if views.iter().all(NodeView::is_in_sync) || Instant::now() > end {
                return false;
            }
            thread::sleep(LOOK_PAUSE);
        }
    }

    /// Does the damage; `problems` hears of what the node had to do for it and did not.
    fn strike(&self, fault: Fault, problems: &mut Vec<Problem>) -> anyhow::Result<()> {
        let node = &self.nodes[fault.node];
        match fault.kind {
            Kind::Kill => drop(self.lab.kill(self.lock, node)?),
            Kind::Restart => {
                if let Err(error) = self.lab.shut_down(self.lock, node) {
                    // As whoever stands before it would do in the end.
                    self.lab.kill(self.lock, node)?;
                    problems.push(Problem::NotDown(error.to_string()));
                }
            }
            Kind::Pause => drop(self.lab.set_paused(self.lock, node, true)?),
            Kind::CutEth0 | Kind::CutEth1 | Kind::CutBoth => {
                for nic in fault.kind.cables() {
                    self.lab.set_link(self.lock, node, nic, false)?;
                }
            }
        }
        Ok(())
    }

    fn keep_journals(&self, number: usize, sights: &Sights) -> anyhow::Result<()> {
        let Some(folder) = &self.logs else {
            return Ok(());
        };
        fs::create_dir_all(folder)?;
        for (node, name) in self.nodes.iter().enumerate() {
            let script = format!(
                "journalctl -b -q --no-pager -o short-unix | tail -c {JOURNAL_BYTES_MAX}; cat /proc/drbd"
            );
            let text = self
                .ask(node, &script)
                .unwrap_or_else(|error| format!("{error:#}\n"));
            fs::write(folder.join(format!("{number:03}-{name}.log")), text)?;
        }
        let mut seen: Vec<(u64, Line)> = sights
            .acks
            .iter()
            .map(|ack| (ack.done, Line::Ack(ack.clone())))
            .collect();
        seen.extend(sights.owners.iter().map(|(at, macs)| {
            let macs = macs.clone();
            (*at, Line::Owners { at: *at, macs })
        }));
        seen.sort_by_key(|(at, _)| *at);
        let lines: Vec<String> = seen.iter().map(|(_, line)| line.text()).collect();
        let path = folder.join(format!("{number:03}-client.log"));
        Ok(fs::write(path, lines.join("\n"))?)
    }
}

impl<'c> Course<'c> {
    fn begin(campaign: &'c Campaign<'c>) -> anyhow::Result<Self> {
        let client = Client::start(&campaign.halab, &campaign.interface)?;
        client.await_ack(unix_ms(), SERVICE_LIMIT)?;
        let whole = campaign.await_whole(SERVICE_LIMIT)?;
        let Ok(Some(owner)) = whole else {
            bail!("the cluster is not whole at the beginning: {whole:?}");
        };
        let mut course = Self {
            campaign,
            client,
            owner,
            lost: BTreeSet::new(),
            told: [0, 0],
            stood_still: [NO_TIME; 2],
        };
        course.told_of_split()?;
        Ok(course)
    }

    fn play(
        &mut self,
        number: usize,
        fault: Fault,
        outcome: &mut Outcome,
    ) -> anyhow::Result<Trial> {
        let campaign = self.campaign;
        thread::sleep(fault.rest);
        let had_service = self.owner == fault.node;
        let struck = unix_ms();
        let mut after = After::default();
        campaign.strike(fault, &mut after.problems)?;
        let broken = unix_ms();
        thread::sleep(fault.lasts);
        let mended = unix_ms();
        // A node that does not answer is the fault's doing too: the campaign goes on from its beginning.
        if let Err(error) = self.recover(fault, [struck, broken, mended], outcome, &mut after) {
            let why = error.root_cause().to_string();
            after.problems.push(Problem::NotWhole(why));
        }
        let After {
            split,
            whole,
            mut problems,
        } = after;
        let now = unix_ms();
        let sights = self.client.sights();
        let shared = sights.two_owners(struck, now);
        if is_two_owners(fault, shared) {
            problems.push(Problem::TwoOwners(shared));
        }
        let trial = Trial {
            number,
            fault,
            node: campaign.nodes[fault.node].clone(),
            had_service,
            away: sights.away(struck, mended, 0),
            again: sights.away(mended, now, mended),
            whole,
            acknowledged: sights.kept_by(struck).values().sum(),
            split,
            shared,
            problems,
        };
        if !trial.problems.is_empty() {
            campaign.keep_journals(number, &sights)?;
        }
        Ok(trial)
    }

    /// Mends what was broken, and sees whether all is well again.
    fn recover(
        &mut self,
        fault: Fault,
        [struck, broken, mended]: [u64; 3],
        outcome: &mut Outcome,
        after: &mut After,
    ) -> anyhow::Result<()> {
        let campaign = self.campaign;
        let begun = Instant::now();
        after.split = self.mend(fault, &mut after.problems)?;
        match fault.kind {
            Kind::Kill | Kind::Restart => {
                outcome.daemons.boots(&campaign.nodes[fault.node]);
                self.stood_still[fault.node] = NO_TIME;
            }
            Kind::Pause => {
                let [least, most] = &mut self.stood_still[fault.node];
                *least += Duration::from_millis(mended.saturating_sub(broken));
                *most += Duration::from_millis(unix_ms().saturating_sub(struck));
            }
            Kind::CutEth0 | Kind::CutEth1 | Kind::CutBoth => {}
        }
        let mut whole = campaign.await_whole(WHOLE_LIMIT)?;
        if whole == Ok(None) {
            after.split = true;
            if !fault.may_split() {
                after.problems.push(Problem::AvoidableSplit);
            }
            let victim = self.victim(fault, struck);
            self.reunite(victim, &mut after.problems)?;
            whole = campaign.await_whole(WHOLE_LIMIT)?;
        }
        match whole {
            Ok(Some(owner)) => {
                self.owner = owner;
                after.whole = Some(begun.elapsed());
                self.compare(&mut after.problems)
            }
            Ok(None) => bail!("it has parted again"),
            Err(why) => bail!(why),
        }
    }

    fn count_daemons(&self, at: Duration, outcome: &mut Outcome) -> anyhow::Result<()> {
        for (node, name) in self.campaign.nodes.iter().enumerate() {
            let (census, off) = self.campaign.census(node, self.stood_still[node])?;
            outcome.daemons.take(name, at, &census);
            outcome.clock_off = outcome.clock_off.max(off);
        }
        Ok(())
    }

    /// Mends what was broken; returns whether the nodes had to be brought together by hand.
    fn mend(&mut self, fault: Fault, problems: &mut Vec<Problem>) -> anyhow::Result<bool> {
        let campaign = self.campaign;
        let node = &campaign.nodes[fault.node];
        let (lab, lock) = (campaign.lab, campaign.lock);
        match fault.kind {
            Kind::Kill | Kind::Restart => {
                self.told[fault.node] = 0;
                lab.power_on(lock, node, &Quiet)?;
            }
            Kind::Pause => drop(lab.set_paused(lock, node, false)?),
            Kind::CutEth0 | Kind::CutEth1 => {
                for nic in fault.kind.cables() {
                    lab.set_link(lock, node, nic, true)?;
                }
            }
            // The cable of the data first: who comes back with old data must be told so before the cluster, and
            // with it the client, sees it again.
            Kind::CutBoth => {
                lab.set_link(lock, node, "eth1", true)?;
                let parted = campaign.await_meeting();
                if parted {
                    self.reunite_cut_off(fault.node, problems)?;
                }
                lab.set_link(lock, node, "eth0", true)?;
                if parted {
                    campaign.ask(fault.node, "systemctl start heartbeat")?;
                }
                return Ok(parted);
            }
        }
        Ok(false)
    }

    /// Who gives up what it wrote: the one that acknowledged less, the node of the fault in doubt.
    fn victim(&self, fault: Fault, since: u64) -> usize {
        let sights = self.client.sights();
        let kept = sights.kept_by(since);
        let count = |node: usize| kept.get(self.campaign.nodes[node].as_str()).copied();
        let other = 1 - fault.node;
        if count(fault.node).unwrap_or(0) > count(other).unwrap_or(0) {
            other
        } else {
            fault.node
        }
    }

    fn reunite(&mut self, victim: usize, problems: &mut Vec<Problem>) -> anyhow::Result<()> {
        self.reunite_cut_off(victim, problems)?;
        self.campaign
            .ask(victim, "systemctl start heartbeat")
            .map(drop)
    }

    /// As the text has it: the victim gives up the service and what it wrote, the survivor connects again.
    /// Leaves the victim's heartbeat stopped.
    fn reunite_cut_off(
        &mut self,
        victim: usize,
        problems: &mut Vec<Problem>,
    ) -> anyhow::Result<()> {
        if !self.told_of_split()? {
            problems.push(Problem::SplitNotTold);
        }
        let campaign = self.campaign;
        campaign.ask(
            victim,
            &format!(
                "systemctl stop heartbeat; drbdadm disconnect {RESOURCE}; drbdadm secondary {RESOURCE}; \
                 drbdadm -- --discard-my-data connect {RESOURCE}"
            ),
        )?;
        campaign.ask(
            1 - victim,
            &format!(
                "[ $(drbdadm cstate {RESOURCE}) != StandAlone ] || drbdadm connect {RESOURCE}"
            ),
        )?;
        if campaign.await_meeting() {
            problems.push(Problem::NotWhole(
                "it parts again after the victim gave up what it wrote".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether a node has told of a split brain since this was asked last.
    fn told_of_split(&mut self) -> anyhow::Result<bool> {
        let mut is_new = false;
        for node in [0, 1] {
            let script = "journalctl -b -q --no-pager -o cat | grep -ic 'split.brain detected'";
            let answer = self.campaign.ask(node, script)?;
            let count = answer.trim().parse().unwrap_or(0);
            is_new |= count > self.told[node];
            self.told[node] = count;
        }
        Ok(is_new)
    }

    /// Reads the records through the service, and finds those that were acknowledged and are not there.
    fn compare(&mut self, problems: &mut Vec<Problem>) -> anyhow::Result<()> {
        let end = Instant::now() + SERVICE_LIMIT;
        let (asked, kept) = loop {
            let asked = unix_ms();
            match self.client.read()? {
                Ok(kept) => break (asked, kept),
                Err(why) if Instant::now() > end => {
                    problems.push(Problem::Unread(why));
                    return Ok(());
                }
                Err(_) => thread::sleep(LOOK_PAUSE),
            }
        };
        if let Err(error) = self.client.await_ack(asked, SERVICE_LIMIT) {
            problems.push(Problem::NotWhole(format!("{error:#}")));
        }
        let mut lost = self.client.sights().lost(&kept, asked);
        lost.retain(|number| self.lost.insert(*number));
        if !lost.is_empty() {
            problems.push(Problem::Lost(lost.into_iter().collect()));
        }
        Ok(())
    }
}

/// The process in the lab's network, and what it said.
#[derive(Debug)]
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    state: Mutex<HeardState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct HeardState {
    sights: Sights,
    answer: Option<Result<BTreeSet<u64>, String>>,
    is_over: bool,
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, HeardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is found in what was heard.
    fn wait<T>(
        &self,
        limit: Duration,
        mut find: impl FnMut(&mut HeardState) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if let Some(found) = find(&mut state) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.is_over {
                return None;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Client {
    fn start(halab: &[String], interface: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(&halab[0])
            .args(&halab[1..])
            .args(["internal-hold", "records", &ADDRESS.to_string(), interface])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the client of the campaign")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("asked for above");
        let heard = Arc::new(Heard::default());
        let ears = Arc::clone(&heard);
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for line in lines.filter_map(|line| Line::parse(&line)) {
                let mut state = ears.state();
                if let Some(answer) = state.sights.take(line) {
                    state.answer = Some(answer);
                }
                drop(state);
                ears.changed.notify_all();
            }
            ears.state().is_over = true;
            ears.changed.notify_all();
        });
        Ok(Self {
            child,
            stdin,
            heard,
        })
    }

    fn sights(&self) -> Sights {
        self.heard.state().sights.clone()
    }

    /// Waits for a record that was sent and acknowledged after a moment.
    fn await_ack(&self, since: u64, limit: Duration) -> anyhow::Result<()> {
        let found = self.heard.wait(limit, |state| {
            let acks = state.sights.acks.iter().rev();
            acks.take(100).any(|ack| ack.sent >= since).then_some(())
        });
        found.with_context(|| format!("no record was acknowledged for {} s", limit.as_secs()))
    }

    fn read(&mut self) -> anyhow::Result<Result<BTreeSet<u64>, String>> {
        self.heard.state().answer = None;
        let stdin = self.stdin.as_mut().expect("open while it lives");
        stdin
            .write_all(b"read\n")
            .context("the client of the campaign has ended")?;
        let answer = self.heard.wait(SERVICE_LIMIT, |state| state.answer.take());
        answer.context("the client of the campaign does not answer")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends with its input.
        self.stdin = None;
        let _ = self.child.wait();
    }
}
