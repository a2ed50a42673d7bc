//! `cofferdam netpol table`.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use clap::Args;
use policy::network_policy::ir::Cidr;
use policy::network_policy::table::{PortSet, Table};
use serde_json::json;

use super::groups::{Group, groups};
use super::objects::Objects;
use super::{family_name, fetch, files, pod_ranges};
use crate::cluster::layout::Layout;

#[derive(Args, Debug)]
#[command(
    after_help = "Rows connect, columns are connected to. Pods that no policy tells apart are one row; pods on their node's network are
in their node's. Where the cluster has both families and policies tell them apart, there is a table for each. Not shown:
a pod reaches itself, and a node the pods it runs.

Examples:
  cofferdam netpol table
  cofferdam netpol table -n shop
  cofferdam netpol table -f manifests/           no cluster needed: templates of workloads become pods
  cofferdam netpol table -o dot | dot -Tsvg > reach.svg"
)]
pub struct TableArgs {
    /// Manifests in place of the cluster (a file, a directory or -; may be given again).
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    filename: Vec<String>,
    /// Connections from and to this namespace only.
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(short, long, value_parser = ["text", "json", "dot"], default_value = "text")]
    output: String,
}

/// More columns than this do not stand beside each other: a line per pair instead.
const COLUMNS: usize = 20;

pub fn run(layout: &Layout, args: &TableArgs, out: &mut impl Write) -> Result<i32> {
    let objects = match args.filename.is_empty() {
        true => fetch(layout)?,
        false => files::read(&args.filename, args.namespace.as_deref().unwrap_or("default"))?,
    };
    let ranges = pod_ranges(layout, &[&objects])?;
    let objects = objects.on_some_node();
    write(&objects, &ranges, args.namespace.as_deref(), &args.output, out)?;
    Ok(0)
}

/// One table where families say the same, else one for each.
fn write(
    objects: &Objects,
    ranges: &[Cidr],
    namespace: Option<&str>,
    output: &str,
    out: &mut impl Write,
) -> Result<()> {
    let tables: Vec<Table> = ranges.iter().map(|range| Table::new(&objects.cluster(), *range)).collect();
    let shown: Vec<Shown> = tables.iter().map(|table| Shown::new(objects, table, namespace)).collect();
    let names: Vec<&str> = ranges.iter().map(family_name).collect();
    let alike = shown.iter().all(|one| one.says_what(&shown[0]));
    let apart = if alike { &shown[..1] } else { &shown[..] };
    match output {
        "json" => {
            let mut families = apart.iter().zip(&names).map(|(one, name)| {
                let (names, mut object) =
                    (if alike { &names[..] } else { std::slice::from_ref(name) }, one.json());
                object["families"] = json!(names);
                object
            });
            let mut whole = families.next().unwrap_or_default();
            if let Some(other) = families.next() {
                whole["ipv6"] = other;
            }
            serde_json::to_writer_pretty(&mut *out, &whole)?;
            writeln!(out)?;
        }
        "dot" => {
            writeln!(out, "digraph reach {{\n  rankdir=LR;\n  node [shape=box];")?;
            for (number, (one, name)) in apart.iter().zip(&names).enumerate() {
                one.dot(out, (!alike).then_some((number, *name)))?;
            }
            writeln!(out, "}}")?;
        }
        _ => {
            for (number, (one, name)) in apart.iter().zip(&names).enumerate() {
                if !alike {
                    writeln!(out, "{}{name}", if number > 0 { "\n" } else { "" })?;
                }
                one.text(out)?;
            }
        }
    }
    Ok(())
}

