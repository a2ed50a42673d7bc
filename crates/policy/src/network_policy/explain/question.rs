//! What people ask: `foo/web`, `svc/db`, `192.0.2.9`, `external`; `5432`, `53/udp`, `http`, `icmp`.

use std::net::IpAddr;

use crate::network_policy::ir::Protocol;

/// One end of a connection, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Pod {
        namespace: String,
        name: String,
    },
    Service {
        namespace: String,
        name: String,
    },
    Node(String),
    Address(IpAddr),
    /// Some address outside of the cluster.
    External,
}

/// The port, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortWord {
    Number(Protocol, u16),
    /// A Service's port or a container's port of that name.
    Named(Option<Protocol>, String),
    /// No port at all: `ping`.
    Icmp,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error(
        "{0:?} is none of: POD, NAMESPACE/POD, pod/NAME, svc/NAME, node/NAME, NAMESPACE/pod/NAME, NAMESPACE/svc/NAME, an IP \
         address, external"
    )]
    Name(String),
    #[error(
        "{0:?} is not a port: give a number from 1 to 65535, a port's name, or icmp; with a protocol: 53/udp"
    )]
    Port(String),
    #[error("{word:?}: unknown protocol {protocol:?}; known are tcp, udp, sctp and icmp")]
    Protocol { word: String, protocol: String },
}

enum Kind {
    Pod,
    Service,
    Node,
}

fn kind(word: &str) -> Option<Kind> {
    match word.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => Some(Kind::Pod),
        "service" | "services" | "svc" => Some(Kind::Service),
        "node" | "nodes" | "no" => Some(Kind::Node),
        _ => None,
    }
}

impl Name {
    /// `namespace` is where names without one are looked for. A first word that is a kind is taken for one: a pod of a
    /// namespace called `svc` is `svc/pod/NAME`.
    ///
    /// # Errors
    /// What is none of the forms.
    pub fn parse(word: &str, namespace: &str) -> Result<Name, QuestionError> {
        let bad = || QuestionError::Name(word.to_string());
        if word == "external" {
            return Ok(Name::External);
        }
        if let Ok(address) = word.parse() {
            return Ok(Name::Address(address));
        }
        let parts: Vec<&str> = word.split('/').collect();
        if parts.iter().any(|part| !is_name(part)) {
            return Err(bad());
        }
        let of = |kind: Kind, namespace: &str, name: &str| {
            let (namespace, name) = (namespace.to_string(), name.to_string());
            match kind {
                Kind::Pod => Name::Pod { namespace, name },
                Kind::Service => Name::Service { namespace, name },
                Kind::Node => Name::Node(name),
            }
        };
        match parts.as_slice() {
            [name] => Ok(of(Kind::Pod, namespace, name)),
            [first, name] => Ok(match kind(first) {
                Some(kind) => of(kind, namespace, name),
                None => of(Kind::Pod, first, name),
            }),
            [namespace, word, name] => match kind(word) {
                Some(Kind::Node) | None => Err(bad()),
                Some(kind) => Ok(of(kind, namespace, name)),
            },
            _ => Err(bad()),
        }
    }
}

/// As strict as names of objects need: DNS labels and subdomains.
fn is_name(part: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !part.is_empty() && part.len() <= 253 && part.bytes().all(inner)
}

impl PortWord {
    /// TCP where no protocol is said.
    ///
    /// # Errors
    /// What is neither a port nor `icmp`.
    pub fn parse(word: &str) -> Result<PortWord, QuestionError> {
        let bad = || QuestionError::Port(word.to_string());
        let (port, protocol) = match word.split_once('/') {
            Some((port, protocol)) => (port, Some(protocol)),
            None => (word, None),
        };
        if port.eq_ignore_ascii_case("icmp") && protocol.is_none() {
            return Ok(PortWord::Icmp);
        }
        let protocol = match protocol {
            None => None,
            Some(name) => {
                let known = Protocol::parse(&name.to_ascii_uppercase());
                let error = || QuestionError::Protocol { word: word.to_string(), protocol: name.to_string() };
                Some(known.ok_or_else(error)?)
            }
        };
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = port.parse::<u16>().ok().filter(|number| *number > 0).ok_or_else(bad)?;
            return Ok(PortWord::Number(protocol.unwrap_or(Protocol::Tcp), number));
        }
        let valid = !port.eq_ignore_ascii_case("icmp")
            && port.len() <= 15
            && port.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && port.bytes().any(|byte| byte.is_ascii_lowercase());
        if !valid {
            return Err(bad());
        }
        Ok(PortWord::Named(protocol, port.to_string()))
    }
}

impl std::fmt::Display for PortWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PortWord::Number(protocol, port) => write!(f, "{} {port}", protocol.name()),
            PortWord::Named(Some(protocol), name) => write!(f, "{} {name}", protocol.name()),
            PortWord::Named(None, name) => f.write_str(name),
            PortWord::Icmp => f.write_str("ICMP"),
        }
    }
}
