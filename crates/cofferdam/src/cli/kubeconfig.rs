//! `cofferdam kubeconfig`: where the administrator's is, or a new one for somebody else.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::out;
use crate::cluster::layout::{Cluster, Layout};

#[derive(Args)]
#[command(after_help = "Examples:
  export KUBECONFIG=$(cofferdam kubeconfig)                       the administrator, as root
  sudo cofferdam kubeconfig -o admin.conf                         the administrator, for you who are not root
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
    /// Write it to this file, which belongs to you alone, behind sudo too; without --user, the administrator's.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(layout: &Layout, args: &KubeconfigArgs) -> Result<()> {
    let cluster = layout.read()?;
    if args.user.is_none() && args.output.is_none() {
        return writeln!(out::stdout(), "{}", layout.kubeconfig().display()).context("print the path");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the cluster's keys are root's: run this as root");
    }
    let text = match &args.user {
        Some(user) => for_user(layout, &cluster, user, args)?,
        None => fs::read_to_string(layout.kubeconfig())
            .with_context(|| format!("read {}", layout.kubeconfig().display()))?,
    };
    match &args.output {
        Some(path) => write(path, &text),
        None => out::stdout().write_all(text.as_bytes()).context("print the kubeconfig"),
    }
}

fn for_user(layout: &Layout, cluster: &Cluster, user: &str, args: &KubeconfigArgs) -> Result<String> {
    let keys = layout.control().join("pki");
    // Made by the control process, and by it alone: here they are only read.
    if !keys.join("ca.key").exists() || !keys.join("admin.crt").exists() {
        bail!("the cluster has no authority yet: start it with `cofferdam up`");
    }
    let pki = control::pki::Pki::open(&keys).context("read the cluster's authority")?;
    let client = pki.client(user, &args.groups, args.days).context("make the certificate")?;
    let server = format!("127.0.0.1:{}", cluster.port);
    Ok(pki.client_kubeconfig(&format!("cofferdam-{}", cluster.id), &server, user, &client))
}

/// Who runs this by sudo, if anybody but root does: user and group.
pub(super) fn behind_sudo() -> Option<(u32, u32)> {
    let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let ids = (id("SUDO_UID")?, id("SUDO_GID")?);
    (ids.0 != 0 && rustix::process::geteuid().is_root()).then_some(ids)
}

/// Replaces the file: never is it another's with another's rights. It belongs to whoever asked for it, by sudo too, because
/// nobody else may read it.
fn write(path: &Path, text: &str) -> Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let made = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        if let Some((uid, gid)) = behind_sudo() {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.write_all(text.as_bytes())
    };
    made().with_context(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("rename to {}", path.display()))
}
