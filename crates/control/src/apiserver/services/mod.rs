//! Addresses and ports of Services. They are taken in memory before the object is written, and given back where it was not;
//! at start, what the stored Services have is taken.
//!
//! [`Allocator::prepare`] comes before validation, as upstream has it: what the Service keeps ([`carry`]) and which families
//! it has ([`families`]). What it lacks then is taken from the [`ranges`], and from the node ports ([`ports`]).

mod carry;
mod families;
mod ports;
mod ranges;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    net::IpAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    ApiError,
    field::{Error, ErrorList, Path},
    registry::Resource,
};
use families::Fields;
use policy::network_policy::ir::Family;
use ranges::Block;
pub use ranges::{AllocatorError, ServiceRanges};
use serde_json::{Value, json};

use super::text;
use crate::{random, store::Store};

#[derive(Debug, Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    /// Node ports: a number is one Service's for all protocols.
    ports: HashSet<u16>,
}

impl Taken {
    fn free(&mut self, addresses: &[IpAddr], ports: &[u16]) {
        for address in addresses {
            self.addresses.remove(address);
        }
        for port in ports {
            self.ports.remove(port);
        }
    }
}

#[derive(Debug)]
pub struct Allocator {
    /// One, or one of each family; the first one's is the family of Services that name none.
    blocks: Vec<Block>,
    node_ports: RangeInclusive<u16>,
    taken: Arc<Mutex<Taken>>,
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request took: given back when it is dropped, unless it is kept.
#[derive(Debug, Default)]
#[must_use]
pub struct Reserved {
    taken: Option<Arc<Mutex<Taken>>>,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    /// What the old object had and the new one has not, to be given back when this is kept.
    freed_addresses: Vec<IpAddr>,
    freed_ports: Vec<u16>,
}

impl Reserved {
    /// The object was written.
    pub fn keep(mut self) {
        let Some(taken) = self.taken.take() else { return };
        lock(&taken).free(&self.freed_addresses, &self.freed_ports);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some(taken) = self.taken.take() else { return };
        lock(&taken).free(&self.addresses, &self.ports);
    }
}

fn is_service(resource: &Resource) -> bool {
    (resource.group, resource.plural) == ("", "services")
}

fn wants_ports(service: &Value) -> bool {
    matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer")
}

fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let fields = Fields::of(service);
    let ips = if fields.ips.is_empty() { vec![fields.ip] } else { fields.ips };
    ips.iter().filter_map(|ip| ip.parse().ok()).collect()
}

fn node_port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

