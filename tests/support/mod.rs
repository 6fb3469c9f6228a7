//! A lab for a test: the real binary, state of its own, taken down at the end.

#![expect(dead_code, reason = "each test program uses its own part")]

pub(crate) mod guest;
pub(crate) mod programs;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) command: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Returns standard output, or says everything when the command did not end with 0.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// Returns both outputs joined, or says everything when the exit code is another.
    #[track_caller]
    pub(crate) fn failure(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self}");
        self.stdout + &self.stderr
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            command,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            formatter,
            "`{command}` ended with {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// An SSH session that has something to do.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    stdout: ChildStdout,
}

impl Session {
    /// It goes on: what is said to it comes back.
    pub(crate) fn goes_on(mut self) {
        let mut stdin = self.child.stdin.take().expect("piped");
        stdin.write_all(b"still here\n").expect("the session reads");
        drop(stdin);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        assert!(self.child.wait().expect("ends").success());
        assert_eq!(rest, "still here\n");
    }
}

/// One lab with a state folder of its own. All labs of a test run share the cache, so that
/// the image is built and booted cold once.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) name: String,
    state: tempfile::TempDir,
    cache: PathBuf,
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let state = tempfile::Builder::new()
            .prefix("halab-test-")
            .tempdir()
            .expect("a folder");
        Self {
            name: name.to_owned(),
            state,
            cache: cache_home(),
        }
    }

    /// A `halab` command on this lab, not yet started.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(programs::program("halab"));
        command
            .args(args)
            .env("HALAB_LAB", &self.name)
            .env("XDG_STATE_HOME", self.state.path())
            .env("XDG_CACHE_HOME", &self.cache)
            .env_remove("HALAB_DIR")
            .stdin(Stdio::null());
        command
    }

    /// Runs `halab` to its end.
    pub(crate) fn halab<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Finished {
        finish(self.command(args))
    }

    /// Runs a shell command on a machine of the lab.
    pub(crate) fn ssh(&self, machine: &str, script: &str) -> Finished {
        self.halab(["ssh", machine, "--", script])
    }

    /// Opens a session with a running command on a machine, such as a student's editor.
    pub(crate) fn session(&self, machine: &str) -> Session {
        let mut child = self
            .command([
                "ssh",
                machine,
                "--",
                "echo begun; read line; echo \"$line\"",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ssh starts");
        let mut stdout = child.stdout.take().expect("piped");
        let mut begun = [0; 6];
        stdout.read_exact(&mut begun).expect("the session greets");
        Session { child, stdout }
    }

    /// Runs a shell command on the client machine.
    pub(crate) fn client(&self, script: &str) -> Finished {
        self.halab(["shell", "--", "sh", "-c", script])
    }

    /// Says something to a machine's QEMU, as another program would; returns its last answer.
    pub(crate) fn qmp(&self, machine: &str, commands: &[&str]) -> String {
        let socket = self
            .state_dir()
            .join(format!("machines/{machine}/qmp.sock"));
        let mut stream = UnixStream::connect(&socket)
            .unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a deadline");
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut answer = String::new();
        let mut read = |kind: &str| {
            answer.clear();
            // Events come in between.
            while !answer.contains(kind) {
                answer.clear();
                let count = lines.read_line(&mut answer).expect("QEMU answers");
                assert_ne!(count, 0, "QEMU closed its monitor");
                assert!(!answer.contains("\"error\""), "{answer}");
            }
            answer.clone()
        };
        read("\"QMP\"");
        let negotiate = r#"{"execute": "qmp_capabilities"}"#;
        let mut last = String::new();
        for command in std::iter::once(&negotiate).chain(commands) {
            stream
                .write_all(format!("{command}\n").as_bytes())
                .expect("QEMU listens");
            last = read("\"return\"");
        }
        last
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state.path().join("halab").join(&self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.halab(["down", "--purge"]);
    }
}

pub(crate) fn finish(mut command: Command) -> Finished {
    let shown = format!("{command:?}");
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("failed to start {shown}: {error}"));
    Finished {
        command: shown,
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// The same, with something to read on standard input.
pub(crate) fn finish_with(mut command: Command, input: &[u8]) -> Finished {
    let shown = format!("{command:?}");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start {shown}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    // The command may say much before it has read all.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the child was started");
    let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if let Err(error) = writer.join().expect("the writer does not panic") {
        stderr.extend(["\nfailed to write its input: ", &error.to_string()]);
    }
    Finished {
        command: shown,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr,
    }
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn cache_home() -> PathBuf {
    std::env::var_os("HALAB_TEST_CACHE").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
        PathBuf::from,
    )
}
