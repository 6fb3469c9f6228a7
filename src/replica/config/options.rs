//! Every option of 8.4: where it stands, what it takes, its bounds.

use super::model::Section;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `yes` or `no`; alone it is yes.
    Switch,
    /// Stands alone.
    Flag,
    Number {
        unit: Unit,
        min: u64,
        max: u64,
    },
    /// The name of a digest.
    Digest,
    /// Both nodes' secret: shown nowhere.
    Secret,
    Text,
    /// One or more names.
    Names,
    /// A policy, or `discard-node-NAME`.
    SplitBrainPolicy(&'static [&'static str]),
}

/// What a number without a suffix counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    One,
    Bytes,
    KibiBytes,
    Sectors,
}

#[derive(Debug, PartialEq, Eq)]
pub struct OptionSpec {
    pub section: Section,
    pub name: &'static str,
    pub kind: Kind,
}

/// The kernel's digests that can be computed here; what the module offers beyond them is
/// refused when a daemon is to use it, not when it is read.
pub const DIGESTS: &[&str] = &["md5", "sha1", "sha256", "sha384", "sha512", "crc32c"];

/// The module's limit, its NUL not counted.
pub const SECRET_BYTES_MAX: usize = 63;

const fn option(section: Section, name: &'static str, kind: Kind) -> OptionSpec {
    OptionSpec {
        section,
        name,
        kind,
    }
}

const fn number(unit: Unit, min: u64, max: u64) -> Kind {
    Kind::Number { unit, min, max }
}

use Kind::{Choice, Digest, Flag, Names, Secret, SplitBrainPolicy, Switch, Text};
use Section::{Disk, Global, Net, Options, Startup};
use Unit::{Bytes, KibiBytes, One, Sectors};

