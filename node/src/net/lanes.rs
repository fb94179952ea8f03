//! Deliveries to one peer: how many there are at once, and what each tells those that wait, or come next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stormo_protocol::ids::NodeId;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::sleep;

/// Deliveries to one peer at once; more wait here. With the kept streams they stay below what the peer
/// takes (`STREAMS_PER_PEER_MAX`), which would drop the rest.
const DELIVERIES_PER_PEER_MAX: usize = 48;

/// Who may send to whom now.
#[derive(Default)]
pub(super) struct Lanes {
    by_peer: Mutex<HashMap<NodeId, Arc<Lane>>>,
}

/// The way to one peer.
pub(super) struct Lane {
    /// One for each delivery under way.
    permits: Semaphore,
    /// A delivery under way met silence.
    lost: Notify,
    state: Mutex<State>,
}

struct State {
    /// Exchanges under way.
    exchanges: usize,
    /// When the peer said something in one of them, or the first of them began, whichever was later.
    heard: Instant,
}

impl State {
    fn begin(&mut self, now: Instant) {
        if self.exchanges == 0 {
            self.heard = now;
        }
        self.exchanges += 1;
    }

    fn quiet_for(&self, now: Instant) -> Duration {
        if self.exchanges == 0 { Duration::ZERO } else { now.saturating_duration_since(self.heard) }
    }
}

/// Why a delivery has no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// The peer turned out to be lost meanwhile: a crowd does not find that out one after the other.
    Lost,
    /// It is quiet, and there are others.
    Quiet,
}

impl Lanes {
    pub(super) fn of(&self, peer: NodeId) -> Arc<Lane> {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        by_peer.retain(|_, lane| Arc::strong_count(lane) > 1);
        by_peer.entry(peer).or_insert_with(|| Arc::new(Lane::new())).clone()
    }

    /// For how long a peer has said nothing in any exchange under way; zero if there is none.
    pub(super) fn quiet_for(&self, peer: NodeId) -> Duration {
        let by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        by_peer.get(&peer).map_or(Duration::ZERO, |lane| lane.quiet_for())
    }
}

impl Lane {
    fn new() -> Self {
        let state = State { exchanges: 0, heard: Instant::now() };
        Self {
            permits: Semaphore::new(DELIVERIES_PER_PEER_MAX),
            lost: Notify::new(),
            state: Mutex::new(state),
        }
    }

    /// Waits for its turn; where there are others, no longer than until the peer has been quiet for so long.
    pub(super) async fn turn(&self, quiet_max: Option<Duration>) -> Result<SemaphorePermit<'_>, NoTurn> {
        let lost = self.lost.notified();
        tokio::select! {
            biased;
            permit = self.permits.acquire() => permit.map_err(|_| NoTurn::Lost),
            () = lost => Err(NoTurn::Lost),
            () = self.quiet(quiet_max) => Err(NoTurn::Quiet),
        }
    }

    /// Waits until the peer has been quiet for so long; for ever, if that does not matter.
    async fn quiet(&self, quiet_max: Option<Duration>) {
        let Some(quiet_max) = quiet_max else { return std::future::pending().await };
        loop {
            let quiet_for = self.quiet_for();
            if quiet_for >= quiet_max {
                return;
            }
            sleep(quiet_max - quiet_for).await;
        }
    }

    /// An exchange with the peer begins; it is over when this is dropped.
    pub(super) fn begin(&self) -> Exchange<'_> {
        self.state().begin(Instant::now());
        Exchange(self)
    }

    /// A delivery met silence: whoever waits for its turn need not find that out.
    pub(super) fn is_lost(&self) {
        self.lost.notify_waiters();
    }

    fn quiet_for(&self) -> Duration {
        self.state().quiet_for(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange with a peer, under way.
pub(super) struct Exchange<'a>(&'a Lane);

impl Exchange<'_> {
    /// The peer said something.
    pub(super) fn heard(&self) {
        self.0.state().heard = Instant::now();
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.0.state().exchanges -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(150);

    #[test]
    fn a_peer_is_quiet_that_owes_a_sign() {
        let began = Instant::now();
        let mut state = State { exchanges: 0, heard: began };
        assert_eq!(state.quiet_for(began + QUIET), Duration::ZERO, "nobody waits for it");
        state.begin(began + QUIET);
        assert_eq!(state.quiet_for(began + QUIET * 2), QUIET);
        // Another one that begins is no sign; a sign in either is one for both.
        state.begin(began + QUIET * 2);
        assert_eq!(state.quiet_for(began + QUIET * 2), QUIET);
        state.heard = began + QUIET * 2;
        state.exchanges -= 1;
        assert_eq!(state.quiet_for(began + QUIET * 3), QUIET);
        state.exchanges -= 1;
        assert_eq!(state.quiet_for(began + QUIET * 3), Duration::ZERO);
    }

    #[tokio::test]
    async fn who_waits_behind_a_quiet_peer_turns_to_others_and_where_there_are_none_waits_on() {
        let lanes = Lanes::default();
        let lane = lanes.of(NodeId([1; 32]));
        let mut taken = Vec::new();
        for _ in 0..DELIVERIES_PER_PEER_MAX {
            taken.push(lane.turn(Some(QUIET)).await.unwrap());
        }
        let exchange = lane.begin();
        assert_eq!(lane.turn(Some(QUIET)).await.err(), Some(NoTurn::Quiet));
        assert!(lanes.quiet_for(NodeId([1; 32])) >= QUIET);
        let (turn, ()) = tokio::join!(lane.turn(None), async { lane.is_lost() });
        assert_eq!(turn.err(), Some(NoTurn::Lost));
        drop(exchange);
        assert_eq!(lanes.quiet_for(NodeId([1; 32])), Duration::ZERO);
        taken.pop();
        assert!(lane.turn(Some(QUIET)).await.is_ok(), "a turn that is free is taken");
    }
}
