//! `drbdadm`: commands on the resources of the configuration, and `drbdsetup` as far as
//! init scripts and resource agents call it.
//!
//! | exit | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a word is wrong, or there is no metadata |
//! | 10 | the configuration, or the daemon's refusal of a command |
//! | 5, 11, 16, 17 | the refusal of a state change, by its reason |
//! | 20, 40 | the disk cannot be used, or holds something |

use std::fmt::Write as _;
use std::time::Duration;

use super::command::{complain, say};
use super::metadata::{self, Disk, Ended};
use super::words::Words;
use super::{daemon, host, proc_file};
use crate::base::diagnostic::{Colour, Diagnostic, render_all};
use crate::replica::config::dump::dump;
use crate::replica::config::lower::{Lowered, lower};
use crate::replica::config::model::{Configuration, Local, Node, Section};
use crate::replica::config::options::{Unit, read_number};
use crate::replica::control::{Answer, Command, Rejection, Status, WaitUntil};
use crate::replica::layout::{Flags, Ring};
use crate::replica::shell::control_socket::ask;
use crate::replica::state::{Connection, Disk as DiskState};
use crate::replica::text::generations::{Shown, Source, get_gi, show_gi};
use crate::replica::text::status::status_text;

const DONE: u8 = 0;
const WRONG: u8 = 1;
const BAD_CONFIGURATION: u8 = 10;
const NOT_CONFIGURED: u8 = 10;

/// The commands, for messages and the nearest name.
const COMMANDS: &[&str] = &[
    "attach",
    "disk-options",
    "detach",
    "connect",
    "net-options",
    "disconnect",
    "up",
    "resource-options",
    "down",
    "primary",
    "secondary",
    "invalidate",
    "invalidate-remote",
    "outdate",
    "resize",
    "verify",
    "pause-sync",
    "resume-sync",
    "adjust",
    "adjust-with-progress",
    "wait-connect",
    "wait-sync",
    "wait-con-int",
    "role",
    "cstate",
    "dstate",
    "status",
    "dump",
    "create-md",
    "show-gi",
    "get-gi",
    "dump-md",
    "wipe-md",
    "apply-al",
    "new-current-uuid",
    "suspend-io",
    "resume-io",
    "hidden-commands",
    "sh-nop",
    "sh-resources",
    "sh-resource",
    "sh-dev",
    "sh-minor",
    "sh-ll-dev",
    "sh-md-dev",
    "sh-md-idx",
    "sh-ip",
    "sh-status",
    "sh-udev",
    "sh-b-pri",
    "sh-mod-parms",
    "help",
];

/// Without names these mean every resource.
const OF_ALL: &[&str] = &[
    "status",
    "dump",
    "sh-nop",
    "sh-resources",
    "sh-mod-parms",
    "wait-con-int",
    "sh-status",
];

/// Everything a command may need.
struct Session {
    words: Words,
    node: Node,
    configuration: Configuration,
}

/// One resource of this node.
struct Target<'a> {
    local: Local<'a>,
    lowered: Lowered,
}

impl Target<'_> {
    fn name(&self) -> &str {
        &self.lowered.names.resource
    }

    fn minor(&self) -> u32 {
        self.lowered.names.minor
    }

    fn disk(&self) -> Disk<'_> {
        Disk {
            minor: self.minor(),
            data: &self.lowered.disk.disk,
            meta: &self.lowered.disk.meta,
        }
    }

    fn ask(&self, command: &Command) -> Option<Answer> {
        ask(self.name(), command).ok()
    }

    fn status(&self) -> Option<Status> {
        daemon::status(self.name())
    }
}

/// Runs `drbdadm`; the words are without its name.
pub(super) fn drbdadm(words: &[String]) -> u8 {
    let words = match Words::parse(words) {
        Ok(words) => words,
        Err(error) => {
            complain(&error.to_string());
            return WRONG;
        }
    };
    match words.command.as_str() {
        "" => {
            complain(&format!("{}\n\nNo command specified", usage()));
            return WRONG;
        }
        "help" | "hidden-commands" => return help(&words),
        "--version" => {
            say(&version());
            return DONE;
        }
        command if !COMMANDS.contains(&command) => {
            let near = crate::base::diagnostic::nearest(command, COMMANDS.iter().copied());
            let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            complain(&format!("drbdadm: Unknown command '{command}'{hint}"));
            return WRONG;
        }
        _ => {}
    }
    let node = host::node();
    match host::configuration(words.config.as_deref(), &node) {
        Ok((configuration, warnings)) => {
            if ["dump", "sh-nop", "adjust", "up"].contains(&words.command.as_str()) {
                draw(&warnings);
            }
            let session = Session {
                words,
                node,
                configuration,
            };
            session.run()
        }
        Err(problems) => {
            draw(&problems);
            BAD_CONFIGURATION
        }
    }
}

