//! The one door to other nodes: connections, gossip, questions, tensors and objects over libp2p.
//! What a message means is decided elsewhere; this room moves it, bounds it and checks signatures.

mod addresses;
mod arrivals;
mod ask;
mod coding;
mod deliver;
mod frames;
mod identity;
mod lanes;
mod local;
mod objects;
mod places;
mod receive;
mod swarm;
#[cfg(test)]
mod tests;
mod ticket;
mod traffic;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId, StreamProtocol};
use stormo_protocol::control::{Request, Response};
use stormo_protocol::frame::{DeliveryKey, Descriptor, Header, StageTrace};
use stormo_protocol::ids::{MeshId, MeshKey, NodeId};
use stormo_protocol::plan::EncodedPlan;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::Signed;
use stormo_protocol::tensor::Tensor;
use tokio::sync::{mpsc, oneshot};

pub use ask::AskError;
pub use deliver::{Begun, OutgoingFrame, Patience};
pub use identity::{Identity, IdentityError};
pub use objects::{FetchError, ObjectPeers, ObjectSource, ObjectStream};
pub use receive::{SignReader, SignWriter, signs};
pub use swarm::NetError;
pub use ticket::{BadTicket, Ticket};
pub use traffic::{PeerTraffic, Traffic};

/// Events that wait for the driver; when it is behind, streams and swarm wait too.
const EVENTS_WAITING_MAX: usize = 1024;
/// Commands that wait for the swarm.
const COMMANDS_WAITING_MAX: usize = 256;
/// A stream that does not open within this time is as good as refused: the peer is connected, or
/// dialling it takes a few round trips.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Tries at an exchange whose stream is dropped before the peer serves it.
const TRIES_MAX: u32 = 4;
/// Before the second try; a little longer before each further one, so that a crowd disperses.
const TRY_PAUSE: Duration = Duration::from_millis(5);

/// What a node needs to take part in a mesh.
pub struct NetConfig {
    /// Who this node is.
    pub identity: Identity,
    /// Which mesh it belongs to.
    pub mesh: MeshKey,
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Where peers find the objects they ask for.
    pub objects: Arc<dyn ObjectSource>,
}

/// What happens on the network.
#[derive(Debug)]
pub enum NetEvent {
    /// A first connection to a node stands.
    Connected(NodeId),
    /// The last connection to a node is gone.
    Disconnected(NodeId),
    /// A dial of this address led to a node.
    Found(NodeId, String),
    /// This node can be reached here.
    Listening(String),
    /// And here no longer.
    NotListening(String),
    /// A dial failed; the address and what was said.
    DialFailed(String, String),
    /// A round trip was measured.
    RoundTrip(NodeId, Duration),
    /// A peer speaks another version of the protocol, this one, and is left.
    Foreign(NodeId, String),
    /// A record arrived by gossip; its signature is valid.
    Gossip(Signed),
    /// A peer asks.
    Asked {
        /// Who.
        from: NodeId,
        /// What.
        request: Request,
        /// Where the answer goes.
        answer: oneshot::Sender<Response>,
    },
    /// A peer offers tensors.
    Offered(Box<Offer>),
    /// The tensors of an accepted offer are here.
    Received(Received),
    /// The tensors of an accepted offer will not come.
    Broken(DeliveryKey),
    /// How a delivery goes on.
    Delivery {
        /// Which.
        key: DeliveryKey,
        /// To whom.
        to: NodeId,
        /// What the receiver said last, or that it is lost.
        progress: Progress,
    },
}

/// A frame of which the descriptions have come, or, if it is small, all.
#[derive(Debug)]
pub struct Offer {
    /// Who offers.
    pub from: NodeId,
    /// The fixed part.
    pub header: Header,
    /// Who does what; in what goes to a stage.
    pub plan: Option<Arc<EncodedPlan>>,
    /// What the tensors are, and how they are coded.
    pub described: Vec<Descriptor>,
    /// The tensors, if it is smaller than it would be to ask first whether they are wanted.
    pub whole: Option<Received>,
    /// Where the verdict goes; dropped, it refuses.
    pub verdict: oneshot::Sender<Verdict>,
}

