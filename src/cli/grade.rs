//! `halab grade`: checks on a copy of the lab, and the report in every form asked for.
//!
//! ```text
//! grade files ─► all read and checked first
//! lab ─► copy `LAB.grade` (or the lab itself, kept and loaded again with --in-place)
//!          for each of several exercises: the snapshot of its name where there is one, else the
//!          state of the copy ─► the grade file's playbook ─► ExerciseReport
//! copy thrown away ─► Report ─► terminal, JSON, files
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use nix::unistd::{AccessFlags, access};

use super::args::{self, ReportFiles};
use super::exit::Exit;
use super::playbook::{Refusal, colour, exercise_names, host_pool, interrupt, show};
use super::settings::Settings;
use super::topology::{self, RunningLab};
use crate::base::diagnostic::{Colour, Diagnostic};
use crate::grade::header::Header;
use crate::grade::outcome::{CheckResult, CheckVerdict};
use crate::grade::picture::{Box as PictureBox, Plan};
use crate::grade::report::{ExerciseReport, Report};
use crate::grade::{csv, gradescope, html, junit, terminal};
use crate::playbook::inventory::Inventory;
use crate::playbook::loader::Disk;
use crate::playbook::model::Playbook;
use crate::playbook::render::Renderer;
use crate::playbook::vars::{self, Known};
use crate::playbook::{self, files::SourceLoader};
use crate::report::plain::Plain;
use crate::report::reporter::Reporter;
use crate::report::view::{COLUMNS_MIN, Style};
use crate::run::dispatcher::{Dispatcher, Verdict, Wishes};
use crate::run::event::Event;
use crate::run::services::{Flags, Services};
use crate::vm::lab::{LabError, UpOutcome};
use crate::vm::progress::{self, Progress};
use crate::vm::snapshot::{self, CLONED, GRADED};
use crate::vm::spec::Topology;
use crate::vm::state::StateError;

/// Names the state that grading begins in, for grade files that break something and go back.
const STATE_VARIABLE: &str = "graded_state";
/// No check of a sound machine takes longer, and a machine that does not answer must not hold up
/// the others' grading.
const TASK_DEADLINE: Duration = Duration::from_secs(180);
/// A terminal that does not say how wide it is.
const COLUMNS_DEFAULT: usize = 100;

/// What a lab's copy is called behind the lab's name.
const COPY_SUFFIX: &str = ".grade";

/// One grade file, sound.
#[derive(Debug)]
pub(super) struct GradeFile {
    pub path: String,
    playbook: Playbook,
    pub header: Header,
}

pub fn grade(settings: &Settings, args: &args::Grade) -> anyhow::Result<Exit> {
    let files = match read_grade_files(settings, &args.exercises, &args.lang) {
        Ok(files) => files,
        Err(Refusal::Other(error)) => return Err(error),
        Err(Refusal::Input(problems)) => {
            show(settings, &problems);
            return Ok(Exit::CouldNotRun);
        }
    };
    check_outputs(&args.files, !args.submission.is_empty())?;
    if !args.submission.is_empty() {
        return super::submissions::grade(settings, args, &files);
    }
    let progress: Arc<dyn Progress> = progress::for_user(settings.json).into();
    let graded = if args.in_place {
        grade_in_place(settings, &files, &args.lang, &progress)?
    } else {
        grade_copy(settings, &files, &args.lang, &progress)?
    };
    let Some(mut report) = graded else {
        return Ok(Exit::Interrupted);
    };
    name_lab(&mut report, &settings.lab);
    if settings.json {
        super::say(&report.to_json().to_string());
    } else if !goes_to_stdout(&args.files) {
        let text = terminal::render(&report, terminal_style(args.hints));
        super::say(text.trim_end());
    }
    // Last: what cannot be written does not keep the points from whoever waits for them.
    let topology = topology::read_topology(settings)?;
    write_files(&report, &topology, &args.files)?;
    let stopped = report.exercises.iter().any(|each| each.stopped.is_some());
    Ok(match (stopped, report.is_full()) {
        (true, _) => Exit::CouldNotRun,
        (false, true) => Exit::Done,
        (false, false) => Exit::Failed,
    })
}

