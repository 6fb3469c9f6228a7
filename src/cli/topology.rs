//! The commands about machines and networks: up, down, reset, status, and the ways in.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::net::SocketAddrV4;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use super::args;
use super::doctor;
use super::exit::Exit;
use super::settings::Settings;
use crate::base::diagnostic::{Colour, Diagnostic, render_all};
use crate::base::units::ByteSize;
use crate::remote::agent_file::{AgentFile, GUEST_FOLDER, GUEST_LINK};
use crate::vm::argv::CONSOLE_SOCKET;
use crate::vm::console;
use crate::vm::forward::{ForwardSpec, forward as run_forward, open_forwards};
use crate::vm::image::ensure_image;
use crate::vm::lab::{Ingredients, Lab, MachineStatus, UpOutcome};
use crate::vm::netns::{self, Holder, NetnsError};
use crate::vm::offer::{self, GuestProgram};
use crate::vm::progress::{self, Progress};
use crate::vm::remote::LabRemote;
use crate::vm::snapshot::{self, CLEAN, LAST};
use crate::vm::spec::{LabAccess, Topology};
use crate::vm::state::{Faults, LabFolders, LabLock, LabRecord};
use crate::vm::topology::{self, Files};

#[derive(Debug, thiserror::Error)]
#[error("{}", render_all(.problems, Colour::Never))]
pub struct TopologyError {
    problems: Vec<Diagnostic>,
}

/// The topology's files on disk.
struct DiskFiles;

impl Files for DiskFiles {
    fn text(&self, path: &Path) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn head(&self, path: &Path, bytes: usize) -> Result<Vec<u8>, String> {
        let mut head = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(bytes as u64).read_to_end(&mut head))
            .map_err(|error| error.to_string())?;
        Ok(head)
    }
}

/// Reads and checks the lab's topology.
pub fn read_topology(settings: &Settings) -> Result<Topology, TopologyError> {
    topology::read(&settings.folder.path("vm/topology.yml"), &DiskFiles)
        .map_err(|problems| TopologyError { problems })
}

/// Opens the lab, up or not.
pub fn open(settings: &Settings) -> anyhow::Result<Lab> {
    Ok(Lab::new(
        read_topology(settings)?,
        folders(settings),
        settings.cache_dir.clone(),
        halab_command(settings)?,
    ))
}

fn folders(settings: &Settings) -> LabFolders {
    LabFolders {
        lab: settings.lab.clone(),
        root: settings.state_dir.clone(),
    }
}

pub(super) fn halab_command(settings: &Settings) -> anyhow::Result<Vec<String>> {
    netns::halab_command(&settings.lab, &settings.folder.root)
        .context("failed to find this program's own file")
}

/// A lab that is up and stays the caller's until dropped.
#[derive(Debug)]
pub struct RunningLab {
    pub lab: Arc<Lab>,
    pub lock: Arc<LabLock>,
    pub access: LabAccess,
    pub outcome: UpOutcome,
    /// What it was brought up from; a copy that is graded was not brought up.
    pub ingredients: Option<Ingredients>,
}

impl RunningLab {
    /// The lab as the host that the modules `vm` and `fault` run on.
    pub fn remote(&self) -> LabRemote {
        LabRemote::new(Arc::clone(&self.lab), Arc::clone(&self.lock))
    }
}

/// Brings the lab up where it is not, and holds it for `command`.
pub async fn ensure_up(settings: &Settings, command: &str) -> anyhow::Result<RunningLab> {
    bring_up(settings, command, Start::Warm).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Warm,
    Cold,
}

async fn bring_up(settings: &Settings, command: &str, start: Start) -> anyhow::Result<RunningLab> {
    let lab = Arc::new(open(settings)?);
    let lock = Arc::new(lab.lock(command)?);
    let progress: Arc<dyn Progress> = progress::for_user(settings.json).into();
    let ingredients = ingredients(settings, &*progress).await?;
    let (up_lab, up_lock) = (Arc::clone(&lab), Arc::clone(&lock));
    let made_of = ingredients.clone();
    let outcome = tokio::task::spawn_blocking(move || {
        up_lab.up(&up_lock, &made_of, start == Start::Cold, &*progress)
    })
    .await
    .expect("bringing a lab up does not panic")?;
    Ok(RunningLab {
        access: lab.access(),
        lab,
        lock,
        outcome,
        ingredients: Some(ingredients),
    })
}

