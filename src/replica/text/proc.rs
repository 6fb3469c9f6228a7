//! The text of `/proc/drbd`.

use std::fmt::Write as _;

use crate::replica::control::{Counters, Progress, Status};
use crate::replica::message::ReplicationProtocol;
use crate::replica::state::{Connection, Disk, Role};

/// The module that is stood in for; scripts look at the first line.
const VERSION: &str = "version: 8.4.11 (api:1/proto:86-101)";

/// KiB of a block that a bit stands for.
const BLOCK_KIB: u64 = 4;

/// Above this, sizes are in MiB: 4 GiB.
const KIB_SHOWN_MAX: u64 = 4 << 20;

/// Prints every device, ascending by minor number. `program` says who speaks.
pub fn proc_text(devices: &[Status], program: &str) -> String {
    let mut devices: Vec<&Status> = devices.iter().collect();
    devices.sort_by_key(|status| status.names.minor);
    let mut text = format!("{VERSION}\nsrcversion: {program:<24}\n");
    let mut expected = 0;
    for status in devices {
        if status.names.minor != expected {
            text.push('\n');
        }
        expected = status.names.minor + 1;
        device(&mut text, status);
    }
    text
}

fn device(text: &mut String, status: &Status) {
    let minor = status.names.minor;
    let is_unconfigured = status.connection == Connection::StandAlone
        && status.disk == Disk::Diskless
        && status.role == Role::Secondary;
    if is_unconfigured {
        let _ = writeln!(text, "{minor:2}: cs:Unconfigured");
        return;
    }
    let protocol = status.protocol.map_or(' ', |protocol| match protocol {
        ReplicationProtocol::A => 'A',
        ReplicationProtocol::B => 'B',
        ReplicationProtocol::C => 'C',
    });
    let _ = writeln!(
        text,
        "{minor:2}: cs:{} ro:{}/{} ds:{}/{} {protocol} {}",
        status.connection,
        status.role,
        status.peer,
        status.disk,
        status.peer_disk,
        flags(status)
    );
    let Counters {
        sent_kib,
        received_kib,
        written_kib,
        read_kib,
        activity_writes,
        bitmap_writes,
        local_pending,
        peer_pending,
        unacknowledged,
        application_pending,
        epochs,
        write_ordering,
        out_of_sync_kib,
    } = status.counters;
    let _ = writeln!(
        text,
        "    ns:{sent_kib} nr:{received_kib} dw:{written_kib} dr:{read_kib} al:{activity_writes} bm:{bitmap_writes} lo:{local_pending} pe:{peer_pending} ua:{unacknowledged} ap:{application_pending} ep:{epochs} wo:{} oos:{out_of_sync_kib}",
        write_ordering.letter(),
    );
    if let Some(progress) = shown_progress(status) {
        let _ = writeln!(text, "\t{}\n\t{}", bar_line(progress), speed_line(progress));
    }
}

/// `r` or `s`, then who pauses: a dependency, the peer, the user; two of the kernel's own.
fn flags(status: &Status) -> String {
    let suspended =
        status.suspended.by_user || status.suspended.no_data || status.suspended.fencing;
    [
        (suspended, 's', 'r'),
        (status.paused.by_dependency, 'a', '-'),
        (status.paused.by_peer, 'p', '-'),
        (status.paused.by_user, 'u', '-'),
        (false, 'c', '-'),
        (false, 's', '-'),
    ]
    .map(|(is_set, set, clear)| if is_set { set } else { clear })
    .iter()
    .collect()
}

/// Progress is shown while something moves, not while it is paused.
pub(super) fn shown_progress(status: &Status) -> Option<&Progress> {
    let moves = matches!(
        status.connection,
        Connection::SyncSource | Connection::SyncTarget | Connection::VerifyS | Connection::VerifyT
    );
    status.progress.as_ref().filter(|_| moves)
}

/// Tenths of a percent, in the kernel's coarse steps.
fn per_mil(progress: &Progress) -> u64 {
    let (total, left) = (progress.total_blocks, progress.left_blocks);
    if left > total {
        return if total == 0 { 1000 } else { 0 };
    }
    let shift = if total > u64::from(u32::MAX) { 16 } else { 10 };
    1000 - ((left >> shift) * 1000 / (1 + (total >> shift))).min(1000)
}

/// `[==>......] sync'ed: 12.3% (LEFT/TOTAL)K`.
pub fn bar_line(progress: &Progress) -> String {
    let per_mil = per_mil(progress);
    let twentieths = usize::try_from(per_mil / 50).expect("it is at most 20");
    let done = "=".repeat(twentieths.saturating_sub(1));
    let to_do = ".".repeat(20 - twentieths);
    let word = if progress.verifying {
        "verified:"
    } else {
        "sync'ed:"
    };
    let (left, total) = (
        progress.left_blocks * BLOCK_KIB,
        progress.total_blocks * BLOCK_KIB,
    );
    let amount = if total > KIB_SHOWN_MAX {
        format!("({}/{})M", left >> 10, total >> 10)
    } else {
        format!("({left}/{total})K")
    };
    format!(
        "[{done}>{to_do}] {word}{:3}.{}% {amount}",
        per_mil / 10,
        per_mil % 10
    )
}

