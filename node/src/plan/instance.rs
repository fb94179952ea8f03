//! Planning instances as JSON files: nodes and links by name, times in ms, links in ms per MB of
//! 10^6 bytes. Text in, problem out; no file is opened here. Read are the first variant and the first
//! lossless codec, whatever its name.

use std::collections::HashMap;

use serde::Deserialize;
use stormo_protocol::codec::payload::Codec;

use super::coding::Coding;
use super::problem::{Extra, Link, Links, Node, Problem, ProblemError, Watts};

const BYTES_PER_MB: f64 = 1e6;

/// A problem and its nodes' names, in the problem's order: the requester first.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Names for [`Problem::nodes`].
    pub node_names: Vec<String>,
    /// The problem, checked.
    pub problem: Problem,
}

/// Why a text is no planning instance.
#[derive(Debug, thiserror::Error)]
pub enum BadInstance {
    /// No JSON, or not of this schema.
    #[error("this is no planning instance: {0}")]
    Json(#[from] serde_json::Error),
    /// A node is named that is not listed.
    #[error("node `{0}` is not listed, or the codec has no time for it")]
    UnknownNode(String),
    /// Two nodes have one name.
    #[error("node `{0}` is listed twice")]
    TwiceNamed(String),
    /// There is no variant.
    #[error("the instance lists no variant")]
    NoVariant,
    /// The numbers make no problem.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

#[derive(Deserialize)]
struct File {
    requester: String,
    nodes: Vec<FileNode>,
    links: Vec<FileLink>,
    variants: Vec<FileVariant>,
    #[serde(default)]
    codecs: Vec<FileCodec>,
    #[serde(default)]
    force_first: bool,
    #[serde(default)]
    force_last: bool,
}

#[derive(Deserialize)]
struct FileNode {
    name: String,
    block_ms: Vec<f64>,
    memory_bytes: Option<u64>,
    #[serde(default)]
    queue_wait_ms: f64,
}

#[derive(Deserialize)]
struct FileLink {
    from: String,
    to: String,
    latency_ms: f64,
    ms_per_mb: f64,
    #[serde(default)]
    both_ways: bool,
}

#[derive(Deserialize)]
struct FileVariant {
    cut_bytes: Vec<u64>,
    weights_bytes: Vec<u64>,
    peak_bytes: Vec<u64>,
}

#[derive(Deserialize)]
struct FileCodec {
    ratio: f64,
    loss: f64,
    encode_ms_per_mb: HashMap<String, f64>,
    decode_ms_per_mb: HashMap<String, f64>,
}

impl Instance {
    /// Reads an instance.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(json: &str) -> Result<Self, BadInstance> {
        let mut file: File = serde_json::from_str(json)?;
        let Some(requester) = file.nodes.iter().position(|node| node.name == file.requester) else {
            return Err(BadInstance::UnknownNode(file.requester));
        };
        file.nodes[..=requester].rotate_right(1);
        let mut indices = HashMap::new();
        for (index, node) in file.nodes.iter().enumerate() {
            if indices.insert(node.name.as_str(), index).is_some() {
                return Err(BadInstance::TwiceNamed(node.name.clone()));
            }
        }
        let links = links(&file, &indices)?;
        let node_names: Vec<String> = file.nodes.iter().map(|node| node.name.clone()).collect();
        let variant = file.variants.into_iter().next().ok_or(BadInstance::NoVariant)?;
        let codec = file.codecs.into_iter().find(|codec| codec.loss == 0.0);
        let mut nodes: Vec<Node> = file.nodes.into_iter().map(FileNode::into_node).collect();
        for (node, name) in nodes.iter_mut().zip(&node_names) {
            let unknown = || BadInstance::UnknownNode(name.clone());
            if let Some(codec) = &codec {
                node.encode_factor = *codec.encode_ms_per_mb.get(name).ok_or_else(unknown)?;
                node.decode_factor = *codec.decode_ms_per_mb.get(name).ok_or_else(unknown)?;
            }
        }
        let codings = |bytes: &u64| codec.iter().map(|codec| codec.coding(*bytes)).collect::<Vec<_>>();
        let problem = Problem {
            codings: variant.cut_bytes.iter().map(codings).collect(),
            loss_max: 0.0,
            cut_bytes: variant.cut_bytes,
            block_weights_bytes: variant.weights_bytes,
            block_peak_bytes: variant.peak_bytes,
            extra: Extra::none(),
            nodes,
            links,
            force_first: file.force_first,
            force_last: file.force_last,
        };
        problem.check()?;
        Ok(Self { node_names, problem })
    }
}

impl FileNode {
    /// Loading is free: such instances speak of placement, not of what is loaded.
    fn into_node(self) -> Node {
        Node {
            can_compute: true,
            queue_wait_ms: self.queue_wait_ms,
            memory_free_bytes: self.memory_bytes.unwrap_or(u64::MAX),
            overhead_ms: 0.0,
            block_ms: self.block_ms,
            extra_factor: 0.0,
            known: vec![],
            cold_fixed_ms: 0.0,
            cold_ms_per_byte: 0.0,
            encode_factor: 1.0,
            decode_factor: 1.0,
            watts: Watts::default(),
            tail_mj: 0.0,
            uplink_ms_per_byte: 0.0,
        }
    }
}

fn links(file: &File, indices: &HashMap<&str, usize>) -> Result<Links, BadInstance> {
    let index_of =
        |name: &str| indices.get(name).copied().ok_or_else(|| BadInstance::UnknownNode(name.to_owned()));
    let mut links = Links::new(file.nodes.len());
    for link in &file.links {
        let (from, to) = (index_of(&link.from)?, index_of(&link.to)?);
        let one_way = Link { latency_ms: link.latency_ms, ms_per_byte: link.ms_per_mb / BYTES_PER_MB };
        links.set(from, to, one_way);
        if link.both_ways {
            links.set(to, from, one_way);
        }
    }
    Ok(links)
}

impl FileCodec {
    /// At a factor of 1, coding takes 1 ms for each MB.
    fn coding(&self, raw_bytes: u64) -> Coding {
        let unit_ms = raw_bytes as f64 / BYTES_PER_MB;
        let bytes = (raw_bytes as f64 * self.ratio).ceil() as u64;
        Coding { codec: Codec::ShuffleLz4, bytes, encode_ms: unit_ms, decode_ms: unit_ms, loss: 0.0 }
    }
}
