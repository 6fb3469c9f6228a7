//! ha.cf: timers, media, nodes, logging.
//!
//! One directive a line; order matters where heartbeat makes it matter: `udpport` counts
//! for the media lines below it. Directives of Pacemaker and of media that this daemon
//! has no driver for are refused, because a cluster that silently lacks a link or a
//! fence is worse than one that does not start; those that only tune heartbeat's own
//! processes are taken and do nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::lines::{Comment, Continued, Grammar, Word, lines};
use super::value;
use crate::base::diagnostic::{Diagnostic, Source};

const GRAMMAR: Grammar = Grammar {
    separators: &[' ', '\t', ',', '\r', '\x0c'],
    comment: Comment::Anywhere,
    continued: Continued::Never,
};

/// The registered port of `ha-cluster`.
const PORT_DEFAULT: u16 = 694;

/// The file as the daemon uses it.
#[derive(Clone, Debug, PartialEq)]
pub struct HaCf {
    /// Lower-case, this node among them.
    pub nodes: Vec<Word>,
    pub media: Vec<Medium>,
    /// Interval of status messages; 1 s unless told.
    pub keepalive: Duration,
    /// Silence after which a node is dead; more than twice `keepalive`; 30 s unless told.
    pub deadtime: Duration,
    /// Interval that is worth a warning; half of `deadtime` unless told.
    pub warntime: Duration,
    /// `deadtime` while the cluster starts; never less than it.
    pub initdead: Duration,
    /// `deadtime` of ping nodes; the same unless told.
    pub deadping: Duration,
    pub auto_failback: AutoFailback,
    /// Added to the number of nodes in a message's `ttl`; 1 unless told.
    pub hop_fudge: u32,
    pub message_format: MessageFormat,
    pub generation_method: GenerationMethod,
    pub uuid_from: UuidFrom,
    /// Interval of requests for a lost message; 250 ms unless told.
    pub retransmit_delay_max: Duration,
    pub log: Log,
    pub ping: Vec<PingTarget>,
    /// Whether ipfail's function (stand by when fewer ping nodes answer) is asked for.
    pub ipfail: bool,
    /// Whether to ask for a real-time scheduling class; yes unless told.
    pub realtime: bool,
}

/// What happens when the node that prefers a group comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoFailback {
    /// The groups go back, by the stand-by protocol.
    On,
    /// The groups stay.
    Off,
    /// The groups go back, by heartbeat 1's `ip-request`; the default.
    #[default]
    Legacy,
}

/// Whether messages carry the inner signature of heartbeat 1 and 2 besides the outer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageFormat {
    #[default]
    Classic,
    Netstring,
}

/// Where the next generation comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GenerationMethod {
    #[default]
    File,
    Time,
}

/// Where the node's UUID comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UuidFrom {
    #[default]
    File,
    NodeName,
}

/// One way to the other nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Medium {
    pub interface: Word,
    pub port: u16,
    pub kind: MediumKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum MediumKind {
    Unicast {
        peer: Word,
    },
    Broadcast,
    Multicast {
        group: Ipv4Addr,
        ttl: u32,
        looped: bool,
    },
}

/// Hosts that count as one pseudo member: it is up while one of them answers.
#[derive(Clone, Debug, PartialEq)]
pub struct PingTarget {
    pub name: String,
    pub hosts: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    pub file: Option<Word>,
    pub debug_file: Option<Word>,
    pub facility: Option<Word>,
}

/// What is done about a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Support {
    Read,
    /// Tunes processes or libraries that this daemon does not have.
    NothingToTune,
    Pacemaker,
    /// Would be missed if it were ignored.
    Missing(&'static str),
}

/// A directive, its support, and how many words it takes (least, most).
struct Directive {
    name: &'static str,
    support: Support,
    words: (usize, usize),
    usage: &'static str,
}

const fn read(name: &'static str, words: (usize, usize), usage: &'static str) -> Directive {
    Directive {
        name,
        support: Support::Read,
        words,
        usage,
    }
}

const fn tuning(name: &'static str) -> Directive {
    Directive {
        name,
        support: Support::NothingToTune,
        words: (0, MANY),
        usage: "",
    }
}

const fn pacemaker(name: &'static str) -> Directive {
    Directive {
        name,
        support: Support::Pacemaker,
        words: (0, MANY),
        usage: "",
    }
}

const fn missing(name: &'static str, instead: &'static str) -> Directive {
    Directive {
        name,
        support: Support::Missing(instead),
        words: (0, MANY),
        usage: "",
    }
}

