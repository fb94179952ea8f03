//! Whom to dial, and when again.

use std::collections::BTreeMap;

use stormo_protocol::ids::NodeId;

/// Waits between two dials of the same address, first and longest.
const REDIAL_MS: (u64, u64) = (500, 30_000);
/// Addresses whose last dial is remembered; forgetting them only means dialling sooner.
const REMEMBERED_MAX: usize = 4096;

/// An address that the owner names, and who was found there.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) address: String,
    pub(super) peer: Option<NodeId>,
}

/// Addresses by the time from which on they may be dialled again.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    join: Vec<Join>,
    /// When an address may be dialled next, and the pause after that; by the node that is looked for there.
    next: BTreeMap<Option<NodeId>, BTreeMap<String, (u64, u64)>>,
    told: bool,
}

impl Contacts {
    pub(super) fn new(join: Vec<String>) -> Self {
        let named = |address: &str| address.rsplit_once("/p2p/").and_then(|(_, peer)| peer.parse().ok());
        let join = join.into_iter().map(|address| Join { peer: named(&address), address }).collect();
        Self { join, ..Self::default() }
    }

    /// Where the owner wants to join.
    pub(super) fn join(&self) -> &[Join] {
        &self.join
    }

    /// Whether an address of a node, or of whoever is there, is due; if so, the next time is set later.
    pub(super) fn is_due(&mut self, now_ms: u64, node: Option<NodeId>, address: &str) -> bool {
        let known = self.next.get(&node).and_then(|addresses| addresses.get(address));
        let (due_ms, wait_ms) = known.copied().unwrap_or((now_ms, REDIAL_MS.0));
        if now_ms < due_ms {
            return false;
        }
        if self.next.values().map(BTreeMap::len).sum::<usize>() >= REMEMBERED_MAX {
            self.next.clear();
        }
        let later = (now_ms + wait_ms, (wait_ms * 2).min(REDIAL_MS.1));
        self.next.entry(node).or_default().insert(address.to_owned(), later);
        true
    }

    /// Whether the owner should hear of a failed dial: only of one that was asked for, and only once.
    pub(super) fn should_tell(&mut self, address: &str) -> bool {
        let asked_for = self.join.iter().any(|join| address.contains(join.address.as_str()));
        asked_for && !std::mem::replace(&mut self.told, true)
    }

    /// A dial led to a node.
    pub(super) fn found(&mut self, peer: NodeId, address: &str) {
        for join in self.join.iter_mut().filter(|join| address.contains(join.address.as_str())) {
            join.peer = Some(peer);
        }
    }

    /// Somebody was reached: a later failure is news again, and the node is dialled at once when it is gone.
    pub(super) fn reached(&mut self, peer: NodeId) {
        self.told = false;
        self.next.remove(&Some(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_two_dials_doubles_up_to_its_bound() {
        let mut contacts = Contacts::default();
        let dials: Vec<u64> =
            (0..200_000).step_by(100).filter(|now_ms| contacts.is_due(*now_ms, None, "a")).collect();
        assert_eq!(dials[..6], [0, 500, 1_500, 3_500, 7_500, 15_500]);
        assert!(dials.windows(2).all(|pair| pair[1] - pair[0] <= REDIAL_MS.1));
    }

    #[test]
    fn the_owner_hears_once_of_what_was_asked_for() {
        let mut contacts = Contacts::new(vec!["/ip4/10.0.0.1/tcp/4001".into()]);
        assert!(!contacts.should_tell("/ip4/10.0.0.2/tcp/4001"));
        let asked = "/ip4/10.0.0.1/tcp/4001/p2p/somebody";
        assert_eq!([(); 2].map(|()| contacts.should_tell(asked)), [true, false]);
        contacts.reached(NodeId([1; 32]));
        assert!(contacts.should_tell(asked));
    }
}
