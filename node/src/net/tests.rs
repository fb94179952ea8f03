//! What a peer that knows the mesh's key but not the rules gets: two networks in one process, one of them
//! writing bytes by hand.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use stormo_protocol::codec::payload::{Codec, CodedTensor, Scratch};
use stormo_protocol::control::Request;
use stormo_protocol::frame::{DeliveryKey, Descriptor, Edge, Header, ORIGIN, Sign, preamble};
use stormo_protocol::ids::{DeploymentId, MeshKey, NodeId, ObjectId, PlanId, RequestId};
use stormo_protocol::state::{Order, Place, Signed, Topic};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::receive::Reading;
use super::{Identity, Net, NetConfig, NetEvent, ObjectSource, VERSION, Verdict, frames, signs};

/// Much longer than anything here takes.
pub(super) const SOON: Duration = Duration::from_secs(30);

struct Nothing;

impl ObjectSource for Nothing {
    fn open(&self, _: ObjectId) -> Option<(File, u64)> {
        None
    }

    fn outline(&self, _: ObjectId) -> Option<(u64, Vec<u8>)> {
        None
    }
}

async fn start(secret: u8) -> (Identity, Net, mpsc::Receiver<NetEvent>) {
    start_speaking(secret, VERSION).await
}

async fn start_speaking(secret: u8, version: u32) -> (Identity, Net, mpsc::Receiver<NetEvent>) {
    let identity = Identity::from_secret(vec![secret; 32]).unwrap();
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let (mesh, objects) = (MeshKey([5; 32]), Arc::new(Nothing));
    let (net, events) =
        Net::start_speaking(NetConfig { identity: identity.clone(), mesh, listen, objects }, version)
            .await
            .unwrap();
    (identity, net, events)
}

pub(super) async fn next<T>(
    events: &mut mpsc::Receiver<NetEvent>,
    wanted: impl Fn(NetEvent) -> Option<T>,
) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    timeout(SOON, found).await.unwrap()
}

/// Two nodes, the first of which has dialled the second.
pub(super) async fn connected() -> [(Identity, Net, mpsc::Receiver<NetEvent>); 2] {
    let (second, second_net, mut of_second) = start(1).await;
    let (first, first_net, mut of_first) = start(2).await;
    let address = next(&mut of_second, |event| match event {
        NetEvent::Listening(address) => Some(address),
        _ => None,
    });
    first_net.dial(&address.await).await.unwrap();
    next(&mut of_first, |event| matches!(event, NetEvent::Connected(_)).then_some(())).await;
    [(first, first_net, of_first), (second, second_net, of_second)]
}

#[tokio::test]
async fn nodes_of_two_versions_tell_so_and_part() {
    let (old, old_net, mut of_old) = start_speaking(1, VERSION - 1).await;
    let (new, new_net, mut of_new) = start(2).await;
    let address = next(&mut of_old, |event| match event {
        NetEvent::Listening(address) => Some(address),
        _ => None,
    });
    new_net.dial(&address.await).await.unwrap();
    let foreign = |event| match event {
        NetEvent::Foreign(node, speaks) => Some((node, speaks)),
        _ => None,
    };
    let (node, speaks) = next(&mut of_new, foreign).await;
    let speaking = |version: u32| format!("/stormo/{version}/");
    assert!(node == old.node() && speaks.starts_with(&speaking(VERSION - 1)), "{speaks}");
    // Whoever finds out first closes; on one connection the other may not hear of the version any more.
    let parted = |event| match event {
        NetEvent::Foreign(node, speaks) => Some((node, Some(speaks))),
        NetEvent::Disconnected(node) => Some((node, None)),
        _ => None,
    };
    let (node, speaks) = next(&mut of_old, parted).await;
    assert!(node == new.node() && speaks.is_none_or(|speaks| speaks.starts_with(&speaking(VERSION))));
    // No question of one is understood by the other.
    assert!(new_net.ask(old.node(), &Request::State, Duration::from_secs(1)).await.is_err());
    drop(old_net);
}

#[tokio::test]
async fn arrivals_are_known_of_whoever_is_connected() {
    let [(first, first_net, mut of_first), (second, second_net, _of_second)] = connected().await;
    assert!(first_net.still_for(second.node()).is_some() && first_net.still_for(first.node()).is_none());
    first_net.close(second.node()).await;
    next(&mut of_first, |event| matches!(event, NetEvent::Disconnected(_)).then_some(())).await;
    let forgotten = async {
        while first_net.still_for(second.node()).is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, forgotten).await.unwrap();
    drop(second_net);
}

/// An order for a deployment, by whom it says it is.
fn order_of(steward: NodeId) -> Order {
    let place = Place { node: steward, variant: 0, first: 0, end: 1 };
    Order { deployment: DeploymentId([7; 16]), sequence: 2, steward, places: vec![place] }
}

