//! A disk that fills: a small file system in memory, mounted by the test where it may.

use std::path::PathBuf;
use std::process::Command;

use super::peers::{Nature, Peers};
use super::*;
use crate::pool::PoolError;

/// A file system of so many MiB, gone with this.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, and a word about it, where this may not be done.
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "stormo-test"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        println!("skipped: only root may mount a small disk");
        None
    }

    fn pool(&self) -> Arc<Pool> {
        open(&self.path())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("objects")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_evicts_what_nothing_needs_then_says_so_and_keeps_the_rest() {
    let Some(disk) = SmallDisk::mount(9) else { return };
    let pool = disk.pool();
    let (needed, old) = (pool.put(&content(GROUP, 1)).unwrap(), pool.put(&content(2 * GROUP, 2)).unwrap());
    pool.set_needed(std::collections::HashSet::from([needed.id]));
    drop(pool);
    let pool = disk.pool();
    pool.set_needed(std::collections::HashSet::from([needed.id]));
    let model = [content(6 * GROUP, 3), content(7 * GROUP, 4)];
    let peers = Peers::new(&model, &[Nature::Honest]);
    let [fits, too_large] = model.each_ref().map(|bytes| object_of(bytes));
    pool.pull(&peers, &[fits], &peers.ids(), &somebody_waits()).await.unwrap();
    assert!(!pool.has(old), "made room");
    pool.set_needed(std::collections::HashSet::from([needed.id, fits.id]));
    let error = pool.pull(&peers, &[too_large], &peers.ids(), &somebody_waits()).await.unwrap_err();
    assert!(matches!(error, PoolError::Disk { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(matches!(pool.put(&content(2 * GROUP, 5)), Err(PoolError::Disk { .. })));
    for object in [needed, fits] {
        assert!(pool.read(object.id).is_ok());
    }
    assert!(!pool.has(too_large));
    assert_eq!(disk.pool().check().unwrap().damaged, []);
    // Room again: the same pull goes through.
    pool.set_needed(std::collections::HashSet::from([needed.id]));
    pool.pull(&peers, &[too_large], &peers.ids(), &somebody_waits()).await.unwrap();
    assert!(pool.read(too_large.id).is_ok() && pool.read(needed.id).is_ok());
}
