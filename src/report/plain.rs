//! Ansible's lines onto two streams, usually stdout and stderr.

use std::fmt;
use std::io::Write;

use super::reporter::Reporter;
use super::view::{Style, Text, View};
use crate::run::event::Event;

/// Writes each event's text as it comes.
pub struct Plain<Out, Err> {
    view: View,
    out: Out,
    err: Err,
}

impl<Out: Write, Err: Write> Plain<Out, Err> {
    pub fn new(style: Style, out: Out, err: Err) -> Self {
        Self {
            view: View::new(style),
            out,
            err,
        }
    }
}

impl<Out, Err> fmt::Debug for Plain<Out, Err> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Plain").finish_non_exhaustive()
    }
}

impl<Out: Write + Send, Err: Write + Send> Reporter for Plain<Out, Err> {
    fn report(&mut self, event: &Event) {
        for text in self.view.text(event) {
            // A reader that went away (`| head`) does not end the run half way.
            let _ = match text {
                Text::Out(text) => self
                    .out
                    .write_all(text.as_bytes())
                    .and_then(|()| self.out.flush()),
                Text::Err(text) => self.err.write_all(text.as_bytes()),
            };
        }
    }
}
