//! `service` and `systemd`: (wanted, what systemd says of the unit) → steps for systemctl.

use std::collections::HashMap;

use super::args::Args;
use super::outcome::{Outcome, Refusal};

/// What `systemctl show` says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFacts {
    pub properties: HashMap<String, String>,
    /// Which `SysV` runlevels start it, for a unit made from an init script.
    pub is_sysv: bool,
    pub sysv_enabled: bool,
}

/// One call of systemctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub argv: Vec<String>,
}

/// What a task comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub changed: bool,
}

impl UnitFacts {
    /// Reads `Name=value` lines.
    pub fn parse(show: &str) -> Self {
        let pairs = show.lines().filter_map(|line| line.split_once('='));
        Self {
            properties: pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            ..Self::default()
        }
    }

    fn property(&self, name: &str) -> &str {
        self.properties.get(name).map_or("", String::as_str)
    }

    pub fn exists(&self) -> bool {
        self.property("LoadState") != "not-found" || self.is_sysv
    }

    fn is_masked(&self) -> bool {
        self.property("LoadState") == "masked"
    }

    fn is_active(&self) -> bool {
        matches!(
            self.property("ActiveState"),
            "active" | "activating" | "reloading"
        )
    }

    fn is_stopping(&self) -> bool {
        self.property("ActiveState") == "deactivating"
    }

    fn is_enabled(&self) -> bool {
        match self.property("UnitFileState") {
            "enabled" | "enabled-runtime" | "alias" | "static" | "indirect" => true,
            "" | "bad" | "generated" => self.sysv_enabled,
            _ => false,
        }
    }
}

/// Decides on the steps; `facts` is `None` when no unit was named.
pub fn plan(args: Args<'_>, facts: Option<&UnitFacts>) -> Result<Plan, Refusal> {
    let mut plan = Plan {
        steps: Vec::new(),
        changed: false,
    };
    // As in Ansible, these two are done and do not count as a change.
    for (flag, verb) in [
        ("daemon_reload", "daemon-reload"),
        ("daemon_reexec", "daemon-reexec"),
    ] {
        if args.flag(flag) {
            plan.steps.push(systemctl(args, &[verb]));
        }
    }
    let (Some(unit), Some(facts)) = (args.text("name"), facts) else {
        return Ok(plan);
    };
    plan_mask(args, unit, facts, &mut plan);
    let wants_more = args.has("state") || args.has("enabled");
    if wants_more && !facts.exists() {
        return Err(Refusal::new(format!(
            "Could not find the requested service {unit}: host"
        )));
    }
    plan_enable(args, unit, facts, &mut plan);
    plan_state(args, unit, facts, &mut plan)?;
    Ok(plan)
}

fn systemctl(args: Args<'_>, words: &[&str]) -> Step {
    let mut argv = vec!["systemctl".to_owned()];
    if args.flag("force") {
        argv.push("--force".to_owned());
    }
    if args.flag("no_block") {
        argv.push("--no-block".to_owned());
    }
    argv.extend(words.iter().map(|&word| word.to_owned()));
    Step { argv }
}

impl Plan {
    fn change(&mut self, step: Step) {
        self.steps.push(step);
        self.changed = true;
    }
}

fn plan_mask(args: Args<'_>, unit: &str, facts: &UnitFacts, plan: &mut Plan) {
    match args.flag_if_given("masked") {
        Some(true) if !facts.is_masked() => plan.change(systemctl(args, &["mask", unit])),
        Some(false) if facts.is_masked() => plan.change(systemctl(args, &["unmask", unit])),
        _ => {}
    }
}

fn plan_enable(args: Args<'_>, unit: &str, facts: &UnitFacts, plan: &mut Plan) {
    match args.flag_if_given("enabled") {
        Some(true) if !facts.is_enabled() => plan.change(systemctl(args, &["enable", unit])),
        Some(false) if facts.is_enabled() => plan.change(systemctl(args, &["disable", unit])),
        _ => {}
    }
}

