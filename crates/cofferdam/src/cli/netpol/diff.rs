//! `cofferdam netpol diff`: what applying manifests would open or close.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use policy::network_policy::ir::Cidr;
use policy::network_policy::table::{End, PortSet, Table};
use serde::Serialize;

use super::groups::{groups, workload};
use super::objects::Objects;
use super::{fetch, files, pod_range};
use crate::cluster::layout::Layout;

#[derive(Args, Debug)]
#[command(
    after_help = "Objects of the same name are replaced, others are added, as `apply` does. Exit codes: 0 nothing changes for the
workloads that are there, 1 something opens or closes, 2 the question cannot be answered.

Examples:
  cofferdam netpol diff -f policies/                      against the cluster
  cofferdam netpol diff --from main/ -f branch/ -o json   two sets of manifests, no cluster needed"
)]
pub struct DiffArgs {
    /// What would be applied (a file, a directory or -; may be given again).
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    filename: Vec<String>,
    /// Compare with these manifests in place of the cluster.
    #[arg(long, value_name = "FILE|DIR")]
    from: Vec<String>,
    /// Take --from whole for the state before and -f whole for the state after: what is only in --from is deleted.
    #[arg(long, requires = "from")]
    whole: bool,
    /// Where objects without a namespace are.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Ports that a change opens or closes between two workloads.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Changed {
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    opens: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closes: Option<String>,
}

pub fn run(layout: &Layout, args: &DiffArgs, out: &mut impl Write) -> Result<i32> {
    let before = match args.from.is_empty() {
        true => fetch(layout)?,
        false => files::read(&args.from, &args.namespace)?,
    };
    let new = files::read(&args.filename, &args.namespace)?;
    let after = if args.whole { new } else { files::apply(&before, new) };
    let changes = compare(&before, &after, pod_range(layout)?)?;
    if args.output == "json" {
        serde_json::to_writer_pretty(&mut *out, &changes)?;
        writeln!(out)?;
    } else {
        for change in &changes {
            let pair = format!("{} → {}", change.from, change.to);
            change.opens.iter().try_for_each(|ports| writeln!(out, "+ {pair}: {ports}"))?;
            change.closes.iter().try_for_each(|ports| writeln!(out, "- {pair}: {ports}"))?;
        }
        if changes.is_empty() {
            writeln!(out, "nothing opens, nothing closes")?;
        }
    }
    Ok(i32::from(!changes.is_empty()))
}

/// Pods, by namespace and workload, and addresses outside that either side tells apart.
type Subjects = BTreeMap<String, (usize, usize)>;

fn compare(before: &Objects, after: &Objects, range: Cidr) -> Result<Vec<Changed>> {
    let tables = [before, after].map(|objects| Table::new(&objects.cluster(), range));
    // Of both sides, what no side tells apart: (end before, end after) → names.
    let mut together: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
    for (name, ends) in subjects([before, after], &tables)? {
        together.entry(ends).or_default().push(name);
    }
    let ends: Vec<((usize, usize), String, bool)> = together
        .into_iter()
        .map(|(ends, names)| {
            let pods = matches!(tables[0].ends()[ends.0], End::Pods(_));
            let shown: Vec<&str> = names.iter().map(String::as_str).take(4).collect();
            let more = names.len() - shown.len();
            let more = if more > 0 { format!(", +{more}") } else { String::new() };
            (ends, format!("{}{more}", shown.join(", ")), pods)
        })
        .collect();
    let mut changes = Vec::new();
    for (from, from_name, from_pods) in &ends {
        for (to, to_name, to_pods) in ends.iter() {
            // A lone pod always reaches itself.
            let lone = from == to && matches!(&tables[1].ends()[to.1], End::Pods(pods) if pods.len() == 1);
            if (!from_pods && !to_pods) || lone {
                continue;
            }
            let (old, new) = (tables[0].ports(from.0, to.0), tables[1].ports(from.1, to.1));
            if old == new {
                continue;
            }
            let said = |ports: PortSet| (!ports.is_empty()).then(|| ports.to_string());
            changes.push(Changed {
                from: from_name.clone(),
                to: to_name.clone(),
                opens: said(new.minus(old)),
                closes: said(old.minus(new)),
            });
        }
    }
    Ok(changes)
}

