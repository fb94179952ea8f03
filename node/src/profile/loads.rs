//! What it takes to load a partition, by its size: a guess, until real loads say better.

/// Weight of what is known when a load is added.
const KEPT: f64 = 0.8;
/// Weight of the guess beside the first load.
const GUESS_WEIGHT: f64 = 0.2;
/// The size at which the guess speaks, beside size 0, megabytes.
const GUESS_MB: f64 = 10.0;

/// Sums over past loads, later ones counting more, for the line through them: a fixed time and one for
/// each megabyte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loads {
    weight: f64,
    mb: f64,
    mb_mb: f64,
    ms: f64,
    mb_ms: f64,
    is_guess: bool,
}

impl Loads {
    /// Nothing was loaded yet; this is what it would take.
    pub fn guessed(fixed_ms: f64, ms_per_mb: f64) -> Self {
        let mut loads = Self { weight: 0.0, mb: 0.0, mb_mb: 0.0, ms: 0.0, mb_ms: 0.0, is_guess: true };
        loads.add(GUESS_WEIGHT, 0.0, fixed_ms);
        loads.add(GUESS_WEIGHT, GUESS_MB, fixed_ms + GUESS_MB * ms_per_mb);
        loads
    }

    /// A partition was loaded. The first one shows how far off the guess is, whatever the size.
    pub fn note(&mut self, bytes: u64, ms: f64) {
        let (fixed_ms, ms_per_mb) = self.line();
        let guessed_ms = fixed_ms + ms_per_mb * bytes as f64 / 1e6;
        if std::mem::take(&mut self.is_guess) && guessed_ms > 0.0 {
            self.ms *= ms / guessed_ms;
            self.mb_ms *= ms / guessed_ms;
        }
        for sum in [&mut self.weight, &mut self.mb, &mut self.mb_mb, &mut self.ms, &mut self.mb_ms] {
            *sum *= KEPT;
        }
        self.add(1.0, bytes as f64 / 1e6, ms);
    }

    fn add(&mut self, weight: f64, mb: f64, ms: f64) {
        self.weight += weight;
        self.mb += weight * mb;
        self.mb_mb += weight * mb * mb;
        self.ms += weight * ms;
        self.mb_ms += weight * mb * ms;
    }

    /// Time whatever the size, and time per megabyte, milliseconds. Neither is negative.
    pub fn line(&self) -> (f64, f64) {
        let spread = self.weight * self.mb_mb - self.mb * self.mb;
        let mean = (self.ms / self.weight, 0.0);
        if spread <= 1e-9 * self.weight * self.mb_mb {
            return mean;
        }
        let slope = (self.weight * self.mb_ms - self.mb * self.ms) / spread;
        let fixed = (self.ms - slope * self.mb) / self.weight;
        if slope < 0.0 {
            mean
        } else if fixed < 0.0 {
            (0.0, self.mb_ms / self.mb_mb)
        } else {
            (fixed, slope)
        }
    }
}
