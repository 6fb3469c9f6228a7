//! One guest that takes shell scripts: a lab's director, or a machine of the developer's.

use std::process::Command;

use super::programs::program;
use super::{Finished, Lab, finish_with};

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
        let command = match self {
            Self::Given(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).arg(remote);
                command
            }
            Self::OfLab(lab) => lab.command(["ssh", "saisp-vm-1", "--", remote]),
        };
        Finished {
            command: remote.to_owned(),
            ..finish_with(command, input)
        }
    }
}
