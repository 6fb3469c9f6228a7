//! Points in time as results show them. In UTC: lab machines keep no other.

use std::time::Duration;

/// A point in time, field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub microsecond: u32,
    /// Monday is 0.
    pub weekday: u32,
}

impl Moment {
    /// Takes the time since 1970.
    pub fn from_unix(since: Duration) -> Self {
        let seconds = since.as_secs();
        let days = i64::try_from(seconds / 86_400).expect("fewer days than seconds");
        let of_day = u32::try_from(seconds % 86_400).expect("less than a day");
        let (year, month, day) = date_of(days);
        Self {
            year,
            month,
            day,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            microsecond: since.subsec_micros(),
            // 1970 began on a Thursday.
            weekday: u32::try_from((days + 3).rem_euclid(7)).expect("below seven"),
        }
    }

    pub fn date(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    pub fn time(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }

    /// Returns Python's text of it: `2026-01-31 12:00:00.000000`.
    pub fn with_micros(&self) -> String {
        format!("{} {}.{:06}", self.date(), self.time(), self.microsecond)
    }
}

/// Returns year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn date_of(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = u32::try_from(of_year - (153 * month_index + 2) / 5 + 1).expect("a day of a month");
    let month = u32::try_from(if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    })
    .expect("a month");
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Returns a span of time as Python prints it: `0:00:01.000250`.
pub fn delta(span: Duration) -> String {
    let seconds = span.as_secs();
    let clock = format!(
        "{}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        span.subsec_micros()
    );
    clock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_fall_where_the_calendar_has_them() {
        let moment = Moment::from_unix(Duration::new(1_709_164_800 + 3661, 42_000));
        assert_eq!(moment.with_micros(), "2024-02-29 01:01:01.000042");
        assert_eq!(moment.weekday, 3);
        assert_eq!(Moment::from_unix(Duration::ZERO).date(), "1970-01-01");
        assert_eq!(
            delta(Duration::from_micros(3_661_000_250)),
            "1:01:01.000250"
        );
    }
}
