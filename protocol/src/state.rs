//! What nodes gossip: their own record, the deployments they wish for and the orders of their stewards, signed
//! by their author.
//! Signing itself is done where the keys are; here are the bytes that a signature covers.

mod domain;
mod order;

pub use domain::{Domain, DomainKind, shared};
pub use order::{Division, GoalProgress, HostingGoal, Order, Place, Wished};

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, SectionReader, SectionWriter, decode, encode};
use crate::coordinate::Coordinate;
use crate::ids::{DeploymentId, MeshId, NodeId, VariantId};
use crate::limits::{
    ADDRESSES_MAX, DEMANDS_MAX, DEPLOYMENT_BYTES_MAX, DOMAINS_MAX, GOALS_MAX, GOSSIP_BYTES_MAX, HOSTED_MAX,
    LINKS_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, VARIANTS_MAX,
};
use crate::model::{ObjectRef, is_valid_name};
use crate::profile::Speeds;

/// What kind of machine a node is, as its owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A board, a camera, a phone: small, perhaps on a battery.
    Device,
    /// A machine nearby.
    Edge,
    /// A server far away.
    Cloud,
}

/// A range of blocks that is loaded and warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosted {
    /// Whose blocks.
    pub variant: VariantId,
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
    /// Time of one run here, microseconds: half of the last ones were faster.
    pub time_us: u64,
    /// Nineteen in twenty were faster than this, microseconds.
    pub p95_us: u64,
    /// Time that a new input would wait now, microseconds.
    pub queue_wait_us: u64,
}

/// What a node measured on the way to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEstimate {
    /// The neighbour.
    pub peer: NodeId,
    /// Round trip, microseconds.
    pub round_trip_us: u32,
    /// Rate of large transfers, bytes a second; 0 while unknown.
    pub bytes_per_second: u64,
}

/// Which record is newer: a node counts its starts, and its records since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Starts of the node so far.
    pub generation: u64,
    /// Records since this start.
    pub sequence: u64,
}

/// Machine and software of a node: what changes rarely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The owner's name for it.
    pub label: String,
    /// Kind of machine.
    pub class: Class,
    /// Where it listens, as multiaddresses.
    pub addresses: Vec<String>,
    /// Cores it may use.
    pub cores: u16,
    /// Speed of one core at each class of work.
    pub speeds: Speeds,
    /// Memory that partitions may take in all, bytes.
    pub memory_budget_bytes: u64,
}

/// What a node does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Memory that loaded partitions take, bytes.
    pub memory_used_bytes: u64,
    /// Share of its cores in use, thousandths.
    pub utilisation_permille: u16,
    /// Time to load a partition whatever its size, by its last loads, microseconds.
    pub cold_us: u64,
    /// Time beyond that for each megabyte of its weights, microseconds.
    pub cold_us_per_mb: u64,
    /// It is going away: no new work.
    pub leaving: bool,
}

/// What the owner of a node lets others have of it; a node's own requests are not bound by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// It runs parts of models.
    pub computes: bool,
    /// It gives objects to those who lack them.
    pub stores: bool,
    /// It does so now: the hours are those that its owner said.
    pub open: bool,
}

impl Default for Offer {
    /// All of it, always: what nodes offer that say nothing.
    fn default() -> Self {
        Self { computes: true, stores: true, open: true }
    }
}

impl Offer {
    /// Whether it may be asked to host blocks, or to run them for others.
    pub fn takes_work(self) -> bool {
        self.computes && self.open
    }
}

/// How much is asked at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Of which version.
    pub deployment: DeploymentId,
    /// Requests that entered there in the last minutes, smoothed, each minute; a power of two, so that it changes
    /// seldom.
    pub per_minute: u32,
}

/// All that a node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    /// Who speaks.
    pub node: NodeId,
    /// Which of its records this is.
    pub stamp: Stamp,
    /// What it is.
    pub machine: Machine,
    /// What it does.
    pub load: Load,
    /// What others may have of it.
    pub offer: Offer,
    /// What it has loaded.
    pub hosted: Vec<Hosted>,
    /// How far its neighbours are.
    pub links: Vec<LinkEstimate>,
    /// Where it is in the space of round trips, once it knows.
    pub coordinate: Option<Coordinate>,
    /// What it was ordered to host and does not yet.
    pub goals: Vec<HostingGoal>,
    /// What may take it away together with others.
    pub domains: Vec<Domain>,
    /// What is asked at it.
    pub demands: Vec<Demand>,
}

const OFFER: u16 = 8;
const IDENTITY: u16 = 1;
const MACHINE: u16 = 2;
const LOAD: u16 = 3;
const HOSTED: u16 = 4;
const LINKS: u16 = 5;
const GOALS: u16 = 9;
const DOMAINS: u16 = 10;
const DEMANDS: u16 = 11;
const COORDINATE: u16 = 12;

impl NodeRecord {
    /// Memory for more parts of models, bytes: none where it hosts as many parts as a node may.
    pub fn free_bytes(&self) -> u64 {
        if self.is_full() {
            return 0;
        }
        self.machine.memory_budget_bytes.saturating_sub(self.load.memory_used_bytes)
    }