/// Makes the commands to look with mean this lab, whichever it is.
fn name_lab(report: &mut Report, lab: &str) {
    if lab == args::USUAL_LAB {
        return;
    }
    for check in report
        .exercises
        .iter_mut()
        .flat_map(|exercise| &mut exercise.checks)
    {
        if let Some(arguments) = check
            .see
            .as_ref()
            .and_then(|see| see.strip_prefix("halab "))
        {
            check.see = Some(format!("halab --lab {lab} {arguments}"));
        }
    }
}

/// Names the copy a lab is graded in: always the same one, so that a grading that was cut short
/// is found and cleared away by the next.
pub fn copy_name(lab: &str) -> String {
    const CHARS_MAX: usize = 32;
    let kept: String = lab.chars().take(CHARS_MAX - COPY_SUFFIX.len()).collect();
    format!("{kept}{COPY_SUFFIX}")
}

fn grade_copy(
    settings: &Settings,
    files: &[GradeFile],
    language: &str,
    progress: &Arc<dyn Progress>,
) -> anyhow::Result<Option<Report>> {
    let begun = Instant::now();
    let copy_settings = settings.for_lab(&copy_name(&settings.lab))?;
    let (lab, copy) = (
        topology::open(settings)?,
        Arc::new(topology::open(&copy_settings)?),
    );
    let copy_lock = match copy.lock("halab grade") {
        Ok(lock) => Arc::new(lock),
        Err(LabError::State(StateError::InUse { holder, .. })) => anyhow::bail!(
            "the lab `{}` is being graded already, by {holder}; wait for it, or end it",
            settings.lab
        ),
        Err(other) => return Err(other.into()),
    };
    if copy.holder().is_some() || copy.folders.record()? != crate::vm::state::LabRecord::default() {
        progress.note("an earlier grading was cut short; its copy is cleared away");
        copy.down(&copy_lock, true, &**progress)?;
        // The lock's file went with the folder.
        drop(copy_lock);
        return grade_copy(settings, files, language, progress);
    }
    let lock = lab.lock("halab grade")?;
    let cloned = lab.clone_into(&lock, &copy, &copy_lock, &**progress)?;
    // From here on the lab is its user's again.
    drop(lock);
    let running = RunningLab {
        access: copy.access(),
        lab: Arc::clone(&copy),
        lock: Arc::clone(&copy_lock),
        outcome: UpOutcome::Warm,
        ingredients: None,
    };
    let graded = grade_lab(&copy_settings, &running, files, language, CLONED, progress);
    drop(running);
    copy.down(&copy_lock, true, &**progress)?;
    Ok(graded?.map(|exercises| Report {
        student: None,
        lab: settings.lab.clone(),
        language: language.to_owned(),
        exercises,
        graded_unix: unix_now(),
        seconds: begun.elapsed().as_secs_f64(),
        paused_seconds: Some(cloned.paused.as_secs_f64()),
    }))
}

fn grade_in_place(
    settings: &Settings,
    files: &[GradeFile],
    language: &str,
    progress: &Arc<dyn Progress>,
) -> anyhow::Result<Option<Report>> {
    let begun = Instant::now();
    let lab = Arc::new(topology::open(settings)?);
    let lock = Arc::new(lab.lock("halab grade --in-place")?);
    progress.note(
        "the lab itself is graded: it is kept as it is now and put back afterwards; open SSH sessions end",
    );
    if lab.folders.record()?.graded_in_place {
        lab.end_grading_in_place(&**progress)?;
    }
    lab.begin_grading_in_place(&lock, &**progress)?;
    let running = RunningLab {
        access: lab.access(),
        lab: Arc::clone(&lab),
        lock: Arc::clone(&lock),
        outcome: UpOutcome::WasUp,
        ingredients: None,
    };
    let graded = grade_lab(settings, &running, files, language, GRADED, progress);
    drop(running);
    lab.end_grading_in_place(&**progress)?;
    Ok(graded?.map(|exercises| Report {
        student: None,
        lab: settings.lab.clone(),
        language: language.to_owned(),
        exercises,
        graded_unix: unix_now(),
        seconds: begun.elapsed().as_secs_f64(),
        paused_seconds: None,
    }))
}

