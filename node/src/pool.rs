//! Objects on disk, each under the BLAKE3 of its bytes: there whole, or not there. Pulled from peers in
//! groups that are verified as they come, within a budget of disk.

mod avoid;
mod fetch;
mod gathered;
mod incoming;
mod index;
mod lane;
mod partial;
mod pull;
mod survey;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use stormo_protocol::ids::{NodeId, ObjectId};
use stormo_protocol::model::ObjectRef;
use stormo_protocol::object::{Outline, group_count};

use crate::monitor;
use crate::net::ObjectSource;
use avoid::Avoided;
pub use fetch::Progress;
pub use gathered::Gathered;
pub use incoming::Incoming;
use index::{Full, Index, Victim};
pub use survey::Checked;
use survey::hash_file;

/// Ending of a file with the outline of the object beside it.
const OUTLINE_ENDING: &str = "groups";
/// Ending of what lay in the place of an object and was none.
const ASIDE_ENDING: &str = "aside";

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
    /// The disk does not give an object that is there.
    #[error("object {id} cannot be read from `{}`: {source}", file.display())]
    Unreadable {
        /// Which.
        id: ObjectId,
        /// Where it lies.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The budget does not allow it, even without everything that nothing needs.
    #[error(
        "{wanted_bytes} bytes do not fit the pool's budget of {budget_bytes}: {free_bytes} are free or can be \
         freed; give it more (--disk-budget) or take deployments back"
    )]
    Full {
        /// What was to be stored.
        wanted_bytes: u64,
        /// The budget.
        budget_bytes: u64,
        /// What is left of it, without what nothing needs.
        free_bytes: u64,
    },
    /// What was given is not what its name says.
    #[error("the bytes do not belong to object {0}: damaged on the way, or not what was asked for")]
    Damaged(ObjectId),
    /// It is not in the pool.
    #[error("object {0} is not here")]
    Missing(ObjectId),
    /// Nobody who was asked could give it.
    #[error("object {id} ({bytes} bytes) could not be had: {tried}")]
    Nowhere {
        /// Which.
        id: ObjectId,
        /// Its length.
        bytes: u64,
        /// Who was asked, and what came of it.
        tried: String,
    },
    /// Nobody waits for it any more.
    #[error("nobody wants the objects any more")]
    Unwanted,
    /// A task of the pool broke down: a defect of this program.
    #[error("the pool's work broke down: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// How much of the disk the pool may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskBudget {
    /// So many bytes.
    Bytes(u64),
    /// Four fifths of what is free at the start, what the pool holds counted as free: a guess that
    /// leaves the machine's other programs their room.
    MostOfFree,
}

/// The pool of one node.
#[derive(Debug)]
pub struct Pool {
    folder: PathBuf,
    numbers: AtomicU64,
    started: Instant,
    index: Mutex<Index>,
    avoided: Mutex<Avoided>,
}

impl ObjectSource for Pool {
    fn open(&self, id: ObjectId) -> Option<(File, u64)> {
        let bytes = self.index().use_object(id)?;
        let file = file_at(&self.path_of(id)).ok()??;
        (file.metadata().ok()?.len() == bytes).then_some((file, bytes))
    }

    fn outline(&self, id: ObjectId) -> Option<(u64, Vec<u8>)> {
        let bytes = self.index().use_object(id)?;
        let outline = self.outline_of(ObjectRef { id, bytes })?;
        Some((bytes, outline.to_bytes()))
    }
}

impl Pool {
    /// The pool in a folder. What an earlier run left unfinished stays where a later pull can go on
    /// with it, and is removed elsewhere.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(folder: &Path, budget: DiskBudget) -> Result<Self, PoolError> {
        let pool = Self {
            folder: folder.to_owned(),
            numbers: AtomicU64::new(0),
            started: Instant::now(),
            index: Mutex::new(Index::new(0)),
            avoided: Mutex::default(),
        };
        let found = fs::create_dir_all(pool.partial_folder())
            .and_then(|()| pool.remove_gathered())
            .and_then(|()| pool.find_all());
        found.map_err(|source| pool.disk(source))?;
        let budget_bytes = match budget {
            DiskBudget::Bytes(bytes) => bytes,
            DiskBudget::MostOfFree => {
                let free_bytes = monitor::disk_free_bytes(folder).map_err(|source| pool.disk(source))?;
                (free_bytes + pool.index().used_bytes()) / 5 * 4
            }
        };
        pool.index().set_budget(budget_bytes);
        Ok(pool)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Held for lookups and deletions only, never while waiting for a peer.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn avoided(&self) -> MutexGuard<'_, Avoided> {
        self.avoided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
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

