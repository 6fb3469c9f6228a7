//! Trees to model: every word is known, every value within its bounds, nothing twice,
//! nothing missing; all problems at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::model::{
    Configuration, Handler, Host, HostKind, Meta, Node, Resource, Section, Sections, Setting,
    Volume,
};
use super::options::{
    self, DIGESTS, Found, HANDLERS, Kind, NumberError, SECRET_BYTES_MAX, read_number,
};
use super::tree::{Statement, Word};
use crate::base::diagnostic::{Diagnostic, Origin, Severity};

/// As the kernel numbers them.
const MINOR_MAX: u32 = 1_048_575;
const VOLUME_MAX: u16 = 65_534;

/// Two nodes; more came with version 9.
const HOSTS: usize = 2;

const TOP: &[&str] = &["global", "common", "resource", "skip", "include"];
const IN_RESOURCE: &[&str] = &[
    "protocol",
    "on",
    "floating",
    "volume",
    "device",
    "disk",
    "meta-disk",
    "flexible-meta-disk",
    "net",
    "syncer",
    "startup",
    "handlers",
    "options",
];
const IN_HOST: &[&str] = &[
    "address",
    "volume",
    "device",
    "disk",
    "meta-disk",
    "flexible-meta-disk",
    "options",
];
const IN_VOLUME: &[&str] = &["device", "disk", "meta-disk", "flexible-meta-disk"];

/// The configuration, with what is worth a warning; or every problem, warnings among them.
pub type Checked = Result<(Configuration, Vec<Diagnostic>), Vec<Diagnostic>>;

/// Makes a model of all statements of all files, in the order in which they were included.
/// `problems` are those of reading; any error among them is this function's, too.
pub fn check(
    path: &str,
    statements: &[Statement],
    node: &Node,
    problems: Vec<Diagnostic>,
) -> Checked {
    let mut checker = Checker { problems };
    let configuration = checker.configuration(path, statements);
    checker.uniqueness(&configuration);
    checker.locality(&configuration, node);
    let problems = checker.problems;
    if problems
        .iter()
        .any(|problem| problem.severity == Severity::Error)
    {
        Err(problems)
    } else {
        Ok((configuration, problems))
    }
}

struct Checker {
    problems: Vec<Diagnostic>,
}

/// What a host or a resource says of a volume, before it is whole.
#[derive(Clone, Default)]
struct VolumeDraft {
    device: Option<(Option<String>, u32)>,
    disk: Option<String>,
    meta: Option<Meta>,
    settings: Vec<Setting>,
}

/// The volumes of one block: the implicit one, or those with numbers.
#[derive(Clone, Default)]
struct VolumesDraft {
    implicit: Option<VolumeDraft>,
    explicit: Vec<(u16, VolumeDraft)>,
    /// The first statement of each, for the message when both are there.
    implicit_origin: Option<Origin>,
    explicit_origin: Option<Origin>,
}

struct HostDraft {
    kind: HostKind,
    origin: Origin,
    shown: String,
    address: Option<(SocketAddr, Origin)>,
    address_given: bool,
    volumes: VolumesDraft,
}

impl Checker {
    fn error(&mut self, message: impl Into<String>, origin: &Origin, label: impl Into<String>) {
        self.problems
            .push(Diagnostic::error(message).at(origin).label(label));
    }

    fn warning(&mut self, message: impl Into<String>, origin: &Origin, label: impl Into<String>) {
        self.problems
            .push(Diagnostic::warning(message).at(origin).label(label));
    }

    fn unknown(&mut self, what: &str, word: &Word, known: &[&str]) {
        self.problems.push(
            Diagnostic::error(format!("unknown {what} `{}`", word.text))
                .at(&word.origin)
                .label(format!("expected {}", listed(known)))
                .nearest(&word.text, known.iter().copied()),
        );
    }

    fn configuration(&mut self, path: &str, statements: &[Statement]) -> Configuration {
        let mut configuration = Configuration {
            path: path.to_owned(),
            global: None,
            common: None,
            resources: Vec::new(),
        };
        let mut seen: HashMap<&str, Origin> = HashMap::new();
        for statement in statements {
            let name = statement.name.text.as_str();
            let block = statement.block.as_deref();
            if let "global" | "common" = name
                && let Some(first) = seen.insert(name, statement.name.origin.clone())
            {
                self.twice(&format!("section `{name}`"), &statement.name.origin, &first);
            }
            match (name, block) {
                // Was resolved when it was read, or was reported there.
                ("include" | "skip", _) => {}
                ("global", Some(block)) => {
                    let settings = self.settings(Section::Global, block);
                    configuration.global = Some(settings);
                }
                ("common", Some(block)) => configuration.common = Some(self.common(block)),
                ("resource", Some(block)) => {
                    let resource = self.resource(statement, block);
                    configuration.resources.extend(resource);
                }
                ("global" | "common" | "resource", None) => {
                    self.error(
                        format!("`{name}` without its block"),
                        &statement.origin(),
                        "expected `{` after it",
                    );
                }
                _ => self.unknown("section", &statement.name, TOP),
            }
        }
        configuration
    }

    fn common(&mut self, block: &[Statement]) -> Sections {
        let mut sections = Sections::default();
        let known: Vec<&str> = [
            "protocol", "options", "net", "disk", "syncer", "startup", "handlers",
        ]
        .to_vec();
        for statement in block {
            if !self.section(statement, &mut sections) {
                self.unknown("section", &statement.name, &known);
            }
        }
        sections
    }

