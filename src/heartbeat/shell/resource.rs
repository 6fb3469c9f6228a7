//! One resource: which way it is started, stopped and asked.
//!
//! Addresses, file systems, DRBD disks and systemd's services are handled here; anything
//! else is a script of `/etc/ha.d/resource.d` or `/etc/init.d`, called as heartbeat
//! calls it: arguments first, then the verb. A `status` is judged by its words alone.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::filesystem::Filesystem;
use super::ip_address;
use super::paths::Paths;
use crate::base::chain::Chain;
use crate::base::diagnostic::Diagnostic;
use crate::heartbeat::config::{Address, Group, Resource};
use crate::heartbeat::jobs::{Outcome, Verb};

/// Most of a script's words that are looked at.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// A DRBD disk becomes primary a moment after the other one ceased to be.
const DRBD_ATTEMPTS: u32 = 6;
const DRBD_PAUSE: Duration = Duration::from_millis(500);

/// Where systemd shows that it runs this host.
const SYSTEMD: &str = "/run/systemd/system";

/// Where a unit's file may be.
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A way to handle a resource.
#[derive(Debug)]
pub(super) enum Handler {
    Address(Address),
    Filesystem(Filesystem),
    DrbdDisk(String),
    Service(String),
    Script {
        path: PathBuf,
        arguments: Vec<String>,
    },
}

/// Finds a handler for every resource of every group; all that is missing is reported.
pub(super) fn handlers(
    groups: &[Group],
    paths: &Paths,
) -> Result<Vec<Vec<Handler>>, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut all = Vec::new();
    for group in groups {
        let mut handlers = Vec::new();
        for resource in &group.resources {
            match handler(resource, paths) {
                Ok(handler) => handlers.push(handler),
                Err(problem) => problems.push(*problem),
            }
        }
        all.push(handlers);
    }
    if problems.is_empty() {
        Ok(all)
    } else {
        Err(problems)
    }
}

fn handler(resource: &Resource, paths: &Paths) -> Result<Handler, Box<Diagnostic>> {
    if let Some(address) = &resource.address {
        return Ok(Handler::Address(address.clone()));
    }
    match (resource.script.as_str(), resource.arguments.as_slice()) {
        ("Filesystem", arguments) => Filesystem::parse(arguments)
            .map(Handler::Filesystem)
            .map_err(|error| Box::new(Diagnostic::error(error).at(&resource.word.origin))),
        ("drbddisk", [name]) => Ok(Handler::DrbdDisk(name.clone())),
        (name, arguments) => script_or_service(name, arguments, resource, paths),
    }
}

fn script_or_service(
    name: &str,
    arguments: &[String],
    resource: &Resource,
    paths: &Paths,
) -> Result<Handler, Box<Diagnostic>> {
    let [own, init] = paths.script_folders();
    let unit = arguments.is_empty() && is_unit(name);
    let script = |folder: &Path| {
        let path = folder.join(name);
        is_executable(&path).then(|| Handler::Script {
            path,
            arguments: arguments.to_vec(),
        })
    };
    // A script of heartbeat's own folder says how; an init script is systemd's unit in disguise.
    if let Some(handler) = script(&own) {
        return Ok(handler);
    }
    if unit {
        return Ok(Handler::Service(name.to_owned()));
    }
    script(&init).ok_or_else(|| Box::new(missing(name, resource, &[own, init])))
}

fn missing(name: &str, resource: &Resource, folders: &[PathBuf; 2]) -> Diagnostic {
    let mut known: Vec<String> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    known.extend(["IPaddr", "Filesystem", "drbddisk"].map(str::to_owned));
    let [own, init] = folders;
    Diagnostic::error(format!("there is no script for the resource `{name}`"))
        .at(&resource.word.origin)
        .label(format!(
            "neither in {} nor in {}, and no systemd unit",
            own.display(),
            init.display()
        ))
        .nearest(name, known.iter().map(String::as_str))
        .help("is its package installed, and the script executable?")
}

fn is_unit(name: &str) -> bool {
    Path::new(SYSTEMD).is_dir()
        && UNIT_FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(format!("{name}.service")).exists())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

impl Handler {
    /// Runs one verb to its end. The text says what went wrong.
    pub(super) fn run(&self, verb: Verb) -> (Outcome, Option<String>) {
        let result = match self {
            Self::Address(address) => run_address(address, verb),
            Self::Filesystem(filesystem) => run_filesystem(filesystem, verb),
            Self::DrbdDisk(name) => run_drbd(name, verb),
            Self::Service(name) => run_service(name, verb),
            Self::Script { path, arguments } => run_script(path, arguments, verb),
        };
        match result {
            Ok(outcome) => (outcome, None),
            Err(text) => (Outcome::Bad, Some(text)),
        }
    }
}

/// `Good` or `Bad` as jobs.rs has it; an error's text is a failure worth a line.
type Ran = Result<Outcome, String>;

fn answer(yes: bool) -> Outcome {
    if yes { Outcome::Good } else { Outcome::Bad }
}

fn run_address(address: &Address, verb: Verb) -> Ran {
    match verb {
        Verb::Start => ip_address::start(address).map(|()| Outcome::Good),
        Verb::Stop => ip_address::stop(address).map(|()| Outcome::Good),
        Verb::Status => ip_address::is_up(address).map(answer),
    }
    .map_err(|error| Chain(&error).to_string())
}

