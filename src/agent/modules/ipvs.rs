//! `lvs_service` and `lvs_server`: reads the kernel's IPVS tables, plans, changes them.

use std::io;
use std::path::Path;

use super::super::error::ModuleError;
use super::super::work::Work;
use crate::ipvs::listing;
use crate::ipvs::model::ServiceEntry;
use crate::ipvs::socket::{IpvsSocket, SocketError};
use crate::task::ipvs::{
    ArgumentError, Plan, Wanted, plan, service_name, wanted_server, wanted_service,
};
use crate::task::outcome::{Diff, Outcome, Refusal};

/// There while the kernel's module is loaded.
const TABLE: &str = "/proc/net/ip_vs";

pub(super) fn lvs_service(work: &Work) -> Result<Outcome, ModuleError> {
    carry_out(work, wanted_service(work.args().0))
}

pub(super) fn lvs_server(work: &Work) -> Result<Outcome, ModuleError> {
    carry_out(work, wanted_server(work.args().0))
}

fn carry_out(work: &Work, wanted: Result<Wanted, ArgumentError>) -> Result<Outcome, ModuleError> {
    let wanted = wanted.map_err(|error| Refusal::new(error.to_string()))?;
    let mut tables = Tables::default();
    let actual = tables.read(&wanted)?;
    // In check mode the service may be what an earlier task would have made.
    if !work.check
        && let Some(id) = wanted.missing_service(&actual)
    {
        let service = service_name(id);
        let text = format!("there is no service {service}; make it with lvs_service first");
        return Err(Refusal::new(text).into());
    }
    let plan = plan(&wanted, actual);
    if !work.check {
        tables.change(&plan)?;
    }
    let outcome = Outcome::changed(!plan.changes.is_empty()).with("commands", plan.commands());
    if !work.diff {
        return Ok(outcome);
    }
    let (before, after) = plan.difference();
    Ok(outcome.diff(Diff::of_text("IPVS", before, after)))
}

/// The kernel's tables. Looking does not load the module: without it they are empty.
#[derive(Default)]
struct Tables {
    socket: Option<IpvsSocket>,
}

impl Tables {
    /// Reads as much of the tables as is spoken of.
    fn read(&mut self, wanted: &Wanted) -> Result<Vec<ServiceEntry>, ModuleError> {
        if !Path::new(TABLE).exists() {
            return Ok(Vec::new());
        }
        let socket = self.open()?;
        match wanted.only_service() {
            Some(id) => socket
                .find_service(id)
                .map(|found| found.into_iter().collect()),
            None => socket.configuration(),
        }
        .map_err(failed("read"))
    }

    fn change(&mut self, plan: &Plan) -> Result<(), ModuleError> {
        if plan.changes.is_empty() {
            return Ok(());
        }
        let refused = self
            .open()?
            .apply(&plan.changes)
            .map_err(failed("change"))?;
        match refused.into_iter().next() {
            None => Ok(()),
            Some((index, refusal)) => {
                let options = listing::change_options(&plan.changes[index]);
                let text = format!("the kernel refused `ipvsadm {options}`: {refusal}");
                Err(Refusal::new(text).into())
            }
        }
    }

    fn open(&mut self) -> Result<&mut IpvsSocket, ModuleError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => IpvsSocket::open().map_err(failed("open"))?,
        };
        Ok(self.socket.insert(socket))
    }
}

fn failed(step: &str) -> impl FnOnce(SocketError) -> ModuleError {
    let failed = ModuleError::system(format!("{step} the kernel's IPVS tables"));
    move |error| failed(io::Error::other(error))
}
