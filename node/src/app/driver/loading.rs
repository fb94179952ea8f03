//! How a partition comes in: its objects from peers, its session from its objects; and what of the
//! pool may not go meanwhile.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stormo_protocol::codec::decode;
use stormo_protocol::ids::{NodeId, ObjectId, VariantId};
use stormo_protocol::limits::MANIFEST_BYTES_MAX;
use stormo_protocol::model::{Manifest, ObjectRef};
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Deployment, Variant};
use stormo_protocol::tensor::Tensor;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Driver;
use super::hosting::{Loaded, PartitionKey};
use crate::card::{CARD_BYTES_MAX, Card};
use crate::deploy::partition_source_beside;
use crate::ends::Described;
use crate::engine::{self, Engine, PartitionSource, ProfileBudget};
use crate::model::Skeleton;
use crate::monitor;
use crate::net::Net;
use crate::pool::{Gathered, Pool, PoolError, Progress};
use crate::sample;

/// How a partition is measured before it takes work. A request may be waiting for it, and real runs say
/// more soon.
const WARM_UP: ProfileBudget =
    ProfileBudget { warm_up_runs: 2, runs_max: 10, time_max: Duration::from_millis(30) };
/// The whole of it takes no longer, however slow the machine: others wait to be loaded.
const WARM_UP_MAX: Duration = Duration::from_secs(120);
/// Times that objects are pulled and read: those that turn out damaged on disk are fetched once more.
const READS_MAX: u32 = 2;

/// What the pool was last told to keep.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    partitions: BTreeSet<PartitionKey>,
    manifests: BTreeSet<ObjectId>,
    published: BTreeSet<VariantId>,
}

impl Driver {
    /// Tells the pool what may not be evicted: manifests of live deployments, everything of those
    /// published here (others fetch it from here), and what partitions here are made of.
    pub(super) fn keep_needed(&mut self) {
        let own = self.own();
        let known = |id: &VariantId| self.manifests.contains_key(id);
        let live = || self.member.deployments().live();
        let described_by = |(id, variant): (VariantId, &Variant)| {
            let card = self.manifests.get(&id).and_then(|described| described.manifest.card);
            std::iter::once(variant.manifest.id).chain(card.map(|card| card.id))
        };
        let kept = Kept {
            partitions: self.hosting.keys().filter(|key| known(&key.variant)).collect(),
            manifests: live().flat_map(Deployment::variants).flat_map(described_by).collect(),
            published: live()
                .filter(|deployment| deployment.publisher == own)
                .flat_map(|deployment| deployment.variants().map(|(id, _)| id))
                .filter(known)
                .collect(),
        };
        if kept == self.kept {
            return;
        }
        let mut needed: HashSet<ObjectId> = kept.manifests.iter().copied().collect();
        let published = kept.published.iter().map(|id| (*id, None));
        let hosted = kept.partitions.iter().map(|key| (key.variant, Some(key.blocks())));
        for (id, blocks) in published.chain(hosted) {
            let Some(manifest) = self.manifests.get(&id) else { continue };
            let blocks = blocks.unwrap_or(0..manifest.block_count());
            if blocks.start < blocks.end && blocks.end <= manifest.block_count() {
                needed.extend(manifest.range_objects(blocks).into_iter().map(|object| object.id));
            }
        }
        self.parts.pool.set_needed(needed);
        self.kept = kept;
    }
}

/// A manifest from the pool or a peer.
pub(super) async fn fetch_manifest(
    net: &Net,
    pool: &Arc<Pool>,
    object: ObjectRef,
    peers: &[NodeId],
) -> Result<Arc<Described>, String> {
    if object.bytes > MANIFEST_BYTES_MAX {
        return Err("the manifest is above the size limit".into());
    }
    let (told, _heard) = watch::channel(Progress::default());
    let progress = &told;
    let pulled = |object: ObjectRef| async move {
        let pool_there = pool.clone();
        pull_until(net, pool, vec![object].into(), peers, progress, move || pool_there.read(object.id)).await
    };
    let bytes = pulled(object).await.map_err(|error| error.to_string())?;
    let manifest = read_manifest(&bytes)?;
    if let Some(card) = manifest.card {
        if card.bytes > CARD_BYTES_MAX as u64 {
            return Err("the card is above the size limit".into());
        }
        pulled(card).await.map_err(|error| error.to_string())?;
    }
    describe(pool, manifest).map(Arc::new)
}

/// A manifest with its card, which is in the pool.
pub(super) fn describe(pool: &Pool, manifest: Manifest) -> Result<Described, String> {
    let read = |card: ObjectRef| {
        let bytes = pool.read(card.id).map_err(|error| error.to_string())?;
        let text = std::str::from_utf8(&bytes).map_err(|_| "the card is no text".to_owned())?;
        Card::parse(text).map_err(|error| error.to_string())
    };
    let card = manifest.card.map(read).transpose()?;
    Ok(Described { manifest, card })
}

/// Decodes and checks a manifest.
pub(super) fn read_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    const LIMIT: usize = MANIFEST_BYTES_MAX as usize;
    let manifest = decode::<Manifest, LIMIT>(bytes).map_err(|error| error.to_string())?;
    manifest.check().map_err(|error| error.to_string())?;
    Ok(manifest)
}

/// One at a time: two at once would fetch the same objects twice and share the memory for loading.
static LOADING: Semaphore = Semaphore::const_new(1);

pub(super) struct Loader {
    pub(super) net: Net,
    pub(super) pool: Arc<Pool>,
    pub(super) engine: Engine,
    pub(super) peers: Vec<NodeId>,
    /// Who wants the partition watches it.
    pub(super) progress: watch::Sender<Progress>,
}

