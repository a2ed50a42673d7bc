//! On random clusters: a node that is chosen has room, judged without the scheduler's own bookkeeping, and where none
//! is chosen none had.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[derive(Clone, Debug)]
struct Asked {
    cpu: u32,
    port: Option<(u16, bool, &'static str)>,
    disk: Option<&'static str>,
    tolerates: bool,
}

#[derive(Clone, Debug)]
struct Machine {
    cpu: u32,
    pods: u32,
    disk: &'static str,
    tainted: bool,
    cordoned: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let address = prop::sample::select(vec!["", "0.0.0.0", "10.0.0.1", "10.0.0.2"]);
    let port = prop::option::of((80..82u16, any::<bool>(), address));
    let disk = prop::option::of(prop::sample::select(vec!["ssd", "hdd"]));
    (0..6u32, port, disk, any::<bool>()).prop_map(|(cpu, port, disk, tolerates)| Asked {
        cpu,
        port,
        disk,
        tolerates,
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    let disk = prop::sample::select(vec!["ssd", "hdd"]);
    (0..12u32, 0..6u32, disk, any::<bool>(), 0..5u8).prop_map(|(cpu, pods, disk, tainted, cordoned)| {
        Machine { cpu, pods, disk, tainted, cordoned: cordoned == 0 }
    })
}

fn to_pod(number: usize, asked: &Asked) -> PodInfo {
    let ports: Vec<Value> = asked
        .port
        .iter()
        .map(|(port, udp, address)| {
            json!({ "containerPort": 1, "hostPort": port, "protocol": if *udp { "UDP" } else { "TCP" }, "hostIP": address })
        })
        .collect();
    let tolerations = if asked.tolerates { json!([{ "key": "k", "operator": "Exists" }]) } else { json!([]) };
    let mut spec = json!({ "tolerations": tolerations, "containers": [
        { "name": "c", "ports": ports, "resources": { "requests": { "cpu": format!("{}00m", asked.cpu) } } }] });
    if let Some(disk) = asked.disk {
        spec["nodeSelector"] = json!({ "disk": disk });
    }
    let meta = json!({ "namespace": "a", "name": format!("p{number}"), "uid": format!("u{number}") });
    PodInfo::from_api(&serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap())
}

/// From the words of the API alone.
fn has_room(machine: &Machine, there: &[&Asked], pod: &Asked) -> bool {
    let conflicts = |a: &Asked, b: &Asked| match (a.port, b.port) {
        (Some((p, udp, x)), Some((q, vdp, y))) => {
            let any = |address: &str| address.is_empty() || address == "0.0.0.0";
            p == q && udp == vdp && (any(x) || any(y) || x == y)
        }
        _ => false,
    };
    !machine.cordoned
        && (!machine.tainted || pod.tolerates)
        && pod.disk.is_none_or(|disk| disk == machine.disk)
        && there.len() < machine.pods as usize
        && (pod.cpu == 0 || there.iter().map(|other| other.cpu).sum::<u32>() + pod.cpu <= machine.cpu)
        && !there.iter().any(|other| conflicts(other, pod))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_chosen_node_has_room_and_where_none_is_chosen_none_has(
        machines in prop::collection::vec(machine(), 1..5),
        pods in prop::collection::vec((asked(), any::<bool>()), 1..25),
    ) {
        let mut cluster = Cluster::default();
        for (number, machine) in machines.iter().enumerate() {
            let taints = if machine.tainted { json!([{ "key": "k", "effect": "NoSchedule" }]) } else { json!([]) };
            cluster.upsert_node(&serde_json::from_value(json!({
                "metadata": { "name": format!("{number}"), "labels": { "disk": machine.disk } },
                "spec": { "taints": taints, "unschedulable": machine.cordoned },
                "status": { "allocatable": { "cpu": format!("{}00m", machine.cpu), "pods": machine.pods.to_string() } },
            })).unwrap());
        }
        let mut there: Vec<Vec<(usize, &Asked)>> = vec![Vec::new(); machines.len()];
        for (number, (asked, one_leaves)) in pods.iter().enumerate() {
            let on = |n: usize| there[n].iter().map(|(_, asked)| *asked).collect::<Vec<_>>();
            let fitting: Vec<usize> = (0..machines.len()).filter(|n| has_room(&machines[*n], &on(*n), asked)).collect();
            let mut pod = to_pod(number, asked);
            match schedule(&pod, &cluster) {
                Ok(name) => {
                    let chosen: usize = name.parse().unwrap();
                    prop_assert!(fitting.contains(&chosen), "{} of {:?}", chosen, fitting);
                    pod.node = Some(name);
                    cluster.put_pod(pod);
                    there[chosen].push((number, asked));
                }
                Err(error) => {
                    prop_assert!(fitting.is_empty(), "{:?}: {}", fitting, error);
                    prop_assert_eq!(error.refusals.len(), machines.len());
                    let message = error.to_string();
                    prop_assert!(message.starts_with(&format!("0/{} nodes are available: ", machines.len())), "{}", message);
                }
            }
            if *one_leaves && let Some((leaves, _)) = there.iter_mut().find_map(|pods| pods.pop()) {
                let was_there = cluster.remove_pod(&format!("u{leaves}"));
                prop_assert!(was_there);
            }
        }
    }
}
