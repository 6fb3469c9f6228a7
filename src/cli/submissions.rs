//! `halab export`, and `halab grade --submission`: many hand-ins, each in a lab of its own.
//!
//! ```text
//! grade files read ─► hand-ins listed, hashed; those graded before are taken from the cache
//!   workers, as many as fit ─► a process each: `halab --lab hand-in.N internal-grade`
//!        unpack ─► check ─► start ─► grade ─► throw away ─► Outcome (a file)
//!   one that crashes, hangs or lies ends with its process ─► its lab is thrown away
//! all Outcomes ─► rows ─► table, JSON, CSV, a file for each student
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};

use super::args;
use super::exit::Exit;
use super::grade::{self, GradeFile, read_grade_files, unix_now};
use super::playbook::interrupt;
use super::settings::Settings;
use super::topology::{self, RunningLab, qemu_version};
use crate::base::chain::Chain;
use crate::base::hex::hex;
use crate::grade::csv;
use crate::grade::report::{Report, Student};
use crate::grade::submissions::{self, Outcome, Row};
use crate::vm::clone::available_memory;
use crate::vm::export::Order;
use crate::vm::handin::{self, OWNER_CHARS_MAX, sha256_of};
use crate::vm::lab::UpOutcome;
use crate::vm::process::ends_within;
use crate::vm::progress::{self, Progress};
use crate::vm::snapshot::SUBMITTED;
use crate::vm::state::{read_json, write_json};

/// What hand-ins are called in a folder.
const EXTENSION: &str = "halab";
/// Of a process's last words.
const REASON_LINES_MAX: usize = 3;

pub fn export(settings: &Settings, args: &args::Export) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    if args.file.exists() {
        anyhow::bail!(
            "{} is there already; choose another name, or remove it",
            args.file.display()
        );
    }
    let lab = topology::open(settings)?;
    let lock = lab.lock("halab export")?;
    if lab.holder().is_none() {
        return Err(crate::vm::lab::LabError::NotUp.into());
    }
    let order = Order {
        student_name: owner(args.name.as_deref(), "--name", "Name")?,
        student_id: owner(args.id.as_deref(), "--id", "Number in the class list")?,
        running: args.running,
        qemu: qemu_version()?,
    };
    let progress = progress::for_user(settings.json);
    let folder = args
        .file
        .parent()
        .filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let unfinished = folder.join(format!(".halab-export-{}", std::process::id()));
    let written = File::create_new(&unfinished)
        .with_context(|| format!("failed to write in {}", folder.display()))
        .and_then(|file| Ok(lab.export(&lock, &order, &file, &*progress)?))
        .and_then(|exported| {
            // A hard link does not replace what somebody put there meanwhile.
            fs::hard_link(&unfinished, &args.file)
                .with_context(|| format!("failed to write {}", args.file.display()))?;
            Ok(exported)
        });
    let _ = fs::remove_file(&unfinished);
    let exported = written?;
    let bytes = fs::metadata(&args.file).map_or(0, |metadata| metadata.len());
    let mib = bytes.div_ceil(1 << 20);
    let (seconds, paused) = (begun.elapsed().as_secs_f64(), exported.paused.as_secs_f64());
    let mut text = format!(
        "{} holds the lab `{}` of {} ({}): {mib} MiB, made in {seconds:.1} s; the machines stood still for {paused:.1} s",
        args.file.display(),
        settings.lab,
        order.student_name,
        order.student_id,
    );
    if !args.running {
        text.push_str(
            "\nthe disks alone are in it; what was set up by commands (ipvsadm, ip, iptables) and is in no file needs --running",
        );
    }
    if settings.json {
        super::say(
            &serde_json::json!({
                "file": args.file, "lab": settings.lab, "bytes": bytes, "files": exported.files,
                "running": args.running, "seconds": seconds, "paused_seconds": paused,
            })
            .to_string(),
        );
    } else {
        super::say(&text);
    }
    Ok(Exit::Done)
}

