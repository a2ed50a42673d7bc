//! The rows. Names, short names, categories and verbs are those of Kubernetes 1.35.

use super::{GroupVersionKind, Resource, Scope, Subresource};

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const CONNECT: &[&str] = &["create", "get"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

const fn gvk(group: &'static str, version: &'static str, kind: &'static str) -> GroupVersionKind {
    GroupVersionKind { group, version, kind }
}

const fn sub(name: &'static str, kind: GroupVersionKind, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, kind, verbs }
}

/// A row with the usual verbs, no short names, no subresources; the rest is set by struct update.
const fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    scope: Scope,
) -> Resource {
    Resource {
        group,
        version,
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        scope,
        verbs: ALL,
        subresources: &[],
        stored_as: (group, plural),
    }
}

const POD: GroupVersionKind = gvk("", "v1", "Pod");
const SCALE: GroupVersionKind = gvk("autoscaling", "v1", "Scale");

use Scope::{Cluster, Namespaced};

pub(super) static RESOURCES: &[Resource] = &[
    Resource { verbs: CREATE, ..row("", "v1", "Binding", "bindings", "binding", Namespaced) },
    Resource { short_names: &["cm"], ..row("", "v1", "ConfigMap", "configmaps", "configmap", Namespaced) },
    Resource { short_names: &["ep"], ..row("", "v1", "Endpoints", "endpoints", "endpoints", Namespaced) },
    Resource { short_names: &["ev"], ..row("", "v1", "Event", "events", "event", Namespaced) },
    Resource {
        short_names: &["ns"],
        verbs: NO_COLLECTION,
        subresources: &[
            sub("finalize", gvk("", "v1", "Namespace"), &["update"]),
            sub("status", gvk("", "v1", "Namespace"), GET_PATCH_UPDATE),
        ],
        ..row("", "v1", "Namespace", "namespaces", "namespace", Cluster)
    },
    Resource {
        short_names: &["no"],
        subresources: &[sub("status", gvk("", "v1", "Node"), GET_PATCH_UPDATE)],
        ..row("", "v1", "Node", "nodes", "node", Cluster)
    },
    Resource {
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            sub("attach", gvk("", "v1", "PodAttachOptions"), CONNECT),
            sub("binding", gvk("", "v1", "Binding"), CREATE),
            sub("ephemeralcontainers", POD, GET_PATCH_UPDATE),
            sub("eviction", gvk("policy", "v1", "Eviction"), CREATE),
            sub("exec", gvk("", "v1", "PodExecOptions"), CONNECT),
            sub("log", POD, GET),
            sub("portforward", gvk("", "v1", "PodPortForwardOptions"), CONNECT),
            sub("status", POD, GET_PATCH_UPDATE),
        ],
        ..row("", "v1", "Pod", "pods", "pod", Namespaced)
    },
    row("", "v1", "PodTemplate", "podtemplates", "podtemplate", Namespaced),
    Resource {
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[
            sub("scale", SCALE, GET_PATCH_UPDATE),
            sub("status", gvk("", "v1", "ReplicationController"), GET_PATCH_UPDATE),
        ],
        ..row(
            "",
            "v1",
            "ReplicationController",
            "replicationcontrollers",
            "replicationcontroller",
            Namespaced,
        )
    },
    row("", "v1", "Secret", "secrets", "secret", Namespaced),
    Resource {
        short_names: &["sa"],
        subresources: &[sub("token", gvk("authentication.k8s.io", "v1", "TokenRequest"), CREATE)],
        ..row("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", Namespaced)
    },
    Resource {
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[sub("status", gvk("", "v1", "Service"), GET_PATCH_UPDATE)],
        ..row("", "v1", "Service", "services", "service", Namespaced)
    },
    row("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision", Namespaced),
    Resource {
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[sub("status", gvk("apps", "v1", "DaemonSet"), GET_PATCH_UPDATE)],
        ..row("apps", "v1", "DaemonSet", "daemonsets", "daemonset", Namespaced)
    },
    Resource {
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[
            sub("scale", SCALE, GET_PATCH_UPDATE),
            sub("status", gvk("apps", "v1", "Deployment"), GET_PATCH_UPDATE),
        ],
        ..row("apps", "v1", "Deployment", "deployments", "deployment", Namespaced)
    },
    Resource {
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[
            sub("scale", SCALE, GET_PATCH_UPDATE),
            sub("status", gvk("apps", "v1", "ReplicaSet"), GET_PATCH_UPDATE),
        ],
        ..row("apps", "v1", "ReplicaSet", "replicasets", "replicaset", Namespaced)
    },
    Resource {
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[
            sub("scale", SCALE, GET_PATCH_UPDATE),
            sub("status", gvk("apps", "v1", "StatefulSet"), GET_PATCH_UPDATE),
        ],
        ..row("apps", "v1", "StatefulSet", "statefulsets", "statefulset", Namespaced)
    },
    Resource {
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[sub("status", gvk("batch", "v1", "CronJob"), GET_PATCH_UPDATE)],
        ..row("batch", "v1", "CronJob", "cronjobs", "cronjob", Namespaced)
    },
    Resource {
        categories: &["all"],
        subresources: &[sub("status", gvk("batch", "v1", "Job"), GET_PATCH_UPDATE)],
        ..row("batch", "v1", "Job", "jobs", "job", Namespaced)
    },
    Resource {
        short_names: &["ev"],
        stored_as: ("", "events"),
        ..row("events.k8s.io", "v1", "Event", "events", "event", Namespaced)
    },
    Resource {
        verbs: CREATE,
        ..row(
            "authentication.k8s.io",
            "v1",
            "SelfSubjectReview",
            "selfsubjectreviews",
            "selfsubjectreview",
            Cluster,
        )
    },
    Resource {
        verbs: CREATE,
        ..row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", "tokenreview", Cluster)
    },
    Resource {
        verbs: CREATE,
        ..row(
            "authorization.k8s.io",
            "v1",
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            "localsubjectaccessreview",
            Namespaced,
        )
    },
    Resource {
        verbs: CREATE,
        ..row(
            "authorization.k8s.io",
            "v1",
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
            "selfsubjectaccessreview",
            Cluster,
        )
    },
    Resource {
        verbs: CREATE,
        ..row(
            "authorization.k8s.io",
            "v1",
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
            "selfsubjectrulesreview",
            Cluster,
        )
    },
    Resource {
        verbs: CREATE,
        ..row(
            "authorization.k8s.io",
            "v1",
            "SubjectAccessReview",
            "subjectaccessreviews",
            "subjectaccessreview",
            Cluster,
        )
    },
    Resource {
        short_names: &["netpol"],
        ..row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "networkpolicy", Namespaced)
    },
    row("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "clusterrole", Cluster),
    row(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "clusterrolebinding",
        Cluster,
    ),
    row("rbac.authorization.k8s.io", "v1", "Role", "roles", "role", Namespaced),
    row("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "rolebinding", Namespaced),
    Resource {
        short_names: &["cnp"],
        subresources: &[sub(
            "status",
            gvk("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy"),
            GET_PATCH_UPDATE,
        )],
        ..row(
            "policy.networking.k8s.io",
            "v1alpha2",
            "ClusterNetworkPolicy",
            "clusternetworkpolicies",
            "clusternetworkpolicy",
            Cluster,
        )
    },
    row("coordination.k8s.io", "v1", "Lease", "leases", "lease", Namespaced),
    row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", Namespaced),
];