const OPTIONS: &[OptionSpec] = &[
    option(Global, "disable-ip-verification", Flag),
    option(Global, "minor-count", number(One, 1, 255)),
    option(Global, "dialog-refresh", number(One, 0, 600)),
    option(Global, "usage-count", Choice(&["yes", "no", "ask"])),
    option(Global, "udev-always-use-vnr", Flag),
    option(Global, "cmd-timeout-short", number(One, 0, 900)),
    option(Global, "cmd-timeout-medium", number(One, 0, 900)),
    option(Global, "cmd-timeout-long", number(One, 0, 900)),
    option(Net, "protocol", Choice(&["A", "B", "C"])),
    option(Net, "cram-hmac-alg", Digest),
    option(Net, "shared-secret", Secret),
    option(Net, "verify-alg", Digest),
    option(Net, "csums-alg", Digest),
    option(Net, "data-integrity-alg", Digest),
    option(
        Net,
        "after-sb-0pri",
        SplitBrainPolicy(&[
            "disconnect",
            "discard-younger-primary",
            "discard-older-primary",
            "discard-zero-changes",
            "discard-least-changes",
            "discard-local",
            "discard-remote",
        ]),
    ),
    option(
        Net,
        "after-sb-1pri",
        Choice(&[
            "disconnect",
            "consensus",
            "violently-as0p",
            "discard-secondary",
            "call-pri-lost-after-sb",
        ]),
    ),
    option(
        Net,
        "after-sb-2pri",
        Choice(&["disconnect", "violently-as0p", "call-pri-lost-after-sb"]),
    ),
    option(
        Net,
        "rr-conflict",
        Choice(&["disconnect", "violently", "call-pri-lost"]),
    ),
    option(
        Net,
        "on-congestion",
        Choice(&["block", "pull-ahead", "disconnect"]),
    ),
    option(Net, "allow-two-primaries", Switch),
    option(Net, "always-asbp", Switch),
    option(Net, "csums-after-crash-only", Switch),
    option(Net, "use-rle", Switch),
    option(Net, "tcp-cork", Switch),
    option(Net, "discard-my-data", Switch),
    option(Net, "tentative", Switch),
    option(Net, "timeout", number(One, 1, 600)),
    option(Net, "connect-int", number(One, 1, 120)),
    option(Net, "ping-int", number(One, 1, 120)),
    option(Net, "ping-timeout", number(One, 1, 300)),
    option(Net, "socket-check-timeout", number(One, 0, 300)),
    option(Net, "max-epoch-size", number(One, 1, 20_000)),
    option(Net, "max-buffers", number(One, 32, 131_072)),
    option(Net, "unplug-watermark", number(One, 1, 131_072)),
    option(Net, "sndbuf-size", number(Bytes, 0, 10 << 20)),
    option(Net, "rcvbuf-size", number(Bytes, 0, 10 << 20)),
    option(Net, "ko-count", number(One, 0, 200)),
    option(Net, "congestion-fill", number(Sectors, 0, 20_971_520)),
    option(Net, "congestion-extents", number(One, 67, 65_534)),
    option(Disk, "size", number(Sectors, 0, 1 << 41)),
    option(
        Disk,
        "on-io-error",
        Choice(&["detach", "pass_on", "call-local-io-error"]),
    ),
    option(
        Disk,
        "fencing",
        Choice(&["dont-care", "resource-only", "resource-and-stonith"]),
    ),
    option(
        Disk,
        "read-balancing",
        Choice(&[
            "prefer-local",
            "prefer-remote",
            "round-robin",
            "least-pending",
            "when-congested-remote",
            "32K-striping",
            "64K-striping",
            "128K-striping",
            "256K-striping",
            "512K-striping",
            "1M-striping",
        ]),
    ),
    option(Disk, "disk-barrier", Switch),
    option(Disk, "disk-flushes", Switch),
    option(Disk, "disk-drain", Switch),
    option(Disk, "md-flushes", Switch),
    option(Disk, "al-updates", Switch),
    option(Disk, "discard-zeroes-if-aligned", Switch),
    option(Disk, "disable-write-same", Switch),
    option(Disk, "resync-after", Text),
    option(Disk, "resync-rate", number(KibiBytes, 1, 4_194_304)),
    option(Disk, "al-extents", number(One, 67, 65_534)),
    option(Disk, "c-plan-ahead", number(One, 0, 300)),
    option(Disk, "c-delay-target", number(One, 1, 100)),
    option(Disk, "c-fill-target", number(Sectors, 0, 1_048_576)),
    option(Disk, "c-max-rate", number(KibiBytes, 250, 4_194_304)),
    option(Disk, "c-min-rate", number(KibiBytes, 0, 4_194_304)),
    option(Disk, "disk-timeout", number(One, 0, 6000)),
    option(Disk, "max-bio-bvecs", number(One, 0, 128)),
    option(Disk, "rs-discard-granularity", number(Bytes, 0, 1_048_576)),
    option(Options, "cpu-mask", Text),
    option(
        Options,
        "on-no-data-accessible",
        Choice(&["io-error", "suspend-io"]),
    ),
    option(Startup, "wfc-timeout", number(One, 0, 300_000)),
    option(Startup, "degr-wfc-timeout", number(One, 0, 300_000)),
    option(Startup, "outdated-wfc-timeout", number(One, 0, 300_000)),
    option(Startup, "wait-after-sb", Switch),
    option(Startup, "stacked-timeouts", Switch),
    option(Startup, "become-primary-on", Names),
];

/// Handlers the module and the tools call.
pub const HANDLERS: &[&str] = &[
    "pri-on-incon-degr",
    "pri-lost-after-sb",
    "pri-lost",
    "initial-split-brain",
    "split-brain",
    "fence-peer",
    "unfence-peer",
    "outdate-peer",
    "local-io-error",
    "before-resync-target",
    "before-resync-source",
    "after-resync-target",
    "out-of-sync",
    "quorum-lost",
    "disconnected",
];

/// How the deprecated `syncer` section's options are called today: (section, name).
const SYNCER: &[(&str, Section, &str)] = &[
    ("rate", Disk, "resync-rate"),
    ("after", Disk, "resync-after"),
    ("al-extents", Disk, "al-extents"),
    ("c-plan-ahead", Disk, "c-plan-ahead"),
    ("c-delay-target", Disk, "c-delay-target"),
    ("c-fill-target", Disk, "c-fill-target"),
    ("c-max-rate", Disk, "c-max-rate"),
    ("c-min-rate", Disk, "c-min-rate"),
    ("verify-alg", Net, "verify-alg"),
    ("csums-alg", Net, "csums-alg"),
    ("use-rle", Net, "use-rle"),
    ("cpu-mask", Options, "cpu-mask"),
    ("on-no-data-accessible", Options, "on-no-data-accessible"),
];

