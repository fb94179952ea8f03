//! A node from its configuration to its end: keys, ONNX Runtime, network, API, loop.

use std::collections::BTreeSet;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use stormo_protocol::ids::{NodeId, ObjectId};
use stormo_protocol::limits::ADDRESSES_MAX;
use stormo_protocol::profile::Speeds;
use stormo_protocol::state::Machine;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::config::{ConfigError, NodeConfig};
use super::driver::{Driver, Ended, Event, Parts};
use crate::engine::{self, CalibrateError, Engine, EngineConfig, EngineError, runtime_library};
use crate::monitor;
use crate::net::{Identity, IdentityError, Net, NetConfig, NetError, NetEvent, ObjectSource};
use crate::pool::{Pool, PoolError};
use crate::serve::{self, Front, ServeError, Serving};
use crate::traces::{self, Exporter, Exporting, Traces};

/// Events of this node's own that wait for the loop.
const EVENTS_WAITING_MAX: usize = 1024;
/// The addresses of all interfaces are told within this time.
const INTERFACES_WITHIN: Duration = Duration::from_millis(50);
/// Events of the mesh that wait for whoever reads `/v1/events` slowest: about a second of requests under full
/// load. What does not keep up is told how many it missed.
const EVENTS_KEPT_MAX: usize = 1024;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// ONNX Runtime is not to be had.
    #[error(transparent)]
    Library(#[from] runtime_library::LibraryError),
    /// ONNX Runtime does not work.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The machine could not be measured.
    #[error("this machine's speed could not be measured: {0}")]
    Calibrate(#[from] CalibrateError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The API.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A task that the node cannot be without broke down: a defect of this program.
    #[error("the node broke down, please report it: {0}")]
    Broken(#[from] tokio::task::JoinError),
    /// Another process runs with the identity of this node.
    #[error(
        "a copy of this node runs elsewhere in the mesh, with the same identity; remove `{key}` to start this one as a new \
         node, or end the other"
    )]
    Copied {
        /// The file that holds the identity.
        key: String,
    },
}

/// What a node says once it is ready.
#[derive(Debug, Serialize)]
pub struct Ready {
    /// Peer id.
    pub id: String,
    /// Label.
    pub label: String,
    /// Base URL of the API.
    pub api: String,
    /// Where the API over gRPC listens, address and port, if it does.
    pub grpc: Option<String>,
    /// Where other nodes reach it.
    pub addresses: Vec<String>,
    /// Mesh id.
    pub mesh: String,
}

/// What peers find at a node without the role `store`.
struct GivesNothing;

impl ObjectSource for GivesNothing {
    fn open(&self, _: ObjectId) -> Option<(File, u64)> {
        None
    }

    fn outline(&self, _: ObjectId) -> Option<(u64, Vec<u8>)> {
        None
    }
}

/// What of the wished memory partitions may take here.
fn budget_of(wished_bytes: u64) -> u64 {
    let memory_budget_bytes = monitor::memory_budget_bytes(wished_bytes);
    if memory_budget_bytes < wished_bytes {
        tracing::warn!(
            wished_bytes,
            memory_budget_bytes,
            "less than --memory-budget: the machine has no more, or its control group may take no more"
        );
    }
    memory_budget_bytes
}

/// Runs a node until `ended`; `ready` hears once that it serves.
///
/// # Errors
/// When it cannot start.
pub async fn run(
    config: NodeConfig,
    ready: impl FnOnce(&Ready),
    ended: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    // Held until this function ends.
    let _lock = config.lock()?;
    let key = config.data.join("node.key");
    let identity = Identity::load_or_create(&key)?;
    let pool = Arc::new(Pool::open(&config.data.join("objects"), config.disk_budget)?);
    let engine = open_engine(&config).await?;
    let speeds = engine::calibrate(&engine).await?.scaled(monitor::core_share());
    let (net, mut net_events) = Net::start(NetConfig {
        identity: identity.clone(),
        mesh: config.mesh.clone(),
        listen: config.listen.clone(),
        objects: if config.owner.roles.store { pool.clone() } else { Arc::new(GivesNothing) },
    })
    .await?;
    let (addresses, early) = first_addresses(&mut net_events, &config.listen).await;
    let (events, own_events) = mpsc::channel(EVENTS_WAITING_MAX);
    let generation = config.next_generation()?;
    let node = identity.node();
    let memory_budget_bytes = budget_of(config.memory_wished_bytes);
    let machine = machine_of(&config, addresses.clone(), speeds, memory_budget_bytes);
    let (traces, exporting) = export_traces(&config, node).unzip();
    let (watchers, _) = broadcast::channel(EVENTS_KEPT_MAX);
    let parts = Parts {
        identity,
        mesh: config.mesh.mesh_id(),
        generation,
        machine,
        join: config.join.clone(),
        net,
        pool: pool.clone(),
        contacts: config.data.join("contacts"),
        deployments: config.data.join("deployments"),
        starts: config.generation_file(),
        engine,
        owner: config.owner.clone(),
        domains: config.domains.clone(),
        power: config.power.map(|power| power.within(monitor::core_share())),
        memory_wished_bytes: config.memory_wished_bytes,
        memory_budget_bytes,
        watchers: watchers.clone(),
        traces,
    };
    let driver = Driver::new(parts, events.clone());
    let mut driving = tokio::spawn(driver.run(early, net_events, own_events));
    let front = Front {
        events: events.clone(),
        pool,
        token: config.api_token.clone(),
        watchers,
        stores: config.owner.roles.store,
    };
    // Served until it is dropped.
    let serving = serve::start(config.api, config.grpc, front).await?;
    ready(&ready_line(node, &config, &serving, &addresses));
    tokio::select! {
        () = ended => {}
        // A node without the loop would be a ghost.
        by_itself = &mut driving => return ended_as(by_itself?, &key),
    }
    let (done, left) = oneshot::channel();
    if events.send(Event::Leave(done)).await.is_ok() {
        // The record that says goodbye is on its way; the loop ends in any case.
        let _ = left.await;
    }
    drop(serving);
    end_export(exporting, driving).await;
    Ok(())
}