impl Loader {
    /// Ends with [`Refusal::Cancelled`] when nobody wants the partition any more: at once while it waits or pulls, else
    /// behind what cannot be broken off, so that the next one to load has the memory.
    pub(super) async fn load(self, manifest: &Arc<Described>, key: PartitionKey) -> Result<Loaded, Refusal> {
        let one = tokio::select! {
            biased;
            () = self.progress.closed() => return Err(Refusal::Cancelled),
            one = LOADING.acquire() => one,
        };
        let Ok(_one) = one else { return Err(Refusal::Leaving) };
        let begun = Instant::now();
        let failed = |error: String| {
            tracing::warn!(model = %manifest.model, first = key.first, end = key.end, error, "cannot load");
            Refusal::LoadFailed
        };
        let (skeleton, gathered) = self.objects(manifest, key).await?;
        self.is_wanted()?;
        let described = manifest.clone();
        let extracted = spawn_blocking(move || extract(&skeleton, &described, key)).await;
        let source = extracted.map_err(|error| error.to_string()).flatten().map_err(failed)?;
        self.is_wanted()?;
        let specs = source.inputs.clone();
        let label = format!("{} {}-{}", manifest.model, key.first, key.end);
        let partition = self.engine.load_beside(label, source, gathered.folder()).await;
        let partition = partition.map_err(|error| failed(error.to_string()))?;
        drop(gathered);
        self.is_wanted()?;
        let samples = move || specs.into_iter().map(sample::tensor).collect::<Result<Vec<Tensor>, _>>();
        let inputs = spawn_blocking(samples).await.map_err(|error| failed(error.to_string()))?;
        let inputs = inputs.map_err(|error| failed(error.to_string()))?;
        let warming = timeout(WARM_UP_MAX, engine::profile(&partition, &inputs, WARM_UP));
        let warmed = tokio::select! {
            biased;
            () = self.progress.closed() => return Err(Refusal::Cancelled),
            warmed = warming => warmed,
        };
        // A loop that ends on real inputs may go on for ever on these.
        let endless =
            |_| failed(format!("it does not end within {} s on made-up inputs", WARM_UP_MAX.as_secs()));
        let times_us = warmed.map_err(endless)?;
        // Measured in processor time; by the clock it takes longer where this node has less than a core.
        let by_clock = |time_us: u64| (time_us as f64 / monitor::core_share()) as u64;
        let runs = times_us.map_err(|error| failed(error.to_string()))?.into_iter().map(by_clock).collect();
        Ok(Loaded { partition, runs, loading: begun.elapsed() })
    }

    fn is_wanted(&self) -> Result<(), Refusal> {
        if self.progress.is_closed() { Err(Refusal::Cancelled) } else { Ok(()) }
    }

    /// The skeleton, and all else that the session is made of side by side on disk.
    async fn objects(
        &self,
        manifest: &Arc<Described>,
        key: PartitionKey,
    ) -> Result<(Arc<[u8]>, Gathered), Refusal> {
        let objects: Arc<[ObjectRef]> = manifest.range_objects(key.blocks()).into();
        let (pool, wanted, skeleton) = (self.pool.clone(), objects.clone(), manifest.skeleton.id);
        let read = move || {
            let weights: Vec<ObjectRef> =
                wanted.iter().filter(|object| object.id != skeleton).copied().collect();
            let gathered = pool.gather(&weights);
            // Read even so: all that are damaged are then gone, and the next pull brings them at once.
            let skeleton = pool.read(skeleton)?;
            Ok((skeleton, gathered?))
        };
        let read = pull_until(&self.net, &self.pool, objects, &self.peers, &self.progress, read).await;
        read.map_err(|error| {
            if !matches!(error, PoolError::Unwanted) {
                tracing::warn!(model = %manifest.model, %error, "cannot host");
            }
            refusal_of(&error)
        })
    }
}

/// What is read of objects from the pool, once those that it lacks have come from peers. Damage on disk shows when they
/// are read; what was damaged, or cannot be read, is then pulled too.
async fn pull_until<T: Send + 'static>(
    net: &Net,
    pool: &Arc<Pool>,
    objects: Arc<[ObjectRef]>,
    peers: &[NodeId],
    progress: &watch::Sender<Progress>,
    read: impl Fn() -> Result<T, PoolError> + Clone + Send + 'static,
) -> Result<T, PoolError> {
    let mut reads = 0;
    loop {
        pool.pull(net, &objects, peers, progress).await?;
        reads += 1;
        match spawn_blocking(read.clone()).await? {
            Err(PoolError::Damaged(_) | PoolError::Missing(_) | PoolError::Unreadable { .. })
                if reads < READS_MAX => {}
            read => return read,
        }
    }
}

fn refusal_of(error: &PoolError) -> Refusal {
    match error {
        // Damaged or gone again right after it was pulled and verified: that is the disk.
        PoolError::Damaged(_) | PoolError::Missing(_) => Refusal::Storage,
        PoolError::Disk { .. } | PoolError::Unreadable { .. } | PoolError::Full { .. } => Refusal::Storage,
        PoolError::Nowhere { .. } => Refusal::MissingObject,
        PoolError::Unwanted => Refusal::Cancelled,
        PoolError::Broken(_) => Refusal::LoadFailed,
    }
}

fn extract(bytes: &[u8], manifest: &Manifest, key: PartitionKey) -> Result<PartitionSource, String> {
    let skeleton = Skeleton::parse(bytes, manifest).map_err(|error| error.to_string())?;
    let (source, _) =
        partition_source_beside(&skeleton, manifest, key.blocks()).map_err(|error| error.to_string())?;
    Ok(source)
}

#[cfg(test)]
mod tests;
