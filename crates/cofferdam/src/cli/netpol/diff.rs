//! `cofferdam netpol diff`: what applying manifests would open or close.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use policy::network_policy::ir::Cidr;
use policy::network_policy::table::{End, PortSet, Table};
use serde::Serialize;

use super::groups::{called, end_of, groups, told_apart};
use super::objects::Objects;
use super::{family_name, fetch, files, pod_ranges};
use crate::cluster::layout::Layout;

#[derive(Args, Debug)]
#[command(
    after_help = "Objects of the same name are replaced, others are added, as `apply` does. What only one side has is marked new or gone.
Exit codes: 0 nothing opens or closes, 1 something does, 2 the question cannot be answered.

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Changed {
    from: String,
    to: String,
    /// Where the families differ in it: which of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<&'static str>,
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
    let ranges = pod_ranges(layout, &[&before, &after])?;
    let changes = compare_families(&before.on_some_node(), &after.on_some_node(), &ranges)?;
    if args.output == "json" {
        serde_json::to_writer_pretty(&mut *out, &changes)?;
        writeln!(out)?;
    } else {
        for change in &changes {
            let family = change.family.map(|family| format!(" ({family})")).unwrap_or_default();
            let pair = format!("{} → {}{family}", change.from, change.to);
            change.opens.iter().try_for_each(|ports| writeln!(out, "+ {pair}: {ports}"))?;
            change.closes.iter().try_for_each(|ports| writeln!(out, "- {pair}: {ports}"))?;
        }
        if changes.is_empty() {
            writeln!(out, "nothing opens, nothing closes")?;
        }
    }
    Ok(i32::from(!changes.is_empty()))
}

/// What each family changes, and once what all of them do.
fn compare_families(before: &Objects, after: &Objects, ranges: &[Cidr]) -> Result<Vec<Changed>> {
    let mut all: Vec<Vec<Changed>> = Vec::new();
    for range in ranges {
        all.push(compare(before, after, *range)?);
    }
    let common: Vec<bool> = match all.split_first() {
        Some((first, others)) => {
            first.iter().map(|change| others.iter().all(|other| other.contains(change))).collect()
        }
        None => Vec::new(),
    };
    let shared: Vec<Changed> = all
        .first()
        .into_iter()
        .flatten()
        .zip(&common)
        .filter(|(_, common)| **common)
        .map(|(c, _)| c.clone())
        .collect();
    let apart = all.into_iter().zip(ranges).flat_map(|(changes, range)| {
        let own = changes.into_iter().filter(|change| !shared.contains(change));
        own.map(|change| Changed { family: Some(family_name(range)), ..change }).collect::<Vec<_>>()
    });
    let apart: Vec<Changed> = apart.collect();
    Ok(shared.into_iter().chain(apart).collect())
}

/// The ends of one subject: before and after. None where it is not there.
type Ends = (Option<usize>, Option<usize>);
/// Pods, by namespace and workload, and addresses outside that either side tells apart.
type Subjects = BTreeMap<String, Ends>;

fn compare(before: &Objects, after: &Objects, range: Cidr) -> Result<Vec<Changed>> {
    let tables = [before, after].map(|objects| Table::new(&objects.cluster(), range));
    // Of both sides, what no side tells apart: (end before, end after) → names.
    let mut together: BTreeMap<Ends, Vec<String>> = BTreeMap::new();
    for (name, ends) in subjects([before, after], &tables)? {
        together.entry(ends).or_default().push(name);
    }
    let is_pods = |side: usize, end: Option<usize>| {
        end.is_some_and(|end| matches!(tables[side].ends()[end], End::Pods(_)))
    };
    let ends: Vec<(Ends, String, bool)> = together
        .into_iter()
        .map(|(ends, names)| {
            let pods = is_pods(0, ends.0) || is_pods(1, ends.1);
            let shown: Vec<&str> = names.iter().map(String::as_str).take(4).collect();
            let more = names.len() - shown.len();
            let more = if more > 0 { format!(", +{more}") } else { String::new() };
            let mark = match ends {
                (None, _) => " (new)",
                (_, None) => " (gone)",
                _ => "",
            };
            (ends, format!("{}{more}{mark}", shown.join(", ")), pods)
        })
        .collect();
    let nothing = PortSet::default();
    let ports = |side: usize, from: Option<usize>, to: Option<usize>| match (from, to) {
        (Some(from), Some(to)) => tables[side].ports(from, to).clone(),
        _ => nothing.clone(),
    };
    let mut changes = Vec::new();
    for (from, from_name, from_pods) in &ends {
        for (to, to_name, to_pods) in ends.iter() {
            // A lone pod always reaches itself.
            let alone = |side: usize, end: Option<usize>| {
                end.is_none_or(|end| matches!(&tables[side].ends()[end], End::Pods(pods) if pods.len() == 1))
            };
            let lone = from == to && alone(0, to.0) && alone(1, to.1);
            if (!from_pods && !to_pods) || lone {
                continue;
            }
            let (old, new) = (ports(0, from.0, to.0), ports(1, from.1, to.1));
            if old == new {
                continue;
            }
            let said = |ports: PortSet| (!ports.is_empty()).then(|| ports.to_string());
            changes.push(Changed {
                from: from_name.clone(),
                to: to_name.clone(),
                family: None,
                opens: said(new.minus(&old)),
                closes: said(old.minus(&new)),
            });
        }
    }
    Ok(changes)
}

