//! A playbook against hosts: what comes next on which host, doing it, saying what happened.

pub mod event;
pub mod recap;
