//! Log lines in heartbeat's form: on standard error (the unit's journal), in `logfile`, and
//! to syslog's socket. Where both of the former end in one journal, a line is written once.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

use super::daemon::unix_now;
use crate::heartbeat::config::ha_cf::Log;
use crate::heartbeat::effect::Level;

/// syslog's number of `daemon`.
const FACILITY_DAEMON: u8 = 3;

/// syslog's number of `local0`; the others follow.
const FACILITY_LOCAL0: u8 = 16;

#[derive(Debug)]
pub(super) struct Journal {
    node: String,
    file: Option<File>,
    syslog: Option<(UnixDatagram, u8)>,
    /// Standard error is systemd's journal, as syslog's socket is.
    is_systemds: bool,
}

impl Journal {
    /// Opens what ha.cf names; what cannot be opened is said once and left out.
    pub(super) fn open(node: &str, log: &Log) -> Self {
        let mut journal = Self {
            node: node.to_owned(),
            file: None,
            syslog: None,
            is_systemds: std::env::var_os("JOURNAL_STREAM").is_some(),
        };
        if let Some(path) = &log.file {
            match OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path.text)
            {
                Ok(file) => journal.file = Some(file),
                Err(error) => {
                    let text = format!("cannot write {}: {error}", path.text);
                    journal.write(Level::Warning, &text);
                }
            }
        }
        if let Some(facility) = &log.facility {
            let socket = UnixDatagram::unbound()
                .and_then(|socket| socket.connect("/dev/log").map(|()| socket));
            journal.syslog = socket.ok().map(|socket| (socket, number(&facility.text)));
        }
        journal
    }

    #[expect(
        clippy::print_stderr,
        reason = "the unit's journal is the daemon's log"
    )]
    pub(super) fn write(&mut self, level: Level, text: &str) {
        let (node, pid) = (&self.node, std::process::id());
        if !(self.is_systemds && self.syslog.is_some()) {
            eprintln!("heartbeat: [{pid}]: {}: {text}", level.name());
        }
        if let Some(file) = &mut self.file {
            let stamp = stamp(unix_now());
            // A full disk must not stop the cluster.
            let _ = writeln!(
                file,
                "{stamp} {node} heartbeat: [{pid}]: {}: {text}",
                level.name()
            );
        }
        if let Some((socket, facility)) = &self.syslog {
            let priority = facility * 8 + severity(level);
            let line = format!("<{priority}>heartbeat: [{pid}]: {}: {text}", level.name());
            let _ = socket.send(line.as_bytes());
        }
    }
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Critical => 2,
        Level::Error => 3,
        Level::Warning => 4,
        Level::Info => 6,
        Level::Debug => 7,
    }
}

fn number(facility: &str) -> u8 {
    facility
        .strip_prefix("local")
        .and_then(|digit| digit.parse::<u8>().ok())
        .filter(|digit| *digit < 8)
        .map_or(FACILITY_DAEMON, |digit| FACILITY_LOCAL0 + digit)
}

/// Returns `Nov 23 03:54:50`, in UTC.
fn stamp(unix_seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Civil date from days, counted in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = usize::try_from((march_month + 2) % 12).expect("a month");
    format!(
        "{} {day:2} {:02}:{:02}:{:02}",
        MONTHS[month],
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_syslogs() {
        assert_eq!(stamp(0), "Jan  1 00:00:00");
        assert_eq!(stamp(1_795_406_090), "Nov 23 03:54:50");
        assert_eq!(stamp(1_709_210_096), "Feb 29 12:34:56");
    }

    #[test]
    fn facilities_have_their_numbers() {
        assert_eq!(
            (number("local0"), number("local7"), number("daemon")),
            (16, 23, 3)
        );
    }
}
