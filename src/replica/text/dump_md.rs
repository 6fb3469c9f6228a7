//! The text of `dump-md`, as drbdmeta 9.22 prints it.

use std::fmt::Write as _;

use crate::replica::layout::{Layout, Superblock};

/// Words of the bitmap on a line.
const LINE_WORDS: usize = 4;
/// After so many a comment says which data the next line stands for.
const COMMENT_WORDS: usize = 32;
/// KiB of data that a word stands for: 64 bits of 4 KiB.
const WORD_KIB: usize = 256;
/// Whole lines of the same word are folded from here on, where its two halves are the same
/// (drbdmeta compares 32 bits at a time).
const FOLDED_WORDS_MIN: usize = 8;

/// What stands in the head's comments.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Local time with its offset, and seconds since 1970.
    pub time: &'a str,
    pub epoch: u64,
    pub host: &'a str,
    pub command_line: &'a str,
}

/// Prints a whole metadata block. `bitmap` has every word that the agreed size needs,
/// rounded up to a page; none while no size was agreed.
pub fn dump_md(head: Head<'_>, layout: &Layout, superblock: &Superblock, bitmap: &[u64]) -> String {
    let mut text = format!(
        "# DRBD meta data dump\n# {} [{}]\n# {}> {}\n#\n\nversion \"v08\";\n\n",
        head.time, head.epoch, head.host, head.command_line
    );
    let _ = writeln!(text, "# md_size_sect {}", layout.metadata_sectors);
    let _ = writeln!(text, "# md_offset {}", layout.superblock_byte());
    let _ = writeln!(text, "# al_offset {}", layout.activity_byte());
    let _ = writeln!(text, "# bm_offset {}\n", layout.bitmap_byte());
    let generations = superblock.generations;
    text.push_str("uuid {\n   ");
    for generation in [
        generations.current,
        generations.bitmap,
        generations.history[0],
        generations.history[1],
    ] {
        let _ = write!(text, " 0x{:016X};", generation.0);
    }
    // This release prints no flags for this version, whatever they are.
    text.push_str("\n    flags 0x00000000;\n}\n");
    let _ = writeln!(text, "# al-extents {};", superblock.activity_extents);
    let _ = writeln!(text, "la-size-sect {};", superblock.agreed_sectors);
    let _ = writeln!(text, "bm-byte-per-bit 4096;");
    let _ = writeln!(text, "device-uuid 0x{:016X};", superblock.device_uuid);
    let _ = writeln!(
        text,
        "la-peer-max-bio-size {};",
        superblock.peer_bio_bytes_max
    );
    let _ = writeln!(text, "al-stripes {};", layout.ring.stripes);
    let _ = writeln!(text, "al-stripe-size-4k {};", layout.ring.stripe_blocks);
    let _ = writeln!(text, "# bm-bytes {};", bitmap.len() * 8);
    text.push_str("bm {\n");
    words(&mut text, bitmap);
    let set: u64 = bitmap.iter().map(|word| u64::from(word.count_ones())).sum();
    let _ = writeln!(text, "}}\n# bits-set {set};");
    text
}

fn words(text: &mut String, bitmap: &[u64]) {
    let mut at = 0;
    while at < bitmap.len() {
        if at % COMMENT_WORDS == 0 {
            let _ = writeln!(text, "   # at {}kB", at * WORD_KIB);
        }
        let word = bitmap[at];
        let same = bitmap[at..]
            .iter()
            .take_while(|other| **other == word)
            .count();
        let folded = same / LINE_WORDS * LINE_WORDS;
        if folded >= FOLDED_WORDS_MIN && word >> 32 == word & 0xffff_ffff {
            let _ = writeln!(text, "    {folded} times 0x{word:016X};");
            at += folded;
            continue;
        }
        let line = &bitmap[at..(at + LINE_WORDS).min(bitmap.len())];
        let line: Vec<String> = line.iter().map(|word| format!("0x{word:016X};")).collect();
        let _ = writeln!(text, "    {}", line.join(" "));
        at += LINE_WORDS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::generation::{Generation, Generations};
    use crate::replica::layout::{Flags, Placement, Ring};

    /// No half is like the other.
    const UNEVEN: u64 = 0x0123_4567_89AB_CDEF;

    /// Words of a bitmap, and drbdmeta's own dump of it: long runs of uneven words, and
    /// runs around the length from which even ones are folded.
    fn recorded() -> [(Vec<u64>, &'static str); 2] {
        let mut uneven = vec![UNEVEN];
        for length in 63..72u64 {
            uneven.extend(vec![length; usize::try_from(length).expect("small")]);
        }
        let mut even = Vec::new();
        for word in [0, u64::MAX, 0x0000_0005_0000_0005] {
            for length in [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 20] {
                even.extend(vec![word; length]);
                even.extend(vec![UNEVEN; LINE_WORDS - even.len() % LINE_WORDS]);
            }
        }
        [
            (uneven, include_str!("recorded/uneven.dump-md")),
            (even, include_str!("recorded/even.dump-md")),
        ]
    }

    #[test]
    fn a_dump_is_what_drbdmeta_prints() {
        let layout = Layout::of(Placement::Internal, 524_288, Ring::default()).expect("256 MiB");
        let superblock = Superblock {
            agreed_sectors: 524_192,
            generations: Generations {
                current: Generation(0x1111_1111_1111_1110),
                bitmap: Generation(0x2222_2222_2222_2222),
                history: [Generation(0x3333_3333_3333_3332), Generation(0)],
            },
            device_uuid: 0,
            flags: Flags(0x91),
            activity_extents: 257,
            peer_bio_bytes_max: 1 << 20,
        };
        let head = Head {
            time: "2026-11-28 00:24:28 +0000",
            epoch: 1_795_825_468,
            host: "saisp-vm-2",
            command_line: "drbdmeta 7 v08 /dev/loop2 internal dump-md",
        };
        for (mut bitmap, expected) in recorded() {
            bitmap.resize(1024, 0);
            assert_eq!(dump_md(head, &layout, &superblock, &bitmap), expected);
        }
    }
}
