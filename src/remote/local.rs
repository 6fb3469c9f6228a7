//! An agent as a child of this program: the machine halab runs on, or the lab's client
//! machine when the child is started inside the lab's network.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::agent_file::AgentFile;
use super::agent_link::{AgentLink, Carrier, LastWords};
use super::reconnect::{Connect, ConnectFuture};
use super::transport::RemoteError;

/// A child greets in milliseconds; on a machine full of booting guests it may take seconds.
const GREETING_WITHIN: Duration = Duration::from_secs(20);

/// As much of an agent's stderr as a message can use.
const LAST_WORDS_BYTES_MAX: usize = 2048;

/// An agent on this machine.
#[derive(Debug)]
pub struct LocalHost {
    pub name: String,
    /// Put before the agent's own command: how to enter the lab's network, or nothing.
    pub enter: Vec<String>,
    pub agent: AgentFile,
}

impl LocalHost {
    async fn start(&self) -> Result<AgentLink, RemoteError> {
        let agent = self.agent.path.as_os_str().to_owned();
        let mut words = self
            .enter
            .iter()
            .map(Into::into)
            .chain([agent, "serve".into()]);
        let program = words.next().expect("the agent is at the end at least");
        let child = Command::new(&program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal is for halab alone; it ends its children by itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| RemoteError::Connect {
            host: self.name.clone(),
            reason: format!("failed to start {}: {error}", program.display()),
        })?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let carrier = Carrier {
            keep: Box::new(child),
            last_words: collect_last_words(stderr.expect("stderr is piped")),
        };
        let (reader, writer) = (
            stdout.expect("stdout is piped"),
            stdin.expect("stdin is piped"),
        );
        AgentLink::open(&self.name, reader, writer, GREETING_WITHIN, carrier).await
    }
}

impl Connect for LocalHost {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(self.start())
    }
}

/// Keeps the end of what is written to a stderr.
pub(super) fn collect_last_words(mut stderr: impl AsyncRead + Unpin + Send + 'static) -> LastWords {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let words = Arc::clone(&kept);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(LAST_WORDS_BYTES_MAX);
            kept.drain(..surplus);
        }
    });
    Arc::new(move || {
        let words = words.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&words).trim().to_owned()
    })
}
