//! Wanted + actual → the least changes.
//!
//! A service or destination that differs is edited in place, never deleted and added
//! again, so that running connections survive. Additions come before deletions: a service
//! that changes servers is never without one.

use std::collections::{HashMap, HashSet};

use super::model::{
    Change, Destination, DestinationEntry, DestinationId, Service, ServiceEntry, ServiceId,
    Statistics,
};

/// What is to be true of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedService {
    pub service: Service,
    pub destinations: WantedDestinations,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedDestinations {
    /// Whatever there is stays.
    Unmanaged,
    /// These are there; others may be.
    AtLeast(Vec<Destination>),
    /// These and no others.
    Exactly(Vec<Destination>),
}

/// The whole table: whether services that nobody wants stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    Keep,
    Delete,
}

/// Returns the changes that make every wanted service true.
pub fn table_changes(
    wanted: &[WantedService],
    actual: &[ServiceEntry],
    others: Others,
) -> Vec<Change> {
    let actual_of: HashMap<ServiceId, &ServiceEntry> = actual
        .iter()
        .map(|entry| (entry.service.id, entry))
        .collect();
    let mut changes: Vec<Change> = wanted
        .iter()
        .flat_map(|want| service_changes(want, actual_of.get(&want.service.id).copied()))
        .collect();
    if others == Others::Delete {
        let kept: HashSet<ServiceId> = wanted.iter().map(|want| want.service.id).collect();
        let unwanted = actual
            .iter()
            .map(|entry| entry.service.id)
            .filter(|id| !kept.contains(id));
        changes.extend(unwanted.map(Change::DeleteService));
    }
    changes
}

/// Returns the changes that make one wanted service true.
pub fn service_changes(wanted: &WantedService, actual: Option<&ServiceEntry>) -> Vec<Change> {
    let id = wanted.service.id;
    let mut changes = Vec::new();
    match actual {
        None => changes.push(Change::AddService(wanted.service.clone())),
        Some(entry) if entry.service != wanted.service => {
            changes.push(Change::EditService(wanted.service.clone()));
        }
        Some(_) => {}
    }
    let present = actual.map_or(&[][..], |entry| &entry.destinations);
    match &wanted.destinations {
        WantedDestinations::Unmanaged => {}
        WantedDestinations::AtLeast(list) | WantedDestinations::Exactly(list)
            if is_in_place(list, present) => {}
        WantedDestinations::AtLeast(list) => changes.extend(upserts(id, list, present)),
        WantedDestinations::Exactly(list) => {
            changes.extend(upserts(id, list, present));
            changes.extend(deletions(id, list, present));
        }
    }
    changes
}

/// The usual case of a large table, seen without looking anything up: the kernel gives the
/// servers out in the order in which they were added, or, later kernels, in the reverse.
fn is_in_place(wanted: &[Destination], present: &[DestinationEntry]) -> bool {
    let present = present.iter().map(|entry| &entry.destination);
    wanted.len() == present.len()
        && (wanted.iter().eq(present.clone()) || wanted.iter().rev().eq(present))
}

fn upserts<'a>(
    service: ServiceId,
    wanted: &'a [Destination],
    present: &'a [DestinationEntry],
) -> impl Iterator<Item = Change> + 'a {
    let present: HashMap<DestinationId, Destination> = present
        .iter()
        .map(|entry| (entry.destination.id, entry.destination))
        .collect();
    wanted
        .iter()
        .filter_map(move |want| match present.get(&want.id) {
            None => Some(Change::AddDestination(service, *want)),
            Some(found) if found != want => Some(Change::EditDestination(service, *want)),
            Some(_) => None,
        })
}

fn deletions<'a>(
    service: ServiceId,
    wanted: &'a [Destination],
    present: &'a [DestinationEntry],
) -> impl Iterator<Item = Change> + 'a {
    let wanted: HashSet<DestinationId> = wanted.iter().map(|want| want.id).collect();
    present
        .iter()
        .map(|entry| entry.destination.id)
        .filter(move |id| !wanted.contains(id))
        .map(move |id| Change::DeleteDestination(service, id))
}

