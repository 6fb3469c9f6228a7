//! `failover_watch`: threads of this agent that look at packets and ask for the page, between one
//! task that starts them and one that asks what they saw.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::super::error::ModuleError;
use super::super::net::{fetch, resolve};
use super::super::packet::{ClockProbe, PacketSocket};
use super::super::process::unix_now;
use super::super::work::Work;
use crate::task::arp::Station;
use crate::task::failover::{
    Question, SIGHTS_MAX, Seen, Sight, Subject, frame, journal, outcome, timeline,
};
use crate::task::http::{Request, Url};
use crate::task::http_check::identity;
use crate::task::outcome::{Outcome, Refusal};
use crate::task::pattern::Pattern;

/// Between two requests for the page.
const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// A page that takes longer is not there: the kernel would repeat its SYN after a second, and the
/// answer would be seen as late as that.
const ASK_LIMIT: Duration = Duration::from_millis(250);

/// How long the packets' thread may not notice that it is over.
const LOOK_LIMIT: Duration = Duration::from_millis(100);

/// Where a longer frame is cut; heartbeat's have some 300 bytes.
const FRAME_BYTES_MAX: usize = 4096;

/// Attempts to compare the clocks; the one with the shortest way counts.
const CLOCK_PROBES: u32 = 5;

/// The one watch of this agent, which lives as long as a run's connection.
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);

/// A watch that goes on.
#[derive(Debug)]
struct Watch {
    subject: Subject,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    began_unix: Duration,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    is_over: AtomicBool,
    seen: Mutex<Sights>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Sights {
    seen: Vec<Seen>,
    stations: BTreeMap<String, Station>,
    answered_by: Option<String>,
}

impl Shared {
    fn note(&self, sight: Sight) {
        let at = self.began.elapsed();
        let mut sights = self.sights();
        match &sight {
            Sight::AnsweredBy(who) => sights.answered_by = Some(who.clone()),
            Sight::NoAnswer => sights.answered_by = None,
            _ => {}
        }
        if sights.seen.len() < SIGHTS_MAX {
            sights.seen.push(Seen { at, sight });
        }
        drop(sights);
        self.changed.notify_all();
    }

