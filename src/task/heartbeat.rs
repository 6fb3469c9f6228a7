//! `heartbeat`: arguments → the three files of `/etc/ha.d`, whose daemon runs them, and a state
//! to wait for; with what is there → the steps.
//!
//! The files are read as the daemon would read them before anything is changed, so that what is
//! written here and what is read there cannot drift. No secret of authkeys leaves the host: not
//! in a difference, not in a complaint.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::args::Args;
use super::outcome::{Diff, Outcome, Refusal};
use crate::base::diagnostic::{Colour, Severity, Source, nearest, render_all};
use crate::heartbeat::config::{self, Files};

/// Where the daemon looks for its files.
pub const FOLDER: &str = "/etc/ha.d";

/// Long enough for a cold start of both nodes (initdead, then ten seconds) on slow machines.
const WAIT_SECONDS: f64 = 120.0;

/// One of the three files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    HaCf,
    AuthKeys,
    HaResources,
}

impl File {
    pub const ALL: [Self; 3] = [Self::HaCf, Self::AuthKeys, Self::HaResources];

    pub fn name(self) -> &'static str {
        match self {
            Self::HaCf => "ha.cf",
            Self::AuthKeys => "authkeys",
            Self::HaResources => "haresources",
        }
    }

    pub fn path(self) -> String {
        format!("{FOLDER}/{}", self.name())
    }

    /// The argument that holds its text; the one of a template ends with `_template`.
    pub fn argument(self) -> &'static str {
        match self {
            Self::HaCf => "ha_cf",
            Self::AuthKeys => "authkeys",
            Self::HaResources => "haresources",
        }
    }

    pub fn mode(self) -> u32 {
        match self {
            // Whoever reads the key can stop the cluster's services.
            Self::AuthKeys => 0o600,
            Self::HaCf | Self::HaResources => 0o644,
        }
    }
}

/// Whose daemon the service `heartbeat` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// The agent stands in for the package.
    Agent,
    /// The distribution's.
    Package,
}

impl Software {
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Package => "package",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Files and software only.
    Present,
    /// Runs, with these files: started again when one of them changed.
    Started,
    Restarted,
    Stopped,
    /// Stopped, without files, and the agent stands in for nobody.
    Absent,
}

/// What a task wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub software: Option<Software>,
    /// In the order of [`File::ALL`]; what is not given stays as it is.
    pub texts: [Option<String>; 3],
    pub state: State,
    pub wait: Option<Wait>,
}

/// What has to be seen before the task is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Status by node, as `cl_status nodestatus` says it.
    pub nodes: BTreeMap<String, String>,
    /// As `cl_status rscstatus` says it.
    pub resources: Option<String>,
    /// Addresses that are on this host.
    pub addresses: Vec<Ipv4Addr>,
    /// Addresses that are not.
    pub not_addresses: Vec<Ipv4Addr>,
    /// All of it must hold for so long without a break: heartbeat 3.0.6 may have an address for
    /// a moment that it gives up again, having seen that it was taken for dead.
    pub steady: Duration,
    pub timeout: Duration,
}

/// A file as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    pub text: String,
    pub mode: u32,
    pub owner: u32,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub files: [Option<FileFacts>; 3],
    /// `None`: neither, so that nothing can be started.
    pub software: Option<Software>,
    pub is_running: bool,
    /// The node's name as the daemon will take it.
    pub host_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Stop,
    /// The agent takes the package's names.
    StandIn,
    /// And gives them back.
    StandAside,
    Write(File, String),
    /// The content is right, permissions or owner are not.
    Protect(File),
    Remove(File),
    Start,
}

/// What is to be done, and how it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub diffs: Vec<Diff>,
}

impl Wanted {
    pub fn from_args(args: Args<'_>) -> Result<Self, Refusal> {
        let software = match args.text("software") {
            None => None,
            Some("agent") => Some(Software::Agent),
            Some(_) => Some(Software::Package),
        };
        let state = match args.word("state") {
            "started" => State::Started,
            "restarted" => State::Restarted,
            "stopped" => State::Stopped,
            "absent" => State::Absent,
            _ => State::Present,
        };
        Ok(Self {
            software,
            texts: File::ALL.map(|file| args.text(file.argument()).map(str::to_owned)),
            state,
            wait: args.dict("wait_for").map(wait).transpose()?,
        })
    }
}

