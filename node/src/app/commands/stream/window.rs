//! Which frames are under way, and the order in which their answers are shown.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What becomes of a frame that comes while all are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// It waits, and so does the source; answers are shown in the order of the frames.
    InOrder,
    /// It replaces the one that waits. An answer that comes after that of a later frame is left out.
    Newest,
}

/// The way from the source to those who ask: one frame waits there at most.
#[derive(Debug)]
pub(super) struct Window<F> {
    keep: Keep,
    /// Frames that are asked about or whose answers wait to be shown, in order.
    size: usize,
    state: Mutex<State<F>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<F> {
    waiting: Option<F>,
    /// Taken by the source and not yet shown, dropped or failed.
    open: usize,
    dropped: u64,
    is_over: bool,
}

impl<F> Window<F> {
    /// For so many frames under way at once.
    pub(super) fn new(keep: Keep, size: usize) -> Self {
        let state = State { waiting: None, open: 0, dropped: 0, is_over: false };
        Self { keep, size, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<F>>) -> MutexGuard<'a, State<F>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a frame in; whether more are wanted.
    pub(super) fn put(&self, frame: F) -> bool {
        let mut state = self.state();
        while self.keep == Keep::InOrder
            && !state.is_over
            && (state.waiting.is_some() || state.open >= self.size)
        {
            state = self.wait(state);
        }
        if state.is_over {
            return false;
        }
        match state.waiting.replace(frame) {
            Some(_) => state.dropped += 1,
            None => state.open += 1,
        }
        self.changed.notify_all();
        true
    }

    /// The next frame to ask about; none when all is over.
    pub(super) fn take(&self) -> Option<F> {
        let mut state = self.state();
        loop {
            if let Some(frame) = state.waiting.take() {
                self.changed.notify_all();
                return Some(frame);
            }
            if state.is_over {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// A frame that was taken is done with.
    pub(super) fn done(&self) {
        self.state().open -= 1;
        self.changed.notify_all();
    }

    /// No further frames; those that are there are asked about.
    pub(super) fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_all();
    }

    /// Waits until then; whether all goes on.
    pub(super) fn pause(&self, until: Instant) -> bool {
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_over || left.is_zero() {
                return !state.is_over;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Frames that were replaced by newer ones.
    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped
    }
}

/// Puts answers into order.
#[derive(Debug)]
pub(super) struct Order<A> {
    keep: Keep,
    /// The first frame that was not shown.
    next: u64,
    early: BTreeMap<u64, A>,
    /// Answers that came after those of newer frames.
    outrun: u64,
}

impl<A> Order<A> {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, next: 0, early: BTreeMap::new(), outrun: 0 }
    }

    /// Takes the answer about a frame; what is to be shown now.
    pub(super) fn came(&mut self, frame: u64, answer: A) -> Vec<(u64, A)> {
        if self.keep == Keep::Newest {
            if frame < self.next {
                self.outrun += 1;
                return vec![];
            }
            self.next = frame + 1;
            return vec![(frame, answer)];
        }
        self.early.insert(frame, answer);
        let mut shown = Vec::new();
        while let Some(answer) = self.early.remove(&self.next) {
            shown.push((self.next, answer));
            self.next += 1;
        }
        shown
    }

    /// Answers that were left out, since those of newer frames had been shown.
    pub(super) fn outrun(&self) -> u64 {
        self.outrun
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newest_frame_replaces_the_one_that_waits() {
        let window = Window::new(Keep::Newest, 2);
        assert!(window.put(0) && window.put(1) && window.put(2));
        assert_eq!((window.take(), window.dropped()), (Some(2), 2));
        window.end();
        assert_eq!(window.take(), None);
        assert!(!window.put(3));
    }

    #[test]
    fn a_frame_waits_until_an_earlier_one_is_shown() {
        let window = Arc::new(Window::new(Keep::InOrder, 2));
        assert!(window.put(0));
        assert_eq!(window.take(), Some(0));
        assert!(window.put(1));
        assert_eq!(window.take(), Some(1));
        let source = thread::spawn({
            let window = window.clone();
            move || window.put(2)
        });
        window.done();
        assert_eq!(window.take(), Some(2), "it came once there was room");
        assert!(source.join().unwrap());
        assert_eq!(window.dropped(), 0);
    }

    #[test]
    fn a_source_that_waits_is_let_go_at_the_end() {
        let window = Arc::new(Window::new(Keep::InOrder, 1));
        assert!(window.put(0));
        let source = thread::spawn({
            let window = window.clone();
            move || window.put(1)
        });
        window.end();
        assert!(!source.join().unwrap());
        assert_eq!((window.take(), window.take()), (Some(0), None), "what was there is still asked about");
    }

    proptest! {
        #[test]
        fn answers_are_shown_in_order_and_all_or_the_newest(
            order in Just((0..50_u64).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            for keep in [Keep::InOrder, Keep::Newest] {
                let mut all = Order::new(keep);
                let shown: Vec<u64> =
                    order.iter().flat_map(|frame| all.came(*frame, *frame)).map(|(frame, _)| frame).collect();
                prop_assert!(shown.is_sorted());
                prop_assert_eq!(shown.len() as u64 + all.outrun(), 50);
                prop_assert!(keep == Keep::Newest || all.outrun() == 0);
            }
        }
    }
}