    /// A name that nothing else has, for something that only this run goes on with.
    fn temporary_path(&self, id: ObjectId) -> PathBuf {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.partial_folder().join(format!("{id}.{number}"))
    }

    /// Whether an object is here in its full length.
    pub fn has(&self, object: ObjectRef) -> bool {
        self.index().use_object(object.id) == Some(object.bytes)
    }

    /// What partitions and deployments need: never evicted. Everything else may go when room is wanted.
    pub fn set_needed(&self, needed: HashSet<ObjectId>) {
        self.index().set_needed(needed);
    }

    /// Begins to write an object that comes in order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(&self, id: ObjectId) -> Result<Incoming<&Self>, PoolError> {
        Incoming::begin(self, id)
    }

    /// The same, to be written to from any thread.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin_shared(self: &Arc<Self>, id: ObjectId) -> Result<Incoming<Arc<Self>>, PoolError> {
        Incoming::begin(self.clone(), id)
    }

    /// Stores bytes and names them.
    ///
    /// # Errors
    /// When the disk or the budget refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<ObjectRef, PoolError> {
        let object = ObjectRef { id: ObjectId::of(bytes), bytes: bytes.len() as u64 };
        if !self.has(object) {
            let mut incoming = self.begin(object.id)?;
            incoming.write(bytes)?;
            incoming.finish()?;
        }
        Ok(object)
    }

    /// Reads an object and checks it; a damaged one is removed, one that cannot be read counts as not here, so that it
    /// can be fetched again. The bytes are shared, for the engine to read without a copy of its own.
    ///
    /// # Errors
    /// When it is not here, or no longer what its name says.
    pub fn read(&self, id: ObjectId) -> Result<Arc<[u8]>, PoolError> {
        let mut file = self.file_of(id)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| self.unreadable(id, source))?;
        let bytes: Arc<[u8]> = bytes.into();
        if ObjectId::of(&bytes) != id {
            self.remove_damaged(id);
            return Err(PoolError::Damaged(id));
        }
        self.used(id, &file);
        Ok(bytes)
    }

    /// The file of an object that is here, unchecked.
    fn file_of(&self, id: ObjectId) -> Result<File, PoolError> {
        let file = file_at(&self.path_of(id)).map_err(|source| self.disk(source))?;
        file.ok_or_else(|| {
            self.index().removed(id);
            PoolError::Missing(id)
        })
    }

    /// Notes that an object, in this file, was used.
    fn used(&self, id: ObjectId, file: &File) {
        self.index().use_object(id);
        // The order of uses outlives this run by the files' times; a run without them only evicts less well.
        let _ = file.set_modified(SystemTime::now());
    }

    /// Deletes what the index has forgotten. The index is held meanwhile, so that nothing is found there
    /// that is about to go.
    fn delete(&self, victims: &[Victim]) {
        for victim in victims {
            let path = match victim {
                Victim::Object(id) => self.path_of(*id),
                Victim::Partial(id) => self.partial_folder().join(id.to_string()),
            };
            for file in [path.with_extension(OUTLINE_ENDING), path] {
                if let Err(error) = fs::remove_file(&file)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(file = %file.display(), %error, "cannot be removed");
                }
            }
        }
    }

    /// The outline of an object that is here: from the file beside it, or from the object itself.
    fn outline_of(&self, object: ObjectRef) -> Option<Outline> {
        let path = self.path_of(object.id);
        let beside = path.with_extension(OUTLINE_ENDING);
        let kept =
            Outline::of_single(object).or_else(|| Outline::from_bytes(object, &fs::read(&beside).ok()?));
        if kept.is_some() {
            return kept;
        }
        let (found, outline, _) = hash_file(file_at(&path).ok()??).ok()?;
        if found != object.id {
            self.remove_damaged(object.id);
            return None;
        }
        keep_outline(&beside, &outline);
        Some(outline)
    }

    /// Sets bytes of the budget aside, evicting what nothing needs.
    fn reserve(&self, bytes: u64) -> Result<(), PoolError> {
        let now_ms = self.now_ms();
        let mut index = self.index();
        match index.reserve(bytes, now_ms) {
            Ok(victims) => {
                self.delete(&victims);
                Ok(())
            }
            Err(Full { free_bytes }) => {
                Err(PoolError::Full { wanted_bytes: bytes, budget_bytes: index.budget_bytes(), free_bytes })
            }
        }
    }

    /// Writes bytes at their place; when the disk is full, evicts what nothing needs and tries again.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> Result<(), PoolError> {
        loop {
            let evictions_before = self.index().evictions();
            let source = match file.write_all_at(bytes, offset) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let now_ms = self.now_ms();
            let mut index = self.index();
            let victims = if full { index.evict(bytes.len() as u64, now_ms) } else { Vec::new() };
            if !victims.is_empty() {
                tracing::info!(evicted = victims.len(), "the disk is full; what nothing needs is removed");
                self.delete(&victims);
            } else if !full || index.evictions() == evictions_before {
                return Err(self.disk(source));
            }
            // Or another write that met the full disk has made room for this one too.
        }
    }

    /// Gives a finished file its final name.
    fn store(
        &self,
        from: &Path,
        object: ObjectRef,
        outline: &Outline,
        uploaded_ms: Option<u64>,
    ) -> Result<(), PoolError> {
        let target = self.path_of(object.id);
        let folder =
            |folder: &Path| make_way(folder, fs::Metadata::is_dir).and_then(|()| fs::create_dir_all(folder));
        let stored = target.parent().map_or(Ok(()), folder).and_then(|()| {
            make_way(&target, fs::Metadata::is_file)?;
            if group_count(object.bytes) > 1 {
                keep_outline(&target.with_extension(OUTLINE_ENDING), outline);
            }
            fs::rename(from, &target)?;
            // A power cut may otherwise take what was told to be here, and the folder that was made for it.
            let above = target.parent().into_iter().chain(target.parent().and_then(Path::parent));
            above.into_iter().try_for_each(|folder| fs::File::open(folder)?.sync_all())
        });
        stored.map_err(|source| self.disk(source))?;
        self.index().stored(object.id, object.bytes, uploaded_ms);
        Ok(())
    }

    fn is_avoided(&self, peer: NodeId) -> bool {
        let now_ms = self.now_ms();
        self.avoided().contains(peer, now_ms)
    }

    fn avoid(&self, peer: NodeId, object: ObjectId) {
        let now_ms = self.now_ms();
        if self.avoided().add(peer, now_ms) {
            tracing::warn!(peer = %peer.short(), %object, "a peer sent wrong bytes; it is avoided for a while");
        }
    }
}