fn wait(map: &Map<String, Value>) -> Result<Wait, Refusal> {
    const KNOWN: [&str; 6] = [
        "nodes",
        "resources",
        "addresses",
        "not_addresses",
        "steady",
        "timeout",
    ];
    if let Some(unknown) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let hint = nearest(unknown, KNOWN).map(|name| format!("; did you mean `{name}`?"));
        return Err(Refusal::new(format!(
            "`wait_for` has no `{unknown}`, only {}{}",
            KNOWN.join(", "),
            hint.unwrap_or_default()
        )));
    }
    let mut nodes = BTreeMap::new();
    if let Some(value) = map.get("nodes") {
        let wrong = || Refusal::new("`wait_for.nodes` gives each node its status: {vm-2: active}");
        for (name, status) in value.as_object().ok_or_else(wrong)? {
            let status = status.as_str().ok_or_else(wrong)?;
            nodes.insert(name.clone(), status.to_owned());
        }
    }
    Ok(Wait {
        nodes,
        resources: map
            .get("resources")
            .and_then(Value::as_str)
            .map(str::to_owned),
        addresses: addresses(map, "addresses")?,
        not_addresses: addresses(map, "not_addresses")?,
        steady: seconds(map, "steady", 0.0)?,
        timeout: seconds(map, "timeout", WAIT_SECONDS)?,
    })
}

fn seconds(map: &Map<String, Value>, name: &str, default: f64) -> Result<Duration, Refusal> {
    let seconds = match map.get(name) {
        None => default,
        Some(value) => number(value)
            .ok_or_else(|| Refusal::new(format!("`wait_for.{name}` is a number of seconds")))?,
    };
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| Refusal::new(format!("`wait_for.{name}`: {error}")))
}

fn number(value: &Value) -> Option<f64> {
    value
        .as_f64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

fn addresses(map: &Map<String, Value>, name: &str) -> Result<Vec<Ipv4Addr>, Refusal> {
    let entries = match map.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries.clone(),
        Some(single) => vec![single.clone()],
    };
    let parsed = entries.iter().map(|entry| {
        entry
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Refusal::new(format!("`wait_for.{name}`: {entry} is no IPv4 address")))
    });
    parsed.collect()
}

/// Decides on the steps.
pub fn plan(wanted: &Wanted, facts: &Facts) -> Result<Plan, Refusal> {
    if wanted.state == State::Absent {
        return Ok(plan_absence(facts));
    }
    let starts = matches!(wanted.state, State::Started | State::Restarted);
    check_files(wanted, facts, starts)?;
    let mut steps = Vec::new();
    let mut diffs = Vec::new();
    let switch = wanted
        .software
        .filter(|software| facts.software != Some(*software));
    let software = switch.or(facts.software);
    for ((file, text), found) in File::ALL.iter().zip(&wanted.texts).zip(&facts.files) {
        let Some(text) = text else { continue };
        if found.as_ref().is_none_or(|found| found.text != *text) {
            steps.push(Step::Write(*file, text.clone()));
            diffs.push(difference(*file, found.as_ref(), text));
        } else if found
            .as_ref()
            .is_some_and(|found| found.mode != file.mode() || found.owner != 0)
        {
            steps.push(Step::Protect(*file));
        }
    }
    let is_other = switch.is_some() || steps.iter().any(|step| matches!(step, Step::Write(..)));
    let restarts = match wanted.state {
        State::Started => is_other,
        State::Restarted => true,
        _ => false,
    };
    match switch {
        Some(Software::Agent) => steps.insert(0, Step::StandIn),
        Some(Software::Package) => steps.insert(0, Step::StandAside),
        None => {}
    }
    // What runs gives up its resources by the files it was started with.
    let stops =
        facts.is_running && (switch.is_some() || restarts || wanted.state == State::Stopped);
    if stops {
        steps.insert(0, Step::Stop);
    }
    if starts && (stops || !facts.is_running) {
        if software.is_none() {
            return Err(Refusal::new(
                "there is no heartbeat to start: say `software: agent`, or install the package",
            ));
        }
        steps.push(Step::Start);
    }
    Ok(Plan { steps, diffs })
}

