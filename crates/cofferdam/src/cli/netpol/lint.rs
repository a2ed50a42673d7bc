//! `cofferdam netpol lint`.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use policy::network_policy::lint::{Finding, lint};

use super::{fetch, files, pod_ranges};
use crate::cluster::layout::Layout;

#[derive(Args, Debug)]
#[command(
    after_help = "Policies are held against the pods and namespaces of the cluster, or of the same manifests. Exits 1 if anything is found, 2
if it could not look.

Examples:
  cofferdam netpol lint
  cofferdam netpol lint -n shop -o json
  helm template shop ./chart | cofferdam netpol lint -f -"
)]
pub struct LintArgs {
    /// Manifests in place of the cluster (a file, a directory or -; may be given again).
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    filename: Vec<String>,
    /// Policies of this namespace only; of manifests, where objects without one are.
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub fn run(layout: &Layout, args: &LintArgs, out: &mut impl Write) -> Result<i32> {
    let objects = match args.filename.is_empty() {
        true => fetch(layout)?,
        false => files::read(&args.filename, args.namespace.as_deref().unwrap_or("default"))?,
    };
    let mut findings = lint(&objects.cluster(), &pod_ranges(layout, &[&objects])?);
    findings.retain(|finding| args.namespace.as_ref().is_none_or(|only| finding.namespace == *only));
    match args.output.as_str() {
        "json" => writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?,
        _ => text(&findings, objects.policies.len(), out)?,
    }
    Ok(i32::from(!findings.is_empty()))
}

fn text(findings: &[Finding], policies: usize, out: &mut impl Write) -> Result<()> {
    for Finding { id, namespace, policy, path, message, fix } in findings {
        writeln!(out, "{namespace}/{policy} {path}: {id}: {message}\n    fix: {fix}")?;
    }
    let (count, many) = (findings.len(), |number| if number == 1 { "" } else { "s" });
    let noun = if policies == 1 { "policy" } else { "policies" };
    writeln!(out, "{policies} {noun}, {count} finding{}", many(count))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_printed_with_their_place_and_remedy() {
        let finding = Finding {
            id: "selects-no-pod",
            namespace: "shop".into(),
            policy: "database".into(),
            path: "spec.podSelector".into(),
            message: "selects no pod of namespace shop (app=db)".into(),
            fix: "Correct the labels.",
        };
        let mut out = Vec::new();
        text(&[finding], 1, &mut out).unwrap();
        let want = "shop/database spec.podSelector: selects-no-pod: selects no pod of namespace shop (app=db)\n    \
                    fix: Correct the labels.\n1 policy, 1 finding\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
