//! `replica`: a DRBD resource's file, metadata, state and role.
//!
//! The same commands bring both tool sets there; only who answers to `drbdadm` differs.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::args::Args;
use super::outcome::Refusal;
use crate::base::diagnostic::{Colour, Source, render_all};
use crate::replica::config::check::check;
use crate::replica::config::model::Node;
use crate::replica::config::tree::parse;

/// What is known of the resource on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether there is metadata on its disk.
    pub has_metadata: bool,
    /// None while it is down.
    pub state: Option<State>,
}

/// What `role`, `cstate` and `dstate` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub role: String,
    pub peer: String,
    pub connection: String,
    pub disk: String,
    pub peer_disk: String,
}

impl State {
    /// Reads the three answers; `None` where any of them says that there is no device.
    pub fn read(role: &str, connection: &str, disks: &str) -> Option<Self> {
        let (role, peer) = role.trim().split_once('/')?;
        let (disk, peer_disk) = disks.trim().split_once('/')?;
        Some(Self {
            role: role.to_owned(),
            peer: peer.to_owned(),
            connection: connection.trim().to_owned(),
            disk: disk.to_owned(),
            peer_disk: peer_disk.to_owned(),
        })
    }

    fn is_connected(&self) -> bool {
        const NOT_YET: [&str; 10] = [
            "StandAlone",
            "Disconnecting",
            "Unconnected",
            "Timeout",
            "BrokenPipe",
            "NetworkFailure",
            "ProtocolError",
            "TearDown",
            "WFConnection",
            "WFReportParams",
        ];
        !NOT_YET.contains(&self.connection.as_str())
    }

    fn is_synced(&self) -> bool {
        self.connection == "Connected" && self.disk == "UpToDate" && self.peer_disk == "UpToDate"
    }

    /// Whether what a task waits for is reached.
    pub fn has_reached(&self, wanted: &str) -> bool {
        match wanted {
            "connected" => self.is_connected(),
            "syncing" => self.connection.starts_with("Sync") || self.is_synced(),
            "synced" => self.is_synced(),
            _ => true,
        }
    }
}

/// One call of `drbdadm`: its words before the resource's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(pub &'static [&'static str]);

impl Step {
    pub const CREATE: Self = Self(&["create-md", "--force"]);
    pub const UP: Self = Self(&["up"]);
    pub const ADJUST: Self = Self(&["adjust"]);
    pub const DOWN: Self = Self(&["down"]);
    pub const PRIMARY: Self = Self(&["primary"]);
    pub const PRIMARY_FORCED: Self = Self(&["primary", "--force"]);
    pub const SECONDARY: Self = Self(&["secondary"]);
    pub const CONNECT_DISCARDING: Self = Self(&["connect", "--discard-my-data"]);
}

/// Returns the steps up to the wanted state; the role comes after them, with fresh facts.
pub fn steps(args: Args<'_>, facts: &Facts, file_changes: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let is_up = facts.state.is_some();
    match args.word("state") {
        "down" | "absent" if is_up => steps.push(Step::DOWN),
        "up" => {
            let makes_metadata = match args.word("create_md") {
                "always" => true,
                "never" => false,
                _ => !facts.has_metadata,
            };
            let is_attached = |state: &State| state.disk != "Diskless";
            if makes_metadata {
                if facts.state.as_ref().is_some_and(is_attached) {
                    steps.push(Step::DOWN);
                }
                steps.push(Step::CREATE);
            }
            match &facts.state {
                Some(state) if !steps.contains(&Step::DOWN) => {
                    let is_alone = state.connection == "StandAlone";
                    if is_alone && args.flag("discard_my_data") {
                        steps.push(Step::CONNECT_DISCARDING);
                    } else if is_alone || file_changes || !is_attached(state) {
                        steps.push(Step::ADJUST);
                    }
                }
                _ => steps.push(Step::UP),
            }
        }
        _ => {}
    }
    steps
}

