//! One conversation with an agent: many tasks at once over one pair of byte streams.
//!
//! Two tasks own the streams. The writer sends whole frames only, so a caller that gives
//! up in the middle cuts none; the reader hands each answer to whoever waits for its id.
//! When the reader meets the end, everybody who waits learns the reason at once, and so
//! does everybody who asks later. What carries the streams (an SSH session, a child) is
//! kept here and goes when the last caller lets go of the link.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::transport::RemoteError;
use crate::base::frame::{self, Decoder};
use crate::base::wire::{FromAgent, PROTOCOL_VERSION, TaskReply, TaskRequest, ToAgent};

/// Frames that may wait for the pipe: one a running task on this host, and their
/// cancellations; a task beyond waits in `run`.
const WRITE_QUEUE_FRAMES: usize = 16;

/// One read's buffer: answers are small, and a slurped file comes in pieces anyhow.
const READ_BYTES: usize = 64 * 1024;

/// Reads what an agent printed on stderr, for the message when it died.
pub type LastWords = Arc<dyn Fn() -> String + Send + Sync>;

/// What carries an agent's streams.
pub struct Carrier {
    /// Dropped with the link: an SSH session, a child killed on drop.
    pub keep: Box<dyn Send + Sync>,
    pub last_words: LastWords,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Carrier")
    }
}

impl Carrier {
    /// A carrier that holds nothing.
    pub fn none() -> Self {
        Self {
            keep: Box::new(()),
            last_words: Arc::new(String::new),
        }
    }
}

/// A greeted agent.
#[derive(Debug)]
pub struct AgentLink {
    host: String,
    /// The guest's own name, as its agent said it.
    hostname: String,
    next_id: AtomicU64,
    frames: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    tasks: [AbortHandle; 2],
    _carrier: Carrier,
}

#[derive(Debug)]
struct Waiting {
    replies: HashMap<u64, oneshot::Sender<TaskReply>>,
    /// Why the link ended, once it has.
    ended: Option<String>,
    /// When a frame came last.
    heard: Instant,
}

impl AgentLink {
    /// Waits for the agent's greeting and checks that both speak the same protocol.
    pub async fn open(
        host: &str,
        mut reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
        greeting_within: Duration,
        carrier: Carrier,
    ) -> Result<Self, RemoteError> {
        let mut decoder = Decoder::default();
        let greeting = timeout(greeting_within, next_message(&mut reader, &mut decoder)).await;
        let refuse = |reason: String| RemoteError::Connect {
            host: host.to_owned(),
            reason,
        };
        let hostname = match greeting {
            Err(_) => {
                let seconds = greeting_within.as_secs();
                return Err(refuse(format!(
                    "the agent did not greet within {seconds} s"
                )));
            }
            Ok(Err(reason)) => return Err(refuse(with_last_words(reason, &carrier.last_words))),
            Ok(Ok(FromAgent::Hello { protocol, hostname })) if protocol == PROTOCOL_VERSION => {
                hostname
            }
            Ok(Ok(FromAgent::Hello { protocol, .. })) => {
                return Err(refuse(format!(
                    "its agent speaks protocol {protocol}, this halab {PROTOCOL_VERSION}; \
                     put the halab-agent of the same build beside halab"
                )));
            }
            Ok(Ok(FromAgent::Done(_))) => {
                return Err(refuse("its agent answered before it was asked".to_owned()));
            }
        };
        let waiting = Arc::new(Mutex::new(Waiting {
            replies: HashMap::new(),
            ended: None,
            heard: Instant::now(),
        }));
        let (frames, queue) = mpsc::channel(WRITE_QUEUE_FRAMES);
        let last_words = Arc::clone(&carrier.last_words);
        let reading = tokio::spawn(read(reader, decoder, Arc::clone(&waiting), last_words));
        let writing = tokio::spawn(write(writer, queue, Arc::clone(&waiting)));
        Ok(Self {
            host: host.to_owned(),
            hostname,
            next_id: AtomicU64::new(1),
            frames,
            waiting,
            tasks: [reading.abort_handle(), writing.abort_handle()],
            _carrier: carrier,
        })
    }

    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    pub fn is_alive(&self) -> bool {
        lock(&self.waiting).ended.is_none()
    }

    /// How long nothing was heard of the agent.
    pub fn silent_for(&self) -> Duration {
        lock(&self.waiting).heard.elapsed()
    }

