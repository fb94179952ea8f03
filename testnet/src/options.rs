//! Values of options: what lies outside their bounds, or means nothing beside the others, is wrong usage, which ends
//! with exit code 2.

use std::ops::RangeInclusive;

/// A value that the options' own parsers cannot refuse.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

impl Misuse {
    /// Of what a check says.
    pub(crate) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Reads a number within bounds, which not-a-number is not; `what` it counts is said with them.
pub(crate) fn number(
    bounds: RangeInclusive<f64>,
    what: &'static str,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("{what}, from {} to {}", bounds.start(), bounds.end()))
    }
}

/// Reads a whole number within bounds.
pub(crate) fn count(
    bounds: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("a whole number from {} to {}", bounds.start(), bounds.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_are_told_the_bounds() {
        let minutes = number(0.25..=120.0, "minutes");
        assert_eq!(minutes("0.25"), Ok(0.25));
        for text in ["nan", "-1", "121", "two", ""] {
            assert_eq!(minutes(text), Err("minutes, from 0.25 to 120".to_owned()));
        }
        assert_eq!(count(1..=3)("3"), Ok(3));
        assert_eq!(count(1..=3)("0"), Err("a whole number from 1 to 3".to_owned()));
    }
}
