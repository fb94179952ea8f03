//! The one loop of a node: every change comes as an event, each event is one call. The pure rooms
//! decide, this loop owns what they speak of (buffers, streams, clocks, partitions) and acts.

mod ahead;
mod arriving;
mod asking;
mod attempts;
mod comparing;
mod contacts;
mod demand;
mod deploying;
mod energy;
mod gossip;
mod health;
mod hedging;
mod held;
mod hosted;
mod hosting;
mod joining;
mod latest;
mod loading;
mod origins;
mod owning;
mod parking;
mod placing;
mod plan_kinds;
mod plan_views;
mod plans;
mod posing;
mod ready_plans;
mod result;
mod signature;
mod sparing;
mod stages;
mod steering;
mod stored;
mod suspecting;
mod traced;
mod trying;
mod variants;
mod views;
mod watching;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::control::Request;
use stormo_protocol::control::Response;
use stormo_protocol::ids::{NodeId, RequestId, VariantId};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Domain, Machine, Offer};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::calls::{Call, CallError};
use super::owner::OwnerLimits;
use super::power::Power;
use crate::ends::{Described, WorkError};
use crate::engine::{Engine, Ran};
use crate::flow::Suspects;
use crate::mesh::{Keeping, Member, MemberEvent, News, Stewardship};
use crate::monitor::{self, Utilisation};
use crate::net::{Identity, Net, NetEvent};
use crate::pool::Pool;
use crate::serve::json::{EventView, RequestView};
use crate::traces::Traces;
use hosted::HostedStage;
use hosting::{Hosting, Loaded, PartitionKey};
use latest::Latest;
use origins::Pending;
use plans::{KnownPlans, Listed, Planned};
use stages::StageKey;
use suspecting::is_there;

/// Deadlines are looked at this often.
const TICK: Duration = Duration::from_millis(100);
/// Requests that can be looked up after their end.
const FINISHED_MAX: usize = 512;

/// Everything that can change a node.
#[derive(Debug)]
pub enum Event {
    /// From the network.
    Net(NetEvent),
    /// From the front.
    Call(Call),
    /// A manifest was fetched, or not.
    Manifest(VariantId, Option<Arc<Described>>),
    /// A partition was loaded, or not.
    Loaded(PartitionKey, Result<Loaded, Refusal>),
    /// A partition ran for a stage.
    Ran(StageKey, Result<Ran, WorkError>),
    /// A plan for a request.
    Planned(Planned),
    /// A host of a try at a request was not told where a join is.
    NotTold(RequestId, u16, NodeId),
    /// A pause is over: a plan without these for a request.
    PlanAgain(RequestId, Vec<NodeId>),
    /// A list of plans.
    Listed(Listed),
    /// A plan that is kept ready was made again.
    Refreshed(ready_plans::Refreshed),
    /// A neighbour answered in an exchange, or did not.
    Answered(NodeId, Option<News>),
    /// A neighbour tells what it was asked for.
    Told(NodeId, News),
    /// The rate from a peer.
    Probed(NodeId, Option<u64>),
    /// Nodes were asked how they are.
    States(asking::States),
    /// A suspect was asked whether it lives; after how long it answered, if it did.
    Asked(NodeId, Option<Duration>),
    /// Contacts were written to disk, or not.
    ContactsStored(Result<(), String>),
    /// Deployments were written to disk, or not.
    Stored(Result<(), String>),
    /// Hosts were compared with others.
    Compared(comparing::Compared),
    /// Time passes.
    Tick,
    /// The owner ends the node.
    Leave(oneshot::Sender<()>),
}