    /// Whether it hosts, or loads, as many parts as a node may, whatever memory it has.
    pub fn is_full(&self) -> bool {
        let loading = self.goals.iter().filter(|goal| goal.progress.refusal().is_none());
        self.hosted.len() + loading.count() >= HOSTED_MAX
    }

    /// The bytes that the node signs.
    pub fn to_bytes(&self) -> Vec<u8> {
        let what_it_is = SectionWriter::default()
            .with(IDENTITY, &(self.node, self.stamp))
            .with(MACHINE, &self.machine)
            .with(LOAD, &self.load);
        // Most nodes offer everything and host all that was ordered, which needs no words.
        let everything = self.offer == Offer::default();
        let offered = if everything { what_it_is } else { what_it_is.with(OFFER, &self.offer) };
        let hosts = offered.with(HOSTED, &self.hosted).with(LINKS, &self.links);
        let hosts = match &self.coordinate {
            Some(coordinate) => hosts.with(COORDINATE, coordinate),
            None => hosts,
        };
        let told = if self.goals.is_empty() { hosts } else { hosts.with(GOALS, &self.goals) };
        let domains: Vec<(u8, &str)> = self.domains.iter().map(Domain::to_wire).collect();
        let told = if domains.is_empty() { told } else { told.with(DOMAINS, &domains) };
        if self.demands.is_empty() { told } else { told.with(DEMANDS, &self.demands) }.into_bytes()
    }

    /// Reads and checks a record; numbers that later enter arithmetic are brought into range.
    ///
    /// # Errors
    /// When the bytes are too long, malformed, or list more than allowed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        const L: usize = RECORD_BYTES_MAX;
        if bytes.len() > L {
            return Err(DecodeError::TooLong { got: bytes.len(), limit: L });
        }
        let sections = SectionReader::new(bytes)?;
        let (node, stamp) = sections.required::<_, L>(IDENTITY)?;
        let domains = sections.optional::<Vec<(u8, String)>, L>(DOMAINS)?.unwrap_or_default();
        let sound = |(_, name): &(u8, String)| is_valid_name(name);
        if domains.len() > DOMAINS_MAX || !domains.iter().all(sound) {
            return Err(DecodeError::Malformed);
        }
        let mut record = Self {
            node,
            stamp,
            machine: sections.required::<Machine, L>(MACHINE)?,
            load: sections.required::<_, L>(LOAD)?,
            offer: sections.optional::<_, L>(OFFER)?.unwrap_or_default(),
            hosted: sections.required::<Vec<Hosted>, L>(HOSTED)?,
            links: sections.required::<Vec<LinkEstimate>, L>(LINKS)?,
            // A place that is none costs who says so its place, and not its record.
            coordinate: sections
                .optional::<Coordinate, L>(COORDINATE)
                .ok()
                .flatten()
                .and_then(Coordinate::sane),
            goals: sections.optional::<Vec<HostingGoal>, L>(GOALS)?.unwrap_or_default(),
            domains: domains.into_iter().filter_map(Domain::from_wire).collect(),
            demands: sections.optional::<Vec<Demand>, L>(DEMANDS)?.unwrap_or_default(),
        };
        let machine = &mut record.machine;
        let bounded = record.hosted.len() <= HOSTED_MAX
            && record.links.len() <= LINKS_MAX
            && machine.addresses.len() <= ADDRESSES_MAX
            && machine.label.len() <= NAME_BYTES_MAX
            && !machine.label.chars().any(char::is_control)
            && record.goals.len() <= GOALS_MAX
            && record.demands.len() <= DEMANDS_MAX
            && record.hosted.iter().all(|hosted| hosted.first < hosted.end);
        if !bounded {
            return Err(DecodeError::Malformed);
        }
        machine.speeds = machine.speeds.sane();
        Ok(record)
    }
}

/// How often a variant's answers are right: a share of 1, to a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Accuracy(u32);

impl Accuracy {
    const WHOLE: u32 = 1_000_000;

    /// From a share; `None` if it is not between 0 and 1.
    pub fn of(share: f64) -> Option<Self> {
        let is_share = (0.0..=1.0).contains(&share);
        is_share.then(|| Self((share * f64::from(Self::WHOLE)).round() as u32))
    }

    /// 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }
}

/// One ONNX graph of a model, interchangeable with the others of its deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Name by which requests pick it.
    pub label: String,
    /// The encoded [`Manifest`](crate::model::Manifest).
    pub manifest: ObjectRef,
    /// As its publisher says, or measured against the first variant.
    pub accuracy: Option<Accuracy>,
}

