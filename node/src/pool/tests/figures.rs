//! What a pull costs, beside the same bytes over one bare stream and in a plain copy of a file. Run with
//! `cargo test --release -p stormo --lib pool::tests::figures -- --ignored --nocapture`.

use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::ids::{MeshKey, NodeId};
use stormo_protocol::limits::OBJECT_RUN_GROUPS_MAX;
use stormo_protocol::object::{ObjectRequest, Part};

use super::*;
use crate::net::{Identity, Net, NetConfig, NetEvent, ObjectStream};

const OBJECT_BYTES: usize = 64 << 20;
/// The median of so many counts.
const ROUNDS: usize = 5;

struct Node {
    id: NodeId,
    net: Net,
    pool: Arc<Pool>,
    address: String,
    /// Peers that it is connected to.
    peers: watch::Receiver<i32>,
    _folder: tempfile::TempDir,
}

async fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(&folder.path().join("node.key")).unwrap();
    let pool = open(&folder.path().join("objects"));
    let config = NetConfig {
        identity: identity.clone(),
        mesh: MeshKey([7; 32]),
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        objects: pool.clone(),
    };
    let (net, mut events) = Net::start(config).await.unwrap();
    let address = loop {
        if let Some(NetEvent::Listening(address)) = events.recv().await {
            break format!("{address}/p2p/{}", identity.node());
        }
    };
    let (connected, peers) = watch::channel(0);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            connected.send_modify(|peers| *peers += i32::from(matches!(event, NetEvent::Connected(_))));
        }
    });
    Node { id: identity.node(), net, pool, address, peers, _folder: folder }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

/// All groups over one stream, neither verified nor written.
async fn bare(asker: &Node, from: NodeId, object: ObjectRef) -> Duration {
    let (mut stream, mut buffer) = (None, vec![0; GROUP]);
    let started = Instant::now();
    let groups = (object.bytes / GROUP as u64) as u32;
    for first in (0..groups).step_by(OBJECT_RUN_GROUPS_MAX as usize) {
        let count = OBJECT_RUN_GROUPS_MAX.min(groups - first);
        let request = ObjectRequest { id: object.id, part: Part::Groups { first, count } };
        ObjectStream::ask_peer(&mut stream, &asker.net, from, request, object.bytes).await.unwrap();
        for _ in 0..count {
            stream.as_mut().unwrap().fill(&mut buffer).await.unwrap();
        }
    }
    started.elapsed()
}

async fn pulled(asker: &Node, peers: &[NodeId], object: ObjectRef) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path());
    let started = Instant::now();
    pool.pull(&asker.net, &[object], peers, &somebody_waits()).await.unwrap();
    started.elapsed()
}

fn copied(bytes: &[u8]) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::write(&from, bytes).unwrap();
    let started = Instant::now();
    fs::copy(&from, &to).unwrap();
    File::open(&to).unwrap().sync_all().unwrap();
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn a_pull_beside_a_bare_stream_and_a_copy() {
    let (mut asker, one, other) = (node().await, node().await, node().await);
    let bytes = content(OBJECT_BYTES, 1);
    let object = one.pool.put(&bytes).unwrap();
    other.pool.put(&bytes).unwrap();
    for peer in [&one, &other] {
        asker.net.dial(&peer.address).await.unwrap();
    }
    asker.peers.wait_for(|peers| *peers == 2).await.unwrap();
    let (mut streams, mut from_one, mut from_two, mut copies) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        streams.push(bare(&asker, one.id, object).await);
        from_one.push(pulled(&asker, &[one.id], object).await);
        from_two.push(pulled(&asker, &[one.id, other.id], object).await);
        copies.push(copied(&bytes));
    }
    let started = Instant::now();
    let checked = one.pool.check().unwrap();
    let check = started.elapsed().as_secs_f64() / checked.bytes as f64 * f64::from(1 << 30);
    let (stream, one, two, copy) = (median(streams), median(from_one), median(from_two), median(copies));
    let rate = |seconds: f64| OBJECT_BYTES as f64 / seconds / 1e6;
    println!("64 MiB, median of {ROUNDS}, all on this machine:");
    println!("  one bare stream      {:6.0} MB/s", rate(stream));
    println!("  copy of a file, sync {:6.0} MB/s", rate(copy));
    println!("  pull from one peer   {:6.0} MB/s, {:.2} of the bare stream", rate(one), stream / one);
    println!("  pull from two peers  {:6.0} MB/s, {:.2} of the bare stream", rate(two), stream / two);
    println!("  check                {check:6.2} s/GiB");
    assert!(check <= 2.0, "a check takes {check:.2} s/GiB");
}
