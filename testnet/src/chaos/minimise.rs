//! Fewer faults that still break it: delta debugging (Zeller and Hildebrandt, TSE 2002) over the faults of
//! a schedule.

use crate::scenario::Scheduled;

/// What is left.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimised {
    /// The faults that are left.
    pub faults: Vec<Scheduled>,
    /// Schedules that were tried.
    pub tried: usize,
    /// Whether leaving out any one more was tried and broke nothing.
    pub is_minimal: bool,
}

/// Leaves out faults, all of them first, as long as `breaks` says that the rest still breaks something; asks at most `tries_max`
/// times. The first schedule is taken to break.
///
/// # Errors
/// The first error of `breaks`.
pub fn minimise<E>(
    faults: &[Scheduled],
    tries_max: usize,
    mut breaks: impl FnMut(&[Scheduled]) -> Result<bool, E>,
) -> Result<Minimised, E> {
    let mut left = faults.to_vec();
    let mut parts = 2;
    let mut tried = 0;
    if tries_max > 0 && !left.is_empty() {
        tried += 1;
        // What breaks without any fault is not broken by faults.
        if breaks(&[])? {
            return Ok(Minimised { faults: Vec::new(), tried, is_minimal: true });
        }
    }
    while left.len() > 1 {
        let length = left.len().div_ceil(parts);
        let mut smaller = None;
        let starts: Vec<usize> = (0..left.len()).step_by(length).collect();
        // Each part alone, then all but each: with two parts these are the same.
        let alone = starts.iter().map(|start| left[*start..(*start + length).min(left.len())].to_vec());
        let without = starts.iter().map(|start| {
            let end = (*start + length).min(left.len());
            [&left[..*start], &left[end..]].concat()
        });
        let candidates: Vec<(Vec<Scheduled>, usize)> = if parts == 2 {
            alone.map(|part| (part, 2)).collect()
        } else {
            alone.map(|part| (part, 2)).chain(without.map(|rest| (rest, (parts - 1).max(2)))).collect()
        };
        for (candidate, next) in candidates.into_iter().filter(|(candidate, _)| candidate.len() < left.len())
        {
            if tried >= tries_max {
                return Ok(Minimised { faults: left, tried, is_minimal: false });
            }
            tried += 1;
            if breaks(&candidate)? {
                smaller = Some((candidate, next));
                break;
            }
        }
        match smaller {
            Some((candidate, next)) => (left, parts) = (candidate, next),
            None if length == 1 => return Ok(Minimised { faults: left, tried, is_minimal: true }),
            None => parts = (parts * 2).min(left.len()),
        }
    }
    Ok(Minimised { faults: left, tried, is_minimal: true })
}
