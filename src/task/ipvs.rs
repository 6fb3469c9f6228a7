//! The modules `lvs_service` and `lvs_server`: arguments → what is wanted → the changes.
//!
//! Both are declarative: what is not said has its default, and what differs is edited in
//! place. A service that lists its `servers` has these and no others, unless
//! `exclusive_servers` is off. A list of `services` may be the whole table (`exclusive`).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use serde_json::{Map, Value};

use crate::base::diagnostic::nearest;
use crate::ipvs::diff::{
    self, Others, WantedDestinations, WantedService, service_changes, table_changes,
};
use crate::ipvs::listing;
use crate::ipvs::model::{
    Change, Destination, DestinationId, EngineName, Family, Forwarding, Granularity, Persistence,
    Protocol, SchedulerFlags, SchedulerName, Service, ServiceEntry, ServiceId, Thresholds, Tunnel,
    TunnelChecksum, Weight,
};
use crate::ipvs::names::Names;

/// Why the arguments make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    #[error("{argument}: '{found}' is not {expected}")]
    Value {
        argument: String,
        found: String,
        expected: String,
    },
    #[error("{within}: '{name}' is not known{}", .near.as_ref().map(|near| format!("; did you mean '{near}'?")).unwrap_or_default())]
    Unknown {
        within: String,
        name: String,
        near: Option<String>,
    },
    #[error("{within}: {needs} is needed")]
    Missing { within: String, needs: &'static str },
    #[error("{0}")]
    Rule(String),
}

/// What a task wants of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Service(WantedService),
    NoService(ServiceId),
    Table(Vec<WantedService>, Others),
    Server(ServiceId, Destination),
    NoServer(ServiceId, DestinationId),
}

/// What is to be done, and how it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// The part of the table that is spoken of.
    actual: Vec<ServiceEntry>,
}

impl Plan {
    /// The changes as one would type them.
    pub fn commands(&self) -> Vec<String> {
        let typed = |change| format!("ipvsadm {}", listing::change_options(change));
        self.changes.iter().map(typed).collect()
    }

    /// Returns the table before and after the changes, as ipvsadm commands.
    pub fn difference(self) -> (String, String) {
        if self.changes.is_empty() {
            return (String::new(), String::new());
        }
        let before = listing::full_commands(self.actual.clone());
        let after = listing::full_commands(diff::applied(self.actual, &self.changes));
        (before, after)
    }
}

impl Wanted {
    /// The service that alone has to be looked at, or `None` for the whole table.
    pub fn only_service(&self) -> Option<ServiceId> {
        match self {
            Self::Service(wanted) => Some(wanted.service.id),
            Self::NoService(id) | Self::Server(id, _) | Self::NoServer(id, _) => Some(*id),
            Self::Table(..) => None,
        }
    }

    /// A server needs its service; returns that service where it is missing.
    pub fn missing_service(&self, actual: &[ServiceEntry]) -> Option<ServiceId> {
        match self {
            Self::Server(id, _) if !actual.iter().any(|entry| entry.service.id == *id) => Some(*id),
            _ => None,
        }
    }
}

/// Returns what to do when the tables hold `actual` (at least what is spoken of).
pub fn plan(wanted: &Wanted, actual: Vec<ServiceEntry>) -> Plan {
    let entry = wanted
        .only_service()
        .and_then(|id| actual.iter().find(|entry| entry.service.id == id));
    let changes = match wanted {
        Wanted::Service(wanted) => service_changes(wanted, entry),
        Wanted::NoService(id) => entry
            .map(|_| Change::DeleteService(*id))
            .into_iter()
            .collect(),
        Wanted::Table(services, others) => table_changes(services, &actual, *others),
        Wanted::Server(id, server) => server_change(*id, *server, entry).into_iter().collect(),
        Wanted::NoServer(id, server) => entry
            .filter(|entry| {
                entry
                    .destinations
                    .iter()
                    .any(|one| one.destination.id == *server)
            })
            .map(|_| Change::DeleteDestination(*id, *server))
            .into_iter()
            .collect(),
    };
    Plan { changes, actual }
}

fn server_change(
    id: ServiceId,
    server: Destination,
    entry: Option<&ServiceEntry>,
) -> Option<Change> {
    let found = entry.and_then(|entry| {
        entry
            .destinations
            .iter()
            .find(|found| found.destination.id == server.id)
    });
    match found {
        None => Some(Change::AddDestination(id, server)),
        Some(found) if found.destination != server => Some(Change::EditDestination(id, server)),
        Some(_) => None,
    }
}

