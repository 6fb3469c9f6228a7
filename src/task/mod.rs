//! Modules as data and decisions: which there are, what they take, and what each would
//! change given the facts of a host. Nothing here touches a host; `agent` does.

pub mod coerce;
pub mod kind;
pub mod mode;
pub mod table;