fn machine_of(
    config: &NodeConfig,
    addresses: Vec<String>,
    speeds: Speeds,
    memory_budget_bytes: u64,
) -> Machine {
    Machine {
        label: config.label.clone(),
        class: config.class,
        addresses,
        cores: u16::try_from(config.owner.cores_of(monitor::cores())).unwrap_or(u16::MAX),
        speeds,
        memory_budget_bytes,
    }
}

fn ended_as(ended: Ended, key: &Path) -> Result<(), NodeError> {
    match ended {
        Ended::Copied => Err(NodeError::Copied { key: key.display().to_string() }),
        Ended::Left => Ok(()),
    }
}

fn export_traces(config: &NodeConfig, node: NodeId) -> Option<(Traces, Exporting)> {
    let endpoint = config.otlp.clone()?;
    Some(traces::start(Exporter { endpoint, instance: node.to_string(), label: config.label.clone() }))
}

/// Waits a moment for what was told last; the loop has ended, and with it what tells.
async fn end_export(exporting: Option<Exporting>, driving: JoinHandle<Ended>) {
    if let Some(exporting) = exporting {
        let _ = driving.await;
        exporting.end().await;
    }
}

async fn open_engine(config: &NodeConfig) -> Result<Engine, NodeError> {
    let search = config.library.clone();
    let library = tokio::task::spawn_blocking(move || {
        runtime_library::find_or_obtain(&search, &|step| tracing::info!("ONNX Runtime: {step}"))
    })
    .await??;
    let permits = NonZeroUsize::new(config.owner.cores_of(monitor::cores())).unwrap_or(NonZeroUsize::MIN);
    let engine = EngineConfig { library, permits, batch_within: config.batch_within };
    Ok(tokio::task::spawn_blocking(move || Engine::open(&engine)).await??)
}

/// The addresses that listening gives, and what else happened meanwhile. Each is told at once, or an error was
/// returned before; who listens everywhere has one for each interface.
async fn first_addresses(
    events: &mut mpsc::Receiver<NetEvent>,
    listen: &[String],
) -> (Vec<String>, Vec<NetEvent>) {
    let is_everywhere = |address: &String| address.contains("/0.0.0.0/") || address.contains("/::/");
    let more = if listen.iter().any(is_everywhere) { INTERFACES_WITHIN } else { Duration::ZERO };
    let (mut addresses, mut others) = (Vec::new(), Vec::new());
    while others.len() < EVENTS_WAITING_MAX {
        let event = match addresses.len() < listen.len() {
            true => events.recv().await,
            false => tokio::time::timeout(more, events.recv()).await.unwrap_or(None),
        };
        match event {
            Some(NetEvent::Listening(address)) => addresses.push(address),
            Some(other) => others.push(other),
            None => break,
        }
    }
    (announced(addresses), others)
}

/// Those of these addresses that others are told: no more than a record holds, what leads to this machine alone last.
fn announced(mut addresses: Vec<String>) -> Vec<String> {
    let is_local = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    addresses.sort_by_key(is_local);
    let mut known = BTreeSet::new();
    addresses.retain(|address| known.insert(address.clone()));
    if addresses.len() > ADDRESSES_MAX {
        let left_out = addresses.split_off(ADDRESSES_MAX);
        tracing::warn!(
            left_out = left_out.join(" "),
            "this machine has more addresses than others are told; name those that matter with --listen"
        );
    }
    addresses
}

fn ready_line(node: NodeId, config: &NodeConfig, serving: &Serving, addresses: &[String]) -> Ready {
    Ready {
        id: node.to_string(),
        label: config.label.clone(),
        api: format!("http://{}", serving.api),
        grpc: serving.grpc.map(|grpc| grpc.to_string()),
        addresses: addresses.iter().map(|address| format!("{address}/p2p/{node}")).collect(),
        mesh: config.mesh.mesh_id().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_addresses_are_told_than_a_record_holds_and_local_ones_go_first() {
        let mut found = vec!["/ip4/127.0.0.1/tcp/4001".to_owned(), "/ip4/10.0.0.1/tcp/4001".to_owned()];
        found.extend((1..=7).map(|net| format!("/ip4/172.17.{net}.1/tcp/4001")));
        found.push("/ip4/10.0.0.1/tcp/4001".to_owned());
        let told = announced(found.clone());
        assert_eq!(told.len(), ADDRESSES_MAX);
        assert_eq!(told[..2], [found[1].clone(), found[2].clone()]);
        assert!(!told.contains(&found[0]));
        assert_eq!(announced(found[..2].to_vec()), [found[1].clone(), found[0].clone()]);
    }
}
