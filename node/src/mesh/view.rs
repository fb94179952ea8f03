//! The newest valid record of each node, with its age.

use std::collections::BTreeMap;
use std::sync::Arc;

use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::VIEW_RECORDS_MAX;
use stormo_protocol::state::{NodeRecord, Stamp};

use super::{Heard, Said};

/// Records are gossiped each second; after this long without one, plans leave the node out.
/// Four are then missing: gossip may drop some, and the sync exchange repairs within two seconds.
pub const FRESH_MS: u64 = 4_000;
/// After this long without a record the node is forgotten.
pub const FORGET_MS: u64 = 60_000;

/// A node and what it said last.
#[derive(Debug, Clone)]
pub struct Known {
    /// What it said.
    pub record: Arc<NodeRecord>,
    /// The same as it was heard, for passing on.
    pub heard: Heard,
    /// When it was heard here.
    pub heard_ms: u64,
    /// Whether the connection to it was lost since; a newer record clears this.
    pub lost: bool,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is newer than what was known.
    News,
    /// It is known already, or older.
    Old,
    /// It is not to be believed, or there is no room for it.
    Refused,
}

/// All nodes that are known, this one excluded.
#[derive(Debug)]
pub struct View {
    own: NodeId,
    nodes: BTreeMap<NodeId, Known>,
    /// Newest record of nodes that were forgotten: an old one that still travels is no news.
    forgotten: BTreeMap<NodeId, Stamp>,
}

impl View {
    /// An empty view of this node.
    pub fn new(own: NodeId) -> Self {
        Self { own, nodes: BTreeMap::new(), forgotten: BTreeMap::new() }
    }

    /// Takes in a record.
    pub fn apply(&mut self, now_ms: u64, heard: &Heard) -> Applied {
        let Said::Node(record) = heard.said() else { return Applied::Refused };
        if record.node == self.own {
            return Applied::Old;
        }
        let record = record.clone();
        let known = self.nodes.get(&record.node).map(|known| known.record.stamp);
        if known.or_else(|| self.forgotten.get(&record.node).copied()) >= Some(record.stamp) {
            return Applied::Old;
        }
        if known.is_none() && self.nodes.len() >= VIEW_RECORDS_MAX {
            return Applied::Refused;
        }
        self.forgotten.remove(&record.node);
        self.nodes.insert(record.node, Known { record, heard: heard.clone(), heard_ms: now_ms, lost: false });
        Applied::News
    }

