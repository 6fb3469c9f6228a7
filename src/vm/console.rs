//! Shows a machine's serial console on this terminal, until Ctrl-].

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::process::connect_socket;

/// Ctrl-], telnet's way out, for readers of the exercises know it.
const LEAVE: u8 = 0x1d;

/// Puts standard input into raw mode until dropped.
struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Where standard input is no terminal there is nothing to change.
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let Ok(before) = tcgetattr(&stdin) else {
            return Ok(Self { before: None });
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Self {
            before: Some(before),
        })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

/// Joins this terminal and the console until Ctrl-], the end of the input, or the machine's.
pub fn attach(socket: &Path) -> io::Result<()> {
    let mut console = connect_socket(socket, Duration::from_secs(2))?;
    let _raw = RawTerminal::enter()?;
    let mut chunk = [0; 4096];
    loop {
        let (from_user, from_machine) = readable(&console)?;
        if from_machine {
            let count = console.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            let mut stdout = io::stdout().lock();
            stdout.write_all(&chunk[..count])?;
            stdout.flush()?;
        }
        if from_user {
            let count = io::stdin().lock().read(&mut chunk)?;
            let typed = &chunk[..count];
            let leave = typed.iter().position(|byte| *byte == LEAVE);
            console.write_all(&typed[..leave.unwrap_or(count)])?;
            if count == 0 || leave.is_some() {
                return Ok(());
            }
        }
    }
}

/// Waits until either side has something to read: (the user's, the machine's).
fn readable(console: &UnixStream) -> io::Result<(bool, bool)> {
    let stdin = io::stdin();
    let mut sides = [
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        PollFd::new(console.as_fd(), PollFlags::POLLIN),
    ];
    // A person decides how long this takes.
    match poll(&mut sides, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((
        sides[0].any().unwrap_or(false),
        sides[1].any().unwrap_or(false),
    ))
}