/// Grades exercises one after the other in a lab that may be broken; none: interrupted.
pub(super) fn grade_lab(
    settings: &Settings,
    running: &RunningLab,
    files: &[GradeFile],
    language: &str,
    state: &str,
    progress: &Arc<dyn Progress>,
) -> anyhow::Result<Option<Vec<ExerciseReport>>> {
    let kept: Vec<String> = snapshot::list(&running.lab.folders)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let runtime = topology::runtime()?;
    let mut reports = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let begun = Instant::now();
        // Who asks for one exercise asks for what is there now.
        let own = files.len() > 1 && kept.contains(&file.header.exercise);
        let begin = if own {
            file.header.exercise.as_str()
        } else {
            state
        };
        if own || index > 0 {
            running.lab.load(&running.lock, begin, &**progress)?;
        }
        // A machine that never greets costs its checks, not the grading.
        let _ = running.lab.await_greetings();
        progress.step(&format!("grading {}", file.header.exercise));
        let run = runtime.block_on(run_file(settings, running, file, language, begin, progress))?;
        progress.done();
        let Some(mut run) = run else {
            return Ok(None);
        };
        add_missing(&mut run, file);
        reports.push(ExerciseReport {
            exercise: file.header.exercise.clone(),
            title: file.header.title.clone(),
            max: file.header.points,
            checks: run.checks,
            path: file.header.path.clone(),
            seconds: begun.elapsed().as_secs_f64(),
            state: own.then(|| file.header.exercise.clone()),
            stopped: run.stopped,
        });
    }
    Ok(Some(reports))
}

/// What a grade file's run left.
#[derive(Debug, Default)]
struct FileRun {
    checks: Vec<CheckResult>,
    stopped: Option<String>,
}

async fn run_file(
    settings: &Settings,
    running: &RunningLab,
    file: &GradeFile,
    language: &str,
    state: &str,
    progress: &Arc<dyn Progress>,
) -> anyhow::Result<Option<FileRun>> {
    let loader: Arc<dyn SourceLoader> = Arc::new(Disk);
    let inventory = Inventory::from_topology(&running.lab.topology);
    let extra = extra_vars(state, &*loader).map_err(|problems| problem_error(&problems))?;
    let folder = playbook::files::folder_of(&file.path).to_owned();
    let known = Known::new(&inventory, extra, &folder, &*loader)
        .map_err(|problems| problem_error(&problems))?;
    let services = Arc::new(Services {
        renderer: Renderer::new(Arc::clone(&loader), unix_now()),
        loader,
        hosts: Arc::new(host_pool(settings, Some(running))?),
        flags: Flags {
            grading: Some(language.to_owned()),
            deadline: Some(TASK_DEADLINE),
            ..Flags::default()
        },
    });
    let mut reporter = GradeReporter {
        run: FileRun::default(),
        problem: None,
        progress: Arc::clone(progress),
        plain: (settings.verbose > 0).then(plain),
    };
    let interrupt = interrupt().context("failed to listen for signals")?;
    let dispatcher = Dispatcher::new(
        services,
        inventory,
        known,
        Wishes::default(),
        &mut reporter,
        interrupt,
    );
    let verdict = dispatcher.run(&file.playbook).await;
    if verdict == Verdict::Interrupted {
        return Ok(None);
    }
    if verdict == Verdict::CouldNotRun {
        let problem = reporter.problem.take();
        if let Some(problem) = &problem {
            progress.note(&problem.render(Colour::Never));
        }
        reporter.run.stopped = Some(problem.map_or_else(String::new, |problem| problem.message));
    }
    Ok(Some(reporter.run))
}

fn extra_vars(state: &str, loader: &dyn SourceLoader) -> Result<vars::Layer, Vec<Diagnostic>> {
    let typed = [format!("{STATE_VARIABLE}={state}")];
    vars::extra(&typed, loader)
}

fn problem_error(problems: &[Diagnostic]) -> anyhow::Error {
    let texts: Vec<String> = problems.iter().map(|each| each.message.clone()).collect();
    anyhow::anyhow!(texts.join("; "))
}