fn plan_absence(facts: &Facts) -> Plan {
    let mut steps = Vec::new();
    let mut diffs = Vec::new();
    if facts.is_running {
        steps.push(Step::Stop);
    }
    for (file, found) in File::ALL.iter().zip(&facts.files) {
        if found.is_some() {
            steps.push(Step::Remove(*file));
            diffs.push(difference(*file, found.as_ref(), ""));
        }
    }
    if facts.software == Some(Software::Agent) {
        steps.push(Step::StandAside);
    }
    Plan { steps, diffs }
}

fn difference(file: File, found: Option<&FileFacts>, text: &str) -> Diff {
    let path = file.path();
    if file == File::AuthKeys {
        let shown = |there: bool, what: &str| {
            if there {
                format!("({what})\n")
            } else {
                String::new()
            }
        };
        let before = shown(found.is_some(), "the keys of before");
        return Diff::of_text(&path, before, shown(!text.is_empty(), "keys, not shown"));
    }
    let before = found.map(|found| found.text.clone()).unwrap_or_default();
    Diff::of_text(&path, before, text)
}

/// Reads the files as they will be. One that is missing matters when the daemon is to run.
fn check_files(wanted: &Wanted, facts: &Facts, starts: bool) -> Result<(), Refusal> {
    let mut sources = Vec::new();
    for ((file, text), found) in File::ALL.iter().zip(&wanted.texts).zip(&facts.files) {
        let found = found.as_ref().map(|found| &found.text);
        match text.as_ref().or(found) {
            Some(text) => sources.push(Source::new(file.path(), text.as_str())),
            None if starts => {
                return Err(Refusal::new(format!(
                    "heartbeat cannot start without {}: give `{}` or `{1}_template`",
                    file.path(),
                    file.argument()
                )));
            }
            None => return Ok(()),
        }
    }
    if !starts && wanted.texts.iter().all(Option::is_none) {
        return Ok(());
    }
    let [ha_cf, authkeys, haresources] = sources.try_into().expect("one for each file");
    let checked = config::check(&Files {
        ha_cf,
        authkeys,
        // They get the right ones.
        authkeys_mode: File::AuthKeys.mode(),
        authkeys_owner: 0,
        haresources,
        host_name: facts.host_name.clone(),
    });
    if checked.config.is_some() {
        return Ok(());
    }
    let errors: Vec<_> = checked
        .diagnostics
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error)
        .collect();
    Err(Refusal::new(format!(
        "heartbeat would not start with these files:\n{}",
        render_all(&errors, Colour::Never)
    )))
}

/// What was seen while waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub nodes: BTreeMap<String, String>,
    pub resources: String,
    /// All of the host's IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// Returns what is still missing, in words; empty when all is there.
pub fn missing(wait: &Wait, seen: &Seen) -> Vec<String> {
    let mut missing = Vec::new();
    for (node, status) in &wait.nodes {
        let found = seen.nodes.get(node).map_or("not known", String::as_str);
        if found != status {
            missing.push(format!("{node} {status} (it is {found})"));
        }
    }
    if let Some(wanted) = &wait.resources
        && *wanted != seen.resources
    {
        missing.push(format!(
            "resources {wanted} here (now {})",
            if seen.resources.is_empty() {
                "unknown"
            } else {
                &seen.resources
            }
        ));
    }
    for address in &wait.addresses {
        if !seen.addresses.contains(address) {
            missing.push(format!("{address} on this host"));
        }
    }
    for address in &wait.not_addresses {
        if seen.addresses.contains(address) {
            missing.push(format!("{address} away from this host"));
        }
    }
    missing
}

/// How long what is waited for has held. `now` is any clock that only goes forward.
#[derive(Debug)]
pub struct Holding {
    wanted: Duration,
    since: Option<Duration>,
}

impl Holding {
    pub fn new(wanted: Duration) -> Self {
        Self {
            wanted,
            since: None,
        }
    }

