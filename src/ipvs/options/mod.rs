//! What was typed after `ipvsadm` → one checked [`Command`].
//!
//! ```text
//!   words --popt--> options --Draft--> values --RULES--> Command
//! ```
//!
//! The first option is the command. Every option's value is checked as it comes, then the
//! table [`RULES`] says which options the command needs, takes, or takes one of; last the
//! rules between values. The messages are ipvsadm's, so that what is known of them holds;
//! what may help is said in a second line.

mod draft;
mod table;
mod value;

use self::draft::Draft;
pub use self::table::help;
use self::table::{Key, Opt, ROWS, RULES, Verb};
use self::value::timeout;
use super::connections::Engines;
use super::listing::Style;
use super::model::{Change, DaemonRole, ServiceId, Timeouts};
use super::names::Names;
use super::popt::{Options, PoptError, Spec};

/// What the first option asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Version,
    Change(Change),
    List {
        what: Listed,
        output: Output,
    },
    Save(Output),
    /// Read commands from standard input, one a line.
    Restore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    Table(Style),
    Service(ServiceId, Style),
    Connections(Engines),
    Timeouts,
    Daemons,
}

/// How addresses and ports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Names,
    Numeric,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// The values or their combination make no sense: the program ends with 2.
    Refused {
        message: String,
        hint: Option<String>,
    },
    /// A word is no option. In a restored file the next line is still read.
    BadOption { message: String },
    /// There is no command.
    NoCommand,
}

/// Schedulers of Linux 6.12, for a hint.
pub const SCHEDULERS: &[&str] = &[
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos",
];

/// Reads one command line, without the program's name.
pub fn parse(words: &[String], names: &Names) -> Result<Command, UsageError> {
    let specs: Vec<Spec<Key>> = ROWS
        .into_iter()
        .flatten()
        .map(|row| Spec {
            long: row.long,
            short: row.short,
            value: row.value,
            key: row.key,
        })
        .collect();
    let mut options = Options::new(&specs, words);
    let Ok(Some((Key::Verb(verb), role))) = options.next_option() else {
        return Err(UsageError::NoCommand);
    };
    match verb {
        Verb::Help => return Ok(Command::Help),
        Verb::Version => return Ok(Command::Version),
        _ => {}
    }
    let role = role.map(|role| daemon_role(verb, &role)).transpose()?;
    let mut draft = Draft::default();
    while let Some((key, value)) = options.next_option().map_err(UsageError::from)? {
        if let Key::Verb(_) = key {
            return Err(refused(format!("invalid option `{}'", options.word())));
        }
        draft.take(key, value.as_deref(), names)?;
    }
    let mut arguments = options.arguments().into_iter();
    let timeouts = match verb {
        Verb::Set => Some(timeouts(&mut arguments)?),
        _ => None,
    };
    if let Some(word) = arguments.next() {
        return Err(refused(format!("unexpected argument {word}")));
    }
    draft.finish_scheduler_flags()?;
    check_combination(verb, &draft.given)?;
    match (verb, timeouts, role) {
        (Verb::Set, Some(timeouts), _) => Ok(Command::Change(Change::SetTimeouts(timeouts))),
        (Verb::StartDaemon, _, Some(role)) => Ok(Command::Change(draft.start_daemon(role))),
        (Verb::StopDaemon, _, Some(role)) => {
            let sync_id = draft.sync_id;
            Ok(Command::Change(Change::StopDaemon { role, sync_id }))
        }
        _ => draft.command(verb),
    }
}

impl From<PoptError> for UsageError {
    fn from(error: PoptError) -> Self {
        Self::BadOption {
            message: format!("{}: {}", error.word, error.reason),
        }
    }
}

fn refused(message: impl Into<String>) -> UsageError {
    UsageError::Refused {
        message: message.into(),
        hint: None,
    }
}

fn refused_with(message: impl Into<String>, hint: impl Into<String>) -> UsageError {
    UsageError::Refused {
        message: message.into(),
        hint: Some(hint.into()),
    }
}

