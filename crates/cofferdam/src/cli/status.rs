//! `cofferdam status`: which parts of the cluster run, and what is on the nodes.

use std::io::Write;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::ListParams};
use serde_json::json;

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
        let client = node::client::unix(layout.admin_socket());
        let nodes =
            Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("list the nodes")?;
        let pods = Api::<Pod>::all(client).list(&ListParams::default()).await.context("list the pods")?;
        Ok::<_, anyhow::Error>((nodes.items, pods.items))
    });
    let mut whole =
        pid(Role::Supervisor, None).is_some() && pid(Role::Control, None).is_some() && objects.is_ok();
    let mut rows = Vec::new();
    for name in cluster.node_names() {
        let (mut ready, mut running, mut all) = (false, 0, 0);
        if let Ok((nodes, pods)) = &objects {
            ready = nodes.iter().any(|node| {
                let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
                node.metadata.name.as_ref() == Some(&name)
                    && conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
            });
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
        whole &= ready && init.is_some() && agent.is_some();
        rows.push((name, ready, init, agent, running, all));
    }
    let mut out = std::io::stdout().lock();
    if json {
        let nodes: Vec<_> = rows
            .iter()
            .map(|(name, ready, init, agent, running, all)| {
                json!({ "name": name, "ready": ready, "initPID": init, "agentPID": agent,
                    "podsRunning": running, "pods": all })
            })
            .collect();
        let report = json!({
            "id": cluster.id, "dataDir": layout.data(), "api": format!("https://127.0.0.1:{}", cluster.port),
            "supervisorPID": pid(Role::Supervisor, None), "controlPID": pid(Role::Control, None),
            "nodes": nodes, "whole": whole,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(i32::from(!whole));
    }
    let show = |pid: Option<i32>| pid.map_or_else(|| "not running".to_owned(), |pid| pid.to_string());
    writeln!(out, "cluster {} in {}", cluster.id, layout.data().display())?;
    writeln!(out, "  API         https://127.0.0.1:{}", cluster.port)?;
    writeln!(out, "  supervisor  {}", show(pid(Role::Supervisor, None)))?;
    writeln!(out, "  control     {}", show(pid(Role::Control, None)))?;
    if let Err(error) = &objects {
        writeln!(out, "  the API does not answer: {error:#}")?;
    }
    let mut table = Table::new(["NODE", "STATUS", "INIT", "AGENT", "PODS RUNNING"]);
    for (name, ready, init, agent, running, all) in rows {
        let status = if ready { "Ready" } else { "NotReady" };
        table.row([name, status.into(), show(init), show(agent), format!("{running}/{all}")]);
    }
    table.write(&mut out)?;
    Ok(i32::from(!whole))
}