#[tokio::test]
async fn a_forged_order_does_not_arrive_by_gossip() {
    let [(forger, forging, _events), (receiver, receiving, mut heard)] = connected().await;
    let mesh = MeshKey([5; 32]).mesh_id();
    let honest = forger.sign(Topic::Order, mesh, order_of(forger.node()).to_bytes()).unwrap();
    // In another's name with its own signature, and another's words with a signature for other ones.
    let forged = [
        Signed { author: receiver.node(), body: order_of(receiver.node()).to_bytes(), ..honest.clone() },
        Signed { body: Order { sequence: 3, ..order_of(forger.node()) }.to_bytes(), ..honest.clone() },
        Signed { topic: Topic::Deployment, ..honest.clone() },
    ];
    assert!(forged.iter().all(|signed| !receiving.is_valid(signed)));
    // Gossip begins a moment after the connection, so all is said until the honest one arrives; it comes last.
    let saying = async {
        loop {
            for signed in forged.iter().chain([&honest]) {
                forging.publish(signed).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let gossip = |event| match event {
        NetEvent::Gossip(signed) => Some(signed),
        _ => None,
    };
    let arrived = tokio::select! {
        arrived = next(&mut heard, gossip) => arrived,
        () = saying => unreachable!("it is said for ever"),
    };
    assert_eq!(arrived, honest);
}

/// Header and descriptions of a tensor in int8, and its payload.
fn frame() -> (Header, Vec<u8>, Vec<u8>) {
    let spec = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1, 1, 64] };
    let numbers: Vec<f32> = (0..64).map(|index| index as f32).collect();
    let tensor = Tensor::new(spec, TensorData::copied_from(bytemuck::cast_slice(&numbers))).unwrap();
    let coded = [CodedTensor::encode(Codec::Int8, &tensor, &mut Scratch::default())];
    assert_eq!((coded[0].codec(), coded[0].bytes().len()), (Codec::Int8, 72));
    let key = DeliveryKey { request: RequestId([1; 16]), attempt: 1, edge: Edge { from: ORIGIN, to: 0 } };
    let header = Header::of(key, PlanId([2; 16]), 10_000, &[], &[tensor]).coded(&coded);
    (header, preamble(&[], &[], &coded), coded[0].bytes().to_vec())
}

#[test]
fn what_decodes_to_much_more_than_it_is_is_asked_about_first() {
    let reading = Reading { unasked_bytes_max: 100, step_bytes: 1 };
    let is_unasked = |coded_bytes: u64, elements: u64| {
        let spec = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![elements] };
        let described = [Descriptor { spec, codec: Codec::Int8, coded_bytes }];
        reading.is_unasked(&Header { payload_bytes: coded_bytes, ..frame().0 }, &described)
    };
    assert!(is_unasked(100, 100) && !is_unasked(101, 1) && !is_unasked(1, 101) && !is_unasked(1, u64::MAX));
}

#[tokio::test]
async fn a_wrong_coded_length_ends_the_stream_before_its_payload() {
    let [(_, sending, _events), (receiver, receiving, mut offers)] = connected().await;
    let offered = |event| match event {
        NetEvent::Offered(offer) => Some(offer),
        _ => None,
    };

    // One byte more than int8 ever gives, in descriptor and header alike: they agree, and are refused.
    let (mut header, mut described, payload) = frame();
    described[5] += 1;
    header.payload_bytes += 1;
    let mut stream = sending.open(receiver.node(), &sending.protocols.frames).await.unwrap();
    stream.write_all(&header.to_bytes()).await.unwrap();
    stream.write_all(&described).await.unwrap();
    stream.flush().await.unwrap();
    // No sign of life comes, only the end.
    let ended = timeout(SOON, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    while let Ok(event) = offers.try_recv() {
        assert!(offered(event).is_none(), "it was offered");
    }

    // The same with the true length is offered, taken, and decoded.
    let (header, described, _) = frame();
    let mut stream = sending.open(receiver.node(), &sending.protocols.frames).await.unwrap();
    stream.write_all(&[&header.to_bytes()[..], &described, &payload].concat()).await.unwrap();
    stream.flush().await.unwrap();
    let offer = next(&mut offers, offered).await;
    assert_eq!((offer.described[0].codec, offer.described[0].coded_bytes), (Codec::Int8, 72));
    let received = offer.whole.expect("small frames are offered whole");
    assert_eq!(received.tensors[0].data().as_slice_of::<f32>().unwrap()[63], 63.0);
    let (writer, reader) = signs();
    offer.verdict.send(Verdict::Take(reader)).unwrap();
    // The last sign is told at once, and with it what the transfer took.
    writer.send(Sign::Passed).unwrap();
    let sign = timeout(SOON, frames::read_sign(&mut (&mut stream).compat())).await.unwrap().unwrap();
    assert!(matches!(sign, Sign::Taken(_)), "{sign:?}");
    assert_eq!(
        timeout(SOON, frames::read_sign(&mut (&mut stream).compat())).await.unwrap().unwrap(),
        Sign::Passed
    );
    drop(receiving);
}