struct Shown<'a> {
    groups: Vec<Group>,
    table: &'a Table,
    namespace: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn new(objects: &Objects, table: &'a Table, namespace: Option<&'a str>) -> Shown<'a> {
        Shown { groups: groups(objects, table, namespace), table, namespace }
    }

    /// None for a pair that is not asked for: both outside, both of other namespaces, or a lone pod and itself.
    fn cell(&self, from: usize, to: usize) -> Option<&PortSet> {
        let (a, b) = (&self.groups[from], &self.groups[to]);
        let outside = a.namespace.is_none() && b.namespace.is_none();
        let elsewhere = self.namespace.is_some()
            && a.namespace.as_deref() != self.namespace
            && b.namespace.as_deref() != self.namespace;
        let itself = from == to && a.members == 1;
        (!outside && !elsewhere && !itself).then(|| self.table.ports(a.end, b.end))
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize, &PortSet)> {
        let all = 0..self.groups.len();
        all.clone()
            .flat_map(move |from| all.clone().map(move |to| (from, to)))
            .filter_map(|(from, to)| Some((from, to, self.cell(from, to)?)))
    }

    fn text(&self, out: &mut impl Write) -> Result<()> {
        if self.groups.iter().all(|group| group.namespace.is_none()) {
            writeln!(out, "No pods with a network of their own.")?;
            return Ok(());
        }
        if self.groups.len() > COLUMNS {
            for (from, to, ports) in self.pairs().filter(|(.., ports)| !ports.is_empty()) {
                writeln!(out, "{} → {}: {ports}", self.groups[from].name, self.groups[to].name)?;
            }
            return Ok(());
        }
        // What does not fit into a cell gets a letter, and a line below.
        let mut letters: BTreeMap<String, String> = BTreeMap::new();
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut head = vec![String::new(), "FROM \\ TO".to_string()];
        head.extend((1..=self.groups.len()).map(|number| number.to_string()));
        rows.push(head);
        for (from, group) in self.groups.iter().enumerate() {
            let many = if group.members > 1 { format!(" ({})", group.members) } else { String::new() };
            let mut row = vec![(from + 1).to_string(), format!("{}{many}", group.name)];
            for to in 0..self.groups.len() {
                row.push(match self.cell(from, to) {
                    None => "·".to_string(),
                    Some(ports) if ports.is_empty() => "-".to_string(),
                    Some(ports) => {
                        let words = ports.to_string();
                        match words.len() <= 8 {
                            true => words,
                            false => {
                                let next = letter(letters.len());
                                letters.entry(words).or_insert(next).clone()
                            }
                        }
                    }
                });
            }
            rows.push(row);
        }
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        let mut legend: Vec<(&String, &String)> =
            letters.iter().map(|(words, letter)| (letter, words)).collect();
        legend.sort_by_key(|(letter, _)| (letter.len(), (*letter).clone()));
        if !legend.is_empty() {
            writeln!(out)?;
        }
        for (letter, words) in legend {
            writeln!(out, "{letter}  {words}")?;
        }
        Ok(())
    }

    /// Whether both have the same ends and the same in every cell.
    fn says_what(&self, other: &Shown<'_>) -> bool {
        let alike = |(a, b): (&Group, &Group)| {
            (&a.name, &a.namespace, a.members) == (&b.name, &b.namespace, b.members)
        };
        self.groups.len() == other.groups.len()
            && self.groups.iter().zip(&other.groups).all(alike)
            && self.pairs().eq(other.pairs())
    }

    fn json(&self) -> serde_json::Value {
        let pairs: Vec<_> = self
            .pairs()
            .filter(|(.., ports)| !ports.is_empty())
            .map(|(from, to, ports)| json!({ "from": from, "to": to, "ports": ports.to_string(), "set": ports }))
            .collect();
        json!({ "groups": self.groups, "reaches": pairs })
    }

    /// Nodes and edges; of several families, as a cluster of its own.
    fn dot(&self, out: &mut impl Write, of: Option<(usize, &str)>) -> Result<()> {
        let prefix = of.map_or("n".to_string(), |(number, _)| format!("f{number}n"));
        if let Some((number, name)) = of {
            writeln!(out, "  subgraph cluster_{number} {{\n  label={name:?};")?;
        }
        for (number, group) in self.groups.iter().enumerate() {
            writeln!(out, "  {prefix}{number} [label={:?}];", group.name)?;
        }
        for (from, to, ports) in self.pairs().filter(|(.., ports)| !ports.is_empty()) {
            writeln!(out, "  {prefix}{from} -> {prefix}{to} [label={:?}];", ports.to_string())?;
        }
        if of.is_some() {
            writeln!(out, "  }}")?;
        }
        Ok(())
    }
}

/// a, b, … z, aa, ab, …
fn letter(number: usize) -> String {
    let last = char::from(b'a' + (number % 26) as u8);
    match number / 26 {
        0 => last.to_string(),
        before => format!("{}{last}", letter(before - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: foo }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: c, image: nginx }] }
---
apiVersion: v1
kind: Pod
metadata: { name: db, namespace: foo, labels: { app: db } }
spec: { containers: [{ name: c, image: db, ports: [{ name: sql, containerPort: 5432 }] }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: db, namespace: foo }
spec:
  podSelector: { matchLabels: { app: db } }
  ingress:
  - from: [{ podSelector: { matchLabels: { app: web } } }]
    ports: [{ port: sql }]
  - from: [{ ipBlock: { cidr: 192.0.2.0/24 } }]
    ports: [{ port: 9000, endPort: 9010 }, { protocol: UDP, port: 53 }]
";

    fn printed(manifests: &str, families: usize, output: &str) -> String {
        let objects = files::parse(manifests).on_some_node();
        let ranges = ["10.244.0.0/16", "fd00:cf:244::/56"].map(|range| Cidr::parse(range).expect("a range"));
        let mut out = Vec::new();
        write(&objects, &ranges[..families], None, output, &mut out).expect("write to memory");
        String::from_utf8(out).expect("text")
    }

    fn words(text: &str) -> Vec<Vec<&str>> {
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    const AGENT: &str = "
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent, namespace: foo }
spec:
  selector: { matchLabels: { app: agent } }
  template:
    metadata: { labels: { app: web } }
    spec: { hostNetwork: true, containers: [{ name: c, image: agent }] }
";

    #[test]
    fn pods_on_their_nodes_network_are_where_their_nodes_are() {
        let text = printed(&format!("{SHOP}{AGENT}"), 1, "text");
        let lines = words(&text);
        // Its labels are those of a peer that may, and it is none.
        let row = lines.iter().find(|line| line.contains(&"foo/agent")).expect("a row");
        assert_eq!(row[1..], ["nodes", "with", "foo/agent", "-", "all", "·", "·", "·"], "{text}");
    }

    const SET: &str = "
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: store, namespace: foo }
spec:
  replicas: 3
  selector: { matchLabels: { app: store } }
  template:
    metadata: { labels: { app: store } }
    spec: { containers: [{ name: c, image: store }] }
