//! `iptables`: arguments → calls of iptables, in the order Ansible gives its options.

use serde_json::Value;

use super::args::Args;
use super::outcome::Refusal;

/// What a task asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Throw away the rules of a chain, or of the whole table.
    Flush,
    Policy(String),
    /// A chain of one's own is there, or not.
    Chain {
        is_wanted: bool,
    },
    Rule {
        rule: Vec<String>,
        is_wanted: bool,
    },
}

/// The program and table every call begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    prefix: Vec<String>,
    chain: Option<String>,
}

pub fn wish(args: Args<'_>) -> Result<Wish, Refusal> {
    if args.flag("flush") {
        return Ok(Wish::Flush);
    }
    if let Some(policy) = args.text("policy") {
        return Ok(Wish::Policy(policy.to_owned()));
    }
    let is_wanted = args.word("state") == "present";
    let rule = rule(args)?;
    Ok(if rule.is_empty() {
        Wish::Chain { is_wanted }
    } else {
        Wish::Rule { rule, is_wanted }
    })
}

impl Table {
    pub fn from_args(args: Args<'_>) -> Self {
        let program = match args.word("ip_version") {
            "ipv6" => "ip6tables",
            _ => "iptables",
        };
        // Waits for the lock: somebody else may be changing rules just now.
        let wait = args.text("wait").unwrap_or("10");
        let prefix = [program, "-w", wait, "-t", args.word("table")];
        Self {
            prefix: prefix.map(str::to_owned).to_vec(),
            chain: args.text("chain").map(str::to_owned),
        }
    }

    /// Returns the call for one action on the chain.
    pub fn call(&self, action: &str, rest: &[String]) -> Vec<String> {
        let mut argv = self.prefix.clone();
        argv.push(action.to_owned());
        argv.extend(self.chain.clone());
        argv.extend(rest.iter().cloned());
        argv
    }

    /// Returns the call that adds a rule where the arguments want it.
    pub fn add(&self, args: Args<'_>, rule: &[String]) -> Vec<String> {
        if args.word("action") != "insert" {
            return self.call("-A", rule);
        }
        let mut rest: Vec<String> = args
            .text("rule_num")
            .map(str::to_owned)
            .into_iter()
            .collect();
        rest.extend(rule.iter().cloned());
        self.call("-I", &rest)
    }
}

/// Whether `iptables -S CHAIN` lists any rule.
pub fn has_rules(listing: &str) -> bool {
    listing.lines().any(|line| line.starts_with("-A "))
}

/// Reads a chain's policy from `iptables -S CHAIN`.
pub fn policy(listing: &str) -> Option<&str> {
    listing.lines().find_map(|line| {
        let mut words = line.split(' ');
        (words.next() == Some("-P")).then(|| words.nth(1)).flatten()
    })
}

/// Builds a rule's words.
struct Words(Vec<String>);

impl Words {
    /// `!value` turns the meaning round, as Ansible writes it.
    fn option(&mut self, flag: &str, value: Option<&str>) {
        match value {
            None | Some("") => {}
            Some(value) => match value.strip_prefix('!') {
                Some(value) => self.0.extend(["!", flag, value.trim()].map(str::to_owned)),
                None => self.0.extend([flag, value].map(str::to_owned)),
            },
        }
    }

    fn options(&mut self, flag: &str, values: &[&str]) {
        for value in values {
            self.option(flag, Some(value));
        }
    }

    fn joined(&mut self, flag: &str, values: &[&str]) {
        if !values.is_empty() {
            self.option(flag, Some(&values.join(",")));
        }
    }
}

fn rule(args: Args<'_>) -> Result<Vec<String>, Refusal> {
    let mut words = Words(Vec::new());
    let text = |name: &str| args.text(name);
    let matches = args.list("match");
    let has = |name: &str| matches.contains(&name);
    let jump = jump(args)?;
    words.option("-p", text("protocol"));
    words.option("-s", text("source"));
    words.option("-d", text("destination"));
    words.options("-m", &matches);
    add_tcp_flags(args, &mut words);
    words.option("-j", jump);
    if jump.is_some_and(|jump| jump.eq_ignore_ascii_case("tee")) {
        words.option("--gateway", text("gateway"));
    }
    words.option("--log-prefix", text("log_prefix"));
    words.option("--log-level", text("log_level"));
    words.option("--to-destination", text("to_destination"));
    let ports = args.list("destination_ports");
    if !ports.is_empty() {
        words.option("-m", Some("multiport"));
        words.joined("--dports", &ports);
    }
    words.option("--to-source", text("to_source"));
    words.option("-g", text("goto"));
    words.option("-i", text("in_interface"));
    words.option("-o", text("out_interface"));
    words.option("-f", text("fragment"));
    words.option("-c", text("set_counters"));
    words.option("--source-port", text("source_port"));
    words.option("--destination-port", text("destination_port"));
    words.option("--to-ports", text("to_ports"));
    words.option("--set-dscp", text("set_dscp_mark"));
    match args.word("syn") {
        "match" => words.0.push("--syn".to_owned()),
        "negate" => words.0.extend(["!", "--syn"].map(str::to_owned)),
        _ => {}
    }
    add_state(args, &mut words, has("conntrack"), has("state"));
    if (args.has("src_range") || args.has("dst_range")) && !has("iprange") {
        words.option("-m", Some("iprange"));
    }
    words.option("--src-range", text("src_range"));
    words.option("--dst-range", text("dst_range"));
    if args.has("limit") || args.has("limit_burst") {
        words.option("-m", Some("limit"));
    }
    words.option("--limit", text("limit"));
    words.option("--limit-burst", text("limit_burst"));
    for (name, flag) in [("uid_owner", "--uid-owner"), ("gid_owner", "--gid-owner")] {
        if args.has(name) {
            words.option("-m", Some("owner"));
            words.option(flag, text(name));
        }
    }
    if args.has("reject_with") && jump.is_none() {
        words.option("-j", Some("REJECT"));
    }
    words.option("--reject-with", text("reject_with"));
    let is_v6 = args.word("ip_version") == "ipv6";
    words.option(
        if is_v6 {
            "--icmpv6-type"
        } else {
            "--icmp-type"
        },
        text("icmp_type"),
    );
    if let Some(comment) = text("comment").filter(|comment| !comment.is_empty()) {
        words.option("-m", Some("comment"));
        words.0.extend(["--comment".to_owned(), comment.to_owned()]);
    }
    Ok(words.0)
}

