//! `halab bench`: how long the things take that people wait for, whole commands from outside.
//!
//! Works on a lab of its own beside the user's. Each figure is a process started and waited
//! for, so that nothing a user would feel is left out; peers run the same tasks against the
//! same machines in the same run, from inside the lab's network.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{Bench, Measurement, Peer, Tools};
use super::bench_failover::ROUNDS;
use super::exit::Exit;
use super::faults::{self, Campaign, Outcome, Played};
use super::grade::unix_now;
use super::settings::Settings;
use crate::vm::progress::{self, Progress};
use crate::vm::spec::{Machine, Topology};

/// One line of the table.
#[derive(Debug)]
struct Row {
    name: String,
    unit: Unit,
    samples: Vec<f64>,
    goal: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
    /// Of one processor.
    Percent,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Percent => "%",
        }
    }
}

/// How long a command took, and how much of a processor it and its children had.
#[derive(Clone, Copy, Debug)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

impl Spent {
    fn cpu_percent(self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.wall.as_secs_f64()
    }
}

pub fn bench(settings: &Settings, args: &Bench) -> anyhow::Result<Exit> {
    if args.tools == Tools::Both && args.names.contains(&Measurement::Faults) {
        bail!("a campaign is played with one set of tools: --tools agent or --tools native");
    }
    let progress = progress::for_user(settings.json);
    let bench = Bencher::new(settings, args, progress.as_ref())?;
    let mut rows = Vec::new();
    let mut outcome = Outcome::default();
    let measured = bench.all(&mut rows, &mut outcome);
    progress.done();
    // Also where somebody ended it.
    bench.run(&["down", "--purge"])?;
    let played = Played {
        seed: bench.seed,
        tools: bench.tools(),
        planned: usize::from(args.count),
        outcome: &outcome,
    };
    // What was measured before something failed took minutes, and holds.
    if settings.json {
        let mut facts = as_json(&rows);
        if args.names.contains(&Measurement::Faults) {
            facts["faults"] = faults::as_json(&played);
        }
        super::say(&facts.to_string());
    } else {
        if !rows.is_empty() {
            super::say(&as_table(&rows));
        }
        if !outcome.trials.is_empty() {
            super::say(&faults::as_table(&played));
        }
    }
    if bench.end.is_wanted() {
        super::note("interrupted; its lab is down and forgotten");
        return Ok(Exit::Interrupted);
    }
    measured?;
    Ok(if played.has_problems() {
        Exit::Failed
    } else {
        Exit::Done
    })
}

struct Bencher<'a> {
    program: PathBuf,
    settings: &'a Settings,
    args: &'a Bench,
    progress: &'a dyn Progress,
    lab: String,
    /// Of the faults.
    seed: u64,
    end: End,
}

/// Whether somebody wants it to end, which the first signal says; the second does not wait.
#[derive(Clone, Debug, Default)]
struct End {
    wanted: Arc<AtomicBool>,
    /// The command that is under way; 0 for none.
    child: Arc<AtomicI32>,
}

