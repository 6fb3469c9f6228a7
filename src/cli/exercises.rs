//! Exercises on the lab, one after the other: `halab run EXERCISE…|all` and `halab goto`.
//!
//! Decisions (which way leads to where an exercise begins) are `run::sequence`'s; here are the
//! lab, its lock, the clock and the reporter. What stands on the machines is written into the
//! lab's record as soon as it is so, and taken out of it before it is touched: the record never
//! promises more than there is.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio::sync::watch;

use super::args::{self, RunOptions, Tools};
use super::exit::Exit;
use super::hosts::HostPool;
use super::playbook::{
    Refusal, Target, ask, exercise_names, flags, host_pool, interrupt, path_of, reporter,
    run_flags, show, write_report,
};
use super::settings::Settings;
use super::topology::{self, RunningLab};
use crate::base::diagnostic::Diagnostic;
use crate::playbook::exercise::{Choices, Done, Exercise};
use crate::playbook::files::SourceLoader;
use crate::playbook::inventory::Inventory;
use crate::playbook::loader::Disk;
use crate::playbook::model::Playbook;
use crate::playbook::render::Renderer;
use crate::playbook::vars::{self, Known, Layer};
use crate::playbook::{self};
use crate::remote::agent_file::AgentFile;
use crate::report::recorder::Recorder;
use crate::report::reporter::Reporter;
use crate::run::dispatcher::{Dispatcher, Verdict, Wishes};
use crate::run::event::{Event, ExerciseStarted, Part};
use crate::run::recap::{Counts, ExerciseEnd, Recap, Summary, SummaryLine};
use crate::run::sequence::{self, Catalogue, Ground, Way};
use crate::run::services::{Hosts, Services};
use crate::run::tags::Selection;
use crate::vm::checkpoint::Checkpoint;
use crate::vm::lab::{LabError, UpOutcome};
use crate::vm::progress;
use crate::vm::snapshot::CLEAN;

/// What the lab was in when several exercises were asked for, each of which begins afresh.
const BEFORE_RUN: &str = "before-run";

/// The exercises with one set of choices, read and checked.
struct Variant {
    /// The `-e` variables, the choice of tools among them.
    extra: Layer,
    catalogue: Catalogue,
    /// By exercise; and what was asked for, in its order.
    playbooks: BTreeMap<String, Playbook>,
    asked: Vec<Asked>,
}

struct Asked {
    name: String,
    playbook: Playbook,
    /// None: a playbook that is no exercise.
    exercise: Option<String>,
}

/// Reads everything that may be run, so that every mistake is told before the first task.
struct Reader<'s> {
    settings: &'s Settings,
    loader: Arc<dyn SourceLoader>,
    inventory: &'s Inventory,
    names: Vec<String>,
}

impl Reader<'_> {
    fn variant(
        &self,
        targets: &[Target],
        options: &RunOptions,
        tools: Option<&str>,
    ) -> Result<Variant, Refusal> {
        // First, so that a plain -e wins.
        let mut typed: Vec<String> = tools.iter().map(|tools| format!("tools={tools}")).collect();
        typed.extend(options.extra_vars.iter().cloned());
        let mut variant = Variant {
            extra: vars::extra(&typed, &*self.loader)?,
            catalogue: Catalogue::new(),
            playbooks: BTreeMap::new(),
            asked: Vec::new(),
        };
        for target in targets {
            let playbook = self.load(&target.path, &variant.extra, options)?;
            if let Some(name) = &target.exercise {
                self.read_exercise(name, &mut variant)?;
            }
            variant.asked.push(Asked {
                name: target.exercise.as_ref().unwrap_or(&target.path).clone(),
                playbook,
                exercise: target.exercise.clone(),
            });
        }
        Ok(variant)
    }

    /// Reads an exercise and all it builds on.
    fn read_exercise(&self, name: &str, variant: &mut Variant) -> Result<(), Refusal> {
        if variant.catalogue.contains_key(name) {
            return Ok(());
        }
        let path = path_of(self.settings, name);
        let playbook = self.load(&path, &variant.extra, &RunOptions::default())?;
        let known = self.known(&playbook, &variant.extra)?;
        let renderer = Renderer::new(Arc::clone(&self.loader), 0);
        let exercise = Exercise::read(
            name,
            &playbook,
            &self.names,
            &renderer,
            &Arc::new(known),
            &*self.loader,
        )?;
        let needs = exercise.needs.clone();
        variant.catalogue.insert(name.to_owned(), exercise);
        variant.playbooks.insert(name.to_owned(), playbook);
        needs
            .iter()
            .try_for_each(|need| self.read_exercise(need, variant))
    }

    fn load(
        &self,
        path: &str,
        extra: &Layer,
        options: &RunOptions,
    ) -> Result<Playbook, Vec<Diagnostic>> {
        let context = playbook::Context {
            inventory: self.inventory,
            extra,
            limit: &options.limit,
            tags: &options.tags,
            skip_tags: &options.skip_tags,
            start_at_task: options.start_at_task.as_deref(),
        };
        let playbook = playbook::load(&[path.to_owned()], &*self.loader, &context)?;
        show(self.settings, &playbook.warnings);
        Ok(playbook)
    }

    fn known(&self, playbook: &Playbook, extra: &Layer) -> Result<Known, Vec<Diagnostic>> {
        let folder = playbook.plays.first().map_or("", |play| &play.folder);
        Known::new(self.inventory, Arc::clone(extra), folder, &*self.loader)
    }
}

