//! Where committed objects outlive the process: one trait, fjall behind it, and nothing at all for tests.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the store in {path}: {source}")]
    Open { path: String, source: fjall::Error },
    #[error("write to the store: {0}")]
    Write(fjall::Error),
    #[error("the store holds a record that is not ours: {0}")]
    Damaged(String),
}

/// A change of one key: its new record, or its removal.
pub struct Record<'a> {
    pub key: &'a str,
    pub value: Option<Vec<u8>>,
}

/// What the engine holds: key and record of every object, and the last revision given.
pub struct Loaded {
    pub records: Vec<(String, Vec<u8>)>,
    pub revision: u64,
}

/// Keeps records. `commit` is called by one thread.
pub trait Engine: Send + 'static {
    /// Everything, read once at start.
    ///
    /// # Errors
    /// Where it cannot be read, or is not ours.
    fn load(&mut self) -> Result<Loaded, EngineError>;

    /// Writes all of `records`, or none of them, and returns when they outlive a loss of power.
    ///
    /// # Errors
    /// After an error nothing more can be written.
    fn commit(&mut self, records: Vec<Record<'_>>, revision: u64) -> Result<(), EngineError>;
}

/// Forgets everything.
#[derive(Default)]
pub struct Volatile;

impl Engine for Volatile {
    fn load(&mut self) -> Result<Loaded, EngineError> {
        Ok(Loaded { records: Vec::new(), revision: 0 })
    }
    fn commit(&mut self, _: Vec<Record<'_>>, _: u64) -> Result<(), EngineError> {
        Ok(())
    }
}

/// A fjall database: a commit is one append to its journal and one fdatasync.
pub struct Durable {
    database: Database,
    objects: Keyspace,
    meta: Keyspace,
}

/// All objects are in memory anyway, so the engine's own caches are kept small.
const CACHE: u64 = 1 << 20;
const MEMTABLE: u64 = 8 << 20;
const JOURNAL: u64 = 64 << 20;
const REVISION: &str = "revision";

impl Durable {
    /// Opens or makes the store in the directory `path`.
    ///
    /// # Errors
    /// With the path.
    pub fn open(path: &Path) -> Result<Durable, EngineError> {
        let fail = |source| EngineError::Open { path: path.display().to_string(), source };
        let database = Database::builder(path)
            .cache_size(CACHE)
            .max_journaling_size(JOURNAL)
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()
            .map_err(fail)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE);
        let objects = database.keyspace("objects", options).map_err(fail)?;
        let meta = database.keyspace("meta", options).map_err(fail)?;
        Ok(Durable { database, objects, meta })
    }
}

impl Engine for Durable {
    fn load(&mut self) -> Result<Loaded, EngineError> {
        let mut records = Vec::new();
        for entry in self.objects.iter() {
            let (key, value) = entry.into_inner().map_err(EngineError::Write)?;
            let key = String::from_utf8(key.to_vec())
                .map_err(|error| EngineError::Damaged(format!("a key that is not UTF-8: {error}")))?;
            records.push((key, value.to_vec()));
        }
        let revision = match self.meta.get(REVISION).map_err(EngineError::Write)? {
            None => 0,
            Some(bytes) => u64::from_be_bytes(
                (*bytes).try_into().map_err(|_| EngineError::Damaged("the revision".into()))?,
            ),
        };
        Ok(Loaded { records, revision })
    }

    fn commit(&mut self, records: Vec<Record<'_>>, revision: u64) -> Result<(), EngineError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for record in records {
            match record.value {
                Some(value) => batch.insert(&self.objects, record.key, value),
                None => batch.remove(&self.objects, record.key),
            }
        }
        batch.insert(&self.meta, REVISION, revision.to_be_bytes());
        batch.commit().map_err(EngineError::Write)
    }
}