";
    const FIRST: &str = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: first, namespace: foo }
spec:
  podSelector: { matchLabels: { statefulset.kubernetes.io/pod-name: store-0 } }
  ingress: [{ ports: [{ port: 1 }] }]
";

    #[test]
    fn the_pods_of_a_stateful_set_are_one_row_until_a_policy_tells_them_apart() {
        let text = printed(&format!("{SHOP}{SET}"), 1, "text");
        let rows = |text: &str| -> Vec<String> {
            let rows = text.lines().filter(|line| line.contains("foo/store"));
            rows.map(|line| line.split("  ").nth(1).unwrap_or_default().trim().to_owned()).collect()
        };
        assert_eq!(rows(&text), ["foo/store (3)"], "{text}");
        let text = printed(&format!("{SHOP}{SET}{FIRST}"), 1, "text");
        assert_eq!(rows(&text), ["foo/store-0", "foo/store-1,store-2 (2)"], "{text}");
    }

    #[test]
    fn families_that_differ_have_a_table_each() {
        let both = printed(SHOP, 2, "text");
        let (v4, v6) = both.split_once("\n\nIPv6\n").expect("two tables");
        assert!(v4.starts_with("IPv4\n") && v4.contains("outside 192.0.2.0/24"), "{both}");
        assert!(!v6.contains("192.0.2.0") && v6.contains("TCP 5432"), "{both}");
        let json: serde_json::Value = serde_json::from_str(&printed(SHOP, 2, "json")).expect("JSON");
        assert_eq!((&json["families"], &json["ipv6"]["families"]), (&json!(["IPv4"]), &json!(["IPv6"])));
        // Without the blocks they say the same.
        let (without, _) = SHOP.split_once("  - from: [{ ipBlock").expect("the rule with the block");
        let one = printed(without, 2, "text");
        assert_eq!(one, printed(without, 1, "text"));
        let json: serde_json::Value = serde_json::from_str(&printed(without, 2, "json")).expect("JSON");
        assert_eq!((&json["families"], json.get("ipv6")), (&json!(["IPv4", "IPv6"]), None));
        let dot = printed(SHOP, 2, "dot");
        assert!(
            dot.contains("subgraph cluster_1") && dot.contains("f1n1 -> f1n0 [label=\"TCP 5432\"];"),
            "{dot}"
        );
    }

    #[test]
    fn manifests_become_a_table_without_a_cluster() {
        let text = printed(SHOP, 1, "text");
        let lines = words(&text);
        assert_eq!(lines[0], ["FROM", "\\", "TO", "1", "2", "3", "4"], "{text}");
        assert_eq!(lines[1], ["1", "foo/db", "·", "all", "all", "all"], "{text}");
        assert_eq!(lines[2], ["2", "foo/web", "TCP", "5432", "·", "all", "all"], "{text}");
        let outside: Vec<&Vec<&str>> = lines.iter().filter(|l| l.get(1) == Some(&"outside")).collect();
        assert!(outside.contains(&&vec!["3", "outside", "-", "all", "·", "·"]), "{text}");
        assert!(outside.contains(&&vec!["4", "outside", "192.0.2.0/24", "a", "all", "·", "·"]), "{text}");
        assert_eq!(text.lines().last(), Some("a  TCP 9000-9010; UDP 53"), "{text}");
    }

    #[test]
    fn programs_get_json_and_dot() {
        let json: serde_json::Value = serde_json::from_str(&printed(SHOP, 1, "json")).expect("JSON");
        let reaches = json["reaches"].as_array().expect("pairs");
        let found = reaches.iter().find(|pair| pair["from"] == 1 && pair["to"] == 0).expect("web to db");
        assert_eq!(found["ports"], "TCP 5432");
        assert_eq!(json["groups"][1]["name"], "foo/web");
        let dot = printed(SHOP, 1, "dot");
        assert!(
            dot.starts_with("digraph reach {\n") && dot.contains("n1 -> n0 [label=\"TCP 5432\"];"),
            "{dot}"
        );
    }

    #[test]
    fn letters_go_on_after_z() {
        assert_eq!([0, 25, 26, 27, 702].map(letter), ["a", "z", "aa", "ab", "aaa"]);
    }
}
