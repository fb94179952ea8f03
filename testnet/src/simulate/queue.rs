//! What is to happen, in the order of time; what is due at the same time in the order it was asked for.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Width of a slot, microseconds as a power of two: some hundred events of a busy mesh.
const SLOT_BITS: u32 = 6;
/// Slots of the ring, a power of two: together some four seconds, so that most of what is asked for fits.
const SLOTS: usize = 1 << 16;

#[derive(Debug)]
struct Entry<T> {
    at_us: u64,
    place: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.place).cmp(&(other.at_us, other.place))
    }
}

/// A clock that moves to the next event. The near future lies in a ring of slots, of which only the
/// present one is in order: a heap of everything would miss the processor's caches at each step.
#[derive(Debug)]
pub(super) struct Queue<T> {
    now_us: u64,
    pushed: u64,
    present: BinaryHeap<Reverse<Entry<T>>>,
    ring: Vec<Vec<Entry<T>>>,
    in_ring: usize,
    /// Memory of slots that are over: of the few that are in use at a time, so that it stays in the caches.
    spare: Vec<Vec<Entry<T>>>,
    far: BinaryHeap<Reverse<Entry<T>>>,
}

fn slot_of(at_us: u64) -> u64 {
    at_us >> SLOT_BITS
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            now_us: 0,
            pushed: 0,
            present: BinaryHeap::new(),
            ring: (0..SLOTS).map(|_| Vec::new()).collect(),
            in_ring: 0,
            spare: Vec::new(),
            far: BinaryHeap::new(),
        }
    }

    /// The time of the event that was given out last, microseconds.
    #[cfg(test)]
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Something happens at a time; what is in the past happens now.
    pub(super) fn push(&mut self, at_us: u64, what: T) {
        let at_us = at_us.max(self.now_us);
        self.pushed += 1;
        let entry = Entry { at_us, place: self.pushed, what };
        self.place(entry);
    }

    fn place(&mut self, entry: Entry<T>) {
        let ahead = slot_of(entry.at_us) - slot_of(self.now_us);
        if ahead == 0 {
            self.present.push(Reverse(entry));
        } else if ahead < SLOTS as u64 {
            self.in_ring += 1;
            let slot = &mut self.ring[slot_of(entry.at_us) as usize % SLOTS];
            if slot.capacity() == 0 {
                *slot = self.spare.pop().unwrap_or_default();
            }
            slot.push(entry);
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// The next event, if it is due by then; the clock is then at its time, or else at `until_us`.
    pub(super) fn pop(&mut self, until_us: u64) -> Option<(u64, T)> {
        loop {
            if let Some(Reverse(next)) = self.present.peek() {
                if next.at_us > until_us {
                    return None;
                }
                let Reverse(next) = self.present.pop()?;
                self.now_us = next.at_us;
                return Some((next.at_us, next.what));
            }
            self.advance(until_us)?;
        }
    }

    /// Moves the clock to the start of the next slot that holds something; `None` when there is none by then.
    fn advance(&mut self, until_us: u64) -> Option<()> {
        let next_far = self.far.peek().map(|Reverse(entry)| slot_of(entry.at_us));
        let mut slot = slot_of(self.now_us) + 1;
        if self.in_ring == 0 {
            slot = next_far?;
        } else {
            // A far event may have come near while the ring was not empty.
            let far = next_far.unwrap_or(u64::MAX);
            while self.ring[slot as usize % SLOTS].is_empty() && slot < far {
                slot += 1;
            }
        }
        if slot << SLOT_BITS > until_us {
            return None;
        }
        self.now_us = slot << SLOT_BITS;
        let mut due = std::mem::take(&mut self.ring[slot as usize % SLOTS]);
        self.in_ring -= due.len();
        self.present.extend(due.drain(..).map(Reverse));
        if due.capacity() > 0 {
            self.spare.push(due);
        }
        while self.far.peek().is_some_and(|Reverse(entry)| slot_of(entry.at_us) == slot) {
            self.present.extend(self.far.pop());
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn events_come_in_the_order_of_time_and_equal_times_in_the_order_of_asking() {
        let mut random = Random::new(3);
        let mut queue = Queue::new();
        let mut asked: Vec<(u64, u64)> = Vec::new();
        let mut given: Vec<(u64, u64)> = Vec::new();
        for index in 0..20_000 {
            let ahead_us = match random.bits() % 4 {
                0 => random.bits() % 8,
                1 => random.bits() % 20_000,
                2 => random.bits() % 5_000_000,
                _ => random.bits() % 60_000_000,
            };
            let at_us = queue.now_us() + ahead_us;
            queue.push(at_us, index);
            asked.push((at_us, index));
            if random.bits().is_multiple_of(3) {
                given.extend(queue.pop(u64::MAX));
            }
        }
        while let Some(next) = queue.pop(u64::MAX) {
            given.push(next);
        }
        assert_eq!(given.len(), asked.len());
        assert!(given.is_sorted_by_key(|(at_us, _)| *at_us));
        asked.sort_unstable();
        given.sort_unstable();
        assert_eq!(given, asked);
    }

    #[test]
    fn equal_times_keep_their_order_near_and_far() {
        let mut queue = Queue::new();
        for index in 0..10 {
            queue.push(30_000_000, index);
        }
        queue.push(29_000_000, 99);
        assert_eq!(queue.pop(u64::MAX), Some((29_000_000, 99)));
        // These are near by now, the others were far.
        for index in 10..20 {
            queue.push(30_000_000, index);
        }
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop(u64::MAX)).map(|(_, index)| index).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_given_out_before_its_time() {
        let mut queue = Queue::new();
        queue.push(100, 1);
        queue.push(100_000_000, 2);
        assert_eq!(queue.pop(99), None);
        assert_eq!(queue.pop(100), Some((100, 1)));
        assert_eq!(queue.pop(99_999_999), None);
        assert_eq!(queue.pop(100_000_000), Some((100_000_000, 2)));
    }
}
