//! Image names: parsed and normalised as Kubernetes and containerd do (`github.com/distribution/reference`, v0.6),
//! with the same errors, because users search for those words.

use std::fmt;

/// A normalised name: `docker.io/library/nginx:latest`, `localhost:5000/app@sha256:…`. Always a registry; a tag where
/// neither tag nor digest was given.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ImageRef {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a name is none. The texts are those of `distribution/reference`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("repository name must have at least one component")]
    Empty,
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Hexadecimal(String),
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    #[error("invalid checksum digest length")]
    DigestLength,
}

/// The registry of names that have none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// `distribution/reference`: RepositoryNameTotalLengthMax.
const MAX_PATH: usize = 255;
/// `distribution/reference`: a tag is a word character and up to 127 more of `[\w.-]`.
const MAX_TAG: usize = 128;

impl ImageRef {
    /// Reads `name` as the user wrote it in a pod.
    ///
    /// # Errors
    /// As `reference.ParseNormalizedNamed`.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() == 64 && is_lower_hex(name) {
            return Err(NameError::Hexadecimal(name.to_owned()));
        }
        let (domain, remainder) = split_domain(name);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(NameError::Uppercase(remote.to_owned()));
        }
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_domain(&domain) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(NameError::Format);
        }
        if path.len() > MAX_PATH {
            return Err(NameError::TooLong);
        }
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        // Kubernetes' applyDefaultImageTag: latest, where there is neither a tag nor a digest.
        let tag = tag.or_else(|| digest.is_none().then_some("latest"));
        Ok(Self {
            domain,
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The registry's host and port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, absent only beside a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:…` of the manifest, if the name has one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Registry and repository: `docker.io/library/nginx`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository by digest: what Kubernetes reports as `imageID`.
    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.domain, self.path)
    }
}

/// The whole normalised name. A digest rules out the tag, as in containerd's image store.
impl fmt::Display for ImageRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.domain, self.path)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(out, "@{digest}"),
            (None, Some(tag)) => write!(out, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// `splitDockerDomain`: the first component is a registry if it has a dot, a colon or an uppercase letter, or is localhost.
fn split_domain(name: &str) -> (String, String) {
    let (domain, remainder) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|letter| letter.is_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("library/{remainder}"));
    }
    (domain.to_owned(), remainder.to_owned())
}

fn is_domain(domain: &str) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => {
            if port.is_empty() {
                return false;
            }
            host
        }
        _ => domain,
    };
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by slashes.
fn is_path(path: &str) -> bool {
    path.split('/').all(|component| {
        let bytes = component.as_bytes();
        let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !bytes.first().is_some_and(word) || !bytes.last().is_some_and(word) {
            return false;
        }
        bytes.split(word).all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-')
        })
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    tag.len() <= MAX_TAG
        && tag.as_bytes().first().is_some_and(word)
        && tag.bytes().all(|byte| word(&byte) || byte == b'.' || byte == b'-')
}

fn check_digest(digest: &str) -> Result<(), NameError> {
    let (algorithm, value) = digest.split_once(':').ok_or(NameError::Format)?;
    if value.len() < 32 || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NameError::Format);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(NameError::DigestAlgorithm),
    };
    if value.len() != length {
        return Err(NameError::DigestLength);
    }
    if is_lower_hex(value) { Ok(()) } else { Err(NameError::Format) }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_normalised_as_kubernetes_does() {
        let digest = format!("nginx@sha256:{HEX}");
        let tag_and_digest = format!("nginx:1.25@sha256:{HEX}");
        let by_digest = format!("docker.io/library/nginx@sha256:{HEX}");
        for (name, expect) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("library/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("cofferdam/tool", "docker.io/cofferdam/tool:latest"),
            ("localhost/tool", "localhost/tool:latest"),
            ("localhost:5000/tool:a", "localhost:5000/tool:a"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("a__b-c--d.e", "docker.io/library/a__b-c--d.e:latest"),
            ("Registry/tool", "Registry/tool:latest"),
            (&digest, &by_digest),
            (&tag_and_digest, &by_digest),
        ] {
            assert_eq!(ImageRef::parse(name).map(|name| name.to_string()).as_deref(), Ok(expect), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_refused_in_the_words_users_search_for() {
        let long = "a".repeat(256);
        let unknown = format!("nginx@sha999:{HEX}");
        for (name, expect) in [
            ("", "repository name must have at least one component"),
            ("Nginx", "invalid reference format: repository name (library/Nginx) must be lowercase"),
            ("nginx:", "invalid reference format"),
            ("nginx:a b", "invalid reference format"),
            ("-nginx", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("../b", "invalid reference format"),
            ("host:port/b", "invalid reference format"),
            ("nginx@sha256:12", "invalid reference format"),
            ("nginx@sha256:0123456789abcdef0123456789abcdef", "invalid checksum digest length"),
            (&unknown, "unsupported digest algorithm"),
            (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
            (&long, "repository name must not be more than 255 characters"),
        ] {
            let error = ImageRef::parse(name).expect_err(name);
            assert_eq!(error.to_string(), expect, "{name}");
        }
    }
}
