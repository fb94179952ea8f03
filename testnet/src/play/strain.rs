//! What else this machine did while load was on, and how late the testnet itself was: figures of a starved machine
//! tell of it, not of the mesh.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::history::Strain;
use crate::{process_stat, wait};

/// Between two looks at the own lateness.
const TICK: Duration = Duration::from_millis(10);

/// Looks from a time on until it is over.
pub(super) fn watch(begun: Instant, is_over: impl Fn() -> bool) -> Strain {
    wait::until_instant(begun, &is_over);
    let before = Times::now();
    let mut late_max = Duration::ZERO;
    let mut next = Instant::now() + TICK;
    while wait::until_instant(next, &is_over) {
        let now = Instant::now();
        late_max = late_max.max(now.saturating_duration_since(next));
        next = now + TICK;
    }
    let since = Times::now().since(&before);
    Strain {
        processors: thread::available_parallelism().map_or(1, usize::from),
        load_average: load_average(&fs::read_to_string("/proc/loadavg").unwrap_or_default()),
        stolen_share: since.share_of_all(since.stolen_us),
        others_share: since.share_of_all(since.busy_us.saturating_sub(since.own_us)),
        late_ms_max: late_max.as_secs_f64() * 1000.0,
        sent_late_ms_max: 0.0,
    }
}

/// Processor times so far, or within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// That the host gave to others.
    stolen_us: u64,
    /// In which programs of this machine ran; interrupts, which carry packets, left out.
    busy_us: u64,
    all_us: u64,
    /// Of the testnet, and of the nodes that it started.
    own_us: u64,
}

impl Times {
    fn now() -> Self {
        let own_us = process_stat::of_own_us();
        Self { own_us, ..Self::of(&fs::read_to_string("/proc/stat").unwrap_or_default()) }
    }

    /// Of all processors together, as the kernel lists them.
    fn of(stat: &str) -> Self {
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        // User, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
        let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
        let us = |index: usize| ticks.get(index).copied().unwrap_or(0) * process_stat::TICK_US;
        let busy_us = [0, 1, 2].map(us).iter().sum();
        let all_us = ticks.iter().sum::<u64>() * process_stat::TICK_US;
        Self { stolen_us: us(7), busy_us, all_us, own_us: 0 }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            stolen_us: self.stolen_us.saturating_sub(before.stolen_us),
            busy_us: self.busy_us.saturating_sub(before.busy_us),
            all_us: self.all_us.saturating_sub(before.all_us),
            own_us: self.own_us.saturating_sub(before.own_us),
        }
    }

    fn share_of_all(&self, part_us: u64) -> f64 {
        if self.all_us > 0 { part_us as f64 / self.all_us as f64 } else { 0.0 }
    }
}

fn load_average(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let times = Times::of("cpu  10 1 5 70 2 1 1 10 4 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        assert_eq!(times, Times { stolen_us: 100_000, busy_us: 160_000, all_us: 1_000_000, own_us: 0 });
        assert_eq!(times.share_of_all(times.stolen_us), 0.1);
        let none = Times::of("");
        assert_eq!(none.share_of_all(none.stolen_us), 0.0);
        assert!((load_average("24.13 45.31 36.22 3/900 12345\n") - 24.13).abs() < 1e-9);
    }
}
