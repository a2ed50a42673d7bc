//! The API server: from an HTTP request to an object in the store and back. It is generic over the registry's rows, and
//! is reached over TLS, over unix sockets, and within the process ([`ApiServer::client`]), always by the same [`handle`].
//!
//! A request is routed, authenticated, authorized, then read, written, watched or proxied; each of these is a module. What
//! differs from kind to kind is in `strategy`, in `crate::admission`, and in the crate `api`.
//!
//! [`handle`]: ApiServer::handle

mod announce;
mod apply;
mod auth;
mod authenticate;
mod decode;
mod delete;
mod discovery;
mod events;
mod exec;
mod expire;
mod impersonate;
mod logs;
mod owners;
mod patch;
mod pods;
mod read;
mod request;
mod respond;
mod reviews;
mod scale;
mod select;
mod serve;
mod services;
mod strategy;
mod token_request;
mod watch;
mod write;
mod write_options;

use std::{path::PathBuf, sync::Arc, time::Duration};

use api::{ApiError, registry, registry::Resource, strict::FieldValidation};
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::{
    admission,
    audit::{self, Audit, Record},
    authorization::Authorizer,
    store::{Object, Store},
    tokens::Tokens,
};
use request::{Query, Route, Verb};
use respond::{Body, Failure, Representation};
use write_options::WriteOptions;

pub use auth::User;
pub use authenticate::user_info;
pub use expire::events as expire_events;
pub use serve::{ServeError, serve_tls, serve_unix};
pub use services::{AllocatorError, ServiceRanges};

/// A request that is no watch, log or exec is answered within this time, as upstream's `--request-timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the server must know beside its store.
#[derive(Clone)]
pub struct Settings {
    /// `host:port` of the TLS listener, for legacy discovery.
    pub address: String,
    /// Holds `nodes/<node>/agent.sock`.
    pub run_dir: PathBuf,
    pub ranges: ServiceRanges,
    pub tokens: Arc<Tokens>,
    pub audit: Audit,
    pub pod_security: admission::PodSecurityConfig,
}

/// The server; shared by every connection.
pub struct ApiServer {
    store: Store,
    authorizer: Authorizer,
    settings: Settings,
    admission: Vec<Box<dyn admission::Plugin>>,
    services: services::Allocator,
}

/// What a request carries beside its route.
struct Context {
    user: Arc<User>,
    query: Query,
    representation: Representation,
    validation: FieldValidation,
    options: WriteOptions,
    warnings: Vec<String>,
    audit: admission::Audit,
    record: Arc<Record>,
    looks_ahead: bool,
}

impl Context {
    /// What a write sees of the object it changes: the scheduler may have seen that before it is durable.
    fn sight(&self) -> fn(&Store, &str) -> Option<Arc<Object>> {
        if self.looks_ahead { Store::get_ahead } else { Store::get }
    }
}

/// Marks a request of a client made by [`ApiServer::client_ahead`].
#[derive(Clone)]
struct LooksAhead;

/// What is kept of a core object for selectors: its identity, and the fields that may be selected by.
pub(crate) fn selectable(plural: &str, object: &Value) -> Value {
    registry::by_plural("", "v1", plural).map_or(Value::Null, |row| select::attributes(row, object))
}

