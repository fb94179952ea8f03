//! How many bytes messages take on a connection: protobuf of gossipsub, frames of yamux and noise, packets.

use stormo::mesh::News;
use stormo_protocol::codec::encode;
use stormo_protocol::coordinate::Coordinate;
use stormo_protocol::exchange::{Exchange, Held};
use stormo_protocol::ids::MeshId;
use stormo_protocol::state::Signed;

/// Bytes of a message's name: what `net/swarm.rs` takes of its hash.
const MESSAGE_ID_BYTES: u64 = 20;
/// A peer id, a sequence number and a signature of gossipsub itself.
const FROM_BYTES: u64 = 38;
const SEQUENCE_BYTES: u64 = 8;
const SIGNATURE_BYTES: u64 = 64;
/// yamux: a header for each frame, and how much of a message one frame holds.
const YAMUX_HEADER_BYTES: u64 = 12;
const YAMUX_SPLIT_BYTES: u64 = 16 << 10;
/// noise: a length and a tag for each message, of which `libp2p-noise` makes one for what is flushed.
const NOISE_BYTES: u64 = 18;
const NOISE_MESSAGE_BYTES_MAX: u64 = 64_511;
/// Headers of IPv4 and TCP with timestamps, and what one packet holds beside them.
const PACKET_HEADER_BYTES: u64 = 52;
const SEGMENT_BYTES: u64 = 1_448;

/// A varint of protobuf.
fn varint(number: u64) -> u64 {
    u64::from((64 - (number | 1).leading_zeros()).div_ceil(7))
}

/// A field of protobuf that holds bytes, its tag below 16.
fn field(bytes: u64) -> u64 {
    1 + varint(bytes) + bytes
}

/// A length as bincode writes it.
fn bincode_length(number: u64) -> u64 {
    match number {
        0..=250 => 1,
        251..=0xffff => 3,
        _ => 5,
    }
}

/// A message on a stream, as bytes of the TCP connection.
pub(super) fn framed(bytes: u64) -> u64 {
    bytes
        + YAMUX_HEADER_BYTES * bytes.div_ceil(YAMUX_SPLIT_BYTES).max(1)
        + NOISE_BYTES * bytes.div_ceil(NOISE_MESSAGE_BYTES_MAX).max(1)
}

/// Bytes of a TCP connection, as bytes of packets.
pub(super) fn in_packets(bytes: u64) -> u64 {
    bytes + PACKET_HEADER_BYTES * bytes.div_ceil(SEGMENT_BYTES).max(1)
}

/// How many packets.
pub(super) fn packets(bytes: u64) -> u64 {
    bytes.div_ceil(SEGMENT_BYTES).max(1)
}

/// A question or an answer of `net/ask.rs`, framed.
pub(super) fn asked(encoded_bytes: u64) -> u64 {
    framed(4 + encoded_bytes)
}

/// A signed record, encoded.
pub(super) fn signed_bytes(signed: &Signed) -> u64 {
    let [signature, body] = [&signed.signature, &signed.body].map(|part| part.len() as u64);
    1 + 32 + bincode_length(signature) + signature + bincode_length(body) + body
}

/// A section's tag and length.
const SECTION_BYTES: u64 = 6;
/// What packed bytes of a node begin with: its short id.
const SHORT_ID_BYTES: u64 = 8;

fn held(held: &[Held]) -> u64 {
    let numbers = |held: &Held| [held.stamp.generation, held.stamp.sequence, held.beat].map(varint);
    let bytes = held.iter().map(|held| SHORT_ID_BYTES + numbers(held).iter().sum::<u64>()).sum();
    SECTION_BYTES + bincode_length(bytes) + bytes
}

fn message(sections_bytes: u64) -> u64 {
    1 + bincode_length(sections_bytes) + sections_bytes
}

/// A node's place in an exchange.
fn place(coordinate: Option<Coordinate>) -> u64 {
    coordinate.map_or(0, |place| SECTION_BYTES + encode(&place).len() as u64)
}

/// A question of an exchange, encoded.
pub(super) fn exchange(exchange: &Exchange) -> u64 {
    let deployments = exchange.deployments.len() as u64;
    let place = place(exchange.coordinate);
    message(held(&exchange.held) + SECTION_BYTES + bincode_length(deployments) + 17 * deployments + place)
}

/// News of an exchange, encoded.
pub(super) fn news(news: &News) -> u64 {
    let records: u64 = news.heard.iter().map(|heard| signed_bytes(heard.signed())).sum();
    let wanted = news.wanted.len() as u64;
    let lists = [news.heard.len() as u64, wanted].map(bincode_length).iter().sum::<u64>();
    let place = place(news.coordinate);
    message(held(&news.beats) + 3 * SECTION_BYTES + lists + records + SHORT_ID_BYTES * wanted + 1 + place)
}