/// Returns who hands in, asking on a terminal.
fn owner(given: Option<&str>, flag: &str, question: &str) -> anyhow::Result<String> {
    let text = match given {
        Some(text) => text.to_owned(),
        None if io::stdin().is_terminal() => {
            let mut line = String::new();
            write!(io::stderr(), "{question}: ")?;
            io::stdin().lock().read_line(&mut line)?;
            line
        }
        None => anyhow::bail!("whose work is it? give {flag}"),
    };
    let text = text.trim();
    let fits = !text.is_empty()
        && text.chars().count() <= OWNER_CHARS_MAX
        && !text.chars().any(char::is_control);
    anyhow::ensure!(
        fits,
        "{flag} is a text of 1 to {OWNER_CHARS_MAX} characters in one line"
    );
    Ok(text.to_owned())
}

pub(super) fn grade(
    settings: &Settings,
    args: &args::Grade,
    files: &[GradeFile],
) -> anyhow::Result<Exit> {
    let hand_ins = hand_ins(&args.submission)?;
    let progress: Arc<dyn Progress> = progress::for_user(settings.json).into();
    // Once, before the first process: each would build the image that is missing.
    let runtime = topology::runtime()?;
    runtime.block_on(topology::ingredients(settings, &*progress))?;
    let results = settings.cache_dir.join("graded");
    fs::create_dir_all(&results)
        .with_context(|| format!("failed to make {}", results.display()))?;
    let mut jobs: Vec<Job> = Vec::new();
    let total = hand_ins.len();
    for (index, path) in hand_ins.into_iter().enumerate() {
        let job = Job::new(settings, args, files, index, path, &results)?;
        // The same file under two names is graded once, and both are told of it.
        match jobs.iter_mut().find(|other| other.result == job.result) {
            Some(other) => other.names.extend(job.names),
            None => jobs.push(job),
        }
    }
    jobs.reverse();
    let at_once = match args.at_once {
        Some(count) => usize::from(count),
        None => fitting(settings)?,
    };
    let hall = Arc::new(Hall {
        settings: settings.clone(),
        args: args.exercises.clone(),
        language: args.lang.clone(),
        limit: Duration::from_secs(u64::from(args.limit) * 60),
        again: args.again,
        progress: Arc::clone(&progress),
        total,
        queue: Mutex::new(jobs),
        done: Mutex::default(),
        known: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        running: Mutex::default(),
    });
    progress.step(&hall.status());
    let mut interrupted = runtime
        .block_on(async { interrupt() })
        .context("failed to listen for signals")?;
    let workers: Vec<_> = (0..at_once.min(hall.total))
        .map(|_| {
            let hall = Arc::clone(&hall);
            thread::spawn(move || hall.work())
        })
        .collect();
    let watched = Arc::clone(&hall);
    runtime.spawn(async move {
        if interrupted.wait_for(|asked| *asked).await.is_ok() {
            watched.stop();
        }
    });
    for worker in workers {
        let _ = worker.join();
    }
    runtime.shutdown_background();
    progress.done();
    let mut done = std::mem::take(&mut *locked(&hall.done));
    done.sort_by_key(|(index, _, _)| *index);
    let rows = submissions::rows(
        done.into_iter()
            .map(|(_, file, outcome)| (file, outcome))
            .collect(),
    );
    if settings.json {
        super::say(&submissions::to_json(&rows).to_string());
    } else if !grade::goes_to_stdout(&args.files) {
        super::say(submissions::table(&rows).trim_end());
    }
    write_all(settings, &rows, &args.files)?;
    let known = hall.known.load(Ordering::SeqCst);
    if known > 0 {
        super::note(&format!(
            "{known} of {} had been graded before; --again grades them anew",
            hall.total
        ));
    }
    if hall.stopped.load(Ordering::SeqCst) {
        super::note(&format!(
            "interrupted: {} of {} hand-ins are graded; the same command goes on with the others",
            rows.len(),
            hall.total
        ));
    }
    let all_graded = rows.iter().all(|row| row.outcome.report.is_some());
    Ok(match (hall.stopped.load(Ordering::SeqCst), all_graded) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Failed,
    })
}