fn draw(problems: &[Diagnostic]) {
    if !problems.is_empty() {
        complain(&render_all(problems, Colour::Never));
    }
}

impl Session {
    fn run(&self) -> u8 {
        let command = self.words.command.as_str();
        if self.words.stacked {
            // There are none here, and scripts ask.
            return DONE;
        }
        match command {
            "sh-nop" => return DONE,
            "sh-mod-parms" => {
                say("minor_count=32");
                return DONE;
            }
            "sh-resources" => {
                let names: Vec<&str> = self
                    .locals()
                    .map(|local| local.resource.name.text.as_str())
                    .collect();
                say(&names.join(" "));
                return DONE;
            }
            "dump" => return self.dump(),
            _ => {}
        }
        let (targets, mut worst) = self.targets();
        if targets.is_empty()
            && worst == DONE
            && self.words.names.is_empty()
            && !OF_ALL.contains(&command)
        {
            complain(&format!("{}\n\nNo resource names specified", usage()));
            return WRONG;
        }
        if command == "adjust-with-progress" {
            return worst.max(adjust_with_progress(&targets));
        }
        if command == "sh-status" {
            say(&status_head(&self.configuration.path));
        }
        for target in &targets {
            let code = if self.words.dry_run {
                self.print_expansion(target)
            } else {
                self.run_one(target)
            };
            worst = worst.max(code);
        }
        worst
    }

