//! Meshes as data: the files under `topologies/`, read and checked. What their keys mean stands in
//! `topologies/README.md`.

mod check;
mod file;
mod quantity;
#[cfg(test)]
mod tests;
mod told;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
pub use stormo_protocol::state::DomainKind;
use stormo_protocol::state::{Class, Domain};

use crate::battery::BatterySpec;
use crate::link::LinkSpec;
use crate::rules;

/// Nodes of a mesh of processes on one machine; a guess at what two cores still carry.
pub const NODES_MAX: usize = 64;
/// Cores that the shares of all nodes may add up to: half a core is left for switch and load.
pub const CPU_SHARES_MAX: f64 = 1.5;
/// A node with a smaller share of a core says too seldom that it lives.
pub const CPU_SHARE_MIN: f64 = 0.01;
/// A node with less memory is ended by the kernel while it starts, bytes.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// A node with less of a disk cannot keep its key and its list of objects, bytes.
pub const DISK_BYTES_MIN: u64 = 1 << 20;

/// A mesh to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// What it is for.
    pub about: String,
    /// Its nodes; the first is started first, and the others join it.
    pub nodes: Vec<NodeSpec>,
    /// What fails together.
    pub domains: Vec<DomainSpec>,
    /// What nodes may be behind.
    pub nats: Vec<NatSpec>,
    /// What every link is like that no rule is about.
    pub default_link: LinkSpec,
    /// Other links; of those that match, the last one holds.
    pub link_rules: Vec<LinkRule>,
}

/// A node to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSpec {
    /// Name, unique in its mesh.
    pub label: String,
    /// Kind of machine that it stands for.
    pub class: Class,
    /// Memory that partitions may take, as the node is told.
    pub memory_budget_bytes: u64,
    /// Share of one core that the process may take; `None` is all there is.
    pub cpu_share: Option<f64>,
    /// Memory that the process may take before the kernel ends it, bytes.
    pub memory_bytes: Option<u64>,
    /// Size of the disk that holds its data, bytes.
    pub disk_bytes: Option<u64>,
    /// What it runs on, if that is used up.
    pub battery: Option<BatterySpec>,
    /// Rate of all it sends, bit/s.
    pub uplink_bits_per_s: Option<u64>,
    /// Rate of all it receives, bit/s.
    pub downlink_bits_per_s: Option<u64>,
    /// Names of the domains that it is in.
    pub domains: Vec<String>,
    /// Name of the address translation that it is behind.
    pub behind: Option<String>,
    /// Whether its wall clock can be put wrong; no file says so, but a fault may need it.
    pub has_own_clock: bool,
    /// What its log shows (`STORMO_LOG`), if not what it shows by itself; no file says so.
    pub log_filter: Option<String>,
}

/// What fails together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    /// Name, unlike that of any node, domain or translation.
    pub name: String,
    /// What its nodes share.
    pub kind: DomainKind,
    /// Name of the domain that all of it is in.
    pub within: Option<String>,
    /// Rate of all that leaves it, bit/s.
    pub uplink_bits_per_s: Option<u64>,
    /// Rate of all that enters it, bit/s.
    pub downlink_bits_per_s: Option<u64>,
}

/// A translation of addresses and ports (RFC 4787) between the nodes behind it and all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatSpec {
    /// Name, unlike that of any node, domain or translation.
    pub name: String,
    /// What a public port is for.
    pub mapping: NatReach,
    /// From whom a public port takes packets.
    pub filtering: NatReach,
}

/// How far something of a translation reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatReach {
    /// All others alike.
    EndpointIndependent,
    /// One address and port.
    #[default]
    EndpointDependent,
}

/// What the links between some nodes are like.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkRule {
    /// Names of two nodes or domains.
    pub from: String,
    /// The second of them.
    pub to: String,
    /// Whether the way back is the same.
    pub both_ways: bool,
    /// The link of each pair.
    pub spec: LinkSpec,
}

/// Why a topology cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The file cannot be read.
    #[error("topology {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file says something that cannot be meant.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
}

impl NodeSpec {
    /// A node with all that the machine has, near to all others.
    pub fn new(label: &str, class: Class, memory_budget_bytes: u64) -> Self {
        Self {
            label: label.to_owned(),
            class,
            memory_budget_bytes,
            cpu_share: None,
            memory_bytes: None,
            disk_bytes: None,
            battery: None,
            uplink_bits_per_s: None,
            downlink_bits_per_s: None,
            domains: Vec::new(),
            behind: None,
            has_own_clock: false,
            log_filter: None,
        }
    }

