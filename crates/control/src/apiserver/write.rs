//! Creates and updates: an object from a body or a patch, through defaults, admission and validation, into the store.

use std::{sync::Arc, time::Duration};

use api::{
    ApiError, defaults,
    field::{Error, ErrorList, Path, quote},
    registry::Resource,
    strict::Expected,
    validation,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    ApiServer, Context, decode, events, key,
    owners::{self, Owners},
    request::Route,
    respond::{self, Body},
    select, services, stored, strategy, text,
};
use crate::{
    admission::{self, Operation},
    authorization::Written,
    random,
    store::{Action, Encoded, Expect, Object, ReadError, Store, Write, WriteError},
    time_zones,
};

/// What a write left: an object in the store, or what would be there (dry run) or was.
pub enum Outcome {
    Stored(Arc<Object>),
    Value(Value),
}

impl Outcome {
    pub fn into_value(self) -> Value {
        match self {
            Outcome::Stored(object) => object.value(),
            Outcome::Value(value) => value,
        }
    }
}

/// What a write makes of an object.
pub struct Change {
    pub object: Value,
    pub owners: Owners,
}

impl From<Value> for Change {
    fn from(object: Value) -> Change {
        Change { object, owners: Owners::Tracked }
    }
}

/// What becomes of an object that is there.
pub enum Step {
    Keep,
    Put(Value),
    /// The object as it was last, for the answer.
    Remove(Value),
}

/// What a step did.
pub enum Done {
    Kept(Arc<Object>),
    Put(Outcome),
    Removed(Value),
}

/// Tries of a write that others overtake.
const TRIES: usize = 32;
/// Tries of a generated name, as upstream's.
const NAMES: usize = 8;
/// How long an admission plugin may wait for another part's object.
const PATIENCE: Duration = Duration::from_secs(1);

/// Decodes a body of the route's kind, in the form it is stored in.
pub fn decode_body(
    route: &Route,
    context: &mut Context,
    media: &str,
    body: &[u8],
) -> Result<Value, ApiError> {
    let kind = route.subresource.map_or(route.resource.group_version_kind(), |sub| sub.kind);
    let api_version = if kind.group.is_empty() {
        kind.version.to_owned()
    } else {
        format!("{}/{}", kind.group, kind.version)
    };
    let expected = Expected { api_version: &api_version, kind: kind.kind };
    let decoded = decode::object(media, body, expected, context.validation)?;
    context.warnings.extend(decoded.warnings);
    Ok(match events::stored_shape(route.resource) {
        Some(shape) => shape(decoded.value),
        None => decoded.value,
    })
}

pub fn write_failed(error: WriteError, resource: &Resource, name: &str) -> ApiError {
    match error {
        WriteError::Conflict(None) => ApiError::not_found(resource, name),
        WriteError::Conflict(Some(_)) => ApiError::modified(resource, name),
        WriteError::TooLarge(_) => ApiError::too_large(crate::store::MAX_OBJECT),
        WriteError::Engine(why) => ApiError::internal(why),
    }
}

pub fn read_failed(error: ReadError) -> ApiError {
    match error {
        ReadError::Expired { requested, oldest } => ApiError::too_old_resource_version(requested, oldest),
        ReadError::Future { .. } => {
            let mut failure = ApiError::timeout(&error.to_string()).retry_after(1);
            failure.details.get_or_insert_default().causes.push(api::error::Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            });
            failure
        }
    }
}

/// `metadata` as an object, made where it is missing.
fn metadata(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let Value::Object(map) = &mut object["metadata"] else { unreachable!("made above") };
    map
}

