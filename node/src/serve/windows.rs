//! How many requests for a model are let in at once: as many as are answered in time. Hosts refuse what they
//! would only queue, but each such refusal costs a body, a plan and deliveries, which those that can be
//! answered lack; so the node where requests enter learns how many there is room for, and refuses the rest
//! before it reads them. The rule is that of TCP's congestion avoidance: one more for a round without refusals
//! (RFC 5681), seven tenths after one (RFC 9438).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::app::calls::REQUESTS_MAX;

/// So many are let in, whatever became of others.
const LEAST: f64 = 2.0;
const MOST: f64 = REQUESTS_MAX as f64;
/// What is left of a window when it was too wide.
const NARROWED: f64 = 0.7;
/// What is nearly all of the time that a caller allows.
const NEARLY: f64 = 0.8;
/// A window that was not too wide for so long is forgotten: hosts may have come, and what narrowed it may have been one
/// that went.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The windows of all models, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows {
    of: Arc<Mutex<HashMap<String, Window>>>,
}

#[derive(Debug)]
struct Window {
    size: f64,
    under_way: usize,
    /// How often it was narrowed, and when last.
    round: u64,
    narrowed_at: Option<Instant>,
    /// The shortest that an answer took.
    least: Option<Duration>,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: MOST, under_way: 0, round: 0, narrowed_at: None, least: None }
    }
}

impl Window {
    fn has_room(&mut self) -> bool {
        if self.narrowed_at.is_some_and(|at| at.elapsed() >= REMEMBERED) {
            (self.size, self.narrowed_at, self.least) = (MOST, None, None);
        }
        (self.under_way as f64) < self.size.floor()
    }

    /// What is not made use of is not known to be possible.
    fn widen(&mut self) {
        if self.under_way as f64 * 2.0 >= self.size {
            self.size = (self.size + self.size.recip()).min(MOST);
        }
    }

    /// One that was let in as the `count`-th was too much. All that were let in before it was known tell of the same, and
    /// one alone of something else than how many they are.
    fn narrow(&mut self, round: u64, count: usize) {
        if round == self.round && count > 1 {
            self.size = (self.size.min(count as f64) * NARROWED).max(LEAST);
            self.round += 1;
            self.narrowed_at = Some(Instant::now());
        }
    }

    /// Whether some were answered within this time. What nobody could have answered in time says nothing of how many
    /// there is room for.
    fn is_possible(&self, allowed: Duration) -> bool {
        self.least.is_some_and(|least| least <= allowed)
    }

    /// Whether forgetting it changes nothing.
    fn is_new(&self) -> bool {
        self.under_way == 0 && self.size >= MOST
    }
}

impl Windows {
    /// Whether a request for a model would be let in; if not, says how many are under way.
    pub(super) fn look(&self, model: &str) -> Result<(), usize> {
        let mut all = self.lock();
        let Some(window) = all.get_mut(model) else { return Ok(()) };
        if window.has_room() { Ok(()) } else { Err(window.under_way) }
    }

    /// Lets a request for a model in, unless as many are under way as can be answered; then says how many.
    pub(super) fn enter(&self, model: &str) -> Result<Entered, usize> {
        let mut all = self.lock();
        let window = all.entry(model.to_owned()).or_default();
        if !window.has_room() {
            return Err(window.under_way);
        }
        window.under_way += 1;
        let (round, count) = (window.round, window.under_way);
        Ok(Entered { windows: self.clone(), model: model.to_owned(), round, count })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Window>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let in, until it is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    windows: Windows,
    model: String,
    round: u64,
    /// As the how-manieth of those under way.
    count: usize,
}

impl Entered {
    /// It was answered after this time, of which its caller allows so much.
    pub(super) fn answered(&self, took: Duration, allowed: Option<Duration>) {
        self.learn(|window| {
            window.least = Some(window.least.map_or(took, |least| least.min(took)));
            match allowed {
                Some(allowed) if took > allowed => {
                    if window.is_possible(allowed) {
                        window.narrow(self.round, self.count);
                    }
                }
                // With one more, some would be late.
                Some(allowed) if took > allowed.mul_f64(NEARLY) => {}
                _ => window.widen(),
            }
        });
    }

    /// It was not answered within its deadline.
    pub(super) fn expired(&self, allowed: Duration) {
        self.learn(|window| {
            if window.is_possible(allowed) {
                window.narrow(self.round, self.count);
            }
        });
    }

    /// Hosts refused it, as they are full.
    pub(super) fn refused(&self) {
        self.learn(|window| window.narrow(self.round, self.count));
    }

