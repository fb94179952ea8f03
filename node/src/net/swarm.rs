//! The libp2p swarm: transport, behaviours and the task that runs them. Knows nothing of requests.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageAuthenticity, ValidationMode};
use libp2p::identity::{Keypair, PublicKey};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};
use stormo_protocol::codec::DecodeError;
use stormo_protocol::ids::MeshId;
use stormo_protocol::limits::GOSSIP_BYTES_MAX;
use stormo_protocol::state::Signed;
use tokio::sync::mpsc;

use super::addresses::Addresses;
use super::arrivals::{Arrivals, Noted};
use super::local::Neighbours;
use super::{Command, NetConfig, NetEvent, Protocols, identity};

/// Connections of all kinds, both ways. libp2p sets no limit of its own.
const CONNECTIONS_MAX: u32 = 512;
/// Connections to one peer: both may dial at the same moment.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Handshakes under way.
const HANDSHAKES_MAX: u32 = 128;
/// Streams of one connection.
const STREAMS_PER_CONNECTION_MAX: usize = 512;
/// Round trips are measured this often; each is a sign of life, too.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that gossip tells of at once: of 22 bytes each, so that they fit into [`GOSSIP_BYTES_MAX`]. What is longer
/// than a receiver takes would end gossip on that connection.
const TOLD_MAX: usize = 500;
/// Connections carry gossip all the time; one that carries nothing for so long is not needed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Why the network could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A multiaddress is malformed.
    #[error("`{0}` is no multiaddress; an example: /ip4/0.0.0.0/tcp/4001")]
    Address(String),
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`: {reason}; choose another with --listen")]
    Listen {
        /// Which.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// libp2p refused its configuration.
    #[error("the network library refused its configuration: {0}")]
    Library(String),
    /// The same protocol is served twice: a defect of this program.
    #[error("a protocol is already served")]
    AlreadyServing,
}

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    addresses: Addresses,
    pub(super) streams: libp2p_stream::Behaviour,
    gossip: gossipsub::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

fn topic(Protocols { mesh, version, .. }: &Protocols) -> IdentTopic {
    IdentTopic::new(format!("stormo/{version}/{mesh}/state"))
}

fn protocol_version(Protocols { mesh, version, .. }: &Protocols) -> String {
    format!("/stormo/{version}/{mesh}")
}

pub(super) fn build(
    config: &NetConfig,
    protocols: &Protocols,
    arrivals: &Arc<Arrivals>,
) -> Result<Swarm<Behaviour>, NetError> {
    // Noise mixes the prologue into every message it authenticates: without the mesh key the
    // handshake fails, and no protocol is spoken.
    let secret = config.mesh.handshake_secret().to_vec();
    let arrivals = arrivals.clone();
    let noise = move |keypair: &Keypair| {
        noise::Config::new(keypair).map(|noise| Noted { noise: noise.with_prologue(secret), arrivals })
    };
    let yamux = || {
        let mut yamux = yamux::Config::default();
        yamux.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
        yamux
    };
    let library = |error: &dyn std::fmt::Display| NetError::Library(error.to_string());
    let mut swarm = SwarmBuilder::with_existing_identity(config.identity.keypair())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise, yamux)
        .map_err(|error| library(&error))?
        .with_behaviour(|keypair| behaviour(keypair, protocols))
        .map_err(|error| library(&error))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    swarm.behaviour_mut().gossip.subscribe(&topic(protocols)).map_err(|error| library(&error))?;
    for address in &config.listen {
        let parsed: Multiaddr = address.parse().map_err(|_| NetError::Address(address.clone()))?;
        let refused = |reason: String| NetError::Listen { address: address.clone(), reason };
        refuse_taken(&parsed).map_err(|error| refused(error.to_string()))?;
        swarm.listen_on(parsed).map_err(|error| refused(error.to_string()))?;
    }
    Ok(swarm)
}

/// libp2p shares ports between sockets, so two nodes could listen on one and each miss half its calls.
/// A plain bind tells whether the port is taken.
fn refuse_taken(address: &Multiaddr) -> io::Result<()> {
    let Some(ip) = ip_of(address) else { return Ok(()) };
    match address.iter().nth(1) {
        Some(Protocol::Tcp(port)) if port != 0 => std::net::TcpListener::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

fn behaviour(
    keypair: &Keypair,
    protocols: &Protocols,
) -> Result<Behaviour, Box<dyn std::error::Error + Send + Sync>> {
    let gossip = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(format!("{}/gossip", protocol_version(protocols)))
        .validation_mode(ValidationMode::Strict)
        // A record is checked before it is passed on.
        .validate_messages()
        .max_transmit_size(GOSSIP_BYTES_MAX)
        .max_control_messages_sent(TOLD_MAX)
        // Equal records are one message, whoever passes them on.
        .message_id_fn(|message| blake3::hash(&message.data).as_bytes()[..20].to_vec().into())
        .build()?;
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(HANDSHAKES_MAX))
        .with_max_pending_outgoing(Some(HANDSHAKES_MAX))
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        addresses: Addresses::default(),
        streams: libp2p_stream::Behaviour::new(),
        gossip: gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), gossip)?,
        identify: identify::Behaviour::new(
            identify::Config::new(protocol_version(protocols), PublicKey::clone(&keypair.public()))
                .with_agent_version(concat!("stormo/", env!("CARGO_PKG_VERSION")).into()),
        ),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
    })
}

/// Runs the swarm until the driver is gone.
pub(super) async fn run(
    mut swarm: Swarm<Behaviour>,
    protocols: Arc<Protocols>,
    neighbours: Arc<Neighbours>,
    mut commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<NetEvent>,
) {
    loop {
        let event = tokio::select! {
            command = commands.recv() => match command {
                Some(command) => obey(&mut swarm, &protocols, command),
                None => return,
            },
            event = swarm.select_next_some() => {
                note_neighbour(&swarm, &neighbours, &event);
                if let Some(found) = found(&event)
                    && events.send(found).await.is_err()
                {
                    return;
                }
                translate(&mut swarm, &protocols, event)
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

fn obey(swarm: &mut Swarm<Behaviour>, protocols: &Protocols, command: Command) -> Option<NetEvent> {
    match command {
        Command::Dial(address) => match swarm.dial(address.clone()) {
            // A dial of a peer that is connected or being dialled is no failure.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => None,
            Err(error) => Some(NetEvent::DialFailed(address.to_string(), error.to_string())),
        },
        Command::Publish(bytes) => {
            // Alone in the mesh, or said already: the sync exchange repairs what gossip misses.
            if let Err(error) = swarm.behaviour_mut().gossip.publish(topic(protocols), bytes) {
                tracing::trace!(%error, "not gossiped");
            }
            None
        }
        Command::Close(peer) => {
            // Who is not connected has nothing to close.
            let _ = swarm.disconnect_peer_id(peer);
            None
        }
        Command::Reachable(peer, addresses) => {
            swarm.behaviour_mut().addresses.set(peer, addresses);
            None
        }
    }
}

/// Who is connected from an address of this machine is told to those who send frames.
fn note_neighbour(swarm: &Swarm<Behaviour>, neighbours: &Neighbours, event: &SwarmEvent<BehaviourEvent>) {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
            let ip = ip_of(endpoint.get_remote_address());
            let is_own =
                ip.is_some_and(|ip| ip.is_loopback() || swarm.listeners().any(|own| ip_of(own) == Some(ip)));
            if let Some(node) = identity::node_id(peer_id).filter(|_| is_own) {
                neighbours.moved_in(node);
            }
        }
        SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
            identity::node_id(peer_id).into_iter().for_each(|node| neighbours.moved_out(node));
        }
        _ => {}
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Whom a dial led to, connected before or not.
fn found(event: &SwarmEvent<BehaviourEvent>) -> Option<NetEvent> {
    let SwarmEvent::ConnectionEstablished {
        peer_id, endpoint: ConnectedPoint::Dialer { address, .. }, ..
    } = event
    else {
        return None;
    };
    identity::node_id(peer_id).map(|node| NetEvent::Found(node, address.to_string()))
}

fn translate(
    swarm: &mut Swarm<Behaviour>,
    protocols: &Protocols,
    event: SwarmEvent<BehaviourEvent>,
) -> Option<NetEvent> {
    match event {
        SwarmEvent::Behaviour(event) => from_behaviour(swarm, protocols, event),
        SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } if num_established.get() == 1 => {
            identity::node_id(&peer_id).map(NetEvent::Connected)
        }
        SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
            identity::node_id(&peer_id).map(NetEvent::Disconnected)
        }
        SwarmEvent::NewListenAddr { address, .. } => Some(NetEvent::Listening(address.to_string())),
        SwarmEvent::ExpiredListenAddr { address, .. } => Some(NetEvent::NotListening(address.to_string())),
        SwarmEvent::OutgoingConnectionError { error, .. } => Some(dial_failed(&error)),
        SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
            tracing::debug!(from = %send_back_addr, %error, "a connection was not let in");
            None
        }
        _ => None,
    }
}

fn dial_failed(error: &DialError) -> NetEvent {
    match error {
        DialError::Transport(attempts) => {
            let (addresses, reasons): (Vec<_>, Vec<_>) =
                attempts.iter().map(|(address, error)| (address.to_string(), root_cause(error))).unzip();
            NetEvent::DialFailed(addresses.join(", "), reasons.join("; "))
        }
        other => NetEvent::DialFailed(String::new(), other.to_string()),
    }
}

/// libp2p wraps what went wrong several times; the innermost text is the one that helps.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn from_behaviour(
    swarm: &mut Swarm<Behaviour>,
    protocols: &Protocols,
    event: BehaviourEvent,
) -> Option<NetEvent> {
    match event {
        BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
            let read = read_gossip(&message.data, protocols.mesh);
            let acceptance = if read.is_ok() { MessageAcceptance::Accept } else { MessageAcceptance::Reject };
            swarm.behaviour_mut().gossip.report_message_validation_result(
                &message_id,
                &propagation_source,
                acceptance,
            );
            read.ok().map(NetEvent::Gossip)
        }
        BehaviourEvent::Ping(ping::Event { peer, result: Ok(round_trip), .. }) => {
            identity::node_id(&peer).map(|node| NetEvent::RoundTrip(node, round_trip))
        }
        BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
            leave_if_foreign(swarm, protocols, peer_id, &info)
        }
        _ => None,
    }
}

/// The handshake already keeps other meshes out; another protocol version is told by its name.
fn leave_if_foreign(
    swarm: &mut Swarm<Behaviour>,
    protocols: &Protocols,
    peer: PeerId,
    info: &identify::Info,
) -> Option<NetEvent> {
    if info.protocol_version == protocol_version(protocols) {
        return None;
    }
    let _ = swarm.disconnect_peer_id(peer);
    let speaks: String =
        info.protocol_version.chars().filter(|letter| !letter.is_control()).take(80).collect();
    identity::node_id(&peer).map(|node| NetEvent::Foreign(node, speaks))
}

fn read_gossip(bytes: &[u8], mesh: MeshId) -> Result<Signed, DecodeError> {
    let signed = Signed::from_bytes(bytes)?;
    if identity::is_valid(&signed, mesh) { Ok(signed) } else { Err(DecodeError::Malformed) }
}
