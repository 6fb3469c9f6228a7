//! The agent inside a guest: one program that answers to several names.
//!
//! Called as `ipvsadm` (by a link of that name), or as `halab-agent ipvsadm …`, it is ipvsadm;
//! likewise heartbeat and its tools.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use halab::agent::{helper, serve};
use halab::{heartbeat, ipvs, replica};

const USAGE: &str = "usage: halab-agent COMMAND

  serve      take tasks from halab on stdin, answer on stdout
  ipvsadm    list and change the kernel's LVS tables, as ipvsadm
  replica    a replicated device's daemon, as drbdadm starts it
  drbdadm    replicated devices, as drbdadm; also drbdsetup, drbd-overview
  drbd       their status as JSON, the text of /proc/drbd
  heartbeat  the cluster daemon; also cl_status, hb_standby, hb_takeover
  version    print the version
";

/// Names of other tools; called by one of them, the agent is that tool.
const APPLETS: &[&str] = &[
    "ipvsadm",
    "heartbeat",
    "cl_status",
    "hb_standby",
    "hb_takeover",
    "drbdadm",
    "drbdsetup",
    "drbd-overview",
];

/// The exit code of a call that could not run, as halab's own.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("halab-agent: {error:#}"));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().map(Path::new).and_then(Path::file_name);
    if !APPLETS.iter().any(|applet| called == Some(applet.as_ref())) && !words.is_empty() {
        words.remove(0);
    }
    let command = words
        .first()
        .map(|word| word.to_string_lossy().into_owned());
    match command {
        Some(command) => dispatch(&command, words),
        None => bail!("no command given\n{USAGE}"),
    }
}

/// Does what the first word says.
fn dispatch(command: &str, words: Vec<OsString>) -> Result<ExitCode> {
    match command.rsplit('/').next().unwrap_or(command) {
        "ipvsadm" => return Ok(ipvs::command::main(words).into()),
        "heartbeat" | "cl_status" | "hb_standby" | "hb_takeover" => {
            return Ok(heartbeat::shell::command::main(words).into());
        }
        "replica" => return Ok(replica::shell::command::main(&words).into()),
        "drbd" | "drbdadm" | "drbdsetup" | "drbd-overview" => {
            return Ok(replica::tools::command::main(words).into());
        }
        "serve" => serve::serve()?,
        helper::HELPER_COMMAND => {
            let user = words.get(1).context("the helper needs a user's name")?;
            helper::serve_once(&user.to_string_lossy())?;
        }
        "version" | "--version" | "-V" => {
            say(&format!("halab-agent {}", env!("CARGO_PKG_VERSION")));
        }
        "help" | "--help" | "-h" => say(USAGE.trim_end()),
        other => bail!("unknown command `{other}`\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "a program's own words to its user")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "a program's own words to its user")]
fn complain(text: &str) {
    eprintln!("{text}");
}
