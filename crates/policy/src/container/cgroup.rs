//! What a container's and a pod's requests and limits are in their cgroups (kubelet `pkg/kubelet/kuberuntime`,
//! calculateLinuxResources; `pkg/kubelet/cm`, ResourceConfigForPod), and which devices they may open.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources,
};

use crate::{
    node_facts::{CgroupMode, NodeFacts},
    resources::{CPU_PERIOD, Quantity, cpu_quota, cpu_shares, limit, request},
};

/// The cgroup of one container.
pub fn container_resources(container: &Container, privileged: bool, node: &NodeFacts) -> LinuxResources {
    let cpu_limit = limit(container, "cpu").map(Quantity::milli_value);
    let memory_limit = limit(container, "memory").map(Quantity::value);
    let mut resources =
        base(request(container, "cpu").milli_value(), cpu_limit, memory_limit, hugepages(container), node);
    resources.set_devices(Some(devices(privileged)));
    resources
}

/// The cgroup of the pod as a whole: sums over the containers that run together, and at least what any init container
/// needs; limited only where every container is.
pub fn pod_resources(pod: &Pod, node: &NodeFacts) -> LinuxResources {
    let Some(spec) = &pod.spec else { return base(0, None, None, BTreeMap::new(), node) };
    let own = |list: fn(&k8s_openapi::api::core::v1::ResourceRequirements) -> Option<&BTreeMap<_, _>>,
               name: &str| {
        let list = spec.resources.as_ref().and_then(list)?;
        Some(crate::resources::quantity(Some(list), name)).filter(|q| !q.is_zero())
    };
    let sum = |of: &dyn Fn(&Container) -> Option<Quantity>| -> Option<Quantity> {
        let sidecars = spec
            .init_containers
            .iter()
            .flatten()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let mut together = Some(Quantity::ZERO);
        for container in spec.containers.iter().chain(sidecars) {
            together = together.zip(of(container)).map(|(sum, next)| sum.saturating_add(next));
        }
        let mut before = Some(Quantity::ZERO);
        let mut most = together;
        for container in spec.init_containers.iter().flatten() {
            let now = before.zip(of(container)).map(|(sum, next)| sum.saturating_add(next));
            if container.restart_policy.as_deref() == Some("Always") {
                before = now;
            }
            most = most.zip(now).map(|(most, now)| most.max(now));
        }
        most
    };
    let positive = |quantity: Option<Quantity>| quantity.filter(|q| !q.is_zero());
    let cpu_request = own(|r| r.requests.as_ref(), "cpu")
        .or_else(|| own(|r| r.limits.as_ref(), "cpu"))
        .or_else(|| sum(&|c| Some(request(c, "cpu"))))
        .unwrap_or_default();
    let cpu_limit = own(|r| r.limits.as_ref(), "cpu").or_else(|| positive(sum(&|c| limit(c, "cpu"))));
    let memory_limit =
        own(|r| r.limits.as_ref(), "memory").or_else(|| positive(sum(&|c| limit(c, "memory"))));
    let mut huge: BTreeMap<String, i64> = BTreeMap::new();
    for container in &spec.containers {
        for (size, limit) in hugepages(container) {
            let total = huge.entry(size).or_default();
            *total = total.saturating_add(limit);
        }
    }
    base(
        cpu_request.milli_value(),
        cpu_limit.map(Quantity::milli_value),
        memory_limit.map(Quantity::value),
        huge,
        node,
    )
}

fn base(
    cpu_request_millis: i64,
    cpu_limit_millis: Option<i64>,
    memory_limit: Option<i64>,
    hugepages: BTreeMap<String, i64>,
    node: &NodeFacts,
) -> LinuxResources {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(cpu_shares(cpu_request_millis)));
    if let Some(quota) = cpu_limit_millis.and_then(cpu_quota) {
        cpu.set_quota(Some(quota));
        cpu.set_period(Some(CPU_PERIOD));
    }
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources.set_cpu(Some(cpu));
    if let Some(limit) = memory_limit.filter(|limit| *limit > 0) {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit));
        if node.swap_controller {
            // No swap: memory and swap together are no more than memory alone.
            memory.set_swap(Some(limit));
        }
        resources.set_memory(Some(memory));
    }
    if let Some(limit) = node.pod_pids_limit.filter(|limit| *limit > 0) {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    if !hugepages.is_empty() {
        let limits = hugepages.into_iter().map(|(size, limit)| {
            let mut huge = LinuxHugepageLimit::default();
            huge.set_page_size(size);
            huge.set_limit(limit);
            huge
        });
        resources.set_hugepage_limits(Some(limits.collect()));
    }
    if node.cgroup == CgroupMode::V2 {
        // All processes of a container die together when it is out of memory (the kubelet's default since 1.28).
        resources.set_unified(Some(HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())])));
    }
    resources
}

/// `hugepages-2Mi` → the cgroup's name of the size, `2MB`, and the limit in bytes.
fn hugepages(container: &Container) -> BTreeMap<String, i64> {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    limits
        .into_iter()
        .flatten()
        .filter_map(|(name, limit)| {
            let size = name.strip_prefix("hugepages-")?.parse::<Quantity>().ok()?.value();
            let limit = limit.0.parse::<Quantity>().ok()?.value();
            let (mut size, mut unit) = (size, 0);
            while size >= 1024 && unit < 3 {
                size /= 1024;
                unit += 1;
            }
            Some((format!("{size}{}", ["B", "KB", "MB", "GB"][unit]), limit))
        })
        .collect()
}

/// Everything denied, then what every container has: making any node (it cannot be opened), and the runtime's own
/// devices. Privileged: everything.
fn devices(privileged: bool) -> Vec<LinuxDeviceCgroup> {
    let rule = |allow: bool, typ: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow);
        rule.set_typ(Some(typ));
        rule.set_major(major);
        rule.set_minor(minor);
        rule.set_access(Some(access.to_owned()));
        rule
    };
    if privileged {
        return vec![rule(true, LinuxDeviceType::A, None, None, "rwm")];
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    // null, zero, full, random, urandom, tty, ptmx, pts/*
    for (major, minor) in [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(2)),
        (136, None),
    ] {
        rules.push(rule(true, LinuxDeviceType::C, Some(major), minor, "rwm"));
    }
    rules
}
