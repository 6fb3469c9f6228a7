//! The agent's binary on this machine: where it is, what it is called on a guest.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::base::hex::hex;

/// Hexadecimal digits of the hash in the uploaded file's name; 64 bits tell builds apart.
const HASH_DIGITS: usize = 16;

/// Where the agent lies on a guest whose login may write there.
pub const GUEST_FOLDER: &str = "/usr/local/lib/halab";
/// The name by which people and playbooks call it, in the same folder.
pub const GUEST_LINK: &str = "halab-agent";

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

/// The agent that belongs to this halab; read when a host first asks for it.
#[derive(Clone, Debug)]
pub struct AgentFile {
    pub path: PathBuf,
    binary: Arc<OnceLock<AgentBinary>>,
}

/// The agent's content, to be sent to hosts.
#[derive(Debug)]
pub struct AgentBinary {
    pub content: Vec<u8>,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    gzip: OnceLock<Vec<u8>>,
}

impl AgentFile {
    /// Finds the binary that `HALAB_AGENT` names, else the one beside the running program.
    pub fn find() -> Result<Self, AgentFileError> {
        if let Some(path) = env::var_os("HALAB_AGENT") {
            return Ok(Self::at(PathBuf::from(path)));
        }
        let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("halab"));
        // A test's binary lies one folder deeper than the programs it tests.
        let folders = program.ancestors().skip(1).take(2);
        folders
            .map(|folder| folder.join("halab-agent"))
            .find(|path| path.is_file())
            .map(Self::at)
            .ok_or_else(|| AgentFileError::Missing {
                program: program.clone(),
            })
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            binary: Arc::default(),
        }
    }

    /// Returns the content, read and hashed once.
    pub fn binary(&self) -> Result<&AgentBinary, AgentFileError> {
        if let Some(binary) = self.binary.get() {
            return Ok(binary);
        }
        let content = fs::read(&self.path).map_err(|source| AgentFileError::Read {
            path: self.path.clone(),
            source,
        })?;
        Ok(self.binary.get_or_init(|| AgentBinary::new(content)))
    }
}

impl AgentBinary {
    pub(super) fn new(content: Vec<u8>) -> Self {
        Self {
            sha256: hex(&Sha256::digest(&content)),
            content,
            gzip: OnceLock::new(),
        }
    }

    /// Returns the content as it is uploaded, compressed once: what an emulated guest saves
    /// by deciphering half as much is twice what it takes to unpack. A better compression
    /// would cost this machine more than it spares the guests.
    pub fn gzip(&self) -> &[u8] {
        self.gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder
                .write_all(&self.content)
                .and_then(|()| encoder.finish())
                .expect("memory takes what is written")
        })
    }

    /// The file's name on a guest: another build has another name, so none is overwritten
    /// while it runs.
    pub fn remote_name(&self) -> String {
        format!("halab-agent-{}", &self.sha256[..HASH_DIGITS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_on_a_guest_follows_the_content() {
        let binary = AgentBinary::new(b"abc".to_vec());
        assert_eq!(binary.remote_name(), "halab-agent-ba7816bf8f01cfea");
    }
}
