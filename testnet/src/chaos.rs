//! Chaos: schedules of faults drawn from a seed, and made smaller when they break something. Both are
//! arithmetic on schedules; who plays them is the caller's business. A schedule is the same for the same
//! seed; what real processes make of it is not quite, which is why a smaller one is played several times.

mod draw;
mod minimise;
mod stretch;

use crate::scenario::{Scenario, Scheduled, Unshown};

pub use crate::chaos::draw::{Bounds, Drawing, NothingToDisturb, draw};
pub use crate::chaos::minimise::{Minimised, minimise};
pub use crate::chaos::stretch::{Stretch, shown_by_us};

/// A scenario's text with these faults instead of its own, this seed, and its loads stretched.
///
/// # Errors
/// When the text is no TOML.
pub fn written(
    base: &Scenario,
    about: &str,
    seed: u64,
    stretch: &Stretch,
    faults: &[Scheduled],
) -> Result<String, toml::de::Error> {
    let mut table: toml::Table = toml::from_str(&base.text)?;
    table.insert("about".to_owned(), about.into());
    table.insert("seed".to_owned(), i64::try_from(seed).unwrap_or(i64::MAX).into());
    let faults: Vec<toml::Value> = faults.iter().map(|fault| fault.table().into()).collect();
    table.insert("fault".to_owned(), faults.into());
    table.insert("topology".to_owned(), base.topology_elsewhere().into());
    stretch.write(base, &mut table);
    Ok(table.to_string())
}

/// A scenario's text without these demands.
///
/// # Errors
/// When the text is no TOML.
pub fn without(text: &str, unshown: &[Unshown]) -> Result<String, toml::de::Error> {
    let mut table: toml::Table = toml::from_str(text)?;
    if let Some(expect) = table.get_mut("expect").and_then(toml::Value::as_table_mut) {
        unshown.iter().for_each(|demand| drop(expect.remove(demand.field)));
    }
    Ok(table.to_string())
}

#[cfg(test)]
mod tests;
