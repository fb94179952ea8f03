//! Permits: how many sessions may compute at once, first come, first served. Blocks threads of this
//! room only, never the async runtime.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A fixed number of permits. Handed out in the order of asking, so that a busy partition cannot
/// starve another one.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    next_ticket: u64,
    waiting: VecDeque<u64>,
}

/// One permit; free again when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    permits: &'a Permits,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        let state = State { free: count, next_ticket: 0, waiting: VecDeque::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until it is this caller's turn.
    pub(super) fn acquire(&self) -> Permit<'_> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(ticket);
        while state.free == 0 || state.waiting.front() != Some(&ticket) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.free -= 1;
        state.waiting.pop_front();
        if state.free > 0 {
            // The next in line may have been woken before it was at the front.
            self.tell(&state);
        }
        Permit { permits: self }
    }

    /// Wakes those who wait; with nobody there it would be two calls of the system per run for nothing.
    fn tell(&self, state: &State) {
        if !state.waiting.is_empty() {
            self.changed.notify_all();
        }
    }

    /// A panic elsewhere cannot leave the counters half changed: no code that can panic runs in between.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        state.free += 1;
        self.permits.tell(&state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, mpsc};

    use super::*;

    #[test]
    fn never_more_at_once_than_permits() {
        let (permits, inside, most) = (Arc::new(Permits::new(2)), AtomicUsize::new(0), AtomicUsize::new(0));
        let pairs_meet = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _permit = permits.acquire();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Ends only when two are inside at once, so the bound is reached, too.
                    pairs_meet.wait();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn first_come_first_served() {
        let permits = Arc::new(Permits::new(1));
        let held = permits.acquire();
        let (send, order) = mpsc::channel();
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (permits_here, send) = (permits.clone(), send.clone());
                let thread = std::thread::spawn(move || {
                    let _permit = permits_here.acquire();
                    send.send(number).unwrap();
                });
                while permits.waiting() != number + 1 {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        drop(held);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), vec![0, 1, 2, 3]);
    }
}
