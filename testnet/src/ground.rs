//! What nodes stand on: plain processes on loopback, or machines and links of their own. Links between
//! machines are emulated by a switch in this process; see `link` for what they do.

mod cgroup;
pub(crate) mod disk;
mod forward;
mod frame;
pub mod leftovers;
mod namespace;
mod nat;
pub mod network;
pub(crate) mod place;
mod pump;
mod route;
mod supply;
mod switch;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use stormo::app::config::library_search;
use stormo::engine::runtime_library;

use crate::folder::RunFolder;
use crate::process;
use crate::topology::{NodeSpec, Topology};
use cgroup::Machine;
use disk::Disk;
use network::Network;
use supply::Supplies;

pub use supply::BatteryState;
pub use switch::Dropped;

/// What plain processes have not, for those who are told that they need it.
pub const EMULATION: &str = "emulated links and machines";

/// What a mesh shall stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroundKind {
    /// Plain processes on loopback: no limits, no links to change.
    Loopback,
    /// A network namespace and control groups for each node, and a switch between them.
    Emulated {
        /// Of the links' chances.
        seed: u64,
    },
}

impl GroundKind {
    /// Emulated where the topology asks for something that plain processes do not have.
    ///
    /// # Errors
    /// What it would take, where that cannot be had here.
    pub fn for_topology(topology: &Topology, seed: u64) -> Result<Self, String> {
        if !topology.is_shaped() {
            return Ok(Self::Loopback);
        }
        network::is_possible().map(|()| Self::Emulated { seed })
    }
}

/// Why there is no ground.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// Emulation cannot be had here.
    #[error("this mesh needs {EMULATION}: {0} (on loopback it would have none of its links and limits)")]
    Impossible(String),
    /// Nodes without a way to the internet need ONNX Runtime to be there.
    #[error(transparent)]
    Library(#[from] runtime_library::LibraryError),
    /// The network could not be made.
    #[error("no emulated network: {0}")]
    Network(io::Error),
    /// A machine could not be made.
    #[error("node `{label}`: no {what}: {cause}")]
    Machine {
        /// The node.
        label: String,
        /// What of it.
        what: &'static str,
        /// What the system says.
        cause: io::Error,
    },
}

/// What a mesh stands on.
#[derive(Debug)]
pub(crate) enum Ground {
    Loopback,
    Emulated(Emulated),
}

/// A network, and a machine for each node.
#[derive(Debug)]
pub(crate) struct Emulated {
    // In this order: what looks at machines goes before them.
    supplies: Supplies,
    pub(crate) network: Arc<Network>,
    machines: BTreeMap<String, Arc<Machine>>,
    /// Held until their nodes are gone.
    _disks: Vec<Disk>,
}

impl Ground {
    /// Makes it. `show` gets what is said while ONNX Runtime is obtained.
    pub(crate) fn start(
        kind: GroundKind,
        topology: &Topology,
        folder: &RunFolder,
        show: &mut dyn FnMut(&str),
    ) -> Result<Self, GroundError> {
        let GroundKind::Emulated { seed } = kind else { return Ok(Self::Loopback) };
        network::is_possible().map_err(GroundError::Impossible)?;
        let said = std::cell::RefCell::new(show);
        runtime_library::find_or_obtain(&library_search(None), &|line| {
            (said.borrow_mut())(&format!("{line}\n"));
        })?;
        let mut machines = BTreeMap::new();
        let mut disks = Vec::new();
        for node in &topology.nodes {
            machines.insert(node.label.clone(), Arc::new(machine(node, folder.run_id())?));
            disks.extend(disk(node, folder.path())?);
        }
        let network = Arc::new(Network::start(topology, seed).map_err(GroundError::Network)?);
        let with_battery = topology.nodes.iter().filter_map(|node| {
            let supply = folder.path().join(&node.label).join("power_supply/BAT0");
            Some((node.label.clone(), machines.get(&node.label)?.clone(), node.battery?, supply))
        });
        let supplies =
            Supplies::start(with_battery.collect(), network.clone()).map_err(GroundError::Network)?;
        Ok(Self::Emulated(Emulated { supplies, network, machines, _disks: disks }))
    }

    /// The emulated network and machines, if that is what it is.
    pub(crate) fn emulated(&self) -> Option<&Emulated> {
        match self {
            Self::Loopback => None,
            Self::Emulated(emulated) => Some(emulated),
        }
    }
}

impl Emulated {
    /// Limits a node to a share of one core.
    pub(crate) fn set_cpu(&self, label: &str, share: Option<f64>) -> io::Result<()> {
        self.machine(label)?.set_cpu(share)
    }

    /// Limits a node's memory, bytes.
    pub(crate) fn set_memory(&self, label: &str, bytes: Option<u64>) -> io::Result<()> {
        self.machine(label)?.set_memory(bytes)
    }

    /// Whether a process of a node was ended for want of memory.
    pub(crate) fn was_out_of_memory(&self, label: &str) -> bool {
        self.machines.get(label).is_some_and(|machine| machine.was_out_of_memory())
    }

    /// Whether a node's battery was empty at some time.
    pub(crate) fn was_without_power(&self, label: &str) -> bool {
        self.supplies.was_empty(label)
    }

    /// The batteries as they are now.
    pub(crate) fn batteries(&self) -> Vec<BatteryState> {
        self.supplies.states()
    }

    /// Sets a node's battery to a share of its capacity.
    pub(crate) fn set_battery(&self, label: &str, level: f64) -> io::Result<()> {
        self.supplies.set_level(label, level)
    }

    fn machine(&self, label: &str) -> io::Result<&Arc<Machine>> {
        self.machines.get(label).ok_or_else(|| io::Error::other("there is no such machine"))
    }
}

fn machine(node: &NodeSpec, run_id: &str) -> Result<Machine, GroundError> {
    let failed = |what| move |cause| GroundError::Machine { label: node.label.clone(), what, cause };
    let machine = Machine::make(run_id, &node.label).map_err(failed("control group"))?;
    if node.cpu_share.is_some() {
        machine.set_cpu(node.cpu_share).map_err(failed("share of a core"))?;
    }
    if node.memory_bytes.is_some() {
        machine.set_memory(node.memory_bytes).map_err(failed("limit of memory"))?;
    }
    Ok(machine)
}

fn disk(node: &NodeSpec, folder: &Path) -> Result<Option<Disk>, GroundError> {
    let mounted =
        node.disk_bytes.map(|bytes| Disk::mount(process::data_in(&folder.join(&node.label)), bytes));
    let failed = |cause| GroundError::Machine { label: node.label.clone(), what: "disk", cause };
    mounted.transpose().map_err(failed)
}
