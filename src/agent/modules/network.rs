//! `ip_address`, `ip_link`, `ip_tunnel`: through rtnetlink.

use serde_json::{Value, json};

use super::super::error::ModuleError;
use super::super::netlink::RouteSocket;
use super::super::work::Work;
use crate::task::link::{
    Address, AddressChange, Direction, Link, LinkChange, plan_address, plan_link, plan_tunnel,
};
use crate::task::outcome::{Diff, Outcome, Refusal};
use crate::task::rtnetlink::Request;

pub(super) fn ip_address(work: &Work) -> Result<Outcome, ModuleError> {
    let args = work.args();
    let interface = args.word("interface");
    let mut socket = RouteSocket::open()?;
    let link = find(&mut socket, interface)?;
    let Some(link) = link else {
        if args.word("state") == "absent" {
            return Ok(Outcome::changed(false).msg(format!("there is no interface {interface}")));
        }
        return Err(unknown_interface(&mut socket, interface)?);
    };
    let before = addresses_of(&mut socket, &link)?;
    let changes = plan_address(args, link.index, &before)?;
    if !work.check {
        for change in &changes {
            let (request, attempt) = match change {
                AddressChange::Remove(address) => {
                    let attempt = format!("remove {} from {interface}", address.network);
                    (Request::RemoveAddress(address.clone()), attempt)
                }
                AddressChange::Add(address) => {
                    let attempt = format!("add {} to {interface}", address.network);
                    (Request::AddAddress(address.clone()), attempt)
                }
            };
            socket.change(&request, &attempt)?;
        }
    }
    let after = if work.check {
        expected(&before, &changes)
    } else {
        addresses_of(&mut socket, &link)?
    };
    Ok(Outcome::changed(!changes.is_empty())
        .with("interface", interface)
        .with("addresses", shown(&after))
        .diff(Diff::of_text(interface, lines(&before), lines(&after))))
}

fn addresses_of(socket: &mut RouteSocket, link: &Link) -> Result<Vec<Address>, ModuleError> {
    let mut addresses = socket.addresses()?;
    addresses.retain(|address| address.link == link.index);
    Ok(addresses)
}

/// Returns what the addresses will be, for check mode.
fn expected(before: &[Address], changes: &[AddressChange]) -> Vec<Address> {
    let mut addresses = before.to_vec();
    for change in changes {
        match change {
            AddressChange::Remove(gone) => addresses.retain(|address| address != gone),
            AddressChange::Add(new) => addresses.push(new.clone()),
        }
    }
    addresses
}

fn shown(addresses: &[Address]) -> Vec<Value> {
    let shown =
        |address: &Address| json!({"address": address.network.to_string(), "label": address.label});
    addresses.iter().map(shown).collect()
}

fn lines(addresses: &[Address]) -> String {
    let line = |address: &Address| match &address.label {
        Some(label) => format!("{} {label}\n", address.network),
        None => format!("{}\n", address.network),
    };
    addresses.iter().map(line).collect()
}

pub(super) fn ip_link(work: &Work) -> Result<Outcome, ModuleError> {
    let mut socket = RouteSocket::open()?;
    let name = work.args().word("name");
    let actual = find(&mut socket, name)?;
    let changes = plan_link(work.args(), actual.as_ref())?;
    apply(work, &mut socket, name, actual, &changes)
}

pub(super) fn ip_tunnel(work: &Work) -> Result<Outcome, ModuleError> {
    let mut socket = RouteSocket::open()?;
    let name = work.args().word("name");
    let actual = find(&mut socket, name)?;
    let changes = plan_tunnel(work.args(), actual.as_ref())?;
    apply(work, &mut socket, name, actual, &changes)
}

fn apply(
    work: &Work,
    socket: &mut RouteSocket,
    name: &str,
    actual: Option<Link>,
    changes: &[LinkChange],
) -> Result<Outcome, ModuleError> {
    let before = description(actual.as_ref());
    let mut current = actual;
    if !work.check {
        for change in changes {
            let index = current.as_ref().map_or(0, |link| link.index);
            let (request, attempt) = request(name, index, change);
            socket.change(&request, &attempt)?;
            current = find(socket, name)?;
        }
    }
    let outcome = Outcome::changed(!changes.is_empty()).with("name", name);
    if work.check {
        return Ok(outcome);
    }
    let after = description(current.as_ref());
    Ok(outcome
        .with("link", after.clone())
        .diff(Diff::of_values(name, before, after)))
}

fn request(name: &str, index: u32, change: &LinkChange) -> (Request, String) {
    match change {
        LinkChange::Add { name, kind, tunnel } => {
            let request = Request::AddLink {
                name: name.clone(),
                kind: kind.clone(),
                tunnel: *tunnel,
            };
            (request, format!("make the {kind} interface {name}"))
        }
        LinkChange::Remove => (Request::RemoveLink(index), format!("remove {name}")),
        LinkChange::SetMtu(mtu) => (
            Request::SetMtu(index, *mtu),
            format!("set the MTU of {name} to {mtu}"),
        ),
        LinkChange::AnswerArp(answers) => (
            Request::AnswerArp(index, *answers),
            format!("change ARP on {name}"),
        ),
        LinkChange::Bring(direction) => {
            let is_up = *direction == Direction::Up;
            let word = if is_up { "up" } else { "down" };
            (
                Request::BringUp(index, is_up),
                format!("bring {name} {word}"),
            )
        }
    }
}

fn description(link: Option<&Link>) -> Value {
    let Some(link) = link else {
        return json!({"state": "absent"});
    };
    let mut description = json!({
        "state": if link.is_up { "up" } else { "down" },
        "type": link.kind,
        "mtu": link.mtu,
        "arp": link.answers_arp,
        "mac": link.station,
    });
    if let Some(tunnel) = link.tunnel {
        description["local"] = tunnel.local.to_string().into();
        description["remote"] = tunnel.remote.to_string().into();
    }
    description
}

fn find(socket: &mut RouteSocket, name: &str) -> Result<Option<Link>, ModuleError> {
    let links = socket.links()?;
    Ok(links.into_iter().find(|link| link.name == name))
}

/// Returns the error for an interface that is not there, with those that are.
pub(super) fn unknown_interface(
    socket: &mut RouteSocket,
    name: &str,
) -> Result<ModuleError, ModuleError> {
    let links = socket.links()?;
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let why = format!("there is no interface `{name}`, only {}", names.join(", "));
    Ok(Refusal::new(why).into())
}
