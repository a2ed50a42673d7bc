//! kubectl's own questions about rights, and its requests in somebody else's name, against the real server.

mod common;

use common::{Control, contains};

/// A cluster in which jane may `edit` in `default`.
fn start() -> Control {
    let c = Control::start();
    c.ok("create rolebinding jane --clusterrole=edit --user=jane");
    c
}

#[test]
fn can_i_agrees_with_what_happens() {
    if !common::has("kubectl", "can_i_agrees_with_what_happens") {
        return;
    }
    let c = start();
    c.ok("create secret generic s --from-literal=a=b");
    // The sum `edit` is written by a controller.
    let mut waited = 0;
    while !c.kubectl(&["auth", "can-i", "get", "secrets", "--as=jane"]).status.success() {
        waited += 1;
        assert!(waited < 200, "edit stays without rules");
    }
    for (can, act, may) in [
        ("get secrets", "get secret s", true),
        ("get secrets -n kube-system", "get secrets -n kube-system", false),
        ("create configmaps", "create configmap c", true),
        ("create roles", "create role r --verb=get --resource=pods", false),
        ("get nodes", "get nodes", false),
        ("create pods --subresource=exec", "create configmap d", true),
        ("impersonate users", "get pods --as-uid=7", false),
    ] {
        let out =
            c.kubectl(&[&["auth", "can-i", "--as=jane"], &can.split(' ').collect::<Vec<_>>()[..]].concat());
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(said.starts_with("yes"), may, "can-i {can}: {said}");
        let out = c.kubectl(&[&["--as=jane"], &act.split(' ').collect::<Vec<_>>()[..]].concat());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if !act.contains("--as-uid") {
            assert_eq!(out.status.success(), may, "{act}: {said}");
            assert!(may || said.contains("Error from server (Forbidden)"), "{act}: {said}");
        }
    }
    contains(&c.ok("auth can-i * * --all-namespaces"), &["yes"]);
    contains(&c.ok("auth can-i get /version --as=jane"), &["yes"]);
    contains(
        &c.refused("get secrets -n kube-system --as=jane"),
        &[
            r#"secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" in the namespace "kube-system""#,
        ],
    );
}

#[test]
fn rights_are_listed_and_one_knows_who_one_is() {
    if !common::has("kubectl", "rights_are_listed_and_one_knows_who_one_is") {
        return;
    }
    let c = start();
    contains(&c.ok("auth can-i --list"), &["*.*", "[*]"]);
    let mut listed = String::new();
    for _ in 0..200 {
        listed = c.ok("auth can-i --list --as=jane");
        if listed.contains("deployments.apps") {
            break;
        }
    }
    contains(
        &listed,
        &[
            "Resources",
            "Non-Resource URLs",
            "deployments.apps",
            "pods/exec",
            "selfsubjectaccessreviews.authorization.k8s.io",
            "[/version]",
            "[create delete deletecollection patch update get list watch]",
        ],
    );
    assert!(!listed.contains("roles.rbac"), "{listed}");
    contains(&c.ok("auth whoami"), &["Username", "Groups", "system:masters", "system:authenticated"]);
    let other = c.ok("auth whoami --as=ann --as-group=ops --as-uid=7 -o json");
    contains(&other, &[r#""username": "ann""#, r#""uid": "7""#, r#""ops""#, r#""system:authenticated""#]);
    contains(&c.refused("get pods --as-group=ops --as="), &["without impersonating a user"]);
}

#[test]
fn roles_are_applied_printed_and_kept_as_kubectl_expects() {
    if !common::has("kubectl", "roles_are_applied_printed_and_kept_as_kubectl_expects") {
        return;
    }
    let c = Control::start();
    c.ok("create role reader --verb=get,list --resource=pods,pods/log");
    c.ok("create clusterrole paths --verb=get --non-resource-url=/logs/*");
    c.ok("create rolebinding readers --role=reader --user=ann --group=ops --serviceaccount=default:ci");
    contains(&c.ok("get roles,rolebindings -o wide"), &["reader", "Role/reader", "ann", "ops", "default/ci"]);
    contains(&c.ok("describe role reader"), &["pods/log", "[get list]"]);
    contains(&c.ok("describe rolebinding readers"), &["ServiceAccount", "ci"]);
    contains(
        &c.ok("get clusterrole cluster-admin -o yaml"),
        &[
            "kubernetes.io/bootstrapping: rbac-defaults",
            "rbac.authorization.kubernetes.io/autoupdate: \"true\"",
        ],
    );
    let changed = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: readers}\n\
                   roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: other}\n";
    let said = c.feed("apply -f -", changed).expect_err("roleRef changes");
    contains(&said, &["roleRef: Invalid value:", "cannot change roleRef"]);
}
