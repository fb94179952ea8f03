//! The receiver's side of a delivery: reads a frame, asks whether it is wanted before reading its
//! payload (of small ones after it: that costs less than asking first), and shows signs of life until the work is
//! passed on or refused.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use stormo_protocol::frame::{Descriptor, Header, Preamble, Sign, StageTrace};
use stormo_protocol::ids::NodeId;
use stormo_protocol::plan::EncodedPlan;
use stormo_protocol::refusal::Refusal;
use tokio::io::{BufReader, ReadHalf, WriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::{Interval, interval_at, timeout};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::local::FrameStream;
use super::places::Places;
use super::{Net, NetEvent, Offer, Received, Verdict, frames, identity, swarm::NetError};

/// Inbound streams of frames at once, idle ones included.
const STREAMS_MAX: usize = 1024;
/// Of these, from one peer.
const STREAMS_PER_PEER_MAX: usize = 64;
/// Over libp2p, 64 streams of one peer hold 16 MiB that nobody wanted, decoded; its adapter to tokio's streams fills with zeros what
/// it is asked for, so it is asked for no more than it gives.
const OVER_LIBP2P: Reading = Reading { unasked_bytes_max: 64 << 10, step_bytes: 16 << 10 };
/// Nor those that decode to more than so many times as much: int8 to floats.
const DECODED_MAX: u64 = 4;
/// Between two signs of life.
const SIGN_INTERVAL: Duration = Duration::from_millis(100);
/// The first one after the tensors came, unless the last one was told before: a link that got longer by far takes it to
/// the sender in time, and what is done sooner needs none.
const FIRST_SIGN_AFTER: Duration = Duration::from_millis(20);
/// An idle stream is closed after this; senders stop using it earlier.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Descriptions follow their header at once, and signs are read at once, or the stream is closed.
const SMALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What describes a frame comes in one read, with the first of its payload.
const BUFFER_BYTES: usize = 8 << 10;

type Reader = BufReader<ReadHalf<FrameStream>>;

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
pub(super) fn serve(net: &Net) -> Result<Doorman, NetError> {
    let mut streams = net.streams.clone();
    let mut incoming = streams.accept(net.protocols.frames.clone()).map_err(|_| NetError::AlreadyServing)?;
    let doorman = Doorman { net: net.clone(), places: Places::new(STREAMS_MAX, STREAMS_PER_PEER_MAX) };
    let here = doorman.clone();
    tokio::spawn(async move {
        while let Some((peer, stream)) = incoming.next().await {
            if let Some(node) = identity::node_id(&peer) {
                here.let_in(node, Box::new(stream.compat()), OVER_LIBP2P);
            }
        }
    });
    Ok(doorman)
}

/// How payloads are read from a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Those up to this long, before it is asked whether they are wanted.
    pub(super) unasked_bytes_max: u64,
    /// So much at a time, at most.
    pub(super) step_bytes: usize,
}

impl Reading {
    /// Whether a payload is read before it is asked about.
    pub(super) fn is_unasked(self, header: &Header, described: &[Descriptor]) -> bool {
        let decoded = described.iter().map(|descriptor| descriptor.spec.byte_length().unwrap_or(u64::MAX));
        header.payload_bytes <= self.unasked_bytes_max
            && decoded.fold(0, u64::saturating_add) <= DECODED_MAX * self.unasked_bytes_max
    }
}

/// Lets in as many streams of frames as this node can serve, however they come.
#[derive(Clone)]
pub(super) struct Doorman {
    net: Net,
    places: Places,
}

impl Doorman {
    /// Serves a stream, or drops it if there are too many: the sender sees that at once.
    pub(super) fn let_in(&self, node: NodeId, stream: FrameStream, reading: Reading) {
        let Some(place) = self.places.take(node) else { return };
        let net = self.net.clone();
        tokio::spawn(async move {
            if let Err(error) = exchanges(&net, node, stream, reading).await {
                tracing::debug!(peer = %node.short(), %error, "a stream of frames ended");
            }
            drop(place);
        });
    }
}

/// One frame after the other on the same stream.
async fn exchanges(net: &Net, from: NodeId, stream: FrameStream, reading: Reading) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let mut known = None;
    while exchange(net, from, (&mut reader, &mut writer), reading, &mut known).await? {}
    Ok(())
}

