//! What was typed: the grammar of `halab`'s command line. Decides nothing.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Hosts at work at once where nothing else is said.
pub const FORKS: usize = 16;

/// Runs high-availability labs: boots the machines, runs the exercises, puts everything back.
#[derive(Debug, Parser)]
#[command(name = "halab", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// The lab that commands without `--lab` mean.
pub const USUAL_LAB: &str = "default";

#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Which lab: several run side by side, each in a network of its own.
    #[arg(
        long,
        global = true,
        default_value = USUAL_LAB,
        value_name = "NAME",
        env = "HALAB_LAB"
    )]
    pub lab: String,
    /// A lab folder with vm/, playbooks/ and templates/; without one, the lab halab brings along.
    #[arg(long, global = true, value_name = "DIR", env = "HALAB_DIR")]
    pub dir: Option<PathBuf>,
    /// Say more; repeat for still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print JSON: one event a line for runs, one object for the rest.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot the topology: cold the first time, from a warm snapshot ever after.
    Up(Up),
    /// Stop every machine of the lab and take its network away.
    Down(Down),
    /// Put the running machines back as they were, in about a second.
    Reset(Reset),
    /// Show machines, network, snapshots, and who is using the lab.
    Status,
    /// Run exercises or playbooks.
    Run(Box<Run>),
    /// Bring the lab to where an exercise begins, with those before it done.
    Goto(Goto),
    /// Grade what was set up: on a copy of the lab, which goes on untouched.
    Grade(Grade),
    /// Write the running lab as one file to hand in: what differs from the guest image.
    Export(Export),
    /// Keep, load, list and remove states of the whole lab.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Copy the running lab into a second one, the same to the byte and isolated from it.
    Clone(CloneLab),
    /// Open a shell on a machine, or run one command there.
    Ssh(Ssh),
    /// Open a shell on the client machine, inside the lab's network, or run one command there.
    Shell(Shell),
    /// Show a machine's serial console; leave with Ctrl-].
    Console(Console),
    /// Make one service of the lab reachable on this machine's loopback, until Ctrl-C.
    Forward(Forward),
    /// Show what passes the lab's networks, explained; or explain a file of it.
    Capture(Capture),
    /// Break something on purpose, or mend it.
    #[command(subcommand)]
    Fault(Fault),
    /// Check this machine for what halab needs.
    Doctor(Doctor),
    /// Measure: up, reset, tasks.
    Bench(Bench),
    /// Write the lab halab brings along into a folder, to change it.
    Init(Init),
    /// Print completions for a shell.
    Completions(Completions),
    /// Connect to an address inside the lab's network and hand the socket to ssh.
    #[command(hide = true)]
    InternalConnect(InternalConnect),
    /// Run a command inside the lab's network.
    #[command(hide = true)]
    InternalEnter(InternalEnter),
    /// Keep the lab's network alive.
    #[command(hide = true)]
    InternalHold(InternalHold),
    /// Grade one hand-in in the lab of this name.
    #[command(hide = true)]
    InternalGrade(InternalGrade),
}

#[derive(Debug, Args)]
pub struct Up {
    /// Boot for real, even when a warm snapshot is there.
    #[arg(long)]
    pub cold: bool,
}

#[derive(Debug, Args)]
pub struct Down {
    /// Also forget the lab: disks, snapshots, keys, logs.
    #[arg(long)]
    pub purge: bool,
}

#[derive(Debug, Args)]
pub struct Reset {
    /// The snapshot to go back to.
    #[arg(long, value_name = "SNAP", default_value = "clean")]
    pub to: String,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Exercise names (01-lvs-dr), playbook files, or `all`.
    #[arg(required = true, value_name = "EXERCISE|PLAYBOOK")]
    pub playbooks: Vec<String>,
    /// Whose tools the exercises use; the same as `-e tools=…`, and both one after the other.
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub tools: Option<Tools>,
    /// Of several exercises, go on after one that failed.
    #[arg(long)]
    pub continue_on_error: bool,
    /// Write what was run and seen into one file that a browser opens offline.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub options: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tools {
    /// halab's own.
    Agent,
    /// The distribution's ipvsadm, heartbeat and drbd.
    Native,
    Both,
}

impl Tools {
    /// The values of the variable `tools`, one for each time the exercises are run.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["agent"],
            Self::Native => &["native"],
            Self::Both => &["agent", "native"],
        }
    }
}

#[derive(Debug, Args)]
pub struct Goto {
    /// The exercise that is to begin.
    pub exercise: String,
    /// Whose tools those before it use.
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub tools: Option<Tools>,
    /// Set variables: key=value, YAML/JSON, or @FILE.
    #[arg(short, long, value_name = "VARS")]
    pub extra_vars: Vec<String>,
}

