//! What else this machine did while load was on, and how late the testnet itself was: figures of a starved machine
//! tell of it, not of the mesh.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::history::Strain;
use crate::wait;

/// Between two looks at the own lateness.
const TICK: Duration = Duration::from_millis(10);

/// Looks from a time on until it is over.
pub(super) fn watch(begun: Instant, is_over: impl Fn() -> bool) -> Strain {
    wait::until_instant(begun, &is_over);
    let before = stolen_and_all();
    let mut late_max = Duration::ZERO;
    let mut next = Instant::now() + TICK;
    while wait::until_instant(next, &is_over) {
        let now = Instant::now();
        late_max = late_max.max(now.saturating_duration_since(next));
        next = now + TICK;
    }
    let (stolen, all) = stolen_and_all();
    let (stolen, all) = (stolen.saturating_sub(before.0), all.saturating_sub(before.1));
    Strain {
        processors: thread::available_parallelism().map_or(1, usize::from),
        load_average: load_average(&fs::read_to_string("/proc/loadavg").unwrap_or_default()),
        stolen_share: if all > 0 { stolen as f64 / all as f64 } else { 0.0 },
        late_ms_max: late_max.as_secs_f64() * 1000.0,
        sent_late_ms_max: 0.0,
    }
}

fn stolen_and_all() -> (u64, u64) {
    times(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// Of all processors together: ticks that the host gave to others, and all.
fn times(stat: &str) -> (u64, u64) {
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // User, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
    let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().sum())
}

fn load_average(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        assert_eq!(times("cpu  10 1 5 70 2 1 1 10 4 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"), (10, 100));
        assert_eq!(times(""), (0, 0));
        assert!((load_average("24.13 45.31 36.22 3/900 12345\n") - 24.13).abs() < 1e-9);
    }
}
