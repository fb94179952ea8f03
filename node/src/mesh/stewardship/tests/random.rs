//! Numbers drawn from a seed, as tests of stewards want them.

use crate::mesh::chance::Chance;

pub(in crate::mesh::stewardship) struct Random(Chance);

impl Random {
    pub(in crate::mesh::stewardship) fn new(seed: u64) -> Self {
        Self(Chance::new(seed))
    }

    pub(in crate::mesh::stewardship) fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// The next number below `end`; 0 where that is 0.
    pub(in crate::mesh::stewardship) fn below(&mut self, end: u64) -> u64 {
        self.bits() % end.max(1)
    }

    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(in crate::mesh::stewardship) fn happens(&mut self, share: f64) -> bool {
        self.share() > 1.0 - share
    }

    /// Evenly by its logarithm.
    pub(in crate::mesh::stewardship) fn between(&mut self, least: f64, most: f64) -> f64 {
        least * (most / least).powf(self.share())
    }
}
