//! From the slices that are there to those that are wanted, with the fewest writes: an endpoint stays in its slice, new
//! ones go where there is room in a slice that is written anyway, then where all of them fit, then into new slices
//! (`reconcileByPortMapping` of `staging/src/k8s.io/endpointslice/reconciler.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::LAST_CHANGE;

/// Endpoints of one family with the same ports.
#[derive(Clone, Debug)]
pub struct Group {
    pub family: String,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// What all slices of a Service have in common.
pub struct Shape {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner: OwnerReference,
    pub namespace: String,
    /// Of the Service: slices are named after it.
    pub name: String,
    /// Endpoints in one slice.
    pub most: usize,
    /// When what leads to this plan happened, as RFC 3339 has it.
    pub changed: Option<String>,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    /// By name.
    pub delete: Vec<String>,
}

/// A slice while it is looked at.
struct Draft {
    slice: EndpointSlice,
    changed: bool,
}

pub fn plan(have: &[Arc<EndpointSlice>], wanted: Vec<Group>, shape: &Shape) -> Plan {
    let mut plan = Plan::default();
    let mut rest: Vec<&Arc<EndpointSlice>> =
        have.iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect();
    for group in wanted {
        let same = |slice: &&Arc<EndpointSlice>| {
            slice.address_type == group.family
                && ports_key(slice.ports.as_deref()) == ports_key(Some(&group.ports))
        };
        let (mine, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(same);
        rest = others;
        plan_group(&mine, group, shape, &mut plan);
    }
    plan.delete.extend(rest.into_iter().filter_map(|slice| slice.metadata.name.clone()));
    plan
}

fn ports_key(ports: Option<&[EndpointPort]>) -> Vec<(String, String, Option<i32>, Option<String>)> {
    let key = |port: &EndpointPort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_string());
        (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
    };
    let mut keys: Vec<_> = ports.unwrap_or_default().iter().map(key).collect();
    keys.sort();
    keys
}

/// The same endpoint, whatever its conditions.
fn identity(endpoint: &Endpoint) -> (Option<&String>, Option<&str>) {
    (endpoint.addresses.first(), endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()))
}

fn plan_group(mine: &[&Arc<EndpointSlice>], group: Group, shape: &Shape, plan: &mut Plan) {
    let is_empty = group.endpoints.is_empty();
    let mut wanted: BTreeMap<_, Endpoint> = group
        .endpoints
        .into_iter()
        .map(|endpoint| {
            let (address, uid) = identity(&endpoint);
            ((address.cloned(), uid.map(str::to_string)), endpoint)
        })
        .collect();
    let mut drafts: Vec<Draft> = Vec::new();
    for slice in mine {
        let mut kept = Vec::new();
        let mut changed = !is_labelled(slice, shape);
        for endpoint in &slice.endpoints {
            let (address, uid) = identity(endpoint);
            match wanted.remove(&(address.cloned(), uid.map(str::to_string))) {
                Some(now) => {
                    changed |= now != *endpoint;
                    kept.push(now);
                }
                None => changed = true,
            }
        }
        drafts.push(Draft { slice: EndpointSlice { endpoints: kept, ..(***slice).clone() }, changed });
    }
    let mut new: Vec<Endpoint> = wanted.into_values().collect();
    // The fullest of those that are written anyway first.
    let mut order: Vec<usize> = (0..drafts.len())
        .filter(|at| drafts[*at].changed && !drafts[*at].slice.endpoints.is_empty())
        .collect();
    order.sort_by_key(|at| std::cmp::Reverse(drafts[*at].slice.endpoints.len()));
    // Then those that became empty, rather than deleting them and making others.
    order
        .extend((0..drafts.len()).filter(|at| drafts[*at].changed && drafts[*at].slice.endpoints.is_empty()));
    for at in order {
        fill(&mut drafts[at], &mut new, shape.most);
    }
    // A single one that has room for all that is left; the fullest, so that slices stay few.
    let fits = |draft: &&mut Draft| draft.slice.endpoints.len() + new.len() <= shape.most;
    if !new.is_empty()
        && let Some(draft) = drafts.iter_mut().filter(fits).max_by_key(|draft| draft.slice.endpoints.len())
    {
        fill(draft, &mut new, shape.most);
    }
    while !new.is_empty() {
        let chunk: Vec<Endpoint> = new.drain(..new.len().min(shape.most)).collect();
        plan.create.push(new_slice(&group.family, &group.ports, chunk, shape));
    }
    // One slice stays to say that there are no endpoints.
    let mut placeholder = is_empty;
    for Draft { mut slice, changed } in drafts {
        if slice.endpoints.is_empty() && !std::mem::take(&mut placeholder) {
            plan.delete.extend(slice.metadata.name);
        } else if changed {
            dress(&mut slice.metadata, shape);
            plan.update.push(slice);
        }
    }
    if placeholder {
        plan.create.push(new_slice(&group.family, &group.ports, Vec::new(), shape));
    }
}

fn fill(draft: &mut Draft, new: &mut Vec<Endpoint>, most: usize) {
    let room = most.saturating_sub(draft.slice.endpoints.len()).min(new.len());
    if room > 0 {
        draft.slice.endpoints.extend(new.drain(..room));
        draft.changed = true;
    }
}

fn new_slice(family: &str, ports: &[EndpointPort], endpoints: Vec<Endpoint>, shape: &Shape) -> EndpointSlice {
    let mut metadata = ObjectMeta {
        generate_name: Some(format!("{}-", shape.name)),
        namespace: Some(shape.namespace.clone()),
        ..ObjectMeta::default()
    };
    dress(&mut metadata, shape);
    EndpointSlice { metadata, address_type: family.to_string(), endpoints, ports: Some(ports.to_vec()) }
}

