//! `halab run`: exercises and playbooks, on the lab or on an inventory's hosts.

use std::env;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::args::{self, ConnectionKind, RunOptions};
use super::exercises;
use super::exit::Exit;
use super::hosts::{HostPool, LabHosts};
use super::settings::Settings;
use super::topology::{self, RunningLab};
use crate::base::diagnostic::{Colour, Diagnostic};
use crate::playbook::inventory::Inventory;
use crate::playbook::loader::Disk;
use crate::playbook::model::Playbook;
use crate::playbook::pattern::Pattern;
use crate::playbook::render::Renderer;
use crate::playbook::vars::{self, Known, RunFlags};
use crate::playbook::{self, files::SourceLoader};
use crate::remote::agent_file::AgentFile;
use crate::report::html::{Heading, page, utc};
use crate::report::json::{JsonLines, problem_json};
use crate::report::plain::Plain;
use crate::report::progress::Progress;
use crate::report::recorder::Recorder;
use crate::report::reporter::Reporter;
use crate::report::view::{COLUMNS_MIN, Style};
use crate::run::connection::Connection;
use crate::run::dispatcher::{Ask, Dispatcher, StepAnswer, Verdict, Wishes};
use crate::run::listing::Listing;
use crate::run::services::{Flags, Services};
use crate::run::tags::Selection;
use crate::vm::state::{folder_for_sockets, write_whole};

/// Why nothing was run.
pub(super) enum Refusal {
    /// Something somebody wrote or typed; shown with its place.
    Input(Vec<Diagnostic>),
    Other(anyhow::Error),
}

impl From<Diagnostic> for Refusal {
    fn from(problem: Diagnostic) -> Self {
        Self::Input(vec![problem])
    }
}

impl From<Vec<Diagnostic>> for Refusal {
    fn from(problems: Vec<Diagnostic>) -> Self {
        Self::Input(problems)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Runs what was asked for.
pub fn run(settings: &Settings, args: &args::Run) -> anyhow::Result<Exit> {
    or_say_why(settings, prepare_and_run(settings, args))
}

/// Brings the lab to where an exercise begins.
pub fn goto(settings: &Settings, args: &args::Goto) -> anyhow::Result<Exit> {
    or_say_why(settings, exercises::goto(settings, args))
}

fn or_say_why(settings: &Settings, ended: Result<Exit, Refusal>) -> anyhow::Result<Exit> {
    match ended {
        Ok(exit) => Ok(exit),
        Err(Refusal::Other(error)) => Err(error),
        Err(Refusal::Input(problems)) => {
            show(settings, &problems);
            Ok(Exit::CouldNotRun)
        }
    }
}

/// Prints problems of what was written or typed.
pub(super) fn show(settings: &Settings, problems: &[Diagnostic]) {
    for problem in problems {
        if settings.json {
            super::say(&problem_json(problem).to_string());
        } else {
            let drawn = problem.render(colour(&io::stderr()));
            let _ = writeln!(io::stderr(), "{drawn}\n");
        }
    }
}

pub(super) fn colour(stream: &impl IsTerminal) -> Colour {
    if stream.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
        Colour::Always
    } else {
        Colour::Never
    }
}

fn prepare_and_run(settings: &Settings, args: &args::Run) -> Result<Exit, Refusal> {
    let options = &args.options;
    let loader: Arc<dyn SourceLoader> = Arc::new(Disk);
    let targets = targets(settings, &args.playbooks)?;
    let inventory = inventory(settings, options, &*loader)?;
    if is_about_exercises(options, &targets) {
        return exercises::run(settings, args, &targets, &inventory);
    }
    let paths: Vec<String> = targets.into_iter().map(|target| target.path).collect();
    let extra = vars::extra(&extra_vars(args)?, &*loader)?;
    let limit: Vec<Pattern> = options
        .limit
        .iter()
        .map(|text| Pattern::typed(text))
        .collect();
    if !limit.is_empty() {
        inventory.select(&limit)?;
    }
    let context = playbook::Context {
        inventory: &inventory,
        extra: &extra,
        limit: &options.limit,
        tags: &options.tags,
        skip_tags: &options.skip_tags,
        start_at_task: options.start_at_task.as_deref(),
    };
    let playbook = playbook::load(&paths, &*loader, &context)?;
    show(settings, &playbook.warnings);
    let selection = Selection {
        only: options.tags.clone(),
        skip: options.skip_tags.clone(),
    };
    let listing = Listing {
        tasks: options.list_tasks,
        hosts: options.list_hosts,
        tags: options.list_tags,
    };
    if options.syntax_check || listing.is_asked_for() {
        list(listing, &paths, &playbook, &inventory, &limit, &selection)?;
        return Ok(Exit::Done);
    }
    let folder = playbook::files::folder_of(&paths[0]).to_owned();
    let mut known = Known::new(&inventory, extra, &folder, &*loader)?;
    known.flags = run_flags(settings, options);
    let wishes = Wishes {
        tags: selection,
        limit,
        start_at: options.start_at_task.clone(),
        gathers_by_default: true,
    };
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    let verdict = runtime.block_on(async {
        let on_the_lab = options.inventory.is_empty();
        // Held until the run ends: nobody else may change the machines meanwhile.
        let lab = if on_the_lab {
            Some(topology::ensure_up(settings, "run").await?)
        } else {
            None
        };
        let services = Arc::new(Services {
            renderer: Renderer::new(Arc::clone(&loader), seed),
            loader,
            hosts: Arc::new(host_pool(settings, lab.as_ref())?),
            flags: flags(settings, options),
        });
        let mut recorder = Recorder::new(reporter(settings), args.report.is_some());
        let interrupt = interrupt().context("failed to listen for signals")?;
        let mut dispatcher =
            Dispatcher::new(services, inventory, known, wishes, &mut recorder, interrupt);
        if options.step {
            dispatcher = dispatcher.asking(ask());
        }
        let verdict = dispatcher.run(&playbook).await;
        write_report(args, &recorder, verdict != Verdict::Done)?;
        anyhow::Ok(verdict)
    })?;
    Ok(match verdict {
        Verdict::Done => Exit::Done,
        Verdict::Failed => Exit::Failed,
        Verdict::CouldNotRun => Exit::CouldNotRun,
        Verdict::Interrupted => Exit::Interrupted,
    })
}

/// Something to run.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) path: String,
    /// The exercise that it is, if it is one.
    pub(super) exercise: Option<String>,
}

