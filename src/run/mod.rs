//! A playbook against hosts: what comes next on which host, doing it, saying what happened.
//!
//! ```text
//! model::Play ─► plan (slots) ─► schedule (who does what next)      pure
//!                                    ▲ results   │ turns
//!                                 dispatcher ────┴─► executor ─► action ─► staged ─► Remote
//!                                    │ events                    one task on one host
//!                                    ▼
//!                                 report
//! ```

mod action;
pub mod connection;
pub mod dispatcher;
pub mod event;
pub mod executor;
mod grading;
mod keyword;
pub mod listing;
pub mod plan;
pub mod recap;
pub mod result;
pub mod schedule;
pub mod sequence;
pub mod services;
mod staged;
pub mod tags;
