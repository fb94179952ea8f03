//! Gossip that is under way, each message once for all hosts: what it says, and who has seen it.

use std::collections::VecDeque;

use stormo::mesh::Heard;

use super::pipes::HostIndex;

/// A message of gossip, counted from the first.
pub(super) type MessageId = u32;

/// gossipsub's caches hold a message for 5 s; what still travels later finds it gone and counts as seen.
const KEPT_US: u64 = 10_000_000;

#[derive(Debug)]
pub(super) struct Message {
    pub(super) author: HostIndex,
    pub(super) heard: Heard,
    /// Encoded, as gossipsub's data.
    pub(super) data_bytes: u64,
    published_us: u64,
    seen: Vec<u64>,
}

/// The latest messages.
#[derive(Debug)]
pub(super) struct Messages {
    hosts: usize,
    first: MessageId,
    kept: VecDeque<Message>,
}

impl Messages {
    pub(super) fn new(hosts: usize) -> Self {
        Self { hosts, first: 0, kept: VecDeque::new() }
    }

    /// A new message; its author has seen it.
    pub(super) fn publish(
        &mut self,
        now_us: u64,
        author: HostIndex,
        heard: Heard,
        data_bytes: u64,
    ) -> MessageId {
        while self.kept.front().is_some_and(|oldest| oldest.published_us + KEPT_US < now_us) {
            self.kept.pop_front();
            self.first += 1;
        }
        let seen = vec![0; self.hosts.div_ceil(64)];
        self.kept.push_back(Message { author, heard, data_bytes, published_us: now_us, seen });
        let id = self.first + self.kept.len() as MessageId - 1;
        self.see(id, author);
        id
    }

    pub(super) fn get(&self, id: MessageId) -> Option<&Message> {
        self.kept.get(id.checked_sub(self.first)? as usize)
    }

    /// Whether a host has seen it; of one that is too old, all have.
    pub(super) fn is_seen(&self, id: MessageId, host: HostIndex) -> bool {
        let (word, bit) = (usize::from(host) / 64, usize::from(host) % 64);
        self.get(id).is_none_or(|message| message.seen[word] >> bit & 1 == 1)
    }

    /// A host sees it; tells whether for the first time.
    pub(super) fn see(&mut self, id: MessageId, host: HostIndex) -> bool {
        let Some(place) = id.checked_sub(self.first) else { return false };
        let Some(message) = self.kept.get_mut(place as usize) else { return false };
        let word = &mut message.seen[usize::from(host) / 64];
        let bit = 1 << (usize::from(host) % 64);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    /// A host starts anew and has seen nothing.
    pub(super) fn forget(&mut self, host: HostIndex) {
        let bit = 1 << (usize::from(host) % 64);
        for message in &mut self.kept {
            message.seen[usize::from(host) / 64] &= !bit;
        }
    }
}
