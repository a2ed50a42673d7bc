//! Deletes: at once, after a grace period (pods), or once the finalizers are gone. What upstream's registry decides in
//! `BeforeDelete`, `CheckGracefulDelete` and `deletionFinalizersForGarbageCollection`.

use api::{
    ApiError, error,
    field::{Error, ErrorList, Path},
    registry::Resource,
};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use http::{Response, StatusCode};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::{
    ApiServer, Context, decode, key,
    request::Route,
    respond::{self, Body},
    select::Selection,
    stored, strategy, text,
    write::{Done, Outcome, Step, read_failed},
};
use crate::admission::{self, Operation};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// How many objects of a collection are deleted at a time: enough to share commits.
const AT_A_TIME: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seconds.
    grace: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
}

impl Options {
    /// Reads the body, or where there is none the query.
    ///
    /// # Errors
    /// BadRequest for what is no such body, Invalid for values that are none.
    pub fn read(media: &str, body: &[u8], context: &Context) -> Result<Options, ApiError> {
        let given = decode::delete_options(media, body)?;
        let query = &context.query;
        let query_text = |name: &str| query.find(name).filter(|_| body.is_empty()).map(str::to_owned);
        let grace = match given["gracePeriodSeconds"].as_i64() {
            None if body.is_empty() => query.number("gracePeriodSeconds")?,
            grace => grace,
        };
        let policy = given["propagationPolicy"]
            .as_str()
            .map(str::to_owned)
            .or_else(|| query_text("propagationPolicy"));
        let orphan = given["orphanDependents"]
            .as_bool()
            .or_else(|| query_text("orphanDependents").map(|_| query.flag("orphanDependents")));
        let mut errors = ErrorList::new();
        let path = Path::new("propagationPolicy");
        if policy.is_some() && orphan.is_some() {
            let both = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(Error::invalid(&path, policy.clone().unwrap_or_default(), both));
        }
        let propagation = match policy.as_deref() {
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) if !other.is_empty() => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(Error::not_supported(&path, other, &known));
                None
            }
            _ => orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
        };
        let mut dry_run = context.options.dry_run;
        for value in given["dryRun"].as_array().into_iter().flatten() {
            match value.as_str() {
                Some("All") => dry_run = true,
                other => errors.push(Error::not_supported(
                    &Path::new("dryRun"),
                    other.unwrap_or_default(),
                    &["All"],
                )),
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        let precondition = |name: &str| given["preconditions"][name].as_str().map(str::to_owned);
        Ok(Options {
            grace,
            propagation,
            uid: precondition("uid"),
            revision: precondition("resourceVersion"),
            dry_run,
        })
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    let meta = &object["metadata"];
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let is_namespace = (resource.group, resource.plural) == ("", "namespaces");
    !meta["deletionTimestamp"].is_null()
        && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && empty(&meta["finalizers"])
        && (!is_namespace || empty(&object["spec"]["finalizers"]))
}

/// The finalizers after the client said what is to become of dependents; None where nothing changes.
fn finalizers_for(old: &Value, propagation: Option<Propagation>) -> Option<Vec<String>> {
    let current: Vec<String> = old["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let added = match propagation? {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let mut next: Vec<String> = current
        .iter()
        .filter(|name| ![ORPHAN, FOREGROUND].contains(&name.as_str()) || Some(name.as_str()) == added)
        .cloned()
        .collect();
    if let Some(added) = added.filter(|added| !next.iter().any(|name| name == added)) {
        next.push(added.to_owned());
    }
    (next != current).then_some(next)
}

/// Seconds a pod gets to end (`podStrategy.CheckGracefulDelete`).
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let unbound = text(pod, "/spec/nodeName").is_empty();
    let over = matches!(text(pod, "/status/phase"), "Failed" | "Succeeded");
    if unbound || over {
        return 0;
    }
    match asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

/// What a delete does to `old`.
fn decide(
    resource: &'static Resource,
    options: &Options,
    old: &Value,
    now: Timestamp,
) -> Result<Step, ApiError> {
    let name = text(old, "/metadata/name");
    let checks = [
        ("UID", "/metadata/uid", &options.uid),
        ("ResourceVersion", "/metadata/resourceVersion", &options.revision),
    ];
    for (what, pointer, wanted) in checks {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != text(old, pointer)) {
            let there = text(old, pointer);
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {there}"
            );
            return Err(ApiError::conflict(resource, name, &why));
        }
    }
    let mut new = old.clone();
    if let Some(finalizers) = finalizers_for(old, options.propagation) {
        let value = (!finalizers.is_empty()).then(|| json!(finalizers));
        strategy::set_or_remove(&mut new["metadata"], "finalizers", value.as_ref());
    }
    let deleting = !old["metadata"]["deletionTimestamp"].is_null();
    let begin = |new: &mut Value, seconds: i64| {
        let at = now.checked_add(seconds.seconds()).unwrap_or(now);
        new["metadata"]["deletionTimestamp"] = respond::timestamp(at).into();
        new["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
        if let Some(generation) = new["metadata"]["generation"].as_i64().filter(|g| *g > 0) {
            new["metadata"]["generation"] = (generation + 1).into();
        }
    };
    match (resource.group, resource.plural) {
        ("", "pods") if deleting => {
            // The grace period may only become shorter.
            let current = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
            if let Some(asked) = options.grace.map(|asked| if asked < 0 { 1 } else { asked })
                && asked < current
                && let Ok(end) = text(old, "/metadata/deletionTimestamp").parse::<Timestamp>()
            {
                let at = end.checked_sub((current - asked).seconds()).unwrap_or(end);
                new["metadata"]["deletionTimestamp"] = respond::timestamp(at).into();
                new["metadata"]["deletionGracePeriodSeconds"] = asked.into();
            }
        }
        ("", "pods") => begin(&mut new, pod_grace(old, options.grace)),
        ("", "namespaces") => {
            if !deleting {
                begin(&mut new, 0);
                strategy::set_or_remove(&mut new["metadata"], "deletionGracePeriodSeconds", None);
            }
            new["status"]["phase"] = "Terminating".into();
        }
        _ if !deleting => begin(&mut new, 0),
        _ => {}
    }
    if is_finished(resource, &new) {
        return Ok(Step::Remove(new));
    }
    Ok(if new == *old { Step::Keep } else { Step::Put(new) })
}

impl ApiServer {
    /// DELETE of one object.
    pub(super) async fn delete(
        &self,
        route: &Route,
        context: &mut Context,
        options: &Options,
    ) -> Result<Response<Body>, ApiError> {
        let done = self.delete_one(route, context, options).await?;
        let outcome = match done {
            Done::Kept(object) => Outcome::Stored(object),
            Done::Put(outcome) => outcome,
            Done::Removed(last) if strategy::returns_deleted(route.resource) => Outcome::Value(last),
            Done::Removed(last) => {
                let status = error::deleted(route.resource, &route.name, text(&last, "/metadata/uid"));
                return Ok(respond::json_value(StatusCode::OK, &status));
            }
        };
        Ok(self.respond(StatusCode::OK, route, context, outcome))
    }

    /// Begins or ends the deletion of one object.
    pub(super) async fn delete_one(
        &self,
        route: &Route,
        context: &Context,
        options: &Options,
    ) -> Result<Done, ApiError> {
        self.step(
            route.resource,
            &route.namespace,
            &route.name,
            options.dry_run || context.options.dry_run,
            |_, old| {
                let request = admission::Request {
                    operation: Operation::Delete,
                    resource: stored(route.resource),
                    subresource: "",
                    namespace: &route.namespace,
                    name: &route.name,
                    user: &context.user,
                    old: Some(old),
                    store: &self.store,
                    audit: &context.audit,
                };
                admission::validate(&self.admission, &request, None, &mut Vec::new())?;
                decide(stored(route.resource), options, old, Timestamp::now())
            },
        )
        .await
    }

    /// Deletes an object that was listed: None where somebody else was faster.
    async fn delete_listed(
        &self,
        route: Route,
        context: &Context,
        options: &Options,
    ) -> Result<Option<Value>, ApiError> {
        match self.delete_one(&route, context, options).await {
            Ok(Done::Removed(value)) => Ok(Some(value)),
            Ok(Done::Put(outcome)) => Ok(Some(outcome.into_value())),
            Ok(Done::Kept(object)) => Ok(Some(object.value())),
            Err(error) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// DELETE of a collection: every object that the selectors match.
    pub(super) async fn delete_collection(
        &self,
        route: &Route,
        context: &mut Context,
        options: &Options,
    ) -> Result<Response<Body>, ApiError> {
        let selection = Selection::parse(route.resource, &context.query)?;
        let prefix = key(route.resource, &route.namespace, "");
        let listed = self.store.list(&prefix, None).map_err(read_failed)?;
        let context = &*context;
        let routes = listed.objects.iter().filter(|object| selection.matches(object)).map(|object| {
            let mut parts = object.key.rsplit('/');
            let name = parts.next().unwrap_or_default().to_owned();
            let namespace = if route.resource.namespaced() { parts.next().unwrap_or_default() } else { "" };
            Route { name, namespace: namespace.to_owned(), ..route.clone() }
        });
        let deletions: Vec<BoxFuture<'_, _>> =
            routes.map(|route| self.delete_listed(route, context, options).boxed()).collect();
        let deleted: Vec<Option<Value>> = stream::iter(deletions).buffered(AT_A_TIME).try_collect().await?;
        let items: Vec<Value> = deleted.into_iter().flatten().collect();
        let list = json!({
            "kind": route.resource.list_kind(),
            "apiVersion": route.resource.api_version(),
            "metadata": {"resourceVersion": self.store.revision().to_string()},
            "items": items,
        });
        Ok(respond::json_value(StatusCode::OK, &list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::registry;

    fn pod(node: &str, phase: &str) -> Value {
        json!({"metadata": {"name": "a", "uid": "u", "generation": 1},
               "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}})
    }

    fn grace(seconds: i64) -> Options {
        Options { grace: Some(seconds), ..Options::default() }
    }

    fn ask(plural: &str, options: &Options, old: &Value) -> (&'static str, Value) {
        let resource = registry::resources().iter().find(|r| r.plural == plural).unwrap();
        match decide(resource, options, old, "2026-01-01T00:00:00Z".parse().unwrap()).unwrap() {
            Step::Keep => ("kept", old.clone()),
            Step::Put(value) => ("put", value),
            Step::Remove(value) => ("removed", value),
        }
    }

    #[test]
    fn a_running_pod_gets_its_grace_period_and_others_none() {
        let none = Options::default();
        let (what, new) = ask("pods", &none, &pod("n", "Running"));
        assert_eq!((what, &new["metadata"]["deletionTimestamp"]), ("put", &json!("2026-01-01T00:00:30Z")));
        assert_eq!(new["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(ask("pods", &none, &pod("", "Pending")).0, "removed");
        assert_eq!(ask("pods", &none, &pod("n", "Succeeded")).0, "removed");
        assert_eq!(ask("pods", &grace(0), &pod("n", "Running")).0, "removed");
        let (_, one) = ask("pods", &grace(-5), &pod("n", "Running"));
        assert_eq!(one["metadata"]["deletionGracePeriodSeconds"], 1);
    }

    #[test]
    fn a_grace_period_only_becomes_shorter() {
        let (_, old) = ask("pods", &Options::default(), &pod("n", "Running"));
        assert_eq!(ask("pods", &Options::default(), &old).0, "kept");
        assert_eq!(ask("pods", &grace(60), &old).0, "kept");
        let (what, new) = ask("pods", &grace(5), &old);
        assert_eq!((what, &new["metadata"]["deletionTimestamp"]), ("put", &json!("2026-01-01T00:00:05Z")));
        assert_eq!(ask("pods", &grace(0), &old).0, "removed");
    }

    #[test]
    fn finalizers_hold_an_object() {
        let mut old = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
        let (what, new) = ask("configmaps", &Options::default(), &old);
        assert_eq!((what, &new["metadata"]["deletionGracePeriodSeconds"]), ("put", &json!(0)));
        assert_eq!(ask("configmaps", &Options::default(), &new).0, "kept");
        old["metadata"]["finalizers"] = json!([]);
        assert_eq!(ask("configmaps", &Options::default(), &old).0, "removed");
        let orphan = Options { propagation: Some(Propagation::Orphan), ..Options::default() };
        let (what, new) = ask("deployments", &orphan, &old);
        assert_eq!((what, &new["metadata"]["finalizers"]), ("put", &json!(["orphan"])));
        let background = Options { propagation: Some(Propagation::Background), ..Options::default() };
        assert_eq!(ask("deployments", &background, &new).0, "removed");
        let foreground = Options { propagation: Some(Propagation::Foreground), ..Options::default() };
        assert_eq!(
            ask("deployments", &foreground, &new).1["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
    }

    #[test]
    fn a_namespace_waits_for_its_own_finalizers() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let (what, mut new) = ask("namespaces", &Options::default(), &old);
        assert_eq!((what, &new["status"]["phase"]), ("put", &json!("Terminating")));
        assert_eq!(ask("namespaces", &Options::default(), &new).0, "kept");
        new["spec"]["finalizers"] = json!([]);
        assert!(is_finished(registry::by_plural("", "v1", "namespaces").unwrap(), &new));
    }

    #[test]
    fn preconditions_name_what_differs() {
        let options = Options { uid: Some("v".into()), ..Options::default() };
        let resource = registry::by_plural("", "v1", "pods").unwrap();
        let Err(error) = decide(resource, &options, &pod("n", "Running"), Timestamp::now()) else { panic!() };
        assert_eq!(
            error.message,
            "Operation cannot be fulfilled on pods \"a\": Precondition failed: UID in precondition: v, UID in object meta: u"
        );
    }
}
