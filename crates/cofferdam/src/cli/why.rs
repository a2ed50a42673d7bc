//! `cofferdam why`: whether one end may reach another, with every policy, rule and kernel element that decides.

pub(super) mod live;
pub(super) mod verdict;

use std::io::Write;

use anyhow::Result;
use clap::Args;
use policy::network_policy::explain::{
    Answer, Connection, Judgement, Name, Outcome, PartyKind, PolicyReport, PortWord, Says, explain, shown,
    tier_name,
};
use serde::Serialize;

use self::verdict::Live;
use super::{netpol, out};
use crate::cluster::layout::Layout;

#[derive(Args, Debug)]
#[command(after_help = "SOURCE and DESTINATION are one of:
  POD, pod/NAME, NAMESPACE/POD, NAMESPACE/pod/NAME
  svc/NAME, NAMESPACE/svc/NAME      a Service (DESTINATION only); policies judge what it translates to
  node/NAME                         a node, and so the hostNetwork pods on it; its ports may be pods' host ports, or Services'
  10.1.2.3, fd00::1                 whoever has the address
  external                          some address outside of the cluster
PORT is a number or a port's name, for TCP; with a protocol: 53/udp, dns/udp, 7/sctp; or icmp. Without it, the ports
that the destination declares are meant.

With --live, one packet (TCP SYN, empty UDP datagram, SCTP INIT, echo request) is sent from the source's own network
for each connection, followed through the packet filters of the nodes by the kernel's trace, and held against the answer.
A TCP peer that accepts gets RST. To an address outside of the cluster the packet is taken away when it leaves its node;
from one, it is put on the wire before the node (before each, where any may take it: a Service's external addresses), and the
answer is taken away.

Exit codes: 0 allowed, 1 denied (also in part), 2 the question cannot be answered (or the kernel not asked), 3 the kernel
does otherwise.

Examples:
  cofferdam why web db 5432
  cofferdam why shop/cart foo/svc/db sql
  cofferdam why external -n foo web 80
  cofferdam why web db 5432 --live
  cofferdam why web 8.8.8.8 53/udp -o json | jq .connections[0].egress")]
pub struct WhyArgs {
    /// Who connects.
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Who is connected to.
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// On which port.
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
    /// Send a packet too, and say whether the kernel agrees.
    #[arg(long)]
    live: bool,
    /// Where names without a namespace are looked for.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

const UNANSWERED: i32 = 2;
const DISAGREES: i32 = 3;

/// What `-o json` prints.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<&'a [Live]>,
}

/// Returns the exit code.
pub fn run(layout: &Layout, args: &WhyArgs) -> Result<i32> {
    let answered = answer(layout, args).and_then(|answer| {
        let live = match args.live {
            true => Some(super::runtime()?.block_on(live::probe(layout, &answer))?),
            false => None,
        };
        let mut out = out::stdout();
        match args.output.as_str() {
            "json" => {
                serde_json::to_writer_pretty(&mut out, &Whole { answer: &answer, live: live.as_deref() })?;
                writeln!(out)?;
            }
            _ => {
                write(&mut out, &answer)?;
                write_live(&mut out, live.as_deref().unwrap_or_default())?;
            }
        }
        Ok(exit_code(answer.verdict, live.as_deref()))
    });
    Ok(answered.unwrap_or_else(|error| {
        out::failed("cofferdam why: ", &error);
        UNANSWERED
    }))
}

fn exit_code(verdict: Outcome, live: Option<&[Live]>) -> i32 {
    let live = live.unwrap_or_default();
    match verdict {
        _ if live.iter().any(|one| one.agrees == Some(false)) => DISAGREES,
        _ if live.iter().any(|one| one.agrees.is_none()) => UNANSWERED,
        Outcome::Allowed => 0,
        Outcome::Denied | Outcome::Partly | Outcome::Unreachable => 1,
    }
}

fn write_live(out: &mut impl Write, live: &[Live]) -> std::io::Result<()> {
    for one in live {
        let agrees = match one.agrees {
            Some(true) => " — agrees",
            Some(false) => " — DISAGREES",
            None => "",
        };
        writeln!(out, "\nlive: {}\n  kernel: {}{agrees}: {}", one.packet, one.kernel.word(), one.because)?;
    }
    Ok(())
}

fn answer(layout: &Layout, args: &WhyArgs) -> Result<Answer> {
    let source = Name::parse(&args.source, &args.namespace)?;
    let destination = Name::parse(&args.destination, &args.namespace)?;
    let port = args.port.as_deref().map(PortWord::parse).transpose()?;
    let objects = netpol::fetch(layout)?;
    Ok(explain(&objects.world(), &source, &destination, port.as_ref())?)
}

/// For people.
pub(super) fn write(out: &mut impl Write, answer: &Answer) -> std::io::Result<()> {
    let word = match answer.verdict {
        Outcome::Allowed => "ALLOWED",
        Outcome::Denied => "DENIED",
        Outcome::Partly => "PARTLY",
        Outcome::Unreachable => "UNREACHABLE",
    };
    writeln!(out, "{word}: {}", answer.summary)?;
    for note in &answer.notes {
        writeln!(out, "note: {note}")?;
    }
    for translation in &answer.translations {
        write!(out, "\n{translation} translates")?;
        if let Some(node) = translation.node.as_ref().and_then(|node| node.name.as_ref()) {
            write!(out, " on {node}")?;
        }
        writeln!(out)?;
        translation.ports.iter().try_for_each(|port| writeln!(out, "  {port}"))?;
    }
    if answer.connections.iter().any(|connection| connection.translation.is_some()) {
        writeln!(out, "  policies judge the endpoint and its port, not what was asked for")?;
    }
    for connection in &answer.connections {
        if answer.connections.len() > 1 || !answer.translations.is_empty() {
            let word = if connection.allowed { "allowed" } else { "denied" };
            let by = connection
                .translation
                .and_then(|at| answer.translations.get(at)?.node.as_ref()?.name.as_ref());
            let by = by.map(|node| format!(" by way of {node}")).unwrap_or_default();
            writeln!(out, "\n{} to {}{by}: {word}", shown(&connection.port), connection.server)?;
        } else {
            writeln!(out)?;
        }
        write_connection(out, connection)?;
    }
    Ok(())
}

fn write_connection(out: &mut impl Write, connection: &Connection) -> std::io::Result<()> {
    let ends = [
        ("egress", &connection.egress, &connection.client),
        ("ingress", &connection.ingress, &connection.server),
    ];
    for (word, judgement, party) in ends {
        let verdict = if judgement.allowed { "allowed" } else { "denied" };
        let who = party.name.clone().unwrap_or_else(|| party.address.to_string());
        writeln!(out, "{word:7} of {who}: {verdict}: {}", judgement.because)?;
        match (word, &connection.sent_to, &connection.seen_as) {
            ("egress", Some(sent), _) if party.kind == PartyKind::Pod => {
                writeln!(out, "    here it is for {} on {} still", sent.to, shown(&sent.port))?;
            }
            ("ingress", _, Some(seen_as)) => {
                writeln!(out, "    here it comes from {seen_as}, which stands in for the client")?;
            }
            _ => {}
        }
        let width = judgement.policies.iter().map(|report| label(report).len()).max().unwrap_or(0);
        for report in &judgement.policies {
            writeln!(out, "    {:width$}  {}", label(report), said(report))?;
        }
        write_elements(out, judgement)?;
    }
    Ok(())
}

fn write_elements(out: &mut impl Write, judgement: &Judgement) -> std::io::Result<()> {
    if judgement.elements.is_empty() {
        return Ok(());
    }
    let node = judgement.node.as_deref().unwrap_or("its node");
    writeln!(out, "    in the kernel, table inet cofferdam of {node}:")?;
    judgement.elements.iter().try_for_each(|element| writeln!(out, "      {element}"))
}

fn label(report: &PolicyReport) -> String {
    match report.priority {
        Some(priority) => format!("{} ({} {priority})", report.policy, tier_name(report.tier)),
        None => report.policy.clone(),
    }
}

fn said(report: &PolicyReport) -> String {
    match &report.says {
        Says::Matches(at) => {
            let peer = at.peer.clone().unwrap_or_else(|| format!("{} (any peer)", at.rule));
            let port = at.port.as_deref().unwrap_or("any port");
            format!("{}: {peer}, {port}", if at.action == "Accept" { "matches" } else { at.action })
        }
        Says::Misses { nearest, why } => format!("no: {nearest} {why}"),
        Says::NoRules => "no: it has no rules in this direction, so it lets nobody through".to_string(),
        Says::NotAsked => "not asked: an earlier policy has decided".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::netpol::objects::Objects;
    use serde_json::json;

    fn text(source: &str, destination: &str, port: &str, namespace: &str) -> String {
        let pod = |name: &str, ip: &str, node: &str| {
            json!({ "metadata": { "namespace": "foo", "name": name, "labels": { "app": name } },
                    "spec": { "nodeName": node, "containers": [{ "name": "c", "ports": [{ "name": "sql", "containerPort": 5432 }] }] },
                    "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } })
        };
        let from = |value| serde_json::from_value(value).expect("an object");
        let objects = Objects {
            pods: vec![from(pod("web", "10.244.1.2", "node-1")), from(pod("db", "10.244.2.2", "node-2"))],
            namespaces: vec![serde_json::from_value(json!({ "metadata": { "name": "foo" } })).expect("a namespace")],
            policies: vec![
                serde_json::from_value(json!({ "metadata": { "namespace": "foo", "name": "db" }, "spec": {
                    "podSelector": { "matchLabels": { "app": "db" } },
                    "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }], "ports": [{ "port": 5432 }] }] } }))
                .expect("a policy"),
            ],
            services: vec![
                serde_json::from_value(json!({ "metadata": { "namespace": "foo", "name": "db" }, "spec": {
                    "clusterIP": "10.96.0.9", "selector": { "app": "db" }, "ports": [{ "port": 80, "targetPort": "sql" }] } }))
                .expect("a service"),
            ],
            ..Objects::default()
        };
        let (source, destination) = (
            Name::parse(source, namespace).expect("a name"),
            Name::parse(destination, namespace).expect("a name"),
        );
        let port = PortWord::parse(port).expect("a port");
        let answer = explain(&objects.world(), &source, &destination, Some(&port)).expect("an answer");
        let mut out = Vec::new();
        write(&mut out, &answer).expect("write to memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_exit_code_says_whether_the_kernel_does_what_is_said() {
        let live = |agrees| Live { agrees, ..verdict::not_probed(String::new(), "") };
        type Row<'a> = (Outcome, Option<&'a [Option<bool>]>, i32);
        let rows: [Row<'_>; 7] = [
            (Outcome::Allowed, None, 0),
            (Outcome::Denied, None, 1),
            (Outcome::Allowed, Some(&[Some(true)]), 0),
            (Outcome::Denied, Some(&[Some(true)]), 1),
            (Outcome::Denied, Some(&[Some(true), Some(false), None]), 3),
            (Outcome::Allowed, Some(&[Some(true), None]), 2),
            (Outcome::Unreachable, Some(&[Some(true)]), 1),
        ];
        for (verdict, agrees, code) in rows {
            let live: Option<Vec<Live>> = agrees.map(|all| all.iter().map(|one| live(*one)).collect());
            assert_eq!(exit_code(verdict, live.as_deref()), code, "{verdict:?} {agrees:?}");
        }
    }

    #[test]
    fn an_answer_reads_from_the_verdict_down_to_the_kernel() {
        let allowed = text("web", "svc/db", "80", "foo");
        let lines: Vec<&str> = allowed.lines().collect();
        assert_eq!(
            lines[0],
            "ALLOWED: foo/web (10.244.1.2 on node-1) may reach svc foo/db (10.96.0.9) on TCP 80"
        );
        assert!(allowed.contains("\n  TCP 80 → 10.244.2.2:5432\n"), "{allowed}");
        assert!(allowed.contains("\nTCP 5432 to foo/db (10.244.2.2 on node-2): allowed\n"), "{allowed}");
        assert!(
            allowed.contains("\negress  of foo/web: allowed: no policy isolates foo/web for egress\n"),
            "{allowed}"
        );
        assert!(
            allowed.contains("\n    foo/db  matches: spec.ingress[0].from[0], spec.ingress[0].ports[0]\n"),
            "{allowed}"
        );
        assert!(allowed.contains("\n      map ingress: 10.244.2.2 → chain ingress-"), "{allowed}");
        let denied = text("external", "db", "22", "foo");
        assert!(denied.starts_with(
            "DENIED: 192.0.2.1 (outside) may not reach foo/db (10.244.2.2 on node-2) on TCP 22\n"
        ));
        assert!(denied.contains(
            "\n    foo/db  no: spec.ingress[0] matches neither the port (it is for TCP 5432) nor the peer: from[0]: it selects \
             pods, and 192.0.2.1 is outside of the cluster\n"
        ), "{denied}");
    }
}
