//! Drives one machine: starts its QEMU, talks to it, and says in words what failed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::argv::{
    self, Beginning, CONSOLE_SOCKET, CONTROL_SOCKET, DISKS_FOLDER, QEMU_LOG, QMP_SOCKET,
    SERIAL_LOG, STATUS_SOCKET, Start,
};
use super::control::{Control, ControlError};
use super::guest::{self, GuestKeys};
use super::layers::Layers;
use super::lifecycle::Phase;
use super::netns::Holder;
use super::process::{in_namespace_of, kill_and_wait, wait_for_end};
use super::qmp::{Qmp, QmpError};
use super::spec::Machine;
use super::state::{BootFiles, LabFolders, StateError, create_folder, write_whole};

/// QEMU opens its monitor after a twentieth of a second; a loaded host may take much longer.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks whether a QEMU that does not listen yet is still there.
const START_LOOK: Duration = Duration::from_millis(250);
/// A machine's memory moves at some hundred MiB a second.
const MEMORY_DEADLINE: Duration = Duration::from_secs(60);
/// Three guests on two emulated cores take 100 s; a host that compiles meanwhile, ten times that.
const BOOT_DEADLINE: Duration = Duration::from_secs(900);
/// A guest that was just loaded answers in tenths of a second, on a very busy host in many.
const WAKE_DEADLINE: Duration = Duration::from_secs(120);
/// For a guest that runs and has nothing to do but this.
const CLOCK_DEADLINE: Duration = Duration::from_secs(5);
/// What a clock may be behind, if it can be had within so many tries.
const CLOCK_SLACK: Duration = Duration::from_millis(200);
const CLOCK_TRIES: u32 = 3;
/// A guest shuts down in two seconds; one with a stuck service gets systemd's own limit for it.
const SHUT_DOWN_DEADLINE: Duration = Duration::from_secs(120);
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// As much of a log as shows a cause.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 4096;
const QEMU: &str = "qemu-system-x86_64";

#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("failed to start QEMU{}", said(.log))]
    Launch { log: String, source: io::Error },
    #[error("QEMU ended at once{}", said(.log))]
    Ended { log: String },
    #[error("the machine does not run")]
    NotRunning,
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("it does not do as it is told{}", serial(.path, .tail))]
    Guest {
        path: PathBuf,
        tail: String,
        source: ControlError,
    },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("it did not shut down; is it still starting?")]
    ShutDown(#[source] io::Error),
    #[error("failed to kill QEMU")]
    Kill(#[source] io::Error),
}

fn said(log: &str) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!(": {log}")
    }
}

fn serial(path: &Path, tail: &str) -> String {
    format!("\n  its console ({}) ends:\n{tail}", path.display())
}

/// What one operation does with a machine.
#[derive(Clone, Debug)]
pub struct Task {
    pub disks: Vec<Layers>,
    pub boot: BootFiles,
    pub beginning: Beginning,
    /// Told at boot; after a load only when `hand_over_keys`.
    pub keys: GuestKeys,
    pub hand_over_keys: bool,
    /// The memory's file, relative to the lab's folder.
    pub memory: String,
    /// Frozen by a fault: it stays so.
    pub stays_paused: bool,
    /// Cards whose cables are pulled when the machine goes on.
    pub links_down: Vec<String>,
    /// What a machine takes once it has booted.
    pub take: Option<String>,
}

/// One machine of a lab that is up.
#[derive(Debug)]
pub struct MachineDriver<'lab> {
    pub machine: &'lab Machine,
    folders: &'lab LabFolders,
    halab: &'lab [String],
    holder: Holder,
    qmp: Mutex<Option<Qmp>>,
}

impl<'lab> MachineDriver<'lab> {
    pub fn new(
        machine: &'lab Machine,
        folders: &'lab LabFolders,
        halab: &'lab [String],
        holder: Holder,
    ) -> Self {
        Self {
            machine,
            folders,
            halab,
            holder,
            qmp: Mutex::new(None),
        }
    }

