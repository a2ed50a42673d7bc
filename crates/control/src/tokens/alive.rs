//! Whether what a token is bound to is still there (upstream's `serviceaccount.validator`).

use serde::Deserialize;

use super::{Claims, LEEWAY, Reference, TokenError};
use crate::store::Store;

/// The little of an object that is asked for: reading this passes over the rest without keeping it.
#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<jiff::Timestamp>,
}

impl Metadata {
    /// Past the moment at which it should have gone.
    fn is_over(&self, now: i64) -> bool {
        self.deletion_timestamp.is_some_and(|at| at.as_second() < now - LEEWAY)
    }
}

fn read(store: &Store, key: &str) -> Option<Metadata> {
    let object = store.get(key)?;
    Some(serde_json::from_slice::<Head>(object.bytes()).ok()?.metadata)
}

/// Whether the account and what the token is bound to are the ones it was made for, at `now` (seconds since the epoch).
///
/// # Errors
/// What is gone, or is another object of the same name.
pub fn alive(store: &Store, claims: &Claims, now: i64) -> Result<(), TokenError> {
    let bound = &claims.kubernetes;
    let namespace = &bound.namespace;
    let account = read(store, &format!("/serviceaccounts/{namespace}/{}", bound.serviceaccount.name))
        .ok_or_else(|| TokenError::NoAccount(bound.serviceaccount.name.clone()))?;
    if account.uid != bound.serviceaccount.uid {
        let claimed = bound.serviceaccount.uid.clone();
        return Err(TokenError::OtherAccount { there: account.uid, claimed });
    }
    if account.is_over(now) {
        return Err(TokenError::AccountDeleted);
    }
    let there = |kind: &'static str, key: String, claim: &Reference| {
        let object = read(store, &key).ok_or(TokenError::Invalidated)?;
        if object.uid != claim.uid {
            let claimed = claim.uid.clone();
            return Err(TokenError::OtherObject { kind, there: object.uid, claimed });
        }
        if object.is_over(now) { Err(TokenError::Invalidated) } else { Ok(()) }
    };
    if let Some(secret) = &bound.secret {
        there("secret", format!("/secrets/{namespace}/{}", secret.name), secret)?;
    }
    if let Some(pod) = &bound.pod {
        // The node of a pod-bound token is told, not asked for: the pod's end follows its node's.
        return there("pod", format!("/pods/{namespace}/{}", pod.name), pod);
    }
    match &bound.node {
        Some(node) => there("node", format!("/nodes/{}", node.name), node),
        None => Ok(()),
    }
}
