//! Sizes with their units: parsed from what people write, shown as they would write it.

use std::fmt;
use std::str::FromStr;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{typed}` is no size: expected a number and a unit, such as `384 MiB` or `1 GiB`")]
pub struct ByteSizeError {
    typed: String,
}

impl ByteSize {
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn from_mib(mib: u64) -> Self {
        Self(mib * MIB)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Returns whole mebibytes, rounded down.
    pub const fn mib(self) -> u64 {
        self.0 / MIB
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    /// Reads `384 MiB`, `384M` (the same), `1 GB` (a thousand million) and plain bytes (`512 B`).
    fn from_str(typed: &str) -> Result<Self, ByteSizeError> {
        let error = || ByteSizeError {
            typed: typed.to_owned(),
        };
        let text = typed.trim();
        let digits = text
            .find(|each: char| !each.is_ascii_digit())
            .ok_or_else(error)?;
        let number: u64 = text[..digits].parse().map_err(|_| error())?;
        let unit = match text[digits..].trim_start() {
            "B" => 1,
            "K" | "KiB" => KIB,
            "M" | "MiB" => MIB,
            "G" | "GiB" => GIB,
            "T" | "TiB" => TIB,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(error()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    /// Writes the largest unit that leaves a whole number.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        match units
            .into_iter()
            .find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(formatter, "{} {name}", self.0 / unit),
            None => write!(formatter, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units_and_written_back() {
        for (typed, shown) in [
            ("384 MiB", "384 MiB"),
            ("384M", "384 MiB"),
            ("2048 MiB", "2 GiB"),
            ("512 B", "512 B"),
            ("1 kB", "1000 B"),
        ] {
            let size: ByteSize = typed.parse().expect("a size");
            assert_eq!(size.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for typed in [
            "",
            "384",
            "MiB",
            "-1 MiB",
            "1.5 GiB",
            "1 XiB",
            "99999999999 TiB",
        ] {
            assert!(typed.parse::<ByteSize>().is_err(), "{typed}");
        }
    }
}