/// The file at a path, unless nothing is there, or no file: a folder, a pipe.
fn file_at(path: &Path) -> io::Result<Option<File>> {
    let found = fs::metadata(path);
    match found.and_then(|found| found.is_file().then(|| File::open(path)).transpose()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        found => found,
    }
}

/// Moves aside what lies in the place of a file or folder of the pool and is of another kind. It is not the
/// pool's, so it is kept.
fn make_way(path: &Path, is_of_kind: fn(&fs::Metadata) -> bool) -> io::Result<()> {
    if fs::metadata(path).map_or(true, |found| is_of_kind(&found)) {
        return Ok(());
    }
    let aside = path.with_extension(ASIDE_ENDING);
    fs::rename(path, &aside).map_err(|error| {
        let text = format!("`{}` is in the way and cannot be moved aside ({error})", path.display());
        io::Error::new(error.kind(), text)
    })?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), "moved aside: it was where the pool keeps its own");
    Ok(())
}

/// Outlines can be had again from their object, and are checked when read: losing one costs time only.
fn keep_outline(path: &Path, outline: &Outline) {
    if let Err(error) = fs::write(path, outline.to_bytes()) {
        tracing::debug!(file = %path.display(), %error, "an outline was not kept");
    }
}

#[cfg(test)]
mod tests;
