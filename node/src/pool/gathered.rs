//! Objects side by side in a folder of their own, for ONNX Runtime to map into memory: a part's weights are then never
//! in this process's own memory. Links, so nothing is written twice; copies where the disk has no links.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stormo_protocol::model::ObjectRef;

use super::survey::{CHUNK_BYTES, hash_file};
use super::{Pool, PoolError, make_way};

/// A folder with objects under their names. Dropping it removes the folder; what is mapped stays mapped.
#[derive(Debug)]
pub struct Gathered {
    pool: Arc<Pool>,
    folder: PathBuf,
    copied_bytes: u64,
}

impl Gathered {
    /// Where the objects are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        // Whatever stays is removed at the next start.
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot be removed");
        }
        self.pool.index().release(self.copied_bytes);
    }
}

impl Pool {
    /// Puts objects that are here side by side, each read to its end and checked. Goes on behind one that is damaged
    /// or cannot be read, so that all such are then gone and can be fetched again. Copies count in the budget of disk.
    ///
    /// # Errors
    /// When one is not here, or no longer what its name says; when disk or budget refuse.
    pub fn gather(self: &Arc<Self>, objects: &[ObjectRef]) -> Result<Gathered, PoolError> {
        self.gather_by(objects, |from, to| fs::hard_link(from, to))
    }

    pub(super) fn gather_by(
        self: &Arc<Self>,
        objects: &[ObjectRef],
        link: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<Gathered, PoolError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let folder = self.gathered_folder().join(number.to_string());
        fs::create_dir_all(&folder).map_err(|source| self.disk(source))?;
        let mut gathered = Gathered { pool: self.clone(), folder, copied_bytes: 0 };
        let (mut done, mut result) = (HashSet::new(), Ok(()));
        for object in objects.iter().filter(|object| done.insert(object.id)) {
            result = gathered.add(*object, &link).and(result);
        }
        result.map(|()| gathered)
    }

    fn gathered_folder(&self) -> PathBuf {
        self.folder.join("loading")
    }

    /// Removes what a run that ended in the middle left.
    pub(super) fn remove_gathered(&self) -> io::Result<()> {
        let folder = self.gathered_folder();
        make_way(&folder, fs::Metadata::is_dir)?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Gathered {
    fn add(
        &mut self,
        object: ObjectRef,
        link: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> Result<(), PoolError> {
        let (pool, id) = (self.pool.clone(), object.id);
        let from = pool.file_of(id)?;
        let place = self.folder.join(id.to_string());
        // Of the file itself, should the object be a symbolic link: ONNX Runtime follows none out of the folder.
        let linked = fs::canonicalize(pool.path_of(id)).and_then(|path| link(&path, &place));
        if let Err(error) = linked {
            tracing::debug!(object = %id, %error, "no link to an object; it is copied");
            self.copy(object, &from, &place)?;
        }
        // What will be mapped, and not what the object's name stands for a moment later.
        let file = File::open(&place).map_err(|source| pool.disk(source))?;
        let (found, ..) = hash_file(file).map_err(|source| pool.unreadable(id, source))?;
        if found != id {
            pool.remove_damaged(id);
            return Err(PoolError::Damaged(id));
        }
        pool.used(id, &from);
        Ok(())
    }

    fn copy(&mut self, object: ObjectRef, mut from: &File, place: &Path) -> Result<(), PoolError> {
        self.pool.reserve(object.bytes)?;
        self.copied_bytes += object.bytes;
        let file = File::create(place).map_err(|source| self.pool.disk(source))?;
        let (mut buffer, mut offset) = (vec![0; CHUNK_BYTES], 0);
        // No further than was set aside; what is longer is damaged, and will be found to be.
        while offset <= object.bytes {
            let read = from.read(&mut buffer).map_err(|source| self.pool.unreadable(object.id, source))?;
            if read == 0 {
                break;
            }
            self.pool.write_at(&file, &buffer[..read], offset)?;
            offset += read as u64;
        }
        Ok(())
    }
}
