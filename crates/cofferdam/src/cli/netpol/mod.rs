//! `cofferdam netpol`: what network policies come to, of a cluster or of manifests without one.

mod diff;
mod files;
mod groups;
mod lint;
pub(super) mod objects;
mod table;

use anyhow::{Context, Result};
use clap::Subcommand;
use policy::network_policy::ir::Cidr;

use self::objects::Objects;
use crate::{cli::out, cluster::layout::Layout};

/// Where pods' addresses are from, where no cluster says so.
const POD_RANGE: &str = "10.244.0.0/16";
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
    let mut objects = None;
    super::ask(layout, |client| async {
        let client = client;
        objects = Some(Objects::fetch(&client).await?);
        Ok(0)
    })?;
    objects.context("the cluster was not asked")
}

fn pod_range(layout: &Layout) -> Result<Cidr> {
    let known = layout.read_if_any()?.map(|cluster| cluster.pod_cidr);
    Cidr::parse(known.as_deref().unwrap_or(POD_RANGE)).context("the cluster's pod range")
}