    /// Runs one task; dropping the future cancels it in the agent.
    pub async fn run(
        &self,
        mut request: TaskRequest,
        body: &[u8],
    ) -> Result<TaskReply, RemoteError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request.id = id;
        let frame = frame::encode(&ToAgent::Run(request), body)
            .map_err(|error| self.lost(&error.to_string()))?;
        let answer = self.expect(id)?;
        let guard = CancelOnDrop { link: self, id };
        if self.frames.send(frame).await.is_err() {
            return Err(self.lost("the link closed"));
        }
        let reply = answer.await;
        std::mem::forget(guard);
        reply.map_err(|_| self.lost("the link closed"))
    }

    fn expect(&self, id: u64) -> Result<oneshot::Receiver<TaskReply>, RemoteError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.ended.is_some() {
            drop(waiting);
            return Err(self.lost("the link closed"));
        }
        waiting.replies.insert(id, sender);
        Ok(receiver)
    }

    fn lost(&self, otherwise: &str) -> RemoteError {
        let ended = lock(&self.waiting).ended.clone();
        RemoteError::Lost {
            host: self.host.clone(),
            reason: ended.unwrap_or_else(|| otherwise.to_owned()),
        }
    }
}

impl Drop for AgentLink {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Tells the agent that nobody waits for a task any more, so that its children are killed.
struct CancelOnDrop<'link> {
    link: &'link AgentLink,
    id: u64,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        lock(&self.link.waiting).replies.remove(&self.id);
        if let Ok(frame) = frame::encode(&ToAgent::Cancel { id: self.id }, &[]) {
            // A full queue means a pipe that does not move; then nothing would arrive.
            let _ = self.link.frames.try_send(frame);
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(waiting: &Mutex<Waiting>, reason: String) {
    let mut waiting = lock(waiting);
    waiting.ended.get_or_insert(reason);
    // Dropping the senders wakes everybody who waits.
    waiting.replies.clear();
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    mut decoder: Decoder,
    waiting: Arc<Mutex<Waiting>>,
    last_words: LastWords,
) {
    loop {
        match next_message(&mut reader, &mut decoder).await {
            Ok(FromAgent::Done(reply)) => {
                let mut waiting = lock(&waiting);
                waiting.heard = Instant::now();
                if let Some(sender) = waiting.replies.remove(&reply.id) {
                    // Nobody listens any more when the caller has just given up.
                    let _ = sender.send(reply);
                }
            }
            Ok(FromAgent::Hello { .. }) => {
                return end(&waiting, "the agent greeted a second time".to_owned());
            }
            Err(reason) => return end(&waiting, with_last_words(reason, &last_words)),
        }
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
) {
    while let Some(frame) = queue.recv().await {
        let written = async {
            writer.write_all(&frame).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return end(&waiting, format!("writing to the agent failed: {error}"));
        }
    }
}

async fn next_message(
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Result<FromAgent, String> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match decoder.next_frame() {
            Ok(Some((message, _body))) => return Ok(message),
            Ok(None) => {}
            Err(error) => return Err(format!("what came is not from an agent: {error}")),
        }
        match reader.read(&mut buffer).await {
            Ok(0) if decoder.is_mid_frame() => {
                return Err("the connection ended in the middle of an answer".to_owned());
            }
            Ok(0) => return Err("the agent ended or the connection dropped".to_owned()),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) => return Err(format!("reading from the agent failed: {error}")),
        }
    }
}

fn with_last_words(reason: String, last_words: &LastWords) -> String {
    let words = last_words();
    match words.trim() {
        "" => reason,
        words => format!("{reason} ({words})"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Map, Value};
    use tokio::io::{DuplexStream, duplex};

    /// Plays the agent's side of a conversation in a test.
    pub(crate) struct FakeAgent {
        stream: DuplexStream,
        decoder: Decoder,
    }

    impl FakeAgent {
        pub(crate) async fn send(&mut self, message: &FromAgent) {
            let frame = frame::encode(message, &[]).expect("a small message");
            self.stream.write_all(&frame).await.expect("a reader");
        }

        pub(crate) async fn receive(&mut self) -> (ToAgent, Vec<u8>) {
            let mut buffer = [0; 512];
            loop {
                if let Some(found) = self.decoder.next_frame().expect("frames") {
                    return found;
                }
                let count = self.stream.read(&mut buffer).await.expect("a writer");
                assert_ne!(count, 0, "the link was closed");
                self.decoder.push(&buffer[..count]);
            }
        }
    }

    fn hello() -> FromAgent {
        FromAgent::Hello {
            protocol: PROTOCOL_VERSION,
            hostname: "vm".to_owned(),
        }
    }

    async fn greeted() -> (AgentLink, FakeAgent) {
        let (ours, theirs) = duplex(1024);
        let mut agent = FakeAgent {
            stream: theirs,
            decoder: Decoder::default(),
        };
        agent.send(&hello()).await;
        let (reader, writer) = tokio::io::split(ours);
        let within = Duration::from_secs(5);
        let link = AgentLink::open("h", reader, writer, within, Carrier::none()).await;
        (link.expect("greeted"), agent)
    }

    fn task(module: &str) -> TaskRequest {
        TaskRequest {
            module: module.to_owned(),
            ..TaskRequest::default()
        }
    }

    fn answer(id: u64, text: &str) -> FromAgent {
        let result = Map::from_iter([("msg".to_owned(), Value::from(text))]);
        FromAgent::Done(TaskReply { id, result })
    }

    fn id_of(message: &ToAgent) -> u64 {
        match message {
            ToAgent::Run(request) => request.id,
            ToAgent::Cancel { id } | ToAgent::SetClock { id, .. } => *id,
        }
    }

    #[tokio::test]
    async fn answers_find_their_tasks_in_any_order() {
        let (link, mut agent) = greeted().await;
        let served = tokio::spawn(async move {
            let (first, body) = agent.receive().await;
            let (second, _) = agent.receive().await;
            assert_eq!(body, b"content");
            agent.send(&answer(id_of(&second), "two")).await;
            agent.send(&answer(id_of(&first), "one")).await;
            agent
        });
        let (one, two) = tokio::join!(
            link.run(task("copy"), b"content"),
            link.run(task("ping"), &[])
        );
        assert_eq!(one.expect("answered").result["msg"], "one");
        assert_eq!(two.expect("answered").result["msg"], "two");
        drop(served);
    }

    #[tokio::test]
    async fn an_agent_that_dies_mid_task_is_lost_with_the_host_named() {
        let (link, mut agent) = greeted().await;
        tokio::spawn(async move {
            agent.receive().await;
        });
        let error = link.run(task("command"), &[]).await.expect_err("lost");
        assert_eq!(
            error.to_string(),
            "lost h while the task ran: the agent ended or the connection dropped"
        );
        assert!(!link.is_alive());
        assert!(matches!(
            link.run(task("ping"), &[]).await,
            Err(RemoteError::Lost { .. })
        ));
    }

    #[tokio::test]
    async fn giving_up_cancels_the_task_in_the_agent() {
        let (link, mut agent) = greeted().await;
        let waited = timeout(Duration::from_millis(20), link.run(task("command"), &[])).await;
        waited.expect_err("nobody answers");
        let (run, _) = agent.receive().await;
        let (cancel, _) = agent.receive().await;
        assert_eq!(cancel, ToAgent::Cancel { id: id_of(&run) });
    }

    #[tokio::test]
    async fn another_protocol_is_refused_with_the_way_out() {
        let (ours, theirs) = duplex(1024);
        let mut agent = FakeAgent {
            stream: theirs,
            decoder: Decoder::default(),
        };
        agent
            .send(&FromAgent::Hello {
                protocol: PROTOCOL_VERSION + 1,
                hostname: String::new(),
            })
            .await;
        let (reader, writer) = tokio::io::split(ours);
        let within = Duration::from_secs(5);
        let refused = AgentLink::open("h", reader, writer, within, Carrier::none()).await;
        let message = refused.expect_err("refused").to_string();
        assert!(message.contains("of the same build"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_agent_is_given_up_by_the_deadline() {
        let (ours, _theirs) = duplex(64);
        let (reader, writer) = tokio::io::split(ours);
        let within = Duration::from_secs(5);
        let refused = AgentLink::open("h", reader, writer, within, Carrier::none()).await;
        let message = refused.expect_err("refused").to_string();
        assert!(message.contains("did not greet within 5 s"), "{message}");
    }

    #[tokio::test]
    async fn noise_instead_of_frames_ends_the_link() {
        let (ours, mut theirs) = duplex(1024);
        theirs
            .write_all(b"Welcome to Debian!\n")
            .await
            .expect("written");
        let (reader, writer) = tokio::io::split(ours);
        let within = Duration::from_secs(5);
        let refused = AgentLink::open("h", reader, writer, within, Carrier::none()).await;
        let message = refused.expect_err("refused").to_string();
        assert!(message.contains("not from an agent"), "{message}");
    }
}
