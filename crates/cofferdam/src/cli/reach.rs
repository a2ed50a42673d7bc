//! `cofferdam reach`: what somebody who runs an image of their own in a pod can reach, each edge with what was seen of it.

mod api_server;
mod objects;
mod packets;
mod processes;

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use policy::network_policy::explain::Name;
use policy::node_facts::NodeFacts;
use policy::reach::{Area, Edge, Probe, Verdict, api, network, node};
use serde::Serialize;

use super::{netpol, out};
use crate::cluster::layout::Layout;

#[derive(Args, Debug)]
#[command(
    after_help = "The question is that of an attacker who has got so far as to run their own image in this pod: so its user, and setuid
files in it, are theirs to choose, where the pod's fields leave that to the image.

Each edge is proven (it is there), refuted (it is not), or unknown, with what was seen: what the kernel shows of the
containers' processes; whether the API server takes the pod's token, and what its reviews and dry runs say; with --live,
where a packet from the pod comes to. Nothing is changed by that.

Exit codes: 0 all that was seen is as the objects say, 2 the question cannot be answered, 3 something was seen that
they do not say.

Examples:
  cofferdam reach web
  cofferdam reach shop/cart --live
  cofferdam reach web -o json | jq '.edges[] | select(.verdict == \"proven\")'"
)]
pub struct ReachArgs {
    /// The pod: NAME or NAMESPACE/NAME.
    #[arg(value_name = "POD")]
    pod: String,
    /// Send packets too: one for each edge of the network.
    #[arg(long)]
    live: bool,
    /// Where a name without a namespace is looked for.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Where the second line of an edge begins: below its target.
const INDENT: usize = 27;
const UNANSWERED: i32 = 2;
const CONTRADICTED: i32 = 3;

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    service_account: String,
    edges: Vec<Edge>,
}

/// Returns the exit code.
pub fn run(layout: &Layout, args: &ReachArgs) -> Result<i32> {
    let answered = report(layout, args).and_then(|report| {
        let mut out = out::stdout();
        match args.output.as_str() {
            "json" => {
                serde_json::to_writer_pretty(&mut out, &report)?;
                writeln!(out)?;
            }
            _ => write(&mut out, &report)?,
        }
        Ok(if report.edges.iter().any(Edge::is_contradicted) { CONTRADICTED } else { 0 })
    });
    Ok(answered.unwrap_or_else(|error| {
        out::failed("cofferdam reach: ", &error);
        UNANSWERED
    }))
}

fn report(layout: &Layout, args: &ReachArgs) -> Result<Report> {
    let Name::Pod { namespace, name } = Name::parse(&args.pod, &args.namespace)? else {
        bail!("{:?} is no pod: give NAME or NAMESPACE/NAME", args.pod);
    };
    super::ask(layout, |client| async move { look(layout, &client, &namespace, &name, args.live).await })
}

