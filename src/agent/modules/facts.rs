//! `ping` and `setup`.

use std::path::Path;

use nix::sys::utsname::uname;
use nix::unistd::Uid;
use serde_json::{Map, Value};

use super::super::error::ModuleError;
use super::super::files;
use super::super::netlink::RouteSocket;
use super::super::process::unix_now;
use super::super::work::{Work, accounts};
use crate::task::facts::{Sources, facts, named};
use crate::task::outcome::{Outcome, Refusal};
use crate::task::time::Moment;

pub(super) fn ping(work: &Work) -> Result<Outcome, ModuleError> {
    match work.args().word("data") {
        "crash" => Err(Refusal::new("boom").into()),
        data => Ok(Outcome::changed(false).with("ping", data)),
    }
}

pub(super) fn setup(work: &Work) -> Result<Outcome, ModuleError> {
    let now = unix_now();
    let mut facts = facts(&sources(work)?, Moment::from_unix(now), now.as_secs());
    facts.extend(own_user()?);
    let named = named(facts, &work.args().list("filter"));
    Ok(Outcome::changed(false).with("ansible_facts", named))
}

fn sources(work: &Work) -> Result<Sources, ModuleError> {
    let mut socket = RouteSocket::open()?;
    let name = uname().map_err(ModuleError::errno("ask the kernel's name"))?;
    let mut environment: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    environment.extend(work.environment.iter().cloned());
    let mut links = socket.links()?;
    links.sort_by_key(|link| link.index);
    Ok(Sources {
        os_release: files::text_of("/etc/os-release"),
        meminfo: files::text_of("/proc/meminfo"),
        cpuinfo: files::text_of("/proc/cpuinfo"),
        mounts: files::text_of("/proc/self/mounts"),
        routes: files::text_of("/proc/net/route"),
        cmdline: files::text_of("/proc/cmdline"),
        hosts: files::text_of("/etc/hosts"),
        hostname: name.nodename().to_string_lossy().into_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        kernel_version: name.version().to_string_lossy().into_owned(),
        architecture: name.machine().to_string_lossy().into_owned(),
        machine_id: files::text_of("/etc/machine-id"),
        uptime: files::text_of("/proc/uptime"),
        links,
        addresses: socket.addresses()?,
        environment,
        has_systemd: Path::new("/run/systemd/system").is_dir(),
    })
}

fn own_user() -> Result<Map<String, Value>, ModuleError> {
    let uid = Uid::current().as_raw();
    let accounts = accounts()?;
    let user = accounts.users.iter().find(|user| user.uid == uid);
    let text = |text: Option<&String>| text.map(String::as_str).into();
    let facts: [(&str, Value); 6] = [
        ("user_uid", uid.into()),
        ("user_gid", nix::unistd::Gid::current().as_raw().into()),
        ("user_id", text(user.map(|user| &user.name))),
        ("user_dir", text(user.map(|user| &user.home))),
        ("user_shell", text(user.map(|user| &user.shell))),
        ("user_gecos", text(user.map(|user| &user.comment))),
    ];
    Ok(facts
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect())
}