const SERVICE_ID_FIELDS: &[&str] = &["service", "protocol", "fwmark", "family"];
const SERVICE_FIELDS: &[&str] = &[
    "scheduler",
    "scheduler_flags",
    "persistent",
    "netmask",
    "engine",
    "one_packet",
    "servers",
    "exclusive_servers",
];
const SERVER_FIELDS: &[&str] = &[
    "server",
    "method",
    "weight",
    "upper_threshold",
    "lower_threshold",
    "tunnel_type",
    "tunnel_port",
    "tunnel_checksum",
];

/// What the modules have beside a service's or a server's own.
const MODULE_FIELDS: &[&str] = &["services", "exclusive", "state"];

/// Other names inside lists, as the modules' own arguments have them.
const ALIASES: &[(&str, &str)] = &[
    ("service", "address"),
    ("server", "address"),
    ("engine", "pe"),
    ("one_packet", "ops"),
    ("method", "forwarding"),
    ("upper_threshold", "u_threshold"),
    ("lower_threshold", "l_threshold"),
];

fn aliases(name: &str) -> impl Iterator<Item = &'static str> {
    let of_name = ALIASES.iter().filter(move |(known, _)| *known == name);
    of_name.map(|(_, alias)| *alias)
}

/// Returns the name under which one of the known is asked for.
fn canonical(name: &str, known: &[&[&'static str]]) -> Option<&'static str> {
    let names = || known.iter().copied().flatten().copied();
    names().find(|one| *one == name).or_else(|| {
        let mut of_alias = ALIASES.iter().filter(|(_, alias)| *alias == name);
        of_alias.find_map(|(of, _)| names().find(|one| one == of))
    })
}

/// Reads the arguments of `lvs_service`.
pub fn wanted_service(args: &Map<String, Value>) -> Result<Wanted, ArgumentError> {
    let fields = Fields::of_module("lvs_service", args);
    if let Some(list) = fields.get("services") {
        let services = fields
            .dicts("services", list, &[SERVICE_ID_FIELDS, SERVICE_FIELDS])?
            .map(|fields| service_with_servers(&fields?));
        let others = if fields.flag("exclusive")?.unwrap_or(false) {
            Others::Delete
        } else {
            Others::Keep
        };
        return Ok(Wanted::Table(services.collect::<Result<_, _>>()?, others));
    }
    if fields.text("state")?.as_deref() == Some("absent") {
        return Ok(Wanted::NoService(service_id(&fields)?));
    }
    Ok(Wanted::Service(service_with_servers(&fields)?))
}

/// Reads the arguments of `lvs_server`.
pub fn wanted_server(args: &Map<String, Value>) -> Result<Wanted, ArgumentError> {
    let fields = Fields::of_module("lvs_server", args);
    let service = service_id(&fields)?;
    let server = destination(&fields, service)?;
    if fields.text("state")?.as_deref() == Some("absent") {
        return Ok(Wanted::NoServer(service, server.id));
    }
    Ok(Wanted::Server(service, server))
}

fn service_id(fields: &Fields<'_>) -> Result<ServiceId, ArgumentError> {
    if let Some(mark) = fields.number("fwmark", 1, i64::from(u32::MAX))? {
        let family = match fields.text("family")?.as_deref() {
            None | Some("ipv4") => Family::Ipv4,
            Some("ipv6") => Family::Ipv6,
            Some(other) => return Err(fields.wrong("family", other, "ipv4 or ipv6")),
        };
        let mark = NonZeroU32::new(mark).expect("the range above begins with 1");
        return Ok(ServiceId::Mark { family, mark });
    }
    let Some(place) = fields.text("service")? else {
        return Err(fields.missing("service (10.0.0.1:80) or fwmark"));
    };
    let name = fields.text("protocol")?.unwrap_or(Cow::Borrowed("tcp"));
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.name() == name);
    let protocol = protocol.ok_or_else(|| fields.wrong("protocol", &name, "tcp, udp or sctp"))?;
    let (address, port) = address_and_port(fields, "service", &place)?;
    Ok(ServiceId::Address {
        protocol,
        address,
        port: port.unwrap_or(0),
    })
}

/// Reads `10.0.0.1`, `10.0.0.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn address_and_port(
    fields: &Fields<'_>,
    argument: &str,
    text: &str,
) -> Result<(IpAddr, Option<u16>), ArgumentError> {
    // One colon alone is before a port: no need to try it as an address first.
    let is_plain = text.bytes().filter(|byte| *byte == b':').count() != 1;
    if is_plain && let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    let both = text.parse::<SocketAddr>().map_err(|_| {
        fields.wrong(
            argument,
            text,
            "an address with or without a port, such as 10.0.0.1:80",
        )
    })?;
    Ok((both.ip(), Some(both.port())))
}

fn service_with_servers<'a>(fields: &'a Fields<'a>) -> Result<WantedService, ArgumentError> {
    let service = service(fields)?;
    let Some(list) = fields.get("servers") else {
        return Ok(WantedService {
            service,
            destinations: WantedDestinations::Unmanaged,
        });
    };
    let mut servers: Vec<Destination> = Vec::new();
    for fields in fields.dicts("servers", list, &[SERVER_FIELDS])? {
        let fields = fields?;
        let server = destination(&fields, service.id)?;
        if servers.iter().any(|other| other.id == server.id) {
            let DestinationId { address, port } = server.id;
            let within = &fields.within;
            return Err(ArgumentError::Rule(format!(
                "{within}: {address} port {port} is there twice"
            )));
        }
        servers.push(server);
    }
    let destinations = if fields.flag("exclusive_servers")?.unwrap_or(true) {
        WantedDestinations::Exactly(servers)
    } else {
        WantedDestinations::AtLeast(servers)
    };
    Ok(WantedService {
        service,
        destinations,
    })
}

