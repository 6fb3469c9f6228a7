//! Times of many requests in four figures.

use serde::Serialize;

/// In seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub min: f64,
    pub median: f64,
    /// Ninety-nine of a hundred took at most this long.
    pub p99: f64,
    pub max: f64,
}

/// Returns the four figures of some times; `None` of none.
pub fn latency(seconds: &[f64]) -> Option<Latency> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Nearest rank: the smallest value that at least so many hundredths do not exceed.
    let rank = |hundredths: usize| (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
    Some(Latency {
        min: *sorted.first()?,
        median: sorted[rank(50)],
        p99: sorted[rank(99)],
        max: *sorted.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundredth_may_be_slower_than_p99() {
        let mut times: Vec<f64> = (1..=200).map(f64::from).collect();
        times.reverse();
        let expected = Latency {
            min: 1.0,
            median: 100.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(latency(&times), Some(expected));
        assert_eq!(latency(&[7.0]).map(|found| found.p99), Some(7.0));
        assert_eq!(latency(&[]), None);
    }
}
