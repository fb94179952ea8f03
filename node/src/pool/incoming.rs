//! An object that is written in order, as an upload is: hashed as it comes, gone if it is not finished.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::PathBuf;

use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::object::OutlineHasher;

use super::{Pool, PoolError};

/// The budget is taken in steps of so many bytes: the length is known at the end only.
const RESERVE_BYTES: u64 = 4 << 20;

/// An object that is being written, to a pool that is borrowed or shared.
pub struct Incoming<P: Deref<Target = Pool>> {
    pool: P,
    id: ObjectId,
    path: PathBuf,
    file: File,
    hasher: OutlineHasher,
    written_bytes: u64,
    reserved_bytes: u64,
    finished: bool,
}

impl<P: Deref<Target = Pool>> Incoming<P> {
    pub(super) fn begin(pool: P, id: ObjectId) -> Result<Self, PoolError> {
        let path = pool.temporary_path(id);
        let file = File::create_new(&path).map_err(|source| pool.disk(source))?;
        let hasher = OutlineHasher::default();
        Ok(Self { pool, id, path, file, hasher, written_bytes: 0, reserved_bytes: 0, finished: false })
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When the disk or the budget refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        let after_bytes = self.written_bytes + bytes.len() as u64;
        if after_bytes > self.reserved_bytes {
            let step_bytes = (after_bytes - self.reserved_bytes).next_multiple_of(RESERVE_BYTES);
            // Near the end of the budget, exactly what is needed is still good.
            let exact_bytes = after_bytes - self.reserved_bytes;
            let taken_bytes = match self.pool.reserve(step_bytes) {
                Ok(()) => step_bytes,
                Err(_) => self.pool.reserve(exact_bytes).map(|()| exact_bytes)?,
            };
            self.reserved_bytes += taken_bytes;
        }
        self.hasher.update(bytes);
        self.pool.write_at(&self.file, bytes, self.written_bytes)?;
        self.written_bytes = after_bytes;
        Ok(())
    }

    /// Checks what came and gives it its name.
    ///
    /// # Errors
    /// When it is not what its name says, or the disk refuses.
    pub fn finish(mut self) -> Result<(), PoolError> {
        let (id, outline) = std::mem::take(&mut self.hasher).finish();
        if id != self.id {
            return Err(PoolError::Damaged(self.id));
        }
        self.file.sync_all().map_err(|source| self.pool.disk(source))?;
        let object = ObjectRef { id, bytes: self.written_bytes };
        self.pool.store(&self.path, object, &outline, Some(self.pool.now_ms()))?;
        self.finished = true;
        Ok(())
    }
}

impl<P: Deref<Target = Pool>> Drop for Incoming<P> {
    fn drop(&mut self) {
        self.pool.index().release(self.reserved_bytes);
        if !self.finished {
            // Whatever stays is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
