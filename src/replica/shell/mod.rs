//! The daemon around the engine: one thread that owns the disk, the sockets, the device
//! and the tools' connections, and waits for all of them at once.

pub mod command;
pub mod control_socket;
pub mod driver;
pub mod file_store;
pub mod link;
pub mod record;