    /// Does one phase of an operation.
    pub fn run(&self, phase: Phase, task: &Task) -> Result<(), MachineError> {
        match phase {
            Phase::Start => self.start(task),
            Phase::Pause => self.with_qmp(Qmp::pause),
            Phase::Save => self.save(task),
            Phase::Load => self.with_qmp(|qmp| {
                qmp.load_memory(&task.memory, MEMORY_DEADLINE)?;
                // Before it goes on: a machine must not see a cable that was pulled long ago.
                task.links_down
                    .iter()
                    .try_for_each(|nic| qmp.set_link(nic, false))
            }),
            Phase::Resume if task.stays_paused => Ok(()),
            Phase::Resume => self.with_qmp(Qmp::resume),
            Phase::Wake => self.wake(task),
            Phase::SetClock => {
                self.set_clock(task);
                Ok(())
            }
            Phase::AwaitBoot => self.await_boot(task),
            Phase::Kill => self.kill(),
        }
    }

    pub fn pid(&self) -> Option<i32> {
        self.pids().first().copied()
    }

    /// Returns every QEMU of the machine: a command that was killed may have left a second.
    fn pids(&self) -> Vec<i32> {
        in_namespace_of(self.holder.pid)
            .into_iter()
            .filter(|process| process.machine() == Some(&self.machine.name))
            .map(|process| process.pid)
            .collect()
    }

    /// Runs something on the machine's monitor, connecting first where that is not yet done.
    pub fn with_qmp<T>(
        &self,
        action: impl FnOnce(&mut Qmp) -> Result<T, QmpError>,
    ) -> Result<T, MachineError> {
        let mut connection = self.connection();
        if connection.is_none() {
            if self.pid().is_none() {
                return Err(MachineError::NotRunning);
            }
            *connection = Some(Qmp::connect(&self.path(QMP_SOCKET), START_DEADLINE)?);
        }
        let qmp = connection.as_mut().expect("connected above");
        Ok(action(qmp)?)
    }

    pub fn kill(&self) -> Result<(), MachineError> {
        *self.connection() = None;
        kill_and_wait(&self.pids(), KILL_DEADLINE).map_err(MachineError::Kill)
    }

    /// Has the guest shut itself down in order, and waits for QEMU's end. A paused guest goes on first.
    pub fn shut_down(&self) -> Result<(), MachineError> {
        let pids = self.pids();
        self.with_qmp(|qmp| {
            qmp.resume()?;
            qmp.shut_down()
        })?;
        *self.connection() = None;
        wait_for_end(&pids, SHUT_DOWN_DEADLINE).map_err(MachineError::ShutDown)
    }