fn plan_state(
    args: Args<'_>,
    unit: &str,
    facts: &UnitFacts,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let verb = match args.text("state") {
        Some("started") if !facts.is_active() => "start",
        Some("stopped") if facts.is_active() || facts.is_stopping() => "stop",
        Some("restarted") if facts.is_active() => "restart",
        Some("reloaded") if facts.is_active() => "reload",
        Some("restarted" | "reloaded") => "start",
        _ => return Ok(()),
    };
    let is_unmasking = args.flag_if_given("masked") == Some(false);
    if verb != "stop" && facts.is_masked() && !is_unmasking {
        return Err(Refusal::new(format!(
            "Unable to {verb} service {unit}: the unit is masked; `masked: false` unmasks it"
        )));
    }
    plan.change(systemctl(args, &[verb, unit]));
    Ok(())
}

/// Returns the result, in check mode as if the steps had been done.
pub fn outcome(args: Args<'_>, plan: &Plan, facts: Option<&UnitFacts>) -> Outcome {
    let mut outcome = Outcome::changed(plan.changed).with("name", args.text("name"));
    if let Some(facts) = facts {
        let status: serde_json::Map<String, serde_json::Value> = facts
            .properties
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        outcome = outcome.with("status", status);
    }
    let state = args.text("state").map(|state| match state {
        "stopped" => "stopped",
        _ => "started",
    });
    outcome
        .with_if("state", state)
        .with_if("enabled", args.flag_if_given("enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn facts(load: &str, active: &str, enabled: &str) -> UnitFacts {
        UnitFacts::parse(&format!(
            "LoadState={load}\nActiveState={active}\nUnitFileState={enabled}\n"
        ))
    }

    fn steps(args: &Value, facts: &UnitFacts) -> Vec<String> {
        let args = Args(args.as_object().expect("a mapping"));
        let plan = plan(args, Some(facts)).expect("a plan");
        plan.steps
            .iter()
            .map(|step| step.argv[1..].join(" "))
            .collect()
    }

    #[test]
    fn only_what_is_missing_is_done() {
        let wanted = json!({"name": "apache2", "state": "started", "enabled": true});
        let stopped = facts("loaded", "inactive", "disabled");
        assert_eq!(
            steps(&wanted, &stopped),
            ["enable apache2", "start apache2"]
        );
        let running = facts("loaded", "active", "enabled");
        assert_eq!(steps(&wanted, &running), [""; 0]);
    }

    #[test]
    fn a_restart_of_a_stopped_unit_starts_it_and_is_always_a_change() {
        let wanted = json!({"name": "x", "state": "restarted"});
        assert_eq!(
            steps(&wanted, &facts("loaded", "active", "enabled")),
            ["restart x"]
        );
        assert_eq!(
            steps(&wanted, &facts("loaded", "failed", "enabled")),
            ["start x"]
        );
    }

    #[test]
    fn a_reload_of_the_manager_is_no_change() {
        let map = json!({"daemon_reload": true});
        let plan = plan(Args(map.as_object().expect("a mapping")), None).expect("a plan");
        assert!(!plan.changed);
        assert_eq!(plan.steps.len(), 1);
    }

    #[test]
    fn an_unknown_or_masked_unit_is_refused() {
        let wanted = json!({"name": "x", "state": "started"});
        let args = Args(wanted.as_object().expect("a mapping"));
        let unknown = plan(args, Some(&facts("not-found", "inactive", "")));
        assert_eq!(
            unknown.expect_err("refused").msg,
            "Could not find the requested service x: host"
        );
        let masked = plan(args, Some(&facts("masked", "inactive", "masked")));
        assert!(masked.expect_err("refused").msg.contains("masked: false"));
        let unmasked = json!({"name": "x", "state": "started", "masked": false});
        assert_eq!(
            steps(&unmasked, &facts("masked", "inactive", "masked")),
            ["unmask x", "start x"]
        );
    }
}