/// Switches that were once written in the negative.
const NEGATIVES: &[(&str, Section, &str)] = &[
    ("no-disk-barrier", Disk, "disk-barrier"),
    ("no-disk-flushes", Disk, "disk-flushes"),
    ("no-disk-drain", Disk, "disk-drain"),
    ("no-md-flushes", Disk, "md-flushes"),
    ("no-tcp-cork", Net, "tcp-cork"),
];

/// An option as it was found by a name, however old the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub spec: &'static OptionSpec,
    /// The name says no by itself.
    pub negative: bool,
}

/// Returns the option of this name in a section.
pub fn find(section: Section, name: &str) -> Option<Found> {
    if let Some(spec) = exact(section, name) {
        return Some(Found {
            spec,
            negative: false,
        });
    }
    let renamed = |table: &'static [(&str, Section, &str)], anywhere: bool| {
        let (_, section, name) = table
            .iter()
            .find(|(old, of, _)| *old == name && (anywhere || *of == section))?;
        exact(*section, name)
    };
    if section == Section::Syncer
        && let Some(spec) = renamed(SYNCER, true)
    {
        return Some(Found {
            spec,
            negative: false,
        });
    }
    renamed(NEGATIVES, false).map(|spec| Found {
        spec,
        negative: true,
    })
}

fn exact(section: Section, name: &str) -> Option<&'static OptionSpec> {
    OPTIONS
        .iter()
        .find(|spec| spec.section == section && spec.name == name)
}

/// Returns the names that can be written in a section.
pub fn names(section: Section) -> Vec<&'static str> {
    match section {
        Section::Syncer => SYNCER.iter().map(|(name, ..)| *name).collect(),
        Section::Handlers => HANDLERS.to_vec(),
        section => OPTIONS
            .iter()
            .filter(|spec| spec.section == section)
            .map(|spec| spec.name)
            .collect(),
    }
}

/// Returns the section that has an option of this name, for a hint.
pub fn section_of(name: &str) -> Option<Section> {
    OPTIONS
        .iter()
        .find(|spec| spec.name == name)
        .map(|spec| spec.section)
}

/// Why a text is no number of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumberError {
    NotANumber,
    OutOfRange,
}

/// Reads a number with its suffix into the option's unit.
pub fn read_number(text: &str, unit: Unit, min: u64, max: u64) -> Result<u64, NumberError> {
    let digits_end = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    let unit_bytes = match unit {
        One | Bytes => 1,
        KibiBytes => 1024,
        Sectors => 512,
    };
    let suffix_bytes: u64 = match suffix {
        "" => unit_bytes,
        "s" | "S" => 512,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err(NumberError::NotANumber),
    };
    if digits.is_empty() {
        return Err(NumberError::NotANumber);
    }
    let value = digits
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(suffix_bytes))
        .ok_or(NumberError::OutOfRange)?
        / unit_bytes;
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(NumberError::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_in_the_options_own_unit() {
        let kib = |text| read_number(text, KibiBytes, 1, 4_194_304);
        assert_eq!(kib("10M"), Ok(10_240));
        assert_eq!(kib("250"), Ok(250));
        assert_eq!(kib("5G"), Err(NumberError::OutOfRange));
        assert_eq!(kib("512"), Ok(512));
        assert_eq!(kib("ten"), Err(NumberError::NotANumber));
        assert_eq!(kib("10X"), Err(NumberError::NotANumber));
        let sectors = |text| read_number(text, Sectors, 0, 1 << 41);
        assert_eq!(sectors("1G"), Ok(2_097_152));
        assert_eq!(sectors("100s"), Ok(100));
        assert_eq!(
            sectors("99999999999999999999"),
            Err(NumberError::OutOfRange)
        );
    }

    #[test]
    fn old_names_lead_to_todays_options() {
        let rate = find(Section::Syncer, "rate").expect("syncer has a rate");
        assert_eq!((rate.spec.section, rate.spec.name), (Disk, "resync-rate"));
        let cork = find(Net, "no-tcp-cork").expect("it was in net");
        assert_eq!((cork.spec.name, cork.negative), ("tcp-cork", true));
        assert_eq!(find(Disk, "no-tcp-cork"), None);
        assert_eq!(find(Net, "resync-rate"), None);
        assert_eq!(section_of("resync-rate"), Some(Disk));
    }

    #[test]
    fn every_renaming_has_an_option() {
        for (_, section, name) in SYNCER.iter().chain(NEGATIVES) {
            assert!(exact(*section, name).is_some(), "{name}");
        }
    }
}
