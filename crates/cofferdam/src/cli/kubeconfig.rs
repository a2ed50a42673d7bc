//! `cofferdam kubeconfig`: where the administrator's is, or a new one for somebody else.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::out;
use crate::cluster::layout::Layout;

#[derive(Args)]
#[command(after_help = "Examples:
  export KUBECONFIG=$(cofferdam kubeconfig)                       the administrator
  cofferdam kubeconfig --user jane --group dev -o jane.conf       somebody who may what roles give to jane and dev
  kubectl --kubeconfig jane.conf auth can-i --list")]
pub struct KubeconfigArgs {
    /// Make a kubeconfig for this user, with a client certificate that the cluster's authority signs, and print it.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A group of the user (may be given again).
    #[arg(long = "group", value_name = "GROUP", requires = "user")]
    groups: Vec<String>,
    /// How long the certificate is good for.
    #[arg(long, value_name = "DAYS", default_value_t = 365, requires = "user", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Write it to this file, readable by its owner alone, in place of printing it.
    #[arg(short, long, value_name = "FILE", requires = "user")]
    output: Option<PathBuf>,
}

pub fn run(layout: &Layout, args: &KubeconfigArgs) -> Result<()> {
    let cluster = layout.read()?;
    let mut out = out::stdout();
    let Some(user) = &args.user else {
        return writeln!(out, "{}", layout.kubeconfig().display()).context("print the path");
    };
    if !rustix::process::geteuid().is_root() {
        bail!("the authority's key is root's: run this as root");
    }
    let keys = layout.control().join("pki");
    // Made by the control process, and by it alone: here they are only read.
    if !keys.join("ca.key").exists() || !keys.join("admin.crt").exists() {
        bail!("the cluster has no authority yet: start it with `cofferdam up`");
    }
    let pki = control::pki::Pki::open(&keys).context("read the cluster's authority")?;
    let client = pki.client(user, &args.groups, args.days).context("make the certificate")?;
    let server = format!("127.0.0.1:{}", cluster.port);
    let text = pki.client_kubeconfig(&format!("cofferdam-{}", cluster.id), &server, user, &client);
    let Some(path) = &args.output else {
        return out.write_all(text.as_bytes()).context("print the kubeconfig");
    };
    // Never another's file with another's rights: an old one is replaced.
    let draft = path.with_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}
