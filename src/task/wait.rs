//! `wait_for`: has what is waited for come?

use serde_json::Value;

use super::args::Args;
use super::outcome::{Outcome, Refusal};
use super::pattern::Pattern;

/// What is waited for.
#[derive(Clone, Debug)]
pub enum Target {
    /// Only the time.
    Nothing,
    Port {
        host: String,
        port: u16,
    },
    Path(String),
}

/// What was seen in one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    Absent,
    /// There, with as much of its text as was read for `search_regex`.
    Present {
        text: Option<String>,
    },
    /// A port: how many connections are still on it.
    Connections(usize),
}

impl Target {
    pub fn from_args(args: Args<'_>) -> Result<Self, Refusal> {
        if let Some(path) = args.text("path") {
            if args.word("state") == "drained" {
                return Err(Refusal::new(
                    "state=drained should only be used for checking a port",
                ));
            }
            return Ok(Self::Path(path.to_owned()));
        }
        let Some(port) = args.number("port") else {
            return Ok(Self::Nothing);
        };
        Ok(Self::Port {
            host: args.word("host").to_owned(),
            port: u16::try_from(port).map_err(|_| Refusal::new(format!("{port} is not a port")))?,
        })
    }

    /// Returns what did not come, for the message after the last look.
    pub fn waited_for(&self, args: Args<'_>) -> String {
        if let Some(msg) = args.text("msg") {
            return msg.to_owned();
        }
        let what = match self {
            Self::Nothing => return "Timeout".to_owned(),
            Self::Port { host, port } => format!("{host}:{port}"),
            Self::Path(path) => path.clone(),
        };
        match (args.word("state"), args.text("search_regex")) {
            ("absent" | "stopped", _) => format!("Timeout when waiting for {what} to be absent."),
            ("drained", _) => format!("Timeout when waiting for {what} to drain"),
            (_, Some(expression)) => {
                format!("Timeout when waiting for search string {expression} in {what}")
            }
            _ => format!("Timeout when waiting for {what}"),
        }
    }
}

/// Returns whether a sight is what is waited for.
pub fn is_met(state: &str, sight: &Sight, search: Option<&Pattern>) -> bool {
    match (state, sight) {
        ("absent" | "stopped", sight) => *sight == Sight::Absent,
        ("drained", Sight::Connections(count)) => *count == 0,
        ("drained", _) | (_, Sight::Absent | Sight::Connections(_)) => false,
        (_, Sight::Present { text }) => match (search, text) {
            (None, _) => true,
            (Some(pattern), Some(text)) => pattern.is_in(text),
            (Some(_), None) => false,
        },
    }
}

/// Returns the result after the wait.
pub fn outcome(args: Args<'_>, target: &Target, elapsed_seconds: u64) -> Outcome {
    let port = match target {
        Target::Port { port, .. } => Value::from(*port),
        _ => Value::Null,
    };
    Outcome::changed(false)
        .with("elapsed", elapsed_seconds)
        .with("state", args.word("state"))
        .with("port", port)
        .with("path", args.text("path"))
        .with("search_regex", args.text("search_regex"))
}

/// Counts the connections on a local port in the kernel's table (`/proc/net/tcp`).
pub fn connections(table: &str, port: u16, states: &[&str]) -> usize {
    const NAMES: [&str; 11] = [
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSE",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
    ];
    let is_counted = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1).and_then(|local| local.rsplit(':').next());
        let on_port = local.and_then(|local| u16::from_str_radix(local, 16).ok()) == Some(port);
        let state = fields
            .get(3)
            .and_then(|state| usize::from_str_radix(state, 16).ok());
        let state = state.and_then(|state| NAMES.get(state.checked_sub(1)?));
        on_port && state.is_some_and(|state| states.contains(state))
    };
    table.lines().skip(1).filter(is_counted).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_waits_for_its_own_sight() {
        let there = Sight::Present {
            text: Some("OpenSSH 9".to_owned()),
        };
        let pattern = Pattern::new("OpenSSH").expect("valid");
        assert!(is_met("started", &there, Some(&pattern)));
        assert!(!is_met(
            "started",
            &Sight::Present {
                text: Some(String::new())
            },
            Some(&pattern)
        ));
        assert!(is_met("stopped", &Sight::Absent, None));
        assert!(!is_met("absent", &there, None));
        assert!(is_met("drained", &Sight::Connections(0), None));
    }

    #[test]
    fn connections_of_a_port_are_counted_by_state() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 0100007F:0050 00000000:0000 0A 0\n\
                     1: 0100007F:0050 0100007F:A000 01 0\n\
                     2: 0100007F:0051 0100007F:A001 01 0\n";
        assert_eq!(connections(table, 80, &["ESTABLISHED", "TIME_WAIT"]), 1);
    }
}