/// More words than a line of any real file has.
const MANY: usize = usize::MAX;

const SERIAL: &str = "there is no serial driver: use `ucast`, `bcast` or `mcast`";
const IPV6: &str = "there is no IPv6 driver: use the IPv4 form";
const FENCING: &str = "there is no fencing: a node that is dead is taken over from at once";

const DIRECTIVES: &[Directive] = &[
    read("node", (1, MANY), "node NAME…"),
    read("keepalive", (1, 1), "keepalive TIME"),
    read("deadtime", (1, 1), "deadtime TIME"),
    read("warntime", (1, 1), "warntime TIME"),
    read("initdead", (1, 1), "initdead TIME"),
    read("deadping", (1, 1), "deadping TIME"),
    read("udpport", (1, 1), "udpport PORT"),
    read("ucast", (2, 2), "ucast INTERFACE PEER"),
    read("bcast", (1, MANY), "bcast INTERFACE…"),
    read("udp", (1, MANY), "udp INTERFACE…"),
    read("mcast", (5, 5), "mcast INTERFACE GROUP PORT TTL LOOP"),
    read("auto_failback", (1, 1), "auto_failback on|off|legacy"),
    read("nice_failback", (1, 1), "auto_failback on|off|legacy"),
    read("autojoin", (1, 1), "autojoin none"),
    read("hopfudge", (1, 1), "hopfudge NUMBER"),
    read("msgfmt", (1, 1), "msgfmt classic|netstring"),
    read("hbgenmethod", (1, 1), "hbgenmethod file|time"),
    read("uuidfrom", (1, 1), "uuidfrom file|nodename"),
    read("max_rexmit_delay", (1, 1), "max_rexmit_delay MILLISECONDS"),
    read("logfile", (1, 1), "logfile PATH"),
    read("debugfile", (1, 1), "debugfile PATH"),
    read("logfacility", (1, 1), "logfacility FACILITY"),
    read("ping", (1, MANY), "ping ADDRESS…"),
    read("ping_group", (2, MANY), "ping_group NAME ADDRESS…"),
    read("respawn", (2, MANY), "respawn USER PROGRAM"),
    read("realtime", (1, 1), "realtime on|off"),
    read("pacemaker", (1, 1), "pacemaker off"),
    read("crm", (1, 1), "crm off"),
    tuning("apiauth"),
    tuning("baud"),
    tuning("cluster"),
    tuning("compression"),
    tuning("compression_threshold"),
    tuning("conn_logd_time"),
    tuning("coredumps"),
    tuning("coreroot"),
    tuning("debug"),
    tuning("env"),
    tuning("log_badpack"),
    tuning("memreserve"),
    tuning("rtprio"),
    tuning("syslogmsgfmt"),
    tuning("traditional_compression"),
    tuning("use_apphbd"),
    tuning("use_logd"),
    pacemaker("crm_daemon_dir"),
    pacemaker("crmd_spawns_pengine"),
    pacemaker("enable_config_writes"),
    pacemaker("record_config_changes"),
    pacemaker("record_pengine_inputs"),
    missing("serial", SERIAL),
    missing("ucast6", IPV6),
    missing("mcast6", IPV6),
    missing("ping6", IPV6),
    missing("stonith", FENCING),
    missing("stonith_host", FENCING),
    missing(
        "watchdog",
        "there is no watchdog driver: leave the line out",
    ),
    missing(
        "failfast",
        "clients are not started by this daemon: use a systemd unit",
    ),
    missing(
        "quorum_server",
        "two nodes have no quorum here: leave the line out",
    ),
];

/// Reads the file; complaints go to `diagnostics`. `None` when it names no nodes.
pub fn parse(source: &Arc<Source>, diagnostics: &mut Vec<Diagnostic>) -> Option<HaCf> {
    let mut reader = Reader::new(diagnostics);
    for words in lines(source, GRAMMAR) {
        reader.line(&words);
    }
    reader.finish(source)
}

/// What was typed so far.
struct Reader<'a> {
    diagnostics: &'a mut Vec<Diagnostic>,
    file: HaCf,
    port: u16,
    /// Times with their places, for the checks between them.
    keepalive: Option<Word>,
    deadtime: Option<Word>,
    warntime: Option<Duration>,
    initdead: Option<(Duration, Word)>,
    deadping: Option<Duration>,
}

