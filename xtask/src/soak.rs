//! `cargo xtask soak`: the network's soak test for some minutes, with a seed of one's choice.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// `[--minutes N] [--seed N]`
pub fn run(args: &[String]) -> Result<()> {
    let mut minutes = 5.0;
    let mut seed = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let value = rest.next().with_context(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--minutes" => minutes = value.parse::<f64>().with_context(|| format!("--minutes {value}"))?,
            "--seed" => seed = Some(value.parse::<u64>().with_context(|| format!("--seed {value}"))?),
            other => bail!("no option {other}: --minutes N, --seed N"),
        }
    }
    ensure!(minutes > 0.0 && minutes <= 24.0 * 60.0, "--minutes is more than 0 and at most a day");
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["test", "-p", "node", "--test", "net_soak", "--", "--nocapture"])
        .env("COFFERDAM_SOAK_SECONDS", format!("{:.0}", (minutes * 60.0).ceil()));
    if let Some(seed) = seed {
        command.env("COFFERDAM_SOAK_SEED", seed.to_string());
    }
    let status = command.status().context("run cargo test")?;
    ensure!(status.success(), "the soak found something: the seed stands above");
    Ok(())
}