/// What becomes of an offer.
#[derive(Debug)]
pub enum Verdict {
    /// Read the payload, if it was not; then say what this reader tells until its last sign.
    Take(SignReader),
    /// Say why not, and read nothing.
    Refuse(Refusal),
}

/// Tensors that arrived whole.
#[derive(Debug)]
pub struct Received {
    /// Who sent them.
    pub from: NodeId,
    /// The fixed part of the frame.
    pub header: Header,
    /// What the stages before took.
    pub traces: Vec<StageTrace>,
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// From the first byte of the frame to its last.
    pub receive_time: Duration,
    /// Decoding the payload.
    pub decode_time: Duration,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The receiver has the tensors. Not told of its own when they are passed soon.
    Taken,
    /// The receiver's output is safe.
    Passed(Sent),
    /// It is not over yet, and takes longer than was said ([`Patience::late_after`]); after that, twice that, and so on. Not told
    /// while the receiver says that it only waits for those behind it.
    Late(Duration),
    /// The receiver, or a stage after it, refused.
    Refused(u16, Refusal),
    /// Unreachable, reset, or silent for too long.
    Lost,
    /// Nothing was sent: others wait for a sign of the receiver for too long already ([`Patience::quiet`]).
    Avoided,
}

/// What it took to send a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Bytes of payload, as coded.
    pub bytes: u64,
    /// From its first byte to its last, as the receiver saw it.
    pub transfer_time: Duration,
    /// From the wish to send it until it was passed on.
    pub time: Duration,
}

/// The version of all that nodes say to each other. Nodes of other versions refuse each other; what is added in sections
/// that others skip, or as reasons that others read as "some other one", is no new version.
const VERSION: u32 = 3;

/// The names of our protocols in one mesh: its id is part of each.
#[derive(Debug, Clone)]
struct Protocols {
    mesh: MeshId,
    version: u32,
    ask: StreamProtocol,
    frames: StreamProtocol,
    objects: StreamProtocol,
    local: StreamProtocol,
}

impl Protocols {
    fn of(mesh: MeshId, version: u32) -> Self {
        let name = |what: &str| StreamProtocol::try_from_owned(format!("/stormo/{version}/{mesh}/{what}"));
        let named = |what| name(what).unwrap_or_else(|_| unreachable!("the name begins with a slash"));
        let [ask, frames, objects, local] = ["ask", "frames", "objects", "local"].map(named);
        Self { mesh, version, ask, frames, objects, local }
    }
}

enum Command {
    Dial(Multiaddr),
    Publish(Vec<u8>),
    Close(PeerId),
    Reachable(PeerId, Vec<Multiaddr>),
}

/// A handle to the network; cheap to clone.
#[derive(Clone)]
pub struct Net {
    own: NodeId,
    commands: mpsc::Sender<Command>,
    streams: libp2p_stream::Control,
    protocols: Arc<Protocols>,
    events: mpsc::Sender<NetEvent>,
    asking: Arc<deliver::IdleStreams<libp2p::Stream>>,
    idle: Arc<deliver::IdleStreams<local::FrameStream>>,
    neighbours: Arc<local::Neighbours>,
    lanes: Arc<lanes::Lanes>,
    traffic: Arc<Traffic>,
    arrivals: Arc<arrivals::Arrivals>,
    coders: Arc<coding::Coders>,
}

impl Net {
    /// Joins the network: listens, and starts the tasks that serve peers.
    ///
    /// # Errors
    /// When an address to listen on is malformed or taken.
    pub async fn start(config: NetConfig) -> Result<(Self, mpsc::Receiver<NetEvent>), NetError> {
        Self::start_speaking(config, VERSION).await
    }

