//! The daemon and its tools: sockets, scripts, files, signals around the state machine.
//!
//! ```text
//!  command  what was typed: heartbeat, cl_status, hb_standby, hb_takeover
//!  daemon   reads the files, starts a run, starts again when a run says so
//!  driver   one run: the only thread that touches the node; waits in poll
//!   ├─ media    UDP sockets; pinger: echo requests
//!   ├─ worker   one thread; one resource command at a time
//!   │   └─ resource: ip_address, filesystem, drbd, service, script
//!   └─ control  one thread; a socket for the tools
//!  journal  log lines as heartbeat writes them
//!  stand_in the agent in the package's place: names, unit, init script
//!  store    generation and UUID, saved before the first packet
//! ```

pub mod command;
mod control;
mod daemon;
mod driver;
mod filesystem;
mod ip_address;
mod journal;
mod media;
mod paths;
mod pinger;
mod resource;
pub mod stand_in;
mod store;
mod worker;
