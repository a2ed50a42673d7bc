//! What a request asks for: its resource, its verb, its query. Decided from method and path alone, by the registry's rows.

use api::{
    ApiError,
    registry::{self, Resource, Subresource},
};
use http::Method;

use crate::audit;

/// What is done to a resource, in the words of discovery and authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    pub fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// A request for a resource.
#[derive(Clone, Debug)]
pub struct Route {
    pub resource: &'static Resource,
    /// "" for all namespaces, and for what has none.
    pub namespace: String,
    /// "" for the collection.
    pub name: String,
    pub subresource: Option<&'static Subresource>,
    pub verb: Verb,
}

impl Route {
    pub fn subresource_name(&self) -> &'static str {
        self.subresource.map_or("", |sub| sub.name)
    }
}

/// The query, decoded; of a name that stands twice the first counts, as in Go's `url.Values.Get`.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Query(pairs.collect())
    }

    /// "" where it is absent.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As upstream's conversion of query parameters: absent, "", "0" and "false" are false, all else is true.
    pub fn flag(&self, name: &str) -> bool {
        !matches!(self.get(name), "" | "0") && !self.get(name).eq_ignore_ascii_case("false")
    }

    /// # Errors
    /// BadRequest for what is not a number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }
}

/// Percent-decodes; `plus` makes a space of "+", as in a query. What is no UTF-8 is replaced, and then found nowhere.
pub fn decode(text: &str, plus: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = || {
            let digit = |at: usize| tail.get(at).and_then(|d| char::from(*d).to_digit(16));
            u8::try_from(digit(0)? * 16 + digit(1)?).ok()
        };
        match byte {
            b'+' if plus => out.push(b' '),
            b'%' => match escaped() {
                Some(byte) => {
                    out.push(byte);
                    rest = &tail[2..];
                }
                None => out.push(b'%'),
            },
            other => out.push(*other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The parts of a path that addresses a resource: group, version, and what follows. None for any other path.
fn split(path: &str) -> Option<(String, String, Vec<String>)> {
    let mut parts: Vec<String> =
        path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false)).collect();
    let head = match parts.first()?.as_str() {
        "api" => 2,
        "apis" => 3,
        _ => return None,
    };
    if parts.len() <= head {
        return None;
    }
    let rest = parts.split_off(head);
    let version = parts.pop()?;
    let group = if head == 3 { parts.pop()? } else { String::new() };
    Some((group, version, rest))
}

/// Reads the address of a resource. `Ok(None)` for a path that is no resource's.
///
/// # Errors
/// A resource that is not served, or not with this method.
pub fn route(method: &Method, path: &str, query: &Query) -> Result<Option<Route>, ApiError> {
    let Some((group, version, rest)) = split(path) else { return Ok(None) };
    let mut rest = rest.into_iter();
    let mut namespace = String::new();
    let mut plural = rest.next().unwrap_or_default();
    let mut name = rest.next().unwrap_or_default();
    let mut subresource = rest.next().unwrap_or_default();
    // `namespaces/x/pods` is a namespace's pods; `namespaces/x/status` is the namespace's own status.
    let own =
        |sub: &str| registry::by_plural("", "v1", "namespaces").is_some_and(|r| r.subresource(sub).is_some());
    if plural == "namespaces" && !subresource.is_empty() && !(group.is_empty() && own(&subresource)) {
        namespace = name;
        plural = subresource;
        name = rest.next().unwrap_or_default();
        subresource = rest.next().unwrap_or_default();
    }
    if rest.next().is_some() {
        return Err(ApiError::no_such_path());
    }
    let resource = registry::by_plural(&group, &version, &plural).ok_or_else(ApiError::no_such_path)?;
    if namespace.is_empty() == resource.namespaced() && !(resource.namespaced() && name.is_empty()) {
        return Err(ApiError::no_such_path());
    }
    let verb = match (method, name.is_empty()) {
        (&Method::GET | &Method::HEAD, true) if query.flag("watch") => Verb::Watch,
        (&Method::GET | &Method::HEAD, true) => Verb::List,
        (&Method::GET | &Method::HEAD, false) => Verb::Get,
        (&Method::POST, _) => Verb::Create,
        (&Method::PUT, false) => Verb::Update,
        (&Method::PATCH, false) => Verb::Patch,
        (&Method::DELETE, false) => Verb::Delete,
        (&Method::DELETE, true) => Verb::DeleteCollection,
        _ => return Err(ApiError::method_not_allowed()),
    };
    let route = |subresource| Route { resource, namespace, name, subresource, verb };
    if subresource.is_empty() {
        let route = route(None);
        let on_collection = verb == Verb::Create;
        let needs_namespace = on_collection && resource.namespaced();
        if !resource.supports(verb.as_str())
            || on_collection && !route.name.is_empty()
            || needs_namespace && route.namespace.is_empty()
        {
            return Err(ApiError::method_not_allowed());
        }
        return Ok(Some(route));
    }
    let subresource = resource.subresource(&subresource).ok_or_else(ApiError::no_such_path)?;
    if !subresource.verbs.contains(&verb.as_str()) {
        return Err(ApiError::method_not_allowed());
    }
    Ok(Some(route(Some(subresource))))
}

/// A request for a resource as its address alone says, whether or not there is one: what authorization is asked where
/// [`route`] finds nothing (upstream's `RequestInfo`).
#[derive(Debug)]
pub struct Asked {
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
}

impl Asked {
    /// For the audit log.
    pub fn target(&self) -> audit::Target {
        audit::Target {
            resource: self.resource.clone().into(),
            group: self.group.clone().into(),
            version: self.version.clone().into(),
            subresource: self.subresource.clone().into(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// None for a path that is no resource's.
pub fn asked(method: &Method, path: &str, query: &Query) -> Option<Asked> {
    let (group, version, rest) = split(path)?;
    let mut parts: &[String] = &rest;
    let mut namespace = String::new();
    if parts.first().is_some_and(|first| first == "namespaces") {
        namespace = parts.get(1).cloned().unwrap_or_default();
        // These two are the namespace's own.
        if parts.get(2).is_some_and(|third| !matches!(third.as_str(), "status" | "finalize")) {
            parts = &parts[2..];
        }
    }
    let part = |at: usize| parts.get(at).cloned().unwrap_or_default();
    let name = part(1);
    let verb = match (method, name.is_empty()) {
        (&Method::POST, _) => "create",
        (&Method::GET | &Method::HEAD, false) => "get",
        (&Method::GET | &Method::HEAD, true) if query.flag("watch") => "watch",
        (&Method::GET | &Method::HEAD, true) => "list",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, false) => "delete",
        (&Method::DELETE, true) => "deletecollection",
        _ => "",
    };
    Some(Asked { verb, group, version, namespace, resource: part(0), subresource: part(2), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, target: &str) -> Result<Option<Route>, ApiError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        route(&method.parse().unwrap(), path, &Query::parse(query))
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let table = [
            ("GET", "/api/v1/pods", "list pods  "),
            ("GET", "/api/v1/pods?watch=true", "watch pods  "),
            ("GET", "/api/v1/pods?watch=false", "list pods  "),
            ("GET", "/api/v1/namespaces/d/pods/a", "get pods d a"),
            ("GET", "/api/v1/namespaces/d/pods/a%2fb", "get pods d a/b"),
            ("GET", "/api/v1/namespaces", "list namespaces  "),
            ("GET", "/api/v1/namespaces/d", "get namespaces  d"),
            ("PUT", "/api/v1/namespaces/d/finalize", "update namespaces/finalize  d"),
            ("PATCH", "/api/v1/namespaces/d/status", "patch namespaces/status  d"),
            ("POST", "/api/v1/namespaces/d/pods/a/binding", "create pods/binding d a"),
            ("POST", "/apis/apps/v1/namespaces/d/deployments", "create deployments d "),
            ("DELETE", "/apis/apps/v1/namespaces/d/deployments", "deletecollection deployments d "),
            ("GET", "/api/v1/nodes/n", "get nodes  n"),
        ];
        for (method, target, want) in table {
            let route = ask(method, target).unwrap().unwrap();
            let sub = route.subresource.map(|s| format!("/{}", s.name)).unwrap_or_default();
            let (verb, plural) = (route.verb.as_str(), route.resource.plural);
            assert_eq!(format!("{verb} {plural}{sub} {} {}", route.namespace, route.name), want, "{target}");
        }
    }

    #[test]
    fn what_is_not_served_is_404_and_what_has_no_such_method_405() {
        let table = [
            ("GET", "/api/v1/gadgets", 404),
            ("GET", "/apis/apps/v9/deployments", 404),
            ("GET", "/api/v1/pods/a", 404),
            ("GET", "/api/v1/namespaces/d/nodes/a", 404),
            ("GET", "/api/v1/namespaces/d/pods/a/gadget", 404),
            ("GET", "/api/v1/namespaces/d/pods/a/log/b", 404),
            ("POST", "/api/v1/pods", 405),
            ("POST", "/api/v1/namespaces/d/pods/a", 405),
            ("PUT", "/api/v1/namespaces/d/pods", 405),
            ("DELETE", "/api/v1/namespaces", 405),
            ("DELETE", "/api/v1/namespaces/d/pods/a/status", 405),
        ];
        for (method, target, code) in table {
            assert_eq!(ask(method, target).unwrap_err().code, code, "{method} {target}");
        }
        for path in ["/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version"] {
            assert!(ask("GET", path).unwrap().is_none(), "{path}");
        }
    }

    #[test]
    fn what_is_not_served_is_asked_for_all_the_same() {
        let table = [
            ("GET", "/api/v1/gadgets", "list gadgets  "),
            ("GET", "/api/v1/gadgets?watch=1", "watch gadgets  "),
            ("GET", "/apis/apps/v9/namespaces/d/gadgets/a/b", "get apps/gadgets/b d a"),
            ("POST", "/api/v1/pods", "create pods  "),
            ("PUT", "/api/v1/namespaces/d/pods", "update pods d "),
            ("DELETE", "/api/v1/namespaces", "deletecollection namespaces  "),
            ("DELETE", "/api/v1/namespaces/d/status", "delete namespaces/status d d"),
            ("DELETE", "/api/v1/namespaces/d/gadgets", "deletecollection gadgets d "),
            ("OPTIONS", "/api/v1/pods", " pods  "),
        ];
        for (method, target, want) in table {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let asked = asked(&method.parse().unwrap(), path, &Query::parse(query)).unwrap();
            let before = |text: &str| if text.is_empty() { String::new() } else { format!("{text}/") };
            let after = |text: &str| if text.is_empty() { String::new() } else { format!("/{text}") };
            let what = format!("{}{}{}", before(&asked.group), asked.resource, after(&asked.subresource));
            let got = format!("{} {what} {} {}", asked.verb, asked.namespace, asked.name);
            assert_eq!(got, want, "{method} {target}");
        }
        assert!(asked(&Method::GET, "/apis/apps", &Query::default()).is_none());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(
            "labelSelector=a%3Db%2Cc+in+(x)&limit=5&command=ls&command=-l&stdin=0&tty=true&bad=%zz",
        );
        assert_eq!(query.get("labelSelector"), "a=b,c in (x)");
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
        assert!(query.flag("tty") && !query.flag("stdin") && !query.flag("stdout"));
        assert_eq!(query.get("bad"), "%zz");
        assert!(query.number("labelSelector").is_err());
    }
}