    fn locals(&self) -> impl Iterator<Item = Local<'_>> {
        let resources = self.configuration.resources.iter();
        resources.filter_map(|resource| self.configuration.local(resource, &self.node))
    }

    /// Returns the resources that were named, and the code of those that could not be.
    fn targets(&self) -> (Vec<Target<'_>>, u8) {
        let mut worst = DONE;
        let mut targets = Vec::new();
        let is_all = self.words.names.iter().any(|name| name == "all")
            || (self.words.names.is_empty() && OF_ALL.contains(&self.words.command.as_str()));
        let locals: Vec<Local<'_>> = if is_all {
            self.locals().collect()
        } else {
            let mut found = Vec::new();
            for name in &self.words.names {
                if let Some(local) = self.find(name) {
                    found.push(local);
                } else {
                    complain(&self.not_defined(name));
                    worst = WRONG;
                }
            }
            found
        };
        for local in locals {
            match lower(&local) {
                Ok(lowered) => targets.push(Target { local, lowered }),
                Err(problem) => {
                    draw(&[*problem]);
                    worst = BAD_CONFIGURATION;
                }
            }
        }
        (targets, worst)
    }

    /// Finds a resource by `NAME`, `NAME/VOLUME` or `minor-N`.
    fn find(&self, name: &str) -> Option<Local<'_>> {
        let (plain, volume) = match name.split_once('/') {
            Some((plain, volume)) => (plain, Some(volume)),
            None => (name, None),
        };
        let minor: Option<u32> = name
            .strip_prefix("minor-")
            .and_then(|digits| digits.parse().ok());
        self.locals().find(|local| {
            let volumes = &local.own.volumes;
            let by_minor =
                minor.is_some_and(|minor| volumes.iter().any(|volume| volume.minor == minor));
            let has_volume = volume.is_none_or(|wanted| {
                volumes
                    .iter()
                    .any(|volume| volume.number.to_string() == wanted)
            });
            by_minor || (local.resource.name.text == plain && has_volume)
        })
    }

    fn not_defined(&self, name: &str) -> String {
        let known: Vec<&str> = self
            .locals()
            .map(|local| local.resource.name.text.as_str())
            .collect();
        let near = crate::base::diagnostic::nearest(name, known.iter().copied());
        let hint = match (near, known.as_slice()) {
            (Some(near), _) => format!(" Did you mean '{near}'?"),
            (None, []) => {
                " There is no resource: do /etc/drbd.d/*.res have one with `on` this host?"
                    .to_owned()
            }
            (None, known) => format!(" Defined here: {}.", known.join(", ")),
        };
        format!("'{name}' not defined in your config (for this host).{hint}")
    }

    fn dump(&self) -> u8 {
        if self.words.names.is_empty() || self.words.names.iter().any(|name| name == "all") {
            say(dump(&self.configuration, None, &self.node).trim_end_matches('\n'));
            say("");
            return DONE;
        }
        let mut worst = DONE;
        for name in &self.words.names {
            if let Some(resource) = self.configuration.resource(name) {
                say(dump(&self.configuration, Some(resource), &self.node).trim_end_matches('\n'));
                say("");
            } else {
                complain(&self.not_defined(name));
                worst = WRONG;
            }
        }
        worst
    }

    fn run_one(&self, target: &Target<'_>) -> u8 {
        let words = &self.words;
        match words.command.as_str() {
            "create-md" => self.create_md(target),
            "wipe-md" => ended(
                &self.line(target),
                metadata::wipe(&target.disk(), words.is_forced()),
            ),
            "apply-al" => ended(
                &self.line(target),
                metadata::apply_activity_log(&target.disk()),
            ),
            "dump-md" => match metadata::dump(&target.disk(), &self.node.name) {
                Ok(text) => {
                    say(text.trim_end_matches('\n'));
                    DONE
                }
                Err(error) => ended(&self.line(target), Err(error)),
            },
            "get-gi" | "show-gi" => self.generations(target),
            "up" => up(target),
            "adjust" | "disk-options" | "net-options" | "resource-options" => adjust(target),
            "down" => down(target),
            "role" | "cstate" | "dstate" => self.query(target),
            "status" => show_status(target),
            "invalidate" => self.invalidate(target),
            "sh-resource" | "sh-dev" | "sh-minor" | "sh-ll-dev" | "sh-md-dev" | "sh-md-idx"
            | "sh-ip" | "sh-udev" | "sh-status" => {
                say(&sh_value(&words.command, target));
                DONE
            }
            "sh-b-pri" => become_primary(target, &self.node),
            "wait-con-int" => wait_interruptibly(target),
            _ => match self.lowered_command(target) {
                Ok(command) => self.perform(target, &command),
                Err(text) => {
                    complain(&text);
                    WRONG
                }
            },
        }
    }

    /// The command that the daemon is told.
    fn lowered_command(&self, target: &Target<'_>) -> Result<Command, String> {
        let words = &self.words;
        let sectors = |name: &str| {
            let Some(text) = words.value(name) else {
                return Ok(None);
            };
            read_number(text, Unit::Sectors, 0, 1 << 41)
                .map(Some)
                .map_err(|_| {
                    format!("drbdadm: '{text}' is no number of sectors (such as 8192s, 100M, 1G)")
                })
        };
        Ok(match words.command.as_str() {
            "attach" => Command::Attach(target.lowered.disk.clone()),
            "detach" => Command::Detach {
                force: words.is_forced(),
            },
            "connect" => connect_command(
                target,
                words.has("--discard-my-data"),
                words.has("--tentative") || words.has("--dry-run"),
            )?,
            "disconnect" => Command::Disconnect {
                force: words.is_forced(),
            },
            "primary" => Command::Primary {
                force: words.is_forced(),
            },
            "secondary" => Command::Secondary,
            "invalidate-remote" => Command::InvalidateRemote,
            "verify" => Command::Verify {
                start: sectors("--start")?,
                stop: sectors("--stop")?,
            },
            "resize" => Command::Resize {
                size_sectors: sectors("--size")?.unwrap_or(target.lowered.disk.size_sectors),
                assume_peer_has_space: words.has("--assume-peer-has-space"),
                assume_clean: words.has("--assume-clean"),
            },
            "pause-sync" => Command::PauseSync,
            "resume-sync" => Command::ResumeSync,
            "suspend-io" => Command::SuspendIo,
            "resume-io" => Command::ResumeIo,
            "outdate" => Command::Outdate,
            "new-current-uuid" => Command::NewCurrentUuid {
                clear_bitmap: words.has("--clear-bitmap"),
            },
            "wait-connect" | "wait-sync" => Command::Wait {
                until: if words.command == "wait-sync" {
                    WaitUntil::InSync
                } else {
                    WaitUntil::Connected
                },
                deadline: wait_deadline(target, words),
            },
            other => return Err(format!("drbdadm: '{other}' is not available here")),
        })
    }

    fn perform(&self, target: &Target<'_>, command: &Command) -> u8 {
        let line = self.line(target);
        let name = shown_name(command, target);
        match target.ask(command) {
            Some(Answer::Refused(rejection)) => refused(&line, &name, &rejection),
            Some(_) => DONE,
            None => not_running(&line, &target.minor().to_string()),
        }
    }

    /// What drbdadm would have called: named when a command fails, printed by `-d`.
    fn line(&self, target: &Target<'_>) -> String {
        expansion(&self.words, target).pop().unwrap_or_default()
    }

    fn print_expansion(&self, target: &Target<'_>) -> u8 {
        for line in expansion(&self.words, target) {
            say(&line);
        }
        DONE
    }

    fn create_md(&self, target: &Target<'_>) -> u8 {
        let default = Ring::default();
        let number = |name: &str| {
            self.words
                .value(name)
                .and_then(|text| text.parse::<u32>().ok())
        };
        let ring = Ring {
            stripes: number("--al-stripes").unwrap_or(default.stripes),
            stripe_blocks: number("--al-stripe-size-kB")
                .map_or(default.stripe_blocks, |kib| kib / 4),
        };
        if target
            .status()
            .is_some_and(|status| status.disk != DiskState::Diskless)
        {
            let text = format!("Device '{}' is configured!", target.minor());
            return ended(&self.line(target), Err(Ended { code: 20, text }));
        }
        ended(
            &self.line(target),
            metadata::create(&target.disk(), self.words.is_forced(), ring),
        )
    }

    fn generations(&self, target: &Target<'_>) -> u8 {
        let of_daemon = target
            .status()
            .filter(|status| status.disk > DiskState::Negotiating);
        let (shown, source) = if let Some(status) = of_daemon {
            let shown = Shown {
                generations: status.generations,
                flags: Flags(status.flags),
            };
            (shown, Source::Daemon)
        } else {
            match metadata::superblock(&target.disk()) {
                Ok(superblock) => (
                    Shown::of(&superblock),
                    Source::Disk {
                        clean: superblock.clean(),
                        agreed_sectors: superblock.agreed_sectors,
                        peer_bio_bytes_max: superblock.peer_bio_bytes_max,
                    },
                ),
                Err(error) => return ended(&self.line(target), Err(error)),
            }
        };
        let text = if self.words.command == "get-gi" {
            get_gi(shown)
        } else {
            show_gi(shown, source)
        };
        say(text.trim_end_matches('\n'));
        DONE
    }

    fn query(&self, target: &Target<'_>) -> u8 {
        let status = target.status();
        match (self.words.command.as_str(), status) {
            ("role", Some(status)) => say(&format!("{}/{}", status.role, status.peer)),
            ("cstate", Some(status)) => say(&status.connection.to_string()),
            ("dstate", Some(status)) => say(&format!("{}/{}", status.disk, status.peer_disk)),
            ("dstate", None) => {
                return match metadata::superblock(&target.disk()) {
                    Ok(superblock) => {
                        say(disk_word(superblock.flags));
                        DONE
                    }
                    Err(error) => ended(&self.line(target), Err(error)),
                };
            }
            _ => return not_running(&self.line(target), &target.minor().to_string()),
        }
        DONE
    }

    fn invalidate(&self, target: &Target<'_>) -> u8 {
        self.perform(target, &Command::Invalidate)
    }
}

