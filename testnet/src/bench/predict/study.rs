//! One network: profiled as for deployment, then profiled anew in turns with random other ranges.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use stormo::app::config::library_search;
use stormo::deploy::{self, Prepared, Profiled, Source, partition_source};
use stormo::engine::{self, Engine, EngineConfig, ProfileBudget, runtime_library};
use stormo::model::{Graph, Skeleton};
use stormo::profile::{BlockRange, Measured, Predictor};
use stormo::sample;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::OrtLevel;
use stormo_protocol::profile::range_index;
use stormo_protocol::tensor::Tensor;
use tokio::runtime::{Builder, Runtime};

use super::errors::{self, Errors, Told};
use crate::median::median;

/// Memory for the sessions of the ranges to foretell, bytes.
const APART_BYTES_MAX: u64 = 3 << 30;
/// Ranges that the other node hosts.
const HOSTED: usize = 3;
/// How it measures them: as a node does.
const HOSTED_RUNS: ProfileBudget =
    ProfileBudget { warm_up_runs: 2, runs_max: 10, time_max: Duration::from_millis(200) };

/// What is measured of each network.
pub(super) struct Study {
    engine: Engine,
    runtime: Runtime,
    ranges: usize,
    seed: u64,
}

/// A network's figures.
#[derive(Debug, Serialize)]
pub(super) struct Studied {
    pub(super) model: String,
    pub(super) nodes: usize,
    pub(super) blocks: usize,
    /// Ranges of blocks that the profile measured.
    pub(super) ranges_measured: usize,
    /// One run of the undivided network.
    pub(super) whole_ms: f64,
    /// From the file's bytes to the manifest, without coding what crosses the cuts.
    pub(super) prepare_seconds: f64,
    pub(super) errors: Errors,
}

impl Studied {
    pub(super) fn beyond_seconds(&self) -> f64 {
        self.prepare_seconds - self.whole_ms / 1000.0
    }
}