impl End {
    fn watch() -> anyhow::Result<Self> {
        let end = Self::default();
        let watcher = end.clone();
        let runtime = super::topology::runtime()?;
        let signals = runtime.block_on(async {
            let interrupted = signal(SignalKind::interrupt())?;
            Ok::<_, std::io::Error>((interrupted, signal(SignalKind::terminate())?))
        });
        let (mut interrupted, mut terminated) = signals.context("failed to listen for signals")?;
        thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    // A terminal tells the command that is under way by itself.
                    let by_terminal = tokio::select! {
                        _ = interrupted.recv() => true,
                        _ = terminated.recv() => false,
                    };
                    if watcher.wanted.swap(true, Ordering::SeqCst) {
                        std::process::exit(130);
                    }
                    let child = watcher.child.load(Ordering::SeqCst);
                    if child != 0 && !by_terminal {
                        let _ = kill(Pid::from_raw(child), Signal::SIGTERM);
                    }
                }
            });
        });
        Ok(end)
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }
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
            seed: args.seed.unwrap_or_else(|| unix_now() % 100_000),
            end: End::watch()?,
        })
    }

    fn all(&self, rows: &mut Vec<Row>, outcome: &mut Outcome) -> anyhow::Result<()> {
        self.progress.step("bringing a lab of its own up");
        self.halab(&["up"])?;
        for name in Measurement::value_variants() {
            let is_long = matches!(name, Measurement::Failover | Measurement::Faults);
            let by_itself = self.args.names.is_empty() && !is_long;
            if by_itself || self.args.names.contains(name) {
                match name {
                    Measurement::Overhead => rows.push(self.overhead()?),
                    Measurement::Up => rows.push(self.up()?),
                    Measurement::Reset => rows.push(self.reset()?),
                    Measurement::Tasks => self.tasks(rows)?,
                    Measurement::Failover => rows.extend(self.failover()?),
                    Measurement::Faults => self.faults(outcome)?,
                }
            }
        }
        Ok(())
    }

    fn overhead(&self) -> anyhow::Result<Row> {
        let spent = self.repeat("--help", || self.halab(&["--help"]))?;
        let milliseconds = |spent: &Spent| spent.wall.as_secs_f64() * 1e3;
        Ok(Row {
            name: "halab --help".into(),
            unit: Unit::Milliseconds,
            samples: spent.iter().map(milliseconds).collect(),
            goal: Some(20.0),
        })
    }

    fn up(&self) -> anyhow::Result<Row> {
        let spent = self.repeat("up, warm", || {
            self.halab(&["down"])?;
            self.halab(&["up"])
        })?;
        Ok(Row::of_seconds("up, warm", &spent, Some(4.0)))
    }

    fn reset(&self) -> anyhow::Result<Row> {
        let spent = self.repeat("reset", || self.halab(&["reset"]))?;
        Ok(Row::of_seconds("reset", &spent, Some(2.0)))
    }

    fn tasks(&self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
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
        rows.extend([
            Row::of_seconds("20 tasks, first run", &first, Some(2.0)),
            Row::of_seconds("20 tasks, nothing to change", &again, Some(1.5)),
            Row {
                name: "20 tasks, processor time of halab and ssh".into(),
                unit: Unit::Percent,
                samples: again.iter().map(|spent| spent.cpu_percent()).collect(),
                goal: Some(5.0),
            },
        ]);
        for &peer in &self.args.peers {
            self.halab(&["reset"])?;
            for what in ["first run", "nothing to change"] {
                let name = format!("20 tasks, {what}, {}", peer_name(peer));
                self.progress.step(&name);
                let spent = [self.peer(peer, playbook)?];
                rows.push(Row::of_seconds(&name, &spent, None));
            }
        }
        Ok(())
    }

    /// Plays a hand-over and a crash with each heartbeat; the playbook measures from the wire.
    fn failover(&self) -> anyhow::Result<Vec<Row>> {
        let playbook = self.settings.folder.path("playbooks/bench/failover.yml");
        let playbook = playbook
            .to_str()
            .context("the lab's folder has a name that is not text")?;
        let out = self
            .settings
            .state_dir
            .with_file_name(&self.lab)
            .join("failover.json");
        let mut rows: Vec<Row> = Vec::new();
        for round in ROUNDS {
            let variables = round.variables(&out);
            let mut words = vec!["run", playbook];
            words.extend(variables.iter().flat_map(|variable| ["-e", variable]));
            for number in 1..=self.args.runs {
                let step = format!(
                    "failover, {}, deadtime {} s: {number} of {}",
                    round.tools, round.deadtime, self.args.runs
                );
                self.progress.step(&step);
                self.halab(&["reset"])?;
                self.halab(&words)?;
                for figure in round.figures(&out)? {
                    match rows.iter_mut().find(|row| row.name == figure.name) {
                        Some(row) => row.samples.push(figure.took.as_secs_f64()),
                        None => rows.push(Row {
                            name: figure.name,
                            unit: Unit::Seconds,
                            samples: vec![figure.took.as_secs_f64()],
                            goal: figure.goal.map(|goal| goal.as_secs_f64()),
                        }),
                    }
                }
            }
        }
        Ok(rows)
    }

    fn tools(&self) -> &'static str {
        self.args.tools.words()[0]
    }

    /// Brings exercise 05 to its end and plays a campaign of faults on it. The service stays where it is when
    /// the other node comes back: without fencing, one that comes back with old data must not get it unasked.
    fn faults(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        let (seed, tools) = (self.seed, self.tools());
        self.progress.step(&format!("exercise 05, tools {tools}"));
        let variables = [
            format!("tools={tools}"),
            r#"{"auto_failback": "off"}"#.to_owned(),
        ];
        let variables: Vec<&str> = variables.iter().flat_map(|each| ["-e", each]).collect();
        self.halab(&[&["goto", "06-online-verify"], &variables[..]].concat())?;
        let playbook = self.settings.folder.path("playbooks/bench/faults.yml");
        let playbook = playbook
            .to_str()
            .context("the lab's folder has a name that is not text")?;
        self.halab(&[&["run", playbook, "--tags", "setup"], &variables[..]].concat())?;
        let settings = self.settings.for_lab(&self.lab)?;
        let lab = super::topology::open(&settings)?;
        let lock = lab.lock("halab bench faults")?;
        let campaign = Campaign {
            nodes: nodes(&lab.topology)?,
            interface: clients_network(&lab.topology)?,
            halab: super::topology::halab_command(&settings)?,
            logs: self.args.logs.clone(),
            every: self
                .args
                .every
                .map(|seconds| Duration::from_secs(seconds.into())),
            progress: self.progress,
            is_to_end: &|| self.end.is_wanted(),
            lab: &lab,
            lock: &lock,
        };
        let plan = faults::plan(seed, usize::from(self.args.count), &self.args.only);
        super::note(&format!("seed {seed}, tools {tools}\n{}", faults::head()));
        campaign.run(&plan, outcome, &mut |trial| {
            super::note(&faults::line(trial));
        })
    }

    /// Runs one of the others inside the lab's network, on the same machines.
    fn peer(&self, peer: Peer, playbook: &str) -> anyhow::Result<Spent> {
        let topology = super::topology::read_topology(self.settings)?;
        let state = self.settings.state_dir.with_file_name(&self.lab);
        let inventory = state.join(match peer {
            Peer::Ansible => "bench.ini",
            Peer::Pyinfra => "bench_inventory.py",
        });
        fs::write(&inventory, inventory_text(peer, &topology, &state))
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
        run: impl Fn() -> anyhow::Result<Spent>,
    ) -> anyhow::Result<Vec<Spent>> {
        (1..=self.args.runs)
            .map(|number| {
                self.progress
                    .step(&format!("{name}: {number} of {}", self.args.runs));
                run()
            })
            .collect()
    }

    /// Runs one halab command on the lab to its end, unless this one is to end, and returns how long it took.
    fn halab(&self, args: &[&str]) -> anyhow::Result<Spent> {
        if self.end.is_wanted() {
            bail!("interrupted");
        }
        self.run(args)
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<Spent> {
        let begun = Instant::now();
        let cpu_before = cpu_of_children()?;
        let child = Command::new(&self.program)
            .args(["--lab", &self.lab, "--dir"])
            .arg(&self.settings.folder.root)
            .args(args)
            .env("ANSIBLE_PIPELINING", "1")
            .env("ANSIBLE_NOCOWS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start halab")?;
        let pid = i32::try_from(child.id()).context("a process has a small number")?;
        self.end.child.store(pid, Ordering::SeqCst);
        let output = child.wait_with_output();
        self.end.child.store(0, Ordering::SeqCst);
        let output = output.context("failed to wait for halab")?;
        let spent = Spent {
            wall: begun.elapsed(),
            cpu: cpu_of_children()?.saturating_sub(cpu_before),
        };
        if !output.status.success() {
            bail!(
                "halab {} ended with {}:\n{}{}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(spent)
    }
}

/// The two nodes of the cluster.
fn nodes(topology: &Topology) -> anyhow::Result<[String; 2]> {
    let is_node = |machine: &&Machine| machine.groups.iter().any(|group| group == "cluster");
    let names = topology.machines.iter().filter(is_node);
    let names: Vec<String> = names.map(|machine| machine.name.clone()).collect();
    let found = names.len();
    <[String; 2]>::try_from(names)
        .map_err(|_| anyhow::anyhow!("expected two machines in the group `cluster`, found {found}"))
}

fn clients_network(topology: &Topology) -> anyhow::Result<String> {
    let network = topology
        .networks
        .iter()
        .find(|network| network.client.is_some());
    let network = network.context("no network of the topology has the client on it")?;
    Ok(network.name.clone())
}

/// The processor time of all children that were waited for, and of theirs.
fn cpu_of_children() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("failed to read the time used")?;
    let spent = |value: TimeVal| {
        Duration::from_micros(u64::try_from(value.num_microseconds()).unwrap_or(0))
    };
    Ok(spent(usage.user_time()) + spent(usage.system_time()))
}

fn peer_name(peer: Peer) -> &'static str {
    match peer {
        Peer::Ansible => "ansible-core",
        Peer::Pyinfra => "pyinfra",
    }
}

