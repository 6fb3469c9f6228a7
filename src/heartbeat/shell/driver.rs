//! One run of a node: the loop that owns it. Nothing else touches the state machine.
//!
//! In each turn: wait until something comes or is due; read all packets; take what
//! scripts and tools say; only then let time pass, so that a packet that waited while
//! this process slept counts before the silence does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::control::{Control, Wish};
use super::daemon::unix_now;
use super::journal::Journal;
use super::media::Media;
use super::pinger::Pinger;
use super::worker::Worker;
use crate::heartbeat::config::Config;
use crate::heartbeat::effect::{Level, Share};
use crate::heartbeat::node::{Action, Exit, Identity, Node, Now};

/// Turns of reading before time passes anyway: a flood must not stop the clock.
const READ_TURNS_MAX: u32 = 32;

/// What a run needs of the outside.
pub(super) struct Outside<'a> {
    pub(super) media: Media,
    pub(super) worker: Worker,
    pub(super) pinger: Pinger,
    pub(super) control: &'a mut Control,
    pub(super) signals: &'a mut SignalFd,
    pub(super) journal: &'a mut Journal,
    /// The clock's origin.
    pub(super) started: Instant,
}

/// Runs a node until it is gone.
pub(super) fn run(config: Config, identity: Identity, outside: Outside<'_>) -> io::Result<Exit> {
    let mut driver = Driver {
        interfaces: config
            .ha_cf
            .media
            .iter()
            .map(|medium| medium.interface.text.clone())
            .collect(),
        outside,
        exit: None,
    };
    let now = driver.now();
    let (mut node, actions) = Node::new(config, identity, &load(), now);
    driver.perform(actions);
    while driver.exit.is_none() {
        driver.turn(&mut node)?;
    }
    Ok(driver.exit.unwrap_or(Exit::Stopped))
}

struct Driver<'a> {
    outside: Outside<'a>,
    interfaces: Vec<String>,
    exit: Option<Exit>,
}

impl Driver<'_> {
    fn now(&self) -> Now {
        Now {
            at: self.outside.started.elapsed(),
            unix_seconds: unix_now(),
        }
    }

    fn turn(&mut self, node: &mut Node) -> io::Result<()> {
        self.wait(node.deadline())?;
        self.read_packets(node);
        for host in self.outside.pinger.answers() {
            let actions = node.ping_answer(host, self.now());
            self.perform(actions);
        }
        self.take_signals(node)?;
        for done in self.outside.worker.take_done() {
            if let Some(complaint) = &done.complaint {
                self.outside.journal.write(Level::Error, complaint);
            }
            let actions = node.outcome(done.command.token, done.outcome, self.now());
            self.perform(actions);
        }
        for wish in self.outside.control.take_wishes() {
            self.grant(node, &wish);
        }
        let now = self.now();
        if node.deadline().is_some_and(|deadline| deadline <= now.at) {
            node.set_load(&load());
            let actions = node.timeout(now);
            self.perform(actions);
        }
        Ok(())
    }

    fn wait(&self, deadline: Option<Duration>) -> io::Result<()> {
        let left = deadline.map_or(Duration::from_secs(60), |deadline| {
            deadline.saturating_sub(self.now().at)
        });
        // Rounded up: a millisecond early would be a turn for nothing.
        let millis = left.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let fds = self.outside.media.fds().chain(self.outside.pinger.fd());
        let fds = fds.chain([
            self.outside.worker.fd(),
            self.outside.control.fd(),
            self.outside.signals.as_fd(),
        ]);
        let mut fds: Vec<PollFd<'_>> = fds.map(readable).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read_packets(&mut self, node: &mut Node) {
        for _ in 0..READ_TURNS_MAX {
            let now = self.now();
            let mut actions = Vec::new();
            let is_more = self.outside.media.receive(|medium, packet| {
                actions.extend(node.packet(medium, packet, now));
            });
            self.perform(actions);
            if !is_more {
                return;
            }
        }
    }

    fn take_signals(&mut self, node: &mut Node) -> io::Result<()> {
        // The only signals asked for end the daemon.
        while self.outside.signals.read_signal()?.is_some() {
            let actions = node.stop(self.now());
            self.perform(actions);
        }
        Ok(())
    }

    fn grant(&mut self, node: &mut Node, wish: &Wish) {
        let now = self.now();
        let (verb, word) = wish.line.split_once(' ').unwrap_or((&wish.line, "all"));
        let result = match verb {
            "status" => {
                serde_json::to_string(&node.snapshot(now)).map_err(|error| error.to_string())
            }
            "standby" => match Share::parse(word) {
                Some(share) => {
                    let (result, actions) = node.stand_by(share, now);
                    self.perform(actions);
                    result.map(|()| "ok".into())
                }
                None => Err(format!("`{word}` is not all, local, foreign or failback")),
            },
            "takeover" => {
                let (result, actions) = node.take_over(word, now);
                self.perform(actions);
                result.map(|()| "ok".into())
            }
            "stop" => {
                let actions = node.stop(now);
                self.perform(actions);
                Ok("ok".into())
            }
            other => Err(format!("unknown wish `{other}`")),
        };
        let text = result.unwrap_or_else(|error| format!("error: {error}"));
        // The tool may have gone away.
        let _ = wish.answer.send(text);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(packet) => self.send(&packet),
                Action::Ping(hosts) => self.outside.pinger.ask(&hosts),
                Action::Run(command) => self.outside.worker.run(command),
                Action::Log(level, text) => self.outside.journal.write(level, &text),
                Action::Reboot(why) => {
                    self.outside.journal.write(Level::Critical, &why);
                    reboot();
                }
                Action::Exit(exit) => self.exit = Some(exit),
            }
        }
    }

    fn send(&mut self, packet: &[u8]) {
        for change in self.outside.media.send(packet) {
            let interface = &self.interfaces[change.medium];
            let (level, text) = change.error.map_or_else(
                || (Level::Info, format!("{interface} sends again")),
                |error| {
                    (
                        Level::Error,
                        format!("Unable to send on {interface}: {error}"),
                    )
                },
            );
            self.outside.journal.write(level, &text);
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// Returns the first line of `/proc/loadavg`, or what heartbeat sends without one.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "n/a".into())
}

/// At once and without a goodbye: a file system that cannot be unmounted here must not be
/// mounted there while this machine still writes.
fn reboot() {
    nix::unistd::sync();
    // Without the right to it the kernel refuses, and the daemon goes on holding.
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
}
