//! Requests: the real `flow::Origin` and `flow::Stage` at each host, and around them a model of what the node's
//! driver and its streams of frames do (`app/driver/origins.rs`, `stages.rs`, `net/deliver.rs`, `receive.rs`).
//! Stages run for a given time; plans are any usable hosts of each stage, as the origin's member sees them.

mod delivery;
mod origin;
mod stage;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stormo::flow::OriginEvent;
use stormo_protocol::control::Prepare;
use stormo_protocol::frame::{DeliveryKey, Sign};
use stormo_protocol::ids::{DeploymentId, RequestId, VariantId};
use stormo_protocol::plan::Plan;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::Hosted;

use super::Spec;
use super::host::Host;
use super::pipes::HostIndex;
use super::world::{What, World};
use crate::random::Random;
use delivery::{Delivery, Incoming};
use origin::Pending;
use stage::{HostedStage, StageKey};
use tally::Ends;
pub use tally::Tally;

/// The driver looks at deadlines this often, microseconds.
const TICK_US: u64 = 100_000;
/// Every request ends within this, microseconds.
const TIMEOUT_US: u64 = 5_000_000;
/// After so long without new requests nothing may be left of any, microseconds: messages may wait behind others
/// on a lossy connection for as long as that is not given up, and what they begin lives for a timeout more.
const SETTLING_US: u64 = 120_000_000 + 2 * TIMEOUT_US;
/// Stages of the simulated model: how long each runs, and bytes at its input; then those of the result.
const RUN_US: [u64; 3] = [12_000, 20_000, 8_000];
const CUT_BYTES: [u64; 4] = [150_000, 400_000, 60_000, 4_000];
/// Hosts that have a stage loaded: this share of all, and at least so many.
const HOSTS_SHARE: f64 = 0.2;
const HOSTS_MIN: usize = 3;

/// What hosts say to each other about requests.
#[derive(Debug)]
pub(super) enum WorkMessage {
    Prepare(Arc<Prepare>),
    /// The answer to that.
    Prepared(RequestId, u16, Result<(), Refusal>),
    Failed(RequestId, u16, u16, Refusal),
    Cancel(RequestId, u16),
    JoinFailed(RequestId, u16, u16, u16, Refusal),
    Rejoin(RequestId, u16, u16, u16),
    /// The head of a frame: which, of which plan, and how long the request may take still, milliseconds.
    Offer(DeliveryKey, Arc<Plan>, u32),
    /// Its payload.
    Body(DeliveryKey),
    Sign(DeliveryKey, Sign),
    /// The receiver's stream ended without a last sign.
    Broken(DeliveryKey),
}

/// What happens to requests at a host, with the start of the host that it is meant for.
#[derive(Debug)]
pub(super) enum WorkEvent {
    /// A request enters somewhere.
    Ask,
    Tick(HostIndex, u32),
    At(HostIndex, u32, Local),
}

/// Something at one host.
#[derive(Debug)]
pub(super) enum Local {
    Origin(RequestId, OriginEvent),
    /// No answer to a `Prepare` came in time.
    PrepareLate(RequestId, u16, u16, HostIndex),
    Loaded(StageKey),
    Ran(StageKey),
    /// It is time for a sign of life.
    SignDue(DeliveryKey, HostIndex),
    /// It is time to ask whether the receiver still lives.
    Watch(DeliveryKey, HostIndex),
    /// A delivery to a stage on the same host goes on; or one that could not even begin ends.
    Sign(DeliveryKey, Sign),
    Lost(DeliveryKey, HostIndex),
}

impl WorkEvent {
    pub(super) fn host(&self) -> Option<HostIndex> {
        match self {
            Self::Ask => None,
            Self::Tick(host, _) | Self::At(host, ..) => Some(*host),
        }
    }

    /// What of it goes into the trace.
    pub(super) fn trace(&self) -> u64 {
        match self {
            Self::Ask => 1,
            Self::Tick(host, _) => 2 << 16 | u64::from(*host),
            Self::At(host, ..) => 3 << 16 | u64::from(*host),
        }
    }
}