fn speed_line(progress: &Progress) -> String {
    let seconds = progress.seconds_left.unwrap_or(0);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let want = progress
        .want_kib
        .map_or_else(String::new, |want| format!(" want: {}", grouped(want)));
    let stalled = if progress.stalled { " (stalled)" } else { "" };
    format!(
        "finish: {hours}:{minutes:02}:{rest:02} speed: {} ({}){want} K/sec{stalled}",
        grouped(progress.speed_kib),
        grouped(progress.average_kib)
    )
}

/// Thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::replica::control::WriteOrdering;
    use crate::replica::settings::Names;
    use crate::replica::state::{Paused, Suspended};

    /// As the module showed it in a guest, in the middle of a resync.
    pub(in crate::replica::text) fn syncing() -> Status {
        Status {
            names: Names {
                resource: "r0".to_owned(),
                minor: 0,
                volume: 0,
            },
            connection: Connection::SyncTarget,
            role: Role::Primary,
            peer: Role::Secondary,
            disk: Disk::Inconsistent,
            peer_disk: Disk::UpToDate,
            suspended: Suspended::default(),
            paused: Paused::default(),
            protocol: Some(ReplicationProtocol::C),
            counters: Counters {
                received_kib: 1411,
                written_kib: 5477,
                activity_writes: 13,
                epochs: 1,
                write_ordering: WriteOrdering::Flush,
                out_of_sync_kib: 256_704,
                ..Counters::default()
            },
            progress: Some(Progress {
                verifying: false,
                total_blocks: 65_269,
                left_blocks: 64_176,
                elapsed_ms: 4000,
                speed_kib: 1092,
                average_kib: 1092,
                want_kib: Some(120),
                seconds_left: Some(233),
                stalled: false,
                found_blocks: 0,
            }),
            device_sectors: 522_152,
            generations: [0; 4],
            flags: 0,
            backing_disk: Some("/dev/sdb1".to_owned()),
            disk_settings: None,
            net_settings: None,
            last_trouble: None,
        }
    }

    #[test]
    fn a_resync_is_shown_as_the_module_shows_it() {
        let expected = "version: 8.4.11 (api:1/proto:86-101)\n\
            srcversion: 637677C4EAFCF5D1D5446B0 \n \
            0: cs:SyncTarget ro:Primary/Secondary ds:Inconsistent/UpToDate C r-----\n    \
            ns:0 nr:1411 dw:5477 dr:0 al:13 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:256704\n\
            \t[>....................] sync'ed:  3.2% (256704/261076)K\n\
            \tfinish: 0:03:53 speed: 1,092 (1,092) want: 120 K/sec\n";
        assert_eq!(proc_text(&[syncing()], "637677C4EAFCF5D1D5446B0"), expected);
    }

    #[test]
    fn a_device_without_anything_is_unconfigured_and_gaps_are_shown() {
        let status = Status {
            connection: Connection::StandAlone,
            role: Role::Secondary,
            peer: Role::Unknown,
            disk: Disk::Diskless,
            peer_disk: Disk::DUnknown,
            protocol: None,
            progress: None,
            names: Names {
                resource: "r5".to_owned(),
                minor: 5,
                volume: 0,
            },
            ..syncing()
        };
        let text = proc_text(std::slice::from_ref(&status), "x");
        assert!(text.ends_with("\n\n 5: cs:Unconfigured\n"), "{text:?}");
        // Detached from the network, with a disk: no letter of a protocol.
        let alone = Status {
            disk: Disk::Inconsistent,
            ..status
        };
        let text = proc_text(&[alone], "x");
        assert!(
            text.contains("cs:StandAlone ro:Secondary/Unknown ds:Inconsistent/DUnknown   r-----\n"),
            "{text}"
        );
    }

    #[test]
    fn the_bar_moves_in_twentieths() {
        let bar = |left| {
            let progress = Progress {
                total_blocks: 65_269,
                left_blocks: left,
                ..syncing().progress.expect("it syncs")
            };
            bar_line(&progress)
        };
        assert_eq!(
            bar(61_883),
            "[>...................] sync'ed:  6.3% (247532/261076)K"
        );
        assert_eq!(
            bar(32_000),
            "[=========>..........] sync'ed: 51.6% (128000/261076)K"
        );
        assert_eq!(bar(0), "[===================>] sync'ed:100.0% (0/261076)K");
    }
}
