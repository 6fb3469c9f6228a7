//! Why the kernel refused: its error numbers in the words ipvsadm's users know.
//!
//! A number means different things for different requests, so the request comes along:
//! first the words for this request, then the general ones, then the C library's.

use std::fmt;

use super::model::Change;

/// Error numbers the kernel's IPVS answers with (Linux, all architectures alike up to 34).
mod number {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ESRCH: i32 = 3;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ERANGE: i32 = 34;
    pub(super) const EMSGSIZE: i32 = 90;
    pub(super) const ENOPROTOOPT: i32 = 92;
    pub(super) const EOPNOTSUPP: i32 = 95;
    pub(super) const EAFNOSUPPORT: i32 = 97;
}

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    AddService,
    EditService,
    DeleteService,
    AddDestination,
    EditDestination,
    DeleteDestination,
    Flush,
    Zero,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    GetService,
    GetServices,
    GetDestinations,
    GetTimeouts,
    GetDaemons,
    GetInfo,
}

impl From<&Change> for Operation {
    fn from(change: &Change) -> Self {
        match change {
            Change::AddService(_) => Self::AddService,
            Change::EditService(_) => Self::EditService,
            Change::DeleteService(_) => Self::DeleteService,
            Change::AddDestination(..) => Self::AddDestination,
            Change::EditDestination(..) => Self::EditDestination,
            Change::DeleteDestination(..) => Self::DeleteDestination,
            Change::Flush => Self::Flush,
            Change::Zero(_) => Self::Zero,
            Change::SetTimeouts(_) => Self::SetTimeouts,
            Change::StartDaemon(_) => Self::StartDaemon,
            Change::StopDaemon { .. } => Self::StopDaemon,
        }
    }
}

/// The kernel's "no", with what it was said to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub operation: Operation,
    pub errno: i32,
}

impl Refusal {
    /// The reader may not touch the tables, whatever it asked.
    pub fn is_permission(self) -> bool {
        self.errno == number::EPERM
    }

    /// The scheduler, engine or destination is not there.
    pub fn is_not_found(self) -> bool {
        self.errno == number::ENOENT
    }

    /// The service or daemon is not there.
    pub fn is_unknown(self) -> bool {
        self.errno == number::ESRCH
    }

    /// What was to be made is there already.
    pub fn is_present(self) -> bool {
        self.errno == number::EEXIST
    }

    /// A number makes no sense beside another.
    pub fn is_range(self) -> bool {
        self.errno == number::ERANGE
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match words_of_operation(self.operation, self.errno).or_else(|| words_of_number(self.errno))
        {
            Some(words) => f.write_str(words),
            None => f.write_str(&words_of_library(self.errno)),
        }
    }
}

fn words_of_operation(operation: Operation, errno: i32) -> Option<&'static str> {
    use Operation as O;
    use number::{EEXIST, ENOENT, ESRCH};
    Some(match (operation, errno) {
        (O::AddService, EEXIST) => "Service already exists",
        (O::AddService | O::EditService, ENOENT) => "Scheduler or persistence engine not found",
        (O::EditService | O::DeleteService | O::Zero | O::GetService | O::GetServices, ESRCH) => {
            "No such service"
        }
        (O::AddDestination | O::EditDestination | O::DeleteDestination, ESRCH) => {
            "Service not defined"
        }
        (O::AddDestination, EEXIST) => "Destination already exists",
        (O::EditDestination | O::DeleteDestination, ENOENT) => "No such destination",
        (O::StartDaemon, EEXIST) => "Daemon has already run",
        (O::StopDaemon, ESRCH) => "No daemon is running",
        _ => return None,
    })
}

fn words_of_number(errno: i32) -> Option<&'static str> {
    use number as n;
    Some(match errno {
        n::EPERM => "Permission denied (you must be root)",
        n::EINVAL => "Invalid operation.  Possibly wrong module version, address not unicast, ...",
        n::ENOPROTOOPT => "Protocol not available",
        n::ENOMEM => "Memory allocation problem",
        n::EOPNOTSUPP => "Operation not supported with IPv6",
        n::EAFNOSUPPORT => "Operation not supported with specified address family",
        n::EMSGSIZE => "Module is wrong version",
        _ => return None,
    })
}

fn words_of_library(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_says_what_was_asked() {
        let words = |operation, errno| Refusal { operation, errno }.to_string();
        assert_eq!(
            words(Operation::AddService, 2),
            "Scheduler or persistence engine not found"
        );
        assert_eq!(words(Operation::EditDestination, 2), "No such destination");
        assert_eq!(words(Operation::AddDestination, 3), "Service not defined");
        assert_eq!(
            words(Operation::Flush, 1),
            "Permission denied (you must be root)"
        );
        assert_eq!(
            words(Operation::AddDestination, 34),
            "Numerical result out of range"
        );
        assert_eq!(words(Operation::StartDaemon, 19), "No such device");
    }
}
