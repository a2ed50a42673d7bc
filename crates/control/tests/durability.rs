//! What was acknowledged outlives SIGKILL, and a torn last write does not take others with it.

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use control::store::{Action, Encoded, Expect, Store, Write, engine::Durable};
use serde_json::json;

const CHILD: &str = "COFFERDAM_TEST_STORE";

fn open(path: &Path) -> Store {
    Store::open(Durable::open(path).unwrap()).unwrap()
}

/// Writes with 8 tasks until it is killed, and says on stdout what was acknowledged.
fn write_forever(path: &Path) -> ! {
    let store = open(path);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let stdout = Arc::new(std::sync::Mutex::new(std::io::stdout()));
    runtime.block_on(async {
        let tasks = (0..8).map(|task| {
            let (store, stdout) = (store.clone(), stdout.clone());
            async move {
                for n in 0.. {
                    let key = format!("/configmaps/d/{task}-{n}");
                    let mut object =
                        json!({"metadata": {"name": n.to_string()}, "data": {"v": "x".repeat(2000)}});
                    let action = Action::Put(Encoded::new(&mut object));
                    let write = Write { key: key.as_str().into(), expect: Expect::Absent, action };
                    let revision = store.write(write).await.unwrap().revision;
                    writeln!(stdout.lock().unwrap(), "\nacknowledged {key} {revision}").unwrap();
                }
            }
        });
        futures::future::join_all(tasks).await;
    });
    unreachable!("the parent kills us")
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_forever(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut known: Vec<(String, u64)> = Vec::new();
    for round in 0..3 {
        // A directory of its own per round's keys would hide what a second crash does to the first one's writes.
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "acknowledged_writes_survive_sigkill", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 150 + round * 40 {
            let Some(Ok(line)) = lines.next() else { break };
            let Some(rest) = line.strip_prefix("acknowledged ") else { continue };
            let (key, revision) = rest.split_once(' ').unwrap();
            known.push((key.to_owned(), revision.parse().unwrap()));
            seen += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was still in the pipe had been acknowledged too.
        for line in lines.map_while(Result::ok) {
            if let Some((key, revision)) =
                line.strip_prefix("acknowledged ").and_then(|rest| rest.split_once(' '))
                && let Ok(revision) = revision.parse()
            {
                known.push((key.to_owned(), revision));
            }
        }
        assert!(seen > 0, "the child wrote nothing");
        if round == 0 {
            tear_the_journal(&path);
        }
        let store = open(&path);
        for (key, revision) in &known {
            let object = store
                .get(key)
                .unwrap_or_else(|| panic!("{key} was acknowledged and is gone (round {round})"));
            assert_eq!(object.revision, *revision, "{key}");
            assert_eq!(object.value()["metadata"]["resourceVersion"], revision.to_string());
        }
        let last = known.iter().map(|(_, revision)| *revision).max().unwrap();
        assert!(store.revision() >= last, "a revision would be given twice");
        // The next round's child creates the same keys again.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for object in store.list("/", None).unwrap().objects {
            let expect = Expect::Revision(object.revision);
            runtime
                .block_on(store.write(Write { key: object.key.clone(), expect, action: Action::Delete }))
                .unwrap();
        }
        known.clear();
    }
}

/// What a loss of power leaves of a write that was never acknowledged: half a batch at the journal's end.
fn tear_the_journal(path: &Path) {
    let journal = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .expect("the engine keeps a journal");
    let bytes = fs::read(&journal).unwrap();
    // The start of a batch, as the journal itself begins.
    let torn = &bytes[..bytes.len().min(57)];
    fs::OpenOptions::new().append(true).open(&journal).unwrap().write_all(torn).unwrap();
}
