//! `halab-agent serve`: frames in on stdin, answers out on stdout, one thread a task.
//!
//! ```text
//! stdin ──> loop ──> thread per task ──> module
//!            │              │
//!            │ deadline,    └──> answer ──> stdout (one whole frame at a time)
//!            └ cancel ─────────> answer
//! ```
//!
//! Whoever answers a task first has answered it; what a module says after its deadline
//! is dropped. When stdin ends, all tasks are ended with all their children: no orphan
//! stays. A frame that cannot be understood loses the stream: the agent ends with an error.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use serde_json::{Map, Value, json};

use super::error::ModuleError;
use super::lifeline::Lifeline;
use super::work::Work;
use super::{helper, modules};
use crate::base::frame::{self, Decoder, FrameError};
use crate::base::wire::{FromAgent, PROTOCOL_VERSION, TaskReply, TaskRequest, ToAgent};
use crate::task::coerce::coerce_owned;
use crate::task::kind::lookup;
use crate::task::outcome::failure;

/// How many tasks run at once. The orchestrator sends a host one task at a time, and a
/// few more for things watched meanwhile; a guest of 384 MiB holds this many threads.
const TASKS_MAX: usize = 32;

/// Modules recurse over directories and match expressions; neither is deep.
const STACK_BYTES: usize = 1024 * 1024;

/// Longest sleep without a look around; a deadline or a frame wakes the loop before.
const POLL_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("failed to set up the streams")]
    Streams(#[source] io::Error),
    #[error("failed to read from the orchestrator")]
    Read(#[source] io::Error),
    #[error("lost the orchestrator's stream")]
    Frame(#[from] FrameError),
    #[error("the orchestrator's stream ended within a frame")]
    CutOff,
}

/// Serves until stdin ends.
pub fn serve() -> Result<(), ServeError> {
    let desk = Arc::new(Desk::new(claim_stdout().map_err(ServeError::Streams)?));
    desk.say(&FromAgent::Hello {
        protocol: PROTOCOL_VERSION,
        hostname: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
    });
    let ended = read_requests(&desk);
    desk.end_all();
    ended
}

/// Takes stdout for frames alone: whatever else writes there lands on stderr.
fn claim_stdout() -> io::Result<File> {
    let claimed = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(io::stderr())?;
    Ok(File::from(claimed))
}

fn read_requests(desk: &Arc<Desk>) -> Result<(), ServeError> {
    let mut decoder = Decoder::default();
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        wait_for_input(desk.next_deadline())?;
        desk.end_overdue();
        if !is_readable(Duration::ZERO)? {
            continue;
        }
        let count = stdin.read(&mut buffer).map_err(ServeError::Read)?;
        if count == 0 {
            let is_cut = decoder.is_mid_frame();
            return if is_cut {
                Err(ServeError::CutOff)
            } else {
                Ok(())
            };
        }
        decoder.push(&buffer[..count]);
        while let Some((message, body)) = decoder.next_frame::<ToAgent>()? {
            desk.take(message, body);
        }
    }
}

fn wait_for_input(deadline: Option<Instant>) -> Result<(), ServeError> {
    let span = deadline.map_or(POLL_MAX, |at| at.saturating_duration_since(Instant::now()));
    // A poll that rounds down would spin until the deadline.
    let span = span.min(POLL_MAX) + Duration::from_millis(1);
    is_readable(span).map(|_| ())
}

fn is_readable(span: Duration) -> Result<bool, ServeError> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(count) => Ok(count > 0),
        Err(nix::Error::EINTR) => Ok(false),
        Err(error) => Err(ServeError::Read(error.into())),
    }
}

/// The tasks that run and the way back to the orchestrator.
#[derive(Debug)]
struct Desk {
    running: Mutex<HashMap<u64, Arc<Lifeline>>>,
    output: Mutex<File>,
}

impl Desk {
    fn new(output: File) -> Self {
        Self {
            running: Mutex::default(),
            output: Mutex::new(output),
        }
    }

    fn take(self: &Arc<Self>, message: ToAgent, body: Vec<u8>) {
        match message {
            ToAgent::Run(request) => self.start(request, body),
            ToAgent::Cancel { id } => self.end(id, ModuleError::Cancelled),
            ToAgent::SetClock { id, unix_ns } => self.reply(id, set_clock(unix_ns)),
        }
    }

