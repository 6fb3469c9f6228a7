//! Says what long work on the host is doing right now, so that nobody looks at a still screen.
//!
//! Whoever works for more than a second takes a [`Progress`] and names each step; how that
//! looks is decided here: a spinner on a terminal, a line a step in a log, nothing beside JSON.
//! All of it goes to standard error, so that results stay alone on standard output.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The spinner's pace: fast enough to look alive, slow enough to cost nothing over SSH.
const SPINNER_PERIOD: Duration = Duration::from_millis(120);

/// Takes the names of steps. Called from any thread, also while another step is shown.
pub trait Progress: Send + Sync {
    /// Shows what is being done from now on, in place of the step before.
    fn step(&self, text: &str);

    /// Shows how far the current step is; a log does without.
    fn detail(&self, text: &str);

    /// Leaves a line that stays: something the user should know afterwards.
    fn note(&self, text: &str);

    /// Takes the current step away; a later step may follow.
    fn done(&self);
}

/// Picks the form that suits where standard error goes.
pub fn for_user(json: bool) -> Box<dyn Progress> {
    if json {
        Box::new(Quiet)
    } else if io::stderr().is_terminal() {
        Box::new(Spinner::default())
    } else {
        Box::new(Lines::default())
    }
}

/// Shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&self, _text: &str) {}
    fn detail(&self, _text: &str) {}
    fn note(&self, _text: &str) {}
    fn done(&self) {}
}

/// One spinner with the current step and the time it has taken.
#[derive(Debug, Default)]
pub struct Spinner {
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress for Spinner {
    fn step(&self, text: &str) {
        let mut bar = lock(&self.bar);
        if bar.as_ref().is_some_and(|bar| bar.message() == text) {
            return;
        }
        let bar = bar.get_or_insert_with(new_bar);
        bar.reset_elapsed();
        bar.set_message(text.to_owned());
    }

    fn detail(&self, text: &str) {
        lock(&self.bar)
            .get_or_insert_with(new_bar)
            .set_message(text.to_owned());
    }

    fn note(&self, text: &str) {
        match lock(&self.bar).as_ref() {
            Some(bar) => bar.println(text),
            None => write_line(text),
        }
    }

    fn done(&self) {
        if let Some(bar) = lock(&self.bar).take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.done();
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
            .expect("the template is a constant"),
    );
    bar.enable_steady_tick(SPINNER_PERIOD);
    bar
}

/// A line for each step; a step named twice in a row is said once.
#[derive(Debug, Default)]
pub struct Lines {
    last: Mutex<String>,
}

impl Progress for Lines {
    fn step(&self, text: &str) {
        let mut last = lock(&self.last);
        if *last != text {
            text.clone_into(&mut last);
            write_line(text);
        }
    }

    fn detail(&self, _text: &str) {}

    fn note(&self, text: &str) {
        write_line(text);
    }

    fn done(&self) {
        lock(&self.last).clear();
    }
}

/// A reader who closed standard error does not stop the work.
fn write_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
