//! What of a Deployment's spec its rollout is computed from: its fenceposts, and what makes two templates one.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::deployment::POD_TEMPLATE_HASH;

/// (maxSurge, maxUnavailable) in pods: percentages of the size, surge rounded up, unavailable down; if both come to
/// nothing, one may be unavailable, or nothing could ever change (`ResolveFenceposts`).
pub fn fenceposts(spec: &DeploymentSpec) -> (i32, i32) {
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return (0, 0);
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let replicas = i64::from(spec.replicas.unwrap_or(1));
    let resolve = |value: Option<&IntOrString>, round_up: bool| -> i32 {
        let pods = match value {
            Some(IntOrString::Int(pods)) => i64::from(*pods),
            other => {
                let percent = match other {
                    Some(IntOrString::String(text)) => text.trim_end_matches('%').parse::<i64>().unwrap_or(0),
                    _ => 25,
                };
                let hundredths = percent.saturating_mul(replicas);
                if round_up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) }
            }
        };
        i32::try_from(pods.max(0)).unwrap_or(i32::MAX)
    };
    let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), true);
    let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Equal but for the label the controller adds.
pub fn equal_ignoring_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let without = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        // A template is never created: some servers and clients write the field nevertheless.
        meta.creation_timestamp = None;
        if let Some(labels) = &mut meta.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        for map in [&mut meta.labels, &mut meta.annotations] {
            if map.as_ref().is_some_and(BTreeMap::is_empty) {
                *map = None;
            }
        }
        template
    };
    without(a) == without(b)
}

/// A name for a template, in the alphabet Kubernetes uses (no vowels, so no words). Its value is our own: upstream
/// hashes a memory dump of Go's types.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let text = serde_json::to_vec(template).expect("a pod template serializes");
    let mut digest = Sha256::new();
    digest.update(&text);
    if collisions > 0 {
        digest.update(collisions.to_le_bytes());
    }
    let digest = digest.finalize();
    let mut number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let mut hash = String::new();
    for _ in 0..10 {
        let letter = ALPHABET[(number % 27) as usize];
        hash.push(char::from(letter));
        number /= 27;
    }
    hash
}
