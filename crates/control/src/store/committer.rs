//! The one writer. It takes every write that waits, decides each against what the ones before it leave, makes all of them
//! durable in one commit, and only then shows them to readers and watchers. So nothing is seen that a crash could undo,
//! and requests that come together share one fsync.
//!
//! The exception are watchers that look ahead ([`super::Store::watch_ahead`]): they see a write when it is decided, and what they
//! write about it goes into the same commit, for which the committer waits a moment. Nothing of what they saw outlives
//! the process if the commit does not.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use super::{
    Action, Expect, Shared, Write, WriteError,
    engine::{Engine, Record},
    history::Event,
    object::{Change, Object},
};

type Reply = oneshot::Sender<Result<Arc<Object>, WriteError>>;

pub(super) struct Pending {
    pub write: Write,
    pub reply: Reply,
}

/// The most one commit takes.
const WRITES: usize = 512;
const BYTES: usize = 8 << 20;

/// How long a commit waits for what watchers that look ahead write: longer than they take, less than the fsync that it spares.
const PATIENCE: Duration = Duration::from_millis(1);

/// Runs until every sender is gone or the engine fails; `failed` then says why. `runtime` is for its waits.
pub(super) fn run(
    shared: &Shared,
    mut engine: Box<dyn Engine>,
    mut writes: mpsc::Receiver<Pending>,
    failed: &watch::Sender<Option<String>>,
    runtime: &Runtime,
) {
    while let Some(first) = runtime.block_on(writes.recv()) {
        let batch = runtime.block_on(gather(shared, first, &mut writes));
        let Some(revision) = batch.events.last().map(|event| event.revision) else { continue };
        let records = batch
            .events
            .iter()
            .map(|event| Record {
                key: &event.object.key,
                value: (event.change != Change::Deleted).then(|| event.object.record()),
            })
            .collect();
        if let Err(error) = engine.commit(records, revision) {
            let why = error.to_string();
            for reply in batch.replies {
                // A requester who went away does not want the answer.
                drop(reply.send(Err(WriteError::Engine(why.clone()))));
            }
            failed.send_replace(Some(why));
            return;
        }
        shared.publish(&batch.events);
        for (event, reply) in batch.events.iter().zip(batch.replies) {
            drop(reply.send(Ok(event.object.clone())));
        }
    }
}

/// The writes of one commit: those that wait, and those that answer them.
async fn gather(shared: &Shared, first: Pending, writes: &mut mpsc::Receiver<Pending>) -> Batch {
    let mut batch = Batch::after(shared.read().revision);
    let mut awaited = HashSet::new();
    let mut deadline = None;
    let mut next = Some(first);
    while let Some(pending) = next {
        let seen = batch.events.len();
        batch.take(shared, pending);
        while !batch.is_full() {
            let Ok(pending) = writes.try_recv() else { break };
            batch.take(shared, pending);
        }
        let new = &batch.events[seen..];
        for event in new {
            awaited.remove(&event.object.key);
        }
        awaited.extend(shared.show_ahead(new));
        if awaited.is_empty() || batch.is_full() {
            break;
        }
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        next = timeout_at(deadline, writes.recv()).await.ok().flatten();
    }
    batch
}

/// Writes that are decided.
struct Batch {
    /// The last revision given.
    revision: u64,
    /// What the batch leaves of the keys it changes.
    changed: HashMap<Arc<str>, Option<Arc<Object>>>,
    events: Vec<Arc<Event>>,
    /// One per event.
    replies: Vec<Reply>,
    writes: usize,
    bytes: usize,
}

impl Batch {
    fn after(revision: u64) -> Batch {
        let (changed, events, replies) = Default::default();
        Batch { revision, changed, events, replies, writes: 0, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.writes >= WRITES || self.bytes >= BYTES
    }

    /// Gives a write its revision, or its refusal at once.
    fn take(&mut self, shared: &Shared, Pending { write, reply }: Pending) {
        self.writes += 1;
        self.bytes += write.size();
        let current = match self.changed.get(&write.key) {
            Some(object) => object.clone(),
            None => shared.read().objects.get(&write.key).cloned(),
        };
        let held = match (write.expect, &current) {
            (Expect::Absent, current) => current.is_none(),
            (Expect::Revision(revision), Some(current)) => current.revision == revision,
            (Expect::Revision(_), None) => false,
        };
        if !held {
            drop(reply.send(Err(WriteError::Conflict(current))));
            return;
        }
        let revision = self.revision + 1;
        let (change, object) = match (write.action, &current) {
            (Action::Put(encoded), None) => {
                (Change::Added, encoded.commit(write.key.clone(), Change::Added, revision))
            }
            (Action::Put(encoded), Some(_)) => {
                (Change::Modified, encoded.commit(write.key.clone(), Change::Modified, revision))
            }
            (Action::Delete, Some(current)) => (Change::Deleted, current.at_revision(revision)),
            (Action::Delete, None) => {
                drop(reply.send(Err(WriteError::Conflict(None))));
                return;
            }
        };
        self.revision = revision;
        let object = Arc::new(object);
        self.changed.insert(write.key, (change != Change::Deleted).then(|| object.clone()));
        let event = Event { revision, change, object, previous: current, table_line: OnceLock::new() };
        self.events.push(Arc::new(event));
        self.replies.push(reply);
    }
}
