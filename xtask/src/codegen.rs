//! Writes `crates/api/src/schema/generated.rs` from two documents given by path: Kubernetes' OpenAPI document (names, types,
//! required, list and patch behaviour) and the sources of a crate with Kubernetes' protobuf messages as prost
//! writes them (tags). Only facts are carried over: no description of either is.

mod emit;
mod go;
mod openapi;
mod prost;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub const USAGE: &str = "codegen --openapi PATH --protobuf-crate PATH [--check]";

struct Options {
    openapi: PathBuf,
    protobuf: PathBuf,
    /// Compare with the committed file; write nothing.
    check: bool,
}

pub fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let text = std::fs::read_to_string(&options.openapi)
        .with_context(|| format!("read {}", options.openapi.display()))?;
    let document =
        serde_json::from_str(&text).with_context(|| format!("parse {}", options.openapi.display()))?;
    let mut types = openapi::reachable(&document)?;
    prost::add_tags(&mut types, &options.protobuf)?;
    let source = emit::source(&types);

    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/api/src/schema/generated.rs");
    if options.check {
        let committed =
            std::fs::read_to_string(&target).with_context(|| format!("read {}", target.display()))?;
        if committed != source {
            bail!("{} is not what codegen writes: run `cargo xtask {USAGE}`", target.display());
        }
        return Ok(());
    }
    std::fs::write(&target, source).with_context(|| format!("write {}", target.display()))?;
    let fields: usize = types.iter().map(|t| t.fields.len()).sum();
    println!("{}: {} types, {fields} fields", target.display(), types.len());
    Ok(())
}

fn parse(args: &[String]) -> Result<Options> {
    let (mut openapi, mut protobuf, mut check) = (None, None, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut path = || args.next().map(PathBuf::from).with_context(|| format!("{arg} needs a path"));
        match arg.as_str() {
            "--openapi" => openapi = Some(path()?),
            "--protobuf-crate" => protobuf = Some(path()?),
            "--check" => check = true,
            other => bail!("unknown argument {other}: {USAGE}"),
        }
    }
    Ok(Options {
        openapi: openapi.with_context(|| format!("--openapi is missing: {USAGE}"))?,
        protobuf: protobuf.with_context(|| format!("--protobuf-crate is missing: {USAGE}"))?,
        check,
    })
}
