//! Planning instances as JSON: text in, a question out; no file is opened here. Nodes, links, variants and codecs
//! go by name; times are in ms, links in ms per MB of 10^6 bytes, energy in J. The fields are described beside the
//! topologies (`topologies/README.md`).

mod answer;
mod file;
mod forks;
mod measured;

use std::collections::HashMap;

use stormo_protocol::codec::payload::Codec;

use self::file::{ByVariant, File, Loaded};
use super::coding::Coding;
use super::forks::Forks;
use super::goal::{Goal, Objective};
use super::problem::{Factors, KnownRange, Link, Links, Node, Problem, ProblemError, Watts};
use super::question::{Question, Variant};
use super::split::BRANCHES_MAX;

pub use answer::{PartOf, PlacedOf, PlanOf, ReplicaOf, ReplicatedOf, Reply, RouteOf, SplitOf, StageOf};

const BYTES_PER_MB: f64 = 1e6;
const MJ_PER_J: f64 = 1000.0;
/// Codecs told apart, beside tensors as they are.
const CODECS_MAX: usize = Codec::ALL.len() - 1;
/// Nodes of an instance; links between all of them take 400 MB.
const NODES_MAX: usize = 4_000;
/// Regions, and stretches to be cut into strips, of a variant.
const FORKS_MAX: usize = 256;
/// Blocks of a variant.
const BLOCKS_MAX: usize = 4_096;
/// Variants of an instance. A guess: several times what a deployment has.
const VARIANTS_MAX: usize = 64;
/// What nodes have for each block or strip of each variant, all together: 4,000 nodes with 262 blocks, or 256 with 4,096.
const NODES_BY_BLOCKS_MAX: usize = 1 << 20;
/// Ranges of a node that were measured, and that are loaded.
const RANGES_MAX: usize = 4_096;
/// Failure domains of a node. A guess: several times what a node of a mesh has.
const DOMAINS_MAX: usize = 64;

/// A question and the names of what it speaks of.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Names for [`Problem::nodes`] of every variant: the requester first.
    pub node_names: Vec<String>,
    /// The failure domains that each node is in, in the same order.
    pub domains: Vec<Vec<String>>,
    /// Names of the codecs that stand for the others than [`Codec::Raw`], in the order of [`Codec::ALL`].
    pub codec_names: Vec<String>,
    /// What is asked, over all variants. All problems are checked.
    pub question: Question,
    /// What of each variant may run beside itself.
    pub forks: Vec<Forks>,
    /// What the instance speaks of and no plan uses yet, by the names of its fields.
    pub not_considered: Vec<&'static str>,
}