    fn learn(&self, learn: impl FnOnce(&mut Window)) {
        if let Some(window) = self.windows.lock().get_mut(&self.model) {
            learn(window);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.windows.lock();
        if let Some(window) = all.get_mut(&self.model) {
            window.under_way -= 1;
            // Names that nobody hosts leave nothing behind.
            if window.is_new() {
                all.remove(&self.model);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn fill(windows: &Windows, model: &str) -> Vec<Entered> {
        std::iter::from_fn(|| windows.enter(model).ok()).collect()
    }

    #[test]
    fn a_window_is_narrowed_once_for_all_that_were_let_in_before() {
        let windows = Windows::default();
        let first = fill(&windows, "m");
        assert_eq!(first.len(), REQUESTS_MAX);
        first.iter().rev().for_each(Entered::refused);
        drop(first);
        let second = fill(&windows, "m");
        let narrowed = (MOST * NARROWED) as usize;
        assert_eq!(second.len(), narrowed);
        assert_eq!(windows.enter("m").unwrap_err(), narrowed);
        assert_eq!(windows.look("m"), Err(narrowed));
        // Others are not concerned.
        assert_eq!(fill(&windows, "n").len(), REQUESTS_MAX);
        // A little more than a round, as the window grows in it.
        second.iter().chain(&second[..2]).for_each(|entered| entered.answered(MS, None));
        drop(second);
        assert_eq!(fill(&windows, "m").len(), narrowed + 1);
    }

    #[test]
    fn what_has_nothing_to_do_with_how_many_narrows_nothing() {
        let windows = Windows::default();
        let keep = windows.enter("m").unwrap();
        // Alone, on a part that had to be loaded.
        keep.answered(900 * MS, Some(500 * MS));
        keep.refused();
        // Nobody ever was answered within a millisecond.
        let others = fill(&windows, "m");
        others.iter().for_each(|entered| entered.answered(20 * MS, Some(MS)));
        others.iter().for_each(|entered| entered.expired(MS));
        drop(others);
        let others = fill(&windows, "m");
        assert_eq!(others.len(), REQUESTS_MAX - 1);
        others[9].answered(30 * MS, Some(25 * MS));
        drop(others);
        // The one as the 11th, and the one that was kept.
        assert_eq!(fill(&windows, "m").len(), 6);
    }

    #[test]
    fn unused_room_is_not_learnt() {
        let windows = Windows::default();
        for _ in 0..50 {
            let all = fill(&windows, "m");
            all[all.len() - 1].refused();
        }
        assert_eq!(fill(&windows, "m").len(), LEAST as usize);
        let windows = Windows::default();
        fill(&windows, "m")[9].refused();
        for _ in 0..10_000 {
            windows.enter("m").unwrap().answered(MS, None);
        }
        assert_eq!(fill(&windows, "m").len(), 7);
    }

    #[test]
    fn a_model_without_troubles_leaves_nothing_behind() {
        let windows = Windows::default();
        for number in 0..1000 {
            windows.enter(&number.to_string()).unwrap().answered(MS, None);
        }
        assert!(windows.lock().is_empty());
    }

    /// What a mesh makes of three times what it can answer.
    #[derive(Debug, Default)]
    struct Outcome {
        in_time: usize,
        late: usize,
        refused_inside: usize,
        refused: usize,
    }

    /// It answers `rate` every so many milliseconds, a thousand times, and queues so many.
    fn overload(every: u32, rate: usize, queued_max: usize, allowed: Duration) -> Outcome {
        let windows = Windows::default();
        let (mut queue, mut got) = (VecDeque::new(), Outcome::default());
        for step in (0..1000).map(|turn| turn * every) {
            for _ in 0..3 * rate {
                match windows.enter("m") {
                    Err(_) => got.refused += 1,
                    Ok(entered) if queue.len() >= queued_max => {
                        entered.refused();
                        got.refused_inside += 1;
                    }
                    Ok(entered) => queue.push_back((step, entered)),
                }
            }
            for _ in 0..rate {
                if let Some((since, entered)) = queue.pop_front() {
                    let took = (step + every - since) * MS;
                    entered.answered(took, Some(allowed));
                    got.in_time += usize::from(took <= allowed);
                    got.late += usize::from(took > allowed);
                }
            }
        }
        got
    }

    #[test]
    fn three_times_overload_is_refused_at_the_door_and_every_place_is_used() {
        let got = overload(1, 4, 40, 1000 * MS);
        assert!(got.in_time == 4000 && got.late == 0, "{got:?}");
        assert!(got.refused_inside * 50 < got.refused, "{got:?}");
    }

    /// Queues that are longer than what callers allow are not filled.
    #[test]
    fn few_are_let_in_where_runs_are_long() {
        let got = overload(100, 1, 16, 1000 * MS);
        assert!(got.in_time >= 950 && got.in_time + got.late == 1000, "{got:?}");
    }
}
