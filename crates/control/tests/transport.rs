//! How clients reach the server: TLS with and without a certificate, the sockets of nodes, and through it the agent of a
//! pod's node.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::Command,
};

use common::Control;
use serde_json::json;

/// curl over TLS with or without the administrator's certificate: the status and the body.
fn https(c: &Control, certificate: bool, arguments: &[&str], path: &str) -> (String, String) {
    let kubeconfig: serde_json::Value =
        serde_yaml::from_str(&std::fs::read_to_string(c.path("kubeconfig")).unwrap()).unwrap();
    let write = |name: &str, text: &serde_json::Value| {
        std::fs::write(c.path(name), api::base64::decode(text.as_str().unwrap()).unwrap()).unwrap();
    };
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    let user = &kubeconfig["users"][0]["user"];
    write("ca.pem", &cluster["certificate-authority-data"]);
    write("crt.pem", &user["client-certificate-data"]);
    write("key.pem", &user["client-key-data"]);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "-w", "\n%{http_code} %{http_version}", "--cacert"])
        .arg(c.path("ca.pem"));
    if certificate {
        curl.arg("--cert").arg(c.path("crt.pem")).arg("--key").arg(c.path("key.pem"));
    }
    let out =
        curl.args(arguments).arg(format!("{}{path}", cluster["server"].as_str().unwrap())).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (body, status) =
        text.rsplit_once('\n').unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    (status.to_owned(), body.to_owned())
}

#[test]
fn a_certificate_says_who_asks_and_none_is_nobody() {
    if !common::has("curl", "a_certificate_says_who_asks_and_none_is_nobody") {
        return;
    }
    let c = Control::start();
    assert_eq!(https(&c, true, &["--http2"], "/api/v1/namespaces/default").0, "200 2");
    assert_eq!(https(&c, true, &["--http1.1"], "/api/v1/namespaces/default").0, "200 1.1");
    let (status, body) = https(&c, false, &["--http1.1"], "/api/v1/namespaces/default");
    assert_eq!(status, "401 1.1", "{body}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["reason"], "Unauthorized");
    assert_eq!(https(&c, false, &[], "/readyz").1, "ok");
}

#[test]
fn a_nodes_socket_is_that_node() {
    if !common::has("curl", "a_nodes_socket_is_that_node") {
        return;
    }
    let c = Control::start();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let socket = c.path("run/nodes/node-1/control.sock");
    let who = |socket: &std::path::Path| {
        let out = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "20",
                "-H",
                "content-type: application/json",
                "-d",
                &review,
                "--unix-socket",
            ])
            .arg(socket)
            .arg("http://c/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .output()
            .unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        answer["status"]["userInfo"].clone()
    };
    assert_eq!(who(&socket)["username"], "system:node:node-1");
    assert_eq!(who(&socket)["groups"][0], "system:nodes");
    assert_eq!(who(&c.path("run/control.sock"))["groups"][0], "system:masters");
}

#[test]
fn another_user_is_cut_off_at_the_socket() {
    if !common::has("curl", "another_user_is_cut_off") || !common::has("setpriv", "another_user_is_cut_off") {
        return;
    }
    let c = Control::start();
    let socket = c.path("run/control.sock");
    // Who may reach the file is one lock; who the peer is, another.
    for path in [c.path(""), c.path("run"), socket.clone()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let as_nobody = |program: &str, arguments: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", program])
            .args(arguments)
            .output()
            .unwrap()
    };
    let socket = socket.to_str().unwrap();
    assert!(
        as_nobody("test", &["-w", socket]).status.success(),
        "the file is open to all, so only the peer's uid is left"
    );
    let out = as_nobody("curl", &["-sS", "--max-time", "20", "--unix-socket", socket, "http://c/readyz"]);
    assert!(!out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
}

/// Reads a request's head: its first line and headers.
fn head(stream: &UnixStream) -> Vec<String> {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => return lines,
            line => lines.push(line.to_owned()),
        }
    }
}

/// A pod named `p`, bound to node-1, and the socket on which that node's agent listens.
fn bound_pod(c: &Control) -> UnixListener {
    let agent = UnixListener::bind(c.path("run/nodes/node-1/agent.sock")).unwrap();
    let post = |target: &str, body: serde_json::Value| {
        let target = format!("http://c/api/v1/namespaces/default/{target}");
        c.curl(&["-H", "content-type: application/json", "-d", &body.to_string(), &target])
    };
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}});
    assert_eq!(post("pods", pod)["status"]["phase"], "Pending");
    assert_eq!(
        post("pods/p/binding", json!({"target": {"kind": "Node", "name": "node-1"}}))["status"],
        "Success"
    );
    agent
}

