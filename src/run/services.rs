//! What everybody who runs a task shares: files, templates, hosts, the command line's word.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use crate::playbook::files::SourceLoader;
use crate::playbook::render::Renderer;
use crate::remote::transport::Remote;

/// Gives out hosts.
pub trait Hosts: Send + Sync + fmt::Debug {
    /// Returns the remote for a host reached so; the same one when asked again.
    fn remote(&self, host: &str, connection: &Connection) -> Result<Arc<dyn Remote>, String>;

    /// The lab itself, for the modules that act on machines and cables.
    fn lab(&self) -> Option<Arc<dyn Remote>>;

    /// Forgets the links to these hosts: their machines may have changed under them.
    fn reset(&self, host: &str);
}

/// What the command line decides for every task.
#[derive(Clone, Debug)]
pub struct Flags {
    pub check: bool,
    pub diff: bool,
    pub verbosity: u8,
    /// How many hosts at once.
    pub forks: usize,
    /// `-b` and `--become-user`, where the playbook says nothing.
    pub r#become: bool,
    pub become_user: Option<String>,
    /// `--user`, `--private-key`, `--connection`, where nothing else says so.
    pub connection: Connection,
    /// `--timeout`: a host that answers a task later is given up.
    pub deadline: Option<Duration>,
    /// `halab grade`: a failure costs points and ends nothing; checks are worded in this language.
    pub grading: Option<String>,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            check: false,
            diff: false,
            verbosity: 0,
            forks: 16,
            r#become: false,
            become_user: None,
            connection: Connection::default(),
            deadline: None,
            grading: None,
        }
    }
}

/// Shared by all tasks of a run.
#[derive(Debug)]
pub struct Services {
    pub loader: Arc<dyn SourceLoader>,
    pub renderer: Renderer,
    pub hosts: Arc<dyn Hosts>,
    pub flags: Flags,
}
