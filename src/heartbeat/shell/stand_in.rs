//! The agent in the place of the distribution's package: the names of its programs, its unit
//! and its init script; and all of that gone again.
//!
//! | name | in whose way |
//! |---|---|
//! | `/usr/local/sbin/{heartbeat,cl_status,hb_standby,hb_takeover}` | earlier in PATH than the package's |
//! | `/etc/systemd/system/heartbeat.service` | hides the package's unit |
//! | `/etc/init.d/heartbeat`, where there is none | the package's own asks systemd, so it stays |
//!
//! Nothing that is not the agent's own is ever replaced or removed.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name under which the newest agent of a machine is found.
const AGENT: &str = "/usr/local/lib/halab/halab-agent";

/// Programs that people call.
const NAMES: [&str; 4] = ["heartbeat", "cl_status", "hb_standby", "hb_takeover"];

const NAMES_FOLDER: &str = "/usr/local/sbin";
const UNIT_FILE: &str = "/etc/systemd/system/heartbeat.service";
const INIT_FILE: &str = "/etc/init.d/heartbeat";

/// Where packages put the daemon: the newer place, and the older one.
const PACKAGE_DAEMONS: [&str; 2] = [
    "/usr/libexec/heartbeat/heartbeat",
    "/usr/lib/heartbeat/heartbeat",
];

/// Marks files as the agent's own.
const MARK: &str = "halab-agent";

/// The unit. `Type=notify`: a start that fails says so at once. `KillMode=process`: what a script of
/// `/etc/init.d` started outlives the daemon, as it does with heartbeat. Stopping waits for resources
/// as long as the package's unit does.
const UNIT: &str = "[Unit]
Description=Heartbeat cluster membership and resources (halab-agent)
After=network.target drbd.service
Conflicts=pacemaker.service

[Service]
Type=notify
NotifyAccess=main
ExecStart=AGENT heartbeat -f
KillMode=process
SendSIGKILL=no
TimeoutStartSec=60s
TimeoutStopSec=30min
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=1 2 6
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
";

const INIT_SCRIPT: &str = r#"#!/bin/sh
# heartbeat, with halab-agent in the place of the package: systemd does what is asked.
### BEGIN INIT INFO
# Provides:          heartbeat
# Required-Start:    $remote_fs $network $time $syslog
# Required-Stop:     $remote_fs $network $time $syslog
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: High-availability services.
### END INIT INFO
case "$1" in
  start|stop|restart|status) exec systemctl "$1" heartbeat.service ;;
  force-reload) exec systemctl restart heartbeat.service ;;
  *) echo "Usage: /etc/init.d/heartbeat {start|stop|status|restart|force-reload}" >&2; exit 1 ;;
esac
"#;

/// Whose the service `heartbeat` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Agent,
    Package,
    Nobody,
}

#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    #[error("failed to {attempt} {}", .path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is there and not halab's: move it away first", .path.display())]
    Foreign { path: PathBuf },
    #[error("heartbeat is running: `systemctl stop heartbeat` first")]
    Running,
    #[error("`systemctl daemon-reload` failed: {0}")]
    Reload(String),
}

fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StandInError {
    let path = path.to_owned();
    move |source| StandInError::File {
        attempt,
        path,
        source,
    }
}

/// Returns who answers to the service's name now.
pub fn standing() -> Standing {
    if is_own(Path::new(UNIT_FILE)) {
        Standing::Agent
    } else if PACKAGE_DAEMONS.iter().any(|path| Path::new(path).exists()) {
        Standing::Package
    } else {
        Standing::Nobody
    }
}

/// Returns the unit's text for the agent that is called now.
pub fn unit() -> String {
    UNIT.replace("AGENT", &agent().to_string_lossy())
}

/// Takes the package's names. Twice is as once. Refuses while a heartbeat runs that another
/// program would then be asked to stop.
pub fn stand_in() -> Result<(), StandInError> {
    if standing() == Standing::Package && is_active() {
        return Err(StandInError::Running);
    }
    let agent = agent();
    for name in NAMES {
        let path = Path::new(NAMES_FOLDER).join(name);
        if fs::symlink_metadata(&path).is_ok() && !is_own(&path) {
            return Err(StandInError::Foreign { path });
        }
        let new = path.with_file_name(format!(".{name}.halab"));
        let _ = fs::remove_file(&new);
        symlink(&agent, &new).map_err(file("make the link", &new))?;
        fs::rename(&new, &path).map_err(file("make the link", &path))?;
    }
    for folder in ["/etc/ha.d", "/var/lib/heartbeat"] {
        fs::create_dir_all(folder).map_err(file("make the folder", Path::new(folder)))?;
    }
    let init = Path::new(INIT_FILE);
    if !init.exists() {
        write(init, INIT_SCRIPT, 0o755)?;
    }
    write(Path::new(UNIT_FILE), &unit(), 0o644)?;
    reload()
}

/// Gives the names back. Twice is as once.
pub fn stand_aside() -> Result<(), StandInError> {
    if standing() == Standing::Agent && is_active() {
        return Err(StandInError::Running);
    }
    let names = NAMES.map(|name| Path::new(NAMES_FOLDER).join(name));
    let files = [UNIT_FILE, INIT_FILE].map(PathBuf::from);
    for path in names.into_iter().chain(files) {
        if is_own(&path) {
            fs::remove_file(&path).map_err(file("remove", &path))?;
        }
    }
    reload()
}

/// The stable name when the agent is there under it, else this very program.
fn agent() -> PathBuf {
    let stable = PathBuf::from(AGENT);
    if stable.exists() {
        return stable;
    }
    std::env::current_exe().unwrap_or(stable)
}

/// A link to the agent, or a file that names it.
fn is_own(path: &Path) -> bool {
    match fs::read_link(path) {
        Ok(target) => target
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(MARK)),
        Err(_) => fs::read_to_string(path).is_ok_and(|text| text.contains(MARK)),
    }
}

fn is_active() -> bool {
    let asked = Command::new("systemctl")
        .args(["is-active", "--quiet", "heartbeat.service"])
        .status();
    asked.is_ok_and(|status| status.success())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), StandInError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(file("make the folder", folder))?;
    }
    fs::write(path, text).map_err(file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(file("protect", path))
}

fn reload() -> Result<(), StandInError> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let reloaded = Command::new("systemctl").arg("daemon-reload").output();
    match reloaded {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(StandInError::Reload(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
        Err(error) => Err(StandInError::Reload(error.to_string())),
    }
}
