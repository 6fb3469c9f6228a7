//! `halab bench`: how long the things take that people wait for, whole commands from outside.
//!
//! Works on a lab of its own beside the user's. Each figure is a process started and waited
//! for, so that nothing a user would feel is left out; peers run the same tasks against the
//! same machines in the same run, from inside the lab's network.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use super::args::{Bench, Measurement, Peer};
use super::exit::Exit;
use super::settings::Settings;
use crate::vm::progress::{self, Progress};

/// One line of the table.
#[derive(Debug)]
struct Row {
    name: String,
    samples: Vec<Duration>,
    goal: Option<Duration>,
}

pub fn bench(settings: &Settings, args: &Bench) -> anyhow::Result<Exit> {
    let progress = progress::for_user(settings.json);
    let bench = Bencher::new(settings, args, progress.as_ref())?;
    let measured = bench.all();
    progress.done();
    bench.halab(&["down", "--purge"])?;
    let rows = measured?;
    super::say(&if settings.json {
        as_json(&rows)
    } else {
        as_table(&rows)
    });
    Ok(Exit::Done)
}

struct Bencher<'a> {
    program: PathBuf,
    settings: &'a Settings,
    args: &'a Bench,
    progress: &'a dyn Progress,
    lab: String,
}

impl<'a> Bencher<'a> {
    fn new(
        settings: &'a Settings,
        args: &'a Bench,
        progress: &'a dyn Progress,
    ) -> anyhow::Result<Self> {
        let program = env::current_exe().context("failed to find halab's own program")?;
        let lab = format!("bench-{}", std::process::id());
        Ok(Self {
            program,
            settings,
            args,
            progress,
            lab,
        })
    }

    fn all(&self) -> anyhow::Result<Vec<Row>> {
        self.progress.step("bringing a lab of its own up");
        self.halab(&["up"])?;
        let mut rows = Vec::new();
        for name in [Measurement::Up, Measurement::Reset, Measurement::Tasks] {
            if self.args.names.is_empty() || self.args.names.contains(&name) {
                match name {
                    Measurement::Up => rows.push(self.up()?),
                    Measurement::Reset => rows.push(self.reset()?),
                    Measurement::Tasks => rows.extend(self.tasks()?),
                }
            }
        }
        Ok(rows)
    }

    fn up(&self) -> anyhow::Result<Row> {
        let samples = self.repeat("up, warm", || {
            self.halab(&["down"])?;
            self.halab(&["up"])
        })?;
        Ok(Row {
            name: "up, warm".into(),
            samples,
            goal: Some(Duration::from_secs(4)),
        })
    }

    fn reset(&self) -> anyhow::Result<Row> {
        let samples = self.repeat("reset", || self.halab(&["reset"]))?;
        Ok(Row {
            name: "reset".into(),
            samples,
            goal: Some(Duration::from_secs(2)),
        })
    }

    fn tasks(&self) -> anyhow::Result<Vec<Row>> {
        let playbook = self.settings.folder.path("playbooks/bench/tasks.yml");
        let playbook = playbook
            .to_str()
            .context("the lab's folder has a name that is not text")?;
        let first = self.repeat("20 tasks, first run", || {
            self.halab(&["reset"])?;
            self.halab(&["run", playbook])
        })?;
        let again = self.repeat("20 tasks, nothing to change", || {
            self.halab(&["run", playbook])
        })?;
        let mut rows = vec![
            Row {
                name: "20 tasks, first run".into(),
                samples: first,
                goal: Some(Duration::from_secs(2)),
            },
            Row {
                name: "20 tasks, nothing to change".into(),
                samples: again,
                goal: Some(Duration::from_millis(1500)),
            },
        ];
        for &peer in &self.args.peers {
            self.halab(&["reset"])?;
            for what in ["first run", "nothing to change"] {
                let name = format!("20 tasks, {what}, {}", peer_name(peer));
                self.progress.step(&name);
                let samples = vec![self.peer(peer, playbook)?];
                rows.push(Row {
                    name,
                    samples,
                    goal: None,
                });
            }
        }
        Ok(rows)
    }

    /// Runs one of the others inside the lab's network, on the same machines.
    fn peer(&self, peer: Peer, playbook: &str) -> anyhow::Result<Duration> {
        let state = self.settings.state_dir.with_file_name(&self.lab);
        let inventory = state.join(match peer {
            Peer::Ansible => "bench.ini",
            Peer::Pyinfra => "bench_inventory.py",
        });
        fs::write(&inventory, inventory_text(peer, &state))
            .with_context(|| format!("failed to write {}", inventory.display()))?;
        let inventory = inventory
            .to_str()
            .context("the state folder's name is not text")?;
        let deploy = Path::new(playbook).with_file_name("pyinfra.py");
        let deploy = deploy
            .to_str()
            .context("the lab's folder has a name that is not text")?;
        let inside: &[&str] = match peer {
            Peer::Ansible => &["ansible-playbook", "-i", inventory, playbook],
            Peer::Pyinfra => &["pyinfra", "-y", inventory, deploy],
        };
        self.halab(&[&["internal-enter", "--"], inside].concat())
    }

