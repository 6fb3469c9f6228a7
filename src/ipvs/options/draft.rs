//! The values of a command line, each checked as it comes, and what they make together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use super::table::{Key, Method, Opt, TunnelKind, Verb};
use super::value::{host_and_port, leading_number, number, timeout};
use super::{Command, Listed, Output, UsageError, refused, refused_with};
use crate::ipvs::connections::Engines;
use crate::ipvs::listing::{Columns, Numbers, Order, Style};
use crate::ipvs::model::{
    Change, Daemon, DaemonRole, Destination, DestinationId, EngineName, Family, Forwarding,
    Granularity, InterfaceName, Persistence, Protocol, SchedulerFlags, SchedulerName, Service,
    ServiceId, Thresholds, Tunnel, TunnelChecksum, Weight,
};
use crate::ipvs::names::Names;

/// Persistence without a time, in seconds.
const PERSISTENCE_DEFAULT_S: u32 = 6 * 60;
const SCHEDULER_DEFAULT: &str = "wlc";
const SYNC_INTERFACE_DEFAULT: &str = "eth0";
/// A UDP datagram's content at most.
const SYNC_MESSAGE_MAX: i64 = 65535 - 20 - 8;

/// The values given so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) given: Vec<Opt>,
    service: Option<ServiceId>,
    scheduler: Option<SchedulerName>,
    flag_words: Option<String>,
    scheduler_flags: SchedulerFlags,
    persistence_s: Option<u32>,
    netmask: Option<Granularity>,
    engine: Option<EngineName>,
    server: Option<DestinationId>,
    method: Method,
    weight: Option<Weight>,
    thresholds: Thresholds,
    tunnel: TunnelKind,
    tunnel_port: u16,
    interface: Option<InterfaceName>,
    pub(super) sync_id: u8,
    group: Option<IpAddr>,
    sync_port: Option<u16>,
    sync_ttl: Option<u8>,
    sync_message_max: Option<u16>,
}

impl Draft {
    pub(super) fn take(
        &mut self,
        key: Key,
        value: Option<&str>,
        names: &Names,
    ) -> Result<(), UsageError> {
        let text = value.unwrap_or_default();
        match key {
            Key::Flag(option) => self.give(option),
            Key::Address(protocol) => self.take_address(protocol, text, names),
            Key::Mark => self.take_mark(text),
            Key::Ipv6 => self.take_ipv6(),
            Key::Scheduler => {
                self.give(Opt::Scheduler)?;
                self.scheduler = (!text.is_empty()).then(|| SchedulerName::cut(text));
                Ok(())
            }
            Key::Persistent => {
                self.give(Opt::Persistent)?;
                let given = value.map(|text| timeout(text, 1)).transpose()?;
                self.persistence_s = Some(given.unwrap_or(PERSISTENCE_DEFAULT_S));
                Ok(())
            }
            Key::Netmask => self.take_netmask(text, names),
            Key::Server => self.take_server(text, names),
            Key::Forwarding(method) => {
                self.method = method;
                self.give(Opt::Forwarding)
            }
            Key::Engine => {
                self.engine = Some(EngineName::cut(text)).filter(|name| !name.as_str().is_empty());
                self.give(Opt::Engine)
            }
            Key::SchedulerFlags => {
                self.flag_words = Some(text.to_owned());
                self.give(Opt::SchedulerFlags)
            }
            Key::TunnelType => self.take_tunnel_type(text),
            Key::SyncInterface => {
                self.interface = (!text.is_empty()).then(|| InterfaceName::cut(text));
                self.give(Opt::SyncInterface)
            }
            Key::SyncGroup => self.take_group(text),
            Key::Sort => Ok(()),
            Key::Verb(_) => unreachable!("a second command was refused"),
            Key::Weight
            | Key::Upper
            | Key::Lower
            | Key::TunnelPort
            | Key::SyncId
            | Key::SyncPort
            | Key::SyncTtl
            | Key::SyncMaxLength => self.take_number(key, text),
        }
    }

