//! `cofferdam netpol`: what network policies come to, of a cluster or of manifests without one.

mod diff;
mod files;
mod groups;
mod lint;
pub(super) mod objects;
mod table;

use anyhow::{Context, Result};
use clap::Subcommand;
use policy::network_policy::ir::{Cidr, Family};

use self::objects::Objects;
use crate::{cli::out, cluster::layout::Layout};

/// Where pods' addresses are from, where no cluster says so.
const POD_RANGE: &str = "10.244.0.0/16";
const POD_RANGE_V6: &str = "fd00:cf:244::/56";
const FAILED: i32 = 2;

#[derive(Subcommand, Debug)]
pub enum NetpolCommand {
    /// Who reaches whom on which ports, as a table.
    Table(table::TableArgs),
    /// Which connections a change opens or closes, before it is applied; exits 1 if any.
    Diff(diff::DiffArgs),
    /// What is probably not what the author of a policy meant; exits 1 if anything.
    Lint(lint::LintArgs),
}

/// Returns the exit code: 2 for what cannot be done.
pub fn run(layout: &Layout, command: &NetpolCommand) -> Result<i32> {
    let mut out = out::stdout();
    let done = match command {
        NetpolCommand::Table(args) => table::run(layout, args, &mut out),
        NetpolCommand::Diff(args) => diff::run(layout, args, &mut out),
        NetpolCommand::Lint(args) => lint::run(layout, args, &mut out),
    };
    Ok(done.unwrap_or_else(|error| {
        out::failed("cofferdam netpol: ", &error);
        FAILED
    }))
}

/// The objects of the cluster.
pub(super) fn fetch(layout: &Layout) -> Result<Objects> {
    super::ask(layout, |client| async move { Objects::fetch(&client).await })
}

/// The ranges that pods have their addresses from, IPv4's first; IPv6's where the cluster has it. Without a cluster,
/// `objects` say whether IPv6 is meant: a pod has an address of it, or a policy speaks of one.
pub(super) fn pod_ranges(layout: &Layout, objects: &[&Objects]) -> Result<Vec<Cidr>> {
    let (v4, v6) = match layout.read_if_any()? {
        Some(cluster) => (cluster.pod_cidr, cluster.v6.map(|v6| v6.pod_cidr)),
        None => {
            let v6 = objects.iter().any(|objects| objects.speaks_ipv6());
            (POD_RANGE.to_string(), v6.then(|| POD_RANGE_V6.to_string()))
        }
    };
    let parse = |range: String| Cidr::parse(&range).context("the cluster's pod range");
    [v4].into_iter().chain(v6).map(parse).collect()
}

/// As people call a family.
fn family_name(range: &Cidr) -> &'static str {
    match range.family() {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
