//! Node ports: those of a Service's ports, and the one where a balancer asks which nodes have endpoints.

use std::collections::HashMap;

use api::field::{Error, ErrorList, Path};
use serde_json::Value;

use super::{Allocator, Reserved, Taken, node_port, wants_health_check, wants_ports};
use crate::random;

impl Allocator {
    pub(super) fn settle_ports(
        &self,
        service: &mut Value,
        had: &[u16],
        taken: &mut Taken,
        reserved: &mut Reserved,
        errors: &mut ErrorList,
    ) {
        if wants_ports(service) {
            let list = service["spec"]["ports"].take();
            let allocate = service["spec"]["allocateLoadBalancerNodePorts"] != false;
            service["spec"]["ports"] = self.settle_list(list, allocate, had, taken, reserved, errors);
            if service["spec"]["ports"].is_null()
                && let Some(spec) = service["spec"].as_object_mut()
            {
                spec.remove("ports");
            }
        }
        self.settle_health_check(service, had, taken, reserved, errors);
    }

    /// Ports of one number share a node port, whatever their protocols (`initNodePorts`).
    fn settle_list(
        &self,
        mut list: Value,
        allocate: bool,
        had: &[u16],
        taken: &mut Taken,
        reserved: &mut Reserved,
        errors: &mut ErrorList,
    ) -> Value {
        let mut of_port: HashMap<i64, u16> = HashMap::new();
        for port in list.as_array().into_iter().flatten() {
            if let (Some(number), Some(asked)) = (port["port"].as_i64(), node_port(&port["nodePort"])) {
                of_port.entry(number).or_insert(asked);
            }
        }
        for (at, port) in list.as_array_mut().into_iter().flatten().enumerate() {
            let path = Path::new("spec").child("ports").index(at).child("nodePort");
            let number = port["port"].as_i64().unwrap_or(0);
            match node_port(&port["nodePort"]) {
                Some(asked) => {
                    if !had.contains(&asked)
                        && !reserved.ports.contains(&asked)
                        && let Err(why) = self.take_port(asked, taken, reserved)
                    {
                        errors.push(Error::invalid(&path, asked, why));
                    }
                }
                None if !allocate => {}
                None => {
                    let shared = of_port.get(&number).copied();
                    let Some(given) = shared.or_else(|| self.free_port(taken)) else {
                        errors.push(Error::internal(&path, "failed to allocate a nodePort: range is full"));
                        continue;
                    };
                    if shared.is_none() {
                        taken.ports.insert(given);
                        reserved.ports.push(given);
                        of_port.insert(number, given);
                    }
                    port["nodePort"] = given.into();
                }
            }
        }
        list
    }

    fn settle_health_check(
        &self,
        service: &mut Value,
        had: &[u16],
        taken: &mut Taken,
        reserved: &mut Reserved,
        errors: &mut ErrorList,
    ) {
        let asked = node_port(&service["spec"]["healthCheckNodePort"]);
        let path = Path::new("spec").child("healthCheckNodePort");
        match asked {
            _ if !wants_health_check(service) => {}
            Some(asked) => {
                if !had.contains(&asked)
                    && let Err(why) = self.take_port(asked, taken, reserved)
                {
                    let why = format!("failed to allocate requested HealthCheck NodePort {asked}: {why}");
                    errors.push(Error::internal(&path, &why));
                }
            }
            None => match self.free_port(taken) {
                Some(given) => {
                    taken.ports.insert(given);
                    reserved.ports.push(given);
                    service["spec"]["healthCheckNodePort"] = given.into();
                }
                None => errors
                    .push(Error::internal(&path, "failed to allocate a HealthCheck NodePort: range is full")),
            },
        }
    }

    fn take_port(&self, asked: u16, taken: &mut Taken, reserved: &mut Reserved) -> Result<(), String> {
        if !self.node_ports.contains(&asked) {
            let (first, last) = (self.node_ports.start(), self.node_ports.end());
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ));
        }
        if !taken.ports.insert(asked) {
            return Err("provided port is already allocated".to_owned());
        }
        reserved.ports.push(asked);
        Ok(())
    }

    /// A random port from the upper part of the range first, as upstream, so that fixed ones are best taken below.
    fn free_port(&self, taken: &Taken) -> Option<u16> {
        let (first, last) = (u32::from(*self.node_ports.start()), u32::from(*self.node_ports.end()));
        let size = last - first + 1;
        let reserved = if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size) };
        let find = |from: u32, to: u32| {
            let count = to.checked_sub(from).filter(|count| *count > 0)?;
            let start = u32::from_le_bytes(random::bytes()) % count;
            (0..count)
                .filter_map(|at| u16::try_from(from + (start + at) % count).ok())
                .find(|number| !taken.ports.contains(number))
        };
        find(first + reserved, last + 1).or_else(|| find(first, first + reserved))
    }
}
