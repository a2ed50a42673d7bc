//! A work queue keyed by object: a key that is queued twice is worked on once, a key that changes while it is worked on
//! is worked on again, and never by two workers at a time. Failures come back later and later.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The first wait after a failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub struct Queue<K> {
    state: Mutex<State<K>>,
    ready: Notify,
}

struct State<K> {
    waiting: VecDeque<K>,
    /// In `waiting`, or to be put there when its worker is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    /// When a key is to come back by itself; the earliest counts.
    timers: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Queue<K> {
    pub fn new() -> Arc<Queue<K>> {
        let state = State {
            waiting: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            timers: HashMap::new(),
            failures: HashMap::new(),
        };
        Arc::new(Queue { state: Mutex::new(state), ready: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // A worker that panicked left the sets as they are between two statements: they are whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn add(&self, key: K) {
        let mut state = self.lock();
        if state.dirty.insert(key.clone()) && !state.working.contains(&key) {
            state.waiting.push_back(key);
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Adds the key when the time has passed; an earlier timer of the same key stays in force.
    pub fn add_after(self: &Arc<Self>, key: K, wait: Duration) {
        let when = Instant::now() + wait;
        {
            let mut state = self.lock();
            if state.timers.get(&key).is_some_and(|earlier| *earlier <= when) {
                return;
            }
            state.timers.insert(key.clone(), when);
        }
        let queue = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(when).await;
            let is_due = queue.lock().timers.get(&key) == Some(&when);
            if is_due {
                queue.lock().timers.remove(&key);
                queue.add(key);
            }
        });
    }

    async fn take(&self) -> K {
        loop {
            if let Some(key) = self.try_take() {
                return key;
            }
            self.ready.notified().await;
        }
    }

    fn try_take(&self) -> Option<K> {
        let mut state = self.lock();
        let key = state.waiting.pop_front()?;
        state.dirty.remove(&key);
        state.working.insert(key.clone());
        if !state.waiting.is_empty() {
            self.ready.notify_one();
        }
        Some(key)
    }

    fn done(self: &Arc<Self>, key: K, failed: bool) {
        let wait = {
            let mut state = self.lock();
            state.working.remove(&key);
            if state.dirty.contains(&key) {
                state.waiting.push_back(key.clone());
                self.ready.notify_one();
            }
            if failed {
                let failures = state.failures.entry(key.clone()).or_insert(0);
                let wait = FIRST_WAIT.saturating_mul(1 << (*failures).min(16)).min(LONGEST_WAIT);
                *failures = failures.saturating_add(1);
                Some(wait)
            } else {
                state.failures.remove(&key);
                None
            }
        };
        if let Some(wait) = wait {
            self.add_after(key, wait);
        }
    }

    /// Works for ever with `workers` at once. A key whose work fails comes back; `Some(wait)` brings it back by time.
    pub async fn work<F, Fut, E>(self: Arc<Self>, workers: usize, work: F)
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<Duration>, E>> + Send,
        E: std::fmt::Display,
    {
        let work = Arc::new(work);
        let one = |_| {
            let (queue, work) = (self.clone(), work.clone());
            async move {
                loop {
                    let key = queue.take().await;
                    match work(key.clone()).await {
                        Ok(wait) => {
                            queue.done(key.clone(), false);
                            if let Some(wait) = wait {
                                queue.add_after(key, wait);
                            }
                        }
                        Err(_) => queue.done(key, true),
                    }
                }
            }
        };
        futures::future::join_all((0..workers).map(one)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_key_is_worked_on_by_one_worker_at_a_time_and_again_if_it_changed() {
        let queue: Arc<Queue<&'static str>> = Queue::new();
        let (runs, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, inside, again) = (runs.clone(), at_once.clone(), queue.clone());
        let work = queue.clone().work(4, move |key| {
            let (counted, inside, again) = (counted.clone(), inside.clone(), again.clone());
            async move {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two workers at one key");
                let run = counted.fetch_add(1, Ordering::SeqCst);
                if run == 0 {
                    // Changes while it is worked on.
                    again.add(key);
                    again.add(key);
                }
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                // The second run fails once, so there is a third.
                if run == 1 { Err("no") } else { Ok(None) }
            }
        });
        queue.add("a");
        queue.add("a");
        let _ = tokio::time::timeout(Duration::from_millis(200), work).await;
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }
}