/// The state a disk would come back in.
fn disk_word(flags: Flags) -> &'static str {
    match (
        flags.has(Flags::CONSISTENT),
        flags.has(Flags::WAS_UP_TO_DATE),
        flags.has(Flags::PEER_OUTDATED),
    ) {
        (false, ..) => "Inconsistent",
        (true, false, _) => "Outdated",
        (true, true, true) => "UpToDate",
        (true, true, false) => "Consistent",
    }
}

fn connect_command(
    target: &Target<'_>,
    discard_my_data: bool,
    tentative: bool,
) -> Result<Command, String> {
    let net = target.lowered.net.clone().ok_or_else(|| {
        format!(
            "resource `{}` has one host; a connection needs the other one's `on HOST {{ … }}`, too",
            target.name()
        )
    })?;
    Ok(Command::Connect {
        net,
        discard_my_data,
        tentative,
    })
}

fn show_status(target: &Target<'_>) -> u8 {
    let name = target.name();
    if let Some(status) = target.status() {
        say(status_text(&status).trim_end_matches('\n'));
        say("");
        return DONE;
    }
    complain(&format!("{name}: No such resource"));
    terminated(&format!("drbdsetup-84 status {name}"), NOT_CONFIGURED)
}

/// Brings a resource up from nothing.
fn up(target: &Target<'_>) -> u8 {
    let minor = target.minor();
    if target.status().is_some() {
        complain(&format!("Device '{minor}' is configured!"));
        let disk = target.disk();
        let line = format!(
            "drbdmeta {minor} v08 {} {} apply-al",
            disk.meta_path().display(),
            disk.place_word()
        );
        terminated(&line, 20);
        return WRONG;
    }
    if let Err(code) = start_daemon(target) {
        return code;
    }
    // A daemon that died left what it was told; this one does it again by itself.
    if target
        .status()
        .is_some_and(|status| status.backing_disk.is_some())
    {
        return DONE;
    }
    let name = target.name().to_owned();
    let attached = tell(
        target,
        &minor.to_string(),
        "attach",
        &Command::Attach(target.lowered.disk.clone()),
    );
    if attached != DONE {
        return if attached == NOT_CONFIGURED {
            WRONG
        } else {
            attached
        };
    }
    match connect_command(target, false, false) {
        Ok(command) => tell(target, &name, "connect", &command),
        Err(text) => {
            complain(&text);
            WRONG
        }
    }
}

