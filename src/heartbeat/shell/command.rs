//! heartbeat, `cl_status`, `hb_standby` and `hb_takeover` as programs.

use std::ffi::OsString;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::control::ask;
use super::daemon::{DaemonError, read_config, serve};
use super::paths::Paths;
use super::resource::nameless_file;
use super::stand_in::{self, StandInError, Standing};
use crate::base::chain::Chain;
use crate::base::diagnostic::{Colour, Diagnostic, render_all};
use crate::heartbeat::status::{NodeView, PingView, Snapshot};

/// heartbeat's exit codes.
const GOOD: u8 = 0;
const FAILED: u8 = 1;
const USAGE_ERROR: u8 = 2;
const STOPPED: u8 = 3;
const CONFIGURATION_ERROR: u8 = 6;

/// `cl_status`'s code for a wrong word.
const PARAMETER_ERROR: u8 = 11;

/// A started daemon must answer within this: DNS and slow guests.
const START_WAIT: Duration = Duration::from_secs(30);

/// A stopping one may wait for scripts; heartbeat's own limit.
const STOP_WAIT: Duration = Duration::from_secs(60 * 60);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

const USAGE: &str = "usage: heartbeat [--root DIR] [COMMAND]

  (none)            start as a daemon
  -f                start in the foreground
  -s                say whether it runs
  -k                stop it, and wait
  -V                print the version
  check             read the three files and say what is wrong with them
  status [--json]   nodes, links, groups, counters
  unit              print the systemd unit
  install           take the names of the distribution's heartbeat: programs, unit, init script
  uninstall         give them back";

/// Runs a tool; the first word is its name. Returns the exit code.
pub fn main(words: Vec<OsString>) -> u8 {
    let mut words: Vec<String> = words
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let name = if words.is_empty() {
        String::new()
    } else {
        words.remove(0)
    };
    let root = take_root(&mut words);
    let paths = Paths::below(&root);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match name.rsplit('/').next().unwrap_or_default() {
        "cl_status" => cl_status(&paths, &words),
        "hb_standby" => wish(&paths, "standby", &words),
        "hb_takeover" => wish(&paths, "takeover", &words),
        _ => heartbeat(&paths, &root, &words),
    }
}

/// Takes `--root DIR` out of the words.
fn take_root(words: &mut Vec<String>) -> PathBuf {
    match words.iter().position(|word| word == "--root") {
        Some(at) if at + 1 < words.len() => {
            words.remove(at);
            words.remove(at).into()
        }
        _ => "/".into(),
    }
}

fn heartbeat(paths: &Paths, root: &Path, words: &[&str]) -> u8 {
    match words {
        [] => start(paths, root),
        ["-f"] => foreground(paths),
        ["-s"] => running(paths),
        ["-k"] => stop(paths),
        ["-V"] => {
            say(&format!(
                "3.0.6 (halab-agent {})",
                env!("CARGO_PKG_VERSION")
            ));
            GOOD
        }
        ["check"] => check(paths),
        ["status"] => status(paths, false),
        ["status", "--json"] => status(paths, true),
        ["unit"] => {
            say(stand_in::unit().trim_end());
            GOOD
        }
        ["install"] => installed(stand_in::stand_in()),
        ["uninstall"] => installed(stand_in::stand_aside()),
        ["help" | "-h" | "--help"] => {
            say(USAGE);
            GOOD
        }
        _ => {
            complain(USAGE);
            USAGE_ERROR
        }
    }
}

fn installed(done: Result<(), StandInError>) -> u8 {
    match done {
        Ok(()) => {
            say(match stand_in::standing() {
                Standing::Agent => {
                    "halab's agent answers to heartbeat, cl_status, hb_standby, hb_takeover; the service is `heartbeat`"
                }
                Standing::Package => "the distribution's heartbeat answers to its names",
                Standing::Nobody => "nobody answers to heartbeat's names",
            });
            GOOD
        }
        Err(error) => {
            complain(&format!("heartbeat: {}", Chain(&error)));
            FAILED
        }
    }
}

fn foreground(paths: &Paths) -> u8 {
    match serve(paths, remark) {
        Ok(()) => GOOD,
        Err(error) => refuse(&error),
    }
}