    /// Reads one of the sections that common and resources have; false when it is none.
    fn section(&mut self, statement: &Statement, sections: &mut Sections) -> bool {
        let name = statement.name.text.as_str();
        if name == "protocol" {
            let found = options::find(Section::Net, name).expect("net has a protocol");
            if let Some(setting) = self.setting(found, statement) {
                sections
                    .settings
                    .entry(Section::Net)
                    .or_default()
                    .push(setting);
            }
            return true;
        }
        if name == "proxy" {
            self.warning(
                "drbd-proxy is not used here",
                &statement.origin(),
                "has no effect",
            );
            return true;
        }
        let (Some(section), Some(block)) = (Section::of_resource(name), statement.block.as_deref())
        else {
            return false;
        };
        match section {
            Section::Handlers => {
                if sections.handlers.is_some() {
                    self.twice_plain("section `handlers`", &statement.name.origin);
                }
                let handlers = self.handlers(block);
                sections
                    .handlers
                    .get_or_insert_with(Vec::new)
                    .extend(handlers);
            }
            Section::Syncer => {
                for setting in self.settings(section, block) {
                    let section = setting.spec.section;
                    sections.settings.entry(section).or_default().push(setting);
                }
            }
            section => {
                let settings = self.settings(section, block);
                sections
                    .settings
                    .entry(section)
                    .or_default()
                    .extend(settings);
            }
        }
        true
    }

