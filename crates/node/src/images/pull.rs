//! Has an image on the node, by Kubernetes' pull policies; pulls it where they say so. Errors carry the reason that
//! Kubernetes shows and a message in containerd's words.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use futures::{StreamExt, TryStreamExt};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    secrets::RegistryAuth,
};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use tokio::io::AsyncWriteExt;

use super::{
    Image,
    archive::{MediaType, is_ours},
    blob,
    name::{ImageRef, NameError},
    store::{ARCHITECTURE, ImageStore, NewLayer, NewName, StoreError},
    tool,
};

/// A container's `imagePullPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// What a pull tells while it is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PullEvent {
    /// The registry is asked what the name means.
    Resolving,
    /// So many layers are fetched, of so many bytes in all.
    Layers { count: usize, bytes: u64 },
    /// Bytes of all layers that have arrived, and of all.
    Downloaded { bytes: u64, of: u64 },
    /// Everything has arrived and is unpacked.
    Unpacking,
}

/// Why a container's image is not on the node. The text is the message, [`EnsureError::reason`] the reason that
/// Kubernetes puts into a waiting container's state.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    Never(String),
    #[error("Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {error}")]
    Name { name: String, error: NameError },
    #[error("failed to pull and unpack image \"{name}\": {error}")]
    Pull { name: String, error: PullError },
    #[error("Failed to inspect image \"{name}\": {error}")]
    Inspect { name: String, error: StoreError },
}

impl EnsureError {
    /// `ErrImageNeverPull`, `InvalidImageName`, `ErrImagePull` or `ImageInspectError`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Never(_) => "ErrImageNeverPull",
            Self::Name { .. } => "InvalidImageName",
            Self::Pull { .. } => "ErrImagePull",
            Self::Inspect { .. } => "ImageInspectError",
        }
    }
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("failed to resolve reference \"{0}\": {0}: not found")]
    NotFound(String),
    #[error(
        "failed to resolve reference \"{0}\": pull access denied, repository does not exist or may require authorization"
    )]
    Denied(String),
    #[error("failed to resolve reference \"{name}\": {error}")]
    Resolve { name: String, error: String },
    #[error("no match for platform in manifest: not found (linux/{ARCHITECTURE})")]
    Platform,
    #[error("failed to copy: {digest}: {error}")]
    Fetch { digest: String, error: String },
    #[error("unexpected document {digest}: {error}")]
    Document { digest: String, error: String },
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the unpacking task ended: {0}")]
    Task(String),
    #[error("the image that comes with the program: {0}")]
    BuiltIn(String),
}

/// As containerd's default.
const CONCURRENT_DOWNLOADS: usize = 3;
const MAX_DOCUMENT: u64 = 8 << 20;
const ACCEPTED: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

impl ImageStore {
    /// The image of a container: what the store has, or what is pulled, by `policy`. A name that was loaded by hand is
    /// never pulled. Pulls of one name wait for each other, in this process and across processes.
    ///
    /// # Errors
    /// See [`EnsureError`].
    pub async fn ensure(
        &self,
        name: &str,
        policy: PullPolicy,
        progress: impl FnMut(PullEvent) + Send,
    ) -> Result<Image, EnsureError> {
        let inspect = |error| EnsureError::Inspect { name: name.to_owned(), error };
        let by_id = blob::hex_of(name).is_some();
        let parsed = if by_id {
            None
        } else {
            Some(ImageRef::parse(name).map_err(|error| EnsureError::Name { name: name.to_owned(), error })?)
        };
        let present = |image: &Image| image.pinned || policy != PullPolicy::Always;
        if let Some(image) = self.resolve(name).map_err(inspect)?.filter(present) {
            return Ok(image);
        }
        let built_in = parsed.as_ref().and_then(tool::built_in);
        if policy == PullPolicy::Never && built_in.is_none() {
            return Err(EnsureError::Never(name.to_owned()));
        }
        let Some(reference) = parsed else {
            let error = PullError::NotFound(name.to_owned());
            return Err(EnsureError::Pull { name: name.to_owned(), error });
        };

        let full = reference.to_string();
        let failed = |error| EnsureError::Pull { name: full.clone(), error };
        let turn = in_process(self.dir(), &full);
        let _turn = turn.lock().await;
        let lock = format!("locks/pull-{}", blob::digest(full.as_bytes()).trim_start_matches("sha256:"));
        let store = self.clone();
        let _lock = tokio::task::spawn_blocking(move || store.lock(&lock))
            .await
            .map_err(|error| failed(PullError::Task(error.to_string())))?
            .map_err(|error| failed(error.into()))?;
        // Another may have brought it while we waited.
        if let Some(image) = self.resolve(name).map_err(inspect)?.filter(present) {
            return Ok(image);
        }
        match built_in {
            Some(archive) => {
                let store = self.clone();
                tokio::task::spawn_blocking(move || store.load_reader(archive.as_slice()))
                    .await
                    .map_err(|error| failed(PullError::Task(error.to_string())))?
                    .map_err(|error| failed(PullError::BuiltIn(error.to_string())))?;
            }
            None => self.pull(&reference, progress).await.map_err(failed)?,
        }
        self.resolve(name).map_err(inspect)?.ok_or_else(|| failed(PullError::NotFound(full.clone())))
    }

