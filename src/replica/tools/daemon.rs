//! A resource's daemon: started when a resource is brought up, asked over its socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::{Command as Process, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::replica::control::{Answer, Command, Status, socket_path};
use crate::replica::settings::Names;
use crate::replica::shell::control_socket::ask;

/// A started daemon listens within this, on slow machines, too.
const START_WAIT: Duration = Duration::from_secs(20);
/// And is gone within this once it said so.
const END_WAIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Where systemd shows that it runs this machine.
const SYSTEMD: &str = "/run/systemd/system";

/// Returns a running daemon's status.
pub(super) fn status(resource: &str) -> Option<Status> {
    match ask(resource, &Command::Status) {
        Ok(Answer::Status(status)) => Some(*status),
        _ => None,
    }
}

/// Starts a daemon, as a unit of its own where systemd runs the machine, and waits until
/// it listens.
pub(super) fn start(names: &Names, device: &str) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let unit = unit(&names.resource);
    let words = [
        "replica".to_owned(),
        "serve".to_owned(),
        names.resource.clone(),
        names.minor.to_string(),
        names.volume.to_string(),
        device.to_owned(),
    ];
    let mut process = if std::path::Path::new(SYSTEMD).exists() {
        let _ = Process::new("systemctl")
            .args(["reset-failed", &unit])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let mut process = Process::new("systemd-run");
        process
            .args(["--quiet", "--collect", "--unit", &unit])
            .args([
                "-p",
                "OOMScoreAdjust=-1000",
                "-p",
                "KillMode=mixed",
                "-p",
                "DefaultDependencies=no",
            ])
            // One that was killed is started again: the device's users wait for it.
            .args(["-p", "Restart=on-failure", "-p", "RestartSec=100ms"])
            .args(["-p", "StartLimitIntervalSec=60", "-p", "StartLimitBurst=20"])
            .args(["-p", "Before=heartbeat.service", "--"]);
        process
    } else {
        let mut process = Process::new("setsid");
        process.arg("--fork");
        process
    };
    let output = process
        .arg(program)
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(text.trim().to_owned()));
    }
    wait(START_WAIT, || status(&names.resource).is_some()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it does not answer; `journalctl -u {unit}` may say why"),
        )
    })
}

/// Waits until a daemon that was told to end is gone.
pub(super) fn wait_for_end(resource: &str) -> io::Result<()> {
    wait(END_WAIT, || {
        UnixStream::connect(socket_path(resource)).is_err()
    })
}

fn unit(resource: &str) -> String {
    format!("halab-replica-{resource}")
}

fn wait(limit: Duration, reached: impl Fn() -> bool) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    while !reached() {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}