/// What a host holds for requests.
#[derive(Debug, Default)]
pub(super) struct HostWork {
    origins: BTreeMap<RequestId, Pending>,
    stages: BTreeMap<StageKey, HostedStage>,
    /// Stages that ended: late copies of their inputs do not begin them anew.
    ended: BTreeSet<StageKey>,
    /// Joins that were moved, and to which of their hosts.
    rejoined: BTreeMap<(RequestId, u16, u16), u16>,
    /// By frame and receiver: a join that was moved may still be sent it where it was.
    deliveries: BTreeMap<(DeliveryKey, HostIndex), Delivery>,
    /// By frame and sender: copies of one input may come from several.
    incoming: BTreeMap<(DeliveryKey, HostIndex), Incoming>,
    /// Hosts that have answered a `Prepare`.
    prepared: BTreeSet<(RequestId, u16, HostIndex)>,
    /// Ranges that it has loaded.
    loaded: BTreeSet<u16>,
    /// When what is in its queue will have run.
    free_us: u64,
}

impl HostWork {
    fn is_empty(&self) -> bool {
        self.origins.is_empty()
            && self.stages.is_empty()
            && self.deliveries.is_empty()
            && self.incoming.is_empty()
    }
}

/// All requests.
#[derive(Debug)]
pub(super) struct Work {
    hosts: Vec<HostWork>,
    random: Random,
    between_us: Option<f64>,
    asked: u64,
    until_us: u64,
    ends: Ends,
}

fn variant() -> VariantId {
    VariantId { deployment: DeploymentId([1; 16]), index: 0 }
}

impl Work {
    pub(super) fn new(spec: &Spec, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = usize::from(spec.nodes);
        let mut hosts: Vec<HostWork> = (0..count).map(|_| HostWork::default()).collect();
        let replicas = HOSTS_MIN.max((count as f64 * HOSTS_SHARE) as usize).min(count);
        for stage in 0..RUN_US.len() as u16 {
            let mut chosen = 0;
            while chosen < replicas {
                let host = (random.bits() % count as u64) as usize;
                chosen += usize::from(hosts[host].loaded.insert(stage));
            }
        }
        let between_us = (spec.requests_per_s > 0.0).then(|| 1e6 / spec.requests_per_s);
        Self { hosts, random, between_us, asked: 0, until_us: spec.end_us(), ends: Ends::default() }
    }

    /// What a host has loaded, for its record.
    pub(super) fn hosted(&self, host: HostIndex) -> Vec<Hosted> {
        let loaded = self.hosts[usize::from(host)].loaded.iter();
        let hosted = loaded.map(|stage| Hosted {
            variant: variant(),
            first: *stage,
            end: stage + 1,
            time_us: RUN_US[usize::from(*stage)],
            p95_us: RUN_US[usize::from(*stage)],
            queue_wait_us: 0,
        });
        hosted.collect()
    }

    /// When the first request enters, if any do.
    pub(super) fn first_us(&self, warm_up_us: u64) -> Option<u64> {
        self.between_us.map(|_| warm_up_us)
    }
}

impl World {
    fn work_of(&mut self, host: HostIndex) -> &mut HostWork {
        &mut self.work.hosts[usize::from(host)]
    }

    fn host_of(&self, host: HostIndex) -> &Host {
        &self.hosts[usize::from(host)]
    }

    /// Something happens at a host, unless it is started anew before.
    fn later(&mut self, at_us: u64, host: HostIndex, what: Local) {
        let life = self.host_of(host).life;
        self.queue.push(at_us, What::Work(Box::new(WorkEvent::At(host, life, what))));
    }

    pub(super) fn work_event(&mut self, now_us: u64, event: WorkEvent) {
        match event {
            WorkEvent::Ask => self.ask(now_us),
            WorkEvent::Tick(host, life) if self.is_living(host, life) => {
                self.work_tick(now_us, host);
                self.queue.push(now_us + TICK_US, What::Work(Box::new(WorkEvent::Tick(host, life))));
            }
            WorkEvent::At(host, life, what) if self.is_living(host, life) => self.local(now_us, host, what),
            WorkEvent::Tick(..) | WorkEvent::At(..) => {}
        }
    }

    fn is_living(&self, host: HostIndex, life: u32) -> bool {
        let host = self.host_of(host);
        host.alive && host.life == life
    }

    fn local(&mut self, now_us: u64, host: HostIndex, what: Local) {
        match what {
            Local::Origin(request, event) => self.on_origin(now_us, host, request, event),
            Local::PrepareLate(request, attempt, stage, to) => {
                if !self.work_of(host).prepared.contains(&(request, attempt, to)) {
                    self.not_prepared(now_us, host, (request, attempt, stage), Refusal::SuccessorLost);
                }
            }
            Local::Loaded(key) => self.on_stage(now_us, host, key, stormo::flow::StageEvent::Ready),
            Local::Ran(key) => self.on_stage(now_us, host, key, stormo::flow::StageEvent::Ran),
            Local::SignDue(key, from) => self.sign_due(now_us, host, from, key),
            Local::Watch(key, to) => self.watch(now_us, host, key, to),
            Local::Sign(key, sign) => self.signed(now_us, host, host, key, sign),
            Local::Lost(key, to) => self.delivery_lost(now_us, host, key, to),
        }
    }

