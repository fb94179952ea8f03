//! The versions of one name: the newest, and the one before it while that serves.

use stormo_protocol::state::Deployment;

use super::Wish;

/// A version that was replaced stays for so long after the newer one was ready, milliseconds: requests that
/// began with it end with it.
pub(super) const REPLACED_MS: u64 = 60_000;

/// All versions of one name that matter.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) newest: Wish,
    /// Serves until the newest is ready.
    pub(super) previous: Option<Wish>,
    pub(super) serves_previous: bool,
    /// Whether the newest was ready ever since it was heard: nothing before it is taken in any more.
    was_ready: bool,
    /// Since when the newest is ready, while there is a previous one.
    ready_ms: Option<u64>,
    /// When the newest was heard.
    pub(super) heard_ms: u64,
}

/// Whether one of two is a version before the other that serves until that is ready.
fn is_next(before: &Deployment, after: &Deployment) -> bool {
    let begun = |wish: &Deployment| (wish.publisher, wish.begun_unix_s);
    !before.removed && !after.removed && begun(before) == begun(after) && before.version < after.version
}

impl Named {
    pub(super) fn of(heard_ms: u64, newest: Wish) -> Self {
        Self { newest, previous: None, serves_previous: false, was_ready: false, ready_ms: None, heard_ms }
    }

    pub(super) fn replace(&mut self, now_ms: u64, wish: Wish) {
        self.heard_ms = now_ms;
        let is_next = is_next(&self.newest.deployment, &wish.deployment);
        let before = std::mem::replace(&mut self.newest, wish);
        if !is_next {
            self.previous = None;
        } else if self.previous.is_none() || !self.serves_previous {
            // Otherwise the version before never took over from the one before that.
            self.previous = Some(before);
        }
        (self.serves_previous, self.was_ready, self.ready_ms) = (self.previous.is_some(), false, None);
    }

    /// Whether a version that is not the newest should be held beside it: the newest is not ready, and what is held
    /// of those before, if anything, does not serve.
    pub(super) fn lacks(&self, wish: &Deployment) -> bool {
        let is_later = |held: &Wish| !self.serves_previous && held.deployment.version < wish.version;
        !self.was_ready
            && is_next(wish, &self.newest.deployment)
            && self.previous.as_ref().is_none_or(is_later)
    }

    pub(super) fn serving(&self) -> Option<&Deployment> {
        let previous = self.previous.as_ref().filter(|_| self.serves_previous);
        let serving = &previous.unwrap_or(&self.newest).deployment;
        (!serving.removed).then_some(serving)
    }

    /// Says whether a version went.
    pub(super) fn settle(&mut self, now_ms: u64, is_ready: &impl Fn(&Deployment) -> bool) -> bool {
        let is_newest_ready =
            (self.previous.is_some() || !self.was_ready) && is_ready(&self.newest.deployment);
        self.was_ready |= is_newest_ready;
        let Some(previous) = &self.previous else { return false };
        if !is_newest_ready {
            self.ready_ms = None;
            self.serves_previous = is_ready(&previous.deployment);
            return false;
        }
        self.serves_previous = false;
        let since_ms = *self.ready_ms.get_or_insert(now_ms);
        let is_over = now_ms.saturating_sub(since_ms) >= REPLACED_MS;
        if is_over {
            self.previous = None;
        }
        is_over
    }
}
