//! The one writer. It takes every write that waits, decides each against what the ones before it leave, makes all of them
//! durable in one commit, and only then shows them to readers and watchers. So nothing is seen that a crash could undo,
//! and requests that come together share one fsync.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Action, Expect, Shared, Write, WriteError,
    engine::{Engine, Record},
    history::Event,
    object::{Change, Object},
};

pub(super) struct Pending {
    pub write: Write,
    pub reply: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

/// The most one commit takes.
const WRITES: usize = 512;
const BYTES: usize = 8 << 20;

type Decided = (Arc<Event>, oneshot::Sender<Result<Arc<Object>, WriteError>>);

/// Runs until every sender is gone or the engine fails; `failed` then says why.
pub(super) fn run(
    shared: &Shared,
    mut engine: Box<dyn Engine>,
    mut writes: mpsc::Receiver<Pending>,
    failed: &watch::Sender<Option<String>>,
) {
    while let Some(first) = writes.blocking_recv() {
        let mut bytes = first.write.size();
        let mut batch = vec![first];
        while batch.len() < WRITES && bytes < BYTES {
            let Ok(next) = writes.try_recv() else { break };
            bytes += next.write.size();
            batch.push(next);
        }
        let decided = decide(shared, batch);
        let Some(revision) = decided.last().map(|(event, _)| event.revision) else { continue };
        let records = decided
            .iter()
            .map(|(event, _)| Record {
                key: &event.object.key,
                value: (event.change != Change::Deleted).then(|| event.object.record()),
            })
            .collect();
        if let Err(error) = engine.commit(records, revision) {
            let why = error.to_string();
            for (_, reply) in decided {
                // A requester who went away does not want the answer.
                drop(reply.send(Err(WriteError::Engine(why.clone()))));
            }
            failed.send_replace(Some(why));
            return;
        }
        shared.publish(decided.iter().map(|(event, _)| event));
        for (event, reply) in decided {
            drop(reply.send(Ok(event.object.clone())));
        }
    }
}

/// Gives each write its revision, or its refusal at once.
fn decide(shared: &Shared, batch: Vec<Pending>) -> Vec<Decided> {
    let state = shared.read();
    let mut revision = state.revision;
    let mut changed: HashMap<Arc<str>, Option<Arc<Object>>> = HashMap::new();
    let mut decided = Vec::with_capacity(batch.len());
    for Pending { write, reply } in batch {
        let current = match changed.get(&write.key) {
            Some(object) => object.clone(),
            None => state.objects.get(&write.key).cloned(),
        };
        let held = match (write.expect, &current) {
            (Expect::Absent, current) => current.is_none(),
            (Expect::Revision(revision), Some(current)) => current.revision == revision,
            (Expect::Revision(_), None) => false,
        };
        if !held {
            drop(reply.send(Err(WriteError::Conflict(current))));
            continue;
        }
        revision += 1;
        let (change, object) = match (write.action, &current) {
            (Action::Put(encoded), None) => {
                (Change::Added, encoded.commit(write.key.clone(), Change::Added, revision))
            }
            (Action::Put(encoded), Some(_)) => {
                (Change::Modified, encoded.commit(write.key.clone(), Change::Modified, revision))
            }
            (Action::Delete, Some(current)) => (Change::Deleted, current.at_revision(revision)),
            (Action::Delete, None) => {
                revision -= 1;
                drop(reply.send(Err(WriteError::Conflict(None))));
                continue;
            }
        };
        let object = Arc::new(object);
        changed.insert(write.key, (change != Change::Deleted).then(|| object.clone()));
        let event = Event { revision, change, object, previous: current, table_line: OnceLock::new() };
        decided.push((Arc::new(event), reply));
    }
    decided
}