/// Takes the checks out of a run's events.
struct GradeReporter {
    run: FileRun,
    problem: Option<Diagnostic>,
    progress: Arc<dyn Progress>,
    /// With `-v`: the run itself, for whoever writes a grade file.
    plain: Option<Plain<io::Stderr, io::Stderr>>,
}

impl std::fmt::Debug for GradeReporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("GradeReporter")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

impl Reporter for GradeReporter {
    fn report(&mut self, event: &Event) {
        if let Some(plain) = &mut self.plain {
            plain.report(event);
        }
        match event {
            Event::TaskStarted(task) => self.progress.detail(&task.name),
            Event::CheckDone(check) => self.run.checks.push((**check).clone()),
            Event::Problem(problem) => {
                // A machine that said nothing leaves names undefined; only the author of the
                // file wants to hear of it, with `-v`.
                self.problem.get_or_insert_with(|| problem.clone());
            }
            _ => {}
        }
    }
}

fn plain() -> Plain<io::Stderr, io::Stderr> {
    let style = Style {
        columns: COLUMNS_MIN,
        colour: Colour::Never,
        verbosity: 0,
    };
    Plain::new(style, io::stderr(), io::stderr())
}

/// A check that was never come to is in the report all the same, with no points.
fn add_missing(run: &mut FileRun, file: &GradeFile) {
    for check in file.playbook.checks() {
        if run.checks.iter().any(|each| each.id == check.id) {
            continue;
        }
        let name = check
            .wording
            .name
            .as_ref()
            .map(crate::base::yaml::Node::key_text);
        run.checks.push(CheckResult {
            id: check.id.clone(),
            name: name.unwrap_or_else(|| check.id.clone()),
            points: 0.0,
            max: check.points,
            verdict: CheckVerdict::Skipped,
            hosts: Vec::new(),
            expected: String::new(),
            found: String::new(),
            see: None,
            causes: Vec::new(),
            hints: Vec::new(),
            because: vec![
                run.stopped
                    .clone()
                    .unwrap_or_else(|| "the grading did not come to it".into()),
            ],
            started_seconds: 0.0,
            seconds: 0.0,
        });
    }
}

/// Reads grade files by exercise or path; `all` is every exercise that has one.
pub(super) fn read_grade_files(
    settings: &Settings,
    names: &[String],
    language: &str,
) -> Result<Vec<GradeFile>, Refusal> {
    let folder = settings.folder.path("playbooks/grade");
    let known = exercise_names(&folder);
    let mut paths = Vec::new();
    for name in names {
        let path_of = |name: &str| {
            folder
                .join(format!("{name}.yml"))
                .to_string_lossy()
                .into_owned()
        };
        if name == "all" {
            paths.extend(known.iter().map(|name| path_of(name)));
        } else if known.contains(name) {
            paths.push(path_of(name));
        } else if Path::new(name).is_file() {
            paths.push(name.clone());
        } else if Path::new(&path_of(name)).is_file() {
            // One that is no exercise's, and not in `all`.
            paths.push(path_of(name));
        } else {
            let problem = Diagnostic::error(format!("there is no grade file for `{name}`"))
                .nearest(name, known.iter().map(String::as_str));
            return Err(problem
                .help(format!("grade files: {}", known.join(", ")))
                .into());
        }
    }
    let topology = topology::read_topology(settings).map_err(anyhow::Error::from)?;
    let inventory = Inventory::from_topology(&topology);
    let loader = Disk;
    let extra = extra_vars(CLONED, &loader)?;
    let context = playbook::Context {
        inventory: &inventory,
        extra: &extra,
        limit: &[],
        tags: &[],
        skip_tags: &[],
        start_at_task: None,
    };
    paths
        .into_iter()
        .map(|path| {
            let playbook = playbook::load(std::slice::from_ref(&path), &loader, &context)?;
            show(settings, &playbook.warnings);
            let header = Header::of(&playbook, language)?;
            Ok(GradeFile {
                path,
                playbook,
                header,
            })
        })
        .collect()
}

