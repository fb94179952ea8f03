//! A mesh of node processes on this machine, from its key to its end.

mod faults;
mod spending;

pub use faults::FaultError;
use faults::Restarting;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use stormo::serve::json::NodeView;

use crate::commands::{CommandError, Stormo};
use crate::counted::counted;
use crate::folder::RunFolder;
use crate::ground::network::Network;
use crate::ground::place::Place;
use crate::ground::{BatteryState, Emulated, Ground, GroundError, GroundKind, leftovers};
use crate::process::{self, Admission, Node, StartError, StartingNode};
use crate::topology::{NodeSpec, Topology};
use crate::wait::{self, WaitError};

/// The first node may have to obtain ONNX Runtime (28 MB), for which it takes up to ten minutes.
const FIRST_START_MAX: Duration = Duration::from_secs(11 * 60);
/// A node that finds everything there is ready in well under a second; ten of them share two cores.
const START_MAX: Duration = Duration::from_secs(60);
/// Each computes for a moment when it starts, to know how fast it is: fifty at once on two cores would
/// not be ready in time.
const STARTS_AT_ONCE: usize = 10;
/// The start of more nodes than these is told as it goes.
const MANY: usize = 16;
/// A node leaves within this time, or is killed.
const END_MAX: Duration = Duration::from_secs(5);
/// Neighbours that a node keeps: in a larger mesh not every pair has measured its link.
const NEIGHBOURS: usize = 8;

/// Why a mesh did not come up.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// No place for its files.
    #[error("no folder for the mesh: {0}")]
    Folder(io::Error),
    /// No key.
    #[error(transparent)]
    Key(#[from] CommandError),
    /// Nothing to stand on.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// A node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A node that did not leave and end by itself with exit code 0 when asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEnd {
    /// The node.
    pub label: String,
    /// How it ended; `None` when it had to be killed.
    pub status: Option<ExitStatus>,
}

/// Node processes that know each other. All end with it, and its folder goes.
#[derive(Debug)]
pub struct Mesh {
    // In this order: ground and folder go after the nodes.
    nodes: Vec<Node>,
    starting: Vec<Restarting>,
    ground: Ground,
    stormo: Stormo,
    mesh_key: PathBuf,
    folder: RunFolder,
    /// What it was started as.
    topology: Topology,
}

impl Mesh {
    /// Starts a mesh on loopback; see [`Mesh::start_on`].
    ///
    /// # Errors
    /// When the key cannot be made, or a node does not start.
    pub fn start(binary: &Path, topology: &Topology, show: &mut dyn FnMut(&str)) -> Result<Self, MeshError> {
        Self::start_on(GroundKind::Loopback, binary, topology, show)
    }

    /// Makes a mesh key and starts the nodes, the first one alone: should ONNX Runtime have to be
    /// obtained, one does it for all. `show` gets what a node says when its start takes long.
    ///
    /// The calling thread must live as long as the mesh: the kernel ends a node with the thread
    /// that started it.
    ///
    /// # Errors
    /// When there is nothing to stand on, the key cannot be made, or a node does not start.
    pub fn start_on(
        ground: GroundKind,
        binary: &Path,
        topology: &Topology,
        show: &mut dyn FnMut(&str),
    ) -> Result<Self, MeshError> {
        leftovers::clean();
        let folder = RunFolder::create().map_err(MeshError::Folder)?;
        let ground = Ground::start(ground, topology, &folder, show)?;
        let stormo = Stormo { binary: binary.to_owned() };
        let mesh_key = stormo.init(&folder.path().join("mesh"))?;
        let mut mesh = Self {
            nodes: Vec::new(),
            starting: Vec::new(),
            ground,
            stormo,
            mesh_key,
            folder,
            topology: topology.clone(),
        };
        if let Some((first, others)) = topology.nodes.split_first() {
            let first = mesh.begin(first)?.wait(FIRST_START_MAX, show)?;
            mesh.nodes.push(first);
            for some in others.chunks(STARTS_AT_ONCE) {
                let starting = some.iter().map(|spec| mesh.begin(spec)).collect::<Result<Vec<_>, _>>()?;
                for node in starting {
                    mesh.nodes.push(node.wait(START_MAX, show)?);
                }
                if others.len() > MANY {
                    show(&format!("{} of {} run\n", mesh.nodes.len(), counted(topology.nodes.len(), "node")));
                }
            }
        }
        Ok(mesh)
    }