    /// Notes that an option was given; twice is too often.
    fn give(&mut self, option: Opt) -> Result<(), UsageError> {
        if self.given.contains(&option) {
            return Err(refused(format!(
                "multiple '{}' options specified",
                option.name()
            )));
        }
        self.given.push(option);
        Ok(())
    }

    fn is_given(&self, option: Opt) -> bool {
        self.given.contains(&option)
    }

    fn take_number(&mut self, key: Key, text: &str) -> Result<(), UsageError> {
        const INT_MAX: i64 = i32::MAX as i64;
        let wrong = |what: &str, range: &str| {
            refused_with(
                format!("illegal {what} specified"),
                format!("`{text}' is not {range}"),
            )
        };
        match key {
            Key::Weight => {
                self.give(Opt::Weight)?;
                let weight = number(text, 0, INT_MAX).and_then(Weight::new);
                self.weight = Some(weight.ok_or_else(|| wrong("weight", "0 to 2147483647"))?);
            }
            Key::Upper => {
                self.give(Opt::Upper)?;
                self.thresholds.upper = number(text, 0, INT_MAX)
                    .ok_or_else(|| wrong("u_threshold", "0 to 2147483647"))?;
            }
            Key::Lower => {
                self.give(Opt::Lower)?;
                self.thresholds.lower = number(text, 0, INT_MAX)
                    .ok_or_else(|| wrong("l_threshold", "0 to 2147483647"))?;
            }
            Key::TunnelPort => {
                self.give(Opt::TunnelPort)?;
                self.tunnel_port = number(text, 1, 65535)
                    .ok_or_else(|| wrong("tunnel port", "a port, 1 to 65535"))?;
            }
            Key::SyncId => {
                self.give(Opt::SyncId)?;
                self.sync_id = number(text, 0, 255).ok_or_else(|| wrong("syncid", "0 to 255"))?;
            }
            Key::SyncPort => {
                self.give(Opt::SyncPort)?;
                let port = number(text, 1, 65535);
                self.sync_port = Some(port.ok_or_else(|| wrong("mcast-port", "1 to 65535"))?);
            }
            Key::SyncTtl => {
                self.give(Opt::SyncTtl)?;
                let ttl = number(text, 1, 255);
                self.sync_ttl = Some(ttl.ok_or_else(|| wrong("mcast-ttl", "1 to 255"))?);
            }
            _ => {
                self.give(Opt::SyncMaxLength)?;
                let bytes = number(text, 1, SYNC_MESSAGE_MAX);
                self.sync_message_max =
                    Some(bytes.ok_or_else(|| wrong("sync-maxlen", "1 to 65507"))?);
            }
        }
        Ok(())
    }

    fn take_address(
        &mut self,
        protocol: Protocol,
        text: &str,
        names: &Names,
    ) -> Result<(), UsageError> {
        self.give(Opt::Service)?;
        let (address, port) = host_and_port(text, Some(protocol), names)
            .ok_or_else(|| wrong_place("illegal virtual server address[:port] specified", text))?;
        if address.is_ipv6() {
            self.netmask = None;
        }
        self.service = Some(ServiceId::Address {
            protocol,
            address,
            port: port.unwrap_or(0),
        });
        Ok(())
    }

    fn take_mark(&mut self, text: &str) -> Result<(), UsageError> {
        self.give(Opt::Service)?;
        let mark = number(text, 1, i64::from(u32::MAX)).and_then(NonZeroU32::new);
        let mark = mark.ok_or_else(|| {
            refused_with(
                format!("invalid fwmark value `{text}' specified"),
                "give a whole number, 1 to 4294967295",
            )
        })?;
        self.service = Some(ServiceId::Mark {
            family: Family::Ipv4,
            mark,
        });
        Ok(())
    }

    fn take_ipv6(&mut self) -> Result<(), UsageError> {
        match self.service {
            Some(ServiceId::Mark { mark, .. }) => {
                self.service = Some(ServiceId::Mark {
                    family: Family::Ipv6,
                    mark,
                });
                self.netmask = None;
                Ok(())
            }
            _ => Err(refused("-6 must follow -f")),
        }
    }

    fn family(&self) -> Family {
        self.service
            .map_or(Family::Ipv4, |service| service.family())
    }