/// Makes the host and the image ready.
pub(super) async fn ingredients(
    settings: &Settings,
    progress: &dyn Progress,
) -> anyhow::Result<Ingredients> {
    let recipe = doctor::recipe(settings)?;
    let mut accelerator = doctor::ensure(settings, progress)?;
    let was_built =
        crate::vm::image::Image::in_cache(&settings.cache_dir, &recipe.hash()).is_built();
    let image = ensure_image(&settings.cache_dir, &recipe, progress).await?;
    if !was_built {
        // Only a kernel can prove that KVM runs a guest, and now there is one.
        accelerator = doctor::ensure(settings, progress)?;
    }
    Ok(Ingredients {
        disk: image.disk,
        kernel: image.kernel,
        initrd: image.initrd,
        image_hash: image.hash,
        accelerator,
        qemu_version: qemu_version()?,
        agent,
    })
}

/// The agent as machines are given it; whoever runs a task is told when it is missing.
fn agent() -> Option<GuestProgram> {
    let file = AgentFile::find().ok()?;
    let binary = file.binary().ok()?;
    Some(GuestProgram {
        path: file.path.clone(),
        folder: GUEST_FOLDER,
        name: binary.remote_name(),
        link: GUEST_LINK,
        sha256: binary.sha256.clone(),
    })
}

pub(super) fn qemu_version() -> anyhow::Result<String> {
    let output = Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .context("failed to run qemu-system-x86_64")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("failed to start the asynchronous runtime")
}

pub fn up(settings: &Settings, args: &args::Up) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let start = if args.cold { Start::Cold } else { Start::Warm };
    let running = runtime()?.block_on(bring_up(settings, "halab up", start))?;
    let seconds = begun.elapsed().as_secs_f64();
    let outcome = match running.outcome {
        UpOutcome::WasUp => "was up already".to_owned(),
        UpOutcome::Resumed => "goes on; a command had been interrupted".to_owned(),
        UpOutcome::PoweredOn => format!("is whole again, in {seconds:.0} s"),
        UpOutcome::Warm => format!("is up, from its saved state, in {seconds:.1} s"),
        UpOutcome::Cold => format!("is up, booted and saved, in {seconds:.0} s"),
    };
    let word = match running.outcome {
        UpOutcome::WasUp => "was-up",
        UpOutcome::Resumed => "resumed",
        UpOutcome::PoweredOn => "powered-on",
        UpOutcome::Warm => "warm",
        UpOutcome::Cold => "cold",
    };
    report(
        settings,
        &format!("the lab `{}` {outcome}", settings.lab),
        &json!({"lab": settings.lab, "up": word, "seconds": seconds}),
    );
    Ok(Exit::Done)
}

pub fn down(settings: &Settings, args: &args::Down) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let lock = lab.lock("halab down")?;
    let progress = progress::for_user(settings.json);
    let kept = lab.down(&lock, args.purge, &*progress)?;
    let text = if args.purge {
        format!("the lab `{}` is down and forgotten", settings.lab)
    } else if kept {
        format!(
            "the lab `{}` is down; its state is kept: `halab snapshot load {LAST}` goes on from there, `halab up` starts clean",
            settings.lab
        )
    } else {
        format!("the lab `{}` is down", settings.lab)
    };
    let facts = json!({"lab": settings.lab, "kept": kept, "purged": args.purge});
    report(settings, &text, &facts);
    Ok(Exit::Done)
}

pub fn reset(settings: &Settings, args: &args::Reset) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let lock = lab.lock("halab reset")?;
    if lab.holder().is_none() {
        return Err(crate::vm::lab::LabError::NotUp.into());
    }
    load(settings, &lab, &lock, &args.to)
}

fn load(settings: &Settings, lab: &Lab, lock: &LabLock, name: &str) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let progress = progress::for_user(settings.json);
    lab.load(lock, name, &*progress)?;
    let seconds = begun.elapsed().as_secs_f64();
    report(
        settings,
        &format!("every machine is back in the state `{name}`, in {seconds:.1} s"),
        &json!({"lab": settings.lab, "state": name, "seconds": seconds}),
    );
    Ok(Exit::Done)
}

pub fn snapshot(settings: &Settings, args: &args::Snapshot) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    match args {
        args::Snapshot::Save { name } => {
            let lock = lab.lock("halab snapshot save")?;
            let begun = Instant::now();
            let progress = progress::for_user(settings.json);
            lab.save(&lock, name, &*progress)?;
            let seconds = begun.elapsed().as_secs_f64();
            report(
                settings,
                &format!("saved as `{name}`, in {seconds:.1} s"),
                &json!({"lab": settings.lab, "saved": name, "seconds": seconds}),
            );
        }
        args::Snapshot::Load { name } => {
            let lock = lab.lock("halab snapshot load")?;
            return load(settings, &lab, &lock, name);
        }
        args::Snapshot::List => list_snapshots(settings, &lab),
        args::Snapshot::Rm { name } => {
            let lock = lab.lock("halab snapshot rm")?;
            lab.remove_snapshot(&lock, name)?;
            let facts = json!({"lab": settings.lab, "removed": name});
            report(settings, &format!("removed `{name}`"), &facts);
        }
    }
    Ok(Exit::Done)
}

