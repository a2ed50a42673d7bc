use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, deployment, eventually, from, pod};

async fn replica_sets(cluster: &Cluster) -> Vec<(String, i32)> {
    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    let mut sets: Vec<_> = sets
        .iter()
        .map(|set| {
            let revision = set.annotations()["deployment.kubernetes.io/revision"].clone();
            (revision, set.spec.as_ref().unwrap().replicas.unwrap())
        })
        .collect();
    sets.sort();
    sets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_out_rolls_back_and_scales() {
    let cluster = Cluster::start(&["node-1", "node-2"]).await;
    cluster.create::<Deployment>(deployment("web", 3)).await;
    cluster.rolled_out("web").await;
    let image = |image: &str| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } });

    cluster.patch::<Deployment>("web", image("two")).await;
    let rolled = cluster.rolled_out("web").await;
    assert_eq!(rolled.annotations()["deployment.kubernetes.io/revision"], "2");
    assert_eq!(replica_sets(&cluster).await, [("1".into(), 0), ("2".into(), 3)]);
    let progressing = |deployment: &Deployment| {
        let conditions = deployment.status.as_ref().unwrap().conditions.clone().unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == "Progressing").and_then(|c| c.reason)
    };
    let api = cluster.api::<Deployment>();
    eventually("NewReplicaSetAvailable", async || {
        (progressing(&api.get("web").await.unwrap()).as_deref() == Some("NewReplicaSetAvailable"))
            .then_some(())
    })
    .await;

    cluster.never_ready("bad");
    cluster.patch::<Deployment>("web", image("bad")).await;
    eventually("one new pod that is not ready", async || {
        (replica_sets(&cluster).await == [("1".into(), 0), ("2".into(), 3), ("3".into(), 1)]).then_some(())
    })
    .await;
    cluster.patch::<Deployment>("web", image("two")).await;
    cluster.rolled_out("web").await;
    assert_eq!(replica_sets(&cluster).await, [("1".into(), 0), ("3".into(), 0), ("4".into(), 3)]);

    cluster.patch::<Deployment>("web", json!({ "spec": { "replicas": 1 } })).await;
    cluster.rolled_out("web").await;
    eventually("one pod", async || (cluster.pods().await.len() == 1).then_some(())).await;
    let scaled = cluster.events("web", "ScalingReplicaSet").await;
    assert!(
        scaled.iter().any(|m| m.ends_with("from 3 to 1") && m.starts_with("Scaled down replica set web-")),
        "{scaled:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_runs_no_two_generations_at_once() {
    let cluster = Cluster::start(&["node-1"]).await;
    let mut object = deployment("web", 3);
    object["spec"]["strategy"] = json!({ "type": "Recreate" });
    cluster.create::<Deployment>(object).await;
    cluster.rolled_out("web").await;
    let container = json!([{ "name": "c", "image": "two" }]);
    cluster
        .patch::<Deployment>(
            "web",
            json!({ "spec": { "template": { "spec": { "containers": container } } } }),
        )
        .await;
    let api = cluster.api::<Deployment>();
    loop {
        let images: std::collections::BTreeSet<_> = cluster
            .pods()
            .await
            .iter()
            .map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone())
            .collect();
        assert!(images.len() < 2, "{images:?}");
        let status = api.get("web").await.unwrap().status.unwrap();
        if status.updated_replicas == Some(3) && status.observed_generation == Some(2) {
            break;
        }
    }
    cluster.rolled_out("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_replaces_adopts_and_releases_pods() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.create::<Pod>(pod("orphan", json!({}))).await;
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "web" }] } });
    let set = json!({ "metadata": { "name": "rs" }, "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": template } });
    cluster.create::<ReplicaSet>(set).await;
    let api = cluster.api::<ReplicaSet>();
    let ready = async |count: i32| {
        eventually("ready pods", async || {
            let status = api.get("rs").await.unwrap().status.unwrap();
            (status.ready_replicas == Some(count) && status.replicas == count).then_some(())
        })
        .await
    };
    ready(3).await;
    let pods = cluster.pods().await;
    assert_eq!(pods.len(), 3, "the orphan is one of them");
    assert!(
        pods.iter().all(|pod| pod.owner_references()[0].name == "rs"
            && pod.owner_references()[0].controller == Some(true))
    );

    // A pod that no longer matches is released and replaced.
    cluster.patch::<Pod>("orphan", json!({ "metadata": { "labels": { "app": "other" } } })).await;
    eventually("released and replaced", async || {
        let pods = cluster.pods().await;
        let orphan = pods.iter().find(|pod| pod.name_any() == "orphan")?;
        (orphan.owner_references().is_empty() && pods.len() == 4).then_some(())
    })
    .await;

    // A pod that is deleted is replaced.
    let victim = cluster.pods().await.into_iter().find(|pod| pod.name_any() != "orphan").unwrap().name_any();
    cluster.delete::<Pod>(&victim, DeleteParams::default()).await;
    eventually("replaced", async || {
        let pods = cluster.pods().await;
        (pods.len() == 4 && pods.iter().all(|pod| pod.name_any() != victim)).then_some(())
    })
    .await;
    ready(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_has_its_service_account_and_the_certificate_authority() {
    let cluster = Cluster::start(&[]).await;
    cluster.namespace("one").await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "one");
    let map = eventually("the map", async || maps.get_opt("kube-root-ca.crt").await.unwrap()).await;
    assert_eq!(map.data.unwrap()["ca.crt"], "the CA");
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "one");
    let uid = accounts.get("default").await.unwrap().uid();
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    maps.delete("kube-root-ca.crt", &DeleteParams::default()).await.unwrap();
    eventually("another account", async || {
        accounts.get_opt("default").await.unwrap().filter(|account| account.uid() != uid)
    })
    .await;
    eventually("another map", async || maps.get_opt("kube-root-ca.crt").await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_have_accounts_that_their_roles_are_bound_to() {
    let cluster = Cluster::start(&[]).await;
    cluster.namespace("kube-system").await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "kube-system");
    eventually("one of them", async || accounts.get_opt("statefulset-controller").await.unwrap()).await;
    accounts.delete("statefulset-controller", &DeleteParams::default()).await.unwrap();
    eventually("it again", async || accounts.get_opt("statefulset-controller").await.unwrap()).await;
    let all = accounts.list(&ListParams::default()).await.unwrap().items;
    let names: Vec<String> = all.iter().map(|account| account.name_any()).collect();
    assert!(names.contains(&"deployment-controller".to_owned()) && names.len() > 15, "{names:?}");
    let bindings = cluster.all::<ClusterRoleBinding>();
    for name in names.iter().filter(|name| *name != "default") {
        let binding = bindings.get(&format!("system:controller:{name}")).await.unwrap();
        let subject = &binding.subjects.unwrap()[0];
        assert_eq!((&subject.name, subject.namespace.as_deref()), (name, Some("kube-system")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_is_emptied_and_goes() {
    let cluster = Cluster::start(&["node-1"]).await;
    cluster.namespace("going").await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "going");
    deployments.create(&PostParams::default(), &from(deployment("web", 2))).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "going");
    eventually("pods", async || {
        (pods.list(&ListParams::default()).await.unwrap().items.len() == 2).then_some(())
    })
    .await;
    let namespaces: Api<Namespace> = cluster.all();
    namespaces.delete("going", &DeleteParams::default()).await.unwrap();
    eventually("no namespace", async || namespaces.get_opt("going").await.unwrap().is_none().then_some(()))
        .await;
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
    assert!(deployments.list(&ListParams::default()).await.unwrap().items.is_empty());
    // And it can be made anew.
    cluster.namespace("going").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_slices_follow_the_readiness_of_pods() {
    let cluster = Cluster::start(&["node-1"]).await;
    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] } });
    cluster.create::<Service>(service).await;
    cluster.never_ready("slow");
    cluster.create::<Pod>(pod("quick", json!({}))).await;
    cluster.create::<Pod>(pod("slow", json!({ "image": "slow" }))).await;
    let slices = cluster.api::<EndpointSlice>();
    let ready = async || {
        let slices =
            slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap().items;
        let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
        let mut ready: Vec<_> = endpoints
            .map(|e| (e.target_ref.unwrap().name.unwrap(), e.conditions.unwrap().ready.unwrap()))
            .collect();
        ready.sort();
        ready
    };
    eventually("one ready of two", async || {
        (ready().await == [("quick".to_string(), true), ("slow".to_string(), false)]).then_some(())
    })
    .await;
    let legacy = cluster.api::<Endpoints>();
    let known = async || {
        let endpoints = legacy.get_opt("web").await.unwrap()?;
        let [subset] = &endpoints.subsets?[..] else { return None };
        let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
        Some((count(&subset.addresses), count(&subset.not_ready_addresses), subset.ports.clone()?[0].port))
    };
    eventually("Endpoints too", async || (known().await == Some((1, 1, 8080))).then_some(())).await;
    let slice = slices
        .list(&ListParams::default().labels("kubernetes.io/service-name=web"))
        .await
        .unwrap()
        .items
        .remove(0);
    assert!(slice.name_any().starts_with("web-"));
    cluster.delete::<Pod>("quick", DeleteParams::default()).await;
    eventually("the other alone", async || (ready().await == [("slow".to_string(), false)]).then_some(()))
        .await;
    cluster.delete::<Service>("web", DeleteParams::default()).await;
    eventually("no slice", async || {
        let none = slices.list(&ListParams::default()).await.unwrap().items.is_empty();
        (none && legacy.get_opt("web").await.unwrap().is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_say_in_which_zone_their_nodes_are_now() {
    let cluster = Cluster::start(&["node-1"]).await;
    let zone = async |zone: serde_json::Value| {
        let labels = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } });
        let nodes = cluster.all::<Node>();
        nodes.patch("node-1", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    };
    zone(json!("a")).await;
    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }],
        "trafficDistribution": "PreferClose" } });
    cluster.create::<Service>(service).await;
    cluster.create::<Pod>(pod("web", json!({}))).await;
    let slices = cluster.api::<EndpointSlice>();
    let said = async || {
        let slices = slices.list(&ListParams::default()).await.unwrap().items;
        let mut endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
        let endpoint =
            endpoints.find(|endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))?;
        let hints = endpoint.hints.and_then(|hints| hints.for_zones);
        Some((endpoint.zone, hints.map(|zones| zones[0].name.clone())))
    };
    for (label, expected) in [(json!("a"), Some("a")), (json!("b"), Some("b")), (json!(null), None)] {
        zone(label).await;
        let expected = expected.map(str::to_string);
        let what = format!("endpoints in zone {expected:?}");
        eventually(&what, async || (said().await? == (expected.clone(), expected.clone())).then_some(()))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_written_by_hand_are_mirrored_and_slices_by_hand_left_alone() {
    let cluster = Cluster::start(&[]).await;
    let slices = cluster.api::<EndpointSlice>();
    let mirrored = async || {
        let managed = "endpointslice.kubernetes.io/managed-by=endpointslicemirroring-controller.k8s.io";
        let slices = slices.list(&ListParams::default().labels(managed)).await.unwrap().items;
        let mut seen: Vec<(String, bool)> = slices
            .into_iter()
            .flat_map(|slice| slice.endpoints)
            .map(|e| (e.addresses[0].clone(), e.conditions.unwrap().ready.unwrap()))
            .collect();
        seen.sort();
        seen
    };
    // Written before the Service: they wait for it.
    let endpoints = json!({ "metadata": { "name": "db" }, "subsets": [
        { "addresses": [{ "ip": "192.0.2.1" }], "notReadyAddresses": [{ "ip": "192.0.2.2" }], "ports": [{ "port": 5432 }] }] });
    cluster.create::<Endpoints>(endpoints).await;
    let by_hand = json!({ "metadata": { "name": "db-own", "labels": { "kubernetes.io/service-name": "db" } },
        "addressType": "IPv4", "ports": [{ "port": 5432 }], "endpoints": [{ "addresses": ["192.0.2.9"] }] });
    cluster.create::<EndpointSlice>(by_hand).await;
    cluster
        .create::<Service>(json!({ "metadata": { "name": "db" }, "spec": { "ports": [{ "port": 5432 }] } }))
        .await;
    let both = [("192.0.2.1".to_string(), true), ("192.0.2.2".to_string(), false)];
    eventually("mirrored", async || (mirrored().await == both).then_some(())).await;
    cluster
        .patch::<Endpoints>(
            "db",
            json!({ "subsets": [{ "addresses": [{ "ip": "192.0.2.3" }], "ports": [{ "port": 5432 }] }] }),
        )
        .await;
    eventually("mirrored anew", async || {
        (mirrored().await == [("192.0.2.3".to_string(), true)]).then_some(())
    })
    .await;
    cluster
        .patch::<Endpoints>(
            "db",
            json!({ "metadata": { "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } } }),
        )
        .await;
    eventually("not mirrored", async || mirrored().await.is_empty().then_some(())).await;
    assert_eq!(slices.get("db-own").await.unwrap().endpoints.len(), 1);
    cluster.delete::<Service>("db", DeleteParams::default()).await;
    eventually("Endpoints go with their Service", async || {
        cluster.api::<Endpoints>().get_opt("db").await.unwrap().is_none().then_some(())
    })
    .await;
}
