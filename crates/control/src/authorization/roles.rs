//! The roles and bindings every cluster has: upstream's `bootstrappolicy`, as data. Beside them `cofferdam:node-network`, which
//! is to our agents what the roles of kube-proxy and of a network plugin are to other clusters.

mod controllers;

use policy::rbac::Rule;

type Words = &'static [&'static str];

/// One rule.
pub(super) struct Grants {
    pub verbs: Words,
    pub groups: Words,
    pub resources: Words,
    pub names: Words,
    pub urls: Words,
}

impl Grants {
    pub fn rule(&self) -> Rule {
        let own = |words: Words| words.iter().map(|word| (*word).to_owned()).collect();
        Rule {
            verbs: own(self.verbs),
            api_groups: own(self.groups),
            resources: own(self.resources),
            resource_names: own(self.names),
            non_resource_urls: own(self.urls),
        }
    }
}

/// One ClusterRole.
pub(super) struct Role {
    pub name: &'static str,
    /// The roles whose aggregation takes this one in: `admin`, `edit`, `view`.
    pub part_of: Option<&'static str>,
    /// Its rules are those of all that say they are part of this.
    pub gathers: Option<&'static str>,
    pub rules: &'static [Grants],
}

#[derive(Clone, Copy)]
pub(super) enum Who {
    User(&'static str),
    Group(&'static str),
    /// Namespace and name.
    Account(&'static str, &'static str),
}

/// One ClusterRoleBinding; it has the name of its role.
pub(super) struct Given {
    pub role: &'static str,
    pub to: &'static [Who],
}

const READ: Words = &["get", "list", "watch"];
const WRITE: Words = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: Words =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const READ_UPDATE: Words = &["get", "list", "patch", "update", "watch"];
const CREATE: Words = &["create"];
const ALL: Words = &["*"];
const CORE: Words = &[""];
const APPS: Words = &["apps"];
const AUTHENTICATION: Words = &["authentication.k8s.io"];
const AUTHORIZATION: Words = &["authorization.k8s.io"];
const COORDINATION: Words = &["coordination.k8s.io"];
const DISCOVERY: Words = &["discovery.k8s.io"];
const NETWORKING: Words = &["networking.k8s.io"];
const POLICY: Words = &["policy"];
const RBAC: Words = &["rbac.authorization.k8s.io"];
const STORAGE: Words = &["storage.k8s.io"];
const EVENTS: Words = &["", "events.k8s.io"];

const fn may(verbs: Words, groups: Words, resources: Words) -> Grants {
    Grants { verbs, groups, resources, names: &[], urls: &[] }
}

const fn named(verbs: Words, groups: Words, resources: Words, names: Words) -> Grants {
    Grants { verbs, groups, resources, names, urls: &[] }
}

const fn paths(verbs: Words, urls: Words) -> Grants {
    Grants { verbs, groups: &[], resources: &[], names: &[], urls }
}

const fn events() -> Grants {
    may(&["create", "patch", "update"], EVENTS, &["events"])
}

const fn role(name: &'static str, rules: &'static [Grants]) -> Role {
    Role { name, part_of: None, gathers: None, rules }
}

/// A role of a namespace that is the sum of others.
const fn sum(name: &'static str, part_of: Option<&'static str>) -> Role {
    Role { name, part_of, gathers: Some(name), rules: &[] }
}

/// What a node may do anywhere; the Node authorizer says the rest.
pub(super) const NODE_RULES: &[Grants] = &[
    may(CREATE, AUTHENTICATION, &["tokenreviews"]),
    may(CREATE, AUTHORIZATION, &["localsubjectaccessreviews", "subjectaccessreviews"]),
    may(READ, CORE, &["services"]),
    may(&["create", "patch", "update"], EVENTS, &["events"]),
    may(&["get"], CORE, &["endpoints"]),
    may(&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
    may(READ, STORAGE, &["csidrivers"]),
    may(READ, &["node.k8s.io"], &["runtimeclasses"]),
];

/// Every default role.
pub(super) fn roles() -> impl Iterator<Item = &'static Role> {
    ROLES.iter().chain(controllers::ROLES)
}

/// Every default binding.
pub(super) fn bindings() -> impl Iterator<Item = &'static Given> {
    BINDINGS.iter().chain(controllers::BINDINGS)
}

const ROLES: &[Role] = &[
    role("cluster-admin", &[may(ALL, ALL, ALL), paths(ALL, &["*"])]),
    role(
        "system:discovery",
        &[paths(
            &["get"],
            &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
        )],
    ),
    role(
        "system:basic-user",
        &[
            may(CREATE, AUTHORIZATION, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            may(CREATE, AUTHENTICATION, &["selfsubjectreviews"]),
        ],
    ),
    role(
        "system:public-info-viewer",
        &[paths(&["get"], &["/healthz", "/livez", "/readyz", "/version", "/version/"])],
    ),
    role(
        "system:monitoring",
        &[paths(
            &["get"],
            &[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/slis",
                "/readyz",
                "/readyz/*",
            ],
        )],
    ),
    sum("admin", None),
    sum("edit", Some("admin")),
    sum("view", Some("edit")),
    Role {
        name: "system:aggregate-to-admin",
        part_of: Some("admin"),
        gathers: None,
        rules: &[
            may(CREATE, AUTHORIZATION, &["localsubjectaccessreviews"]),
            may(READ_WRITE, RBAC, &["rolebindings", "roles"]),
        ],
    },
    Role {
        name: "system:aggregate-to-edit",
        part_of: Some("edit"),
        gathers: None,
        rules: &[
            // What leads to more than its name says may be read by who may write.
            may(
                READ,
                CORE,
                &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
            ),
            may(&["impersonate"], CORE, &["serviceaccounts"]),
            may(WRITE, CORE, &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
            may(CREATE, CORE, &["pods/eviction"]),
            may(
                WRITE,
                CORE,
                &[
                    "configmaps",
                    "events",
                    "persistentvolumeclaims",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "secrets",
                    "serviceaccounts",
                    "services",
                    "services/proxy",
                ],
            ),
            may(CREATE, CORE, &["serviceaccounts/token"]),
            may(
                WRITE,
                APPS,
                &[
                    "daemonsets",
                    "deployments",
                    "deployments/rollback",
                    "deployments/scale",
                    "replicasets",
                    "replicasets/scale",
                    "statefulsets",
                    "statefulsets/scale",
                ],
            ),
            may(WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
            may(WRITE, &["batch"], &["cronjobs", "jobs"]),
            may(WRITE, POLICY, &["poddisruptionbudgets"]),
            may(WRITE, NETWORKING, &["ingresses", "networkpolicies"]),
            may(READ_WRITE, COORDINATION, &["leases"]),
        ],
    },
    Role {
        name: "system:aggregate-to-view",
        part_of: Some("view"),
        gathers: None,
        rules: &[
            may(
                READ,
                CORE,
                &[
                    "configmaps",
                    "endpoints",
                    "persistentvolumeclaims",
                    "persistentvolumeclaims/status",
                    "pods",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "serviceaccounts",
                    "services",
                    "services/status",
                ],
            ),
            may(
                READ,
                CORE,
                &[
                    "bindings",
                    "events",
                    "limitranges",
                    "namespaces/status",
                    "pods/log",
                    "pods/status",
                    "replicationcontrollers/status",
                    "resourcequotas",
                    "resourcequotas/status",
                ],
            ),
            // To read namespaces within a namespace is to read that one.
            may(READ, CORE, &["namespaces"]),
            may(READ, DISCOVERY, &["endpointslices"]),
            may(
                READ,
                APPS,
                &[
                    "controllerrevisions",
                    "daemonsets",
                    "daemonsets/status",
                    "deployments",
                    "deployments/scale",
                    "deployments/status",
                    "replicasets",
                    "replicasets/scale",
                    "replicasets/status",
                    "statefulsets",
                    "statefulsets/scale",
                    "statefulsets/status",
                ],
            ),
            may(READ, &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
            may(READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
            may(READ, POLICY, &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
            may(READ, NETWORKING, &["ingresses", "ingresses/status", "networkpolicies"]),
        ],
    },
    // Bound to nobody: nodes are held to more by the Node authorizer.
    role(
        "system:node",
        &[
            may(CREATE, AUTHENTICATION, &["tokenreviews"]),
            may(CREATE, AUTHORIZATION, &["localsubjectaccessreviews", "subjectaccessreviews"]),
            may(READ, CORE, &["services"]),
            may(&["create", "get", "list", "watch"], CORE, &["nodes"]),
            may(&["patch", "update"], CORE, &["nodes/status"]),
            may(&["patch", "update"], CORE, &["nodes"]),
            may(&["create", "patch", "update"], EVENTS, &["events"]),
            may(READ, CORE, &["pods"]),
            may(&["create", "delete"], CORE, &["pods"]),
            may(&["patch", "update"], CORE, &["pods/status"]),
            may(CREATE, CORE, &["pods/eviction"]),
            may(READ, CORE, &["configmaps", "secrets"]),
            may(&["get"], CORE, &["persistentvolumeclaims", "persistentvolumes"]),
            may(&["get"], CORE, &["endpoints"]),
            may(
                &["create", "get", "list", "watch"],
                &["certificates.k8s.io"],
                &["certificatesigningrequests"],
            ),
            may(&["create", "delete", "get", "patch", "update"], COORDINATION, &["leases"]),
            may(&["get"], STORAGE, &["volumeattachments"]),
            may(&["get", "patch", "update"], CORE, &["persistentvolumeclaims/status"]),
            may(CREATE, CORE, &["serviceaccounts/token"]),
            may(READ, STORAGE, &["csidrivers"]),
            may(&["create", "delete", "get", "patch", "update"], STORAGE, &["csinodes"]),
            may(READ, &["node.k8s.io"], &["runtimeclasses"]),
        ],
    ),
    // Pods, namespaces and policies of the whole cluster decide what a node's packet filter lets pass.
    role(
        "cofferdam:node-network",
        &[
            may(READ, CORE, &["endpoints", "namespaces", "nodes", "pods", "services"]),
            may(READ, DISCOVERY, &["endpointslices"]),
            may(READ, NETWORKING, &["networkpolicies"]),
            may(READ, &["policy.networking.k8s.io"], ALL),
        ],
    ),
    role(
        "system:node-problem-detector",
        &[may(&["get"], CORE, &["nodes"]), may(&["patch"], CORE, &["nodes/status"]), events()],
    ),
    role(
        "system:node-proxier",
        &[
            may(&["list", "watch"], CORE, &["endpoints", "services"]),
            may(READ, CORE, &["nodes"]),
            events(),
            may(&["list", "watch"], DISCOVERY, &["endpointslices"]),
            may(&["list", "watch"], NETWORKING, &["servicecidrs"]),
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            may(READ, CORE, &["nodes"]),
            may(&["proxy"], CORE, &["nodes"]),
            may(ALL, CORE, &["nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats"]),
        ],
    ),
    role(
        "system:node-bootstrapper",
        &[may(
            &["create", "get", "list", "watch"],
            &["certificates.k8s.io"],
            &["certificatesigningrequests"],
        )],
    ),
    role(
        "system:auth-delegator",
        &[
            may(CREATE, AUTHENTICATION, &["tokenreviews"]),
            may(CREATE, AUTHORIZATION, &["subjectaccessreviews"]),
        ],
    ),
    role("system:kube-aggregator", &[may(READ, CORE, &["endpoints", "services"])]),
    role(
        "system:kube-dns",
        &[
            may(&["list", "watch"], CORE, &["endpoints", "services"]),
            may(&["list", "watch"], DISCOVERY, &["endpointslices"]),
        ],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[paths(
            &["get"],
            &[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ],
        )],
    ),
    role(
        "system:kube-controller-manager",
        &[
            events(),
            may(CREATE, COORDINATION, &["leases"]),
            named(&["get", "update"], COORDINATION, &["leases"], &["kube-controller-manager"]),
            may(CREATE, CORE, &["secrets", "serviceaccounts"]),
            may(&["delete"], CORE, &["secrets"]),
            may(&["get"], CORE, &["configmaps", "namespaces", "secrets", "serviceaccounts"]),
            may(&["update"], CORE, &["secrets", "serviceaccounts"]),
            may(CREATE, AUTHENTICATION, &["tokenreviews"]),
            may(CREATE, AUTHORIZATION, &["subjectaccessreviews"]),
            may(CREATE, CORE, &["serviceaccounts/token"]),
            may(&["list", "watch"], ALL, ALL),
        ],
    ),
    role(
        "system:kube-scheduler",
        &[
            events(),
            may(CREATE, COORDINATION, &["leases"]),
            named(&["get", "list", "update", "watch"], COORDINATION, &["leases"], &["kube-scheduler"]),
            may(READ, CORE, &["nodes"]),
            may(&["delete", "get", "list", "watch"], CORE, &["pods"]),
            may(CREATE, CORE, &["bindings", "pods/binding"]),
            may(&["patch", "update"], CORE, &["pods/status"]),
            may(READ, CORE, &["replicationcontrollers", "services"]),
            may(READ, APPS, &["replicasets"]),
            may(READ, APPS, &["statefulsets"]),
            may(READ, POLICY, &["poddisruptionbudgets"]),
            may(READ, CORE, &["persistentvolumeclaims", "persistentvolumes"]),
            may(CREATE, AUTHENTICATION, &["tokenreviews"]),
            may(CREATE, AUTHORIZATION, &["subjectaccessreviews"]),
            may(READ, STORAGE, &["csinodes"]),
            may(READ, CORE, &["namespaces"]),
            may(READ, STORAGE, &["csidrivers"]),
            may(READ, STORAGE, &["csistoragecapacities"]),
        ],
    ),
    role(
        "system:volume-scheduler",
        &[
            may(READ_UPDATE, CORE, &["persistentvolumes"]),
            may(READ, STORAGE, &["storageclasses"]),
            may(READ_UPDATE, CORE, &["persistentvolumeclaims"]),
        ],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            may(&["create", "delete", "get", "list", "watch"], CORE, &["persistentvolumes"]),
            may(&["get", "list", "update", "watch"], CORE, &["persistentvolumeclaims"]),
            may(READ, STORAGE, &["storageclasses"]),
            may(&["watch"], CORE, &["events"]),
            events(),
        ],
    ),
];

use Who::{Account, Group, User};

const BINDINGS: &[Given] = &[
    Given { role: "cluster-admin", to: &[Group("system:masters")] },
    Given { role: "system:discovery", to: &[Group("system:authenticated")] },
    Given { role: "system:basic-user", to: &[Group("system:authenticated")] },
    Given {
        role: "system:public-info-viewer",
        to: &[Group("system:authenticated"), Group("system:unauthenticated")],
    },
    Given { role: "system:monitoring", to: &[Group("system:monitoring")] },
    Given { role: "system:node", to: &[] },
    Given { role: "cofferdam:node-network", to: &[Group("system:nodes")] },
    Given { role: "system:node-proxier", to: &[User("system:kube-proxy")] },
    Given { role: "system:kube-controller-manager", to: &[User("system:kube-controller-manager")] },
    Given { role: "system:kube-dns", to: &[Account("kube-system", "kube-dns")] },
    Given { role: "system:kube-scheduler", to: &[User("system:kube-scheduler")] },
    Given { role: "system:volume-scheduler", to: &[User("system:kube-scheduler")] },
    Given { role: "system:service-account-issuer-discovery", to: &[Group("system:serviceaccounts")] },
];
