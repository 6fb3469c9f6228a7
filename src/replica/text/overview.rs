//! The text of `drbd-overview`, as drbd8-utils printed it.

use std::fmt::Write as _;

use super::proc::{bar_line, shown_progress};
use crate::replica::control::Status;
use crate::replica::state::{Connection, Disk, Role};

/// Where a device is mounted, and how full it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub place: String,
    pub fstype: String,
    /// Whole, used, available: as `df -h` writes them; and the percentage used.
    pub usage: Option<(String, String, String, String)>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub status: Status,
    pub mounted: Option<Mounted>,
}

/// Prints all devices in aligned columns.
pub fn overview(entries: &[Entry]) -> String {
    let rows: Vec<[String; 4]> = entries.iter().map(|entry| columns(&entry.status)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for (entry, [name, connection, roles, disks]) in entries.iter().zip(&rows) {
        let _ = write!(
            text,
            "{name:>w0$}  {connection:<w1$} {roles:<w2$} {disks:<w3$} ",
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3]
        );
        if let Some(mounted) = &entry.mounted {
            let _ = write!(text, "{} {}", mounted.place, mounted.fstype);
            if let Some((whole, used, free, percent)) = &mounted.usage {
                let _ = write!(text, " {whole} {used} {free} {percent}");
            }
        }
        text.push('\n');
        if let Some(progress) = shown_progress(&entry.status).filter(|progress| !progress.verifying)
        {
            let _ = writeln!(text, "\t{}", bar_line(progress));
        }
    }
    text
}

fn columns(status: &Status) -> [String; 4] {
    let names = &status.names;
    let name = format!(" {}:{}/{}", names.minor, names.resource, names.volume);
    let is_unconfigured = status.connection == Connection::StandAlone
        && status.disk == Disk::Diskless
        && status.role == Role::Secondary;
    if is_unconfigured {
        return [
            name,
            "Unconfigured".to_owned(),
            ".".to_owned(),
            ".".to_owned(),
        ];
    }
    [
        name,
        status.connection.to_string(),
        format!("{}/{}", status.role, status.peer),
        format!("{}/{}", status.disk, status.peer_disk),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::proc::tests::syncing;
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_a_resync_has_its_bar() {
        let mut second = syncing();
        second.names.minor = 1;
        second.names.resource = "r1".to_owned();
        second.connection = Connection::Connected;
        second.role = Role::Secondary;
        second.peer = Role::Primary;
        second.disk = Disk::UpToDate;
        let entries = [
            Entry {
                status: syncing(),
                mounted: Some(Mounted {
                    place: "/var/www".to_owned(),
                    fstype: "ext4".to_owned(),
                    usage: None,
                }),
            },
            Entry {
                status: second,
                mounted: None,
            },
        ];
        assert_eq!(
            overview(&entries),
            " 0:r0/0  SyncTarget Primary/Secondary Inconsistent/UpToDate /var/www ext4\n\
             \t[>....................] sync'ed:  3.2% (256704/261076)K\n \
             1:r1/0  Connected  Secondary/Primary UpToDate/UpToDate     \n"
        );
    }
}
