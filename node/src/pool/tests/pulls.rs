//! Pulls from played peers.

use std::time::{Duration, Instant};

use super::peers::{Nature, Peers, node};
use super::*;
use crate::net::ObjectSource;
use crate::pool::PoolError;
use crate::pool::partial::Partial;

fn model() -> Vec<Vec<u8>> {
    vec![content(100, 1), content(9 * GROUP + 77, 2), content(GROUP, 3), content(5 * GROUP, 4), Vec::new()]
}

fn objects(model: &[Vec<u8>]) -> Vec<ObjectRef> {
    model.iter().map(|bytes| object_of(bytes)).collect()
}

fn assert_whole(pool: &Pool, model: &[Vec<u8>]) {
    for bytes in model {
        assert_eq!(*pool.read(ObjectId::of(bytes)).unwrap(), **bytes);
    }
    assert_eq!(files_below(&pool.partial_folder()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_model_comes_from_all_who_have_it_with_progress() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let pool = open(folder.path());
    let peers = Peers::new(&model, &[Nature::Honest, Nature::Lacks, Nature::Honest, Nature::Gone]);
    let (progress, heard) = watch::channel(Progress::default());
    let wanted = objects(&model);
    pool.pull(&peers, &wanted, &peers.ids(), &progress).await.unwrap();
    assert_whole(&pool, &model);
    let total = wanted.iter().map(|object| object.bytes).sum();
    assert_eq!(*heard.borrow(), Progress { bytes_done: total, bytes_total: total });
    assert!(peers.sent_groups(0) > 0 && peers.sent_groups(2) > 0);
    assert_eq!(peers.sent_groups(0) + peers.sent_groups(2), 10 + 5 + 3, "no group comes twice");
    // What is here is not asked for again, and can be given on.
    let nobody = Peers::new(&[], &[]);
    pool.pull(&nobody, &wanted, &[], &progress).await.unwrap();
    assert_eq!(pool.outline(wanted[1].id).unwrap().1.len(), 10 * 32);
}

#[tokio::test]
async fn wrong_bytes_are_noticed_another_peer_finishes_and_the_liar_is_avoided() {
    for nature in [Nature::Flips, Nature::Swaps] {
        let (folder, model) = (tempfile::tempdir().unwrap(), model());
        let pool = open(folder.path());
        let peers = Peers::new(&model, &[nature, Nature::Honest]);
        pool.pull(&peers, &objects(&model), &peers.ids(), &somebody_waits()).await.unwrap();
        assert_whole(&pool, &model);
        assert!(pool.is_avoided(node(0)) && !pool.is_avoided(node(1)), "{nature:?}");
        let opened = peers.opened(0);
        // Lanes that were under way when the first lie was noticed; each holds at most one run.
        assert!(peers.sent_groups(0) <= 8, "{nature:?}: {} groups", peers.sent_groups(0));
        let more = vec![content(2 * GROUP, 9)];
        let peers = Peers::new(&more, &[nature, Nature::Honest]);
        pool.pull(&peers, &objects(&more), &peers.ids(), &somebody_waits()).await.unwrap();
        assert_eq!(peers.opened(0), 0, "{nature:?} was asked {opened} times before and is not asked again");
    }
}

/// The length that is expected stands in what a publisher said: an honest peer contradicts a wrong one.
#[tokio::test]
async fn who_says_another_length_than_expected_is_not_avoided() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let pool = open(folder.path());
    let peers = Peers::new(&model, &[Nature::Shortens, Nature::Honest]);
    pool.pull(&peers, &objects(&model), &peers.ids(), &somebody_waits()).await.unwrap();
    assert_whole(&pool, &model);
    assert!(!pool.is_avoided(node(0)) && !pool.is_avoided(node(1)));
}

#[tokio::test]
async fn a_pull_ends_when_nobody_wants_it_and_the_next_goes_on_there() {
    let (folder, model) = (tempfile::tempdir().unwrap(), vec![content(9 * GROUP, 1)]);
    let pool = open(folder.path());
    let wanted = objects(&model);
    let stalls = Peers::new(&model, &[Nature::StallsAfter(3)]);
    let (progress, mut heard) = watch::channel(Progress::default());
    let waits = async {
        heard.wait_for(|progress| progress.bytes_done == 3 * GROUP as u64).await.unwrap();
        drop(heard);
    };
    let ids = stalls.ids();
    let (pulled, ()) = tokio::join!(pool.pull(&stalls, &wanted, &ids, &progress), waits);
    assert!(matches!(pulled, Err(PoolError::Unwanted)), "{pulled:?}");
    let peers = Peers::new(&model, &[Nature::Honest]);
    pool.pull(&peers, &wanted, &peers.ids(), &somebody_waits()).await.unwrap();
    assert_whole(&pool, &model);
    assert_eq!(peers.sent_groups(0), 6);
}

#[tokio::test]
async fn from_liars_alone_nothing_comes_under_its_name() {
    for nature in [Nature::Flips, Nature::Swaps, Nature::Shortens, Nature::Lacks] {
        let (folder, model) = (tempfile::tempdir().unwrap(), model());
        let pool = open(folder.path());
        let peers = Peers::new(&model, &[nature]);
        let error = pool.pull(&peers, &objects(&model), &peers.ids(), &somebody_waits()).await.unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, PoolError::Nowhere { .. }), "{nature:?}: {told}");
        let is_avoided = !matches!(nature, Nature::Lacks | Nature::Shortens);
        let what = if !is_avoided { "does not have it" } else { "sent wrong bytes" };
        assert!(told.contains(what) && told.contains(&node(0).short()), "{nature:?}: {told}");
        // The empty object has no byte that could be wrong.
        assert!(pool.check().unwrap().bytes == 0);
        if is_avoided {
            let error = pool.pull(&peers, &objects(&model), &peers.ids(), &somebody_waits()).await;
            assert!(error.unwrap_err().to_string().contains("avoided"));
        }
    }
}