#[test]
fn logs_come_from_the_agent_of_the_pods_node() {
    if !common::has("curl", "logs_come_from_the_agent_of_the_pods_node") {
        return;
    }
    let c = Control::start();
    let agent = bound_pod(&c);
    let answers = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for (status, body) in [
            ("200 OK", "hello\n"),
            ("400 Bad Request", "container \"b\" in pod \"p\" is waiting to start: ContainerCreating"),
        ] {
            let (mut stream, _) = agent.accept().unwrap();
            asked.push(head(&stream)[0].clone());
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
        asked
    });
    let (status, body) = https(
        &c,
        true,
        &[],
        "/api/v1/namespaces/default/pods/p/log?container=a&tailLines=5&pretty=x%26follow%3Dtrue",
    );
    assert_eq!((status.as_str(), body.as_str()), ("200 2", "hello\n"));
    let (status, body) =
        https(&c, true, &[], "/api/v1/namespaces/default/pods/p/log?container=b&previous=true");
    assert_eq!(status, "400 2");
    assert!(body.contains("is waiting to start: ContainerCreating") && body.contains("BadRequest"), "{body}");
    let (_, body) = https(&c, true, &[], "/api/v1/namespaces/default/pods/p/log");
    assert!(body.contains("a container name must be specified for pod p, choose one of: [a b]"), "{body}");
    assert_eq!(
        answers.join().unwrap(),
        [
            "GET /containerLogs/default/p/a?tailLines=5 HTTP/1.1",
            "GET /containerLogs/default/p/b?previous=true HTTP/1.1"
        ]
    );
}

#[test]
fn an_exec_is_upgraded_through_to_the_agent() {
    if !common::has("curl", "an_exec_is_upgraded_through_to_the_agent") {
        return;
    }
    let c = Control::start();
    let agent = bound_pod(&c);
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = agent.accept().unwrap();
        let asked = head(&stream);
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                  sec-websocket-accept: abc\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\nfrom the agent;",
            )
            .unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        (asked, got)
    });
    let mut client = UnixStream::connect(c.path("run/control.sock")).unwrap();
    client
        .write_all(
            b"GET /api/v1/namespaces/default/pods/p/exec?command=ls&command=-l&container=a&stdout=true HTTP/1.1\r\n\
              host: c\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\
              sec-websocket-protocol: v5.channel.k8s.io\r\nauthorization: Bearer secret\r\n\r\n",
        )
        .unwrap();
    let answer = head(&client);
    assert_eq!(answer[0], "HTTP/1.1 101 Switching Protocols");
    assert!(answer.iter().any(|line| line == "sec-websocket-accept: abc"), "{answer:?}");
    let mut first = [0; 15];
    client.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"from the agent;");
    client.write_all(b"from the client").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (asked, got) = agent.join().unwrap();
    assert_eq!(got, "from the client");
    assert_eq!(asked[0], "GET /exec/default/p/a?command=ls&command=-l&container=a&stdout=true HTTP/1.1");
    assert!(asked.iter().any(|line| line.to_lowercase() == "sec-websocket-key: k"), "{asked:?}");
    assert!(!asked.iter().any(|line| line.contains("secret")), "credentials are not the agent's: {asked:?}");
    let plain = c.curl_any(&["http://c/api/v1/namespaces/default/pods/p/exec?container=a"]);
    assert_eq!(plain["message"], "Upgrade request required");
}

/// curl over TLS with nothing but a token.
fn with_token(c: &Control, token: &str, path: &str) -> (String, String) {
    https(c, false, &["-H", &format!("authorization: Bearer {token}")], path)
}