impl<'a> Reader<'a> {
    fn new(diagnostics: &'a mut Vec<Diagnostic>) -> Self {
        Self {
            diagnostics,
            file: HaCf {
                nodes: Vec::new(),
                media: Vec::new(),
                keepalive: Duration::from_secs(1),
                deadtime: Duration::from_secs(30),
                warntime: Duration::ZERO,
                initdead: Duration::ZERO,
                deadping: Duration::ZERO,
                auto_failback: AutoFailback::default(),
                hop_fudge: 1,
                message_format: MessageFormat::default(),
                generation_method: GenerationMethod::default(),
                uuid_from: UuidFrom::default(),
                retransmit_delay_max: Duration::from_millis(250),
                log: Log::default(),
                ping: Vec::new(),
                ipfail: false,
                realtime: true,
            },
            port: PORT_DEFAULT,
            keepalive: None,
            deadtime: None,
            warntime: None,
            initdead: None,
            deadping: None,
        }
    }

    fn line(&mut self, words: &[Word]) {
        let (name, arguments) = words
            .split_first()
            .expect("lines without words are left out");
        let Some(directive) = DIRECTIVES
            .iter()
            .find(|directive| directive.name == name.text)
        else {
            let known = DIRECTIVES.iter().map(|directive| directive.name);
            self.diagnostics.push(
                Diagnostic::error(format!("unknown directive `{}`", name.text))
                    .at(&name.origin)
                    .nearest(&name.text, known),
            );
            return;
        };
        match directive.support {
            Support::NothingToTune => {}
            Support::Pacemaker => self.refuse_pacemaker(name),
            Support::Missing(instead) => self.diagnostics.push(
                Diagnostic::error(format!("`{}` is not supported", name.text))
                    .at(&name.origin)
                    .help(instead),
            ),
            Support::Read => {
                if arguments.len() < directive.words.0 || arguments.len() > directive.words.1 {
                    let place = arguments.get(directive.words.1).unwrap_or(name);
                    self.diagnostics.push(
                        Diagnostic::error(format!("wrong number of words for `{}`", name.text))
                            .at(&place.origin)
                            .label(directive.usage),
                    );
                } else {
                    self.directive(name, arguments);
                }
            }
        }
    }

    fn directive(&mut self, name: &Word, arguments: &[Word]) {
        let first = &arguments[0];
        match name.text.as_str() {
            "node" => self.nodes(arguments),
            "keepalive" => {
                if let Some(time) = self.time(first) {
                    self.file.keepalive = time;
                    self.keepalive = Some(first.clone());
                }
            }
            "deadtime" => {
                if let Some(time) = self.time(first) {
                    self.file.deadtime = time;
                    self.deadtime = Some(first.clone());
                }
            }
            "warntime" => self.warntime = self.time(first).or(self.warntime),
            "initdead" => {
                if let Some(time) = self.time(first) {
                    self.initdead = Some((time, first.clone()));
                }
            }
            "deadping" => self.deadping = self.time(first).or(self.deadping),
            "udpport" => self.udp_port(first),
            "ucast" => self.medium(
                first,
                MediumKind::Unicast {
                    peer: arguments[1].clone(),
                },
            ),
            "bcast" | "udp" => {
                for interface in arguments {
                    self.medium(interface, MediumKind::Broadcast);
                }
            }
            "mcast" => self.multicast(arguments),
            "auto_failback" => self.auto_failback(first),
            "nice_failback" => self.nice_failback(name, first),
            "autojoin" => self.autojoin(first),
            "hopfudge" => {
                if let Some(hops) = self.checked(first, value::number(&first.text, 0..=255)) {
                    self.file.hop_fudge = hops;
                }
            }
            "msgfmt" => {
                let choices = [
                    ("classic", MessageFormat::Classic),
                    ("netstring", MessageFormat::Netstring),
                ];
                if let Some(format) = self.choice(first, &choices) {
                    self.file.message_format = format;
                }
            }
            "hbgenmethod" => {
                let choices = [
                    ("file", GenerationMethod::File),
                    ("time", GenerationMethod::Time),
                ];
                if let Some(method) = self.choice(first, &choices) {
                    self.file.generation_method = method;
                }
            }
            "uuidfrom" => {
                let choices = [("file", UuidFrom::File), ("nodename", UuidFrom::NodeName)];
                if let Some(from) = self.choice(first, &choices) {
                    self.file.uuid_from = from;
                }
            }
            "max_rexmit_delay" => {
                if let Some(delay) = self.checked(first, value::number(&first.text, 1..=60_000)) {
                    self.file.retransmit_delay_max = Duration::from_millis(delay.into());
                }
            }
            "logfile" => self.file.log.file = Some(first.clone()),
            "debugfile" => self.file.log.debug_file = Some(first.clone()),
            "logfacility" => self.file.log.facility = Some(first.clone()),
            "ping" => {
                for host in arguments {
                    self.ping(host.text.clone(), std::slice::from_ref(host));
                }
            }
            "ping_group" => self.ping(first.text.clone(), &arguments[1..]),
            "respawn" => self.respawn(&arguments[1]),
            "realtime" => {
                if let Some(realtime) = self.checked(first, value::boolean(&first.text)) {
                    self.file.realtime = realtime;
                }
            }
            "pacemaker" | "crm" => {
                if self.checked(first, value::boolean(&first.text)) == Some(true) {
                    self.refuse_pacemaker(name);
                }
            }
            other => unreachable!("`{other}` is in the table and not read"),
        }
    }

