//! Certificates for users other than the administrator, so that one can be somebody else and see what that one may do.

use jiff::ToSpan as _;
use rcgen::{DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, SigningKey as _};
use x509_cert::{
    Certificate,
    attr::AttributeTypeAndValue,
    der::{
        Any, Decode as _, Encode as _, Tag,
        asn1::{BitString, ObjectIdentifier, SetOfVec},
    },
    name::{RdnSequence, RelativeDistinguishedName},
};

use super::{
    Pki, leaf,
    subject::{COMMON_NAME, ORGANIZATION},
};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("a user must have a name")]
    NoName,
    #[error("a group must have a name")]
    NoGroup,
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("certificate: {0}")]
    Der(#[from] x509_cert::der::Error),
}

/// A user's certificate and its key, in PEM.
pub struct Client {
    pub certificate: String,
    pub key: String,
}

impl Pki {
    /// A new key, and a certificate for it that names `user` and `groups` for so many days.
    ///
    /// # Errors
    /// Names that are none.
    pub fn client(&self, user: &str, groups: &[String], days: u32) -> Result<Client, ClientError> {
        if user.is_empty() {
            return Err(ClientError::NoName);
        }
        if groups.iter().any(String::is_empty) {
            return Err(ClientError::NoGroup);
        }
        let mut parameters = leaf(DistinguishedName::new(), ExtendedKeyUsagePurpose::ClientAuth);
        let end = jiff::Zoned::now().date().saturating_add(i64::from(days).days());
        super::valid_until(&mut parameters, end);
        let key = KeyPair::generate()?;
        let made = parameters.signed_by(&key, &self.issuer)?;
        // The library knows one organization; a user has as many groups as there are. So the subject is put in its place, and
        // the whole signed again.
        let mut certificate = Certificate::from_der(made.der())?;
        let mut names = Vec::new();
        for (kind, name) in
            groups.iter().map(|group| (ORGANIZATION, group.as_str())).chain([(COMMON_NAME, user)])
        {
            names.push(distinguished(kind, name)?);
        }
        certificate.tbs_certificate.subject = RdnSequence(names);
        let signature = self.issuer.key().sign(&certificate.tbs_certificate.to_der()?)?;
        certificate.signature = BitString::from_bytes(&signature)?;
        Ok(Client { certificate: pem(&certificate.to_der()?), key: key.serialize_pem() })
    }

    /// A kubeconfig for that user.
    pub fn client_kubeconfig(&self, cluster: &str, server: &str, user: &str, client: &Client) -> String {
        let name = format!("{user}@{cluster}");
        self.kubeconfig_of(cluster, server, &name, &name, &client.certificate, &client.key)
    }
}

fn distinguished(kind: ObjectIdentifier, name: &str) -> Result<RelativeDistinguishedName, ClientError> {
    let value = Any::new(Tag::Utf8String, name.as_bytes())?;
    let one = AttributeTypeAndValue { oid: kind, value };
    Ok(RelativeDistinguishedName(SetOfVec::try_from([one])?))
}

fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in api::base64::encode(der).as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::super::{Subject, subject};
    use super::*;

    #[test]
    fn a_certificate_names_its_user_and_every_group() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let groups = ["dev".to_owned(), "Entwicklung Süd".to_owned(), "ops".to_owned()];
        let client = pki.client("jane: doe", &groups, 1).unwrap();
        let der = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
        let want = Subject { common_name: "jane: doe".into(), organizations: groups.to_vec() };
        assert_eq!(subject(&der), Some(want));
        assert!(matches!(pki.client("", &[], 1), Err(ClientError::NoName)));
        assert!(matches!(pki.client("a", &[String::new()], 1), Err(ClientError::NoGroup)));
        let config = pki.client_kubeconfig("c", "127.0.0.1:1", "jane: doe", &client);
        let config: serde_json::Value = serde_yaml::from_str(&config).unwrap();
        assert_eq!(config["current-context"], "jane: doe@c");
        assert_eq!(config["users"][0]["name"], config["contexts"][0]["context"]["user"]);
    }
}
