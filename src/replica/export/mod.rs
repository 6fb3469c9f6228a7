//! The block device that applications open: the kernel's requests, taken and answered.
//!
//! ```text
//!  ublk     commands on a ring; the block device of choice, since Linux 6.5
//!  nbd      a socket pair, where the kernel has no ublk
//!  abi      ublk's structures as bytes
//!  wire     nbd's packets as bytes
//!  node     the name under which applications know the device
//!  file     requests answered from a plain file: for tests and figures
//! ```
//!
//! An export belongs to one thread. A device whose daemon died waits for the next one,
//! its writers with it ([`Export::interrupted`]); a daemon that ends in order takes it away.

mod abi;
pub mod file;
mod nbd;
mod node;
mod ublk;
mod wire;

use std::io;

use super::buffers::Pool;
use super::device::Export;

/// How the device is shown to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// ublk, and NBD where there is none.
    #[default]
    Auto,
    Ublk,
    Nbd,
}

/// Prepares a device under the path that applications open; it appears when the engine
/// says that it shall. Until then the path is there and cannot be opened.
///
/// Fails where the kernel's own DRBD has a device of that minor number.
pub fn open(backend: Backend, path: &str, minor: u32, pool: &Pool) -> io::Result<Box<dyn Export>> {
    match backend {
        Backend::Ublk => Ok(Box::new(ublk::Ublk::open(path, minor, pool)?)),
        Backend::Nbd => Ok(Box::new(nbd::Nbd::open(path, minor, pool)?)),
        Backend::Auto => match ublk::Ublk::open(path, minor, pool) {
            Ok(export) => Ok(Box::new(export)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(error),
            Err(_) => Ok(Box::new(nbd::Nbd::open(path, minor, pool)?)),
        },
    }
}

/// Loads a kernel module when its file is not there; whoever opens the file says why not.
fn load_module(name: &str, its_file: &str) {
    if !std::path::Path::new(its_file).exists() {
        let _ = std::process::Command::new("modprobe")
            .args(["-q", name])
            .status();
    }
}
