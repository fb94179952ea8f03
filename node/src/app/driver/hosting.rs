//! Partitions that this node has loaded or is loading, within its memory budget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::limits::HOSTED_MAX;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Deployment, Hosted};
use tokio::sync::watch;

use super::loading::{Loader, fetch_manifest};
use super::{Driver, Event};
use crate::ends::Described;
use crate::engine::Partition;
use crate::flow::StageEvent;
use crate::mesh::Held;
pub(super) use crate::mesh::PartitionKey;
use crate::pool::Progress;
use crate::profile::{Loads, Recent};

/// A partition that is ready to run.
#[derive(Debug)]
pub struct Loaded {
    pub partition: Arc<Partition>,
    /// Its first runs.
    pub runs: Recent,
    /// Time from the wish to load it.
    pub loading: Duration,
}

enum Slot {
    /// Waits for the manifest, or loads. Without it nobody hears of the progress, which ends the load.
    Loading { begun: bool, memory_bytes: u64, keep: bool, progress: watch::Receiver<Progress> },
    /// Runs.
    Ready { partition: Arc<Partition>, runs: Recent, memory_bytes: u64, used_ms: u64, keep: bool },
}

/// Loading a partition before this node has loaded any, milliseconds, and milliseconds per megabyte of
/// weights: SqueezeNet's parts on one core of a server, their objects at hand.
const LOAD_GUESS_MS: (f64, f64) = (8.0, 2.0);

/// All partitions of this node.
pub(super) struct Hosting {
    slots: BTreeMap<PartitionKey, Slot>,
    loads: Loads,
}

impl Default for Hosting {
    fn default() -> Self {
        let (fixed_ms, ms_per_mb) = LOAD_GUESS_MS;
        Self { slots: BTreeMap::new(), loads: Loads::guessed(fixed_ms, ms_per_mb) }
    }
}

impl Hosting {
    pub(super) fn memory_used_bytes(&self) -> u64 {
        self.slots
            .values()
            .map(|slot| match slot {
                Slot::Loading { memory_bytes, .. } | Slot::Ready { memory_bytes, .. } => *memory_bytes,
            })
            .sum()
    }

