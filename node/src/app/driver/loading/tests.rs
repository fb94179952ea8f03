//! Loads that nobody wants any more, over real sockets from a peer that takes questions and says nothing.

use std::fs::File;
use std::sync::{Mutex, mpsc};

use stormo_protocol::ids::{DeploymentId, MeshKey};
use stormo_protocol::model::{Block, BlockKind, Cut, OrtLevel};
use stormo_protocol::profile::{Reference, Work};
use stormo_protocol::tensor::{DType, TensorSpec};
use tokio::sync::mpsc as async_mpsc;

use super::*;
use crate::engine::for_tests::engine;
use crate::net::{Identity, NetConfig, NetEvent, ObjectSource};
use crate::pool::DiskBudget;

/// Questions that the test does not take at once.
const QUESTIONS_MAX: usize = 16;

/// Has everything, and gives nothing before the test ends.
struct Stuck {
    asked: async_mpsc::Sender<()>,
    /// Nothing is ever sent.
    end: Mutex<mpsc::Receiver<()>>,
}

impl ObjectSource for Stuck {
    fn open(&self, _: ObjectId) -> Option<(File, u64)> {
        self.asked.try_send(()).unwrap();
        self.end.lock().unwrap().recv().ok()?;
        None
    }

    fn outline(&self, _: ObjectId) -> Option<(u64, Vec<u8>)> {
        None
    }
}

struct Node {
    id: NodeId,
    net: Net,
    address: String,
    connected: watch::Receiver<bool>,
}

async fn node(folder: &std::path::Path, objects: Arc<dyn ObjectSource>) -> Node {
    let identity = Identity::load_or_create(&folder.join("node.key")).unwrap();
    let listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    let config = NetConfig { identity: identity.clone(), mesh: MeshKey([8; 32]), listen, objects };
    let (net, mut events) = Net::start(config).await.unwrap();
    let address = loop {
        if let Some(NetEvent::Listening(address)) = events.recv().await {
            break format!("{address}/p2p/{}", identity.node());
        }
    };
    let (tell, connected) = watch::channel(false);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            tell.send_modify(|is| *is |= matches!(event, NetEvent::Connected(_)));
        }
    });
    Node { id: identity.node(), net, address, connected }
}

/// One block without weights.
fn described() -> Arc<Described> {
    let block = Block {
        kind: BlockKind::Graph,
        first_node: 0,
        end_node: 1,
        weights: vec![],
        inline_bytes: 1,
        flops: 1,
        peak_activation_bytes: 1,
        work: Work::default(),
        time_ns: 1,
    };
    let manifest = Manifest {
        model: "m".into(),
        variant: "base".into(),
        ort_level: OrtLevel::All,
        skeleton: ObjectRef { id: ObjectId([1; 32]), bytes: 1 },
        weights: vec![],
        card: None,
        variable: vec![],
        tensors: vec![TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1] }],
        inputs: vec![0],
        outputs: vec![0],
        blocks: vec![block],
        cuts: vec![Cut::crossed_by(vec![0]), Cut::crossed_by(vec![0])],
        regions: vec![],
        batch: None,
        loss_samples: 0,
        reference: Reference { range_ns: vec![1], ..Reference::unmeasured(1) },
    };
    manifest.check().unwrap();
    Arc::new(Described { manifest, card: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_nobody_wants_lets_the_next_one_go_on() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (asked, mut is_asked) = async_mpsc::channel(QUESTIONS_MAX);
    let (_end, ends) = mpsc::channel();
    let stuck = node(folders[1].path(), Arc::new(Stuck { asked, end: Mutex::new(ends) })).await;
    let pool = Arc::new(Pool::open(&folders[0].path().join("objects"), DiskBudget::Bytes(1 << 30)).unwrap());
    let mut own = node(folders[0].path(), pool.clone()).await;
    own.net.dial(&stuck.address).await.unwrap();
    own.connected.wait_for(|is| *is).await.unwrap();
    let engine = engine(1);
    let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
    let key = PartitionKey { variant, first: 0, end: 1 };
    let described = described();
    let begin = || {
        let (progress, wanted) = watch::channel(Progress::default());
        let (net, pool, engine) = (own.net.clone(), pool.clone(), engine.clone());
        let loader = Loader { net, pool, engine, peers: vec![stuck.id], progress };
        let described = described.clone();
        (tokio::spawn(async move { loader.load(&described, key).await.map(drop) }), wanted)
    };
    let (mut first, first_wanted) = begin();
    tokio::select! {
        asked = is_asked.recv() => asked.unwrap(),
        ended = &mut first => panic!("{ended:?}"),
    }
    // One that waits for its turn does not wait for it when it is wanted no longer.
    let (second, second_wanted) = begin();
    drop(second_wanted);
    assert_eq!(second.await.unwrap(), Err(Refusal::Cancelled));
    assert!(!first.is_finished());
    let (mut third, _third_wanted) = begin();
    drop(first_wanted);
    assert_eq!(first.await.unwrap(), Err(Refusal::Cancelled));
    // The next one asks in its turn.
    tokio::select! {
        asked = is_asked.recv() => asked.unwrap(),
        ended = &mut third => panic!("{ended:?}"),
    }
}