async fn look(
    layout: &Layout,
    client: &kube::Client,
    namespace: &str,
    name: &str,
    live: bool,
) -> Result<Report> {
    let known = objects::Known::fetch(layout, client).await?;
    let index = known.network.pods.iter().position(|pod| {
        pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
    });
    let index = index.with_context(|| format!("pods {name:?} not found in namespace {namespace}"))?;
    let pod = &known.network.pods[index];
    let facts = NodeFacts { name: node_of(pod).unwrap_or_default().to_owned(), ..NodeFacts::default() };
    let mut claims =
        node::claims(pod, &facts).map_err(|error| anyhow::anyhow!("no node runs this pod: {error}"))?;
    claims.extend(api::claims(pod, &known.world()));
    let ranges = netpol::pod_ranges(layout, &[&known.network])?;
    claims.extend(network::claims(&known.network.world(), index, &ranges));

    let processes = processes::Processes::of(layout, pod);
    let mut edges = Vec::with_capacity(claims.len());
    for claim in claims {
        let seen = match &claim.probe {
            Probe::Kernel { container, question } => {
                processes.get(container).map(|process| node::look(question, process))
            }
            Probe::Api(question) => api_server::look(client, question, &processes).await,
            Probe::Packet { to, port } if live => {
                packets::look(layout, &known.network, pod, &claim, to, port).await
            }
            Probe::Packet { .. } => Err("no packet was sent: --live sends one".to_owned()),
        };
        edges.push(Edge::of(claim, seen));
    }
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    Ok(Report {
        pod: format!("{namespace}/{name}"),
        node: node_of(pod).map(str::to_owned),
        service_account: format!("{namespace}/{}", account.as_deref().unwrap_or("default")),
        edges,
    })
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn write(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    let place = report.node.as_ref().map_or("on no node yet".to_owned(), |node| format!("on {node}"));
    writeln!(
        out,
        "{} {place}, ServiceAccount {}. Whoever runs an image of their own in it:",
        report.pod, report.service_account
    )?;
    let coloured = out::coloured();
    for (area, title) in [
        (Area::Node, "the node and its kernel"),
        (Area::Api, "the API server"),
        (Area::Network, "the network"),
    ] {
        writeln!(out, "\n{title}")?;
        for edge in report.edges.iter().filter(|edge| edge.area == area) {
            write_edge(out, edge, coloured)?;
        }
    }
    write_remedies(out, &report.edges)?;
    let count = |verdict| report.edges.iter().filter(|edge| edge.verdict == verdict).count();
    writeln!(
        out,
        "\n{} proven, {} refuted, {} unknown",
        count(Verdict::Proven),
        count(Verdict::Refuted),
        count(Verdict::Unknown)
    )?;
    match report.edges.iter().filter(|edge| edge.is_contradicted()).count() {
        0 => Ok(()),
        many => writeln!(out, "{many} of them NOT as the objects say"),
    }
}

fn write_edge(out: &mut impl Write, edge: &Edge, coloured: bool) -> std::io::Result<()> {
    let colour = match edge.verdict {
        _ if !coloured => "",
        Verdict::Proven => "\x1b[31m",
        Verdict::Refuted => "\x1b[32m",
        Verdict::Unknown => "\x1b[33m",
    };
    let end = if coloured { "\x1b[0m" } else { "" };
    // Of what was not seen, the word of the objects.
    let word = match (edge.verdict, edge.open) {
        (Verdict::Unknown, true) => "open?",
        (Verdict::Unknown, false) => "closed?",
        (verdict, _) => return write_row(out, edge, &format!("{colour}{verdict:8}{end}")),
    };
    write_row(out, edge, &format!("{colour}{word:8}{end}"))
}

fn write_row(out: &mut impl Write, edge: &Edge, word: &str) -> std::io::Result<()> {
    writeln!(out, "  {word} {:15} {}", edge.id, edge.target)?;
    let contradicted = if edge.is_contradicted() { "NOT as they say: " } else { "" };
    writeln!(out, "{:INDENT$}{}", "", edge.because)?;
    writeln!(out, "{:INDENT$}seen: {contradicted}{}", "", edge.witness)
}

/// Each remedy once, with what it closes.
fn write_remedies(out: &mut impl Write, edges: &[Edge]) -> std::io::Result<()> {
    let mut remedies: Vec<(&str, Vec<&str>)> = Vec::new();
    for edge in edges {
        let Some(remedy) = edge.remedy else { continue };
        match remedies.iter_mut().find(|(known, _)| *known == remedy) {
            Some((_, ids)) if ids.contains(&edge.id) => {}
            Some((_, ids)) => ids.push(edge.id),
            None => remedies.push((remedy, vec![edge.id])),
        }
    }
    if !remedies.is_empty() {
        writeln!(out, "\nwhat closes it")?;
    }
    remedies.iter().try_for_each(|(remedy, ids)| writeln!(out, "  {}: {remedy}", ids.join(", ")))
}
