//! The file a daemon leaves what it was told in, for the one after it should it die.
//!
//! It lies where nothing outlives the machine's run: after a boot nobody waits for a device.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::replica::control::SOCKET_DIR;
use crate::replica::recovery::Record;

/// One resource's file.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    written: Record,
}

impl RecordFile {
    /// The file, and what an earlier daemon left in it.
    pub fn open(resource: &str) -> (Self, Option<Record>) {
        let path = PathBuf::from(format!("{SOCKET_DIR}/{resource}.told"));
        let left = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
        let file = Self {
            path,
            written: left.clone().unwrap_or_default(),
        };
        (file, left)
    }

    /// Writes what changed; whoever reads sees the old or the new, never a part.
    pub fn write(&mut self, record: Record) -> io::Result<()> {
        if record == self.written {
            return Ok(());
        }
        let beside = self.path.with_extension("told-new");
        // The shared secret is in it.
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&serde_json::to_vec(&record)?)?;
        fs::rename(&beside, &self.path)?;
        self.written = record;
        Ok(())
    }

    /// The resource is down: nothing is to be taken up again.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}
