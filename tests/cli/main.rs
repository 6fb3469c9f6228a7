//! The program as somebody meets it at a prompt, without machines: bad input is told apart,
//! with its place, before anything runs.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod basics;
mod capture;
mod doctor;
