//! The sender's side of a delivery: writes a frame, listens to the receiver's signs of life, and
//! notices when they stop.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use stormo_protocol::codec::payload::{Codec, CodedTensor};
use stormo_protocol::frame::{Header, Sign, StageTrace, preamble};
use stormo_protocol::ids::NodeId;
use stormo_protocol::tensor::Tensor;
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{timeout, timeout_at};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use super::lanes::{Exchange, NoTurn};
use super::local::FrameStream;
use super::{Net, NetEvent, OPEN_TIMEOUT, Progress, Sent, Tries, frames};

/// Streams kept open to one peer for the next frames, or questions; opening one costs a round trip.
const IDLE_STREAMS_PER_PEER_MAX: usize = 8;
/// Peers with kept streams.
const IDLE_PEERS_MAX: usize = 256;
/// A kept stream is used again only within this time; the receiver closes it a little later.
const IDLE_REUSE_MAX: Duration = Duration::from_secs(50);

/// Receivers end what is too late by themselves; one that does not is waited for so long.
const BEYOND_DEADLINE: Duration = Duration::from_secs(5);

/// Streams whose last exchange ended well.
pub(super) struct IdleStreams<S> {
    by_peer: Mutex<HashMap<NodeId, Vec<(S, Instant)>>>,
}

impl<S> Default for IdleStreams<S> {
    fn default() -> Self {
        Self { by_peer: Mutex::default() }
    }
}

impl<S> IdleStreams<S> {
    pub(super) fn take(&self, peer: NodeId) -> Option<S> {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (stream, since) = by_peer.get_mut(&peer)?.pop()?;
        (since.elapsed() < IDLE_REUSE_MAX).then_some(stream)
    }

    pub(super) fn put(&self, peer: NodeId, stream: S) {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        by_peer.retain(|_, streams| {
            streams.retain(|(_, since)| since.elapsed() < IDLE_REUSE_MAX);
            !streams.is_empty()
        });
        if by_peer.len() < IDLE_PEERS_MAX || by_peer.contains_key(&peer) {
            let streams = by_peer.entry(peer).or_default();
            if streams.len() < IDLE_STREAMS_PER_PEER_MAX {
                streams.push((stream, Instant::now()));
            }
        }
    }
}

/// A wait that took so much longer than it should says that this process was not running.
const STOOD_STILL_MIN: Duration = Duration::from_millis(200);

/// How long a receiver is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a sign of it.
    pub silence: Duration,
    /// Whether it is connected: then a stream to it opens in a round trip, or it is silent already.
    pub is_connected: bool,
    /// After this it is told that it is late; never, if nobody knows what is usual.
    pub late_after: Option<Duration>,
    /// A delivery that was not begun yet, since others to the same receiver are under way, is told to be avoided when that
    /// one has said nothing for so long; never, where there is nobody else.
    pub quiet: Option<Duration>,
}

/// A frame to send, its header as if nothing were coded. Tensors are shared with whoever keeps custody of
/// them.
#[derive(Debug, Clone)]
pub struct OutgoingFrame {
    /// The fixed part.
    pub header: Header,
    /// The encoded plan; none in what goes to the origin.
    pub plan: Arc<[u8]>,
    /// What the stages before took.
    pub traces: Vec<StageTrace>,
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// How to code them.
    pub codec: Codec,
}

/// A delivery that was begun outside of any task, and has said nothing yet.
pub struct Begun {
    rest: Pin<Box<dyn Future<Output = ()> + Send>>,
    runtime: Handle,
}

impl Begun {
    /// Goes on with it. Dropped instead, it ends; the receiver may have the frame all the same.
    pub fn go_on(self) -> AbortHandle {
        self.runtime.spawn(self.rest).abort_handle()
    }
}

/// Whether a delivery may tell of its progress as soon as there is some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It may.
    Task,
    /// It waits before it listens, for whoever begins it to be ready.
    Ahead,
}

/// Whom an exchange tells what it hears.
#[derive(Clone, Copy)]
struct Told<'a> {
    start: Start,
    /// Whether the receiver only waits for those behind it.
    waits_for_others: &'a AtomicBool,
    /// All that go to the same peer.
    exchange: &'a Exchange<'a>,
}

/// A frame as it goes over the wire.
struct CodedFrame {
    header: Header,
    plan: Arc<[u8]>,
    traces: Vec<StageTrace>,
    tensors: Vec<CodedTensor>,
}

/// How an exchange ended before its last sign.
enum Broken {
    /// No sign came: a kept stream may have been closed long ago, or a new one been dropped before
    /// it was served, so that another one may do.
    BeforeAnySign,
    /// After some sign: the receiver is lost.
    Midway,
}

