//! Records to the specification, from a zone to packets.

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, RecordType, RecordType::*},
};
use proptest::prelude::*;
use serde_json::json;

use super::{ask, name, object, query, said, zone};
use crate::{
    answer::{self, Decision, TTL, decide},
    zone::{Found, Kind, Zone},
};

const OK: ResponseCode = ResponseCode::NoError;
const NX: ResponseCode = ResponseCode::NXDomain;

#[test]
fn names_lead_to_their_records() {
    let zone = zone();
    let srv_web = "SRV 0 100 80 web.shop.svc.cluster.local.";
    for (asked, kind, code, lines) in [
        // A Service with addresses.
        ("web.shop.svc.cluster.local.", A, OK, &["A 10.96.0.20"][..]),
        ("WEB.Shop.SVC.cluster.LOCAL.", A, OK, &["A 10.96.0.20"]),
        ("web.shop.svc.cluster.local.", AAAA, OK, &["AAAA fd00::20"]),
        ("plain.shop.svc.cluster.local.", AAAA, OK, &[]),
        ("web.shop.svc.cluster.local.", TXT, OK, &[]),
        ("web.default.svc.cluster.local.", A, NX, &[]),
        ("_http._tcp.web.shop.svc.cluster.local.", SRV, OK, &[srv_web]),
        ("_HTTP._TCP.web.shop.svc.cluster.local.", SRV, OK, &[srv_web]),
        ("_dns._udp.web.shop.svc.cluster.local.", SRV, OK, &["SRV 0 100 53 web.shop.svc.cluster.local."]),
        ("_http._udp.web.shop.svc.cluster.local.", SRV, NX, &[]),
        ("_http._tcp.web.shop.svc.cluster.local.", A, OK, &[]),
        ("_tcp.web.shop.svc.cluster.local.", SRV, OK, &[]),
        ("_sctp.web.shop.svc.cluster.local.", SRV, NX, &[]),
        ("http._tcp.web.shop.svc.cluster.local.", SRV, NX, &[]),
        // A port without a name has no record of its own.
        ("_._tcp.plain.shop.svc.cluster.local.", SRV, NX, &[]),
        ("_tcp.plain.shop.svc.cluster.local.", SRV, NX, &[]),
        ("plain.shop.svc.cluster.local.", SRV, OK, &["SRV 0 100 8080 plain.shop.svc.cluster.local."]),
        // A headless one.
        ("db.shop.svc.cluster.local.", A, OK, &["A 10.244.1.2", "A 10.244.1.3", "A 10.244.1.4"]),
        ("db.shop.svc.cluster.local.", AAAA, OK, &["AAAA fd00::1:2"]),
        ("db-0.db.shop.svc.cluster.local.", A, OK, &["A 10.244.1.2"]),
        ("db-0.db.shop.svc.cluster.local.", AAAA, OK, &["AAAA fd00::1:2"]),
        ("10-244-1-4.db.shop.svc.cluster.local.", A, OK, &["A 10.244.1.4"]),
        ("10-244-1-2.db.shop.svc.cluster.local.", A, NX, &[]),
        ("db-3.db.shop.svc.cluster.local.", A, NX, &[]),
        ("db-3.early.shop.svc.cluster.local.", A, OK, &["A 10.244.1.5"]),
        ("empty.shop.svc.cluster.local.", A, NX, &[]),
        (
            "_pg._tcp.db.shop.svc.cluster.local.",
            SRV,
            OK,
            &[
                "SRV 0 33 5432 10-244-1-4.db.shop.svc.cluster.local.",
                "SRV 0 33 5432 db-0.db.shop.svc.cluster.local.",
                "SRV 0 33 5432 db-1.db.shop.svc.cluster.local.",
            ],
        ),
        // Pods that are there.
        ("10-244-1-9.shop.pod.cluster.local.", A, OK, &["A 10.244.1.9"]),
        ("fd00--9.shop.pod.cluster.local.", AAAA, OK, &["AAAA fd00::9"]),
        ("10-244-1-9.default.pod.cluster.local.", A, NX, &[]),
        ("10-244-1-10.shop.pod.cluster.local.", A, NX, &[]),
        ("8-8-8-8.shop.pod.cluster.local.", A, NX, &[]),
        ("x.shop.pod.cluster.local.", A, NX, &[]),
        // Another name in its place.
        ("in.shop.svc.cluster.local.", A, OK, &["A 10.96.0.20", "CNAME web.shop.svc.cluster.local."]),
        ("out.shop.svc.cluster.local.", CNAME, OK, &["CNAME www.example.com."]),
        ("gone.shop.svc.cluster.local.", A, NX, &["CNAME nothing.shop.svc.cluster.local."]),
        // The zone, and names between.
        ("cluster.local.", A, OK, &[]),
        ("cluster.local.", NS, OK, &["NS ns.dns.cluster.local."]),
        ("ns.dns.cluster.local.", A, OK, &["A 10.96.0.10"]),
        ("svc.cluster.local.", A, OK, &[]),
        ("shop.svc.cluster.local.", A, OK, &[]),
        ("nowhere.svc.cluster.local.", A, NX, &[]),
        ("shop.pod.cluster.local.", A, OK, &[]),
        ("x.cluster.local.", A, NX, &[]),
        ("a.b.c.d.web.shop.svc.cluster.local.", A, NX, &[]),
        ("dns-version.cluster.local.", TXT, OK, &["TXT 1.1.0"]),
        // Addresses.
        ("20.0.96.10.in-addr.arpa.", PTR, OK, &["PTR web.shop.svc.cluster.local."]),
        ("20.0.96.10.in-addr.arpa.", A, OK, &[]),
        (
            "2.1.244.10.in-addr.arpa.",
            PTR,
            OK,
            &["PTR db-0.db.shop.svc.cluster.local.", "PTR db-0.early.shop.svc.cluster.local."],
        ),
        (
            "4.1.244.10.in-addr.arpa.",
            PTR,
            OK,
            &["PTR 10-244-1-4.db.shop.svc.cluster.local.", "PTR 10-244-1-4.early.shop.svc.cluster.local."],
        ),
        // An endpoint of a Service with an address of its own has no name.
        ("9.1.244.10.in-addr.arpa.", PTR, NX, &[]),
        ("99.0.96.10.in-addr.arpa.", PTR, NX, &[]),
    ] {
        let message = ask(&zone, asked, kind);
        let (seen_code, seen) = said(&message);
        assert_eq!(
            (seen_code, seen),
            (code, lines.iter().map(|line| (*line).to_owned()).collect()),
            "{asked} {kind}"
        );
        assert!(message.metadata.authoritative && message.metadata.recursion_available, "{asked}");
        let negative = code == NX || lines.is_empty();
        let soa = message.authorities.iter().any(|record| record.record_type() == SOA && record.ttl == TTL);
        assert_eq!(soa, negative, "{asked} {kind} says how long it is not there");
        assert!(message.answers.iter().all(|record| record.ttl == TTL), "{asked}");
    }
}