/// Sizes of gossipsub's messages (rpc.proto) on one topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct GossipSizes {
    topic_bytes: u64,
}

impl GossipSizes {
    /// Of the topic of `net/swarm.rs`.
    pub(super) fn of(mesh: MeshId) -> Self {
        Self { topic_bytes: format!("stormo/1/{mesh}/state").len() as u64 }
    }

    /// A message as protobuf, without the RPC around it.
    pub(super) fn message(&self, data_bytes: u64) -> u64 {
        [FROM_BYTES, data_bytes, SEQUENCE_BYTES, self.topic_bytes, SIGNATURE_BYTES].map(field).iter().sum()
    }

    fn rpc(content_bytes: u64) -> u64 {
        framed(varint(content_bytes) + content_bytes)
    }

    /// A message in an RPC of its own, framed.
    pub(super) fn published(&self, data_bytes: u64) -> u64 {
        Self::rpc(field(self.message(data_bytes)))
    }

    /// What gossipsub counts as the control part of an RPC with IHAVE.
    pub(super) fn have_control(&self, count: u64) -> u64 {
        field(field(field(self.topic_bytes) + count * field(MESSAGE_ID_BYTES)))
    }

    /// IHAVE, framed.
    pub(super) fn have(&self, count: u64) -> u64 {
        Self::rpc(self.have_control(count))
    }

    /// IWANT or IDONTWANT, framed.
    pub(super) fn want(&self, count: u64) -> u64 {
        Self::rpc(field(field(count * field(MESSAGE_ID_BYTES))))
    }

    /// GRAFT, framed.
    pub(super) fn graft(&self) -> u64 {
        Self::rpc(field(field(field(self.topic_bytes))))
    }

    /// PRUNE with a backoff, framed.
    pub(super) fn prune(&self) -> u64 {
        Self::rpc(field(field(field(self.topic_bytes) + 2)))
    }

    /// The subscription that opens a connection, framed.
    pub(super) fn subscription(&self) -> u64 {
        Self::rpc(field(2 + field(self.topic_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo::mesh::{Heard, MemberEvent};
    use stormo_protocol::control::{Request, Response};
    use stormo_protocol::exchange::{self, ShortId};
    use stormo_protocol::ids::{DeploymentId, NodeId};
    use stormo_protocol::state::{Stamp, Topic};

    use crate::simulate::host::Host;

    fn signed(body_bytes: usize) -> Signed {
        let (signature, body) = (vec![7; 64], vec![9; body_bytes]);
        Signed { topic: Topic::Node, author: NodeId([255; 32]), signature, body }
    }

    #[test]
    fn sizes_are_those_of_the_real_encoding() {
        for body_bytes in [0, 1, 250, 251, 1_700, 70_000] {
            let signed = signed(body_bytes);
            assert_eq!(signed_bytes(&signed), signed.to_bytes().len() as u64, "a body of {body_bytes}");
        }
        for count in [0, 1, 20, 250] {
            let one = |index: u64| {
                let stamp = Stamp { generation: index, sequence: 1 << index.min(40) };
                Held { node: ShortId(index.to_be_bytes()), stamp, beat: 77 * index }
            };
            let held: Vec<Held> = (0..count).map(one).collect();
            let deployments = vec![(DeploymentId([250; 16]), true); count as usize];
            let coordinate = Coordinate::of([1e3 * count as f64, -5e4], 300.0, 0.5).filter(|_| count > 0);
            let asks = Exchange { held: held.clone(), deployments, coordinate };
            assert_eq!(super::exchange(&asks), Request::Exchange(asks.to_bytes()).to_bytes().len() as u64);
            let mut host = Host::new(1, 7, vec![]);
            host.start(0);
            host.member.handle(0, MemberEvent::Is(host.about()));
            let heard: Vec<Heard> = (0..count).filter_map(|_| host.next_record()).collect();
            let wanted: Vec<ShortId> = held.iter().map(|held| held.node).collect();
            let records = heard.iter().map(|heard| heard.signed().as_ref().clone()).collect();
            let more = false;
            let sent =
                exchange::News { records, beats: held.clone(), wanted: wanted.clone(), more, coordinate };
            let encoded = Response::News(sent.to_bytes()).to_bytes().len() as u64;
            assert_eq!(super::news(&News { heard, beats: held, wanted, more, coordinate }), encoded);
        }
    }

    #[test]
    fn varints_grow_each_seven_bits() {
        let lengths = [0, 127, 128, 16_383, 16_384, u64::MAX].map(varint);
        assert_eq!(lengths, [1, 1, 2, 2, 3, 10]);
    }
}
