//! The objects: all of them in memory, by key and with one global revision, over an engine that keeps them.
//!
//! A key is `/<resource>/<namespace>/<name>`, or `/<resource>/<name>` for what has no namespace. A write is decided by one
//! thread, made durable together with the writes that wait beside it, and then seen. Reads and watches never wait
//! for the disk. Older revisions are told from the newest one by undoing the events that a ring remembers; what the ring
//! has forgotten is `Expired`.

mod committer;
pub mod engine;
mod history;
mod object;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::{mpsc, oneshot};

use committer::Pending;
use engine::{Engine, EngineError};
use history::History;
use watch::{QUEUE, Subscriber};

pub use history::Event;
pub use object::{Change, Encoded, LINE_END, Object};
pub use watch::{Answers, Overrun, Watcher};

/// The largest object, as etcd's `--max-request-bytes`.
pub const MAX_OBJECT: usize = 3 << 19;

/// Writes that may wait for the committer; more wait for room.
const WRITES: usize = 1024;

/// What must be there for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    /// The version with this revision.
    Revision(u64),
}

#[derive(Debug)]
pub enum Action {
    Put(Encoded),
    Delete,
}

#[derive(Debug)]
pub struct Write {
    pub key: Arc<str>,
    pub expect: Expect,
    pub action: Action,
}

impl Write {
    fn size(&self) -> usize {
        match &self.action {
            Action::Put(encoded) => encoded.len(),
            Action::Delete => 0,
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Something else is there than was expected: this, or nothing.
    #[error("the object has been modified")]
    Conflict(Option<Arc<Object>>),
    #[error("the object has {0} bytes, more than {MAX_OBJECT}")]
    TooLarge(usize),
    /// The write may or may not have happened. Nothing more can be written.
    #[error("{0}")]
    Engine(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("too old resource version: {requested} ({oldest})")]
    Expired { requested: u64, oldest: u64 },
    #[error("Too large resource version: {requested}, current: {current}")]
    Future { requested: u64, current: u64 },
}

/// The objects under a prefix at one revision, in key order.
#[derive(Debug)]
pub struct Listed {
    pub objects: Vec<Arc<Object>>,
    pub revision: u64,
}

struct State {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    revision: u64,
    history: History,
    /// By resource.
    subscribers: HashMap<String, Vec<Subscriber>>,
    /// What is decided and not durable yet, of resources that someone looks ahead at.
    ahead: Vec<Arc<Event>>,
}

struct Shared(RwLock<State>);

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what is decided to those who look ahead; the keys about which one of them will write.
    fn show_ahead(&self, events: &[Arc<Event>]) -> Vec<Arc<str>> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let State { subscribers, ahead, .. } = &mut *state;
        let mut answered = Vec::new();
        for event in events {
            let Some(subscribers) = subscribers.get_mut(watch::resource(&event.object.key)) else { continue };
            let mut is_shown = false;
            subscribers.retain(|subscriber| {
                let Some(answers) = subscriber.ahead else { return true };
                is_shown = true;
                let is_there = subscriber.offer(event);
                let key = &event.object.key;
                if is_there && watch::covers(&subscriber.prefix, key) && event.change == Change::Added {
                    answered.extend(answers(&event.object).then(|| key.clone()));
                }
                is_there
            });
            if is_shown {
                ahead.push(event.clone());
            }
        }
        answered
    }

    fn publish(&self, events: &[Arc<Event>]) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            let key = &event.object.key;
            match event.change {
                Change::Deleted => state.objects.remove(key),
                Change::Added | Change::Modified => state.objects.insert(key.clone(), event.object.clone()),
            };
            state.revision = event.revision;
            state.history.push(event.clone());
            if let Some(subscribers) = state.subscribers.get_mut(watch::resource(key)) {
                subscribers.retain(|subscriber| subscriber.ahead.is_some() || subscriber.offer(event));
            }
        }
        state.ahead.clear();
    }
}

impl State {
    fn list(&self, prefix: &str) -> Vec<Arc<Object>> {
        self.objects
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| watch::covers(prefix, key))
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn list_at(&self, prefix: &str, revision: u64) -> Vec<Arc<Object>> {
        let mut objects: BTreeMap<Arc<str>, Arc<Object>> =
            self.list(prefix).into_iter().map(|object| (object.key.clone(), object)).collect();
        for event in self.history.after(revision).rev().filter(|e| watch::covers(prefix, &e.object.key)) {
            match &event.previous {
                Some(previous) => objects.insert(previous.key.clone(), previous.clone()),
                None => objects.remove(&event.object.key),
            };
        }
        objects.into_values().collect()
    }

    fn subscribe(
        &mut self,
        prefix: &str,
        past: impl Into<std::collections::VecDeque<Arc<Event>>>,
        ahead: Option<Answers>,
    ) -> Watcher {
        let (sender, queue) = mpsc::channel(QUEUE);
        let subscribers = self.subscribers.entry(watch::resource(prefix).to_owned()).or_default();
        subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        subscribers.push(Subscriber { prefix: prefix.to_owned(), queue: sender, ahead });
        Watcher { past: past.into(), queue }
    }
}

/// The store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    writes: mpsc::Sender<Pending>,
    failed: tokio::sync::watch::Receiver<Option<String>>,
}

