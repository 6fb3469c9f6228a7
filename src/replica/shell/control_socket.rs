//! The tools' way to the daemon: a socket, a command as a line, an answer as a line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::replica::control::{Answer, Command, LINE_BYTES_MAX, SOCKET_DIR, socket_path};

/// Where tools connect to; gone with the value.
#[derive(Debug)]
pub struct ControlListener {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlListener {
    /// Listens for a resource's tools; refused while another daemon does.
    pub fn new(resource: &str) -> io::Result<Self> {
        std::fs::create_dir_all(SOCKET_DIR)?;
        std::fs::set_permissions(SOCKET_DIR, std::fs::Permissions::from_mode(0o700))?;
        let path = PathBuf::from(socket_path(resource));
        if UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("a daemon for {resource} is running already"),
            ));
        }
        // Of a daemon that was killed.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub fn accept(&self) -> io::Result<Client> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            line: Vec::new(),
            asked: false,
        })
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A tool that is connected.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    asked: bool,
}

/// What a tool said.
#[derive(Debug)]
pub enum Said {
    Nothing,
    Command(Box<Command>),
    Gone,
}

impl Client {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads on; a command is said once.
    pub fn read(&mut self) -> Said {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Said::Gone,
                Ok(length) => self.line.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Said::Gone,
            }
            if self.line.len() > LINE_BYTES_MAX {
                return Said::Gone;
            }
        }
        if self.asked || !self.line.ends_with(b"\n") {
            return Said::Nothing;
        }
        self.asked = true;
        serde_json::from_slice(&self.line)
            .map_or(Said::Gone, |command| Said::Command(Box::new(command)))
    }

    /// Answers; a tool that does not listen misses it.
    pub fn answer(&mut self, answer: &Answer) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            let _ = self.stream.set_nonblocking(false);
            let _ = self
                .stream
                .set_write_timeout(Some(std::time::Duration::from_secs(1)));
            let _ = self.stream.write_all(&line);
        }
    }
}

/// Asks a resource's daemon; waits as long as it takes to answer.
pub fn ask(resource: &str, command: &Command) -> io::Result<Answer> {
    ask_at(Path::new(&socket_path(resource)), command)
}

/// The same, for a socket by its path.
pub fn ask_at(path: &Path, command: &Command) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}
