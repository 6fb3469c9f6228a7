//! The modules `lvs_service` and `lvs_server` on this host's tables: look, have
//! [`task::ipvs`](crate::task::ipvs) decide, and do it.

use serde_json::{Map, Value};

use super::listing;
use super::refusal::Refusal;
use super::socket::{IpvsSocket, SocketError};
use crate::task::ipvs::{self as task, ArgumentError, Plan, Wanted};

/// Whether anything may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Apply,
    Check,
}

#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error(transparent)]
    Arguments(#[from] ArgumentError),
    #[error("failed to {step} the IPVS tables")]
    Tables {
        step: &'static str,
        #[source]
        source: SocketError,
    },
    #[error("there is no service {service}; make it with lvs_service first")]
    NoService { service: String },
    #[error("the kernel refused `{command}`: {refusal}")]
    Refused { command: String, refusal: Refusal },
}

/// Makes one service, with its servers, or a whole table as the arguments say.
pub fn lvs_service(args: &Map<String, Value>, mode: Mode) -> Result<Plan, ModuleError> {
    carry_out(&task::wanted_service(args)?, mode)
}

/// Makes one server of a service as the arguments say.
pub fn lvs_server(args: &Map<String, Value>, mode: Mode) -> Result<Plan, ModuleError> {
    carry_out(&task::wanted_server(args)?, mode)
}

fn carry_out(wanted: &Wanted, mode: Mode) -> Result<Plan, ModuleError> {
    let failed = |step| move |source| ModuleError::Tables { step, source };
    let mut socket = IpvsSocket::open().map_err(failed("open"))?;
    let actual = match wanted.only_service() {
        Some(id) => socket
            .find_service(id)
            .map(|found| found.into_iter().collect()),
        None => socket.table(),
    }
    .map_err(failed("read"))?;
    // In check mode the service may be what an earlier task would have made.
    if mode == Mode::Apply
        && let Some(id) = wanted.missing_service(&actual)
    {
        let service = task::service_name(id);
        return Err(ModuleError::NoService { service });
    }
    let plan = task::plan(wanted, actual);
    if mode == Mode::Apply {
        let refused = socket.apply(&plan.changes).map_err(failed("change"))?;
        if let Some((index, refusal)) = refused.into_iter().next() {
            let options = listing::change_options(&plan.changes[index]);
            return Err(ModuleError::Refused {
                command: format!("ipvsadm {options}"),
                refusal,
            });
        }
    }
    Ok(plan)
}
