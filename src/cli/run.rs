//! From what was typed to the function that does it, and from its end to an exit code.

use std::io;

use clap::CommandFactory;

use super::args::{Cli, Command, Completions, Init};
use super::exit::Exit;
use super::folder::LabFolder;
use super::settings::Settings;

/// Does what was typed. An error that reaches the caller means "could not run".
pub fn run(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        Command::Init(args) => init(args),
        Command::Completions(args) => Ok(completions(args)),
        command => {
            let settings = Settings::new(&cli.common)?;
            run_in_lab(&settings, command)
        }
    }
}

/// The commands that are about one lab.
fn run_in_lab(settings: &Settings, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Doctor(args) => super::doctor::doctor(settings, args),
        Command::Run(args) => super::playbook::run(settings, args),
        Command::Goto(args) => super::playbook::goto(settings, args),
        Command::Bench(args) => super::bench::bench(settings, args),
        Command::Up(args) => super::topology::up(settings, args),
        Command::Down(args) => super::topology::down(settings, args),
        Command::Reset(args) => super::topology::reset(settings, args),
        Command::Status => super::topology::status(settings),
        Command::Snapshot(args) => super::topology::snapshot(settings, args),
        Command::Grade(args) => super::grade::grade(settings, args),
        Command::Export(args) => super::submissions::export(settings, args),
        Command::InternalGrade(args) => super::submissions::grade_alone(settings, args),
        Command::Clone(args) => super::topology::clone(settings, args),
        Command::Ssh(args) => super::topology::ssh(settings, args),
        Command::Shell(args) => super::topology::shell(settings, args),
        Command::Console(args) => super::topology::console(settings, args),
        Command::Forward(args) => super::topology::forward(settings, args),
        Command::Capture(args) => super::capture::capture(settings, args),
        Command::Fault(args) => super::topology::fault(settings, args),
        Command::InternalConnect(args) => super::topology::internal_connect(settings, args),
        Command::InternalEnter(args) => super::topology::internal_enter(settings, args),
        Command::InternalHold(args) => super::topology::internal_hold(settings, args),
        command => anyhow::bail!("{command:?} is not in this build"),
    }
}

fn init(args: &Init) -> anyhow::Result<Exit> {
    let folder = LabFolder::init(&args.dir)?;
    super::say(&format!(
        "wrote the lab into {dir}\nrun it from there: halab --dir {dir} run 01-lvs-dr",
        dir = folder.root.display()
    ));
    Ok(Exit::Done)
}

fn completions(args: &Completions) -> Exit {
    clap_complete::generate(args.shell, &mut Cli::command(), "halab", &mut io::stdout());
    Exit::Done
}
