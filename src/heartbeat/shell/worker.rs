//! The thread that runs resource commands, so that a slow script never delays a heartbeat.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::resource::Handler;
use crate::heartbeat::jobs::{Outcome, ResourceCommand};

/// A command that ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) command: ResourceCommand,
    pub(super) outcome: Outcome,
    /// What a failure said.
    pub(super) complaint: Option<String>,
}

/// The driver's end. Dropping it lets the thread end after its command.
#[derive(Debug)]
pub(super) struct Worker {
    commands: Sender<ResourceCommand>,
    done: Receiver<Done>,
    bell: UnixStream,
}

impl Worker {
    pub(super) fn start(handlers: Vec<Vec<Handler>>) -> io::Result<Self> {
        let (commands, to_run) = channel::<ResourceCommand>();
        let (ended, done) = channel();
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        thread::Builder::new()
            .name("resources".into())
            .spawn(move || run(&handlers, &to_run, &ended, rope))?;
        Ok(Self {
            commands,
            done,
            bell,
        })
    }

    /// Hands a command over; at most one is under way (see jobs.rs).
    pub(super) fn run(&self, command: ResourceCommand) {
        self.commands
            .send(command)
            .expect("the thread ends only after this end is dropped");
    }

    /// Readable when something ended.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn take_done(&mut self) -> Vec<Done> {
        let mut rings = [0; 16];
        // Only the bell's state matters, not how often it rang.
        let _ = self.bell.read(&mut rings);
        self.done.try_iter().collect()
    }
}

fn run(
    handlers: &[Vec<Handler>],
    commands: &Receiver<ResourceCommand>,
    ended: &Sender<Done>,
    mut rope: UnixStream,
) {
    for command in commands {
        let handler = &handlers[command.group][command.resource];
        let (outcome, complaint) = handler.run(command.verb);
        let done = Done {
            command,
            outcome,
            complaint,
        };
        if ended.send(done).is_err() || rope.write_all(&[1]).is_err() {
            return;
        }
    }
}