    fn take_netmask(&mut self, text: &str, names: &Names) -> Result<(), UsageError> {
        self.give(Opt::Netmask)?;
        self.netmask = Some(match self.family() {
            Family::Ipv4 => names
                .address(text)
                .map(Granularity::Ipv4Mask)
                .ok_or_else(|| {
                    refused_with(
                        "illegal virtual server persistent mask specified",
                        format!("`{text}' is not a mask such as 255.255.255.0"),
                    )
                })?,
            Family::Ipv6 => Granularity::Ipv6Prefix(leading_number(text).ok_or_else(|| {
                refused_with(
                    "illegal ipv6 netmask specified",
                    format!("`{text}' is not a prefix length, 1 to 128"),
                )
            })?),
        });
        Ok(())
    }

    /// A server's port is that of the service where it has none of its own.
    fn take_server(&mut self, text: &str, names: &Names) -> Result<(), UsageError> {
        self.give(Opt::Server)?;
        let (protocol, service_port) = match self.service {
            Some(ServiceId::Address { protocol, port, .. }) => (Some(protocol), port),
            // A mark's ports are named as TCP's.
            Some(ServiceId::Mark { .. }) => (Some(Protocol::Tcp), 0),
            None => (None, 0),
        };
        let (address, port) = host_and_port(text, protocol, names)
            .ok_or_else(|| wrong_place("illegal real server address[:port] specified", text))?;
        self.server = Some(DestinationId {
            address,
            port: port.unwrap_or(service_port),
        });
        Ok(())
    }

    fn take_tunnel_type(&mut self, text: &str) -> Result<(), UsageError> {
        self.give(Opt::TunnelType)?;
        self.tunnel = match text {
            "ipip" => TunnelKind::Ipip,
            "gue" => TunnelKind::Gue,
            "gre" => TunnelKind::Gre,
            _ => {
                return Err(refused_with(
                    "illegal tunnel type specified",
                    format!("`{text}' is not ipip, gue or gre"),
                ));
            }
        };
        Ok(())
    }

    fn take_group(&mut self, text: &str) -> Result<(), UsageError> {
        self.give(Opt::SyncGroup)?;
        let (name, group) = if text.contains(':') {
            ("IPv6", text.parse::<Ipv6Addr>().ok().map(IpAddr::V6))
        } else {
            ("IPv4", text.parse::<Ipv4Addr>().ok().map(IpAddr::V4))
        };
        self.group = Some(group.filter(IpAddr::is_multicast).ok_or_else(|| {
            refused_with(
                format!("invalid {name} mcast-group `{text}'"),
                "give a multicast address, such as 224.0.0.81",
            )
        })?);
        Ok(())
    }

