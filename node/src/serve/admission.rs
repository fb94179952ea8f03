//! How many requests a node has under way, in all and for each model, and how much they brought: more are refused before
//! they are read, so that a node that is overrun has time for those that it took.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::windows::{Entered, Windows};
use crate::app::calls::{CallError, REQUESTS_MAX};

/// Bytes of the bodies of all requests under way. One larger than this is taken alone.
const BYTES_MAX: usize = 256 << 20;
/// Bytes are counted in these.
const UNIT_BYTES: usize = 1 << 10;
const UNITS_MAX: usize = BYTES_MAX / UNIT_BYTES;
/// Between two times that the loop is told of those who were turned away: they may be thousands a second.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is left for further requests.
#[derive(Clone)]
pub(super) struct Admission {
    requests: Arc<Semaphore>,
    units: Arc<Semaphore>,
    windows: Windows,
    turned_away: Arc<Mutex<TurnedAway>>,
}

/// Requests that were refused since it was told of them, by model: of those alone that had others under way.
#[derive(Default)]
struct TurnedAway {
    counts: HashMap<String, u32>,
    told_at: Option<Instant>,
}

/// A place for one request, free again when dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    _request: OwnedSemaphorePermit,
    _units: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            units: Arc::new(Semaphore::new(UNITS_MAX)),
            windows: Windows::default(),
            turned_away: Arc::default(),
        }
    }

    /// Whether a request for a model would be let in: known before its body is read.
    ///
    /// # Errors
    /// As of [`Self::enter`].
    pub(super) fn look(&self, model: &str) -> Result<(), CallError> {
        self.windows.look(model).map_err(|under_way| full_of(model, under_way))
    }

    /// Lets a request for a model in.
    ///
    /// # Errors
    /// When as many are under way as the mesh answers in time.
    pub(super) fn enter(&self, model: &str) -> Result<Entered, CallError> {
        self.windows.enter(model).map_err(|under_way| full_of(model, under_way))
    }

    /// Counts a request for a model that was not let in; now and then gives all that were counted.
    pub(super) fn turn_away(&self, model: &str) -> Option<Vec<(String, u32)>> {
        let mut all = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        match all.counts.get_mut(model) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                all.counts.insert(model.to_owned(), 1);
            }
        }
        if all.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return None;
        }
        all.told_at = Some(Instant::now());
        Some(mem::take(&mut all.counts).into_iter().collect())
    }

    /// Takes a request with a body of so many bytes in.
    ///
    /// # Errors
    /// When too many are under way, or too much.
    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted, CallError> {
        let full = |what: String| {
            CallError::Overloaded(format!(
                "{what} under way at this node; try again shortly, or another node"
            ))
        };
        let request = self.requests.clone().try_acquire_owned();
        let request = request.map_err(|_| full(format!("{REQUESTS_MAX} requests are")))?;
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, UNITS_MAX) as u32;
        let taken = self.units.clone().try_acquire_many_owned(units);
        let taken = taken.map_err(|_| full(format!("requests of {BYTES_MAX} bytes are")))?;
        Ok(Admitted { _request: request, _units: taken })
    }
}

fn full_of(model: &str, under_way: usize) -> CallError {
    CallError::Overloaded(format!(
        "{under_way} requests for `{model}` are under way at this node, as many as are answered in time; try again shortly, or \
         another node"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_their_bytes_are_bounded_and_places_become_free_again() {
        let admission = Admission::new();
        let mut taken: Vec<_> = (0..REQUESTS_MAX).map(|_| admission.admit(100).expect("a place")).collect();
        assert!(matches!(admission.admit(100), Err(CallError::Overloaded(_))));
        taken.pop();
        assert!(admission.admit(100).is_ok());
        taken.clear();

        let large = admission.admit(2 * BYTES_MAX).expect("taken alone");
        assert!(matches!(admission.admit(1), Err(CallError::Overloaded(_))));
        drop(large);
        assert!(admission.admit(1).is_ok());
    }
}