    /// For the node's record: what is ready.
    pub(super) fn hosted(&self) -> Vec<Hosted> {
        let ready = self.slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Ready { partition, runs, .. } => Some(Hosted {
                variant: key.variant,
                first: key.first,
                end: key.end,
                time_us: runs.median_us(),
                p95_us: runs.p95_us(),
                queue_wait_us: partition.expected_wait().as_micros() as u64,
            }),
            Slot::Loading { .. } => None,
        });
        ready.take(HOSTED_MAX).collect()
    }

    /// For the node's record: time to load a partition, and for each megabyte of its weights,
    /// microseconds.
    pub(super) fn cold_us(&self) -> (u64, u64) {
        let (fixed_ms, ms_per_mb) = self.loads.line();
        ((fixed_ms * 1000.0) as u64, (ms_per_mb * 1000.0) as u64)
    }

    /// All partitions, for whoever decides what is kept.
    pub(super) fn held(&self) -> Vec<Held> {
        let held = self.slots.iter().map(|(key, slot)| match slot {
            Slot::Loading { keep, progress, .. } => {
                let progress = Err(permille(*progress.borrow()));
                Held { key: *key, progress, is_ordered: *keep, used_ms: 0 }
            }
            Slot::Ready { keep, used_ms, .. } => {
                Held { key: *key, progress: Ok(()), is_ordered: *keep, used_ms: *used_ms }
            }
        });
        held.collect()
    }

    /// Frees a partition.
    pub(super) fn drop(&mut self, key: PartitionKey) {
        self.slots.remove(&key);
    }

    /// All partitions, loaded or not yet.
    pub(super) fn keys(&self) -> impl Iterator<Item = PartitionKey> {
        self.slots.keys().copied()
    }

    /// How far the pulls of partitions are that are not loaded yet.
    pub(super) fn loading(&self) -> impl Iterator<Item = (PartitionKey, Progress)> {
        self.slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Loading { progress, .. } => Some((*key, *progress.borrow())),
            Slot::Ready { .. } => None,
        })
    }

    /// Whether a partition is loaded.
    pub(super) fn is_ready(&self, key: PartitionKey) -> bool {
        matches!(self.slots.get(&key), Some(Slot::Ready { .. }))
    }

    pub(super) fn ready(&mut self, key: PartitionKey, now_ms: u64) -> Option<Arc<Partition>> {
        match self.slots.get_mut(&key)? {
            Slot::Ready { partition, used_ms, .. } => {
                *used_ms = now_ms;
                Some(partition.clone())
            }
            Slot::Loading { .. } => None,
        }
    }

    /// A real run counts into the partition's time.
    pub(super) fn ran(&mut self, key: PartitionKey, time: Duration) {
        if let Some(Slot::Ready { runs, .. }) = self.slots.get_mut(&key) {
            runs.note(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Frees memory for a new partition, which has its slot already, by dropping what nobody asked to keep, longest
    /// unused first.
    fn make_room(&mut self, need_bytes: u64, budget_bytes: u64) -> Result<(), NoRoom> {
        loop {
            let lacking = if self.slots.len() > HOSTED_MAX {
                NoRoom::Slot
            } else if self.memory_used_bytes().saturating_add(need_bytes) > budget_bytes {
                NoRoom::Memory
            } else {
                return Ok(());
            };
            let idle = self.slots.iter().filter_map(|(key, slot)| match slot {
                Slot::Ready { keep: false, used_ms, partition, .. } if partition.queue_len() == 0 => {
                    Some((*used_ms, *key))
                }
                _ => None,
            });
            let Some((_, oldest)) = idle.min() else { return Err(lacking) };
            self.slots.remove(&oldest);
        }
    }
}

/// What a new partition lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoRoom {
    Memory,
    /// As many are hosted as a record can tell.
    Slot,
}

/// Share of a pull that is here, thousandths.
fn permille(progress: Progress) -> u16 {
    let Progress { bytes_done, bytes_total, .. } = progress;
    (u128::from(bytes_done) * 1000 / u128::from(bytes_total.max(1))).min(1000) as u16
}

impl Driver {
    /// Frees what belongs to deployments that were replaced or taken back, once no request uses it.
    pub(super) fn drop_unwanted(&mut self) {
        let live: BTreeSet<DeploymentId> =
            self.member.deployments().live().map(|deployment| deployment.id()).collect();
        let in_use: BTreeSet<PartitionKey> = self.partitions_in_use();
        self.hosting.slots.retain(|key, _| live.contains(&key.variant.deployment) || in_use.contains(key));
        let hosting = &self.hosting;
        self.manifests.retain(|id, _| {
            live.contains(&id.deployment) || hosting.slots.keys().any(|key| key.variant == *id)
        });
        self.keep_needed();
    }

    /// Drops a partition that no request uses, longest unused first; tells whether there was one.
    pub(super) fn drop_one_idle(&mut self) -> bool {
        let in_use = self.partitions_in_use();
        let idle = self.hosting.slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Ready { used_ms, partition, .. } if partition.queue_len() == 0 && !in_use.contains(key) => {
                Some((*used_ms, *key))
            }
            _ => None,
        });
        let Some((_, oldest)) = idle.min() else { return false };
        self.hosting.slots.remove(&oldest);
        self.on_changed();
        true
    }

    /// Drops what is kept warm for others, once no request uses it.
    pub(super) fn drop_what_is_kept_for_others(&mut self) {
        let in_use = self.partitions_in_use();
        let before = self.hosting.slots.len();
        self.hosting
            .slots
            .retain(|key, slot| !matches!(slot, Slot::Ready { keep: true, .. }) || in_use.contains(key));
        if self.hosting.slots.len() < before {
            self.on_changed();
        }
    }

    /// Begins to load a partition unless it is loaded or loading; `keep` if an order asks for it.
    pub(super) fn load(&mut self, key: PartitionKey, keep: bool) {
        match self.hosting.slots.get_mut(&key) {
            Some(Slot::Ready { keep: kept, .. }) => {
                *kept |= keep;
                self.stages_ready(key, StageEvent::Ready);
            }
            Some(Slot::Loading { keep: kept, .. }) => *kept |= keep,
            None => {
                let (_, progress) = watch::channel(Progress::default());
                let slot = Slot::Loading { begun: false, memory_bytes: 0, keep, progress };
                self.hosting.slots.insert(key, slot);
                self.want_manifests();
                self.begin_loading(key);
            }
        }
    }

    /// Goes on once the manifest is here.
    fn begin_loading(&mut self, key: PartitionKey) {
        let Some(manifest) = self.manifests.get(&key.variant).cloned() else { return };
        if manifest.graph_part(key.blocks()) != key.blocks() || key.first >= key.end {
            return self.loading_failed(key, Refusal::NotMyStage);
        }
        let is_for_others = matches!(self.hosting.slots.get(&key), Some(Slot::Loading { keep: true, .. }));
        if let Some(reason) = self.refuses_work().filter(|_| is_for_others) {
            return self.loading_failed(key, reason);
        }
        // What it is tried on is as large as its ends say, whatever its peak is said to be.
        let ends_bytes = manifest.cut_bytes(key.first).saturating_add(manifest.cut_bytes(key.end));
        let need_bytes = manifest.range_memory_bytes(key.blocks()).max(ends_bytes);
        let budget_bytes = self.parts.machine.memory_budget_bytes;
        if let Err(lacking) = self.hosting.make_room(need_bytes, budget_bytes) {
            if let Some(left_out) = self.log.hosting.next(self.now_ms()) {
                let why = match lacking {
                    NoRoom::Memory => "it does not fit the memory budget (--memory-budget)",
                    NoRoom::Slot => "as many parts are hosted here as may be",
                };
                tracing::warn!(
                    model = %manifest.model, first = key.first, end = key.end, need_bytes, budget_bytes, left_out,
                    "refused to host: {why}"
                );
            }
            let reason = match lacking {
                NoRoom::Memory => self.no_room(),
                NoRoom::Slot => Refusal::HostsMost,
            };
            return self.loading_failed(key, reason);
        }
        let (told, heard) = watch::channel(Progress::default());
        match self.hosting.slots.get_mut(&key) {
            Some(Slot::Loading { begun, memory_bytes, progress, .. }) if !*begun => {
                (*begun, *memory_bytes, *progress) = (true, need_bytes, heard);
            }
            _ => return,
        }
        self.keep_needed();
        let loader = Loader {
            net: self.parts.net.clone(),
            pool: self.parts.pool.clone(),
            engine: self.parts.engine.clone(),
            peers: self.holders(key.variant.deployment, Some(&key)),
            progress: told,
        };
        self.beside(async move { Event::Loaded(key, loader.load(&manifest, key).await) });
    }

    pub(super) fn on_loaded(&mut self, key: PartitionKey, result: Result<Loaded, Refusal>) {
        // Not one that was dropped meanwhile, nor what was ordered again since and does not load yet.
        let Some(&Slot::Loading { begun: true, memory_bytes, keep, .. }) = self.hosting.slots.get(&key)
        else {
            return;
        };
        let Loaded { partition, runs, loading } = match result {
            Ok(loaded) => loaded,
            Err(Refusal::Cancelled) => return,
            Err(reason) => return self.loading_failed(key, reason),
        };
        let used_ms = self.now_ms();
        if let Some(manifest) = self.manifests.get(&key.variant) {
            let weights_bytes = manifest.range_weights_bytes(key.blocks());
            self.hosting.loads.note(weights_bytes, loading.as_secs_f64() * 1000.0);
        }
        let slot = Slot::Ready { partition, runs, memory_bytes, used_ms, keep };
        self.hosting.slots.insert(key, slot);
        self.stages_ready(key, StageEvent::Ready);
        self.on_changed();
    }

    fn loading_failed(&mut self, key: PartitionKey, reason: Refusal) {
        self.hosting.slots.remove(&key);
        self.stages_ready(key, StageEvent::NotReady(reason));
        self.refuse_to_keep(key, reason);
    }

    /// Who may have the objects of a deployment: those who host some of the same blocks, its publisher, its other hosts, then
    /// anyone connected; who fell silent a moment ago comes last. Not all of many are asked.
    fn holders(&self, deployment: DeploymentId, wanted: Option<&PartitionKey>) -> Vec<NodeId> {
        let publisher = self.member.deployments().by_id(deployment).map(|deployment| deployment.publisher);
        let hosts =
            self.member.view().iter().filter(|known| {
                known.record.hosted.iter().any(|hosted| hosted.variant.deployment == deployment)
            });
        let connected = self.member.connected();
        // In a large mesh most hosts are not connected; a stream to one that is there dials it.
        let is_there = |node: &NodeId| connected.contains(node) || self.is_usable(*node);
        let all = publisher.into_iter().chain(hosts.map(|known| known.record.node)).filter(is_there);
        let mut holders: Vec<NodeId> = Vec::new();
        let gives =
            |node: &NodeId| self.member.view().get(*node).is_none_or(|known| known.record.offer.stores);
        for node in all.chain(connected.iter().copied()).filter(gives) {
            if node != self.own() && !holders.contains(&node) {
                holders.push(node);
            }
        }
        let overlaps = |hosted: &Hosted| {
            let is_some_of = |key: &&PartitionKey| {
                hosted.variant == key.variant && hosted.first < key.end && key.first < hosted.end
            };
            wanted.is_some_and(|key| is_some_of(&key))
        };
        let has_some = |node: &NodeId| {
            self.member.view().get(*node).is_some_and(|known| known.record.hosted.iter().any(overlaps))
        };
        holders.sort_by_key(|node| (self.suspects.is_out(*node), !has_some(node)));
        holders
    }

    /// Fetches the manifests of variants that are known only by name.
    pub(super) fn want_manifests(&mut self) {
        let all = self.member.deployments().live().flat_map(Deployment::variants);
        let missing: Vec<(VariantId, ObjectRef)> = all
            .map(|(id, variant)| (id, variant.manifest))
            .filter(|(id, _)| !self.manifests.contains_key(id))
            .collect();
        for (id, object) in missing {
            if !self.manifests_wanted.insert(id) {
                continue;
            }
            let (net, pool) = (self.parts.net.clone(), self.parts.pool.clone());
            let peers = self.holders(id.deployment, None);
            self.beside(async move {
                let manifest = fetch_manifest(&net, &pool, object, &peers).await;
                if let Err(reason) = &manifest {
                    tracing::debug!(variant = %id, reason, "no manifest yet");
                }
                Event::Manifest(id, manifest.ok())
            });
        }
    }

    pub(super) fn on_manifest(&mut self, id: VariantId, manifest: Option<Arc<Described>>) {
        self.manifests_wanted.remove(&id);
        let waiting: Vec<PartitionKey> =
            self.hosting.slots.keys().filter(|key| key.variant == id).copied().collect();
        match manifest {
            Some(manifest) => {
                self.manifests.insert(id, manifest);
                self.keep_needed();
                waiting.into_iter().for_each(|key| self.begin_loading(key));
            }
            None => {
                for key in waiting {
                    if let Some(Slot::Loading { begun: false, .. }) = self.hosting.slots.get(&key) {
                        self.loading_failed(key, Refusal::MissingObject);
                    }
                }
            }
        }
    }
}
