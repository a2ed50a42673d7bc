use serde_json::json;

use super::*;
use crate::store::{Action, Encoded, Expect, Store, Write, engine::Volatile};

const NOW: i64 = 1_800_000_000;

pub(super) fn claims() -> Claims {
    let reference = |name: &str| Reference { name: name.into(), uid: format!("{name}-uid") };
    Claims {
        aud: vec![ISSUER.into(), "vault".into()],
        exp: NOW + 600,
        iat: NOW,
        iss: ISSUER.into(),
        jti: "j".into(),
        kubernetes: Kubernetes {
            namespace: "d".into(),
            node: Some(reference("n")),
            pod: Some(reference("p")),
            secret: None,
            serviceaccount: reference("sa"),
            warnafter: None,
        },
        nbf: NOW,
        sub: account_name("d", "sa"),
    }
}

#[test]
fn what_is_signed_is_read_until_it_expires() {
    let tokens = Tokens::ephemeral().unwrap();
    let token = tokens.sign(&claims()).unwrap();
    for (after, want) in [
        (0, Ok(())),
        (-LEEWAY, Ok(())),
        (-LEEWAY - 1, Err(TokenError::NotYet)),
        (600 + LEEWAY, Ok(())),
        (601 + LEEWAY, Err(TokenError::Expired)),
    ] {
        assert_eq!(tokens.verify(&token, NOW + after).map(drop), want, "{after}");
    }
    assert_eq!(*tokens.verify(&token, NOW).unwrap(), claims());
}

#[test]
fn what_another_wrote_is_no_token() {
    let tokens = Tokens::ephemeral().unwrap();
    let token = tokens.sign(&claims()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("{token}") };
    let mut mighty = claims();
    mighty.kubernetes.serviceaccount.name = "admin".into();
    let mighty = base64url::encode(&serde_json::to_vec(&mighty).unwrap());
    let none = base64url::encode(br#"{"alg":"none"}"#);
    let mut elsewhere = claims();
    elsewhere.iss = "https://elsewhere".into();
    let table = [
        String::new(),
        "a".into(),
        "a.b".into(),
        "a.b.c".into(),
        Tokens::ephemeral().unwrap().sign(&claims()).unwrap(),
        tokens.sign(&elsewhere).unwrap(),
        format!("{header}.{mighty}.{signature}"),
        format!("{none}.{payload}.{signature}"),
        format!("{none}.{payload}."),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{signature}=="),
        format!("{token}.x"),
        "x".repeat(LONGEST + 1),
    ];
    for bad in table {
        assert_eq!(tokens.verify(&bad, NOW), Err(TokenError::Invalid), "{bad}");
    }
    // Whichever byte of it is changed.
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bytes).unwrap();
        assert_eq!(tokens.verify(&bad, NOW), Err(TokenError::Invalid), "{at}");
    }
}

#[test]
fn a_token_is_good_for_its_audiences_alone() {
    let ask = |list: &[&str]| audiences(&claims(), &list.iter().map(|a| a.to_string()).collect::<Vec<_>>());
    assert_eq!(ask(&[ISSUER]).unwrap(), [ISSUER]);
    assert_eq!(ask(&["other", "vault"]).unwrap(), ["vault"]);
    assert_eq!(
        ask(&["other"]).unwrap_err().to_string(),
        r#"token audiences ["https://kubernetes.default.svc.cluster.local" "vault"] is invalid for the target audiences ["other"]"#
    );
}

#[test]
fn the_key_is_kept_and_its_public_half_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sa.key");
    let first = Tokens::open(&path).unwrap();
    let token = first.sign(&claims()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Tokens::open(&path).unwrap();
    again.verify(&token, NOW).unwrap();
    let key = &again.key_set()["keys"][0];
    assert_eq!((&key["kty"], &key["alg"], &key["crv"]), (&json!("EC"), &json!("ES256"), &json!("P-256")));
    for half in ["x", "y"] {
        assert_eq!(base64url::decode(key[half].as_str().unwrap()).unwrap().len(), 32);
    }
    std::fs::write(&path, "nonsense").unwrap();
    assert!(matches!(Tokens::open(&path), Err(KeyError::NotAKey(_))));
}

async fn put(store: &Store, key: &str, metadata: serde_json::Value) {
    let action = Action::Put(Encoded::new(&mut json!({"spec": {"a": [1]}, "metadata": metadata})));
    let expect = store.get(key).map_or(Expect::Absent, |object| Expect::Revision(object.revision));
    store.write(Write { key: key.into(), expect, action }).await.unwrap();
}

#[tokio::test]
async fn a_token_lives_as_long_as_what_it_is_bound_to() {
    let store = Store::open(Volatile).unwrap();
    let claims = claims();
    let ask = |now| alive(&store, &claims, now).map_err(|error| error.to_string());
    assert_eq!(ask(NOW).unwrap_err(), r#"serviceaccounts "sa" not found"#);
    put(&store, "/serviceaccounts/d/sa", json!({"name": "sa", "uid": "younger"})).await;
    assert_eq!(ask(NOW).unwrap_err(), "service account UID (younger) does not match claim (sa-uid)");
    put(&store, "/serviceaccounts/d/sa", json!({"name": "sa", "uid": "sa-uid"})).await;
    assert_eq!(ask(NOW).unwrap_err(), "service account token has been invalidated");
    put(&store, "/pods/d/p", json!({"name": "p", "uid": "younger"})).await;
    assert_eq!(
        ask(NOW).unwrap_err(),
        "pod UID (younger) does not match service account pod ref claim (p-uid)"
    );
    put(&store, "/pods/d/p", json!({"name": "p", "uid": "p-uid"})).await;
    assert_eq!(ask(NOW), Ok(()));
    // Its grace, and a minute more.
    let at = jiff::Timestamp::from_second(NOW + 30).unwrap().to_string();
    put(&store, "/pods/d/p", json!({"name": "p", "uid": "p-uid", "deletionTimestamp": at})).await;
    assert_eq!(ask(NOW + 30 + LEEWAY), Ok(()));
    assert_eq!(ask(NOW + 31 + LEEWAY).unwrap_err(), "service account token has been invalidated");

    let mut by_node = claims.clone();
    by_node.kubernetes.pod = None;
    assert_eq!(alive(&store, &by_node, NOW), Err(TokenError::Invalidated));
    put(&store, "/nodes/n", json!({"name": "n", "uid": "n-uid"})).await;
    assert_eq!(alive(&store, &by_node, NOW), Ok(()));
}
