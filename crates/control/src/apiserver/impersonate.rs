//! Impersonation: a request made in somebody else's name, if its own user may (`kubectl --as`). Upstream's
//! `filters/impersonation.go`.

use std::{collections::BTreeMap, sync::Arc};

use api::ApiError;
use http::{HeaderMap, HeaderName};
use policy::rbac::{Request, Target};

use super::{ApiServer, User};
use crate::authorization::Question;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Who is to be impersonated.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// None where no header asks for it.
    ///
    /// # Errors
    /// Headers that ask for all but the user, or that are no text.
    fn read(headers: &HeaderMap) -> Result<Option<Wanted>, ApiError> {
        let mut wanted = Wanted::default();
        let mut asks = false;
        for (name, value) in headers {
            let extra = name.as_str().strip_prefix(EXTRA);
            if !(*name == USER || *name == UID || *name == GROUP || extra.is_some()) {
                continue;
            }
            asks = true;
            let value = value
                .to_str()
                .map_err(|_| ApiError::bad_request(format!("the header {name} is not text")))?
                .to_owned();
            match extra {
                Some(key) => wanted.extra.entry(super::request::decode(key, false)).or_default().push(value),
                None if *name == GROUP => wanted.groups.push(value),
                // Of a header that stands twice the first counts, as in Go.
                None if *name == USER && wanted.user.is_empty() => wanted.user = value,
                None if *name == UID && wanted.uid.is_empty() => wanted.uid = value,
                None => {}
            }
        }
        if asks && wanted.user.is_empty() {
            let mut parts: Vec<String> = wanted.groups.iter().map(|group| format!("Group {group}")).collect();
            parts.extend(wanted.extra.iter().map(|(key, values)| format!("UserExtra {key} {values:?}")));
            parts.extend((!wanted.uid.is_empty()).then(|| format!("UID {}", wanted.uid)));
            let why = format!("requested [{}] without impersonating a user", parts.join(", "));
            return Err(ApiError::internal(why));
        }
        Ok(asks.then_some(wanted))
    }

    /// Each thing the asker must be allowed to impersonate.
    fn targets(&self) -> Vec<Target<'_>> {
        let target = |group, resource, subresource, namespace, name| Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        };
        let mut out = vec![match account(&self.user) {
            Some((namespace, name)) => target("", "serviceaccounts", "", namespace, name),
            None => target("", "users", "", "", self.user.as_str()),
        }];
        out.extend(self.groups.iter().map(|group| target("", "groups", "", "", group.as_str())));
        for (key, values) in &self.extra {
            out.extend(values.iter().map(|value| target(AUTHENTICATION, "userextras", key, "", value)));
        }
        if !self.uid.is_empty() {
            out.push(target(AUTHENTICATION, "uids", "", "", &self.uid));
        }
        out
    }

    fn into_user(self) -> User {
        let mut groups = self.groups;
        if let Some((namespace, _)) = account(&self.user).filter(|_| groups.is_empty()) {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        let everybodys: &[&str] = match self.user.as_str() {
            User::ANONYMOUS => &[User::UNAUTHENTICATED],
            _ => &[User::AUTHENTICATED, User::UNAUTHENTICATED],
        };
        if !groups.iter().any(|group| everybodys.contains(&group.as_str())) {
            groups.push(everybodys[0].to_owned());
        }
        User { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

/// Namespace and name of the ServiceAccount with this user name.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

impl ApiServer {
    /// The user in whose name a request is made, where that is another than the one who makes it.
    ///
    /// # Errors
    /// Forbidden, in upstream's words; headers that make no sense.
    pub(super) fn impersonated(
        &self,
        headers: &HeaderMap,
        user: &User,
    ) -> Result<Option<Arc<User>>, ApiError> {
        let Some(wanted) = Wanted::read(headers)? else { return Ok(None) };
        for target in wanted.targets() {
            let request = Request { verb: "impersonate", target };
            self.authorizer.authorize(user, &Question { request, selected_node: "" })?;
        }
        Ok(Some(Arc::new(wanted.into_user())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn headers(lines: Lines<'_>) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        map
    }

    fn user(lines: Lines<'_>) -> User {
        Wanted::read(&headers(lines)).unwrap().unwrap().into_user()
    }

    #[test]
    fn headers_make_a_user() {
        assert_eq!(Wanted::read(&headers(&[("accept", "x")])).unwrap(), None);
        let table: [(Lines<'_>, &[&str]); 5] = [
            (&[("Impersonate-User", "jane")], &["system:authenticated"]),
            (
                &[("Impersonate-User", "jane"), ("Impersonate-Group", "b"), ("Impersonate-Group", "a")],
                &["b", "a", "system:authenticated"],
            ),
            (&[("Impersonate-User", "system:anonymous")], &["system:unauthenticated"]),
            (
                &[("Impersonate-User", "system:serviceaccount:d:s")],
                &["system:serviceaccounts", "system:serviceaccounts:d", "system:authenticated"],
            ),
            (
                &[("Impersonate-User", "system:serviceaccount:d:s"), ("Impersonate-Group", "g")],
                &["g", "system:authenticated"],
            ),
        ];
        for (lines, groups) in table {
            assert_eq!(user(lines).groups, groups, "{lines:?}");
        }
        let jane = user(&[
            ("Impersonate-User", "jane"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-Acme.com%2fProject", "a"),
            ("Impersonate-Extra-Acme.com%2fProject", "b"),
        ]);
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.extra["acme.com/project"], ["a", "b"]);
    }

    #[test]
    fn a_group_alone_is_nobody() {
        let error = Wanted::read(&headers(&[("Impersonate-Group", "system:masters")])).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (500, "Internal error occurred: requested [Group system:masters] without impersonating a user")
        );
    }
}
