//! The certificates of a cluster: an authority of its own, the server's certificate, the administrator's, and the
//! kubeconfig that holds the latter. Keys are ECDSA P-256. The authority and the administrator's certificate are kept in
//! the data directory and used again; the server's is made at every start, so that it always names what it must.

mod client;
mod subject;

use std::{
    fs, io,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};

pub use client::{Client, ClientError};
pub use subject::{Subject, fingerprint, subject};

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{what} {path}: {source}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("TLS: verify client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Years a certificate is good for: a cluster on a laptop has nobody to renew it.
const YEARS: i64 = 10;
/// The authority's and the administrator's names.
const AUTHORITY: &str = "cofferdam";
const ADMINISTRATOR: &str = "kubernetes-admin";

/// A cluster's certificates.
pub struct Pki {
    /// PEM.
    pub authority: String,
    /// PEM: `CN=kubernetes-admin, O=system:masters`.
    pub client_certificate: String,
    /// PEM.
    pub client_key: String,
    issuer: Issuer<'static, KeyPair>,
    authority_der: CertificateDer<'static>,
}

impl Pki {
    /// Reads what is in `directory`, and makes what is not.
    ///
    /// # Errors
    /// With the file; where a key there is not one.
    pub fn open(directory: &Path) -> Result<Pki, PkiError> {
        fs::create_dir_all(directory).map_err(|source| file("create", directory, source))?;
        let path = |name: &str| directory.join(name);

        let (key_pem, key_is_new) = keep(&path("ca.key"), || Ok(KeyPair::generate()?.serialize_pem()))?;
        let key = KeyPair::from_pem(&key_pem)?;
        let parameters = authority_parameters()?;
        let make = || Ok(parameters.self_signed(&key)?.pem());
        let (authority, authority_is_new) = if key_is_new {
            (replace(&path("ca.crt"), make()?)?, true)
        } else {
            keep(&path("ca.crt"), make)?
        };
        let authority_der = der_of(&path("ca.crt"), &authority)?;
        let issuer = Issuer::new(parameters, key);

        let (client_key, client_key_is_new) =
            keep(&path("admin.key"), || Ok(KeyPair::generate()?.serialize_pem()))?;
        let make = || {
            let mut name = DistinguishedName::new();
            name.push(DnType::OrganizationName, "system:masters");
            name.push(DnType::CommonName, ADMINISTRATOR);
            let mut parameters = leaf(name, ExtendedKeyUsagePurpose::ClientAuth);
            parameters.subject_alt_names = Vec::new();
            Ok(parameters.signed_by(&KeyPair::from_pem(&client_key)?, &issuer)?.pem())
        };
        let (client_certificate, _) = if authority_is_new || client_key_is_new {
            (replace(&path("admin.crt"), make()?)?, true)
        } else {
            keep(&path("admin.crt"), make)?
        };
        Ok(Pki { authority, client_certificate, client_key, issuer, authority_der })
    }

    /// A server that shows a certificate for the loopback addresses, the names of the Service `kubernetes` and these
    /// addresses, and asks for client certificates of this authority. Without one the client is nobody yet.
    ///
    /// # Errors
    /// Where the certificate cannot be made.
    pub fn server_config(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<ServerConfig, PkiError> {
        let key = KeyPair::generate()?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "kube-apiserver");
        let mut parameters = leaf(name, ExtendedKeyUsagePurpose::ServerAuth);
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        for name in names {
            parameters.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name)?));
        }
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        parameters.subject_alt_names.extend(loopback.into_iter().chain(addresses).map(SanType::IpAddress));
        let certificate = parameters.signed_by(&key, &self.issuer)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority_der.clone())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone(), self.authority_der.clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The administrator's kubeconfig for `https://<server>`; `cluster` names its entries.
    pub fn kubeconfig(&self, cluster: &str, server: &str) -> String {
        self.kubeconfig_of(
            cluster,
            server,
            &format!("{cluster}-admin"),
            cluster,
            &self.client_certificate,
            &self.client_key,
        )
    }

    /// A kubeconfig whose user's entry is called `user`, in a context of that name.
    fn kubeconfig_of(
        &self,
        cluster: &str,
        server: &str,
        user: &str,
        context: &str,
        certificate: &str,
        key: &str,
    ) -> String {
        let base64 = |pem: &str| api::base64::encode(pem.as_bytes());
        // A string of JSON is one of YAML, whatever it holds.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let (user, context) = (quoted(user), quoted(context));
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: {cluster}\n  \
               cluster:\n    \
                 server: https://{server}\n    \
                 certificate-authority-data: {}\n\
             users:\n\
             - name: {user}\n  \
               user:\n    \
                 client-certificate-data: {}\n    \
                 client-key-data: {}\n\
             contexts:\n\
             - name: {context}\n  \
               context:\n    \
                 cluster: {cluster}\n    \
                 user: {user}\n\
             current-context: {context}\n",
            base64(&self.authority),
            base64(certificate),
            base64(key),
        )
    }
}

fn authority_parameters() -> Result<CertificateParams, PkiError> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, AUTHORITY);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut parameters);
    Ok(parameters)
}

fn leaf(name: DistinguishedName, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = name;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    parameters.extended_key_usages = vec![usage];
    parameters.use_authority_key_identifier_extension = true;
    validity(&mut parameters);
    parameters
}

/// As long as the cluster may live.
fn validity(parameters: &mut CertificateParams) {
    let today = jiff::Zoned::now().date();
    valid_until(parameters, today.saturating_add(jiff::Span::new().years(YEARS)));
}

/// From yesterday, because clocks differ.
fn valid_until(parameters: &mut CertificateParams, end: jiff::civil::Date) {
    let today = jiff::Zoned::now().date();
    let day = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    parameters.not_before = day(today.yesterday().unwrap_or(today));
    parameters.not_after = day(end);
}

/// The file's text, or what `make` makes of it; and whether it was made.
pub(crate) fn keep(
    path: &Path,
    make: impl FnOnce() -> Result<String, PkiError>,
) -> Result<(String, bool), PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok((text, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((replace(path, make()?)?, true)),
        Err(error) => Err(file("read", path, error)),
    }
}

/// Writes the file whole, readable by its owner alone.
fn replace(path: &Path, text: String) -> Result<String, PkiError> {
    let draft = path.with_extension("new");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|source| file("write", path, source))?;
    Ok(text)
}

fn file(what: &'static str, path: &Path, source: io::Error) -> PkiError {
    PkiError::File { what, path: path.to_owned(), source }
}

fn der_of(path: &Path, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| file("read", path, io::Error::new(io::ErrorKind::InvalidData, error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_uses_the_same_authority_and_administrator() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(first.kubeconfig("c", "127.0.0.1:1"), again.kubeconfig("c", "127.0.0.1:1"));
        again.server_config(["10.96.0.1".parse().unwrap()]).unwrap();
        use std::os::unix::fs::PermissionsExt;
        for name in ["ca.key", "admin.key"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn an_authority_made_anew_signs_the_administrator_anew() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let second = Pki::open(dir.path()).unwrap();
        assert_ne!(first.authority, second.authority);
        assert_ne!(first.client_certificate, second.client_certificate);
    }

    #[test]
    fn the_administrators_certificate_says_who_it_is() {
        use rustls::pki_types::pem::PemObject as _;
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let der = CertificateDer::from_pem_slice(pki.client_certificate.as_bytes()).unwrap();
        let want =
            Subject { common_name: ADMINISTRATOR.into(), organizations: vec!["system:masters".into()] };
        assert_eq!(subject(&der), Some(want));
        assert_eq!(subject(b"nonsense"), None);
    }
}
