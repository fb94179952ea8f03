//! The pool's folder seen as a whole: what is in it at the start, and whether it is what its names say.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::object::{Outline, OutlineHasher};

use super::index::Victim;
use super::{OUTLINE_ENDING, Pool, PoolError, file_at, partial};

/// Bytes read from the disk at once, where a whole object is hashed.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// What a check of everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects read.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were not what their name says; they were removed.
    pub damaged: Vec<ObjectId>,
}

impl Pool {
    /// Fills the index from the disk, the longest unused first.
    pub(super) fn find_all(&self) -> io::Result<()> {
        let mut found: Vec<(SystemTime, ObjectId, u64)> = Vec::new();
        for folder in folders(&self.folder)? {
            for file in files(&folder)? {
                if let Some(id) = object_named(&file) {
                    let metadata = fs::metadata(&file)?;
                    found.push((metadata.modified()?, id, metadata.len()));
                } else if !is_outline_of_something(&file) {
                    fs::remove_file(&file)?;
                }
            }
        }
        found.sort_unstable_by_key(|(used, ..)| *used);
        let mut index = self.index();
        found.into_iter().for_each(|(_, id, bytes)| index.stored(id, bytes, None));
        for file in files(&self.partial_folder())? {
            match object_named(&file) {
                Some(id) => index.left_partial(id, partial::bytes_on_disk(&file)),
                None if is_outline_of_something(&file) => {}
                None => fs::remove_file(&file)?,
            }
        }
        Ok(())
    }

    /// Reads everything and removes what is damaged. Takes as long as the disk and one core do.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn check(&self) -> Result<Checked, PoolError> {
        let mut checked = Checked::default();
        for folder in folders(&self.folder).map_err(|source| self.disk(source))? {
            for file in files(&folder).map_err(|source| self.disk(source))? {
                let Some(id) = object_named(&file) else { continue };
                let hashed = File::open(&file).and_then(hash_file);
                let (found, _, bytes) = hashed.map_err(|source| self.disk(source))?;
                checked.objects += 1;
                checked.bytes += bytes;
                if found != id {
                    self.remove_damaged(id);
                    checked.damaged.push(id);
                }
            }
        }
        Ok(checked)
    }

    /// Whether an object need not be uploaded: it is here, and read from the disk to its end it is what its
    /// name says. It is then kept as if it had just come. A damaged one is removed. Takes as long as
    /// reading it does.
    pub fn has_for_upload(&self, id: ObjectId) -> bool {
        let now_ms = self.now_ms();
        let known = {
            let mut index = self.index();
            index.offered(id, now_ms);
            index.use_object(id)
        };
        if known.is_none() {
            return false;
        }
        match file_at(&self.path_of(id)).and_then(|file| file.map(hash_file).transpose()) {
            Ok(Some((found, ..))) if found == id => true,
            Ok(Some(_)) => {
                self.remove_damaged(id);
                false
            }
            Ok(None) => {
                self.index().removed(id);
                false
            }
            // Nothing is removed for what may pass; an upload takes its place if it does not.
            Err(error) => {
                tracing::warn!(file = %self.path_of(id).display(), %error, "an object on disk cannot be read");
                false
            }
        }
    }

    pub(super) fn remove_damaged(&self, id: ObjectId) {
        tracing::warn!(
            file = %self.path_of(id).display(), "an object on disk was damaged; removed, to be fetched again"
        );
        let mut index = self.index();
        index.removed(id);
        self.delete(&[Victim::Object(id)]);
    }

    /// An object that the disk does not give: it counts as not here, so that it is fetched again. Its file stays until
    /// then, as it may be the only one, and may be read later.
    pub(super) fn unreadable(&self, id: ObjectId, source: io::Error) -> PoolError {
        let file = self.path_of(id);
        tracing::warn!(file = %file.display(), %source, "an object on disk cannot be read; it is to be fetched again");
        self.index().removed(id);
        PoolError::Unreadable { id, file, source }
    }

    /// Counts objects as here whose files are, though they could not be read, as they are not to be had elsewhere.
    pub(super) fn recall(&self, objects: &[ObjectRef]) {
        for object in objects.iter().filter(|object| !self.has(**object)) {
            let mut index = self.index();
            let file = fs::metadata(self.path_of(object.id));
            if file.is_ok_and(|file| file.is_file() && file.len() == object.bytes) {
                index.stored(object.id, object.bytes, None);
            }
        }
    }
}

/// Id, outline and length of what a file holds.
pub(super) fn hash_file(mut file: File) -> io::Result<(ObjectId, Outline, u64)> {
    let (mut hasher, mut buffer, mut bytes) = (OutlineHasher::default(), vec![0; CHUNK_BYTES], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            let (id, outline) = hasher.finish();
            return Ok((id, outline, bytes));
        }
        bytes += read as u64;
        hasher.update(&buffer[..read]);
    }
}

/// Whether a file holds an outline and the object it belongs to lies beside it.
fn is_outline_of_something(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == OUTLINE_ENDING) && path.with_extension("").exists()
}

/// The object whose name a file has.
fn object_named(path: &Path) -> Option<ObjectId> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The folders with objects.
fn folders(pool: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(pool)?.collect::<io::Result<Vec<_>>>()?;
    let folders = entries.into_iter().map(|entry| entry.path());
    Ok(folders.filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name.len() == 2)).collect())
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}