fn daemon_role(verb: Verb, word: &str) -> Result<DaemonRole, UsageError> {
    match (word, verb) {
        ("master", _) => Ok(DaemonRole::Master),
        ("backup", _) => Ok(DaemonRole::Backup),
        (_, Verb::StopDaemon) => Err(refused_with(
            "illegal start_daemon specified",
            "give master or backup",
        )),
        _ => Err(refused_with(
            "illegal start-daemon parameter specified",
            "give master or backup",
        )),
    }
}

fn timeouts(arguments: &mut impl Iterator<Item = String>) -> Result<Timeouts, UsageError> {
    let (Some(tcp), Some(tcp_fin), Some(udp)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(refused("--set option requires 3 timeout values"));
    };
    Ok(Timeouts {
        tcp_s: timeout(&tcp, 0)?,
        tcp_fin_s: timeout(&tcp_fin, 0)?,
        udp_s: timeout(&udp, 0)?,
    })
}

/// Says what is missing, not wanted, or at odds.
fn check_combination(verb: Verb, given: &[Opt]) -> Result<(), UsageError> {
    let Some(rule) = RULES.iter().find(|rule| rule.verb == verb) else {
        return Ok(());
    };
    let command = rule.name;
    let mut only: Option<&str> = None;
    for (option, name) in Opt::ALL {
        let is_given = given.contains(&option);
        if rule.needs.contains(&option) {
            if !is_given {
                return Err(refused(format!(
                    "You need to supply the '{name}' option for the '{command}' command"
                )));
            }
        } else if is_given && rule.takes_one.contains(&option) {
            if let Some(first) = only {
                return Err(refused(format!(
                    "The option '{name}' conflicts with the '{first}' option in the '{command}' command"
                )));
            }
            only = Some(name);
        } else if is_given && !rule.takes.contains(&option) {
            return Err(refused(format!(
                "Illegal '{name}' option with the '{command}' command"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::listing::{Columns, Style};
    use crate::ipvs::model::{
        Destination, DestinationId, Forwarding, Granularity, Persistence, Protocol, SchedulerName,
        Service, ServiceId, Thresholds, Tunnel, TunnelChecksum, Weight,
    };

    fn read(line: &str) -> Result<Command, UsageError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words, &Names::new("10.0.0.20 web", "http 80/tcp"))
    }

    fn message(line: &str) -> String {
        match read(line) {
            Err(UsageError::Refused { message, .. } | UsageError::BadOption { message }) => message,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn web() -> ServiceId {
        ServiceId::Address {
            protocol: Protocol::Tcp,
            address: [10, 0, 0, 1].into(),
            port: 80,
        }
    }

    #[test]
    fn the_commands_of_the_lab_mean_what_they_say() {
        let scheduler = SchedulerName::cut("rr");
        let service = Service::plain(web(), scheduler);
        assert_eq!(
            read("-A -t 10.0.0.1:80 -s rr"),
            Ok(Command::Change(Change::AddService(service)))
        );
        let destination = Destination {
            id: DestinationId {
                address: [10, 0, 0, 20].into(),
                port: 80,
            },
            forwarding: Forwarding::Route,
            weight: Weight::ONE,
            thresholds: Thresholds { upper: 4, lower: 0 },
        };
        assert_eq!(
            read("-e -t 10.0.0.1:http -r web -g -x 4"),
            Ok(Command::Change(Change::EditDestination(web(), destination)))
        );
        let table = Listed::Table(Style::default());
        assert_eq!(
            read("-ln"),
            Ok(Command::List {
                what: table,
                output: Output::Numeric
            })
        );
    }

    #[test]
    fn only_translation_changes_a_port() {
        let port = |line: &str| match read(line) {
            Ok(Command::Change(Change::AddDestination(_, destination))) => destination.id.port,
            other => panic!("{other:?}"),
        };
        assert_eq!(port("-a -t 10.0.0.1:80 -r 10.0.0.2:8080"), 80);
        assert_eq!(port("-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m"), 8080);
        assert_eq!(port("-a -r 10.0.0.2 -m -t 10.0.0.1:80"), 0);
        assert_eq!(port("-a -f 3 -r 10.0.0.2:8080"), 8080);
    }

    #[test]
    fn a_bare_p_is_six_minutes_and_a_mask_belongs_to_its_family() {
        let persistence = |line: &str| match read(line) {
            Ok(Command::Change(Change::AddService(service))) => service.persistence.unwrap(),
            other => panic!("{other:?}"),
        };
        let mask = Granularity::Ipv4Mask([255, 255, 255, 0].into());
        assert_eq!(
            persistence("-A -t 10.0.0.1:0 -p -M 255.255.255.0"),
            Persistence {
                timeout_s: 360,
                granularity: mask
            }
        );
        assert_eq!(
            persistence("-A -M 255.255.0.0 -f 3 -6 -p 9").granularity,
            Granularity::Ipv6Prefix(128)
        );
    }

    #[test]
    fn a_tunnel_takes_the_options_of_its_kind() {
        let line = "-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-type gue --tun-port 6080 --tun-csum";
        let Ok(Command::Change(Change::AddDestination(_, destination))) = read(line) else {
            panic!("{line}");
        };
        assert_eq!(
            destination.forwarding,
            Forwarding::Tunnel(Tunnel::Gue {
                port: 6080,
                checksum: TunnelChecksum::Full
            })
        );
    }

    #[test]
    fn the_messages_are_those_of_ipvsadm() {
        let service = "-t 10.0.0.1:80";
        for (line, expected) in [
            (
                "-A",
                "You need to supply the 'service-address' option for the 'add-service' command",
            ),
            (
                "-A -t 10.0.0.1",
                "Zero port specified for non-persistent service",
            ),
            (
                "-A -t 10.0.0.300:80",
                "illegal virtual server address[:port] specified",
            ),
            (
                "-A -t 80",
                "illegal virtual server address[:port] specified",
            ),
            (
                "-A -t [::1] -p",
                "illegal virtual server address[:port] specified",
            ),
            ("-C -n", "Illegal 'numeric' option with the 'flush' command"),
            (
                "-L -c -t 10.0.0.1:80",
                "The option 'service-address' conflicts with the 'connection' option in the 'list' command",
            ),
            (
                "-L --timeout --stats",
                "options conflicts in the list command",
            ),
            (
                "-A -t 10.0.0.1:1 -p 0",
                "invalid timeout value `0' specified",
            ),
            ("-A -6 -f 5", "-6 must follow -f"),
            (
                "-A -t 10.0.0.1:1 -s rr -b sh-port",
                "incompatible scheduler flag `sh-port'",
            ),
            ("-A -L", "invalid option `-L'"),
            ("-A --foo", "--foo: unknown option"),
            ("-L foo", "unexpected argument foo"),
            ("--set 1 2", "--set option requires 3 timeout values"),
            (
                "--start-daemon master --mcast-group 1.2.3.4",
                "invalid IPv4 mcast-group `1.2.3.4'",
            ),
        ] {
            assert_eq!(message(line), expected, "{line}");
        }
        for (rest, expected) in [
            ("-r 10.0.0.2 -w -1", "illegal weight specified"),
            (
                "-r 10.0.0.2 -g -m",
                "multiple 'forwarding-method' options specified",
            ),
            (
                "-r [2001:db8::1]:80",
                "Different address family is allowed only for tunneling servers",
            ),
            (
                "-r 10.0.0.2 --tun-csum",
                "Tunnel options conflict with forward method",
            ),
            (
                "-r 10.0.0.2 -i --tun-type gue",
                "You need to supply the 'tun-port' option for the 'gue' tunnel type",
            ),
            (
                "-r 10.0.0.2 -i --tun-type gre --tun-remcsum",
                "Illegal 'tun-remcsum' option with the 'gre' tunnel type",
            ),
        ] {
            assert_eq!(message(&format!("-a {service} {rest}")), expected, "{rest}");
        }
        assert_eq!(read("-n -L"), Err(UsageError::NoCommand));
        assert_eq!(read("--start-daemon"), Err(UsageError::NoCommand));
    }

    #[test]
    fn columns_have_a_precedence() {
        let Ok(Command::List {
            what: Listed::Table(style),
            ..
        }) = read("-L --rate --stats")
        else {
            panic!("a table was asked for");
        };
        assert_eq!(style.columns, Columns::Statistics);
    }
}
