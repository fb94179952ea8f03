//! A pull: the planner's questions put to peers, their answers verified and written. What is asked of
//! whom is decided in `pull`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::OBJECT_BYTES_MAX;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::object::{Part, group_range};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};

use super::lane::{Lane, Step, Stepped};
use super::partial::Partial;
use super::pull::{End, Fate, LANES_MAX, Next, Order, Pull};
use super::{Pool, PoolError};
use crate::net::{FetchError, ObjectPeers, ObjectStream};

/// Objects that are being brought to the disk and named at once; more wait.
const FINISHING_MAX: usize = 8;

/// How far a pull is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here, those included that were here before.
    pub bytes_done: u64,
    /// Bytes of all objects.
    pub bytes_total: u64,
}

impl Pool {
    /// Gets objects from peers, those that are not here: from several at once, each group verified as
    /// it comes. Objects that were pulled so far stay, also after an error. It ends once nobody watches `progress` any
    /// more; a later one goes on where it was.
    ///
    /// # Errors
    /// When an object is to be had from none of the peers, the disk or its budget refuses, or nobody wants them any more.
    pub async fn pull<P: ObjectPeers>(
        self: &Arc<Self>,
        door: &P,
        objects: &[ObjectRef],
        peers: &[NodeId],
        progress: &watch::Sender<Progress>,
    ) -> Result<(), PoolError> {
        let mut seen = BTreeSet::new();
        let objects: Vec<ObjectRef> =
            objects.iter().filter(|object| seen.insert(object.id)).copied().collect();
        let _pins = Pins::new(self, &objects);
        let bytes =
            |objects: &[ObjectRef]| objects.iter().map(|object| object.bytes).fold(0, u64::saturating_add);
        let missing: Vec<ObjectRef> = objects.iter().filter(|object| !self.has(**object)).copied().collect();
        let (bytes_total, missing_bytes) = (bytes(&objects), bytes(&missing));
        progress.send_replace(Progress { bytes_done: bytes_total - missing_bytes, bytes_total });
        if missing.is_empty() {
            return Ok(());
        }
        if let Some(object) = missing.iter().find(|object| object.bytes > OBJECT_BYTES_MAX) {
            let tried = format!("no object has more than {OBJECT_BYTES_MAX} bytes");
            return Err(PoolError::Nowhere { id: object.id, bytes: object.bytes, tried });
        }
        let (good, avoided): (Vec<NodeId>, Vec<NodeId>) =
            peers.iter().copied().partition(|peer| !self.is_avoided(*peer));
        let (writing, written) = mpsc::channel(1);
        let mut pulling = Pulling {
            pool: self,
            door,
            plan: Pull::new(&missing, &good),
            missing: &missing,
            partials: BTreeMap::new(),
            idle: Vec::new(),
            said: BTreeMap::new(),
            progress,
            reservation: Reservation { pool: self.clone(), bytes: 0 },
            avoided,
            writing,
        };
        self.reserve(missing_bytes)?;
        pulling.reservation.bytes = missing_bytes;
        let pulled = pulling.run(written).await;
        if pulled.is_err() {
            self.recall(&missing);
        }
        pulled
    }
}

/// Keeps objects from eviction while they are pulled.
struct Pins {
    pool: Arc<Pool>,
    objects: Vec<ObjectRef>,
}

impl Pins {
    fn new(pool: &Arc<Pool>, objects: &[ObjectRef]) -> Self {
        pool.index().pin(objects.iter().map(|object| object.id));
        Self { pool: pool.clone(), objects: objects.to_vec() }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.pool.index().unpin(self.objects.iter().map(|object| object.id));
    }
}

/// Bytes of the budget that are set aside.
struct Reservation {
    pool: Arc<Pool>,
    bytes: u64,
}