fn dress(metadata: &mut ObjectMeta, shape: &Shape) {
    metadata.labels = Some(shape.labels.clone());
    metadata.owner_references = Some(vec![shape.owner.clone()]);
    let mut annotations = shape.annotations.clone();
    // Who measures how long a change takes must not take an old time for this change's.
    if let Some(changed) = &shape.changed {
        annotations.insert(LAST_CHANGE.to_string(), changed.clone());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
}

fn is_labelled(slice: &EndpointSlice, shape: &Shape) -> bool {
    let meta = &slice.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_CHANGE);
    meta.labels.as_ref() == Some(&shape.labels)
        && annotations == shape.annotations
        && meta.owner_references.as_deref() == Some(std::slice::from_ref(&shape.owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            labels: BTreeMap::from([("a".to_string(), "b".to_string())]),
            annotations: BTreeMap::new(),
            owner: OwnerReference { uid: "s".into(), ..OwnerReference::default() },
            namespace: "foo".into(),
            name: "web".into(),
            most: 4,
            changed: Some("2026-01-01T00:00:00Z".into()),
        }
    }

    fn endpoint(host: usize) -> Endpoint {
        Endpoint { addresses: vec![format!("10.0.0.{host:03}")], ..Endpoint::default() }
    }

    fn group(hosts: &[usize]) -> Group {
        let port = EndpointPort { port: Some(80), ..EndpointPort::default() };
        Group {
            family: "IPv4".into(),
            ports: vec![port],
            endpoints: hosts.iter().map(|h| endpoint(*h)).collect(),
        }
    }

    fn slice(name: &str, hosts: &[usize]) -> Arc<EndpointSlice> {
        let mut slice =
            new_slice("IPv4", &group(&[]).ports, hosts.iter().map(|h| endpoint(*h)).collect(), &shape());
        slice.metadata.name = Some(name.into());
        Arc::new(slice)
    }

    /// (slices, wanted hosts) → "create 2, update b: 1 2, delete c".
    fn told(have: &[Arc<EndpointSlice>], hosts: &[usize]) -> String {
        let plan = plan(have, vec![group(hosts)], &shape());
        let hosts = |slice: &EndpointSlice| {
            let hosts: Vec<_> =
                slice.endpoints.iter().map(|e| e.addresses[0][8..].trim_start_matches('0')).collect();
            hosts.join(" ")
        };
        let mut lines: Vec<String> = plan.create.iter().map(|s| format!("create {}", hosts(s))).collect();
        let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap();
        lines.extend(plan.update.iter().map(|s| format!("update {}: {}", name(s), hosts(s))));
        lines.extend(plan.delete.iter().map(|name| format!("delete {name}")));
        lines.join(", ")
    }

    #[test]
    fn slices_change_as_little_as_can_be() {
        type Case = (Vec<Arc<EndpointSlice>>, &'static [usize], &'static str);
        let cases: [Case; 10] = [
            (vec![], &[1, 2], "create 1 2"),
            (vec![], &[1, 2, 3, 4, 5], "create 1 2 3 4, create 5"),
            (vec![], &[], "create "),
            (vec![slice("a", &[])], &[], ""),
            (vec![slice("a", &[1, 2])], &[1, 2], ""),
            // Room where there is a change already, else where all fit, else a new slice.
            (vec![slice("a", &[1, 2, 3]), slice("b", &[4])], &[2, 3, 4, 5], "update a: 2 3 5"),
            (vec![slice("a", &[1, 2, 3]), slice("b", &[4])], &[1, 2, 3, 4, 5], "update a: 1 2 3 5"),
            (vec![slice("a", &[1, 2, 3]), slice("b", &[4, 5, 6])], &[1, 2, 3, 4, 5, 6, 7, 8], "create 7 8"),
            // What has nothing left goes, but one stays to say so.
            (vec![slice("a", &[1]), slice("b", &[2])], &[2], "delete a"),
            (vec![slice("a", &[1]), slice("b", &[2])], &[], "update a: , delete b"),
        ];
        for (have, wanted, expected) in cases {
            assert_eq!(told(&have, wanted), expected, "{wanted:?}");
        }
    }

    #[test]
    fn other_ports_are_other_slices_and_other_labels_a_write() {
        let have = [slice("a", &[1])];
        let mut other = group(&[1]);
        other.ports[0].port = Some(81);
        let plan = super::plan(&have, vec![other], &shape());
        assert_eq!((plan.create.len(), plan.delete), (1, vec!["a".to_string()]));
        let mut labelled = shape();
        labelled.labels.insert("c".into(), "d".into());
        let plan = super::plan(&have, vec![group(&[1])], &labelled);
        assert_eq!(plan.update[0].metadata.labels, Some(labelled.labels));
    }

    #[test]
    fn a_pod_that_takes_over_an_address_is_another_endpoint() {
        let mut wanted = group(&[1]);
        wanted.endpoints[0].target_ref = Some(k8s_openapi::api::core::v1::ObjectReference {
            uid: Some("new".into()),
            ..Default::default()
        });
        let plan = super::plan(&[slice("a", &[1])], vec![wanted], &shape());
        assert_eq!((plan.update.len(), plan.create.len(), plan.delete.len()), (1, 0, 0));
        assert_eq!(plan.update[0].endpoints.len(), 1);
    }
}
