//! From a packet to its answer, or to the question that others have to be asked. Pure: packets and the zone in, messages out.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
    },
};

use crate::zone::{Found, ServicePort, Zone};

/// How long others may keep an answer about the cluster, in seconds: what the Corefile of Kubernetes' installers sets
/// (`ttl 30`). It is for those who keep answers; this server keeps none about the cluster, so who asks again hears of a change
/// as soon as it does.
pub const TTL: u32 = 30;
/// The longest UDP answer: what passes every network without fragments (DNS flag day 2020).
pub const LONGEST_DATAGRAM: u16 = 1232;
const SHORTEST_DATAGRAM: u16 = 512;
/// A chain of ExternalName Services that name each other ends here.
const LONGEST_CHAIN: usize = 8;
/// The names by which a server hears itself; see [`crate::forward::find_loops`].
pub const LOOP_DOMAIN: &str = "cofferdam-loop.invalid.";

/// What is to be done with a packet.
pub enum Decision {
    Answer(Message),
    /// Others have to be asked. Their records go into the response, after what is there already.
    Ask {
        response: Message,
        question: Query,
    },
    /// One of our own questions has come back: the label that tells which.
    Loop {
        response: Message,
        label: String,
    },
    /// Not a question: an answer to it could go back and forth for ever.
    Ignore,
}

/// Decides about a packet. `turn` changes from call to call, so that endpoints come first in turns.
pub fn decide(packet: &[u8], zone: &Zone, turn: usize) -> Decision {
    let Some(head) = packet.get(..12) else { return Decision::Ignore };
    if head[2] & 0x80 != 0 {
        return Decision::Ignore;
    }
    let Ok(request) = Message::from_vec(packet) else {
        let id = u16::from_be_bytes([head[0], head[1]]);
        let op_code = OpCode::from_u8((head[2] >> 3) & 15);
        return Decision::Answer(Message::error_msg(id, op_code, ResponseCode::FormErr));
    };
    let mut response = respond_to(&request);
    let refuse = |mut response: Message, code| {
        response.metadata.response_code = code;
        Decision::Answer(response)
    };
    if request.metadata.op_code != OpCode::Query {
        return refuse(response, ResponseCode::NotImp);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refuse(response, ResponseCode::BADVERS);
    }
    let [question] = request.queries.as_slice() else { return refuse(response, ResponseCode::FormErr) };
    if question.query_class != DNSClass::IN
        || matches!(question.query_type, RecordType::AXFR | RecordType::IXFR)
    {
        return refuse(response, ResponseCode::Refused);
    }
    let question = question.clone();
    let lower = question.name.to_lowercase();
    if let Some(label) = loop_label(&lower) {
        response.metadata.response_code = ResponseCode::NXDomain;
        return Decision::Loop { response, label };
    }
    if let Ok(network) = lower.parse_arpa_name()
        && network.prefix_len() == network.max_prefix_len()
        && let Some(response) = reverse(&response, &question, network.addr(), zone)
    {
        return Decision::Answer(response);
    }
    let mut name = question.name.clone();
    for _ in 0..LONGEST_CHAIN {
        let lower = name.to_lowercase();
        let Some(labels) = below(&lower, &zone.domain) else {
            let question = Query::query(name, question.query_type);
            return Decision::Ask { response, question };
        };
        response.metadata.authoritative = true;
        if !zone.is_synced() {
            // What is not known yet may exist.
            return refuse(response, ResponseCode::ServFail);
        }
        let labels: Result<Vec<&str>, _> = labels.iter().map(|label| std::str::from_utf8(label)).collect();
        let found = labels.map_or(Found::Nothing, |labels| zone.find(&labels));
        let Found::Alias(target) = found else {
            put(&mut response, &question, &name, found, zone, turn);
            return Decision::Answer(response);
        };
        let Ok(mut target) = Name::from_ascii(&target) else {
            return refuse(response, ResponseCode::ServFail);
        };
        target.set_fqdn(true);
        response.add_answer(Record::from_rdata(name, TTL, RData::CNAME(CNAME(target.clone()))));
        if matches!(question.query_type, RecordType::CNAME | RecordType::ANY) {
            return Decision::Answer(response);
        }
        name = target;
    }
    refuse(response, ResponseCode::ServFail)
}

/// The head of a response: id, question, and EDNS where it was used.
fn respond_to(request: &Message) -> Message {
    let mut response = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(LONGEST_DATAGRAM).set_dnssec_ok(asked.flags().dnssec_ok);
        response.set_edns(edns);
    }
    response
}

/// The most bytes that the one who asked takes in a datagram.
pub fn datagram_limit(request: &[u8]) -> usize {
    let asked =
        Message::from_vec(request).ok().and_then(|message| message.edns).map(|edns| edns.max_payload());
    usize::from(asked.unwrap_or(SHORTEST_DATAGRAM).clamp(SHORTEST_DATAGRAM, LONGEST_DATAGRAM))
}

/// The message in as many bytes as may be: without what is additional, at last without any answer but the word that there
/// is more over TCP.
pub fn encode(message: &mut Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    message.additionals.clear();
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    message.truncate().to_vec().ok()
}

/// The labels of a lower-case name that lie below the domain; None if it does not.
fn below<'a>(name: &'a Name, domain: &[String]) -> Option<Vec<&'a [u8]>> {
    let mut labels: Vec<&[u8]> = name.iter().collect();
    let at = labels.len().checked_sub(domain.len())?;
    let inside = labels[at..].iter().zip(domain).all(|(label, own)| *label == own.as_bytes());
    labels.truncate(at);
    inside.then_some(labels)
}

