//! The pods of a Job.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{INDEX, TRACKING};
use crate::workload::replica_set::pod_from_template;

const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// A name that the server completes is cut to leave room for five characters (`names.MaxGeneratedNameLength`).
const LONGEST_PREFIX: usize = 58;

/// As the server is asked for it; `index` is an Indexed Job's.
pub fn pod(job: &Job, owner: &OwnerReference, index: Option<i32>) -> Pod {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = pod_from_template(&template, namespace, owner.clone());
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
    let Some(index) = index else { return pod };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let meta = &mut pod.metadata;
    let end = format!("-{index}-");
    let start: String = name.chars().take(LONGEST_PREFIX.saturating_sub(end.len())).collect();
    meta.generate_name = Some(format!("{start}{end}"));
    meta.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    meta.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let Some(spec) = &mut pod.spec else { return pod };
    spec.hostname = Some(format!("{name}-{index}"));
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        let env = container.env.get_or_insert_default();
        if env.iter().any(|variable| variable.name == VARIABLE) {
            continue;
        }
        let field =
            ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
        let from = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
        env.push(EnvVar { name: VARIABLE.to_owned(), value: None, value_from: Some(from) });
    }
    pod
}
