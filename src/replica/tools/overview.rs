//! `drbd-overview`: every device of the configuration, its state, and where it is mounted.

use std::fs;
use std::process::Command;

use super::command::{complain, say};
use super::{daemon, host};
use crate::base::diagnostic::{Colour, render_all};
use crate::replica::config::lower::lower;
use crate::replica::control::{Counters, Status};
use crate::replica::settings::Names;
use crate::replica::state::{Connection, Disk, Paused, Role, Suspended};
use crate::replica::text::overview::{Entry, Mounted, overview};

pub(super) fn main() -> u8 {
    let node = host::node();
    let configuration = match host::configuration(None, &node) {
        Ok((configuration, _)) => configuration,
        Err(problems) => {
            complain(&render_all(&problems, Colour::Never));
            return 10;
        }
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let entries: Vec<Entry> = configuration
        .resources
        .iter()
        .filter_map(|resource| configuration.local(resource, &node))
        .filter_map(|local| lower(&local).ok())
        .map(|lowered| {
            let status = daemon::status(&lowered.names.resource);
            Entry {
                mounted: mounted(&mounts, &lowered.device),
                status: status.unwrap_or_else(|| unconfigured(lowered.names)),
            }
        })
        .collect();
    say(overview(&entries).trim_end_matches('\n'));
    0
}

/// A resource whose daemon does not run.
fn unconfigured(names: Names) -> Status {
    Status {
        names,
        connection: Connection::StandAlone,
        role: Role::Secondary,
        peer: Role::Unknown,
        disk: Disk::Diskless,
        peer_disk: Disk::DUnknown,
        suspended: Suspended::default(),
        paused: Paused::default(),
        protocol: None,
        counters: Counters::default(),
        progress: None,
        device_sectors: 0,
        generations: [0; 4],
        flags: 0,
        backing_disk: None,
        disk_settings: None,
        net_settings: None,
        last_trouble: None,
    }
}

fn mounted(mounts: &str, device: &str) -> Option<Mounted> {
    let line = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<&str>>())
        .find(|fields| fields.len() > 2 && fields[0] == device)?;
    let place = line[1].to_owned();
    Some(Mounted {
        usage: usage(&place),
        place,
        fstype: line[2].to_owned(),
    })
}

/// As df says it.
fn usage(place: &str) -> Option<(String, String, String, String)> {
    let output = Command::new("df").args(["-h", "--", place]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut fields = text
        .lines()
        .nth(1)?
        .split_whitespace()
        .skip(1)
        .map(str::to_owned);
    Some((
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    ))
}
