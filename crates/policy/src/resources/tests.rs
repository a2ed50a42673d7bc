use serde_json::json;

use super::*;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

#[test]
fn the_qos_class_follows_requests_and_limits_of_all_containers() {
    let full = json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1", "memory": "64Mi"}});
    let limits = json!({"limits": {"cpu": "1", "memory": "64Mi"}});
    let less = json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "500m"}});
    let request = json!({"requests": {"cpu": "100m"}});
    let half = json!({"limits": {"memory": "64Mi"}});
    let other = json!({"limits": {"ephemeral-storage": "1Gi"}});
    let zero = json!({"limits": {"cpu": "0", "memory": "0"}});
    for (resources, class) in [
        (vec![json!({})], QosClass::BestEffort),
        (vec![full.clone()], QosClass::Guaranteed),
        (vec![limits.clone(), full.clone()], QosClass::Guaranteed),
        (vec![full.clone(), json!({})], QosClass::Burstable),
        (vec![less], QosClass::Burstable),
        (vec![request], QosClass::Burstable),
        (vec![half], QosClass::Burstable),
        (vec![other], QosClass::BestEffort),
        (vec![zero], QosClass::BestEffort),
    ] {
        let containers: Vec<_> = resources
            .iter()
            .enumerate()
            .map(|(i, r)| json!({"name": format!("c{i}"), "image": "x", "resources": r}))
            .collect();
        assert_eq!(qos_class(&pod(json!({"containers": containers}))), class, "{resources:?}");
        if containers.len() == 2 {
            let split = json!({"initContainers": [containers[0]], "containers": [containers[1]]});
            assert_eq!(qos_class(&pod(split)), class, "as init container: {resources:?}");
        }
    }
    let own = json!({"resources": full, "containers": [{"name": "c", "image": "x"}]});
    assert_eq!(qos_class(&pod(own)), QosClass::Guaranteed);
}

#[test]
fn shares_and_quota_stay_within_the_kernels_bounds() {
    for (milli, shares, quota) in [
        (0, 2, None),
        (1, 2, Some(1000)),
        (10, 10, Some(1000)),
        (100, 102, Some(10_000)),
        (250, 256, Some(25_000)),
        (1000, 1024, Some(100_000)),
        (1500, 1536, Some(150_000)),
        (1_000_000, 262_144, Some(100_000_000)),
    ] {
        assert_eq!((cpu_shares(milli), cpu_quota(milli)), (shares, quota), "{milli}m");
    }
}

#[test]
fn oom_score_adj_follows_the_class_and_the_share_of_memory() {
    let capacity = 8_000_000_000;
    for (resources, priority, expected) in [
        (json!({}), "", 1000),
        (json!({"limits": {"cpu": "1", "memory": "1G"}}), "", -997),
        (json!({"requests": {"cpu": "1"}}), "", 999),
        (json!({"requests": {"memory": "4M"}}), "", 999),
        (json!({"requests": {"memory": "800M"}}), "", 900),
        (json!({"requests": {"memory": "4G"}}), "", 500),
        (json!({"requests": {"memory": "8G"}}), "", 3),
        (json!({"requests": {"memory": "80G"}}), "", 3),
        (json!({}), "system-node-critical", -997),
    ] {
        let pod = pod(
            json!({"priorityClassName": priority, "containers": [{"name": "c", "resources": resources}]}),
        );
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(oom_score_adj(&pod, container, capacity), expected, "{resources}");
    }
}
