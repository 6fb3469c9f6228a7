//! Makes the host ready for a lab: looks, and where halab may, installs what is missing.
//!
//! [`super::probe`] looks, [`super::doctor`] judges and plans, and this carries the plan out.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::doctor::{self, Finding, HostFacts, Repair, State};
use super::image::Image;
use super::image_plan::PackageLog;
use super::probe;
use super::progress::Progress;
use super::spec::Accelerator;

/// How much of apt's output is shown when it fails.
const TAIL_LINES: usize = 12;

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("this machine lacks what a lab needs{}", Lacks(findings))]
    Missing { findings: Vec<Finding> },
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to start {command}")]
    Start { command: String, source: io::Error },
    #[error("failed to install packages: `{command}` failed\n{tail}\nthe whole log is {}", log.display())]
    Apt {
        command: String,
        tail: String,
        log: PathBuf,
    },
}

/// The host as it was looked at, and the verdict.
#[derive(Clone, Debug)]
pub struct Examination {
    pub facts: HostFacts,
    pub findings: Vec<Finding>,
}

impl Examination {
    /// Looks at the host; takes some milliseconds once KVM has been tried.
    pub fn of_host(cache_dir: &Path, image: &Image, progress: &dyn Progress) -> Self {
        let facts = probe::examine(cache_dir, image, progress);
        let findings = doctor::diagnose(&facts);
        Self { facts, findings }
    }

    pub fn is_ready(&self) -> bool {
        !self.findings.iter().any(Finding::is_missing)
    }

    pub fn accelerator(&self) -> Accelerator {
        doctor::accelerator(&self.facts.kvm)
    }

    /// What apt could do about what is missing.
    pub fn repair(&self) -> Option<Repair> {
        doctor::repair(&self.findings, &self.facts.os, &probe::apt_sources())
    }

    fn into_result(self) -> Result<Accelerator, HostError> {
        if self.is_ready() {
            return Ok(self.accelerator());
        }
        Err(HostError::Missing {
            findings: self
                .findings
                .into_iter()
                .filter(Finding::is_missing)
                .collect(),
        })
    }
}

/// Returns how the machines will run, after installing as root what was missing for that.
///
/// Called before every lab is started, and again once its image is built: only then can the
/// image's own kernel prove KVM. Blocks for as long as apt takes, where that is needed.
pub fn ensure(
    cache_dir: &Path,
    image: &Image,
    progress: &dyn Progress,
) -> Result<Accelerator, HostError> {
    let examination = Examination::of_host(cache_dir, image, progress);
    if examination.is_ready() || !examination.facts.is_root {
        return examination.into_result();
    }
    let Some(repair) = examination.repair() else {
        return examination.into_result();
    };
    carry_out(&repair, cache_dir, progress)?;
    Examination::of_host(cache_dir, image, progress).into_result()
}

/// Lets apt install what the plan names. Needs root.
pub fn carry_out(
    repair: &Repair,
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<(), HostError> {
    progress.note(&format!("installing {}", repair.packages.join(" ")));
    let log = cache_dir.join("apt.log");
    fs::create_dir_all(cache_dir).map_err(|source| write_failed(cache_dir, source))?;
    fs::write(&log, "").map_err(|source| write_failed(&log, source))?;
    if let Some((path, content)) = &repair.sources {
        progress.note(&format!("adding a source of packages: {path}"));
        write_whole(Path::new(path), content)?;
    }
    let done = repair
        .commands
        .iter()
        .try_for_each(|words| run_apt(words, &log, progress));
    progress.done();
    done
}

fn run_apt(words: &[String], log: &Path, progress: &dyn Progress) -> Result<(), HostError> {
    let command = words.join(" ");
    let start_failed = |source| HostError::Start {
        command: command.clone(),
        source,
    };
    progress.step("reading the lists of packages");
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .args(words)
        .env("PATH", probe::search_path())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(start_failed)?;
    let output = child.stdout.take().expect("the output was asked for above");
    let mut file = File::options()
        .append(true)
        .open(log)
        .map_err(|source| write_failed(log, source))?;
    let mut packages = PackageLog::default();
    let mut said = Vec::new();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        // A log that cannot be written does not stop an installation half-way.
        let _ = writeln!(file, "{line}");
        if let Some(step) = packages.line(&line) {
            step.show(progress, "preparing this machine");
        }
        said.push(line);
    }
    let status = child.wait().map_err(start_failed)?;
    if status.success() {
        return Ok(());
    }
    Err(HostError::Apt {
        command,
        tail: said[said.len().saturating_sub(TAIL_LINES)..].join("\n"),
        log: log.to_owned(),
    })
}

/// apt reads its sources at any time: it sees the whole file or none.
fn write_whole(path: &Path, content: &str) -> Result<(), HostError> {
    let unfinished = path.with_extension("halab-new");
    fs::write(&unfinished, content)
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(|source| write_failed(path, source))
}

fn write_failed(path: &Path, source: io::Error) -> HostError {
    HostError::Write {
        path: path.to_owned(),
        source,
    }
}

/// What is missing, why it is needed and how to get it, a paragraph each.
struct Lacks<'findings>(&'findings [Finding]);

impl fmt::Display for Lacks<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in self.0 {
            if let State::Missing(lack) = &finding.state {
                write!(
                    formatter,
                    "\n  {}: {}\n    {}\n    {}",
                    finding.name, lack.what, lack.why, lack.how
                )?;
            }
        }
        Ok(())
    }
}
