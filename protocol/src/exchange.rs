//! What two nodes tell each other of all others, several times a minute: who is known, in which state and how
//! fresh. One asks, the other answers, and the first tells what the other lacks. Each message is written as
//! sections, so that later versions can add some.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, SectionReader, SectionWriter};
use crate::coordinate::Coordinate;
use crate::ids::{DeploymentId, NodeId};
use crate::limits::{CONTROL_BYTES_MAX, EXCHANGE_RECORDS_MAX, HELD_MAX};
use crate::state::{Signed, Stamp};

/// The first bytes of a node's id: enough to tell the nodes of a mesh apart, and a quarter of the bytes. Two nodes
/// that share them (nobody finds a second key for them by trying) would share one line here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShortId(pub [u8; 8]);

impl From<NodeId> for ShortId {
    fn from(node: NodeId) -> Self {
        let mut short = [0; 8];
        short.copy_from_slice(&node.0[..8]);
        Self(short)
    }
}

/// What is known of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub node: ShortId,
    /// Of its newest record.
    pub stamp: Stamp,
    /// Its newest heartbeat in that generation: it raises it about once a second.
    pub beat: u64,
}

/// "This I know; what is newer?" An empty list asks for everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exchange {
    /// Of all nodes that the asker counts on, itself included, in ascending order.
    pub held: Vec<Held>,
    /// Deployments held, by version; a removed one counts as held only as removed.
    pub deployments: Vec<(DeploymentId, bool)>,
    /// Where the asker is in the space of round trips, as of now.
    pub coordinate: Option<Coordinate>,
}

/// The answer to an [`Exchange`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// Signed records and deployments that are newer here.
    pub records: Vec<Signed>,
    /// Newer heartbeats, and those of the records, in ascending order.
    pub beats: Vec<Held>,
    /// Whose records the asker has and the answerer wants.
    pub wanted: Vec<ShortId>,
    /// Whether there is more than one answer holds: the asker asks again.
    pub more: bool,
    /// Where the answerer is in the space of round trips, as of now.
    pub coordinate: Option<Coordinate>,
}

const HELD: u16 = 1;
const DEPLOYMENTS: u16 = 2;
/// In both messages.
const COORDINATE: u16 = 9;

impl Exchange {
    /// As sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let deployments = &self.deployments;
        let all = SectionWriter::default().with(HELD, &pack(&self.held)).with(DEPLOYMENTS, deployments);
        with_place(all, self.coordinate).into_bytes()
    }

    /// Reads what came.
    ///
    /// # Errors
    /// When too long or malformed, or when it lists more than allowed or out of order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let sections = SectionReader::new(bytes)?;
        Ok(Self {
            held: unpack(&sections.required::<Vec<u8>, CONTROL_BYTES_MAX>(HELD)?)?,
            deployments: sections.required::<_, CONTROL_BYTES_MAX>(DEPLOYMENTS)?,
            coordinate: place_in(&sections),
        })
    }
}

const RECORDS: u16 = 1;
const BEATS: u16 = 2;
const WANTED: u16 = 3;
const MORE: u16 = 4;

impl News {
    /// As sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let all = SectionWriter::default()
            .with(RECORDS, &self.records)
            .with(BEATS, &pack(&self.beats))
            .with(WANTED, &self.wanted)
            .with(MORE, &self.more);
        with_place(all, self.coordinate).into_bytes()
    }

    /// Reads what came; signatures are not checked here.
    ///
    /// # Errors
    /// As [`Exchange::from_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let sections = SectionReader::new(bytes)?;
        let news = Self {
            records: sections.required::<_, CONTROL_BYTES_MAX>(RECORDS)?,
            beats: unpack(&sections.required::<Vec<u8>, CONTROL_BYTES_MAX>(BEATS)?)?,
            wanted: sections.required::<_, CONTROL_BYTES_MAX>(WANTED)?,
            more: sections.required::<_, CONTROL_BYTES_MAX>(MORE)?,
            coordinate: place_in(&sections),
        };
        let bounded = news.wanted.len() <= EXCHANGE_RECORDS_MAX;
        if bounded { Ok(news) } else { Err(DecodeError::Malformed) }
    }
}

fn with_place(sections: SectionWriter, coordinate: Option<Coordinate>) -> SectionWriter {
    match &coordinate {
        Some(coordinate) => sections.with(COORDINATE, coordinate),
        None => sections,
    }
}

/// A place that is none is not there.
fn place_in(sections: &SectionReader<'_>) -> Option<Coordinate> {
    sections.optional::<Coordinate, CONTROL_BYTES_MAX>(COORDINATE).ok().flatten().and_then(Coordinate::sane)
}

