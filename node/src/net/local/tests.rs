//! Two networks in one process, which is one machine: what goes through the door, who does not, and what happens
//! without it.

use std::time::Instant;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::frame::{DeliveryKey, Edge, Header, ORIGIN, Sign};
use stormo_protocol::ids::{PlanId, RequestId};
use stormo_protocol::tensor::{DType, Tensor, TensorData, TensorSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::super::tests::{SOON, connected, next};
use super::super::{NetEvent, OutgoingFrame, Patience, Progress, Verdict, signs};
use super::*;

/// Much longer than a kept stream waits.
const PATIENT: Patience = Patience { silence: SOON, is_connected: true, late_after: None, quiet: None };

fn frame(elements: u64) -> OutgoingFrame {
    let spec = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1, elements] };
    let numbers: Vec<f32> = (0..elements).map(|index| index as f32).collect();
    let tensors = vec![Tensor::new(spec, TensorData::copied_from(bytemuck::cast_slice(&numbers))).unwrap()];
    let key = DeliveryKey { request: RequestId([1; 16]), attempt: 1, edge: Edge { from: 0, to: ORIGIN } };
    let header = Header::of(key, PlanId([2; 16]), 10_000, &[], &tensors);
    OutgoingFrame { header, plan: Arc::default(), traces: Vec::new(), tensors, codec: Codec::Raw }
}

/// Sends a frame, has it taken, and tells whether it was offered whole.
async fn deliver(
    (from, events): (&Net, &mut mpsc::Receiver<NetEvent>),
    (to, offers): (NodeId, &mut mpsc::Receiver<NetEvent>),
    frame: OutgoingFrame,
) -> bool {
    let sent = frame.tensors.clone();
    from.deliver(to, frame, PATIENT);
    let is_whole = take(offers, &sent).await;
    assert!(has_passed(events).await);
    is_whole
}

/// Takes a frame of these tensors and lets it pass; tells whether it was offered whole.
async fn take(offers: &mut mpsc::Receiver<NetEvent>, sent: &[Tensor]) -> bool {
    let offer = next(offers, |event| match event {
        NetEvent::Offered(offer) => Some(offer),
        _ => None,
    })
    .await;
    let (writer, reader) = signs();
    offer.verdict.send(Verdict::Take(reader)).unwrap();
    let is_whole = offer.whole.is_some();
    let received = match offer.whole {
        Some(received) => received,
        None => {
            next(offers, |event| match event {
                NetEvent::Received(received) => Some(received),
                _ => None,
            })
            .await
        }
    };
    assert_eq!(received.tensors, sent);
    writer.send(Sign::Passed).unwrap();
    is_whole
}

async fn has_passed(events: &mut mpsc::Receiver<NetEvent>) -> bool {
    let last = next(events, |event| match event {
        NetEvent::Delivery { progress, .. } if progress != Progress::Taken => Some(progress),
        _ => None,
    });
    matches!(last.await, Progress::Passed(_))
}

#[tokio::test]
async fn a_delivery_begun_by_a_thread_arrives_at_once_and_tells_nothing_before_it_goes_on() {
    let [(_, from, mut events), (to, _to_net, mut offers)] = connected().await;
    // Then there is a stream to write to.
    deliver((&from, &mut events), (to.node(), &mut offers), frame(10)).await;
    let runtime = Handle::current();
    let begun = std::thread::spawn({
        let (from, to) = (from.clone(), to.node());
        move || from.begin_delivery(&runtime, to, frame(1000), PATIENT)
    });
    let begun = begun.join().unwrap();
    assert!(take(&mut offers, &frame(1000).tensors).await);
    assert!(events.try_recv().is_err());
    begun.go_on();
    assert!(has_passed(&mut events).await);
    // However late it is by then.
    let (late, since) = (Duration::from_millis(100), Instant::now() - Duration::from_millis(150));
    let late = Patience { late_after: Some(late), ..PATIENT };
    let begun = from.begin_delivery_of(&Handle::current(), to.node(), frame(1000), late, since);
    assert!(take(&mut offers, &frame(1000).tensors).await);
    assert!(events.try_recv().is_err());
    begun.go_on();
    let is_late =
        |event| matches!(event, NetEvent::Delivery { progress: Progress::Late(_), .. }).then_some(());
    next(&mut events, is_late).await;
    assert!(has_passed(&mut events).await);
    // One that does not go on was sent all the same; one that must open a stream first goes on as any other.
    drop(from.begin_delivery(&Handle::current(), to.node(), frame(10), PATIENT));
    next(&mut offers, |event| matches!(event, NetEvent::Offered(_)).then_some(())).await;
    let begun = from.begin_delivery(&Handle::current(), to.node(), frame(20), PATIENT);
    begun.go_on();
    assert!(take(&mut offers, &frame(20).tensors).await);
    assert!(has_passed(&mut events).await);
}

#[tokio::test]
async fn a_begun_delivery_that_is_lost_at_once_tells_so_when_it_goes_on() {
    let [(_, from, mut events), _] = connected().await;
    let nobody = (0..=u8::MAX).map(|byte| NodeId([byte; 32]));
    let nobody =
        nobody.into_iter().find(|node| identity::peer_id(*node).is_none()).expect("some are no keys");
    let begun = from.begin_delivery(&Handle::current(), nobody, frame(10), PATIENT);
    assert!(events.try_recv().is_err(), "nothing is told before");
    begun.go_on();
    let last = next(&mut events, |event| match event {
        NetEvent::Delivery { progress, .. } => Some(progress),
        _ => None,
    });
    assert_eq!(last.await, Progress::Lost);
}

#[tokio::test]
async fn frames_within_a_machine_go_through_the_door() {
    let [(_, sending, mut events), (receiver, _receiving, mut offers)] = connected().await;
    for elements in [1, 20_000, 1_000_000] {
        let is_whole =
            deliver((&sending, &mut events), (receiver.node(), &mut offers), frame(elements)).await;
        // Over libp2p those of 80 kB would be asked for first.
        assert_eq!(is_whole, elements < 1_000_000);
        let known = sending.neighbours.lock().get(&receiver.node()).copied();
        assert!(matches!(known, Some(Neighbour::Invites(_))), "{known:?}");
    }
}

#[tokio::test]
async fn without_a_door_frames_go_over_libp2p() {
    let [(_, sending, mut events), (receiver, _receiving, mut offers)] = connected().await;
    let nowhere = Invitation { door: [0; NAME_BYTES], pass: [0; PASS_BYTES] };
    sending.neighbours.lock().insert(receiver.node(), Neighbour::Invites(nowhere));
    assert!(!deliver((&sending, &mut events), (receiver.node(), &mut offers), frame(20_000)).await);
    assert!(sending.neighbours.lock().get(&receiver.node()).is_none(), "it is not tried again");
}

#[tokio::test]
async fn a_pass_is_good_for_one_node_only() {
    let [(sender, sending, _events), (receiver, _receiving, mut offers)] = connected().await;
    let invitation = timeout(SOON, sending.ask_for_door(receiver.node())).await.unwrap().unwrap();
    for (name, pass) in [(receiver.node(), invitation.pass), (sender.node(), [7; PASS_BYTES])] {
        let mut stream = UnixStream::connect(path_of(invitation.door)).await.unwrap();
        stream.write_all(&[name.0, pass].concat()).await.unwrap();
        let ended = timeout(SOON, stream.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    while let Ok(event) = offers.try_recv() {
        assert!(!matches!(event, NetEvent::Offered(_)), "it was offered");
    }
}