fn run_filesystem(filesystem: &Filesystem, verb: Verb) -> Ran {
    match verb {
        Verb::Start => filesystem.start().map(|()| Outcome::Good),
        Verb::Stop => filesystem.stop().map(|()| Outcome::Good),
        Verb::Status => filesystem.is_mounted().map(answer),
    }
    .map_err(|error| error.to_string())
}

fn run_drbd(name: &str, verb: Verb) -> Ran {
    let drbdadm = |word: &str| output(Command::new("drbdadm").args([word, name]));
    match verb {
        Verb::Status => Ok(answer(drbdadm("role")?.1.starts_with("Primary"))),
        Verb::Stop if !Path::new("/proc/drbd").exists() => Ok(Outcome::Good),
        Verb::Stop => require(drbdadm("secondary")?),
        Verb::Start => {
            let mut ran = require(drbdadm("primary")?);
            for _ in 1..DRBD_ATTEMPTS {
                if ran.is_ok() {
                    break;
                }
                thread::sleep(DRBD_PAUSE);
                ran = require(drbdadm("primary")?);
            }
            ran
        }
    }
}

fn run_service(name: &str, verb: Verb) -> Ran {
    let word = match verb {
        Verb::Start => "start",
        Verb::Stop => "stop",
        Verb::Status => "is-active",
    };
    let unit = format!("{name}.service");
    let ran = output(Command::new("systemctl").args([word, &unit]))?;
    match verb {
        Verb::Status => Ok(answer(ran.0)),
        _ => require(ran),
    }
}

fn run_script(path: &Path, arguments: &[String], verb: Verb) -> Ran {
    let ran = output(Command::new(path).args(arguments).arg(verb.name()))?;
    match verb {
        Verb::Status => Ok(answer(says_running(&ran.1))),
        _ => require(ran),
    }
}

/// heartbeat's own rule: the words decide, not the exit code.
fn says_running(words: &str) -> bool {
    let words = words.to_lowercase();
    let is_word = |wanted: &str| {
        words
            .split(|letter: char| !letter.is_alphanumeric())
            .any(|word| word == wanted)
    };
    !words.contains("not running") && (is_word("running") || is_word("ok"))
}

fn require((is_good, words): (bool, String)) -> Ran {
    if is_good {
        Ok(Outcome::Good)
    } else {
        Err(words
            .trim()
            .lines()
            .last()
            .unwrap_or("it failed without a word")
            .to_owned())
    }
}

/// Runs a program to its end and returns whether it ended well, and what it said.
///
/// The words go through a file that has no name: a service that a script starts may keep
/// a pipe open for ever.
fn output(command: &mut Command) -> Result<(bool, String), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("failed to run {program}: {error}");
    let mut words = nameless_file().map_err(failed)?;
    let status = command
        .env("HA_CURHOST", host_name())
        // Its socket is the daemon's: a script must not speak for it.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(words.try_clone().map_err(failed)?)
        .stderr(words.try_clone().map_err(failed)?)
        .status()
        .map_err(failed)?;
    let mut text = Vec::new();
    io::Seek::rewind(&mut words).map_err(failed)?;
    words
        .take(OUTPUT_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(failed)?;
    Ok((
        status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

pub(super) fn nameless_file() -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_TMPFILE)
        .open("/run")
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostic::{Colour, Source, render_all};
    use crate::heartbeat::config::haresources;

    #[test]
    fn the_words_of_a_status_decide() {
        for (words, running) in [
            ("apache2 is running (pid 1)", true),
            ("OK", true),
            ("running OK", true),
            ("apache2 is not running", false),
            ("stopped", false),
            ("broken", false),
            ("", false),
        ] {
            assert_eq!(says_running(words), running, "{words}");
        }
    }

    #[test]
    fn a_missing_script_is_named_with_its_place_and_the_nearest() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("etc/ha.d/resource.d");
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("WebServer"), "#!/bin/sh\n").expect("written");
        fs::set_permissions(folder.join("WebServer"), fs::Permissions::from_mode(0o755))
            .expect("set");
        let read = |text: &str| {
            let groups =
                haresources::parse(&Source::new("haresources", text), &mut Vec::new()).groups;
            handlers(&groups, &Paths::below(root.path()))
        };
        let found = read("a 10.0.0.1 WebServer::x\n").expect("all there");
        assert!(matches!(found[0][1], Handler::Script { .. }));
        let said = render_all(&read("a WebSever\n").expect_err("missing"), Colour::Never);
        assert!(said.contains("haresources:1:3"), "{said}");
        assert!(said.contains("did you mean `WebServer`?"), "{said}");
    }

    #[test]
    fn a_script_gets_its_arguments_before_the_verb() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        fs::write(
            &path,
            "#!/bin/sh\n[ \"$1 $2\" = 'a status' ] && echo running\n",
        )
        .expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        let handler = Handler::Script {
            path,
            arguments: vec!["a".into()],
        };
        assert_eq!(handler.run(Verb::Status), (Outcome::Good, None));
        assert_eq!(handler.run(Verb::Start).0, Outcome::Bad);
    }
}