fn service(fields: &Fields<'_>) -> Result<Service, ArgumentError> {
    let id = service_id(fields)?;
    let scheduler = fields.text("scheduler")?.unwrap_or(Cow::Borrowed("wlc"));
    let scheduler = SchedulerName::new(&scheduler)
        .map_err(|_| fields.wrong("scheduler", &scheduler, "a scheduler's name"))?;
    let engine = fields.text("engine")?;
    let engine = engine
        .map(|name| {
            EngineName::new(&name).map_err(|_| fields.wrong("engine", &name, "an engine's name"))
        })
        .transpose()?;
    let persistence = persistence(fields, id.family())?;
    let one_packet = fields.flag("one_packet")?.unwrap_or(false);
    if let ServiceId::Address { protocol, port, .. } = id {
        if port == 0 && persistence.is_none() {
            return Err(ArgumentError::Rule(format!(
                "{}: a service on every port must be persistent; give a port or `persistent`",
                fields.within
            )));
        }
        if one_packet && protocol != Protocol::Udp {
            return Err(ArgumentError::Rule(format!(
                "{}: one_packet is for UDP only",
                fields.within
            )));
        }
    }
    let scheduler_flags = scheduler_flags(fields)?;
    Ok(Service {
        id,
        scheduler,
        scheduler_flags,
        persistence,
        engine,
        one_packet,
    })
}

fn persistence(fields: &Fields<'_>, family: Family) -> Result<Option<Persistence>, ArgumentError> {
    /// The longest time ipvsadm takes: 31 days.
    const TIMEOUT_MAX_S: i64 = 31 * 24 * 60 * 60;
    let Some(timeout_s) = fields.number("persistent", 1, TIMEOUT_MAX_S)? else {
        return Ok(None);
    };
    let granularity = match (fields.text("netmask")?, family) {
        (None, _) => Granularity::single_client(family),
        (Some(mask), Family::Ipv4) => Granularity::Ipv4Mask(
            mask.parse()
                .map_err(|_| fields.wrong("netmask", &mask, "a mask such as 255.255.255.0"))?,
        ),
        (Some(bits), Family::Ipv6) => Granularity::Ipv6Prefix(
            bits.parse()
                .ok()
                .filter(|bits| (1..=128).contains(bits))
                .ok_or_else(|| fields.wrong("netmask", &bits, "a prefix length, 1 to 128"))?,
        ),
    };
    Ok(Some(Persistence {
        timeout_s,
        granularity,
    }))
}

fn scheduler_flags(fields: &Fields<'_>) -> Result<SchedulerFlags, ArgumentError> {
    let Some(list) = fields.get("scheduler_flags").and_then(Value::as_array) else {
        return Ok(SchedulerFlags::default());
    };
    list.iter()
        .try_fold(SchedulerFlags::default(), |flags, word| {
            match word.as_str() {
                Some("flag-1" | "sh-fallback" | "mh-fallback") => Ok(flags.with(0)),
                Some("flag-2" | "sh-port" | "mh-port") => Ok(flags.with(1)),
                Some("flag-3") => Ok(flags.with(2)),
                _ => Err(fields.wrong(
                    "scheduler_flags",
                    &shown(word),
                    "flag-1, flag-2, flag-3, sh-fallback, sh-port, mh-fallback or mh-port",
                )),
            }
        })
}