fn start_daemon(target: &Target<'_>) -> Result<(), u8> {
    daemon::start(&target.lowered.names, &target.lowered.device).map_err(|error| {
        complain(&format!(
            "{}: the daemon could not be started: {error}",
            target.name()
        ));
        NOT_CONFIGURED
    })?;
    proc_file::show();
    Ok(())
}

/// Tells a running daemon something, and says what it refused.
fn tell(target: &Target<'_>, name: &str, verb: &str, command: &Command) -> u8 {
    match target.ask(command) {
        Some(Answer::Refused(rejection)) => {
            refused(&format!("drbdsetup-84 {verb} {name}"), name, &rejection)
        }
        Some(_) => DONE,
        None => not_running(&format!("drbdsetup-84 {verb} {name}"), name),
    }
}

/// What adjusting did, step by step: names of steps that failed.
#[derive(Default)]
struct Adjusted {
    created: bool,
    attached: Option<u8>,
    connected: Option<u8>,
    failed: bool,
}

fn adjust_quietly(target: &Target<'_>) -> Adjusted {
    let mut adjusted = Adjusted::default();
    if target.status().is_none() {
        adjusted.created = true;
        if start_daemon(target).is_err() {
            adjusted.failed = true;
            return adjusted;
        }
    }
    let Some(status) = target.status() else {
        adjusted.failed = true;
        return adjusted;
    };
    let minor = target.minor().to_string();
    if status.disk == DiskState::Diskless {
        let command = Command::Attach(target.lowered.disk.clone());
        adjusted.attached = Some(tell(target, &minor, "attach", &command));
    }
    let wanted = match connect_command(target, false, false) {
        Ok(command) => command,
        Err(text) => {
            complain(&text);
            adjusted.failed = true;
            return adjusted;
        }
    };
    if status.connection == Connection::StandAlone {
        adjusted.connected = Some(tell(target, target.name(), "connect", &wanted));
    }
    let command = Command::Adjust {
        disk: adjusted
            .attached
            .is_none()
            .then(|| target.lowered.disk.clone()),
        net: target
            .lowered
            .net
            .clone()
            .filter(|_| adjusted.connected.is_none()),
    };
    if adjusted.attached.is_none() || adjusted.connected.is_none() {
        adjusted.failed |= tell(target, target.name(), "adjust", &command) != DONE;
    }
    adjusted.failed |= adjusted.attached.is_some_and(|code| code != DONE);
    adjusted.failed |= adjusted.connected.is_some_and(|code| code != DONE);
    adjusted
}

fn adjust(target: &Target<'_>) -> u8 {
    if adjust_quietly(target).failed {
        WRONG
    } else {
        DONE
    }
}