impl Study {
    pub(super) fn new(ranges: usize, seed: u64) -> Result<Self> {
        let library = runtime_library::find_or_obtain(&library_search(None), &|text| note!("{text}"))?;
        let engine = Engine::open(&EngineConfig { library, permits: NonZeroUsize::MIN, batch_within: None })?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { engine, runtime, ranges, seed })
    }

    pub(super) fn of(&self, name: &str, bytes: Vec<u8>) -> Result<(Studied, Told)> {
        self.runtime.block_on(self.study(name, bytes))
    }

    async fn study(&self, name: &str, bytes: Vec<u8>) -> Result<(Studied, Told)> {
        let nodes = Graph::parse(&bytes)?.node_count();
        let source = Source {
            bytes,
            name: name.to_owned(),
            variant: "base".into(),
            level: OrtLevel::All,
            shapes: HashMap::new(),
            card: None,
            samples: Vec::new(),
            run_max: deploy::RUN_MAX,
        };
        let begun = Instant::now();
        let prepared = deploy::prepare(&self.engine, source, &|_| {}).await?;
        let prepare_seconds = begun.elapsed().saturating_sub(prepared.coding).as_secs_f64();
        let apart: Vec<BlockRange> = self.draw(&prepared).into_iter().flat_map(|range| [range; 2]).collect();
        let inputs = prepared.manifest.input_specs().map(|spec| sample::tensor(spec.clone()));
        let inputs: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
        let profiled = deploy::profile_beside(&self.engine, &prepared, &inputs, &apart).await?;
        let other_node = self.other_node(&prepared).await?;
        let told = told(&prepared, &profiled, &other_node);
        let studied = Studied {
            model: name.to_owned(),
            nodes,
            blocks: prepared.manifest.blocks.len(),
            ranges_measured: prepared.measured.len(),
            whole_ms: prepared.whole_us as f64 / 1000.0,
            prepare_seconds,
            errors: told.errors(),
        };
        Ok((studied, told))
    }

    /// Ranges that the profile did not measure: any length as likely as any other, and any place.
    fn draw(&self, prepared: &Prepared) -> Vec<BlockRange> {
        let blocks = prepared.manifest.blocks.len();
        let mut left: HashSet<BlockRange> = (0..blocks)
            .flat_map(|first| (first + 1..=blocks).map(move |end| BlockRange { first, end }))
            .collect();
        prepared.measured.iter().for_each(|(range, _)| {
            left.remove(range);
        });
        let mut state = self.seed;
        let mut below = |bound: usize| {
            // Knuth's linear congruential generator; its low bits are not used.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let (mut drawn, mut bytes_left) = (Vec::new(), APART_BYTES_MAX);
        while drawn.len() < self.ranges && !left.is_empty() {
            let len = 1 + below(blocks);
            let first = below(blocks - len + 1);
            let Some(range) = left.take(&BlockRange { first, end: first + len }) else { continue };
            let bytes = 2 * prepared.manifest.range_memory_bytes(first as u16..(first + len) as u16);
            match bytes_left.checked_sub(bytes) {
                Some(less) => bytes_left = less,
                None => break,
            }
            drawn.push(range);
        }
        drawn
    }

    /// What this machine would be told as another node: by a calibration of its own, and three ranges that
    /// it measured as a host does, on made-up tensors.
    async fn other_node(&self, prepared: &Prepared) -> Result<impl Fn(BlockRange) -> f64> {
        let manifest = &prepared.manifest;
        let speeds = engine::calibrate(&self.engine).await?;
        let objects: HashMap<ObjectId, Arc<[u8]>> =
            prepared.objects.iter().map(|(object, bytes)| (object.id, bytes.clone())).collect();
        let skeleton = objects.get(&manifest.skeleton.id).cloned().unwrap_or_default();
        let skeleton = Skeleton::parse(&skeleton, manifest)?;
        let blocks = manifest.blocks.len();
        let mut hosted = Vec::new();
        for part in 0..HOSTED.min(blocks) {
            let range = (part * blocks / HOSTED) as u16..((part + 1) * blocks / HOSTED) as u16;
            if range.is_empty() {
                continue;
            }
            let source =
                partition_source(&skeleton, manifest, range.clone(), |id| objects.get(&id).cloned())?;
            let inputs = source.inputs.iter().map(|spec| sample::tensor(spec.clone()));
            let inputs: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
            let partition = self.engine.load("hosted".into(), source).await?;
            let times_us = engine::profile(&partition, &inputs, HOSTED_RUNS).await?;
            let time_us = median(times_us.into_iter().map(|time_us| time_us as f64));
            hosted.push(Measured { blocks: range, time_us });
        }
        let predictor = Predictor::new(manifest);
        let estimate = predictor.on_node(&speeds, &hosted);
        Ok(move |range: BlockRange| predictor.range_us(&estimate, range.first..range.end))
    }
}

/// Times of the ranges that were measured apart, in each way of telling them.
fn told(prepared: &Prepared, profiled: &Profiled, other_node: &impl Fn(BlockRange) -> f64) -> Told {
    let blocks = prepared.manifest.blocks.len();
    let fitted_us = |range_ns: &[u64], range: BlockRange| {
        range_ns.get(range_index(blocks, range.first, range.end)).copied().unwrap_or(0) as f64 / 1000.0
    };
    let alone_us = |first| {
        let alone = BlockRange { first, end: first + 1 };
        profiled.measured.iter().find(|(range, _)| *range == alone).map_or(0.0, |(_, time_us)| *time_us)
    };
    let alone_us: Vec<f64> = (0..blocks).map(alone_us).collect();
    let whole = BlockRange { first: 0, end: blocks };
    let scale = fitted_us(&profiled.fitted.range_ns, whole) / alone_us.iter().sum::<f64>();
    let ranges = profiled.apart.chunks_exact(2).map(|twice| errors::Range {
        measured_us: twice[0].1,
        told_us: fitted_us(&profiled.fitted.range_ns, twice[0].0),
        before_us: fitted_us(&prepared.manifest.reference.range_ns, twice[0].0),
        other_node_us: other_node(twice[0].0),
        by_shares_us: scale * alone_us[twice[0].0.first..twice[0].0.end].iter().sum::<f64>(),
        again_us: twice[1].1,
    });
    let before: HashMap<BlockRange, f64> = prepared.measured.iter().copied().collect();
    let now_and_before =
        profiled.measured.iter().filter_map(|(range, now_us)| Some((*now_us, *before.get(range)?)));
    Told { ranges: ranges.collect(), now_and_before_us: now_and_before.collect() }
}
