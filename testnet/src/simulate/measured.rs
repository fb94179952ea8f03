//! What a run's figures are: plain data, as a report has them. Taken in `figures`.

use serde::Serialize;

/// Middle and worst of a set of times, milliseconds; `None` where it did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them were sooner.
    pub median: Option<f64>,
    /// The latest.
    pub worst: Option<f64>,
}

impl Spread {
    pub(super) fn of(times_us: &[Option<u64>]) -> Self {
        let mut sorted: Vec<u64> = times_us.iter().map(|time| time.unwrap_or(u64::MAX)).collect();
        sorted.sort_unstable();
        let ms =
            |time: Option<&u64>| time.filter(|time| **time < u64::MAX).map(|time| *time as f64 / 1_000.0);
        Self { median: ms(sorted.get(sorted.len().saturating_sub(1) / 2)), worst: ms(sorted.last()) }
    }
}

/// Times of all changes until each other node knew them, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Delays {
    /// Half of them were sooner.
    pub p50_ms: f64,
    /// 99 in 100 were sooner.
    pub p99_ms: f64,
}

impl Delays {
    /// Of times in microseconds; zeros of none.
    pub fn of(mut times_us: Vec<u64>) -> Self {
        times_us.sort_unstable();
        let at = |share: f64| {
            let place = (times_us.len() as f64 * share).ceil() as usize;
            times_us.get(place.saturating_sub(1)).map_or(0.0, |us| *us as f64 / 1_000.0)
        };
        Self { p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

/// Bytes a second of a node, all that a TCP connection carries (noise and yamux included, headers of packets not).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Of all nodes.
    pub mean: f64,
    /// Of the node with the most.
    pub most: f64,
}

impl Rate {
    pub(super) fn of(rates: impl Iterator<Item = f64>) -> Self {
        let (sum, most, count) =
            rates.fold((0.0, 0.0_f64, 0), |(sum, most, count), rate| (sum + rate, most.max(rate), count + 1));
        Self { mean: sum / f64::from(count.max(1)), most }
    }
}

/// A node that another one took for dead, though nothing had happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FalseDeath {
    /// Virtual time, seconds.
    pub at_s: f64,
    /// By which node.
    pub by: u16,
    /// Which one.
    pub of: u16,
    /// How long no sign of life had come, seconds.
    pub silent_s: f64,
    /// Whether it was a connection that broke, and not the silence.
    pub connection_lost: bool,
}

/// The node that sent most for the mesh itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Busiest {
    /// Its number; the first one, 0, is whom others join at.
    pub node: u16,
    /// Its connections at the end.
    pub connections: usize,
    /// What it sent, by what it was for, bytes a second.
    pub sent_by_kind: Vec<(&'static str, f64)>,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// From the start of the first node until all saw all.
    pub formed_ms: Option<f64>,
    /// Changes that were followed.
    pub changes: usize,
    /// Until half of the others knew.
    pub known_to_half_ms: Spread,
    /// Until 99 % of them knew.
    pub known_to_99_percent_ms: Spread,
    /// Until all of them knew.
    pub known_to_all_ms: Spread,
    /// Of all changes, until each of the others knew.
    pub delays: Delays,
    /// Nodes that died.
    pub deaths: usize,
    /// Until no live node would have used them.
    pub dead_suspected_by_all_ms: Spread,
    /// Times that a node dropped another one from its plans to which nothing had happened.
    pub false_deaths: u64,
    /// The first of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrongly_dropped: Vec<FalseDeath>,
    /// The same between the two ends of a cut way.
    pub flips_under_one_way_cut: usize,
    /// The most of these by one of them within a minute; absent if no way between two that knew each other was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flips_in_a_minute: Option<usize>,
    /// From the end of the partition until all saw all; absent without a partition, `null` if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views_equal_after_heal_ms: Option<Option<f64>>,
    /// Sent by a node for the mesh itself, requests left out.
    pub sent_bytes_per_s: Rate,
    /// Received by a node, requests and their tensors included.
    pub received_bytes_per_s: Rate,
    /// The mean of what a node sent, by what it was for.
    pub sent_by_kind: Vec<(&'static str, f64)>,
    /// The node that sent most of that.
    pub busiest: Busiest,
    /// Peers in gossipsub's mesh of a node at the end.
    pub gossip_degree: f64,
    /// Connections of a node at the end.
    pub connections: f64,
    /// Gossip that was longer than its receiver takes.
    pub gossip_streams_refused: u64,
    /// Connections over which gossip ended for good because of that.
    pub connections_without_gossip: u64,
    /// Time that the simulation took, seconds.
    pub work_s: f64,
}
