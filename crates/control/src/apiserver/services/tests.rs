//! What Services get, keep and give back.

use super::*;
use crate::store::engine::Volatile;

fn allocator_of(cidrs: &[&str]) -> Allocator {
    let cidrs = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
    let ranges = ServiceRanges { cidrs, node_ports: 30000..=30002 };
    Allocator::new(&ranges, &Store::open(Volatile).unwrap()).unwrap()
}

fn allocator() -> Allocator {
    allocator_of(&["10.96.0.0/24"])
}

/// As a request does, without validation.
fn create(all: &Allocator, service: &mut Value) -> Result<Reserved, ApiError> {
    all.prepare(services(), service, None)?;
    all.on_create(services(), service)
}

fn update(all: &Allocator, new: &mut Value, old: &Value) -> Result<Reserved, ApiError> {
    all.prepare(services(), new, Some(old))?;
    all.on_update(services(), new, old)
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
        create(&all, &mut new).unwrap().keep();
        assert!(seen.insert(addresses_of(&new)[0]));
    }
    let full = create(&all, &mut service(json!({"type": "ClusterIP"}))).unwrap_err();
    assert!(full.message.contains("range is full"), "{}", full.message);
    all.on_delete(services(), &service(json!({"clusterIP": "10.96.0.7"})));
    let mut new = service(json!({"type": "ClusterIP"}));
    drop(create(&all, &mut new).unwrap());
    assert_eq!(new["spec"]["clusterIP"], "10.96.0.7");
    create(&all, &mut service(json!({"type": "ClusterIP"}))).unwrap().keep();
}

#[test]
fn conflicts_are_worded_as_upstream_words_them() {
    let all = allocator();
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]});
    create(&all, &mut service(spec.clone())).unwrap().keep();
    let error = create(&all, &mut service(spec)).unwrap_err();
    assert_eq!(
        error.message,
        "Service \"s\" is invalid: [spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: \
         provided IP is already allocated, spec.ports[0].nodePort: Invalid value: 30001: provided port is already \
         allocated]"
    );
    let far = json!({"type": "NodePort", "clusterIP": "10.97.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 80}]});
    let error = create(&all, &mut service(far)).unwrap_err();
    assert!(error.message.contains("The range of valid IPs is 10.96.0.0/24"), "{}", error.message);
    assert!(error.message.contains("The range of valid ports is 30000-30002"), "{}", error.message);
}

#[test]
fn a_change_of_type_takes_and_frees_ports() {
    let all = allocator();
    let mut old = service(json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}));
    create(&all, &mut old).unwrap().keep();
    let mut new = old.clone();
    new["spec"]["type"] = "NodePort".into();
    update(&all, &mut new, &old).unwrap().keep();
    let (address, port) = (addresses_of(&new), ports_of(&new));
    assert_eq!((address.clone(), port.len()), (addresses_of(&old), 1));

    let mut bare = new.clone();
    bare["spec"]["clusterIP"] = Value::Null;
    bare["spec"]["ports"][0]["nodePort"] = Value::Null;
    all.prepare(services(), &mut bare, Some(&new)).unwrap();
    assert_eq!((addresses_of(&bare), ports_of(&bare)), (address, port.clone()));

    let mut back = new.clone();
    back["spec"]["type"] = "ClusterIP".into();
    update(&all, &mut back, &new).unwrap().keep();
    assert!(ports_of(&back).is_empty());
    assert!(!lock(&all.taken).ports.contains(&port[0]));
}

#[test]
fn a_node_port_is_one_services_for_all_protocols_and_one_ports_in_both() {
    let all = allocator();
    let dns = |node_port: u16| json!([{"port": 53, "protocol": "UDP", "nodePort": node_port}, {"port": 53, "protocol": "TCP"}]);
    let mut new = service(json!({"type": "NodePort", "ports": dns(30001)}));
    create(&all, &mut new).unwrap().keep();
    assert_eq!(new["spec"]["ports"][1]["nodePort"], 30001);
    let other = json!([{"port": 80, "protocol": "SCTP", "nodePort": 30001}]);
    let error = create(&all, &mut service(json!({"type": "NodePort", "ports": other}))).unwrap_err();
    assert!(error.message.contains("provided port is already allocated"), "{}", error.message);
}

