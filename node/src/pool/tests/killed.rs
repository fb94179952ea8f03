//! A process that pulls and is killed at any instant leaves nothing that is partial or corrupt under a
//! final name, and the next run goes on.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::peers::{Nature, Peers};
use super::*;

/// Kills in all.
const KILLS: u64 = 200;
/// Latest kill after the start of the process: a whole pull takes about as long.
const LATEST_MS: u64 = 120;
/// The pool of the process that is killed, below its working folder.
const FOLDER: &str = "objects";

fn model() -> Vec<Vec<u8>> {
    [(1, 1000), (2, 6 * GROUP + 9), (3, GROUP - 1), (4, 4 * GROUP), (5, 20_000)]
        .map(|(seed, length)| content(length, seed))
        .to_vec()
}

/// Not a test: what is killed. It pulls, forgets all and pulls again, uploading beside it.
#[test]
#[ignore = "runs for ever; started by the test below"]
fn pulls_until_it_is_killed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let model = model();
    let wanted: Vec<ObjectRef> = model.iter().map(|bytes| object_of(bytes)).collect();
    let peers = Peers::new(&model, &[Nature::Honest, Nature::Flips, Nature::Honest]);
    let pool = open(Path::new(FOLDER));
    for round in 0.. {
        runtime.block_on(pool.pull(&peers, &wanted, &peers.ids(), &somebody_waits())).unwrap();
        pool.put(&content(2 * GROUP + 1, 100 + round)).unwrap();
        let mut index = pool.index();
        let gone = index.evict(u64::MAX, pool.now_ms() + (1 << 40));
        pool.delete(&gone);
    }
}

/// No clock as seed: what is printed can be used again.
fn mixed(seed: u64, kill: u64) -> u64 {
    let hash = blake3::hash(&[seed.to_le_bytes(), kill.to_le_bytes()].concat());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
}

#[test]
fn killed_at_any_instant_nothing_partial_is_visible_and_the_rest_comes() {
    const SEED: u64 = 20_260_101;
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap();
    let model = model();
    let wanted: Vec<ObjectRef> = model.iter().map(|bytes| object_of(bytes)).collect();
    let (mut resumed, mut whole, mut empty, mut check) = (0, 0, 0, Duration::ZERO);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "pool::tests::killed::pulls_until_it_is_killed"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros(mixed(SEED, kill) % (LATEST_MS * 1000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let pool = open(&folder.path().join(FOLDER));
        let started = Instant::now();
        let checked = pool.check().unwrap();
        check += started.elapsed();
        assert_eq!(checked.damaged, [], "kill {kill}, seed {SEED}");
        whole += checked.objects;
        empty += usize::from(checked.objects == 0);
        resumed += usize::from(!files_below(&pool.partial_folder()).is_empty());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let peers = Peers::new(&model, &[Nature::Honest]);
    let pool = open(&folder.path().join(FOLDER));
    runtime.block_on(pool.pull(&peers, &wanted, &peers.ids(), &somebody_waits())).unwrap();
    model.iter().for_each(|bytes| assert_eq!(*pool.read(ObjectId::of(bytes)).unwrap(), **bytes));
    println!(
        "{KILLS} kills, seed {SEED}: {resumed} left something unfinished, {empty} left no object, {whole} \
         objects checked in {:.2} s, none damaged",
        check.as_secs_f64()
    );
    assert!(resumed > 0, "no kill hit a write; is the machine too fast or too slow for {LATEST_MS} ms?");
}