/// Returns the table as it is after the changes, as far as it is configuration: what is
/// new has no connections yet. Changes that the kernel would refuse change nothing.
pub fn applied(mut table: Vec<ServiceEntry>, changes: &[Change]) -> Vec<ServiceEntry> {
    for change in changes {
        apply(&mut table, change);
    }
    table
}

fn apply(table: &mut Vec<ServiceEntry>, change: &Change) {
    match change {
        Change::AddService(service) => {
            if find(table, service.id).is_none() {
                table.push(ServiceEntry {
                    service: service.clone(),
                    statistics: Statistics::default(),
                    destinations: Vec::new(),
                });
            }
        }
        Change::EditService(service) => {
            if let Some(entry) = find(table, service.id) {
                entry.service = service.clone();
            }
        }
        Change::DeleteService(id) => table.retain(|entry| entry.service.id != *id),
        Change::AddDestination(id, destination) => {
            let Some(entry) = find(table, *id) else {
                return;
            };
            if find_destination(entry, destination.id).is_none() {
                entry.destinations.push(unused(*destination));
            }
        }
        Change::EditDestination(id, destination) => {
            if let Some(found) =
                find(table, *id).and_then(|entry| find_destination(entry, destination.id))
            {
                found.destination = *destination;
            }
        }
        Change::DeleteDestination(id, destination) => {
            if let Some(entry) = find(table, *id) {
                entry
                    .destinations
                    .retain(|found| found.destination.id != *destination);
            }
        }
        Change::Flush => table.clear(),
        Change::Zero(_)
        | Change::SetTimeouts(_)
        | Change::StartDaemon(_)
        | Change::StopDaemon { .. } => {}
    }
}

fn find(table: &mut [ServiceEntry], id: ServiceId) -> Option<&mut ServiceEntry> {
    table.iter_mut().find(|entry| entry.service.id == id)
}

fn find_destination(entry: &mut ServiceEntry, id: DestinationId) -> Option<&mut DestinationEntry> {
    entry
        .destinations
        .iter_mut()
        .find(|found| found.destination.id == id)
}

