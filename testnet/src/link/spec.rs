//! What one direction of a link is like.

use std::fmt;

/// A queue of 256 KiB: about what small routers hold; 21 ms at 100 Mbit/s.
pub const QUEUE_BYTES_DEFAULT: u64 = 256 << 10;
/// Longest latency and jitter: nothing on Earth is further away than a minute.
pub const LATENCY_US_MAX: u64 = 60_000_000;

/// A queue that is never full, bytes: a hundred milliseconds at 80 Gbit/s. What waits is in this process's memory.
pub const QUEUE_BYTES_MAX: u64 = 1 << 30;
/// Above this a rate is no limit here, bit/s.
pub const RATE_BITS_PER_S_MAX: u64 = 1_000_000_000_000;

/// One direction of a link. Its default is a wire without limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkSpec {
    /// What passes in a second, bits of whole packets, IP header included; `None` is no limit.
    pub rate_bits_per_s: Option<u64>,
    /// Packets that wait for a limited rate, bytes; what does not fit is dropped. An empty queue takes
    /// any one packet.
    pub queue_bytes: u64,
    /// From the end of a packet's sending to its arrival, microseconds.
    pub latency_us: u64,
    /// How far the latency strays to either side, microseconds. It wanders as queues of others do, over
    /// milliseconds, and lets no packet overtake another.
    pub jitter_us: u64,
    /// Share of packets that are lost, each by itself, 0 to 1.
    pub loss: f64,
    /// Share of packets that are held back, so that those behind come first, 0 to 1.
    pub reorder: f64,
    /// Share of packets that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Share of packets that arrive damaged, 0 to 1.
    pub corrupt: f64,
    /// Nothing passes.
    pub cut: bool,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            rate_bits_per_s: None,
            queue_bytes: QUEUE_BYTES_DEFAULT,
            latency_us: 0,
            jitter_us: 0,
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            cut: false,
        }
    }
}

impl fmt::Display for LinkSpec {
    /// For people: what differs from a wire without limits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate_bits_per_s {
            Some(rate) => write!(f, "{} Mbit/s", rate as f64 / 1e6)?,
            None => f.write_str("no limit")?,
        }
        write!(f, ", {} ms", self.latency_us as f64 / 1e3)?;
        if self.jitter_us > 0 {
            write!(f, " +- {} ms", self.jitter_us as f64 / 1e3)?;
        }
        let shares = [
            (self.loss, "lost"),
            (self.reorder, "held back"),
            (self.duplicate, "doubled"),
            (self.corrupt, "damaged"),
        ];
        for (share, what) in shares.into_iter().filter(|(share, _)| *share > 0.0) {
            write!(f, ", {} % {what}", share * 100.0)?;
        }
        f.write_str(if self.cut { ", cut" } else { "" })
    }
}

/// What no link can be.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum LinkSpecError {
    /// Nothing would ever pass.
    #[error("a rate of 0 lets nothing pass: cut the link instead")]
    NoRate,
    /// It limits nothing.
    #[error("a rate of {0} bit/s: from 1 to {RATE_BITS_PER_S_MAX}, like 20000000, or left out for no limit")]
    RateTooHigh(u64),
    /// Nothing could wait.
    #[error("a queue of 0 bytes: from 1 to {QUEUE_BYTES_MAX}, or left out for {QUEUE_BYTES_DEFAULT}")]
    NoQueue,
    /// More than this process should hold.
    #[error("a queue of {0} bytes: from 1 to {QUEUE_BYTES_MAX}, like {QUEUE_BYTES_DEFAULT}")]
    QueueTooLong(u64),
    /// Too far away.
    #[error("a latency or jitter of {} ms: from 0 to {} ms, like 5", ms(*.0), ms(LATENCY_US_MAX))]
    TooFar(u64),
    /// Packets would arrive before they are sent.
    #[error(
        "a jitter of {} ms is more than the latency of {} ms that it strays from", ms(*jitter_us), ms(*latency_us)
    )]
    JitterAboveLatency {
        /// As asked for.
        jitter_us: u64,
        /// As asked for.
        latency_us: u64,
    },
    /// Not a share.
    #[error("{name} is {share}: it is a share of packets, from 0 to 1, like 0.01")]
    NoShare {
        /// Which.
        name: &'static str,
        /// As asked for.
        share: f64,
    },
}

/// Milliseconds of microseconds.
fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

impl LinkSpec {
    /// Whether there can be such a link.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn check(&self) -> Result<(), LinkSpecError> {
        if self.rate_bits_per_s == Some(0) {
            return Err(LinkSpecError::NoRate);
        }
        if let Some(rate) = self.rate_bits_per_s.filter(|rate| *rate > RATE_BITS_PER_S_MAX) {
            return Err(LinkSpecError::RateTooHigh(rate));
        }
        if self.queue_bytes == 0 {
            return Err(LinkSpecError::NoQueue);
        }
        if self.queue_bytes > QUEUE_BYTES_MAX {
            return Err(LinkSpecError::QueueTooLong(self.queue_bytes));
        }
        let far = self.latency_us.max(self.jitter_us);
        if far > LATENCY_US_MAX {
            return Err(LinkSpecError::TooFar(far));
        }
        if self.jitter_us > self.latency_us {
            let (jitter_us, latency_us) = (self.jitter_us, self.latency_us);
            return Err(LinkSpecError::JitterAboveLatency { jitter_us, latency_us });
        }
        let shares = [
            ("loss", self.loss),
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
        ];
        match shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            Some((name, share)) => Err(LinkSpecError::NoShare { name, share }),
            None => Ok(()),
        }
    }

    /// Whether it passes packets on as they are and at once.
    pub fn is_plain(&self) -> bool {
        *self == Self { queue_bytes: self.queue_bytes, ..Self::default() }
    }
}
