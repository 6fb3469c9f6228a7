//! `halab bench faults`: a client writes records through the service of exercise 05 while nodes lose their power,
//! stand still, lose a cable or start again; what was acknowledged has to be there afterwards.
//!
//! ```text
//!   plan (seed → faults) ──► campaign~ ──► lab: kill, pause, cables        what is broken, and mended
//!                               │   ▲ ───► nodes, by their control ports   who owns what, is all well again
//!                               ▼   │
//!                            judge, daemons, report                        what it means, as values
//!                               ▲
//!                            client~   in the lab's network: records and questions for the address's owner
//! ```

mod campaign;
mod client;
mod daemons;
mod judge;
mod plan;
mod report;
mod sights;

pub(super) use campaign::Campaign;
pub(super) use client::write_records;
pub(super) use plan::Kind;
pub(super) use plan::plan;
pub(super) use report::{Outcome, Played, as_json, as_table, head, line};
