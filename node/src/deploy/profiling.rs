//! Measures a divided model: which ranges, for how long, in which order. What their times tell of all
//! other ranges is `profile`'s business.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::tensor::Tensor;

use super::PrepareError;
use super::divided::{Divided, Tensors, by_name};
use crate::engine::Partition;
use crate::profile::{BlockRange, Fitted, Structure, dependent, families, fit};

/// Time for measuring beyond what is needed in any case.
const TIME_MAX: Duration = Duration::from_millis(2500);
/// Runs of the whole model by which a slow one may take longer.
const SLOW_MODEL_RUNS: u32 = 8;
/// Rounds over all ranges that a family must leave time for.
const ROUNDS_MIN: u32 = 2;
/// Rounds after which more add little.
const ROUNDS_MAX: usize = 6;
/// Runs of a range in a round, the first of which do not count: in the others' turns the session's memory
/// has left all caches, the one that cores share too. A range that takes longer than that does to come
/// back needs fewer.
const RUNS_PER_ROUND: (u32, u32) = (1, 2);
const RUNS_OF_LONG: (u32, u32) = (1, 1);
const LONG: Duration = Duration::from_millis(2);
/// Memory for the sessions of ranges that are measured beside the single blocks and the whole, bytes.
const SESSIONS_BYTES_MAX: u64 = 1 << 30;

/// What was measured, and what follows.
pub struct Profiled {
    /// Times of all ranges.
    pub fitted: Fitted,
    /// The ranges that were run, and the time of each, microseconds.
    pub measured: Vec<(BlockRange, f64)>,
    /// The same of those that were only run along, which the fit knows nothing of.
    pub apart: Vec<(BlockRange, f64)>,
    /// The model's outputs for the sample.
    pub outputs: Vec<Tensor>,
}

/// A range that is loaded.
struct Session {
    range: BlockRange,
    partition: Arc<Partition>,
    inputs: Vec<Tensor>,
    /// Those that count.
    runs: Vec<Duration>,
    /// The fit does not hear of it.
    is_apart: bool,
}

impl Session {
    /// Runs once without counting it; gives what came out.
    async fn warm_up(&self) -> Result<Vec<Tensor>, PrepareError> {
        Ok(self.partition.run_between(self.inputs.clone()).await?.outputs)
    }

    async fn run(&mut self) -> Result<(), PrepareError> {
        let ran = self.partition.run_between(self.inputs.clone()).await?;
        self.runs.push(ran.computed);
        Ok(())
    }

    /// The lower quartile of the runs: what else the machine does makes them longer, never shorter.
    fn time(&self) -> Duration {
        let mut runs = self.runs.clone();
        runs.sort_unstable();
        runs.get(runs.len() / 4).copied().unwrap_or_default()
    }
}

/// Loads ranges and runs them in turns, so that what else the machine does slows all alike.
pub(super) struct Profiler<'a> {
    parts: &'a Divided<'a>,
    /// What the blocks so far made of the sample.
    live: Tensors,
    sessions: Vec<Session>,
    started: Instant,
    /// Time of loading so far, and blocks in what was loaded.
    loading: Duration,
    blocks_loaded: u32,
    /// What first runs took beyond their own time: emptying caches, and waiting for a core.
    beyond: Duration,
}

impl<'a> Profiler<'a> {
    /// Of a variant without ends, and a sample of each input.
    pub(super) fn new(parts: &'a Divided<'a>, inputs: &[Tensor]) -> Self {
        Self {
            parts,
            live: by_name(inputs.iter().cloned()),
            sessions: Vec::new(),
            started: Instant::now(),
            loading: Duration::ZERO,
            blocks_loaded: 0,
            beyond: Duration::ZERO,
        }
    }

    /// Does it all. Other ranges, measured in turns with those that are chosen here, show how well their
    /// times are foretold; `progress` hears of each step.
    pub(super) async fn measure(
        mut self,
        apart: &[BlockRange],
        progress: &dyn Fn(&str),
    ) -> Result<Profiled, PrepareError> {
        let blocks = self.parts.manifest.blocks.len();
        progress(&format!("measuring {blocks} blocks"));
        for first in 0..blocks {
            let outputs = self.begin(BlockRange { first, end: first + 1 }).await?;
            self.live.extend(by_name(outputs));
        }
        let reads: Vec<Vec<usize>> = self.sessions.iter().map(|session| self.reads(session)).collect();
        let outputs = self.begin(BlockRange { first: 0, end: blocks }).await?;
        let time_max = TIME_MAX + SLOW_MODEL_RUNS * self.sessions[self.sessions.len() - 1].time();
        self.begin_families(apart, time_max).await?;
        let chosen = self.sessions.len();
        let time_left = time_max.saturating_sub(self.started.elapsed());
        for range in apart {
            self.load(*range, true).await?;
        }
        self.sessions.sort_by_key(|session| session.range);
        let turns = self.sessions.len() as f64 / chosen as f64;
        progress(&format!("measuring {} ranges of blocks", self.sessions.len()));
        self.take_turns(time_left.mul_f64(turns)).await?;
        let (apart, chosen): (Vec<&Session>, Vec<&Session>) =
            self.sessions.iter().partition(|session| session.is_apart);
        let times = |sessions: Vec<&Session>| -> Vec<(BlockRange, f64)> {
            sessions.into_iter().map(|session| (session.range, micros(session.time()))).collect()
        };
        let (apart, measured) = (times(apart), times(chosen));
        let fitted = fit(&Structure::new(self.parts.manifest, &reads), &measured);
        Ok(Profiled { fitted, measured, apart, outputs })
    }

