//! The receiver's side of a delivery: reads a frame, asks whether it is wanted before reading its
//! payload, and shows signs of life until the work is passed on or refused.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, StreamExt};
use libp2p::Stream;
use stormo_protocol::codec::payload::Codec;
use stormo_protocol::frame::Sign;
use stormo_protocol::ids::NodeId;
use stormo_protocol::refusal::Refusal;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Interval, interval_at, timeout};

use super::{Net, NetEvent, Offer, Received, Verdict, frames, identity, swarm::NetError};

/// Inbound streams of frames at once, idle ones included.
const STREAMS_MAX: usize = 1024;
/// Of these, from one peer.
const STREAMS_PER_PEER_MAX: usize = 64;
/// Between two signs of life.
const SIGN_INTERVAL: Duration = Duration::from_millis(100);
/// An idle stream is closed after this; senders stop using it earlier.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Descriptions follow their header at once, and signs are read at once, or the stream is closed.
const SMALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a stage says how far it is. The receiver's task repeats the newest sign.
pub type SignWriter = watch::Sender<Sign>;
/// What the receiver's task repeats.
pub type SignReader = watch::Receiver<Sign>;

/// A pair that starts at `Queued`.
pub fn signs() -> (SignWriter, SignReader) {
    watch::channel(Sign::Queued(0))
}

/// Accepts streams of frames. The loop only spawns: libp2p-stream drops what it does not take at
/// once, and the sender then tries again.
pub(super) fn serve(net: &Net) -> Result<(), NetError> {
    let mut streams = net.streams.clone();
    let mut incoming = streams.accept(net.protocols.frames.clone()).map_err(|_| NetError::AlreadyServing)?;
    let net = net.clone();
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(STREAMS_MAX));
        let mut per_peer: HashMap<NodeId, Arc<Semaphore>> = HashMap::new();
        let mut tasks = JoinSet::new();
        while let Some((peer, stream)) = incoming.next().await {
            while tasks.try_join_next().is_some() {}
            per_peer.retain(|_, permits| permits.available_permits() < STREAMS_PER_PEER_MAX);
            let Some(node) = identity::node_id(&peer) else { continue };
            let of_peer = per_peer
                .entry(node)
                .or_insert_with(|| Arc::new(Semaphore::new(STREAMS_PER_PEER_MAX)))
                .clone();
            // Dropping the stream resets it: the sender sees it at once.
            let (Ok(all), Ok(own)) = (permits.clone().try_acquire_owned(), of_peer.try_acquire_owned())
            else {
                continue;
            };
            let net = net.clone();
            tasks.spawn(async move {
                if let Err(error) = exchanges(&net, node, stream).await {
                    tracing::debug!(peer = %node.short(), %error, "a stream of frames ended");
                }
                drop((all, own));
            });
        }
    });
    Ok(())
}

/// One frame after the other on the same stream.
async fn exchanges(net: &Net, from: NodeId, stream: Stream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    while exchange(net, from, &mut reader, &mut writer).await? {}
    Ok(())
}

/// One frame; `false` when the stream is not fit for another.
async fn exchange(
    net: &Net,
    from: NodeId,
    reader: &mut ReadHalf<Stream>,
    writer: &mut WriteHalf<Stream>,
) -> io::Result<bool> {
    let header = timeout(IDLE_TIMEOUT, frames::read_header(reader)).await??;
    let started = Instant::now();
    let described = timeout(SMALL_TIMEOUT, frames::read_descriptions(reader, &header)).await;
    let (traces, described) = described??;
    let (verdict, decided) = oneshot::channel();
    let offer = Offer { from, header, described: described.clone(), verdict };
    if net.events.send(NetEvent::Offered(offer)).await.is_err() {
        return Ok(false);
    }
    let mut signs = match while_showing_life(decided, writer, || Sign::Queued(0)).await? {
        Ok(Verdict::Take(signs)) => signs,
        Ok(Verdict::Refuse(reason)) => {
            return refuse(writer, header.key.edge.to, reason).await.map(|()| false);
        }
        Err(_) => return refuse(writer, header.key.edge.to, Refusal::Leaving).await.map(|()| false),
    };
    let count = AtomicU64::new(0);
    let life = || Sign::Receiving(count.load(Ordering::Relaxed));
    let deadline = Duration::from_millis(u64::from(header.remaining_ms));
    let read = timeout(deadline, frames::read_payload(reader, described, &count));
    let coded = match while_showing_life(read, writer, life).await {
        Ok(Ok(Ok(coded))) => coded,
        Ok(Err(_)) => return broken(net, header, io::ErrorKind::TimedOut.into()).await,
        Ok(Ok(Err(error))) | Err(error) => return broken(net, header, error).await,
    };
    let receive_time = started.elapsed();
    if coded.iter().any(|tensor| tensor.codec() != Codec::Raw) {
        // The sender takes the link's rate from this word: decoding is no part of it.
        send_sign(writer, life()).await?;
    }
    let (tensors, decode_time) = match while_showing_life(net.coders.decode(coded), writer, life).await {
        Ok(Ok(decoded)) => decoded,
        Ok(Err(error)) | Err(error) => return broken(net, header, error).await,
    };
    net.traffic.received(from, header.payload_bytes);
    send_sign(writer, Sign::Taken).await?;
    let received = Received { from, header, traces, tensors, receive_time, decode_time };
    if net.events.send(NetEvent::Received(received)).await.is_err() {
        return Ok(false);
    }
    repeat_until_last(&mut signs, writer).await?;
    Ok(true)
}

async fn broken(net: &Net, header: stormo_protocol::frame::Header, error: io::Error) -> io::Result<bool> {
    let _ = net.events.send(NetEvent::Broken(header.key)).await;
    Err(error)
}

async fn refuse(writer: &mut WriteHalf<Stream>, stage: u16, reason: Refusal) -> io::Result<()> {
    send_sign(writer, Sign::Refused { stage, reason }).await
}

async fn send_sign(writer: &mut WriteHalf<Stream>, sign: Sign) -> io::Result<()> {
    timeout(SMALL_TIMEOUT, frames::write_sign(writer, sign)).await?
}

/// The first tick is one interval away: even an immediate one costs a millisecond of timer.
fn sign_ticks() -> Interval {
    interval_at(tokio::time::Instant::now() + SIGN_INTERVAL, SIGN_INTERVAL)
}

/// Awaits something, showing life meanwhile.
async fn while_showing_life<T>(
    work: impl Future<Output = T>,
    writer: &mut WriteHalf<Stream>,
    life: impl Fn() -> Sign,
) -> io::Result<T> {
    let mut work = std::pin::pin!(work);
    let mut ticks = sign_ticks();
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = ticks.tick() => send_sign(writer, life()).await?,
        }
    }
}

/// Tells the stage's newest sign at each tick, and the last one at once: what lies between is life, and no
/// news that the sender waits for. A stage that vanishes without a last one failed.
async fn repeat_until_last(signs: &mut SignReader, writer: &mut WriteHalf<Stream>) -> io::Result<()> {
    let mut ticks = sign_ticks();
    loop {
        tokio::select! {
            changed = signs.changed() => if changed.is_err() && !signs.borrow().is_last() {
                return Err(io::ErrorKind::BrokenPipe.into());
            },
            _ = ticks.tick() => {}
        }
        let sign = *signs.borrow_and_update();
        send_sign(writer, sign).await?;
        if sign.is_last() {
            return Ok(());
        }
    }
}