/// Whether the lab has to be where exercises begin: they are run on it, whole or to set up.
fn is_about_exercises(options: &RunOptions, targets: &[Target]) -> bool {
    options.inventory.is_empty()
        && targets.iter().any(|target| target.exercise.is_some())
        && options.limit.is_empty()
        && options.start_at_task.is_none()
        && !options.check
        && !options.syntax_check
        && !(options.list_tasks || options.list_hosts || options.list_tags)
}

/// The `-e` of a run that is not about the lab's exercises.
fn extra_vars(args: &args::Run) -> Result<Vec<String>, Refusal> {
    let mut typed = Vec::new();
    if let Some(tools) = args.tools {
        let [word] = tools.words() else {
            let problem = Diagnostic::error("`--tools both` runs whole exercises, on the lab")
                .help("--tools agent or --tools native");
            return Err(problem.into());
        };
        typed.push(format!("tools={word}"));
    }
    typed.extend(args.options.extra_vars.iter().cloned());
    Ok(typed)
}

/// Finds what was typed: exercises, files; `all` is every exercise in order.
fn targets(settings: &Settings, typed: &[String]) -> Result<Vec<Target>, Refusal> {
    let exercises = exercise_names(&settings.folder.path("playbooks"));
    let exercise = |name: &String| Target {
        path: path_of(settings, name),
        exercise: Some(name.clone()),
    };
    let mut targets = Vec::new();
    for name in typed {
        if name == "all" {
            targets.extend(exercises.iter().map(exercise));
        } else if exercises.contains(name) {
            targets.push(exercise(name));
        } else if Path::new(name).is_file() {
            targets.push(Target {
                path: name.clone(),
                exercise: None,
            });
        } else {
            let known = exercises.iter().map(String::as_str);
            let problem = Diagnostic::error(format!("`{name}` is neither an exercise nor a file"))
                .nearest(name, known);
            return Err(problem
                .help(format!("exercises: {}", exercises.join(", ")))
                .into());
        }
    }
    Ok(targets)
}

/// An exercise's file.
pub(super) fn path_of(settings: &Settings, exercise: &str) -> String {
    let path = settings.folder.path(format!("playbooks/{exercise}.yml"));
    path.to_string_lossy().into_owned()
}

/// Exercises are playbooks whose names begin with their number.
pub(super) fn exercise_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".yml").map(str::to_owned))
        .filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
        .collect();
    names.sort();
    names
}

fn inventory(
    settings: &Settings,
    options: &RunOptions,
    loader: &dyn SourceLoader,
) -> Result<Inventory, Refusal> {
    if options.inventory.is_empty() {
        let topology = topology::read_topology(settings).map_err(anyhow::Error::from)?;
        return Ok(Inventory::from_topology(&topology));
    }
    Ok(Inventory::load(&options.inventory, loader)?)
}

