//! What ends a run: a caller that gives up, or the last of several that are in the same run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::session::{NoSelectedOutputs, RunOptions};

use super::served::QueuedJob;

/// The end of a job's run: when its caller gives up, unless others are in the same run.
pub(super) struct Ending {
    options: RunOptions<NoSelectedOutputs>,
    state: Mutex<EndingState>,
}

#[derive(Default)]
struct EndingState {
    is_given_up: bool,
    joint: Option<Arc<Joint>>,
}

/// A run for several callers: it ends when the last of them gives up.
pub(super) struct Joint {
    options: RunOptions<NoSelectedOutputs>,
    waiting: AtomicUsize,
}

/// Ends the run when the caller no longer waits: the deadline passed, or the request was cancelled.
pub(super) struct EndRun(pub(super) Arc<Ending>);

impl Drop for EndRun {
    fn drop(&mut self) {
        terminate(&self.0.options);
        let mut state = self.0.lock();
        state.is_given_up = true;
        if let Some(joint) = state.joint.take() {
            joint.leave();
        }
    }
}

fn terminate(options: &RunOptions<NoSelectedOutputs>) {
    if let Err(error) = options.terminate() {
        tracing::debug!("a run could not be ended: {error}");
    }
}

impl Ending {
    pub(super) fn new() -> Result<Self, ort::Error> {
        Ok(Self { options: RunOptions::new()?, state: Mutex::default() })
    }

    /// Of its own run.
    pub(super) fn options(&self) -> &RunOptions<NoSelectedOutputs> {
        &self.options
    }

    fn join(&self, joint: &Arc<Joint>) {
        let mut state = self.lock();
        if state.is_given_up {
            joint.leave();
        } else {
            state.joint = Some(joint.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, EndingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joint {
    /// A run for all of these.
    pub(super) fn of(jobs: &[QueuedJob]) -> Result<Arc<Self>, ort::Error> {
        let waiting = AtomicUsize::new(jobs.len());
        let joint = Arc::new(Self { options: RunOptions::new()?, waiting });
        jobs.iter().for_each(|queued| queued.job.ending.join(&joint));
        Ok(joint)
    }

    pub(super) fn options(&self) -> &RunOptions<NoSelectedOutputs> {
        &self.options
    }

    fn leave(&self) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            terminate(&self.options);
        }
    }
}