/// The lab, the machines' hosts and whoever is told, through all exercises of one command.
struct Session<'s> {
    reader: &'s Reader<'s>,
    options: &'s RunOptions,
    running: RunningLab,
    hosts: Arc<HostPool>,
    reporter: Recorder,
    interrupt: watch::Receiver<bool>,
    summary: Summary,
    /// What is known of the machines.
    ground: Ground,
}

/// How a part of an exercise ended.
struct Ended {
    verdict: Verdict,
    counts: Counts,
    took: Duration,
}

/// Passes events on and keeps the last recap.
struct Counting<'r> {
    inner: &'r mut dyn Reporter,
    recap: Recap,
}

impl std::fmt::Debug for Counting<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Counting").finish_non_exhaustive()
    }
}

impl Reporter for Counting<'_> {
    fn report(&mut self, event: &Event) {
        if let Event::Finished(recap) = event {
            self.recap = recap.clone();
        }
        self.inner.report(event);
    }
}

/// Runs exercises on the lab, each from where it begins.
pub(super) fn run(
    settings: &Settings,
    args: &args::Run,
    targets: &[Target],
    inventory: &Inventory,
) -> Result<Exit, Refusal> {
    let reader = Reader {
        settings,
        loader: Arc::new(Disk),
        inventory,
        names: exercise_names(&settings.folder.path("playbooks")),
    };
    let tools: Vec<Option<&str>> = match args.tools {
        None => vec![None],
        Some(tools) => tools.words().iter().copied().map(Some).collect(),
    };
    let variants = tools
        .into_iter()
        .map(|tools| reader.variant(targets, &args.options, tools))
        .collect::<Result<Vec<_>, _>>()?;
    let several = variants
        .iter()
        .map(|variant| variant.asked.len())
        .sum::<usize>()
        > 1;
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    let exit = runtime.block_on(async {
        let begun = Instant::now();
        let mut session =
            Session::open(&reader, &args.options, "run", args.report.is_some()).await?;
        if several {
            session.keep_before().await?;
        }
        let exit = session
            .variants(&variants, several, args.continue_on_error)
            .await?;
        session.summary.took = begun.elapsed();
        if session.summary.lines.len() > 1 {
            session
                .reporter
                .report(&Event::Summary(session.summary.clone()));
        }
        write_report(args, &session.reporter, exit != Exit::Done)?;
        anyhow::Ok(exit)
    })?;
    Ok(exit)
}