    fn settings(&mut self, section: Section, block: &[Statement]) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Vec::new();
        for statement in block {
            let name = &statement.name;
            let Some(found) = options::find(section, &name.text) else {
                self.unknown_option(section, name);
                continue;
            };
            if let Some(setting) = self.setting(found, statement) {
                let same = settings.iter().find(|other| other.spec == setting.spec);
                if let Some(first) = same {
                    let problem = Diagnostic::warning(format!("`{}` is given twice", name.text))
                        .at(&name.origin)
                        .label("this one counts")
                        .related(&first.origin, "given first here");
                    self.problems.push(problem);
                }
                settings.push(setting);
            }
        }
        settings
    }

    fn unknown_option(&mut self, section: Section, name: &Word) {
        let known = options::names(section);
        let mut problem = Diagnostic::error(format!(
            "unknown option `{}` in section `{}`",
            name.text,
            section.name()
        ))
        .at(&name.origin);
        problem = match options::section_of(&name.text) {
            Some(other) => problem.label(format!("belongs into section `{}`", other.name())),
            None => problem
                .label("no such option")
                .nearest(&name.text, known.iter().copied()),
        };
        self.problems.push(problem);
    }

    fn setting(&mut self, found: Found, statement: &Statement) -> Option<Setting> {
        let spec = found.spec;
        let name = &statement.name;
        if statement.block.is_some() {
            self.error(
                format!("option `{}` with a block", name.text),
                &name.origin,
                "expected a value and `;`",
            );
            return None;
        }
        let values = &statement.values;
        let setting = |value: &str, number: u64| Setting {
            spec,
            value: value.to_owned(),
            number,
            origin: name.origin.clone(),
        };
        if found.negative {
            // `no-disk-barrier;`, and `no-disk-barrier no;` of the very old.
            let no = !matches!(values.as_slice(), [value] if value.text == "no");
            return Some(setting(if no { "no" } else { "yes" }, u64::from(!no)));
        }
        match (spec.kind, values.as_slice()) {
            (Kind::Switch, []) => Some(setting("yes", 1)),
            (Kind::Flag, []) => Some(setting("", 1)),
            (Kind::Flag, [first, ..]) => {
                self.error(
                    format!("`{}` takes no value", name.text),
                    &first.origin,
                    "expected `;`",
                );
                None
            }
            (Kind::Names, [_, ..]) => {
                let names: Vec<&str> = values.iter().map(|word| word.text.as_str()).collect();
                Some(setting(&names.join(" "), 0))
            }
            (kind, []) => {
                let after = Origin::new(&name.origin.source, name.origin.end, name.origin.end + 1);
                let label = format!("expected {}", expectation(kind));
                self.error(format!("`{}` without its value", name.text), &after, label);
                None
            }
            (kind, [value]) => self
                .value(kind, name, value)
                .map(|number| setting(&value.text, number)),
            (_, [_, second, ..]) => {
                self.error(
                    format!("`{}` takes one value", name.text),
                    &second.origin,
                    "expected `;`",
                );
                None
            }
        }
    }

    /// Checks one value; returns it as a number where it is one.
    fn value(&mut self, kind: Kind, name: &Word, value: &Word) -> Option<u64> {
        let text = value.text.as_str();
        let mut wrong = |message: String, known: &[&str]| {
            let problem = Diagnostic::error(message)
                .at(&value.origin)
                .label(format!("expected {}", expectation(kind)))
                .nearest(text, known.iter().copied());
            self.problems.push(problem);
            None
        };
        match kind {
            Kind::Switch => match text {
                "yes" => Some(1),
                "no" => Some(0),
                _ => wrong(
                    format!("`{}` is yes or no; found `{text}`", name.text),
                    &["yes", "no"],
                ),
            },
            Kind::Choice(choices) if !choices.contains(&text) => wrong(
                format!("unknown value `{text}` of `{}`", name.text),
                choices,
            ),
            Kind::SplitBrainPolicy(choices)
                if !choices.contains(&text) && !text.starts_with("discard-node-") =>
            {
                wrong(
                    format!("unknown value `{text}` of `{}`", name.text),
                    choices,
                )
            }
            // drbd-utils takes any name and the module refuses what it has not.
            Kind::Digest if !DIGESTS.contains(&text) => wrong(
                format!("unknown digest `{text}` of `{}`", name.text),
                DIGESTS,
            ),
            Kind::Number { unit, min, max } => match read_number(text, unit, min, max) {
                Ok(number) => Some(number),
                Err(NumberError::NotANumber) => {
                    wrong(format!("`{text}` of `{}` is no number", name.text), &[])
                }
                Err(NumberError::OutOfRange) => {
                    wrong(format!("`{} {text}` is out of range", name.text), &[])
                }
            },
            Kind::Secret if text.len() > SECRET_BYTES_MAX => {
                wrong(format!("the shared secret has {} bytes", text.len()), &[]);
                None
            }
            _ => Some(0),
        }
    }

    fn handlers(&mut self, block: &[Statement]) -> Vec<Handler> {
        let mut handlers = Vec::new();
        for statement in block {
            if !HANDLERS.contains(&statement.name.text.as_str()) {
                self.unknown("handler", &statement.name, HANDLERS);
                continue;
            }
            match statement.values.as_slice() {
                [command] if statement.block.is_none() => handlers.push(Handler {
                    name: statement.name.clone(),
                    command: command.clone(),
                }),
                _ => self.error(
                    format!("handler `{}` takes one command line", statement.name.text),
                    &statement.origin(),
                    "expected a text in double quotes and `;`",
                ),
            }
        }
        handlers
    }

    fn resource(&mut self, statement: &Statement, block: &[Statement]) -> Option<Resource> {
        let name = match statement.values.as_slice() {
            [name] => name.clone(),
            [] => {
                self.error(
                    "a resource without a name",
                    &statement.name.origin,
                    "expected a name after it",
                );
                return None;
            }
            [_, second, ..] => {
                self.error("a resource has one name", &second.origin, "expected `{`");
                return None;
            }
        };
        if ["all", "ignored-everything"].contains(&name.text.as_str()) || name.text.contains('/') {
            self.error(
                format!("`{}` cannot be a resource's name", name.text),
                &name.origin,
                "expected a plain name",
            );
        }
        let mut sections = Sections::default();
        let mut section_origins: HashMap<&str, Origin> = HashMap::new();
        let mut volumes = VolumesDraft::default();
        let mut hosts: Vec<HostDraft> = Vec::new();
        for inner in block {
            let word = inner.name.text.as_str();
            let once = match inner.block {
                Some(_) => Section::of_resource(word).is_some(),
                None => word == "protocol",
            };
            if once && let Some(first) = section_origins.insert(word, inner.name.origin.clone()) {
                let kind = if inner.block.is_some() {
                    "section "
                } else {
                    ""
                };
                self.twice(&format!("{kind}`{word}`"), &inner.name.origin, &first);
            }
            match (word, &inner.block) {
                ("on", Some(block)) => {
                    let kind = HostKind::On(inner.values.clone());
                    if inner.values.is_empty() {
                        self.error(
                            "`on` without a host",
                            &inner.name.origin,
                            "expected the host's name, as `uname -n` gives it",
                        );
                    }
                    hosts.push(self.host(kind, inner, block, None));
                }
                ("floating", Some(block)) => {
                    let address = self.address(inner, &inner.values);
                    hosts.push(self.host(HostKind::Floating, inner, block, address));
                }
                ("stacked-on-top-of", _) => self.error(
                    "stacked resources are not supported here",
                    &inner.origin(),
                    "expected `on HOST { … }`",
                ),
                ("ignore-on", _) => {
                    self.warning(
                        "`ignore-on` is deprecated",
                        &inner.origin(),
                        "has no effect",
                    );
                }
                _ if self.section(inner, &mut sections) => {}
                _ if self.volume_item(inner, &mut volumes) => {}
                _ => self.unknown("word", &inner.name, IN_RESOURCE),
            }
        }
        let shown = name.text.clone();
        if hosts.is_empty() {
            self.error(
                format!("resource `{shown}` has no hosts"),
                &statement.origin(),
                "expected two `on HOST { … }` in it",
            );
        }
        if hosts.len() > HOSTS {
            let third = hosts[HOSTS].origin.clone();
            self.error(
                format!("resource `{shown}` has {} hosts", hosts.len()),
                &third,
                "DRBD 8.4 replicates between two",
            );
        }
        let mut whole = Vec::new();
        for host in hosts {
            whole.extend(self.whole_host(&shown, host, &volumes));
        }
        self.same_volumes(&shown, &whole);
        self.protocol_rules(&sections);
        Some(Resource {
            name,
            origin: statement.name.origin.clone(),
            sections,
            hosts: whole,
        })
    }

    /// Relations between options that the module would refuse.
    fn protocol_rules(&mut self, sections: &Sections) {
        let net = |name: &str| sections.get(Section::Net, name);
        let protocol = net("protocol").map_or("C", |setting| setting.value.as_str());
        let rules = [
            (
                net("allow-two-primaries").filter(|setting| setting.number == 1),
                protocol == "C",
                "two primaries need protocol C",
            ),
            (
                net("on-congestion").filter(|setting| setting.value != "block"),
                protocol == "A",
                "another answer to congestion than `block` needs protocol A",
            ),
            (
                sections
                    .get(Section::Disk, "fencing")
                    .filter(|setting| setting.value == "resource-and-stonith"),
                protocol != "A",
                "resource-and-stonith needs protocol B or C",
            ),
        ];
        for (setting, holds, message) in rules {
            if let Some(setting) = setting
                && !holds
            {
                let problem = Diagnostic::error(message)
                    .at(&setting.origin)
                    .label(format!("with protocol {protocol}"));
                self.problems.push(problem);
            }
        }
    }

    fn host(
        &mut self,
        kind: HostKind,
        statement: &Statement,
        block: &[Statement],
        address: Option<SocketAddr>,
    ) -> HostDraft {
        let is_floating = kind == HostKind::Floating;
        let mut host = HostDraft {
            kind,
            origin: statement.origin(),
            shown: statement.origin().text().to_owned(),
            address: address.map(|address| (address, statement.origin())),
            address_given: is_floating,
            volumes: VolumesDraft::default(),
        };
        for inner in block {
            match inner.name.text.as_str() {
                "address" if host.address_given => {
                    self.error("a second address", &inner.origin(), "expected one");
                }
                "address" => {
                    host.address_given = true;
                    let address = self.address(inner, &inner.values);
                    host.address = address.map(|address| (address, inner.origin()));
                }
                "proxy" | "options" if inner.block.is_some() => {
                    self.warning(
                        format!("`{}` of a host is not used here", inner.name.text),
                        &inner.name.origin,
                        "has no effect",
                    );
                }
                _ if self.volume_item(inner, &mut host.volumes) => {}
                _ => self.unknown("word", &inner.name, IN_HOST),
            }
        }
        host
    }

    /// Reads `[FAMILY] ADDRESS : PORT`.
    fn address(&mut self, statement: &Statement, words: &[Word]) -> Option<SocketAddr> {
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let (family, rest) = match texts.first() {
            Some(family @ (&"ipv4" | &"ipv6")) => (Some(*family), &words[1..]),
            Some(&("sdp" | "ssocks" | "sci")) => {
                self.error(
                    format!("the address family `{}` is not supported here", texts[0]),
                    &words[0].origin,
                    "expected ipv4 or ipv6",
                );
                return None;
            }
            _ => (None, words),
        };
        let is_mark = |word: &Word, mark: &str| word.is(mark);
        let v6 = rest.first().is_some_and(|word| is_mark(word, "["));
        let (host, host_origin, rest) = if v6 {
            let end = rest.iter().position(|word| is_mark(word, "]"));
            let Some(end) = end else {
                self.error(
                    "`[` without `]`",
                    &rest[0].origin,
                    "expected `]` after the address",
                );
                return None;
            };
            let text: String = rest[1..end].iter().map(|word| word.text.as_str()).collect();
            let origin = Origin::new(
                &rest[0].origin.source,
                rest[0].origin.start,
                rest[end].origin.end,
            );
            (text, origin, &rest[end + 1..])
        } else {
            let Some(first) = rest.first() else {
                self.error(
                    "`address` without its value",
                    &statement.origin(),
                    "expected an address, `:` and a port",
                );
                return None;
            };
            (first.text.clone(), first.origin.clone(), &rest[1..])
        };
        let ip: Option<IpAddr> = if v6 || family == Some("ipv6") {
            host.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        } else {
            host.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        };
        if ip.is_none() {
            let version = if v6 { "IPv6" } else { "IPv4" };
            self.error(
                format!("`{host}` is no {version} address"),
                &host_origin,
                "expected an address; names are not looked up",
            );
        }
        let port = match rest {
            [colon, port] if is_mark(colon, ":") => match port.text.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => {
                    self.error(
                        format!("`{}` is no port", port.text),
                        &port.origin,
                        "expected 1 to 65535",
                    );
                    None
                }
            },
            [colon, port, more, ..] if is_mark(colon, ":") => {
                let _ = port;
                self.error("more after the port", &more.origin, "expected `;`");
                None
            }
            _ => {
                let after = Origin::new(&host_origin.source, host_origin.end, host_origin.end + 1);
                self.error(
                    "an address without a port",
                    &after,
                    "expected `:` and a port, usually 7788",
                );
                None
            }
        };
        Some(SocketAddr::new(ip?, port?))
    }

    /// Reads what says something about a volume; false when the statement does not.
    fn volume_item(&mut self, statement: &Statement, volumes: &mut VolumesDraft) -> bool {
        if statement.name.text == "volume" {
            volumes
                .explicit_origin
                .get_or_insert_with(|| statement.origin());
            self.explicit_volume(statement, volumes);
            return true;
        }
        let mut draft = volumes.implicit.take().unwrap_or_default();
        let is_item = self.volume_field(statement, &mut draft);
        if is_item {
            volumes
                .implicit_origin
                .get_or_insert_with(|| statement.origin());
        }
        let is_used = is_item || volumes.implicit_origin.is_some();
        volumes.implicit = is_used.then_some(draft);
        is_item
    }

    fn explicit_volume(&mut self, statement: &Statement, volumes: &mut VolumesDraft) {
        let number = match statement.values.as_slice() {
            [number] => number
                .text
                .parse::<u16>()
                .ok()
                .filter(|number| *number <= VOLUME_MAX),
            _ => None,
        };
        let (Some(number), Some(block)) = (number, &statement.block) else {
            self.error(
                "`volume` takes a number and a block",
                &statement.origin(),
                format!("expected a number up to {VOLUME_MAX} and `{{`"),
            );
            return;
        };
        let mut draft = VolumeDraft::default();
        for inner in block {
            if !self.volume_field(inner, &mut draft) {
                self.unknown("word", &inner.name, IN_VOLUME);
            }
        }
        if volumes.explicit.iter().any(|(known, _)| *known == number) {
            self.twice_plain(&format!("volume {number}"), &statement.origin());
        }
        volumes.explicit.push((number, draft));
    }

    fn volume_field(&mut self, statement: &Statement, draft: &mut VolumeDraft) -> bool {
        match (statement.name.text.as_str(), &statement.block) {
            ("device", None) => {
                if draft.device.is_some() {
                    self.twice_plain("`device`", &statement.origin());
                }
                draft.device = Some(self.device(statement));
            }
            ("disk", Some(block)) => draft.settings.extend(self.settings(Section::Disk, block)),
            ("disk", None) => {
                if draft.disk.is_some() {
                    self.twice_plain("`disk`", &statement.origin());
                }
                draft.disk = Some(self.one_path(statement));
            }
            ("meta-disk" | "flexible-meta-disk", None) => {
                if draft.meta.is_some() {
                    self.twice_plain("`meta-disk`", &statement.origin());
                }
                draft.meta = Some(self.meta(statement));
            }
            _ => return false,
        }
        true
    }

    /// Reads `PATH`, `PATH minor N` or `minor N`. A wrong one counts as given.
    fn device(&mut self, statement: &Statement) -> (Option<String>, u32) {
        let (path, minor) = match statement.values.as_slice() {
            [minor, number] if minor.is("minor") => (None, Some(number)),
            [path, minor, number] if minor.is("minor") => (Some(path), Some(number)),
            [path] if !path.is("minor") => (Some(path), None),
            _ => {
                self.error(
                    "`device` takes a path, a minor number, or both",
                    &statement.origin(),
                    "expected such as `/dev/drbd0` or `minor 0`",
                );
                return (None, 0);
            }
        };
        let name = path.map(|path| {
            let text = path.text.strip_prefix("/dev/").unwrap_or(&path.text);
            (path, text.to_owned())
        });
        if let Some((path, name)) = &name
            && !name.starts_with("drbd")
        {
            self.problems.push(
                Diagnostic::error(format!("`{}` is no name of a DRBD device", path.text))
                    .at(&path.origin)
                    .label("expected /dev/drbd and more")
                    .help("the disk below it is `disk`"),
            );
        }
        let number = match minor {
            Some(number) => number.text.parse::<u32>().ok(),
            None => name
                .as_ref()
                .and_then(|(_, name)| name.strip_prefix("drbd"))
                .and_then(|digits| digits.parse::<u32>().ok()),
        };
        let Some(number) = number.filter(|number| *number <= MINOR_MAX) else {
            let origin = minor.map_or_else(|| statement.origin(), |word| word.origin.clone());
            self.error(
                "no minor number of a device",
                &origin,
                format!("expected /dev/drbdN or `minor N`, N up to {MINOR_MAX}"),
            );
            return (None, 0);
        };
        (name.map(|(_, name)| format!("/dev/{name}")), number)
    }

    fn one_path(&mut self, statement: &Statement) -> String {
        match statement.values.as_slice() {
            [path] if path.text.starts_with('/') => path.text.clone(),
            [path] => {
                self.error(
                    format!("`{}` is no path of a device", path.text),
                    &path.origin,
                    "expected a path that begins with `/`",
                );
                path.text.clone()
            }
            _ => {
                self.error(
                    format!("`{}` takes one path", statement.name.text),
                    &statement.origin(),
                    "expected the path of a block device",
                );
                String::new()
            }
        }
    }

    fn meta(&mut self, statement: &Statement) -> Meta {
        match statement.values.as_slice() {
            [word] if word.text == "internal" => Meta::Internal,
            [word] if word.text.starts_with('/') => Meta::External(word.text.clone()),
            [word, open, index, close]
                if word.text.starts_with('/')
                    && open.is("[")
                    && close.is("]")
                    && statement.name.text == "meta-disk" =>
            {
                let Ok(number) = index.text.parse() else {
                    self.error(
                        format!("`{}` is no index", index.text),
                        &index.origin,
                        "expected the number of a slot of 128 MiB",
                    );
                    return Meta::Internal;
                };
                Meta::Indexed(word.text.clone(), number)
            }
            words => {
                let origin = statement.origin();
                let mut problem = Diagnostic::error(format!("`{}` names no place", origin.text()))
                    .at(&origin)
                    .label("expected `internal`, a path, or a path with [INDEX]");
                if let [word] = words {
                    problem = problem.nearest(&word.text, ["internal"]);
                }
                self.problems.push(problem);
                Meta::Internal
            }
        }
    }

    /// Puts a host together with what the resource says for both.
    fn whole_host(
        &mut self,
        resource: &str,
        host: HostDraft,
        common: &VolumesDraft,
    ) -> Option<Host> {
        let place = format!("resource `{resource}`, {}", host.shown);
        let explicit_volumes = !host.volumes.explicit.is_empty() || !common.explicit.is_empty();
        let implicit = host
            .volumes
            .implicit_origin
            .as_ref()
            .or(common.implicit_origin.as_ref());
        if explicit_volumes && let Some(implicit) = implicit {
            let explicit = host
                .volumes
                .explicit_origin
                .as_ref()
                .or(common.explicit_origin.as_ref());
            let mut problem = Diagnostic::error(format!(
                "{place}: `volume` and devices without a volume are mixed"
            ))
            .at(implicit)
            .label("belongs into a `volume N { … }`, too");
            if let Some(explicit) = explicit {
                problem = problem.related(explicit, "because of this");
            }
            self.problems.push(problem);
            return None;
        }
        let mut drafts: Vec<(u16, VolumeDraft)> = if explicit_volumes {
            let mut drafts = common.explicit.clone();
            for (number, draft) in host.volumes.explicit {
                match drafts.iter_mut().find(|(known, _)| *known == number) {
                    Some((_, known)) => *known = over(known.clone(), draft),
                    None => drafts.push((number, draft)),
                }
            }
            drafts
        } else {
            let common = common.implicit.clone().unwrap_or_default();
            vec![(0, over(common, host.volumes.implicit.unwrap_or_default()))]
        };
        drafts.sort_by_key(|(number, _)| *number);
        let mut volumes = Vec::new();
        let mut missing: Vec<&str> = Vec::new();
        if !host.address_given {
            missing.push("address");
        }
        for (number, draft) in drafts {
            let fields = [
                ("device", draft.device.is_some()),
                ("disk", draft.disk.is_some()),
                ("meta-disk", draft.meta.is_some()),
            ];
            missing.extend(
                fields
                    .iter()
                    .filter(|(_, is_there)| !is_there)
                    .map(|(name, _)| *name),
            );
            if let (Some((device, minor)), Some(disk), Some(meta)) =
                (draft.device, draft.disk, draft.meta)
            {
                volumes.push(Volume {
                    number,
                    device,
                    minor,
                    disk,
                    meta,
                    settings: draft.settings,
                });
            }
        }
        if !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
            self.error(
                format!("{place}: {} missing", names.join(", ")),
                &host.origin,
                "in this host's part",
            );
        }
        let (address, address_origin) = host.address?;
        Some(Host {
            kind: host.kind,
            address,
            address_origin,
            volumes,
            explicit_volumes,
        })
    }

    fn same_volumes(&mut self, resource: &str, hosts: &[Host]) {
        let numbers =
            |host: &Host| -> Vec<u16> { host.volumes.iter().map(|volume| volume.number).collect() };
        if let [first, second] = hosts
            && numbers(first) != numbers(second)
            && !first.volumes.is_empty()
            && !second.volumes.is_empty()
        {
            self.error(
                format!("resource `{resource}`: the hosts have different volumes"),
                &second.address_origin,
                format!("{:?} here, {:?} there", numbers(second), numbers(first)),
            );
        }
    }

    // What must not be there twice.

    fn uniqueness(&mut self, configuration: &Configuration) {
        let mut seen: HashMap<String, Origin> = HashMap::new();
        for resource in &configuration.resources {
            let name = &resource.name;
            self.once(&mut seen, format!("resource `{}`", name.text), &name.origin);
            let mut names: HashMap<String, Origin> = HashMap::new();
            for host in &resource.hosts {
                let address = format!("address {}", host.address);
                self.once(&mut seen, address, &host.address_origin);
                let HostKind::On(hosts) = &host.kind else {
                    continue;
                };
                for word in hosts {
                    let key = format!("host `{}`", word.text);
                    self.once(&mut names, key, &word.origin);
                    for volume in &host.volumes {
                        let minor = format!("minor {} of `{}`", volume.minor, word.text);
                        self.once(&mut seen, minor, &host.address_origin);
                        let disk = format!("disk {} of `{}`", volume.disk, word.text);
                        self.once(&mut seen, disk, &host.address_origin);
                    }
                }
            }
        }
    }

    fn once(&mut self, seen: &mut HashMap<String, Origin>, key: String, origin: &Origin) {
        if let Some(first) = seen.get(&key) {
            let first = first.clone();
            self.twice(&key, origin, &first);
        } else {
            seen.insert(key, origin.clone());
        }
    }

    fn twice(&mut self, what: &str, origin: &Origin, first: &Origin) {
        let problem = Diagnostic::error(format!("{what} is used twice"))
            .at(origin)
            .label("used again here")
            .related(first, "used first here");
        self.problems.push(problem);
    }

    fn twice_plain(&mut self, what: &str, origin: &Origin) {
        self.error(format!("{what} is there twice"), origin, "expected once");
    }

    /// The own address must be the node's, unless the files say not to look.
    fn locality(&mut self, configuration: &Configuration, node: &Node) {
        if configuration.global("disable-ip-verification").is_some() || node.addresses.is_empty() {
            return;
        }
        for resource in &configuration.resources {
            let Some(host) = resource.hosts.iter().find(|host| host.is(node)) else {
                continue;
            };
            if !node.addresses.contains(&host.address.ip()) {
                self.problems.push(
                    Diagnostic::error(format!(
                        "resource `{}`: {} is no address of this host",
                        resource.name.text,
                        host.address.ip()
                    ))
                    .at(&host.address_origin)
                    .label(format!("not found on {}", node.name))
                    .help("give the address to an interface: ip addr add ADDRESS/24 dev DEVICE"),
                );
            }
        }
    }
}

