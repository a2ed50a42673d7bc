//! Which pods that are there a stricter level would refuse: nothing happens to them, and whoever labels the namespace should
//! know. One pod of each controller is looked at first, because its siblings are the same.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use policy::pod_security::{LevelVersion, evaluate};

use api::field::quote;

use crate::store::Store;

/// As upstream's `defaultNamespaceMaxPodsToCheck` and `defaultNamespacePodCheckTimeout`.
const MOST: usize = 3000;
const LONGEST: Duration = Duration::from_secs(1);

/// The warnings, in upstream's words and order.
pub fn warnings(
    store: &Store,
    namespace: &str,
    enforce: LevelVersion,
    exempt_runtime_classes: &[String],
) -> Vec<String> {
    let until = Instant::now() + LONGEST;
    let Ok(listed) = store.list(&format!("/pods/{namespace}/"), None) else {
        return vec!["failed to list pods while checking new PodSecurity enforce level".to_owned()];
    };
    // What cannot be read as a pod was not written by us, and is not left out of the count.
    let pods = listed.objects.iter().map(|object| serde_json::from_slice(object.bytes()).unwrap_or_default());
    let pods = by_importance(pods, exempt_runtime_classes);

    let mut violations: BTreeMap<String, Violators> = BTreeMap::new();
    let mut checked = 0;
    for pod in pods.iter().take(MOST) {
        checked += 1;
        let verdict = pod.spec.as_ref().map(|spec| evaluate(enforce, &pod.metadata, spec));
        if let Some(verdict) = verdict.filter(|verdict| !verdict.allowed()) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            violations.entry(verdict.reasons()).or_default().add(name);
        }
        if Instant::now() > until {
            break;
        }
    }
    let mut warnings = Vec::new();
    if checked < pods.len() {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
            pods.len()
        ));
    }
    if !violations.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {} violate the new PodSecurity enforce level {}",
            quote(namespace),
            quote(&enforce.to_string())
        ));
    }
    let mut lines: Vec<String> =
        violations.iter().map(|(reasons, who)| format!("{}: {reasons}", who.words())).collect();
    lines.sort_unstable();
    warnings.extend(lines);
    warnings
}

/// The first pod of each controller and those without one, then the rest; exempted ones are left out.
fn by_importance(pods: impl Iterator<Item = Pod>, exempt_runtime_classes: &[String]) -> Vec<Pod> {
    let mut seen = HashSet::new();
    let exempt = |pod: &Pod| {
        let class = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_ref());
        class.is_some_and(|class| exempt_runtime_classes.contains(class))
    };
    let (mut first, rest): (Vec<Pod>, Vec<Pod>) = pods.filter(|pod| !exempt(pod)).partition(|pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        controller.is_none_or(|owner| seen.insert(owner.uid.clone()))
    });
    first.extend(rest);
    first
}

/// Pods that violate the same checks.
#[derive(Default)]
struct Violators {
    /// The first by name.
    name: String,
    count: usize,
}

impl Violators {
    fn add(&mut self, name: &str) {
        if self.count == 0 || name < self.name.as_str() {
            name.clone_into(&mut self.name);
        }
        self.count += 1;
    }

    fn words(&self) -> String {
        match self.count {
            1 => self.name.clone(),
            2 => format!("{} (and 1 other pod)", self.name),
            count => format!("{} (and {} other pods)", self.name, count - 1),
        }
    }
}