impl Reservation {
    fn settle(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.pool.index().release(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.index().release(self.bytes);
    }
}

struct Pulling<'a, P: ObjectPeers> {
    pool: &'a Arc<Pool>,
    door: &'a P,
    plan: Pull,
    missing: &'a [ObjectRef],
    /// Objects under way, by their place in `missing`.
    partials: BTreeMap<usize, Arc<Partial>>,
    /// Streams that wait for a question; never more than lanes.
    idle: Vec<(NodeId, ObjectStream<P::Stream>)>,
    /// What went wrong last, by peer.
    said: BTreeMap<NodeId, String>,
    progress: &'a watch::Sender<Progress>,
    reservation: Reservation,
    avoided: Vec<NodeId>,
    /// Held by everything that writes.
    writing: mpsc::Sender<()>,
}

impl<P: ObjectPeers> Pulling<'_, P> {
    /// Works until all is here or nothing more can come; then nothing of it touches the disk any more,
    /// so that the next pull finds what this one leaves.
    async fn run(mut self, mut written: mpsc::Receiver<()>) -> Result<(), PoolError> {
        let mut lanes: JoinSet<Step<P::Stream>> = JoinSet::new();
        let mut finishing: JoinSet<Result<u64, PoolError>> = JoinSet::new();
        let progress = self.progress;
        let mut pulled = tokio::select! {
            biased;
            () = progress.closed() => Err(PoolError::Unwanted),
            pulled = self.work(&mut lanes, &mut finishing) => pulled,
        };
        lanes.shutdown().await;
        while let Some(finished) = finishing.join_next().await {
            match finished.map_err(PoolError::from).flatten() {
                Ok(bytes) => self.reservation.settle(bytes),
                Err(error) => pulled = pulled.and(Err(error)),
            }
        }
        drop((self.partials, self.writing));
        // Nothing is ever sent: it ends when the last one that writes has let go.
        let _ = written.recv().await;
        pulled
    }

    async fn work(
        &mut self,
        lanes: &mut JoinSet<Step<P::Stream>>,
        finishing: &mut JoinSet<Result<u64, PoolError>>,
    ) -> Result<(), PoolError> {
        loop {
            match self.plan.next(self.pool.now_ms()) {
                Next::Ask(order) => {
                    if let Some(lane) = self.lane(order, finishing).await? {
                        lanes.spawn(lane.ask_and_step(self.door.clone()));
                    }
                }
                Next::Wait(wake_ms) => {
                    let wait = wake_ms.map(|wake_ms| wake_ms.saturating_sub(self.pool.now_ms()));
                    // Without a time, an answer is under way, and its lane has limits of its own.
                    let wait = Duration::from_millis(wait.unwrap_or(u64::from(u32::MAX)));
                    if lanes.is_empty() {
                        tokio::time::sleep(wait).await;
                    } else if let Ok(Some(step)) = tokio::time::timeout(wait, lanes.join_next()).await
                        && let Some(lane) = self.note(step?, finishing).await?
                    {
                        lanes.spawn(lane.step());
                    }
                }
                Next::Done => return Ok(()),
                Next::Failed(goal) => return Err(self.nowhere(goal)),
            }
        }
    }

    /// A lane for a question; none when what an earlier run left already answers it.
    async fn lane(
        &mut self,
        order: Order,
        finishing: &mut JoinSet<Result<u64, PoolError>>,
    ) -> Result<Option<Lane<P::Stream>>, PoolError> {
        let partial = match self.partials.get(&order.goal) {
            Some(partial) => partial.clone(),
            None => {
                let (pool, object) = (self.pool.clone(), self.missing[order.goal]);
                let (partial, groups) = spawn_blocking(move || Partial::open(&pool, object)).await??;
                let partial = Arc::new(partial);
                self.partials.insert(order.goal, partial.clone());
                if !groups.is_empty() || (order.part == Part::Outline && partial.has_outline()) {
                    self.plan.ended(order.ticket, End::NotAsked, self.pool.now_ms());
                    let found = groups.iter().map(|group| group_range(object.bytes, *group));
                    self.advance(found.map(|range| range.end - range.start).sum());
                    if self.plan.found(order.goal, &groups) {
                        self.finish(order.goal, finishing).await?;
                    }
                    return Ok(None);
                }
                partial
            }
        };
        let kept = self.idle.iter().position(|(peer, _)| *peer == order.peer);
        let stream = kept.map(|at| self.idle.swap_remove(at).1);
        Ok(Some(Lane { order, partial, stream, writing: self.writing.clone(), done: 0, buffer: Vec::new() }))
    }

    /// Tells the planner of a step; gives the lane back if it goes on.
    async fn note(
        &mut self,
        (lane, stepped): Step<P::Stream>,
        finishing: &mut JoinSet<Result<u64, PoolError>>,
    ) -> Result<Option<Lane<P::Stream>>, PoolError> {
        let Order { ticket, peer, goal, part } = lane.order;
        let now_ms = self.pool.now_ms();
        let end = match stepped? {
            Stepped::Group(group) => {
                let noted = self.plan.got(ticket, group, now_ms);
                if noted.fresh {
                    let range = group_range(self.missing[goal].bytes, group);
                    self.advance(range.end - range.start);
                }
                if noted.complete {
                    self.finish(goal, finishing).await?;
                }
                match part {
                    Part::Groups { count, .. } if lane.done < count => return Ok(Some(lane)),
                    _ => End::Finished,
                }
            }
            Stepped::Outline => {
                self.plan.outlined(ticket, now_ms);
                End::Finished
            }
            Stepped::Wrong => {
                self.pool.avoid(peer, self.missing[goal].id);
                self.idle.retain(|(from, _)| *from != peer);
                End::Wrong
            }
            Stepped::Failed(error) => {
                let end = match error {
                    // The length that was expected is a publisher's word, not the peer's: only bytes prove who lied.
                    FetchError::NotThere | FetchError::Length { .. } => End::NotThere,
                    FetchError::Busy => End::Busy,
                    FetchError::Broken(_) => End::Broken,
                };
                tracing::debug!(peer = %peer.short(), object = %self.missing[goal].id, %error, "not from this peer");
                self.said.insert(peer, error.to_string());
                end
            }
        };
        self.plan.ended(ticket, end, now_ms);
        if let Some(stream) = lane.stream
            && stream.is_idle()
            && matches!(end, End::Finished | End::NotThere | End::Busy)
            && self.idle.len() < LANES_MAX
        {
            self.idle.push((peer, stream));
        }
        Ok(None)
    }

    fn advance(&self, bytes: u64) {
        self.progress.send_modify(|progress| progress.bytes_done += bytes);
    }

    /// Names a complete object, beside what goes on.
    async fn finish(
        &mut self,
        goal: usize,
        finishing: &mut JoinSet<Result<u64, PoolError>>,
    ) -> Result<(), PoolError> {
        while finishing.len() >= FINISHING_MAX {
            if let Some(finished) = finishing.join_next().await {
                self.reservation.settle(finished??);
            }
        }
        if let Some(partial) = self.partials.remove(&goal) {
            finishing.spawn_blocking(move || partial.finish().map(|()| partial.object().bytes));
        }
        Ok(())
    }

    fn nowhere(&self, goal: usize) -> PoolError {
        let said = |peer: &NodeId| match self.said.get(peer) {
            Some(said) => format!(" ({said})"),
            None => String::new(),
        };
        let tried = self.plan.fates(goal).into_iter().map(|(peer, fate)| {
            let what = match fate {
                Fate::Lacks => "does not have it".to_owned(),
                Fate::Lied => "sent wrong bytes".to_owned(),
                Fate::Broke => format!("broke off too often{}", said(&peer)),
                Fate::Busy => "was busy all the time".to_owned(),
                Fate::Fine => format!("could not be asked{}", said(&peer)),
            };
            format!("`{}` {what}", peer.short())
        });
        let avoided =
            self.avoided.iter().map(|peer| format!("`{}` is avoided for wrong bytes it sent", peer.short()));
        let tried: Vec<String> = tried.chain(avoided).collect();
        let tried = if tried.is_empty() { "there is no other node".to_owned() } else { tried.join("; ") };
        let ObjectRef { id, bytes } = self.missing[goal];
        PoolError::Nowhere { id, bytes, tried }
    }
}
