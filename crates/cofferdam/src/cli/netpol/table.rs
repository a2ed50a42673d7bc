//! `cofferdam netpol table`.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use clap::Args;
use policy::network_policy::table::{PortSet, Table};
use serde_json::json;

use super::groups::{Group, groups};
use super::objects::Objects;
use super::{fetch, files, pod_range};
use crate::cluster::layout::Layout;

#[derive(Args, Debug)]
#[command(
    after_help = "Rows connect, columns are connected to. Pods that no policy tells apart are one row. Not shown: a pod reaches
itself, and a node the pods it runs.

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
    let table = Table::new(&objects.cluster(), pod_range(layout)?);
    let shown = Shown::new(&objects, &table, args.namespace.as_deref());
    match args.output.as_str() {
        "json" => shown.json(out)?,
        "dot" => shown.dot(out)?,
        _ => shown.text(out)?,
    }
    Ok(0)
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

    fn json(&self, out: &mut impl Write) -> Result<()> {
        let pairs: Vec<_> = self
            .pairs()
            .filter(|(.., ports)| !ports.is_empty())
            .map(|(from, to, ports)| json!({ "from": from, "to": to, "ports": ports.to_string(), "set": ports }))
            .collect();
        serde_json::to_writer_pretty(&mut *out, &json!({ "groups": self.groups, "reaches": pairs }))?;
        writeln!(out)?;
        Ok(())
    }

    fn dot(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "digraph reach {{\n  rankdir=LR;\n  node [shape=box];")?;
        for (number, group) in self.groups.iter().enumerate() {
            writeln!(out, "  n{number} [label={:?}];", group.name)?;
        }
        for (from, to, ports) in self.pairs().filter(|(.., ports)| !ports.is_empty()) {
            writeln!(out, "  n{from} -> n{to} [label={:?}];", ports.to_string())?;
        }
        writeln!(out, "}}")?;
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

    fn printed(write: fn(&Shown, &mut Vec<u8>) -> Result<()>) -> String {
        let objects = files::parse(SHOP);
        let range = policy::network_policy::ir::Cidr::parse("10.244.0.0/16").expect("a range");
        let table = Table::new(&objects.cluster(), range);
        let mut out = Vec::new();
        write(&Shown::new(&objects, &table, None), &mut out).expect("write to memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn manifests_become_a_table_without_a_cluster() {
        let text = printed(|shown, out| shown.text(out));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
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
        let json: serde_json::Value = serde_json::from_str(&printed(|s, out| s.json(out))).expect("JSON");
        let reaches = json["reaches"].as_array().expect("pairs");
        let found = reaches.iter().find(|pair| pair["from"] == 1 && pair["to"] == 0).expect("web to db");
        assert_eq!(found["ports"], "TCP 5432");
        assert_eq!(json["groups"][1]["name"], "foo/web");
        let dot = printed(|s, out| s.dot(out));
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