/// The flags of `ansible-playbook` that mean the same here.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of ansible-playbook"
)]
#[derive(Clone, Debug, Default, Args)]
pub struct RunOptions {
    /// Inventory file (INI or YAML) or `host,`; without one, the lab's machines.
    #[arg(short, long, value_name = "FILE")]
    pub inventory: Vec<String>,
    /// Only these hosts (a pattern).
    #[arg(short, long, value_name = "PATTERN")]
    pub limit: Vec<String>,
    /// Only tasks with these tags.
    #[arg(short, long, value_name = "TAGS", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// No tasks with these tags.
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    pub skip_tags: Vec<String>,
    /// Set variables: key=value, YAML/JSON, or @FILE.
    #[arg(short, long, value_name = "VARS")]
    pub extra_vars: Vec<String>,
    /// Change nothing; say what would change.
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Show what changes in files.
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// Start at the task of this name.
    #[arg(long, value_name = "NAME")]
    pub start_at_task: Option<String>,
    /// List the tasks that would run, and stop.
    #[arg(long)]
    pub list_tasks: bool,
    /// List the hosts that would be used, and stop.
    #[arg(long)]
    pub list_hosts: bool,
    /// List the tags, and stop.
    #[arg(long)]
    pub list_tags: bool,
    /// Check the playbooks, and stop.
    #[arg(long)]
    pub syntax_check: bool,
    /// Ask before each task.
    #[arg(long)]
    pub step: bool,
    /// How many hosts at once.
    #[arg(short, long, value_name = "N", default_value_t = FORKS)]
    pub forks: usize,
    /// Remote user, where the inventory names none.
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Private key, where the inventory names none.
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// How to reach hosts, where the inventory does not say.
    #[arg(short, long, value_enum)]
    pub connection: Option<ConnectionKind>,
    /// Become another user (root).
    #[arg(short = 'b', long = "become")]
    pub r#become: bool,
    /// The user to become.
    #[arg(long, value_name = "USER")]
    pub become_user: Option<String>,
    /// Give up on a host that does not answer a task for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConnectionKind {
    Ssh,
    Local,
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Keep the state of all machines under a name.
    Save { name: String },
    /// Put all machines into a kept state.
    Load { name: String },
    /// List the kept states.
    List,
    /// Remove a kept state.
    Rm { name: String },
}

#[derive(Debug, Args)]
pub struct Grade {
    /// Exercise names (01-lvs-dr), grade files, or `all`.
    #[arg(required = true, value_name = "EXERCISE|FILE")]
    pub exercises: Vec<String>,
    /// Grade the lab itself where there is no memory for a copy: its state is kept and loaded again.
    #[arg(long)]
    pub in_place: bool,
    /// The report's language.
    #[arg(long, value_name = "LANG", default_value = "en", value_parser = ["en", "ro"])]
    pub lang: String,
    /// How many hints to show for each lost point, from the idea to the place.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub hints: usize,
    /// Grade what was handed in instead of the lab: files of `halab export`, or folders of them. The
    /// forms below become one table (--csv) or a folder with a file for each (--html, --junit,
    /// --gradescope).
    #[arg(long, value_name = "FILE|DIR", num_args = 1.., conflicts_with = "in_place")]
    pub submission: Vec<PathBuf>,
    /// How many hand-ins are graded side by side; without it as many as there is memory and
    /// there are processors for.
    #[arg(long, value_name = "N", requires = "submission", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub at_once: Option<u16>,
    /// The most minutes that one hand-in may take.
    #[arg(long, value_name = "MINUTES", requires = "submission", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub limit: u16,
    /// Grade those too that were graded before with the same grade files.
    #[arg(long, requires = "submission")]
    pub again: bool,
    #[command(flatten)]
    pub files: ReportFiles,
}

/// One hand-in, in a process of its own.
#[derive(Debug, Args)]
pub struct InternalGrade {
    /// Where the outcome is written.
    pub result: PathBuf,
    pub file: PathBuf,
    #[arg(long)]
    pub lang: String,
    #[arg(required = true)]
    pub exercises: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The file to write; `.halab` is the usual ending.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The student's name; asked for where it is not given.
    #[arg(long)]
    pub name: Option<String>,
    /// The student's number in the class list; asked for where it is not given.
    #[arg(long)]
    pub id: Option<String>,
    /// Hand in the machines' memory too: what was set up by commands alone (ipvsadm, ip, iptables)
    /// is nowhere else.
    #[arg(long)]
    pub running: bool,
}

