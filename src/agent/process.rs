//! Child processes of tasks: in a group of their own, with their output collected, and
//! killed with all their descendants when the task ends before them.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::error::ModuleError;
use super::work::Work;

/// How often a child whose output is silent is looked at: whether it ended while
/// something it left behind holds its output open, and whether the task was ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How much of each stream is kept. More would not fit into an answer's frame.
const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub argv: Vec<String>,
    pub directory: Option<PathBuf>,
    pub stdin: Vec<u8>,
    /// For the agent's own use: found in the system's directories, speaks plain English.
    pub is_tool: bool,
}

/// What it left behind.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code, or the negative number of the signal that killed it.
    pub rc: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ended {
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Runs a tool of the system; its exit code is the caller's to judge.
pub fn tool<S: AsRef<str>>(work: &Work, argv: &[S]) -> Result<Ended, ModuleError> {
    let program = Program {
        argv: argv.iter().map(|word| word.as_ref().to_owned()).collect(),
        is_tool: true,
        ..Program::default()
    };
    run(work, &program)
}

/// Runs a tool of the system that has to succeed.
pub fn must<S: AsRef<str>>(work: &Work, argv: &[S]) -> Result<Ended, ModuleError> {
    let ended = tool(work, argv)?;
    if ended.rc == 0 {
        return Ok(ended);
    }
    let words: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    Err(ModuleError::Program {
        command: words.join(" "),
        rc: ended.rc,
        stderr: ended.stderr_text().trim_end().to_owned(),
    })
}

/// Runs a program to its end.
pub fn run(work: &Work, program: &Program) -> Result<Ended, ModuleError> {
    work.lifeline.check()?;
    let mut command = Command::new(&program.argv[0]);
    command
        .args(&program.argv[1..])
        .stdin(if program.stdin.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .envs(work.environment.iter().cloned());
    if program.is_tool {
        command
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", tool_path(work));
    }
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    if !work.lifeline.shares_group() {
        command.process_group(0);
    }
    let mut child = command
        .spawn()
        .map_err(|error| not_started(program, error))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id is an i32"));
    let adopted = work.lifeline.adopt(pid);
    let collected = Collector::new(&mut child, &program.stdin)
        .and_then(|collector| collector.collect(&mut child, work))
        .map_err(ModuleError::system("collect a child's output"))
        .and_then(|ended| ended.map_or_else(|| Err(ended_early(work)), Ok));
    if collected.is_err() {
        adopted.kill();
        let _ = child.kill();
        let _ = child.wait();
    }
    collected
}

fn ended_early(work: &Work) -> ModuleError {
    work.lifeline
        .check()
        .err()
        .unwrap_or(ModuleError::Cancelled)
}

/// Returns where tools are looked for: people's own PATH may lack the system's part.
fn tool_path(work: &Work) -> String {
    let own = work.variable("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

fn not_started(program: &Program, source: io::Error) -> ModuleError {
    let attempt = match &program.directory {
        Some(directory) if !directory.is_dir() => {
            format!("change to the directory {}", directory.display())
        }
        _ => format!("run `{}`", program.argv[0]),
    };
    ModuleError::System { attempt, source }
}

/// One of a child's output streams.
struct Stream<R> {
    source: Option<R>,
    bytes: Vec<u8>,
}

/// A child's three streams while it runs.
struct Collector<'a> {
    input: Option<std::process::ChildStdin>,
    to_write: &'a [u8],
    stdout: Stream<std::process::ChildStdout>,
    stderr: Stream<std::process::ChildStderr>,
}

impl<'a> Collector<'a> {
    fn new(child: &mut Child, to_write: &'a [u8]) -> io::Result<Self> {
        let collector = Self {
            input: child.stdin.take(),
            to_write,
            stdout: Stream::new(child.stdout.take()),
            stderr: Stream::new(child.stderr.take()),
        };
        for fd in collector.fds() {
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(collector)
    }

    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let outputs = self.stdout.fd().into_iter().chain(self.stderr.fd());
        outputs.chain(self.input.as_ref().map(AsFd::as_fd))
    }

    /// Reads until the streams end or the child does; `None`: the task was ended.
    fn collect(mut self, child: &mut Child, work: &Work) -> io::Result<Option<Ended>> {
        while self.stdout.is_open() || self.stderr.is_open() {
            self.wait_for_something()?;
            self.write_input();
            let is_quiet = !self.stdout.read()? & !self.stderr.read()?;
            if work.lifeline.check().is_err() {
                return Ok(None);
            }
            if is_quiet && let Some(status) = child.try_wait()? {
                // What it left behind may hold the streams open for ever.
                self.stdout.read()?;
                self.stderr.read()?;
                return Ok(Some(self.ended(status)));
            }
        }
        drop(self.input.take());
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(self.ended(status)));
            }
            if work.lifeline.wait(pause).is_err() {
                return Ok(None);
            }
            pause = (pause * 2).min(LOOK_INTERVAL);
        }
    }

    fn wait_for_something(&self) -> io::Result<()> {
        let timeout = PollTimeout::try_from(LOOK_INTERVAL).unwrap_or(PollTimeout::ZERO);
        let readable = [self.stdout.fd(), self.stderr.fd()];
        let mut fds: Vec<PollFd<'_>> = readable
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let input = self.input.as_ref().map(AsFd::as_fd);
        fds.extend(input.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        match poll(&mut fds, timeout) {
            Err(nix::Error::EINTR) | Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what the child takes; one that does not read its input is no error.
    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        match input.write(self.to_write) {
            Ok(written) => self.to_write = &self.to_write[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.to_write = &[],
        }
        if self.to_write.is_empty() {
            self.input = None;
        }
    }

    fn ended(self, status: ExitStatus) -> Ended {
        let signal = status.signal().map(|signal| -signal);
        Ended {
            rc: status.code().or(signal).unwrap_or(-1),
            stdout: self.stdout.bytes,
            stderr: self.stderr.bytes,
        }
    }
}

impl<R: Read + AsFd> Stream<R> {
    fn new(source: Option<R>) -> Self {
        Self {
            source,
            bytes: Vec::new(),
        }
    }

    fn is_open(&self) -> bool {
        self.source.is_some()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there; returns whether there was anything, its end included.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let mut found = false;
        while let Some(source) = &mut self.source {
            match source.read(&mut buffer) {
                Ok(0) => self.source = None,
                Ok(count) => {
                    let room = OUTPUT_BYTES_MAX - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            found = true;
        }
        Ok(found)
    }
}

/// A clock for the start and end of commands.
#[derive(Debug)]
pub struct Stopwatch {
    started: Instant,
    started_unix: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            started_unix: unix_now(),
        }
    }

    /// Returns start, end (both since 1970) and what lies between.
    pub fn stop(&self) -> (Duration, Duration, Duration) {
        let elapsed = self.started.elapsed();
        (self.started_unix, self.started_unix + elapsed, elapsed)
    }
}

pub fn unix_now() -> Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}
