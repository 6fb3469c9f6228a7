//! `ipvsadm`: reads the command line, does what it says, prints what comes of it.
//!
//! | exit | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | a listing failed |
//! | 2 | the command line makes no sense, or there is no IPVS to talk to |
//! | 255 | the kernel refused, a word is no option, or there is no command |
//!
//! Messages begin with ipvsadm's own words; a second line says what may help.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};

use super::connections::{self, Engines};
use super::listing::{self, Style};
use super::model::ServiceEntry;
use super::model::{Change, ServiceId};
use super::name_service;
use super::names::{Names, Sources};
use super::options::{self, Command, Listed, Output, SCHEDULERS, UsageError};
use super::refusal::{Operation, Refusal};
use super::socket::{IpvsSocket, SocketError};
use crate::base::chain::Chain;

const DONE: u8 = 0;
const LISTING_FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 255;

/// Scripts look for ipvsadm's version at the front.
const VERSION_LINE: &str = concat!(
    "ipvsadm v1.31 2019/12/24 (spoken by ",
    env!("CARGO_PKG_NAME"),
    " ",
    env!("CARGO_PKG_VERSION"),
    ", for IPVS v1.2.1)\n"
);

/// Changes of a restored file that are asked for together. Messages about them come when
/// the last was asked for, still in the file's order.
const RESTORE_BATCH_MAX: usize = 128;

/// Runs `ipvsadm` with its whole command line, the program's name first. Returns the exit
/// code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<String> = arguments
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (program, words) = match words.split_first() {
        Some((program, words)) => (program.clone(), words),
        None => ("ipvsadm".to_owned(), &[][..]),
    };
    let socket = match IpvsSocket::open() {
        Ok(socket) => socket,
        Err(error) => {
            complain(&cannot_start(&error));
            return USAGE;
        }
    };
    let names = Names::when_needed(Sources {
        texts: name_service::texts,
        hosts: name_service::hosts,
        addresses: name_service::addresses,
    });
    let mut session = Session {
        program,
        socket,
        names,
    };
    if words.is_empty() {
        let what = Listed::Table(Style::default());
        return session.list(what, Output::Names);
    }
    session.run(words)
}

fn cannot_start(error: &SocketError) -> String {
    let (reason, hint) = match error {
        SocketError::NoModule => (
            "Protocol not available".to_owned(),
            "\n`modprobe ip_vs` as root says why the module cannot be loaded.",
        ),
        SocketError::Refused(refusal) => (refusal.to_string(), ""),
        error => (Chain(error).to_string(), ""),
    };
    format!(
        "Can't initialize ipvs: {reason}\n\
         Are you sure that IP Virtual Server is built in the kernel or as module?{hint}"
    )
}

/// Standard error may be closed; there is nobody else to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Output that nobody reads any more ends the command without a word.
fn say(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => DONE,
        Err(_) => LISTING_FAILED,
    }
}

struct Session {
    program: String,
    socket: IpvsSocket,
    names: Names,
}

impl Session {
    fn run(&mut self, words: &[String]) -> u8 {
        match options::parse(words, &self.names) {
            Ok(Command::Restore) => self.restore(&mut io::stdin().lock()),
            Ok(command) => self.carry_out(command),
            Err(error) => self.refuse(&error),
        }
    }

    fn carry_out(&mut self, command: Command) -> u8 {
        match command {
            Command::Help => {
                let text = VERSION_LINE.to_owned() + &options::help(&self.program);
                say(&text)
            }
            Command::Version => say(VERSION_LINE),
            Command::Change(change) => self.change(&[change]),
            Command::List { what, output } => self.list(what, output),
            Command::Save(output) => match self.socket.table() {
                Ok(table) => {
                    self.learn_names(&table, output);
                    say(&listing::commands(table, self.names_for(output)))
                }
                Err(error) => failed_listing(&error),
            },
            Command::Restore => self.refuse(&UsageError::NoCommand),
        }
    }

    fn refuse(&self, error: &UsageError) -> u8 {
        match error {
            UsageError::Refused { message, hint } => {
                complain(message);
                if let Some(hint) = hint {
                    complain(&format!("hint: {hint}"));
                }
                USAGE
            }
            UsageError::BadOption { message } => {
                complain(message);
                REFUSED
            }
            UsageError::NoCommand => {
                let program = &self.program;
                complain(&format!(
                    "Try `{program} -h' or '{program} --help' for more information."
                ));
                REFUSED
            }
        }
    }

