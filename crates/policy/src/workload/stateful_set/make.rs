//! The pods of a StatefulSet: each has a name of its own that it keeps, and so a host name and a record in the name service
//! (`pkg/controller/statefulset/stateful_set_utils.go`).

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::workload::history::REVISION;
use crate::workload::replica_set::pod_from_template;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number at the end of the name of a pod of that StatefulSet; None: it is not one of its pods.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let name =
        pod.metadata.name.as_deref()?.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let number: i32 = name.parse().ok().filter(|number| *number >= 0)?;
    // `web-01` and `web-+1` are not names that it gives.
    (number.to_string() == name).then_some(i64::from(number))
}

/// The number of the first pod.
pub fn start(spec: &StatefulSetSpec) -> i64 {
    spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).into()
}

/// A revision, by its name, and the template it is of.
#[derive(Clone, Copy, Debug)]
pub struct Revision<'a> {
    pub name: &'a str,
    pub template: &'a PodTemplateSpec,
}

pub fn pod(set: &StatefulSet, owner: &OwnerReference, revision: Revision<'_>, ordinal: i64) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pod_from_template(revision.template, namespace, owner.clone());
    let name = format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity(&name, ordinal));
    labels.insert(REVISION.to_owned(), revision.name.to_owned());
    pod.metadata.name = Some(name.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|service| !service.is_empty());
    pod
}

/// The labels by which a Service or a policy can mean the pod of that name alone.
pub fn identity(name: &str, ordinal: i64) -> BTreeMap<String, String> {
    [(POD_NAME.to_owned(), name.to_owned()), (POD_INDEX.to_owned(), ordinal.to_string())].into()
}

/// Those labels, where the pod has lost its name's.
pub fn lost_identity(pod: &Pod, ordinal: i64) -> Option<BTreeMap<String, String>> {
    let name = pod.metadata.name.as_ref()?;
    let has = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_NAME)) == Some(name);
    (!has).then(|| identity(name, ordinal))
}
