//! Whether what nodes use grows.

use std::collections::BTreeMap;

use crate::history::{History, Usage};

/// Fewer looks, or a shorter time, tell no slope.
const LOOKS_MIN: usize = 8;

/// A node's life: who, and which of its starts.
type Life = (u16, u32);

/// Looks after warming up, by life.
fn lives(history: &History, warm_up_us: u64) -> BTreeMap<Life, Vec<&Usage>> {
    let mut lives: BTreeMap<Life, Vec<&Usage>> = BTreeMap::new();
    for usage in history.usage.iter().filter(|usage| usage.at_us >= warm_up_us) {
        lives.entry((usage.node, usage.life)).or_default().push(usage);
    }
    lives.retain(|_, looks| looks.len() >= LOOKS_MIN);
    lives
}

/// The steepest growth of resident memory, bytes an hour, by least squares, and whose it is.
pub(super) fn memory_per_hour(history: &History, warm_up_us: u64) -> Option<(f64, u16)> {
    let lives = lives(history, warm_up_us);
    let slopes = lives.iter().map(|((node, _), looks)| {
        let points = looks.iter().map(|usage| (usage.at_us as f64 / 3.6e9, usage.resident_bytes as f64));
        (slope(points), *node)
    });
    slopes.max_by(|one, other| one.0.total_cmp(&other.0))
}

/// The largest growth of a count, from the first quarter of the looks to the last (medians), and whose.
pub(super) fn count(history: &History, warm_up_us: u64, of: impl Fn(&Usage) -> u32) -> Option<(i64, u16)> {
    let lives = lives(history, warm_up_us);
    let growths = lives.iter().map(|((node, _), looks)| {
        let quarter = looks.len() / 4;
        let median = |looks: &[&Usage]| {
            let mut counts: Vec<u32> = looks.iter().map(|usage| of(usage)).collect();
            counts.sort_unstable();
            i64::from(counts.get(counts.len() / 2).copied().unwrap_or(0))
        };
        (median(&looks[looks.len() - quarter..]) - median(&looks[..quarter]), *node)
    });
    growths.max()
}

/// Of the line of least squares; 0 where all stand at one place.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let (count, sum_x, sum_y) = points
        .clone()
        .fold((0.0, 0.0, 0.0), |(count, sum_x, sum_y), (x, y)| (count + 1.0, sum_x + x, sum_y + y));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (above, below) = points.fold((0.0, 0.0), |(above, below), (x, y)| {
        (above + (x - mean_x) * (y - mean_y), below + (x - mean_x) * (x - mean_x))
    });
    if below > 0.0 { above / below } else { 0.0 }
}
