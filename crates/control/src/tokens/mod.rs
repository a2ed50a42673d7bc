//! Service account tokens: JSON Web Tokens (RFC 7519) that say which ServiceAccount asks, for whom the token is meant, until
//! when, and to what its life is bound.
//!
//! A token is judged in two steps. [`Tokens::verify`] judges the text alone: form, signature, issuer, time; a signature once
//! found good is remembered. [`alive`] asks
//! the store whether the account, and the pod or Secret the token is bound to, are still the same ones; so a token ends with
//! its pod. Nothing about tokens is stored: who has the key can make them, and nobody else.
//!
//! Source: Kubernetes `pkg/serviceaccount/{jwt,claims}.go`.

mod alive;
mod base64url;
mod claims;
mod key;
mod seen;

use std::{path::Path, sync::Arc};

use api::field::quote;
use serde_json::{Value, json};

pub use alive::alive;
pub use claims::{Claims, Kubernetes, Reference, account_name};
pub use key::{KeyError, SigningKey};

/// Who issues tokens, and the audience of those meant for this API server (`--service-account-issuer` as kubeadm sets it).
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Clocks may differ by so much (go-jose's `DefaultLeeway`); an object being deleted counts as there for as long after its
/// deadline.
pub const LEEWAY: i64 = 60;

/// A token is a few hundred bytes; nobody's megabyte is decoded.
const LONGEST: usize = 16 << 10;

/// Why a token is not taken, in upstream's words. A client is told only `Unauthorized`; a TokenReview and the log tell more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token of ours: malformed, another issuer's, or not signed with our key.
    #[error("invalid bearer token")]
    Invalid,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("token audiences {} is invalid for the target audiences {}", listed(.0), listed(.1))]
    Audience(Vec<String>, Vec<String>),
    #[error("serviceaccounts {} not found", quote(.0))]
    NoAccount(String),
    #[error("service account UID ({there}) does not match claim ({claimed})")]
    OtherAccount { there: String, claimed: String },
    #[error("service account has been deleted")]
    AccountDeleted,
    #[error("service account token has been invalidated")]
    Invalidated,
    #[error("{kind} UID ({there}) does not match service account {kind} ref claim ({claimed})")]
    OtherObject { kind: &'static str, there: String, claimed: String },
}

/// `["a" "b"]`, as Go prints it.
fn listed(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(" "))
}

/// Makes and judges tokens.
pub struct Tokens {
    key: SigningKey,
    /// The first part of every token, encoded.
    header: String,
    seen: seen::Seen,
}

impl Tokens {
    /// With the key in `path`, made where there is none.
    ///
    /// # Errors
    /// A file that is no such key, or cannot be read or written.
    pub fn open(path: &Path) -> Result<Tokens, KeyError> {
        Ok(Tokens::with(SigningKey::open(path)?))
    }

    /// With a key that ends with the process, for tests.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn ephemeral() -> Result<Tokens, KeyError> {
        Ok(Tokens::with(SigningKey::generate()?))
    }

    fn with(key: SigningKey) -> Tokens {
        let header = json!({"alg": key::ALGORITHM, "kid": key.id()}).to_string();
        Tokens { header: base64url::encode(header.as_bytes()), key, seen: seen::Seen::default() }
    }

    /// The token that says `claims`.
    ///
    /// # Errors
    /// Where the kernel gives no randomness.
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let claims = serde_json::to_vec(claims).map_err(KeyError::Claims)?;
        let mut token = format!("{}.{}", self.header, base64url::encode(&claims));
        let signature = self.key.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&base64url::encode(signature.as_ref()));
        Ok(token)
    }

    /// What `token` claims, if this key signed it and the time (seconds since the epoch) is within its own.
    ///
    /// # Errors
    /// [`TokenError::Invalid`], `Expired`, `NotYet`.
    pub fn verify(&self, token: &str, now: i64) -> Result<Arc<Claims>, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Invalid);
        }
        let hash = seen::hash(token);
        let claims = match self.seen.get(&hash) {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.read(token)?);
                self.seen.put(hash, claims.clone());
                claims
            }
        };
        if now - LEEWAY > claims.exp {
            return Err(TokenError::Expired);
        }
        if now + LEEWAY < claims.nbf {
            return Err(TokenError::NotYet);
        }
        Ok(claims)
    }

    /// What `token` claims, if this key signed it.
    fn read(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        // There is one header that we write. Any other, `alg: none` among them, is not ours.
        if header != self.header {
            return Err(TokenError::Invalid);
        }
        let signature = base64url::decode(signature).ok_or(TokenError::Invalid)?;
        if !self.key.verifies(signed.as_bytes(), &signature) {
            return Err(TokenError::Invalid);
        }
        let payload = base64url::decode(payload).ok_or(TokenError::Invalid)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Invalid)?;
        if claims.iss != ISSUER {
            return Err(TokenError::Invalid);
        }
        Ok(claims)
    }

    /// The keys that verify tokens, as `/openid/v1/jwks` gives them (RFC 7517).
    pub fn key_set(&self) -> Value {
        json!({"keys": [self.key.jwk()]})
    }

    /// What `/.well-known/openid-configuration` says (OpenID Connect Discovery). The keys are where the issuer is, so that
    /// what runs in pods can follow it.
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [key::ALGORITHM],
        })
    }
}

/// The audiences of a token among those that are asked for.
///
/// # Errors
/// Where there is none.
pub fn audiences(claims: &Claims, asked: &[String]) -> Result<Vec<String>, TokenError> {
    let both: Vec<String> = claims.aud.iter().filter(|one| asked.contains(one)).cloned().collect();
    if both.is_empty() {
        return Err(TokenError::Audience(claims.aud.clone(), asked.to_vec()));
    }
    Ok(both)
}

#[cfg(test)]
mod tests;
