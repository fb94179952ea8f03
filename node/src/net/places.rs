//! Places for what peers begin here: so many in all, and no peer more than its share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use stormo_protocol::ids::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places, some of them taken.
#[derive(Debug, Clone)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_peer: Arc<Mutex<HashMap<NodeId, Arc<Semaphore>>>>,
    per_peer_max: usize,
}

/// Free again once it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(max: usize, per_peer_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(max)), per_peer: Arc::default(), per_peer_max }
    }

    /// A place for a peer's, if one is free and its share is not taken.
    pub(super) fn take(&self, node: NodeId) -> Option<Place> {
        let mut per_peer = self.per_peer.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has no place is forgotten; taken under the same lock, so that nobody who is given one is.
        per_peer.retain(|_, own| own.available_permits() < self.per_peer_max);
        let own = per_peer.entry(node).or_insert_with(|| Arc::new(Semaphore::new(self.per_peer_max)));
        let own = own.clone().try_acquire_owned().ok()?;
        let all = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _all: all, _own: own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_its_share_and_all_no_more_than_there_are() {
        let [first, second, third] = [1, 2, 3].map(|index| NodeId([index; 32]));
        let places = Places::new(3, 2);
        let mut held: Vec<Place> = [first, first].into_iter().filter_map(|node| places.take(node)).collect();
        assert_eq!(held.len(), 2);
        assert!(places.take(first).is_none(), "its share is taken");
        held.extend(places.take(second));
        assert_eq!(held.len(), 3);
        assert!(places.take(third).is_none(), "all are taken");
        held.remove(0);
        assert!(places.take(third).is_some());
        drop(held);
        assert_eq!([first, first, second].into_iter().filter_map(|node| places.take(node)).count(), 3);
        assert!(places.per_peer.lock().unwrap().len() <= 2, "who has no place is forgotten");
    }
}