/// Starts the daemon as a session of its own, and waits until it answers or ends.
fn start(paths: &Paths, root: &Path) -> u8 {
    if snapshot(paths).is_ok() {
        complain("heartbeat is running already");
        return GOOD;
    }
    match read_config(paths) {
        Ok((_, remarks)) => remark(&remarks),
        Err(error) => return refuse(&error),
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            complain(&format!("cannot find this program's own file: {error}"));
            return FAILED;
        }
    };
    let mut words = match nameless_file() {
        Ok(words) => words,
        Err(error) => {
            complain(&format!(
                "cannot make a file for the daemon's words: {error}"
            ));
            return FAILED;
        }
    };
    let spawned = Command::new("setsid")
        .arg(program)
        .args(["heartbeat", "-f", "--root"])
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Whoever reads this program's words must not wait for the daemon's end.
        .stderr(
            words
                .try_clone()
                .map_or_else(|_| Stdio::null(), Stdio::from),
        )
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            complain(&format!("failed to start the daemon: {error}"));
            return FAILED;
        }
    };
    let deadline = Instant::now() + START_WAIT;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            let mut text = String::new();
            if words.rewind().is_ok() && words.read_to_string(&mut text).is_ok() {
                complain(text.trim_end());
            }
            return status
                .code()
                .and_then(|code| code.try_into().ok())
                .unwrap_or(FAILED);
        }
        if snapshot(paths).is_ok() {
            return GOOD;
        }
        thread::sleep(POLL_INTERVAL);
    }
    complain("the daemon does not answer");
    FAILED
}

fn running(paths: &Paths) -> u8 {
    let (Ok(snapshot), Ok(pid)) = (snapshot(paths), std::fs::read_to_string(paths.pid())) else {
        say("heartbeat is stopped. No process");
        return STOPPED;
    };
    let (pid, node) = (pid.trim(), snapshot.node);
    say(&format!(
        "heartbeat OK [pid {pid} et al] is running on {node} [{node}]..."
    ));
    GOOD
}

fn stop(paths: &Paths) -> u8 {
    if ask(&paths.control_socket(), "stop").is_err() {
        say("INFO: Heartbeat already stopped.");
        return GOOD;
    }
    let deadline = Instant::now() + STOP_WAIT;
    while Instant::now() < deadline {
        if ask(&paths.control_socket(), "status").is_err() {
            return GOOD;
        }
        thread::sleep(POLL_INTERVAL);
    }
    complain("the daemon does not end");
    FAILED
}

fn check(paths: &Paths) -> u8 {
    match read_config(paths) {
        Ok((_, remarks)) => {
            remark(&remarks);
            say("the configuration is valid");
            GOOD
        }
        Err(error) => refuse(&error),
    }
}

fn status(paths: &Paths, as_json: bool) -> u8 {
    let answer = match ask(&paths.control_socket(), "status") {
        Ok(answer) => answer,
        Err(error) => {
            complain(&format!("heartbeat is stopped on this machine ({error})"));
            return STOPPED;
        }
    };
    match serde_json::from_slice::<Snapshot>(answer.as_bytes()) {
        _ if as_json => say(&answer),
        Ok(snapshot) => say(&snapshot.to_string()),
        Err(error) => {
            complain(&format!("the daemon speaks another version: {error}"));
            return FAILED;
        }
    }
    GOOD
}

fn wish(paths: &Paths, verb: &str, words: &[&str]) -> u8 {
    let share = match words {
        [] => "all",
        [share @ ("all" | "local" | "foreign" | "failback")] => share,
        _ => {
            complain("usage: hb_standby|hb_takeover [all|foreign|local|failback]");
            return FAILED;
        }
    };
    match ask(&paths.control_socket(), &format!("{verb} {share}")) {
        Ok(answer) if answer == "ok" => {
            say(&match verb {
                "standby" => format!("Going standby [{share}]."),
                _ => format!("Taking over [{share}]."),
            });
            GOOD
        }
        Ok(answer) => {
            complain(answer.strip_prefix("error: ").unwrap_or(&answer));
            FAILED
        }
        Err(_) => {
            complain("Heartbeat is stopped on this machine.");
            FAILED
        }
    }
}

// cl_status.