fn loop_label(name: &Name) -> Option<String> {
    let text = name.to_ascii();
    Some(text.strip_suffix(LOOP_DOMAIN)?.trim_end_matches('.').to_owned())
}

/// A name below the cluster's domain.
fn full<'a>(labels: impl Iterator<Item = &'a str>, zone: &'a Zone) -> Option<Name> {
    let all = labels.chain(zone.domain.iter().map(String::as_str)).map(str::as_bytes);
    let mut name = Name::from_labels(all).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The answer about an address; None: the cluster does not know it, and others may.
fn reverse(head: &Message, question: &Query, address: IpAddr, zone: &Zone) -> Option<Message> {
    let names = zone.reverse(address);
    if names.is_empty() && !zone.owns(address) {
        return None;
    }
    let mut response = head.clone();
    response.metadata.authoritative = true;
    if !zone.is_synced() {
        response.metadata.response_code = ResponseCode::ServFail;
        return Some(response);
    }
    if matches!(question.query_type, RecordType::PTR | RecordType::ANY) {
        let names = names.iter().filter_map(|labels| full(labels.iter().map(String::as_str), zone));
        response.add_answers(
            names.map(|name| Record::from_rdata(question.name.clone(), TTL, RData::PTR(PTR(name)))),
        );
    }
    if names.is_empty() {
        response.metadata.response_code = ResponseCode::NXDomain;
    }
    if response.answers.is_empty() {
        let labels: &[&str] = if address.is_ipv4() { &["in-addr", "arpa"] } else { &["ip6", "arpa"] };
        let owner = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
        response.authorities.extend(soa(owner, zone));
    }
    Some(response)
}

/// Puts what a name leads to into the response; where that is nothing, the zone's SOA says for how long.
fn put(response: &mut Message, question: &Query, name: &Name, found: Found, zone: &Zone, turn: usize) {
    let kind = question.query_type;
    let wants = |one| kind == one || kind == RecordType::ANY;
    match found {
        Found::Nothing => response.metadata.response_code = ResponseCode::NXDomain,
        Found::Empty | Found::Alias(_) => {}
        Found::Apex => {
            if wants(RecordType::SOA) {
                response.answers.extend(soa(name.clone(), zone));
            }
            if wants(RecordType::NS)
                && let Some(server) = full(["ns", "dns"].into_iter(), zone)
            {
                response.add_answer(Record::from_rdata(name.clone(), TTL, RData::NS(NS(server))));
            }
        }
        Found::Addresses(addresses) => put_addresses(response, name, addresses, kind, turn),
        Found::Service { addresses, ports } => {
            put_addresses(response, name, addresses, kind, turn);
            if wants(RecordType::SRV) {
                put_ports(response, name, name, &ports);
            }
        }
        Found::Ports(ports) => {
            if wants(RecordType::SRV) {
                // Without `_port._proto` this is the Service's own name.
                put_ports(response, name, &name.base_name().base_name(), &ports);
            }
        }
        Found::Text(text) => {
            if wants(RecordType::TXT) {
                let data = RData::TXT(TXT::new(vec![text.to_owned()]));
                response.add_answer(Record::from_rdata(name.clone(), TTL, data));
            }
        }
    }
    // A chain that ends at no name is no error of the names before it, but says so in its code (RFC 6604).
    if response.answers.is_empty() || response.metadata.response_code == ResponseCode::NXDomain {
        response.authorities.extend(full([].into_iter(), zone).and_then(|owner| soa(owner, zone)));
    }
}

fn address_record(name: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// The addresses of the family that is asked for, each in its turn first.
fn put_addresses(response: &mut Message, name: &Name, addresses: Vec<IpAddr>, kind: RecordType, turn: usize) {
    let mut wanted: Vec<IpAddr> = addresses
        .into_iter()
        .filter(|address| match kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            kind => kind == RecordType::ANY,
        })
        .collect();
    if !wanted.is_empty() {
        let by = turn % wanted.len();
        wanted.rotate_left(by);
    }
    response.add_answers(wanted.into_iter().map(|address| address_record(name, address)));
}

fn put_ports(response: &mut Message, name: &Name, service: &Name, ports: &[ServicePort]) {
    let weight = u16::try_from(100 / ports.len().max(1)).unwrap_or(1).max(1);
    for port in ports {
        let target = match &port.endpoint {
            None => Some(service.clone()),
            Some(endpoint) => service.prepend_label(endpoint.as_bytes()).ok(),
        };
        let Some(target) = target else { continue };
        let data = RData::SRV(SRV::new(0, weight, port.port, target.clone()));
        response.add_answer(Record::from_rdata(name.clone(), TTL, data));
        for address in &port.addresses {
            let record = address_record(&target, *address);
            if !response.additionals.contains(&record) {
                response.add_additional(record);
            }
        }
    }
}

fn soa(owner: Name, zone: &Zone) -> Option<Record> {
    let server = full(["ns", "dns"].into_iter(), zone)?;
    let mail = full(["hostmaster"].into_iter(), zone)?;
    let data = SOA::new(server, mail, zone.serial, 7200, 1800, 86400, TTL);
    let mut owner = owner;
    owner.set_fqdn(true);
    Some(Record::from_rdata(owner, TTL, RData::SOA(data)))
}
