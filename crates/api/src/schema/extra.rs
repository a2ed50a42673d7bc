//! Types that Kubernetes' own OpenAPI document does not have, by hand: ClusterNetworkPolicy, whose source is the v1alpha2
//! types of the network-policy-api project. They have no protobuf form.

use super::Kind::*;
use super::Shape::{List, One};
use super::{Field, Shape, Type, TypeKind, generated};

/// Where the indices of these types begin.
pub(super) const BASE: u16 = 0x8000;

const GROUP: &str = "policy.networking.k8s.io";
const SELECTOR: Shape = One(Object(generated_type("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector")));
const OBJECT_META: u16 = generated_type("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
const LIST_META: u16 = generated_type("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
const CONDITION: u16 = generated_type("io.k8s.apimachinery.pkg.apis.meta.v1.Condition");

const POLICY: u16 = BASE;
const SPEC: u16 = BASE + 4;
const STATUS: u16 = BASE + 5;
const SUBJECT: u16 = BASE + 6;
const EGRESS_PEER: u16 = BASE + 1;
const EGRESS_RULE: u16 = BASE + 2;
const INGRESS_PEER: u16 = BASE + 7;
const INGRESS_RULE: u16 = BASE + 8;
const PROTOCOL: u16 = BASE + 9;
const PROTOCOL_PORTS: u16 = BASE + 10;
const NAMESPACED_POD: u16 = BASE + 11;
const PORT: u16 = BASE + 12;
const PORT_RANGE: u16 = BASE + 13;

/// Nothing is left out for being empty: `protocols: []` must reach validation, which refuses it.
const fn f(name: &'static str, shape: Shape) -> Field {
    Field::new(name, shape, 0, 0).by_pointer()
}

const fn part(name: &'static str, fields: &'static [Field]) -> Type {
    Type { name, kinds: &[], atomic: false, fields }
}

/// The index of a generated type; fails to compile where there is none.
const fn generated_type(name: &str) -> u16 {
    let mut at = 0;
    while at < generated::TYPES.len() {
        if same(generated::TYPES[at].name.as_bytes(), name.as_bytes()) {
            return at as u16;
        }
        at += 1;
    }
    panic!("no such type");
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

pub(super) static TYPES: &[Type] = &[
    Type {
        name: "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicy",
        kinds: &[TypeKind { group: GROUP, version: "v1alpha2", kind: "ClusterNetworkPolicy" }],
        atomic: false,
        fields: &[
            f("apiVersion", One(String)),
            f("kind", One(String)),
            f("metadata", One(Object(OBJECT_META))),
            f("spec", One(Object(SPEC))).required(),
            f("status", One(Object(STATUS))),
        ],
    },
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyEgressPeer",
        &[
            f("domainNames", List(String)).set(),
            f("namespaces", SELECTOR),
            f("networks", List(String)).set(),
            f("nodes", SELECTOR),
            f("pods", One(Object(NAMESPACED_POD))),
        ],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyEgressRule",
        &[
            f("action", One(String)).required(),
            f("name", One(String)),
            f("protocols", List(Object(PROTOCOL))),
            f("to", List(Object(EGRESS_PEER))).required(),
        ],
    ),
    Type {
        name: "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyList",
        kinds: &[TypeKind { group: GROUP, version: "v1alpha2", kind: "ClusterNetworkPolicyList" }],
        atomic: false,
        fields: &[
            f("apiVersion", One(String)),
            f("items", List(Object(POLICY))).required(),
            f("kind", One(String)),
            f("metadata", One(Object(LIST_META))),
        ],
    },
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicySpec",
        &[
            f("egress", List(Object(EGRESS_RULE))),
            f("ingress", List(Object(INGRESS_RULE))),
            f("priority", One(Int32)).required(),
            f("subject", One(Object(SUBJECT))).required(),
            f("tier", One(String)).required(),
        ],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyStatus",
        &[f("conditions", List(Object(CONDITION))).required().by_keys(&["type"])],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicySubject",
        &[f("namespaces", SELECTOR), f("pods", One(Object(NAMESPACED_POD)))],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyIngressPeer",
        &[f("namespaces", SELECTOR), f("pods", One(Object(NAMESPACED_POD)))],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyIngressRule",
        &[
            f("action", One(String)).required(),
            f("from", List(Object(INGRESS_PEER))).required(),
            f("name", One(String)),
            f("protocols", List(Object(PROTOCOL))),
        ],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyProtocol",
        &[
            f("destinationNamedPort", One(String)),
            f("sctp", One(Object(PROTOCOL_PORTS))),
            f("tcp", One(Object(PROTOCOL_PORTS))),
            f("udp", One(Object(PROTOCOL_PORTS))),
        ],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyProtocolPorts",
        &[f("destinationPort", One(Object(PORT)))],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.NamespacedPod",
        &[f("namespaceSelector", SELECTOR), f("podSelector", SELECTOR).required()],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.Port",
        &[f("number", One(Int32)), f("range", One(Object(PORT_RANGE)))],
    ),
    part(
        "io.k8s.networking.policy.v1alpha2.PortRange",
        &[f("end", One(Int32)).required(), f("start", One(Int32)).required()],
    ),
];
