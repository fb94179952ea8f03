//! How many bytes messages take on a connection: protobuf of gossipsub, frames of yamux and noise, packets.

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

/// An answer with news, framed.
pub(super) fn news<'a>(records: impl ExactSizeIterator<Item = &'a Signed>) -> u64 {
    let head = 1 + bincode_length(records.len() as u64) + 1;
    asked(head + records.map(signed_bytes).sum::<u64>())
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
    use stormo_protocol::control::Response;
    use stormo_protocol::ids::NodeId;
    use stormo_protocol::state::Topic;

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
        for count in [0, 1, 250, 251] {
            let records = vec![signed(300); count];
            let encoded = Response::News { records: records.clone(), more: false }.to_bytes().len() as u64;
            assert_eq!(news(records.iter()), asked(encoded));
        }
    }

    #[test]
    fn varints_grow_each_seven_bits() {
        let lengths = [0, 127, 128, 16_383, 16_384, u64::MAX].map(varint);
        assert_eq!(lengths, [1, 1, 2, 2, 3, 10]);
    }
}