    fn nodes(&mut self, names: &[Word]) {
        for name in names {
            let name = name.clone().lower_case();
            match self.file.nodes.iter().find(|node| node.text == name.text) {
                Some(node) => self.diagnostics.push(
                    Diagnostic::warning(format!("node `{}` is named twice", name.text))
                        .at(&name.origin)
                        .label("again here")
                        .related(&node.origin, "first here"),
                ),
                None => self.file.nodes.push(name),
            }
        }
    }

    fn udp_port(&mut self, word: &Word) {
        let Some(port) = self.checked(word, value::number(&word.text, 1..=65_535)) else {
            return;
        };
        self.port = u16::try_from(port).expect("the range ends at the highest port");
        if let Some(medium) = self.file.media.first() {
            self.diagnostics.push(
                Diagnostic::warning("udpport does not count for the media above it")
                    .at(&word.origin)
                    .related(&medium.interface.origin, "uses the port known here")
                    .help("move `udpport` to the top"),
            );
        }
    }

    fn medium(&mut self, interface: &Word, kind: MediumKind) {
        self.file.media.push(Medium {
            interface: interface.clone(),
            port: self.port,
            kind,
        });
    }

    fn multicast(&mut self, words: &[Word]) {
        let group = words[1]
            .text
            .parse()
            .ok()
            .filter(Ipv4Addr::is_multicast)
            .ok_or_else(|| "a multicast address, 224.0.0.0 to 239.255.255.255".to_owned());
        let group = self.checked(&words[1], group);
        let port = self.checked(&words[2], value::number(&words[2].text, 1..=65_535));
        let ttl = self.checked(&words[3], value::number(&words[3].text, 0..=4));
        let looped = self.checked(&words[4], value::number(&words[4].text, 0..=1));
        if let (Some(group), Some(port), Some(ttl), Some(looped)) = (group, port, ttl, looped) {
            self.file.media.push(Medium {
                interface: words[0].clone(),
                port: u16::try_from(port).expect("the range ends at the highest port"),
                kind: MediumKind::Multicast {
                    group,
                    ttl,
                    looped: looped == 1,
                },
            });
        }
    }

    fn auto_failback(&mut self, word: &Word) {
        let parsed = match word.text.to_lowercase().as_str() {
            "legacy" => Ok(AutoFailback::Legacy),
            other => value::boolean(other)
                .map(|on| {
                    if on {
                        AutoFailback::On
                    } else {
                        AutoFailback::Off
                    }
                })
                .map_err(|_| "`on`, `off` or `legacy`".to_owned()),
        };
        if let Some(mode) = self.checked(word, parsed) {
            self.file.auto_failback = mode;
        }
    }

    fn nice_failback(&mut self, name: &Word, word: &Word) {
        if let Some(nice) = self.checked(word, value::boolean(&word.text)) {
            self.file.auto_failback = if nice {
                AutoFailback::Off
            } else {
                AutoFailback::Legacy
            };
            let now = if nice { "off" } else { "legacy" };
            self.diagnostics.push(
                Diagnostic::warning("`nice_failback` is obsolete")
                    .at(&name.origin)
                    .help(format!("write `auto_failback {now}`")),
            );
        }
    }

    fn autojoin(&mut self, word: &Word) {
        match word.text.as_str() {
            "none" => {}
            "any" | "other" => self.diagnostics.push(
                Diagnostic::error(format!(
                    "`autojoin {}` together with haresources",
                    word.text
                ))
                .at(&word.origin)
                .label("strangers cannot join a cluster whose resources name their owners")
                .help("write `autojoin none` and name the nodes"),
            ),
            _ => self.wrong(word, "`none`"),
        }
    }

