//! Values of ha.cf: times, truth, numbers.

use std::time::Duration;

/// Longest time taken: a day, so that sums of times stay far from any limit.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a time: seconds unless it ends in `ms`, `msec`, `us` or `usec`.
pub fn time(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "" => 1.0,
        "ms" | "msec" => 1e-3,
        "us" | "usec" => 1e-6,
        "s" | "sec" => {
            return Err(format!("seconds have no unit here: write `{number}`"));
        }
        other => {
            return Err(format!(
                "`{other}` is no unit: `ms`, `us`, or none for seconds"
            ));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a time is a number, such as `2`, `0.5` or `500ms`".to_owned())?;
    let time = Duration::try_from_secs_f64(number * seconds)
        .map_err(|error| format!("not a time: {error}"))?;
    if time > TIME_MAX {
        return Err("more than a day".into());
    }
    Ok(time)
}

/// Reads a boolean in any of the spellings heartbeat knows.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "on" | "yes" | "y" | "1" => Ok(true),
        "false" | "off" | "no" | "n" | "0" => Ok(false),
        _ => Err("`on` or `off`".into()),
    }
}

/// Reads a whole number within a range.
pub fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let expected = || format!("a whole number from {} to {}", range.start(), range.end());
    let number = text.parse().map_err(|_| expected())?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(expected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_heartbeats_units() {
        assert_eq!(time("2"), Ok(Duration::from_secs(2)));
        assert_eq!(time("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(time("1500us"), Ok(Duration::from_micros(1500)));
    }

    #[test]
    fn ten_s_is_refused_with_the_right_spelling() {
        assert_eq!(
            time("10s"),
            Err("seconds have no unit here: write `10`".into())
        );
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in [
            "",
            "x",
            "1.2.3",
            "-1",
            "99999999999999999999",
            "90000",
            "1h",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_have_many_names() {
        assert_eq!(boolean("Yes"), Ok(true));
        assert_eq!(boolean("n"), Ok(false));
        assert_eq!(boolean("maybe"), Err("`on` or `off`".into()));
    }
}
