//! The line at the bottom of a terminal that says which hosts are still at work.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::reporter::Reporter;
use super::view::Busy;
use crate::run::event::Event;

/// How often the spinner turns: often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);

/// Puts a progress line below what another reporter prints.
pub struct Progress<Inner> {
    inner: Inner,
    busy: Busy,
    bar: ProgressBar,
}

impl<Inner: Reporter> Progress<Inner> {
    pub fn new(inner: Inner) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        Self {
            inner,
            busy: Busy::default(),
            bar,
        }
    }
}

impl<Inner> fmt::Debug for Progress<Inner> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl<Inner: Reporter> Reporter for Progress<Inner> {
    fn report(&mut self, event: &Event) {
        let inner = &mut self.inner;
        self.bar.suspend(|| inner.report(event));
        self.busy.apply(event);
        if let Event::TaskStarted(_) = event {
            self.bar.reset_elapsed();
            self.bar.enable_steady_tick(TICK);
        }
        if let Some(line) = self.busy.line() {
            self.bar.set_message(line);
        } else {
            self.bar.disable_steady_tick();
            self.bar.set_message("");
        }
        if matches!(event, Event::Finished(_) | Event::Interrupted) {
            self.bar.finish_and_clear();
        }
    }
}