pub fn clone(settings: &Settings, args: &args::CloneLab) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let (lab, copy) = (open(settings)?, open(&settings.for_lab(&args.name)?)?);
    let lock = lab.lock("halab clone")?;
    if lab.folders.root == copy.folders.root {
        return Err(crate::vm::lab::LabError::CloneOfItself.into());
    }
    let copy_lock = copy.lock("halab clone")?;
    let progress = progress::for_user(settings.json);
    let cloned = lab.clone_into(&lock, &copy, &copy_lock, &*progress)?;
    let (seconds, paused) = (begun.elapsed().as_secs_f64(), cloned.paused.as_secs_f64());
    report(
        settings,
        &format!(
            "the lab `{name}` is a copy of `{}`, made in {seconds:.1} s; its machines stood still for {paused:.1} s\n`halab --lab {name} ssh …` works in the copy, `halab --lab {name} down --purge` forgets it",
            settings.lab,
            name = args.name,
        ),
        &json!({"lab": settings.lab, "clone": args.name, "seconds": seconds, "paused_seconds": paused}),
    );
    Ok(Exit::Done)
}

fn list_snapshots(settings: &Settings, lab: &Lab) {
    let found = snapshot::list(&lab.folders);
    let facts: Vec<Value> = found
        .iter()
        .map(|(name, manifest)| json!({"name": name, "created_unix": manifest.created_unix}))
        .collect();
    let lines: Vec<String> = found
        .iter()
        .map(|(name, manifest)| format!("{name:<20} {} ago", ago(manifest.created_unix)))
        .collect();
    let text = if lines.is_empty() {
        "no snapshots; the first `halab up` makes one".to_owned()
    } else {
        lines.join("\n")
    };
    report(settings, &text, &Value::Array(facts));
}

fn ago(unix: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    span(Duration::from_secs(now.as_secs().saturating_sub(unix)))
}

/// Writes a span of time in its two largest units.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// How the lab stands, as `status` shows it.
struct Status {
    lab: String,
    holder: Option<Holder>,
    in_use: Option<String>,
    record: LabRecord,
    machines: Vec<MachineStatus>,
    snapshots: Vec<String>,
    forwards: Vec<String>,
    /// A copy in which a grading goes on, or was cut short.
    graded_in: Option<String>,
}

pub fn status(settings: &Settings) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let record = lab.folders.record()?;
    let status = Status {
        lab: settings.lab.clone(),
        holder: lab.holder(),
        in_use: LabLock::holder(&lab.folders),
        machines: lab.machine_statuses(&record),
        record,
        snapshots: snapshot::list(&lab.folders)
            .into_iter()
            .map(|(name, _)| name)
            .collect(),
        forwards: open_forwards(&lab.folders),
        graded_in: graded_in(settings),
    };
    report(settings, &status.text(), &status.json());
    Ok(Exit::Done)
}

fn graded_in(settings: &Settings) -> Option<String> {
    let name = super::grade::copy_name(&settings.lab);
    let copy = settings.for_lab(&name).ok()?;
    Holder::find(&copy.state_dir).map(|_| name)
}