impl Net {
    /// Sends a frame; progress comes as [`NetEvent::Delivery`], the last of it `Passed`, `Refused`,
    /// `Lost`, or `Avoided`. Silence longer than the patience is a loss.
    pub fn deliver(&self, to: NodeId, frame: OutgoingFrame, patience: Patience) -> JoinHandle<()> {
        tokio::spawn(self.clone().delivery(to, frame, patience, (Start::Task, Instant::now())))
    }

    /// Begins a delivery on a thread that runs no tasks: what the stream takes at once is written when this returns,
    /// without another thread woken for it. No progress is told before somebody goes on with it.
    pub fn begin_delivery(
        &self,
        runtime: &Handle,
        to: NodeId,
        frame: OutgoingFrame,
        patience: Patience,
    ) -> Begun {
        self.begin_delivery_of(runtime, to, frame, patience, Instant::now())
    }

    /// The same, of a delivery that is under way since then.
    pub(super) fn begin_delivery_of(
        &self,
        runtime: &Handle,
        to: NodeId,
        frame: OutgoingFrame,
        patience: Patience,
        since: Instant,
    ) -> Begun {
        let _entered = runtime.enter();
        let start = (Start::Ahead, since);
        let mut rest: Pin<Box<_>> = Box::pin(self.clone().delivery(to, frame, patience, start));
        // A task polls it again in any case.
        let _ = rest.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Begun { rest, runtime: runtime.clone() }
    }

    /// For how long another node has owed a sign in the deliveries that are under way to it.
    pub fn quiet_for(&self, to: NodeId) -> Duration {
        self.lanes.quiet_for(to)
    }

    async fn delivery(
        self,
        to: NodeId,
        frame: OutgoingFrame,
        patience: Patience,
        (start, begun): (Start, Instant),
    ) {
        let key = frame.header.key;
        let lane = self.lanes.of(to);
        let waits_for_others = AtomicBool::new(false);
        let deadline = Duration::from_millis(u64::from(frame.header.remaining_ms)) + BEYOND_DEADLINE;
        let until_last = async {
            match lane.turn(patience.quiet).await {
                Ok(_permit) => match self.coded(frame).await {
                    Ok(frame) => {
                        let exchange = lane.begin();
                        let told = Told { start, waits_for_others: &waits_for_others, exchange: &exchange };
                        self.deliver_until_last_sign(to, &frame, patience, told).await
                    }
                    Err(_) => Progress::Lost,
                },
                Err(NoTurn::Lost) => Progress::Lost,
                Err(NoTurn::Quiet) => Progress::Avoided,
            }
        };
        // Whoever gives signs without end holds the frame no longer than its request lasts.
        let until_last = async { timeout(deadline, until_last).await.unwrap_or(Progress::Lost) };
        let mut until_last = std::pin::pin!(until_last);
        let mut late_after = patience.late_after;
        let mut last = loop {
            let Some(after) = late_after else { break until_last.await };
            let looked = timeout_at((begun + after).into(), &mut until_last).await;
            if looked.is_err() && start == Start::Ahead {
                // The thread that began it may have stood still: nobody may listen yet.
                tokio::task::yield_now().await;
            }
            match looked {
                Ok(last) => break last,
                Err(_) if waits_for_others.load(Ordering::Relaxed) => {}
                Err(_) => {
                    let progress = Progress::Late(begun.elapsed());
                    let _ = self.events.send(NetEvent::Delivery { key, to, progress }).await;
                }
            }
            late_after = after.checked_mul(2);
        };
        if let Progress::Passed(sent) = &mut last {
            sent.time = begun.elapsed();
        }
        if matches!(last, Progress::Lost) {
            if start == Start::Ahead {
                // It may have been lost before anything was waited for.
                tokio::task::yield_now().await;
            }
            lane.is_lost();
        }
        let _ = self.events.send(NetEvent::Delivery { key, to, progress: last }).await;
    }

    /// The frame with its payload coded, and what that took in the trace of the stage that sends it.
    async fn coded(&self, frame: OutgoingFrame) -> io::Result<CodedFrame> {
        let OutgoingFrame { header, plan, mut traces, tensors, codec } = frame;
        let (tensors, encode_time) = self.coders.encode(codec, tensors).await?;
        if let Some(trace) = traces.last_mut().filter(|trace| trace.stage == header.key.edge.from) {
            trace.encode_us = u32::try_from(encode_time.as_micros()).unwrap_or(u32::MAX);
        }
        let header = header.coded(&tensors).with_plan(plan.len());
        Ok(CodedFrame { header, plan, traces, tensors })
    }

