use super::{engine::Volatile, *};
use serde_json::{Value, json};

fn put(n: u64) -> Action {
    Action::Put(Encoded::new(&mut json!({"metadata": {"name": "x"}, "n": n})))
}

async fn create(store: &Store, key: &str, n: u64) -> Arc<Object> {
    store.write(Write { key: key.into(), expect: Expect::Absent, action: put(n) }).await.unwrap()
}

async fn update(store: &Store, old: &Object, n: u64) -> Arc<Object> {
    let expect = Expect::Revision(old.revision);
    store.write(Write { key: old.key.clone(), expect, action: put(n) }).await.unwrap()
}

async fn delete(store: &Store, old: &Object) -> Arc<Object> {
    let expect = Expect::Revision(old.revision);
    store.write(Write { key: old.key.clone(), expect, action: Action::Delete }).await.unwrap()
}

fn store() -> Store {
    Store::open(Volatile).unwrap()
}

/// An engine whose commits wait for leave, and say how many records each has.
struct Held {
    leave: std::sync::mpsc::Receiver<()>,
    commits: std::sync::mpsc::Sender<usize>,
}

fn held() -> (Store, std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<usize>) {
    let (allow, leave) = std::sync::mpsc::channel();
    let (commits, seen) = std::sync::mpsc::channel();
    (Store::open(Held { leave, commits }).unwrap(), allow, seen)
}

impl engine::Engine for Held {
    fn load(&mut self) -> Result<engine::Loaded, engine::EngineError> {
        Volatile.load()
    }
    fn commit(&mut self, records: Vec<engine::Record<'_>>, _: u64) -> Result<(), engine::EngineError> {
        self.leave.recv().map_err(|_| engine::EngineError::Damaged("the test is over".into()))?;
        self.commits.send(records.len()).map_err(|_| engine::EngineError::Damaged("the test is over".into()))
    }
}

fn numbers(listed: &Listed) -> Vec<u64> {
    listed.objects.iter().map(|o| o.value()["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_write_that_expects_something_else_is_a_conflict() {
    let store = store();
    let a = create(&store, "/pods/d/a", 1).await;
    let again = Write { key: "/pods/d/a".into(), expect: Expect::Absent, action: put(2) };
    assert!(matches!(store.write(again).await, Err(WriteError::Conflict(Some(_)))));
    update(&store, &a, 3).await;
    let stale = Write { key: a.key.clone(), expect: Expect::Revision(a.revision), action: put(4) };
    let Err(WriteError::Conflict(Some(current))) = store.write(stale).await else { panic!("no conflict") };
    assert_eq!(current.value()["n"], 3);
    delete(&store, &current).await;
    let gone =
        Write { key: a.key.clone(), expect: Expect::Revision(current.revision), action: Action::Delete };
    assert!(matches!(store.write(gone).await, Err(WriteError::Conflict(None))));
}

#[tokio::test]
async fn an_object_too_large_for_etcd_is_too_large_here() {
    let store = store();
    let action = Action::Put(Encoded::new(&mut json!({"data": "x".repeat(MAX_OBJECT)})));
    let write = Write { key: "/configmaps/d/a".into(), expect: Expect::Absent, action };
    assert!(matches!(store.write(write).await, Err(WriteError::TooLarge(_))));
}

#[tokio::test]
async fn the_past_can_be_listed_until_it_is_compacted() {
    let store = store();
    let a = create(&store, "/pods/d/a", 1).await;
    let b = create(&store, "/pods/d/b", 2).await;
    create(&store, "/pods/e/c", 3).await;
    create(&store, "/podtemplates/d/z", 9).await;
    let then = store.revision();
    update(&store, &a, 4).await;
    delete(&store, &b).await;
    create(&store, "/pods/d/d", 5).await;
    assert_eq!(numbers(&store.list("/pods/", None).unwrap()), [4, 5, 3]);
    assert_eq!(numbers(&store.list("/pods/", Some(then)).unwrap()), [1, 2, 3]);
    assert_eq!(numbers(&store.list("/pods/d/", Some(then)).unwrap()), [1, 2]);
    assert_eq!(numbers(&store.list("/pods/d/", Some(a.revision)).unwrap()), [1]);
    store.compact(then);
    assert_eq!(numbers(&store.list("/pods/", Some(then)).unwrap()), [1, 2, 3]);
    store.compact(then + 1);
    let expired = ReadError::Expired { requested: then, oldest: then + 1 };
    assert_eq!(store.list("/pods/", Some(then)).unwrap_err(), expired);
    assert_eq!(store.watch("/pods/", then).unwrap_err(), expired);
    let now = store.revision();
    assert!(matches!(store.list("/pods/", Some(now + 1)), Err(ReadError::Future { .. })));
}

#[tokio::test]
async fn a_watch_tells_what_happened_since_its_revision_in_order() {
    let store = store();
    let a = create(&store, "/pods/d/a", 1).await;
    let mut watcher = store.watch("/pods/d/", a.revision - 1).unwrap();
    let a = update(&store, &a, 2).await;
    create(&store, "/pods/e/b", 3).await;
    let gone = delete(&store, &a).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = watcher.next().await.unwrap();
        let line: Value = serde_json::from_slice(&event.object.line()).unwrap();
        seen.push((
            line["type"].as_str().unwrap().to_owned(),
            line["object"]["n"].as_u64().unwrap(),
            event.revision,
        ));
    }
    let words: Vec<_> = seen.iter().map(|(word, n, _)| (word.as_str(), *n)).collect();
    assert_eq!(words, [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)]);
    assert_eq!(seen[2].2, gone.revision);
    assert!(watcher.try_next().is_none());
}

