//! How far and how fast the way to each neighbour is, from real round trips and transfers.

use std::collections::BTreeMap;

use stormo_protocol::coordinate::Coordinate;
use stormo_protocol::ids::NodeId;
use stormo_protocol::limits::LINKS_MAX;
use stormo_protocol::state::{LinkEstimate, NodeRecord};

use super::View;
use super::chance::Chance;
use super::vivaldi::{self, Vivaldi};

/// Weight of a new round trip. Pings come every two seconds: a change is believed after a few.
const ROUND_TRIP_WEIGHT: f64 = 0.3;
/// Weight of a new rate; single transfers vary more than round trips.
const RATE_WEIGHT: f64 = 0.3;
/// Transfers below this say more about the round trip than about the rate, bytes.
const RATE_SAMPLE_BYTES_MIN: u64 = 64 << 10;
/// A guess for links that nobody measured: a home network's 100 Mbit/s.
const UNKNOWN_BYTES_PER_SECOND: f64 = 12.5e6;
/// A guess likewise: a round trip through a city.
const UNKNOWN_ROUND_TRIP_US: f64 = 20_000.0;

/// What a plan may count on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkQuality {
    /// One way.
    pub latency_ms: f64,
    /// Time of each further byte.
    pub ms_per_byte: f64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Measured {
    round_trip_us: Option<f64>,
    bytes_per_second: Option<f64>,
    /// Where it said last that it is.
    place: Option<Coordinate>,
}

fn average(old: Option<f64>, new: f64, weight: f64) -> Option<f64> {
    Some(old.map_or(new, |old| old + weight * (new - old)))
}

/// This node's measurements.
#[derive(Debug, Default)]
pub struct Links {
    peers: BTreeMap<NodeId, Measured>,
    own: Vivaldi,
}

impl Links {
    /// A round trip was seen, to a node whose record says this place.
    pub(super) fn round_trip(
        &mut self,
        peer: NodeId,
        micros: f64,
        recorded: Option<Coordinate>,
        chance: &mut Chance,
    ) {
        let measured = self.peers.entry(peer).or_default();
        measured.round_trip_us = average(measured.round_trip_us, micros, ROUND_TRIP_WEIGHT);
        if let Some(round_trip_us) = measured.round_trip_us {
            self.own.sample(peer, measured.place.or(recorded), round_trip_us, chance);
        }
    }

    /// A neighbour says where it is.
    pub(super) fn placed(&mut self, peer: NodeId, place: Option<Coordinate>) {
        if let Some(measured) = self.peers.get_mut(&peer) {
            measured.place = place;
        }
    }

    /// Where this node is in the space of round trips, as far as its measurements tell.
    pub fn coordinate(&self) -> Option<Coordinate> {
        self.own.coordinate()
    }

    /// So many bytes took this long, the way there and back included.
    pub fn transfer(&mut self, peer: NodeId, bytes: u64, micros: f64) {
        if bytes < RATE_SAMPLE_BYTES_MIN {
            return;
        }
        let measured = self.peers.entry(peer).or_default();
        let moving_us = (micros - measured.round_trip_us.unwrap_or(0.0)).max(micros * 0.1).max(1.0);
        let rate = bytes as f64 / moving_us * 1e6;
        measured.bytes_per_second = average(measured.bytes_per_second, rate, RATE_WEIGHT);
    }

    /// The peer is gone for good.
    pub fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        self.own.forget(peer);
    }

    /// Whether the rate to a peer is known.
    pub fn has_rate(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|measured| measured.bytes_per_second.is_some())
    }

    /// The measured round trip, microseconds.
    pub fn round_trip_us(&self, peer: NodeId) -> Option<f64> {
        self.peers.get(&peer)?.round_trip_us
    }

    /// How many rates are known.
    pub(super) fn rates(&self) -> usize {
        self.peers.values().filter(|measured| measured.bytes_per_second.is_some()).count()
    }

    /// How far a node is, measured or by both coordinates, microseconds; `None` if neither is known.
    pub fn foretold_us(&self, view: &View, node: NodeId) -> Option<f64> {
        let foretold_us = || {
            let place = view.get(node).and_then(|known| known.record.coordinate);
            vivaldi::foretold_us(self.coordinate(), place)
        };
        self.round_trip_us(node).or_else(foretold_us)
    }

    /// For this node's record: the nearest neighbours first.
    pub fn estimates(&self) -> Vec<LinkEstimate> {
        let mut estimates: Vec<LinkEstimate> = self
            .peers
            .iter()
            .filter_map(|(peer, measured)| {
                Some(LinkEstimate {
                    peer: *peer,
                    round_trip_us: measured.round_trip_us? as u32,
                    bytes_per_second: measured.bytes_per_second.unwrap_or(0.0) as u64,
                })
            })
            .collect();
        estimates.sort_by_key(|estimate| (estimate.round_trip_us, estimate.peer));
        estimates.truncate(LINKS_MAX);
        estimates
    }
}

