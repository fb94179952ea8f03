//! Peers that sent wrong bytes: not asked for objects for a while. Pure.

use std::collections::BTreeMap;

use stormo_protocol::ids::NodeId;

/// Peers remembered; beyond that the earliest is forgiven.
const AVOIDED_MAX: usize = 256;
/// For so long: a damaged disk does not mend itself, but an owner may mend it.
const AVOID_MS: u64 = 30 * 60_000;

/// The peers to avoid.
#[derive(Debug, Default)]
pub(super) struct Avoided {
    until_ms: BTreeMap<NodeId, u64>,
}

impl Avoided {
    /// A peer sent wrong bytes; true when it was not avoided before.
    pub(super) fn add(&mut self, peer: NodeId, now_ms: u64) -> bool {
        self.until_ms.retain(|_, until_ms| *until_ms > now_ms);
        if self.until_ms.len() >= AVOIDED_MAX
            && let Some(earliest) =
                self.until_ms.iter().min_by_key(|(_, until_ms)| **until_ms).map(|(peer, _)| *peer)
        {
            self.until_ms.remove(&earliest);
        }
        self.until_ms.insert(peer, now_ms + AVOID_MS).is_none()
    }

    /// Whether a peer is to be left alone.
    pub(super) fn contains(&self, peer: NodeId, now_ms: u64) -> bool {
        self.until_ms.get(&peer).is_some_and(|until_ms| *until_ms > now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_avoided_for_a_while_and_few_are_remembered() {
        let mut avoided = Avoided::default();
        let peer = |number: usize| NodeId([number as u8, (number >> 8) as u8].repeat(16).try_into().unwrap());
        assert!(avoided.add(peer(0), 0));
        assert!(!avoided.add(peer(0), 1));
        assert!(avoided.contains(peer(0), AVOID_MS));
        assert!(!avoided.contains(peer(0), AVOID_MS + 1));
        (0..2 * AVOIDED_MAX).for_each(|number| {
            avoided.add(peer(number), number as u64);
        });
        assert_eq!(avoided.until_ms.len(), AVOIDED_MAX);
        assert!(avoided.contains(peer(2 * AVOIDED_MAX - 1), 600));
    }
}
