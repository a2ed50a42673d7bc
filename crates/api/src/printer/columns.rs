//! The columns of each kind: names, types and the descriptions of the API reference.

use super::{Cells, Column, Printer, pod, rows};

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const CONTAINERS: &str = "Names of each container in the template.";
const IMAGES: &str = "Images referenced by each container in the template.";

const fn column(
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    priority: i64,
    description: &'static str,
) -> Column {
    Column { name, kind, format, description, priority }
}

const fn text(name: &'static str, description: &'static str) -> Column {
    column(name, "string", "", 0, description)
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    column(name, "string", "", 1, description)
}

const fn int(name: &'static str, description: &'static str) -> Column {
    column(name, "integer", "", 0, description)
}

const fn named() -> Column {
    column("Name", "string", "name", 0, NAME)
}

const fn aged() -> Column {
    text("Age", AGE)
}

static POD: &[Column] = &[
    named(),
    text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    text("Status", "The aggregate status of the containers in this pod."),
    text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    aged(),
    wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    wide("Node", "NodeName indicates in which node this pod is scheduled."),
    wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods.",
    ),
    wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\"",
    ),
];

static REPLICA_SET: &[Column] = &[
    named(),
    int(
        "Desired",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1.",
    ),
    int("Current", "Replicas is the most recently observed number of pods."),
    int(
        "Ready",
        "readyReplicas is the number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    aged(),
    wide("Containers", CONTAINERS),
    wide("Images", IMAGES),
    wide(
        "Selector",
        "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels.",
    ),
];

static DEPLOYMENT: &[Column] = &[
    named(),
    text("Ready", "Number of the pod with ready state"),
    text(
        "Up-to-date",
        "Total number of non-terminated pods targeted by this deployment that have the desired template spec.",
    ),
    text(
        "Available",
        "Total number of available pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    aged(),
    wide("Containers", CONTAINERS),
    wide("Images", IMAGES),
    wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment.",
    ),
];

static DAEMON_SET: &[Column] = &[
    named(),
    int(
        "Desired",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod).",
    ),
    int(
        "Current",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod.",
    ),
    int(
        "Ready",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
    ),
    int("Up-to-date", "The total number of nodes that are running updated daemon pod"),
    int(
        "Available",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available",
    ),
    text("Node Selector", "NodeSelector is a selector which must be true for the pod to fit on a node."),
    aged(),
    wide("Containers", CONTAINERS),
    wide("Images", IMAGES),
    wide("Selector", "A label query over pods that are managed by the daemon set."),
];

static STATEFUL_SET: &[Column] = &[
    named(),
    text("Ready", "Number of the pod with ready state"),
    aged(),
    wide("Containers", CONTAINERS),
    wide("Images", IMAGES),
];

static POD_TEMPLATE: &[Column] = &[
    named(),
    text("Containers", CONTAINERS),
    text("Images", IMAGES),
    text("Pod Labels", "The labels for the pod template."),
];

static CONTROLLER_REVISION: &[Column] = &[
    named(),
    text("Controller", "Controller of the object"),
    int("Revision", "Revision indicates the revision of the state represented by Data."),
    aged(),
];

static CRON_JOB: &[Column] = &[
    named(),
    text("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
    text(
        "Timezone",
        "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones.",
    ),
    column("Suspend", "boolean", "", 0, "Whether further runs are held back."),
    int("Active", "The number of actively running jobs."),
    text("Last Schedule", "The time when the job was last successfully scheduled."),
    aged(),
    wide("Containers", CONTAINERS),
    wide("Images", IMAGES),
    wide("Selector", "A label query over pods that should match the pod count."),
];

static JOB: &[Column] = &[
    named(),
    text("Status", "Status of the job."),
    text(
        "Completions",
        "Completions is the desired number of successfully finished pods the job should be run with. Setting to null means that the success of any pod signals the success of all pods, and allows parallelism to have any positive value.",
    ),
    text("Duration", "Time required to complete the job."),
    aged(),
    wide("Containers", CONTAINERS),
    wide("Images", IMAGES),
    wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you.",
    ),
];

static SERVICE: &[Column] = &[
    named(),
    text(
        "Type",
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer.",
    ),
    text("Cluster-IP", "clusterIP is the IP address of the service and is usually assigned randomly."),
    text(
        "External-IP",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
    ),
    text("Port(s)", "The list of ports that are exposed by this service."),
    aged(),
    wide("Selector", "Route service traffic to pods with label keys and values matching this selector."),
];

