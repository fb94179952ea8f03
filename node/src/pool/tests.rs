//! The pool on real disks, with peers that are played.

mod figures;
mod full;
mod gathered;
mod killed;
mod peers;
mod pulls;
mod stored;

use std::path::Path;
use std::sync::Arc;

use stormo_protocol::ids::ObjectId;
use stormo_protocol::limits::OBJECT_GROUP_BYTES;
use stormo_protocol::model::ObjectRef;
use tokio::sync::watch;

use super::{DiskBudget, Pool, Progress};

const GROUP: usize = OBJECT_GROUP_BYTES as usize;
const PLENTY: DiskBudget = DiskBudget::Bytes(1 << 40);

fn open(folder: &Path) -> Arc<Pool> {
    Arc::new(Pool::open(folder, PLENTY).unwrap())
}

/// Bytes that differ between groups and between seeds.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn object_of(bytes: &[u8]) -> ObjectRef {
    ObjectRef { id: ObjectId::of(bytes), bytes: bytes.len() as u64 }
}

/// Somebody who waits for a pull, however long it takes.
struct Waits(watch::Sender<Progress>, #[expect(dead_code, reason = "held")] watch::Receiver<Progress>);

impl std::ops::Deref for Waits {
    type Target = watch::Sender<Progress>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn somebody_waits() -> Waits {
    let (told, heard) = watch::channel(Progress::default());
    Waits(told, heard)
}

/// Files below a folder, partial ones included.
fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}
