//! `heartbeat`: looks at the files, the service and the nodes; does what was planned; waits.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::error::ModuleError;
use super::super::netlink::RouteSocket;
use super::super::work::Work;
use super::super::{files, process};
use crate::heartbeat::shell::stand_in::{self, Standing};
use crate::task::heartbeat::{
    FOLDER, Facts, File, FileFacts, Holding, Seen, Software, State, Step, Wait, Wanted, missing,
    outcome, plan,
};
use crate::task::outcome::{Outcome, Refusal};

/// Between two looks at the nodes; `cl_status` is a process each time.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

const UNIT: &str = "heartbeat.service";

/// Lines of the unit's journal that a failed start shows.
const JOURNAL_LINES: &str = "20";

pub(super) fn heartbeat(work: &Work) -> Result<Outcome, ModuleError> {
    let wanted = Wanted::from_args(work.args())?;
    let facts = facts(work)?;
    let plan = plan(&wanted, &facts)?;
    if work.check {
        return Ok(outcome(plan, None));
    }
    for step in &plan.steps {
        perform(work, step)?;
    }
    let waits = wanted
        .wait
        .as_ref()
        .filter(|_| wanted.state != State::Absent);
    let seen = waits.map(|wait| wait_for(work, wait)).transpose()?;
    Ok(outcome(plan, seen.as_ref()))
}

fn facts(work: &Work) -> Result<Facts, ModuleError> {
    let mut found = [None, None, None];
    for (file, place) in File::ALL.into_iter().zip(&mut found) {
        let path = file.path();
        let path = Path::new(&path);
        if let Some(bytes) = files::read_if_there(path)? {
            let metadata = fs::metadata(path).map_err(ModuleError::file("look at", path))?;
            *place = Some(FileFacts {
                text: String::from_utf8_lossy(&bytes).into_owned(),
                mode: metadata.mode() & 0o7777,
                owner: metadata.uid(),
            });
        }
    }
    let node_info = files::text_of(Path::new(FOLDER).join("nodeinfo"));
    let host_name = match node_info.lines().next().map(str::trim) {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => files::text_of("/proc/sys/kernel/hostname"),
    };
    Ok(Facts {
        files: found,
        software: match stand_in::standing() {
            Standing::Agent => Some(Software::Agent),
            Standing::Package => Some(Software::Package),
            Standing::Nobody => None,
        },
        is_running: is_running(work)?,
        host_name,
    })
}

/// Active, starting or stopping: there is something that must end before anything else begins.
fn is_running(work: &Work) -> Result<bool, ModuleError> {
    let shown = process::must(work, &["systemctl", "show", "-p", "ActiveState", UNIT])?;
    let text = shown.stdout_text();
    let state = text.trim().strip_prefix("ActiveState=").unwrap_or("");
    Ok(!matches!(state, "inactive" | "failed" | ""))
}

fn perform(work: &Work, step: &Step) -> Result<(), ModuleError> {
    let failed =
        |error: stand_in::StandInError| Refusal::new(crate::base::chain::Chain(&error).to_string());
    match step {
        Step::Stop => process::must(work, &["systemctl", "stop", UNIT]).map(drop),
        Step::Start => start(work),
        Step::StandIn => Ok(stand_in::stand_in().map_err(failed)?),
        Step::StandAside => Ok(stand_in::stand_aside().map_err(failed)?),
        Step::Write(file, text) => write(*file, text),
        Step::Protect(file) => protect(Path::new(&file.path()), *file),
        Step::Remove(file) => {
            let path = file.path();
            fs::remove_file(&path).map_err(ModuleError::file("remove", path.as_ref()))
        }
    }
}

fn write(file: File, text: &str) -> Result<(), ModuleError> {
    let path = file.path();
    let path = Path::new(&path);
    fs::create_dir_all(FOLDER).map_err(ModuleError::file("make", FOLDER.as_ref()))?;
    // Right before it takes its place: nobody reads a key meanwhile.
    let new = files::temporary_beside(path);
    let written = fs::write(&new, "")
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(file.mode())))
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| {
        // The first error is the one to report.
        let _ = fs::remove_file(&new);
        ModuleError::file("write", path)(error)
    })
}

fn protect(path: &Path, file: File) -> Result<(), ModuleError> {
    chown(path, Some(0), Some(0)).map_err(ModuleError::file("change the owner of", path))?;
    files::set_mode(path, file.mode())
}

/// Starts the service; one that does not start shows what its journal says.
fn start(work: &Work) -> Result<(), ModuleError> {
    // An earlier failure must not count against this start.
    process::tool(work, &["systemctl", "reset-failed", UNIT])?;
    let ended = process::tool(work, &["systemctl", "start", UNIT])?;
    if ended.rc == 0 {
        return Ok(());
    }
    let journal = [
        "journalctl",
        "-u",
        UNIT,
        "-n",
        JOURNAL_LINES,
        "-o",
        "cat",
        "--no-pager",
    ];
    let said = process::tool(work, &journal)?.stdout_text();
    Err(Refusal::new(format!(
        "heartbeat did not start; its journal ends:\n{}",
        said.trim_end()
    ))
    .into())
}

fn wait_for(work: &Work, wait: &Wait) -> Result<Seen, ModuleError> {
    let begun = Instant::now();
    let mut holding = Holding::new(wait.steady);
    loop {
        let seen = look(work, wait)?;
        let missing = missing(wait, &seen);
        if holding.saw(missing.is_empty(), begun.elapsed()) {
            return Ok(seen);
        }
        if !missing.is_empty() && !wait.nodes.is_empty() && !is_running(work)? {
            return Err(Refusal::new(format!(
                "heartbeat does not run, so this cannot come: {}",
                missing.join("; ")
            ))
            .into());
        }
        if !missing.is_empty() && begun.elapsed() >= wait.timeout {
            return Err(Refusal::new(format!(
                "waited {} s for: {}",
                wait.timeout.as_secs_f64(),
                missing.join("; ")
            ))
            .into());
        }
        work.lifeline.wait(LOOK_INTERVAL)?;
    }
}

/// Asks as a person would: the package's tool and the agent's say the same.
fn look(work: &Work, wait: &Wait) -> Result<Seen, ModuleError> {
    let mut seen = Seen {
        addresses: own_addresses()?,
        ..Seen::default()
    };
    for node in wait.nodes.keys() {
        let said = process::tool(work, &["cl_status", "nodestatus", node])?;
        let status = said.stdout_text().trim().to_owned();
        if !status.is_empty() {
            seen.nodes.insert(node.clone(), status);
        }
    }
    if wait.resources.is_some() {
        let said = process::tool(work, &["cl_status", "rscstatus"])?;
        said.stdout_text().trim().clone_into(&mut seen.resources);
    }
    Ok(seen)
}

fn own_addresses() -> Result<Vec<Ipv4Addr>, ModuleError> {
    let addresses = RouteSocket::open()?.addresses()?;
    let addresses = addresses.into_iter().map(|address| address.network.ip);
    Ok(addresses
        .filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
        .collect())
}
