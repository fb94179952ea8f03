//! How many bytes of tensors went to and came from each peer.

use std::collections::BTreeMap;
use std::sync::Mutex;

use stormo_protocol::ids::NodeId;

/// Peers that are counted one by one; what others move is not counted.
const PEERS_MAX: usize = 1024;

/// Bytes of tensors (payloads of frames, headers not counted) exchanged with one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Sent to it.
    pub sent_bytes: u64,
    /// Received from it.
    pub received_bytes: u64,
}

/// Counters by peer. Locked for the length of an addition only.
#[derive(Debug, Default)]
pub struct Traffic {
    peers: Mutex<BTreeMap<NodeId, PeerTraffic>>,
}

impl Traffic {
    pub(super) fn sent(&self, to: NodeId, bytes: u64) {
        self.add(to, |peer| peer.sent_bytes += bytes);
    }

    pub(super) fn received(&self, from: NodeId, bytes: u64) {
        self.add(from, |peer| peer.received_bytes += bytes);
    }

    fn add(&self, node: NodeId, change: impl FnOnce(&mut PeerTraffic)) {
        let mut peers = self.peers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if peers.len() < PEERS_MAX || peers.contains_key(&node) {
            change(peers.entry(node).or_default());
        }
    }

    /// All counters.
    pub fn by_peer(&self) -> BTreeMap<NodeId, PeerTraffic> {
        self.peers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
