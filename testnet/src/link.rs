//! One direction of a link as arithmetic: when what is offered arrives, if it does. It reads no clock
//! and moves no bytes, so that the switch (in real time) and the simulation (in virtual time) share it.

mod spec;
#[cfg(test)]
mod tests;

pub use spec::{
    LATENCY_US_MAX, LinkSpec, LinkSpecError, QUEUE_BYTES_DEFAULT, QUEUE_BYTES_MAX, RATE_BITS_PER_S_MAX,
};

use crate::random::{self, Random};

/// A packet that is held back arrives so much later, a number in between, microseconds: long enough
/// that some packets of a busy link pass it, short beside the patience of TCP.
const HELD_BACK_US: (f64, f64) = (1_000.0, 5_000.0);
/// Latency wanders from one value to the next within this time, microseconds, or four times the jitter
/// if that is longer: so it never falls faster than time passes, and no packet overtakes another.
const WANDER_US_MIN: u64 = 10_000;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Once(Delivery),
    /// It arrives, and again.
    Twice(Delivery, Delivery),
    /// It is lost on the way.
    Lost,
    /// The queue has no room for it.
    QueueFull,
    /// The link is cut.
    Cut,
}

impl Fate {
    /// What arrives, none to two.
    pub fn deliveries(self) -> impl Iterator<Item = Delivery> {
        let (first, second) = match self {
            Self::Once(first) => (Some(first), None),
            Self::Twice(first, second) => (Some(first), Some(second)),
            Self::Lost | Self::QueueFull | Self::Cut => (None, None),
        };
        first.into_iter().chain(second)
    }
}

/// An arrival to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// When, microseconds of the clock that `now_us` is of.
    pub at_us: u64,
    /// Whether a bit of it has changed by then.
    pub corrupted: bool,
    /// Cuts that the link had seen when it was offered.
    cuts: u64,
}

/// What a link has done so far, packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Offered to it.
    pub offered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped by its full queue.
    pub queue_full: u64,
    /// Dropped because it was cut.
    pub cut: u64,
    /// Held back.
    pub reordered: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Damaged, a packet and its double once.
    pub corrupted: u64,
    /// Time in which it sent at its rate, nanoseconds; without a rate it takes none.
    pub busy_ns: u64,
}

/// One direction of a link.
#[derive(Debug, Clone)]
pub struct Link {
    spec: LinkSpec,
    random: Random,
    wander_seed: u64,
    /// When the last packet taken will have been sent, nanoseconds.
    sent_ns: u64,
    /// The latest arrival of a packet that was not held back.
    last_us: u64,
    cuts: u64,
    counts: Counts,
}

impl Link {
    /// A link that is idle. Equal seeds, settings and offers give equal fates.
    pub fn new(spec: LinkSpec, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let wander_seed = random.bits();
        Self { spec, random, wander_seed, sent_ns: 0, last_us: 0, cuts: 0, counts: Counts::default() }
    }

    /// As it is now.
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes it. Packets that it has taken keep the times that they were told, unless it is cut: then
    /// they are lost, as [`Link::arrives`] says. Bytes that wait go on waiting, at the new rate as far as
    /// packets behind them are concerned; no packet overtakes another.
    pub fn set(&mut self, now_us: u64, spec: LinkSpec) {
        let waiting_bytes = self.backlog_bytes(now_us);
        self.spec = LinkSpec { cut: self.spec.cut, ..spec };
        self.sent_ns = now_us.saturating_mul(1_000).saturating_add(self.takes_ns(waiting_bytes));
        if spec.cut && !self.spec.cut {
            self.cuts += 1;
            self.sent_ns = now_us.saturating_mul(1_000);
            self.last_us = now_us;
        }
        self.spec.cut = spec.cut;
    }

    /// Whether a delivery, now that it is due, arrives: no cut came while it was under way.
    pub fn arrives(&self, delivery: &Delivery) -> bool {
        delivery.cuts == self.cuts
    }