    /// The last connection to a node is gone: plans leave it out until it speaks again.
    pub fn lost(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.lost = true;
        }
    }

    #[cfg(test)]
    pub(super) fn lost_in_test(&mut self, _now_ms: u64, node: NodeId) {
        self.lost(node);
    }

    /// Forgets nodes that were silent for long; tells which.
    pub fn forget_silent(&mut self, now_ms: u64) -> Vec<NodeId> {
        let silent = |known: &Known| now_ms.saturating_sub(known.heard_ms) >= FORGET_MS;
        let gone: Vec<NodeId> =
            self.nodes.iter().filter(|(_, known)| silent(known)).map(|(node, _)| *node).collect();
        for node in &gone {
            if let Some(known) = self.nodes.remove(node) {
                if self.forgotten.len() >= VIEW_RECORDS_MAX {
                    self.forgotten.pop_first();
                }
                self.forgotten.insert(*node, known.record.stamp);
            }
        }
        gone
    }

    /// Whether plans may use a node now.
    pub fn is_usable(&self, now_ms: u64, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| {
            !known.lost && !known.record.load.leaving && now_ms.saturating_sub(known.heard_ms) < FRESH_MS
        })
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<&Known> {
        self.nodes.get(&node)
    }

    /// All nodes but this one, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.nodes.values()
    }

    /// Which records are held: what a sync exchange asks with.
    pub fn digest(&self) -> Vec<(NodeId, Stamp)> {
        self.nodes.iter().map(|(node, known)| (*node, known.record.stamp)).collect()
    }

    /// Records held here that are newer than what the asker knows.
    pub fn newer_than(&self, digest: &[(NodeId, Stamp)]) -> Vec<Heard> {
        let asker: BTreeMap<NodeId, Stamp> = digest.iter().copied().collect();
        self.nodes
            .iter()
            .filter(|(node, known)| asker.get(node).is_none_or(|stamp| *stamp < known.record.stamp))
            .map(|(_, known)| known.heard.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::profile::Speeds;
    use stormo_protocol::state::{Class, Load, Machine, Offer, Signed, Topic};

    fn record(node: u8, generation: u64, sequence: u64) -> NodeRecord {
        NodeRecord {
            node: NodeId([node; 32]),
            stamp: Stamp { generation, sequence },
            machine: Machine {
                label: format!("node-{node}"),
                class: Class::Edge,
                addresses: vec![],
                cores: 2,
                speeds: Speeds::new([1000.0; 5]),
                memory_budget_bytes: 1 << 20,
            },
            load: Load {
                memory_used_bytes: 0,
                utilisation_permille: 0,
                cold_us: 0,
                cold_us_per_mb: 0,
                leaving: false,
            },
            offer: Offer::default(),
            hosted: vec![],
            links: vec![],
            goals: vec![],
        }
    }

    fn signed(record: &NodeRecord) -> Signed {
        Signed { topic: Topic::Node, author: record.node, signature: vec![], body: record.to_bytes() }
    }

    fn heard(node: u8, generation: u64, sequence: u64) -> Heard {
        Heard::read(signed(&record(node, generation, sequence))).unwrap()
    }

    #[test]
    fn the_newest_record_wins_whatever_the_order() {
        let mut view = View::new(NodeId([0; 32]));
        assert_eq!(view.apply(0, &heard(1, 1, 5)), Applied::News);
        assert_eq!(view.apply(1, &heard(1, 1, 4)), Applied::Old);
        assert_eq!(view.apply(1, &heard(1, 1, 5)), Applied::Old);
        assert_eq!(view.apply(2, &heard(1, 2, 0)), Applied::News);
        assert_eq!(view.get(NodeId([1; 32])).unwrap().heard_ms, 2);
    }

    #[test]
    fn nobody_speaks_for_another() {
        let mut view = View::new(NodeId([0; 32]));
        assert!(Heard::read(Signed { author: NodeId([2; 32]), ..signed(&record(1, 1, 1)) }).is_none());
        assert_eq!(view.apply(0, &heard(0, 9, 9)), Applied::Old, "nor for this node");
    }

    #[test]
    fn silence_and_lost_connections_end_usability_and_news_restores_it() {
        let node = NodeId([1; 32]);
        let mut view = View::new(NodeId([0; 32]));
        view.apply(0, &heard(1, 1, 1));
        assert!(view.is_usable(FRESH_MS - 1, node));
        assert!(!view.is_usable(FRESH_MS, node));
        view.apply(FRESH_MS, &heard(1, 1, 2));
        assert!(view.is_usable(FRESH_MS, node));
        view.lost(node);
        assert!(!view.is_usable(FRESH_MS, node));
        view.apply(FRESH_MS, &heard(1, 1, 3));
        assert!(view.is_usable(FRESH_MS, node));
    }

    #[test]
    fn a_forgotten_node_does_not_come_back_by_an_old_record() {
        let mut view = View::new(NodeId([0; 32]));
        view.apply(0, &heard(1, 1, 7));
        assert_eq!(view.forget_silent(FORGET_MS), vec![NodeId([1; 32])]);
        assert_eq!(view.apply(FORGET_MS, &heard(1, 1, 7)), Applied::Old);
        assert_eq!(view.apply(FORGET_MS, &heard(1, 1, 8)), Applied::News);
    }

    #[test]
    fn a_view_is_bounded() {
        let mut view = View::new(NodeId([255; 32]));
        for index in 0..VIEW_RECORDS_MAX as u32 + 1 {
            let mut record = record(1, 1, 1);
            record.node.0[..4].copy_from_slice(&index.to_le_bytes());
            let heard = Heard::read(signed(&record)).unwrap();
            let expected = if (index as usize) < VIEW_RECORDS_MAX { Applied::News } else { Applied::Refused };
            assert_eq!(view.apply(0, &heard), expected);
        }
    }

    #[test]
    fn an_exchange_makes_two_views_equal() {
        let (mut a, mut b) = (View::new(NodeId([8; 32])), View::new(NodeId([9; 32])));
        for record in [heard(1, 1, 1), heard(2, 1, 5)] {
            a.apply(0, &record);
        }
        for record in [heard(2, 1, 6), heard(3, 1, 1)] {
            b.apply(0, &record);
        }
        for record in b.newer_than(&a.digest()) {
            assert_eq!(a.apply(1, &record), Applied::News);
        }
        for record in a.newer_than(&b.digest()) {
            assert_eq!(b.apply(1, &record), Applied::News);
        }
        assert_eq!(a.digest(), b.digest());
        assert!(a.newer_than(&b.digest()).is_empty());
    }
}