/// The topology's machines in the peer's own words. Both reach them from inside the lab's
/// network as root with the lab's key, and ansible-core's ssh with the ciphers that halab's
/// takes, the cheap ones.
fn inventory_text(peer: Peer, topology: &Topology, state: &Path) -> String {
    let key = state.join("id_ed25519");
    let key = key.display();
    let groups: BTreeMap<&String, Vec<&Machine>> =
        topology
            .machines
            .iter()
            .fold(BTreeMap::new(), |mut groups, machine| {
                for group in &machine.groups {
                    groups.entry(group).or_default().push(machine);
                }
                groups
            });
    let mut text = String::new();
    let mut known = BTreeSet::new();
    for (group, machines) in groups {
        let _ = match peer {
            Peer::Ansible => writeln!(text, "[{group}]"),
            Peer::Pyinfra => writeln!(text, "{} = [", group.replace('-', "_")),
        };
        for machine in machines {
            let (name, address) = (&machine.name, topology.address_for_client(machine));
            let _ = match peer {
                // A host's variables stand where it is named first.
                Peer::Ansible if !known.insert(name) => writeln!(text, "{name}"),
                Peer::Ansible => writeln!(
                    text,
                    "{name} ansible_host={address} ansible_user=root ansible_ssh_private_key_file={key} \
                     ansible_ssh_common_args='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                     -o LogLevel=ERROR -o HostKeyAlgorithms=ssh-ed25519 -o KexAlgorithms=curve25519-sha256 \
                     -o Ciphers=aes128-gcm@openssh.com'"
                ),
                Peer::Pyinfra => writeln!(
                    text,
                    "    (\"{name}\", {{\"ssh_hostname\": \"{address}\", \"ssh_user\": \"root\", \
                     \"ssh_key\": \"{key}\", \"ssh_strict_host_key_checking\": \"off\"}}),"
                ),
            };
        }
        text.push_str(match peer {
            Peer::Ansible => "",
            Peer::Pyinfra => "]\n",
        });
    }
    text
}

