//! One guest that takes shell scripts: a lab's director, or a machine of the developer's.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::programs::program;
use super::{Finished, Lab};

/// Names a command that runs a shell command on some Debian guest as root, such as
/// `ssh root@guest`; then no lab is started.
pub(crate) const GIVEN_GUEST: &str = "HALAB_TEST_GUEST";

#[derive(Debug)]
pub(crate) enum Guest {
    Given(Vec<String>),
    OfLab(Lab),
}

impl Guest {
    /// The given guest, or the director of a lab that is started for it.
    pub(crate) fn new(lab: &str) -> Self {
        if let Ok(command) = std::env::var(GIVEN_GUEST) {
            return Self::Given(command.split_whitespace().map(str::to_owned).collect());
        }
        let lab = Lab::new(lab);
        lab.halab(["up"]).success();
        Self::OfLab(lab)
    }

    /// Runs a script with bash, to its end.
    pub(crate) fn run(&self, script: &str) -> Finished {
        self.feed("bash -s", script.as_bytes())
    }

    /// Puts the agent under this path.
    pub(crate) fn put_agent(&self, path: &str) {
        let agent = program("halab-agent");
        let bytes =
            std::fs::read(&agent).unwrap_or_else(|error| panic!("{}: {error}", agent.display()));
        let command = format!("cat > {path}.new && chmod 755 {path}.new && mv {path}.new {path}");
        self.feed(&command, &bytes).success();
    }

    fn feed(&self, remote: &str, input: &[u8]) -> Finished {
        let mut command = match self {
            Self::Given(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).arg(remote);
                command
            }
            Self::OfLab(lab) => lab.command(["ssh", "saisp-vm-1", "--", remote]),
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_vec();
        // A script may say much before it is read to its end.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("the child was started");
        let written = writer.join().expect("the writer does not panic");
        let mut finished = Finished {
            command: remote.to_owned(),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        if let Err(error) = written {
            let _ = write!(finished.stderr, "\nfailed to write the script: {error}");
        }
        finished
    }
}
