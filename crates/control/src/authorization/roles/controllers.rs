//! What each controller may do: upstream's `controller_policy.go`, for all controllers there are, whether or not they are
//! among ours. Each is the ServiceAccount of its name in `kube-system`.

use super::{
    APPS, AUTHORIZATION, CORE, CREATE, DISCOVERY, Given, NETWORKING, POLICY, RBAC, READ, Role, STORAGE,
    Who::Account, events, may, named, role,
};

const BATCH: &[&str] = &["batch"];
const CERTIFICATES: &[&str] = &["certificates.k8s.io"];
const UPDATE: &[&str] = &["update"];
const PATCH_UPDATE: &[&str] = &["patch", "update"];
const LIST_WATCH: &[&str] = &["list", "watch"];
const READ_UPDATE: &[&str] = &["get", "list", "update", "watch"];
const MANAGE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
/// How a controller of pods treats them.
const PODS: &[&str] = &["create", "delete", "list", "patch", "watch"];
const APPS_EXTENSIONS: &[&str] = &["apps", "extensions"];
const RESOURCE: &[&str] = &["resource.k8s.io"];

/// A role, and a binding of the same name, for each.
macro_rules! controllers {
    ($($name:literal: [$($rule:expr),* $(,)?];)*) => {
        pub(super) const ROLES: &[Role] = &[$(role(concat!("system:controller:", $name), &[$($rule),*])),*];
        pub(super) const BINDINGS: &[Given] = &[$(Given {
            role: concat!("system:controller:", $name),
            to: &[Account("kube-system", $name)],
        }),*];
    };
}

