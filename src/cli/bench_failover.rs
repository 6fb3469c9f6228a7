//! `halab bench failover`: how long the service is away, with the agent's heartbeat and with the
//! distribution's 3.0.6, in the same guests and with the same files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// What one round measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// As exercise 03 calls it.
    pub(super) tools: &'static str,
    /// Seconds of silence after which a node is dead.
    pub(super) deadtime: u32,
}

/// The lab's own files, and heartbeat's default deadtime.
pub(super) const ROUNDS: [Round; 4] = [
    Round {
        tools: "agent",
        deadtime: 1,
    },
    Round {
        tools: "native",
        deadtime: 1,
    },
    Round {
        tools: "agent",
        deadtime: 30,
    },
    Round {
        tools: "native",
        deadtime: 30,
    },
];

/// A figure of a round.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) took: Duration,
    pub(super) goal: Option<Duration>,
}

impl Round {
    /// The extra variables of the playbook.
    pub(super) fn variables(self, out: &Path) -> Vec<String> {
        let initdead = self.deadtime.max(10);
        vec![
            format!("tools={}", self.tools),
            format!(
                "{{\"deadtime\": {}, \"initdead\": {initdead}}}",
                self.deadtime
            ),
            format!("out={}", out.display()),
        ]
    }

    /// Reads what the playbook left.
    pub(super) fn figures(self, out: &Path) -> anyhow::Result<Vec<Figure>> {
        let text = fs::read_to_string(out)
            .with_context(|| format!("failed to read the figures in {}", out.display()))?;
        let figures: Value = serde_json::from_str(&text).context("the figures are not JSON")?;
        let seconds = |name: &str| {
            figures[name]
                .as_f64()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .with_context(|| format!("no figure `{name}` in {text}"))
        };
        let is_ours = self.tools == "agent";
        let who = if is_ours { "agent" } else { "heartbeat 3.0.6" };
        let goal = |millis: u64| is_ours.then(|| Duration::from_millis(millis));
        let deadtime = self.deadtime;
        let mut all = vec![Figure {
            name: format!("crash, deadtime {deadtime} s, {who}"),
            took: seconds("crash")?,
            goal: goal(u64::from(deadtime) * 1000 + 500),
        }];
        // The hand-over waits for no timer, so one deadtime is enough.
        if deadtime == 1 {
            all.push(Figure {
                name: format!("hand-over, {who}"),
                took: seconds("hand_over")?,
                goal: goal(1500),
            });
            if is_ours {
                all.push(Figure {
                    name: "of it the web server's own stop".into(),
                    took: seconds("server_stop")?,
                    goal: None,
                });
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_goals() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("figures");
        fs::write(
            &out,
            r#"{"hand_over": 0.7, "crash": 1.2, "dead": 1.0, "server_stop": 0.5}"#,
        )
        .expect("written");
        let figures = ROUNDS[0].figures(&out).expect("figures");
        assert_eq!(figures[0].name, "crash, deadtime 1 s, agent");
        assert_eq!(figures[0].goal, Some(Duration::from_millis(1500)));
        assert_eq!(figures[1].took, Duration::from_millis(700));
        assert_eq!(figures[2].took, Duration::from_millis(500));
        assert_eq!(ROUNDS[1].figures(&out).expect("figures").len(), 2);
        assert_eq!(ROUNDS[3].figures(&out).expect("figures").len(), 1);
        fs::write(&out, "{}").expect("written");
        let error = ROUNDS[0].figures(&out).expect_err("nothing was measured");
        assert!(error.to_string().contains("no figure `crash`"), "{error}");
    }
}
