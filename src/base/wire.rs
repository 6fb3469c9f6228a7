//! What the orchestrator and the agent say to each other, one [`frame`](super::frame) a message.
//!
//! The agent speaks first ([`FromAgent::Hello`]); then the orchestrator sends tasks, of
//! which several may run at once, and each is answered by one [`FromAgent::Done`].
//! A file's content travels as the body of the `Run` frame.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Raised whenever a message changes; the orchestrator uploads the agent it was built
/// with, so the two differ only when somebody mixes them by hand.
pub const PROTOCOL_VERSION: u32 = 2;

/// The kind stands outside (`{"run": {…}}`): a tag inside would have the whole message read
/// into memory once to find it and once more to take it apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly every message is a task")]
pub enum ToAgent {
    /// Run one module. The frame's body is the content that goes with it, if any.
    Run(TaskRequest),
    /// Stop the task with this id: its children are killed, its `Done` says so.
    Cancel { id: u64 },
    /// Set the wall clock, in nanoseconds since 1970: after a snapshot was loaded it is behind.
    SetClock { id: u64, unix_ns: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromAgent {
    Hello { protocol: u32, hostname: String },
    Done(TaskReply),
}

/// One module's call on one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskRequest {
    pub id: u64,
    /// Short name (`copy`), already checked against the table of modules.
    pub module: String,
    /// Rendered arguments; names and types already checked.
    pub args: Map<String, Value>,
    /// Change nothing, say what would change.
    pub check: bool,
    /// Put `diff: [{before, after, before_header, after_header}]` into the result.
    pub diff: bool,
    #[serde(default)]
    pub environment: Map<String, Value>,
    /// Run as this user instead of the agent's own.
    #[serde(default)]
    pub become_user: Option<String>,
    /// End the task after so many milliseconds; `None`: the orchestrator alone watches.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What came of it: an object of Ansible's shape (`changed`, `failed`, `msg`, `rc`,
/// `stdout`, `diff`, …) as `register` keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskReply {
    pub id: u64,
    pub result: Map<String, Value>,
}