impl Status {
    fn word(&self) -> &'static str {
        let wanted = |machine: &MachineStatus| machine.state.is_wanted();
        match self.holder {
            None => "down",
            Some(_) if self.record.unfinished.is_some() => "half way up",
            Some(_) if self.machines.iter().all(wanted) => "up",
            Some(_) => "partly up",
        }
    }

    fn text(&self) -> String {
        let mut text = format!("lab {}: {}", self.lab, self.word());
        if let Some(state) = &self.record.state_of {
            let _ = write!(text, ", begun in the state `{state}`");
        }
        let _ = write!(
            text,
            "\n\n{:<16} {:<8} {:<16} {:>8} {:>14} {:>9}",
            "machine", "state", "address", "process", "since", "memory"
        );
        for machine in &self.machines {
            let _ = write!(
                text,
                "\n{:<16} {:<8} {:<16} {:>8} {:>14} {:>9}",
                machine.name,
                machine.state.word(),
                machine.address.to_string(),
                machine
                    .pid
                    .map_or_else(|| "-".into(), |pid| pid.to_string()),
                machine.age.map_or_else(|| "-".into(), span),
                machine.resident_kib.map_or_else(
                    || "-".into(),
                    |kib| ByteSize::from_mib(kib >> 10).to_string()
                ),
            );
        }
        text.push('\n');
        if let Some(holder) = self.holder {
            let _ = write!(
                text,
                "\nnetwork:   a namespace held by process {} (`halab shell` enters it)",
                holder.pid
            );
        }
        let mut line = |name: &str, items: &[String], none: &str| {
            let items = if items.is_empty() {
                none.to_owned()
            } else {
                items.join(", ")
            };
            if !items.is_empty() {
                let _ = write!(text, "\n{name:<10} {items}");
            }
        };
        line("snapshots:", &self.snapshots, "none");
        line("forwards:", &self.forwards, "");
        let graded = self
            .graded_in
            .iter()
            .map(|name| format!("in its copy `{name}`"));
        line("graded:", &graded.collect::<Vec<_>>(), "");
        line("broken:", &broken(&self.record.faults), "");
        line(
            "in use:",
            &self.in_use.clone().into_iter().collect::<Vec<_>>(),
            "by nobody",
        );
        if self.in_use.is_none() && matches!(self.word(), "partly up" | "half way up") {
            if let Some(what) = &self.record.unfinished {
                let _ = write!(text, "\n\n{what} was interrupted");
            }
            let _ = write!(text, "\n\n`halab up` puts the lab back into `{CLEAN}`");
        }
        text
    }

    fn json(&self) -> Value {
        let machines: Vec<Value> = self
            .machines
            .iter()
            .map(|machine| {
                json!({
                    "name": machine.name,
                    "state": machine.state,
                    "address": machine.address,
                    "pid": machine.pid,
                    "seconds": machine.age.map(|age| age.as_secs()),
                    "resident_kib": machine.resident_kib,
                })
            })
            .collect();
        json!({
            "lab": self.lab,
            "state": self.word(),
            "begun_in": self.record.state_of,
            "unfinished": self.record.unfinished,
            "holder_pid": self.holder.map(|holder| holder.pid),
            "in_use": self.in_use,
            "machines": machines,
            "snapshots": self.snapshots,
            "forwards": self.forwards,
            "broken": broken(&self.record.faults),
            "graded_in": self.graded_in,
        })
    }
}

/// Names what was broken on purpose.
fn broken(faults: &Faults) -> Vec<String> {
    let links = faults.links_down.iter();
    let losses = faults.loss.iter();
    links
        .map(|(machine, nic)| format!("{machine} {nic} unplugged"))
        .chain(losses.map(|((machine, nic), percent)| format!("{machine} {nic} loses {percent} %")))
        .chain(
            faults
                .paused
                .iter()
                .map(|machine| format!("{machine} paused")),
        )
        .chain(
            faults
                .killed
                .iter()
                .map(|machine| format!("{machine} killed")),
        )
        .chain(
            faults
                .shut_down
                .iter()
                .map(|machine| format!("{machine} shut down")),
        )
        .collect()
}

pub fn ssh(settings: &Settings, args: &args::Ssh) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    lab.running(&args.machine)?;
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(lab.access().ssh_config);
    if !args.command.is_empty() && io::stdin().is_terminal() && io::stdout().is_terminal() {
        ssh.arg("-t");
    }
    ssh.arg(&args.machine);
    if !args.command.is_empty() {
        ssh.arg("--").args(&args.command);
    }
    Err(anyhow::Error::new(ssh.exec()).context("failed to run `ssh` (package openssh-client)"))
}

fn require_up(lab: &Lab) -> Result<Holder, NetnsError> {
    lab.holder().ok_or(NetnsError::NotUp)
}

pub fn shell(settings: &Settings, args: &args::Shell) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let holder = require_up(&lab)?;
    let command = if args.command.is_empty() {
        vec![std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into())]
    } else {
        args.command.clone()
    };
    Ok(Exit::Of(netns::run_inside(holder, &command)?))
}

pub fn console(settings: &Settings, args: &args::Console) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let machine = lab.machine(&args.machine)?;
    require_up(&lab)?;
    let socket = lab.folders.machine(&machine.name).join(CONSOLE_SOCKET);
    super::note("the console; Ctrl-] leaves it");
    console::attach(&socket)
        .with_context(|| format!("failed to show the console of {}", machine.name))?;
    Ok(Exit::Done)
}

