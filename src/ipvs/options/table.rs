//! Every option there is, what the help says of it, and which command takes which.

use std::fmt::Write as _;

use crate::ipvs::model::Protocol;
use crate::ipvs::popt::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    AddService,
    EditService,
    DeleteService,
    Clear,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    Set,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
    Help,
    Version,
}

/// An option that is no command; in the order in which combinations are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forwarding,
    Weight,
    Upper,
    Lower,
    SyncInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedulerFlags,
    SyncGroup,
    SyncPort,
    SyncTtl,
    SyncMaxLength,
    TunnelInfo,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
}

impl Opt {
    pub(super) const ALL: [(Self, &'static str); 34] = [
        (Self::Numeric, "numeric"),
        (Self::Connection, "connection"),
        (Self::Service, "service-address"),
        (Self::Scheduler, "scheduler"),
        (Self::Persistent, "persistent"),
        (Self::Netmask, "netmask"),
        (Self::Server, "real-server"),
        (Self::Forwarding, "forwarding-method"),
        (Self::Weight, "weight"),
        (Self::Upper, "u-threshold"),
        (Self::Lower, "l-threshold"),
        (Self::SyncInterface, "mcast-interface"),
        (Self::Timeout, "timeout"),
        (Self::Daemon, "daemon"),
        (Self::Stats, "stats"),
        (Self::Rate, "rate"),
        (Self::Thresholds, "thresholds"),
        (Self::PersistentConn, "persistent-conn"),
        (Self::NoSort, "nosort"),
        (Self::SyncId, "syncid"),
        (Self::Exact, "exact"),
        (Self::OnePacket, "ops"),
        (Self::Engine, "pe"),
        (Self::SchedulerFlags, "sched-flags"),
        (Self::SyncGroup, "mcast-group"),
        (Self::SyncPort, "mcast-port"),
        (Self::SyncTtl, "mcast-ttl"),
        (Self::SyncMaxLength, "sync-maxlen"),
        (Self::TunnelInfo, "tun-info"),
        (Self::TunnelType, "tun-type"),
        (Self::TunnelPort, "tun-port"),
        (Self::TunnelNoChecksum, "tun-nocsum"),
        (Self::TunnelChecksum, "tun-csum"),
        (Self::TunnelRemoteChecksum, "tun-remcsum"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(option, _)| *option == self)
            .map(|(_, name)| *name)
            .expect("ALL holds every option")
    }
}

/// What one command makes of its options; every other option is illegal.
pub(super) struct Rule {
    pub(super) verb: Verb,
    pub(super) name: &'static str,
    pub(super) needs: &'static [Opt],
    pub(super) takes: &'static [Opt],
    pub(super) takes_one: &'static [Opt],
}

const SERVICE_SETTINGS: &[Opt] = &[
    Opt::Scheduler,
    Opt::Persistent,
    Opt::Netmask,
    Opt::OnePacket,
    Opt::Engine,
    Opt::SchedulerFlags,
];
const SERVER_SETTINGS: &[Opt] = &[
    Opt::Forwarding,
    Opt::Weight,
    Opt::Upper,
    Opt::Lower,
    Opt::TunnelType,
    Opt::TunnelPort,
    Opt::TunnelNoChecksum,
    Opt::TunnelChecksum,
    Opt::TunnelRemoteChecksum,
];
const LIST_SETTINGS: &[Opt] = &[
    Opt::Numeric,
    Opt::Stats,
    Opt::Rate,
    Opt::Thresholds,
    Opt::PersistentConn,
    Opt::NoSort,
    Opt::SyncId,
    Opt::Exact,
    Opt::TunnelInfo,
];
const SYNC_SETTINGS: &[Opt] = &[
    Opt::SyncInterface,
    Opt::SyncId,
    Opt::SyncGroup,
    Opt::SyncPort,
    Opt::SyncTtl,
    Opt::SyncMaxLength,
];

impl Rule {
    const fn new(
        verb: Verb,
        name: &'static str,
        needs: &'static [Opt],
        takes: &'static [Opt],
    ) -> Self {
        Self {
            verb,
            name,
            needs,
            takes,
            takes_one: &[],
        }
    }
}

pub(super) const RULES: &[Rule] = &[
    Rule::new(
        Verb::AddService,
        "add-service",
        &[Opt::Service],
        SERVICE_SETTINGS,
    ),
    Rule::new(
        Verb::EditService,
        "edit-service",
        &[Opt::Service],
        SERVICE_SETTINGS,
    ),
    Rule::new(Verb::DeleteService, "delete-service", &[Opt::Service], &[]),
    Rule::new(Verb::Clear, "flush", &[], &[]),
    Rule {
        takes_one: &[Opt::Connection, Opt::Service, Opt::Timeout, Opt::Daemon],
        ..Rule::new(Verb::List, "list", &[], LIST_SETTINGS)
    },
    Rule::new(
        Verb::AddServer,
        "add-server",
        &[Opt::Service, Opt::Server],
        SERVER_SETTINGS,
    ),
    Rule::new(
        Verb::DeleteServer,
        "delete-server",
        &[Opt::Service, Opt::Server],
        &[],
    ),
    Rule::new(
        Verb::EditServer,
        "edit-server",
        &[Opt::Service, Opt::Server],
        SERVER_SETTINGS,
    ),
    Rule::new(Verb::Set, "set", &[], &[]),
    Rule::new(Verb::StartDaemon, "start-daemon", &[], SYNC_SETTINGS),
    Rule::new(Verb::StopDaemon, "stop-daemon", &[], &[Opt::SyncId]),
    Rule::new(Verb::Restore, "restore", &[], &[]),
    Rule::new(Verb::Save, "save", &[], &[Opt::Numeric]),
    Rule::new(Verb::Zero, "zero", &[], &[Opt::Service]),
];

/// What an option's word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Verb(Verb),
    /// Only its presence counts.
    Flag(Opt),
    Address(Protocol),
    Mark,
    Ipv6,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forwarding(Method),
    Weight,
    Upper,
    Lower,
    Engine,
    SchedulerFlags,
    TunnelType,
    TunnelPort,
    SyncInterface,
    SyncId,
    SyncGroup,
    SyncPort,
    SyncTtl,
    SyncMaxLength,
    /// Accepted for old scripts, means nothing.
    Sort,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Method {
    #[default]
    Route,
    Tunnel,
    Masquerading,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TunnelKind {
    #[default]
    Ipip,
    Gue,
    Gre,
}

/// One option's spellings, and what the help says of it.
pub(super) struct Row {
    pub(super) long: Option<&'static str>,
    pub(super) short: Option<char>,
    pub(super) value: Value,
    pub(super) key: Key,
    pub(super) argument: &'static str,
    pub(super) help: &'static str,
}

const fn row(
    long: &'static str,
    short: Option<char>,
    key: Key,
    argument: &'static str,
    help: &'static str,
) -> Row {
    let value = match argument.as_bytes().first() {
        None => Value::None,
        Some(b'[') => Value::Optional,
        Some(_) => Value::Required,
    };
    Row {
        long: Some(long),
        short,
        value,
        key,
        argument,
        help,
    }
}

const fn verb(
    long: &'static str,
    short: Option<char>,
    verb: Verb,
    argument: &'static str,
    help: &'static str,
) -> Row {
    row(long, short, Key::Verb(verb), argument, help)
}

const fn flag(long: &'static str, short: Option<char>, option: Opt, help: &'static str) -> Row {
    row(long, short, Key::Flag(option), "", help)
}

const COMMAND_ROWS: &[Row] = &[
    verb(
        "add-service",
        Some('A'),
        Verb::AddService,
        "",
        "add a virtual service",
    ),
    verb(
        "edit-service",
        Some('E'),
        Verb::EditService,
        "",
        "change a virtual service's settings",
    ),
    verb(
        "delete-service",
        Some('D'),
        Verb::DeleteService,
        "",
        "remove a virtual service",
    ),
    verb(
        "clear",
        Some('C'),
        Verb::Clear,
        "",
        "remove all virtual services",
    ),
    verb(
        "restore",
        Some('R'),
        Verb::Restore,
        "",
        "read commands from standard input",
    ),
    verb(
        "save",
        Some('S'),
        Verb::Save,
        "",
        "print the table as commands",
    ),
    verb(
        "add-server",
        Some('a'),
        Verb::AddServer,
        "",
        "add a real server to a service",
    ),
    verb(
        "edit-server",
        Some('e'),
        Verb::EditServer,
        "",
        "change a real server's settings",
    ),
    verb(
        "delete-server",
        Some('d'),
        Verb::DeleteServer,
        "",
        "remove a real server",
    ),
    verb(
        "list",
        Some('L'),
        Verb::List,
        "",
        "show the table (also -l)",
    ),
    Row {
        long: None,
        short: Some('l'),
        value: Value::None,
        key: Key::Verb(Verb::List),
        argument: "",
        help: "",
    },
    verb(
        "zero",
        Some('Z'),
        Verb::Zero,
        "",
        "set counters to zero, of one service or of all",
    ),
    verb(
        "set",
        None,
        Verb::Set,
        "",
        "set the timeouts: tcp, tcpfin, udp, in seconds",
    ),
    verb(
        "start-daemon",
        None,
        Verb::StartDaemon,
        "role",
        "start telling (master) or learning (backup) connections",
    ),
    verb(
        "stop-daemon",
        None,
        Verb::StopDaemon,
        "role",
        "stop that again",
    ),
    verb("help", Some('h'), Verb::Help, "", "this text"),
    verb(
        "version",
        Some('v'),
        Verb::Version,
        "",
        "the program's version",
    ),
];

const SERVICE_ROWS: &[Row] = &[
    row(
        "tcp-service",
        Some('t'),
        Key::Address(Protocol::Tcp),
        "host[:port]",
        "a TCP service",
    ),
    row(
        "udp-service",
        Some('u'),
        Key::Address(Protocol::Udp),
        "host[:port]",
        "a UDP service",
    ),
    row(
        "sctp-service",
        None,
        Key::Address(Protocol::Sctp),
        "host[:port]",
        "an SCTP service",
    ),
    row(
        "fwmark-service",
        Some('f'),
        Key::Mark,
        "mark",
        "packets with this firewall mark",
    ),
    row(
        "ipv6",
        Some('6'),
        Key::Ipv6,
        "",
        "the mark stands for IPv6 packets",
    ),
];

const SETTING_ROWS: &[Row] = &[
    row(
        "scheduler",
        Some('s'),
        Key::Scheduler,
        "name",
        "how servers are chosen (wlc)",
    ),
    row(
        "sched-flags",
        Some('b'),
        Key::SchedulerFlags,
        "flags",
        "flag-1,flag-2,flag-3, or sh-fallback,sh-port, mh-fallback,mh-port",
    ),
    row(
        "persistent",
        Some('p'),
        Key::Persistent,
        "[seconds]",
        "a client keeps its server (360)",
    ),
    row(
        "netmask",
        Some('M'),
        Key::Netmask,
        "mask",
        "clients equal under this mask count as one",
    ),
    row(
        "pe",
        None,
        Key::Engine,
        "engine",
        "persistence by content: sip",
    ),
    flag(
        "ops",
        Some('o'),
        Opt::OnePacket,
        "schedule each UDP packet by itself",
    ),
    row(
        "real-server",
        Some('r'),
        Key::Server,
        "host[:port]",
        "the real server",
    ),
    row(
        "gatewaying",
        Some('g'),
        Key::Forwarding(Method::Route),
        "",
        "forward by direct routing (default)",
    ),
    row(
        "ipip",
        Some('i'),
        Key::Forwarding(Method::Tunnel),
        "",
        "forward through a tunnel",
    ),
    row(
        "masquerading",
        Some('m'),
        Key::Forwarding(Method::Masquerading),
        "",
        "forward by address translation",
    ),
    row(
        "tun-type",
        None,
        Key::TunnelType,
        "type",
        "ipip, gue or gre (ipip)",
    ),
    row(
        "tun-port",
        None,
        Key::TunnelPort,
        "port",
        "where a gue tunnel ends",
    ),
    flag(
        "tun-nocsum",
        None,
        Opt::TunnelNoChecksum,
        "tunnel without checksum",
    ),
    flag(
        "tun-csum",
        None,
        Opt::TunnelChecksum,
        "tunnel with checksum",
    ),
    flag(
        "tun-remcsum",
        None,
        Opt::TunnelRemoteChecksum,
        "tunnel with remote checksum",
    ),
    row(
        "weight",
        Some('w'),
        Key::Weight,
        "weight",
        "the server's share; 0 takes nothing new (1)",
    ),
    row(
        "u-threshold",
        Some('x'),
        Key::Upper,
        "number",
        "no new connections above this many",
    ),
    row(
        "l-threshold",
        Some('y'),
        Key::Lower,
        "number",
        "new ones again below this many",
    ),
];

const LIST_ROWS: &[Row] = &[
    flag(
        "numeric",
        Some('n'),
        Opt::Numeric,
        "numbers instead of names",
    ),
    flag(
        "connection",
        Some('c'),
        Opt::Connection,
        "current connections",
    ),
    flag("timeout", None, Opt::Timeout, "timeouts (tcp tcpfin udp)"),
    flag("daemon", None, Opt::Daemon, "sync daemons"),
    flag("stats", None, Opt::Stats, "totals"),
    flag("rate", None, Opt::Rate, "rates a second"),
    flag("exact", Some('X'), Opt::Exact, "numbers in full"),
    flag("thresholds", None, Opt::Thresholds, "limits of connections"),
    flag(
        "persistent-conn",
        None,
        Opt::PersistentConn,
        "persistent connections",
    ),
    flag("tun-info", None, Opt::TunnelInfo, "tunnels"),
    flag("nosort", None, Opt::NoSort, "the kernel's order"),
    row(
        "sort",
        None,
        Key::Sort,
        "",
        "means nothing, for old scripts",
    ),
];

const DAEMON_ROWS: &[Row] = &[
    row(
        "syncid",
        None,
        Key::SyncId,
        "id",
        "0 to 255; a backup with 0 takes all (0)",
    ),
    row(
        "sync-maxlen",
        None,
        Key::SyncMaxLength,
        "bytes",
        "longest message (1472)",
    ),
    row(
        "mcast-interface",
        None,
        Key::SyncInterface,
        "name",
        "multicast interface (eth0)",
    ),
    row(
        "mcast-group",
        None,
        Key::SyncGroup,
        "address",
        "multicast group (224.0.0.81)",
    ),
    row("mcast-port", None, Key::SyncPort, "port", "UDP port (8848)"),
    row("mcast-ttl", None, Key::SyncTtl, "hops", "multicast TTL (1)"),
];

pub(super) const ROWS: [&[Row]; 5] = [
    COMMAND_ROWS,
    SERVICE_ROWS,
    SETTING_ROWS,
    LIST_ROWS,
    DAEMON_ROWS,
];

/// What `-h` prints: usage, then every option with its meaning.
pub fn help(program: &str) -> String {
    let usage = [
        "-A|E virtual-service [-s scheduler] [-p [timeout]] [-M netmask] [--pe engine] [-b flags] [-o]",
        "-D virtual-service",
        "-C",
        "-R",
        "-S [-n]",
        "-a|e virtual-service -r server [-g|-i|-m] [-w weight] [-x number] [-y number] [tunnel options]",
        "-d virtual-service -r server",
        "-L|l [virtual-service] [list options]",
        "-Z [virtual-service]",
        "--set tcp tcpfin udp",
        "--start-daemon master|backup [daemon options]",
        "--stop-daemon master|backup",
        "-h",
    ];
    let mut out = "Usage:\n".to_owned();
    for line in usage {
        let _ = writeln!(out, "  {program} {line}");
    }
    let titles = [
        "Commands",
        "Virtual service",
        "Settings",
        "List options",
        "Daemon options",
    ];
    for (title, rows) in titles.iter().zip(ROWS) {
        let _ = writeln!(out, "\n{title}:");
        for row in rows.iter().filter(|row| row.long.is_some()) {
            let short = row
                .short
                .map_or_else(String::new, |short| format!("-{short}"));
            let long = format!("--{} {}", row.long.unwrap_or_default(), row.argument);
            let _ = writeln!(out, "  {short:<2} {long:<32} {}", row.help);
        }
    }
    out
}
