//! Quantities, QoS classes, and what a container's requests and limits are in its cgroup
//! (kubelet `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos`).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

pub use self::quantity::{Quantity, QuantityError};

mod quantity;

/// The length of a CPU period: 100 ms, in µs.
pub const CPU_PERIOD: u64 = 100_000;
/// Shorter quotas are raised to 1 ms, in µs.
const MIN_QUOTA: i64 = 1000;
/// The kernel's bounds of `cpu.shares`.
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// One resource of a list, 0 where it is absent or cannot be read (the API server has validated it).
pub fn quantity(list: Option<&BTreeMap<String, ApiQuantity>>, resource: &str) -> Quantity {
    list.and_then(|list| list.get(resource)).and_then(|q| q.0.parse().ok()).unwrap_or_default()
}

/// The limit of a container; `None`: not limited.
pub fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    let quantity = quantity(container.resources.as_ref()?.limits.as_ref(), resource);
    (!quantity.is_zero()).then_some(quantity)
}

/// The request of a container. Without one the limit counts, as the API server's defaulting would have written it.
pub fn request(container: &Container, resource: &str) -> Quantity {
    let Some(resources) = &container.resources else { return Quantity::ZERO };
    match &resources.requests {
        Some(requests) if requests.contains_key(resource) => quantity(Some(requests), resource),
        _ => quantity(resources.limits.as_ref(), resource),
    }
}

/// The QoS class of a pod: by its own `resources` if it has any, else by those of its init and app containers
/// (`pkg/apis/core/v1/helper/qos`).
pub fn qos_class(pod: &Pod) -> QosClass {
    let Some(spec) = &pod.spec else { return QosClass::BestEffort };
    let own = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some());
    let all: Vec<Option<&ResourceRequirements>> = match own {
        Some(resources) => vec![Some(resources)],
        None => {
            let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
            containers.map(|c| c.resources.as_ref()).collect()
        }
    };
    let positive = |list: Option<&BTreeMap<String, ApiQuantity>>| -> BTreeMap<&'static str, Quantity> {
        ["cpu", "memory"]
            .into_iter()
            .map(|name| (name, quantity(list, name)))
            .filter(|(_, quantity)| *quantity > Quantity::ZERO)
            .collect()
    };
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut guaranteed = true;
    for resources in all {
        let limit = positive(resources.and_then(|r| r.limits.as_ref()));
        let mut request = positive(resources.and_then(|r| r.requests.as_ref()));
        // The API server's defaulting: a limit without a request is the request.
        for (name, quantity) in &limit {
            let written = resources.and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key(*name));
            if !written {
                request.insert(name, *quantity);
            }
        }
        guaranteed &= limit.len() == 2;
        for (total, list) in [(&mut requests, request), (&mut limits, limit)] {
            for (name, quantity) in list {
                let sum = total.entry(name).or_default();
                *sum = sum.saturating_add(quantity);
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if guaranteed && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// `cpu.shares` of a request in thousandths of a CPU: 1024 per CPU, within the kernel's bounds.
pub fn cpu_shares(milli_cpu: i64) -> u64 {
    if milli_cpu <= 0 {
        return MIN_SHARES;
    }
    ((milli_cpu as u64).saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// `cpu.cfs_quota_us` of a limit in thousandths of a CPU, for [`CPU_PERIOD`]; `None`: no limit.
pub fn cpu_quota(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu.saturating_mul(CPU_PERIOD as i64) / 1000).max(MIN_QUOTA))
}

/// `oom_score_adj` of a container (`pkg/kubelet/qos/policy.go`): the less of the node's memory a Burstable container
/// asked for, the sooner it is killed.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: u64) -> i32 {
    let class_name = pod.spec.as_ref().and_then(|s| s.priority_class_name.as_deref());
    if class_name == Some("system-node-critical") {
        return -997;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let requested = i128::from(request(container, "memory").value().max(0));
            let capacity = i128::from(memory_capacity.max(1));
            let adjust = 1000 - (1000 * requested / capacity);
            // Above a Guaranteed pod's processes, below a BestEffort pod's.
            if adjust < 3 {
                3
            } else if adjust == 1000 {
                999
            } else {
                adjust as i32
            }
        }
    }
}

#[cfg(test)]
mod tests;
