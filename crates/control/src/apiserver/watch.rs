//! WATCH: the store's events as lines of JSON. A line is encoded once and shared by all who watch; only what a selector makes
//! of an event (an object that begins or ceases to match) is a watcher's own.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use api::{
    ApiError,
    field::{Error, ErrorList, Path},
    registry::Resource,
};
use bytes::Bytes;
use futures::stream;
use http::Response;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{
    ApiServer, Context, events, pods, read,
    request::{Query, Route},
    respond::{self, Body, Representation},
    select::Selection,
};
use crate::{
    random,
    store::{Change, Event, LINE_END, Listed, Object, ReadError, Store, Watcher},
};

/// How often a watcher that wants bookmarks is told how far it is, as upstream.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after this and up to as much again (`--min-request-timeout`).
const SHORTEST: u64 = 1800;

/// Where a watch begins.
enum Start {
    /// With everything that is there, as if it had just been added; then, if asked, a bookmark that says so.
    Everything {
        announce_end: bool,
    },
    After(u64),
    Now,
}

fn start(query: &Query, bookmarks: bool) -> Result<Start, ApiError> {
    let asked = read::revision(query.get("resourceVersion"))?;
    let Some(_) = query.find("sendInitialEvents") else {
        return Ok(asked.map_or(Start::Everything { announce_end: false }, Start::After));
    };
    if query.get("resourceVersionMatch") != "NotOlderThan" {
        let mut errors = ErrorList::new();
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(Error::forbidden(&Path::new("resourceVersionMatch"), why));
        return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors));
    }
    match (query.flag("sendInitialEvents"), asked) {
        (true, _) => Ok(Start::Everything { announce_end: bookmarks }),
        (false, Some(revision)) => Ok(Start::After(revision)),
        (false, None) => Ok(Start::Now),
    }
}

pub fn answer(server: &Arc<ApiServer>, route: &Route, context: &Context) -> Result<Response<Body>, ApiError> {
    let selection = Selection::parse(route.resource, &context.query)?;
    let bookmarks = context.query.flag("allowWatchBookmarks");
    let start = start(&context.query, bookmarks)?;
    let seconds = match context.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => seconds.unsigned_abs(),
        _ => SHORTEST + u64::from_le_bytes(random::bytes()) % SHORTEST,
    };
    let prefix = read::prefix(route, &selection);
    let lines = Lines {
        resource: route.resource,
        representation: context.representation,
        shape: events::served_shape(route.resource),
        selection,
    };
    let (watcher, pending) = match start {
        Start::Now => (server.store.list_and_watch(&prefix).1, VecDeque::new()),
        Start::Everything { announce_end } => {
            let (listed, watcher) = server.store.list_and_watch(&prefix);
            (watcher, lines.initial(&listed, announce_end))
        }
        Start::After(revision) => match after(server, route, context, &prefix, revision) {
            Ok(watcher) => (watcher, VecDeque::new()),
            Err(error) => {
                let line = error_line(&super::write::read_failed(error));
                return Ok(respond::stream(stream::iter([line])));
            }
        },
    };
    let now = Instant::now();
    let watching = Watching {
        watcher,
        pending,
        lines,
        store: server.store.clone(),
        bookmarks,
        next_bookmark: now + BOOKMARKS,
        // A client's number, which may be past all time.
        deadline: now
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or(now + Duration::from_secs(SHORTEST)),
        sent: 0,
        over: false,
    };
    Ok(respond::stream(stream::unfold(watching, |mut watching| async move {
        watching.next().await.map(|line| (line, watching))
    })))
}

fn after(
    server: &ApiServer,
    route: &Route,
    context: &Context,
    prefix: &str,
    revision: u64,
) -> Result<Watcher, ReadError> {
    match (context.looks_ahead, route.resource.plural) {
        (false, _) => server.store.watch(prefix, revision),
        (true, "pods") => server.store.watch_ahead(prefix, revision, pods::wants_binding),
        (true, _) => server.store.watch_ahead(prefix, revision, |_| false),
    }
}

