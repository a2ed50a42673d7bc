use std::{fs, path::Path};

use serde_json::{Value, json};

use super::*;

fn directory(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

/// Waits for so many lines: the writer has a thread of its own.
fn lines(path: &Path, count: usize) -> Vec<Value> {
    for _ in 0..1000 {
        let text = fs::read_to_string(path.join("audit.log")).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no {count} lines: {:?}", fs::read_to_string(path.join("audit.log")));
}

fn request() -> Request<()> {
    let request = Request::builder().method("POST").uri("/api/v1/namespaces/d/pods/p/eviction?dryRun=All");
    let mut request = request.header("user-agent", "kubectl/v1").body(()).unwrap();
    request.extensions_mut().insert(Peer("10.244.1.2".parse().unwrap()));
    request
}

#[test]
fn a_line_says_who_did_what_to_what_and_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(directory(dir.path())).unwrap();
    let record = audit.begin(&request());
    record.user(&Arc::new(User::new("jane", ["dev".to_owned()])));
    record.impersonates(&Arc::new(User::new("joe", [])));
    let target = Target {
        resource: "pods".into(),
        version: "v1".into(),
        subresource: "eviction".into(),
        namespace: "d".into(),
        name: "p".into(),
        ..Target::default()
    };
    record.target("create", target);
    record.annotate("authorization.k8s.io/decision", "forbid");
    let error = ApiError::forbidden(("", "pods"), "p", "no");
    let mut response = Response::builder().status(403).extension(error).body(()).unwrap();
    record.answered(&mut response, false);
    let id = response.headers()["audit-id"].to_str().unwrap().to_owned();
    drop(record);

    let mut line = lines(dir.path(), 1).remove(0);
    for field in ["requestReceivedTimestamp", "stageTimestamp"] {
        let time = line[field].take();
        assert!(time.as_str().is_some_and(|time| time.len() == 27 && time.ends_with('Z')), "{time}");
    }
    assert_eq!(
        line,
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": id,
            "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/d/pods/p/eviction?dryRun=All",
            "verb": "create",
            "user": {"username": "jane", "groups": ["dev", "system:authenticated"]},
            "impersonatedUser": {"username": "joe", "groups": ["system:authenticated"]},
            "sourceIPs": ["10.244.1.2"], "userAgent": "kubectl/v1",
            "objectRef": {"resource": "pods", "namespace": "d", "name": "p", "apiVersion": "v1", "subresource": "eviction"},
            "responseStatus": {"metadata": {}, "status": "Failure", "message": "pods \"p\" is forbidden: no",
                "reason": "Forbidden", "details": {"name": "p", "kind": "pods"}, "code": 403},
            "requestReceivedTimestamp": null, "stageTimestamp": null,
            "annotations": {"authorization.k8s.io/decision": "forbid"},
        })
    );
}

#[test]
fn what_stays_open_has_a_line_for_its_beginning_and_one_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(directory(dir.path())).unwrap();
    let record = audit.begin(&request());
    let body = record.clone();
    record.answered(&mut Response::new(()), true);
    drop(record);
    assert_eq!(lines(dir.path(), 1)[0]["stage"], "ResponseStarted");
    drop(body);
    let both = lines(dir.path(), 2);
    assert_eq!(both[1]["stage"], "ResponseComplete");
    assert_eq!(both[0]["auditID"], both[1]["auditID"]);
    assert_eq!(both[1]["responseStatus"], json!({"metadata": {}, "code": 200}));
}

#[test]
fn nothing_is_dropped_where_many_ask_at_once() {
    const EACH: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(directory(dir.path())).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..EACH).for_each(|_| drop(audit.begin(&request()))));
        }
    });
    let seen: std::collections::BTreeSet<String> =
        lines(dir.path(), 4 * EACH).iter().map(|line| line["auditID"].to_string()).collect();
    assert_eq!(seen.len(), 4 * EACH);
}

#[test]
fn a_full_file_makes_room_and_the_oldest_goes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let limits = writer::Limits { size: 100, old: 2 };
    let open = || writer::Writer::open(directory(dir.path()), limits).unwrap();
    let mut writer = open();
    for number in 0..4 {
        writer.write(format!("{number}{}\n", "x".repeat(60)).as_bytes()).unwrap();
    }
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names.len(), 3, "{names:?}");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(names.iter().map(|name| read(name).remove(0)).collect::<String>(), "123", "{names:?}");
    let mode = fs::metadata(dir.path().join("audit.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A restart goes on where it was.
    open().write(b"again\n").unwrap();
    assert!(read("audit.log").starts_with('3') && read("audit.log").ends_with("again\n"));
}
