//! The agent's binary on this machine: where it is, what it is called on a guest.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Hexadecimal digits of the hash in the uploaded file's name; 64 bits tell builds apart.
const HASH_DIGITS: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum AgentFileError {
    #[error(
        "halab-agent is not beside {}; `cargo build` and `cargo install` put it there, or set HALAB_AGENT to its path",
        program.display()
    )]
    Missing { program: PathBuf },
    #[error("failed to read the agent {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// The agent that belongs to this halab.
#[derive(Clone, Debug)]
pub struct AgentFile {
    pub path: PathBuf,
    pub content: Arc<[u8]>,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
}

impl AgentFile {
    /// Reads the binary that `HALAB_AGENT` names, else the one beside the running program.
    pub fn find() -> Result<Self, AgentFileError> {
        if let Some(path) = env::var_os("HALAB_AGENT") {
            return Self::read(Path::new(&path));
        }
        let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("halab"));
        // A test's binary lies one folder deeper than the programs it tests.
        let folders = program.ancestors().skip(1).take(2);
        folders
            .map(|folder| folder.join("halab-agent"))
            .find(|path| path.is_file())
            .map_or_else(
                || {
                    Err(AgentFileError::Missing {
                        program: program.clone(),
                    })
                },
                |path| Self::read(&path),
            )
    }

    fn read(path: &Path) -> Result<Self, AgentFileError> {
        let content = fs::read(path).map_err(|source| AgentFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            sha256: sha256(&content),
            content: content.into(),
        })
    }

    /// The file's name on a guest: another build has another name, so none is overwritten
    /// while it runs.
    pub fn remote_name(&self) -> String {
        format!("halab-agent-{}", &self.sha256[..HASH_DIGITS])
    }
}

fn sha256(content: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(content) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_on_a_guest_follows_the_content() {
        let file = AgentFile {
            path: PathBuf::from("x"),
            sha256: sha256(b"abc"),
            content: Arc::from(&b"abc"[..]),
        };
        assert_eq!(file.remote_name(), "halab-agent-ba7816bf8f01cfea");
    }
}
