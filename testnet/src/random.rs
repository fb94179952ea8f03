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