    fn work_tick(&mut self, now_us: u64, host: HostIndex) {
        self.expire_stages(now_us, host);
        self.expire_origins(now_us, host);
    }

    pub(super) fn hear_work(&mut self, now_us: u64, from: HostIndex, to: HostIndex, message: WorkMessage) {
        match message {
            WorkMessage::Prepare(prepare) => {
                let told = self.announce_stages(now_us, to, &prepare);
                self.say(now_us, to, from, WorkMessage::Prepared(prepare.request, prepare.attempt, told));
            }
            WorkMessage::Prepared(request, attempt, told) => {
                self.prepared(now_us, to, from, request, attempt, told);
            }
            WorkMessage::Failed(request, attempt, stage, reason) => {
                self.reported(now_us, to, from, request, attempt, stage, reason);
            }
            WorkMessage::Cancel(request, attempt) => self.cancelled(now_us, to, from, request, attempt),
            WorkMessage::JoinFailed(request, attempt, join, at, reason) => {
                self.join_failed(now_us, to, (request, attempt, join), at, reason);
            }
            WorkMessage::Rejoin(request, attempt, join, at) => {
                self.rejoined(now_us, to, (request, attempt, join), at);
            }
            WorkMessage::Offer(key, plan, remaining_ms) => {
                self.offered(now_us, to, from, key, &plan, remaining_ms);
            }
            WorkMessage::Body(key) => self.body(now_us, to, from, key),
            WorkMessage::Sign(key, sign) => self.signed(now_us, to, from, key, sign),
            WorkMessage::Broken(key) => {
                self.delivery_lost(now_us, to, key, from);
            }
        }
    }

    /// Says something about requests to a peer; whether there is a connection to say it over.
    fn say(&mut self, now_us: u64, from: HostIndex, to: HostIndex, message: WorkMessage) -> bool {
        let bytes = delivery::bytes_of(&message);
        self.talk_or_dial(now_us, from, to, super::talk::Talk::Work(message), bytes)
    }

    pub(super) fn work_started(&mut self, now_us: u64, host: HostIndex) {
        if self.work.between_us.is_some() {
            let life = self.host_of(host).life;
            self.queue.push(now_us + TICK_US, What::Work(Box::new(WorkEvent::Tick(host, life))));
        }
    }

    /// Everything that it held is gone. What entered there nobody waits for any more: its caller sees the
    /// connection break.
    pub(super) fn work_died(&mut self, _: u64, host: HostIndex) {
        let loaded = std::mem::take(&mut self.work_of(host).loaded);
        let before = std::mem::replace(self.work_of(host), HostWork { loaded, ..HostWork::default() });
        for pending in before.origins.into_values() {
            self.work.ends.unknown(pending.number);
        }
    }

    pub(super) fn work_peer_lost(&mut self, now_us: u64, host: HostIndex, peer: HostIndex) {
        let node = self.host_of(peer).id;
        let requests: Vec<RequestId> = self.work_of(host).origins.keys().copied().collect();
        for request in requests {
            self.on_origin(now_us, host, request, OriginEvent::PeerLost(node));
        }
    }

    /// Goes on without new requests until all must have ended, and gives the account.
    pub(super) fn settle_work(&mut self, end_us: u64) -> Tally {
        if self.work.between_us.is_some() {
            self.run_until(end_us + SETTLING_US);
        }
        for index in 0..self.hosts.len() {
            let work = &self.work.hosts[index];
            if self.hosts[index].alive && !work.is_empty() {
                let held = format!(
                    "node {index} still holds {} requests, {} stages, {} deliveries, {} inputs",
                    work.origins.len(),
                    work.stages.len(),
                    work.deliveries.len(),
                    work.incoming.len()
                );
                self.work.ends.violated(held);
            }
        }
        self.work.ends.tally()
    }
}

/// Whether some live host has each stage loaded.
fn is_possible(hosts: &[Host], work: &[HostWork], plan_of: &Plan) -> bool {
    plan_of.stages.iter().all(|stage| {
        hosts.iter().zip(work).any(|(host, work)| host.alive && work.loaded.contains(&stage.first))
    })
}