/// Eight bytes of id, then generation, sequence and heartbeat as varints (LEB128): about 13 bytes a node.
fn pack(held: &[Held]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(held.len() * 14);
    for one in held {
        bytes.extend_from_slice(&one.node.0);
        for number in [one.stamp.generation, one.stamp.sequence, one.beat] {
            put_varint(&mut bytes, number);
        }
    }
    bytes
}

fn unpack(mut bytes: &[u8]) -> Result<Vec<Held>, DecodeError> {
    let mut held: Vec<Held> = Vec::new();
    while !bytes.is_empty() {
        let (node, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Malformed)?;
        bytes = rest;
        let mut number = || take_varint(&mut bytes).ok_or(DecodeError::Malformed);
        let stamp = Stamp { generation: number()?, sequence: number()? };
        let one = Held { node: ShortId(*node), stamp, beat: number()? };
        let ascends = held.last().is_none_or(|last| last.node < one.node);
        if !ascends || held.len() == HELD_MAX {
            return Err(DecodeError::Malformed);
        }
        held.push(one);
    }
    Ok(held)
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && part > 1 {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Topic;
    use proptest::prelude::*;

    fn held(node: u8, generation: u64, sequence: u64, beat: u64) -> Held {
        Held { node: ShortId([node; 8]), stamp: Stamp { generation, sequence }, beat }
    }

    #[test]
    fn questions_and_answers_round_trip_and_unknown_sections_are_skipped() {
        let exchange = Exchange {
            held: vec![held(1, 1, 2, 3), held(2, 7, 300, u64::MAX)],
            deployments: vec![(DeploymentId([5; 16]), true)],
            coordinate: Coordinate::of([5e4, -7e3], 1e3, 0.25),
        };
        let later = SectionWriter::default().with(99, &"from a later version").into_bytes();
        assert_eq!(Exchange::from_bytes(&[exchange.to_bytes(), later.clone()].concat()), Ok(exchange));
        let (author, signature, body) = (NodeId([1; 32]), vec![2; 64], vec![3; 300]);
        let news = News {
            records: vec![Signed { topic: Topic::Node, author, signature, body }],
            beats: vec![held(1, 1, 2, 4)],
            wanted: vec![ShortId([2; 8])],
            more: true,
            coordinate: Coordinate::of([0.0, 0.0], 0.0, 0.0),
        };
        assert_eq!(News::from_bytes(&[later, news.to_bytes()].concat()), Ok(news));
    }

    #[test]
    fn bytes_are_these() {
        let exchange = Exchange { held: vec![held(1, 1, 300, 5)], ..Exchange::default() };
        let golden = [1, 0, 13, 0, 0, 0, 12, 1, 1, 1, 1, 1, 1, 1, 1, 1, 172, 2, 5, 2, 0, 1, 0, 0, 0, 0];
        assert_eq!(exchange.to_bytes(), golden);
        assert_eq!(Exchange::from_bytes(&golden), Ok(exchange));
    }

    #[test]
    fn lists_that_are_too_long_or_out_of_order_are_refused() {
        let exchange = |held| Exchange { held, ..Exchange::default() }.to_bytes();
        let refused = |bytes: &[u8]| assert_eq!(Exchange::from_bytes(bytes), Err(DecodeError::Malformed));
        refused(&exchange(vec![held(2, 1, 1, 1), held(1, 1, 1, 1)]));
        refused(&exchange(vec![held(1, 1, 1, 1); 2]));
        let many = |count: usize| {
            let one = |index: usize| Held { node: ShortId((index as u64).to_be_bytes()), ..held(0, 1, 1, 1) };
            (0..count).map(one).collect::<Vec<_>>()
        };
        refused(&exchange(many(HELD_MAX + 1)));
        assert!(Exchange::from_bytes(&exchange(many(HELD_MAX))).is_ok());
        let wanted = vec![ShortId([1; 8]); EXCHANGE_RECORDS_MAX + 1];
        let news = News { wanted, ..News::default() }.to_bytes();
        assert_eq!(News::from_bytes(&news), Err(DecodeError::Malformed));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(numbers in proptest::collection::vec(any::<(u64, u64, u64)>(), 0..40)) {
            let of = |(index, (generation, sequence, beat)): (usize, (u64, u64, u64))| {
                held(index as u8, generation, sequence, beat)
            };
            let all: Vec<Held> = numbers.into_iter().enumerate().map(of).collect();
            prop_assert_eq!(unpack(&pack(&all)), Ok(all));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Exchange::from_bytes(&bytes);
            let _ = News::from_bytes(&bytes);
            let _ = unpack(&bytes);
        }
    }
}