    async fn pull(
        &self,
        name: &ImageRef,
        mut progress: impl FnMut(PullEvent) + Send,
    ) -> Result<(), PullError> {
        progress(PullEvent::Resolving);
        let remote = Remote::new(name);
        let (body, digest) = remote.manifest(name.digest()).await?;
        let (manifest_body, manifest) = remote.for_this_platform(body, &digest).await?;
        let size: u64 = manifest.layers().iter().map(Descriptor::size).sum();
        progress(PullEvent::Layers { count: manifest.layers().len(), bytes: size });

        let config = remote.document(manifest.config()).await?;
        let stage = self.stage("pull")?;
        let arrived = Mutex::new((0_u64, &mut progress));
        let tell = |bytes: u64| {
            let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.0 += bytes;
            let event = PullEvent::Downloaded { bytes: arrived.0, of: size };
            (arrived.1)(event);
        };
        let mut unique: HashMap<String, &Descriptor> = HashMap::new();
        for layer in manifest.layers() {
            unique.insert(layer.digest().to_string(), layer);
        }
        let directory = stage.path.as_path();
        // As a list of futures: a closure over borrowed layers would make this future one that no other task can hold.
        let mut downloads = Vec::with_capacity(unique.len());
        for layer in unique.values() {
            downloads.push(remote.download(layer, directory, &tell));
        }
        futures::stream::iter(downloads)
            .buffer_unordered(CONCURRENT_DOWNLOADS)
            .try_collect::<Vec<()>>()
            .await?;
        progress(PullEvent::Unpacking);

        let (store, name) = (self.clone(), name.clone());
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut layers = Vec::new();
            for layer in manifest.layers() {
                let digest = layer.digest().to_string();
                let path = stage.path.join(digest.trim_start_matches("sha256:"));
                layers.push(NewLayer {
                    blob: Some(digest),
                    open: Box::new(move || {
                        std::fs::File::open(&path).map(|file| -> Box<dyn Read + Send> { Box::new(file) })
                    }),
                });
            }
            let (id, record) = store.add(&config, &layers)?;
            store.add_blob(&manifest_body)?;
            store.commit(&id, record, &[NewName { name, pinned: false, manifest: Some(digest) }])
        });
        unpacking.await.map_err(|error| PullError::Task(error.to_string()))??;
        Ok(())
    }
}

/// The repository of one name.
struct Remote {
    client: Client,
    name: ImageRef,
}

impl Remote {
    fn new(name: &ImageRef) -> Self {
        // Err says that the process has one already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let protocol = if is_local(name.domain()) { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig { protocol, user_agent: "cofferdam", ..ClientConfig::default() };
        Self { client: Client::new(config), name: name.clone() }
    }

    fn reference(&self, digest: Option<&str>) -> Reference {
        let (registry, path) = (self.name.domain().to_owned(), self.name.path().to_owned());
        match (digest, self.name.tag()) {
            (Some(digest), _) => Reference::with_digest(registry, path, digest.to_owned()),
            (None, tag) => Reference::with_tag(registry, path, tag.unwrap_or("latest").to_owned()),
        }
    }

    /// A manifest or index as it was sent, and its digest.
    async fn manifest(&self, digest: Option<&str>) -> Result<(Vec<u8>, String), PullError> {
        let full = self.name.to_string();
        let (body, _) = self
            .client
            .pull_manifest_raw(&self.reference(digest), &RegistryAuth::Anonymous, ACCEPTED)
            .await
            .map_err(|error| resolve_error(full.clone(), &error))?;
        let found = blob::digest(&body);
        if digest.is_some_and(|wanted| wanted != found) {
            return Err(PullError::Resolve { name: full, error: format!("content has the digest {found}") });
        }
        Ok((body.to_vec(), found))
    }

