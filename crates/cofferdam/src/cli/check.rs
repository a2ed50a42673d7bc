//! `cofferdam check`: manifests held against the Pod Security Standards, for people and for CI.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use policy::{
    lint::Severity,
    pod_security::{Level, LevelVersion, Version},
};

use crate::check::{self, Source, report};

#[derive(Args)]
#[command(
    disable_version_flag = true,
    after_help = "Needs no cluster and no root. Every object that makes pods is checked: Pod, Deployment, ReplicaSet, \
StatefulSet, DaemonSet, Job, CronJob, ReplicationController, PodTemplate, and Lists of them.

Exits 1 if something violates the level or will not start; with --strict, if anything is found; with --fix, if \
something is left to be done by hand.

Examples:
  cofferdam check -f pod.yaml
  cofferdam check -f manifests/ -R --level baseline
  kubectl kustomize overlays/prod | cofferdam check -f -
  helm template ./chart | cofferdam check -f - -o sarif > check.sarif
  cofferdam check -f pod.yaml --fix | patch -p1"
)]
pub struct CheckArgs {
    /// Manifests: a file, a directory, or `-` for standard input (may be given again).
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    filename: Vec<String>,
    /// Read directories in directories too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The level of the Pod Security Standards: privileged, baseline or restricted.
    #[arg(long, default_value = "restricted", value_parser = parse_level)]
    level: Level,
    /// The version of the standard: v1.0 to v1.35, or latest.
    #[arg(id = "standard-version", long = "version", default_value = "latest", value_name = "VERSION", value_parser = parse_version)]
    version: Version,
    #[arg(short, long, value_parser = ["text", "json", "sarif"], default_value = "text")]
    output: String,
    /// Print the difference to a manifest that the level would let in; nothing is written.
    #[arg(long, conflicts_with = "output")]
    fix: bool,
    /// Fail for warnings too.
    #[arg(long)]
    strict: bool,
}

fn parse_level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text.parse() {
        Ok(Version::V1(minor)) if minor > policy::pod_security::NEWEST => {
            Err(format!("the newest version known is v1.{}", policy::pod_security::NEWEST))
        }
        Ok(version) => Ok(version),
        Err(error) => Err(format!("{error}")),
    }
}

/// Prints to `out` what was found or would be changed, to `notes` what people should know of a change; returns the exit code.
pub fn run(args: &CheckArgs, out: &mut impl Write, notes: &mut impl Write) -> Result<i32> {
    let policy = LevelVersion { level: args.level, version: args.version };
    let sources = check::read(&args.filename, args.recursive)?;
    if args.fix {
        return fix(&sources, policy, out, notes);
    }
    let report = check::check(&sources, policy);
    match args.output.as_str() {
        "json" => writeln!(out, "{:#}", report::json(&report))?,
        "sarif" => writeln!(out, "{:#}", report::sarif(&report))?,
        _ => report::text(&report, out)?,
    }
    let fails = report.count(Severity::Error) + if args.strict { report.count(Severity::Warning) } else { 0 };
    Ok(i32::from(fails > 0))
}

fn fix(
    sources: &[Source],
    policy: LevelVersion,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<i32> {
    let mut left = false;
    for source in sources {
        let fixed = check::fix(source, policy)?;
        let name = if source.name == "STDIN" { "stdin" } else { &source.name };
        write!(out, "{}", check::unified(name, &source.text, &fixed.text))?;
        for note in fixed.notes {
            writeln!(notes, "note: {name}: {note}")?;
        }
        for by_hand in fixed.left {
            left = true;
            writeln!(notes, "by hand: {name}: {by_hand}")?;
        }
    }
    Ok(i32::from(left))
}

/// The arguments of `check -f FILE… REST…`.
#[cfg(test)]
pub fn arguments(files: &[&std::path::Path], rest: &[&str]) -> CheckArgs {
    use clap::Parser;
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: CheckArgs,
    }
    let files = files.iter().flat_map(|file| ["-f".to_owned(), file.display().to_string()]);
    let arguments = ["check".to_owned()].into_iter().chain(files).chain(rest.iter().map(|a| (*a).to_owned()));
    Alone::try_parse_from(arguments).expect("arguments").args
}