/// The kernel reads weights and thresholds as signed numbers.
const INT_MAX: i64 = i32::MAX as i64;

fn destination(fields: &Fields<'_>, service: ServiceId) -> Result<Destination, ArgumentError> {
    let Some(place) = fields.text("server")? else {
        return Err(fields.missing("server (10.0.0.20)"));
    };
    let (address, port) = address_and_port(fields, "server", &place)?;
    let forwarding = forwarding(fields)?;
    let rule = |text: &str| Err(ArgumentError::Rule(format!("{}: {text}", fields.within)));
    let port = match (service, port) {
        (ServiceId::Address { port, .. }, None) => port,
        (ServiceId::Mark { .. }, port) => port.unwrap_or(0),
        (
            ServiceId::Address {
                port: of_service, ..
            },
            Some(port),
        ) => {
            if port != of_service && forwarding != Forwarding::Masquerading {
                return rule("only nat can lead to another port than the service's");
            }
            port
        }
    };
    if Family::of(address) != service.family() && !matches!(forwarding, Forwarding::Tunnel(_)) {
        return rule("only a tunnel leads from one address family to the other");
    }
    let upper = fields.number("upper_threshold", 0, INT_MAX)?.unwrap_or(0);
    let lower = fields.number("lower_threshold", 0, INT_MAX)?.unwrap_or(0);
    if lower > upper {
        return rule("lower_threshold is at most upper_threshold");
    }
    let weight = fields.number("weight", 0, INT_MAX)?.unwrap_or(1);
    Ok(Destination {
        id: DestinationId { address, port },
        forwarding,
        weight: Weight::new(weight).expect("the range above is a weight's"),
        thresholds: Thresholds { upper, lower },
    })
}

fn forwarding(fields: &Fields<'_>) -> Result<Forwarding, ArgumentError> {
    let method = fields.text("method")?.unwrap_or(Cow::Borrowed("dr"));
    match method.as_ref() {
        "dr" | "gatewaying" => Ok(Forwarding::Route),
        "nat" | "masquerading" => Ok(Forwarding::Masquerading),
        "tun" | "ipip" => Ok(Forwarding::Tunnel(tunnel(fields)?)),
        _ => Err(fields.wrong("method", &method, "dr, tun or nat")),
    }
}

fn tunnel(fields: &Fields<'_>) -> Result<Tunnel, ArgumentError> {
    let word = fields.text("tunnel_checksum")?;
    let checksum = match word.as_deref() {
        None | Some("none") => TunnelChecksum::None,
        Some("full") => TunnelChecksum::Full,
        Some("remote") => TunnelChecksum::Remote,
        Some(other) => return Err(fields.wrong("tunnel_checksum", other, "none, full or remote")),
    };
    match fields.text("tunnel_type")?.as_deref() {
        None | Some("ipip") => Ok(Tunnel::Ipip),
        Some("gre") => Ok(Tunnel::Gre { checksum }),
        Some("gue") => {
            let port = fields.number("tunnel_port", 1, 65535)?;
            let port = port.ok_or_else(|| fields.missing("tunnel_port for a gue tunnel"))?;
            Ok(Tunnel::Gue { port, checksum })
        }
        Some(other) => Err(fields.wrong("tunnel_type", other, "ipip, gue or gre")),
    }
}

/// A mapping's values by name, with the place for messages. Inside lists nobody has checked
/// the types before.
struct Fields<'a> {
    within: Within<'a>,
    /// By their own names, whatever alias was written. There are few: to look through them is
    /// less than to hash one name.
    values: Vec<(&'static str, &'a Value)>,
}

/// A place in the arguments; it becomes text only in a message.
#[derive(Clone, Copy)]
enum Within<'a> {
    Module(&'static str),
    Item {
        of: &'a Self,
        list: &'static str,
        index: usize,
    },
}

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(name) => f.write_str(name),
            Self::Item { of, list, index } => write!(f, "{of}.{list}[{index}]"),
        }
    }
}