#[test]
fn a_load_balancer_has_node_ports_unless_it_wants_none_and_a_health_check_under_local() {
    let all = allocator();
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports});
    let mut new = service(local);
    create(&all, &mut new).unwrap().keep();
    assert_eq!(ports_of(&new).len(), 2, "{new}");
    let mut bare = new.clone();
    bare["spec"]["healthCheckNodePort"] = Value::Null;
    all.prepare(services(), &mut bare, Some(&new)).unwrap();
    assert_eq!(ports_of(&bare), ports_of(&new));
    let mut cluster = new.clone();
    cluster["spec"]["externalTrafficPolicy"] = "Cluster".into();
    update(&all, &mut cluster, &new).unwrap().keep();
    assert!(cluster["spec"].get("healthCheckNodePort").is_none(), "{cluster}");
    assert_eq!(lock(&all.taken).ports.len(), 1);
    let none = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports});
    let mut none = service(none);
    create(&all, &mut none).unwrap().keep();
    assert!(ports_of(&none).is_empty());
}

#[test]
fn what_is_not_kept_is_given_back_and_what_is_stored_is_taken() {
    let all = allocator();
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]});
    // As a dry run does.
    drop(create(&all, &mut service(spec.clone())).unwrap());
    let mut old = service(spec);
    create(&all, &mut old).unwrap().keep();
    let mut external = old.clone();
    external["spec"]["type"] = "ExternalName".into();
    update(&all, &mut external, &old).unwrap().keep();
    let taken = lock(&all.taken);
    assert!(taken.addresses.is_empty() && taken.ports.is_empty(), "{taken:?}");
    assert!(external["spec"].get("clusterIP").is_none());
}

/// What a Service has after that, in short: policy, families, and of which ranges its addresses are.
fn shown(service: &Value) -> String {
    let fields = Fields::of(service);
    let ips: Vec<&str> = fields
        .ips
        .iter()
        .map(|ip| match ip.as_str() {
            ip if ip.starts_with("10.96.0.") => "4",
            ip if ip.starts_with("fd00:96::") => "6",
            ip => ip,
        })
        .collect();
    assert_eq!(fields.ips.first().map(String::as_str).unwrap_or_default(), fields.ip, "{service}");
    let policy = fields.policy.unwrap_or_default();
    format!("{policy} {} {}", fields.families.join(","), ips.join(",")).trim_end().to_owned()
}

