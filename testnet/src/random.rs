//! Numbers that look random and are the same on every run of the same seed.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, quick, and each seed gives another sequence.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, all 64 bits of it.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// The next number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        to_unit(self.bits())
    }

    /// The sequence of a seed for one purpose, independent of that for others.
    pub fn of(seed: u64, purpose: &str) -> Self {
        // FNV-1a: what `std` hashes with may change between releases, and a seed in an old report must
        // still mean the same.
        let add = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = purpose.bytes().fold(0xcbf2_9ce4_8422_2325, add);
        Self::new(mix(seed) ^ hash)
    }

    /// The next whole number below `end`; 0 where that is 0. (The remainder's bias is far below what few
    /// draws could show.)
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.bits() % end as u64) as usize }
    }

    /// The next number between two bounds.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// The next gap between events of a Poisson process, given the mean gap.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// The number at a place of a seed's sequence, without those before it; in `[0, 1)`.
pub fn unit_at(seed: u64, place: u64) -> f64 {
    Random::new(seed ^ mix(place)).unit()
}

fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn to_unit(bits: u64) -> f64 {
    // The 53 bits that a double holds exactly.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_sequence() {
        let mut random = Random::new(1_234_567);
        let first = [random.bits(), random.bits(), random.bits()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn purposes_share_no_numbers() {
        assert_ne!(Random::of(7, "arrivals").bits(), Random::of(7, "faults").bits());
        assert_eq!(Random::of(7, "faults").bits(), Random::of(7, "faults").bits());
    }

    #[test]
    fn gaps_have_their_mean() {
        let mut random = Random::new(3);
        let sum: f64 = (0..20_000).map(|_| random.exponential(0.5)).sum();
        assert!((sum / 20_000.0 - 0.5).abs() < 0.02, "{}", sum / 20_000.0);
        assert!((0..100).all(|_| (2.0..3.0).contains(&random.between(2.0, 3.0)) && random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn units_fill_the_unit_interval() {
        let mut random = Random::new(7);
        let drawn: Vec<f64> = (0..10_000).map(|_| random.unit()).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        assert!(drawn.iter().all(|unit| (0.0..1.0).contains(unit)));
        assert!((0.48..0.52).contains(&mean), "{mean}");
        let placed = (0..10_000).map(|place| unit_at(7, place)).sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&placed), "{placed}");
    }
}
