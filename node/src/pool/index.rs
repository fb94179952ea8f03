//! What the pool holds, what of it is needed, and what goes when room is wanted. Pure: files are
//! deleted by the caller.

use std::collections::{HashMap, HashSet};

use stormo_protocol::ids::ObjectId;

/// What was uploaded is kept for so long even if nothing needs it: the deployment that names it comes
/// after all of its objects, and a model may take minutes to upload.
const UPLOAD_KEPT_MS: u64 = 15 * 60_000;

/// Something to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    /// A whole object.
    Object(ObjectId),
    /// What an earlier pull left unfinished.
    Partial(ObjectId),
}

/// More is wanted than the budget allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// What could be had without exceeding the budget.
    pub(super) free_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    used: u64,
    uploaded_ms: Option<u64>,
}

/// The index of a pool.
#[derive(Debug)]
pub(super) struct Index {
    budget_bytes: u64,
    /// Counts uses: the larger, the later. No clock, so that a jump of it does not matter.
    uses: u64,
    evictions: u64,
    entries: HashMap<ObjectId, Entry>,
    stored_bytes: u64,
    reserved_bytes: u64,
    partials: HashMap<ObjectId, u64>,
    claimed: HashSet<ObjectId>,
    needed: HashSet<ObjectId>,
    pinned: HashMap<ObjectId, usize>,
}