/// Names every hand-in; of a folder those that are called so.
fn hand_ins(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in given {
        if !path.is_dir() {
            anyhow::ensure!(path.is_file(), "there is no file {}", path.display());
            found.push(path.clone());
            continue;
        }
        let entries =
            fs::read_dir(path).with_context(|| format!("failed to read {}", path.display()))?;
        let mut within: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension().is_some_and(|found| found == EXTENSION) && path.is_file()
            })
            .collect();
        anyhow::ensure!(
            !within.is_empty(),
            "there is no hand-in (*.{EXTENSION}) in {}",
            path.display()
        );
        within.sort();
        found.extend(within);
    }
    let mut seen = BTreeSet::new();
    found.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    Ok(found)
}

/// How many labs there is memory for; more than processors only makes all of them slower.
fn fitting(settings: &Settings) -> anyhow::Result<usize> {
    let needed = topology::open(settings)?.memory_needed().mib().max(1);
    let available = available_memory().map_or(0, crate::base::units::ByteSize::mib);
    let by_memory = usize::try_from(available / needed).unwrap_or(1);
    let by_processors = thread::available_parallelism().map_or(1, usize::from);
    Ok(by_memory.min(by_processors).max(1))
}

/// One hand-in that is to be graded.
#[derive(Debug)]
struct Job {
    path: PathBuf,
    /// What it is called, and where it stands in the table.
    names: Vec<(usize, String)>,
    /// The lab it is graded in.
    lab: String,
    result: PathBuf,
}

impl Job {
    /// The outcome's name says what it was made of, so that an old one is never taken for another.
    fn new(
        settings: &Settings,
        args: &args::Grade,
        files: &[GradeFile],
        index: usize,
        path: PathBuf,
        results: &Path,
    ) -> anyhow::Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let (_, content) = File::open(&path)
            .and_then(sha256_of)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let mut hash = Sha256::new();
        for part in [env!("CARGO_PKG_VERSION"), &content, &args.lang] {
            hash.update(part);
            hash.update([0]);
        }
        for file in files {
            let text =
                fs::read(&file.path).with_context(|| format!("failed to read {}", file.path))?;
            hash.update(&text);
            hash.update([0]);
        }
        let key = hex(&hash.finalize()[..12]);
        let lab = format!("hand-in.{}", &content[..16]);
        settings.for_lab(&lab)?;
        Ok(Self {
            result: results.join(format!("{key}.json")),
            names: vec![(index, name)],
            path,
            lab,
        })
    }
}

/// Where hand-ins are graded side by side.
struct Hall {
    settings: Settings,
    args: Vec<String>,
    language: String,
    limit: Duration,
    again: bool,
    progress: Arc<dyn Progress>,
    total: usize,
    /// The next one last.
    queue: Mutex<Vec<Job>>,
    done: Mutex<Vec<(usize, String, Outcome)>>,
    /// How many had been graded before.
    known: AtomicUsize,
    stopped: AtomicBool,
    running: Mutex<BTreeSet<u32>>,
}

impl Hall {
    fn work(&self) {
        while !self.stopped.load(Ordering::SeqCst) {
            let Some(job) = locked(&self.queue).pop() else {
                return;
            };
            let known = read_outcome(&job.result).filter(|outcome| {
                // More time may be enough.
                let is_final = outcome.late_after.is_none_or(|tried| self.limit <= tried);
                is_final && !self.again
            });
            if known.is_some() {
                self.known.fetch_add(job.names.len(), Ordering::SeqCst);
            }
            let outcome = known.or_else(|| self.grade_one(&job));
            let Some(outcome) = outcome else {
                continue;
            };
            let of_each = job.names.into_iter();
            locked(&self.done).extend(of_each.map(|(index, name)| (index, name, outcome.clone())));
            self.progress.step(&self.status());
        }
    }

    fn status(&self) -> String {
        format!(
            "{} of {} hand-ins graded",
            locked(&self.done).len(),
            self.total
        )
    }