    /// Takes one look; true once everything has been seen at each look for long enough.
    pub fn saw(&mut self, is_all_there: bool, now: Duration) -> bool {
        if !is_all_there {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_sub(since) >= self.wanted
    }
}

/// Returns the result.
pub fn outcome(plan: Plan, seen: Option<&Seen>) -> Outcome {
    let mut outcome = Outcome::changed(!plan.steps.is_empty());
    let words = plan.steps.iter().map(|step| match step {
        Step::Stop => "stopped".to_owned(),
        Step::StandIn => "the agent stands in for the package".to_owned(),
        Step::StandAside => "the agent stands aside".to_owned(),
        Step::Write(file, _) => format!("wrote {}", file.path()),
        Step::Protect(file) => format!("protected {}", file.path()),
        Step::Remove(file) => format!("removed {}", file.path()),
        Step::Start => "started".to_owned(),
    });
    outcome = outcome.with("steps", words.collect::<Vec<_>>());
    if let Some(seen) = seen {
        let nodes: Map<String, Value> = seen
            .nodes
            .iter()
            .map(|(name, status)| (name.clone(), status.as_str().into()))
            .collect();
        outcome = outcome
            .with("nodes", nodes)
            .with("resources", seen.resources.as_str());
    }
    for diff in plan.diffs {
        outcome = outcome.diff(diff);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HA_CF: &str = "autojoin none\nucast eth0 10.0.0.30\nnode saisp-vm-2 saisp-vm-3\n";
    const KEYS: &str = "auth 1\n1 sha1 verysecret\n";
    const RESOURCES: &str = "saisp-vm-2 10.0.0.50 apache2\n";

    fn facts(texts: [&str; 3]) -> Facts {
        let found = |text: &str, mode| {
            (!text.is_empty()).then(|| FileFacts {
                text: text.to_owned(),
                mode,
                owner: 0,
            })
        };
        Facts {
            files: [
                found(texts[0], 0o644),
                found(texts[1], 0o600),
                found(texts[2], 0o644),
            ],
            software: Some(Software::Package),
            is_running: false,
            host_name: "saisp-vm-2".into(),
        }
    }

    fn wanted(args: &Value) -> Wanted {
        Wanted::from_args(Args(args.as_object().expect("a mapping"))).expect("valid")
    }

    fn all(state: &str) -> Wanted {
        wanted(&json!({
            "software": "agent", "state": state,
            "ha_cf": HA_CF, "authkeys": KEYS, "haresources": RESOURCES,
        }))
    }

    #[test]
    fn a_clean_host_is_set_up_and_a_second_time_nothing_is_left_to_do() {
        let steps = plan(&all("started"), &facts(["", "", ""]))
            .expect("a plan")
            .steps;
        let write = |file, text: &str| Step::Write(file, text.to_owned());
        assert_eq!(
            steps,
            [
                Step::StandIn,
                write(File::HaCf, HA_CF),
                write(File::AuthKeys, KEYS),
                write(File::HaResources, RESOURCES),
                Step::Start
            ]
        );
        let mut there = facts([HA_CF, KEYS, RESOURCES]);
        there.software = Some(Software::Agent);
        there.is_running = true;
        let again = plan(&all("started"), &there).expect("a plan");
        assert_eq!(again.steps, []);
        assert!(again.diffs.is_empty());
    }

    #[test]
    fn a_change_stops_what_runs_before_the_files_change() {
        let mut there = facts([
            "ucast eth0 10.0.0.3\nnode saisp-vm-2 saisp-vm-3\n",
            KEYS,
            RESOURCES,
        ]);
        there.software = Some(Software::Agent);
        there.is_running = true;
        let steps = plan(&all("started"), &there).expect("a plan").steps;
        assert_eq!(
            steps,
            [
                Step::Stop,
                Step::Write(File::HaCf, HA_CF.into()),
                Step::Start
            ]
        );
    }

    #[test]
    fn keys_that_others_can_read_are_protected_without_a_restart() {
        let mut there = facts([HA_CF, KEYS, RESOURCES]);
        there.software = Some(Software::Agent);
        there.is_running = true;
        there.files[1].as_mut().expect("there").mode = 0o644;
        let steps = plan(&all("started"), &there).expect("a plan").steps;
        assert_eq!(steps, [Step::Protect(File::AuthKeys)]);
    }

    #[test]
    fn absence_leaves_nothing() {
        let mut there = facts([HA_CF, KEYS, RESOURCES]);
        there.software = Some(Software::Agent);
        there.is_running = true;
        let steps = plan(&wanted(&json!({"state": "absent"})), &there)
            .expect("a plan")
            .steps;
        assert_eq!(
            steps,
            [
                Step::Stop,
                Step::Remove(File::HaCf),
                Step::Remove(File::AuthKeys),
                Step::Remove(File::HaResources),
                Step::StandAside
            ]
        );
        let clean = plan(&wanted(&json!({"state": "absent"})), &facts(["", "", ""]));
        assert_eq!(clean.expect("a plan").steps, []);
    }

    #[test]
    fn no_secret_is_shown() {
        let mut there = facts(["", "auth 1\n1 sha1 othersecret\n", ""]);
        there.software = Some(Software::Agent);
        let done = plan(&all("started"), &there).expect("a plan");
        let shown = Value::Object(outcome(done, None).into_result(true)).to_string();
        assert!(!shown.contains("secret\\n"), "{shown}");
        assert!(
            !shown.contains("verysecret") && !shown.contains("othersecret"),
            "{shown}"
        );
        // A key line with a word too many is complained of, its words are not repeated.
        let broken = wanted(&json!({
            "state": "started", "ha_cf": HA_CF, "haresources": RESOURCES,
            "authkeys": "auth 1\n1 sha1 very secret\n",
        }));
        let refusal = plan(&broken, &there).expect_err("refused").to_string();
        assert!(refusal.contains("/etc/ha.d/authkeys:2"), "{refusal}");
        assert!(
            !refusal.contains("very") && !refusal.contains("secret"),
            "{refusal}"
        );
    }

    #[test]
    fn what_the_daemon_would_refuse_is_refused_with_its_place() {
        let mut broken = all("started");
        broken.texts[0] = Some("ucast eth0 10.0.0.30\nnodes saisp-vm-2 saisp-vm-3\n".into());
        let refusal = plan(&broken, &facts(["", "", ""]))
            .expect_err("refused")
            .to_string();
        assert!(refusal.contains("/etc/ha.d/ha.cf:2:1"), "{refusal}");
        assert!(refusal.contains("did you mean `node`?"), "{refusal}");
        let alone = wanted(&json!({"state": "started", "ha_cf": HA_CF}));
        let refusal = plan(&alone, &facts(["", "", ""]))
            .expect_err("refused")
            .to_string();
        assert!(refusal.contains("without /etc/ha.d/authkeys"), "{refusal}");
    }

    #[test]
    fn what_holds_with_a_break_has_to_hold_anew() {
        let seconds = Duration::from_secs;
        let mut holding = Holding::new(seconds(3));
        assert!(!holding.saw(true, seconds(1)));
        assert!(!holding.saw(true, seconds(3)));
        assert!(!holding.saw(false, seconds(4)));
        assert!(!holding.saw(true, seconds(5)));
        assert!(holding.saw(true, seconds(8)));
        assert!(Holding::new(Duration::ZERO).saw(true, seconds(1)));
    }

    #[test]
    fn what_is_waited_for_is_said() {
        let wanted = wanted(&json!({"state": "started", "wait_for": {
            "nodes": {"saisp-vm-3": "active"}, "resources": "local",
            "addresses": "10.0.0.50", "timeout": 5
        }}));
        let wait = wanted.wait.expect("given");
        let mut seen = Seen::default();
        assert_eq!(
            missing(&wait, &seen),
            [
                "saisp-vm-3 active (it is not known)",
                "resources local here (now unknown)",
                "10.0.0.50 on this host"
            ]
        );
        seen.nodes.insert("saisp-vm-3".into(), "active".into());
        seen.resources = "local".into();
        seen.addresses.push(Ipv4Addr::new(10, 0, 0, 50));
        assert!(missing(&wait, &seen).is_empty());
        assert_eq!(wait.steady, Duration::ZERO);
        let typo = Wanted::from_args(Args(
            json!({"wait_for": {"node": {}}})
                .as_object()
                .expect("a mapping"),
        ));
        assert!(
            typo.expect_err("refused")
                .msg
                .ends_with("did you mean `nodes`?")
        );
    }
}
