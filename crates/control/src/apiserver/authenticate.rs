//! Who asks. What the connection says (a client certificate, the peer of a unix socket) counts first; else a bearer token
//! of a ServiceAccount. A request without either is nobody's; one with a token that is not taken is refused, whatever it
//! asks for.

use std::{collections::BTreeMap, sync::Arc};

use api::ApiError;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::{ApiServer, User, respond, text};
use crate::{
    audit::Record,
    pki,
    tokens::{self, Claims, ISSUER, TokenError},
};

/// Upstream's keys of what a token says beside who it is.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

impl User {
    /// Whom a client certificate names that TLS has verified: its common name, and as groups its organizations.
    pub fn of_certificate(der: &[u8]) -> Option<User> {
        let subject = pki::subject(der)?;
        let mut user = User::new(subject.common_name, subject.organizations);
        let id = format!("X509SHA256={}", pki::fingerprint(der));
        user.extra.insert(CREDENTIAL_ID.to_owned(), vec![id]);
        Some(user)
    }

    /// The ServiceAccount that a token was made for.
    fn service_account(claims: &Claims) -> User {
        let bound = &claims.kubernetes;
        let mut user = User::of_account(&bound.namespace, &bound.serviceaccount.name);
        user.uid.clone_from(&bound.serviceaccount.uid);
        let mut extra = BTreeMap::new();
        let mut say = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(key.to_owned(), vec![value.to_owned()]);
            }
        };
        say(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
        if let Some(pod) = &bound.pod {
            say(POD_NAME, &pod.name);
            say(POD_UID, &pod.uid);
        }
        if let Some(node) = &bound.node {
            say(NODE_NAME, &node.name);
            say(NODE_UID, &node.uid);
        }
        user.extra = extra;
        user
    }
}

/// A client whose token is not taken learns no more than that; the log says which token it was and what was wrong with it.
fn refused(record: &Record, claims: Option<&Claims>, error: &TokenError) -> ApiError {
    let mut why = error.to_string();
    if let Some(claims) = claims {
        why = format!("{}: {why}", claims.sub);
        record.annotate(CREDENTIAL_ID, format!("JTI={}", claims.jti));
    }
    record.annotate("authentication.cofferdam/refused", why);
    ApiError::unauthorized("")
}

/// The token of `Authorization: Bearer <token>`; the scheme's case does not matter.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut words = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().splitn(3, ' ');
    let scheme = words.next()?;
    words.next().filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

impl ApiServer {
    /// The user behind a request; None where nothing says who asks.
    ///
    /// # Errors
    /// Unauthorized, for a token that is not taken.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: Option<Arc<User>>,
        record: &Record,
    ) -> Result<Option<Arc<User>>, ApiError> {
        if connection.is_some() {
            return Ok(connection);
        }
        let Some(token) = bearer(headers) else { return Ok(None) };
        let now = respond::now();
        let claims =
            self.settings.tokens.verify(token, now).map_err(|error| refused(record, None, &error))?;
        let taken = tokens::audiences(&claims, &[ISSUER.to_owned()])
            .and_then(|_| tokens::alive(&self.store, &claims, now));
        taken.map_err(|error| refused(record, Some(&claims), &error))?;
        if let Some(late) = claims.kubernetes.warnafter.map(|at| now - at).filter(|late| *late > 0) {
            let said = format!("subject: {}, seconds after warning threshold: {late}", claims.sub);
            record.annotate("authentication.k8s.io/stale-token", said);
        }
        Ok(Some(Arc::new(User::service_account(&claims))))
    }

    /// Whose token this is, and for which of the audiences it is meant.
    fn user_of_token(&self, token: &str, asked: &[String]) -> Result<(User, Vec<String>), TokenError> {
        let now = respond::now();
        let claims = self.settings.tokens.verify(token, now)?;
        let audiences = tokens::audiences(&claims, asked)?;
        tokens::alive(&self.store, &claims, now)?;
        Ok((User::service_account(&claims), audiences))
    }

    /// The status of a TokenReview.
    ///
    /// # Errors
    /// BadRequest without a token.
    pub(super) fn review_token(&self, review: &Value) -> Result<Value, ApiError> {
        let token = text(review, "/spec/token");
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = review["spec"]["audiences"].as_array().into_iter().flatten();
        let mut asked: Vec<String> = asked.filter_map(|one| Some(one.as_str()?.to_owned())).collect();
        if asked.is_empty() {
            asked.push(ISSUER.to_owned());
        }
        Ok(match self.user_of_token(token, &asked) {
            Ok((user, audiences)) => {
                json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
            }
            Err(error @ TokenError::Invalid) => json!({"user": {}, "error": error.to_string()}),
            Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
        })
    }
}

/// `authentication.k8s.io/v1` UserInfo.
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stands_behind_its_scheme() {
        let table = [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("  Bearer abc  ", Some("abc")),
            ("Bearer abc def", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ];
        for (value, want) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers), want, "{value:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
