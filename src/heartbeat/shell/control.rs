//! The socket through which the tools speak to the daemon: one line there, one text back.
//!
//! | line | answer |
//! |---|---|
//! | `status` | the snapshot as JSON |
//! | `standby SHARE`, `takeover SHARE` | `ok`, or `error: …` |
//! | `stop` | `ok`; the daemon ends later |

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// A tool that does not speak or read for so long is left.
const CLIENT_WAIT: Duration = Duration::from_secs(5);

/// Longest line taken.
const LINE_BYTES_MAX: u64 = 256;

/// Longest answer read; a snapshot of two nodes has a few KiB.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// A tool's wish, and where the answer goes.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) line: String,
    pub(super) answer: Sender<String>,
}

/// The daemon's end.
#[derive(Debug)]
pub(super) struct Control {
    wishes: Receiver<Wish>,
    bell: UnixStream,
}

impl Control {
    /// Listens at a path; only root may connect.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let (send, wishes) = channel();
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        thread::Builder::new()
            .name("control".into())
            .spawn(move || serve(&listener, &send, rope))?;
        Ok(Self { wishes, bell })
    }

    /// Readable when a tool has a wish.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn take_wishes(&mut self) -> Vec<Wish> {
        let mut rings = [0; 16];
        // Only the bell's state matters, not how often it rang.
        let _ = self.bell.read(&mut rings);
        self.wishes.try_iter().collect()
    }
}

/// One tool after the other: they are people's.
fn serve(listener: &UnixListener, wishes: &Sender<Wish>, mut rope: UnixStream) {
    for client in listener.incoming().flatten() {
        let (answer, to_client) = channel();
        let Ok(line) = read_line(&client) else {
            continue;
        };
        let wish = Wish { line, answer };
        if wishes.send(wish).is_err() || rope.write_all(&[1]).is_err() {
            return;
        }
        if let Ok(text) = to_client.recv_timeout(CLIENT_WAIT) {
            let mut client = client;
            // A tool that went away does not want it any more.
            let _ = client.write_all(text.as_bytes());
        }
    }
}

fn read_line(client: &UnixStream) -> io::Result<String> {
    client.set_read_timeout(Some(CLIENT_WAIT))?;
    client.set_write_timeout(Some(CLIENT_WAIT))?;
    let mut line = String::new();
    BufReader::new(client.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Asks a running daemon.
pub(super) fn ask(path: &Path, line: &str) -> io::Result<String> {
    let mut daemon = UnixStream::connect(path)?;
    daemon.set_read_timeout(Some(CLIENT_WAIT))?;
    daemon.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    daemon.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