/// Brings the lab to where an exercise begins.
pub(super) fn goto(settings: &Settings, args: &args::Goto) -> Result<Exit, Refusal> {
    let names = exercise_names(&settings.folder.path("playbooks"));
    if !names.contains(&args.exercise) {
        let known = names.iter().map(String::as_str);
        let problem = Diagnostic::error(format!("there is no exercise `{}`", args.exercise))
            .nearest(&args.exercise, known)
            .help(format!("exercises: {}", names.join(", ")));
        return Err(problem.into());
    }
    if args.tools == Some(Tools::Both) {
        let problem = Diagnostic::error("an exercise begins with one set of tools, not with both")
            .help("--tools agent or --tools native");
        return Err(problem.into());
    }
    let topology = topology::read_topology(settings).map_err(anyhow::Error::from)?;
    let inventory = Inventory::from_topology(&topology);
    let reader = Reader {
        settings,
        loader: Arc::new(Disk),
        inventory: &inventory,
        names,
    };
    let options = RunOptions {
        extra_vars: args.extra_vars.clone(),
        forks: args::FORKS,
        ..RunOptions::default()
    };
    let tools = args.tools.map(|tools| tools.words()[0]);
    let target = Target {
        path: path_of(settings, &args.exercise),
        exercise: Some(args.exercise.clone()),
    };
    let variant = reader.variant(&[target], &options, tools)?;
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    let exit = runtime.block_on(async {
        let begun = Instant::now();
        let mut session = Session::open(&reader, &options, "goto", false).await?;
        let wanted = &variant.catalogue[&args.exercise];
        let verdict = session.begin(&variant, wanted).await?;
        if verdict != Verdict::Done {
            // Half of the way is nowhere: the lab is clean again.
            session.load_clean().await?;
            return anyhow::Ok(exit_of(verdict));
        }
        let stands: Vec<String> = session
            .running
            .lab
            .done()?
            .into_iter()
            .map(|done| done.name)
            .collect();
        topology::report(
            settings,
            &format!(
                "the lab is where {} begins, with {}, in {:.1} s",
                args.exercise,
                if stands.is_empty() {
                    "clean machines".to_owned()
                } else {
                    format!("{} done", stands.join(", "))
                },
                begun.elapsed().as_secs_f64()
            ),
            &serde_json::json!({
                "lab": settings.lab,
                "begins": args.exercise,
                "done": stands,
                "seconds": begun.elapsed().as_secs_f64(),
            }),
        );
        Ok(Exit::Done)
    })?;
    Ok(exit)
}

fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Done => Exit::Done,
        Verdict::Failed => Exit::Failed,
        Verdict::CouldNotRun => Exit::CouldNotRun,
        Verdict::Interrupted => Exit::Interrupted,
    }
}

impl<'s> Session<'s> {
    async fn open(
        reader: &'s Reader<'s>,
        options: &'s RunOptions,
        command: &str,
        keeps_events: bool,
    ) -> anyhow::Result<Self> {
        let settings = reader.settings;
        // Held until the end: nobody else may change the machines meanwhile.
        let running = topology::ensure_up(settings, command).await?;
        let ground = match running.outcome {
            UpOutcome::Warm | UpOutcome::Cold => Ground::Untouched,
            UpOutcome::WasUp | UpOutcome::Resumed | UpOutcome::PoweredOn => Ground::InUse,
        };
        Ok(Self {
            reader,
            options,
            hosts: Arc::new(host_pool(settings, Some(&running))?),
            running,
            reporter: Recorder::new(reporter(settings), keeps_events),
            interrupt: interrupt().context("failed to listen for signals")?,
            summary: Summary::default(),
            ground,
        })
    }

    /// Runs every variant's exercises; the first failure ends it unless the user goes on.
    async fn variants(
        &mut self,
        variants: &[Variant],
        several: bool,
        continue_on_error: bool,
    ) -> anyhow::Result<Exit> {
        let mut exit = Exit::Done;
        for variant in variants {
            let mut failed: Vec<String> = Vec::new();
            for asked in &variant.asked {
                if let Some(why) = not_run(variant, asked, &failed, exit, continue_on_error) {
                    self.add_line(variant, asked, ExerciseEnd::NotRun(why), None);
                    continue;
                }
                let begun = Instant::now();
                let mut verdict = self.prepare(variant, asked, several).await?;
                let prepared = begun.elapsed();
                let mut ended = None;
                if verdict == Verdict::Done {
                    let done = self.asked(variant, asked).await?;
                    verdict = done.verdict;
                    ended = Some((prepared, done));
                }
                let end = match verdict {
                    Verdict::Done => ExerciseEnd::Done,
                    _ if ended.is_none() => ExerciseEnd::NotRun("the way to it failed".to_owned()),
                    _ => ExerciseEnd::Failed,
                };
                self.add_line(variant, asked, end, ended);
                if verdict != Verdict::Done {
                    failed.push(asked.name.clone());
                    exit = exit_of(verdict);
                }
            }
        }
        Ok(exit)
    }

