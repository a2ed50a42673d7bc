//! Services as clients write them: the whole way from a request to what is kept.

use super::*;

fn dual() -> Server {
    let cidrs = ["10.96.0.0/24".to_owned(), "fd00:96::/112".to_owned()];
    let settings = Settings { ranges: ServiceRanges::with_cidrs(cidrs), ..settings() };
    Server(ApiServer::new(Store::open(Volatile).unwrap(), settings).unwrap())
}

const PATH: &str = "/api/v1/namespaces/d/services";

#[tokio::test]
async fn a_service_changes_its_families_and_its_type() {
    let server = dual();
    server.created("/api/v1/namespaces", json!({"metadata": {"name": "d"}})).await;
    let manifest = json!({"metadata": {"name": "web"}, "spec": {
        "type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}], "selector": {"app": "web"},
    }});
    let web = server.created(PATH, manifest).await;
    let ips = web["spec"]["clusterIPs"].as_array().unwrap().clone();
    assert_eq!((ips.len(), &web["spec"]["clusterIP"]), (2, &ips[0]));
    let one = format!("{PATH}/web");
    let patch = async |spec: Value| server.ask("PATCH", &one, json!({"spec": spec})).await;

    let (code, single) = patch(json!({"ipFamilyPolicy": "SingleStack"})).await;
    assert_eq!((code, &single["spec"]["clusterIPs"]), (200, &json!([ips[0]])), "{single}");
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    // The address is free for somebody else.
    let taken =
        json!({"metadata": {"name": "other"}, "spec": {"clusterIP": ips[1], "ports": [{"port": 80}]}});
    server.created(PATH, taken).await;
    let back = json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ips});
    let (code, refused) = patch(back).await;
    assert_eq!(code, 422);
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with("provided IP is already allocated"), "{message}");
    let (code, both) = patch(json!({"ipFamilyPolicy": "RequireDualStack"})).await;
    assert_eq!((code, both["spec"]["clusterIPs"].as_array().map(Vec::len)), (200, Some(2)), "{both}");

    // Sent with the node port it had, which the type no longer takes.
    let (code, plain) = patch(json!({"type": "ClusterIP"})).await;
    assert_eq!((code, &plain["spec"]["ports"][0]["nodePort"]), (200, &Value::Null), "{plain}");
    assert!(plain["spec"].get("externalTrafficPolicy").is_none(), "{plain}");
    let (code, external) = patch(json!({"type": "ExternalName", "externalName": "a.example"})).await;
    assert_eq!(code, 200, "{external}");
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert!(external["spec"].get(field).is_none(), "{field}: {external}");
    }
}