/// Returns the target; options for logging alone mean LOG.
fn jump(args: Args<'_>) -> Result<Option<&str>, Refusal> {
    let logs = args.has("log_prefix") || args.has("log_level");
    match args.text("jump") {
        Some(jump) if logs && jump != "LOG" => Err(Refusal::new(
            "Logging options can only be used with the LOG jump target.",
        )),
        None if logs => Ok(Some("LOG")),
        None if args.has("set_dscp_mark") => Ok(Some("DSCP")),
        jump => Ok(jump),
    }
}

fn add_tcp_flags(args: Args<'_>, words: &mut Words) {
    let Some(flags) = args.dict("tcp_flags") else {
        return;
    };
    let joined = |name: &str| match flags.get(name) {
        Some(Value::Array(entries)) => {
            let entries: Vec<&str> = entries.iter().filter_map(Value::as_str).collect();
            Some(entries.join(","))
        }
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let (Some(looked_at), Some(set)) = (joined("flags"), joined("flags_set")) {
        words.0.extend(["--tcp-flags".to_owned(), looked_at, set]);
    }
}

fn add_state(args: Args<'_>, words: &mut Words, has_conntrack: bool, has_state: bool) {
    let states = args.list("ctstate");
    if states.is_empty() {
        return;
    }
    if has_state && !has_conntrack {
        return words.joined("--state", &states);
    }
    if !has_conntrack {
        words.option("-m", Some("conntrack"));
    }
    words.joined("--ctstate", &states);
}

#[cfg(test)]
mod tests {
    use super::super::kind::{coerce, lookup};
    use super::*;
    use serde_json::{Map, json};

    fn args(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else {
            panic!("a mapping")
        };
        coerce(lookup("iptables").expect("known"), &map).expect("valid")
    }

    fn words(value: Value) -> String {
        rule(Args(&args(value))).expect("a rule").join(" ")
    }

    #[test]
    fn the_texts_rule_for_real_servers() {
        let value = json!({"table": "nat", "chain": "PREROUTING", "destination": "10.0.0.1", "jump": "REDIRECT"});
        let map = args(value);
        let table = Table::from_args(Args(&map));
        let Ok(Wish::Rule { rule, .. }) = wish(Args(&map)) else {
            panic!("a rule")
        };
        assert_eq!(
            table.add(Args(&map), &rule).join(" "),
            "iptables -w 10 -t nat -A PREROUTING -d 10.0.0.1 -j REDIRECT"
        );
    }

    #[test]
    fn options_come_in_ansibles_order_and_negated_where_asked() {
        assert_eq!(
            words(
                json!({"chain": "INPUT", "source": "!10.0.0.0/8", "protocol": "tcp", "destination_port": "80",
                "ctstate": "NEW,ESTABLISHED", "jump": "ACCEPT", "comment": "a b", "in_interface": "eth0"})
            ),
            "-p tcp ! -s 10.0.0.0/8 -j ACCEPT -i eth0 --destination-port 80 -m conntrack --ctstate NEW,ESTABLISHED -m comment --comment a b"
        );
        assert_eq!(
            words(json!({"chain": "x", "log_prefix": "p"})),
            "-j LOG --log-prefix p"
        );
        assert_eq!(
            words(json!({"chain": "x", "reject_with": "tcp-reset"})),
            "-j REJECT --reject-with tcp-reset"
        );
    }

    #[test]
    fn without_a_rule_the_chain_is_meant() {
        assert_eq!(
            wish(Args(&args(json!({"chain": "x"})))),
            Ok(Wish::Chain { is_wanted: true })
        );
        assert_eq!(
            wish(Args(&args(json!({"flush": true, "table": "nat"})))),
            Ok(Wish::Flush)
        );
    }

    #[test]
    fn a_policy_is_read() {
        assert_eq!(policy("-P INPUT DROP\n-A INPUT -j ACCEPT\n"), Some("DROP"));
        assert_eq!(policy("-N own\n"), None);
    }
}
