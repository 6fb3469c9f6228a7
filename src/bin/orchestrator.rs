//! `halab`: parses the command line, calls the library, ends with its exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use halab::base::chain::Chain;
use halab::cli::args::Cli;
use halab::cli::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = halab::cli::run::run(&cli).unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "halab: {}", Chain(error.as_ref()));
        Exit::CouldNotRun
    });
    ExitCode::from(exit.code())
}
