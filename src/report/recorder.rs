//! Keeps a run's events with their times while another reporter shows them.

use std::time::Instant;

use super::html::Timed;
use super::reporter::Reporter;
use crate::run::event::Event;

/// Passes every event on and keeps it where a report was asked for.
#[derive(Debug)]
pub struct Recorder {
    inner: Box<dyn Reporter>,
    begun: Instant,
    /// None: nobody wants a report.
    events: Option<Vec<Timed>>,
}

impl Recorder {
    pub fn new(inner: Box<dyn Reporter>, keeps: bool) -> Self {
        Self {
            inner,
            begun: Instant::now(),
            events: keeps.then(Vec::new),
        }
    }

    pub fn events(&self) -> &[Timed] {
        self.events.as_deref().unwrap_or_default()
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }
}

impl Reporter for Recorder {
    fn report(&mut self, event: &Event) {
        if let Some(events) = &mut self.events {
            events.push((self.begun.elapsed(), event.clone()));
        }
        self.inner.report(event);
    }
}