/// All node ports a Service has, that of health checks among them.
fn ports_of(service: &Value) -> Vec<u16> {
    let list = service["spec"]["ports"].as_array().into_iter().flatten();
    let mut ports: Vec<u16> = list.filter_map(|port| node_port(&port["nodePort"])).collect();
    ports.extend(node_port(&service["spec"]["healthCheckNodePort"]));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A balancer asks there which nodes have endpoints.
fn wants_health_check(service: &Value) -> bool {
    text(service, "/spec/type") == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local"
}

impl Allocator {
    /// With everything taken that the Services in `store` have.
    ///
    /// # Errors
    /// A range that is none.
    pub fn new(ranges: &ServiceRanges, store: &Store) -> Result<Allocator, AllocatorError> {
        let blocks = ranges.parse()?;
        let mut taken = Taken::default();
        for object in store.list("/services/", None).map(|listed| listed.objects).unwrap_or_default() {
            let service = object.value();
            taken.addresses.extend(addresses_of(&service));
            taken.ports.extend(ports_of(&service));
        }
        let taken = Arc::new(Mutex::new(taken));
        Ok(Allocator { blocks, node_ports: ranges.node_ports.clone(), taken })
    }

    /// Settles what follows from what a Service says, what it said before, and which families the cluster has; to be done
    /// before it is validated.
    ///
    /// # Errors
    /// Invalid: families that the cluster does not have, or that change without the policy's saying so.
    pub fn prepare(
        &self,
        resource: &Resource,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        if !is_service(resource) {
            return Ok(());
        }
        match old {
            Some(old) => carry::carry_over(service, old),
            None => {
                let mut fields = Fields::of(service);
                families::normalize(&mut fields, None);
                fields.write(service);
            }
        }
        let families: Vec<Family> = self.blocks.iter().map(|block| block.family).collect();
        families::settle(service, old, &families).map_err(|errors| {
            let name = match text(service, "/metadata/name") {
                "" => text(service, "/metadata/generateName"),
                name => name,
            };
            ApiError::invalid("", "Service", name, &errors)
        })?;
        if let Some(old) = old {
            carry::drop_with_type(service, old);
        }
        Ok(())
    }

    /// Gives a new Service what it lacks.
    ///
    /// # Errors
    /// Invalid: what it asks for is taken or out of range.
    pub fn on_create(&self, resource: &Resource, object: &mut Value) -> Result<Reserved, ApiError> {
        if !is_service(resource) {
            return Ok(Reserved::default());
        }
        self.settle(object, None)
    }

    /// Gives a changed Service what it lacks, and notes what it no longer needs.
    ///
    /// # Errors
    /// As [`on_create`](Self::on_create).
    pub fn on_update(&self, resource: &Resource, new: &mut Value, old: &Value) -> Result<Reserved, ApiError> {
        if !is_service(resource) {
            return Ok(Reserved::default());
        }
        self.settle(new, Some(old))
    }

    /// Takes back what a deleted Service had.
    pub fn on_delete(&self, resource: &Resource, old: &Value) {
        if !is_service(resource) {
            return;
        }
        lock(&self.taken).free(&addresses_of(old), &ports_of(old));
    }

    fn settle(&self, service: &mut Value, old: Option<&Value>) -> Result<Reserved, ApiError> {
        let mut reserved = Reserved::default();
        reserved.taken = Some(self.taken.clone());
        let mut errors = ErrorList::new();
        let had_addresses = old.map(addresses_of).unwrap_or_default();
        let had_ports = old.map(ports_of).unwrap_or_default();
        {
            let mut taken = lock(&self.taken);
            self.settle_addresses(service, &had_addresses, &mut taken, &mut reserved, &mut errors);
            self.settle_ports(service, &had_ports, &mut taken, &mut reserved, &mut errors);
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid("", "Service", text(service, "/metadata/name"), &errors));
        }
        let (addresses, ports) = (addresses_of(service), ports_of(service));
        reserved.freed_addresses = had_addresses.into_iter().filter(|had| !addresses.contains(had)).collect();
        reserved.freed_ports = had_ports.into_iter().filter(|had| !ports.contains(had)).collect();
        Ok(reserved)
    }

    /// An address of each of the Service's families.
    fn settle_addresses(
        &self,
        service: &mut Value,
        had: &[IpAddr],
        taken: &mut Taken,
        reserved: &mut Reserved,
        errors: &mut ErrorList,
    ) {
        let mut fields = Fields::of(service);
        if text(service, "/spec/type") == "ExternalName" || fields.is_headless() {
            return;
        }
        let path = Path::new("spec").child("clusterIPs");
        for (at, family) in fields.families.clone().iter().enumerate() {
            let Some(block) = self.blocks.iter().find(|block| families::name(block.family) == family) else {
                continue;
            };
            let asked = fields.ips.get(at).cloned();
            let address = match asked {
                None => {
                    match block.free(u32::from_le_bytes(random::bytes()), |a| taken.addresses.contains(a)) {
                        Some(address) => address,
                        None => {
                            errors.push(Error::internal(
                                &path,
                                "failed to allocate a serviceIP: range is full",
                            ));
                            return;
                        }
                    }
                }
                Some(asked) => {
                    let Ok(address) = asked.parse() else { continue };
                    if had.contains(&address) {
                        continue;
                    }
                    if let Some(why) = refusal(&asked, address, block, taken) {
                        let detail = format!("failed to allocate IP {asked}: {why}");
                        errors.push(Error::invalid(&path, json!(fields.ips), detail));
                        return;
                    }
                    address
                }
            };
            taken.addresses.insert(address);
            reserved.addresses.push(address);
            if at == fields.ips.len() {
                fields.ips.push(address.to_string());
            }
        }
        fields.ip = fields.ips.first().cloned().unwrap_or_default();
        fields.write(service);
    }
}

/// Why a Service cannot have the address it asks for.
fn refusal(asked: &str, address: IpAddr, block: &Block, taken: &Taken) -> Option<String> {
    if !block.contains(address) {
        let cidr = &block.cidr;
        return Some(format!(
            "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {cidr}"
        ));
    }
    taken.addresses.contains(&address).then(|| "provided IP is already allocated".to_owned())
}
