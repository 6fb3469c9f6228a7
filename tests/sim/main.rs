//! Simulated clusters: the same cores, seeded worlds, invariants after every step.
//!
//! `HALAB_SIM_RUNS=100000 cargo test --profile sim --test sim` runs more of them.

mod heartbeat;
mod replica;