    /// Times so many runs; what `run` returns is the time of the part that counts.
    fn repeat(
        &self,
        name: &str,
        run: impl Fn() -> anyhow::Result<Duration>,
    ) -> anyhow::Result<Vec<Duration>> {
        (1..=self.args.runs)
            .map(|number| {
                self.progress
                    .step(&format!("{name}: {number} of {}", self.args.runs));
                run()
            })
            .collect()
    }

    /// Runs one halab command on the lab to its end and returns how long it took.
    fn halab(&self, args: &[&str]) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let output = Command::new(&self.program)
            .args(["--lab", &self.lab, "--dir"])
            .arg(&self.settings.folder.root)
            .args(args)
            .env("ANSIBLE_PIPELINING", "1")
            .env("ANSIBLE_NOCOWS", "1")
            .stdin(Stdio::null())
            .output()
            .context("failed to start halab")?;
        let took = begun.elapsed();
        if !output.status.success() {
            bail!(
                "halab {} ended with {}:\n{}{}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(took)
    }
}

fn peer_name(peer: Peer) -> &'static str {
    match peer {
        Peer::Ansible => "ansible-core",
        Peer::Pyinfra => "pyinfra",
    }
}

/// The lab's machines in the peer's own words; both reach them as root with the lab's key.
fn inventory_text(peer: Peer, state: &Path) -> String {
    let key = state.join("ssh/id_ed25519");
    let key = key.display();
    let hosts = [
        ("saisp-vm-1", "10.0.0.10"),
        ("saisp-vm-2", "10.0.0.20"),
        ("saisp-vm-3", "10.0.0.30"),
    ];
    match peer {
        Peer::Ansible => {
            let line = |(name, address): (&str, &str)| {
                format!(
                    "{name} ansible_host={address} ansible_user=root ansible_ssh_private_key_file={key} \
                     ansible_ssh_common_args='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null'\n"
                )
            };
            format!(
                "[director]\n{}[realservers]\n{}{}",
                line(hosts[0]),
                line(hosts[1]),
                line(hosts[2])
            )
        }
        Peer::Pyinfra => {
            let entry = |(name, address): (&str, &str)| {
                format!(
                    "    (\"{name}\", {{\"ssh_hostname\": \"{address}\", \"ssh_user\": \"root\", \
                     \"ssh_key\": \"{key}\", \"ssh_strict_host_key_checking\": \"off\"}}),\n"
                )
            };
            format!(
                "director = [\n{}]\nrealservers = [\n{}{}]\n",
                entry(hosts[0]),
                entry(hosts[1]),
                entry(hosts[2])
            )
        }
    }
}

fn as_table(rows: &[Row]) -> String {
    let mut table = format!(
        "{:<44} {:>4} {:>9} {:>9} {:>9} {:>8}\n",
        "seconds", "runs", "median", "min", "max", "goal"
    );
    for row in rows {
        let (min, median, max) = row.summary();
        let goal = row
            .goal
            .map_or_else(|| "-".into(), |goal| format!("{:.1}", goal.as_secs_f64()));
        let _ = writeln!(
            table,
            "{:<44} {:>4} {median:>9.2} {min:>9.2} {max:>9.2} {goal:>8}",
            row.name,
            row.samples.len(),
        );
    }
    table.trim_end().to_owned()
}

fn as_json(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (min, median, max) = row.summary();
            json!({
                "name": row.name, "runs": row.samples.len(), "unit": "s",
                "median": median, "min": min, "max": max,
                "goal": row.goal.map(|goal| goal.as_secs_f64()),
            })
        })
        .collect();
    json!({ "bench": rows }).to_string()
}

impl Row {
    /// Minimum, median and maximum in seconds; of an even number the upper median.
    fn summary(&self) -> (f64, f64, f64) {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let at = |index: usize| sorted.get(index).map_or(0.0, Duration::as_secs_f64);
        (
            at(0),
            at(sorted.len() / 2),
            at(sorted.len().saturating_sub(1)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_shown_not_the_mean() {
        let row = Row {
            name: "x".into(),
            samples: [1, 90, 2].map(Duration::from_secs).to_vec(),
            goal: None,
        };
        assert!((row.summary().1 - 2.0).abs() < f64::EPSILON);
        assert!(as_table(&[row]).contains("     2.00      1.00     90.00        -"));
    }
}
