//! Chaos: schedules of faults drawn from a seed, and made smaller when they break something. Both are
//! arithmetic on schedules; who plays them is the caller's business. A schedule is the same for the same
//! seed; what real processes make of it is not quite, which is why a smaller one is played several times.

mod draw;
mod minimise;

use std::path::Path;

use crate::scenario::Scheduled;

pub use crate::chaos::draw::{Bounds, Drawing, QUIET_AFTER_US, draw};
pub use crate::chaos::minimise::{Minimised, minimise};

/// A scenario's text with these faults instead of its own, this seed and this length.
///
/// # Errors
/// When the text is no TOML.
pub fn written(
    base: &str,
    folder: &Path,
    about: &str,
    seed: u64,
    duration_us: u64,
    faults: &[Scheduled],
) -> Result<String, toml::de::Error> {
    let mut table: toml::Table = toml::from_str(base)?;
    let mut set = |name: &str, value: toml::Value| {
        table.insert(name.to_owned(), value);
    };
    set("about", about.into());
    set("seed", i64::try_from(seed).unwrap_or(i64::MAX).into());
    set("duration_s", (duration_us as f64 / 1e6).into());
    let faults: Vec<toml::Value> = faults.iter().map(|fault| fault.table().into()).collect();
    set("fault", faults.into());
    // A path is relative to the file that names it, and this text goes elsewhere.
    if let Some(toml::Value::String(topology)) = table.get_mut("topology") {
        let is_path =
            Path::new(topology).components().count() > 1 || Path::new(topology).extension().is_some();
        if is_path {
            *topology = folder.join(&*topology).to_string_lossy().into_owned();
        }
    }
    Ok(table.to_string())
}

#[cfg(test)]
mod tests;
