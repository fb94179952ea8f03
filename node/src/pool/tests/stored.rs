//! Objects that are written and read here, and what the budget does with them.

use std::collections::HashSet;
use std::fs;

use super::peers::{Nature, Peers};
use super::*;
use crate::net::ObjectSource;
use crate::pool::PoolError;

#[test]
fn objects_come_back_and_wrong_ones_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    for bytes in [content(7, 1), content(3 * GROUP + 5, 2), Vec::new()] {
        let object = pool.put(&bytes).unwrap();
        assert!(pool.has(object));
        assert_eq!(*pool.read(object.id).unwrap(), *bytes);
    }
    let mut wrong = pool.begin(ObjectId::of(b"other")).unwrap();
    wrong.write(b"not it").unwrap();
    assert!(matches!(wrong.finish(), Err(PoolError::Damaged(_))));
    drop(pool.begin(ObjectId::of(b"broken off")).unwrap());
    assert_eq!(files_below(&folder.path().join("partial")).len(), 0);
    assert!(matches!(pool.read(ObjectId::of(b"other")), Err(PoolError::Missing(_))));
}

#[test]
fn damage_on_disk_is_noticed_and_the_object_can_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let object = pool.put(b"weights").unwrap();
    fs::write(pool.path_of(object.id), b"wEights").unwrap();
    assert!(matches!(pool.read(object.id), Err(PoolError::Damaged(_))));
    assert!(!pool.has(object));
    pool.put(b"weights").unwrap();
    fs::write(pool.path_of(object.id), b"wEights").unwrap();
    assert_eq!(pool.check().unwrap().damaged, [object.id]);
    assert!(!pool.has(object));
}

#[test]
fn what_need_not_be_uploaded_is_whole_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let object = pool.put(b"weights").unwrap();
    let path = pool.path_of(object.id);
    let spoil: [&dyn Fn(); 4] = [
        &|| fs::write(&path, b"wEights").unwrap(),
        &|| fs::write(&path, b"weights and more").unwrap(),
        &|| fs::remove_file(&path).unwrap(),
        &|| {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        },
    ];
    for spoil in spoil {
        assert!(pool.has_for_upload(object.id));
        spoil();
        assert!(!pool.has_for_upload(object.id) && !pool.has(object));
        pool.put(b"weights").unwrap();
        assert_eq!(*pool.read(object.id).unwrap(), *b"weights");
    }
}

#[test]
fn what_lies_in_the_place_of_an_object_is_moved_aside_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let object = object_of(b"weights");
    let path = pool.path_of(object.id);
    let in_the_way = |text: &[u8]| {
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("kept"), text).unwrap();
    };
    in_the_way(b"somebody's");
    assert!(matches!(pool.read(object.id), Err(PoolError::Missing(_))));
    pool.put(b"weights").unwrap();
    let pool = open(folder.path());
    assert_eq!(*pool.read(object.id).unwrap(), *b"weights");
    assert_eq!(fs::read(path.with_extension("aside").join("kept")).unwrap(), b"somebody's");
    // A second time there is no place for it: the message names it.
    fs::remove_file(&path).unwrap();
    in_the_way(b"again");
    assert!(!pool.has_for_upload(object.id));
    let told = pool.put(b"weights").unwrap_err().to_string();
    assert!(told.contains(&format!("`{}` is in the way", path.display())), "{told}");
}