    /// Gives it a packet. `now_us` never falls from call to call.
    pub fn offer(&mut self, now_us: u64, bytes: u64) -> Fate {
        self.counts.offered += 1;
        // Always the same draws, so that changing one setting leaves the others' chances as they were.
        let [lost, held, doubled, damaged] = [(); 4].map(|()| self.random.unit());
        let held_back_us = HELD_BACK_US.0 + (HELD_BACK_US.1 - HELD_BACK_US.0) * self.random.unit();
        if self.spec.cut {
            self.counts.cut += 1;
            return Fate::Cut;
        }
        let Some(sent_us) = self.send(now_us, bytes) else {
            self.counts.queue_full += 1;
            return Fate::QueueFull;
        };
        if lost < self.spec.loss {
            self.counts.lost += 1;
            return Fate::Lost;
        }
        let in_order_us = sent_us.saturating_add(self.latency_us_at(sent_us)).max(self.last_us);
        let at_us = if held < self.spec.reorder {
            self.counts.reordered += 1;
            in_order_us.saturating_add(held_back_us as u64)
        } else {
            self.last_us = in_order_us;
            in_order_us
        };
        let corrupted = damaged < self.spec.corrupt;
        self.counts.corrupted += u64::from(corrupted);
        let delivery = Delivery { at_us, corrupted, cuts: self.cuts };
        if doubled < self.spec.duplicate {
            self.counts.duplicated += 1;
            return Fate::Twice(delivery, delivery);
        }
        Fate::Once(delivery)
    }

    /// Bytes that wait to be sent, as far as the rate is limited.
    pub fn backlog_bytes(&self, now_us: u64) -> u64 {
        let waiting_ns = self.sent_ns.saturating_sub(now_us.saturating_mul(1_000));
        let rate = self.spec.rate_bits_per_s.unwrap_or(0);
        saturated(u128::from(waiting_ns) * u128::from(rate) / 8_000_000_000)
    }

    /// When the packet will have been sent, in microseconds; `None` when there is no room for it.
    fn send(&mut self, now_us: u64, bytes: u64) -> Option<u64> {
        let now_ns = now_us.saturating_mul(1_000);
        let from_ns = self.sent_ns.max(now_ns);
        let backlog_bytes = self.backlog_bytes(now_us);
        if backlog_bytes > 0 && backlog_bytes.saturating_add(bytes) > self.spec.queue_bytes {
            return None;
        }
        let takes_ns = self.takes_ns(bytes);
        self.counts.busy_ns = self.counts.busy_ns.saturating_add(takes_ns);
        self.sent_ns = from_ns.saturating_add(takes_ns);
        Some(self.sent_ns / 1_000)
    }

    /// How long so many bytes take to be sent, nanoseconds.
    fn takes_ns(&self, bytes: u64) -> u64 {
        // A rate of 0 is refused by `LinkSpec::check`; without that check it is as slow as can be.
        let rate = |bits_per_s: u64| u128::from(bits_per_s.max(1));
        let takes_ns = |bits_per_s| saturated(u128::from(bytes) * 8_000_000_000 / rate(bits_per_s));
        self.spec.rate_bits_per_s.map_or(0, takes_ns)
    }

    /// The latency at a time: between random values that follow each other, along a straight line.
    fn latency_us_at(&self, sent_us: u64) -> u64 {
        if self.spec.jitter_us == 0 {
            return self.spec.latency_us;
        }
        let span_us = WANDER_US_MIN.max(self.spec.jitter_us.saturating_mul(4));
        let (knot, within) = (sent_us / span_us, (sent_us % span_us) as f64 / span_us as f64);
        let [from, to] = [knot, knot + 1].map(|place| random::unit_at(self.wander_seed, place));
        let stray = 2.0 * (from + (to - from) * within) - 1.0;
        let latency_us = self.spec.latency_us as f64 + stray * self.spec.jitter_us as f64;
        latency_us.round() as u64
    }
}

fn saturated(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