/// The mesh's wish: this model, in this version, on so many nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Name by which requests ask for it.
    pub name: String,
    /// Rises with each deployment of the name, as long as that was not taken back and forgotten.
    pub version: u64,
    /// Who may change it.
    pub publisher: NodeId,
    /// At least one; the first is what the others are compared with.
    pub variants: Vec<Variant>,
    /// Whether it was taken back; such a record stays, so that it does not return by repair.
    pub removed: bool,
    /// When it was taken back by its publisher's clock, seconds since 1970; 0 while it is wished, and where an earlier
    /// version took it back. Which of them are forgotten first is told by this.
    pub removed_unix_s: u64,
    /// Since when its name is its publisher's, by that one's clock, seconds since 1970, and always later than what it knew of
    /// the name before (a hybrid logical clock): of two deployments the later begun counts, whoever published it and whatever
    /// their versions are, as these begin at 1 again where a removal was forgotten. 0 where an earlier version of this program
    /// deployed it.
    pub begun_unix_s: u64,
    /// On how many nodes, and how divided.
    pub wished: Wished,
}

const DEPLOYMENT: u16 = 1;
const WISHED: u16 = 2;
const REMOVED_UNIX_S: u16 = 3;
const BEGUN_UNIX_S: u16 = 4;

impl Deployment {
    /// Name of this version.
    pub fn id(&self) -> DeploymentId {
        let mut hasher = blake3::Hasher::new_derive_key("stormo 1 deployment id");
        hasher.update(&self.publisher.0);
        hasher.update(&self.version.to_le_bytes());
        for variant in &self.variants {
            hasher.update(&variant.manifest.id.0);
            hasher.update(&encode(&(&variant.label, variant.accuracy)));
        }
        hasher.update(self.name.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        DeploymentId(id)
    }

    /// All variants by their ids.
    pub fn variants(&self) -> impl Iterator<Item = (VariantId, &Variant)> {
        let deployment = self.id();
        (0..).zip(&self.variants).map(move |(index, variant)| (VariantId { deployment, index }, variant))
    }

    /// The bytes that the publisher signs.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { name, version, publisher, variants, removed, removed_unix_s, begun_unix_s, wished } = self;
        let wish = SectionWriter::default()
            .with(DEPLOYMENT, &(name, version, publisher, variants, removed))
            .with(WISHED, wished);
        let has_time = *removed && *removed_unix_s > 0;
        let wish = if has_time { wish.with(REMOVED_UNIX_S, removed_unix_s) } else { wish };
        if *begun_unix_s > 0 { wish.with(BEGUN_UNIX_S, begun_unix_s) } else { wish }.into_bytes()
    }

    /// Reads and checks a deployment.
    ///
    /// # Errors
    /// When the bytes are too long or malformed, a name is no valid one, or there are no variants, too many
    /// or two of one label.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        const L: usize = DEPLOYMENT_BYTES_MAX;
        if bytes.len() > L {
            return Err(DecodeError::TooLong { got: bytes.len(), limit: L });
        }
        let sections = SectionReader::new(bytes)?;
        let (name, version, publisher, variants, removed) = sections.required::<_, L>(DEPLOYMENT)?;
        let wished = sections.required::<Wished, L>(WISHED)?;
        let removed_unix_s = sections.optional::<u64, L>(REMOVED_UNIX_S)?.filter(|_| removed).unwrap_or(0);
        let begun_unix_s = sections.optional::<u64, L>(BEGUN_UNIX_S)?.unwrap_or(0);
        let deployment =
            Self { name, version, publisher, variants, removed, removed_unix_s, begun_unix_s, wished };
        if deployment.is_sound() { Ok(deployment) } else { Err(DecodeError::Malformed) }
    }

    fn is_sound(&self) -> bool {
        let labels = || self.variants.iter().map(|variant| variant.label.as_str());
        let twice =
            labels().enumerate().any(|(index, label)| labels().take(index).any(|other| other == label));
        let exact =
            |variant: &Variant| variant.accuracy.is_none_or(|Accuracy(parts)| parts <= Accuracy::WHOLE);
        (1..=VARIANTS_MAX).contains(&self.variants.len())
            && is_valid_name(&self.name)
            && self.wished.is_sound()
            && labels().all(is_valid_name)
            && !twice
            && self.variants.iter().all(exact)
    }
}

/// What a signed message speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// A [`NodeRecord`].
    Node,
    /// A [`Deployment`].
    Deployment,
    /// An [`Order`].
    Order,
}

/// A record with its author's signature; relays pass it on byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What it is about.
    pub topic: Topic,
    /// Whose key signed it.
    pub author: NodeId,
    /// Ed25519 over [`Signed::covered`], 64 bytes.
    pub signature: Vec<u8>,
    /// The record as its author encoded it.
    pub body: Vec<u8>,
}

impl Signed {
    /// The bytes a signature covers: topic and mesh too, so that none is valid elsewhere.
    pub fn covered(topic: Topic, mesh: MeshId, body: &[u8]) -> Vec<u8> {
        let context: &[u8] = match topic {
            Topic::Node => b"stormo 1 node record\0",
            Topic::Deployment => b"stormo 1 deployment\0",
            Topic::Order => b"stormo 1 order\0",
        };
        [context, &mesh.0, body].concat()
    }

    /// As gossiped.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a signed message; the signature is not checked here.
    ///
    /// # Errors
    /// When too long or malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode::<Self, GOSSIP_BYTES_MAX>(bytes)
    }
}

#[cfg(test)]
mod tests;
