//! Who a client certificate names: its common name is the user, its organizations the groups
//! (Kubernetes' authentication by X.509 client certificates).

use x509_cert::{
    Certificate,
    der::{
        Decode,
        asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef},
    },
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

pub(super) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
pub(super) const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// The subject of a DER certificate that TLS has verified; None without a common name.
pub fn subject(der: &[u8]) -> Option<Subject> {
    let certificate = Certificate::from_der(der).ok()?;
    let mut common_name = None;
    let mut organizations = Vec::new();
    for attribute in certificate.tbs_certificate.subject.0.iter().flat_map(|set| set.0.iter()) {
        let text =
            attribute.value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned()).or_else(
                |_| {
                    attribute.value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned())
                },
            );
        match (attribute.oid, text) {
            (COMMON_NAME, Ok(text)) => common_name = Some(text),
            (ORGANIZATION, Ok(text)) => organizations.push(text),
            _ => {}
        }
    }
    Some(Subject { common_name: common_name.filter(|name| !name.is_empty())?, organizations })
}

/// The certificate's SHA-256 in hexadecimal digits, by which logs know it again.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
