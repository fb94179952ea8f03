//! How well a deployment is served.

use serde::{Deserialize, Serialize};

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// No variant has all of its blocks on nodes that are there.
    Down,
    /// Requests can be answered, but some blocks are on fewer nodes than wished.
    Degraded,
    /// Each block is on as many nodes as wished.
    Ready,
}

/// Blocks in a row that are on equally many nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverView {
    /// Label of the variant.
    pub variant: String,
    /// First block and one past the last.
    pub blocks: [u16; 2],
    /// Nodes that are there and have them loaded.
    pub nodes: u16,
}

/// How well nodes that are there serve a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// In one word; `null` while the model's description is not here.
    pub state: Option<Health>,
    /// Nodes that are wished to host each block.
    pub replicas: u16,
    /// All blocks of its graph, variant by variant.
    pub cover: Vec<CoverView>,
}
