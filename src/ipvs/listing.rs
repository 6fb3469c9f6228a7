//! Tables as text, to the byte as ipvsadm 1.31 prints them.
//!
//! Trailing blanks, columns that are cut, and the order of services far apart are part of
//! the format: scripts read it.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::model::{
    Change, Daemon, DaemonRole, Destination, DestinationEntry, Family, Forwarding, Granularity,
    Info, Persistence, Protocol, Service, ServiceEntry, ServiceId, Statistics, Timeouts, Tunnel,
    TunnelChecksum,
};
use super::names::Names;

/// Which columns the rows have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    #[default]
    Plain,
    Statistics,
    Rates,
    Thresholds,
    PersistentConnections,
    Tunnels,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Sorted,
    /// As the kernel gave them.
    Kernel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// 123456789 as 123456K.
    #[default]
    Rounded,
    Exact,
}

/// How a table is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub columns: Columns,
    pub order: Order,
    pub numbers: Numbers,
}

/// The first line of a whole table.
pub fn version_line(info: Info) -> String {
    let [_, major, minor, patch] = info.version.to_be_bytes();
    let size = info.connection_table_size;
    format!("IP Virtual Server version {major}.{minor}.{patch} (size={size})\n")
}

/// The titles and rows of these services. Without any names everything is a number.
pub fn table(mut entries: Vec<ServiceEntry>, style: Style, names: &Names) -> String {
    let mut out = titles(style.columns);
    if style.order == Order::Sorted {
        sort(&mut entries);
    }
    for entry in &entries {
        push_service(&mut out, entry, style, names);
    }
    out
}

/// The commands that make these services, one a line (`-S`).
pub fn commands(mut entries: Vec<ServiceEntry>, names: &Names) -> String {
    sort(&mut entries);
    let mut out = String::new();
    for entry in &entries {
        let service = service_option(&entry.service.id, names);
        push_add_service(&mut out, &service, &entry.service);
        for found in &entry.destinations {
            push_add_destination(
                &mut out,
                &service,
                &entry.service.id,
                &found.destination,
                names,
            );
        }
    }
    out
}

/// The same with everything that can be configured: `-S` leaves the thresholds out.
pub fn full_commands(mut entries: Vec<ServiceEntry>) -> String {
    sort(&mut entries);
    let mut out = String::new();
    for entry in entries {
        let id = entry.service.id;
        let of_servers = entry
            .destinations
            .iter()
            .map(|found| Change::AddDestination(id, found.destination));
        for change in std::iter::once(Change::AddService(entry.service)).chain(of_servers) {
            let _ = writeln!(out, "{}", change_options(&change));
        }
    }
    out
}

/// The options with which ipvsadm would ask for this change.
pub fn change_options(change: &Change) -> String {
    let option = |id: &ServiceId| service_option(id, Names::none());
    let mut out = match change {
        Change::AddService(service) | Change::EditService(service) => {
            let mut out = String::new();
            push_add_service(&mut out, &option(&service.id), service);
            out
        }
        Change::AddDestination(id, destination) | Change::EditDestination(id, destination) => {
            let mut out = String::new();
            push_add_destination(&mut out, &option(id), id, destination, Names::none());
            push_limits(&mut out, destination);
            out
        }
        Change::DeleteService(id) => format!("-D {}", option(id)),
        Change::DeleteDestination(id, server) => {
            let server = address_and_port(server.address, server.port, None, Names::none());
            format!("-d {} -r {server}", option(id))
        }
        Change::Flush => "-C".to_owned(),
        Change::Zero(None) => "-Z".to_owned(),
        Change::Zero(Some(id)) => format!("-Z {}", option(id)),
        Change::SetTimeouts(Timeouts {
            tcp_s,
            tcp_fin_s,
            udp_s,
        }) => {
            format!("--set {tcp_s} {tcp_fin_s} {udp_s}")
        }
        Change::StartDaemon(daemon) => format!(
            "--start-daemon {} --mcast-interface {} --syncid {}",
            role_name(daemon.role),
            daemon.interface,
            daemon.sync_id
        ),
        Change::StopDaemon { role, .. } => format!("--stop-daemon {}", role_name(*role)),
    };
    match change {
        Change::EditService(_) => out.replace_range(..2, "-E"),
        Change::EditDestination(..) => out.replace_range(..2, "-e"),
        _ => {}
    }
    out.truncate(out.trim_end().len());
    out
}

fn push_limits(out: &mut String, destination: &Destination) {
    out.truncate(out.trim_end().len());
    let limits = destination.thresholds;
    if limits.upper > 0 {
        let _ = write!(out, " -x {}", limits.upper);
    }
    if limits.lower > 0 {
        let _ = write!(out, " -y {}", limits.lower);
    }
}