    /// The flags' names depend on the scheduler, which may have come after them.
    pub(super) fn finish_scheduler_flags(&mut self) -> Result<(), UsageError> {
        let scheduler = self.scheduler.as_ref().map_or("", SchedulerName::as_str);
        let words = self.flag_words.as_deref().unwrap_or_default();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let (index, only_with) = match word {
                "flag-1" => (0, None),
                "flag-2" => (1, None),
                "flag-3" => (2, None),
                "sh-fallback" => (0, Some("sh")),
                "sh-port" => (1, Some("sh")),
                "mh-fallback" => (0, Some("mh")),
                "mh-port" => (1, Some("mh")),
                _ => {
                    return Err(refused_with(
                        format!("invalid scheduler flag `{word}'"),
                        "there are flag-1 to flag-3, sh-fallback, sh-port, mh-fallback, mh-port",
                    ));
                }
            };
            if let Some(wanted) = only_with.filter(|wanted| *wanted != scheduler) {
                return Err(refused_with(
                    format!("incompatible scheduler flag `{word}'"),
                    format!("it belongs to the scheduler {wanted}"),
                ));
            }
            self.scheduler_flags = self.scheduler_flags.with(index);
        }
        Ok(())
    }

    pub(super) fn start_daemon(self, role: DaemonRole) -> Change {
        Change::StartDaemon(Daemon {
            role,
            interface: self
                .interface
                .unwrap_or_else(|| InterfaceName::cut(SYNC_INTERFACE_DEFAULT)),
            sync_id: self.sync_id,
            message_bytes_max: self.sync_message_max,
            group: self.group,
            port: self.sync_port,
            ttl: self.sync_ttl,
        })
    }

    /// Only for commands whose needed options are there.
    pub(super) fn command(self, verb: Verb) -> Result<Command, UsageError> {
        let output = if self.is_given(Opt::Numeric) {
            Output::Numeric
        } else {
            Output::Names
        };
        let change = match verb {
            Verb::List => {
                return Ok(Command::List {
                    what: self.listed()?,
                    output,
                });
            }
            Verb::Save => return Ok(Command::Save(output)),
            Verb::Restore => return Ok(Command::Restore),
            Verb::Clear => Change::Flush,
            Verb::Zero => Change::Zero(self.service),
            Verb::DeleteService => Change::DeleteService(self.service_id()),
            Verb::AddService => Change::AddService(self.service()?),
            Verb::EditService => Change::EditService(self.service()?),
            Verb::DeleteServer => Change::DeleteDestination(self.service_id(), self.server_id()),
            Verb::AddServer => Change::AddDestination(self.service_id(), self.destination()?),
            Verb::EditServer => Change::EditDestination(self.service_id(), self.destination()?),
            Verb::Set | Verb::StartDaemon | Verb::StopDaemon | Verb::Help | Verb::Version => {
                unreachable!("these were made of their arguments")
            }
        };
        Ok(Command::Change(change))
    }

    fn service_id(&self) -> ServiceId {
        self.service.expect("the command's rule needs a service")
    }

    fn server_id(&self) -> DestinationId {
        self.server.expect("the command's rule needs a server")
    }

    fn listed(&self) -> Result<Listed, UsageError> {
        let any = |options: &[Opt]| options.iter().any(|option| self.is_given(*option));
        let of_table = any(&[Opt::Stats, Opt::Rate, Opt::Thresholds]);
        if any(&[Opt::Connection, Opt::Timeout, Opt::Daemon]) && of_table
            || any(&[Opt::Timeout, Opt::Daemon]) && any(&[Opt::PersistentConn])
        {
            return Err(refused("options conflicts in the list command"));
        }
        let style = self.style();
        Ok(if self.is_given(Opt::Connection) {
            Listed::Connections(if self.is_given(Opt::PersistentConn) {
                Engines::Shown
            } else {
                Engines::Hidden
            })
        } else if let Some(service) = self.service {
            Listed::Service(service, style)
        } else if self.is_given(Opt::Timeout) {
            Listed::Timeouts
        } else if self.is_given(Opt::Daemon) {
            Listed::Daemons
        } else {
            Listed::Table(style)
        })
    }

    fn style(&self) -> Style {
        let columns = [
            (Opt::Stats, Columns::Statistics),
            (Opt::Rate, Columns::Rates),
            (Opt::Thresholds, Columns::Thresholds),
            (Opt::PersistentConn, Columns::PersistentConnections),
            (Opt::TunnelInfo, Columns::Tunnels),
        ];
        Style {
            columns: columns
                .into_iter()
                .find(|(option, _)| self.is_given(*option))
                .map_or(Columns::Plain, |(_, columns)| columns),
            order: if self.is_given(Opt::NoSort) {
                Order::Kernel
            } else {
                Order::Sorted
            },
            numbers: if self.is_given(Opt::Exact) {
                Numbers::Exact
            } else {
                Numbers::Rounded
            },
        }
    }

    fn service(self) -> Result<Service, UsageError> {
        let id = self.service_id();
        let one_packet = self.is_given(Opt::OnePacket);
        if let ServiceId::Address { protocol, port, .. } = id {
            if port == 0 && self.persistence_s.is_none() {
                return Err(refused_with(
                    "Zero port specified for non-persistent service",
                    "give a port, or -p for a service on every port",
                ));
            }
            if one_packet && protocol != Protocol::Udp {
                return Err(refused(
                    "One-Packet Scheduling is only for UDP virtual services",
                ));
            }
        }
        let granularity = self
            .netmask
            .unwrap_or_else(|| Granularity::single_client(id.family()));
        Ok(Service {
            id,
            scheduler: self
                .scheduler
                .unwrap_or_else(|| SchedulerName::cut(SCHEDULER_DEFAULT)),
            scheduler_flags: self.scheduler_flags,
            persistence: self.persistence_s.map(|timeout_s| Persistence {
                timeout_s,
                granularity,
            }),
            engine: self.engine,
            one_packet,
        })
    }

    fn destination(&self) -> Result<Destination, UsageError> {
        let mut id = self.server_id();
        let service = self.service_id();
        // Only address translation can change a port.
        if let (ServiceId::Address { port, .. }, Method::Route | Method::Tunnel) =
            (service, self.method)
        {
            id.port = port;
        }
        if Family::of(id.address) != service.family() && self.method != Method::Tunnel {
            return Err(refused(
                "Different address family is allowed only for tunneling servers",
            ));
        }
        let forwarding = match self.method {
            Method::Tunnel => Forwarding::Tunnel(self.checked_tunnel()?),
            _ if self.tunnel_options().next().is_some() => {
                return Err(refused_with(
                    "Tunnel options conflict with forward method",
                    "tunnels need -i",
                ));
            }
            Method::Route => Forwarding::Route,
            Method::Masquerading => Forwarding::Masquerading,
        };
        let weight = self.weight.unwrap_or(Weight::ONE);
        Ok(Destination {
            id,
            forwarding,
            weight,
            thresholds: self.thresholds,
        })
    }

    fn tunnel_options(&self) -> impl Iterator<Item = Opt> + '_ {
        [
            Opt::TunnelType,
            Opt::TunnelPort,
            Opt::TunnelNoChecksum,
            Opt::TunnelChecksum,
            Opt::TunnelRemoteChecksum,
        ]
        .into_iter()
        .filter(|option| self.is_given(*option))
    }

    /// What each kind of tunnel needs and takes.
    fn checked_tunnel(&self) -> Result<Tunnel, UsageError> {
        let kind = match self.tunnel {
            TunnelKind::Ipip => "ipip",
            TunnelKind::Gue => "gue",
            TunnelKind::Gre => "gre",
        };
        if self.tunnel == TunnelKind::Gue && !self.is_given(Opt::TunnelPort) {
            return Err(refused(
                "You need to supply the 'tun-port' option for the 'gue' tunnel type",
            ));
        }
        let mut checksum = None;
        for option in self.tunnel_options() {
            let name = option.name();
            let chosen = match option {
                Opt::TunnelNoChecksum => TunnelChecksum::None,
                Opt::TunnelChecksum => TunnelChecksum::Full,
                Opt::TunnelRemoteChecksum => TunnelChecksum::Remote,
                Opt::TunnelPort if self.tunnel != TunnelKind::Gue => {
                    return Err(refused(format!(
                        "Illegal '{name}' option with the '{kind}' tunnel type"
                    )));
                }
                _ => continue,
            };
            if self.tunnel == TunnelKind::Ipip
                || self.tunnel == TunnelKind::Gre && chosen == TunnelChecksum::Remote
            {
                return Err(refused(format!(
                    "Illegal '{name}' option with the '{kind}' tunnel type"
                )));
            }
            if let Some((first, _)) = checksum {
                return Err(refused(format!(
                    "The option '{name}' conflicts with the '{first}' option in the '{kind}' tunnel type"
                )));
            }
            checksum = Some((name, chosen));
        }
        let checksum = checksum.map_or(TunnelChecksum::None, |(_, checksum)| checksum);
        Ok(match self.tunnel {
            TunnelKind::Ipip => Tunnel::Ipip,
            TunnelKind::Gue => Tunnel::Gue {
                port: self.tunnel_port,
                checksum,
            },
            TunnelKind::Gre => Tunnel::Gre { checksum },
        })
    }
}

fn wrong_place(message: &str, text: &str) -> UsageError {
    let hint = if text.parse::<IpAddr>().is_ok() || !text.contains(':') {
        format!("`{text}' is no address or name in /etc/hosts (there is no DNS here)")
    } else {
        format!("`{text}' is not ADDRESS:PORT, with names from /etc/hosts and /etc/services")
    };
    refused_with(message, hint)
}