    /// Starts one more node, which joins by the first one that runs. In place of a node of the same
    /// label that has ended, it takes up that one's data directory and so its identity.
    ///
    /// # Errors
    /// When it does not start.
    pub fn add(&mut self, spec: &NodeSpec) -> Result<&mut Node, StartError> {
        let admission = self.admission();
        self.add_by(spec, &admission)
    }

    /// Starts one more node, let in some other way; for the rest as [`Mesh::add`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn add_by(&mut self, spec: &NodeSpec, admission: &Admission) -> Result<&mut Node, StartError> {
        let starting = self.start_by(spec, admission)?;
        self.added(starting)
    }

    /// Starts one more node by exactly these arguments (and `--json`, `--data`): its label and the
    /// rest of `spec` must be among them. For the rest as [`Mesh::add`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn add_with(&mut self, spec: &NodeSpec, arguments: &[OsString]) -> Result<&mut Node, StartError> {
        let starting = process::start_with(
            &self.stormo.binary,
            self.place(spec),
            spec,
            self.folder_of(spec),
            arguments,
        )?;
        self.added(starting)
    }

    fn added(&mut self, starting: StartingNode) -> Result<&mut Node, StartError> {
        let node = starting.wait(START_MAX, &mut |_| {})?;
        self.nodes.retain(|other| other.label() != node.label());
        self.nodes.push(node);
        let last = self.nodes.len() - 1;
        Ok(&mut self.nodes[last])
    }

    fn begin(&mut self, spec: &NodeSpec) -> Result<StartingNode, StartError> {
        let admission = self.admission();
        self.start_by(spec, &admission)
    }

    fn start_by(&self, spec: &NodeSpec, admission: &Admission) -> Result<StartingNode, StartError> {
        let domains = self.topology.failure_domains_of(spec);
        let folder = self.folder_of(spec);
        process::start(&self.stormo.binary, self.place(spec), spec, folder, admission, &domains)
    }

    /// By the key, at the first node that runs.
    pub fn admission(&mut self) -> Admission {
        let mut running = self.nodes.iter_mut().filter_map(|node| node.ended().is_none().then_some(node));
        let join = running.next().map(|node| node.ready.addresses.clone()).unwrap_or_default();
        Admission::Key { file: self.mesh_key.clone(), join }
    }

    fn place<'a>(&'a self, spec: &'a NodeSpec) -> Place<'a> {
        Place { ground: &self.ground, label: &spec.label }
    }

    /// The emulated network, if this mesh has one.
    pub fn network(&self) -> Option<&Network> {
        self.ground.emulated().map(|emulated| &*emulated.network)
    }

    /// The batteries of its nodes, as they are now.
    pub fn batteries(&self) -> Vec<BatteryState> {
        self.ground.emulated().map(Emulated::batteries).unwrap_or_default()
    }

    /// The data folder of a node, which may have yet to start.
    pub fn data_of(&self, spec: &NodeSpec) -> PathBuf {
        process::data_in(&self.folder_of(spec))
    }

    fn folder_of(&self, spec: &NodeSpec) -> PathBuf {
        self.folder.path().join(&spec.label)
    }

    /// All nodes, ended ones too, in the order of their start.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All nodes, to do something to.
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The node of this label.
    ///
    /// # Panics
    /// When there is none: whoever asks wrote the topology.
    pub fn node(&self, label: &str) -> &Node {
        let node = self.nodes.iter().find(|node| node.label() == label);
        node.unwrap_or_else(|| panic!("no node is called {label}"))
    }

    /// The node of this label, to do something to.
    ///
    /// # Panics
    /// When there is none: whoever asks wrote the topology.
    pub fn node_mut(&mut self, label: &str) -> &mut Node {
        let node = self.nodes.iter_mut().find(|node| node.label() == label);
        node.unwrap_or_else(|| panic!("no node is called {label}"))
    }

    /// The commands of the binary that the nodes run.
    pub fn stormo(&self) -> &Stormo {
        &self.stormo
    }

    /// The folder of the mesh key, for `stormo invite --data`.
    pub fn key_folder(&self) -> &Path {
        self.mesh_key.parent().unwrap_or(&self.mesh_key)
    }

    /// Where data and logs are, a folder for each node.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until every running node lists `count` usable nodes that have measured their links.
    ///
    /// # Errors
    /// When that is not so in time.
    pub fn wait_for_nodes(&mut self, count: usize, within: Duration) -> Result<(), WaitError> {
        let what = format!("every node to know {} and the links between them", counted(count, "node"));
        wait::until(&what, within, || {
            self.nodes.iter_mut().filter_map(|node| node.ended().is_none().then_some(&*node)).try_for_each(
                |node| {
                    let seen = node.client.nodes().map_err(|error| error.to_string())?;
                    knows(&seen, count).map_err(|missing| format!("{} {missing}", node.label()))
                },
            )
        })
    }

    /// Waits until every running node has heard of `count` nodes, whether or not it has links to them all,
    /// and has heard of them lately.
    ///
    /// # Errors
    /// When that is not so in time.
    pub fn wait_for_views(&mut self, count: usize, within: Duration) -> Result<(), WaitError> {
        wait::until(&format!("every node to know {}", counted(count, "node")), within, || {
            self.nodes.iter_mut().filter_map(|node| node.ended().is_none().then_some(&*node)).try_for_each(
                |node| {
                    let known = node.client.nodes().map_err(|error| error.to_string())?.len();
                    if known == count {
                        Ok(())
                    } else {
                        Err(format!("{} knows {}", node.label(), counted(known, "node")))
                    }
                },
            )
        })
    }

    /// How many nodes that run have heard of `count` nodes lately.
    pub fn knowing(&mut self, count: usize) -> usize {
        let running = self.nodes.iter_mut().filter_map(|node| node.ended().is_none().then_some(&*node));
        running.filter(|node| node.client.nodes().is_ok_and(|known| known.len() == count)).count()
    }

    /// Asks all nodes to leave, and waits until they have ended; kills those that do not. Lists
    /// those that were running and did not end by themselves with exit code 0.
    pub fn end(&mut self) -> Vec<BadEnd> {
        // Whoever wanted these has been told that they were not ready; they end with their owner.
        self.starting.clear();
        let mut running: Vec<&mut Node> =
            self.nodes.iter_mut().filter_map(|node| node.ended().is_none().then_some(node)).collect();
        running.iter_mut().for_each(|node| node.ask_to_end());
        wait::even_if_interrupted(END_MAX, || running.iter_mut().all(|node| node.ended().is_some()));
        let mut bad = Vec::new();
        for node in running {
            let status = node.ended();
            if !status.is_some_and(|status| status.success()) {
                bad.push(BadEnd { label: node.label().to_owned(), status });
            }
            // Should even this fail, the child's own drop tries again.
            let _ = node.kill();
        }
        bad
    }

    /// Ends it and keeps its folder; says where that is now.
    pub fn end_and_keep_folder(mut self) -> PathBuf {
        self.end();
        self.folder.keep()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a view lacks.
fn knows(seen: &[NodeView], count: usize) -> Result<(), String> {
    let usable: Vec<&NodeView> = seen.iter().filter(|node| node.usable).collect();
    if usable.len() != count {
        return Err(format!("knows {} usable nodes", usable.len()));
    }
    let links_wanted = count.saturating_sub(1).min(NEIGHBOURS);
    match usable.iter().find(|node| node.links.len() < links_wanted) {
        Some(node) => {
            Err(format!("knows {} of {} of {}", node.links.len(), counted(links_wanted, "link"), node.label))
        }
        None => Ok(()),
    }
}
