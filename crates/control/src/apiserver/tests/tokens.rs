//! Tokens: who gets them, who they name, when they end.

use super::*;

const ACCOUNT: &str = "/api/v1/namespaces/d/serviceaccounts/default";
const ISSUER: &str = crate::tokens::ISSUER;

impl Server {
    /// As whoever the token names.
    async fn with_token(&self, token: &str, method: &str, target: &str, body: Value) -> (u16, Value) {
        let body = http_body_util::Full::new(body.to_string().into()).map_err(|never| match never {});
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(body.boxed_unsync())
            .unwrap();
        let response = self.0.clone().handle(request, None).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap())
    }

    async fn token(&self, spec: Value) -> String {
        let new = self.created(&format!("{ACCOUNT}/token"), json!({"spec": spec})).await;
        new["status"]["token"].as_str().unwrap().to_owned()
    }

    async fn whoami(&self, token: &str) -> (u16, Value) {
        let (code, mut answer) = self
            .with_token(token, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}))
            .await;
        (code, if code == 201 { answer["status"]["userInfo"].take() } else { answer })
    }

    async fn review(&self, spec: Value) -> Value {
        self.created("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": spec})).await["status"]
            .take()
    }

    /// A pod, bound to a node that may or may not be there.
    async fn bound(&self, name: &str, node: &str) -> Value {
        self.created(PODS, pod(name)).await;
        let binding = json!({"target": {"kind": "Node", "name": node}});
        self.created(&format!("{PODS}/{name}/binding"), binding).await;
        self.get(&format!("{PODS}/{name}")).await
    }
}

fn to_pod(pod: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]})
}

