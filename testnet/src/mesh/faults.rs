//! What a scenario does to a running mesh: nodes killed, frozen and started again, links changed and
//! cut, machines slowed down. Where the mesh runs on loopback, what needs more says so.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Mesh, START_MAX};
use crate::ground::{EMULATION, Emulated};
use crate::link::{LinkSpec, LinkSpecError};
use crate::process::{self, Node, StartError, StartingNode};
use crate::wait;

/// What a disk is filled with.
const FILLING: &str = "filled-by-the-testnet";
/// Pieces that it is filled in: large ones, then pages.
const PIECES_BYTES: [usize; 2] = [1 << 20, 4096];

/// Between two looks at a node that starts again.
const LOOK: Duration = Duration::from_millis(20);

/// A node that was started again and is not known to be ready.
#[derive(Debug)]
pub(super) struct Restarting {
    label: String,
    starting: StartingNode,
    until: Instant,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// Plain processes cannot do it.
    #[error("{what} needs {EMULATION} (root, and /dev/net/tun), and this mesh runs on loopback")]
    NeedsEmulation {
        /// What was asked for.
        what: &'static str,
    },
    /// No such node.
    #[error("no node is called `{0}`")]
    UnknownNode(String),
    /// A node would be on both sides of a partition.
    #[error("node `{0}` is in two groups of a partition")]
    TwoGroups(String),
    /// There can be no such link.
    #[error("link from `{from}` to `{to}`: {cause}")]
    Link {
        /// One end.
        from: String,
        /// The other.
        to: String,
        /// What cannot be meant.
        cause: LinkSpecError,
    },
    /// The system refused.
    #[error("node `{label}`: {what}: {cause}")]
    System {
        /// The node.
        label: String,
        /// What was asked for.
        what: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// It did not start again.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Mesh {
    /// Kills a node (SIGKILL). Its machine stays: connections are closed for it.
    ///
    /// # Errors
    /// When there is no such node, or the system refuses.
    pub fn kill(&mut self, label: &str) -> Result<(), FaultError> {
        self.on_node(label, "kill", Node::kill)
    }

    /// Lets a node stand still; its connections stay open.
    ///
    /// # Errors
    /// When there is no such node, it has ended, or the system refuses.
    pub fn freeze(&mut self, label: &str) -> Result<(), FaultError> {
        self.on_node(label, "freeze", Node::freeze)
    }

    /// Lets a frozen node go on.
    ///
    /// # Errors
    /// As [`Mesh::freeze`].
    pub fn thaw(&mut self, label: &str) -> Result<(), FaultError> {
        self.on_node(label, "thaw", Node::thaw)
    }

    /// Kills a node if it runs, and starts it with what is on its disk; waits until it is ready. One
    /// that lost power has it again.
    ///
    /// # Errors
    /// When there is no such node, or it does not start.
    pub fn restart(&mut self, label: &str) -> Result<(), FaultError> {
        self.begin_restart(label)?;
        loop {
            if let Some(restarted) = self.restarted(label) {
                return restarted;
            }
            if !wait::until_instant(Instant::now() + LOOK, || false) {
                return Err(system(label, "a start")(io::ErrorKind::Interrupted.into()));
            }
        }
    }

    /// The same, without waiting until it is ready: [`Mesh::restarted`] tells.
    ///
    /// # Errors
    /// When there is no such node, it starts already, or its process cannot be made.
    pub fn begin_restart(&mut self, label: &str) -> Result<(), FaultError> {
        if self.is_starting(label) {
            return Err(system(label, "a start")(io::Error::other("it has not yet started again as it is")));
        }
        self.kill(label)?;
        let spec = self.node_or_error(label)?.spec.clone();
        let admission = self.admission();
        if let Some(emulated) = self.ground.emulated() {
            emulated.network.set_power(label, true).map_err(system(label, "power"))?;
        }
        let place = self.place(&spec);
        let (folder, domains) = (self.folder_of(&spec), self.topology.failure_domains_of(&spec));
        let starting = process::start(&self.stormo.binary, place, &spec, folder, &admission, &domains)?;
        let until = Instant::now() + START_MAX;
        self.starting.push(Restarting { label: label.to_owned(), starting, until });
        Ok(())
    }

    /// Whether a node was started again and is not known to be ready.
    pub fn is_starting(&self, label: &str) -> bool {
        self.starting.iter().any(|other| other.label == label)
    }

    /// Whether a node that was started again is ready by now, or never will be; `None` while it starts. Told
    /// once.
    pub fn restarted(&mut self, label: &str) -> Option<Result<(), FaultError>> {
        let place = self.starting.iter().position(|other| other.label == label)?;
        let other = &mut self.starting[place];
        let is_settled = other.starting.is_settled();
        if !is_settled && Instant::now() < other.until {
            return None;
        }
        let starting = self.starting.remove(place).starting;
        if !is_settled {
            return Some(Err(starting.too_late(START_MAX).into()));
        }
        let node = match starting.wait(Duration::ZERO, &mut |_| {}) {
            Ok(node) => node,
            Err(error) => return Some(Err(error.into())),
        };
        // In its place, so that the order of nodes stays that of the topology.
        if let Some(place) = self.nodes.iter_mut().find(|other| other.label() == label) {
            *place = node;
        }
        Some(Ok(()))
    }

    /// Takes a node's power: nothing of it is sent any more, not even that its connections close.
    ///
    /// # Errors
    /// When the mesh runs on loopback, or there is no such node.
    pub fn power_loss(&mut self, label: &str) -> Result<(), FaultError> {
        self.emulated(&[label], "loss of power")?
            .network
            .set_power(label, false)
            .map_err(system(label, "power"))?;
        self.kill(label)
    }

    /// The link from one node to another as it is now.
    ///
    /// # Errors
    /// When the mesh runs on loopback, or there is no such node.
    pub fn link(&self, from: &str, to: &str) -> Result<LinkSpec, FaultError> {
        self.emulated(&[from, to], "a link")?.network.link(from, to).map_err(system(from, "a link"))
    }

    /// Changes the link from one node to another, this direction only.
    ///
    /// # Errors
    /// When the mesh runs on loopback, there is no such node, or no such link can be.
    pub fn set_link(&mut self, from: &str, to: &str, spec: &LinkSpec) -> Result<(), FaultError> {
        let emulated = self.emulated(&[from, to], "a changed link")?;
        let impossible = |cause| FaultError::Link { from: from.to_owned(), to: to.to_owned(), cause };
        spec.check().map_err(impossible)?;
        emulated.network.set_link(from, to, *spec).map_err(system(from, "a changed link"))
    }

    /// Cuts the way from one node to another; the way back stays.
    ///
    /// # Errors
    /// As [`Mesh::link`].
    pub fn cut(&mut self, from: &str, to: &str) -> Result<(), FaultError> {
        self.set_cut(from, to, true)
    }

    /// Mends the way from one node to another.
    ///
    /// # Errors
    /// As [`Mesh::link`].
    pub fn mend(&mut self, from: &str, to: &str) -> Result<(), FaultError> {
        self.set_cut(from, to, false)
    }

    /// Cuts both ways between two nodes.
    ///
    /// # Errors
    /// As [`Mesh::link`].
    pub fn cut_both_ways(&mut self, one: &str, other: &str) -> Result<(), FaultError> {
        self.cut(one, other)?;
        self.cut(other, one)
    }

    /// Mends both ways between two nodes.
    ///
    /// # Errors
    /// As [`Mesh::link`].
    pub fn mend_both_ways(&mut self, one: &str, other: &str) -> Result<(), FaultError> {
        self.mend(one, other)?;
        self.mend(other, one)
    }

    /// Cuts every way between nodes of different groups. A node of no group keeps all its links.
    ///
    /// # Errors
    /// When the mesh runs on loopback, there is no such node, or one is in two groups.
    pub fn partition(&mut self, groups: &[&[&str]]) -> Result<(), FaultError> {
        let labels: Vec<&str> = groups.iter().flat_map(|group| group.iter().copied()).collect();
        if let Some((_, twice)) = labels.iter().enumerate().find(|(at, label)| labels[..*at].contains(label))
        {
            return Err(FaultError::TwoGroups((*twice).to_owned()));
        }
        for (at, group) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(other, _)| *other != at);
            for to in others.flat_map(|(_, other)| other.iter()) {
                group.iter().try_for_each(|from| self.cut(from, to))?;
            }
        }
        Ok(())
    }

    /// Mends every cut of a link, and what a partition cut. Other changes of links stay, and a node
    /// that lost its power has none until [`Mesh::restart`].
    ///
    /// # Errors
    /// When the mesh runs on loopback.
    pub fn heal(&mut self) -> Result<(), FaultError> {
        self.emulated(&[], "healing of links")?.network.heal().map_err(system("any", "healing of links"))
    }

    /// Changes the rates of all that a node sends and receives, bit/s; `None` is no limit.
    ///
    /// # Errors
    /// When the mesh runs on loopback, there is no such node, or a rate is 0.
    pub fn set_uplink(&mut self, label: &str, up: Option<u64>, down: Option<u64>) -> Result<(), FaultError> {
        let emulated = self.emulated(&[label], "a changed uplink")?;
        if let Some(cause) = [up, down].contains(&Some(0)).then_some(LinkSpecError::NoRate) {
            return Err(FaultError::Link { from: label.to_owned(), to: "all others".to_owned(), cause });
        }
        emulated.network.set_rates(label, up, down).map_err(system(label, "a changed uplink"))
    }

    /// Changes the share of one core that a node may take; `None` is all there is.
    ///
    /// # Errors
    /// When the mesh runs on loopback, there is no such node, or the system refuses.
    pub fn set_cpu(&mut self, label: &str, share: Option<f64>) -> Result<(), FaultError> {
        let emulated = self.emulated(&[label], "a share of a core")?;
        emulated.set_cpu(label, share).map_err(system(label, "a share of a core"))
    }

    /// Changes the memory that a node may take before the kernel ends it, bytes; `None` is no limit. One that
    /// holds more already ends at once.
    ///
    /// # Errors
    /// As [`Mesh::set_cpu`].
    pub fn set_memory(&mut self, label: &str, bytes: Option<u64>) -> Result<(), FaultError> {
        let emulated = self.emulated(&[label], "a limit of memory")?;
        emulated.set_memory(label, bytes).map_err(system(label, "a limit of memory"))
    }

    /// Whether the kernel ended a process of a node for want of memory, or the testnet in its place.
    pub fn was_out_of_memory(&self, label: &str) -> bool {
        self.ground.emulated().is_some_and(|emulated| emulated.was_out_of_memory(label))
    }

    /// Whether a node's battery was empty at some time.
    pub fn was_without_power(&self, label: &str) -> bool {
        self.ground.emulated().is_some_and(|emulated| emulated.was_without_power(label))
    }

    /// Sets a node's battery to a share of its capacity, 0 to 1.
    ///
    /// # Errors
    /// When the mesh runs on loopback, there is no such node, or it has no battery.
    pub fn set_battery(&mut self, label: &str, level: f64) -> Result<(), FaultError> {
        let emulated = self.emulated(&[label], "a battery")?;
        emulated.set_battery(label, level).map_err(system(label, "a battery"))
    }

    /// Puts a node's wall clock off by so many seconds; it must have been started with one of its own.
    ///
    /// # Errors
    /// When there is no such node, its clock is the machine's, or the system refuses.
    pub fn set_clock(&mut self, label: &str, offset_s: f64) -> Result<(), FaultError> {
        self.on_node(label, "another time", |node| node.set_clock(offset_s))
    }

    /// Fills a node's disk to the last page. Only a disk of its own is filled.
    ///
    /// # Errors
    /// When the mesh runs on loopback, there is no such node, its topology gives it no disk, or the system
    /// refuses.
    pub fn fill_disk(&mut self, label: &str) -> Result<(), FaultError> {
        self.emulated(&[label], "a full disk")?;
        let node = self.node_or_error(label)?;
        if node.spec.disk_bytes.is_none() {
            let cause = io::Error::other("the topology gives it no `disk` of its own");
            return Err(system(label, "a full disk")(cause));
        }
        fill(&node.data().join(FILLING)).map_err(system(label, "a full disk"))
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When there is no such node, or the system refuses.
    pub fn free_disk(&mut self, label: &str) -> Result<(), FaultError> {
        let filling = self.node_or_error(label)?.data().join(FILLING);
        fs::remove_file(filling).map_err(system(label, "room on its disk"))
    }

    fn set_cut(&mut self, from: &str, to: &str, cut: bool) -> Result<(), FaultError> {
        let spec = LinkSpec { cut, ..self.link(from, to)? };
        self.set_link(from, to, &spec)
    }

    fn on_node(
        &mut self,
        label: &str,
        what: &'static str,
        act: impl FnOnce(&mut Node) -> io::Result<()>,
    ) -> Result<(), FaultError> {
        let node = self.nodes.iter_mut().find(|node| node.label() == label);
        let node = node.ok_or_else(|| FaultError::UnknownNode(label.to_owned()))?;
        act(node).map_err(system(label, what))
    }

    fn node_or_error(&self, label: &str) -> Result<&Node, FaultError> {
        let node = self.nodes.iter().find(|node| node.label() == label);
        node.ok_or_else(|| FaultError::UnknownNode(label.to_owned()))
    }

    /// The emulated ground, for something that is done to these nodes.
    fn emulated(&self, labels: &[&str], what: &'static str) -> Result<&Emulated, FaultError> {
        labels.iter().try_for_each(|label| self.node_or_error(label).map(drop))?;
        self.ground.emulated().ok_or(FaultError::NeedsEmulation { what })
    }
}

fn system(label: &str, what: &'static str) -> impl FnOnce(io::Error) -> FaultError {
    let label = label.to_owned();
    move |cause| FaultError::System { label, what, cause }
}

/// Writes zeros until the disk takes no more.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    for piece in PIECES_BYTES {
        let zeros = vec![0; piece];
        loop {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
