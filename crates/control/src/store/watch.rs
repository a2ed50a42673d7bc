//! A watcher's end of the store: what happened since its revision, then what happens, through a bounded queue.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::mpsc;

use super::{history::Event, object::Object};

/// Events a watcher may lag behind; one that lags further is cut off and must list again.
pub(super) const QUEUE: usize = 4096;

/// What a watched key must look like: `/pods/`, `/pods/default/`, or one key.
pub(super) fn covers(prefix: &str, key: &str) -> bool {
    if prefix.ends_with('/') { key.starts_with(prefix) } else { key == prefix }
}

/// `pods` of `/pods/default/a`.
pub(super) fn resource(key: &str) -> &str {
    key.trim_start_matches('/').split('/').next().unwrap_or_default()
}

/// Whether a watcher that looks ahead will write about an object that was added.
pub type Answers = fn(&Object) -> bool;

#[derive(Debug)]
pub(super) struct Subscriber {
    pub prefix: String,
    pub queue: mpsc::Sender<Arc<Event>>,
    /// Of one that looks ahead: it is told what is decided, others what is durable.
    pub ahead: Option<Answers>,
}

impl Subscriber {
    /// Whether the subscriber is still there: not gone, and not too slow.
    pub fn offer(&self, event: &Arc<Event>) -> bool {
        if covers(&self.prefix, &event.object.key) {
            self.queue.try_send(event.clone()).is_ok()
        } else {
            !self.queue.is_closed()
        }
    }
}

/// The watcher lagged too far behind, or the store is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun;

#[derive(Debug)]
pub struct Watcher {
    pub(super) past: VecDeque<Arc<Event>>,
    pub(super) queue: mpsc::Receiver<Arc<Event>>,
}

impl Watcher {
    /// The next event; cancel-safe.
    ///
    /// # Errors
    /// [`Overrun`] after the last event that was queued.
    pub async fn next(&mut self) -> Result<Arc<Event>, Overrun> {
        match self.past.pop_front() {
            Some(event) => Ok(event),
            None => self.queue.recv().await.ok_or(Overrun),
        }
    }

    /// The next event if it is there already.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn poll_next(&mut self) -> Result<Option<Arc<Event>>, Overrun> {
        if let Some(event) = self.past.pop_front() {
            return Ok(Some(event));
        }
        match self.queue.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(Overrun),
        }
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        self.past.pop_front().or_else(|| self.queue.try_recv().ok())
    }
}