    fn add_line(
        &mut self,
        variant: &Variant,
        asked: &Asked,
        end: ExerciseEnd,
        ended: Option<(Duration, Ended)>,
    ) {
        let (prepared, counts, took) = ended.map_or_else(Default::default, |(prepared, ended)| {
            (prepared, ended.counts, ended.took)
        });
        let exercise = asked
            .exercise
            .as_ref()
            .and_then(|name| variant.catalogue.get(name));
        self.summary.lines.push(SummaryLine {
            exercise: asked.name.clone(),
            choices: exercise.map_or_else(Vec::new, |exercise| typed(&exercise.choices)),
            end,
            counts,
            prepared,
            took,
        });
    }

    /// Brings the machines to where what was asked for begins.
    async fn prepare(
        &mut self,
        variant: &Variant,
        asked: &Asked,
        several: bool,
    ) -> anyhow::Result<Verdict> {
        let Some(name) = asked.exercise.as_ref().filter(|_| self.sets_up()) else {
            return Ok(Verdict::Done);
        };
        let wanted = &variant.catalogue[name];
        let done = self.running.lab.done()?;
        // Several exercises have the machines to themselves; the first finds them in use.
        let way = if several && self.ground == Ground::InUse {
            Way::Begin
        } else {
            sequence::way(wanted, &variant.catalogue, &done, self.ground)
        };
        let verdict = match way {
            Way::Continue => Verdict::Done,
            Way::Begin => self.begin(variant, wanted).await?,
            Way::Mend { undo, set_up } => self.mend(variant, &undo, &set_up).await?,
        };
        self.ground = if several { Ground::Own } else { Ground::InUse };
        Ok(verdict)
    }

    /// Whether the tags that were typed set anything up.
    fn sets_up(&self) -> bool {
        let selection = selection(self.options);
        selection.takes(&["setup".to_owned()])
    }

    /// Puts the machines into the state in which an exercise begins: from a checkpoint, or by
    /// setting up on clean machines what it builds on.
    async fn begin(&mut self, variant: &Variant, wanted: &Exercise) -> anyhow::Result<Verdict> {
        let foundation = sequence::foundation(wanted, &variant.catalogue);
        if foundation.is_empty() {
            if self.ground != Ground::Untouched {
                self.load_clean().await?;
            }
            return Ok(Verdict::Done);
        }
        let checkpoint = self.checkpoint(variant, wanted, &foundation)?;
        let kept = checkpoint.clone();
        let was_there = self
            .in_lab(move |running| {
                let progress = progress::for_user(running.json);
                running
                    .lab
                    .load_checkpoint(&running.lock, &kept, &*progress)
            })
            .await?;
        if was_there {
            return Ok(Verdict::Done);
        }
        if self.ground != Ground::Untouched {
            self.load_clean().await?;
        }
        let what = format!("the way to the beginning of {}", wanted.name);
        let (lab, lock) = (&self.running.lab, &self.running.lock);
        lab.set_under_way(lock, Some(what))?;
        self.ground = Ground::Own;
        for name in &foundation {
            let ended = self.set_up(variant, name).await?;
            if ended.verdict != Verdict::Done {
                self.running.lab.set_under_way(&self.running.lock, None)?;
                return Ok(ended.verdict);
            }
        }
        self.running.lab.set_under_way(&self.running.lock, None)?;
        let kept = self
            .in_lab(move |running| {
                let progress = progress::for_user(running.json);
                running
                    .lab
                    .keep_checkpoint(&running.lock, &checkpoint, &*progress)
            })
            .await;
        if let Err(error) = kept {
            // The machines are where they should be; only the next time takes as long.
            super::note(&format!(
                "the state is not kept for the next time: {error:#}"
            ));
        }
        Ok(Verdict::Done)
    }

    /// A checkpoint is named by the machines, the agent, the playbooks and what was chosen.
    fn checkpoint(
        &self,
        variant: &Variant,
        wanted: &Exercise,
        foundation: &[String],
    ) -> anyhow::Result<Checkpoint> {
        let settings = self.reader.settings;
        let done: Vec<_> = foundation
            .iter()
            .filter_map(|name| variant.catalogue.get(name))
            .map(|exercise| (&exercise.name, &exercise.choices))
            .collect();
        let mut extra: Vec<String> = variant
            .extra
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        extra.sort();
        let agent = AgentFile::find()?;
        let made_of = (
            done,
            extra,
            &agent.binary()?.sha256,
            hash_of_files(&settings.folder.path("playbooks"))?,
            hash_of_files(&settings.folder.path("templates"))?,
        );
        let name = format!("before-{}", wanted.name);
        let ingredients = self.running.ingredients.as_ref();
        let ingredients = ingredients.expect("exercises run in a lab that was brought up");
        Ok(self.running.lab.checkpoint(ingredients, &name, &made_of))
    }

