//! The modules as the agent runs them: each looks at the host, has `task` decide, and
//! does what was decided.

mod account;
mod arp;
mod command;
mod copy;
mod copy_tree;
mod edit;
mod facts;
mod failover;
mod file;
mod filesystem;
mod heartbeat;
mod http;
mod inspect;
mod iptables;
mod ipvs;
mod kernel;
mod mount;
mod network;
mod package;
mod packet_check;
mod replica;
mod service;
mod wait;

use super::error::ModuleError;
use super::work::Work;
use crate::task::outcome::Outcome;

/// A module's whole work.
pub type Module = fn(&Work) -> Result<Outcome, ModuleError>;

/// Returns the module of this short name; `None` when the agent does not run it.
pub fn find(name: &str) -> Option<Module> {
    Some(match name {
        "arp_check" => arp::arp_check,
        "blockinfile" => edit::blockinfile,
        "command" => command::command,
        "copy" => copy::copy,
        "failover_watch" => failover::failover_watch,
        "file" => file::file,
        "filesystem" => filesystem::filesystem,
        "find" => inspect::find,
        "get_url" => http::get_url,
        "getent" => account::getent,
        "group" => account::group,
        "heartbeat" => heartbeat::heartbeat,
        "hostname" => account::hostname,
        "http_check" => http::http_check,
        "ip_address" => network::ip_address,
        "ip_link" => network::ip_link,
        "ip_tunnel" => network::ip_tunnel,
        "iptables" => iptables::iptables,
        "lineinfile" => edit::lineinfile,
        "lvs_server" => ipvs::lvs_server,
        "lvs_service" => ipvs::lvs_service,
        "modprobe" => kernel::modprobe,
        "mount" => mount::mount,
        "package" | "apt" => package::package,
        "packet_check" => packet_check::packet_check,
        "ping" => facts::ping,
        "raw" | "shell" => command::shell,
        "replica" => replica::replica,
        "replace" => edit::replace,
        "service" | "systemd" => service::service,
        "setup" => facts::setup,
        "slurp" => inspect::slurp,
        "stat" => inspect::stat,
        "sysctl" => kernel::sysctl,
        "tempfile" => inspect::tempfile,
        "uri" => http::uri,
        "user" => account::user,
        "wait_for" => wait::wait_for,
        _ => return None,
    })
}
