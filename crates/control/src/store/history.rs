//! The recent past: the last events in a ring, from which watches start and older revisions are listed.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::object::{Change, Object};

/// One committed write.
#[derive(Debug)]
pub struct Event {
    pub revision: u64,
    pub change: Change,
    /// The new version; of a deletion, the last one under the deletion's revision.
    pub object: Arc<Object>,
    /// What was there before: whether a selector matched it decides what a watcher is told.
    pub previous: Option<Arc<Object>>,
    /// The line of a watch in another representation than JSON, encoded by the first watcher that wants it.
    pub table_line: OnceLock<Bytes>,
}

/// How many events are kept, and how many bytes of objects.
const EVENTS: usize = 16 << 10;
const BYTES: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Events up to this revision are forgotten.
    floor: u64,
}

impl History {
    pub fn starting_at(revision: u64) -> History {
        History { events: VecDeque::new(), bytes: 0, floor: revision }
    }

    /// The oldest revision that can be listed, and watched from.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.object.bytes().len();
        self.events.push_back(event);
        while self.events.len() > EVENTS || self.bytes > BYTES {
            if !self.forget_oldest() {
                break;
            }
        }
    }

    /// Forgets events up to `revision`.
    pub fn compact(&mut self, revision: u64) {
        while self.events.front().is_some_and(|event| event.revision <= revision) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else { return false };
        self.bytes -= event.object.bytes().len();
        self.floor = event.revision;
        true
    }

    /// The events after `revision`, oldest first.
    pub fn after(&self, revision: u64) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        let first = self.events.partition_point(|event| event.revision <= revision);
        self.events.range(first..)
    }
}