    async fn mend(
        &mut self,
        variant: &Variant,
        undo: &[Done],
        set_up: &[String],
    ) -> anyhow::Result<Verdict> {
        for done in undo {
            let ended = self.undo(variant, done).await?;
            if ended.verdict != Verdict::Done {
                return Ok(ended.verdict);
            }
        }
        for name in set_up {
            let ended = self.set_up(variant, name).await?;
            if ended.verdict != Verdict::Done {
                return Ok(ended.verdict);
            }
        }
        Ok(Verdict::Done)
    }

    async fn set_up(&mut self, variant: &Variant, name: &str) -> anyhow::Result<Ended> {
        let exercise = &variant.catalogue[name];
        self.tell_start(exercise, &exercise.choices, Part::SetUp);
        let selection = only("setup");
        self.forget(name)?;
        let playbook = &variant.playbooks[name];
        let ended = self.play(playbook, &variant.extra, selection).await?;
        if ended.verdict == Verdict::Done {
            self.note(exercise.done())?;
        }
        Ok(ended)
    }

    /// Undoes what stands, with what was chosen for it then.
    async fn undo(&mut self, variant: &Variant, done: &Done) -> anyhow::Result<Ended> {
        let extra = vars::extra(&done.typed(), &*self.reader.loader)
            .map_err(|problems| anyhow::anyhow!("{}", problems[0].message))?;
        let path = path_of(self.reader.settings, &done.name);
        let playbook = self
            .reader
            .load(&path, &extra, &RunOptions::default())
            .map_err(|problems| anyhow::anyhow!("{}", problems[0].message))?;
        let title = variant
            .catalogue
            .get(&done.name)
            .map(|own| own.title.clone());
        let exercise = Exercise {
            name: done.name.clone(),
            title: title.unwrap_or_else(|| done.name.clone()),
            needs: Vec::new(),
            choices: done.choices.clone(),
        };
        self.tell_start(&exercise, &done.choices, Part::Undo);
        self.forget(&done.name)?;
        self.play(&playbook, &extra, only("teardown")).await
    }

    /// Runs what was asked for, with the tags that were typed.
    async fn asked(&mut self, variant: &Variant, asked: &Asked) -> anyhow::Result<Ended> {
        let selection = selection(self.options);
        let exercise = asked.exercise.as_ref().map(|name| &variant.catalogue[name]);
        if let Some(exercise) = exercise {
            if !self.summary.lines.is_empty() || self.ground == Ground::Own {
                self.tell_start(exercise, &exercise.choices, Part::Asked);
            }
            if self.sets_up() || selection.takes(&["never".to_owned(), "teardown".to_owned()]) {
                self.forget(&exercise.name)?;
            }
        }
        let ended = self
            .play(&asked.playbook, &variant.extra, selection)
            .await?;
        if let Some(exercise) = exercise
            && self.sets_up()
            && ended.verdict == Verdict::Done
        {
            self.note(exercise.done())?;
        }
        Ok(ended)
    }

    fn tell_start(&mut self, exercise: &Exercise, choices: &Choices, part: Part) {
        self.reporter
            .report(&Event::ExerciseStarted(ExerciseStarted {
                name: exercise.name.clone(),
                title: exercise.title.clone(),
                choices: typed(choices),
                part,
            }));
    }

    /// Takes an exercise out of the record before it is touched.
    fn forget(&self, name: &str) -> anyhow::Result<()> {
        let mut done = self.running.lab.done()?;
        done.retain(|each| each.name != name);
        Ok(self.running.lab.set_done(&self.running.lock, done)?)
    }

    fn note(&self, exercise: Done) -> anyhow::Result<()> {
        let mut done = self.running.lab.done()?;
        done.push(exercise);
        Ok(self.running.lab.set_done(&self.running.lock, done)?)
    }

