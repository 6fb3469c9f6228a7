//! Mistakes that students make: what is done wrong, which points that costs, what is told first.

mod cluster;
mod lvs;
mod replication;

use super::set_up::{BOTH, ONE, THREE, TWO};

/// A mistake, made in a lab that is right otherwise.
pub(crate) struct Mistake {
    pub(crate) exercise: &'static str,
    pub(crate) name: &'static str,
    /// Commands by machine, or by `BOTH` nodes at once.
    pub(crate) done: &'static [(&'static str, &'static str)],
    pub(crate) lost: &'static [(&'static str, f64)],
    /// In the first cause of the first check that failed.
    pub(crate) diagnosis: &'static str,
}

/// The whole table, by exercise.
pub(crate) fn of(exercise: &str) -> impl Iterator<Item = &'static Mistake> {
    [lvs::MISTAKES, cluster::MISTAKES, replication::MISTAKES]
        .into_iter()
        .flatten()
        .filter(move |each| each.exercise == exercise)
}
