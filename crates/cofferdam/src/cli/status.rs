//! `cofferdam status`: which parts of the cluster run, and what is on the nodes.

use std::io::Write;

use anyhow::{Context, Result};
use k8s_openapi::{
    api::{
        core::v1::{Node, Pod},
        networking::v1::NetworkPolicy,
    },
    jiff::Timestamp,
};
use kube::{Api, api::ListParams};
use serde_json::json;

use node::agent::programmed;

use super::out;
use super::table::Table;
use crate::cluster::{
    layout::Layout,
    processes::{self, Role},
};

/// Returns the exit code: 1 if a part does not run.
pub fn run(layout: &Layout, json: bool) -> Result<i32> {
    let cluster = layout.read()?;
    let found = processes::find(layout.data())?;
    let pid = |role: Role, node: Option<&str>| {
        found
            .iter()
            .find(|process| process.role == role && process.node.as_deref() == node)
            .map(|process| process.pid)
    };
    let objects = super::runtime()?.block_on(async {
        super::need_sockets()?;
        let client = node::client::unix(layout.admin_socket());
        let nodes =
            Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("list the nodes")?;
        let pods =
            Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.context("list the pods")?;
        let policies = Api::<NetworkPolicy>::all(client).list(&ListParams::default()).await;
        let versions = policies.context("list the network policies")?.items.into_iter();
        let newest = versions.filter_map(|one| one.metadata.resource_version?.parse::<u64>().ok()).max();
        Ok::<_, anyhow::Error>((nodes.items, pods.items, newest.unwrap_or(0)))
    });
    let mut whole =
        pid(Role::Supervisor, None).is_some() && pid(Role::Control, None).is_some() && objects.is_ok();
    let mut rows = Vec::new();
    let newest = objects.as_ref().map_or(0, |objects| objects.2);
    for name in cluster.node_names() {
        // Not known where the API does not answer.
        let mut ready = None;
        let (mut running, mut all) = (0, 0);
        let mut policies = Policies::default();
        if let Ok((nodes, pods, _)) = &objects {
            policies =
                Policies::of(nodes.iter().find(|node| node.metadata.name.as_ref() == Some(&name)), newest);
            ready = Some(nodes.iter().any(|node| {
                let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
                node.metadata.name.as_ref() == Some(&name)
                    && conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
            }));
            for pod in pods
                .iter()
                .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&name))
            {
                all += 1;
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                running += usize::from(phase == Some("Running"));
            }
        }
        let init = pid(Role::NodeInit, Some(&name));
        let agent = pid(Role::Agent, Some(&name));
        whole &= ready == Some(true) && init.is_some() && agent.is_some();
        rows.push((name, ready, init, agent, running, all, policies));
    }
    let mut out = out::stdout();
    if json {
        let nodes: Vec<_> = rows
            .iter()
            .map(|(name, ready, init, agent, running, all, policies)| {
                json!({ "name": name, "ready": ready, "initPID": init, "agentPID": agent,
                    "podsRunning": running, "pods": all,
                    "networkPolicies": { "state": policies.word(), "version": policies.version, "newest": newest,
                        "message": policies.message, "reported": policies.reported } })
            })
            .collect();
        let report = json!({
            "id": cluster.id, "dataDir": layout.data(), "api": format!("https://127.0.0.1:{}", cluster.port),
            "auditLog": layout.audit_log(),
            "supervisorPID": pid(Role::Supervisor, None), "controlPID": pid(Role::Control, None),
            "nodes": nodes, "whole": whole,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(i32::from(!whole));
    }
    let show = |pid: Option<i32>| pid.map_or_else(|| "not running".to_owned(), |pid| pid.to_string());
    writeln!(out, "cluster {} in {}", cluster.id, layout.data().display())?;
    writeln!(out, "  API         https://127.0.0.1:{}", cluster.port)?;
    writeln!(out, "  audit log   {}", layout.audit_log().display())?;
    writeln!(out, "  supervisor  {}", show(pid(Role::Supervisor, None)))?;
    writeln!(out, "  control     {}", show(pid(Role::Control, None)))?;
    if let Err(error) = &objects {
        writeln!(out, "  the API is not asked or does not answer: {error:#}")?;
    }
    let mut table = Table::new(["NODE", "STATUS", "INIT", "AGENT", "PODS RUNNING", "NETWORK POLICIES"]);
    let mut notes = Vec::new();
    for (name, ready, init, agent, running, all, policies) in rows {
        if policies.state == Programming::Failed {
            notes.push(format!("{name}: {}", policies.message));
        }
        let status = match ready {
            Some(true) => "Ready",
            Some(false) => "NotReady",
            None => "Unknown",
        };
        table.row([
            name,
            status.into(),
            show(init),
            show(agent),
            if ready.is_some() { format!("{running}/{all}") } else { "unknown".to_owned() },
            policies.cell(),
        ]);
    }
    table.write(&mut out)?;
    for note in notes {
        writeln!(out, "{note}")?;
    }
    Ok(i32::from(!whole))
}

/// Whether a node's packet filter holds the cluster's network policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Programming {
    /// The node has said nothing, or the API does not answer.
    #[default]
    Unknown,
    Current,
    /// Newer policies are there than it has said to hold: for a second after a change, unless it does not follow.
    Behind,
    Failed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Policies {
    state: Programming,
    version: Option<u64>,
    message: String,
    /// When the node said so.
    reported: Option<Timestamp>,
}

impl Policies {
    /// By the node's condition; `newest` is the newest resource version of the policies that are there.
    fn of(node: Option<&Node>, newest: u64) -> Policies {
        let conditions =
            node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_ref());
        let Some(condition) = conditions.into_iter().flatten().find(|one| one.type_ == programmed::CONDITION)
        else {
            return Policies::default();
        };
        let message = condition.message.clone().unwrap_or_default();
        let version = programmed::version(&message);
        let state = match version {
            _ if condition.status != "True" => Programming::Failed,
            Some(version) if version >= newest => Programming::Current,
            _ => Programming::Behind,
        };
        Policies {
            state,
            version,
            message,
            reported: condition.last_heartbeat_time.as_ref().map(|time| time.0),
        }
    }

    fn word(&self) -> &'static str {
        match self.state {
            Programming::Unknown => "unknown",
            Programming::Current => "current",
            Programming::Behind => "behind",
            Programming::Failed => "NOT IN FORCE",
        }
    }

    fn cell(&self) -> String {
        let version = self.version.map_or(String::new(), |version| format!(" at {version}"));
        let age = self.reported.map(|at| Timestamp::now().duration_since(at).as_secs().max(0));
        let age = age.map_or(String::new(), |seconds| {
            format!(", said {} ago", api::printer::age::human_duration(seconds))
        });
        format!("{}{version}{age}", self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_current_behind_or_without_force() {
        let node = |status: &str, message: &str| -> Node {
            serde_json::from_value(json!({ "status": { "conditions": [
                { "type": "Ready", "status": "True" },
                { "type": programmed::CONDITION, "status": status, "message": message },
            ] } }))
            .unwrap()
        };
        let held = "3 network policies up to version 41 are in force (generation 9)";
        let table = [
            (Some(node("True", held)), 41, Programming::Current),
            // The newest was deleted: what is left is older than what the node holds.
            (Some(node("True", held)), 12, Programming::Current),
            (Some(node("True", held)), 42, Programming::Behind),
            (Some(node("False", "the packet filter could not be programmed: x")), 41, Programming::Failed),
            (Some(Node::default()), 0, Programming::Unknown),
            (None, 0, Programming::Unknown),
        ];
        for (node, newest, want) in table {
            assert_eq!(Policies::of(node.as_ref(), newest).state, want);
        }
    }
}