/// Ends a stream: the client must list again, or knows why.
fn error_line(error: &ApiError) -> Bytes {
    format!("{}\n", json!({"type": "ERROR", "object": error.to_status()})).into()
}

/// How one watcher wants its lines.
struct Lines {
    resource: &'static Resource,
    representation: Representation,
    shape: Option<fn(Value) -> Value>,
    selection: Selection,
}

impl Lines {
    fn initial(&self, listed: &Listed, announce_end: bool) -> VecDeque<Bytes> {
        let chosen = listed.objects.iter().filter(|object| self.selection.matches(object));
        let mut lines: VecDeque<Bytes> = chosen.map(|object| self.line(Change::Added, object)).collect();
        if announce_end {
            lines.push_back(self.bookmark(listed.revision, true));
        }
        lines
    }

    /// What the watcher is told of an event, if anything.
    fn event(&self, event: &Event) -> Option<Bytes> {
        let before = event.previous.as_ref().is_some_and(|object| self.selection.matches(object));
        let after = event.change != Change::Deleted && self.selection.matches(&event.object);
        match (before, after) {
            (false, false) => None,
            (true, false) if event.change != Change::Deleted => {
                // It ceased to match: its last matching state, as of now.
                let previous = event.previous.as_ref()?;
                Some(self.line(Change::Deleted, &Arc::new(previous.at_revision(event.revision))))
            }
            (false, true) if event.change == Change::Modified => {
                Some(self.line(Change::Added, &event.object))
            }
            _ => Some(self.shared(event)),
        }
    }

    /// The event's own line, encoded at most once for all watchers.
    fn shared(&self, event: &Event) -> Bytes {
        const COMMON: Representation =
            Representation::Table { version: "v1", include: api::printer::IncludeObject::Metadata };
        match (self.representation, self.shape) {
            (Representation::Json, None) => event.object.line(),
            (representation, None) if representation == COMMON => {
                event.table_line.get_or_init(|| self.line(event.change, &event.object)).clone()
            }
            _ => self.line(event.change, &event.object),
        }
    }

    fn line(&self, change: Change, object: &Arc<Object>) -> Bytes {
        match (self.representation, self.shape) {
            (Representation::Json, None) => [change.line_start(), object.bytes(), LINE_END].concat().into(),
            (representation, shape) => {
                let value = shape.map_or_else(|| object.value(), |shape| shape(object.value()));
                let value = representation.object(self.resource, value).to_string();
                [change.line_start(), value.as_bytes(), LINE_END].concat().into()
            }
        }
    }

    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.representation {
            Representation::Json => json!({
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
            Representation::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Representation::Table { version, .. } => json!({
                "kind": "Table",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata,
                "columnDefinitions": [],
                "rows": [],
            }),
        };
        format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
    }
}

struct Watching {
    watcher: Watcher,
    pending: VecDeque<Bytes>,
    lines: Lines,
    store: Store,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    /// The revision of the last event taken.
    sent: u64,
    over: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            tokio::select! {
                biased;
                () = sleep_until(self.deadline) => {
                    self.mark();
                    self.over = true;
                }
                event = self.watcher.next() => match event {
                    Ok(event) => self.take(&event),
                    Err(_) => {
                        self.over = true;
                        return Some(error_line(&ApiError::expired(
                            "too old resource version: the watch lagged too far behind",
                        )));
                    }
                },
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.mark();
                    self.next_bookmark = Instant::now() + BOOKMARKS;
                }
            }
        }
    }

    fn take(&mut self, event: &Event) {
        self.sent = event.revision;
        self.pending.extend(self.lines.event(event));
    }

    /// Everything up to now, then a bookmark that says so.
    fn mark(&mut self) {
        if !self.bookmarks {
            return;
        }
        let now = self.store.revision();
        while let Some(event) = self.watcher.try_next() {
            self.take(&event);
        }
        let line = self.lines.bookmark(now.max(self.sent), false);
        self.pending.push_back(line);
    }
}
