//! A host: a real member of the mesh, gossip below it, and what it says of itself.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
use stormo::mesh::MemberEvent;
use stormo::mesh::{About, Heard, Member};
use stormo_protocol::ids::{DeploymentId, NodeId, VariantId};
use stormo_protocol::profile::Speeds;
use stormo_protocol::state::{Class, Hosted, Load, Machine, Offer, Signed, Stamp, Topic};

use super::gossip::Gossip;
use super::pipes::{HostIndex, PipeIndex};
use crate::random::Random;

/// The driver looks at its member this often, microseconds.
const TICK_US: u64 = 100_000;

/// What bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gossip,
    Control,
    Sync,
    Probe,
    Ping,
    Joining,
    Work,
}

/// All of them, with their names in reports.
pub(super) const KINDS: [(Kind, &str); 7] = [
    (Kind::Gossip, "records gossiped"),
    (Kind::Control, "gossip's own (IHAVE, IWANT, IDONTWANT, GRAFT, PRUNE)"),
    (Kind::Sync, "exchanges"),
    (Kind::Probe, "probes"),
    (Kind::Ping, "pings"),
    (Kind::Joining, "handshakes"),
    (Kind::Work, "requests"),
];

#[derive(Debug)]
pub(super) struct Host {
    pub(super) index: HostIndex,
    pub(super) id: NodeId,
    pub(super) member: Member,
    pub(super) gossip: Gossip,
    /// Rises with each start: what was meant for an earlier one is dropped.
    pub(super) life: u32,
    /// What it says of how often it started: less than that if its folder was put back from a backup.
    pub(super) generation: u64,
    pub(super) alive: bool,
    pub(super) started_us: u64,
    /// How far its clock was put forward, milliseconds.
    pub(super) jump_ms: u64,
    /// It gets no processor until then.
    pub(super) paused_until_us: u64,
    /// Gossip that has arrived keeps it busy until then.
    pub(super) busy_until_us: u64,
    /// Connections that stand, as the ways to others.
    pub(super) peers: BTreeMap<HostIndex, PipeIndex>,
    pub(super) dialling: BTreeSet<HostIndex>,
    /// What it has loaded.
    pub(super) hosted: Vec<Hosted>,
    pub(super) utilisation_permille: u16,
    /// When it looked at its load.
    pub(super) looked_us: u64,
    pub(super) sent_bytes: [u64; KINDS.len()],
    pub(super) received_bytes: u64,
    seed: u64,
    machine: Machine,
    join: Vec<String>,
}

/// Where a host listens.
pub(super) fn address(index: HostIndex) -> String {
    let [high, low] = index.to_be_bytes();
    format!("/ip4/10.0.{high}.{low}/tcp/4001")
}

/// The host that is dialled at an address, if it is one of these.
pub(super) fn at_address(address: &str) -> Option<HostIndex> {
    let ip: std::net::Ipv4Addr = address.split('/').nth(2)?.parse().ok()?;
    let [_, _, high, low] = ip.octets();
    Some(HostIndex::from_be_bytes([high, low]))
}

/// The host that an id is of.
pub(super) fn index_of(id: NodeId) -> HostIndex {
    HostIndex::from_be_bytes([id.0[30], id.0[31]])
}

impl Host {
    /// A host that does not run yet.
    pub(super) fn new(index: HostIndex, seed: u64, join: Vec<String>) -> Self {
        let mut random = Random::new(seed);
        let mut id = [0; 32];
        id.chunks_mut(8).for_each(|part| part.copy_from_slice(&random.bits().to_le_bytes()));
        id[30..].copy_from_slice(&index.to_be_bytes());
        let id = NodeId(id);
        let machine = Machine {
            label: format!("node-{index}"),
            class: [Class::Device, Class::Edge, Class::Cloud][usize::from(index % 3)],
            addresses: vec![address(index)],
            cores: 4,
            speeds: Speeds::new([5_000.0; 5]),
            memory_budget_bytes: 4 << 30,
        };
        Self {
            index,
            id,
            member: Member::new(id, 0, vec![], seed),
            gossip: Gossip::new(index, seed),
            life: 0,
            generation: 0,
            alive: false,
            started_us: 0,
            jump_ms: 0,
            paused_until_us: 0,
            busy_until_us: 0,
            peers: BTreeMap::new(),
            dialling: BTreeSet::new(),
            hosted: Vec::new(),
            utilisation_permille: 0,
            looked_us: 0,
            sent_bytes: [0; KINDS.len()],
            received_bytes: 0,
            seed,
            machine,
            join,
        }
    }

