//! The result of a request, collected at its origin: each of the model's outputs comes from the stage that
//! makes it, so the parts of one attempt arrive in any order, and those of several attempts mingle.

use stormo_protocol::frame::{ORIGIN, Sign, StageTrace};
use stormo_protocol::refusal::Refusal;

use crate::net::{Received, SignReader, SignWriter, signs};

/// What is there of a result, or on its way.
#[derive(Default)]
pub(super) struct Collection {
    parts: Vec<Part>,
    begun: u64,
}

/// Copies of one part on their way at once: of a primary, and of two backups.
const COPIES_MAX: usize = 3;

/// What one stage of one attempt gives, or one copy of it.
struct Part {
    number: u64,
    attempt: u16,
    stage: u16,
    signs: SignWriter,
    arrived: Option<Received>,
}

impl Part {
    fn is(&self, attempt: u16, stage: u16) -> bool {
        (self.attempt, self.stage) == (attempt, stage)
    }
}

impl Collection {
    /// A stage begins to send its part. Another host of it may be sending the same: the first that is whole is used, and of too
    /// many the oldest is not waited for.
    ///
    /// # Errors
    /// `Duplicate`, if it is here already.
    pub(super) fn begin(&mut self, attempt: u16, stage: u16) -> Result<SignReader, Refusal> {
        if self.has(attempt, stage) {
            return Err(Refusal::Duplicate);
        }
        let mut copies = self.parts.iter().filter(|part| part.is(attempt, stage));
        if copies.clone().count() >= COPIES_MAX
            && let Some(oldest) = copies.next().map(|part| part.number)
        {
            self.parts.retain(|part| part.number != oldest);
        }
        self.begun += 1;
        let (signs, reader) = signs();
        self.parts.push(Part { number: self.begun, attempt, stage, signs, arrived: None });
        Ok(reader)
    }

    /// A part is here; whoever sent it, or sends another copy, may let go of it.
    pub(super) fn arrived(&mut self, attempt: u16, stage: u16, received: Received) {
        if self.has(attempt, stage) {
            return;
        }
        let mut received = Some(received);
        for part in self.parts.iter_mut().filter(|part| part.is(attempt, stage)) {
            part.arrived = received.take();
            part.signs.send_replace(Sign::Passed);
        }
    }

    /// Whether a part is here.
    pub(super) fn has(&self, attempt: u16, stage: u16) -> bool {
        self.parts.iter().any(|part| part.is(attempt, stage) && part.arrived.is_some())
    }

    /// All that came of an attempt: its tensors, and what the frames said of the way there, the last stage's first.
    pub(super) fn take(&mut self, attempt: u16) -> Option<Received> {
        let parts = std::mem::take(&mut self.parts);
        for late in parts.iter().filter(|part| part.arrived.is_none() && !part.signs.borrow().is_last()) {
            late.signs.send_replace(Sign::Refused { stage: ORIGIN, reason: Refusal::NotWaiting });
        }
        let mut parts: Vec<Part> = parts.into_iter().filter(|part| part.attempt == attempt).collect();
        parts.sort_by_key(|part| part.stage);
        let mut arrived = parts.into_iter().filter_map(|part| part.arrived).rev();
        let mut whole = arrived.next()?;
        for early in arrived {
            whole.tensors.extend(early.tensors);
            let known = |trace: &StageTrace| whole.traces.iter().any(|known| known.stage == trace.stage);
            let others: Vec<StageTrace> = early.traces.into_iter().filter(|trace| !known(trace)).collect();
            whole.traces.extend(others);
        }
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stormo_protocol::frame::{DeliveryKey, Edge, Header};
    use stormo_protocol::ids::{NodeId, PlanId, RequestId};

    use super::*;

    fn part(stage: u16, tensors: usize) -> Received {
        let image = || crate::ends::bytes_tensor("x", &[0]).expect("a tensor");
        let tensors: Vec<_> = (0..tensors).map(|_| image()).collect();
        let traces = vec![StageTrace { stage, ..StageTrace::default() }];
        let edge = Edge { from: stage, to: ORIGIN };
        let key = DeliveryKey { request: RequestId([1; 16]), attempt: 1, edge };
        let header = Header::of(key, PlanId([2; 16]), 1000, &traces, &tensors);
        let [receive_time, decode_time] = [Duration::ZERO; 2];
        Received { from: NodeId([3; 32]), header, traces, tensors, receive_time, decode_time }
    }

    #[test]
    fn parts_of_one_attempt_make_the_result_in_any_order() {
        let mut collection = Collection::default();
        for (attempt, stage) in [(2, 1), (1, 0), (2, 0)] {
            let signs = collection.begin(attempt, stage).expect("begun");
            assert!(!collection.has(attempt, stage));
            collection.arrived(attempt, stage, part(stage, 1));
            assert!(collection.has(attempt, stage) && *signs.borrow() == Sign::Passed);
            assert!(matches!(collection.begin(attempt, stage), Err(Refusal::Duplicate)));
        }
        let whole = collection.take(2).expect("whole");
        let stages: Vec<u16> = whole.traces.iter().map(|trace| trace.stage).collect();
        assert_eq!((whole.tensors.len(), &stages[..]), (2, &[1, 0][..]));
        assert!(collection.take(1).is_none());
    }

    #[test]
    fn of_several_copies_the_first_that_is_whole_is_used_and_all_may_let_go() {
        let mut collection = Collection::default();
        let signs: Vec<_> = (0..3).map(|_| collection.begin(1, 0).expect("begun")).collect();
        let late = collection.begin(2, 0).expect("of another attempt");
        collection.arrived(1, 0, part(0, 1));
        assert!(signs.iter().all(|signs| *signs.borrow() == Sign::Passed));
        collection.arrived(1, 0, part(0, 2));
        assert_eq!(collection.take(1).map(|whole| whole.tensors.len()), Some(1));
        let refused = Sign::Refused { stage: ORIGIN, reason: Refusal::NotWaiting };
        assert_eq!(*late.borrow(), refused);
    }

    #[test]
    fn so_many_copies_are_waited_for_and_no_more() {
        let mut collection = Collection::default();
        let signs: Vec<_> = (0..4).map(|_| collection.begin(1, 0).expect("begun")).collect();
        assert_eq!(
            signs.iter().map(|signs| signs.has_changed().is_ok()).collect::<Vec<_>>(),
            [false, true, true, true]
        );
    }

    #[test]
    fn a_part_that_broke_off_may_come_again() {
        let mut collection = Collection::default();
        collection.begin(1, 0).expect("begun");
        collection.begin(1, 0).expect("begun again");
        collection.arrived(1, 0, part(0, 1));
        assert_eq!(collection.take(1).map(|whole| whole.tensors.len()), Some(1));
    }
}
