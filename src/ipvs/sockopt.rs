//! The kernel's older ear for IPVS, `getsockopt`: only to read destinations faster than netlink
//! tells them. Whatever it does not know or refuses is asked by netlink.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::codec::entries::{self, Place};
use super::model::{DestinationEntry, ServiceId};

/// The options' numbers begin where netfilter's begin, and 1024 behind.
const BASE: i32 = 64 + 1024 + 64;
const GET_SERVICES: i32 = BASE + 2;
const GET_DESTINATIONS: i32 = BASE + 4;
const GET_INFO: i32 = BASE + 1;
/// Version, size of the connection table, number of services.
const INFO: usize = 12;

/// An open socket, and how many destinations each service had when it was opened.
#[derive(Debug)]
pub(super) struct Entries {
    socket: OwnedFd,
    counts: HashMap<Place, u32>,
}

impl Entries {
    /// `None` where the kernel does not answer here.
    pub(super) fn open() -> Option<Self> {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .ok()?;
        let mut info = vec![0; INFO];
        ask(&socket, GET_INFO, &mut info)?;
        let count = u32::from_ne_bytes(info[8..INFO].try_into().ok()?);
        let mut answer = entries::services_query(count);
        ask(&socket, GET_SERVICES, &mut answer)?;
        let counts = entries::services(&answer).collect();
        Some(Self { socket, counts })
    }

    /// The destinations of a service without their counters, in the kernel's order.
    pub(super) fn destinations(&self, id: ServiceId) -> Option<Vec<DestinationEntry>> {
        let place = Place::of(id)?;
        let mut answer = place.destinations_query(*self.counts.get(&place)?);
        ask(&self.socket, GET_DESTINATIONS, &mut answer)?;
        entries::destinations(&answer)
    }
}

/// Fills the question with its answer, which has the same length.
fn ask(socket: &OwnedFd, option: i32, bytes: &mut [u8]) -> Option<()> {
    let mut length = libc::socklen_t::try_from(bytes.len()).ok()?;
    #[expect(unsafe_code, reason = "nix does not know IPVS's options")]
    // SAFETY: the pointer is to `bytes`, which outlives the call, with their length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(())
}
