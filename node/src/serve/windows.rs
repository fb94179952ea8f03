//! How many requests for a model are let in at once: as many as are answered in time. Hosts refuse what they
//! would only queue, but each such refusal costs a body, a plan and deliveries, which those that can be
//! answered lack; so the node where requests enter learns how many there is room for, and refuses the rest
//! before it reads them. The rule is that of TCP's congestion avoidance: one more for a round without refusals
//! (RFC 5681), seven tenths after one (RFC 9438).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::app::calls::REQUESTS_MAX;

/// So many are let in, whatever became of others: a model that is late with one request is not made better by
/// refusing a second one.
const LEAST: f64 = 16.0;
const MOST: f64 = REQUESTS_MAX as f64;
/// What is left of a window when it was too wide.
const NARROWED: f64 = 0.7;

/// The windows of all models, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Windows {
    of: Arc<Mutex<HashMap<String, Window>>>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Answered within what its caller allows.
    InTime,
    /// Answered later, or refused because hosts are full.
    TooMuch,
}

#[derive(Debug)]
struct Window {
    size: f64,
    under_way: usize,
    /// How often it was narrowed.
    round: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: MOST, under_way: 0, round: 0 }
    }
}

impl Window {
    fn learn(&mut self, round: u64, ended: Ended) {
        match ended {
            // What is not made use of is not known to be possible.
            Ended::InTime if self.under_way as f64 * 2.0 >= self.size => {
                self.size = (self.size + self.size.recip()).min(MOST);
            }
            Ended::InTime => {}
            // All that were let in before tell of the same.
            Ended::TooMuch if round != self.round => {}
            Ended::TooMuch => {
                let narrower = self.size.min(self.under_way as f64) * NARROWED;
                if narrower < self.size {
                    self.size = narrower.max(LEAST);
                    self.round += 1;
                }
            }
        }
    }

    /// Whether forgetting it changes nothing.
    fn is_new(&self) -> bool {
        self.under_way == 0 && self.size >= MOST
    }
}

impl Windows {
    /// Lets a request for a model in, unless as many are under way as can be answered; then says how many.
    pub(super) fn enter(&self, model: &str) -> Result<Entered, usize> {
        let mut all = self.lock();
        let round = match all.get_mut(model) {
            Some(window) if window.under_way as f64 >= window.size.floor() => return Err(window.under_way),
            Some(window) => {
                window.under_way += 1;
                window.round
            }
            None => {
                all.insert(model.to_owned(), Window { under_way: 1, ..Window::default() });
                0
            }
        };
        Ok(Entered { windows: self.clone(), model: model.to_owned(), round })
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
}

impl Entered {
    /// Tells how it ended, where that says something of how many there is room for.
    pub(super) fn ended(&self, ended: Ended) {
        if let Some(window) = self.windows.lock().get_mut(&self.model) {
            window.learn(self.round, ended);
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

    fn fill(windows: &Windows, model: &str) -> Vec<Entered> {
        std::iter::from_fn(|| windows.enter(model).ok()).collect()
    }

    #[test]
    fn a_window_is_narrowed_once_for_all_that_were_let_in_before() {
        let windows = Windows::default();
        let first = fill(&windows, "m");
        assert_eq!(first.len(), REQUESTS_MAX);
        first.iter().for_each(|entered| entered.ended(Ended::TooMuch));
        drop(first);
        let second = fill(&windows, "m");
        let narrowed = (MOST * NARROWED) as usize;
        assert_eq!(second.len(), narrowed);
        assert_eq!(windows.enter("m").unwrap_err(), narrowed);
        // Others are not concerned.
        assert_eq!(fill(&windows, "n").len(), REQUESTS_MAX);
        // A little more than a round, as the window grows in it.
        second.iter().chain(&second[..2]).for_each(|entered| entered.ended(Ended::InTime));
        drop(second);
        assert_eq!(fill(&windows, "m").len(), narrowed + 1);
    }

    #[test]
    fn some_are_let_in_whatever_happens_and_unused_room_is_not_learnt() {
        let windows = Windows::default();
        for _ in 0..50 {
            let all = fill(&windows, "m");
            all[0].ended(Ended::TooMuch);
        }
        assert_eq!(fill(&windows, "m").len(), LEAST as usize);
        for _ in 0..10_000 {
            windows.enter("m").unwrap().ended(Ended::InTime);
        }
        assert_eq!(fill(&windows, "m").len(), LEAST as usize);
    }

    #[test]
    fn a_model_without_troubles_leaves_nothing_behind() {
        let windows = Windows::default();
        for number in 0..1000 {
            windows.enter(&number.to_string()).unwrap().ended(Ended::InTime);
        }
        assert!(windows.lock().is_empty());
    }

    /// A mesh that answers 4 in each step and queues 40: three times as many come as it can answer.
    #[test]
    fn three_times_overload_is_refused_at_the_door_and_every_place_is_used() {
        let windows = Windows::default();
        let (mut queue, mut answered, mut refused_inside, mut refused) = (VecDeque::new(), 0, 0, 0);
        for step in 0..10_000 {
            for _ in 0..12 {
                match windows.enter("m") {
                    Err(_) => refused += 1,
                    Ok(entered) if queue.len() >= 40 => {
                        entered.ended(Ended::TooMuch);
                        refused_inside += 1;
                    }
                    Ok(entered) => queue.push_back(entered),
                }
            }
            for _ in 0..4 {
                if let Some(entered) = queue.pop_front() {
                    entered.ended(Ended::InTime);
                    answered += usize::from(step >= 1000);
                }
            }
        }
        assert_eq!(answered, 4 * 9000);
        assert!(refused_inside * 100 < refused, "{refused_inside} refused inside, {refused} at the door");
    }
}
