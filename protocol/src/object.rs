//! Objects in groups of 1 MiB: how they are asked for, and how a group is verified on its own. No I/O.
//!
//! An object's id is the root of a BLAKE3 tree over its bytes, and each group is a whole subtree. The
//! list of the groups' hashes, the outline, gives the root back, so an outline from anyone can be
//! checked against the id, and after that each group against the outline (BLAKE3 paper, sections 2.1
//! and 6.4).

use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::ids::ObjectId;
use crate::limits::{OBJECT_BYTES_MAX, OBJECT_GROUP_BYTES, OBJECT_RUN_GROUPS_MAX};
use crate::model::ObjectRef;

/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// Announced instead of a length when the object is not there.
const NOT_HERE: u64 = u64::MAX;
/// Announced instead of a length when the peer sends too much already.
const BUSY: u64 = u64::MAX - 1;

/// Hash of one group: BLAKE3's chaining value of its subtree, or the root of an object of one group.
pub type GroupHash = [u8; HASH_BYTES];

/// Groups of an object of this length; an empty object has one, empty.
pub fn group_count(object_bytes: u64) -> u32 {
    u32::try_from(object_bytes.div_ceil(OBJECT_GROUP_BYTES).max(1)).unwrap_or(u32::MAX)
}

/// Where a group lies in an object of this length, bytes.
pub fn group_range(object_bytes: u64, group: u32) -> Range<u64> {
    let first = u64::from(group) * OBJECT_GROUP_BYTES;
    first.min(object_bytes)..(first + OBJECT_GROUP_BYTES).min(object_bytes)
}

/// Bytes of the outline of an object of this length, as sent and stored.
pub fn outline_bytes(object_bytes: u64) -> u64 {
    u64::from(group_count(object_bytes)) * HASH_BYTES as u64
}

/// The hashes of all groups of one object, known to give its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    hashes: Vec<GroupHash>,
}

impl Outline {
    /// The outline of an object of one group: its id. `None` for longer objects.
    pub fn of_single(object: ObjectRef) -> Option<Self> {
        (group_count(object.bytes) == 1).then(|| Self { hashes: vec![object.id.0] })
    }

    /// Reads an outline; `None` when it is not the one of this object.
    pub fn from_bytes(object: ObjectRef, bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 != outline_bytes(object.bytes) {
            return None;
        }
        let hashes: Vec<GroupHash> = bytes.as_chunks().0.to_vec();
        (root(&hashes) == object.id).then_some(Self { hashes })
    }

    /// As sent and stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }

    /// Whether these bytes are this group of the object.
    pub fn is_group(&self, group: u32, bytes: &[u8]) -> bool {
        match self.hashes.get(group as usize) {
            Some(hash) if self.hashes.len() == 1 => blake3::hash(bytes).as_bytes() == hash,
            Some(hash) if !bytes.is_empty() && bytes.len() as u64 <= OBJECT_GROUP_BYTES => {
                subtree(group).update(bytes).finalize_non_root() == *hash
            }
            _ => false,
        }
    }
}

fn subtree(group: u32) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(u64::from(group) * OBJECT_GROUP_BYTES);
    hasher
}

/// The left subtree holds the largest power of two of groups that leaves some to the right.
fn halves(hashes: &[GroupHash]) -> (&[GroupHash], &[GroupHash]) {
    hashes.split_at(hashes.len().next_power_of_two() / 2)
}

fn root(hashes: &[GroupHash]) -> ObjectId {
    match hashes {
        [] => ObjectId([0; HASH_BYTES]),
        [only] => ObjectId(*only),
        more => {
            let (left, right) = halves(more);
            ObjectId(*merge_subtrees_root(&inner(left), &inner(right), Mode::Hash).as_bytes())
        }
    }
}

/// As deep as the logarithm of the number of groups.
fn inner(hashes: &[GroupHash]) -> GroupHash {
    match hashes {
        [only] => *only,
        more => {
            let (left, right) = halves(more);
            merge_subtrees_non_root(&inner(left), &inner(right), Mode::Hash)
        }
    }
}

/// Hashes an object as it comes, in one pass, into its id and its outline.
#[derive(Debug)]
pub struct OutlineHasher {
    current: Hasher,
    filled_bytes: u64,
    hashes: Vec<GroupHash>,
}

impl Default for OutlineHasher {
    fn default() -> Self {
        Self { current: subtree(0), filled_bytes: 0, hashes: Vec::new() }
    }
}

impl OutlineHasher {
    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A full group is closed only when more follows: one that stays alone is the root.
            if self.filled_bytes == OBJECT_GROUP_BYTES {
                self.hashes.push(self.current.finalize_non_root());
                self.current = subtree(self.hashes.len() as u32);
                self.filled_bytes = 0;
            }
            let room = (OBJECT_GROUP_BYTES - self.filled_bytes) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.current.update(now);
            self.filled_bytes += now.len() as u64;
            bytes = later;
        }
    }

    /// The id of everything added, and its outline.
    pub fn finish(mut self) -> (ObjectId, Outline) {
        let last = if self.hashes.is_empty() {
            *self.current.finalize().as_bytes()
        } else {
            self.current.finalize_non_root()
        };
        self.hashes.push(last);
        (root(&self.hashes), Outline { hashes: self.hashes })
    }
}

/// What is asked of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its outline.
    Outline,
    /// Groups in a row.
    Groups {
        /// The first.
        first: u32,
        /// How many, at least one.
        count: u32,
    },
}