fn unused(destination: Destination) -> DestinationEntry {
    DestinationEntry {
        destination,
        active: 0,
        inactive: 0,
        persistent: 0,
        statistics: Statistics::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::model::{Family, Granularity};
    use crate::ipvs::model::{
        Forwarding, Persistence, Protocol, SchedulerName, Statistics, Thresholds, Weight,
    };
    use proptest::prelude::*;

    fn id(port: u16) -> ServiceId {
        ServiceId::Address {
            protocol: Protocol::Tcp,
            address: [10, 0, 0, 1].into(),
            port,
        }
    }

    fn service(port: u16) -> Service {
        Service::plain(id(port), SchedulerName::cut("rr"))
    }

    fn server(last: u8, weight: u32) -> Destination {
        Destination {
            id: DestinationId {
                address: [10, 0, 0, last].into(),
                port: 80,
            },
            forwarding: Forwarding::Route,
            weight: Weight::new(weight).unwrap(),
            thresholds: Thresholds::default(),
        }
    }

    fn entry(service: Service, servers: &[Destination]) -> ServiceEntry {
        let destinations = servers
            .iter()
            .map(|destination| DestinationEntry {
                destination: *destination,
                active: 3,
                inactive: 1,
                persistent: 0,
                statistics: Statistics::default(),
            })
            .collect();
        ServiceEntry {
            service,
            statistics: Statistics::default(),
            destinations,
        }
    }

    #[test]
    fn nothing_changes_when_all_is_as_wanted() {
        let wanted = WantedService {
            service: service(80),
            destinations: WantedDestinations::Exactly(vec![server(20, 1), server(30, 2)]),
        };
        let actual = entry(service(80), &[server(30, 2), server(20, 1)]);
        assert_eq!(table_changes(&[wanted], &[actual], Others::Delete), []);
    }

    #[test]
    fn a_difference_is_an_edit_in_place_and_additions_come_before_deletions() {
        let mut edited = service(80);
        edited.persistence = Some(Persistence {
            timeout_s: 300,
            granularity: Granularity::single_client(Family::Ipv4),
        });
        let wanted = WantedService {
            service: edited.clone(),
            destinations: WantedDestinations::Exactly(vec![server(20, 5), server(40, 1)]),
        };
        let actual = entry(service(80), &[server(20, 1), server(30, 1)]);
        assert_eq!(
            service_changes(&wanted, Some(&actual)),
            [
                Change::EditService(edited),
                Change::EditDestination(id(80), server(20, 5)),
                Change::AddDestination(id(80), server(40, 1)),
                Change::DeleteDestination(id(80), server(30, 1).id),
            ]
        );
    }

    #[test]
    fn what_is_not_managed_stays() {
        let wanted = WantedService {
            service: service(80),
            destinations: WantedDestinations::AtLeast(vec![server(20, 1)]),
        };
        let actual = [
            entry(service(80), &[server(30, 1)]),
            entry(service(443), &[]),
        ];
        assert_eq!(
            table_changes(std::slice::from_ref(&wanted), &actual, Others::Keep),
            [Change::AddDestination(id(80), server(20, 1))]
        );
        assert_eq!(
            table_changes(&[wanted], &actual, Others::Delete).last(),
            Some(&Change::DeleteService(id(443)))
        );
    }

    #[test]
    fn a_missing_service_is_added_whole() {
        let wanted = WantedService {
            service: service(80),
            destinations: WantedDestinations::Exactly(vec![server(20, 1)]),
        };
        assert_eq!(
            service_changes(&wanted, None),
            [
                Change::AddService(service(80)),
                Change::AddDestination(id(80), server(20, 1))
            ]
        );
    }

    /// Port, a setting, and the servers' last bytes and weights.
    type Row = (u16, bool, Vec<(u8, u32)>);

    fn tables() -> impl Strategy<Value = Vec<Row>> {
        let servers = prop::collection::btree_map(0..6_u8, 0..3_u32, 0..5)
            .prop_map(|servers| servers.into_iter().collect());
        prop::collection::btree_map(1..6_u16, (any::<bool>(), servers), 0..5).prop_map(|table| {
            let rows = table.into_iter();
            rows.map(|(port, (one_packet, servers))| (port, one_packet, servers))
                .collect()
        })
    }

    fn servers(list: &[(u8, u32)]) -> Vec<Destination> {
        list.iter()
            .map(|(last, weight)| server(*last, *weight))
            .collect()
    }

    proptest! {
        #[test]
        fn the_changes_lead_there_and_no_further(from in tables(), to in tables()) {
            let of = |port, one_packet| Service { one_packet, ..service(port) };
            let actual: Vec<ServiceEntry> = from
                .iter()
                .map(|(port, flag, list)| entry(of(*port, *flag), &servers(list)))
                .collect();
            let wanted: Vec<WantedService> = to
                .iter()
                .map(|(port, flag, list)| WantedService {
                    service: of(*port, *flag),
                    destinations: WantedDestinations::Exactly(servers(list)),
                })
                .collect();
            let changes = table_changes(&wanted, &actual, Others::Delete);
            let reached = applied(actual, &changes);
            prop_assert_eq!(table_changes(&wanted, &reached, Others::Delete), []);
            prop_assert_eq!(reached.len(), wanted.len());
            for want in &wanted {
                let found = reached.iter().find(|found| found.service == want.service);
                let found: HashSet<DestinationId> = found
                    .unwrap()
                    .destinations
                    .iter()
                    .map(|found| found.destination.id)
                    .collect();
                let WantedDestinations::Exactly(list) = &want.destinations else { panic!() };
                prop_assert_eq!(found, list.iter().map(|one| one.id).collect::<HashSet<_>>());
            }
        }
    }
}
