//! Cofferdam: one program that is a whole Kubernetes cluster on one machine, and says what its pods can reach.

mod check;
mod cli;
mod cluster;
mod demo;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let done = cli::run(cli::Cli::parse());
    if cli::out::reader_is_gone() {
        return ExitCode::from(cli::out::NOBODY_READS);
    }
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            cli::out::failed("cofferdam: ", &error);
            ExitCode::FAILURE
        }
    }
}
