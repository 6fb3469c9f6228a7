//! Runs small scripts in a guest through its control port (see [`guest`](super::guest)).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::guest::{CONTROL_GREETING, framed, framed_answer, framed_question, framed_status};
use super::process::connect_socket;

/// Output on the port is ours alone and short; more is a guest gone mad.
const RECEIVED_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("failed to reach the guest's control port")]
    Connect(#[source] io::Error),
    #[error("failed to talk through the guest's control port")]
    Talk(#[source] io::Error),
    #[error("the guest did not answer on its control port within {seconds} s")]
    Silent { seconds: u64 },
    #[error("the guest failed to {what} (exit status {status})")]
    Failed { what: &'static str, status: u8 },
}

/// How often the first line is said again.
const REPEAT: Duration = Duration::from_secs(2);

/// An open control port.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
}

impl Control {
    pub fn connect(socket: &Path) -> Result<Self, ControlError> {
        let stream =
            connect_socket(socket, Duration::from_secs(2)).map_err(ControlError::Connect)?;
        Ok(Self { stream })
    }

    /// Waits until the shell of a machine that boots answers. The port must be open from the
    /// boot on: nobody keeps what is said to nobody.
    ///
    /// The shell greets before it reads, and what comes in between is lost in part. So the
    /// first thing said is a single line that may be cut anywhere and be said again.
    pub fn await_shell(&mut self, deadline: Duration) -> Result<(), ControlError> {
        let end = Instant::now() + deadline;
        self.receive_until(deadline, |received| {
            received.contains(CONTROL_GREETING).then_some(())
        })?;
        let word = next_word();
        loop {
            self.send(&format!("\necho {word} 0\n"))?;
            let left = end.saturating_duration_since(Instant::now());
            match self.receive_until(REPEAT.min(left), |received| framed_status(received, &word)) {
                Err(ControlError::Silent { .. }) if Instant::now() < end => {}
                other => return other.map(drop),
            }
        }
    }

    /// Runs a script to its end. `what` completes "the guest failed to".
    pub fn run(
        &mut self,
        what: &'static str,
        script: &str,
        deadline: Duration,
    ) -> Result<(), ControlError> {
        let word = next_word();
        self.send(&framed(script, &word))?;
        match self.receive_until(deadline, |received| framed_status(received, &word))? {
            0 => Ok(()),
            status => Err(ControlError::Failed { what, status }),
        }
    }

    /// Runs a script to its end and returns what it wrote, however it ended.
    pub fn ask(&mut self, script: &str, deadline: Duration) -> Result<String, ControlError> {
        let word = next_word();
        self.send(&framed_question(script, &word))?;
        self.receive_until(deadline, |received| framed_answer(received, &word))
    }

    fn send(&mut self, text: &str) -> Result<(), ControlError> {
        self.stream
            .write_all(text.as_bytes())
            .map_err(ControlError::Talk)
    }

    /// Reads until something is found in all that came since the call.
    fn receive_until<T>(
        &mut self,
        deadline: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ControlError> {
        let end = Instant::now() + deadline;
        let mut received = String::new();
        let mut chunk = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let silent = ControlError::Silent {
                seconds: deadline.as_secs(),
            };
            if left.is_zero() || received.len() > RECEIVED_BYTES_MAX {
                return Err(silent);
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(ControlError::Talk)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ControlError::Talk(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => received.push_str(&String::from_utf8_lossy(&chunk[..count])),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(silent);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ControlError::Talk(error)),
            }
            if let Some(found) = find(&received) {
                return Ok(found);
            }
        }
    }
}

/// Returns a word that nobody else says.
fn next_word() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(
        "halab-end-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