    fn ping(&mut self, name: String, words: &[Word]) {
        let hosts: Vec<Ipv4Addr> = words
            .iter()
            .filter_map(|word| {
                let host = word.text.parse().map_err(|_| "an IPv4 address".to_owned());
                self.checked(word, host)
            })
            .collect();
        if !hosts.is_empty() {
            self.file.ping.push(PingTarget { name, hosts });
        }
    }

    fn respawn(&mut self, program: &Word) {
        if program.text.rsplit('/').next() == Some("ipfail") {
            self.file.ipfail = true;
        } else {
            self.diagnostics.push(
                Diagnostic::error(format!("cannot respawn `{}`", program.text))
                    .at(&program.origin)
                    .label("only ipfail's function is built in")
                    .help("start other programs by a systemd unit"),
            );
        }
    }

    fn refuse_pacemaker(&mut self, name: &Word) {
        self.diagnostics.push(
            Diagnostic::error(format!("`{}` is a directive for Pacemaker", name.text))
                .at(&name.origin)
                .label("this cluster takes its resources from haresources")
                .help("leave the line out, or write `pacemaker off`"),
        );
    }

    fn time(&mut self, word: &Word) -> Option<Duration> {
        let positive = value::time(&word.text).and_then(|time| {
            if time.is_zero() {
                Err("more than nothing".into())
            } else {
                Ok(time)
            }
        });
        self.checked(word, positive)
    }

    fn choice<T: Copy>(&mut self, word: &Word, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|(name, _)| *name == word.text);
        if found.is_none() {
            let names: Vec<String> = choices
                .iter()
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            self.wrong(word, &names.join(" or "));
        }
        found.map(|(_, value)| *value)
    }

    fn checked<T>(&mut self, word: &Word, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|expected| self.wrong(word, &expected)).ok()
    }

    fn wrong(&mut self, word: &Word, expected: &str) {
        self.diagnostics.push(
            Diagnostic::error(format!("`{}` does not fit here", word.text))
                .at(&word.origin)
                .label(expected),
        );
    }

    fn finish(mut self, source: &Arc<Source>) -> Option<HaCf> {
        let deadtime = self.file.deadtime;
        self.file.warntime = self.warntime.unwrap_or(deadtime / 2);
        self.file.deadping = self.deadping.unwrap_or(deadtime);
        self.file.initdead = self
            .initdead
            .as_ref()
            .map_or_else(|| initdead_default(deadtime), |(time, _)| *time);
        self.check_times();
        if self.file.media.is_empty() {
            self.diagnostics.push(
                Diagnostic::error(format!("no heartbeat media defined in {}", source.name)).help(
                    "add a line such as `ucast eth0 ADDRESS-OF-THE-OTHER-NODE` or `bcast eth0`",
                ),
            );
        }
        if self.file.ipfail && self.file.auto_failback == AutoFailback::Legacy {
            self.diagnostics.push(
                Diagnostic::error("ipfail needs `auto_failback on` or `off`")
                    .help("the old protocol has no stand-by, which ipfail asks for"),
            );
        }
        if self.file.nodes.is_empty() {
            self.diagnostics.push(
                Diagnostic::error(format!("no nodes in {}", source.name))
                    .help("add a line such as `node saisp-vm-2 saisp-vm-3`"),
            );
            return None;
        }
        Some(self.file)
    }

    fn check_times(&mut self) {
        let (keepalive, deadtime) = (self.file.keepalive, self.file.deadtime);
        if deadtime <= 2 * keepalive {
            let mut problem = Diagnostic::error(format!(
                "deadtime {deadtime:?} is too small compared to keepalive {keepalive:?}"
            ))
            .help("one lost packet must not be a death: let deadtime be more than twice keepalive");
            if let Some(place) = self.deadtime.as_ref().or(self.keepalive.as_ref()) {
                problem = problem.at(&place.origin);
            }
            self.diagnostics.push(problem);
        }
        if let Some((initdead, place)) = &self.initdead {
            if *initdead < deadtime {
                self.diagnostics.push(
                    Diagnostic::error(format!(
                        "initdead {initdead:?} is shorter than deadtime {deadtime:?}"
                    ))
                    .at(&place.origin)
                    .label("a starting node needs longer to be heard, not less"),
                );
            } else if *initdead < Duration::from_secs(10) {
                self.diagnostics.push(
                    Diagnostic::warning(format!("initdead {initdead:?} is less than 10 s"))
                        .at(&place.origin)
                        .label("a network that comes up late makes both nodes take everything"),
                );
            }
        }
    }
}