#[test]
fn families_on_a_cluster_of_one_and_of_both() {
    let v4 = ["10.96.0.0/24"].as_slice();
    let dual = &["10.96.0.0/24", "fd00:96::/112"];
    let v6_first = &["fd00:96::/112", "10.96.0.0/24"];
    let app = json!({"app": "web"});
    let single = "SingleStack IPv4 4";
    let both = "RequireDualStack IPv4,IPv6 4,6";
    let cases: &[(&[&str], Value, Result<&str, &str>)] = &[
        (v4, json!({}), Ok(single)),
        (dual, json!({}), Ok(single)),
        (v6_first, json!({}), Ok("SingleStack IPv6 6")),
        (dual, json!({"ipFamilies": ["IPv6"]}), Ok("SingleStack IPv6 6")),
        (dual, json!({"clusterIP": "fd00:96::9"}), Ok("SingleStack IPv6 6")),
        (dual, json!({"ipFamilyPolicy": "RequireDualStack"}), Ok(both)),
        (
            dual,
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            Ok("RequireDualStack IPv6,IPv4 6,4"),
        ),
        (
            dual,
            json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "fd00:96::9", "clusterIPs": ["fd00:96::9", "10.96.0.9"]}),
            Ok("PreferDualStack IPv6,IPv4 6,4"),
        ),
        (dual, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv4,IPv6 4,6")),
        (v4, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok("PreferDualStack IPv4 4")),
        (
            v4,
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            Err(
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
        ),
        (
            v4,
            json!({"ipFamilies": ["IPv6"]}),
            Err("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
        ),
        (
            v4,
            json!({"clusterIP": "fd00:96::9"}),
            Err(
                "spec.clusterIPs[0]: Invalid value: [\"fd00:96::9\"]: IPv6 is not configured on this cluster",
            ),
        ),
        (
            dual,
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            Err(
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
                 multiple IP families are specified",
            ),
        ),
        (
            dual,
            json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"]}),
            Err(
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
                 multiple cluster IPs are specified",
            ),
        ),
        (
            dual,
            json!({"clusterIP": "10.96.0.9", "ipFamilies": ["IPv6"]}),
            Err(
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.9\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ),
        ),
        (
            dual,
            json!({"clusterIP": "fd00:97::9"}),
            Err(
                "spec.clusterIPs: Invalid value: [\"fd00:97::9\"]: failed to allocate IP fd00:97::9: the provided IP \
                 (fd00:97::9) is not in the valid range. The range of valid IPs is fd00:96::/112",
            ),
        ),
        (
            dual,
            json!({"clusterIP": "fd00:96::"}),
            Err(
                "spec.clusterIPs: Invalid value: [\"fd00:96::\"]: failed to allocate IP fd00:96::: the provided IP (fd00:96::) \
                 is not in the valid range. The range of valid IPs is fd00:96::/112",
            ),
        ),
        // Headless, with pods of its own: the cluster's families. Without: whoever writes the endpoints knows.
        (dual, json!({"clusterIP": "None", "selector": app}), Ok("SingleStack IPv4 None")),
        (
            dual,
            json!({"clusterIP": "None", "selector": app, "ipFamilyPolicy": "PreferDualStack"}),
            Ok("PreferDualStack IPv4,IPv6 None"),
        ),
        (
            v4,
            json!({"clusterIP": "None", "selector": app, "ipFamilies": ["IPv6"]}),
            Err("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"),
        ),
        (v4, json!({"clusterIP": "None"}), Ok("RequireDualStack IPv4,IPv6 None")),
        (
            v4,
            json!({"clusterIP": "None", "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}),
            Ok("SingleStack IPv6 None"),
        ),
        (dual, json!({"type": "ExternalName"}), Ok("")),
    ];
    for (cidrs, spec, expected) in cases {
        let all = allocator_of(cidrs);
        let mut new = service(json!({"type": "ClusterIP", "selector": {"app": "web"}}));
        if spec["clusterIP"] == "None" {
            new["spec"]["selector"] = json!({});
        }
        for (field, value) in spec.as_object().into_iter().flatten() {
            new["spec"][field] = value.clone();
        }
        let made = create(&all, &mut new).map(Reserved::keep).map_err(|error| error.message);
        match (made, expected) {
            (Ok(()), Ok(expected)) => assert_eq!(shown(&new), *expected, "{cidrs:?} {spec}"),
            (Err(message), Err(expected)) => {
                assert_eq!(message, format!("Service \"s\" is invalid: {expected}"), "{cidrs:?} {spec}");
                assert!(lock(&all.taken).addresses.is_empty(), "what was taken went back");
            }
            (made, _) => panic!("{cidrs:?} {spec}: {made:?} instead of {expected:?}: {new}"),
        }
    }
}

/// A Service, what a client sends then (in full, or as a patch of it does), and what becomes of it.
#[test]
fn a_second_family_comes_and_goes_with_the_policy() {
    enum Sent {
        /// The object as it was, with this merged in.
        Patch(Value),
        /// The manifest with this, and nothing that the server gave.
        Put(Value),
    }
    use Sent::{Patch, Put};
    let single = || json!({});
    let dual = || json!({"ipFamilyPolicy": "RequireDualStack"});
    let reduced = |what: &str| {
        format!(
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release the secondary {what}"
        )
    };
    let cases = [
        (single(), Patch(dual()), Ok("RequireDualStack IPv4,IPv6 4,6")),
        (single(), Put(dual()), Ok("RequireDualStack IPv4,IPv6 4,6")),
        (
            single(),
            Patch(json!({"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["10.96.0.9", "fd00:96::77"]})),
            Ok("PreferDualStack IPv4,IPv6 4,6"),
        ),
        (dual(), Put(single()), Ok("RequireDualStack IPv4,IPv6 4,6")),
        (dual(), Put(json!({"clusterIP": "10.96.0.9"})), Ok("RequireDualStack IPv4,IPv6 4,6")),
        (dual(), Patch(json!({"ipFamilyPolicy": "PreferDualStack"})), Ok("PreferDualStack IPv4,IPv6 4,6")),
        (dual(), Patch(json!({"ipFamilyPolicy": "SingleStack"})), Ok("SingleStack IPv4 4")),
        (dual(), Put(json!({"ipFamilyPolicy": "SingleStack"})), Ok("SingleStack IPv4 4")),
        (dual(), Patch(json!({"clusterIPs": ["10.96.0.9"]})), Err(reduced("cluster IP"))),
        (dual(), Patch(json!({"ipFamilies": ["IPv4"]})), Err(reduced("IP family"))),
        (dual(), Patch(json!({"type": "ExternalName"})), Ok("")),
        (json!({"type": "ExternalName"}), Put(dual()), Ok("RequireDualStack IPv4,IPv6 4,6")),
    ];
    for (before, sent, expected) in cases {
        let all = allocator_of(&["10.96.0.0/24", "fd00:96::/112"]);
        let manifest = |more: &Value| {
            let mut new = service(json!({"type": "ClusterIP", "selector": {"app": "web"}}));
            for (field, value) in more.as_object().into_iter().flatten() {
                new["spec"][field] = value.clone();
            }
            new
        };
        let mut old = manifest(&before);
        if before["type"].is_null() {
            old["spec"]["clusterIP"] = "10.96.0.9".into();
        }
        create(&all, &mut old).unwrap().keep();
        let (mut new, what) = match &sent {
            Put(more) => (manifest(more), more),
            Patch(more) => {
                let mut new = old.clone();
                for (field, value) in more.as_object().into_iter().flatten() {
                    new["spec"][field] = value.clone();
                }
                (new, more)
            }
        };
        let made = update(&all, &mut new, &old).map(Reserved::keep).map_err(|error| error.message);
        match (made, expected) {
            (Ok(()), Ok(expected)) => {
                assert_eq!(shown(&new), expected, "{before} and then {what}");
                assert_eq!(
                    lock(&all.taken).addresses,
                    addresses_of(&new).into_iter().collect(),
                    "{before} and then {what}"
                );
                let errors = api::validation::validate_update(services(), &complete(&new), &complete(&old));
                assert!(errors.is_empty(), "{before} and then {what}: {errors:?}");
            }
            (Err(message), Err(expected)) => {
                assert_eq!(
                    message,
                    format!("Service \"s\" is invalid: {expected}"),
                    "{before} and then {what}"
                );
            }
            (made, expected) => panic!("{before} and then {what}: {made:?} instead of {expected:?}: {new}"),
        }
    }
}

/// With what these tests leave out.
fn complete(service: &Value) -> Value {
    let mut service = service.clone();
    service["metadata"] = json!({"name": "s", "namespace": "default", "resourceVersion": "1"});
    service["spec"]["ports"] = json!([{"port": 80}]);
    if service["spec"]["type"] == "ExternalName" {
        service["spec"]["externalName"] = "a.example".into();
    }
    api::defaults::apply(services(), &mut service);
    service
}

#[test]
fn an_ipv6_range_gives_its_last_address_too_and_never_its_first() {
    let all = allocator_of(&["fd00:96::/124"]);
    let mut seen = HashSet::new();
    while let Ok(reserved) = create(&all, &mut service(json!({"type": "ClusterIP"}))) {
        seen.extend(reserved.addresses.iter().copied());
        reserved.keep();
    }
    let expected: HashSet<IpAddr> = (1..16).map(|n| format!("fd00:96::{n:x}").parse().unwrap()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn ranges_are_one_or_one_of_each_family() {
    for (cidrs, good) in [
        ("10.96.0.0/16", true),
        ("10.96.0.0/16,fd00:96::/112", true),
        ("fd00:96::/108", true),
        ("fd00:96::/107", false),
        ("10.96.0.0/29", false),
        ("10.96.0.0/16,10.97.0.0/16", false),
        ("fd00:96::/112,fd00:97::/112", false),
        ("10.96.0.0", false),
    ] {
        let ranges = ServiceRanges::with_cidrs(cidrs.split(',').map(str::to_owned));
        assert_eq!(ranges.first().is_ok(), good, "{cidrs}: {:?}", ranges.first());
    }
}
