//! Events are kept for an hour after they were last written (upstream's `--event-ttl`), so that a cluster that runs for long
//! does not fill its store with them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::text;
use crate::store::{Action, Expect, Object, Store, Write, WriteError};

const KEPT: Duration = Duration::from_secs(3600);
/// Events that expire within this time of each other go together.
const TOGETHER: Duration = Duration::from_secs(60);

/// When an event was last written; its times are in seconds or finer, and any of them may be missing.
fn written(event: &Value) -> Option<Timestamp> {
    ["/lastTimestamp", "/series/lastObservedTime", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .filter_map(|pointer| text(event, pointer).parse().ok())
        .max()
}

/// The events whose time is over, and how long until the next one's is.
fn expired(events: Vec<Arc<Object>>, now: Timestamp) -> (Vec<Arc<Object>>, Duration) {
    let mut over = Vec::new();
    let mut next = KEPT;
    for event in events {
        // One without any time is as new as can be known: it is looked at again.
        let age = written(&event.value()).map_or(Duration::ZERO, |at| {
            Duration::try_from(now.duration_since(at)).unwrap_or(Duration::ZERO)
        });
        match KEPT.checked_sub(age) {
            Some(left) if !left.is_zero() => next = next.min(left),
            _ => over.push(event),
        }
    }
    (over, next.max(TOGETHER))
}

/// Removes events as they expire, until the store fails.
pub async fn events(store: Store) {
    loop {
        let listed = store.list("/events/", None).map(|listed| listed.objects).unwrap_or_default();
        let (over, next) = expired(listed, Timestamp::now());
        for event in over {
            let expect = Expect::Revision(event.revision);
            let write = Write { key: event.key.clone(), expect, action: Action::Delete };
            if let Err(WriteError::Engine(_)) = store.write(write).await {
                return;
            }
        }
        // Nothing that is written from now on expires before.
        tokio::time::sleep(next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Encoded, engine::Volatile};
    use serde_json::json;

    #[tokio::test]
    async fn an_event_goes_an_hour_after_its_last_time() {
        let store = Store::open(Volatile).unwrap();
        let table = [
            ("old", json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}})),
            (
                "seen-again",
                json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "lastTimestamp": "2026-01-01T00:50:00Z"}),
            ),
            ("new-style", json!({"metadata": {}, "eventTime": "2026-01-01T00:00:00.000001Z"})),
            ("timeless", json!({"metadata": {}})),
        ];
        let mut objects = Vec::new();
        for (name, mut event) in table {
            let action = Action::Put(Encoded::new(&mut event));
            let key = format!("/events/d/{name}").into();
            objects.push(store.write(Write { key, expect: Expect::Absent, action }).await.unwrap());
        }
        let (over, next) = expired(objects, "2026-01-01T01:00:01Z".parse().unwrap());
        let over: Vec<&str> = over.iter().map(|event| &*event.key).collect();
        assert_eq!(over, ["/events/d/old", "/events/d/new-style"]);
        assert_eq!(next, Duration::from_secs(50 * 60 - 1));
    }
}
