//! Addresses and ports of Services. They are taken in memory before the object is written, and given back where it was not;
//! at start, what the stored Services have is taken.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    ApiError,
    field::{Error, ErrorList, Path},
    registry::Resource,
};
use serde_json::{Value, json};

use super::text;
use crate::{random, store::Store};

/// Where addresses and node ports come from.
#[derive(Clone, Debug)]
pub struct ServiceRanges {
    /// `10.96.0.0/16`
    pub cidr: String,
    pub node_ports: RangeInclusive<u16>,
}

impl ServiceRanges {
    /// Upstream's ports (`--service-node-port-range`) with addresses of `cidr`.
    pub fn with_cidr(cidr: impl Into<String>) -> ServiceRanges {
        ServiceRanges { cidr: cidr.into(), node_ports: 30000..=32767 }
    }

    /// The address of the Service `kubernetes`: the first of the range.
    ///
    /// # Errors
    /// A range that is none.
    pub fn first(&self) -> Result<Ipv4Addr, AllocatorError> {
        let (base, _) = self.parse()?;
        Ok(Ipv4Addr::from(base + 1))
    }

    /// The network's address and the number of addresses.
    fn parse(&self) -> Result<(u32, u32), AllocatorError> {
        let bad = || AllocatorError { cidr: self.cidr.clone() };
        let (address, bits) = self.cidr.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u32 = bits.parse().map_err(|_| bad())?;
        if !(8..=28).contains(&bits) {
            return Err(bad());
        }
        let size = 1u32 << (32 - bits);
        Ok((u32::from(address) & !(size - 1), size))
    }
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("service range {cidr}: not an IPv4 range with 4 to 24 bits for hosts, such as 10.96.0.0/16")]
pub struct AllocatorError {
    cidr: String,
}

#[derive(Debug, Default)]
struct Taken {
    addresses: HashSet<u32>,
    /// Node ports by protocol: TCP and UDP may share a number.
    ports: HashSet<(String, u16)>,
}

impl Taken {
    fn free(&mut self, addresses: &[u32], ports: &[(String, u16)]) {
        self.addresses.retain(|address| !addresses.contains(address));
        self.ports.retain(|port| !ports.contains(port));
    }
}

