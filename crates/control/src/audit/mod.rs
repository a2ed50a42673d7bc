//! The audit log: a line of JSON for every request, as Kubernetes writes it (`audit.k8s.io/v1` Event at level Metadata: who
//! asked for what, from where, and what became of it; no bodies). Requests that stay open (watch, log, exec) have two lines,
//! at their beginning and at their end; all others one, when they are answered.
//!
//! A request hands its entry to a bounded queue; a thread of its own writes. Where the queue is full the request waits: an
//! entry is late, and never dropped; only what the file itself does not take (a full disk) is lost, and that is said in the log.

mod entry;
mod writer;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
};

use api::ApiError;
use http::{HeaderValue, Request, Response, header};
use jiff::Timestamp;

use crate::{admission::Annotations, apiserver::User, random};
pub use entry::{Entry, Target};
use entry::{Outcome, Stage};

/// Entries that may wait for the writer.
const QUEUE: usize = 4096;

/// Where a request came from, where it came over a network.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The log; cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Option<SyncSender<Entry>>);

impl Audit {
    /// Writes to `audit.log` in `directory`, which this process may write.
    ///
    /// # Errors
    /// Where the file or the thread cannot be made.
    pub fn open(directory: OwnedFd) -> std::io::Result<Audit> {
        let mut writer = writer::Writer::open(directory, writer::Limits::default())?;
        let (queue, entries) = sync_channel(QUEUE);
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&entries))?;
        Ok(Audit(Some(queue)))
    }

    /// Keeps no log.
    pub fn none() -> Audit {
        Audit(None)
    }

    /// Begins the record of a request.
    pub fn begin<B>(&self, request: &Request<B>) -> Arc<Record> {
        let text = |name: header::HeaderName| {
            let value = request.headers().get(name).map(HeaderValue::as_bytes).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        Arc::new(Record {
            queue: self.0.clone(),
            id: random::uuid(),
            received: Timestamp::now(),
            uri: request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            agent: text(header::USER_AGENT),
            source: request.extensions().get::<Peer>().map(|peer| peer.0),
            known: Mutex::new(Known { verb: request.method().as_str().to_lowercase(), ..Known::default() }),
        })
    }
}

/// What is known of a request so far. Its last holder's going is the request's end.
pub struct Record {
    queue: Option<SyncSender<Entry>>,
    pub id: String,
    received: Timestamp,
    uri: String,
    agent: String,
    source: Option<IpAddr>,
    known: Mutex<Known>,
}

#[derive(Clone, Default)]
struct Known {
    verb: String,
    user: Option<Arc<User>>,
    impersonated: Option<Arc<User>>,
    target: Option<Target>,
    annotations: BTreeMap<String, String>,
    outcome: Outcome,
}

impl Record {
    fn know(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Who asks.
    pub fn user(&self, user: &Arc<User>) {
        self.know(|known| known.user = Some(user.clone()));
    }

    /// As whom the user acts.
    pub fn impersonates(&self, user: &Arc<User>) {
        self.know(|known| known.impersonated = Some(user.clone()));
    }

    /// What is done, to what.
    pub fn target(&self, verb: &str, target: Target) {
        self.know(|known| {
            verb.clone_into(&mut known.verb);
            known.target = Some(target);
        });
    }

    /// The object's name, where the server gave it one.
    pub fn named(&self, name: &str) {
        self.know(|known| {
            if let Some(target) = known.target.as_mut().filter(|target| target.name.is_empty()) {
                name.clone_into(&mut target.name);
            }
        });
    }

    /// What a step found worth a note.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        let value = value.into();
        self.know(|known| drop(known.annotations.insert(key.to_owned(), value)));
    }

    /// Whether what is asked may be done, and why, under upstream's keys. Passes the answer on.
    ///
    /// # Errors
    /// As it was given.
    pub fn authorized(&self, verdict: Result<String, ApiError>) -> Result<(), ApiError> {
        let (decision, reason) = match &verdict {
            Ok(why) => ("allow", why.clone()),
            Err(_) => ("forbid", String::new()),
        };
        self.annotate("authorization.k8s.io/decision", decision);
        self.annotate("authorization.k8s.io/reason", reason);
        verdict.map(drop)
    }

    /// What admission noted.
    pub fn annotated(&self, Annotations(notes): Annotations) {
        self.know(|known| {
            known.annotations.extend(notes.into_iter().map(|(key, value)| (key.to_owned(), value)))
        });
    }

    /// Whether the answer goes on after its head.
    pub fn stays_open(&self) -> bool {
        let mut stays = false;
        self.know(|known| {
            let sub = known.target.as_ref().map(|target| &*target.subresource);
            let streams = matches!(sub, Some("log" | "exec" | "attach" | "portforward"));
            stays = known.verb == "watch" || streams;
        });
        stays
    }

    /// Takes note of the answer, which carries its [`ApiError`] where it is a refusal. `stays_open`: it goes on after its
    /// head; then there is a line for its beginning.
    pub fn answered<B>(&self, response: &mut Response<B>, stays_open: bool) {
        let error = response.extensions_mut().remove::<ApiError>();
        let outcome = Outcome { code: response.status().as_u16(), error };
        self.know(|known| known.outcome = outcome);
        self.annotated(response.extensions().get::<Annotations>().cloned().unwrap_or_default());
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            response.headers_mut().insert("audit-id", id);
        }
        if stays_open {
            self.send(Stage::ResponseStarted);
        }
    }

    fn send(&self, stage: Stage) {
        let Some(queue) = &self.queue else { return };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let entry = Entry {
            stage,
            id: self.id.clone(),
            uri: self.uri.clone(),
            verb: known.verb,
            user: known.user,
            impersonated: known.impersonated,
            source: self.source,
            agent: self.agent.clone(),
            target: known.target,
            outcome: known.outcome,
            received: self.received,
            at: Timestamp::now(),
            annotations: known.annotations,
        };
        // The writer ends only with the process.
        drop(queue.send(entry));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.send(Stage::ResponseComplete);
    }
}

#[cfg(test)]
mod tests;