impl Part {
    /// Bytes of the answer for an object of this length; `None` when there is no such part, or it is
    /// more than may be asked for at once.
    pub fn answer_bytes(self, object_bytes: u64) -> Option<u64> {
        match self {
            _ if object_bytes > OBJECT_BYTES_MAX => None,
            Self::Outline => Some(outline_bytes(object_bytes)),
            Self::Groups { first, count } => {
                let end = first.checked_add(count)?;
                let sound = (1..=OBJECT_RUN_GROUPS_MAX).contains(&count) && end <= group_count(object_bytes);
                sound.then(|| group_range(object_bytes, end - 1).end - group_range(object_bytes, first).start)
            }
        }
    }
}

/// A question for a part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRequest {
    /// Which object.
    pub id: ObjectId,
    /// Which part.
    pub part: Part,
}

impl ObjectRequest {
    /// Bytes of a request: id, first group and number of groups (u32, little-endian; none: the outline).
    pub const BYTES: usize = HASH_BYTES + 8;

    /// As sent.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let (first, count) = match self.part {
            Part::Outline => (0, 0),
            Part::Groups { first, count } => (first, count),
        };
        let mut bytes = [0; Self::BYTES];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32..36].copy_from_slice(&first.to_le_bytes());
        bytes[36..].copy_from_slice(&count.to_le_bytes());
        bytes
    }

    /// Reads a request; whether there is such a part is for [`Part::answer_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (id, numbers) = bytes.split_at(HASH_BYTES);
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(id);
        let number =
            |at: usize| u32::from_le_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
        let part = match (number(0), number(4)) {
            (_, 0) => Part::Outline,
            (first, count) => Part::Groups { first, count },
        };
        Self { id: ObjectId(hash), part }
    }
}

/// What comes before the bytes of an answer: 8 bytes, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerHead {
    /// The whole object's length; the bytes of the part follow.
    Here(u64),
    /// The peer does not have it; nothing follows.
    NotHere,
    /// The peer sends too much already; nothing follows.
    Busy,
}

impl AnswerHead {
    /// As sent.
    pub fn to_bytes(self) -> [u8; 8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::NotHere => NOT_HERE,
            Self::Busy => BUSY,
        }
        .to_le_bytes()
    }

    /// Reads it. Any number is one.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        match u64::from_le_bytes(bytes) {
            NOT_HERE => Self::NotHere,
            BUSY => Self::Busy,
            length => Self::Here(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|index| (index.wrapping_mul(0x9e37_79b9) >> 24) as u8 ^ seed).collect()
    }

    fn outlined(bytes: &[u8], step: usize) -> (ObjectRef, Outline) {
        let mut hasher = OutlineHasher::default();
        bytes.chunks(step).for_each(|piece| hasher.update(piece));
        let (id, outline) = hasher.finish();
        (ObjectRef { id, bytes: bytes.len() as u64 }, outline)
    }

    #[test]
    fn outlines_give_the_id_that_blake3_gives() {
        const GROUP: usize = OBJECT_GROUP_BYTES as usize;
        let lengths =
            [0, 1, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 3 * GROUP - 7, 5 * GROUP, 6 * GROUP + 1025];
        for length in lengths {
            let bytes = content(length, 3);
            let (object, outline) = outlined(&bytes, 300_000);
            assert_eq!(object.id, ObjectId::of(&bytes), "{length} bytes");
            assert_eq!(Outline::from_bytes(object, &outline.to_bytes()), Some(outline.clone()));
            for group in 0..group_count(object.bytes) {
                let range = group_range(object.bytes, group);
                let mut part = bytes[range.start as usize..range.end as usize].to_vec();
                assert!(outline.is_group(group, &part));
                assert!(!outline.is_group(group + 1, &part), "another place");
                if let Some(byte) = part.last_mut() {
                    *byte ^= 1;
                    assert!(!outline.is_group(group, &part), "a flipped bit");
                    assert!(!outline.is_group(group, &part[..part.len() - 1]), "cut");
                }
            }
        }
    }

    #[test]
    fn an_outline_of_something_else_is_none() {
        let (object, outline) = outlined(&content(3 << 20, 1), 1 << 20);
        let mut bytes = outline.to_bytes();
        bytes.swap(0, 40);
        assert_eq!(Outline::from_bytes(object, &bytes), None);
        assert_eq!(Outline::from_bytes(object, &outline.to_bytes()[..64]), None);
        assert_eq!(Outline::of_single(object), None);
    }

    #[test]
    fn parts_beyond_the_object_or_the_limit_have_no_answer() {
        let bytes = 200 * OBJECT_GROUP_BYTES + 5;
        let answer = |first, count| Part::Groups { first, count }.answer_bytes(bytes);
        assert_eq!(answer(199, 2), Some(OBJECT_GROUP_BYTES + 5));
        assert_eq!(answer(200, 1), Some(5));
        assert_eq!(answer(200, 2), None);
        assert_eq!(answer(0, OBJECT_RUN_GROUPS_MAX + 1), None);
        assert_eq!(answer(u32::MAX, 1), None);
        assert_eq!(Part::Outline.answer_bytes(bytes), Some(201 * 32));
        assert_eq!(Part::Outline.answer_bytes(OBJECT_BYTES_MAX + 1), None);
    }

    proptest! {
        #[test]
        fn requests_and_heads_come_back(id in any::<[u8; 32]>(), first in any::<u32>(), count in 1u32.., length in 0..BUSY) {
            for part in [Part::Outline, Part::Groups { first, count }] {
                let request = ObjectRequest { id: ObjectId(id), part };
                prop_assert_eq!(ObjectRequest::from_bytes(&request.to_bytes()), request);
                let _ = part.answer_bytes(length);
            }
            for head in [AnswerHead::Here(length), AnswerHead::NotHere, AnswerHead::Busy] {
                prop_assert_eq!(AnswerHead::from_bytes(head.to_bytes()), head);
            }
        }
    }
}