#[test]
fn an_answer_keeps_the_case_of_its_question_and_srv_brings_addresses() {
    let zone = zone();
    let message = ask(&zone, "WeB.shop.svc.cluster.local.", A);
    assert_eq!(message.answers[0].name.to_ascii(), "WeB.shop.svc.cluster.local.");
    let message = ask(&zone, "_pg._tcp.db.shop.svc.cluster.local.", SRV);
    let mut addresses: Vec<String> =
        message.additionals.iter().map(|record| record.data.to_string()).collect();
    addresses.sort();
    assert_eq!(addresses, ["10.244.1.2", "10.244.1.3", "10.244.1.4", "fd00::1:2"]);
}

#[test]
fn endpoints_come_first_in_turns() {
    let zone = zone();
    let packet = query("db.shop.svc.cluster.local.", A);
    let first = |turn| match decide(&packet, &zone, turn) {
        Decision::Answer(message) => message.answers[0].data.to_string(),
        _ => panic!("not answered"),
    };
    assert_eq!([first(0), first(1), first(2), first(3)].map(|one| one[9..].to_owned()), ["2", "3", "4", "2"]);
}

#[test]
fn others_are_asked_for_what_is_not_ours() {
    let zone = zone();
    for (asked, kind, expected, before) in [
        ("www.example.com.", A, "www.example.com.", 0),
        ("cluster.local.example.com.", A, "cluster.local.example.com.", 0),
        ("notcluster.local.", A, "notcluster.local.", 0),
        ("out.shop.svc.cluster.local.", A, "www.example.com.", 1),
        ("1.1.1.1.in-addr.arpa.", PTR, "1.1.1.1.in-addr.arpa.", 0),
        ("96.10.in-addr.arpa.", PTR, "96.10.in-addr.arpa.", 0),
    ] {
        match decide(&query(asked, kind), &zone, 0) {
            Decision::Ask { response, question } => {
                assert_eq!((question.name.to_ascii().as_str(), question.query_type), (expected, kind));
                assert_eq!(response.answers.len(), before, "{asked}");
            }
            _ => panic!("{asked} is not asked of others"),
        }
    }
    let round = ask(&zone, "round.shop.svc.cluster.local.", A);
    assert_eq!(round.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn before_the_first_lists_nothing_is_said_not_to_exist() {
    let mut fresh = Zone::new("cluster.local", Vec::new());
    for kind in [Kind::Namespaces, Kind::Services, Kind::Slices] {
        fresh.set_synced(kind);
    }
    assert_eq!(ask(&fresh, "web.shop.svc.cluster.local.", A).metadata.response_code, ResponseCode::ServFail);
    fresh.set_synced(Kind::Pods);
    assert_eq!(ask(&fresh, "web.shop.svc.cluster.local.", A).metadata.response_code, NX);
}

#[test]
fn the_zone_follows_its_objects() {
    let mut zone = zone();
    let code = |zone: &Zone, asked: &str| ask(zone, asked, A).metadata.response_code;
    // A slice before its Service, and gone before it.
    let slice = json!({"metadata": {"name": "late-a", "namespace": "shop", "labels": {"kubernetes.io/service-name": "late"}},
        "endpoints": [{"addresses": ["10.244.1.7"]}]});
    zone.set_slice(&object(slice));
    assert_eq!(code(&zone, "late.shop.svc.cluster.local."), NX);
    zone.set_service(&object(
        json!({"metadata": {"name": "late", "namespace": "shop"}, "spec": {"clusterIP": "None"}}),
    ));
    assert_eq!(code(&zone, "late.shop.svc.cluster.local."), OK);
    assert_eq!(zone.reverse("10.244.1.7".parse().expect("an address")).len(), 1);
    zone.remove_slice("shop", "late-a");
    assert_eq!(code(&zone, "late.shop.svc.cluster.local."), NX);
    assert!(zone.reverse("10.244.1.7".parse().expect("an address")).is_empty());
    // A Service that changes its address answers with the new one alone.
    zone.set_service(&object(
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.30"}}),
    ));
    assert_eq!(said(&ask(&zone, "web.shop.svc.cluster.local.", A)).1, ["A 10.96.0.30"]);
    assert!(zone.reverse("10.96.0.20".parse().expect("an address")).is_empty());
    // Everything goes.
    for kind in [Kind::Pods, Kind::Slices, Kind::Services, Kind::Namespaces] {
        for key in zone.keys(kind) {
            zone.remove(kind, &key);
        }
    }
    assert_eq!(zone.find(&["shop", "svc"]), Found::Nothing);
    assert_eq!(zone.find(&["web", "shop", "svc"]), Found::Nothing);
}

#[test]
fn questions_that_are_none_are_refused() {
    let zone = zone();
    let mut message = Message::from_vec(&query("web.shop.svc.cluster.local.", A)).expect("a query");
    let code = |message: &Message| match decide(&message.to_vec().expect("bytes"), &zone, 0) {
        Decision::Answer(answer) => {
            assert_eq!(answer.metadata.id, 7);
            Some(answer.metadata.response_code)
        }
        _ => None,
    };
    let good = message.clone();
    message.metadata.op_code = OpCode::Update;
    assert!(matches!(code(&message), Some(ResponseCode::NotImp | ResponseCode::FormErr)));
    message = good.clone();
    message.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(&message), Some(ResponseCode::Refused));
    message = good.clone();
    message.queries[0].query_type = AXFR;
    assert_eq!(code(&message), Some(ResponseCode::Refused));
    message = good.clone();
    message.add_query(Query::query(name("x.cluster.local."), A));
    assert_eq!(code(&message), Some(ResponseCode::FormErr));
    message = good.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    assert_eq!(code(&message), Some(ResponseCode::BADVERS));
    // A response is never answered.
    let mut bytes = good.to_vec().expect("bytes");
    bytes[2] |= 0x80;
    assert!(matches!(decide(&bytes, &zone, 0), Decision::Ignore));
    assert!(matches!(decide(&bytes[..11], &zone, 0), Decision::Ignore));
    bytes[2] &= 0x7f;
    bytes.truncate(20);
    assert_eq!(
        match decide(&bytes, &zone, 0) {
            Decision::Answer(answer) => Some(answer.metadata.response_code),
            _ => None,
        },
        Some(ResponseCode::FormErr)
    );
}

#[test]
fn long_answers_lose_what_is_additional_first_and_then_say_that_they_are_cut() {
    let mut zone = zone();
    let endpoints: Vec<_> =
        (0..40).map(|number| json!({"addresses": [format!("10.244.2.{number}")]})).collect();
    zone.set_slice(&object(json!({
        "metadata": {"name": "db-c", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "endpoints": endpoints, "ports": [{"name": "pg", "protocol": "TCP", "port": 5432}],
    })));
    for (asked, kind, payload, cut) in [
        ("db.shop.svc.cluster.local.", A, None, true),
        ("db.shop.svc.cluster.local.", A, Some(1232), false),
        ("db.shop.svc.cluster.local.", A, Some(65_000), false),
        ("_pg._tcp.db.shop.svc.cluster.local.", SRV, Some(65_000), true),
    ] {
        let mut request = Message::from_vec(&query(asked, kind)).expect("a query");
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            request.set_edns(edns);
        }
        let packet = request.to_vec().expect("bytes");
        let limit = answer::datagram_limit(&packet);
        let Decision::Answer(mut message) = decide(&packet, &zone, 0) else { panic!("not answered") };
        let bytes = answer::encode(&mut message, limit).expect("bytes");
        let read = Message::from_vec(&bytes).expect("a message");
        assert!(bytes.len() <= limit && limit <= 1232, "{asked} {payload:?}: {} of {limit}", bytes.len());
        assert_eq!((read.metadata.truncation, read.answers.is_empty()), (cut, cut), "{asked} {payload:?}");
        assert_eq!(read.edns.is_some(), payload.is_some());
        let mut whole = message.clone();
        let whole = answer::encode(&mut whole, 65_535).expect("bytes");
        assert!(Message::from_vec(&whole).expect("a message").answers.len() >= 43);
    }
}

fn any_type() -> impl Strategy<Value = RecordType> {
    prop_oneof![
        Just(A),
        Just(AAAA),
        Just(SRV),
        Just(PTR),
        Just(TXT),
        Just(SOA),
        Just(ANY),
        any::<u16>().prop_map(RecordType::from)
    ]
}

proptest! {
    #[test]
    fn whatever_comes_is_answered_or_ignored(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Decision::Answer(mut message) = decide(&bytes, &zone(), 1) {
            prop_assert!(answer::encode(&mut message, 512).is_none_or(|bytes| bytes.len() <= 512));
        }
    }

    #[test]
    fn a_packet_with_changed_bytes_is_too(
        changes in proptest::collection::vec((0_usize..80, any::<u8>()), 0..6),
        kind in any_type(),
    ) {
        let mut bytes = query("_pg._tcp.db.shop.svc.cluster.local.", kind);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Decision::Answer(mut message) = decide(&bytes, &zone(), 1) {
            prop_assert!(answer::encode(&mut message, 512).is_none_or(|bytes| bytes.len() <= 512));
        }
    }

    /// A name that is found has a name above it that exists too: what NXDOMAIN says of a name it says of all below it.
    #[test]
    fn nothing_lies_below_a_name_that_does_not_exist(
        labels in proptest::collection::vec(
            prop_oneof![
                Just("svc"), Just("pod"), Just("shop"), Just("web"), Just("db"), Just("db-0"), Just("_tcp"), Just("_pg"),
                Just("_http"), Just("10-244-1-9"), Just("dns"), Just("ns"), Just("x"),
            ],
            0..6,
        ),
    ) {
        let zone = zone();
        if zone.find(&labels) != Found::Nothing {
            for at in 0..labels.len() {
                prop_assert_ne!(zone.find(&labels[at..]), Found::Nothing, "{:?}", &labels[at..]);
            }
        }
    }
}
