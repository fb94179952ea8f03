//! Objects on disk, each under the BLAKE3 of its bytes: there whole, or not there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stormo_protocol::ids::{NodeId, ObjectId};
use stormo_protocol::model::ObjectRef;

use crate::net::{FetchError, Net, ObjectSource};

/// Bytes read from the network or the disk at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Why an object could not be stored or had.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The disk refused.
    #[error("the pool in `{folder}` cannot be used: {source}; free some space or choose another --data")]
    Disk {
        /// The pool's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was given is not what its name says.
    #[error("the bytes do not belong to object {0}: damaged on the way, or not what was asked for")]
    Damaged(ObjectId),
    /// Nobody who was asked could give it.
    #[error("object {id} could not be had from any of {asked} peers; the last one said: {last}")]
    Nowhere {
        /// Which.
        id: ObjectId,
        /// Peers asked.
        asked: usize,
        /// The last one's answer.
        last: String,
    },
}

/// The pool of one node.
#[derive(Debug)]
pub struct Pool {
    folder: PathBuf,
    partials: AtomicU64,
}

impl ObjectSource for Pool {
    fn path(&self, id: ObjectId) -> Option<PathBuf> {
        let path = self.path_of(id);
        path.is_file().then_some(path)
    }
}

/// An object that is being written, gone if it is not finished.
pub struct Incoming<'a> {
    pool: &'a Pool,
    id: ObjectId,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    finished: bool,
}

impl Pool {
    /// The pool in a folder; what an earlier run left unfinished is removed.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, PoolError> {
        let pool = Self { folder: folder.to_owned(), partials: AtomicU64::new(0) };
        let partial = pool.partial_folder();
        let cleaned = match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&partial),
        };
        cleaned.map_err(|source| pool.disk(source))?;
        Ok(pool)
    }

    fn disk(&self, source: io::Error) -> PoolError {
        PoolError::Disk { folder: self.folder.clone(), source }
    }

    fn partial_folder(&self) -> PathBuf {
        self.folder.join("partial")
    }

    fn path_of(&self, id: ObjectId) -> PathBuf {
        let name = id.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    /// Whether an object is here in its full length.
    pub fn has(&self, object: ObjectRef) -> bool {
        fs::metadata(self.path_of(object.id)).is_ok_and(|file| file.len() == object.bytes)
    }

    /// Begins to write an object.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(&self, id: ObjectId) -> Result<Incoming<'_>, PoolError> {
        let number = self.partials.fetch_add(1, Ordering::Relaxed);
        let path = self.partial_folder().join(format!("{id}.{number}"));
        let file = File::create_new(&path).map_err(|source| self.disk(source))?;
        Ok(Incoming { pool: self, id, path, file, hasher: blake3::Hasher::new(), finished: false })
    }

    /// Stores bytes and names them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<ObjectRef, PoolError> {
        let object = ObjectRef { id: ObjectId::of(bytes), bytes: bytes.len() as u64 };
        if !self.has(object) {
            let mut incoming = self.begin(object.id)?;
            incoming.write(bytes)?;
            incoming.finish()?;
        }
        Ok(object)
    }

    /// Reads an object and checks it; a damaged one is removed, so that it can be fetched again.
    /// The bytes are shared, for the engine to read without a copy of its own.
    ///
    /// # Errors
    /// When it is not here, or no longer what its name says.
    pub fn read(&self, id: ObjectId) -> Result<Arc<[u8]>, PoolError> {
        let path = self.path_of(id);
        let bytes: Arc<[u8]> = fs::read(&path).map_err(|source| self.disk(source))?.into();
        if ObjectId::of(&bytes) == id {
            return Ok(bytes);
        }
        fs::remove_file(&path).map_err(|source| self.disk(source))?;
        Err(PoolError::Damaged(id))
    }

    /// Gets an object from the first peer that has it, unless it is here.
    ///
    /// # Errors
    /// When nobody has it, or the disk refuses.
    pub async fn ensure(&self, net: &Net, object: ObjectRef, peers: &[NodeId]) -> Result<(), PoolError> {
        if self.has(object) {
            return Ok(());
        }
        let mut last = "there is no other node".to_owned();
        for peer in peers {
            match self.fetch(net, object, *peer).await {
                Ok(()) => return Ok(()),
                Err(Fetch::Pool(error @ PoolError::Disk { .. })) => return Err(error),
                Err(Fetch::Pool(error)) => last = error.to_string(),
                Err(Fetch::Net(error)) => last = error.to_string(),
            }
            tracing::debug!(object = %object.id, peer = %peer.short(), %last, "not from this peer");
        }
        Err(PoolError::Nowhere { id: object.id, asked: peers.len(), last })
    }

    async fn fetch(&self, net: &Net, object: ObjectRef, peer: NodeId) -> Result<(), Fetch> {
        let mut stream = net.fetch(peer, object.id, object.bytes).await.map_err(Fetch::Net)?;
        let mut incoming = self.begin(object.id).map_err(Fetch::Pool)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = stream.read(&mut buffer).await.map_err(|error| Fetch::Net(error.into()))?;
            if read == 0 {
                return incoming.finish().map_err(Fetch::Pool);
            }
            incoming.write(&buffer[..read]).map_err(Fetch::Pool)?;
        }
    }
}

enum Fetch {
    Net(FetchError),
    Pool(PoolError),
}

impl Incoming<'_> {
    /// Adds bytes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|source| self.pool.disk(source))
    }

    /// Checks what came and gives it its name.
    ///
    /// # Errors
    /// When it is not what its name says, or the disk refuses.
    pub fn finish(mut self) -> Result<(), PoolError> {
        if self.hasher.finalize().as_bytes() != &self.id.0 {
            return Err(PoolError::Damaged(self.id));
        }
        let target = self.pool.path_of(self.id);
        let stored = self.file.sync_all().and_then(|()| {
            if let Some(folder) = target.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::rename(&self.path, &target)
        });
        stored.map_err(|source| self.pool.disk(source))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever stays is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).map_or(0, Iterator::count)
    }

    #[test]
    fn objects_come_back_and_wrong_ones_leave_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::open(folder.path()).unwrap();
        let object = pool.put(b"weights").unwrap();
        assert!(pool.has(object));
        assert_eq!(&*pool.read(object.id).unwrap(), b"weights");
        let mut wrong = pool.begin(ObjectId::of(b"other")).unwrap();
        wrong.write(b"not it").unwrap();
        assert!(matches!(wrong.finish(), Err(PoolError::Damaged(_))));
        drop(pool.begin(ObjectId::of(b"broken off")).unwrap());
        assert_eq!(files(&folder.path().join("partial")), 0);
    }

    #[test]
    fn damage_on_disk_is_noticed_and_the_object_can_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::open(folder.path()).unwrap();
        let object = pool.put(b"weights").unwrap();
        fs::write(pool.path_of(object.id), b"wEights").unwrap();
        assert!(matches!(pool.read(object.id), Err(PoolError::Damaged(_))));
        assert!(!pool.has(object));
        pool.put(b"weights").unwrap();
        assert!(pool.has(object));
    }

    #[test]
    fn what_an_earlier_run_left_unfinished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("partial")).unwrap();
        fs::write(folder.path().join("partial/left.1"), b"half").unwrap();
        Pool::open(folder.path()).unwrap();
        assert_eq!(files(&folder.path().join("partial")), 0);
    }
}
