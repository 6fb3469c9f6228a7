//! What a module is given: its arguments, how it shall run, and the way to the host.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::ModuleError;
use super::lifeline::Lifeline;
use crate::base::wire::TaskRequest;
use crate::task::accounts::Accounts;
use crate::task::args::Args;
use crate::task::expand::expand;

/// One task while it runs.
#[derive(Debug)]
pub struct Work {
    args: Map<String, Value>,
    /// Change nothing, say what would change.
    pub check: bool,
    pub diff: bool,
    /// On top of the agent's own environment.
    pub environment: Vec<(String, String)>,
    /// The content that came with the request.
    pub body: Vec<u8>,
    pub lifeline: Arc<Lifeline>,
}

impl Work {
    /// `args` are the request's, brought into the module's types.
    pub fn new(
        request: &TaskRequest,
        args: Map<String, Value>,
        body: Vec<u8>,
        lifeline: Arc<Lifeline>,
    ) -> Self {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let environment = request.environment.iter();
        Self {
            args,
            check: request.check,
            diff: request.diff,
            environment: environment
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            body,
            lifeline,
        }
    }

    pub fn args(&self) -> Args<'_> {
        Args(&self.args)
    }

    /// Returns a variable as the task's children see it.
    pub fn variable(&self, name: &str) -> Option<String> {
        let given = self.environment.iter().find(|(known, _)| known == name);
        match given {
            Some((_, value)) => Some(value.clone()),
            None => std::env::var(name).ok(),
        }
    }

    /// Expands `~` and variables.
    pub fn expand(&self, text: &str) -> String {
        if !text.contains(['~', '$']) {
            return text.to_owned();
        }
        let home_of = |user: &str| match user {
            "" => self.variable("HOME"),
            user => Some(accounts().ok()?.user(user)?.home.clone()),
        };
        expand(text, |name| self.variable(name), home_of)
    }

    /// Returns a path argument, expanded.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let text = self.args().text(name)?;
        Some(PathBuf::from(self.expand(text)))
    }

    /// Returns a path argument that is required or has a default.
    pub fn required_path(&self, name: &str) -> PathBuf {
        self.path(name).unwrap_or_default()
    }
}

/// Reads the host's users and groups.
pub fn accounts() -> Result<Accounts, ModuleError> {
    let read = |path: &str| {
        let bytes = std::fs::read(path).map_err(ModuleError::file("read", path.as_ref()))?;
        Ok::<_, ModuleError>(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Accounts::parse(&read("/etc/passwd")?, &read("/etc/group")?))
}
