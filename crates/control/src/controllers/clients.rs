//! Whom each loop is to the API server: a ServiceAccount of its own, as upstream with `--use-service-account-credentials`.
//! What it may do, its role `system:controller:<name>` says; the audit log names it. Nothing of this holds a credential: the
//! clients are in this process, and so no account has to be there.

use kube::Client;

use crate::apiserver::User;

pub(super) struct Clients {
    /// Discovery and the watches, which all loops share (upstream's shared informers).
    pub watches: Client,
    pub aggregation: Client,
    pub daemon_set: Client,
    pub deployment: Client,
    pub endpoints: Client,
    pub endpoint_slices: Client,
    pub endpoint_slice_mirroring: Client,
    pub garbage: Client,
    pub job: Client,
    pub namespace: Client,
    pub node: Client,
    pub pod_garbage: Client,
    pub replica_set: Client,
    pub replication: Client,
    pub root_ca: Client,
    pub service_account: Client,
    pub stateful_set: Client,
    pub ttl_after_finished: Client,
}

impl Clients {
    pub fn new(client: impl Fn(User) -> Client) -> Clients {
        let own = |name: &str| client(User::of_account("kube-system", name));
        Clients {
            watches: client(User::new("system:kube-controller-manager", [])),
            aggregation: own("clusterrole-aggregation-controller"),
            daemon_set: own("daemon-set-controller"),
            deployment: own("deployment-controller"),
            endpoints: own("endpoint-controller"),
            endpoint_slices: own("endpointslice-controller"),
            endpoint_slice_mirroring: own("endpointslicemirroring-controller"),
            garbage: own("generic-garbage-collector"),
            job: own("job-controller"),
            namespace: own("namespace-controller"),
            node: own("node-controller"),
            pod_garbage: own("pod-garbage-collector"),
            replica_set: own("replicaset-controller"),
            replication: own("replication-controller"),
            root_ca: own("root-ca-cert-publisher"),
            service_account: own("service-account-controller"),
            stateful_set: own("statefulset-controller"),
            ttl_after_finished: own("ttl-after-finished-controller"),
        }
    }
}