fn subjects(objects: [&Objects; 2], tables: &[Table; 2]) -> Result<Subjects> {
    // A workload's pods may be of several ends; then each is a subject of its own.
    let apart = told_apart(objects.into_iter().zip(tables));
    let named = [0, 1].map(|side| {
        let mut ends: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, pod) in objects[side].pods.iter().enumerate() {
            let Some(end) = end_of(objects[side], &tables[side], index) else { continue };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let on_host = tables[side].end_of_pod(index).is_none();
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|_| on_host);
            // Each on a network of its own node.
            let node = node.map(|node| format!(" on {node}")).unwrap_or_default();
            let ends = ends.entry(format!("{namespace}/{}{node}", called(pod, &apart))).or_default();
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        ends
    });
    let mut subjects = Subjects::new();
    for name in named[0].keys().chain(named[1].keys()) {
        let of = |side: usize| named[side].get(name).map(Vec::as_slice).unwrap_or_default();
        let ends = match (of(0), of(1)) {
            ([], [new]) => (None, Some(*new)),
            ([old], []) => (Some(*old), None),
            ([old], [new]) => (Some(*old), Some(*new)),
            (many, others) => bail!(
                "the pods of {name} differ in what policies say of them ({} kinds): compare manifests instead",
                many.len().max(others.len())
            ),
        };
        subjects.insert(name.clone(), ends);
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
                subjects.insert(name, (Some(old), Some(new)));
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
        let ranges = ["10.244.0.0/16", "fd00:cf:244::/56"].map(|range| Cidr::parse(range).expect("a range"));
        let all =
            compare_families(&before.on_some_node(), &after.on_some_node(), &ranges).expect("a comparison");
        let said = |c: &Changed| {
            let (opens, closes) =
                (c.opens.as_deref().unwrap_or("none"), c.closes.as_deref().unwrap_or("none"));
            let family = c.family.map(|family| format!(" {family}")).unwrap_or_default();
            format!("{} → {} +{opens} -{closes}{family}", c.from, c.to)
        };
        all.iter().map(said).collect()
    }

    #[test]
    fn what_is_new_is_listed_with_all_that_it_reaches_and_is_reached_by() {
        let api = PODS.split("---").next().expect("a pod").replace("web", "api");
        let new = changes(&format!("{PODS}---{}", policy(80)), &api);
        assert!(new.contains(&"default/api (new) → default/web +all -none".to_string()), "{new:?}");
        assert!(new.contains(&"outside → default/api (new) +all -none".to_string()), "{new:?}");
        assert!(!new.iter().any(|line| line.contains("default/api (new) → default/db")), "{new:?}");
        assert!(!new.iter().any(|line| line.starts_with("default/web → default/db")), "{new:?}");
        // On its node's network it is its node, and the policy that selected it guards it no more.
        let host = "
apiVersion: v1
kind: Pod
metadata: { name: db, labels: { app: db } }
spec: { hostNetwork: true, containers: [{ name: c, image: db }] }
";
        let moved = changes(&format!("{PODS}---{}", policy(80)), host);
        assert!(moved.contains(&"default/web → default/db +all but TCP 80 -none".to_string()), "{moved:?}");
        assert!(moved.iter().all(|line| !line.contains("(gone)")), "{moved:?}");
    }

    #[test]
    fn pods_of_a_stateful_set_are_replaced_by_name_and_told_apart_where_policies_do() {
        let set = |replicas: u32, label: &str| {
            format!(
                "
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{ name: store }}
spec:
  replicas: {replicas}
  template: {{ metadata: {{ labels: {{ app: {label} }} }}, spec: {{ containers: [{{ name: c, image: i }}] }} }}
"
            )
        };
        let before = format!("{PODS}---{}{}", policy(80), set(3, "other"));
        // All of them at once, which become clients of the database.
        assert_eq!(
            changes(&before, &set(3, "web")),
            ["default/store → default/db +TCP 80 -none"],
            "one workload"
        );
        let first = policy(81)
            .replace("metadata: { name: db }", "metadata: { name: first }")
            .replace("matchLabels: { app: db }", "matchLabels: { apps.kubernetes.io/pod-index: '0' }");
        let all = changes(&before, &first);
        assert!(all.contains(&"default/web → default/store-0 +none -all but TCP 81".to_string()), "{all:?}");
        assert!(!all.iter().any(|line| line.contains("→ default/store-1")), "{all:?}");
        // Fewer of them.
        let fewer = changes(&format!("{before}---{first}"), &set(2, "other"));
        assert!(
            !fewer.is_empty() && fewer.iter().all(|line| line.contains("default/store-2 (gone)")),
            "{fewer:?}"
        );
    }

    #[test]
    fn a_block_of_one_family_changes_that_family_alone() {
        let block = policy(80)
            .replace("podSelector: { matchLabels: { app: web } }", "ipBlock: { cidr: 192.0.2.0/24 }");
        let all = changes(&format!("{PODS}---{}", policy(80)), &block);
        assert!(all.contains(&"outside 192.0.2.0/24 → default/db +TCP 80 -none IPv4".to_string()), "{all:?}");
        assert!(all.contains(&"default/web → default/db +none -TCP 80".to_string()), "{all:?}");
        assert!(all.iter().all(|line| !line.ends_with("IPv6")), "{all:?}");
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