/// Why a text is no planning instance.
#[derive(Debug, thiserror::Error)]
pub enum BadInstance {
    /// No JSON, or not of this schema.
    #[error("this is no planning instance: {0}")]
    Json(serde_json::Error),
    /// A name is used that is not listed.
    #[error("{place}: `{name}` is not listed among the {list}")]
    Unknown { place: String, name: String, list: &'static str },
    /// Two of a kind have one name.
    #[error("{list}: `{name}` is listed twice")]
    Twice { list: &'static str, name: String },
    /// There is none of what there must be.
    #[error("{list}: there must be at least one")]
    Empty { list: &'static str },
    /// More than is planned over.
    #[error("{list}: {found} are more than are planned over, which is {most}")]
    TooMany { list: &'static str, found: usize, most: usize },
    /// A number is out of its bounds.
    #[error("{place} is {value}, and must be {bounds}")]
    Number { place: String, value: f64, bounds: &'static str },
    /// A list has the wrong length.
    #[error("{place} has {found} entries, and must have {expected}")]
    Length { place: String, found: usize, expected: String },
    /// Two fields that say the same in different ways.
    #[error("{place} and `{other}` say the same in different ways: leave one of them out")]
    Both { place: String, other: &'static str },
    /// A range of blocks that there is not.
    #[error("{place}: [{first}, {end}] is no range of the model's {blocks} blocks: first included, end not")]
    Range { place: String, first: u16, end: u16, blocks: usize },
    /// A region's branches are no stretches beside each other.
    #[error(
        "{place}: its branches must be 2 to {BRANCHES_MAX} ranges of the model's {blocks} blocks, each beginning where the one before ends"
    )]
    Region { place: String, blocks: usize },
    /// A cut by one codec in two ways.
    #[error("{place}: a cut goes by each codec in one way, and as it is in any case: `{codec}` is too many")]
    Codec { place: String, codec: &'static str },
    /// An accuracy is asked for and a variant has none.
    #[error(
        "limits.min_accuracy is set, but variants[{index}] `{name}` has no accuracy: write it, or leave the limit out"
    )]
    NoAccuracy { index: usize, name: String },
    /// The numbers make no problem.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

impl Instance {
    /// Reads an instance.
    ///
    /// # Errors
    /// What is wrong with the text, with the field's place.
    pub fn parse(json: &str) -> Result<Self, BadInstance> {
        let mut file: File = serde_json::from_str(json).map_err(BadInstance::Json)?;
        check_sizes(&file)?;
        let names = file.nodes.iter().map(|node| node.name.as_str());
        let listed = index("nodes", names)?;
        let requester = *listed.get(file.requester.as_str()).ok_or_else(|| BadInstance::Unknown {
            place: "requester".to_owned(),
            name: file.requester.clone(),
            list: "nodes",
        })?;
        check_numbers(&file)?;
        measured::check(&file)?;
        index("variants", file.variants.iter().map(|variant| variant.name.as_str()))?;
        index("codecs", file.codecs.iter().map(|codec| codec.name.as_str()))?;
        file.nodes[..=requester].rotate_right(1);
        let node_names: Vec<String> = file.nodes.iter().map(|node| node.name.clone()).collect();
        let links = links(&file, &node_names)?;
        let variants = (0..file.variants.len()).map(|variant| {
            Ok(Variant {
                name: file.variants[variant].name.clone(),
                accuracy: file.variants[variant].accuracy,
                problem: problem(&file, variant, &links)?,
            })
        });
        let variants = variants.collect::<Result<Vec<_>, BadInstance>>()?;
        let goal = Goal {
            objective: file.objective,
            latency_ms_max: file.limits.max_latency_ms,
            energy_mj_max: file.limits.max_energy_j.map(|most| most * MJ_PER_J),
        };
        let forks = forks::forks(&file)?;
        // Of a fork only the latency is priced.
        let forks_count = goal.objective == Objective::Latency && goal.energy_mj_max.is_none();
        let unused = [
            ("regions", file.variants.iter().any(|variant| !variant.regions.is_empty())),
            ("strips", file.variants.iter().any(|variant| !variant.strips.is_empty())),
            ("batch", file.batch > 1),
        ];
        Ok(Self {
            node_names,
            domains: file.nodes.into_iter().map(|node| node.domains).collect(),
            codec_names: file.codecs.into_iter().map(|codec| codec.name).collect(),
            question: Question { variants, goal, min_accuracy: file.limits.min_accuracy },
            forks,
            not_considered: unused
                .into_iter()
                .filter(|(_, is_there)| *is_there && !forks_count)
                .map(|(name, _)| name)
                .collect(),
        })
    }

    /// What a codec of a plan is called.
    pub fn codec_name(&self, codec: Codec) -> &str {
        if self.codec_names.is_empty() {
            return codec.name();
        }
        let place = Codec::ALL.iter().position(|known| *known == codec).unwrap_or(0);
        place.checked_sub(1).and_then(|place| self.codec_names.get(place)).map_or("raw", String::as_str)
    }
}

/// Where each name is listed.
fn index<'a>(
    list: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<HashMap<&'a str, usize>, BadInstance> {
    let mut indices = HashMap::new();
    for (index, name) in names.enumerate() {
        if indices.insert(name, index).is_some() {
            return Err(BadInstance::Twice { list, name: name.to_owned() });
        }
    }
    Ok(indices)
}

fn check_sizes(file: &File) -> Result<(), BadInstance> {
    let most = |list: &'static str, found: usize, most: usize| match found {
        found if found > most => Err(BadInstance::TooMany { list, found, most }),
        _ => Ok(()),
    };
    most("nodes", file.nodes.len(), NODES_MAX)?;
    most("codecs", file.codecs.len(), CODECS_MAX)?;
    most("variants", file.variants.len(), VARIANTS_MAX)?;
    for node in &file.nodes {
        most("ranges of a node", node.ranges.len(), RANGES_MAX)?;
        most("loaded ranges of a node", node.loaded.as_ref().map_or(0, Vec::len), RANGES_MAX)?;
        most("domains of a node", node.domains.len(), DOMAINS_MAX)?;
    }
    for (list, is_empty) in [("nodes", file.nodes.is_empty()), ("variants", file.variants.is_empty())] {
        if is_empty {
            return Err(BadInstance::Empty { list });
        }
    }
    for (index, variant) in file.variants.iter().enumerate() {
        let blocks = variant.cut_bytes.len().saturating_sub(1);
        let place = |field: &str| format!("variants[{index}] `{}`: {field}", variant.name);
        if blocks == 0 {
            let expected = "one more than the model has blocks, so at least 2".to_owned();
            return Err(BadInstance::Length {
                place: place("cut_bytes"),
                found: variant.cut_bytes.len(),
                expected,
            });
        }
        most("blocks of a variant", blocks, BLOCKS_MAX)?;
        most("regions of a variant", variant.regions.len(), FORKS_MAX)?;
        most("strips of a variant", variant.strips.len(), FORKS_MAX)?;
        for (field, list) in [("weights_bytes", &variant.weights_bytes), ("peak_bytes", &variant.peak_bytes)]
        {
            if let Some(list) = list.as_ref().filter(|list| list.len() != blocks) {
                let expected = format!("{blocks}, one for each block");
                return Err(BadInstance::Length { place: place(field), found: list.len(), expected });
            }
        }
        if file.limits.min_accuracy.is_some() && variant.accuracy.is_none() {
            return Err(BadInstance::NoAccuracy { index, name: variant.name.clone() });
        }
    }
    let rows = file.variants.iter().map(|variant| variant.cut_bytes.len() - 1 + variant.strips.len());
    let of_all = file.nodes.len().saturating_mul(rows.fold(0, usize::saturating_add));
    most("nodes times blocks and strips, of all variants", of_all, NODES_BY_BLOCKS_MAX)
}

/// Whether a number is in its bounds, both included.
fn within(
    place: String,
    value: f64,
    (least, most, bounds): (f64, f64, &'static str),
) -> Result<(), BadInstance> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(BadInstance::Number { place, value, bounds }) }
}

const TIME: (f64, f64, &str) = (0.0, 1e9, "from 0 to 1e9");
const SHARE: (f64, f64, &str) = (0.0, 1.0, "from 0 to 1");
const FACTOR: (f64, f64, &str) = (1e-3, 1e3, "from 0.001 to 1000");
const LIMIT: (f64, f64, &str) = (f64::MIN_POSITIVE, 1e12, "above 0, and at most 1e12");

fn check_numbers(file: &File) -> Result<(), BadInstance> {
    for (index, node) in file.nodes.iter().enumerate() {
        let place = |field: &str| format!("nodes[{index}] `{}`: {field}", node.name);
        let watts = node.watts;
        let times = [
            ("range_overhead_ms", node.range_overhead_ms),
            ("wait_ms", node.wait_ms),
            ("load_ms", node.load_ms),
            ("load_ms_per_mb", node.load_ms_per_mb),
            ("uplink_ms_per_mb", node.uplink_ms_per_mb.unwrap_or(0.0)),
            ("watts.idle", watts.idle),
            ("watts.compute", watts.compute),
            ("watts.send", watts.send),
            ("watts.receive", watts.receive),
            ("tail_j", node.tail_j),
        ];
        times.into_iter().try_for_each(|(field, value)| within(place(field), value, TIME))?;
        within(place("slowdown"), node.slowdown, FACTOR)?;
        let lists: Vec<&Vec<f64>> = match &node.block_ms {
            ByVariant::All(list) => vec![list],
            ByVariant::Each(lists) => lists.values().collect(),
        };
        for (block, value) in lists.into_iter().flat_map(|list| list.iter().enumerate()) {
            within(place(&format!("block_ms[{block}]")), *value, TIME)?;
        }
        for (range, known) in node.ranges.iter().enumerate() {
            within(place(&format!("ranges[{range}].ms")), known.ms, TIME)?;
        }
    }
    for (index, link) in file.links.iter().enumerate() {
        let place = |field: &str| format!("links[{index}] {} to {}: {field}", link.from, link.to);
        within(place("latency_ms"), link.latency_ms, TIME)?;
        within(place("ms_per_mb"), link.ms_per_mb, TIME)?;
    }
    for (index, codec) in file.codecs.iter().enumerate() {
        let place = |field: &str| format!("codecs[{index}] `{}`: {field}", codec.name);
        let cuts = file.variants.iter().map(|variant| variant.cut_bytes.len()).max().unwrap_or(0);
        for cut in 0..cuts {
            within(place("ratio"), codec.ratio.at(cut), FACTOR)?;
            within(place("loss"), codec.loss.at(cut), SHARE)?;
        }
        for (field, times) in
            [("encode_ms_per_mb", &codec.encode_ms_per_mb), ("decode_ms_per_mb", &codec.decode_ms_per_mb)]
        {
            for (name, value) in times {
                within(place(&format!("{field}.{name}")), *value, TIME)?;
                if !file.nodes.iter().any(|node| node.name == *name) {
                    return Err(BadInstance::Unknown {
                        place: place(field),
                        name: name.clone(),
                        list: "nodes",
                    });
                }
            }
        }
    }
    for (index, variant) in file.variants.iter().enumerate() {
        if let Some(accuracy) = variant.accuracy {
            within(format!("variants[{index}] `{}`: accuracy", variant.name), accuracy, SHARE)?;
        }
    }
    let limits = &file.limits;
    for (field, limit, bounds) in [
        ("limits.max_latency_ms", limits.max_latency_ms, LIMIT),
        ("limits.max_energy_j", limits.max_energy_j, LIMIT),
        ("limits.min_accuracy", limits.min_accuracy, SHARE),
        ("expected_requests", Some(file.expected_requests), (1.0, 1e12, "at least 1")),
    ] {
        limit.map_or(Ok(()), |limit| within(field.to_owned(), limit, bounds))?;
    }
    Ok(())
}

/// One variant's problem; links with the bytes' way out of a machine in them.
fn problem(file: &File, variant: usize, links: &Links) -> Result<Problem, BadInstance> {
    let sizes = &file.variants[variant];
    let blocks = sizes.cut_bytes.len() - 1;
    let bytes = |list: &Option<Vec<file::Bytes>>| match list {
        Some(list) => list.iter().map(|bytes| bytes.0).collect(),
        None => vec![0; blocks],
    };
    let cut_bytes: Vec<u64> = sizes.cut_bytes.iter().map(|bytes| bytes.0).collect();
    let codings = |(cut, raw_bytes): (usize, &u64)| {
        let of_codec = |(codec, slot): (&file::Codec, &Codec)| coding(codec, *slot, cut, *raw_bytes);
        file.codecs.iter().zip(&Codec::ALL[1..]).map(of_codec).collect::<Vec<_>>()
    };
    let nodes = (0..file.nodes.len()).map(|index| node(file, index, &sizes.name, blocks));
    let codings = match sizes.codings.is_empty() {
        true => cut_bytes.iter().enumerate().map(codings).collect(),
        false => measured::codings(sizes),
    };
    let problem = Problem {
        codings,
        loss_max: 0.0,
        cut_bytes,
        block_weights_bytes: bytes(&sizes.weights_bytes),
        block_peak_bytes: bytes(&sizes.peak_bytes),
        extra: measured::extra(sizes),
        nodes: nodes.collect::<Result<_, _>>()?,
        links: links.clone(),
        force_first: file.force_first,
        force_last: file.force_last,
    };
    problem.check()?;
    Ok(problem)
}

/// At a factor of 1, coding takes 1 ms for each MB; the nodes' factors say the rest.
fn coding(codec: &file::Codec, slot: Codec, cut: usize, raw_bytes: u64) -> Coding {
    let unit_ms = raw_bytes as f64 / BYTES_PER_MB;
    let bytes = (raw_bytes as f64 * codec.ratio.at(cut)).ceil() as u64;
    Coding { codec: slot, bytes, encode_ms: unit_ms, decode_ms: unit_ms, loss: codec.loss.at(cut) }
}

/// A node with the times of one variant.
fn node(file: &File, index: usize, variant: &str, blocks: usize) -> Result<Node, BadInstance> {
    let node = &file.nodes[index];
    let place = |field: &str| format!("node `{}`: {field}", node.name);
    let block_ms = match &node.block_ms {
        ByVariant::All(list) => list,
        ByVariant::Each(lists) => lists.get(variant).ok_or_else(|| {
            let (place, name) = (place("block_ms"), variant.to_owned());
            BadInstance::Unknown { place, name, list: "variants that it has times for" }
        })?,
    };
    if block_ms.len() != blocks {
        let expected = format!("{blocks}, one for each block of `{variant}`");
        return Err(BadInstance::Length { place: place("block_ms"), found: block_ms.len(), expected });
    }
    let factors =
        |times: &std::collections::BTreeMap<String, f64>| times.get(&node.name).copied().unwrap_or(0.0);
    let (mut encode_factors, mut decode_factors) = (Factors::same(0.0), Factors::same(0.0));
    for (codec, slot) in file.codecs.iter().zip(&Codec::ALL[1..]) {
        encode_factors.set(*slot, factors(&codec.encode_ms_per_mb));
        decode_factors.set(*slot, factors(&codec.decode_ms_per_mb));
    }
    if file.variants.iter().any(|of| of.name == variant && !of.codings.is_empty()) {
        let factor = measured::factor(node, "coding_factor", &node.coding_factor, variant)?;
        (encode_factors, decode_factors) = (Factors::same(factor), Factors::same(factor));
    }
    let load_ms_per_byte = node.load_ms_per_mb / BYTES_PER_MB / file.expected_requests;
    let file::Watts { idle, compute, send, receive } = node.watts;
    Ok(Node {
        can_compute: node.computes,
        queue_wait_ms: node.wait_ms,
        memory_free_bytes: node.memory_free_bytes.or(node.memory_bytes).map_or(u64::MAX, |bytes| bytes.0),
        overhead_ms: node.range_overhead_ms * node.slowdown,
        block_ms: block_ms.iter().map(|time_ms| time_ms * node.slowdown).collect(),
        extra_factor: measured::factor(node, "extra_factor", &node.extra_factor, variant)? * node.slowdown,
        known: known(node, variant, blocks)?,
        cold_fixed_ms: if node.loaded.is_some() { node.load_ms / file.expected_requests } else { 0.0 },
        cold_ms_per_byte: if node.loaded.is_some() { load_ms_per_byte } else { 0.0 },
        encode_factors,
        decode_factors,
        watts: Watts { idle, compute, send, receive },
        tail_mj: node.tail_j * MJ_PER_J,
        uplink_ms_per_byte: node.uplink_ms_per_mb.unwrap_or(0.0) / BYTES_PER_MB,
    })
}

/// Ranges whose time is told, or that are loaded. All count for memory where it is said how much a node has in all.
fn known(node: &file::Node, variant: &str, blocks: usize) -> Result<Vec<KnownRange>, BadInstance> {
    let check = |field: &str, [first, end]: [u16; 2]| match first < end && usize::from(end) <= blocks {
        true => Ok(()),
        false => {
            Err(BadInstance::Range { place: format!("node `{}`: {field}", node.name), first, end, blocks })
        }
    };
    // Who says what is free says it beside what is loaded.
    let has_memory = node.memory_free_bytes.is_some();
    let mut known: Vec<KnownRange> = vec![];
    let mut places: HashMap<[u16; 2], usize> = HashMap::new();
    for range in node.ranges.iter().filter(|range| range.variant.as_ref().is_none_or(|of| of == variant)) {
        check("ranges", range.blocks)?;
        let [first, end] = range.blocks;
        let (time_ms, is_loaded) = (Some(range.ms * node.slowdown), node.loaded.is_none());
        places.insert(range.blocks, known.len());
        known.push(KnownRange { first, end, time_ms, is_loaded, has_memory: false });
    }
    for loaded in node.loaded.iter().flatten() {
        let [first, end] = match loaded {
            Loaded::OfVariant { variant: of, .. } if of != variant => continue,
            Loaded::Blocks(blocks) | Loaded::OfVariant { blocks, .. } => *blocks,
        };
        check("loaded", [first, end])?;
        match places.get(&[first, end]).and_then(|place| known.get_mut(*place)) {
            Some(range) => (range.is_loaded, range.has_memory) = (true, has_memory),
            None => known.push(KnownRange { first, end, time_ms: None, is_loaded: true, has_memory }),
        }
    }
    Ok(known)
}

/// No link is quicker than its sender's way out.
fn links(file: &File, names: &[String]) -> Result<Links, BadInstance> {
    let indices = index("nodes", names.iter().map(String::as_str))?;
    let mut links = Links::new(file.nodes.len());
    for (place, link) in file.links.iter().enumerate() {
        let index_of = |name: &str| {
            indices.get(name).copied().ok_or_else(|| BadInstance::Unknown {
                place: format!("links[{place}]"),
                name: name.to_owned(),
                list: "nodes",
            })
        };
        let (from, to) = (index_of(&link.from)?, index_of(&link.to)?);
        let mut set = |from: usize, to: usize| {
            let ms_per_mb = link.ms_per_mb.max(file.nodes[from].uplink_ms_per_mb.unwrap_or(0.0));
            links.set(from, to, Link { latency_ms: link.latency_ms, ms_per_byte: ms_per_mb / BYTES_PER_MB });
        };
        set(from, to);
        if link.both_ways {
            set(to, from);
        }
    }
    Ok(links)
}