#[tokio::test]
async fn a_watch_of_one_key_does_not_see_its_namesakes() {
    let store = store();
    let mut watcher = store.watch("/pods/d/a", store.revision()).unwrap();
    create(&store, "/pods/d/ab", 1).await;
    create(&store, "/pods/d/a", 2).await;
    assert_eq!(watcher.next().await.unwrap().object.value()["n"], 2);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off() {
    let store = store();
    let mut watcher = store.watch("/pods/", store.revision()).unwrap();
    for n in 0..=QUEUE as u64 {
        create(&store, &format!("/pods/d/{n}"), n).await;
    }
    for _ in 0..QUEUE {
        watcher.next().await.unwrap();
    }
    assert_eq!(watcher.next().await.unwrap_err(), Overrun);
}

#[tokio::test]
async fn a_restart_finds_everything_and_goes_on_counting() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(engine::Durable::open(dir.path()).unwrap()).unwrap();
    let store = open();
    let a = create(&store, "/pods/d/a", 1).await;
    let b = create(&store, "/pods/d/b", 2).await;
    let a = update(&store, &a, 3).await;
    delete(&store, &b).await;
    let (before, revision) = (store.list("/", None).unwrap(), store.revision());
    let thread_is_gone = Arc::downgrade(&store.shared);
    drop(store);
    while thread_is_gone.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let store = open();
    assert_eq!(store.revision(), revision);
    let after = store.list("/", None).unwrap();
    assert_eq!(after.objects[0].bytes(), before.objects[0].bytes());
    assert_eq!((after.objects.len(), after.objects[0].revision), (1, a.revision));
    assert!(store.watch("/", revision - 1).is_err(), "events from before the restart are forgotten");
    assert!(store.watch("/", revision).is_ok());
    assert_eq!(create(&store, "/pods/d/c", 4).await.revision, revision + 1);
}

#[tokio::test]
async fn what_a_watcher_that_looks_ahead_writes_is_in_the_commit_of_what_it_saw() {
    let (store, allow, commits) = held();
    let mut ahead = store.watch_ahead("/pods/", store.revision(), |_| true).unwrap();
    let mut behind = store.watch("/pods/", store.revision()).unwrap();
    let creating = tokio::spawn({
        let store = store.clone();
        async move { create(&store, "/pods/d/a", 1).await }
    });
    let seen = ahead.next().await.unwrap().object.clone();
    assert!(store.get("/pods/d/a").is_none() && behind.try_next().is_none(), "nothing is durable yet");
    assert_eq!(store.get_ahead("/pods/d/a").unwrap().revision, seen.revision);
    let answering = tokio::spawn({
        let store = store.clone();
        async move { update(&store, &seen, 2).await }
    });
    assert_eq!(ahead.next().await.unwrap().object.value()["n"], 2);
    assert!(store.get("/pods/d/a").is_none() && behind.try_next().is_none() && !creating.is_finished());
    allow.send(()).unwrap();
    let (created, answered) = (creating.await.unwrap(), answering.await.unwrap());
    assert_eq!((created.value()["n"].as_u64(), answered.revision), (Some(1), created.revision + 1));
    assert_eq!(commits.try_recv(), Ok(2));
    assert_eq!(behind.next().await.unwrap().revision, created.revision);
    assert_eq!(behind.next().await.unwrap().revision, answered.revision);
    assert!(ahead.try_next().is_none(), "what was seen ahead is not told again");
    assert_eq!(store.get("/pods/d/a").unwrap().revision, answered.revision);
}

#[tokio::test]
async fn a_commit_does_not_wait_long_for_a_promised_write() {
    let (store, allow, commits) = held();
    let _ahead = store.watch_ahead("/pods/", store.revision(), |_| true).unwrap();
    allow.send(()).unwrap();
    create(&store, "/pods/d/a", 1).await;
    assert_eq!(commits.try_recv(), Ok(1));
}

#[tokio::test]
async fn who_begins_to_look_ahead_misses_nothing() {
    let (store, allow, _commits) = held();
    allow.send(()).unwrap();
    let first = create(&store, "/pods/d/a", 1).await;
    let mut ahead = store.watch_ahead("/pods/", first.revision, |_| false).unwrap();
    let creating = tokio::spawn({
        let store = store.clone();
        async move { create(&store, "/pods/d/b", 2).await }
    });
    let undurable = ahead.next().await.unwrap();
    let mut late = store.watch_ahead("/pods/", first.revision - 1, |_| false).unwrap();
    allow.send(()).unwrap();
    creating.await.unwrap();
    assert_eq!(late.next().await.unwrap().revision, first.revision);
    assert_eq!(late.next().await.unwrap().revision, undurable.revision);
    assert!(late.try_next().is_none());
}