impl<'a> Fields<'a> {
    /// The arguments of a whole module, whose names were checked before.
    fn of_module(name: &'static str, args: &'a Map<String, Value>) -> Self {
        let known = &[
            SERVICE_ID_FIELDS,
            SERVICE_FIELDS,
            SERVER_FIELDS,
            MODULE_FIELDS,
        ];
        let values = args
            .iter()
            .filter_map(|(name, value)| Some((canonical(name, known)?, value)));
        Self {
            within: Within::Module(name),
            values: values.collect(),
        }
    }

    /// Refuses names that are in none of the lists.
    fn of_item(
        within: Within<'a>,
        map: &'a Map<String, Value>,
        known: &[&[&'static str]],
    ) -> Result<Self, ArgumentError> {
        let mut values: Vec<(&'static str, &'a Value)> = Vec::with_capacity(map.len());
        for (written, value) in map {
            let Some(name) = canonical(written, known) else {
                let names = known.iter().copied().flatten().copied();
                let names = names.clone().chain(names.flat_map(aliases));
                return Err(ArgumentError::Unknown {
                    within: within.to_string(),
                    name: written.clone(),
                    near: nearest(written, names).map(str::to_owned),
                });
            };
            if values.iter().any(|(other, _)| *other == name) {
                return Err(ArgumentError::Rule(format!(
                    "{within}: '{name}' is there under two names"
                )));
            }
            values.push((name, value));
        }
        Ok(Self { within, values })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        let found = self.values.iter().find(|(known, _)| *known == name)?;
        Some(found.1).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, ArgumentError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.into())),
            Some(Value::Number(number)) => Ok(Some(number.to_string().into())),
            Some(other) => Err(self.wrong(name, &shown(other), "text")),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, ArgumentError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(word)) => match word.to_lowercase().as_str() {
                "true" | "yes" | "on" => Ok(Some(true)),
                "false" | "no" | "off" => Ok(Some(false)),
                _ => Err(self.wrong(name, word, "true or false")),
            },
            Some(other) => Err(self.wrong(name, &shown(other), "true or false")),
        }
    }

    fn number<T: TryFrom<i64>>(
        &self,
        name: &str,
        min: i64,
        max: i64,
    ) -> Result<Option<T>, ArgumentError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let value = text
            .trim()
            .parse::<i64>()
            .ok()
            .filter(|value| (min..=max).contains(value));
        match value.and_then(|value| T::try_from(value).ok()) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(name, &text, &format!("a whole number, {min} to {max}"))),
        }
    }

    fn dicts(
        &'a self,
        name: &'static str,
        list: &'a Value,
        known: &'a [&'a [&'static str]],
    ) -> Result<impl Iterator<Item = Result<Self, ArgumentError>>, ArgumentError> {
        let Some(items) = list.as_array() else {
            return Err(self.wrong(name, &shown(list), "a list of mappings"));
        };
        let item = move |(index, item): (usize, &'a Value)| match item {
            Value::Object(map) => {
                let within = Within::Item {
                    of: &self.within,
                    list: name,
                    index,
                };
                Self::of_item(within, map, known)
            }
            other => Err(self.wrong(name, &shown(other), "a mapping")),
        };
        Ok(items.iter().enumerate().map(item))
    }

    fn wrong(&self, name: &str, found: &str, expected: &str) -> ArgumentError {
        ArgumentError::Value {
            argument: format!("{}.{name}", self.within),
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn missing(&self, needs: &'static str) -> ArgumentError {
        ArgumentError::Missing {
            within: self.within.to_string(),
            needs,
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A service for messages: `-t 10.0.0.1:80`.
pub fn service_name(id: ServiceId) -> String {
    listing::service_option(&id, Names::none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::model::{DestinationEntry, Statistics};
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    fn lab() -> Value {
        json!({
            "service": "10.0.0.1:80", "scheduler": "rr",
            "servers": [
                {"address": "10.0.0.20:80", "method": "dr", "upper_threshold": 4},
                {"server": "10.0.0.30", "method": "dr", "weight": "2"},
            ],
        })
    }

    fn plan_of(args: Value, actual: Vec<ServiceEntry>) -> Plan {
        plan(&wanted_service(&map(args)).unwrap(), actual)
    }

    #[test]
    fn the_labs_service_is_made_once() {
        let made = plan_of(lab(), vec![]);
        assert_eq!(
            made.commands(),
            [
                "ipvsadm -A -t 10.0.0.1:80 -s rr",
                "ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.20:80 -g -w 1 -x 4",
                "ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.30:80 -g -w 2",
            ]
        );
        let reached = diff::applied(vec![], &made.changes);
        assert_eq!(plan_of(lab(), reached).changes, []);
    }

    #[test]
    fn a_changed_weight_is_one_edit_and_shows_in_the_difference() {
        let actual = diff::applied(vec![], &plan_of(lab(), vec![]).changes);
        let mut args = lab();
        args["servers"][1]["weight"] = json!(5);
        let plan = plan_of(args, actual);
        assert_eq!(
            plan.commands(),
            ["ipvsadm -e -t 10.0.0.1:80 -r 10.0.0.30:80 -g -w 5"]
        );
        let (before, after) = plan.difference();
        assert!(before.ends_with("-w 2\n"), "{before}");
        assert!(after.ends_with("-w 5\n"), "{after}");
    }

    #[test]
    fn a_server_alone_leaves_the_others_and_needs_its_service() {
        let args = json!({"service": "10.0.0.1:80", "server": "10.0.0.40:8080", "method": "nat"});
        let wanted = wanted_server(&map(args)).unwrap();
        assert!(wanted.missing_service(&[]).is_some());
        let actual = diff::applied(vec![], &plan_of(lab(), vec![]).changes);
        assert_eq!(wanted.missing_service(&actual), None);
        assert_eq!(
            plan(&wanted, actual).commands(),
            ["ipvsadm -a -t 10.0.0.1:80 -r 10.0.0.40:8080 -m -w 1"]
        );
    }

    #[test]
    fn absence_is_idempotent() {
        let args = json!({"service": "10.0.0.1:80", "state": "absent"});
        let actual = diff::applied(vec![], &plan_of(lab(), vec![]).changes);
        assert_eq!(
            plan_of(args.clone(), actual).commands(),
            ["ipvsadm -D -t 10.0.0.1:80"]
        );
        assert_eq!(plan_of(args, vec![]).changes, []);
    }

    #[test]
    fn a_whole_table_may_be_exclusive() {
        let actual = diff::applied(vec![], &plan_of(lab(), vec![]).changes);
        let args = json!({"services": [{"fwmark": 3, "scheduler": "sh"}], "exclusive": true});
        assert_eq!(
            plan_of(args, actual).commands(),
            ["ipvsadm -A -f 3 -s sh", "ipvsadm -D -t 10.0.0.1:80"]
        );
    }

    #[test]
    fn running_connections_do_not_make_a_difference() {
        let mut actual = diff::applied(vec![], &plan_of(lab(), vec![]).changes);
        for found in &mut actual[0].destinations {
            *found = DestinationEntry {
                active: 3,
                statistics: Statistics {
                    connections: 9,
                    ..Statistics::default()
                },
                ..*found
            };
        }
        assert_eq!(plan_of(lab(), actual).changes, []);
    }

    #[test]
    fn wrong_arguments_say_where_and_what_is_expected() {
        for (args, expected) in [
            (
                json!({}),
                "lvs_service: service (10.0.0.1:80) or fwmark is needed",
            ),
            (
                json!({"service": "10.0.0.300:80"}),
                "lvs_service.service: '10.0.0.300:80' is not an address with or without a port, such as 10.0.0.1:80",
            ),
            (
                json!({"service": "10.0.0.1"}),
                "lvs_service: a service on every port must be persistent; give a port or `persistent`",
            ),
            (
                json!({"service": "10.0.0.1:80", "servers": [{"server": "10.0.0.2", "wieght": 3}]}),
                "lvs_service.servers[0]: 'wieght' is not known; did you mean 'weight'?",
            ),
            (
                json!({"service": "10.0.0.1:80", "servers": [{"server": "10.0.0.2", "address": "10.0.0.3"}]}),
                "lvs_service.servers[0]: 'server' is there under two names",
            ),
            (
                json!({"service": "10.0.0.1:80", "servers": [{"server": "10.0.0.2:81"}]}),
                "lvs_service.servers[0]: only nat can lead to another port than the service's",
            ),
            (
                json!({"service": "10.0.0.1:80", "servers": [{"server": "10.0.0.2", "weight": -1}]}),
                "lvs_service.servers[0].weight: '-1' is not a whole number, 0 to 2147483647",
            ),
            (
                json!({"service": "10.0.0.1:80", "servers": [{"server": "10.0.0.2"}, {"server": "10.0.0.2:80"}]}),
                "lvs_service.servers[1]: 10.0.0.2 port 80 is there twice",
            ),
        ] {
            assert_eq!(
                wanted_service(&map(args)).unwrap_err().to_string(),
                expected
            );
        }
    }
}