    /// Loads as many families of ranges as there is time and memory for.
    async fn begin_families(&mut self, apart: &[BlockRange], time_max: Duration) -> Result<(), PrepareError> {
        let blocks = self.parts.manifest.blocks.len();
        let times_us: Vec<f64> = self.sessions.iter().map(|session| micros(session.time())).collect();
        let (alone_us, whole_us) = times_us.split_at(blocks);
        let dependent = dependent(alone_us, whole_us.first().copied().unwrap_or_default());
        let mut memory_bytes = 0;
        for mut family in families(blocks, &dependent) {
            let known: Vec<BlockRange> = self.sessions.iter().map(|session| session.range).collect();
            family.retain(|range| !known.contains(range) && !apart.contains(range));
            memory_bytes += family.iter().map(|range| self.memory_bytes(*range)).sum::<u64>();
            if memory_bytes > SESSIONS_BYTES_MAX || self.expected(&family) > time_max {
                break;
            }
            for range in family {
                self.begin(range).await?;
            }
        }
        Ok(())
    }

    async fn take_turns(&mut self, time_max: Duration) -> Result<(), PrepareError> {
        let begun = Instant::now();
        for round in 0..ROUNDS_MAX {
            for session in &mut self.sessions {
                if round > 0 && begun.elapsed() > time_max {
                    return Ok(());
                }
                let (warm_ups, counted) = runs_per_round(session.time());
                for _ in 0..warm_ups {
                    session.warm_up().await?;
                }
                for _ in 0..counted {
                    session.run().await?;
                }
            }
        }
        Ok(())
    }

    /// Loads a range unless it is, and runs it for a first idea of its time; gives what came out.
    async fn begin(&mut self, range: BlockRange) -> Result<Vec<Tensor>, PrepareError> {
        match self.sessions.iter().find(|session| session.range == range) {
            Some(session) => session.warm_up().await,
            None => self.load(range, false).await,
        }
    }

    async fn load(&mut self, range: BlockRange, is_apart: bool) -> Result<Vec<Tensor>, PrepareError> {
        let begun = Instant::now();
        let partition = self.parts.load(range.first as u16..range.end as u16).await?;
        let given = partition.inputs().iter().filter_map(|spec| self.live.get(&spec.name).cloned());
        let inputs = given.collect();
        self.loading += begun.elapsed();
        self.blocks_loaded += range.blocks() as u32;
        let mut session = Session { range, partition, inputs, runs: Vec::new(), is_apart };
        let begun = Instant::now();
        let outputs = session.warm_up().await?;
        session.run().await?;
        self.beyond += (begun.elapsed() / 2).saturating_sub(session.time());
        self.sessions.push(session);
        Ok(outputs)
    }

    /// Tensors that a loaded block reads, as indices into the manifest's.
    fn reads(&self, session: &Session) -> Vec<usize> {
        let tensors = self.parts.manifest.tensors.iter().enumerate();
        let is_read = |name: &String| session.partition.inputs().iter().any(|spec| spec.name == *name);
        tensors.filter(|(_, spec)| is_read(&spec.name)).map(|(index, _)| index).collect()
    }

    fn memory_bytes(&self, range: BlockRange) -> u64 {
        self.parts.manifest.range_memory_bytes(range.first as u16..range.end as u16)
    }

    /// Time since the start by which these ranges would be loaded too, and all run often enough, if blocks
    /// take their part of the whole.
    fn expected(&self, family: &[BlockRange]) -> Duration {
        let blocks: u32 = family.iter().map(|range| range.blocks() as u32).sum();
        let loading = self.loading * blocks / self.blocks_loaded.max(1);
        let (alone, behind) = self.sessions.split_at(self.parts.manifest.blocks.len());
        let all: Duration = alone.iter().map(Session::time).sum();
        let part = behind.first().map_or(1.0, |whole| micros(whole.time()) / micros(all).max(1.0));
        let of_range = |range: &BlockRange| {
            let alone = &alone[range.first..range.end];
            alone.iter().map(Session::time).sum::<Duration>().mul_f64(part)
        };
        let beyond = self.beyond / self.sessions.len().max(1) as u32;
        let runs = |time: Duration| {
            let (warm_ups, counted) = runs_per_round(time);
            (time + beyond) * (warm_ups + counted) * ROUNDS_MIN
        };
        let loaded: Duration = self.sessions.iter().map(|session| runs(session.time())).sum();
        let more: Duration = family.iter().map(of_range).map(|time| runs(time) + 2 * (time + beyond)).sum();
        self.started.elapsed() + loading + loaded + more
    }
}

fn runs_per_round(time: Duration) -> (u32, u32) {
    if time < LONG { RUNS_PER_ROUND } else { RUNS_OF_LONG }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