    /// No more are begun, and those that run are told to end.
    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for pid in locked(&self.running).iter() {
            end(*pid);
        }
    }

    /// Has a process grade one; none: it was interrupted.
    fn grade_one(&self, job: &Job) -> Option<Outcome> {
        let _ = fs::remove_file(&job.result);
        let log = job.result.with_extension("log");
        let ended = self.start(job, &log).map_or_else(
            |error| End::Failed(format!("{error:#}")),
            |child| self.wait(child),
        );
        let mut outcome = read_outcome(&job.result);
        let late_after = matches!(ended, End::Late).then_some(self.limit);
        let cut = match ended {
            End::Done if outcome.is_some() => None,
            End::Done => Some(last_words(&log)),
            End::Failed(reason) => Some(reason),
            End::Late => Some(format!(
                "it was not graded within {} minutes (--limit)",
                self.limit.as_secs() / 60
            )),
        };
        if let Some(reason) = cut {
            self.clear(job);
            if self.stopped.load(Ordering::SeqCst) {
                return None;
            }
            let student = File::open(&job.path)
                .ok()
                .and_then(|file| handin::list_of(file).ok())
                .map(|list| student(&list));
            let failed = Outcome {
                student,
                problem: Some(reason),
                late_after,
                ..Outcome::default()
            };
            // One that takes too long would take as long the next time; what else went wrong may
            // have been another command's or the machine's fault.
            if late_after.is_some() {
                let _ = write_json(&job.result, &failed);
            }
            outcome = Some(failed);
        }
        let _ = fs::remove_file(&log);
        outcome
    }

    fn start(&self, job: &Job, log: &Path) -> anyhow::Result<Child> {
        let settings = self.settings.for_lab(&job.lab)?;
        let halab = topology::halab_command(&settings)?;
        let stderr =
            File::create(log).with_context(|| format!("failed to write {}", log.display()))?;
        let child = Command::new(&halab[0])
            .args(&halab[1..])
            .arg("internal-grade")
            .arg("--lang")
            .arg(&self.language)
            .arg(&job.result)
            .arg(&job.path)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Of its own, so that Ctrl-C reaches it once, from here.
            .process_group(0)
            .spawn()
            .context("failed to start the process that grades")?;
        locked(&self.running).insert(child.id());
        // It may have been begun while the others were told to end.
        if self.stopped.load(Ordering::SeqCst) {
            end(child.id());
        }
        Ok(child)
    }

    fn wait(&self, mut child: Child) -> End {
        let pid = i32::try_from(child.id()).expect("a process id is an i32");
        let in_time = ends_within(pid, self.limit);
        if !in_time {
            let _ = child.kill();
        }
        let ended = match child.wait() {
            Err(error) => End::Failed(error.to_string()),
            Ok(_) if in_time => End::Done,
            Ok(_) => End::Late,
        };
        locked(&self.running).remove(&child.id());
        ended
    }

    /// Throws away the lab of a process that could not do so itself.
    fn clear(&self, job: &Job) {
        let cleared = self
            .settings
            .for_lab(&job.lab)
            .map_err(anyhow::Error::from)
            .and_then(|settings| throw_away(&settings));
        if let Err(error) = cleared {
            self.progress.note(&format!(
                "the lab `{}` could not be thrown away: {error:#}",
                job.lab
            ));
        }
    }
}

/// Tells a process to end.
fn end(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
    }
}

/// How a process that graded ended.
#[derive(Debug)]
enum End {
    Done,
    Late,
    Failed(String),
}

fn throw_away(settings: &Settings) -> anyhow::Result<()> {
    if !settings.state_dir.exists() {
        return Ok(());
    }
    let lab = topology::open(settings)?;
    let lock = lab.lock("halab grade")?;
    lab.down(&lock, true, &progress::Quiet)?;
    Ok(())
}

