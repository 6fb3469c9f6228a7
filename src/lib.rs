//! halab runs high-availability labs: it boots a topology of virtual machines, runs exercises on
//! them, and puts everything back as it was.
//!
//! # Two programs, one package
//!
//! ```text
//!   halab (host)                                        halab-agent (guest)
//!   ┌──────────────────────────────────────────┐        ┌──────────────────────────────────┐
//!   │ cli ── playbook ── run ── report         │  ssh   │ agent ── modules                 │
//!   │            │         │                   │ frames │   │                              │
//!   │           task ── remote ────────────────┼────────┼─ task     ipvs ── netlink        │
//!   │  vm ── QMP, namespace, images, snapshots │        │          heartbeat, replica      │
//!   └──────────────────────────────────────────┘        └──────────────────────────────────┘
//! ```
//!
//! `halab` ([`cli`]) reads a topology ([`vm`]) and playbooks ([`playbook`]), decides what runs
//! where ([`run`]), and sends tasks to hosts ([`remote`]). `halab-agent` (`agent`) is given to
//! machines when they first boot, else uploaded over SSH, started once a connection, and runs the
//! tasks inside the guest. What both must agree on stands between them: [`base::wire`] (the
//! messages) and [`task`] (the modules, their arguments, and the pure plans from what is there to
//! what is wanted). Both watch the wire with [`capture`]: `halab capture` on the lab's networks,
//! the module `packet_check` on a host.
//!
//! # Pure cores, thin shells
//!
//! Most files decide and do nothing else: they take values and return values, with no file,
//! process, socket, clock or runtime, so that every decision is tested with none of them. The
//! few that touch the outside are listed in `tests/tidy.rs`; a new one is a visible line there.
//!
//! Imports point one way: [`base`] ← pure files ← shells ← [`cli`] ← the programs. Host side and
//! guest side do not import each other's shells. Feature `orchestrator` is the host side, feature
//! `agent` the guest side; each builds alone.
//!
//! # What lives where at run time
//!
//! | what | where | who writes it |
//! |---|---|---|
//! | a lab's disks, keys, sockets, logs, state | `$XDG_STATE_HOME/halab/LAB/` | whoever holds the lab's lock |
//! | images and warm snapshots | `$XDG_CACHE_HOME/halab/`, named by what they were made of | one builder at a time, by rename |
//! | the lab's network | a namespace of its own, kept by a small process | `up`; gone with `down` |
//! | the agent | `/usr/local/lib/halab/` in each guest, named by its hash | the first connection |
//!
//! Whatever another process may rely on is written before it is relied on, so that a kill at any
//! moment leaves nothing that `halab status` does not know.
//!
//! # Reading order
//!
//! 1. [`base::diagnostic`] and [`base::yaml`]: texts, places, problems.
//! 2. [`vm::spec`], [`vm::lifecycle`]: what a lab is, and the life of a machine.
//! 3. [`playbook::model`]: a playbook that cannot be wrong; then [`run::schedule`], who does what next.
//! 4. [`grade::book`], [`grade::report`]: what a grade file's checks came to, and how it is told.
//! 5. [`task::kind`]: what a module is; then a plan such as [`ipvs::diff`], and its shell beside it.

#[cfg(feature = "agent")]
pub mod agent;
pub mod base;
pub mod capture;
#[cfg(feature = "orchestrator")]
pub mod cli;
#[cfg(feature = "orchestrator")]
pub mod grade;
pub mod heartbeat;
pub mod ipvs;
#[cfg(feature = "orchestrator")]
pub mod playbook;
#[cfg(feature = "orchestrator")]
pub mod remote;
pub mod replica;
#[cfg(feature = "orchestrator")]
pub mod report;
#[cfg(feature = "orchestrator")]
pub mod run;
pub mod task;
#[cfg(feature = "orchestrator")]
pub mod vm;
