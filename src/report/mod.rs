//! A run's events as text: the only place, with `cli` and `bin`, that prints.

pub mod diff;
pub mod html;
pub mod json;
pub mod plain;
pub mod progress;
pub mod python;
pub mod recorder;
pub mod reporter;
pub mod view;