controllers! {
    "attachdetach-controller": [
        may(LIST_WATCH, CORE, &["persistentvolumeclaims", "persistentvolumes"]),
        may(READ, CORE, &["nodes"]),
        may(PATCH_UPDATE, CORE, &["nodes/status"]),
        may(LIST_WATCH, CORE, &["pods"]),
        events(),
        may(&["create", "delete", "get", "list", "watch"], STORAGE, &["volumeattachments"]),
        may(READ, STORAGE, &["csidrivers"]),
        may(READ, STORAGE, &["csinodes"]),
    ];
    "certificate-controller": [
        may(&["delete", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"]),
        may(
            UPDATE,
            CERTIFICATES,
            &["certificatesigningrequests/approval", "certificatesigningrequests/status"],
        ),
        named(&["approve"], CERTIFICATES, &["signers"], &["kubernetes.io/kube-apiserver-client-kubelet"]),
        named(
            &["sign"],
            CERTIFICATES,
            &["signers"],
            &[
                "kubernetes.io/kube-apiserver-client",
                "kubernetes.io/kube-apiserver-client-kubelet",
                "kubernetes.io/kubelet-serving",
                "kubernetes.io/legacy-unknown",
            ],
        ),
        may(CREATE, AUTHORIZATION, &["subjectaccessreviews"]),
        events(),
    ];
    // It writes rules that it does not hold.
    "clusterrole-aggregation-controller": [
        may(&["escalate", "get", "list", "patch", "update", "watch"], RBAC, &["clusterroles"]),
    ];
    "cronjob-controller": [
        may(READ_UPDATE, BATCH, &["cronjobs"]),
        may(MANAGE, BATCH, &["jobs"]),
        may(UPDATE, BATCH, &["cronjobs/status"]),
        may(UPDATE, BATCH, &["cronjobs/finalizers"]),
        may(&["delete", "list"], CORE, &["pods"]),
        events(),
    ];
    "daemon-set-controller": [
        may(READ, APPS_EXTENSIONS, &["daemonsets"]),
        may(UPDATE, APPS_EXTENSIONS, &["daemonsets/status"]),
        may(UPDATE, APPS_EXTENSIONS, &["daemonsets/finalizers"]),
        may(LIST_WATCH, CORE, &["nodes"]),
        may(PODS, CORE, &["pods"]),
        may(CREATE, CORE, &["pods/binding"]),
        may(MANAGE, APPS, &["controllerrevisions"]),
        events(),
    ];
    "deployment-controller": [
        may(READ_UPDATE, APPS_EXTENSIONS, &["deployments"]),
        may(UPDATE, APPS_EXTENSIONS, &["deployments/status"]),
        may(UPDATE, APPS_EXTENSIONS, &["deployments/finalizers"]),
        may(MANAGE, APPS_EXTENSIONS, &["replicasets"]),
        may(READ_UPDATE, CORE, &["pods"]),
        events(),
    ];
    "disruption-controller": [
        may(READ, APPS_EXTENSIONS, &["deployments"]),
        may(READ, APPS_EXTENSIONS, &["replicasets"]),
        may(READ, CORE, &["replicationcontrollers"]),
        may(READ, POLICY, &["poddisruptionbudgets"]),
        may(READ, APPS, &["statefulsets"]),
        may(UPDATE, POLICY, &["poddisruptionbudgets/status"]),
        may(PATCH_UPDATE, CORE, &["pods/status"]),
        may(&["get"], &["*"], &["*/scale"]),
        events(),
    ];
    "endpoint-controller": [
        may(READ, CORE, &["pods", "services"]),
        may(&["create", "delete", "get", "list", "update"], CORE, &["endpoints"]),
        may(CREATE, CORE, &["endpoints/restricted"]),
        events(),
    ];
    "endpointslice-controller": [
        may(READ, CORE, &["nodes", "pods", "services"]),
        may(UPDATE, CORE, &["services/finalizers"]),
        may(&["create", "delete", "get", "list", "update"], DISCOVERY, &["endpointslices"]),
        may(CREATE, DISCOVERY, &["endpointslices/restricted"]),
        events(),
    ];
    "endpointslicemirroring-controller": [
        may(READ, CORE, &["endpoints", "services"]),
        may(UPDATE, CORE, &["services/finalizers"]),
        may(UPDATE, CORE, &["endpoints/finalizers"]),
        may(&["create", "delete", "get", "list", "update"], DISCOVERY, &["endpointslices"]),
        may(CREATE, DISCOVERY, &["endpointslices/restricted"]),
        events(),
    ];
    "ephemeral-volume-controller": [
        may(READ, CORE, &["pods"]),
        may(UPDATE, CORE, &["pods/finalizers"]),
        may(&["create", "get", "list", "watch"], CORE, &["persistentvolumeclaims"]),
        events(),
    ];
    "expand-controller": [
        may(&["get", "list", "patch", "update", "watch"], CORE, &["persistentvolumes"]),
        may(PATCH_UPDATE, CORE, &["persistentvolumeclaims/status"]),
        may(READ, CORE, &["persistentvolumeclaims"]),
        events(),
        may(&["get"], CORE, &["services"]),
    ];
    "generic-garbage-collector": [
        may(&["delete", "get", "list", "patch", "update", "watch"], &["*"], &["*"]),
        events(),
    ];
    "horizontal-pod-autoscaler": [
        may(READ, &["autoscaling"], &["horizontalpodautoscalers"]),
        may(UPDATE, &["autoscaling"], &["horizontalpodautoscalers/status"]),
        may(&["get", "update"], &["*"], &["*/scale"]),
        may(&["list"], CORE, &["pods"]),
        may(&["list"], &["metrics.k8s.io"], &["pods"]),
        may(&["get", "list"], &["custom.metrics.k8s.io"], &["*"]),
        may(&["get", "list"], &["external.metrics.k8s.io"], &["*"]),
        events(),
    ];
    "job-controller": [
        may(&["get", "list", "patch", "update", "watch"], BATCH, &["jobs"]),
        may(UPDATE, BATCH, &["jobs/status"]),
        may(UPDATE, BATCH, &["jobs/finalizers"]),
        may(PODS, CORE, &["pods"]),
        events(),
    ];
    "legacy-service-account-token-cleaner": [
        named(&["get"], CORE, &["configmaps"], &["kube-apiserver-legacy-service-account-token-tracking"]),
        may(&["delete", "patch"], CORE, &["secrets"]),
    ];
    "namespace-controller": [
        may(&["delete", "get", "list", "watch"], CORE, &["namespaces"]),
        may(UPDATE, CORE, &["namespaces/finalize", "namespaces/status"]),
        may(&["delete", "deletecollection", "get", "list"], &["*"], &["*"]),
    ];
    "node-controller": [
        may(&["delete", "get", "list", "patch", "update"], CORE, &["nodes"]),
        may(PATCH_UPDATE, CORE, &["nodes/status"]),
        may(PATCH_UPDATE, CORE, &["pods/status"]),
        may(&["delete", "get", "list"], CORE, &["pods"]),
        events(),
    ];
    "persistent-volume-binder": [
        may(&["create", "delete", "get", "list", "update", "watch"], CORE, &["persistentvolumes"]),
        may(UPDATE, CORE, &["persistentvolumes/status"]),
        may(READ_UPDATE, CORE, &["persistentvolumeclaims"]),
        may(UPDATE, CORE, &["persistentvolumeclaims/status"]),
        may(&["create", "delete", "get", "list", "watch"], CORE, &["pods"]),
        may(READ, STORAGE, &["storageclasses"]),
        may(LIST_WATCH, CORE, &["nodes"]),
        events(),
        may(&["watch"], CORE, &["events"]),
        may(&["get"], CORE, &["services"]),
    ];
    "pod-garbage-collector": [
        may(&["delete", "list", "watch"], CORE, &["pods"]),
        may(&["get", "list"], CORE, &["nodes"]),
        may(&["patch"], CORE, &["pods/status"]),
    ];
    "pv-protection-controller": [may(READ_UPDATE, CORE, &["persistentvolumes"]), events()];
    "pvc-protection-controller": [
        may(READ_UPDATE, CORE, &["persistentvolumeclaims"]),
        may(READ, CORE, &["pods"]),
        events(),
    ];
    "replicaset-controller": [
        may(READ_UPDATE, APPS_EXTENSIONS, &["replicasets"]),
        may(UPDATE, APPS_EXTENSIONS, &["replicasets/status"]),
        may(UPDATE, APPS_EXTENSIONS, &["replicasets/finalizers"]),
        may(PODS, CORE, &["pods"]),
        events(),
    ];
    "replication-controller": [
        may(READ_UPDATE, CORE, &["replicationcontrollers"]),
        may(UPDATE, CORE, &["replicationcontrollers/status"]),
        may(UPDATE, CORE, &["replicationcontrollers/finalizers"]),
        may(PODS, CORE, &["pods"]),
        events(),
    ];
    "resource-claim-controller": [
        may(READ, CORE, &["pods"]),
        may(UPDATE, CORE, &["pods/finalizers"]),
        may(&["create", "delete", "get", "list", "watch"], RESOURCE, &["resourceclaims"]),
        may(PATCH_UPDATE, RESOURCE, &["resourceclaims", "resourceclaims/status"]),
        may(PATCH_UPDATE, CORE, &["pods/status"]),
        events(),
    ];
    "resourcequota-controller": [
        may(LIST_WATCH, &["*"], &["*"]),
        may(UPDATE, CORE, &["resourcequotas/status"]),
        events(),
    ];
    "root-ca-cert-publisher": [may(&["create", "update"], CORE, &["configmaps"]), events()];
    "route-controller": [
        may(LIST_WATCH, CORE, &["nodes"]),
        may(&["patch"], CORE, &["nodes/status"]),
        events(),
    ];
    "service-account-controller": [may(CREATE, CORE, &["serviceaccounts"]), events()];
    "service-cidrs-controller": [
        may(&["get", "list", "patch", "update", "watch"], NETWORKING, &["servicecidrs"]),
        may(PATCH_UPDATE, NETWORKING, &["servicecidrs/finalizers"]),
        may(PATCH_UPDATE, NETWORKING, &["servicecidrs/status"]),
        may(READ, NETWORKING, &["ipaddresses"]),
        events(),
    ];
    "service-controller": [
        may(READ, CORE, &["services"]),
        may(PATCH_UPDATE, CORE, &["services/status"]),
        may(LIST_WATCH, CORE, &["nodes"]),
        events(),
    ];
    "statefulset-controller": [
        may(LIST_WATCH, CORE, &["pods"]),
        may(READ, APPS, &["statefulsets"]),
        may(UPDATE, APPS, &["statefulsets/status"]),
        may(UPDATE, APPS, &["statefulsets/finalizers"]),
        may(&["create", "delete", "get", "patch", "update"], CORE, &["pods"]),
        may(MANAGE, APPS, &["controllerrevisions"]),
        may(&["create", "get", "list", "watch"], CORE, &["persistentvolumeclaims"]),
        events(),
        may(&["delete", "update"], CORE, &["persistentvolumeclaims"]),
        may(UPDATE, CORE, &["pods/finalizers"]),
    ];
    "ttl-after-finished-controller": [
        may(&["delete", "get", "list", "watch"], BATCH, &["jobs"]),
        events(),
    ];
    "ttl-controller": [may(&["list", "patch", "update", "watch"], CORE, &["nodes"]), events()];
    "validatingadmissionpolicy-status-controller": [
        may(READ, &["admissionregistration.k8s.io"], &["validatingadmissionpolicies"]),
        may(
            &["get", "patch", "update"],
            &["admissionregistration.k8s.io"],
            &["validatingadmissionpolicies/status"],
        ),
        events(),
    ];
}