static NODE: &[Column] = &[
    named(),
    text("Status", "The status of the node"),
    text("Roles", "The roles of the node"),
    aged(),
    text("Version", "Kubelet Version reported by the node."),
    wide("Internal-IP", "List of addresses reachable to the node."),
    wide("External-IP", "List of addresses reachable to the node."),
    wide(
        "OS-Image",
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    wide(
        "Kernel-Version",
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

static EVENT: &[Column] = &[
    text("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    text("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    text(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    text("Object", "The object that this event is about."),
    wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, a JSON/Go field access statement.",
    ),
    wide("Source", "The component reporting this event. Should be a short machine understandable string."),
    text("Message", "A human-readable description of the status of this operation."),
    wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    wide("Count", "The number of times this event has occurred."),
    column("Name", "string", "name", 1, NAME),
];

static NAMESPACE: &[Column] = &[named(), text("Status", "The status of the namespace"), aged()];

static CONFIG_MAP: &[Column] = &[
    named(),
    text(
        "Data",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'.",
    ),
    aged(),
];

static SECRET: &[Column] = &[
    named(),
    text("Type", "Used to facilitate programmatic handling of secret data."),
    text(
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'.",
    ),
    aged(),
];

static SERVICE_ACCOUNT: &[Column] = &[
    named(),
    text(
        "Secrets",
        "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use.",
    ),
    aged(),
];

static NETWORK_POLICY: &[Column] = &[
    named(),
    text("Pod-Selector", "podSelector selects the pods to which this NetworkPolicy object applies."),
    aged(),
];

static CLUSTER_NETWORK_POLICY: &[Column] =
    &[named(), text("Tier", ".spec.tier"), text("Priority", ".spec.priority"), aged()];

static ENDPOINTS: &[Column] =
    &[named(), text("Endpoints", "The set of all endpoints is the union of all subsets."), aged()];

static ENDPOINT_SLICE: &[Column] = &[
    named(),
    text("AddressType", "addressType specifies the type of address carried by this EndpointSlice."),
    text("Ports", "ports specifies the list of network ports exposed by each endpoint in this slice."),
    text("Endpoints", "endpoints is a list of unique endpoints in this slice."),
    aged(),
];

static LEASE: &[Column] = &[
    named(),
    text("Holder", "holderIdentity contains the identity of the holder of a current lease."),
    aged(),
];

static PRIORITY_CLASS: &[Column] = &[
    named(),
    int("Value", "value represents the integer value of this priority class."),
    column(
        "Global-Default",
        "boolean",
        "",
        0,
        "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class.",
    ),
    aged(),
    text("PreemptionPolicy", "preemptionPolicy is the Policy for preempting pods with lower priority."),
];

static ROLE: &[Column] = &[named(), column("Created At", "date", "", 0, AGE)];

static ROLE_BINDING: &[Column] = &[
    named(),
    text(
        "Role",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace.",
    ),
    aged(),
    wide("Users", "Users in the roleBinding"),
    wide("Groups", "Groups in the roleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

static DISRUPTION_BUDGET: &[Column] = &[
    named(),
    text("Min Available", "The minimum number of pods that must be available."),
    text("Max Unavailable", "The maximum number of pods that may be unavailable."),
    int("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
    aged(),
];

static PLAIN: &[Column] = &[named(), column("Created At", "date", "", 0, AGE)];

/// How objects of this kind are printed.
pub(super) fn printer(group: &str, kind: &str) -> Printer {
    let (columns, cells): (&'static [Column], Cells) = match (group, kind) {
        ("", "Pod") => (POD, pod::cells),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => (REPLICA_SET, rows::replica_set),
        ("apps", "Deployment") => (DEPLOYMENT, rows::deployment),
        ("apps", "StatefulSet") => (STATEFUL_SET, rows::stateful_set),
        ("", "PodTemplate") => (POD_TEMPLATE, rows::pod_template),
        ("apps", "DaemonSet") => (DAEMON_SET, rows::daemon_set),
        ("apps", "ControllerRevision") => (CONTROLLER_REVISION, rows::controller_revision),
        ("batch", "Job") => (JOB, rows::job),
        ("batch", "CronJob") => (CRON_JOB, rows::cron_job),
        ("", "Service") => (SERVICE, rows::service),
        ("", "Node") => (NODE, rows::node),
        ("", "Event") | ("events.k8s.io", "Event") => (EVENT, rows::event),
        ("", "Namespace") => (NAMESPACE, rows::namespace),
        ("", "ConfigMap") => (CONFIG_MAP, rows::config_map),
        ("", "Secret") => (SECRET, rows::secret),
        ("", "ServiceAccount") => (SERVICE_ACCOUNT, rows::service_account),
        ("networking.k8s.io", "NetworkPolicy") => (NETWORK_POLICY, rows::network_policy),
        ("policy.networking.k8s.io", "ClusterNetworkPolicy") => {
            (CLUSTER_NETWORK_POLICY, rows::cluster_network_policy)
        }
        ("", "Endpoints") => (ENDPOINTS, rows::endpoints),
        ("discovery.k8s.io", "EndpointSlice") => (ENDPOINT_SLICE, rows::endpoint_slice),
        ("coordination.k8s.io", "Lease") => (LEASE, rows::lease),
        ("scheduling.k8s.io", "PriorityClass") => (PRIORITY_CLASS, rows::priority_class),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => (ROLE, rows::plain),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            (ROLE_BINDING, rows::role_binding)
        }
        ("policy", "PodDisruptionBudget") => (DISRUPTION_BUDGET, rows::disruption_budget),
        _ => (PLAIN, rows::plain),
    };
    Printer { columns, cells }
}