    fn sights(&self) -> MutexGuard<'_, Sights> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

pub(super) fn failover_watch(work: &Work) -> Result<Outcome, ModuleError> {
    let mut watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    match work.args().word("state") {
        "started" => {
            // The old one ends first: two would ask for the page twice as often.
            *watch = None;
            *watch = Some(begin(work)?);
            Ok(Outcome::changed(false))
        }
        "awaited" => await_answer(work, watch.as_ref().ok_or_else(no_watch)?),
        _ => {
            let watch = watch.take().ok_or_else(no_watch)?;
            report(work, &watch)
        }
    }
}

fn no_watch() -> Refusal {
    Refusal::new("no watch was started on this host in this run: `state: started` comes first")
}

fn begin(work: &Work) -> Result<Watch, ModuleError> {
    let args = work.args();
    let subject = subject(work)?;
    let interface = args.word("interface");
    let socket = PacketSocket::open_all(interface).map_err(ModuleError::system(format!(
        "look at the packets of {interface}"
    )))?;
    let url = Url::parse(args.word("url"))?;
    let identify = args.text("identify").map(Pattern::new).transpose()?;
    let request = Request {
        method: "GET",
        url: &url,
        headers: Vec::new(),
        body: &[],
        keep_open: false,
    }
    .encode()?;
    let address = SocketAddr::new(resolve(&url.host)?, url.port);
    let began_unix = unix_now();
    let shared = Arc::new(Shared {
        began: Instant::now(),
        is_over: AtomicBool::new(false),
        seen: Mutex::default(),
        changed: Condvar::new(),
    });
    let started = ModuleError::system("start a thread");
    let packets = {
        let (shared, subject) = (Arc::clone(&shared), subject.clone());
        move || watch_packets(&shared, &subject, &socket)
    };
    let pages = {
        let shared = Arc::clone(&shared);
        move || watch_page(&shared, address, &request, identify.as_ref())
    };
    let threads = spawn("packets", packets)
        .and_then(|first| Ok(vec![first, spawn("page", pages)?]))
        .map_err(started)?;
    Ok(Watch {
        subject,
        shared,
        threads,
        began_unix,
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn subject(work: &Work) -> Result<Subject, ModuleError> {
    let args = work.args();
    let parse = |text: &str| {
        text.parse::<Ipv4Addr>()
            .map_err(|_| Refusal::new(format!("`{text}` is no IPv4 address")))
    };
    let mut nodes = BTreeMap::new();
    for (name, address) in args.dict("nodes").into_iter().flatten() {
        nodes.insert(name.clone(), parse(address.as_str().unwrap_or_default())?);
    }
    let port = args
        .number("port")
        .and_then(|port| u16::try_from(port).ok());
    Ok(Subject {
        address: parse(args.word("address"))?,
        nodes,
        port: port.ok_or_else(|| Refusal::new("`port` is a number from 1 to 65535"))?,
    })
}

fn watch_packets(shared: &Shared, subject: &Subject, socket: &PacketSocket) {
    let mut buffer = [0; FRAME_BYTES_MAX];
    while !shared.is_over.load(Ordering::Relaxed) {
        let Ok(Some(bytes)) = socket.receive(&mut buffer, LOOK_LIMIT) else {
            continue;
        };
        let Some((sight, station)) = frame(bytes, subject) else {
            continue;
        };
        if let Sight::Message { from, kind, .. } = &sight
            && kind == "status"
        {
            shared.sights().stations.insert(from.clone(), station);
        }
        shared.note(sight);
    }
}

/// Asks for the page again and again; only changes are noted.
fn watch_page(shared: &Shared, address: SocketAddr, request: &[u8], identify: Option<&Pattern>) {
    let mut before: Option<Option<String>> = None;
    while !shared.is_over.load(Ordering::Relaxed) {
        let answered = fetch(address, request, "GET", ASK_LIMIT).ok();
        let answered = answered
            .filter(|fetched| fetched.response.status == 200)
            .map(|fetched| identity(&fetched.response.text(), identify));
        if before.as_ref() != Some(&answered) {
            shared.note(match &answered {
                Some(who) => Sight::AnsweredBy(who.clone()),
                None => Sight::NoAnswer,
            });
            before = Some(answered);
        }
        thread::sleep(ASK_INTERVAL);
    }
}

fn await_answer(work: &Work, watch: &Watch) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let wanted = args.word("answered_by");
    let limit = Duration::from_secs_f64(args.seconds("timeout").unwrap_or(120.0));
    let end = Instant::now() + limit;
    let mut sights = watch.shared.sights();
    // Whose heartbeats are watched must have been heard once: what comes next is told from there.
    let is_watched = watch.subject.nodes.contains_key(wanted);
    while sights.answered_by.as_deref() != Some(wanted)
        || is_watched && !sights.stations.contains_key(wanted)
    {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let found = sights.answered_by.as_deref().unwrap_or("nobody");
            let text = format!(
                "waited {} s for {wanted} to answer and to be heard; the page is answered by {found}, heard were {}",
                limit.as_secs_f64(),
                sights
                    .stations
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(" and ")
            );
            return Err(Refusal::new(text).into());
        }
        let waited = watch
            .shared
            .changed
            .wait_timeout(sights, left.min(LOOK_LIMIT));
        sights = waited.unwrap_or_else(PoisonError::into_inner).0;
        work.lifeline.check()?;
    }
    Ok(Outcome::changed(false).with("answered_by", wanted))
}

fn report(work: &Work, watch: &Watch) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let question = Question {
        lost: args.word("lost").to_owned(),
        survivor: args.word("survivor").to_owned(),
        floor: args.seconds("floor").map(|floor| {
            (
                floor,
                args.text("floor_of").unwrap_or("the timers").to_owned(),
            )
        }),
    };
    let ahead = match watch.subject.nodes.get(&question.survivor) {
        Some(address) => clock_ahead(*address),
        None => None,
    };
    let began = watch.began_unix.as_secs_f64();
    let lines = journal(args.word("journal"), began, ahead.unwrap_or(0.0));
    let sights = watch.shared.sights();
    let timeline = timeline(&sights.seen, &sights.stations, &lines, &question)?;
    let unsure = ahead.is_none().then(|| {
        format!(
            "{} does not tell its time: its own lines are at its own clock",
            question.survivor
        )
    });
    Ok(outcome(&timeline, &question, unsure.as_deref()))
}

/// By how many seconds a machine's clock is before this one's; `None` when it does not answer.
fn clock_ahead(address: Ipv4Addr) -> Option<f64> {
    let probe = ClockProbe::open(address).ok()?;
    let answers = (0..CLOCK_PROBES).filter_map(|number| probe.ask(number).ok()?);
    answers
        .min_by(|left, right| left.way.cmp(&right.way))
        .map(|best| best.ahead_seconds)
}