    /// The manifest for this machine, from itself or from an index.
    async fn for_this_platform(
        &self,
        body: Vec<u8>,
        digest: &str,
    ) -> Result<(Vec<u8>, ImageManifest), PullError> {
        let parse_error = |digest: &str| {
            let digest = digest.to_owned();
            move |error: serde_json::Error| PullError::Document { digest, error: error.to_string() }
        };
        let kind: MediaType = serde_json::from_slice(&body).map_err(parse_error(digest))?;
        let (body, digest) = if kind.is_index() {
            let index: ImageIndex = serde_json::from_slice(&body).map_err(parse_error(digest))?;
            let ours = index
                .manifests()
                .iter()
                .find(|manifest| manifest.platform().as_ref().is_some_and(is_ours))
                .ok_or(PullError::Platform)?;
            self.manifest(Some(ours.digest().as_ref())).await?
        } else {
            (body, digest.to_owned())
        };
        let manifest = serde_json::from_slice(&body).map_err(parse_error(&digest))?;
        Ok((body, manifest))
    }

    /// A small blob, checked.
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        let digest = descriptor.digest().to_string();
        let mut content = Vec::new();
        self.blob(descriptor, MAX_DOCUMENT.min(descriptor.size()), |chunk| {
            content.extend_from_slice(&chunk);
            std::future::ready(Ok(()))
        })
        .await?;
        let found = blob::digest(&content);
        if found == digest {
            Ok(content)
        } else {
            Err(PullError::Fetch { digest, error: format!("its content has the digest {found}") })
        }
    }

    /// A layer into a file named by its digest. The digest is checked on the way, and again when it is unpacked.
    async fn download(
        &self,
        descriptor: &Descriptor,
        directory: &Path,
        tell: &(impl Fn(u64) + Sync),
    ) -> Result<(), PullError> {
        let digest = descriptor.digest().to_string();
        let failed = |error: io::Error| PullError::Fetch { digest: digest.clone(), error: error.to_string() };
        let hex = blob::hex_of(&digest).ok_or_else(|| failed(io::Error::other("no sha256 digest")))?;
        let path: PathBuf = directory.join(hex);
        let file = tokio::fs::File::create_new(&path).await.map_err(failed)?;
        let file = tokio::sync::Mutex::new(file);
        self.blob(descriptor, descriptor.size(), |chunk| {
            let file = &file;
            async move {
                file.lock().await.write_all(&chunk).await?;
                tell(chunk.len() as u64);
                Ok(())
            }
        })
        .await?;
        file.into_inner().flush().await.map_err(failed)
    }

    async fn blob<F: Future<Output = io::Result<()>>>(
        &self,
        descriptor: &Descriptor,
        limit: u64,
        mut take: impl FnMut(bytes::Bytes) -> F,
    ) -> Result<(), PullError> {
        let digest = descriptor.digest().to_string();
        let failed = |error: String| PullError::Fetch { digest: digest.clone(), error };
        let reference = self.reference(None);
        let mut stream = self
            .client
            .pull_blob_stream(&reference, digest.as_str())
            .await
            .map_err(|error| failed(chain(&error)))?
            .stream;
        let mut read = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| failed(chain(&error)))?;
            read += chunk.len() as u64;
            if read > limit {
                return Err(failed(format!("larger than the {limit} bytes that its manifest says")));
            }
            take(chunk).await.map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }
}

/// Registries on the machine itself speak HTTP, as containerd and Docker assume.
fn is_local(domain: &str) -> bool {
    let host = domain.rsplit_once(':').map_or(domain, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn resolve_error(name: String, error: &OciDistributionError) -> PullError {
    use oci_client::errors::OciErrorCode::{Denied, ManifestUnknown, NameUnknown, NotFound, Unauthorized};
    match error {
        OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => PullError::NotFound(name),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            PullError::Denied(name)
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let has = |codes: &[_]| envelope.errors.iter().any(|error| codes.contains(&error.code));
            if has(&[ManifestUnknown, NameUnknown, NotFound]) {
                PullError::NotFound(name)
            } else if has(&[Unauthorized, Denied]) {
                PullError::Denied(name)
            } else {
                PullError::Resolve { name, error: chain(error) }
            }
        }
        other => PullError::Resolve { name, error: format!("failed to do request: {}", chain(other)) },
    }
}

/// An error with its causes: the last ones say what happened ("connection refused").
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

type Turn = tokio::sync::Mutex<()>;
type Turns = HashMap<(PathBuf, String), Weak<Turn>>;

/// Who pulls this name in this process: waiting for a file lock takes a thread, so only one per name does.
fn in_process(store: &Path, name: &str) -> Arc<Turn> {
    static TURNS: LazyLock<Mutex<Turns>> = LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| turn.strong_count() > 0);
    let key = (store.to_owned(), name.to_owned());
    if let Some(turn) = turns.get(&key).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Arc::new(Turn::new(()));
    turns.insert(key, Arc::downgrade(&turn));
    turn
}