pub fn forward(settings: &Settings, args: &args::Forward) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let spec = ForwardSpec::parse(&args.spec, &lab.topology)?;
    require_up(&lab)?;
    let halab = halab_command(settings)?;
    runtime()?.block_on(async {
        let ready = |port| {
            let text = format!(
                "127.0.0.1:{port} leads to {}:{}; Ctrl-C ends it",
                spec.host, spec.host_port
            );
            let facts = json!({"port": port, "host": spec.host, "host_port": spec.host_port});
            report(settings, &text, &facts);
        };
        tokio::select! {
            ended = run_forward(&lab.folders, &halab, &spec, ready) => {
                ended?;
                Ok(Exit::Done)
            }
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    })
}

pub fn fault(settings: &Settings, args: &args::Fault) -> anyhow::Result<Exit> {
    let lab = open(settings)?;
    let lock = lab.lock("halab fault")?;
    let (changed, text) = match args {
        args::Fault::Link {
            machine,
            nic,
            state,
        } => {
            let up = *state == args::LinkState::Up;
            let word = if up { "plugged in" } else { "unplugged" };
            (
                lab.set_link(&lock, machine, nic, up)?,
                format!("{machine} {nic} is {word}"),
            )
        }
        args::Fault::Pause { machine } => (
            lab.set_paused(&lock, machine, true)?,
            format!("{machine} is paused"),
        ),
        args::Fault::Resume { machine } => (
            lab.resume(&lock, machine, progress::for_user(settings.json).as_ref())?,
            format!("{machine} runs"),
        ),
        args::Fault::Kill { machine } => (
            lab.kill(&lock, machine)?,
            format!("{machine} is without power"),
        ),
        args::Fault::Loss {
            machine,
            nic,
            percent,
        } => (
            lab.set_loss(&lock, machine, nic, *percent)?,
            format!("{machine} {nic} loses {percent} % of what is sent to it"),
        ),
    };
    let already = if changed { "" } else { " (as before)" };
    let facts = json!({"changed": changed});
    report(settings, &format!("{text}{already}"), &facts);
    Ok(Exit::Done)
}

pub fn internal_connect(settings: &Settings, args: &args::InternalConnect) -> anyhow::Result<Exit> {
    let address = args
        .address
        .parse()
        .with_context(|| format!("`{}` is no IPv4 address", args.address))?;
    let holder = Holder::find(&settings.state_dir).ok_or(NetnsError::NotUp)?;
    netns::connect_and_hand_over(holder, SocketAddrV4::new(address, args.port))?;
    Ok(Exit::Done)
}

pub fn internal_enter(settings: &Settings, args: &args::InternalEnter) -> anyhow::Result<Exit> {
    let holder = Holder::find(&settings.state_dir).ok_or(NetnsError::NotUp)?;
    Ok(Exit::Of(netns::run_inside(holder, &args.command)?))
}

/// The parts of this program that stand between a lab and the kernel; see [`netns`].
pub fn internal_hold(settings: &Settings, args: &args::InternalHold) -> anyhow::Result<Exit> {
    let words: Vec<&str> = args.arguments.iter().map(String::as_str).collect();
    let holder = || Holder::find(&settings.state_dir).ok_or(NetnsError::NotUp);
    match words.as_slice() {
        ["hold", hostname] => netns::hold(&halab_command(settings)?, hostname)?,
        ["init"] => netns::init(&settings.state_dir)?,
        ["launch", parent, log, "--", _, ..] => {
            let parent = parent.parse().context("the parent is no process number")?;
            netns::launch(holder()?, parent, &PathBuf::from(log), &args.arguments[4..])?;
        }
        ["offer", address, file] => {
            let address = address.parse().context("the address is none")?;
            offer::offer(holder()?, address, Path::new(file))?;
        }
        ["records", address, interface] => {
            let address = address.parse().context("the address is none")?;
            super::faults::write_records(holder()?, address, interface)?;
        }
        ["greet", parent, seconds, addresses @ ..] => {
            let parent = parent.parse().context("the parent is no process number")?;
            let addresses = addresses
                .iter()
                .map(|address| address.parse())
                .collect::<Result<Vec<_>, _>>()
                .context("an address is none")?;
            let patience = Duration::from_secs(seconds.parse().context("the deadline is none")?);
            netns::await_greetings(holder()?, parent, patience, &addresses)?;
        }
        _ => anyhow::bail!("this is for halab's own use"),
    }
    Ok(Exit::Done)
}

/// Prints what came of a command, in words or as JSON.
pub(super) fn report(settings: &Settings, text: &str, facts: &Value) {
    if settings.json {
        super::say(&facts.to_string());
    } else {
        super::say(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        assert_eq!(span(Duration::from_secs(59)), "59 s");
        assert_eq!(span(Duration::from_secs(61)), "1 min 1 s");
        assert_eq!(span(Duration::from_secs(90_000)), "1 d 1 h");
    }
}