#[tokio::test]
async fn a_peer_that_cuts_is_given_up_and_the_rest_comes_from_another() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let pool = open(folder.path());
    let peers = Peers::new(&model, &[Nature::Cuts, Nature::BreaksAfter(3), Nature::Honest]);
    pool.pull(&peers, &objects(&model), &peers.ids(), &somebody_waits()).await.unwrap();
    assert_whole(&pool, &model);
    assert!(!pool.is_avoided(node(0)), "to break off is no lie");
}

#[tokio::test]
async fn a_later_run_goes_on_where_the_earlier_one_broke() {
    let (folder, model) = (tempfile::tempdir().unwrap(), vec![content(12 * GROUP + 1, 5)]);
    let wanted = objects(&model);
    let peers = Peers::new(&model, &[Nature::BreaksAfter(5)]);
    let broke = open(folder.path()).pull(&peers, &wanted, &peers.ids(), &somebody_waits()).await;
    let told = broke.unwrap_err().to_string();
    assert!(told.contains("broke off too often"), "{told}");
    let pool = open(folder.path());
    let had = Partial::open(&pool, wanted[0]).unwrap().1.len() as u32;
    assert_eq!(had, 5);
    // Damage to what lies there is found; it comes again.
    let partial = pool.partial_folder().join(wanted[0].id.to_string());
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(partial).unwrap(),
        &[0; 16],
        0,
    )
    .unwrap();
    let peers = Peers::new(&model, &[Nature::Honest]);
    pool.pull(&peers, &wanted, &peers.ids(), &somebody_waits()).await.unwrap();
    assert_whole(&pool, &model);
    assert!((13 - had..=13 - had + 1).contains(&peers.sent_groups(0)), "{}", peers.sent_groups(0));
}

#[tokio::test]
async fn a_silent_peer_delays_the_end_by_seconds_only() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let pool = open(folder.path());
    let peers = Peers::new(&model, &[Nature::Stalls, Nature::Honest]);
    let started = Instant::now();
    pool.pull(&peers, &objects(&model), &peers.ids(), &somebody_waits()).await.unwrap();
    assert_whole(&pool, &model);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn two_pulls_of_the_same_object_at_once_both_succeed() {
    let (folder, model) = (tempfile::tempdir().unwrap(), model());
    let pool = open(folder.path());
    let (peers, wanted) = (Peers::new(&model, &[Nature::Honest]), objects(&model));
    let pull = || async { pool.pull(&peers, &wanted, &peers.ids(), &somebody_waits()).await };
    let (one, other) = futures::join!(pull(), pull());
    one.and(other).unwrap();
    assert_whole(&pool, &model);
    assert_eq!(pool.index().used_bytes(), wanted.iter().map(|object| object.bytes).sum::<u64>());
}

#[tokio::test]
async fn a_pull_stays_within_the_budget_and_evicts_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let old = open(folder.path()).put(&content(4 * GROUP, 6)).unwrap();
    let pool = Arc::new(Pool::open(folder.path(), DiskBudget::Bytes(6 * GROUP as u64)).unwrap());
    let model = vec![content(5 * GROUP, 7)];
    let (peers, wanted) = (Peers::new(&model, &[Nature::Honest]), objects(&model));
    let needed = std::collections::HashSet::from([old.id]);
    pool.set_needed(needed);
    let error = pool.pull(&peers, &wanted, &peers.ids(), &somebody_waits()).await.unwrap_err();
    assert!(matches!(error, PoolError::Full { free_bytes, .. } if free_bytes == 2 * GROUP as u64), "{error}");
    assert_eq!(peers.opened(0), 0, "told before anything is asked");
    pool.set_needed(std::collections::HashSet::new());
    pool.pull(&peers, &wanted, &peers.ids(), &somebody_waits()).await.unwrap();
    assert!(!pool.has(old));
    assert_whole(&pool, &model);
}
