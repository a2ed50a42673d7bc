//! The Node authorizer as a table, and that a decision knows the last acknowledged write.

use policy::rbac::{Request, Target};
use serde_json::{Value, json};

use super::*;
use crate::{
    apiserver::selectable,
    store::{Action, Encoded, Expect, Write, engine::Volatile},
};

/// `verb group/resource[/sub] namespace name [node]`; "-" is empty.
fn ask(authorizer: &Authorizer, user: &User, text: &str) -> Decision {
    let words: Vec<&str> = text.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    let [verb, what, namespace, name, rest @ ..] = words.as_slice() else { panic!("{text}") };
    let mut parts = what.splitn(3, '/');
    let (group, resource) = (parts.next().unwrap(), parts.next().unwrap());
    let subresource = parts.next().unwrap_or_default();
    let target = Target::Resource { group, resource, subresource, namespace, name };
    let selected_node = rest.first().copied().unwrap_or_default();
    authorizer.decide(user, &Question { request: Request { verb, target }, selected_node })
}

async fn put(store: &Store, key: &str, mut object: Value) {
    let expect = store.get(key).map_or(Expect::Absent, |there| Expect::Revision(there.revision));
    let attributes = selectable("pods", &object);
    let encoded = Encoded::new(&mut object).with_attributes(attributes);
    store.write(Write { key: key.into(), expect, action: Action::Put(encoded) }).await.unwrap();
}

async fn remove(store: &Store, key: &str) {
    let expect = Expect::Revision(store.get(key).unwrap().revision);
    store.write(Write { key: key.into(), expect, action: Action::Delete }).await.unwrap();
}

