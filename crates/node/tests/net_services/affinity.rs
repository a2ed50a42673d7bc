//! `sessionAffinity: ClientIP`.

use std::time::Duration;

use node::net::Protocol;
use testkit::net::PATIENCE;

use super::*;

#[test]
fn a_client_comes_back_to_the_same_endpoint_until_it_stays_away_too_long() {
    needs_root!("a_client_comes_back_to_the_same_endpoint_until_it_stays_away_too_long");
    let cluster = Cluster::new(2);
    let servers: Vec<Pod> = (0..4).map(|i| cluster.pod(i % 2, pod("foo", &format!("s{i}"), &[]))).collect();
    for server in &servers {
        server.netns.tell(&server.net.name, &[8080], &[8080]).unwrap();
    }
    let clients: Vec<Pod> = (0..8).map(|i| cluster.pod(0, pod("foo", &format!("c{i}"), &[]))).collect();
    let serve = |servers: &[&Pod], seconds| {
        let endpoints: Vec<_> = servers.iter().map(|server| server.at(8080)).collect();
        let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let mut port = port(protocol, &endpoints);
            port.affinity = Some(seconds);
            port
        });
        cluster.serve(ports.into());
    };
    let all: Vec<&Pod> = servers.iter().collect();
    serve(&all, 3600);
    let mut chosen = BTreeSet::new();
    for client in &clients {
        let seen = count(&client.netns, at(CLUSTER_IP), 20);
        assert_eq!(seen.len(), 1, "{}: {seen:?}", client.net.name);
        // The node port leads to the same list.
        let more = count(&client.netns, cluster.node_port(0), 20);
        assert_eq!(seen.keys().collect::<Vec<_>>(), more.keys().collect::<Vec<_>>());
        chosen.extend(seen.into_keys());
        let udp: BTreeSet<String> = (0..20)
            .map(|_| testkit::net::ask_udp(&client.netns.udp(at(CLUSTER_IP)).unwrap(), PATIENCE).unwrap().0)
            .collect();
        assert_eq!(udp.len(), 1, "{udp:?}");
    }
    // Eight clients that all choose the same one: once in 4^7.
    let again = clients.iter().map(|client| client.netns.ask(cluster.node_port(1)).unwrap().0);
    chosen.extend(again);
    assert!(chosen.len() > 1, "{chosen:?}");

    // The others of a client's endpoint come and go: it stays. Its own goes: it takes another, and stays with that.
    let client = &clients[0];
    let (favourite, _) = client.netns.ask(at(CLUSTER_IP)).unwrap();
    let of_name = |name: &str| all.iter().find(|server| server.net.name == name).copied().unwrap();
    serve(&[of_name(&favourite)], 3600);
    serve(&all, 3600);
    assert_eq!(count(&client.netns, at(CLUSTER_IP), 20), [(favourite.clone(), 20)].into());
    let others: Vec<&Pod> = all.iter().filter(|server| server.net.name != favourite).copied().collect();
    serve(&others, 3600);
    let seen = count(&client.netns, at(CLUSTER_IP), 20);
    assert!(seen.len() == 1 && !seen.contains_key(&favourite), "{seen:?}");
    for node in &cluster.nodes {
        assert_eq!(node.net.verify().unwrap(), [""; 0], "what clients left is nobody's difference");
    }

    // After the time is over a client chooses anew: with 60 tries, the same one every time once in 3^59.
    serve(&others, 1);
    let mut later = BTreeSet::new();
    for _ in 0..60 {
        later.insert(clients[1].netns.ask(at(CLUSTER_IP)).unwrap().0);
        if later.len() > 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1100));
    }
    assert!(later.len() > 1, "{later:?}");
}
