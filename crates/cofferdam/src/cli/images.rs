//! `cofferdam image`: the images that the nodes have.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use node::images::{ImageRef, ImageStore};

use super::out;
use super::table::Table;
use crate::cluster::layout::{Layout, make_dir};

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Load images from files for all nodes: docker-archive or OCI layout, plain, gzip or zstd; or an OCI layout directory.
    #[command(
        after_help = "An image loaded by hand is pinned: pods that name it run it, and no pull replaces it.

Examples:
  cofferdam image load nginx.tar
  cofferdam image load --tool          the program's own small image, where there is no registry
  docker save app:dev | cofferdam image load /dev/stdin"
    )]
    Load {
        #[arg(required_unless_present = "tool", value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Load the program's own small image, cofferdam/tool, and let it stand in for `nginx` and `busybox` where no
        /// image of that name is loaded.
        #[arg(long)]
        tool: bool,
    },
    /// List the images.
    Ls {
        /// `json` for programs.
        #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
        output: String,
    },
}

pub fn run(layout: &Layout, command: ImageCommand) -> Result<()> {
    layout.read()?;
    if !rustix::process::geteuid().is_root() {
        bail!("the nodes' images are root's: run this as root");
    }
    make_dir(&layout.images(), 0o700)?;
    let store = ImageStore::open(layout.images()).context("open the image store")?;
    let mut out = out::stdout();
    match command {
        ImageCommand::Load { files, tool } => {
            let mut loaded = Vec::new();
            for file in files {
                loaded.extend(store.load(&file).with_context(|| format!("load {}", file.display()))?);
            }
            if tool {
                loaded.extend(load_tool(&store)?);
            }
            for name in loaded {
                writeln!(out, "loaded {name}")?;
            }
        }
        ImageCommand::Ls { output } => {
            let images = store.list().context("list the images")?;
            if output == "json" {
                serde_json::to_writer_pretty(&mut out, &images)?;
                writeln!(out)?;
                return Ok(());
            }
            let mut table = Table::new(["NAME", "IMAGE ID", "SIZE", "PINNED"]);
            for image in &images {
                let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
                for name in &image.names {
                    let pinned = if name.pinned { "yes" } else { "no" };
                    table.row([name.name.clone(), id.clone(), size(image.size), pinned.to_owned()]);
                }
                if image.names.is_empty() {
                    let digest = image.repo_digests.first().cloned().unwrap_or_else(|| "<none>".into());
                    table.row([digest, id, size(image.size), "no".into()]);
                }
            }
            table.write(&mut out)?;
        }
    }
    Ok(())
}

/// Loads the program's own image, and its stand-ins for `nginx` and `busybox` unless images of these names are there.
pub fn load_tool(store: &ImageStore) -> Result<Vec<ImageRef>> {
    let mut loaded =
        store.load_reader(node::images::tool_image().as_slice()).context("load the tool image")?;
    for name in ["nginx", "busybox"] {
        if store.resolve(name).context("look an image up")?.is_none() {
            let image = node::images::stand_in(name).with_context(|| format!("no stand-in for {name}"))?;
            loaded.extend(
                store.load_reader(image.as_slice()).with_context(|| format!("load a stand-in for {name}"))?,
            );
        }
    }
    Ok(loaded)
}

/// Bytes as people read them, in decimal units as registries show them.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 || unit == "GB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{bytes} B")
}
