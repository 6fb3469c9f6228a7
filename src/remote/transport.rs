//! What the run engine may ask of a host, whatever lies between.
//!
//! A [`Remote`] takes one task at a time or several at once and answers each. Behind it
//! stands an agent over SSH, an agent on this machine, the lab itself (for the modules
//! that act on machines and cables), or a script of a test.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::base::wire::{TaskReply, TaskRequest};

/// Why a task came to no result. A module that ran and failed is a result, not an error.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The host was never reached, or the agent never greeted.
    #[error("failed to connect to {host}: {reason}")]
    Connect { host: String, reason: String },
    /// The connection or the agent was lost while the task ran; what it did is unknown.
    #[error("lost {host} while the task ran: {reason}")]
    Lost { host: String, reason: String },
    /// No answer by the deadline.
    #[error("{host} did not answer within {seconds} s")]
    Deadline { host: String, seconds: u64 },
}

pub type RemoteFuture<'a> =
    Pin<Box<dyn Future<Output = Result<TaskReply, RemoteError>> + Send + 'a>>;

/// Something that runs modules.
pub trait Remote: Send + Sync + fmt::Debug {
    /// Runs one module; `body` is the content that goes with it (a file's), often empty.
    /// Dropping the future gives up waiting; the module may go on to its end.
    fn run(&self, request: TaskRequest, body: Vec<u8>) -> RemoteFuture<'_>;

    /// Forgets the connection; the next `run` makes a new one.
    fn reset(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