fn cl_status(paths: &Paths, words: &[&str]) -> u8 {
    let (options, words): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| word.starts_with('-'));
    let for_people = options.contains(&"-m");
    let at_length = options.contains(&"-v");
    let snapshot = snapshot(paths);
    if let ["hbstatus"] = words[..] {
        return hb_status(&snapshot, at_length);
    }
    let Ok(snapshot) = snapshot else {
        complain("REASON: hb_api_signon: Can't initiate connection to heartbeat");
        return FAILED;
    };
    let node = |name: &str| {
        snapshot
            .nodes
            .iter()
            .find(|node| node.name == name.to_lowercase())
    };
    let ping = |name: &str| snapshot.pings.iter().find(|ping| ping.name == name);
    match words[..] {
        ["listnodes"] => {
            let which = (!options.contains(&"-p"), !options.contains(&"-n"));
            list_nodes(&snapshot, for_people, at_length, which);
            GOOD
        }
        [verb @ ("nodestatus" | "nodetype"), name] if ping(name).is_some() => {
            let status = ping(name).map_or("dead", PingView::status);
            let answer = if verb == "nodetype" { "ping" } else { status };
            print(for_people, answer, || {
                format!("The cluster node {name} is {answer}")
            });
            if answer == "dead" { FAILED } else { GOOD }
        }
        ["nodestatus", name] => match node(name) {
            Some(node) => node_status(node, for_people),
            None => unknown_node(name),
        },
        ["nodetype", name] if node(name).is_some() => print(for_people, "normal", || {
            format!("The cluster node {name} is normal")
        }),
        ["nodeweight", name] if node(name).is_some() => print(false, "100", String::new),
        ["listhblinks", name] => match node(name) {
            Some(node) => {
                for link in &node.links {
                    let status = if at_length {
                        format!("\t{}", link.status())
                    } else {
                        String::new()
                    };
                    say(&format!("\t{}{status}", link.name));
                }
                GOOD
            }
            None => unknown_node(name),
        },
        ["hblinkstatus", name, link] => {
            let found =
                node(name).and_then(|node| node.links.iter().find(|known| known.name == link));
            match found {
                Some(found) => print(for_people, found.status(), || {
                    format!("The heartbeat link {link} is {}", found.status())
                }),
                None => unknown_node(name),
            }
        }
        ["rscstatus"] => print(for_people, &snapshot.resources, || {
            format!("This node is holding {} resources.", snapshot.resources)
        }),
        ["hbparameter", _] if options.contains(&"-p") => {
            complain("hbparameter: see /etc/ha.d/ha.cf");
            FAILED
        }
        _ => {
            complain(
                "usage: cl_status hbstatus|listnodes|nodestatus NODE|nodetype NODE|nodeweight NODE|listhblinks NODE|hblinkstatus NODE LINK|rscstatus [-m] [-v]",
            );
            PARAMETER_ERROR
        }
    }
}

fn hb_status(snapshot: &Result<Snapshot, std::io::Error>, at_length: bool) -> u8 {
    let Ok(snapshot) = snapshot else {
        say("Heartbeat is stopped on this machine.");
        return FAILED;
    };
    say("Heartbeat is running on this machine.");
    if at_length {
        say("version:\t3.0.6\nmanaged by:\t\"haresources\"");
        list_nodes(snapshot, false, true, (true, true));
    }
    GOOD
}

/// Lists nodes of the cluster, ping nodes, or both.
fn list_nodes(
    snapshot: &Snapshot,
    for_people: bool,
    at_length: bool,
    (normal, pings): (bool, bool),
) {
    if for_people {
        say("The nodes are as follow:");
    }
    for ping in snapshot.pings.iter().filter(|_| pings) {
        say(&if at_length {
            format!("\n{}\t{}\t(nodetype: ping)", ping.name, ping.status())
        } else {
            ping.name.clone()
        });
    }
    for node in snapshot.nodes.iter().filter(|_| normal) {
        if at_length {
            say(&format!(
                "\n{}\t{}\t(nodetype: normal)",
                node.name,
                node.status.name()
            ));
            for link in &node.links {
                say(&format!("\t{}\t{}", link.name, link.status()));
            }
        } else {
            say(&node.name);
        }
    }
}

fn node_status(node: &NodeView, for_people: bool) -> u8 {
    let status = node.status.name();
    print(for_people, status, || {
        format!("The cluster node {} is {status}", node.name)
    });
    if status == "dead" { FAILED } else { GOOD }
}

fn print(for_people: bool, plain: &str, sentence: impl FnOnce() -> String) -> u8 {
    say(&if for_people {
        sentence()
    } else {
        plain.to_owned()
    });
    GOOD
}

fn unknown_node(name: &str) -> u8 {
    complain(&format!("Cannot find the node {name}"));
    FAILED
}

fn snapshot(paths: &Paths) -> Result<Snapshot, std::io::Error> {
    let answer = ask(&paths.control_socket(), "status")?;
    serde_json::from_slice(answer.as_bytes()).map_err(std::io::Error::other)
}

// Output.

fn refuse(error: &DaemonError) -> u8 {
    match error {
        DaemonError::Configuration(problems) => {
            complain(&render_all(problems, Colour::Never));
            complain("heartbeat: configuration error: not started");
            CONFIGURATION_ERROR
        }
        DaemonError::Outside { .. } => {
            complain(&format!("heartbeat: {}", Chain(error)));
            FAILED
        }
    }
}

fn remark(remarks: &[Diagnostic]) {
    if !remarks.is_empty() {
        complain(&render_all(remarks, Colour::Never));
    }
}

#[expect(clippy::print_stdout, reason = "a program's own words to its user")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "a program's own words to its user")]
fn complain(text: &str) {
    eprintln!("{text}");
}
