//! `cargo xtask bench`: the benchmarks, each comparing side by side in one run, built in release.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A benchmark is an example of the crate it measures.
const BENCHES: &[(&str, &str, &str, &str)] = &[
    ("launch", "keeper", "launch-bench", "a container against runc, crun and a bare clone3 + exec"),
    ("net", "node", "net-bench", "pod networks, policy changes, connect latency against bare and conntrack"),
    (
        "data-path",
        "node",
        "data-path-bench",
        "what policies cost a packet, at 10, 1 000 and 100 000 set elements and as a chain each",
    ),
    ("services", "node", "service-bench", "a change of one Service at 10, 1 000 and 10 000 of them"),
    ("pod-security", "policy", "pod_security_rate", "Pod Security verdicts per second on one core"),
    (
        "authorization",
        "control",
        "authorization-bench",
        "decisions per second with 1 000 roles and 5 000 bindings, and their share in a pod's POST",
    ),
    (
        "policies",
        "policy",
        "network_policy_scale",
        "a whole reachability table, and one event in a large cluster",
    ),
    ("dns", "dns", "dns-bench", "answers per second and latency of the name server against dnsmasq"),
    (
        "api",
        "control",
        "api-bench",
        "creates, GET, LIST of the API server; the share of Pod Security and of field owners",
    ),
    (
        "paths",
        "cofferdam",
        "path-bench",
        "whole paths: up, POST to first instruction, Deployment of 50, memory",
    ),
];

pub fn run(arguments: &[String]) -> Result<()> {
    for name in arguments {
        if !BENCHES.iter().any(|(known, ..)| known == name) {
            let known: Vec<_> = BENCHES.iter().map(|(name, ..)| *name).collect();
            bail!("no benchmark {name}: there are {}", known.join(", "));
        }
    }
    for (name, package, example, about) in BENCHES {
        if !arguments.is_empty() && !arguments.iter().any(|one| one == name) {
            continue;
        }
        println!("\n== {name}: {about}");
        let mut command = Command::new("cargo");
        command.args(["run", "--quiet", "--release", "--package", package, "--example", example]);
        if *name == "paths" {
            let built = Command::new("cargo")
                .args(["build", "--quiet", "--release", "--package", "cofferdam"])
                .status();
            ensure!(built.context("run cargo")?.success(), "the program does not build");
            let program = std::env::current_dir()?.join("target/release/cofferdam");
            command.arg("--").arg(program);
        }
        let status = command.status().context("run cargo")?;
        ensure!(status.success(), "{example} failed: {status}");
    }
    Ok(())
}