impl Index {
    pub(super) fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            uses: 0,
            evictions: 0,
            entries: HashMap::new(),
            stored_bytes: 0,
            reserved_bytes: 0,
            partials: HashMap::new(),
            claimed: HashSet::new(),
            needed: HashSet::new(),
            pinned: HashMap::new(),
        }
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    pub(super) fn set_budget(&mut self, budget_bytes: u64) {
        self.budget_bytes = budget_bytes;
    }

    /// Bytes of everything on disk, but for unfinished objects that someone is about to go on with:
    /// these count by what is set aside for them.
    pub(super) fn used_bytes(&self) -> u64 {
        self.stored_bytes + self.idle_partials().map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn idle_partials(&self) -> impl Iterator<Item = (ObjectId, u64)> {
        let idle = self.partials.iter().filter(|(id, _)| !self.pinned.contains_key(id));
        idle.map(|(id, bytes)| (*id, *bytes))
    }

    /// Length of an object that is here; counts as a use.
    pub(super) fn use_object(&mut self, id: ObjectId) -> Option<u64> {
        self.uses += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.used = self.uses;
        Some(entry.bytes)
    }

    /// An object is here now.
    pub(super) fn stored(&mut self, id: ObjectId, bytes: u64, uploaded_ms: Option<u64>) {
        self.uses += 1;
        let entry = Entry { bytes, used: self.uses, uploaded_ms };
        if let Some(before) = self.entries.insert(id, entry) {
            self.stored_bytes -= before.bytes;
        }
        self.stored_bytes += bytes;
    }

    /// An upload of something that is here already: kept as if it had just come.
    pub(super) fn offered(&mut self, id: ObjectId, now_ms: u64) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !self.needed.contains(&id)
        {
            entry.uploaded_ms = Some(now_ms);
        }
    }

    /// An object is gone.
    pub(super) fn removed(&mut self, id: ObjectId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.stored_bytes -= entry.bytes;
        }
    }

    /// An unfinished object lies on disk, and nobody works on it.
    pub(super) fn left_partial(&mut self, id: ObjectId, bytes: u64) {
        self.partials.insert(id, bytes);
    }

    /// Takes the unfinished object of this name to work on it; false while another does.
    pub(super) fn claim(&mut self, id: ObjectId) -> bool {
        let claimed = self.claimed.insert(id);
        if claimed {
            self.partials.remove(&id);
        }
        claimed
    }

    pub(super) fn release_claim(&mut self, id: ObjectId) {
        self.claimed.remove(&id);
    }

    /// What partitions and deployments need; the rest may go.
    pub(super) fn set_needed(&mut self, needed: HashSet<ObjectId>) {
        self.needed = needed;
        for id in &self.needed {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.uploaded_ms = None;
            }
        }
    }

    /// Keeps objects, here or to come, until [`Index::unpin`].
    pub(super) fn pin(&mut self, ids: impl Iterator<Item = ObjectId>) {
        ids.for_each(|id| *self.pinned.entry(id).or_default() += 1);
    }

    pub(super) fn unpin(&mut self, ids: impl Iterator<Item = ObjectId>) {
        for id in ids {
            if let Some(pins) = self.pinned.get_mut(&id) {
                *pins -= 1;
                if *pins == 0 {
                    self.pinned.remove(&id);
                }
            }
        }
    }

    /// Sets bytes aside for something that is about to be written; names what must go for it.
    pub(super) fn reserve(&mut self, bytes: u64, now_ms: u64) -> Result<Vec<Victim>, Full> {
        let taken_bytes = self.used_bytes() + self.reserved_bytes;
        let over_bytes = taken_bytes.saturating_add(bytes).saturating_sub(self.budget_bytes);
        let (evictable, evictable_bytes) = self.oldest(over_bytes, now_ms);
        if evictable_bytes < over_bytes {
            let free_bytes = (self.budget_bytes + evictable_bytes).saturating_sub(taken_bytes);
            return Err(Full { free_bytes });
        }
        self.forget(&evictable);
        self.reserved_bytes += bytes;
        Ok(evictable)
    }

    /// What was set aside was written, or will not be.
    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved_bytes = self.reserved_bytes.saturating_sub(bytes);
    }

    /// The disk is full before the budget is: names what can go to free so many bytes, or as many as can be.
    pub(super) fn evict(&mut self, bytes: u64, now_ms: u64) -> Vec<Victim> {
        let (victims, _) = self.oldest(bytes, now_ms);
        self.forget(&victims);
        self.evictions += u64::from(!victims.is_empty());
        victims
    }

    /// How often [`Index::evict`] found something.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// What nothing needs, longest unused first, until it makes up so many bytes.
    fn oldest(&self, bytes: u64, now_ms: u64) -> (Vec<Victim>, u64) {
        if bytes == 0 {
            return (Vec::new(), 0);
        }
        let kept = |id: &ObjectId, entry: &Entry| {
            self.needed.contains(id)
                || self.pinned.contains_key(id)
                || entry.uploaded_ms.is_some_and(|uploaded_ms| now_ms < uploaded_ms + UPLOAD_KEPT_MS)
        };
        let objects = self.entries.iter().filter(|(id, entry)| !kept(id, entry));
        let objects = objects.map(|(id, entry)| (entry.used, id.0, entry.bytes, Victim::Object(*id)));
        // An unfinished object serves nobody, and comes again where it is wanted.
        let partials = self.idle_partials().map(|(id, bytes)| (0, id.0, bytes, Victim::Partial(id)));
        let mut all: Vec<_> = partials.chain(objects).collect();
        all.sort_unstable_by_key(|(used, id, ..)| (*used, *id));
        let (mut victims, mut freed_bytes) = (Vec::new(), 0);
        for (_, _, victim_bytes, victim) in all {
            if freed_bytes >= bytes {
                break;
            }
            victims.push(victim);
            freed_bytes += victim_bytes;
        }
        (victims, freed_bytes)
    }

    fn forget(&mut self, victims: &[Victim]) {
        for victim in victims {
            match victim {
                Victim::Object(id) => self.removed(*id),
                Victim::Partial(id) => {
                    self.partials.remove(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u8) -> ObjectId {
        ObjectId([seed; 32])
    }

    fn index(objects: &[(u8, u64)]) -> Index {
        let mut index = Index::new(100);
        objects.iter().for_each(|(seed, bytes)| index.stored(id(*seed), *bytes, None));
        index
    }

    #[test]
    fn the_longest_unused_goes_first_and_only_as_much_as_is_wanted() {
        let mut index = index(&[(1, 40), (2, 40), (3, 20)]);
        index.use_object(id(1));
        assert_eq!(index.reserve(30, 0), Ok(vec![Victim::Object(id(2))]));
        assert_eq!(index.use_object(id(2)), None);
        assert_eq!(index.reserve(20, 0), Ok(vec![Victim::Object(id(3))]), "10 were left of what went before");
    }

    #[test]
    fn what_is_needed_pinned_or_just_uploaded_stays() {
        let mut index = index(&[(1, 40), (2, 30)]);
        index.stored(id(3), 30, Some(5));
        index.set_needed(HashSet::from([id(1)]));
        index.pin([id(2)].into_iter());
        assert_eq!(index.reserve(1, 6), Err(Full { free_bytes: 0 }));
        index.unpin([id(2)].into_iter());
        assert_eq!(index.reserve(1, 6), Ok(vec![Victim::Object(id(2))]));
        assert_eq!(index.reserve(30, 6), Err(Full { free_bytes: 29 }));
        assert_eq!(index.reserve(30, 5 + UPLOAD_KEPT_MS), Ok(vec![Victim::Object(id(3))]));
    }

    #[test]
    fn a_deployment_that_was_taken_back_frees_its_uploads_at_once() {
        let mut index = index(&[]);
        index.stored(id(1), 90, Some(0));
        index.set_needed(HashSet::from([id(1)]));
        index.set_needed(HashSet::new());
        assert_eq!(index.reserve(50, 1), Ok(vec![Victim::Object(id(1))]));
    }

    #[test]
    fn unfinished_objects_count_and_go_before_whole_ones() {
        let mut index = index(&[(1, 60)]);
        index.left_partial(id(2), 40);
        assert_eq!(index.used_bytes(), 100);
        assert_eq!(index.reserve(10, 0), Ok(vec![Victim::Partial(id(2))]));
        assert!(index.claim(id(2)) && !index.claim(id(2)));
    }

    #[test]
    fn reservations_count_until_they_are_released() {
        let mut index = index(&[]);
        assert_eq!(index.reserve(80, 0), Ok(vec![]));
        assert_eq!(index.reserve(30, 0), Err(Full { free_bytes: 20 }));
        index.release(80);
        assert_eq!(index.reserve(100, 0), Ok(vec![]));
    }
}