/// Refuses what could not be written at the end, before anything is graded.
fn check_outputs(files: &ReportFiles, of_a_class: bool) -> anyhow::Result<()> {
    let given = [
        ("--junit", &files.junit, of_a_class),
        ("--html", &files.html, of_a_class),
        ("--csv", &files.csv, false),
        ("--gradescope", &files.gradescope, of_a_class),
    ];
    let mut taken: Vec<(PathBuf, &str)> = Vec::new();
    for (flag, path, is_folder) in given {
        let Some(path) = path else {
            continue;
        };
        if is_folder {
            anyhow::ensure!(
                path.is_dir() || !path.exists(),
                "{flag} takes a folder, for a file a student; {} is a file",
                path.display()
            );
            continue;
        }
        let place = match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => {
                let folder = if folder.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    folder
                };
                let folder = folder
                    .canonicalize()
                    .with_context(|| format!("{flag} cannot be written to {}", path.display()))?;
                folder.join(name)
            }
            _ => path.clone(),
        };
        anyhow::ensure!(
            !path.is_dir(),
            "{flag} takes a file's name; {} is a folder",
            path.display()
        );
        let touched = if path.exists() {
            access(path, AccessFlags::W_OK)
        } else {
            access(place.parent().unwrap_or(&place), AccessFlags::W_OK)
        };
        if path.as_os_str() != "-" {
            touched.with_context(|| format!("{flag} cannot be written to {}", path.display()))?;
        }
        if let Some((_, other)) = taken.iter().find(|(each, _)| *each == place) {
            anyhow::bail!(
                "{other} and {flag} name the same file, {}; give each its own",
                path.display()
            );
        }
        taken.push((place, flag));
    }
    Ok(())
}

/// Writes the forms that were asked for.
pub(super) fn write_files(
    report: &Report,
    topology: &Topology,
    files: &ReportFiles,
) -> anyhow::Result<()> {
    if let Some(path) = &files.junit {
        write(
            path,
            &junit::render(report).context("failed to make the JUnit report")?,
        )?;
    }
    if let Some(path) = &files.html {
        let page =
            html::render(report, &plan(topology)).context("failed to make the HTML report")?;
        write(path, &page)?;
    }
    if let Some(path) = &files.csv {
        write(
            path,
            &csv::render(&[report]).context("failed to make the table")?,
        )?;
    }
    if let Some(path) = &files.gradescope {
        write(path, &gradescope::render(report).to_string())?;
    }
    Ok(())
}

pub(super) fn goes_to_stdout(files: &ReportFiles) -> bool {
    [&files.junit, &files.html, &files.csv, &files.gradescope]
        .into_iter()
        .flatten()
        .any(|path| path.as_os_str() == "-")
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        super::say(text);
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// What the pictures show of a topology.
fn plan(topology: &Topology) -> Plan {
    let client = PictureBox {
        name: topology.client.name.clone(),
        lines: topology
            .networks
            .iter()
            .filter_map(|network| Some(format!("{} {}", network.name, network.client?)))
            .collect(),
    };
    let machines = topology.machines.iter().map(|machine| PictureBox {
        name: machine.name.clone(),
        lines: machine
            .nics
            .iter()
            .map(|nic| match nic.address {
                Some(address) => format!("{} {address}", nic.name),
                None => nic.name.clone(),
            })
            .collect(),
    });
    let networks = topology.networks.iter().map(|network| {
        let on_it = topology
            .machines
            .iter()
            .filter(|machine| machine.nics.iter().any(|nic| nic.network == network.name));
        let mut members: Vec<String> = on_it.map(|machine| machine.name.clone()).collect();
        if network.client.is_some() {
            members.insert(0, topology.client.name.clone());
        }
        (network.name.clone(), members)
    });
    Plan {
        boxes: std::iter::once(client).chain(machines).collect(),
        networks: networks.collect(),
    }
}

fn terminal_style(hints: usize) -> terminal::Style {
    terminal::Style {
        colour: matches!(colour(&io::stdout()), Colour::Always),
        columns: super::columns().unwrap_or(COLUMNS_DEFAULT),
        hints,
    }
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}