#[derive(Debug)]
pub struct Allocator {
    base: u32,
    size: u32,
    cidr: String,
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
    addresses: Vec<u32>,
    ports: Vec<(String, u16)>,
    /// What the old object had and the new one has not, to be given back when this is kept.
    freed_addresses: Vec<u32>,
    freed_ports: Vec<(String, u16)>,
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

/// What an update may leave out and keeps: the address and the node ports (`patchAllocatedValues`).
pub fn carry_over(resource: &Resource, new: &mut Value, old: &Value) {
    if !is_service(resource)
        || text(new, "/spec/type") == "ExternalName"
        || text(old, "/spec/type") == "ExternalName"
    {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let missing = match &new["spec"][field] {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if missing && !old["spec"][field].is_null() {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    if !wants_ports(new) || !wants_ports(old) {
        return;
    }
    let identity = |port: &Value| (text(port, "/protocol").to_owned(), port["port"].as_i64());
    let known: HashMap<_, _> = old["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| Some((identity(port), port["nodePort"].as_i64().filter(|n| *n > 0)?)))
        .collect();
    let asked: HashSet<i64> = new["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p["nodePort"].as_i64())
        .collect();
    for port in new["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or(0) == 0
            && let Some(number) = known.get(&identity(port)).filter(|number| !asked.contains(number))
        {
            port["nodePort"] = (*number).into();
        }
    }
}

fn wants_ports(service: &Value) -> bool {
    matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer")
}

fn address_of(service: &Value) -> Option<u32> {
    text(service, "/spec/clusterIP").parse::<Ipv4Addr>().ok().map(u32::from)
}

fn ports_of(service: &Value) -> Vec<(String, u16)> {
    service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| {
            let number = port["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)?;
            Some((text(port, "/protocol").to_owned(), number))
        })
        .collect()
}

impl Allocator {
    /// With everything taken that the Services in `store` have.
    ///
    /// # Errors
    /// A range that is none.
    pub fn new(ranges: &ServiceRanges, store: &Store) -> Result<Allocator, AllocatorError> {
        let (base, size) = ranges.parse()?;
        let mut taken = Taken::default();
        for object in store.list("/services/", None).map(|listed| listed.objects).unwrap_or_default() {
            let service = object.value();
            taken.addresses.extend(address_of(&service));
            taken.ports.extend(ports_of(&service));
        }
        let taken = Arc::new(Mutex::new(taken));
        Ok(Allocator { base, size, cidr: ranges.cidr.clone(), node_ports: ranges.node_ports.clone(), taken })
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
        let address: Vec<u32> = address_of(old).into_iter().collect();
        lock(&self.taken).free(&address, &ports_of(old));
    }

    fn settle(&self, service: &mut Value, old: Option<&Value>) -> Result<Reserved, ApiError> {
        let mut reserved = Reserved::default();
        reserved.taken = Some(self.taken.clone());
        let mut errors = ErrorList::new();
        let had_address = old.and_then(address_of);
        let had_ports = old.map(ports_of).unwrap_or_default();
        {
            let mut taken = lock(&self.taken);
            self.settle_address(service, had_address, &mut taken, &mut reserved, &mut errors);
            self.settle_ports(service, &had_ports, &mut taken, &mut reserved, &mut errors);
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid("", "Service", text(service, "/metadata/name"), &errors));
        }
        let (address, ports) = (address_of(service), ports_of(service));
        reserved.freed_addresses = had_address.into_iter().filter(|had| Some(*had) != address).collect();
        reserved.freed_ports = had_ports.into_iter().filter(|had| !ports.contains(had)).collect();
        Ok(reserved)
    }

    fn settle_address(
        &self,
        service: &mut Value,
        had: Option<u32>,
        taken: &mut Taken,
        reserved: &mut Reserved,
        errors: &mut ErrorList,
    ) {
        if text(service, "/spec/type") == "ExternalName" {
            if let Some(spec) = service["spec"].as_object_mut() {
                for field in ["clusterIP", "clusterIPs"] {
                    spec.remove(field);
                }
            }
            return;
        }
        if text(service, "/spec/clusterIP") == "None" {
            service["spec"]["clusterIPs"] = json!(["None"]);
            return;
        }
        let path = Path::new("spec").child("clusterIPs");
        let asked = text(service, "/spec/clusterIP").to_owned();
        let address = if asked.is_empty() {
            match self.free_address(taken) {
                Some(address) => address,
                None => {
                    errors.push(Error::internal(&path, "failed to allocate a serviceIP: range is full"));
                    return;
                }
            }
        } else {
            let Ok(address) = asked.parse::<Ipv4Addr>().map(u32::from) else { return };
            if had == Some(address) {
                return;
            }
            let why = if !(1..self.size - 1).contains(&address.wrapping_sub(self.base)) {
                Some(format!(
                    "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {}",
                    self.cidr
                ))
            } else if taken.addresses.contains(&address) {
                Some("provided IP is already allocated".to_owned())
            } else {
                None
            };
            if let Some(why) = why {
                let detail = format!("failed to allocate IP {asked}: {why}");
                errors.push(Error::invalid(&path, json!([asked]), detail));
                return;
            }
            address
        };
        taken.addresses.insert(address);
        reserved.addresses.push(address);
        let shown = Ipv4Addr::from(address).to_string();
        service["spec"]["clusterIPs"] = json!([shown]);
        service["spec"]["clusterIP"] = shown.into();
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
        service["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    }

    /// A random address from the upper part of the range first, as upstream, so that fixed ones are best taken below.
    fn free_address(&self, taken: &Taken) -> Option<u32> {
        let reserved = (self.size / 16).clamp(16, 256).min(self.size / 2);
        let find = |from: u32, to: u32| {
            let count = to.checked_sub(from).filter(|count| *count > 0)?;
            let start = u32::from_le_bytes(random::bytes()) % count;
            (0..count)
                .map(|at| self.base + from + (start + at) % count)
                .find(|a| !taken.addresses.contains(a))
        };
        find(reserved, self.size - 1).or_else(|| find(1, reserved))
    }

    fn settle_ports(
        &self,
        service: &mut Value,
        had: &[(String, u16)],
        taken: &mut Taken,
        reserved: &mut Reserved,
        errors: &mut ErrorList,
    ) {
        if !wants_ports(service) || service["spec"]["allocateLoadBalancerNodePorts"] == false {
            // Ports that the Service had as another type; ones it was never given are validation's to refuse.
            for port in
                service["spec"]["ports"].as_array_mut().into_iter().flatten().filter(|_| !had.is_empty())
            {
                if let Some(port) = port.as_object_mut() {
                    port.remove("nodePort");
                }
            }
            return;
        }
        let mut own: HashSet<(String, u16)> = HashSet::new();
        let mut list = service["spec"]["ports"].take();
        for (at, port) in list.as_array_mut().into_iter().flatten().enumerate() {
            let path = Path::new("spec").child("ports").index(at).child("nodePort");
            let protocol = text(port, "/protocol").to_owned();
            match port["nodePort"].as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) {
                Some(number) => {
                    let key = (protocol, number);
                    if had.contains(&key) || own.contains(&key) {
                        own.insert(key);
                        continue;
                    }
                    let why = if !self.node_ports.contains(&number) {
                        Some(format!(
                            "provided port is not in the valid range. The range of valid ports is {}-{}",
                            self.node_ports.start(),
                            self.node_ports.end()
                        ))
                    } else if taken.ports.contains(&key) {
                        Some("provided port is already allocated".to_owned())
                    } else {
                        None
                    };
                    if let Some(why) = why {
                        errors.push(Error::invalid(&path, number, why));
                        continue;
                    }
                    taken.ports.insert(key.clone());
                    reserved.ports.push(key.clone());
                    own.insert(key);
                }
                None => match self.free_port(taken, &protocol) {
                    Some(number) => {
                        let key = (protocol, number);
                        taken.ports.insert(key.clone());
                        reserved.ports.push(key);
                        port["nodePort"] = number.into();
                    }
                    None => {
                        errors.push(Error::internal(&path, "failed to allocate a nodePort: range is full"))
                    }
                },
            }
        }
        service["spec"]["ports"] = list;
    }

    fn free_port(&self, taken: &Taken, protocol: &str) -> Option<u16> {
        let (first, last) = (*self.node_ports.start(), *self.node_ports.end());
        let count = u32::from(last - first) + 1;
        let start = u32::from_le_bytes(random::bytes()) % count;
        (0..count)
            .map(|at| first + u16::try_from((start + at) % count).unwrap_or(0))
            .find(|number| !taken.ports.contains(&(protocol.to_owned(), *number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::Volatile;

    fn allocator() -> Allocator {
        let ranges = ServiceRanges { cidr: "10.96.0.0/24".into(), node_ports: 30000..=30002 };
        Allocator::new(&ranges, &Store::open(Volatile).unwrap()).unwrap()
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "s"}, "spec": spec})
    }

    fn services() -> &'static Resource {
        api::registry::by_plural("", "v1", "services").unwrap()
    }

    #[test]
    fn an_address_is_given_and_given_back() {
        let all = allocator();
        let mut seen = HashSet::new();
        for _ in 0..254 {
            let mut new = service(json!({"type": "ClusterIP"}));
            all.on_create(services(), &mut new).unwrap().keep();
            assert!(seen.insert(address_of(&new).unwrap()));
        }
        let full = all.on_create(services(), &mut service(json!({"type": "ClusterIP"}))).unwrap_err();
        assert!(full.message.contains("range is full"), "{}", full.message);
        all.on_delete(services(), &service(json!({"clusterIP": "10.96.0.7"})));
        let mut new = service(json!({"type": "ClusterIP"}));
        drop(all.on_create(services(), &mut new).unwrap());
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
        all.on_create(services(), &mut service(json!({"type": "ClusterIP"}))).unwrap().keep();
    }

    #[test]
    fn conflicts_are_worded_as_upstream_words_them() {
        let all = allocator();
        let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]});
        all.on_create(services(), &mut service(spec.clone())).unwrap().keep();
        let error = all.on_create(services(), &mut service(spec)).unwrap_err();
        assert_eq!(
            error.message,
            "Service \"s\" is invalid: [spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: \
             provided IP is already allocated, spec.ports[0].nodePort: Invalid value: 30001: provided port is already \
             allocated]"
        );
        let far = json!({"type": "NodePort", "clusterIP": "10.97.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 80}]});
        let error = all.on_create(services(), &mut service(far)).unwrap_err();
        assert!(error.message.contains("The range of valid IPs is 10.96.0.0/24"), "{}", error.message);
        assert!(error.message.contains("The range of valid ports is 30000-30002"), "{}", error.message);
    }

    #[test]
    fn a_change_of_type_takes_and_frees_ports() {
        let all = allocator();
        let mut old = service(json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}));
        all.on_create(services(), &mut old).unwrap().keep();
        let mut new = old.clone();
        new["spec"]["type"] = "NodePort".into();
        all.on_update(services(), &mut new, &old).unwrap().keep();
        let (address, port) = (address_of(&new), ports_of(&new));
        assert_eq!((address, port.len()), (address_of(&old), 1));

        let mut bare = new.clone();
        bare["spec"]["clusterIP"] = Value::Null;
        bare["spec"]["ports"][0]["nodePort"] = Value::Null;
        carry_over(services(), &mut bare, &new);
        assert_eq!((address_of(&bare), ports_of(&bare)), (address, port.clone()));

        let mut back = new.clone();
        back["spec"]["type"] = "ClusterIP".into();
        all.on_update(services(), &mut back, &new).unwrap().keep();
        assert!(ports_of(&back).is_empty());
        assert!(!lock(&all.taken).ports.contains(&port[0]));
    }
}
