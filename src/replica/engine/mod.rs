//! One node of a pair: everything that happens to it goes in, everything it does comes out.
//!
//! [`Engine::handle`] takes an [`Event`] with the time; [`Engine::take_actions`] returns
//! what is to be done, in an order that matters: **what comes after an [`Action::Save`]
//! happens only when the save is on disk.** So nobody, neither the peer nor an application,
//! ever learns of anything that a crash could undo.
//!
//! | file | what |
//! |---|---|
//! | `types` | events, actions |
//! | `core` | the engine's parts; one node's life; timers |
//! | `change` | from one state to the next, and all that it implies |
//! | `metadata` | attach, superblock, activity log, bitmap; detach |
//! | `session` | the connection: finding the peer, handshake, loss |
//! | `agreement` | the peer's parameters, sizes, generations, states; the decision |
//! | `requests` | the application's reads, writes, flushes; epochs |
//! | `peer` | the peer's writes and reads |
//! | `resync`, `verify` | copying what differs; finding what differs |
//! | `command`, `status` | what the tools ask and see |

mod agreement;
mod change;
mod command;
mod core;
mod metadata;
mod peer;
mod requests;
mod resync;
mod session;
mod status;
mod types;
mod verify;

pub use self::core::{Breakage, Engine};
pub use self::types::{Action, DiskIo, DiskOp, Event, OpenedDisk, Save};
