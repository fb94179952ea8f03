//! Meshes as data: the files under `topologies/`, read and checked.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stormo_protocol::model::is_valid_name;
use stormo_protocol::state::Class;
use toml::Spanned;

use crate::binary::workspace_root;

/// Longest file that is read: thousands of nodes fit.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Nodes of a mesh of processes on one machine; a guess at what two cores still carry.
const NODES_MAX: usize = 64;
/// Units of a memory size, and their bytes.
const UNITS: [(&str, u64); 6] = [
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// A mesh to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// What it is for.
    pub about: String,
    /// Its nodes; the first is started first, and the others join it.
    pub nodes: Vec<NodeSpec>,
}

/// A node to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name, unique in its mesh.
    pub label: String,
    /// Kind of machine that it stands for.
    pub class: Class,
    /// Memory that partitions may take.
    pub memory_budget_bytes: u64,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: Spanned<String>,
    node: Spanned<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    label: Spanned<String>,
    class: Class,
    memory_budget: Spanned<String>,
}

impl Topology {
    /// Reads a file. A bare name (`loopback`) means one of the workspace's `topologies/`.
    ///
    /// # Errors
    /// When it cannot be read, or does not describe a mesh.
    pub fn load(named: &Path) -> Result<Self, TopologyError> {
        let path = locate(named);
        let unreadable = |cause| TopologyError::Unreadable { path: path.clone(), cause };
        let mut text = String::new();
        let file = fs::File::open(&path).map_err(unreadable)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes"))));
        }
        Self::parse(&text).map_err(|wrong| TopologyError::Invalid {
            line: line_of(&text, wrong.at),
            message: wrong.message,
            path,
        })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let file: File = toml::from_str(text).map_err(|error| Wrong {
            at: error.span().map_or(0, |span| span.start),
            message: error.message().to_owned(),
        })?;
        if file.about.get_ref().trim().is_empty() {
            return Err(Wrong::at(&file.about.span(), "`about` says nothing; write what this mesh is for"));
        }
        let nodes_span = file.node.span();
        let entries = file.node.into_inner();
        if entries.is_empty() || entries.len() > NODES_MAX {
            let message = format!("{} nodes; a mesh has 1 to {NODES_MAX}", entries.len());
            return Err(Wrong::at(&nodes_span, &message));
        }
        let mut labels = BTreeSet::new();
        let nodes = entries.into_iter().map(|entry| check(entry, &mut labels)).collect::<Result<_, _>>()?;
        Ok(Self { about: file.about.into_inner(), nodes })
    }
}

fn locate(named: &Path) -> PathBuf {
    let is_bare = named.components().count() == 1 && named.extension().is_none();
    if is_bare && !named.is_file() {
        workspace_root().join("topologies").join(named).with_extension("toml")
    } else {
        named.to_owned()
    }
}

fn check(entry: Entry, labels: &mut BTreeSet<String>) -> Result<NodeSpec, Wrong> {
    let label = entry.label.get_ref();
    if !is_valid_name(label) {
        let message = format!("label `{label}`: letters, digits, `.`, `_` and `-`, not starting with a dot");
        return Err(Wrong::at(&entry.label.span(), &message));
    }
    if !labels.insert(label.clone()) {
        let message = format!("label `{label}` is taken by a node above");
        return Err(Wrong::at(&entry.label.span(), &message));
    }
    let memory_budget_bytes = size_bytes(entry.memory_budget.get_ref()).ok_or_else(|| {
        let message = format!(
            "memory_budget `{}`: a size like \"64 MiB\" (kB, MB, GB, KiB, MiB, GiB)",
            entry.memory_budget.get_ref()
        );
        Wrong::at(&entry.memory_budget.span(), &message)
    })?;
    Ok(NodeSpec { label: entry.label.into_inner(), class: entry.class, memory_budget_bytes })
}

/// Bytes of a size such as `64 MiB`.
fn size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let (_, unit_bytes) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*unit_bytes).filter(|bytes| *bytes > 0)
}

struct Wrong {
    at: usize,
    message: String,
}

impl Wrong {
    fn at(span: &Range<usize>, message: &str) -> Self {
        Self { at: span.start, message: message.to_owned() }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