impl Store {
    /// Loads everything `engine` holds and starts the writer's thread, which ends with the last clone.
    ///
    /// # Errors
    /// As the engine's `load`; where the thread cannot be started.
    pub fn open(mut engine: impl Engine) -> Result<Store, EngineError> {
        let loaded = engine.load()?;
        let mut objects = BTreeMap::new();
        let mut revision = loaded.revision.max(1);
        for (key, record) in loaded.records {
            let object = Object::from_record(&key, &record).ok_or(EngineError::Damaged(key))?;
            revision = revision.max(object.revision);
            objects.insert(object.key.clone(), Arc::new(object));
        }
        let shared = Arc::new(Shared(RwLock::new(State {
            objects,
            revision,
            history: History::starting_at(revision),
            subscribers: HashMap::new(),
            ahead: Vec::new(),
        })));
        let (writes, queue) = mpsc::channel(WRITES);
        let (failure, failed) = tokio::sync::watch::channel(None);
        let state = shared.clone();
        let engine = Box::new(engine);
        let started = |error| EngineError::Damaged(format!("start the committer's thread: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(started)?;
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || committer::run(&state, engine, queue, &failure, &runtime))
            .map_err(started)?;
        Ok(Store { shared, writes, failed })
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.shared.read().revision
    }

    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.shared.read().objects.get(key).cloned()
    }

    /// As [`get`](Self::get), with what is decided and not durable yet, of resources that someone looks ahead at. Only for a
    /// write that follows from it: that is durable after it, or not at all.
    pub fn get_ahead(&self, key: &str) -> Option<Arc<Object>> {
        let state = self.shared.read();
        match state.ahead.iter().rev().find(|event| &*event.object.key == key) {
            Some(event) => (event.change != Change::Deleted).then(|| event.object.clone()),
            None => state.objects.get(key).cloned(),
        }
    }

    /// What is under `prefix`: now, or as it was at a revision.
    ///
    /// # Errors
    /// A revision that is forgotten, or not reached.
    pub fn list(&self, prefix: &str, at: Option<u64>) -> Result<Listed, ReadError> {
        let state = self.shared.read();
        match at {
            None => Ok(Listed { objects: state.list(prefix), revision: state.revision }),
            Some(requested) if requested > state.revision => {
                Err(ReadError::Future { requested, current: state.revision })
            }
            Some(requested) if requested < state.history.floor() => {
                Err(ReadError::Expired { requested, oldest: state.history.floor() })
            }
            Some(revision) => Ok(Listed { objects: state.list_at(prefix, revision), revision }),
        }
    }

    /// Every event under `prefix` after `from`.
    ///
    /// # Errors
    /// A revision that is forgotten.
    pub fn watch(&self, prefix: &str, from: u64) -> Result<Watcher, ReadError> {
        self.watch_after(prefix, from, None)
    }

    /// As [`watch`](Self::watch), with events when they are decided, before they are durable. Only for who does nothing with
    /// them but write to this store. A commit waits a moment for the writes about additions that `answers` promises.
    ///
    /// # Errors
    /// A revision that is forgotten.
    pub fn watch_ahead(&self, prefix: &str, from: u64, answers: Answers) -> Result<Watcher, ReadError> {
        self.watch_after(prefix, from, Some(answers))
    }

    fn watch_after(&self, prefix: &str, from: u64, ahead: Option<Answers>) -> Result<Watcher, ReadError> {
        let mut state = self.shared.0.write().unwrap_or_else(PoisonError::into_inner);
        let oldest = state.history.floor();
        if from < oldest {
            return Err(ReadError::Expired { requested: from, oldest });
        }
        let undurable = if ahead.is_some() { &*state.ahead } else { &[] };
        let past: Vec<_> = (state.history.after(from).chain(undurable))
            .filter(|event| watch::covers(prefix, &event.object.key))
            .cloned()
            .collect();
        Ok(state.subscribe(prefix, past, ahead))
    }

    /// What is under `prefix`, and every event after that.
    pub fn list_and_watch(&self, prefix: &str) -> (Listed, Watcher) {
        let mut state = self.shared.0.write().unwrap_or_else(PoisonError::into_inner);
        let listed = Listed { objects: state.list(prefix), revision: state.revision };
        (listed, state.subscribe(prefix, Vec::new(), None))
    }

    /// Writes, and returns when the write is durable. Of a deletion, the object's last state under the deletion's
    /// revision.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written, but for `Engine`.
    pub async fn write(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        if write.size() > MAX_OBJECT {
            return Err(WriteError::TooLarge(write.size()));
        }
        let gone = || WriteError::Engine("the store is closed".into());
        let (reply, answer) = oneshot::channel();
        self.writes.send(Pending { write, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Forgets events up to `revision`: watches and lists from before it are told `Expired`.
    pub fn compact(&self, revision: u64) {
        self.shared.0.write().unwrap_or_else(PoisonError::into_inner).history.compact(revision);
    }

    /// Returns when the engine has failed, with its words. Nothing can be written after that.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        loop {
            if let Some(why) = failed.borrow_and_update().clone() {
                return why;
            }
            if failed.changed().await.is_err() {
                return "the store is closed".into();
            }
        }
    }
}

#[cfg(test)]
mod tests;