    async fn deliver_until_last_sign(
        &self,
        to: NodeId,
        frame: &CodedFrame,
        patience: Patience,
        told: Told<'_>,
    ) -> Progress {
        if let Some(stream) = self.idle.take(to) {
            match self.exchange(to, stream, frame, patience.silence, told).await {
                Ok(progress) => return progress,
                Err(Broken::Midway) => return Progress::Lost,
                Err(Broken::BeforeAnySign) => {}
            }
        }
        let mut tries = Tries::default();
        loop {
            let Ok(stream) = self.open_for_frames(to, patience).await else { return Progress::Lost };
            match self.exchange(to, stream, frame, patience.silence, told).await {
                Ok(progress) => return progress,
                Err(Broken::BeforeAnySign) if tries.another().await => {}
                Err(_) => return Progress::Lost,
            }
        }
    }

    async fn open_for_frames(&self, to: NodeId, patience: Patience) -> io::Result<FrameStream> {
        let within = if patience.is_connected { patience.silence } else { OPEN_TIMEOUT };
        if let Some(stream) = self.open_local(to, within).await? {
            return Ok(stream);
        }
        self.open_within(to, &self.protocols.frames, within)
            .await
            .map(|stream| Box::new(stream.compat()) as FrameStream)
    }

    async fn exchange(
        &self,
        to: NodeId,
        stream: FrameStream,
        frame: &CodedFrame,
        patience: Duration,
        told: Told<'_>,
    ) -> Result<Progress, Broken> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let CodedFrame { header, plan, traces, tensors } = frame;
        let preamble = preamble(plan, traces, tensors);
        let write = frames::write_frame(&mut writer, header, &preamble, tensors);
        let listen = async {
            if told.start == Start::Ahead {
                tokio::task::yield_now().await;
            }
            self.listen(to, frame, &mut reader, patience, told).await
        };
        // A receiver that refuses on the header reads no further: listening decides, not writing. But there is nothing
        // to hear before something is written.
        let (written, last) = {
            let mut write = std::pin::pin!(write);
            let mut listen = std::pin::pin!(listen);
            tokio::select! {
                biased;
                written = &mut write => (written, listen.await),
                last = &mut listen => (Err(io::ErrorKind::Interrupted.into()), last),
            }
        };
        if let (Ok(()), Ok(_)) = (&written, &last) {
            self.idle.put(to, reader.unsplit(writer));
        }
        last
    }

    async fn listen(
        &self,
        to: NodeId,
        frame: &CodedFrame,
        reader: &mut (impl AsyncRead + Unpin),
        patience: Duration,
        told: Told<'_>,
    ) -> Result<Progress, Broken> {
        let mut heard = false;
        let (mut sent, mut has_told) = (Sent::default(), false);
        let mut asked = Instant::now();
        loop {
            let sign = match timeout(patience, frames::read_sign(reader)).await {
                Ok(Ok(sign)) => sign,
                Ok(Err(_)) if !heard => return Err(Broken::BeforeAnySign),
                // It was this process that stood still; what was said meanwhile may lie in its queues.
                Err(_) if asked.elapsed() > patience + STOOD_STILL_MIN => {
                    asked = Instant::now();
                    continue;
                }
                _ => return Err(Broken::Midway),
            };
            asked = Instant::now();
            heard = true;
            told.exchange.heard();
            told.waits_for_others.store(sign == Sign::Sending, Ordering::Relaxed);
            match sign {
                Sign::Taken(receive_us) => {
                    let bytes = frame.header.payload_bytes;
                    self.traffic.sent(to, bytes);
                    let transfer_time = Duration::from_micros(receive_us.into());
                    sent = Sent { bytes, transfer_time, time: Duration::ZERO };
                }
                Sign::Passed => return Ok(Progress::Passed(sent)),
                Sign::Refused { stage, reason } => return Ok(Progress::Refused(stage, reason)),
                // Said after `Taken` only: it is there, and what becomes of it takes its time.
                Sign::Queued(_) | Sign::Waiting(_) | Sign::Working | Sign::Sending if !has_told => {
                    has_told = true;
                    let event = NetEvent::Delivery { key: frame.header.key, to, progress: Progress::Taken };
                    let _ = self.events.send(event).await;
                }
                Sign::Receiving(_) | Sign::Queued(_) | Sign::Waiting(_) | Sign::Working | Sign::Sending => {}
            }
        }
    }
}