/// Returns the step to the wanted role.
pub fn role_step(args: Args<'_>, state: Option<&State>) -> Option<Step> {
    if args.word("state") != "up" {
        return None;
    }
    let role = state.map_or("Secondary", |state| state.role.as_str());
    match args.text("role")? {
        "primary" if role != "Primary" => {
            let is_good = state.is_some_and(|state| state.disk == "UpToDate");
            Some(if args.flag("force") && !is_good {
                Step::PRIMARY_FORCED
            } else {
                Step::PRIMARY
            })
        }
        "secondary" if role == "Primary" => Some(Step::SECONDARY),
        _ => None,
    }
}

/// Returns the resource's file; `None` where the task does not describe one.
pub fn file(args: Args<'_>) -> Result<Option<String>, Refusal> {
    let Some(hosts) = args.dict("hosts") else {
        return Ok(None);
    };
    let name = args.word("name");
    let mut text = format!("resource {} {{\n", quoted(name));
    if let Some(protocol) = args.text("protocol") {
        let _ = writeln!(text, "  protocol {protocol};");
    }
    for (argument, section) in [
        ("net", "net"),
        ("disk_options", "disk"),
        ("startup", "startup"),
        ("handlers", "handlers"),
    ] {
        if let Some(options) = args.dict(argument) {
            options_block(&mut text, section, options);
        }
    }
    for (host, given) in hosts {
        host_block(&mut text, args, host, given)?;
    }
    text.push_str("}\n");
    let path = path(args);
    let (statements, problems) = parse(&Source::new(path, text.as_str()));
    match check(&self::path(args), &statements, &Node::default(), problems) {
        Ok(_) => Ok(Some(text)),
        Err(problems) => Err(Refusal::new(format!(
            "the resource's file would not be right:\n{}",
            render_all(&problems, Colour::Never)
        ))),
    }
}

/// Returns where the resource's file is.
pub fn path(args: Args<'_>) -> String {
    args.text("path").map_or_else(
        || format!("/etc/drbd.d/{}.res", args.word("name")),
        str::to_owned,
    )
}

fn options_block(text: &mut String, section: &str, options: &Map<String, Value>) {
    let _ = writeln!(text, "  {section} {{");
    for (name, value) in options {
        let value = match value {
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            Value::String(value) => quoted(value),
            other => other.to_string(),
        };
        let _ = writeln!(text, "    {name} {value};");
    }
    text.push_str("  }\n");
}

fn host_block(text: &mut String, args: Args<'_>, host: &str, given: &Value) -> Result<(), Refusal> {
    let own = |name: &str| given.get(name).and_then(Value::as_str);
    let Some(address) = given.as_str().or_else(|| own("address")) else {
        return Err(Refusal::new(format!(
            "hosts: {host}: expected its address and port, such as 10.0.23.2:7788; found {given}"
        )));
    };
    let Some(disk) = own("disk").or_else(|| args.text("disk")) else {
        return Err(Refusal::new(format!(
            "`disk` is missing: the device below, such as /dev/sdb1, for all hosts or for {host}"
        )));
    };
    let device = own("device").unwrap_or_else(|| args.word("device"));
    let meta_disk = own("meta_disk").unwrap_or_else(|| args.word("meta_disk"));
    let _ = write!(
        text,
        "  on {} {{\n    device    {device};\n    disk      {disk};\n    address   {address};\n    meta-disk {meta_disk};\n  }}\n",
        quoted(host)
    );
    Ok(())
}

