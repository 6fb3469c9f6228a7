//! Why a module did not come to a result.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::task::outcome::{Refusal, failure};

#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Decided from arguments and facts; nothing was done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("failed to {attempt} {}", .path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to {attempt}")]
    System {
        attempt: String,
        #[source]
        source: io::Error,
    },
    /// A program that the module relies on ended badly.
    #[error("`{command}` ended with {rc}: {stderr}")]
    Program {
        command: String,
        rc: i32,
        stderr: String,
    },
    #[error("the task was cancelled")]
    Cancelled,
    #[error("the task did not end within {seconds} s")]
    TimedOut { seconds: f64 },
}

impl ModuleError {
    /// Returns what turns an I/O error on a file into this error.
    pub fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File {
            attempt,
            path,
            source,
        }
    }

    pub fn system(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::System { attempt, source }
    }

    /// Returns the same for an error number as the system calls' wrapper gives it.
    pub fn errno(attempt: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let attempt = attempt.into();
        move |errno| Self::System {
            attempt,
            source: errno.into(),
        }
    }

    /// Returns the task's result: what was attempted and every cause.
    pub fn into_result(self) -> Map<String, Value> {
        match self {
            Self::Refused(refusal) => failure(&refusal.msg, refusal.values),
            Self::Program { rc, ref stderr, .. } => {
                let values = [("rc", Value::from(rc)), ("stderr", stderr.as_str().into())];
                let values = values.map(|(name, value)| (name.to_owned(), value));
                failure(&self.to_string(), values.into_iter().collect())
            }
            Self::File { ref source, .. } | Self::System { ref source, .. } => {
                failure(&format!("{self}: {source}"), Map::new())
            }
            Self::Cancelled | Self::TimedOut { .. } => failure(&self.to_string(), Map::new()),
        }
    }
}