/// What a driver is made of.
pub struct Parts {
    /// Who this node is.
    pub identity: Identity,
    /// Mesh id.
    pub mesh: stormo_protocol::ids::MeshId,
    /// Starts of this node so far.
    pub generation: u64,
    /// What it is.
    pub machine: Machine,
    /// Addresses to join at.
    pub join: Vec<String>,
    /// The network.
    pub net: Net,
    /// Objects on disk.
    pub pool: Arc<Pool>,
    /// File of the addresses where others were last reached.
    pub contacts: PathBuf,
    /// File of the deployments that are known.
    pub deployments: PathBuf,
    /// File of the number of its starts.
    pub starts: PathBuf,
    /// ONNX Runtime.
    pub engine: Engine,
    /// What its owner lets others have.
    pub owner: OwnerLimits,
    /// What may take it away together with others, as its owner says.
    pub domains: Vec<Domain>,
    /// What it draws, if its owner said so.
    pub power: Option<Power>,
    /// Memory that partitions may take as far as the kernel allows it, bytes.
    pub memory_wished_bytes: u64,
    /// Of that, what they may take while others leave it free, bytes.
    pub memory_budget_bytes: u64,
    /// Who watches what happens.
    pub watchers: broadcast::Sender<EventView>,
    /// Who is told how requests went, if anybody.
    pub traces: Option<Traces>,
}

/// Why a node does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its owner ended it.
    Left,
    /// Another process runs with its identity.
    Copied,
}

/// A node.
pub struct Driver {
    parts: Parts,
    started: Instant,
    events: mpsc::Sender<Event>,
    utilisation: Utilisation,
    utilisation_permille: u16,
    /// When that was looked at.
    load_looked_ms: u64,
    asking: asking::Asking,
    /// Taken by whoever lists plans of a planner that may take minutes.
    thorough: Arc<Semaphore>,
    leaving: bool,
    /// A copy of this node's data folder runs elsewhere.
    is_copied: bool,
    offer: Offer,
    /// The owner said that it takes no work of others for now.
    is_paused: bool,
    member: Member,
    manifests: BTreeMap<VariantId, Arc<Described>>,
    manifests_wanted: BTreeSet<VariantId>,
    hosting: Hosting,
    kept: loading::Kept,
    stages: BTreeMap<StageKey, HostedStage>,
    ended: Latest<StageKey, ()>,
    cancelled: Latest<(RequestId, u16, NodeId), ()>,
    rejoined: Latest<joining::MovedJoin, u16>,
    origins: BTreeMap<RequestId, Pending>,
    suspects: Suspects,
    hedging: hedging::Hedging,
    parked: Vec<parking::Parked>,
    finished: VecDeque<RequestView>,
    plans: KnownPlans,
    foretold: energy::Foretold,
    ready_plans: ready_plans::ReadyPlans,
    stewardship: Stewardship,
    keeping: Keeping,
    stored: stored::Stored,
    contacts: contacts::StoredContacts,
    ticks: u64,
    watching: watching::Watching,
    log: sparing::Log,
    demand: demand::Asked,
}

impl Driver {
    /// A node that is not in the mesh yet. `events` must lead to the receiver of [`Driver::run`].
    pub fn new(parts: Parts, events: mpsc::Sender<Event>) -> Self {
        let offer = parts.owner.offer(monitor::minute_of_day());
        let watching = watching::Watching::new(parts.watchers.clone());
        Self {
            member: Member::new(parts.identity.node(), parts.generation, parts.join.clone(), seed(&parts)),
            stewardship: Stewardship::new(parts.identity.node(), 0),
            keeping: Keeping::default(),
            stored: stored::Stored::default(),
            contacts: contacts::StoredContacts::default(),
            parts,
            started: Instant::now(),
            events,
            utilisation: Utilisation::since_now(),
            utilisation_permille: 0,
            load_looked_ms: 0,
            asking: asking::Asking::default(),
            thorough: Arc::new(Semaphore::new(1)),
            leaving: false,
            is_copied: false,
            offer,
            is_paused: false,
            manifests: BTreeMap::new(),
            manifests_wanted: BTreeSet::new(),
            hosting: Hosting::default(),
            kept: loading::Kept::default(),
            stages: BTreeMap::new(),
            ended: Latest::of(arriving::RECENT_MAX),
            cancelled: Latest::of(arriving::RECENT_MAX),
            rejoined: Latest::of(arriving::RECENT_MAX),
            origins: BTreeMap::new(),
            suspects: Suspects::default(),
            hedging: hedging::Hedging::default(),
            parked: Vec::new(),
            finished: VecDeque::new(),
            plans: KnownPlans::default(),
            foretold: energy::Foretold::default(),
            ready_plans: ready_plans::ReadyPlans::default(),
            ticks: 0,
            watching,
            log: sparing::Log::default(),
            demand: demand::Asked::default(),
        }
    }