    fn connection(&self) -> MutexGuard<'_, Option<Qmp>> {
        self.qmp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folders.machine(&self.machine.name).join(name)
    }

    fn start(&self, task: &Task) -> Result<(), MachineError> {
        create_folder(&self.folders.machine(&self.machine.name))?;
        for socket in [QMP_SOCKET, STATUS_SOCKET, CONSOLE_SOCKET, CONTROL_SOCKET] {
            let _ = fs::remove_file(self.path(socket));
        }
        let _ = fs::remove_file(self.path(QEMU_LOG));
        if task.beginning == Beginning::Boot {
            let _ = fs::remove_file(self.path(SERIAL_LOG));
        }
        let credentials = guest::credentials(self.machine, &task.keys);
        for (index, (name, content)) in credentials.iter().enumerate() {
            let text = argv::credential_text(name, content);
            write_whole(
                &self.path(&argv::credential_file(index)),
                text.as_bytes(),
                0o600,
            )?;
        }
        self.launch(task, credentials.len())?;
        self.greet()
    }

    fn launch(&self, task: &Task, credential_count: usize) -> Result<(), MachineError> {
        let within_disks = |name: &str| format!("{DISKS_FOLDER}/{name}");
        let arguments = argv::arguments(&Start {
            machine: self.machine,
            accelerator: task.boot.accelerator,
            kernel: &within_disks(&task.boot.kernel),
            initrd: &within_disks(&task.boot.initrd),
            disks: &task.disks,
            credential_count,
            beginning: task.beginning,
        });
        let output = Command::new(&self.halab[0])
            .args(&self.halab[1..])
            .args(["internal-hold", "launch", &std::process::id().to_string()])
            .arg(self.path(QEMU_LOG))
            .args(["--", QEMU])
            .args(arguments)
            .current_dir(&self.folders.root)
            .stdin(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(MachineError::Launch {
                log: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                source: io::Error::other(output.status.to_string()),
            }),
            Err(source) => Err(MachineError::Launch {
                log: String::new(),
                source,
            }),
        }
    }

    /// Connects to a QEMU that was just started, and notices when it has ended instead.
    fn greet(&self) -> Result<(), MachineError> {
        let end = Instant::now() + START_DEADLINE;
        loop {
            match Qmp::connect(&self.path(QMP_SOCKET), START_LOOK) {
                Ok(qmp) => {
                    *self.connection() = Some(qmp);
                    return Ok(());
                }
                Err(error) if Instant::now() >= end => return Err(error.into()),
                Err(_) if self.pid().is_none() => {
                    return Err(MachineError::Ended {
                        log: tail(&self.path(QEMU_LOG)),
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// Puts a new layer on each disk, then writes the memory. The machine is paused, so both
    /// are of the same moment.
    fn save(&self, task: &Task) -> Result<(), MachineError> {
        self.with_qmp(|qmp| {
            for (disk, layers) in self.machine.disks.iter().zip(&task.disks) {
                let known: Vec<String> = layers.below_top().nodes();
                qmp.add_layer(&disk.name, layers.blockdev_top(DISKS_FOLDER), &known)?;
            }
            qmp.save_memory(&task.memory, MEMORY_DEADLINE)
        })
    }

    fn wake(&self, task: &Task) -> Result<(), MachineError> {
        if task.stays_paused {
            return Ok(());
        }
        let wake = || {
            let mut control = Control::connect(&self.path(CONTROL_SOCKET))?;
            set_clock(&mut control, WAKE_DEADLINE)?;
            if task.hand_over_keys {
                let script = guest::keys_script(&task.keys);
                control.run("take the lab's keys", &script, WAKE_DEADLINE)?;
            }
            Ok(())
        };
        wake().map_err(|source| self.guest_error(source))
    }

    /// A save stops a machine for some tenths of a second. One that does not listen, because
    /// its user stopped the control port, is that much behind and no failure.
    fn set_clock(&self, task: &Task) {
        if !task.stays_paused
            && let Ok(mut control) = Control::connect(&self.path(CONTROL_SOCKET))
        {
            let _ = set_clock(&mut control, CLOCK_DEADLINE);
        }
    }

    /// Has the guest write what it keeps in memory to its disks. One that does not listen is as
    /// if its power had been cut.
    pub fn write_caches(&self) {
        if let Ok(mut control) = Control::connect(&self.path(CONTROL_SOCKET)) {
            let _ = control.run("write its caches", "sync", WAKE_DEADLINE);
        }
    }

    /// Asks the guest something through its control port, whatever its network and its sshd are like.
    pub fn ask(&self, script: &str, deadline: Duration) -> Result<String, MachineError> {
        let asked = Control::connect(&self.path(CONTROL_SOCKET))
            .and_then(|mut control| control.ask(script, deadline));
        asked.map_err(|source| self.guest_error(source))
    }

    fn await_boot(&self, task: &Task) -> Result<(), MachineError> {
        let wait = || {
            let mut control = Control::connect(&self.path(CONTROL_SOCKET))?;
            let end = Instant::now() + BOOT_DEADLINE;
            control.await_shell(BOOT_DEADLINE)?;
            let left = || end.saturating_duration_since(Instant::now());
            control.run("start its SSH server", &guest::booted_script(), left())?;
            if let Some(script) = &task.take {
                control.run("take the agent", script, left())?;
            }
            control.run("come to rest", &guest::settle_script(), left())
        };
        wait().map_err(|source| self.guest_error(source))
    }

    fn guest_error(&self, source: ControlError) -> MachineError {
        let path = self.path(SERIAL_LOG);
        MachineError::Guest {
            tail: tail(&path),
            path,
            source,
        }
    }
}

/// Tells a machine the time. A clock is behind by as long as its machine took to do what it was told, so one that
/// took long is told again.
fn set_clock(control: &mut Control, deadline: Duration) -> Result<(), ControlError> {
    for _ in 0..CLOCK_TRIES {
        let told = Instant::now();
        let script = guest::clock_script(unix_ms());
        control.run("take the time", &script, deadline)?;
        if told.elapsed() < CLOCK_SLACK {
            break;
        }
    }
    Ok(())
}

fn unix_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a log's last lines, indented, without what a terminal would take as commands.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|each| !each.is_control()).collect())
        .filter(|line: &String| !line.trim().is_empty())
        .collect();
    let start = lines.len().saturating_sub(TAIL_LINES);
    lines[start..]
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