    fn start(self: &Arc<Self>, request: TaskRequest, body: Vec<u8>) {
        let id = request.id;
        let limit = request.timeout_ms.map(Duration::from_millis);
        let lifeline = Arc::new(Lifeline::new(Instant::now(), limit));
        let mut running = self.running();
        if running.len() >= TASKS_MAX || running.contains_key(&id) {
            drop(running);
            let why = format!(
                "task {id} is refused: at most {TASKS_MAX} run at once, each with its own id"
            );
            return self.reply(id, failure(&why, Map::new()));
        }
        running.insert(id, Arc::clone(&lifeline));
        drop(running);
        let desk = Arc::clone(self);
        let spawned = thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let mut left = None;
                let result = perform(request, body, &lifeline, &mut left);
                desk.answer(id, result);
                // Nobody waits until a large task is taken apart.
                drop(left);
            });
        if let Err(error) = spawned {
            let why = format!("failed to start a thread: {error}");
            self.answer(id, failure(&why, Map::new()));
        }
    }

    /// Answers a task, unless somebody did before.
    fn answer(&self, id: u64, result: Map<String, Value>) {
        if self.running().remove(&id).is_some() {
            self.reply(id, result);
        }
    }

    /// Ends a task that runs; one that does not is over already.
    fn end(&self, id: u64, why: ModuleError) {
        let lifeline = self.running().get(&id).cloned();
        if let Some(lifeline) = lifeline {
            lifeline.cut();
            self.answer(id, why.into_result());
        }
    }

    fn end_overdue(&self) {
        let overdue: Vec<(u64, ModuleError)> = self
            .running()
            .iter()
            .filter_map(|(id, lifeline)| match lifeline.check() {
                Err(error @ ModuleError::TimedOut { .. }) => Some((*id, error)),
                _ => None,
            })
            .collect();
        for (id, error) in overdue {
            self.end(id, error);
        }
    }

    fn end_all(&self) {
        for (_, lifeline) in self.running().drain() {
            lifeline.cut();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let running = self.running();
        running
            .values()
            .filter_map(|lifeline| lifeline.deadline())
            .min()
    }

    fn reply(&self, id: u64, result: Map<String, Value>) {
        self.say(&FromAgent::Done(TaskReply { id, result }));
    }

    fn say(&self, message: &FromAgent) {
        let frame = match frame::encode(message, &[]) {
            Ok(frame) => frame,
            Err(error) => match message {
                FromAgent::Done(reply) => {
                    let why = format!("the task's result does not fit into an answer: {error}");
                    let reply = TaskReply {
                        id: reply.id,
                        result: failure(&why, Map::new()),
                    };
                    frame::encode(&FromAgent::Done(reply), &[]).expect("a short answer fits")
                }
                FromAgent::Hello { .. } => return,
            },
        };
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody listens any more: stdin ends too, and with it the agent.
        let _ = output.write_all(&frame).and_then(|()| output.flush());
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Arc<Lifeline>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_clock(unix_ns: u64) -> Map<String, Value> {
    let wanted = TimeSpec::from_duration(Duration::from_nanos(unix_ns));
    let set = clock_settime(ClockId::CLOCK_REALTIME, wanted);
    match set.map_err(ModuleError::errno("set the clock")) {
        Ok(()) => json!({"changed": true})
            .as_object()
            .cloned()
            .unwrap_or_default(),
        Err(error) => error.into_result(),
    }
}

/// Runs one module and returns its result, whatever happens in it; what the module was given
/// stays in `left`.
pub(super) fn perform(
    request: TaskRequest,
    body: Vec<u8>,
    lifeline: &Arc<Lifeline>,
    left: &mut Option<Work>,
) -> Map<String, Value> {
    let name = request.module.clone();
    let attempt = AssertUnwindSafe(|| match &request.become_user {
        Some(user) => helper::run_as(user, &request, &body, lifeline),
        None => run_module(request, body, lifeline, left),
    });
    match catch_unwind(attempt) {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => error.into_result(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let why = format!("bug in module {name}: {}", text.unwrap_or("panic"));
            failure(&why, Map::new())
        }
    }
}

fn run_module(
    mut request: TaskRequest,
    body: Vec<u8>,
    lifeline: &Arc<Lifeline>,
    left: &mut Option<Work>,
) -> Result<Map<String, Value>, ModuleError> {
    let refuse = |why: String| ModuleError::Refused(crate::task::outcome::Refusal::new(why));
    let name = &request.module;
    let spec = lookup(name).ok_or_else(|| refuse(format!("unknown module `{name}`")))?;
    let module = modules::find(spec.name)
        .ok_or_else(|| refuse(format!("the agent does not run module `{name}`")))?;
    let args = coerce_owned(spec, mem::take(&mut request.args)).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        refuse(problems.join("; "))
    })?;
    let work = left.insert(Work::new(&request, args, body, Arc::clone(lifeline)));
    Ok(module(work)?.into_result(request.diff))
}
