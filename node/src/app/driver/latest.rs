//! The latest of what came, each once, and no more than so many.

use std::collections::{BTreeMap, VecDeque};

/// Forgets what came first.
#[derive(Debug)]
pub(super) struct Latest<K, V> {
    by_key: BTreeMap<K, V>,
    order: VecDeque<K>,
    count_max: usize,
}

impl<K: Copy + Ord, V> Latest<K, V> {
    pub(super) fn of(count_max: usize) -> Self {
        Self { by_key: BTreeMap::new(), order: VecDeque::new(), count_max }
    }

    /// What is known already is replaced, and stays as old as it was.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.by_key.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.count_max {
            if let Some(oldest) = self.order.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.by_key.get(key)
    }

    /// All, the latest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (&K, &V)> {
        self.order.iter().rev().filter_map(|key| self.by_key.get_key_value(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let mut latest = Latest::of(3);
        for number in [1, 2, 3, 2, 4] {
            latest.insert(number, 10 * number);
        }
        assert_eq!(latest.newest_first().collect::<Vec<_>>(), [(&4, &40), (&3, &30), (&2, &20)]);
        assert_eq!((latest.get(&1), latest.get(&2)), (None, Some(&20)));
    }
}
