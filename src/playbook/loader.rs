//! This machine's files and environment for the language (a shell).

use std::io;
use std::path::Path;

use super::files::{SourceLoader, normal};

/// Larger files are not configuration; reading them would only fill the memory.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// This machine's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl SourceLoader for Disk {
    fn read(&self, path: &str) -> Result<String, String> {
        let size = std::fs::metadata(path).map_err(|error| reason(&error))?;
        if size.is_dir() {
            return Err("it is a directory".to_owned());
        }
        if size.len() > FILE_BYTES_MAX {
            return Err(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20));
        }
        std::fs::read_to_string(path).map_err(|error| reason(&error))
    }

    fn is_file(&self, path: &str) -> bool {
        Path::new(path).is_file()
    }

    fn is_directory(&self, path: &str) -> bool {
        Path::new(path).is_dir()
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    fn environment(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn absolute(&self, path: &str) -> String {
        let base = std::env::current_dir().unwrap_or_default();
        normal(&base.join(path))
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    }
}
