//! Objects side by side for a session: what is there, what is refused, and what stays on disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::pool::PoolError;

fn no_links(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[test]
fn objects_lie_side_by_side_without_being_written_twice() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let objects = [content(3 * GROUP + 5, 1), content(9, 2)].map(|bytes| pool.put(&bytes).unwrap());
    let gathered = pool.gather(&[objects[0], objects[1], objects[0]]).unwrap();
    for object in objects {
        let found = fs::metadata(gathered.folder().join(object.id.to_string())).unwrap();
        assert_eq!(found.ino(), fs::metadata(pool.path_of(object.id)).unwrap().ino());
    }
    assert_eq!(files_below(gathered.folder()).len(), 2);
    drop(gathered);
    assert_eq!(files_below(&folder.path().join("loading")).len(), 0);
    assert!(objects.iter().all(|object| pool.read(object.id).is_ok()));
}

#[test]
fn an_object_kept_elsewhere_is_not_given_as_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let object = pool.put(b"weights").unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(pool.path_of(object.id), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, pool.path_of(object.id)).unwrap();
    let gathered = pool.gather(&[object]).unwrap();
    let place = gathered.folder().join(object.id.to_string());
    assert!(fs::symlink_metadata(&place).unwrap().is_file());
    assert_eq!(fs::read(&place).unwrap(), b"weights");
}

#[test]
fn where_there_are_no_links_copies_count_in_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let objects = [content(GROUP + 1, 1), content(GROUP + 1, 2)];
    let bytes = objects[0].len() as u64;
    let pool = Arc::new(Pool::open(folder.path(), DiskBudget::Bytes(4 * bytes - 1)).unwrap());
    let objects = objects.map(|bytes| pool.put(&bytes).unwrap());
    pool.set_needed(objects.iter().map(|object| object.id).collect());
    let first = pool.gather_by(&objects[..1], no_links).unwrap();
    assert_eq!(
        ObjectId::of(&fs::read(first.folder().join(objects[0].id.to_string())).unwrap()),
        objects[0].id
    );
    assert!(matches!(pool.gather_by(&objects[1..], no_links), Err(PoolError::Full { .. })));
    drop(first);
    pool.gather_by(&objects[1..], no_links).unwrap();
    assert_eq!(files_below(&folder.path().join("loading")).len(), 0);
}

#[test]
fn all_that_is_damaged_or_gone_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let objects = [1, 2, 3, 4].map(|seed| pool.put(&content(100, seed)).unwrap());
    for (object, bytes) in objects.iter().zip([99, 101, 100]) {
        fs::write(pool.path_of(object.id), vec![7; bytes]).unwrap();
    }
    assert!(matches!(pool.gather(&objects), Err(PoolError::Damaged(_))));
    assert_eq!(objects.map(|object| pool.has(object)), [false, false, false, true]);
    assert!(matches!(pool.gather(&objects), Err(PoolError::Missing(_))));
    assert_eq!(files_below(&folder.path().join("loading")).len(), 0);
    fs::write(pool.path_of(objects[3].id), vec![7; 101]).unwrap();
    assert!(matches!(pool.gather_by(&objects[3..], no_links), Err(PoolError::Damaged(_))));
}

#[test]
fn what_a_killed_run_left_is_removed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let object = pool.put(b"weights").unwrap();
    let left = folder.path().join("loading/0");
    fs::create_dir_all(&left).unwrap();
    fs::hard_link(pool.path_of(object.id), left.join(object.id.to_string())).unwrap();
    assert_eq!(files_below(&folder.path().join("loading")).len(), 1);
    let pool = open(folder.path());
    assert!(!folder.path().join("loading").exists());
    assert!(pool.read(object.id).is_ok());
}