#[test]
fn a_token_says_who_asks_over_tls_and_the_log_says_who_asked() {
    if !common::has("curl", "a_token_says_who_asks_over_tls_and_the_log_says_who_asked") {
        return;
    }
    let c = Control::start();
    let account = "http://c/api/v1/namespaces/default/serviceaccounts/robot";
    let post = |target: &str, body: serde_json::Value| {
        c.curl(&["-H", "content-type: application/json", "-d", &body.to_string(), target])
    };
    post("http://c/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "robot"}}));
    let new = post(&format!("{account}/token"), json!({"spec": {}}));
    let token = new["status"]["token"].as_str().unwrap();
    let pods = "/api/v1/namespaces/default/pods";
    let (status, body) = with_token(&c, token, pods);
    assert_eq!(status, "403 2", "{body}");
    assert!(
        body.contains(r#"User \"system:serviceaccount:default:robot\" cannot list resource \"pods\""#),
        "{body}"
    );
    assert_eq!(with_token(&c, token, "/openid/v1/jwks").0, "200 2", "every account may read the keys");
    // A certificate counts before a token.
    let header = format!("authorization: Bearer {token}");
    assert_eq!(https(&c, true, &["-H", &header], pods).0, "200 2");
    let (status, body) = with_token(&c, &token[..token.len() - 1], pods);
    assert_eq!(status, "401 2", "{body}");
    c.curl(&["-X", "DELETE", account]);
    assert_eq!(with_token(&c, token, pods).0, "401 2");

    // Each is in the log, by who asked and what became of it.
    let path = c.path("audit/audit.log");
    let find = |what: &str, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        for _ in 0..100 {
            let log = std::fs::read_to_string(&path).unwrap();
            let mut lines =
                log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            if let Some(line) = lines.find(|line| wanted(line)) {
                return line;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{what} is not in the log: {}", std::fs::read_to_string(&path).unwrap());
    };
    let of = |code: u16| {
        move |line: &serde_json::Value| {
            line["responseStatus"]["code"] == code && line["sourceIPs"][0] == "127.0.0.1"
        }
    };
    let forbidden = find("the refused list", &of(403));
    assert_eq!(forbidden["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!((&forbidden["verb"], &forbidden["objectRef"]["resource"]), (&json!("list"), &json!("pods")));
    assert_eq!(forbidden["annotations"]["authorization.k8s.io/decision"], "forbid");
    let said = |why: &'static str| {
        move |line: &serde_json::Value| line["annotations"]["authentication.cofferdam/refused"] == why
    };
    assert_eq!(find("the spoilt token", &said("invalid bearer token"))["responseStatus"]["code"], 401);
    find("the orphan", &said(r#"system:serviceaccount:default:robot: serviceaccounts "robot" not found"#));
    let issued = find("the token's making", &|line| line["objectRef"]["subresource"] == "token");
    let id = &issued["annotations"]["authentication.kubernetes.io/issued-credential-id"];
    assert_eq!(*id, forbidden["user"]["extra"]["authentication.kubernetes.io/credential-id"][0]);
    assert!(!std::fs::read_to_string(&path).unwrap().contains(token), "a token is not in the log");
}

/// Another client's certificate, and one that is none of a client's.
#[test]
fn only_a_clients_certificate_of_this_authority_that_is_in_time_names_anybody() {
    let name = "only_a_clients_certificate_of_this_authority_that_is_in_time_names_anybody";
    if !common::has("curl", name) {
        return;
    }
    let c = Control::start();
    let open = |dir: std::path::PathBuf| control::pki::Pki::open(&dir).unwrap();
    let own = open(c.path("control/pki"));
    let foreign = open(c.path("foreign"));
    let groups = ["system:masters".to_owned()];
    let ask = |client: control::pki::Client| {
        // `https` puts the administrator's in these places.
        https(&c, true, &[], "/readyz");
        std::fs::write(c.path("other.pem"), client.certificate).unwrap();
        std::fs::write(c.path("other.key"), client.key).unwrap();
        let kubeconfig: serde_json::Value =
            serde_yaml::from_str(&std::fs::read_to_string(c.path("kubeconfig")).unwrap()).unwrap();
        let server = kubeconfig["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
        let out = Command::new("curl")
            .args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
            .arg(c.path("ca.pem"))
            .arg("--cert")
            .arg(c.path("other.pem"))
            .arg("--key")
            .arg(c.path("other.key"))
            .arg(format!("{server}/api/v1/namespaces/default/pods"))
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(ask(own.client("jane", &groups, 1).unwrap()), "200");
    // These do not even end the handshake.
    assert_eq!(ask(foreign.client("jane", &groups, 1).unwrap()), "000", "another authority's");
    assert_eq!(ask(own.client("jane", &groups, 0).unwrap()), "000", "expired when the day began");
    let mut authority = rcgen::CertificateParams::default();
    authority.distinguished_name = rcgen::DistinguishedName::new();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "cofferdam");
    let key = std::fs::read_to_string(c.path("control/pki/ca.key")).unwrap();
    let issuer = rcgen::Issuer::new(authority, rcgen::KeyPair::from_pem(&key).unwrap());
    let usage = |purpose| {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.extended_key_usages = vec![purpose];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &issuer).unwrap().pem();
        ask(control::pki::Client { certificate, key: key.serialize_pem() })
    };
    assert_eq!(
        usage(rcgen::ExtendedKeyUsagePurpose::ClientAuth),
        "403",
        "the same way, and somebody without rights"
    );
    assert_eq!(usage(rcgen::ExtendedKeyUsagePurpose::ServerAuth), "000", "a server's");
}