fn role_name(role: DaemonRole) -> &'static str {
    match role {
        DaemonRole::Master => "master",
        DaemonRole::Backup => "backup",
    }
}

/// Puts services and destinations into the order of a listing.
fn sort(entries: &mut Vec<ServiceEntry>) {
    merge_sort(entries, |left, right| {
        compare(&service_key(left), &service_key(right))
    });
    for entry in entries {
        merge_sort(&mut entry.destinations, |left, right| {
            compare(&destination_key(left), &destination_key(right))
        });
    }
}

/// Mark, family, protocol, address as four words, port.
fn service_key(entry: &ServiceEntry) -> [u32; 8] {
    let family = |family| match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    };
    match entry.service.id {
        ServiceId::Mark { family: of, mark } => [mark.get(), family(of), 0, 0, 0, 0, 0, 0],
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            let [a, b, c, d] = address_words(address);
            let of = family(Family::of(address));
            [0, of, protocol.number().into(), a, b, c, d, port.into()]
        }
    }
}

fn destination_key(entry: &DestinationEntry) -> [u32; 5] {
    let id = entry.destination.id;
    let [a, b, c, d] = address_words(id.address);
    [a, b, c, d, id.port.into()]
}

fn address_words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| {
                u32::try_from(bits >> shift & u128::from(u32::MAX)).expect("32 bits are left")
            })
        }
    }
}

/// The sign of the first difference, computed in 32 bits: numbers more than 2³¹ apart
/// compare the wrong way round, so this is no order, and which result comes out depends
/// on the sorting method.
fn compare(left: &[u32], right: &[u32]) -> i32 {
    left.iter()
        .zip(right)
        .map(|(left, right)| left.wrapping_sub(*right).cast_signed())
        .find(|difference| *difference != 0)
        .unwrap_or(0)
}

/// The C library's merge sort: halves, the left one shorter, ties from the left.
fn merge_sort<T>(items: &mut Vec<T>, compare: impl Fn(&T, &T) -> i32 + Copy) {
    if items.len() < 2 {
        return;
    }
    let mut right = items.split_off(items.len() / 2);
    let mut left = std::mem::take(items);
    merge_sort(&mut left, compare);
    merge_sort(&mut right, compare);
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
        let next = if compare(first, second) <= 0 {
            left.next()
        } else {
            right.next()
        };
        items.extend(next);
    }
    items.extend(left);
    items.extend(right);
}

