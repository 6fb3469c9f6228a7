//! Whoever is told of a run's events.

use std::fmt;

use crate::run::event::Event;

/// Takes a run's events in their order.
pub trait Reporter: Send + fmt::Debug {
    fn report(&mut self, event: &Event);
}

/// Keeps the events, for tests and for reports that are made at the end.
#[derive(Debug, Default)]
pub struct Transcript {
    pub events: Vec<Event>,
}

impl Reporter for Transcript {
    fn report(&mut self, event: &Event) {
        self.events.push(event.clone());
    }
}
