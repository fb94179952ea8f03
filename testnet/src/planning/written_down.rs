//! A planning instance of a topology's file and a model's: the model is divided and profiled on this machine, whose
//! core each node has the share of that the topology says.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use stormo::app::calls::PlanLimits;
use stormo::app::config::library_search;
use stormo::app::on_paper;
use stormo::app::power::Power;
use stormo::deploy::{self, Source};
use stormo::engine::{Engine, EngineConfig, runtime_library};
use stormo::files;
use stormo::plan::Watts;
use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::DOMAINS_MAX;
use stormo_protocol::model::{Manifest, OrtLevel};
use stormo_protocol::profile::Speeds;
use stormo_protocol::state::{LinkEstimate, Load, Machine, NodeRecord, Offer, Stamp};
use stormo_testnet::topology::{NodeSpec, Topology};
use tokio::runtime::Builder;

/// Larger files are no models.
const MODEL_BYTES_MAX: u64 = 2 << 30;
/// What processes of one machine reach where no rate is set, bytes a second.
const UNLIMITED_BYTES_PER_S: u64 = 500_000_000;

/// The instance, for requests that enter at this node; without one, at the first device, or else the first node.
pub(super) fn instance(
    topology: &Path,
    model: &Path,
    from: Option<&str>,
    limits: &PlanLimits,
) -> Result<Value> {
    let topology = Topology::load(topology)?;
    let device = || topology.nodes.iter().find(|node| node.class == stormo_protocol::state::Class::Device);
    let origin = match from {
        Some(label) => topology.node(label).with_context(|| {
            let labels: Vec<&str> = topology.nodes.iter().map(|node| node.label.as_str()).collect();
            format!("the topology has no node `{label}`; there are: {}", labels.join(", "))
        })?,
        None => device().unwrap_or(&topology.nodes[0]),
    };
    let manifest = divided(model)?;
    let mut records: Vec<NodeRecord> =
        topology.nodes.iter().map(|node| record(&topology, node, &manifest.reference.speeds)).collect();
    let place = topology.nodes.iter().position(|node| node.label == origin.label).unwrap_or(0);
    records[..=place].rotate_right(1);
    let power = origin.battery.map(|battery| {
        let stormo_testnet::battery::Watts { idle, compute, send, receive } = battery.watts;
        Power { watts: Watts { idle, compute, send, receive }, tail_mj: 0.0 }
            .within(origin.cpu_share.unwrap_or(1.0).min(1.0))
    });
    Ok(on_paper::instance(&records, &manifest, limits, power))
}

fn divided(model: &Path) -> Result<Manifest> {
    let bytes = files::read(model, MODEL_BYTES_MAX).with_context(|| model.display().to_string())?;
    let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let library = runtime_library::find_or_obtain(&library_search(None), &|text| note!("{text}"))?;
    let engine = Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None })?;
    let source = Source {
        bytes,
        name: name.chars().filter(|letter| letter.is_ascii_alphanumeric()).take(64).collect(),
        variant: "base".into(),
        level: OrtLevel::All,
        shapes: HashMap::new(),
        card: None,
        samples: Vec::new(),
        run_max: deploy::RUN_MAX,
    };
    note!("{name}: dividing and profiling it on this machine");
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let prepared = runtime.block_on(deploy::prepare(&engine, source, &|_| {}));
    Ok(prepared.with_context(|| model.display().to_string())?.manifest)
}

/// What the node would say of itself.
fn record(topology: &Topology, node: &NodeSpec, speeds: &Speeds) -> NodeRecord {
    let others = topology.nodes.iter().filter(|other| other.label != node.label);
    let mut domains = topology.failure_domains_of(node);
    domains.truncate(DOMAINS_MAX);
    NodeRecord {
        node: id(topology, node),
        stamp: Stamp { generation: 1, sequence: 1 },
        machine: Machine {
            label: node.label.clone(),
            class: node.class,
            addresses: Vec::new(),
            cores: 1,
            speeds: speeds.scaled(node.cpu_share.unwrap_or(1.0).min(1.0)),
            memory_budget_bytes: node.memory_budget_bytes,
        },
        load: Load {
            memory_used_bytes: 0,
            utilisation_permille: 0,
            cold_us: 0,
            cold_us_per_mb: 0,
            leaving: false,
        },
        offer: Offer::default(),
        hosted: Vec::new(),
        links: others.map(|other| link(topology, node, other)).collect(),
        coordinate: None,
        goals: Vec::new(),
        domains,
        demands: Vec::new(),
    }
}

fn id(topology: &Topology, node: &NodeSpec) -> NodeId {
    let place = topology.nodes.iter().position(|other| other.label == node.label).unwrap_or(0);
    NodeId([place as u8; 32])
}

/// The way from one to the other: the slowest of all that it leads through.
fn link(topology: &Topology, from: &NodeSpec, to: &NodeSpec) -> LinkEstimate {
    let (there, back) = (topology.link(from, to), topology.link(to, from));
    let (leaves, enters) = (topology.domains_of(from), topology.domains_of(to));
    let is_shared = |name: &str| {
        leaves.iter().any(|domain| domain.name == name) && enters.iter().any(|domain| domain.name == name)
    };
    let left = leaves.iter().filter(|domain| !is_shared(&domain.name));
    let entered = enters.iter().filter(|domain| !is_shared(&domain.name));
    let rates = [there.rate_bits_per_s, from.uplink_bits_per_s, to.downlink_bits_per_s].into_iter();
    let rates = rates.chain(left.map(|domain| domain.uplink_bits_per_s));
    let rates = rates.chain(entered.map(|domain| domain.downlink_bits_per_s));
    let bytes_per_second = rates.flatten().min().map_or(UNLIMITED_BYTES_PER_S, |bits| (bits / 8).max(1));
    let round_trip_us = there.latency_us.saturating_add(back.latency_us);
    LinkEstimate {
        peer: id(topology, to),
        round_trip_us: u32::try_from(round_trip_us).unwrap_or(u32::MAX),
        bytes_per_second,
    }
}