#[tokio::test]
async fn a_token_names_its_account_and_what_it_is_bound_to() {
    let server = furnished().await;
    let node = server.created("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let pod = server.bound("p", "n").await;
    let account = server.get(ACCOUNT).await;
    let plain = server.created(&format!("{ACCOUNT}/token"), json!({})).await;
    assert_eq!(plain["spec"], json!({"audiences": [ISSUER], "expirationSeconds": 3600}));
    assert!(plain["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'), "{plain}");

    let token = server.token(json!({"boundObjectRef": to_pod(&pod)})).await;
    let (code, who) = server.whoami(&token).await;
    assert_eq!(code, 201, "{who}");
    assert_eq!(who["username"], "system:serviceaccount:d:default");
    assert_eq!(who["uid"], account["metadata"]["uid"]);
    let groups = ["system:serviceaccounts", "system:serviceaccounts:d", "system:authenticated"];
    assert_eq!(who["groups"], json!(groups));
    let extra = |name: &str| who["extra"][&format!("authentication.kubernetes.io/{name}")][0].clone();
    assert_eq!((extra("pod-name"), extra("pod-uid")), (json!("p"), pod["metadata"]["uid"].clone()));
    assert_eq!((extra("node-name"), extra("node-uid")), (json!("n"), node["metadata"]["uid"].clone()));
    assert!(extra("credential-id").as_str().unwrap().starts_with("JTI="), "{who}");

    let review = server.review(json!({"token": token})).await;
    assert_eq!((&review["authenticated"], &review["audiences"]), (&json!(true), &json!([ISSUER])));
    assert_eq!(review["user"], who);
}

#[tokio::test]
async fn a_token_ends_with_its_pod_its_account_or_its_time() {
    let server = furnished().await;
    let pod = server.bound("p", "nowhere").await;
    let token = server.token(json!({"boundObjectRef": to_pod(&pod)})).await;
    assert_eq!(server.whoami(&token).await.0, 201);
    let gone = json!({"gracePeriodSeconds": 0});
    assert_eq!(server.ask("DELETE", &format!("{PODS}/p"), gone.clone()).await.0, 200);
    let (code, refused) = server.whoami(&token).await;
    assert_eq!(
        (code, &refused["message"], &refused["reason"]),
        (401, &json!("Unauthorized"), &json!("Unauthorized"))
    );
    assert_eq!(
        server.review(json!({"token": token})).await,
        json!({"user": {}, "error": "[invalid bearer token, service account token has been invalidated]"})
    );
    // A younger pod of that name is another pod.
    server.bound("p", "nowhere").await;
    assert_eq!(server.whoami(&token).await.0, 401);

    let free = server.token(json!({})).await;
    assert_eq!(server.whoami(&free).await.0, 201);
    assert_eq!(server.ask("DELETE", ACCOUNT, Value::Null).await.0, 200);
    assert_eq!(server.whoami(&free).await.0, 401);
    server.created("/api/v1/namespaces/d/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    assert_eq!(server.whoami(&free).await.0, 401, "another account of that name");
}

#[tokio::test]
async fn a_token_for_others_does_not_open_this_server() {
    let server = furnished().await;
    let token = server.token(json!({"audiences": ["vault", "other"]})).await;
    assert_eq!(server.whoami(&token).await.0, 401);
    let review = server.review(json!({"token": token, "audiences": ["vault"]})).await;
    assert_eq!((&review["authenticated"], &review["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(
        server.review(json!({"token": token})).await["error"],
        r#"[invalid bearer token, token audiences ["vault" "other"] is invalid for the target audiences ["https://kubernetes.default.svc.cluster.local"]]"#
    );
    assert_eq!(
        server.review(json!({"token": "x"})).await,
        json!({"user": {}, "error": "invalid bearer token"})
    );
    let refused =
        server.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {}})).await;
    assert_eq!(message(&refused), (400, "token is required for TokenReview in authentication"));
}

#[tokio::test]
async fn a_bad_token_is_refused_even_where_none_is_needed() {
    let server = furnished().await;
    assert_eq!(server.with_token("nonsense", "GET", "/healthz", Value::Null).await.0, 401);
    assert_eq!(server.with_token("nonsense", "GET", PODS, Value::Null).await.1["code"], 401);
}

#[tokio::test]
async fn requests_for_tokens_are_refused_in_upstreams_words() {
    let server = furnished().await;
    let pod = server.bound("p", "nowhere").await;
    server.created("/api/v1/namespaces/d/serviceaccounts", json!({"metadata": {"name": "other"}})).await;
    let mut stale = to_pod(&pod);
    stale["uid"] = "old".into();
    let stale_why = "Operation cannot be fulfilled on Pod \"p\": the UID in the bound object reference (old) does not \
         match the UID in record. The object might have been deleted and then recreated";
    let short = r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"#;
    let long = r#"TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds"#;
    let name = r#"TokenRequest.authentication.k8s.io "default" is invalid: metadata.name: Invalid value: "x": must match the service account name if specified"#;
    let table = [
        ("default", json!({"spec": {"expirationSeconds": 599}}), 422, short),
        ("default", json!({"spec": {"expirationSeconds": 4294967297i64}}), 422, long),
        ("default", json!({"metadata": {"name": "x"}, "spec": {}}), 422, name),
        ("missing", json!({"spec": {}}), 404, r#"serviceaccounts "missing" not found"#),
        ("default", json!({"spec": {"boundObjectRef": stale}}), 409, stale_why),
        (
            "default",
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "q"}}}),
            404,
            r#"pods "q" not found"#,
        ),
        (
            "other",
            json!({"spec": {"boundObjectRef": to_pod(&pod)}}),
            400,
            r#"cannot bind token for serviceaccount "other" to pod running with different serviceaccount name."#,
        ),
        (
            "default",
            json!({"spec": {"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "q"}}}),
            400,
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
    ];
    for (account, body, code, want) in table {
        let target = format!("/api/v1/namespaces/d/serviceaccounts/{account}/token");
        assert_eq!(message(&server.ask("POST", &target, body.clone()).await), (code, want), "{body}");
    }
}

#[tokio::test]
async fn a_projected_token_lives_longer_than_it_says() {
    let server = furnished().await;
    let pod = server.bound("p", "nowhere").await;
    let life = async |spec: Value| {
        let token = server.token(spec).await;
        let claims = server.0.settings.tokens.verify(&token, respond::now()).unwrap();
        (claims.exp - claims.iat, claims.kubernetes.warnafter.map(|at| at - claims.iat))
    };
    let bound = to_pod(&pod);
    assert_eq!(
        life(json!({"expirationSeconds": 3607, "boundObjectRef": bound})).await,
        (365 * 24 * 3600, Some(3607))
    );
    assert_eq!(life(json!({"expirationSeconds": 3607})).await, (3607, None));
    assert_eq!(life(json!({"expirationSeconds": 3600, "boundObjectRef": bound})).await, (3600, None));
    assert_eq!(
        life(json!({"expirationSeconds": 3607, "boundObjectRef": bound, "audiences": ["vault"]})).await,
        (3607, None)
    );
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_own_pods_alone() {
    let server = furnished().await;
    let own = server.bound("own", "node-1").await;
    let foreign = server.bound("foreign", "node-2").await;
    let ask = async |spec: Value| {
        let (status, _, text) = server
            .ask_as(
                Some(User::node("node-1")),
                "POST",
                &format!("{ACCOUNT}/token"),
                "application/json",
                json!({"spec": spec}).to_string(),
            )
            .await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        (status.as_u16(), answer["message"].as_str().unwrap_or_default().to_owned())
    };
    let mut nameless = to_pod(&own);
    nameless["uid"] = Value::Null;
    let table = [
        (json!({}), "node requested token not bound to a pod"),
        (json!({"boundObjectRef": nameless}), "node requested token with a pod binding without a uid"),
        (
            json!({"boundObjectRef": to_pod(&foreign)}),
            "node requested token bound to a pod scheduled on a different node",
        ),
        (
            json!({"boundObjectRef": to_pod(&own), "audiences": ["vault"]}),
            "audience \"vault\" not found in pod spec volume",
        ),
    ];
    for (spec, want) in table {
        let (code, why) = ask(spec.clone()).await;
        assert_eq!((code, why), (403, format!("serviceaccounts \"default\" is forbidden: {want}")), "{spec}");
    }
}

#[tokio::test]
async fn the_keys_are_public() {
    let server = furnished().await;
    let document = server.get("/.well-known/openid-configuration").await;
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["jwks_uri"], format!("{ISSUER}/openid/v1/jwks"));
    assert_eq!(server.get("/openid/v1/jwks").await["keys"][0]["kty"], "EC");
}