    async fn play(
        &mut self,
        playbook: &Playbook,
        extra: &Layer,
        tags: Selection,
    ) -> anyhow::Result<Ended> {
        let reader = self.reader;
        let mut known = reader
            .known(playbook, extra)
            .map_err(|problems| anyhow::anyhow!("{}", problems[0].message))?;
        known.flags = run_flags(reader.settings, self.options);
        let seed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let services = Arc::new(Services {
            renderer: Renderer::new(Arc::clone(&reader.loader), seed),
            loader: Arc::clone(&reader.loader),
            hosts: Arc::clone(&self.hosts) as Arc<dyn Hosts>,
            flags: flags(reader.settings, self.options),
        });
        let wishes = Wishes {
            tags,
            gathers_by_default: true,
            ..Wishes::default()
        };
        let begun = Instant::now();
        let mut counting = Counting {
            inner: &mut self.reporter,
            recap: Recap::default(),
        };
        let mut dispatcher = Dispatcher::new(
            services,
            reader.inventory.clone(),
            known,
            wishes,
            &mut counting,
            self.interrupt.clone(),
        );
        if self.options.step {
            dispatcher = dispatcher.asking(ask());
        }
        let verdict = dispatcher.run(playbook).await;
        Ok(Ended {
            verdict,
            counts: counting.recap.total(),
            took: begun.elapsed(),
        })
    }

    async fn load_clean(&mut self) -> anyhow::Result<()> {
        self.in_lab(|running| {
            let progress = progress::for_user(running.json);
            running.lab.load(&running.lock, CLEAN, &*progress)
        })
        .await
    }

    /// Keeps what somebody had on the machines before they are put back.
    async fn keep_before(&mut self) -> anyhow::Result<()> {
        if self.ground != Ground::InUse {
            return Ok(());
        }
        let kept = self
            .in_lab(|running| {
                let progress = progress::for_user(running.json);
                running.lab.save(&running.lock, BEFORE_RUN, &*progress)
            })
            .await;
        match kept {
            Ok(()) => super::note(&format!(
                "the machines begin afresh; what was on them is kept: `halab snapshot load {BEFORE_RUN}`"
            )),
            Err(error) => super::note(&format!("what was on the machines is not kept: {error:#}")),
        }
        Ok(())
    }

    /// Does something long with the lab; the hosts are connected anew afterwards.
    async fn in_lab<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Held) -> Result<T, LabError> + Send + 'static,
    ) -> anyhow::Result<T> {
        let held = Held {
            lab: Arc::clone(&self.running.lab),
            lock: Arc::clone(&self.running.lock),
            json: self.reader.settings.json,
        };
        let done = tokio::task::spawn_blocking(move || work(&held))
            .await
            .context("the lab's work panicked")?;
        for host in self.reader.inventory.host_names() {
            self.hosts.reset(&host);
        }
        Ok(done?)
    }
}

/// What a blocking piece of work needs of the lab.
struct Held {
    lab: Arc<crate::vm::lab::Lab>,
    lock: Arc<crate::vm::state::LabLock>,
    json: bool,
}

/// Says why an exercise is left out.
fn not_run(
    variant: &Variant,
    asked: &Asked,
    failed: &[String],
    exit: Exit,
    continue_on_error: bool,
) -> Option<String> {
    match exit {
        Exit::Done => return None,
        Exit::Interrupted => return Some("interrupted".to_owned()),
        _ if !continue_on_error => return Some("one before it failed".to_owned()),
        _ => {}
    }
    let exercise = variant.catalogue.get(asked.exercise.as_ref()?)?;
    let foundation = sequence::foundation(exercise, &variant.catalogue);
    let broken = foundation.into_iter().find(|need| failed.contains(need))?;
    Some(format!("it builds on {broken}, which failed"))
}

fn typed(choices: &Choices) -> Vec<String> {
    choices
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn only(tag: &str) -> Selection {
    Selection {
        only: vec![tag.to_owned()],
        skip: Vec::new(),
    }
}

fn selection(options: &RunOptions) -> Selection {
    Selection {
        only: options.tags.clone(),
        skip: options.skip_tags.clone(),
    }
}

/// Changes whenever a file below the folder does.
fn hash_of_files(folder: &Path) -> anyhow::Result<u64> {
    fn visit(folder: &Path, hasher: &mut DefaultHasher) -> std::io::Result<()> {
        let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            entry.file_name().hash(hasher);
            if entry.file_type()?.is_dir() {
                visit(&entry.path(), hasher)?;
            } else {
                std::fs::read(entry.path())?.hash(hasher);
            }
        }
        Ok(())
    }
    let mut hasher = DefaultHasher::new();
    visit(folder, &mut hasher).with_context(|| format!("failed to read {}", folder.display()))?;
    Ok(hasher.finish())
}