    /// Whether it asks for something that a process by itself does not have.
    fn is_limited(&self) -> bool {
        *self
            != Self {
                domains: self.domains.clone(),
                has_own_clock: self.has_own_clock,
                log_filter: self.log_filter.clone(),
                ..Self::new(&self.label, self.class, self.memory_budget_bytes)
            }
    }
}

impl Topology {
    /// Nodes without links of their own.
    pub fn plain(about: &str, nodes: Vec<NodeSpec>) -> Self {
        Self {
            about: about.to_owned(),
            nodes,
            domains: Vec::new(),
            nats: Vec::new(),
            default_link: LinkSpec::default(),
            link_rules: Vec::new(),
        }
    }

    /// Reads a file. A bare name (`loopback`) means one of the workspace's `topologies/`.
    ///
    /// # Errors
    /// When it cannot be read, or does not describe a mesh.
    pub fn load(named: &Path) -> Result<Self, TopologyError> {
        let path = rules::locate(named, "topologies");
        let unreadable = |cause| TopologyError::Unreadable {
            path: path.clone(),
            cause: rules::unread(named, "topologies", cause),
        };
        let text = rules::read(&path).map_err(unreadable)?;
        Self::parse(&text).map_err(|wrong| TopologyError::Invalid {
            line: rules::line_of(&text, wrong.at),
            message: wrong.message,
            path,
        })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let file: file::File = toml::from_str(text).map_err(|error| {
            let (at, message) = rules::misread(text, &error);
            Wrong { at, message }
        })?;
        check::topology(file)
    }

    /// Whether it asks for links or machines that plain processes do not have.
    pub fn is_shaped(&self) -> bool {
        let rates = |domain: &DomainSpec| domain.uplink_bits_per_s.or(domain.downlink_bits_per_s).is_some();
        !self.default_link.is_plain()
            || self.link_rules.iter().any(|rule| !rule.spec.is_plain())
            || self.nodes.iter().any(NodeSpec::is_limited)
            || self.domains.iter().any(rates)
    }

    /// The node of this label.
    pub fn node(&self, label: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.label == label)
    }

    /// The domain of this name.
    pub fn domain(&self, name: &str) -> Option<&DomainSpec> {
        self.domains.iter().find(|domain| domain.name == name)
    }

    /// The domains that a node is in, those around them after each; a domain that is reached in two
    /// ways counts once.
    pub fn domains_of(&self, node: &NodeSpec) -> Vec<&DomainSpec> {
        let mut found: Vec<&DomainSpec> = Vec::new();
        for name in &node.domains {
            let mut next = self.domain(name);
            while let Some(domain) = next.filter(|domain| !found.contains(domain)) {
                found.push(domain);
                next = domain.within.as_deref().and_then(|outer| self.domain(outer));
            }
        }
        found
    }

    /// The same as its owner says them to a node.
    pub fn failure_domains_of(&self, node: &NodeSpec) -> Vec<Domain> {
        let domain = |spec: &DomainSpec| Domain { kind: spec.kind, name: spec.name.clone() };
        self.domains_of(node).into_iter().map(domain).collect()
    }

    /// Labels of the nodes that a name stands for: the node itself, or all in a domain.
    pub fn members(&self, name: &str) -> Vec<&str> {
        self.nodes.iter().filter(|node| self.is_in(node, name)).map(|node| node.label.as_str()).collect()
    }

    /// The link from one node to another, before anything changed it.
    pub fn link(&self, from: &NodeSpec, to: &NodeSpec) -> LinkSpec {
        let rule = self.link_rules.iter().rev().find(|rule| {
            let is = |one: &str, other: &str| self.is_in(from, one) && self.is_in(to, other);
            is(&rule.from, &rule.to) || (rule.both_ways && is(&rule.to, &rule.from))
        });
        rule.map_or(self.default_link, |rule| rule.spec)
    }

    fn is_in(&self, node: &NodeSpec, name: &str) -> bool {
        node.label == name || self.domains_of(node).iter().any(|domain| domain.name == name)
    }
}

/// What is wrong, and where in the text.
#[derive(Debug)]
struct Wrong {
    at: usize,
    message: String,
}

impl Wrong {
    fn at(span: &Range<usize>, message: &str) -> Self {
        Self { at: span.start, message: message.to_owned() }
    }
}