/// Reading this file from its start is an input/output error, by the kernel's own word.
#[cfg(target_os = "linux")]
fn make_unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", path).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_disk_does_not_give_is_told_and_pulled_again() {
    for gathers in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let pool = open(folder.path());
        let [object, other] = [b"weights", b"more we"].map(|bytes| pool.put(bytes).unwrap());
        let path = pool.path_of(object.id);
        make_unreadable(&path);
        let error = match gathers {
            true => pool.gather(&[object, other]).map(drop).unwrap_err(),
            false => pool.read(object.id).map(drop).unwrap_err(),
        };
        let told = error.to_string();
        assert!(matches!(error, PoolError::Unreadable { .. }) && told.contains("Input/output"), "{told}");
        assert!(told.contains(&path.display().to_string()), "{told}");
        assert!(!pool.has(object) && pool.read(other.id).is_ok());
        assert!(fs::symlink_metadata(&path).is_ok(), "nothing is removed: it may come again");
        let peers = Peers::new(&[b"weights".to_vec()], &[Nature::Honest]);
        pool.pull(&peers, &[object, other], &peers.ids(), &somebody_waits()).await.unwrap();
        assert_eq!(*pool.read(object.id).unwrap(), *b"weights");
        assert!(pool.gather(&[object, other]).is_ok());
        // By an upload too.
        make_unreadable(&path);
        assert!(!pool.has_for_upload(object.id));
        pool.begin(object.id)
            .and_then(|mut incoming| incoming.write(b"weights").and(incoming.finish()))
            .unwrap();
        assert_eq!(*pool.read(object.id).unwrap(), *b"weights");
    }
}

#[tokio::test]
async fn what_could_not_be_read_and_is_nowhere_else_is_here_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let object = pool.put(b"weights").unwrap();
    pool.unreadable(object.id, std::io::ErrorKind::Other.into());
    assert!(!pool.has(object));
    let nobody = Peers::new(&[], &[Nature::Lacks]);
    let pulled = pool.pull(&nobody, &[object], &nobody.ids(), &somebody_waits()).await;
    assert!(matches!(pulled, Err(PoolError::Nowhere { .. })), "{pulled:?}");
    assert!(pool.has(object));
    assert_eq!(*pool.read(object.id).unwrap(), *b"weights");
}

#[test]
fn a_new_run_finds_what_is_whole_and_removes_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let object = open(folder.path()).put(&content(2 * GROUP, 3)).unwrap();
    let partial = folder.path().join("partial");
    for left in ["left.1".to_owned(), format!("{}.7", object.id), format!("{}.groups", ObjectId([9; 32]))] {
        fs::write(partial.join(left), b"half").unwrap();
    }
    let pool = open(folder.path());
    assert_eq!(files_below(&partial).len(), 0);
    assert!(pool.has(object));
}

#[test]
fn a_lost_or_damaged_outline_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let object = pool.put(&content(3 * GROUP, 4)).unwrap();
    let (bytes, outline) = pool.outline(object.id).unwrap();
    assert_eq!((bytes, outline.len()), (object.bytes, 96));
    let beside = pool.path_of(object.id).with_extension("groups");
    fs::write(&beside, vec![1; 96]).unwrap();
    assert_eq!(pool.outline(object.id), Some((bytes, outline.clone())));
    fs::remove_file(&beside).unwrap();
    assert_eq!(pool.outline(object.id), Some((bytes, outline.clone())));
    assert_eq!(fs::read(&beside).unwrap(), outline);
}

#[test]
fn the_budget_evicts_what_nothing_needs_and_says_when_that_is_not_enough() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [5, 6].map(|seed| open(folder.path()).put(&content(GROUP, seed)).unwrap());
    // A new run: the uploads are no longer fresh.
    let pool = Arc::new(Pool::open(folder.path(), DiskBudget::Bytes(3 * GROUP as u64)).unwrap());
    pool.set_needed(HashSet::from([first.id]));
    pool.put(&content(2 * GROUP, 7)).unwrap();
    assert!(pool.has(first), "needed");
    assert!(!pool.has(second) && !pool.path_of(second.id).exists(), "evicted");
    let error = pool.put(&content(GROUP, 8)).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, PoolError::Full { free_bytes: 0, .. }), "{told}");
    assert!(told.contains("--disk-budget"), "{told}");
    assert!(pool.has(first));
    assert_eq!(files_below(&folder.path().join("partial")).len(), 0);
}