/// The row and key under which a route's objects are kept.
fn stored(resource: &'static Resource) -> &'static Resource {
    let (group, plural) = resource.stored_as;
    if (group, plural) == (resource.group, resource.plural) {
        return resource;
    }
    registry::resources().iter().find(|r| (r.group, r.plural) == (group, plural)).unwrap_or(resource)
}

/// `/pods/default/a`, `/nodes/n`; with an empty name the prefix of a collection.
fn key(resource: &'static Resource, namespace: &str, name: &str) -> String {
    let kept = stored(resource).qualified_resource();
    match (resource.namespaced(), namespace, name) {
        (true, "", _) => format!("/{kept}/"),
        (true, namespace, name) => format!("/{kept}/{namespace}/{name}"),
        (false, _, name) => format!("/{kept}/{name}"),
    }
}

impl ApiServer {
    /// A server over `store`. The addresses and ports of the Services there are taken.
    ///
    /// # Errors
    /// Ranges that are none.
    pub fn new(store: Store, settings: Settings) -> Result<Arc<ApiServer>, AllocatorError> {
        let services = services::Allocator::new(&settings.ranges, &store)?;
        let admission = admission::plugins(settings.pod_security.clone());
        let authorizer = Authorizer::new(&store);
        Ok(Arc::new(ApiServer { store, authorizer, settings, admission, services }))
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Answers one request; `user` is whom its connection names, None where it names nobody.
    pub async fn handle(
        self: Arc<Self>,
        mut request: Request<Body>,
        user: Option<Arc<User>>,
    ) -> Response<Body> {
        let is_head = request.method() == http::Method::HEAD;
        let record = self.settings.audit.begin(&request);
        request.extensions_mut().insert(record.clone());
        let mut response = match self.answer(request, user, &record).await {
            Ok(response) => response,
            Err(error) => respond::refusal(&error),
        };
        let stays_open = record.stays_open() && response.status().as_u16() < 400;
        record.answered(&mut response, stays_open);
        if stays_open {
            response = response.map(|body| respond::keeping(body, record));
        }
        if is_head { response.map(|_| respond::full("")) } else { response }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Body>,
        user: Option<Arc<User>>,
        record: &Arc<Record>,
    ) -> Result<Response<Body>, ApiError> {
        let path = request.uri().path();
        let user = match self.authenticate(request.headers(), user, record)? {
            Some(user) => user,
            None if auth::is_public(path) => Arc::new(User::anonymous()),
            None => return Err(ApiError::unauthorized("")),
        };
        record.user(&user);
        let user = match self.impersonated(request.headers(), &user)? {
            Some(other) => {
                record.impersonates(&other);
                other
            }
            None => user,
        };
        if let Some(node) = announce::target(request.method(), path) {
            let node = node.to_owned();
            return announce::answer(&self, &user, &node, request).boxed().await;
        }
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let accept =
            request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let found = match request::route(request.method(), path, &query) {
            Ok(found) => found,
            Err(error) => {
                // Who may not ask for it does not learn whether it is there.
                if let Some(asked) = request::asked(request.method(), path, &query) {
                    record.target(asked.verb, asked.target());
                    record.authorized(self.authorize_asked(&user, &asked))?;
                }
                return Err(error);
            }
        };
        let Some(route) = found else {
            record.authorized(self.authorize_path(&user, request.method(), path))?;
            if matches!(path, "/healthz" | "/livez" | "/readyz") {
                const TEXT: &str = "text/plain; charset=utf-8";
                return Ok(respond::response(StatusCode::OK, TEXT, respond::full("ok")));
            }
            return discovery::answer(&self, request.method(), path, accept);
        };
        let target = audit::Target {
            resource: route.resource.plural.into(),
            group: route.resource.group.into(),
            version: route.resource.version.into(),
            subresource: route.subresource_name().into(),
            namespace: route.namespace.clone(),
            name: route.name.clone(),
        };
        record.target(route.verb.as_str(), target);
        record.authorized(self.authorize(&user, &route, &query))?;

        let proxied = matches!(route.subresource_name(), "log" | "exec" | "attach" | "portforward");
        if proxied {
            return match route.subresource_name() {
                "log" => logs::answer(&self, &route, &query).boxed().await,
                _ => {
                    self.authorize_stream(&user, &route)?;
                    exec::answer(&self, &route, &query, &user, request).boxed().await
                }
            };
        }
        let options = WriteOptions::read(&route, &query, request.headers())?;
        let mut context = Context {
            representation: Representation::negotiate(accept, &query)?,
            validation: FieldValidation::from_query(query.get("fieldValidation"))?,
            options,
            warnings: Vec::new(),
            audit: admission::Audit::default(),
            record: record.clone(),
            looks_ahead: request.extensions().get::<LooksAhead>().is_some(),
            user,
            query,
        };
        match route.verb {
            Verb::Watch => return watch::answer(&self, &route, &context),
            // Nothing to wait for: these never leave memory.
            Verb::Get => return read::get(&self, &route, &context),
            Verb::List => return read::list(&self, &route, &context),
            _ => {}
        }
        let timely = tokio::time::timeout(TIMEOUT, self.write_request(&route, &mut context, request).boxed());
        let mut response = match timely.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => respond::refusal(&error),
            Err(_) => {
                let why = "request did not complete within the allotted timeout";
                return Err(ApiError::timeout(why));
            }
        };
        respond::warn(&mut response, &context.warnings);
        // For whoever writes the audit log.
        response.extensions_mut().insert(context.audit.take());
        Ok(response)
    }

    async fn write_request(
        &self,
        route: &Route,
        context: &mut Context,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let media = decode::media_type(request.headers()).to_owned();
        let body = decode::read(request.into_body()).await?;
        // Boxed, because each is large and only one runs.
        match (route.verb, route.subresource_name()) {
            (Verb::Delete, _) => {
                let options = delete::Options::read(&media, &body, context)?;
                self.delete(route, context, &options).boxed().await
            }
            (Verb::DeleteCollection, _) => {
                let options = delete::Options::read(&media, &body, context)?;
                self.delete_collection(route, context, &options).boxed().await
            }
            (Verb::Patch, _) if media == api::patch::APPLY => self.apply(route, context, &body).boxed().await,
            (_, "scale") => self.write_scale(route, context, &media, &body).boxed().await,
            (Verb::Create, "") if route.resource.is_review() => {
                self.review(route, context, &media, &body).boxed().await
            }
            (Verb::Create, "") => {
                let object = write::decode_body(route, context, &media, &body)?;
                let outcome = self.create(route, context, object).boxed().await?;
                Ok(self.respond(StatusCode::CREATED, route, context, outcome))
            }
            (Verb::Create, "binding") => self.bind(route, context, &media, &body).boxed().await,
            (Verb::Create, "eviction") => self.evict(route, context, &media, &body).boxed().await,
            (Verb::Create, "token") => self.request_token(route, context, &media, &body).boxed().await,
            (Verb::Create, _) => Err(ApiError::method_not_allowed()),
            (Verb::Update, _) => {
                let object = write::decode_body(route, context, &media, &body)?;
                self.replace(route, context, object).boxed().await
            }
            (Verb::Patch, _) => self.patch(route, context, &media, &body).boxed().await,
            (Verb::Get | Verb::List | Verb::Watch, _) => Err(ApiError::method_not_allowed()),
        }
    }

    /// An object as the client wants it.
    fn respond(
        &self,
        status: StatusCode,
        route: &Route,
        context: &Context,
        outcome: write::Outcome,
    ) -> Response<Body> {
        let shape = events::served_shape(route.resource);
        let value = match (outcome, context.representation, shape) {
            (write::Outcome::Stored(object), Representation::Json, None) => {
                return respond::json_bytes(status, object.json());
            }
            (write::Outcome::Stored(object), ..) => object.value(),
            (write::Outcome::Value(value), ..) => value,
        };
        let value = shape.map_or_else(|| value.clone(), |shape| shape(value.clone()));
        respond::json_value(status, &context.representation.object(route.resource, value))
    }

    /// A client of this server within the process, as `user`: no socket, no TLS, the same requests.
    pub fn client(self: &Arc<Self>, user: User) -> kube::Client {
        kube::Client::new(self.service(user), "default")
    }

    /// As [`client`](Self::client), for the scheduler: its watches show a write when it is decided, so that the binding of
    /// a pod is durable together with the pod.
    pub fn client_ahead(self: &Arc<Self>, user: User) -> kube::Client {
        kube::Client::new(InProcess { looks_ahead: true, ..self.service(user) }, "default")
    }

    /// The server as a service for one user.
    pub fn service(self: &Arc<Self>, user: User) -> InProcess {
        let agent = HeaderValue::from_static(user.program());
        InProcess { server: self.clone(), user: Arc::new(user), agent, looks_ahead: false }
    }
}

/// Text at a path, "" where there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The server as a tower service, for [`kube::Client`].
#[derive(Clone)]
pub struct InProcess {
    server: Arc<ApiServer>,
    user: Arc<User>,
    /// Whom the audit log, and the fields that are written, name as the program.
    agent: HeaderValue,
    looks_ahead: bool,
}

impl tower::Service<Request<kube::client::Body>> for InProcess {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Response<Body>, Failure>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Failure>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let (server, user, looks_ahead) = (self.server.clone(), self.user.clone(), self.looks_ahead);
        let agent = self.agent.clone();
        Box::pin(async move {
            let mut request =
                request.map(|body| body.map_err(|error| -> Failure { Box::new(error) }).boxed_unsync());
            request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
            if looks_ahead {
                request.extensions_mut().insert(LooksAhead);
            }
            Ok(server.handle(request, Some(user)).await)
        })
    }
}

#[cfg(test)]
mod tests;