fn pod(uid: &str, generation: i64, node: &str, more: Value) -> Value {
    let mut spec = json!({
        "nodeName": node,
        "serviceAccountName": "sa",
        "imagePullSecrets": [{"name": "pull"}],
        "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "init"}}}]}],
        "containers": [{"envFrom": [{"configMapRef": {"name": "all"}}, {"secretRef": {"name": "from"}}],
                        "env": [{"valueFrom": {"configMapKeyRef": {"name": "key"}}}, {"value": "x"}]}],
        "volumes": [
            {"secret": {"secretName": "mounted"}},
            {"configMap": {"name": "files"}},
            {"persistentVolumeClaim": {"claimName": "disk"}},
            {"projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "piece"}}]}},
            {"csi": {"nodePublishSecretRef": {"name": "driver"}}},
        ],
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": "a", "namespace": "d", "uid": uid, "generation": generation}, "spec": spec})
}

#[tokio::test]
async fn a_node_reaches_what_its_pods_refer_to() {
    let store = Store::open(Volatile).unwrap();
    let authorizer = Authorizer::new(&store);
    put(&store, "/pods/d/a", pod("1", 1, "n1", json!({}))).await;
    let (n1, n2) = (User::node("n1"), User::node("n2"));
    let unrelated = "no relationship found between node 'n2' and this object";
    for name in ["pull", "init", "from", "mounted", "part", "driver"] {
        let asked = format!("get /secrets d {name}");
        assert!(ask(&authorizer, &n1, &asked).is_allowed(), "{asked}");
        assert_eq!(ask(&authorizer, &n2, &asked), Decision::Refused(unrelated.into()), "{asked}");
    }
    for name in ["all", "key", "files", "piece"] {
        assert!(ask(&authorizer, &n1, &format!("watch /configmaps d {name}")).is_allowed(), "{name}");
    }
    let table = [
        ("get /secrets d other", "no relationship found between node 'n1' and this object"),
        ("get /secrets e pull", "no relationship found between node 'n1' and this object"),
        ("list /secrets d -", "No Object name found"),
        ("list /secrets - -", "can only read namespaced object of this type"),
        ("list /secrets d pull", "allowed"),
        ("update /secrets d pull", "can only read resources of this type"),
        ("get /persistentvolumeclaims d disk", "allowed"),
        ("list /persistentvolumeclaims d disk", "can only get individual resources of this type"),
        ("create /serviceaccounts/token d sa", "allowed"),
        ("create /serviceaccounts/token d other", "no relationship found between node 'n1' and this object"),
        ("get /serviceaccounts d sa", "allowed"),
        ("delete /serviceaccounts d sa", "can only get individual resources of this type"),
        ("get /pods d a", "allowed"),
        ("get /pods d b", "no relationship found between node 'n1' and this object"),
        ("list /pods - -", "can only list/watch pods with spec.nodeName field selector"),
        ("watch /pods - - n2", "can only list/watch pods with spec.nodeName field selector"),
        ("watch /pods - - n1", "allowed"),
        ("patch /pods/status d a", "allowed"),
        ("patch /pods d a", ""),
        ("create /pods/binding d a", ""),
        ("create /pods/exec d a", ""),
        ("get /nodes - n1", "allowed"),
        ("get /nodes - n2", "node 'n1' cannot read 'n2', only its own Node object"),
        ("list /nodes - -", "node 'n1' cannot read all nodes, only its own Node object"),
        ("delete /nodes - n1", ""),
        ("update /nodes/status - n1", "allowed"),
        ("update coordination.k8s.io/leases kube-node-lease n1", "allowed"),
        (
            "update coordination.k8s.io/leases kube-node-lease n2",
            "can only access node lease with the same name as the requesting node",
        ),
        (
            "get coordination.k8s.io/leases kube-system n1",
            "can only access leases in the \"kube-node-lease\" system namespace",
        ),
        (
            "list coordination.k8s.io/leases kube-node-lease -",
            "can only get, create, update, patch, or delete a node lease",
        ),
        ("create /events d -", "allowed"),
        ("list /services - -", "allowed"),
        ("create /namespaces - -", ""),
        ("get rbac.authorization.k8s.io/roles d r", ""),
    ];
    for (asked, want) in table {
        let got = match ask(&authorizer, &n1, asked) {
            Decision::Allowed(_) => "allowed".to_owned(),
            Decision::Refused(why) => why,
        };
        assert_eq!(got, want, "{asked}");
    }
    let impostor = User::new("system:node:n1", []);
    assert!(!ask(&authorizer, &impostor, "get /secrets d pull").is_allowed(), "the name alone makes no node");
}

/// Of a pod that a node runs by itself only the node is remembered: else whoever wrote one could point a node at secrets.
#[tokio::test]
async fn a_mirror_pod_opens_nothing_to_its_node() {
    let store = Store::open(Volatile).unwrap();
    let authorizer = Authorizer::new(&store);
    let mut mirror = pod("1", 1, "n1", json!({}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    put(&store, "/pods/d/a", mirror).await;
    let n1 = User::node("n1");
    assert!(ask(&authorizer, &n1, "get /pods d a").is_allowed());
    for asked in ["get /secrets d pull", "get /configmaps d all", "create /serviceaccounts/token d sa"] {
        assert!(!ask(&authorizer, &n1, asked).is_allowed(), "{asked}");
    }
}

#[tokio::test]
async fn references_follow_the_pods() {
    let store = Store::open(Volatile).unwrap();
    put(&store, "/pods/d/a", pod("1", 1, "", json!({}))).await;
    let authorizer = Authorizer::new(&store);
    let n1 = User::node("n1");
    let reaches = |name: &str| ask(&authorizer, &n1, &format!("get /secrets d {name}")).is_allowed();
    assert!(!reaches("pull"), "not bound");
    put(&store, "/pods/d/a", pod("1", 1, "n1", json!({}))).await;
    assert!(reaches("pull"));
    let debug =
        json!({"ephemeralContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "debug"}}}]}]});
    put(&store, "/pods/d/a", pod("1", 2, "n1", debug)).await;
    assert!(reaches("pull") && reaches("debug"), "an ephemeral container brings its own");
    put(&store, "/pods/d/b", pod("2", 1, "n1", json!({}))).await;
    remove(&store, "/pods/d/a").await;
    assert!(reaches("pull") && !reaches("debug"), "another pod still refers to it");
    put(&store, "/pods/d/b", pod("3", 1, "n2", json!({}))).await;
    assert!(!reaches("pull"), "a namesake elsewhere");
    remove(&store, "/pods/d/b").await;
    assert!(!ask(&authorizer, &User::node("n2"), "get /secrets d pull").is_allowed());
}

#[tokio::test]
async fn a_decision_knows_the_last_acknowledged_write_also_after_it_lagged() {
    const ROLE: &str = "/roles.rbac.authorization.k8s.io/d/r";
    const BINDING: &str = "/rolebindings.rbac.authorization.k8s.io/d/b";
    let store = Store::open(Volatile).unwrap();
    let authorizer = Authorizer::new(&store);
    let jane = User::new("jane", []);
    let may = || ask(&authorizer, &jane, "get /pods d a").is_allowed();
    let role = |verb: &str| {
        json!({"metadata": {"name": "r", "namespace": "d"},
               "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
    };
    let binding = json!({"metadata": {"name": "b", "namespace": "d"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    put(&store, BINDING, binding.clone()).await;
    assert_eq!(
        ask(&authorizer, &jane, "get /pods d a"),
        Decision::Refused("RBAC: role.rbac.authorization.k8s.io \"r\" not found".into())
    );
    put(&store, ROLE, role("get")).await;
    assert!(may());
    put(&store, ROLE, role("list")).await;
    assert!(!may());
    // More writes than a watcher may lag behind.
    for at in 0..5000 {
        put(&store, ROLE, role(if at % 2 == 0 { "list" } else { "get" })).await;
    }
    assert!(may());
    remove(&store, BINDING).await;
    assert!(!may());
}