fn as_table(rows: &[Row]) -> String {
    let mut table = format!(
        "{:<44} {:>4} {:>9} {:>9} {:>9} {:>8}  unit\n",
        "", "runs", "median", "min", "max", "goal"
    );
    for row in rows {
        let (min, median, max) = row.summary();
        let goal = row
            .goal
            .map_or_else(|| "-".into(), |goal| format!("{goal:.1}"));
        let _ = writeln!(
            table,
            "{:<44} {:>4} {median:>9.2} {min:>9.2} {max:>9.2} {goal:>8}  {}",
            row.name,
            row.samples.len(),
            row.unit.name(),
        );
    }
    table.trim_end().to_owned()
}

fn as_json(rows: &[Row]) -> Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let (min, median, max) = row.summary();
            json!({
                "name": row.name, "runs": row.samples.len(), "unit": row.unit.name(),
                "median": median, "min": min, "max": max, "goal": row.goal,
            })
        })
        .collect();
    json!({ "bench": rows })
}

impl Row {
    fn of_seconds(name: &str, spent: &[Spent], goal: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            unit: Unit::Seconds,
            samples: spent.iter().map(|spent| spent.wall.as_secs_f64()).collect(),
            goal,
        }
    }

    /// Minimum, median and maximum; of an even number the upper median.
    fn summary(&self) -> (f64, f64, f64) {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
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
    use crate::base::units::ByteSize;
    use crate::vm::spec::{Client, MacAddress, Network, Nic};

    #[test]
    fn the_median_is_shown_not_the_mean() {
        let spent = [1, 90, 2].map(|seconds| Spent {
            wall: Duration::from_secs(seconds),
            cpu: Duration::ZERO,
        });
        let row = Row::of_seconds("x", &spent, None);
        assert!((row.summary().1 - 2.0).abs() < f64::EPSILON);
        assert!(as_table(&[row]).contains("     2.00      1.00     90.00        -  s"));
    }

    #[test]
    fn the_peers_know_every_machine_of_the_topology_and_its_groups() {
        let machine = |name: &str, last: u8, groups: &[&str]| Machine {
            name: name.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            memory: ByteSize::from_mib(128),
            nics: vec![Nic {
                name: "eth0".into(),
                network: "lan".into(),
                address: Some(format!("10.9.0.{last}/24").parse().expect("an address")),
                mac: MacAddress::of_nic(last, 0),
                tap: "tap".into(),
            }],
            disks: vec![],
        };
        let topology = Topology {
            networks: vec![Network {
                name: "lan".into(),
                client: Some("10.9.0.254/24".parse().expect("an address")),
            }],
            machines: vec![machine("a", 1, &["web", "db"]), machine("b", 2, &["web"])],
            client: Client {
                name: "client".into(),
                groups: vec![],
            },
        };
        let text = inventory_text(Peer::Ansible, &topology, Path::new("/state"));
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().take(2).collect())
            .collect();
        let host_a = "ansible_host=10.9.0.1";
        let expected: [&[&str]; 5] = [
            &["[db]"],
            &["a", host_a],
            &["[web]"],
            &["a"],
            &["b", "ansible_host=10.9.0.2"],
        ];
        assert_eq!(words, expected);
        let text = inventory_text(Peer::Pyinfra, &topology, Path::new("/state"));
        assert!(
            text.starts_with("db = [\n    (\"a\", {\"ssh_hostname\": \"10.9.0.1\""),
            "{text}"
        );
        assert!(
            text.contains("\"ssh_key\": \"/state/id_ed25519\""),
            "{text}"
        );
    }
}
