//! A scenario made longer, or cut short: the times of its loads, and what it demands by time.

use std::ops::Range;

use crate::scenario::{LoadSpec, Scenario, Scheduled};

/// Progress must be seen behind the last fault: at least so long.
const QUIET_AFTER_US: u64 = 10_000_000;
/// Beyond the time within which progress is demanded: requests that show it.
const SHOWN_US: u64 = 2_000_000;
/// What is left of a load that a shorter play would leave out.
const LOAD_US_MIN: u64 = 1_000_000;

/// How a scenario is made longer or shorter: its loads keep their shares of the whole, and what is beyond the end
/// is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// What its duration becomes.
    whole_us: u64,
    /// When it ends nevertheless.
    end_us: u64,
}

impl Stretch {
    /// To a length.
    pub fn to(whole_us: u64) -> Self {
        Self { whole_us, end_us: whole_us }
    }

    /// The same cut off, but not before each load has begun.
    #[must_use]
    pub fn cut(self, base: &Scenario, end_us: u64) -> Self {
        let begun = base.loads.iter().map(|load| self.times(base, load).start + LOAD_US_MIN);
        let end_us = begun.fold(end_us, u64::max).min(self.whole_us);
        Self { end_us, ..self }
    }

    /// When it ends, microseconds.
    pub fn end_us(&self) -> u64 {
        self.end_us
    }

    /// From the first request to the last, microseconds.
    pub fn loaded_us(&self, base: &Scenario) -> Range<u64> {
        let times = || base.loads.iter().map(|load| self.times(base, load));
        let (starts, ends) = (times().map(|times| times.start), times().map(|times| times.end));
        starts.min().unwrap_or(0)..ends.max().unwrap_or(self.end_us)
    }

    fn times(&self, base: &Scenario, load: &LoadSpec) -> Range<u64> {
        let stretched = |us: u64| {
            let us = u128::from(us) * u128::from(self.whole_us) / u128::from(base.duration_us.max(1));
            // Whole milliseconds: what a file says then is what was played.
            (us as u64 / 1000 * 1000).min(self.end_us)
        };
        stretched(load.from_us)..stretched(load.until_us)
    }

    /// Into the text's fields. Loads that say no times last to the end as before.
    pub(super) fn write(&self, base: &Scenario, table: &mut toml::Table) {
        let seconds = |us: u64| toml::Value::from(us as f64 / 1e6);
        table.insert("duration_s".to_owned(), seconds(self.end_us));
        let entries = table.get_mut("load").and_then(toml::Value::as_array_mut);
        for (entry, load) in entries.into_iter().flatten().zip(&base.loads) {
            let Some(entry) = entry.as_table_mut() else { continue };
            if entry.contains_key("from_s") || entry.contains_key("for_s") {
                let Range { start, end } = self.times(base, load);
                entry.insert("from_s".to_owned(), seconds(start));
                entry.insert("for_s".to_owned(), seconds(end - start));
            }
        }
        let Some(expect) = table.get_mut("expect").and_then(toml::Value::as_table_mut) else { return };
        let share = self.end_us as f64 / base.duration_us.max(1) as f64;
        if let Some(warm_up) = expect.get_mut("warm_up_s") {
            *warm_up = seconds((base.expect.warm_up_us as f64 * share) as u64);
        }
        // Not more of a longer one: its faults take answers.
        if let Some(answers) = expect.get_mut("answers_min") {
            let fewer = (base.expect.answers_min as f64 * share.min(1.0)) as i64;
            *answers = fewer.into();
        }
    }
}

/// When the last fault is over and progress has been seen, microseconds.
pub fn shown_by_us(base: &Scenario, faults: &[Scheduled]) -> u64 {
    faults.iter().map(end_us).max().unwrap_or(0) + quiet_after_us(base)
}

/// When a fault is over; a restart takes about a second.
pub(super) fn end_us(fault: &Scheduled) -> u64 {
    fault.at_us + fault.for_us.unwrap_or(1_000_000)
}

/// What must follow the last fault so that progress is seen, microseconds.
pub(super) fn quiet_after_us(base: &Scenario) -> u64 {
    let within_us = base.expect.progress_within_ms.map_or(0, |within_ms| (within_ms * 1000.0) as u64);
    QUIET_AFTER_US.max(within_us.saturating_add(SHOWN_US))
}
