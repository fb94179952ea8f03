//! How long a receiver may stay silent before it counts as lost.

/// Signs come every 100 ms; three may be late on a busy machine.
const SILENCE_MS_MIN: f64 = 300.0;
/// Time that signs may be delayed beyond three round trips.
const SLACK_MS: f64 = 200.0;

/// The limit for a receiver at this round trip: max(300 ms, 3 x round trip + 200 ms).
pub fn patience_ms(round_trip_ms: f64) -> u64 {
    SILENCE_MS_MIN.max(3.0 * round_trip_ms + SLACK_MS) as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn far_nodes_get_more_time() {
        assert_eq!(super::patience_ms(1.0), 300);
        assert_eq!(super::patience_ms(100.0), 500);
    }
}