/// A host's own words count over the resource's.
fn over(common: VolumeDraft, own: VolumeDraft) -> VolumeDraft {
    let mut settings = common.settings;
    settings.extend(own.settings);
    VolumeDraft {
        device: own.device.or(common.device),
        disk: own.disk.or(common.disk),
        meta: own.meta.or(common.meta),
        settings,
    }
}

fn expectation(kind: Kind) -> String {
    match kind {
        Kind::Choice(choices) | Kind::SplitBrainPolicy(choices) => listed(choices),
        Kind::Switch => "yes or no".to_owned(),
        Kind::Flag => "`;`".to_owned(),
        Kind::Number { min, max, .. } => format!("a number from {min} to {max}"),
        Kind::Digest => format!("a digest: {}", listed(DIGESTS)),
        Kind::Secret => format!("a text of at most {SECRET_BYTES_MAX} bytes in double quotes"),
        Kind::Text => "a word".to_owned(),
        Kind::Names => "names".to_owned(),
    }
}

fn listed(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::base::diagnostic::{Colour, Source};
    use crate::replica::config::tree::parse;

    /// The text's resource.
    const R0: &str = "resource r0 {
  on saisp-vm-2 { device /dev/drbd0; disk /dev/sdb1; address 10.0.23.2:7788; meta-disk internal; }
  on saisp-vm-3 { device /dev/drbd0; disk /dev/sdb1; address 10.0.23.3:7788; meta-disk internal; }
}
";

    fn checked(text: &str) -> Checked {
        let node = Node {
            name: "saisp-vm-2".to_owned(),
            addresses: vec!["10.0.23.2".parse().expect("an address")],
        };
        let (statements, problems) = parse(&Source::new("r0.res", text));
        check("r0.res", &statements, &node, problems)
    }

    /// Each problem as place, message, label, help.
    fn problems(text: &str) -> Vec<String> {
        let problems = match checked(text) {
            Ok((_, problems)) | Err(problems) => problems,
        };
        problems
            .iter()
            .map(|problem| {
                let place = problem
                    .origin
                    .as_ref()
                    .map(|origin| format!("{}:{}: ", origin.line(), origin.column()));
                let label = match problem.label.as_str() {
                    "" => String::new(),
                    label => format!(" [{label}]"),
                };
                let mut help = String::new();
                for line in &problem.help {
                    let _ = write!(help, " ({line})");
                }
                format!(
                    "{}{}{label}{help}",
                    place.unwrap_or_default(),
                    problem.message
                )
            })
            .collect()
    }

    #[test]
    fn the_text_s_resource_is_as_it_says() {
        let (configuration, warnings) = checked(R0).expect("it is right");
        assert_eq!(warnings, []);
        let [resource] = configuration.resources.as_slice() else {
            panic!("one resource");
        };
        let node = Node {
            name: "saisp-vm-3".to_owned(),
            addresses: Vec::new(),
        };
        let local = configuration
            .local(resource, &node)
            .expect("it is this node's");
        let lowered = super::super::lower::lower(&local).expect("one volume");
        assert_eq!(lowered.device, "/dev/drbd0");
        assert_eq!(lowered.names.resource, "r0");
        let net = lowered.net.expect("two hosts");
        assert_eq!(net.own.to_string(), "10.0.23.3:7788");
        assert_eq!(net.peer.to_string(), "10.0.23.2:7788");
        assert_eq!(lowered.disk.disk.to_str(), Some("/dev/sdb1"));
    }

    #[test]
    fn each_mistake_is_named_where_it_stands() {
        // (what is replaced, by what, the problems)
        let table: &[(&str, &str, &[&str])] = &[
            (
                "device /dev/drbd0",
                "devise /dev/drbd0",
                &[
                    "2:19: unknown word `devise` [expected address, volume, device, disk, meta-disk, flexible-meta-disk or options] (did you mean `device`?)",
                    "2:3: resource `r0`, on saisp-vm-2: `device` missing [in this host's part]",
                ],
            ),
            (
                "device /dev/drbd0; ",
                "",
                &["2:3: resource `r0`, on saisp-vm-2: `device` missing [in this host's part]"],
            ),
            (
                "disk /dev/sdb1; ",
                "",
                &["2:3: resource `r0`, on saisp-vm-2: `disk` missing [in this host's part]"],
            ),
            (
                "address 10.0.23.2:7788; ",
                "",
                &["2:3: resource `r0`, on saisp-vm-2: `address` missing [in this host's part]"],
            ),
            (
                "meta-disk internal; ",
                "",
                &["2:3: resource `r0`, on saisp-vm-2: `meta-disk` missing [in this host's part]"],
            ),
            (
                "10.0.23.2:7788",
                "10.0.23.2",
                &["2:71: an address without a port [expected `:` and a port, usually 7788]"],
            ),
            (
                "10.0.23.2:",
                "10.0.23.277:",
                &[
                    "2:62: `10.0.23.277` is no IPv4 address [expected an address; names are not looked up]",
                ],
            ),
            (
                "10.0.23.2:",
                "10.0.23.9:",
                &[
                    "2:54: resource `r0`: 10.0.23.9 is no address of this host [not found on saisp-vm-2] (give the address to an interface: ip addr add ADDRESS/24 dev DEVICE)",
                ],
            ),
            (
                "10.0.23.2:7788",
                "10.0.23.2:77888",
                &["2:72: `77888` is no port [expected 1 to 65535]"],
            ),
            (
                "10.0.23.3:",
                "10.0.23.2:",
                &["3:54: address 10.0.23.2:7788 is used twice [used again here]"],
            ),
            (
                "on saisp-vm-3",
                "on saisp-vm-2",
                &[
                    "3:6: host `saisp-vm-2` is used twice [used again here]",
                    "3:54: minor 0 of `saisp-vm-2` is used twice [used again here]",
                    "3:54: disk /dev/sdb1 of `saisp-vm-2` is used twice [used again here]",
                ],
            ),
            (
                "meta-disk internal",
                "meta-disk intern",
                &[
                    "2:78: `meta-disk intern` names no place [expected `internal`, a path, or a path with [INDEX]] (did you mean `internal`?)",
                ],
            ),
            (
                "/dev/drbd0; disk",
                "/dev/sdb0; disk",
                &[
                    "2:26: `/dev/sdb0` is no name of a DRBD device [expected /dev/drbd and more] (the disk below it is `disk`)",
                    "2:19: no minor number of a device [expected /dev/drbdN or `minor N`, N up to 1048575]",
                ],
            ),
            (
                "/dev/drbd0; disk",
                "/dev/drbd0 minor x; disk",
                &[
                    "2:43: no minor number of a device [expected /dev/drbdN or `minor N`, N up to 1048575]",
                ],
            ),
            (
                "disk /dev/sdb1",
                "disk sdb1",
                &["2:43: `sdb1` is no path of a device [expected a path that begins with `/`]"],
            ),
            (
                "resource r0 {",
                "resource r0 { net { verify-algo sha1; }",
                &[
                    "1:21: unknown option `verify-algo` in section `net` [no such option] (did you mean `verify-alg`?)",
                ],
            ),
            (
                "resource r0 {",
                "resource r0 { net { verify-alg sha0; }",
                &[
                    "1:32: unknown digest `sha0` of `verify-alg` [expected a digest: md5, sha1, sha256, sha384, sha512 or crc32c] (did you mean `sha1`?)",
                ],
            ),
            (
                "resource r0 {",
                "resource r0 { net { verify-alg; }",
                &[
                    "1:31: `verify-alg` without its value [expected a digest: md5, sha1, sha256, sha384, sha512 or crc32c]",
                ],
            ),
            (
                "resource r0 {",
                "resource r0 { net { resync-rate 10M; }",
                &[
                    "1:21: unknown option `resync-rate` in section `net` [belongs into section `disk`]",
                ],
            ),
            (
                "resource r0 {",
                "resource r0 { net { ping-int 500; }",
                &["1:30: `ping-int 500` is out of range [expected a number from 1 to 120]"],
            ),
            (
                "resource r0 {",
                "resource r0 { net { ping-int soon; }",
                &["1:30: `soon` of `ping-int` is no number [expected a number from 1 to 120]"],
            ),
            (
                "resource r0 {",
                "resource r0 { net { ping-int 5; ping-int 6; }",
                &["1:33: `ping-int` is given twice [this one counts]"],
            ),
            (
                "resource r0 {",
                "resource r0 { net { ping-int 5; } net { timeout 30; }",
                &["1:35: section `net` is used twice [used again here]"],
            ),
            (
                "resource r0 {",
                "resource r0 { protocol C; protocol A;",
                &["1:27: `protocol` is used twice [used again here]"],
            ),
            (
                "resource r0 {",
                "resource r0 { protocol D;",
                &["1:24: unknown value `D` of `protocol` [expected A, B or C]"],
            ),
            (
                "resource r0 {",
                "resource r0 { net { protocol A; allow-two-primaries; }",
                &["1:33: two primaries need protocol C [with protocol A]"],
            ),
            (
                "resource r0 {",
                "resource r0 { netz { }",
                &[
                    "1:15: unknown word `netz` [expected protocol, on, floating, volume, device, disk, meta-disk, flexible-meta-disk, net, syncer, startup, handlers or options] (did you mean `net`?)",
                ],
            ),
            (
                "resource r0 {",
                "resorce r0 {",
                &[
                    "1:1: unknown section `resorce` [expected global, common, resource, skip or include] (did you mean `resource`?)",
                ],
            ),
            (
                "resource r0 {",
                "resource {",
                &["1:1: a resource without a name [expected a name after it]"],
            ),
            (
                "resource r0 {",
                "resource r0 { volume 1 { device minor 1; disk /dev/sda; meta-disk internal; }",
                &[
                    "2:19: resource `r0`, on saisp-vm-2: `volume` and devices without a volume are mixed [belongs into a `volume N { … }`, too]",
                    "3:19: resource `r0`, on saisp-vm-3: `volume` and devices without a volume are mixed [belongs into a `volume N { … }`, too]",
                ],
            ),
        ];
        let mut wrong = Vec::new();
        for (old, new, expected) in table {
            let found = problems(&R0.replacen(old, new, 1));
            if found != *expected {
                wrong.push(format!("{new}:\n{found:#?}\ninstead of\n{expected:#?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = R0
            .replacen("device /dev/drbd0;", "devise /dev/drbd0;", 1)
            .replace("10.0.23.3:7788", "10.0.23.3:0")
            .replacen("resource r0 {", "resource r0 { net { ko-cuont 7; }", 1);
        assert_eq!(problems(&text).len(), 4, "{:?}", problems(&text));
    }

    #[test]
    fn a_missing_brace_is_one_problem() {
        let text = R0.replacen("internal; }", "internal;", 1);
        let found = problems(&text);
        assert!(found[0].contains("`{` without a `}`"), "{found:?}");
    }

    #[test]
    fn a_secret_that_is_too_long_is_not_shown() {
        let secret = "x".repeat(70);
        let text = R0.replace(
            "resource r0 {",
            &format!("resource r0 {{ net {{ shared-secret \"{secret}\"; }}"),
        );
        let drawn: String = match checked(&text) {
            Ok(_) => panic!("70 bytes are too many"),
            Err(problems) => problems
                .iter()
                .map(|problem| problem.render(Colour::Never))
                .collect(),
        };
        assert!(drawn.contains("the shared secret has 70 bytes"), "{drawn}");
        assert!(drawn.contains("r0.res:1:35"), "{drawn}");
        assert!(
            drawn.contains("^ expected a text of at most 63 bytes"),
            "{drawn}"
        );
        assert!(!drawn.contains("xxx"), "{drawn}");
    }

    #[test]
    fn a_secret_is_not_shown_beside_another_mistake() {
        for line in [
            "shared-secret \"hidden\"; ping-int 500;",
            "shared-secert \"hidden\";",
            "shared-secret hidden ping-int 5;",
            "shared-secret \"hidden",
            "shared-secret hid@den;",
            "cram-hmac-alg none; shared-secret 'hidden';",
        ] {
            let text = R0.replace(
                "resource r0 {",
                &format!("resource r0 {{ net {{ {line}\n }}"),
            );
            let drawn: String = match checked(&text) {
                Ok(_) => panic!("it is wrong: {line}"),
                Err(problems) => problems
                    .iter()
                    .map(|problem| problem.render(Colour::Never))
                    .collect(),
            };
            assert!(drawn.contains('*'), "{line}: {drawn}");
            assert!(!drawn.contains("hid"), "{line}: {drawn}");
        }
    }
}