    async fn start_speaking(
        config: NetConfig,
        version: u32,
    ) -> Result<(Self, mpsc::Receiver<NetEvent>), NetError> {
        let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        let (commands, commanded) = mpsc::channel(COMMANDS_WAITING_MAX);
        let protocols = Arc::new(Protocols::of(config.mesh.mesh_id(), version));
        let arrivals = Arc::default();
        let swarm = swarm::build(&config, &protocols, &arrivals)?;
        let net = Self {
            own: config.identity.node(),
            commands,
            streams: swarm.behaviour().streams.new_control(),
            protocols,
            events: events.clone(),
            asking: Arc::default(),
            idle: Arc::default(),
            neighbours: Arc::default(),
            lanes: Arc::default(),
            traffic: Arc::default(),
            arrivals,
            coders: Arc::default(),
        };
        local::serve(&net, receive::serve(&net)?)?;
        ask::serve(&net)?;
        objects::serve(&net, config.objects)?;
        tokio::spawn(swarm::run(swarm, net.protocols.clone(), net.neighbours.clone(), commanded, events));
        Ok((net, receiver))
    }

    /// Tries to connect to an address; how it ends is told by events.
    ///
    /// # Errors
    /// When the address is malformed.
    pub async fn dial(&self, address: &str) -> Result<(), NetError> {
        let address = address.parse().map_err(|_| NetError::Address(address.to_owned()))?;
        // The swarm's task ends with the process; there is nobody left to tell.
        let _ = self.commands.send(Command::Dial(address)).await;
        Ok(())
    }

    /// Closes all connections to a node.
    pub async fn close(&self, node: NodeId) {
        if let Some(peer) = identity::peer_id(node) {
            let _ = self.commands.send(Command::Close(peer)).await;
        }
    }

    /// A node can be reached at these addresses: streams to it are opened there if there is no connection. What is
    /// no multiaddress is left out.
    pub async fn reachable(&self, node: NodeId, addresses: &[String]) {
        if let Some(peer) = identity::peer_id(node) {
            let addresses = addresses.iter().filter_map(|address| address.parse().ok()).collect();
            let _ = self.commands.send(Command::Reachable(peer, addresses)).await;
        }
    }

    /// Gossips a signed record to the mesh. Lost messages are repaired by the sync exchange.
    pub async fn publish(&self, record: &Signed) {
        let _ = self.commands.send(Command::Publish(record.to_bytes())).await;
    }

    /// Whether the author really signed this, for this mesh.
    pub fn is_valid(&self, signed: &Signed) -> bool {
        identity::is_valid(signed, self.protocols.mesh)
    }

    /// Bytes of tensors sent and received, by peer.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// For how long not a byte came over any connection to a node; `None` if there is none.
    pub fn still_for(&self, node: NodeId) -> Option<Duration> {
        self.arrivals.ago(node)
    }

    async fn open(&self, to: NodeId, protocol: &StreamProtocol) -> io::Result<libp2p::Stream> {
        self.open_within(to, protocol, OPEN_TIMEOUT).await
    }

    async fn open_within(
        &self,
        to: NodeId,
        protocol: &StreamProtocol,
        within: Duration,
    ) -> io::Result<libp2p::Stream> {
        let peer = identity::peer_id(to).ok_or(io::ErrorKind::InvalidInput)?;
        let mut streams = self.streams.clone();
        match tokio::time::timeout(within, streams.open_stream(peer, protocol.clone())).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(io::Error::new(io::ErrorKind::NotConnected, error.to_string())),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Tries at an exchange that broke before it began. `libp2p-stream` drops an inbound stream that its
/// one-place channel cannot take, as happens when several peers turn to a node at once.
#[derive(Default)]
struct Tries {
    made: u32,
}

impl Tries {
    /// Whether to try again, after a short pause.
    async fn another(&mut self) -> bool {
        self.made += 1;
        if self.made < TRIES_MAX {
            tokio::time::sleep(TRY_PAUSE * self.made).await;
        }
        self.made < TRIES_MAX
    }

    /// The same, unless the peer fell silent or sent nonsense: that is no dropped stream.
    async fn another_after(&mut self, error: &io::Error) -> bool {
        !matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::InvalidData) && self.another().await
    }
}
