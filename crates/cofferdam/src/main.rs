//! Cofferdam: one program that is a whole Kubernetes cluster on one machine, and says what its pods can reach.

mod check;
mod cli;
mod cluster;
mod demo;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("cofferdam: {error:#}");
            ExitCode::FAILURE
        }
    }
}