fn list(
    listing: Listing,
    paths: &[String],
    playbook: &Playbook,
    inventory: &Inventory,
    limit: &[Pattern],
    selection: &Selection,
) -> Result<(), Refusal> {
    super::say(&format!("\nplaybook: {}", paths.join(" ")));
    if !listing.is_asked_for() {
        return Ok(());
    }
    for (index, play) in playbook.plays.iter().enumerate() {
        let patterns: Vec<Pattern> = play
            .hosts
            .iter()
            .map(|node| Pattern {
                text: node.key_text(),
                origin: Some(node.origin.clone()),
            })
            .collect();
        let mut hosts = inventory.select(&patterns)?;
        if !limit.is_empty() {
            let limited = inventory.select(limit)?;
            hosts.retain(|host| limited.contains(host));
        }
        super::say(
            listing
                .play(index + 1, play, &hosts, selection)
                .trim_end_matches('\n'),
        );
    }
    Ok(())
}

pub(super) fn run_flags(settings: &Settings, options: &RunOptions) -> RunFlags {
    RunFlags {
        check_mode: options.check,
        diff_mode: options.diff,
        forks: options.forks,
        verbosity: settings.verbose,
        limit: (!options.limit.is_empty()).then(|| options.limit.join(",")),
        tags: options.tags.clone(),
        skip_tags: options.skip_tags.clone(),
    }
}

pub(super) fn flags(settings: &Settings, options: &RunOptions) -> Flags {
    let kind = options.connection.map(|kind| match kind {
        ConnectionKind::Ssh => "ssh".to_owned(),
        ConnectionKind::Local => "local".to_owned(),
    });
    Flags {
        check: options.check,
        diff: options.diff,
        verbosity: settings.verbose,
        forks: options.forks.max(1),
        r#become: options.r#become,
        become_user: options.become_user.clone(),
        connection: Connection {
            kind,
            user: options.user.clone(),
            key_file: options.private_key.clone(),
            ..Connection::default()
        },
        deadline: options.timeout.map(Duration::from_secs),
        grading: None,
    }
}

pub(super) fn host_pool(settings: &Settings, lab: Option<&RunningLab>) -> anyhow::Result<HostPool> {
    let agent = AgentFile::find()?;
    let (control_dir, hosts) = match lab {
        None => (folder_for_sockets(settings.cache_dir.join("ssh")), None),
        Some(running) => {
            let topology = topology::read_topology(settings)?;
            let hosts = LabHosts {
                ssh_config: running.access.ssh_config.clone(),
                enter: running.access.enter.clone(),
                machines: topology.machine_names().map(str::to_owned).collect(),
                client: topology.client.name.clone(),
                remote: Arc::new(running.remote()),
            };
            (running.lab.folders.sessions(), Some(hosts))
        }
    };
    HostPool::new(agent, &control_dir, hosts)
        .with_context(|| format!("failed to make {}", control_dir.display()))
}

pub(super) fn reporter(settings: &Settings) -> Box<dyn Reporter> {
    if settings.json {
        return Box::new(JsonLines::new(io::stdout()));
    }
    let style = Style {
        columns: super::columns().map_or(COLUMNS_MIN, |columns| {
            COLUMNS_MIN.max(columns.saturating_sub(1))
        }),
        colour: colour(&io::stdout()),
        verbosity: settings.verbose,
    };
    let plain = Plain::new(style, io::stdout(), io::stderr());
    if io::stdout().is_terminal() && io::stderr().is_terminal() {
        Box::new(Progress::new(plain))
    } else {
        Box::new(plain)
    }
}

/// Writes the page that `--report` asked for.
pub(super) fn write_report(
    args: &args::Run,
    recorder: &Recorder,
    failed: bool,
) -> anyhow::Result<()> {
    let Some(path) = &args.report else {
        return Ok(());
    };
    let took = recorder.begun().elapsed();
    let began = SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH);
    let unix = began
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let heading = Heading {
        title: format!("halab run {}", args.playbooks.join(" ")),
        began: format!("Begun {}", utc(unix)),
        took,
        failed,
    };
    let page = page(&heading, recorder.events()).context("failed to write the report's page")?;
    write_whole(path, page.as_bytes(), 0o644)?;
    super::note(&format!("the report is in {}", path.display()));
    Ok(())
}

/// Becomes true with Ctrl-C or a polite kill.
pub(super) fn interrupt() -> io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        // Nobody listens any more when the run has just ended.
        let _ = sender.send(true);
        // Kept until the runtime ends, so that the receivers do not see a closed channel.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

/// Asks on the terminal before each task; no answer is "no".
pub(super) fn ask() -> Ask {
    Box::new(|name| {
        let mut out = io::stdout();
        let _ = write!(out, "Perform task: {name} (N)o/(y)es/(c)ontinue: ");
        let _ = out.flush();
        let mut answer = String::new();
        if io::stdin().lock().read_line(&mut answer).is_err() {
            return StepAnswer::No;
        }
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => StepAnswer::Yes,
            "c" | "continue" => StepAnswer::Continue,
            _ => StepAnswer::No,
        }
    })
}