    /// Asks for all changes; returns what became of the last.
    fn change(&mut self, changes: &[Change]) -> u8 {
        let refused = match self.socket.apply(changes) {
            Ok(refused) => refused,
            Err(error) => {
                complain(&Chain(&error).to_string());
                return REFUSED;
            }
        };
        for (index, refusal) in &refused {
            complain(&refusal.to_string());
            if let Some(hint) = hint(&changes[*index], *refusal) {
                complain(&format!("hint: {hint}"));
            }
        }
        match refused.last() {
            Some((index, _)) if index + 1 == changes.len() => REFUSED,
            _ => DONE,
        }
    }

    fn list(&mut self, what: Listed, output: Output) -> u8 {
        match self.listing(what, output) {
            Ok(text) => say(&text),
            Err(error) => failed_listing(&error),
        }
    }

    fn listing(&mut self, what: Listed, output: Output) -> Result<String, SocketError> {
        Ok(match what {
            Listed::Table(style) => {
                let table = self.socket.table()?;
                self.learn_names(&table, output);
                let version = listing::version_line(self.socket.info());
                version + &listing::table(table, style, self.names_for(output))
            }
            Listed::Service(id, style) => {
                let table = vec![self.socket.service(id)?];
                self.learn_names(&table, output);
                listing::table(table, style, self.names_for(output))
            }
            Listed::Connections(engines) => return Ok(self.connections(engines, output)),
            Listed::Timeouts => listing::timeouts(self.socket.timeouts()?),
            Listed::Daemons => listing::daemons(&self.socket.daemons()?),
        })
    }

    fn connections(&mut self, engines: Engines, output: Output) -> String {
        let table = name_service::read_or_nothing("/proc/net/ip_vs_conn");
        if output == Output::Names {
            self.names.learn(connections::addresses(&table));
        }
        connections::listing(&table, engines, self.names_for(output))
    }

    fn learn_names(&mut self, table: &[ServiceEntry], output: Output) {
        if output == Output::Names {
            self.names
                .learn(table.iter().flat_map(ServiceEntry::addresses));
        }
    }

    fn names_for(&self, output: Output) -> &Names {
        match output {
            Output::Names => &self.names,
            Output::Numeric => Names::none(),
        }
    }

    /// Runs each line as a command; returns what became of the last.
    fn restore(&mut self, input: &mut dyn BufRead) -> u8 {
        let mut result = DONE;
        let mut batch: Vec<Change> = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            match input.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    complain(&format!("failed to read standard input: {error}"));
                    result = REFUSED;
                    break;
                }
            }
            let words = self.words(&String::from_utf8_lossy(&line));
            if words.is_empty() {
                continue;
            }
            let parsed = options::parse(&words, &self.names);
            if let Ok(Command::Change(change)) = parsed {
                batch.push(change);
                if batch.len() == RESTORE_BATCH_MAX {
                    result = self.change(&std::mem::take(&mut batch));
                }
                continue;
            }
            // What follows must see the table, and speak, after the changes before it.
            self.change(&std::mem::take(&mut batch));
            match parsed {
                Ok(command @ (Command::Help | Command::Version | Command::Restore)) => {
                    return self.carry_out(command);
                }
                Ok(command) => result = self.carry_out(command),
                Err(error @ UsageError::BadOption { .. }) => result = self.refuse(&error),
                Err(error) => return self.refuse(&error),
            }
        }
        if batch.is_empty() {
            result
        } else {
            self.change(&batch)
        }
    }

    /// A saved line may begin with the program's name.
    fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace()
            .filter(|word| *word != "ipvsadm" && *word != self.program)
            .map(str::to_owned)
            .collect()
    }
}

fn failed_listing(error: &SocketError) -> u8 {
    complain(&Chain(error).to_string());
    LISTING_FAILED
}

/// What somebody who reads this refusal probably wants to know.
fn hint(change: &Change, refusal: Refusal) -> Option<String> {
    let name = |id: &ServiceId| listing::service_option(id, Names::none());
    match (change, refusal.operation) {
        (Change::AddService(service) | Change::EditService(service), _)
            if refusal.is_not_found() =>
        {
            let scheduler = &service.scheduler;
            if SCHEDULERS.contains(&scheduler.as_str()) {
                return Some(format!(
                    "the module ip_vs_{scheduler} or the engine is missing"
                ));
            }
            Some(format!(
                "'{scheduler}' is not one of {}",
                SCHEDULERS.join(", ")
            ))
        }
        (Change::AddService(service), _) if refusal.is_present() => {
            Some(format!("change it with -E {}", name(&service.id)))
        }
        (Change::AddDestination(id, _), Operation::AddDestination) if refusal.is_unknown() => {
            Some(format!("add the service first: -A {}", name(id)))
        }
        (Change::AddDestination(..) | Change::EditDestination(..), _) if refusal.is_range() => {
            Some("the lower threshold is at most the upper one".to_owned())
        }
        _ => None,
    }
}
