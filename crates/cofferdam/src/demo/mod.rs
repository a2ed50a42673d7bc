//! `cofferdam demo`: the chapter's manifests on three nodes, each behaviour held against what the kernel shows and what
//! the wire carries. One table at the end; a row that disagrees makes the exit code 1.

mod cluster;
mod network;
mod node_use;
pub mod observe;
mod security;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;
use node::images::ImageStore;

use self::cluster::Demo;
use crate::cluster::{
    down::{self, Keep},
    layout::Layout,
    up,
};

#[derive(Args)]
#[command(
    after_help = "The demo's own cluster does not touch yours. The names `nginx` and `busybox` of the manifests run the \
program's own small tool image, so no registry is needed; give archives of the real ones with --image.

Examples:
  cofferdam demo
  cofferdam demo --keep              leave the cluster up to look around"
)]
pub struct DemoArgs {
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
    /// Image archives to load first, such as the real nginx and busybox.
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// `json` for programs.
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

/// One behaviour.
#[derive(serde::Serialize)]
pub struct Row {
    /// Its number in the feature table of the documentation.
    pub id: &'static str,
    pub manifest: &'static str,
    pub asks: String,
    pub seen: String,
    pub agrees: bool,
}

/// The rows so far.
#[derive(Default)]
pub struct Rows(Vec<Row>);

impl Rows {
    pub fn add(
        &mut self,
        id: &'static str,
        manifest: &'static str,
        asks: &str,
        seen: impl Into<String>,
        agrees: bool,
    ) {
        self.0.push(Row { id, manifest, asks: asks.to_owned(), seen: seen.into(), agrees });
    }
}

/// Returns the exit code: 1 if a row disagrees.
pub fn run(layout: &Layout, args: &DemoArgs) -> Result<i32> {
    let began = Instant::now();
    let progress = Progress { shown: std::io::stderr().is_terminal() && args.output != "json" };
    let cleanup = TakeDown(layout);
    let rows = show(layout, args, &progress);
    progress.clear();
    let rows = rows?;
    match args.keep {
        true => std::mem::forget(cleanup),
        false => drop(cleanup),
    }
    let disagree = rows.0.iter().filter(|row| !row.agrees).count();
    let mut out = crate::cli::out::stdout();
    if args.output == "json" {
        writeln!(out, "{}", serde_json::to_string_pretty(&rows.0)?)?;
    } else {
        write_table(&mut out, &rows.0)?;
        let total = rows.0.len();
        writeln!(out)?;
        match disagree {
            0 => writeln!(
                out,
                "{total} behaviours, all as the manifests ask; {:.1} s",
                began.elapsed().as_secs_f64()
            )?,
            _ => writeln!(out, "{disagree} of {total} behaviours are NOT as the manifests ask")?,
        }
        if args.keep {
            writeln!(out, "the cluster is up: export KUBECONFIG={}", layout.kubeconfig().display())?;
            writeln!(out, "take it away with: cofferdam --data-dir {} down", layout.data().display())?;
        }
    }
    Ok(i32::from(disagree > 0))
}

/// Takes the demo's cluster away, however the demo ends.
struct TakeDown<'a>(&'a Layout);

impl Drop for TakeDown<'_> {
    fn drop(&mut self) {
        if let Err(error) = down::down(self.0, Keep::Nothing) {
            eprintln!("cofferdam: take the demo's cluster away: {error:#}");
        }
    }
}

fn show(layout: &Layout, args: &DemoArgs, progress: &Progress) -> Result<Rows> {
    progress.say("starting three nodes");
    let up = up::up(
        layout,
        &up::Options {
            nodes: 3,
            foreground: false,
            pod_security: None,
            v4: Default::default(),
            v6: Default::default(),
            dns: true,
        },
    )?;
    let store = ImageStore::open(layout.images()).context("open the image store")?;
    for file in &args.image {
        store.load(file).with_context(|| format!("load {}", file.display()))?;
    }
    crate::cli::images::load_tool(&store)?;
    let mut rows = Rows::default();
    crate::cli::runtime()?.block_on(async {
        let client = node::client::unix(layout.admin_socket());
        let demo = Demo { client, cluster: up.cluster, layout: layout.clone() };
        progress.say("security contexts");
        security::rows(&demo, &mut rows).await?;
        progress.say("the node's resources");
        node_use::rows(&demo, &mut rows).await?;
        progress.say("network policies");
        network::rows(&demo, &mut rows).await
    })?;
    Ok(rows)
}

/// One line that is written over, on a terminal only.
struct Progress {
    shown: bool,
}

impl Progress {
    fn say(&self, what: &str) {
        if self.shown {
            eprint!("\r\x1b[K{what} …");
        }
    }
    fn clear(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn write_table(out: &mut impl Write, rows: &[Row]) -> Result<()> {
    let coloured = crate::cli::out::coloured();
    let width = |text: fn(&Row) -> &str, least: usize| {
        rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0).max(least)
    };
    let manifests = width(|row| row.manifest, 8);
    let asks = width(|row| &row.asks, 18);
    let seen = width(|row| &row.seen, 4);
    writeln!(
        out,
        "{:4} {:manifests$}  {:asks$}  {:seen$}  AGREE",
        "ROW", "MANIFEST", "THE MANIFEST ASKS", "SEEN"
    )?;
    for row in rows {
        let word = match (row.agrees, coloured) {
            (true, true) => "\x1b[32myes\x1b[0m",
            (true, false) => "yes",
            (false, true) => "\x1b[31;1mNO\x1b[0m",
            (false, false) => "NO",
        };
        writeln!(
            out,
            "{:4} {:manifests$}  {:asks$}  {:seen$}  {word}",
            row.id, row.manifest, row.asks, row.seen
        )?;
    }
    Ok(())
}
