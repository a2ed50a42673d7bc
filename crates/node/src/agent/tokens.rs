//! The tokens in one pod's volumes: asked of the API server by the node's own identity, bound to the pod, kept in memory, and
//! asked again well before they end (kubelet `pkg/kubelet/token`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{Pod, ServiceAccount},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, api::PostParams};
use policy::env::TokenSource;

use super::context::lock;
use crate::volumes;

/// A token is replaced after a day, however long it may live.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// Replaced so much earlier at most, by chance, so that not all pods ask at once.
const JITTER: SignedDuration = SignedDuration::from_secs(10);
/// After a failure the old one serves on; it is asked again after so long.
const PAUSE: SignedDuration = SignedDuration::from_secs(60);

#[derive(Clone, Debug)]
struct Held {
    token: String,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of one pod.
#[derive(Default)]
pub struct PodTokens(Mutex<HashMap<TokenSource, Held>>);

impl PodTokens {
    /// A token for each of the pod's sources, new where the one at hand is due.
    ///
    /// # Errors
    /// The words of a FailedMount event, where there is no token that is still good.
    pub async fn current(&self, client: &Client, pod: &Pod) -> Result<BTreeMap<TokenSource, String>, String> {
        let mut current = BTreeMap::new();
        for source in volumes::tokens(pod) {
            let now = Timestamp::now();
            let held = lock(&self.0).get(&source).cloned();
            let token = match held {
                Some(held) if now < held.renew_at => held.token,
                held => match (fetch(client, pod, &source, now).await, held) {
                    (Ok(new), _) => {
                        lock(&self.0).insert(source.clone(), new.clone());
                        new.token
                    }
                    (Err(error), Some(old)) if now < old.expires_at => {
                        eprintln!(
                            "renew a token of pod {}: {error}",
                            pod.metadata.name.as_deref().unwrap_or_default()
                        );
                        lock(&self.0).insert(source.clone(), Held { renew_at: now + PAUSE, ..old.clone() });
                        old.token
                    }
                    (Err(error), held) => {
                        if let Some(old) = held {
                            lock(&self.0).insert(source.clone(), Held { renew_at: now + PAUSE, ..old });
                        }
                        return Err(format!("failed to fetch token: {error}"));
                    }
                },
            };
            current.insert(source, token);
        }
        Ok(current)
    }

    /// When the first of them is to be replaced.
    pub fn renew_at(&self) -> Option<Timestamp> {
        lock(&self.0).values().map(|held| held.renew_at).min()
    }
}

/// At four fifths of its life, or after a day, and a little earlier. (The API server may let it live longer than it says.)
fn renew_at(expires_at: Timestamp, seconds: i64, jitter: SignedDuration) -> Timestamp {
    let life = SignedDuration::from_secs(seconds);
    let issued = expires_at - life;
    (expires_at - SignedDuration::from_secs(seconds / 5)).min(issued + LONGEST) - jitter
}

async fn fetch(client: &Client, pod: &Pod, source: &TokenSource, now: Timestamp) -> Result<Held, String> {
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref());
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let asked = TokenRequest {
        spec: TokenRequestSpec {
            audiences: Some(source.audience.clone()).filter(|one| !one.is_empty()).into_iter().collect(),
            expiration_seconds: Some(source.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
        },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &asked)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status.ok_or("the API server sent none")?;
    let expires_at = status.expiration_timestamp.0;
    let chance = SignedDuration::from_nanos(i64::from(now.subsec_nanosecond()) * JITTER.as_secs());
    Ok(Held { token: status.token, renew_at: renew_at(expires_at, source.seconds, chance), expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_at_four_fifths_of_its_life_or_after_a_day() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let day = 24 * 3600;
        for (seconds, after) in [(600, 480), (3600, 2880), (3607, 2886), (day, day * 4 / 5), (10 * day, day)]
        {
            let expires = now + SignedDuration::from_secs(seconds);
            let got = renew_at(expires, seconds, SignedDuration::ZERO).duration_since(now).as_secs();
            assert_eq!(got, after, "{seconds}");
            let early = renew_at(expires, seconds, JITTER).duration_since(now).as_secs();
            assert_eq!(early, after - 10, "{seconds}");
        }
    }
}
