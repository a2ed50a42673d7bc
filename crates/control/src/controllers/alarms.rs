//! Keys that come back at a moment of the wall's clock. Of a key the last moment set counts. (What only has to wait for a
//! while comes back by its queue.)

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::clock::Clock;

pub struct Alarms<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    of: HashMap<K, Timestamp>,
    in_order: BTreeSet<(Timestamp, K)>,
}

impl<K: Clone + Eq + Hash + Ord> Alarms<K> {
    pub fn new() -> Alarms<K> {
        let state = State { of: HashMap::new(), in_order: BTreeSet::new() };
        Alarms { state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// None: it does not come back.
    pub fn set(&self, key: K, moment: Option<Timestamp>) {
        {
            let mut state = self.lock();
            if let Some(old) = state.of.remove(&key) {
                state.in_order.remove(&(old, key.clone()));
            }
            if let Some(moment) = moment {
                state.of.insert(key.clone(), moment);
                state.in_order.insert((moment, key));
            }
        }
        self.changed.notify_one();
    }

    /// Takes out what is due.
    fn due(&self, now: Timestamp) -> Vec<K> {
        let mut state = self.lock();
        let mut due = Vec::new();
        while state.in_order.first().is_some_and(|(moment, _)| *moment <= now)
            && let Some((_, key)) = state.in_order.pop_first()
        {
            state.of.remove(&key);
            due.push(key);
        }
        due
    }

    /// Gives each key at its moment, for ever.
    pub async fn ring(&self, clock: &dyn Clock, come: impl Fn(K)) {
        loop {
            let first = self.lock().in_order.first().map(|(moment, _)| *moment);
            match first {
                None => self.changed.notified().await,
                Some(moment) => {
                    tokio::select! {
                        () = clock.reached(moment) => {}
                        () = self.changed.notified() => {}
                    }
                }
            }
            self.due(clock.now()).into_iter().for_each(&come);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_key_the_last_moment_counts() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let alarms = Alarms::new();
        alarms.set("a", Some(at(10)));
        alarms.set("b", Some(at(20)));
        alarms.set("c", Some(at(20)));
        alarms.set("a", Some(at(30)));
        alarms.set("c", None);
        assert_eq!(alarms.due(at(19)), [""; 0]);
        assert_eq!(alarms.due(at(20)), ["b"]);
        assert_eq!((alarms.due(at(30)), alarms.due(at(30))), (vec!["a"], vec![]));
        assert!(alarms.lock().of.is_empty());
    }
}
