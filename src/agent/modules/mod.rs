//! The modules as the agent runs them: each looks at the host, has `task` decide, and
//! does what was decided.

mod account;
mod command;
mod copy;
mod edit;
mod file;
mod inspect;
mod ipvs;
mod package;
mod service;

use super::error::ModuleError;
use super::work::Work;
use crate::task::outcome::Outcome;

/// A module's whole work.
pub type Module = fn(&Work) -> Result<Outcome, ModuleError>;

/// Returns the module of this short name; `None` when the agent does not run it.
pub fn find(name: &str) -> Option<Module> {
    Some(match name {
        "blockinfile" => edit::blockinfile,
        "command" => command::command,
        "copy" => copy::copy,
        "file" => file::file,
        "find" => inspect::find,
        "getent" => account::getent,
        "group" => account::group,
        "hostname" => account::hostname,
        "lineinfile" => edit::lineinfile,
        "lvs_server" => ipvs::lvs_server,
        "lvs_service" => ipvs::lvs_service,
        "package" | "apt" => package::package,
        "raw" | "shell" => command::shell,
        "replace" => edit::replace,
        "service" | "systemd" => service::service,
        "slurp" => inspect::slurp,
        "stat" => inspect::stat,
        "tempfile" => inspect::tempfile,
        "user" => account::user,
        _ => return None,
    })
}
