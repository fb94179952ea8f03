//! An object that comes in groups, in any order: each is verified before it is written, and what is
//! there after a break is found by verifying it again, so that no note of it can be wrong.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use stormo_protocol::model::ObjectRef;
use stormo_protocol::object::{Outline, group_count, group_range};

use super::{OUTLINE_ENDING, Pool, PoolError, keep_outline, make_way};

/// Bytes that a file takes on disk; one with holes takes less than its length.
pub(super) fn bytes_on_disk(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

/// An object of which some groups may be here.
#[derive(Debug)]
pub(super) struct Partial {
    pool: Arc<Pool>,
    object: ObjectRef,
    path: PathBuf,
    file: File,
    outline: OnceLock<Outline>,
    /// Only one pull at a time goes on with what an earlier one left; another writes a file of its own.
    claimed: bool,
    finished: AtomicBool,
}

impl Partial {
    /// Opens what an earlier pull left of an object, or begins anew; gives the groups that are there.
    pub(super) fn open(pool: &Arc<Pool>, object: ObjectRef) -> Result<(Self, Vec<u32>), PoolError> {
        let claimed = pool.index().claim(object.id);
        let path = match claimed {
            true => pool.partial_folder().join(object.id.to_string()),
            false => pool.temporary_path(object.id),
        };
        let opened = make_way(&path, fs::Metadata::is_file).and_then(|()| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let found_bytes = file.metadata()?.len();
            file.set_len(object.bytes)?;
            Ok((file, found_bytes))
        });
        let (file, found_bytes) = opened.map_err(|source| {
            if claimed {
                pool.index().release_claim(object.id);
            }
            pool.disk(source)
        })?;
        let outline = OnceLock::new();
        let kept = || Outline::from_bytes(object, &fs::read(path.with_extension(OUTLINE_ENDING)).ok()?);
        if let Some(known) = Outline::of_single(object).or_else(kept) {
            let _ = outline.set(known);
        }
        let finished = AtomicBool::new(false);
        let partial = Self { pool: pool.clone(), object, path, file, outline, claimed, finished };
        let groups = if found_bytes == 0 { Vec::new() } else { partial.groups_here() };
        Ok((partial, groups))
    }

    fn groups_here(&self) -> Vec<u32> {
        let Some(outline) = self.outline.get() else { return Vec::new() };
        groups_in(self.object, outline, |buffer, offset| {
            let read = self.file.read_exact_at(buffer, offset);
            if let Err(error) = &read {
                let file = self.path.display();
                tracing::warn!(%file, offset, %error, "a part of an object cannot be read; it is fetched again");
            }
            read.is_ok()
        })
    }

    pub(super) fn object(&self) -> ObjectRef {
        self.object
    }

    pub(super) fn has_outline(&self) -> bool {
        self.outline.get().is_some()
    }

    /// Takes an outline if it is this object's, and keeps it for a later run; false if it is not.
    pub(super) fn take_outline(&self, bytes: &[u8]) -> bool {
        let Some(outline) = Outline::from_bytes(self.object, bytes) else { return false };
        if self.claimed {
            keep_outline(&self.path.with_extension(OUTLINE_ENDING), &outline);
        }
        let _ = self.outline.set(outline);
        true
    }

    /// Writes a group if it is this object's; false if it is not.
    pub(super) fn take_group(&self, group: u32, bytes: &[u8]) -> Result<bool, PoolError> {
        if !self.outline.get().is_some_and(|outline| outline.is_group(group, bytes)) {
            return Ok(false);
        }
        self.pool.write_at(&self.file, bytes, group_range(self.object.bytes, group).start)?;
        Ok(true)
    }

    /// Gives the object its name, once all groups are written.
    pub(super) fn finish(&self) -> Result<(), PoolError> {
        self.file.sync_all().map_err(|source| self.pool.disk(source))?;
        let Some(outline) = self.outline.get() else { return Err(PoolError::Missing(self.object.id)) };
        self.pool.store(&self.path, self.object, outline, None)?;
        self.finished.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let finished = self.finished.load(Ordering::Acquire);
        let mut index = self.pool.index();
        if self.claimed {
            if finished {
                remove(&self.path.with_extension(OUTLINE_ENDING));
            } else {
                index.left_partial(self.object.id, bytes_on_disk(&self.path));
            }
            index.release_claim(self.object.id);
        } else if !finished {
            remove(&self.path);
        }
    }
}

/// The groups that are an object's; those that cannot be read are none.
fn groups_in(object: ObjectRef, outline: &Outline, read_at: impl Fn(&mut [u8], u64) -> bool) -> Vec<u32> {
    let mut buffer = Vec::new();
    let mut is_here = |group: &u32| {
        let range = group_range(object.bytes, *group);
        buffer.resize((range.end - range.start) as usize, 0);
        read_at(&mut buffer, range.start) && outline.is_group(*group, &buffer)
    };
    (0..group_count(object.bytes)).filter(|group| is_here(group)).collect()
}

/// Whatever stays is removed at the next start.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(file = %path.display(), %error, "cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use stormo_protocol::ids::ObjectId;
    use stormo_protocol::limits::OBJECT_GROUP_BYTES;
    use stormo_protocol::object::OutlineHasher;

    use super::*;

    #[test]
    fn a_group_that_cannot_be_read_is_not_here() {
        let bytes = vec![7; 3 * OBJECT_GROUP_BYTES as usize + 5];
        let mut hasher = OutlineHasher::default();
        hasher.update(&bytes);
        let object = ObjectRef { id: ObjectId::of(&bytes), bytes: bytes.len() as u64 };
        let groups = groups_in(object, &hasher.finish().1, |buffer, offset| {
            buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
            offset != OBJECT_GROUP_BYTES
        });
        assert_eq!(groups, [0, 2, 3]);
    }
}
