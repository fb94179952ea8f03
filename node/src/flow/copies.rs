//! Which of a stage's hosts are sent the same tensors: one, or two while a hedge is under way; and which were before.

/// How far some tensors are on their way to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Delivery {
    /// Not taken yet.
    Sent,
    /// Taken; the receiver's own output is not safe yet.
    Taken,
    /// Needed here no longer.
    Passed,
}

/// A host's place in its stage's list, 0 the primary, and how far its copy is.
type Copy = (usize, Delivery);

/// The copies of some tensors that are for one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copies {
    /// The one that is to be taken, and the one beside it.
    first: Option<Copy>,
    second: Option<Copy>,
    /// Hosts that were sent a copy, a bit for each.
    tried: u64,
}

impl Copies {
    /// One, sent to this host. Those before it in the list were tried, or are not to be.
    pub(super) fn at(host: usize) -> Self {
        let none = Self { first: None, second: None, tried: before(host) };
        none.with(host)
    }

    fn with(mut self, host: usize) -> Self {
        let copy = Some((host, Delivery::Sent));
        if self.first.is_none() {
            self.first = copy;
        } else {
            self.second = copy;
        }
        self.tried |= bit(host);
        self
    }

    /// Places of the hosts that are sent a copy now, or have it.
    pub(super) fn hosts(&self) -> impl Iterator<Item = usize> + use<> {
        self.first.into_iter().chain(self.second).map(|(host, _)| host)
    }

    /// The place of the host that was sent a copy first, of those that have one.
    pub(super) fn first(&self) -> Option<usize> {
        self.hosts().next()
    }

    /// How far the one is that got furthest; none if there is no copy.
    pub(super) fn furthest(&self) -> Option<Delivery> {
        self.first.into_iter().chain(self.second).map(|(_, delivery)| delivery).max()
    }

    /// A host's copy got further; it never goes back.
    pub(super) fn reached(&mut self, host: usize, delivery: Delivery) {
        for copy in [&mut self.first, &mut self.second].into_iter().flatten() {
            if copy.0 == host {
                copy.1 = copy.1.max(delivery);
            }
        }
    }

    /// A host will not have its copy, or not pass on what it makes of it.
    pub(super) fn failed(&mut self, host: usize) {
        let is_left = |copy: &Copy| copy.0 != host;
        let left = [self.first.filter(is_left), self.second.filter(is_left)];
        (self.first, self.second) = (left[0].or(left[1]), left[0].and(left[1]));
    }

    /// Of so many hosts those that were sent no copy yet, in their order.
    pub(super) fn untried(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let tried = self.tried;
        (0..count.min(u64::BITS as usize)).filter(move |host| tried & bit(*host) == 0)
    }

    /// Sends a copy to a host, where none is under way.
    pub(super) fn send(&mut self, host: usize) {
        *self = self.with(host);
    }

    /// Whether one copy is under way, and may have one beside it.
    pub(super) fn may_hedge(&self) -> bool {
        self.second.is_none() && self.furthest().is_some_and(|delivery| delivery != Delivery::Passed)
    }
}

fn bit(host: usize) -> u64 {
    1_u64.checked_shl(host as u32).unwrap_or(0)
}

fn before(host: usize) -> u64 {
    bit(host).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_under_way_at_most_and_none_is_sent_twice_to_one_host() {
        let mut copies = Copies::at(0);
        assert!(copies.may_hedge() && copies.untried(4).eq([1, 2, 3]));
        copies.send(2);
        assert!(!copies.may_hedge() && copies.hosts().eq([0, 2]) && copies.untried(4).eq([1, 3]));
        copies.reached(0, Delivery::Taken);
        assert_eq!(copies.furthest(), Some(Delivery::Taken));
        copies.failed(0);
        assert_eq!((copies.first(), copies.furthest()), (Some(2), Some(Delivery::Sent)));
        copies.send(1);
        copies.reached(1, Delivery::Passed);
        copies.reached(1, Delivery::Taken);
        assert_eq!(copies.furthest(), Some(Delivery::Passed));
        copies.failed(2);
        assert!(copies.hosts().eq([1]) && !copies.may_hedge() && copies.untried(4).eq([3]));
        copies.failed(1);
        assert_eq!((copies.first(), copies.furthest()), (None, None));
    }

    #[test]
    fn those_before_the_one_that_a_join_moved_to_are_not_tried() {
        assert!(Copies::at(2).untried(4).eq([3]));
    }
}