impl LinkQuality {
    /// What to count on between two nodes, from what either end says of it; of a way that nobody measured, from where both
    /// are, or else over a neighbour of both.
    pub fn between(one: &NodeRecord, other: &NodeRecord) -> Self {
        let find = |links: &[LinkEstimate], peer| links.iter().find(|link| link.peer == peer).copied();
        let (there, back) = (find(&one.links, other.node), find(&other.links, one.node));
        let measured_us = there.or(back).map(|link| f64::from(link.round_trip_us));
        let round_trip_us = measured_us
            .or_else(|| vivaldi::foretold_us(one.coordinate, other.coordinate))
            .or_else(|| through_neighbours(&one.links, &other.links))
            .unwrap_or(UNKNOWN_ROUND_TRIP_US);
        let rate = [there, back]
            .into_iter()
            .flatten()
            .map(|link| link.bytes_per_second)
            .find(|rate| *rate > 0)
            .map_or(UNKNOWN_BYTES_PER_SECOND, |rate| rate as f64);
        Self { latency_ms: round_trip_us / 2_000.0, ms_per_byte: 1_000.0 / rate }
    }
}

/// Two nodes that never met: the shortest way over a common neighbour.
fn through_neighbours(one: &[LinkEstimate], other: &[LinkEstimate]) -> Option<f64> {
    one.iter()
        .filter_map(|first| {
            let second = other.iter().find(|second| second.peer == first.peer)?;
            Some(f64::from(first.round_trip_us) + f64::from(second.round_trip_us))
        })
        .min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Said;
    use crate::mesh::member::testing::said_by;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);
    const C: NodeId = NodeId([3; 32]);

    fn link(peer: NodeId, round_trip_us: u32, bytes_per_second: u64) -> LinkEstimate {
        LinkEstimate { peer, round_trip_us, bytes_per_second }
    }

    #[test]
    fn transfers_give_the_rate_without_the_round_trip() {
        let mut links = Links::default();
        links.round_trip(A, 10_000.0, None, &mut Chance::new(1));
        links.transfer(A, 1_000, 5.0);
        assert!(!links.has_rate(A), "too small to tell");
        links.transfer(A, 1_000_000, 110_000.0);
        assert_eq!(links.estimates(), vec![link(A, 10_000, 10_000_000)]);
    }

    #[test]
    fn either_end_knows_the_link_and_a_common_neighbour_helps() {
        let says = |node: NodeId, links: Vec<LinkEstimate>, coordinate| {
            let Said::Node(said) = said_by(node, 1, 1).said().clone() else { panic!("a node's record") };
            NodeRecord { links, coordinate, ..said.as_ref().clone() }
        };
        let plain = |node, links| says(node, links, None);
        let (knowing, silent) = (plain(A, vec![link(B, 2_000, 1_000_000)]), plain(B, vec![]));
        let quality = LinkQuality::between(&knowing, &silent);
        assert_eq!(quality, LinkQuality { latency_ms: 1.0, ms_per_byte: 0.001 });
        assert_eq!(quality, LinkQuality::between(&silent, &knowing));
        let over =
            LinkQuality::between(&plain(A, vec![link(C, 2_000, 0)]), &plain(B, vec![link(C, 6_000, 0)]));
        assert_eq!(over.latency_ms, 4.0);
        assert_eq!(LinkQuality::between(&plain(A, vec![]), &silent).latency_ms, 10.0);
        let placed = |node, us, error| says(node, vec![], Coordinate::of([us, 0.0], 500.0, error));
        let foretold =
            |error| LinkQuality::between(&placed(A, 0.0, 0.1), &placed(B, 5_000.0, error)).latency_ms;
        assert_eq!(
            (foretold(0.2), foretold(1.0)),
            (3.0, 10.0),
            "who is not sure of its place foretells nothing"
        );
    }

    #[test]
    fn a_record_lists_the_nearest() {
        let mut links = Links::default();
        for index in 0..40u8 {
            links.round_trip(NodeId([index; 32]), f64::from(100 - index), None, &mut Chance::new(1));
        }
        let estimates = links.estimates();
        assert_eq!(estimates.len(), LINKS_MAX);
        assert_eq!(estimates[0].peer, NodeId([39; 32]));
    }
}