    /// Runs until the owner ends the node, or until it may not run any more; `early` happened before.
    pub async fn run(
        mut self,
        early: Vec<NetEvent>,
        mut net: mpsc::Receiver<NetEvent>,
        mut own: mpsc::Receiver<Event>,
    ) -> Ended {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.restore();
        self.restore_contacts();
        self.on_changed();
        self.on_member(MemberEvent::Started);
        early.into_iter().for_each(|event| self.on_net(event));
        loop {
            let event = tokio::select! {
                Some(event) = net.recv() => Event::Net(event),
                Some(event) = own.recv() => event,
                _ = ticks.tick() => Event::Tick,
                else => return Ended::Left,
            };
            if let Event::Leave(done) = event {
                self.leave().await;
                let _ = done.send(());
                return Ended::Left;
            }
            self.handle(event);
            if self.is_copied {
                // Without a goodbye, which others would take for the other's.
                return Ended::Copied;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Net(event) => self.on_net(event),
            Event::Call(call) => self.on_call(call),
            Event::Manifest(variant, manifest) => self.on_manifest(variant, manifest),
            Event::Loaded(key, result) => self.on_loaded(key, result),
            Event::Ran(key, result) => self.on_ran(key, result),
            Event::Planned(planned) => self.on_planned(planned),
            Event::NotTold(request, attempt, node) => self.on_not_told(request, attempt, node),
            Event::PlanAgain(request, without) => self.plan_without(request, without),
            Event::Listed(listed) => self.on_listed(listed),
            Event::Refreshed(refreshed) => self.on_refreshed(refreshed),
            Event::Answered(peer, news) => self.on_member(MemberEvent::Answered { peer, news }),
            Event::Told(peer, news) => self.on_member(MemberEvent::Told { peer, news }),
            Event::Probed(peer, bytes_per_second) => {
                self.on_member(MemberEvent::Probed { peer, bytes_per_second });
            }
            Event::Asked(node, answered_after) => self.on_suspect_asked(node, answered_after),
            Event::States(states) => self.on_states(states),
            Event::ContactsStored(written) => self.on_contacts_stored(written),
            Event::Stored(written) => self.on_stored(written),
            Event::Compared(compared) => self.on_compared(compared),
            Event::Tick => self.on_tick(),
            Event::Leave(_) => {}
        }
    }

    fn on_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Connected(node) => self.on_connected(node),
            NetEvent::Disconnected(node) => self.on_disconnected(node),
            NetEvent::Listening(address) => self.on_listening(address),
            NetEvent::NotListening(address) => self.on_not_listening(&address),
            NetEvent::DialFailed(address, reason) => self.on_dial_failed(address, reason),
            NetEvent::RoundTrip(peer, time) => {
                self.on_member(MemberEvent::RoundTrip { peer, micros: time.as_micros() as f64 });
            }
            NetEvent::Foreign(node, speaks) => self.on_foreign(node, &speaks),
            NetEvent::Gossip(signed) => self.on_records(vec![signed]),
            NetEvent::Found(node, address) => self.on_found(node, address),
            NetEvent::Asked { from, request, answer } => {
                self.suspects.heard(self.now_ms(), from);
                self.on_asked(from, request, answer);
            }
            NetEvent::Offered(offer) => self.on_offered(*offer),
            NetEvent::Received(received) => self.on_received(received),
            NetEvent::Broken(key) => self.on_broken(key),
            NetEvent::Delivery { key, to, progress } => self.on_delivery(key, to, progress),
        }
    }

    fn on_asked(&mut self, from: NodeId, request: Request, answer: oneshot::Sender<Response>) {
        let response = match request {
            Request::Exchange(bytes) => self.news_for(from, &bytes),
            Request::Tell(bytes) => self.on_told(from, &bytes),
            Request::Parting => self.on_parting(from),
            Request::State => self.own_state(),
            Request::Prepare(prepare) => self.on_prepare(from, prepare),
            Request::Failed { request, attempt, stage, reason } => {
                self.on_reported(from, request, attempt, stage, reason)
            }
            Request::Lost { request, attempt, node } => self.on_told_lost(from, request, attempt, node),
            Request::Cancel { request, attempt } => self.on_cancel(from, request, attempt),
            Request::JoinFailed { request, attempt, stage, host, reason } => {
                self.on_join_reported(from, (request, attempt, stage), host, reason)
            }
            Request::Rejoin { request, attempt, stage, host } => {
                self.on_rejoin(from, (request, attempt, stage), host)
            }
        };
        // An asker that went away needs no answer.
        let _ = answer.send(response);
    }

    fn on_call(&mut self, call: Call) {
        if let Some(call) = self.park(call) {
            self.take_up(call);
        }
    }

    fn take_up(&mut self, call: Call) {
        match call {
            Call::Infer { model, version, inputs, options, reply } => {
                self.begin_request(origins::Asked { model, version, inputs, options, reply });
            }
            Call::TurnedAway(counts) => self.on_turned_away(&counts),
            Call::Plans(asked, reply) => self.on_plans(asked, reply),
            Call::Instance(asked, reply) => self.on_instance(&asked, reply),
            Call::Deploy(body, reply) => {
                let done = self.on_deploy(body);
                self.answer_once_stored(done, reply);
            }
            Call::Undeploy { name, take_over, reply } => {
                let done = self.on_undeploy(&name, take_over);
                self.answer_once_stored(done, reply);
            }
            Call::Model { name, variant, reply } => {
                let _ = reply.send(self.model_view(&name, variant.as_deref()));
            }
            Call::Models(reply) => {
                let _ = reply.send(Ok(self.models_view()));
            }
            Call::Node { fresh, reply } => {
                let _ = reply.send(Ok(self.show_own(fresh)));
            }
            Call::TakeWork { take, reply } => {
                self.take_work(take);
                let _ = reply.send(Ok(self.show_own(false)));
            }
            Call::NodeNamed { name, fresh, reply } => self.show_node(&name, fresh, reply),
            Call::Nodes { fresh, reply } => self.show_nodes(fresh, reply),
            Call::Deployments(reply) => {
                let _ = reply.send(Ok(self.deployments_view()));
            }
            Call::Request(id, reply) => {
                let _ = reply.send(self.request_view(id));
            }
            Call::Requests(reply) => {
                let _ = reply.send(Ok(self.requests_view()));
            }
        }
    }

    fn on_tick(&mut self) {
        self.ticks += 1;
        self.expire_stages();
        self.expire_origins();
        self.try_parked();
        self.refresh_plans();
        self.doubt_long_requests();
        self.ask_suspects();
        self.gossip_tick();
        self.watch_tick();
        self.log.tick(self.now_ms());
    }

    async fn leave(&mut self) {
        self.leaving = true;
        self.on_changed();
        self.sign();
        self.say_goodbye().await;
        for (_, pending) in std::mem::take(&mut self.origins) {
            pending.fail(CallError::Unavailable("the node is leaving; ask another one".into()));
        }
    }

    fn own(&self) -> NodeId {
        self.parts.identity.node()
    }

    /// Whether another node is there, as far as is known. Plans leave out who is suspected as well.
    fn is_usable(&self, node: NodeId) -> bool {
        is_there(self.member.view(), &self.suspects, self.now_ms(), node)
    }

    /// Milliseconds since the start: the clock of the pure rooms.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Runs something beside the loop; what it gives comes back as an event.
    fn beside(&self, work: impl Future<Output = Event> + Send + 'static) -> tokio::task::AbortHandle {
        let events = self.events.clone();
        tokio::spawn(async move {
            // Without the loop there is nobody left to tell.
            let _ = events.send(work.await).await;
        })
        .abort_handle()
    }

    fn label_of(&self, node: NodeId) -> String {
        if node == self.own() {
            return self.parts.machine.label.clone();
        }
        self.member.view().get(node).map_or_else(|| node.short(), |known| known.record.machine.label.clone())
    }

    fn finish(&mut self, view: RequestView) {
        if self.finished.len() >= FINISHED_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back(view);
    }
}

/// What this node draws by: another sequence for each node and each of its starts.
fn seed(parts: &Parts) -> u64 {
    let mut start = [0; 8];
    start.copy_from_slice(&parts.identity.node().0[..8]);
    u64::from_le_bytes(start) ^ parts.generation.rotate_left(32)
}