fn subjects(objects: [&Objects; 2], tables: &[Table; 2]) -> Result<Subjects> {
    // A workload's pods may be of several ends; then each is a subject of its own.
    let named = [0, 1].map(|side| {
        let mut ends: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, pod) in objects[side].pods.iter().enumerate() {
            let Some(end) = tables[side].end_of_pod(index) else { continue };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let ends = ends.entry(format!("{namespace}/{}", workload(pod))).or_default();
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        ends
    });
    let mut subjects = Subjects::new();
    for (name, old) in &named[0] {
        match (old.as_slice(), named[1].get(name).map(Vec::as_slice)) {
            ([old], Some([new])) => drop(subjects.insert(name.clone(), (*old, *new))),
            (_, None) => {}
            (many, Some(_)) => bail!(
                "the pods of {name} differ in what policies say of them ({} kinds): compare manifests instead",
                many.len()
            ),
        }
    }
    // Outside and nodes: every part that both sides have in common.
    let parts =
        |side: usize| tables[side].ends().iter().enumerate().filter(|(_, end)| !matches!(end, End::Pods(_)));
    let names = [0, 1].map(|side| {
        let all = groups(objects[side], &tables[side], None);
        all.into_iter().map(|group| (group.end, group.name)).collect::<BTreeMap<_, _>>()
    });
    for (old, a) in parts(0) {
        for (new, b) in parts(1) {
            let common = match (a, b) {
                (End::Nodes(a), End::Nodes(b)) => a.iter().any(|node| b.contains(node)),
                (End::Outside { ranges: a, .. }, End::Outside { ranges: b, .. }) => {
                    a.iter().any(|(first, last)| b.iter().any(|(f, l)| (first.max(f)) <= (last.min(l))))
                }
                _ => false,
            };
            if common {
                let (left, right) = (&names[0][&old], &names[1][&new]);
                // The narrower of the two says more.
                let name = if left == "outside" { right } else { left };
                let name =
                    if subjects.contains_key(name) { format!("{left} & {right}") } else { name.clone() };
                subjects.insert(name, (old, new));
            }
        }
    }
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web } }
spec: { containers: [{ name: c, image: nginx }] }
---
apiVersion: v1
kind: Pod
metadata: { name: db, labels: { app: db } }
spec: { containers: [{ name: c, image: db }] }
";

    fn policy(port: u16) -> String {
        format!(
            "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ name: db }}
spec:
  podSelector: {{ matchLabels: {{ app: db }} }}
  ingress: [{{ from: [{{ podSelector: {{ matchLabels: {{ app: web }} }} }}], ports: [{{ port: {port} }}] }}]
"
        )
    }

    fn changes(before: &str, new: &str) -> Vec<String> {
        let before = files::parse(before);
        let after = files::apply(&before, files::parse(new));
        let range = Cidr::parse("10.244.0.0/16").expect("a range");
        let all = compare(&before, &after, range).expect("a comparison");
        let said = |c: &Changed| {
            let (opens, closes) =
                (c.opens.as_deref().unwrap_or("none"), c.closes.as_deref().unwrap_or("none"));
            format!("{} → {} +{opens} -{closes}", c.from, c.to)
        };
        all.iter().map(said).collect()
    }

    #[test]
    fn a_change_says_what_it_opens_and_closes() {
        let with = |port: u16| format!("{PODS}---{}", policy(port));
        assert_eq!(changes(&with(80), &policy(81)), ["default/web → default/db +TCP 81 -TCP 80"]);
        assert_eq!(changes(&with(80), &policy(80)), [""; 0]);
        let closed = changes(PODS, &policy(80));
        assert!(closed.contains(&"outside → default/db +none -all".to_string()), "{closed:?}");
        assert!(closed.contains(&"default/web → default/db +none -all but TCP 80".to_string()), "{closed:?}");
    }
}
