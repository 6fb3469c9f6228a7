//! Keeps the shape of the source: who may do input and output, what every file begins with.
//!
//! A new file is pure until it is added to `SHELLS`, so that each new place of input and
//! output is a visible line in a diff.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that may touch the outside: files, processes, sockets, clocks, a runtime.
const SHELLS: &[&str] = &[
    "src/agent/",
    "src/bin/",
    "src/capture/socket.rs",
    "src/cli/bench.rs",
    "src/cli/bench_failover.rs",
    "src/cli/capture.rs",
    "src/cli/doctor.rs",
    "src/cli/faults/campaign.rs",
    "src/cli/faults/client.rs",
    "src/cli/folder.rs",
    "src/cli/mod.rs",
    "src/cli/run.rs",
    "src/cli/settings.rs",
    "src/vm/host.rs",
    "src/vm/image.rs",
    "src/vm/kvm.rs",
    "src/vm/probe.rs",
    "src/playbook/loader.rs",
    "src/heartbeat/shell/",
    "src/replica/shell/",
    "src/replica/export/",
    "src/replica/tools/",
    "src/ipvs/command.rs",
    "src/ipvs/name_service.rs",
    "src/ipvs/socket.rs",
    "src/ipvs/sockopt.rs",
    "src/vm/progress.rs",
    "src/cli/hosts.rs",
    "src/cli/playbook.rs",
    "src/remote/agent_file.rs",
    "src/remote/agent_link.rs",
    "src/remote/local.rs",
    "src/remote/openssh.rs",
    "src/remote/reconnect.rs",
    "src/report/progress.rs",
    "src/report/recorder.rs",
    "src/cli/exercises.rs",
    "src/cli/topology.rs",
    "src/vm/checkpoint.rs",
    "src/vm/clone.rs",
    "src/vm/console.rs",
    "src/vm/control.rs",
    "src/vm/driver.rs",
    "src/vm/export.rs",
    "src/vm/fault.rs",
    "src/vm/forward.rs",
    "src/vm/keys.rs",
    "src/vm/lab.rs",
    "src/vm/netns.rs",
    "src/vm/offer.rs",
    "src/vm/process.rs",
    "src/vm/qmp.rs",
    "src/vm/remote.rs",
    "src/vm/snapshot.rs",
    "src/vm/state.rs",
    "src/run/action.rs",
    "src/run/dispatcher.rs",
    "src/run/executor.rs",
    "src/run/grading.rs",
    "src/cli/grade.rs",
    "src/cli/submissions.rs",
    "src/run/staged.rs",
];

/// What a pure file may not name.
const OUTSIDE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "Instant::now",
    "SystemTime::now",
    "qapi::",
    "openssh::",
    "indicatif::",
    "nix::",
    "async fn",
];

/// Marks of work that is not done.
const FORGOTTEN: &[&str] = &["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"];

/// What the guest side may not know of, and the host side's own layers.
const HOST_SIDE: &[&str] = &[
    "crate::vm",
    "crate::cli",
    "crate::run::",
    "crate::remote",
    "crate::playbook",
];

#[test]
fn pure_files_do_not_touch_the_outside() {
    let found = lines_with(&["src"], OUTSIDE, |path| {
        SHELLS.iter().any(|shell| path.starts_with(shell))
    });
    assert!(
        found.is_empty(),
        "pure files that touch the outside (move the code, or list the file in SHELLS):\n{}",
        found.join("\n")
    );
}

#[test]
fn every_shell_that_is_listed_is_there() {
    let missing: Vec<_> = SHELLS
        .iter()
        .filter(|shell| !root().join(shell).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "listed in SHELLS and not there: {missing:?}"
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = ["src", "tests"]
        .into_iter()
        .flat_map(sources)
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no //! header: {silent:?}");
}

#[test]
fn nothing_is_left_for_later() {
    let found = lines_with(&["src", "tests"], FORGOTTEN, |path| path == "tests/tidy.rs");
    assert!(found.is_empty(), "left for later:\n{}", found.join("\n"));
}

#[test]
fn the_base_imports_nothing_else() {
    let found: Vec<String> = lines_with(&["src/base"], &["crate::"], |_| false)
        .into_iter()
        .filter(|line| !line.contains("crate::base"))
        .collect();
    assert!(
        found.is_empty(),
        "imports against the layers:\n{}",
        found.join("\n")
    );
}

#[test]
fn the_guest_side_does_not_know_the_host_side() {
    let found = lines_with(&["src/agent", "src/ipvs"], HOST_SIDE, |_| false);
    assert!(
        found.is_empty(),
        "imports against the layers:\n{}",
        found.join("\n")
    );
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Lines of code (no comments, nothing of the inline tests) that hold one of the words.
fn lines_with(below: &[&str], words: &[&str], skipped: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in below.iter().copied().flat_map(sources) {
        if skipped(&path) {
            continue;
        }
        let code = text
            .lines()
            .enumerate()
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (index, line) in code {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{path}:{}: `{word}`: {}", index + 1, line.trim()));
            }
        }
    }
    found
}

/// Every Rust file below a folder, with its path from the root.
fn sources(below: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    visit(&root().join(below), &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(root())
                .expect("it was found below the root");
            let text = fs::read_to_string(&path).expect("a source file is readable text");
            (name.to_string_lossy().into_owned(), text)
        })
        .collect()
}

fn visit(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            visit(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