    /// Starts it, with nothing but its key and the count of its starts.
    pub(super) fn start(&mut self, now_us: u64) {
        self.life += 1;
        self.generation += 1;
        self.alive = true;
        self.started_us = now_us;
        self.jump_ms = 0;
        self.paused_until_us = 0;
        self.busy_until_us = 0;
        self.peers.clear();
        self.dialling.clear();
        let seed = self.seed ^ u64::from(self.life) << 48;
        self.member = Member::new(self.id, self.generation, self.join.clone(), seed);
        self.gossip = Gossip::new(self.index, self.seed ^ u64::from(self.life));
    }

    /// It joins at this host and nowhere else.
    #[cfg(test)]
    pub(super) fn join_at(&mut self, index: HostIndex) {
        self.join = vec![address(index)];
    }

    /// The time as its own monotonic clock has it, milliseconds.
    pub(super) fn clock_ms(&self, now_us: u64) -> u64 {
        (now_us - self.started_us) / 1_000 + self.jump_ms
    }

    /// When its driver looks at the member for the next time that the member has something to do.
    pub(super) fn tick_us(&self, now_us: u64) -> u64 {
        let due_ms = self.member.due_ms().saturating_sub(self.jump_ms);
        let due_us = (self.started_us + due_ms * 1_000).max(now_us + 1);
        self.started_us + (due_us - self.started_us).div_ceil(TICK_US) * TICK_US
    }

    /// What its member does not know of it.
    pub(super) fn about(&self) -> About {
        let load = Load {
            memory_used_bytes: 1 << 28,
            utilisation_permille: self.utilisation_permille,
            cold_us: 8_000,
            cold_us_per_mb: 2_000,
            leaving: false,
        };
        let (machine, hosted) = (self.machine.clone(), self.hosted.clone());
        About {
            machine,
            load,
            offer: Offer::default(),
            hosted,
            goals: vec![],
            domains: vec![],
            demands: vec![],
        }
    }

    /// Its next record. The signature is as long as a real one, and none: nobody here forges, and signing and
    /// checking would take most of the time.
    pub(super) fn next_record(&mut self) -> Option<Heard> {
        let body = self.member.next_record()?.to_bytes();
        Heard::read(Signed { topic: Topic::Node, author: self.id, signature: vec![0; 64], body })
    }

    /// Of its last record.
    pub(super) fn stamp(&self) -> Stamp {
        self.member.stamp()
    }

    /// Something about it changes that others should know: a range is loaded, or no longer.
    pub(super) fn change(&mut self) {
        let extra = VariantId { deployment: DeploymentId([255; 16]), index: 0 };
        let before = self.hosted.len();
        self.hosted.retain(|hosted| hosted.variant != extra);
        if self.hosted.len() == before {
            let (time_us, p95_us, queue_wait_us) = (1_500, 1_700, 0);
            self.hosted.push(Hosted { variant: extra, first: 0, end: 4, time_us, p95_us, queue_wait_us });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_address_and_id() {
        for index in [0, 1, 255, 256, 999] {
            let host = Host::new(index, 7, vec![]);
            assert_eq!(at_address(&format!("{}/p2p/{}", address(index), host.id)), Some(index));
            assert_eq!(index_of(host.id), index);
        }
        assert_eq!(at_address("nonsense"), None);
    }

    #[test]
    fn a_host_says_what_a_node_would_read() {
        let mut host = Host::new(3, 7, vec![]);
        host.start(5_000_000);
        host.change();
        host.member.handle(0, MemberEvent::Is(host.about()));
        assert!(host.next_record().is_some());
        assert_eq!(host.clock_ms(6_500_000), 1_500);
        assert_eq!(host.tick_us(5_000_000), 5_300_000);
    }
}
