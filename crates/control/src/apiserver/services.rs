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
    /// Node ports: a number is one Service's for all protocols.
    ports: HashSet<u16>,
}

impl Taken {
    fn free(&mut self, addresses: &[u32], ports: &[u16]) {
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
    ports: Vec<u16>,
    /// What the old object had and the new one has not, to be given back when this is kept.
    freed_addresses: Vec<u32>,
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
    if wants_health_check(new)
        && wants_health_check(old)
        && node_port(&new["spec"]["healthCheckNodePort"]).is_none()
    {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
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
        had: &[u16],
        taken: &mut Taken,
        reserved: &mut Reserved,
        errors: &mut ErrorList,
    ) {
        let list = service["spec"]["ports"].take();
        if wants_ports(service) {
            let allocate = service["spec"]["allocateLoadBalancerNodePorts"] != false;
            service["spec"]["ports"] = self.settle_list(list, allocate, had, taken, reserved, errors);
        } else {
            let mut list = list;
            // Ports that the Service had as another type; ones it was never given are validation's to refuse.
            for port in list.as_array_mut().into_iter().flatten().filter(|_| !had.is_empty()) {
                if let Some(port) = port.as_object_mut() {
                    port.remove("nodePort");
                }
            }
            service["spec"]["ports"] = list;
        }
        if service["spec"]["ports"].is_null()
            && let Some(spec) = service["spec"].as_object_mut()
        {
            spec.remove("ports");
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
            _ if !wants_health_check(service) => {
                // One that the Service had under another policy; one it was never given is validation's to refuse.
                if asked.is_some_and(|asked| had.contains(&asked))
                    && let Some(spec) = service["spec"].as_object_mut()
                {
                    spec.remove("healthCheckNodePort");
                }
            }
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

    #[test]
    fn a_node_port_is_one_services_for_all_protocols_and_one_ports_in_both() {
        let all = allocator();
        let dns = |node_port: u16| json!([{"port": 53, "protocol": "UDP", "nodePort": node_port}, {"port": 53, "protocol": "TCP"}]);
        let mut new = service(json!({"type": "NodePort", "ports": dns(30001)}));
        all.on_create(services(), &mut new).unwrap().keep();
        assert_eq!(new["spec"]["ports"][1]["nodePort"], 30001);
        let other = json!([{"port": 80, "protocol": "SCTP", "nodePort": 30001}]);
        let error =
            all.on_create(services(), &mut service(json!({"type": "NodePort", "ports": other}))).unwrap_err();
        assert!(error.message.contains("provided port is already allocated"), "{}", error.message);
    }

    #[test]
    fn a_load_balancer_has_node_ports_unless_it_wants_none_and_a_health_check_under_local() {
        let all = allocator();
        let ports = json!([{"port": 80, "protocol": "TCP"}]);
        let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports});
        let mut new = service(local);
        all.on_create(services(), &mut new).unwrap().keep();
        assert_eq!(ports_of(&new).len(), 2, "{new}");
        let mut bare = new.clone();
        bare["spec"]["healthCheckNodePort"] = Value::Null;
        carry_over(services(), &mut bare, &new);
        assert_eq!(ports_of(&bare), ports_of(&new));
        let mut cluster = new.clone();
        cluster["spec"]["externalTrafficPolicy"] = "Cluster".into();
        all.on_update(services(), &mut cluster, &new).unwrap().keep();
        assert!(cluster["spec"].get("healthCheckNodePort").is_none(), "{cluster}");
        assert_eq!(lock(&all.taken).ports.len(), 1);
        let none = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports});
        let mut none = service(none);
        all.on_create(services(), &mut none).unwrap().keep();
        assert!(ports_of(&none).is_empty());
    }

    #[test]
    fn what_is_not_kept_is_given_back_and_what_is_stored_is_taken() {
        let all = allocator();
        let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]});
        // As a dry run does.
        drop(all.on_create(services(), &mut service(spec.clone())).unwrap());
        let mut old = service(spec);
        all.on_create(services(), &mut old).unwrap().keep();
        let mut external = old.clone();
        external["spec"]["type"] = "ExternalName".into();
        all.on_update(services(), &mut external, &old).unwrap().keep();
        let taken = lock(&all.taken);
        assert!(taken.addresses.is_empty() && taken.ports.is_empty(), "{taken:?}");
        assert!(external["spec"].get("clusterIP").is_none());
    }
}
