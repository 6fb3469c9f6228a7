//! The text of `get-gi` and `show-gi`.

use std::fmt::Write as _;

use crate::replica::layout::{Flags, Superblock};

/// The four generations and the seven flags that go with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub generations: [u64; 4],
    pub flags: Flags,
}

impl Shown {
    pub fn of(superblock: &Superblock) -> Self {
        let generations = superblock.generations;
        Self {
            generations: [
                generations.current.0,
                generations.bitmap.0,
                generations.history[0].0,
                generations.history[1].0,
            ],
            flags: superblock.flags,
        }
    }
}

/// What `show-gi` says below the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A running device.
    Daemon,
    /// The metadata on the disk.
    Disk {
        clean: bool,
        agreed_sectors: u64,
        peer_bio_bytes_max: u32,
    },
}

const LEGEND_ABOVE: &str = "
       +--<  Current data generation UUID  >-
       |               +--<  Bitmap's base data generation UUID  >-
       |               |                 +--<  younger history UUID  >-
       |               |                 |         +-<  older history  >-
       V               V                 V         V
";

/// What each of the seven flags means, first to last.
const MEANINGS: [&str; 7] = [
    "-<  Data consistency flag  >--+",
    "-<  Data was/is currently up-to-date  >--+",
    "-<  Node was/is currently primary  >--+",
    "-<  Node was/is currently connected  >--+",
    "-<  Node was in the progress of setting all bits in the bitmap  >--+",
    "-<  The peer's disk was out-dated or inconsistent  >--+",
    "-<  This node was a crashed primary, and has not seen its peer since   >--+",
];

/// Where the first flag stands: after four numbers of 16 digits and a colon each.
const FLAGS_COLUMN: usize = 4 * 17;

/// The order in which flags are printed.
const FLAGS: [Flags; 7] = [
    Flags::CONSISTENT,
    Flags::WAS_UP_TO_DATE,
    Flags::PRIMARY,
    Flags::CONNECTED,
    Flags::FULL_SYNC,
    Flags::PEER_OUTDATED,
    Flags::CRASHED_PRIMARY,
];

/// One line, for scripts.
pub fn get_gi(shown: Shown) -> String {
    let mut text = String::new();
    for generation in shown.generations {
        let _ = write!(text, "{generation:016X}:");
    }
    let flags = FLAGS.map(|flag| u8::from(shown.flags.has(flag)).to_string());
    text.push_str(&flags.join(":"));
    text.push('\n');
    text
}

/// The line with a legend, and what it means.
pub fn show_gi(shown: Shown, source: Source) -> String {
    let mut text = format!("{LEGEND_ABOVE}{}", get_gi(shown));
    let marks = |count: usize, mark: &str| vec![mark; count].join(" ");
    let _ = writeln!(text, "{:FLAGS_COLUMN$}{}", "", marks(FLAGS.len(), "^"));
    for (index, meaning) in MEANINGS.iter().enumerate() {
        let after = marks(MEANINGS.len() - 1 - index, "|");
        // Each meaning ends below its flag.
        let width = FLAGS_COLUMN + 2 * index + 1;
        let line = format!("{meaning:>width$} {after}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(text, "\nflags: {}", words(shown.flags));
    match source {
        Source::Daemon => text.push_str("meta-data: need apply-al\n"),
        Source::Disk {
            clean,
            agreed_sectors,
            peer_bio_bytes_max,
        } => {
            let state = if clean { "clean" } else { "need apply-al" };
            let _ = writeln!(text, "meta-data: {state}");
            if agreed_sectors == 0 {
                text.push_str("zero size device -- never seen peer yet?\n");
            } else {
                let size = rounded(agreed_sectors);
                let _ = writeln!(text, "last agreed size: {size} ({agreed_sectors} sectors)");
                let _ = writeln!(text, "last agreed max bio size: {peer_bio_bytes_max} Byte");
            }
        }
    }
    text
}

fn words(flags: Flags) -> String {
    let mut text = String::new();
    if flags.has(Flags::CRASHED_PRIMARY) {
        text.push_str("crashed ");
    }
    let choose = |flag, yes, no| if flags.has(flag) { yes } else { no };
    text.push_str(choose(Flags::PRIMARY, "Primary", "Secondary"));
    text.push_str(choose(Flags::CONNECTED, ", Connected", ", StandAlone"));
    text.push_str(
        match (
            flags.has(Flags::CONSISTENT),
            flags.has(Flags::WAS_UP_TO_DATE),
        ) {
            (false, _) => ", Inconsistent",
            (true, true) => ", UpToDate",
            (true, false) => ", Outdated",
        },
    );
    if flags.has(Flags::FULL_SYNC) {
        text.push_str(", need full sync");
    }
    if flags.has(Flags::PEER_OUTDATED) {
        text.push_str(", peer Outdated");
    }
    text
}

/// A size in the largest unit of which there are at least ten or so.
fn rounded(sectors: u64) -> String {
    /// Below this a number is shown in its unit.
    const SHOWN_MAX: u64 = 10_000;
    let mut size = sectors / 2;
    for unit in ["KB", "MB", "GB", "TB"] {
        if size < SHOWN_MAX {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1024;
    }
    format!("{size} PB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: Shown = Shown {
        generations: [0xACFE_533D_F97F_C6A5, 0, 0x86A1_80A2_8235_ECBD, 4],
        flags: Flags(0x002 | 0x004 | 0x040),
    };

    #[test]
    fn the_line_for_scripts_has_flags_in_their_order() {
        assert_eq!(
            get_gi(SHOWN),
            "ACFE533DF97FC6A5:0000000000000000:86A180A28235ECBD:0000000000000004:0:0:1:1:0:0:1\n"
        );
    }

    #[test]
    fn the_legend_is_drawn_as_the_tool_draws_it() {
        // Printed by drbdadm 9.22 for an attached device.
        let expected = "
       +--<  Current data generation UUID  >-
       |               +--<  Bitmap's base data generation UUID  >-
       |               |                 +--<  younger history UUID  >-
       |               |                 |         +-<  older history  >-
       V               V                 V         V
ACFE533DF97FC6A5:0000000000000000:86A180A28235ECBD:0000000000000004:0:0:1:1:0:0:1
                                                                    ^ ^ ^ ^ ^ ^ ^
                                      -<  Data consistency flag  >--+ | | | | | |
                             -<  Data was/is currently up-to-date  >--+ | | | | |
                                  -<  Node was/is currently primary  >--+ | | | |
                                  -<  Node was/is currently connected  >--+ | | |
         -<  Node was in the progress of setting all bits in the bitmap  >--+ | |
                        -<  The peer's disk was out-dated or inconsistent  >--+ |
      -<  This node was a crashed primary, and has not seen its peer since   >--+

flags: crashed Primary, Connected, Inconsistent
meta-data: need apply-al
";
        assert_eq!(show_gi(SHOWN, Source::Daemon), expected);
    }

    #[test]
    fn a_disk_says_whether_its_log_was_applied_and_what_was_agreed() {
        let clean = |agreed_sectors| {
            let source = Source::Disk {
                clean: true,
                agreed_sectors,
                peer_bio_bytes_max: 1 << 20,
            };
            show_gi(SHOWN, source)
        };
        assert!(clean(0).ends_with("meta-data: clean\nzero size device -- never seen peer yet?\n"));
        assert!(clean(204_720).ends_with(
            "meta-data: clean\nlast agreed size: 100 MB (204720 sectors)\nlast agreed max bio size: 1048576 Byte\n"
        ));
    }
}