/// As the init script shows it.
fn adjust_with_progress(targets: &[Target<'_>]) -> u8 {
    let mut failed = false;
    say("[");
    for target in targets {
        let adjusted = adjust_quietly(target);
        let name = target.name();
        let word = |code: Option<u8>| match code {
            Some(code) if code != DONE => format!("{name}:failed({code})"),
            _ => name.to_owned(),
        };
        if adjusted.created {
            say(&format!("     create res: {name}\n   prepare disk: {name}"));
        }
        if adjusted.attached.is_some() {
            say(&format!("    adjust disk: {}", word(adjusted.attached)));
        }
        if adjusted.connected.is_some() {
            say(&format!("     adjust net: {}", word(adjusted.connected)));
        }
        failed |= adjusted.failed;
    }
    say("]");
    u8::from(failed)
}

fn down(target: &Target<'_>) -> u8 {
    down_by_name(target.name())
}

/// Takes a daemon down; one that does not run is down.
fn down_by_name(name: &str) -> u8 {
    let line = format!("drbdsetup-84 down {name}");
    match ask(name, &Command::Down) {
        Ok(Answer::Refused(rejection)) => refused(&line, name, &rejection),
        Ok(_) => {
            if daemon::wait_for_end(name).is_err() {
                complain(&format!("{name}: the daemon does not end"));
                return NOT_CONFIGURED;
            }
            proc_file::hide_when_unused();
            DONE
        }
        Err(_) => DONE,
    }
}

/// Makes this node primary where the configuration says so; asked at boot.
fn become_primary(target: &Target<'_>, node: &Node) -> u8 {
    let wanted = target.local.setting(Section::Startup, "become-primary-on");
    let is_wanted = wanted.is_some_and(|setting| {
        setting
            .value
            .split(' ')
            .any(|name| name == "both" || name == node.name)
    });
    if !is_wanted {
        return DONE;
    }
    tell(
        target,
        &target.minor().to_string(),
        "primary",
        &Command::Primary { force: false },
    )
}

/// Waits for the peer as `startup` says; without a limit it says that it waits.
fn wait_interruptibly(target: &Target<'_>) -> u8 {
    let Some(status) = target.status() else {
        return DONE;
    };
    let deadline = startup_deadline(target);
    if status.connection < Connection::Connected && deadline.is_none() {
        say(&format!(
            "{}: waiting for the peer; `wfc-timeout` in section `startup` limits it",
            target.name()
        ));
    }
    if status.connection == Connection::StandAlone {
        return DONE;
    }
    let command = Command::Wait {
        until: WaitUntil::Connected,
        deadline,
    };
    let _ = target.ask(&command);
    DONE
}

fn startup_deadline(target: &Target<'_>) -> Option<Duration> {
    let seconds = target
        .local
        .setting(Section::Startup, "wfc-timeout")
        .map_or(0, |setting| setting.number);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn wait_deadline(target: &Target<'_>, words: &Words) -> Option<Duration> {
    match words
        .value("--wfc-timeout")
        .and_then(|text| text.parse::<u64>().ok())
    {
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => startup_deadline(target),
    }
}

fn sh_value(command: &str, target: &Target<'_>) -> String {
    let lowered = &target.lowered;
    match command {
        "sh-resource" => target.name().to_owned(),
        "sh-dev" => lowered.device.clone(),
        "sh-minor" => target.minor().to_string(),
        "sh-ll-dev" => lowered.disk.disk.display().to_string(),
        "sh-md-dev" => target.disk().meta_path().display().to_string(),
        "sh-md-idx" => match target.disk().place_word().as_str() {
            "flex-external" => "flexible".to_owned(),
            word => word.to_owned(),
        },
        "sh-ip" => target.local.own.address.ip().to_string(),
        "sh-udev" => format!(
            "RESOURCE={}/{}\nDEVICE={}\nDISK={}",
            target.name(),
            lowered.names.volume,
            lowered.device.trim_start_matches("/dev/"),
            lowered
                .disk
                .disk
                .to_string_lossy()
                .trim_start_matches("/dev/")
        ),
        _ => status_block(target),
    }
}

fn status_head(path: &str) -> String {
    format!("_drbd_version=9.22.0\n_drbd_api=1\n_config_file={path}\n\n")
}

/// What shell scripts evaluate.
fn status_block(target: &Target<'_>) -> String {
    let origin = &target.local.resource.origin;
    let names = &target.lowered.names;
    let mut text = format!(
        "_conf_res_name={0}\n_conf_file_line={1}:{2}\n\n_stacked_on=\n_stacked_on_device=\n_stacked_on_minor=\n_conf_volume={3}\n_minor={4}\n_res_name={0}\n_volume={3}\n",
        names.resource,
        origin.source.name,
        origin.line(),
        names.volume,
        names.minor
    );
    match target.status() {
        None => text.push_str("_known=Unconfigured\n"),
        Some(status) => {
            let flag = |is_set: bool, word: &'static str| if is_set { word } else { "" };
            let _ = write!(
                text,
                "_known=Configured\n\n_cstate={}\n_role={}\n_peer={}\n_disk={}\n_pdsk={}\n\n_flags_susp={}\n_flags_aftr_isp={}\n_flags_peer_isp={}\n_flags_user_isp={}\n",
                status.connection,
                status.role,
                status.peer,
                status.disk,
                status.peer_disk,
                flag(status.suspended.by_user, "1"),
                flag(status.paused.by_dependency, "1"),
                flag(status.paused.by_peer, "1"),
                flag(status.paused.by_user, "1"),
            );
        }
    }
    text.push_str("\n_sh_status_process\n\n");
    text
}

/// `drbdsetup`'s words that scripts use; the rest is said to be missing.
pub(super) fn drbdsetup(words: &[String]) -> u8 {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["down", name] => down_by_name(name),
        ["status"] => drbdadm(&["status".to_owned()]),
        [
            command @ ("role" | "cstate" | "dstate" | "primary" | "secondary" | "detach" | "verify"
            | "invalidate" | "invalidate-remote" | "show-gi" | "get-gi" | "resize"
            | "outdate" | "new-current-uuid" | "pause-sync" | "resume-sync"
            | "suspend-io" | "resume-io" | "wait-connect" | "wait-sync" | "status"),
            name,
            options @ ..,
        ] => {
            let minor = name.trim_start_matches("/dev/drbd");
            let is_minor = minor.parse::<u32>().is_ok();
            let target = if is_minor {
                format!("minor-{minor}")
            } else {
                (*name).to_owned()
            };
            let mut words = vec![(*command).to_owned(), target];
            words.extend(options.iter().map(|option| (*option).to_owned()));
            drbdadm(&words)
        }
        _ => {
            complain(
                "drbdsetup: this program answers to down, status, role, cstate, dstate, primary, secondary, detach, verify,\ninvalidate, invalidate-remote, show-gi, get-gi, resize, outdate, new-current-uuid, pause-sync, resume-sync,\nsuspend-io, resume-io, wait-connect, wait-sync; attach and connect are `drbdadm`'s",
            );
            20
        }
    }
}

/// Every resource's status as one JSON array.
pub(super) fn status_json() -> u8 {
    let text = serde_json::to_string_pretty(&proc_file::statuses());
    say(&text.unwrap_or_else(|_| "[]".to_owned()));
    DONE
}

// Messages.

/// Which name drbdsetup puts before its message.
fn shown_name(command: &Command, target: &Target<'_>) -> String {
    match command {
        Command::Connect { .. } | Command::Disconnect { .. } | Command::Down => {
            target.name().to_owned()
        }
        _ => target.minor().to_string(),
    }
}

fn refused(line: &str, name: &str, rejection: &Rejection) -> u8 {
    let Rejection { code, text, detail } = rejection;
    let what = if *code < 0 {
        "State change failed"
    } else {
        "Failure"
    };
    complain(&format!("{name}: {what}: ({code}) {}", text.trim_end()));
    if let Some(detail) = detail {
        complain(&format!("additional info:\n{detail}"));
    }
    let exit = match code {
        -16 => 5,
        -4 => 16,
        -2 => 17,
        code if *code < 0 => 11,
        5 => 5,
        _ => 10,
    };
    terminated(line, exit)
}

fn not_running(line: &str, name: &str) -> u8 {
    complain(&format!(
        "{name}: Failure: (127) Device minor not allocated"
    ));
    terminated(line, NOT_CONFIGURED)
}

fn terminated(line: &str, code: u8) -> u8 {
    complain(&format!(
        "Command '{line}' terminated with exit code {code}"
    ));
    code
}

fn ended(line: &str, result: Result<(), Ended>) -> u8 {
    match result {
        Ok(()) => DONE,
        Err(Ended { code, text }) => {
            complain(&text);
            // drbdadm names the program where its code is not the plain "no".
            if code == 1 {
                code
            } else {
                terminated(line, code)
            }
        }
    }
}

/// The programs and their words that drbdadm would call.
fn expansion(words: &Words, target: &Target<'_>) -> Vec<String> {
    let (name, minor) = (target.name(), target.minor());
    let disk = target.disk();
    let meta = |verb: &str| {
        format!(
            "drbdmeta {minor} v08 {} {} {verb}",
            disk.meta_path().display(),
            disk.place_word()
        )
    };
    let place = match disk.place_word().as_str() {
        "flex-external" => "flexible".to_owned(),
        word => word.to_owned(),
    };
    let options = words
        .options
        .iter()
        .fold(String::new(), |text, option| text + " " + option);
    let attach = || {
        let settings = target.local.own.volumes[0]
            .settings
            .iter()
            .chain(section(target, Section::Disk));
        format!(
            "drbdsetup-84 attach {minor} {} {} {place}{}",
            disk.data.display(),
            disk.meta_path().display(),
            as_options(settings)
        )
    };
    let addresses = || {
        let peer = target
            .local
            .peer
            .map_or_else(String::new, |peer| address_word(peer.address));
        format!("{} {peer}", address_word(target.local.own.address))
    };
    let connect = || {
        format!(
            "drbdsetup-84 connect {name} {}{}{options}",
            addresses(),
            as_options(section(target, Section::Net))
        )
    };
    match words.command.as_str() {
        "up" | "adjust" => vec![
            format!("drbdsetup-84 new-resource {name}"),
            format!(
                "drbdsetup-84 new-minor {name} {minor} {}",
                target.lowered.names.volume
            ),
            meta("apply-al"),
            attach(),
            connect(),
        ],
        "attach" => vec![meta("apply-al"), attach()],
        "connect" => vec![connect()],
        "disconnect" => vec![format!("drbdsetup-84 disconnect {}{options}", addresses())],
        "down" | "status" => vec![format!("drbdsetup-84 {} {name}", words.command)],
        "resize" => vec![
            format!("drbdsetup-84 resize {minor}{options}"),
            format!("drbdsetup-84 check-resize {minor}"),
        ],
        "show-gi" | "get-gi" | "invalidate" | "outdate" | "dstate" => vec![
            format!("drbdsetup-84 {} {minor}{options}", words.command),
            meta(&words.command),
        ],
        verb @ ("create-md" | "dump-md" | "wipe-md" | "apply-al") => {
            vec![format!("{}{options}", meta(verb))]
        }
        verb => vec![format!("drbdsetup-84 {verb} {minor}{options}")],
    }
}

fn section<'a>(
    target: &'a Target<'_>,
    section: Section,
) -> impl Iterator<Item = &'a crate::replica::config::model::Setting> {
    let own = target.local.resource.sections.settings.get(&section);
    own.into_iter().flatten()
}

