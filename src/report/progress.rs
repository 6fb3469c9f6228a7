//! The line at the bottom of a terminal that says which hosts are still at work.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::reporter::Reporter;
use super::view::Busy;
use crate::run::event::Event;

/// How often the spinner turns: often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);

const SPINNER: &str = "{spinner} {wide_msg} {elapsed}";
const BAR: &str = "{bar:30} {wide_msg} {elapsed}";
/// A bar's steps: DRBD tells tenths of a per cent.
const PER_MILLE: u64 = 1000;

/// Puts a progress line below what another reporter prints.
pub struct Progress<Inner> {
    inner: Inner,
    busy: Busy,
    bar: ProgressBar,
    has_bar: bool,
}

impl<Inner: Reporter> Progress<Inner> {
    pub fn new(inner: Inner) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style(SPINNER));
        Self {
            inner,
            busy: Busy::default(),
            bar,
            has_bar: false,
        }
    }
}

impl<Inner> Progress<Inner> {
    /// A task that says how far it is gets a bar, every other one a spinner.
    fn show_how_far(&mut self) {
        let percent = self.busy.percent();
        if percent.is_some() != self.has_bar {
            self.has_bar = percent.is_some();
            self.bar
                .set_style(style(if self.has_bar { BAR } else { SPINNER }));
        }
        if let Some(percent) = percent {
            self.bar.set_length(PER_MILLE);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and 1000"
            )]
            self.bar.set_position((percent * 10.0).round() as u64);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
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
            self.show_how_far();
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
