//! Whom each loop is to the API server: a ServiceAccount of its own, as upstream with `--use-service-account-credentials`.
//! What it may do, its role `system:controller:<name>` says; the audit log names it. Nothing of this holds a credential: the
//! clients are in this process. The accounts are there for those who look them up, and bind more to them.

use kube::Client;

use crate::apiserver::User;

pub(super) const NAMESPACE: &str = "kube-system";

macro_rules! clients {
    ($($loop:ident: $account:literal,)*) => {
        pub(super) struct Clients {
            /// Discovery and the watches, which all loops share (upstream's shared informers).
            pub watches: Client,
            $(pub $loop: Client,)*
        }

        /// Names of the accounts, in [`NAMESPACE`].
        pub(super) const ACCOUNTS: &[&str] = &[$($account),*];

        impl Clients {
            pub fn new(client: impl Fn(User) -> Client) -> Clients {
                Clients {
                    watches: client(User::new("system:kube-controller-manager", [])),
                    $($loop: client(User::of_account(NAMESPACE, $account)),)*
                }
            }
        }
    };
}

clients! {
    aggregation: "clusterrole-aggregation-controller",
    cron_job: "cronjob-controller",
    daemon_set: "daemon-set-controller",
    deployment: "deployment-controller",
    endpoints: "endpoint-controller",
    endpoint_slices: "endpointslice-controller",
    endpoint_slice_mirroring: "endpointslicemirroring-controller",
    garbage: "generic-garbage-collector",
    job: "job-controller",
    namespace: "namespace-controller",
    node: "node-controller",
    pod_garbage: "pod-garbage-collector",
    replica_set: "replicaset-controller",
    replication: "replication-controller",
    root_ca: "root-ca-cert-publisher",
    service_account: "service-account-controller",
    stateful_set: "statefulset-controller",
    ttl_after_finished: "ttl-after-finished-controller",
}
