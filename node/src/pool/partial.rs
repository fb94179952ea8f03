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
        let groups = if found_bytes == 0 { Vec::new() } else { partial.groups_here()? };
        Ok((partial, groups))
    }

    fn groups_here(&self) -> Result<Vec<u32>, PoolError> {
        let Some(outline) = self.outline.get() else { return Ok(Vec::new()) };
        let mut groups = Vec::new();
        let mut buffer = Vec::new();
        for group in 0..group_count(self.object.bytes) {
            let range = group_range(self.object.bytes, group);
            buffer.resize((range.end - range.start) as usize, 0);
            self.file.read_exact_at(&mut buffer, range.start).map_err(|source| self.pool.disk(source))?;
            if outline.is_group(group, &buffer) {
                groups.push(group);
            }
        }
        Ok(groups)
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

/// Whatever stays is removed at the next start.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(file = %path.display(), %error, "cannot be removed");
    }
}
