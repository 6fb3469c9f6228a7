//! Grading: what a playbook's checks came to, and every form in which that is told.
//!
//! ```text
//! grade file ─► playbook::grading (checks) ─► run::dispatcher ─► Gradebook: open, note, close
//!                                                                   │ CheckResult
//!      terminal, JSON, JUnit, HTML, CSV, Gradescope ◄─ Report ◄─────┘
//! ```
//!
//! Everything here is pure: whose machines are asked, on which copy of the lab, is decided in
//! [`cli`](crate::cli).

pub mod book;
pub mod csv;
pub mod gradescope;
pub mod header;
pub mod html;
pub mod junit;
pub mod outcome;
pub mod picture;
pub mod report;
pub mod submissions;
pub mod terminal;
pub mod words;