/// An object without namespace is put into that of the path; another namespace is refused.
fn settle_namespace(route: &Route, object: &mut Value) -> Result<(), ApiError> {
    let meta = metadata(object);
    if !route.resource.namespaced() {
        meta.remove("namespace");
        return Ok(());
    }
    match meta.get("namespace").and_then(Value::as_str).unwrap_or_default() {
        given if given == route.namespace => Ok(()),
        "" => {
            meta.insert("namespace".into(), route.namespace.as_str().into());
            Ok(())
        }
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

impl ApiServer {
    pub(super) fn admission_request<'a>(
        &'a self,
        operation: Operation,
        route: &'a Route,
        context: &'a Context,
        name: &'a str,
        old: Option<&'a Value>,
    ) -> admission::Request<'a> {
        admission::Request {
            operation,
            resource: stored(route.resource),
            subresource: route.subresource_name(),
            namespace: &route.namespace,
            name,
            user: &context.user,
            old,
            store: &self.store,
            audit: &context.audit,
        }
    }

    /// Runs the validating plugins for a request without an object of its own kind: delete, connect, bind.
    pub(super) fn admit(
        &self,
        operation: Operation,
        route: &Route,
        context: &mut Context,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let mut warnings = Vec::new();
        let request = self.admission_request(operation, route, context, &route.name, old);
        let verdict = admission::validate(&self.admission, &request, None, &mut warnings);
        context.warnings.extend(warnings);
        verdict
    }

    /// Lets roles and bindings pass that give away no more than their writer holds.
    fn confirm_no_escalation(
        &self,
        route: &Route,
        context: &Context,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let written = Written {
            resource: stored(route.resource),
            namespace: &route.namespace,
            asked_name: &route.name,
            new,
            old,
        };
        self.authorizer.confirm_no_escalation(&context.user, &written)
    }

    /// Creates an object given in its stored form.
    pub(super) async fn create(
        &self,
        route: &Route,
        context: &mut Context,
        object: Value,
    ) -> Result<Outcome, ApiError> {
        self.create_owned(route, context, object, Owners::Tracked).await
    }

    pub(super) async fn create_owned(
        &self,
        route: &Route,
        context: &mut Context,
        mut object: Value,
        owners: Owners,
    ) -> Result<Outcome, ApiError> {
        let resource = stored(route.resource);
        settle_namespace(route, &mut object)?;
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::new(500, api::error::Reason::Unknown, why));
        }
        let meta = metadata(&mut object);
        for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            meta.remove(field);
        }
        meta.insert("uid".into(), random::uuid().into());
        meta.insert("creationTimestamp".into(), respond::timestamp(jiff::Timestamp::now()).into());
        let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or_default().to_owned();
        let generates =
            meta.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() && !prefix.is_empty();
        defaults::apply(resource, &mut object);
        let sent = owners::take(&mut object);
        let managed = match owners {
            Owners::Applied(managed) => managed,
            Owners::Tracked => owners::created(route, context, &object, sent)?,
        };
        owners::put(&mut object, managed);

        let mut tries = 0;
        loop {
            tries += 1;
            if generates {
                // The whole must fit into a name of 63 (apimachinery's `names.SimpleNameGenerator`).
                let cut: String = prefix.chars().take(58).collect();
                object["metadata"]["name"] = format!("{cut}{}", random::suffix()).into();
            }
            let again = generates && tries < NAMES;
            let candidate = if again { object.clone() } else { std::mem::take(&mut object) };
            match self.create_named(route, resource, context, candidate).await {
                Err(error) if again && error.reason == api::error::Reason::AlreadyExists => {}
                Err(error) if generates && error.reason == api::error::Reason::AlreadyExists => {
                    let name = error.details.map(|details| details.name).unwrap_or_default();
                    return Err(ApiError::generate_name_conflict(route.resource, &name));
                }
                other => return other,
            }
        }
    }

    async fn create_named(
        &self,
        route: &Route,
        resource: &'static Resource,
        context: &mut Context,
        mut object: Value,
    ) -> Result<Outcome, ApiError> {
        let name = text(&object, "/metadata/name").to_owned();
        context.record.named(&name);
        self.wait_for_what_is_awaited(route, context, &object).await;
        let request = self.admission_request(Operation::Create, route, context, &name, None);
        admission::mutate(&self.admission, &request, &mut object)?;
        defaults::apply(resource, &mut object);
        self.confirm_no_escalation(route, context, &object, None)?;
        strategy::prepare_create(resource, &mut object);
        self.services.prepare(resource, &mut object, None)?;

        let mut errors = validation::validate_create(resource, &object);
        time_zones::check(&mut errors, resource, &object, None);
        if !errors.is_empty() {
            let shown = if name.is_empty() { text(&object, "/metadata/generateName") } else { &name };
            return Err(ApiError::invalid(resource.group, resource.kind, shown, &errors));
        }
        let mut warnings = Vec::new();
        let verdict = admission::validate(&self.admission, &request, Some(&object), &mut warnings);
        context.warnings.extend(warnings);
        verdict?;
        // Validation refuses such a name; a key must hold even where a kind's validation does not look.
        if name.is_empty() || name.contains('/') {
            let mut errors = ErrorList::new();
            errors.push(Error::required(
                &Path::new("metadata").child("name"),
                "name or generateName is required",
            ));
            return Err(ApiError::invalid(resource.group, resource.kind, &name, &errors));
        }

        let key: Arc<str> = key(resource, &route.namespace, &name).into();
        let reserved = self.services.on_create(resource, &mut object)?;
        if context.options.dry_run {
            if self.store.get(&key).is_some() {
                return Err(ApiError::already_exists(route.resource, &name));
            }
            return Ok(Outcome::Value(object));
        }
        let encoded = Encoded::new(&mut object).with_attributes(select::attributes(resource, &object));
        match self.store.write(Write { key, expect: Expect::Absent, action: Action::Put(encoded) }).await {
            Ok(object) => {
                reserved.keep();
                Ok(Outcome::Stored(object))
            }
            Err(WriteError::Conflict(_)) => Err(ApiError::already_exists(route.resource, &name)),
            Err(error) => Err(write_failed(error, route.resource, &name)),
        }
    }

    /// Waits a moment for objects that admission wants and another part is about to make.
    async fn wait_for_what_is_awaited(&self, route: &Route, context: &Context, object: &Value) {
        let request = self.admission_request(Operation::Create, route, context, "", None);
        let keys: Vec<String> =
            self.admission.iter().filter_map(|plugin| plugin.awaits(&request, object)).collect();
        for key in keys {
            // Nothing will come into a namespace that is not there.
            if self.store.get(&key).is_some()
                || self.store.get(&format!("/namespaces/{}", route.namespace)).is_none()
            {
                continue;
            }
            let (listed, mut watcher) = self.store.list_and_watch(&key);
            if listed.objects.is_empty() {
                // Whether it came, admission sees for itself.
                drop(tokio::time::timeout(PATIENCE, watcher.next()).await);
            }
        }
    }

    /// Reads an object, decides a step and takes it; decides again where another write came between.
    pub(super) async fn step(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        dry_run: bool,
        decide: impl FnMut(&Arc<Object>, &Value) -> Result<Step, ApiError>,
    ) -> Result<Done, ApiError> {
        self.step_from(Store::get, resource, namespace, name, dry_run, decide).await
    }

    /// As [`step`](Self::step), with what `get` says is there ([`Context::sight`]).
    pub(super) async fn step_from(
        &self,
        get: fn(&Store, &str) -> Option<Arc<Object>>,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        dry_run: bool,
        mut decide: impl FnMut(&Arc<Object>, &Value) -> Result<Step, ApiError>,
    ) -> Result<Done, ApiError> {
        let key: Arc<str> = key(resource, namespace, name).into();
        for _ in 0..TRIES {
            let current = get(&self.store, &key).ok_or_else(|| ApiError::not_found(resource, name))?;
            let old = current.value();
            let expect = Expect::Revision(current.revision);
            let (action, last) = match decide(&current, &old)? {
                Step::Keep => return Ok(Done::Kept(current)),
                Step::Put(value) if dry_run => return Ok(Done::Put(Outcome::Value(value))),
                Step::Remove(last) if dry_run => return Ok(Done::Removed(last)),
                Step::Put(mut value) => {
                    let encoded = Encoded::new(&mut value)
                        .with_attributes(select::attributes(stored(resource), &value));
                    (Action::Put(encoded), None)
                }
                Step::Remove(last) => (Action::Delete, Some(last)),
            };
            match (self.store.write(Write { key: key.clone(), expect, action }).await, last) {
                (Ok(object), None) => return Ok(Done::Put(Outcome::Stored(object))),
                (Ok(object), Some(mut last)) => {
                    self.services.on_delete(stored(resource), &old);
                    last["metadata"]["resourceVersion"] = object.revision.to_string().into();
                    return Ok(Done::Removed(last));
                }
                (Err(WriteError::Conflict(_)), _) => {}
                (Err(error), _) => return Err(write_failed(error, resource, name)),
            }
        }
        Err(ApiError::modified(resource, name))
    }

    /// PUT: the body is the object.
    pub(super) async fn replace(
        &self,
        route: &Route,
        context: &mut Context,
        mut object: Value,
    ) -> Result<Response<Body>, ApiError> {
        settle_namespace(route, &mut object)?;
        let given = text(&object, "/metadata/name");
        if given.is_empty() {
            object["metadata"]["name"] = route.name.as_str().into();
        } else if given != route.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                route.name
            )));
        }
        let there = self.store.get(&key(route.resource, &route.namespace, &route.name)).is_some();
        if !there && route.subresource.is_none() && strategy::creates_on_update(stored(route.resource)) {
            self.authorize_create(&context.user, route)?;
            if let Some(meta) = object["metadata"].as_object_mut() {
                meta.remove("resourceVersion");
            }
            let outcome = self.create(route, context, object).await?;
            return Ok(self.respond(StatusCode::CREATED, route, context, outcome));
        }
        let outcome = self.update(route, context, |_, _| Ok(object.clone().into())).await?;
        Ok(self.respond(StatusCode::OK, route, context, outcome))
    }

    /// Changes an object that is there: `change` makes the new one from the old.
    pub(super) async fn update(
        &self,
        route: &Route,
        context: &mut Context,
        change: impl Fn(&Context, &Value) -> Result<Change, ApiError>,
    ) -> Result<Outcome, ApiError> {
        let resource = stored(route.resource);
        // A scale is written through the whole object; only admission tells it from an update of that.
        let part = match route.subresource_name() {
            "scale" => "",
            part => part,
        };
        let mut warnings = Vec::new();
        let mut reserved = services::Reserved::default();
        let sight = context.sight();
        let done = self
            .step_from(
                sight,
                route.resource,
                &route.namespace,
                &route.name,
                context.options.dry_run,
                |current, old| {
                    warnings.clear();
                    let Change { object: mut new, owners } = change(context, old)?;
                    self.check_preconditions(route, &new, current, old)?;
                    settle_namespace(route, &mut new)?;
                    let sent = owners::take(&mut new);
                    self.settle_metadata(&mut new, old);
                    defaults::apply(resource, &mut new);
                    let owners = match owners {
                        // Through the main path, before the server adds its own.
                        Owners::Tracked if part.is_empty() => {
                            Owners::Applied(owners::changed(route, context, old, &new, sent)?)
                        }
                        owners => owners,
                    };
                    let request =
                        self.admission_request(Operation::Update, route, context, &route.name, Some(old));
                    admission::mutate(&self.admission, &request, &mut new)?;
                    strategy::prepare_update(resource, part, &mut new, old);
                    let carried = owners::take(&mut new);
                    let managed = match owners {
                        Owners::Applied(managed) => managed,
                        Owners::Tracked => owners::changed(route, context, old, &new, carried)?,
                    };
                    owners::put(&mut new, managed);
                    if part.is_empty() {
                        self.services.prepare(resource, &mut new, Some(old))?;
                    }
                    new["metadata"]["resourceVersion"] = current.revision.to_string().into();
                    self.confirm_no_escalation(route, context, &new, Some(old))?;

                    let mut errors = match part {
                        "" => validation::validate_update(resource, &new, old),
                        sub => validation::validate_update_subresource(resource, sub, &new, old),
                    };
                    time_zones::check(&mut errors, resource, &new, Some(old));
                    if !errors.is_empty() {
                        return Err(ApiError::invalid(resource.group, resource.kind, &route.name, &errors));
                    }
                    admission::validate(&self.admission, &request, Some(&new), &mut warnings)?;
                    // What an overtaken try took goes back first.
                    reserved = services::Reserved::default();
                    reserved = self.services.on_update(resource, &mut new, old)?;
                    if owners::is_unchanged(&new, old) {
                        return Ok(Step::Keep);
                    }
                    Ok(if super::delete::is_finished(resource, &new) {
                        Step::Remove(new)
                    } else {
                        Step::Put(new)
                    })
                },
            )
            .await;
        context.warnings.append(&mut warnings);
        let done = done?;
        if !context.options.dry_run {
            reserved.keep();
        }
        Ok(match done {
            Done::Kept(object) => Outcome::Stored(object),
            Done::Put(outcome) => outcome,
            Done::Removed(value) => Outcome::Value(value),
        })
    }

    /// The version and the identity that the new object claims must be those of the old one.
    fn check_preconditions(
        &self,
        route: &Route,
        new: &Value,
        current: &Object,
        old: &Value,
    ) -> Result<(), ApiError> {
        let (uid, given) = (text(old, "/metadata/uid"), text(new, "/metadata/uid"));
        if !given.is_empty() && given != uid {
            let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
            return Err(ApiError::conflict(route.resource, &route.name, &why));
        }
        let resource = stored(route.resource);
        let invalid = |value: Value, detail: &str| {
            let mut errors = ErrorList::new();
            errors.push(Error::invalid(&Path::new("metadata").child("resourceVersion"), value, detail));
            ApiError::invalid(resource.group, resource.kind, &route.name, &errors)
        };
        match text(new, "/metadata/resourceVersion") {
            "" if strategy::needs_revision(resource) => {
                Err(invalid(0.into(), "must be specified for an update"))
            }
            "" => Ok(()),
            given => match given.parse::<u64>() {
                Ok(revision) if revision == current.revision => Ok(()),
                Ok(_) => Err(ApiError::modified(route.resource, &route.name)),
                Err(_) => Err(invalid(
                    given.into(),
                    &format!("strconv.ParseUint: parsing {}: invalid syntax", quote(given)),
                )),
            },
        }
    }

    /// What no writer changes, and what a writer may leave out (`rest.BeforeUpdate`).
    fn settle_metadata(&self, new: &mut Value, old: &Value) {
        let meta = metadata(new);
        meta.remove("selfLink");
        for field in ["uid", "creationTimestamp"] {
            if new["metadata"].get(field).is_none_or(|value| value.is_null() || value == "") {
                strategy::set_or_remove(&mut new["metadata"], field, old["metadata"].get(field));
            }
        }
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            strategy::set_or_remove(&mut new["metadata"], field, old["metadata"].get(field));
        }
    }
}