/// The process that grades one hand-in, in a lab that nobody else has.
pub fn grade_alone(settings: &Settings, args: &args::InternalGrade) -> anyhow::Result<Exit> {
    let files = read_grade_files(settings, &args.exercises, &args.lang)
        .map_err(|_| anyhow::anyhow!("the grade files have mistakes"))?;
    throw_away(settings)?;
    let input = || {
        File::open(&args.file)
            .map(BufReader::new)
            .with_context(|| format!("failed to read {}", args.file.display()))
    };
    let mut outcome = Outcome {
        student: handin::list_of(input()?).ok().map(|list| student(&list)),
        ..Outcome::default()
    };
    let graded = grade_hand_in(settings, &files, &args.lang, input()?, &mut outcome);
    throw_away(settings)?;
    match graded {
        Ok(true) => {}
        Ok(false) => return Ok(Exit::Interrupted),
        Err(error) => outcome.problem = Some(Chain(error.as_ref()).to_string()),
    }
    write_json(&args.result, &outcome)?;
    Ok(Exit::Done)
}

/// Returns whether it was graded to the end.
fn grade_hand_in(
    settings: &Settings,
    files: &[GradeFile],
    language: &str,
    input: impl io::Read,
    outcome: &mut Outcome,
) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let progress: Arc<dyn Progress> = Arc::new(progress::Quiet);
    let lab = Arc::new(topology::open(settings)?);
    let lock = Arc::new(lab.lock("halab grade --submission")?);
    let ingredients = topology::runtime()?.block_on(topology::ingredients(settings, &*progress))?;
    let admitted = lab.admit(&lock, &ingredients, input, &*progress)?;
    outcome.student = Some(student(&admitted.list));
    outcome.prints = admitted.prints;
    outcome.disks_only = !admitted.list.running;
    let running = RunningLab {
        access: lab.access(),
        lab: Arc::clone(&lab),
        lock,
        outcome: UpOutcome::Warm,
        ingredients: None,
    };
    let graded = grade::grade_lab(settings, &running, files, language, SUBMITTED, &progress)?;
    let Some(exercises) = graded else {
        return Ok(false);
    };
    outcome.report = Some(Report {
        student: outcome.student.clone(),
        lab: admitted.list.lab,
        language: language.to_owned(),
        exercises,
        graded_unix: unix_now(),
        seconds: begun.elapsed().as_secs_f64(),
        paused_seconds: None,
    });
    Ok(true)
}

fn student(list: &handin::HandIn) -> Student {
    Student {
        name: list.student_name.clone(),
        id: list.student_id.clone(),
    }
}

/// A damaged one is made again.
fn read_outcome(path: &Path) -> Option<Outcome> {
    read_json(path).ok().flatten()
}

/// What a process said last, for whoever asks why there is no outcome.
fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let begin = lines.len().saturating_sub(REASON_LINES_MAX);
    match lines[begin..].join(" ") {
        said if said.is_empty() => "the process that graded it ended without a word".to_owned(),
        said => said,
    }
}

/// Writes the forms that were asked for: one table, and a file for each student.
fn write_all(settings: &Settings, rows: &[Row], files: &args::ReportFiles) -> anyhow::Result<()> {
    let reports: Vec<&Report> = rows
        .iter()
        .filter_map(|row| row.outcome.report.as_ref())
        .collect();
    if let Some(path) = &files.csv
        && reports.is_empty()
        && path.exists()
    {
        super::note(&format!(
            "no hand-in could be graded; {} stays as it is",
            path.display()
        ));
    } else if let Some(path) = &files.csv {
        let table = csv::render(&reports).context("failed to make the table")?;
        grade::write(path, &table)?;
    }
    let folders = [&files.html, &files.junit, &files.gradescope];
    for folder in folders.into_iter().flatten() {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make the folder {}", folder.display()))?;
    }
    let topology = topology::read_topology(settings)?;
    let mut taken = BTreeSet::new();
    for row in rows {
        let Some(report) = &row.outcome.report else {
            continue;
        };
        let mut stem = submissions::file_stem(row);
        while !taken.insert(stem.clone()) {
            stem.push('_');
        }
        let own = |folder: &Option<PathBuf>, extension: &str| {
            let folder = folder.as_ref()?;
            Some(folder.join(format!("{stem}.{extension}")))
        };
        let own = args::ReportFiles {
            html: own(&files.html, "html"),
            junit: own(&files.junit, "xml"),
            gradescope: own(&files.gradescope, "json"),
            csv: None,
        };
        grade::write_files(report, &topology, &own)?;
    }
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
