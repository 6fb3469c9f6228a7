//! The text of `drbdadm status`, as drbd-utils 9.22 prints it for an 8.4 module.

use std::fmt::Write as _;

use crate::replica::control::Status;
use crate::replica::state::Connection;

/// Prints one resource, an empty line after it.
pub fn status_text(status: &Status) -> String {
    let mut text = format!("{} role:{}", status.names.resource, status.role);
    let suspended = [
        (status.suspended.by_user, "user"),
        (status.suspended.no_data, "no-data"),
        (status.suspended.fencing, "fencing"),
    ];
    let suspended = joined(&suspended);
    if !suspended.is_empty() {
        let _ = write!(text, " suspended:{suspended}");
    }
    let _ = writeln!(text, "\n  disk:{}", status.disk);
    peer(&mut text, status);
    text.push('\n');
    text
}

fn peer(text: &mut String, status: &Status) {
    if status.connection == Connection::StandAlone {
        return;
    }
    if status.connection < Connection::Connected {
        let name = match status.connection {
            Connection::WFConnection => "Connecting".to_owned(),
            Connection::WFReportParams => "Connected".to_owned(),
            other => other.to_string(),
        };
        let _ = writeln!(text, "  peer connection:{name}");
        return;
    }
    let _ = writeln!(text, "  peer role:{}", status.peer);
    let replication = match status.connection {
        Connection::Connected => "Established".to_owned(),
        other => other.to_string(),
    };
    let _ = write!(
        text,
        "    replication:{replication} peer-disk:{}",
        status.peer_disk
    );
    if is_moving(status.connection) {
        let _ = write!(text, " done:{:.2}", percent_done(status));
    }
    let paused = [
        (status.paused.by_user, "user"),
        (status.paused.by_peer, "peer"),
        (status.paused.by_dependency, "dependency"),
    ];
    let paused = joined(&paused);
    if !paused.is_empty() {
        let _ = write!(text, " resync-suspended:{paused}");
    }
    text.push('\n');
}

fn is_moving(connection: Connection) -> bool {
    (Connection::SyncSource..=Connection::PausedSyncT).contains(&connection)
}

/// Of the whole device, as the tool counts it.
#[expect(clippy::cast_precision_loss, reason = "two decimals of a percentage")]
fn percent_done(status: &Status) -> f64 {
    let size_kib = status.device_sectors / 2;
    if size_kib == 0 {
        return 100.0;
    }
    let left = status.counters.out_of_sync_kib.min(size_kib);
    100.0 * (1.0 - left as f64 / size_kib as f64)
}

fn joined(names: &[(bool, &str)]) -> String {
    let names: Vec<&str> = names
        .iter()
        .filter(|(is_set, _)| *is_set)
        .map(|(_, name)| *name)
        .collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::proc::tests::syncing;
    use super::*;
    use crate::replica::state::{Disk, Role};

    #[test]
    fn a_resync_shows_how_much_of_the_device_is_done() {
        assert_eq!(
            status_text(&syncing()),
            "r0 role:Primary\n  disk:Inconsistent\n  peer role:Secondary\n    replication:SyncTarget peer-disk:UpToDate done:1.67\n\n"
        );
    }

    #[test]
    fn without_a_peer_there_is_nothing_below_it() {
        let mut status = syncing();
        status.role = Role::Secondary;
        status.connection = Connection::WFConnection;
        assert_eq!(
            status_text(&status),
            "r0 role:Secondary\n  disk:Inconsistent\n  peer connection:Connecting\n\n"
        );
        status.connection = Connection::StandAlone;
        status.disk = Disk::Diskless;
        assert_eq!(
            status_text(&status),
            "r0 role:Secondary\n  disk:Diskless\n\n"
        );
    }
}