/// Options as drbdsetup takes them; a secret is not shown.
fn as_options<'a>(
    settings: impl Iterator<Item = &'a crate::replica::config::model::Setting>,
) -> String {
    use crate::replica::config::options::Kind;
    let mut text = String::new();
    for setting in settings {
        let value = match setting.spec.kind {
            Kind::Secret => "(not shown)",
            _ => setting.value.as_str(),
        };
        let _ = write!(text, " --{}={value}", setting.spec.name);
    }
    text
}

fn address_word(address: std::net::SocketAddr) -> String {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    format!("{family}:{address}")
}

fn usage() -> String {
    let mut text =
        "USAGE: drbdadm [-d] [-c FILE] COMMAND [OPTION...] {all|RESOURCE...}\n\nCOMMANDS:"
            .to_owned();
    for pair in COMMANDS
        .iter()
        .filter(|name| !name.starts_with("sh-"))
        .collect::<Vec<_>>()
        .chunks(4)
    {
        text.push_str("\n ");
        for name in pair {
            let _ = write!(text, "{name:<22}");
        }
    }
    format!(
        "{text}\n\nVersion: 9.22.0 (api:1) spoken by halab-agent {}",
        env!("CARGO_PKG_VERSION")
    )
}

fn version() -> String {
    format!(
        "DRBDADM_BUILDTAG=halab-agent\\ {}\nDRBDADM_API_VERSION=1\nDRBD_KERNEL_VERSION_CODE=0x08040b\nDRBDADM_VERSION_CODE=0x091600\nDRBDADM_VERSION=9.22.0",
        env!("CARGO_PKG_VERSION")
    )
}

fn help(words: &Words) -> u8 {
    let unknown = words
        .names
        .iter()
        .find(|name| !COMMANDS.contains(&name.as_str()));
    if let Some(name) = unknown {
        complain(&format!("drbdadm: Unknown command '{name}'"));
        return WRONG;
    }
    say(&usage());
    DONE
}