/// One frame; `false` when the stream is not fit for another. The plan of the one before is known.
async fn exchange(
    net: &Net,
    from: NodeId,
    (reader, writer): (&mut Reader, &mut WriteHalf<FrameStream>),
    reading: Reading,
    known: &mut Option<Arc<EncodedPlan>>,
) -> io::Result<bool> {
    let header = timeout(IDLE_TIMEOUT, frames::read_header(reader)).await??;
    let started = Instant::now();
    let read = timeout(SMALL_TIMEOUT, frames::read_described(reader, &header, known.as_ref())).await;
    let Preamble { plan, traces, described } = read??;
    if plan.is_some() {
        known.clone_from(&plan);
    }
    let mut arriving = Arriving { net, from, header, reading, traces: Some(traces), started };
    let whole = match reading.is_unasked(&header, &described) {
        true => Some(arriving.read(reader, writer, described.clone()).await??),
        false => None,
    };
    let receive_time = whole.as_ref().map(|whole| whole.receive_time);
    let (verdict, decided) = oneshot::channel();
    let offer = Offer { from, header, plan, described: described.clone(), whole, verdict };
    if net.events.send(NetEvent::Offered(Box::new(offer))).await.is_err() {
        return Ok(false);
    }
    let mut signs = match while_showing_life(decided, writer, || Sign::Receiving(0)).await? {
        Ok(Verdict::Take(signs)) => signs,
        Ok(Verdict::Refuse(reason)) => {
            let read_all = receive_time.is_some();
            return refuse(writer, header.key.edge.to, reason).await.map(|()| read_all);
        }
        Err(_) => return refuse(writer, header.key.edge.to, Refusal::Leaving).await.map(|()| false),
    };
    let receive_time = match receive_time {
        Some(time) => time,
        None => {
            let received = match arriving.read(reader, writer, described).await {
                Ok(Ok(received)) => received,
                Ok(Err(error)) | Err(error) => {
                    let _ = net.events.send(NetEvent::Broken(header.key)).await;
                    return Err(error);
                }
            };
            let time = received.receive_time;
            if net.events.send(NetEvent::Received(received)).await.is_err() {
                return Ok(false);
            }
            time
        }
    };
    repeat_until_last(&mut signs, writer, receive_time).await?;
    Ok(true)
}

/// A frame whose payload is to be read.
struct Arriving<'a> {
    net: &'a Net,
    from: NodeId,
    header: Header,
    reading: Reading,
    traces: Option<Vec<StageTrace>>,
    started: Instant,
}

impl Arriving<'_> {
    /// Reads and decodes the payload, showing life; the outer error is the sender's stream, the inner one what came.
    async fn read(
        &mut self,
        reader: &mut Reader,
        writer: &mut WriteHalf<FrameStream>,
        described: Vec<Descriptor>,
    ) -> io::Result<io::Result<Received>> {
        let count = AtomicU64::new(0);
        let life = || Sign::Receiving(count.load(Ordering::Relaxed));
        let deadline = Duration::from_millis(u64::from(self.header.remaining_ms));
        let read =
            timeout(deadline, frames::read_payload(reader, described, self.reading.step_bytes, &count));
        let coded = match while_showing_life(read, writer, life).await? {
            Ok(Ok(coded)) => coded,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => return Ok(Err(io::ErrorKind::TimedOut.into())),
        };
        let receive_time = self.started.elapsed();
        let decode = self.net.coders.decode(coded);
        let (tensors, decode_time) = match while_showing_life(decode, writer, life).await? {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(error)),
        };
        self.net.traffic.received(self.from, self.header.payload_bytes);
        let (from, header, traces) = (self.from, self.header, self.traces.take().unwrap_or_default());
        Ok(Ok(Received { from, header, traces, tensors, receive_time, decode_time }))
    }
}

async fn refuse(writer: &mut WriteHalf<FrameStream>, stage: u16, reason: Refusal) -> io::Result<()> {
    send_sign(writer, Sign::Refused { stage, reason }).await
}

async fn send_sign(writer: &mut WriteHalf<FrameStream>, sign: Sign) -> io::Result<()> {
    timeout(SMALL_TIMEOUT, frames::write_signs(writer, &[sign])).await?
}

/// The first tick is some time away: even an immediate one costs a millisecond of timer.
fn sign_ticks(first: Duration) -> Interval {
    interval_at(tokio::time::Instant::now() + first, SIGN_INTERVAL)
}

/// Awaits something, showing life meanwhile.
async fn while_showing_life<T>(
    work: impl Future<Output = T>,
    writer: &mut WriteHalf<FrameStream>,
    life: impl Fn() -> Sign,
) -> io::Result<T> {
    let mut work = std::pin::pin!(work);
    let mut ticks = sign_ticks(SIGN_INTERVAL);
    loop {
        tokio::select! {
            // What is there already needs no clock.
            biased;
            done = &mut work => return Ok(done),
            // Where bytes never stop coming, the work has used up what a task may do at once, and clocks ask for that too.
            _ = tokio::task::unconstrained(ticks.tick()) => send_sign(writer, life()).await?,
        }
    }
}

/// Tells the stage's newest sign at each tick, and the last one at once: what lies between is life, and no
/// news that the sender waits for. What the transfer took goes along with the first. A stage that vanishes
/// without a last one failed.
async fn repeat_until_last(
    signs: &mut SignReader,
    writer: &mut WriteHalf<FrameStream>,
    receive_time: Duration,
) -> io::Result<()> {
    let mut ticks = sign_ticks(FIRST_SIGN_AFTER);
    let receive_us = u32::try_from(receive_time.as_micros()).unwrap_or(u32::MAX);
    let mut taken = Some(Sign::Taken(receive_us));
    loop {
        tokio::select! {
            changed = signs.changed() => if changed.is_err() && !signs.borrow().is_last() {
                return Err(io::ErrorKind::BrokenPipe.into());
            },
            _ = ticks.tick() => {}
        }
        let sign = *signs.borrow_and_update();
        let told: Vec<Sign> = taken.take().into_iter().chain([sign]).collect();
        timeout(SMALL_TIMEOUT, frames::write_signs(writer, &told)).await??;
        if sign.is_last() {
            return Ok(());
        }
    }
}