/// heartbeat's rule for a starting cluster whose file says nothing.
fn initdead_default(deadtime: Duration) -> Duration {
    if deadtime > Duration::from_secs(10) {
        deadtime
    } else if deadtime < Duration::from_secs(6) {
        Duration::from_secs(12)
    } else {
        2 * deadtime
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::{Colour, render_all};

    fn read(text: &str) -> (Option<HaCf>, String) {
        let mut diagnostics = Vec::new();
        let file = parse(&Source::new("ha.cf", text), &mut diagnostics);
        (file, render_all(&diagnostics, Colour::Never))
    }

    #[test]
    fn defaults_are_heartbeats() {
        let (file, said) = read("ucast eth0 10.0.0.30\nnode A b\n");
        let file = file.expect("a valid file");
        assert_eq!(said, "");
        assert_eq!(file.keepalive, Duration::from_secs(1));
        assert_eq!(file.deadtime, Duration::from_secs(30));
        assert_eq!(file.warntime, Duration::from_secs(15));
        assert_eq!(file.initdead, Duration::from_secs(30));
        assert_eq!(file.nodes[0].text, "a");
        assert_eq!(file.media[0].port, 694);
    }

    #[test]
    fn initdead_follows_deadtime_as_heartbeats_does() {
        for (deadtime, initdead) in [(1, 12), (5, 12), (6, 12), (8, 16), (11, 11)] {
            assert_eq!(
                initdead_default(Duration::from_secs(deadtime)),
                Duration::from_secs(initdead),
                "{deadtime}"
            );
        }
    }

    #[test]
    fn every_medium_is_read() {
        let (file, said) =
            read("udpport 6940\nbcast eth0 eth1\nmcast eth0 225.0.0.1 694 1 0\nnode a b\n");
        assert_eq!(said, "");
        let media = file.expect("a valid file").media;
        assert_eq!(media.len(), 3);
        assert_eq!(media[1].interface.text, "eth1");
        assert_eq!(media[1].port, 6940);
        assert_eq!(
            media[2].kind,
            MediumKind::Multicast {
                group: Ipv4Addr::new(225, 0, 0, 1),
                ttl: 1,
                looped: false
            }
        );
    }

    #[test]
    fn each_mistake_has_its_words() {
        for (line, expected) in [
            ("keepalve 2", "did you mean `keepalive`?"),
            ("keepalive 2s", "seconds have no unit here: write `2`"),
            ("deadtime 2", "is too small compared to keepalive"),
            ("initdead 5", "is shorter than deadtime"),
            ("deadtime 5\ninitdead 6", "is less than 10 s"),
            ("pacemaker yes", "is a directive for Pacemaker"),
            ("crm on", "is a directive for Pacemaker"),
            ("crm_daemon_dir /x", "is a directive for Pacemaker"),
            ("autojoin any", "together with haresources"),
            ("serial /dev/ttyS0", "there is no serial driver"),
            ("stonith_host * ssh x", "there is no fencing"),
            ("ucast eth0", "ucast INTERFACE PEER"),
            ("mcast eth0 10.0.0.1 694 1 0", "a multicast address"),
            ("udpport 700", "move `udpport` to the top"),
            (
                "respawn hacluster /usr/bin/x",
                "only ipfail's function is built in",
            ),
            (
                "respawn hacluster /usr/lib/heartbeat/ipfail",
                "ipfail needs `auto_failback on`",
            ),
            ("auto_failback maybe", "`on`, `off` or `legacy`"),
            ("msgfmt binary", "`classic` or `netstring`"),
            ("node a", "node `a` is named twice"),
            ("nice_failback on", "write `auto_failback off`"),
        ] {
            let (_, said) = read(&format!("bcast eth0\nnode a b\n{line}\n"));
            assert!(said.contains(expected), "{line}: {said}");
        }
    }

    #[test]
    fn tuning_directives_are_taken() {
        let (_, said) =
            read("bcast eth0\nnode a b\nuse_logd yes\ndebug 1\ncrm no\ncoredumps true\n");
        assert_eq!(said, "");
    }

    #[test]
    fn every_directive_that_is_read_has_a_reader() {
        for directive in DIRECTIVES.iter().filter(|one| one.support == Support::Read) {
            let words = vec!["1"; directive.words.0].join(" ");
            read(&format!("{} {words}\n", directive.name));
        }
    }
}