fn quoted(value: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-".contains(char);
    if !value.is_empty() && value.chars().all(is_plain) {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(connection: &str, role: &str, disks: &str) -> State {
        State::read(role, connection, disks).expect("a state")
    }

    fn planned(args: &Value, facts: &Facts) -> Vec<Step> {
        steps(Args(args.as_object().expect("an object")), facts, false)
    }

    #[test]
    fn the_file_is_the_texts() {
        let args = json!({
            "name": "r0", "device": "/dev/drbd0", "disk": "/dev/sdb1", "meta_disk": "internal",
            "net": {"verify-alg": "sha1", "allow-two-primaries": false},
            "hosts": {"saisp-vm-2": "10.0.23.2:7788", "saisp-vm-3": {"address": "10.0.23.3:7788", "disk": "/dev/sdc1"}},
        });
        let expected = "resource r0 {
  net {
    verify-alg sha1;
    allow-two-primaries no;
  }
  on saisp-vm-2 {
    device    /dev/drbd0;
    disk      /dev/sdb1;
    address   10.0.23.2:7788;
    meta-disk internal;
  }
  on saisp-vm-3 {
    device    /dev/drbd0;
    disk      /dev/sdc1;
    address   10.0.23.3:7788;
    meta-disk internal;
  }
}
";
        let args = Args(args.as_object().expect("an object"));
        assert_eq!(file(args).expect("it is right").as_deref(), Some(expected));
    }

    #[test]
    fn a_wrong_option_is_refused_before_anything_is_done() {
        let args = json!({
            "name": "r0", "device": "/dev/drbd0", "disk": "/dev/sdb1", "meta_disk": "internal",
            "net": {"verify-algo": "sha1"}, "hosts": {"a": "10.0.0.1:1", "b": "10.0.0.2:1"},
        });
        let refused = file(Args(args.as_object().expect("an object"))).unwrap_err();
        assert!(
            refused.msg.contains("did you mean `verify-alg`?"),
            "{refused}"
        );
    }

    #[test]
    fn a_second_run_has_nothing_to_do() {
        let args = json!({"name": "r0", "state": "up", "create_md": "missing", "role": "primary", "force": true});
        let fresh = Facts::default();
        assert_eq!(planned(&args, &fresh), [Step::CREATE, Step::UP]);
        let args_map = args.as_object().expect("an object");
        let fresh_state = state(
            "Connected",
            "Secondary/Secondary",
            "Inconsistent/Inconsistent",
        );
        assert_eq!(
            role_step(Args(args_map), Some(&fresh_state)),
            Some(Step::PRIMARY_FORCED)
        );
        let done = state("SyncSource", "Primary/Secondary", "UpToDate/Inconsistent");
        assert_eq!(role_step(Args(args_map), Some(&done)), None);
        let facts = Facts {
            has_metadata: true,
            state: Some(done),
        };
        assert_eq!(planned(&args, &facts), []);
    }

    #[test]
    fn what_is_missing_is_adjusted_and_force_is_only_used_where_it_must() {
        let args = json!({"name": "r0", "state": "up", "role": "primary", "force": true});
        let facts = |connection, disks| Facts {
            has_metadata: true,
            state: Some(state(connection, "Secondary/Unknown", disks)),
        };
        assert_eq!(
            planned(&args, &facts("StandAlone", "UpToDate/DUnknown")),
            [Step::ADJUST]
        );
        assert_eq!(
            planned(&args, &facts("WFConnection", "Diskless/DUnknown")),
            [Step::ADJUST]
        );
        assert_eq!(
            planned(&args, &facts("WFConnection", "UpToDate/DUnknown")),
            []
        );
        let good = state("WFConnection", "Secondary/Unknown", "UpToDate/DUnknown");
        let args_map = args.as_object().expect("an object");
        assert_eq!(role_step(Args(args_map), Some(&good)), Some(Step::PRIMARY));
        let victim = json!({"name": "r0", "state": "up", "discard_my_data": true});
        assert_eq!(
            planned(&victim, &facts("StandAlone", "UpToDate/DUnknown")),
            [Step::CONNECT_DISCARDING]
        );
    }

    #[test]
    fn states_that_are_waited_for() {
        let syncing = state("SyncTarget", "Secondary/Primary", "Inconsistent/UpToDate");
        assert!(syncing.has_reached("connected") && syncing.has_reached("syncing"));
        assert!(!syncing.has_reached("synced"));
        let synced = state("Connected", "Secondary/Primary", "UpToDate/UpToDate");
        assert!(synced.has_reached("synced") && synced.has_reached("syncing"));
        assert!(
            !state("WFConnection", "Primary/Unknown", "UpToDate/DUnknown").has_reached("connected")
        );
    }
}