fn titles(columns: Columns) -> String {
    let local = "Prot LocalAddress:Port";
    let remote = "  -> RemoteAddress:Port";
    let big = |titles: [&str; 5]| {
        let titles = titles.map(|title| format!(" {title:>8}")).concat();
        format!("{local:<33}{titles}\n{remote}\n")
    };
    match columns {
        Columns::Plain => format!(
            "{local} Scheduler Flags\n{remote}           Forward Weight ActiveConn InActConn\n"
        ),
        Columns::Tunnels => format!(
            "{local} Scheduler Flags\n\
             {remote}           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        ),
        Columns::Statistics => big(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Columns::Rates => big(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        Columns::Thresholds => format!(
            "{local:<33} {:<10} {:<10} {:<10} {:<10}\n{remote}\n",
            "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        Columns::PersistentConnections => format!(
            "{local:<33} {:<9} {:<11} {:<10} {:<10}\n{remote}\n",
            "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
    }
}

fn push_service(out: &mut String, entry: &ServiceEntry, style: Style, names: &Names) {
    let name = service_name(&entry.service.id, names);
    match style.columns {
        Columns::Statistics => {
            push_totals(
                out,
                &format!("{name:<33}"),
                &entry.statistics,
                style.numbers,
            );
        }
        Columns::Rates => {
            push_service_rates(
                out,
                &format!("{name:<33}"),
                &entry.statistics,
                style.numbers,
            );
        }
        _ => push_settings(out, &name, &entry.service),
    }
    for found in &entry.destinations {
        push_destination(out, &entry.service.id, found, style, names);
    }
}

fn push_settings(out: &mut String, name: &str, service: &Service) {
    let _ = write!(out, "{name} {}", service.scheduler);
    if service.scheduler_flags.any() {
        let _ = write!(out, " ({})", flag_names(service));
    }
    if let Some(Persistence {
        timeout_s,
        granularity,
    }) = service.persistence
    {
        let _ = write!(out, " persistent {timeout_s}");
        if !granularity.is_single_client() {
            let _ = write!(out, " mask {}", mask(granularity));
        }
        if let Some(engine) = &service.engine {
            let _ = write!(out, " pe {engine}");
        }
    }
    if service.one_packet {
        out.push_str(" ops");
    }
    out.push('\n');
}

/// The flags' names for this service's scheduler. The two hashing schedulers have names
/// for two flags and none for the third.
pub(super) fn flag_names(service: &Service) -> String {
    let names = match service.scheduler.as_str() {
        "sh" => ["sh-fallback", "sh-port", ""],
        "mh" => ["mh-fallback", "mh-port", ""],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let set = (0..3).filter(|index| service.scheduler_flags.get(*index));
    let set: Vec<&str> = set
        .map(|index| names[index])
        .filter(|name| !name.is_empty())
        .collect();
    set.join(",")
}

fn mask(granularity: Granularity) -> String {
    match granularity {
        Granularity::Ipv4Mask(mask) => mask.to_string(),
        Granularity::Ipv6Prefix(bits) => bits.to_string(),
    }
}

fn push_destination(
    out: &mut String,
    service: &ServiceId,
    entry: &DestinationEntry,
    style: Style,
    names: &Names,
) {
    let destination = &entry.destination;
    let name = destination_name(service, destination, names);
    let (active, inactive) = (entry.active, entry.inactive);
    let weight = destination.weight.get();
    let method = method_name(destination.forwarding);
    let row = format!("  -> {name:<28}");
    let _ = match style.columns {
        Columns::Plain => {
            writeln!(
                out,
                "{row} {method:<7} {weight:<6} {active:<10} {inactive:<10}"
            )
        }
        Columns::Tunnels => {
            let tunnel = tunnel_info(destination.forwarding);
            writeln!(
                out,
                "{row} {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}"
            )
        }
        Columns::Thresholds => {
            let limits = destination.thresholds;
            let (upper, lower) = (limits.upper, limits.lower);
            writeln!(
                out,
                "{row} {upper:<10} {lower:<10} {active:<10} {inactive:<10}"
            )
        }
        Columns::PersistentConnections => {
            let persistent = entry.persistent;
            writeln!(
                out,
                "{row} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"
            )
        }
        Columns::Statistics => {
            push_totals(out, &row, &entry.statistics, style.numbers);
            Ok(())
        }
        Columns::Rates => {
            push_destination_rates(out, &row, &entry.statistics, style.numbers);
            Ok(())
        }
    };
}

fn push_totals(out: &mut String, row: &str, of: &Statistics, numbers: Numbers) {
    out.push_str(row);
    for value in [
        of.connections,
        of.in_packets,
        of.out_packets,
        of.in_bytes,
        of.out_bytes,
    ] {
        out.push_str(&large(value, numbers));
    }
    out.push('\n');
}

fn push_service_rates(out: &mut String, row: &str, of: &Statistics, numbers: Numbers) {
    out.push_str(row);
    let packets = [of.connection_rate, of.in_packet_rate, of.out_packet_rate];
    for value in packets
        .into_iter()
        .chain([of.in_byte_rate, of.out_byte_rate])
    {
        out.push_str(&large(value, numbers));
    }
    out.push('\n');
}

/// Of a destination's rates only those of bytes are rounded.
fn push_destination_rates(out: &mut String, row: &str, of: &Statistics, numbers: Numbers) {
    out.push_str(row);
    for value in [of.connection_rate, of.in_packet_rate, of.out_packet_rate] {
        let _ = write!(out, " {value:>8}");
    }
    for value in [of.in_byte_rate, of.out_byte_rate] {
        out.push_str(&large(value, numbers));
    }
    out.push('\n');
}

fn large(value: u64, numbers: Numbers) -> String {
    match (numbers, value) {
        (Numbers::Exact, 100_000_000..) => format!(" {value}"),
        (Numbers::Exact, _) | (_, ..100_000_000) => format!("{value:>9}"),
        (_, ..1_000_000_000) => format!("{:>8}K", value / 1000),
        (_, ..100_000_000_000) => format!("{:>8}M", value / 1_000_000),
        (_, ..100_000_000_000_000) => format!("{:>8}G", value / 1_000_000_000),
        _ => format!("{:>8}T", value / 1_000_000_000_000),
    }
}

fn method_name(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Masquerading => "Masq",
        Forwarding::Local => "Local",
        Forwarding::Tunnel(_) => "Tunnel",
        Forwarding::Route => "Route",
        Forwarding::Bypass => "Bypass",
    }
}

fn tunnel_info(forwarding: Forwarding) -> String {
    let sign = |checksum| match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match forwarding {
        Forwarding::Tunnel(Tunnel::Ipip) => "ipip".to_owned(),
        Forwarding::Tunnel(Tunnel::Gue { port, checksum }) => {
            format!("gue:{port}:{}", sign(checksum))
        }
        Forwarding::Tunnel(Tunnel::Gre { checksum }) => format!("gre:{}", sign(checksum)),
        _ => "n/a".to_owned(),
    }
}

/// `TCP  10.0.0.1:80` or `FWM  3`; IPv4 names fill 33 columns at most.
fn service_name(id: &ServiceId, names: &Names) -> String {
    match id {
        // Marks are printed as signed numbers.
        ServiceId::Mark {
            family: Family::Ipv4,
            mark,
        } => {
            format!("FWM  {}", mark.get().cast_signed())
        }
        ServiceId::Mark {
            family: Family::Ipv6,
            mark,
        } => {
            format!("FWM  {} IPv6", mark.get().cast_signed())
        }
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            let protocol_name = protocol.name().to_uppercase();
            let place = address_and_port(*address, *port, Some(*protocol), names);
            cut(format!("{protocol_name:<4} {place}"), *address, 33)
        }
    }
}

fn destination_name(service: &ServiceId, destination: &Destination, names: &Names) -> String {
    let id = destination.id;
    cut(
        address_and_port(id.address, id.port, protocol_of(service), names),
        id.address,
        28,
    )
}

/// A mark has no protocol, so its destinations' ports have no names.
fn protocol_of(service: &ServiceId) -> Option<Protocol> {
    match service {
        ServiceId::Address { protocol, .. } => Some(*protocol),
        ServiceId::Mark { .. } => None,
    }
}

fn cut(mut text: String, address: IpAddr, columns: usize) -> String {
    if address.is_ipv4() && text.len() > columns {
        let end = (0..=columns)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// `10.0.0.1:80`, `[2001:db8::1]:80`, or with names `director:http`.
pub(super) fn address_and_port(
    address: IpAddr,
    port: u16,
    protocol: Option<Protocol>,
    names: &Names,
) -> String {
    let host = names
        .host(address)
        .map_or_else(|| address.to_string(), str::to_owned);
    let port = protocol
        .and_then(|protocol| names.service(protocol, port))
        .map_or_else(|| port.to_string(), str::to_owned);
    match address {
        IpAddr::V4(_) => format!("{host}:{port}"),
        IpAddr::V6(_) => format!("[{host}]:{port}"),
    }
}

/// The service as an option: `-t 10.0.0.1:80`.
pub fn service_option(id: &ServiceId, names: &Names) -> String {
    match id {
        // Above 2³¹ this is not read back: -f takes no sign.
        ServiceId::Mark {
            family: Family::Ipv4,
            mark,
        } => {
            format!("-f {}", mark.get().cast_signed())
        }
        ServiceId::Mark {
            family: Family::Ipv6,
            mark,
        } => {
            format!("-f {} -6", mark.get().cast_signed())
        }
        ServiceId::Address {
            protocol,
            address,
            port,
        } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            let place = address_and_port(*address, *port, Some(*protocol), names);
            format!("{option} {place}")
        }
    }
}

fn push_add_service(out: &mut String, option: &str, service: &Service) {
    let _ = write!(out, "-A {option} -s {}", service.scheduler);
    if let Some(Persistence {
        timeout_s,
        granularity,
    }) = service.persistence
    {
        let _ = write!(out, " -p {timeout_s}");
        if !granularity.is_single_client() {
            let _ = write!(out, " -M {}", mask(granularity));
        }
    }
    if let Some(engine) = &service.engine {
        let _ = write!(out, " --pe {engine}");
    }
    if service.one_packet {
        out.push_str(" -o");
    }
    if service.scheduler_flags.any() {
        let _ = write!(out, " -b {}", flag_names(service));
    }
    out.push('\n');
}

fn push_add_destination(
    out: &mut String,
    option: &str,
    service: &ServiceId,
    destination: &Destination,
    names: &Names,
) {
    let id = destination.id;
    let place = address_and_port(id.address, id.port, protocol_of(service), names);
    let method = match destination.forwarding {
        Forwarding::Masquerading => "-m",
        Forwarding::Tunnel(_) => "-i",
        _ => "-g",
    };
    let weight = destination.weight.get();
    let _ = write!(out, "-a {option} -r {place} {method} -w {weight}");
    if let Forwarding::Tunnel(tunnel) = destination.forwarding {
        out.push_str(&tunnel_options(tunnel));
    }
    out.push('\n');
}

fn tunnel_options(tunnel: Tunnel) -> String {
    let option = |checksum| match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match tunnel {
        Tunnel::Ipip => " --tun-type ipip".to_owned(),
        Tunnel::Gue { port, checksum } => {
            format!(" --tun-type gue --tun-port {port} {}", option(checksum))
        }
        Tunnel::Gre { checksum } => format!(" --tun-type gre {}", option(checksum)),
    }
}

/// `-L --timeout`.
pub fn timeouts(timeouts: Timeouts) -> String {
    let Timeouts {
        tcp_s,
        tcp_fin_s,
        udp_s,
    } = timeouts;
    format!("Timeout (tcp tcpfin udp): {tcp_s} {tcp_fin_s} {udp_s}\n")
}

/// `-L --daemon`: the master's line first.
pub fn daemons(daemons: &[Daemon]) -> String {
    let of = |role| daemons.iter().filter(move |daemon| daemon.role == role);
    of(DaemonRole::Master)
        .chain(of(DaemonRole::Backup))
        .map(daemon_line)
        .collect()
}

fn daemon_line(daemon: &Daemon) -> String {
    let role = role_name(daemon.role);
    let mut line = format!(
        "{role} sync daemon (mcast={}, syncid={}",
        daemon.interface, daemon.sync_id
    );
    if let Some(bytes) = daemon.message_bytes_max {
        let _ = write!(line, ", maxlen={bytes}");
    }
    if let Some(group) = daemon.group {
        let _ = write!(line, ", group={group}");
    }
    if let Some(port) = daemon.port {
        let _ = write!(line, ", port={port}");
    }
    if let Some(ttl) = daemon.ttl {
        let _ = write!(line, ", ttl={ttl}");
    }
    line + ")\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::model::{DestinationId, SchedulerName, Thresholds, Weight};

    fn web() -> ServiceEntry {
        let id = ServiceId::Address {
            protocol: Protocol::Tcp,
            address: [10, 0, 0, 1].into(),
            port: 80,
        };
        ServiceEntry {
            service: Service::plain(id, SchedulerName::cut("rr")),
            statistics: Statistics {
                connections: 12,
                in_packets: 96,
                in_bytes: 123_456_789,
                ..Statistics::default()
            },
            destinations: vec![server([10, 0, 0, 30]), server([10, 0, 0, 20])],
        }
    }

    fn server(address: [u8; 4]) -> DestinationEntry {
        DestinationEntry {
            destination: Destination {
                id: DestinationId {
                    address: address.into(),
                    port: 80,
                },
                forwarding: Forwarding::Route,
                weight: Weight::ONE,
                thresholds: Thresholds { upper: 4, lower: 0 },
            },
            active: 0,
            inactive: 3,
            persistent: 0,
            statistics: Statistics::default(),
        }
    }

    fn shown(columns: Columns, numbers: Numbers) -> String {
        let style = Style {
            columns,
            numbers,
            order: Order::Sorted,
        };
        table(vec![web()], style, Names::none()).replace('\n', "|\n")
    }

    #[test]
    fn the_plain_table_has_its_trailing_blanks() {
        assert_eq!(
            shown(Columns::Plain, Numbers::Rounded),
            "Prot LocalAddress:Port Scheduler Flags|\n\
             \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn|\n\
             TCP  10.0.0.1:80 rr|\n\
             \x20 -> 10.0.0.20:80                 Route   1      0          3         |\n\
             \x20 -> 10.0.0.30:80                 Route   1      0          3         |\n"
        );
    }

    #[test]
    fn statistics_are_rounded_or_exact() {
        let row = |numbers| {
            shown(Columns::Statistics, numbers)
                .lines()
                .nth(2)
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            row(Numbers::Rounded),
            "TCP  10.0.0.1:80                        12       96        0  123456K        0|"
        );
        assert_eq!(
            row(Numbers::Exact),
            "TCP  10.0.0.1:80                        12       96        0 123456789        0|"
        );
    }

    #[test]
    fn saved_commands_read_as_they_would_be_typed() {
        assert_eq!(
            commands(vec![web()], &Names::new("10.0.0.20 vm-2", "http 80/tcp")),
            "-A -t 10.0.0.1:http -s rr\n\
             -a -t 10.0.0.1:http -r vm-2:http -g -w 1\n\
             -a -t 10.0.0.1:http -r 10.0.0.30:http -g -w 1\n"
        );
    }

    #[test]
    fn addresses_far_apart_are_sorted_as_the_c_library_would() {
        let mut items: Vec<u32> = vec![10, 0xc800_0000, 20, 0x7000_0000];
        merge_sort(&mut items, |left, right| compare(&[*left], &[*right]));
        assert_eq!(items, [0xc800_0000, 10, 20, 0x7000_0000]);
    }
}
