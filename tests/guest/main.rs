//! Tests in real guests, one after the other: they share two cores and one image.
//!
//! They need what `halab doctor` asks for. Where it is missing they are skipped and say why;
//! with `HALAB_GUEST_TESTS=required` (as in CI) that is a failure.

mod capture;
mod clone;
mod exercises;
mod grading;
mod hand_in;
mod heartbeat;
mod interruptions;
mod ipvs;
mod kills;
mod modules;
mod peers;
mod replica;
mod replica_tools;
mod rootless;
mod sequence;
#[path = "../support/mod.rs"]
mod support;
mod text;
mod topology;
mod whole;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use support::Lab;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut trials: Vec<Trial> = topology::trials();
    trials.extend(kills::trials());
    trials.extend(interruptions::trials());
    trials.extend(modules::trials());
    trials.extend(rootless::trials());
    trials.extend(clone::trials());
    trials.extend(exercises::trials());
    trials.extend(heartbeat::trials());
    trials.extend(capture::trials());
    trials.extend(sequence::trials());
    trials.extend(grading::trials());
    trials.extend(hand_in::trials());
    trials.extend(ipvs::trials());
    trials.extend(peers::trials());
    trials.extend(replica_tools::trials());
    trials.extend(replica::trials());
    trials.extend(text::trials());
    trials.extend(whole::trials());
    if !arguments.list
        && std::env::var_os(support::guest::GIVEN_GUEST).is_none()
        && let Err(why) = machine_is_ready()
    {
        trials = trials
            .into_iter()
            .map(|trial| without_guests(trial, &why))
            .collect();
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Asks the doctor, as a user would.
fn machine_is_ready() -> Result<(), String> {
    let found = Lab::new("doctor").halab(["doctor"]);
    if found.code == 0 {
        Ok(())
    } else {
        Err(found.to_string())
    }
}

/// The same test, skipped with its reason, or failed where guests are required.
fn without_guests(trial: Trial, why: &str) -> Trial {
    let name = trial.name().to_owned();
    let why = why.to_owned();
    if std::env::var_os("HALAB_GUEST_TESTS").is_some_and(|value| value == "required") {
        return Trial::test(name, move || {
            Err(Failed::from(format!("no guest can run here: {why}")))
        });
    }
    #[expect(
        clippy::print_stderr,
        reason = "the reason of a skip is for the reader of the run"
    )]
    {
        eprintln!("skipped {name}: no guest can run here; `halab doctor` says why");
    }
    trial.with_ignored_flag(true)
}

/// A test that is a statement and a function that panics when the statement is wrong.
fn trial(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}
