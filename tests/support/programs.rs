//! The two programs under test: those just built, or those of a folder that the reader names.

use std::path::{Path, PathBuf};

/// Names a folder with other programs to test: the installed ones, in CI and for figures.
pub(crate) const GIVEN_PROGRAMS: &str = "HALAB_TEST_PROGRAMS";

/// Returns the path of `halab` or `halab-agent`; both are built into one folder.
pub(crate) fn program(name: &str) -> PathBuf {
    match std::env::var_os(GIVEN_PROGRAMS) {
        Some(folder) => Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(folder)
            .join(name),
        None => Path::new(env!("CARGO_BIN_EXE_halab")).with_file_name(name),
    }
}