/// The report's other forms, each into a file (`-` is standard output).
#[derive(Clone, Debug, Default, Args)]
pub struct ReportFiles {
    /// Write `JUnit` XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write one HTML page with pictures that needs no network.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a table for Moodle's grade import.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write Gradescope's results.json.
    #[arg(long, value_name = "FILE")]
    pub gradescope: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CloneLab {
    /// The copy's name, for `--lab`.
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Ssh {
    #[arg(value_name = "VM")]
    pub machine: String,
    /// A command instead of a shell.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Shell {
    /// A command instead of a shell.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Console {
    #[arg(value_name = "VM")]
    pub machine: String,
}

#[derive(Debug, Args)]
pub struct Forward {
    /// PORT:HOST:PORT, for example 8080:10.0.0.1:80
    #[arg(value_name = "PORT:HOST:PORT")]
    pub spec: String,
}

#[derive(Debug, Args)]
pub struct Capture {
    /// A network (br0, the default), or a machine's card: VM:NIC.
    #[arg(value_name = "IFACE", conflicts_with = "read")]
    pub interfaces: Vec<String>,
    /// Also record into this pcapng file (`-`: standard output, for `wireshark -k -i -`).
    #[arg(short, long, value_name = "FILE", conflicts_with = "read")]
    pub write: Option<PathBuf>,
    /// Explain this capture file, pcapng or pcap, instead of watching.
    #[arg(short, long, value_name = "FILE")]
    pub read: Option<PathBuf>,
    /// End after so many frames.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "read")]
    pub duration: Option<f64>,
}

/// Reads a bound of time: a year is for ever.
fn seconds(typed: &str) -> Result<f64, String> {
    const YEAR: f64 = 365.0 * 86_400.0;
    let seconds: f64 = typed
        .parse()
        .map_err(|_| "expected a number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= YEAR {
        Ok(seconds)
    } else {
        Err("expected more than nothing and at most a year".to_owned())
    }
}

#[derive(Debug, Subcommand)]
pub enum Fault {
    /// Pull or plug a network cable.
    Link {
        #[arg(value_name = "VM")]
        machine: String,
        nic: String,
        #[arg(value_enum)]
        state: LinkState,
    },
    /// Freeze a machine.
    Pause {
        #[arg(value_name = "VM")]
        machine: String,
    },
    /// Let a frozen machine go on; boot one that was killed or shut down.
    Resume {
        #[arg(value_name = "VM")]
        machine: String,
    },
    /// Cut a machine's power.
    Kill {
        #[arg(value_name = "VM")]
        machine: String,
    },
    /// Lose a share of the packets on a network card; 0 mends it.
    Loss {
        #[arg(value_name = "VM")]
        machine: String,
        nic: String,
        #[arg(value_name = "PCT", value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinkState {
    Down,
    Up,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Install what is missing (root, Debian or Ubuntu).
    #[arg(long)]
    pub fix: bool,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// Which; all of them without a name.
    #[arg(value_enum)]
    pub names: Vec<Measurement>,
    /// Run each so often and show the median.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub runs: u16,
    /// Measure `tasks` with this too, once each way: it must be on PATH.
    #[arg(long = "with", value_enum, value_name = "PEER")]
    pub peers: Vec<Peer>,
    /// How many faults `faults` plays.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
    /// Begin a fault so many seconds after the one before, or later where that one took longer.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub every: Option<u16>,
    /// Play faults of these kinds only.
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub only: Vec<super::faults::Kind>,
    /// The campaign that `faults` plays; without it another one each time.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Whose heartbeat and replication `faults` breaks.
    #[arg(long, value_enum, default_value = "agent")]
    pub tools: Tools,
    /// Keep both nodes' journals of every fault that ended badly here.
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// What every command costs before it does anything: `halab --help`.
    Overhead,
    /// Three machines from the warm snapshot until each takes tasks.
    Up,
    /// Running machines back to the snapshot until each takes tasks again.
    Reset,
    /// Twenty small tasks on three machines: on clean machines, then with nothing to change.
    Tasks,
    /// A service's way to the other node, beside heartbeat 3.0.6. Takes minutes, so only when named.
    Failover,
    /// Records written through the service of exercise 05 while nodes lose their power, stand still, lose their cables:
    /// what was acknowledged must be there. Takes the better part of a minute a fault, so only when named.
    Faults,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    Ansible,
    Pyinfra,
}

#[derive(Debug, Args)]
pub struct Init {
    /// A folder that does not exist yet, or is empty.
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Completions {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct InternalConnect {
    pub address: String,
    pub port: u16,
}

#[derive(Debug, Args)]
pub struct InternalEnter {
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct InternalHold {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}
