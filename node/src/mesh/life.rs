//! Whether a node lives, as far as can be told from here. Signs of life are its heartbeat, which others pass on,
//! and whatever comes over a connection to it. A record alone is none: anybody may keep one and say it later.
//!
//! Heartbeats are not signed: a member of the mesh that lies can have a dead node taken for alive for as long as it goes on
//! lying, by those who are not its neighbours. It cannot silence one that lives for more than moments: heartbeats that are
//! ahead of what is to be expected count for no more than that, and where the first that were heard are lies, those that go
//! on below them win.

/// After this long without a sign of life a node is forgotten, milliseconds.
pub const FORGET_MS: u64 = 60_000;
/// Without a sign of life for so long, in a mesh of up to ten nodes, a node is left out of plans, milliseconds. All are
/// then neighbours of each other: a ping each second and two exchanges in that time show life, and each has to fail.
const SILENT_MS: u64 = 3_500;
/// So much longer for each doubling of the mesh beyond that: heartbeats spread over more neighbours, milliseconds.
const SILENT_EACH_DOUBLING_MS: u64 = 650;
/// So long before it is left out for its silence, a node is asked for, milliseconds.
const DOUBT_MS: u64 = 1_500;
/// A heartbeat counts so much time of its node, milliseconds.
pub(super) const BEAT_MS: u64 = 1_000;
/// Heartbeats are at most so far ahead of those that were heard before, milliseconds: in a mesh of a thousand the first
/// one may be as old as that.
const AHEAD_MS: i64 = 8_000;
/// A node that falls silent may have given heartbeats for so long after the last sign of it that came here, milliseconds.
const UNHEARD_MS: u64 = 10_000;
/// Heartbeats below the newest one that rise by so many, in as many seconds without any other, are the true ones: those
/// of a dead node that still travel are fewer.
const TRUE_BEATS: u64 = 10;
/// In this time a node's clock may gain a millisecond on this one's (200 ppm, more than crystals stray by), milliseconds.
const GAINS_EACH_MS: u64 = 5_000;
/// For each heartbeat, a node's clock may be so much slower than this one's, milliseconds.
const DRIFT_MS: u64 = 5;
/// A connection that is there again so soon had broken, and its node never was away, milliseconds.
const COMES_BACK_MS: u64 = 2_000;
/// What a node said before it was lost may still be under way: so many heartbeats have to follow.
const BEATS_AFTER_LOSS: u64 = 6;
/// What goes for the second time is left out for so long, twice as long each further time, milliseconds.
const HOLD_MS: u64 = 20_000;
/// Never longer than this; and so long if only others say that a node lives which was lost here.
const HOLD_MS_MAX: u64 = 60_000;
/// A node that stayed for so long has no past, milliseconds: it may go once a minute.
const PAST_MS: u64 = 60_000;
/// A process that was started anew has gone for a reason that is over: so many times lately that does not count. One
/// that dies again and again does not stay in plans for all that.
const RESTARTS_FORGIVEN: u32 = 3;

/// How long a node of a mesh of so many may be silent before it is left out, milliseconds.
pub(super) fn silent_ms(nodes: usize) -> u64 {
    let doublings = (nodes.max(10) as f64 / 10.0).log2();
    SILENT_MS + (doublings * SILENT_EACH_DOUBLING_MS as f64) as u64
}

/// What is believed of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// It was heard of, and gave no sign of life yet.
    Unproven,
    /// It lives.
    Alive,
    /// It was silent for too long.
    Silent,
    /// The last connection to it broke.
    Lost,
}

/// The signs of life of one node.
#[derive(Debug, Clone)]
pub(super) struct Life {
    belief: Belief,
    /// The newest heartbeat; `None` before the first, which may be of any age.
    beat: Option<u64>,
    /// When its heartbeat was 0 by this node's clock, as the quickest of those that were heard have it: so one that was
    /// long under way is no younger than it is. May lie before this node's start.
    born_ms: i64,
    /// Nor was it earlier than this, and when that was found.
    earliest_ms: Option<(i64, u64)>,
    /// Since the newest heartbeat: the first of those below it, when it was heard, and the newest of them.
    below: Option<(u64, u64, u64)>,
    shown_ms: u64,
    /// From when on plans may use it, if it lives.
    usable_from_ms: u64,
    /// Times that it went away lately, and the last one.
    went: u32,
    went_ms: u64,
    /// How many of these times it was then started anew.
    restarts: u32,
    /// The heartbeat at which it was lost.
    lost_at: u64,
}

impl Life {
    /// Of a node that is heard of for the first time.
    pub(super) fn new(now_ms: u64, beat: Option<u64>) -> Self {
        Self {
            belief: Belief::Unproven,
            beat,
            born_ms: i64::MAX,
            earliest_ms: None,
            below: None,
            shown_ms: now_ms,
            usable_from_ms: now_ms,
            went: 0,
            went_ms: 0,
            restarts: 0,
            lost_at: 0,
        }
    }

    pub(super) fn belief(&self) -> Belief {
        self.belief
    }

    /// The newest heartbeat, 0 before the first.
    pub(super) fn beat(&self) -> u64 {
        self.beat.unwrap_or(0)
    }

    /// No heartbeat that it gave until its last sign of life is above this: others may have heard some that did not come
    /// here.
    pub(super) fn last_beat(&self) -> u64 {
        let heard = self.earliest_ms.is_some();
        if heard { self.beat().max(self.beat_max(self.shown_ms + UNHEARD_MS)) } else { self.beat() }
    }

    /// When it last gave a sign of life, milliseconds.
    pub(super) fn shown_ms(&self) -> u64 {
        self.shown_ms
    }

    pub(super) fn is_usable(&self, now_ms: u64) -> bool {
        self.belief == Belief::Alive && now_ms >= self.usable_from_ms
    }

    /// It was started anew: its heartbeat begins anew too.
    pub(super) fn restarted(&mut self) {
        self.beat = None;
        self.born_ms = i64::MAX;
        (self.earliest_ms, self.below) = (None, None);
        self.lost_at = 0;
        self.restarts = self.went.min(self.restarts + 1);
        if self.belief == Belief::Alive {
            // Its connection may stand before its new record is here.
            self.usable_from_ms = self.usable_from_ms.min(self.went_ms + self.hold_ms());
        } else {
            self.belief = Belief::Silent;
        }
    }

    /// Somebody says its heartbeat; tells whether it is newer than what was known.
    pub(super) fn hear(&mut self, now_ms: u64, beat: u64) -> bool {
        // Some hold a record and believe its node dead: they say no heartbeat.
        if beat == 0 {
            return false;
        }
        let is_first = match self.beat {
            None => true,
            // Who said the first one, which proves nothing, perhaps lied.
            Some(known) => self.belief == Belief::Unproven && beat < known,
        };
        let known = self.beat();
        if is_first || beat < known && self.is_true(now_ms, beat) {
            self.begin(now_ms, beat);
            return true;
        }
        let beat = beat.min(self.beat_max(now_ms));
        if beat <= known {
            return false;
        }
        (self.beat, self.below) = (Some(beat), None);
        let beaten_ms = beaten_ms(beat);
        let drift_ms = i64::try_from((beat - known).saturating_mul(DRIFT_MS)).unwrap_or(i64::MAX);
        let by_this_ms = born_ms(now_ms, beat);
        let was_away = self.belief != Belief::Alive;
        self.born_ms =
            if was_away { by_this_ms } else { self.born_ms.saturating_add(drift_ms).min(by_this_ms) };
        let earliest_ms = self.born_ms.saturating_sub(AHEAD_MS);
        if self.earliest_ms(now_ms).is_none_or(|known_ms| known_ms < earliest_ms) {
            self.earliest_ms = Some((earliest_ms, now_ms));
        }
        let said_ms = u64::try_from(self.born_ms.saturating_add(beaten_ms)).unwrap_or(0).min(now_ms);
        let waits = self.belief == Belief::Lost && beat < self.lost_at.saturating_add(BEATS_AFTER_LOSS);
        if !waits {
            let hold_ms = if self.belief == Belief::Lost { HOLD_MS_MAX } else { self.hold_ms() };
            self.live(said_ms, hold_ms);
        }
        true
    }

    /// The first heartbeat, or the first that is believed: the next one is a sign of life.
    fn begin(&mut self, now_ms: u64, beat: u64) {
        (self.beat, self.below) = (Some(beat), None);
        self.earliest_ms = Some((born_ms(now_ms, beat).saturating_sub(AHEAD_MS), now_ms));
    }

    /// Whether one that is below the newest shows that the newest was a lie.
    fn is_true(&mut self, now_ms: u64, beat: u64) -> bool {
        let (first, since_ms, newest) = self.below.get_or_insert((beat, now_ms, beat));
        *newest = beat.max(*newest);
        *newest - *first >= TRUE_BEATS && now_ms >= *since_ms + TRUE_BEATS * BEAT_MS
    }

    /// Its heartbeat was 0 no earlier than this, as far as can be told.
    fn earliest_ms(&self, now_ms: u64) -> Option<i64> {
        let (earliest_ms, found_ms) = self.earliest_ms?;
        Some(earliest_ms.saturating_sub((now_ms.saturating_sub(found_ms) / GAINS_EACH_MS) as i64))
    }

    /// No heartbeat that it gave is beyond this.
    fn beat_max(&self, now_ms: u64) -> u64 {
        let Some(earliest_ms) = self.earliest_ms(now_ms) else { return u64::MAX };
        u64::try_from((now_ms as i64).saturating_sub(earliest_ms)).unwrap_or(0) / BEAT_MS
    }

    /// Something came over a connection to it.
    pub(super) fn show(&mut self, now_ms: u64) {
        self.live(now_ms, self.hold_ms());
    }

    /// Bytes came over a connection to it, perhaps of a message that takes long; tells whether that is news. Who is believed
    /// to live goes on living by that; who is not may be gone, and what it had written still come.
    pub(super) fn carried(&mut self, at_ms: u64) -> bool {
        let is_news = self.belief == Belief::Alive && at_ms > self.shown_ms;
        if is_news {
            self.shown_ms = at_ms;
        }
        is_news
    }

    /// A connection to it stands.
    pub(super) fn connected(&mut self, now_ms: u64) {
        if self.belief == Belief::Lost && now_ms < self.went_ms + COMES_BACK_MS {
            self.went = self.went.saturating_sub(1);
            self.restarts = self.restarts.min(self.went);
        }
        self.show(now_ms);
    }

    /// The last connection to it broke.
    pub(super) fn lose(&mut self, now_ms: u64) {
        self.go(now_ms, Belief::Lost);
        self.lost_at = self.beat();
    }

    /// Time passes; tells whether it is left out from now on.
    pub(super) fn look(&mut self, now_ms: u64, silent_ms: u64) -> bool {
        let goes = self.belief == Belief::Alive && now_ms >= self.shown_ms + silent_ms;
        if goes {
            self.go(now_ms, Belief::Silent);
        }
        goes
    }

    /// Whether it will soon be left out if it goes on being silent.
    pub(super) fn is_doubtful(&self, now_ms: u64, silent_ms: u64) -> bool {
        self.belief == Belief::Alive && now_ms + DOUBT_MS >= self.shown_ms + silent_ms
    }

    /// This node itself stood still for so long: what it did not hear is nobody's fault. What it heard since it goes on is
    /// as late as it is.
    pub(super) fn excuse(&mut self, now_ms: u64, lateness_ms: u64) {
        self.shown_ms = self.shown_ms.saturating_add(lateness_ms).min(now_ms);
    }

    fn go(&mut self, now_ms: u64, belief: Belief) {
        if self.belief == Belief::Alive {
            if now_ms >= self.went_ms + PAST_MS {
                (self.went, self.restarts) = (0, 0);
            }
            self.went += 1;
            self.went_ms = now_ms;
        }
        self.belief = belief;
    }

    fn live(&mut self, now_ms: u64, hold_ms: u64) {
        self.shown_ms = self.shown_ms.max(now_ms);
        if self.belief != Belief::Alive {
            self.belief = Belief::Alive;
            self.usable_from_ms = self.went_ms + hold_ms;
        }
    }

    /// How long after it went it is used again at the earliest.
    fn hold_ms(&self) -> u64 {
        match self.went - self.restarts.min(RESTARTS_FORGIVEN) {
            0 | 1 => 0,
            went => (HOLD_MS << (went - 2).min(8)).min(HOLD_MS_MAX),
        }
    }
}

fn beaten_ms(beat: u64) -> i64 {
    i64::try_from(beat.saturating_mul(BEAT_MS)).unwrap_or(i64::MAX)
}

/// When the heartbeat was 0, if this one was given just now.
fn born_ms(now_ms: u64, beat: u64) -> i64 {
    (now_ms as i64).saturating_sub(beaten_ms(beat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive() -> Life {
        let mut life = Life::new(0, Some(1));
        life.hear(0, 2);
        life
    }

    #[test]
    fn a_first_heartbeat_proves_nothing_and_the_next_does() {
        let mut life = Life::new(0, None);
        assert!(life.hear(10, 700) && !life.is_usable(10));
        assert!(!life.hear(20, 700) && !life.is_usable(20));
        assert!(life.hear(30, 701) && life.is_usable(30));
        assert!(!life.hear(40, 650) && life.shown_ms() == 30, "an old one");
    }

    #[test]
    fn a_heartbeat_that_was_long_under_way_is_no_younger_for_it() {
        let mut life = Life::new(0, None);
        life.hear(10_000, 10);
        life.hear(11_000, 11);
        life.hear(14_500, 13);
        assert_eq!(life.shown_ms(), 13_000 + 2 * DRIFT_MS, "the one before took no time");
        life.hear(14_600, 14);
        assert_eq!(life.shown_ms(), 14_000 + 3 * DRIFT_MS);
        // A node whose clock stood still begins anew once it was away.
        life.look(20_000, SILENT_MS);
        life.hear(20_000, 15);
        assert_eq!((life.shown_ms(), life.belief()), (20_000, Belief::Alive));
        life.hear(21_000, u64::MAX);
        assert!(life.shown_ms() <= 21_000);
    }

    /// What a node of a large mesh that is no neighbour hears: the heartbeats of one that lives, a second apart, and
    /// what somebody says who lies for a while.
    #[test]
    fn forged_heartbeats_silence_a_node_that_lives_for_moments_only() {
        for lie in [u64::MAX, 1_000_000, 200] {
            for (from_s, until_s) in [(0, 1), (0, 60), (20, 21), (20, 1_000)] {
                let mut life = Life::new(0, None);
                let mut out_s = Vec::new();
                for second in 0..2_000 {
                    let now_ms = second * 1_000;
                    if (from_s..until_s).contains(&second) {
                        for more in 0..100 {
                            life.hear(now_ms, lie.saturating_add(second + more));
                        }
                    }
                    life.hear(now_ms + 300, 100 + second);
                    life.look(now_ms + 900, silent_ms(100));
                    if second > 1 && !life.is_usable(now_ms + 900) {
                        out_s.push(second);
                    }
                }
                // Lies from the very beginning are believed until they end; others put it ahead by some seconds, which
                // is seen when they end.
                let most = if from_s == 0 { 2 * TRUE_BEATS as usize } else { 5 };
                assert!(
                    out_s.len() <= most,
                    "{lie} said from {from_s} to {until_s} s: left out at {out_s:?} s"
                );
            }
        }
    }

    #[test]
    fn a_node_whose_clock_jumped_ahead_lives_and_dies_like_others() {
        let mut life = Life::new(0, None);
        let mut ahead = 0;
        for second in 1..100 {
            if second == 50 {
                ahead = 3_600;
            }
            life.hear(second * 1_000, second + ahead);
            assert!(!life.look(second * 1_000 + 900, SILENT_MS), "{second}: {life:?}");
        }
        // Others may go on saying its last heartbeat until they leave it out themselves.
        let last = 99 + 3_600;
        for second in 100..104 {
            life.hear(second * 1_000, last);
        }
        assert!(life.look(103_000 + SILENT_MS, SILENT_MS), "{life:?}");
    }

    #[test]
    fn silence_ends_it_and_larger_meshes_wait_longer() {
        let mut life = alive();
        assert!(!life.look(SILENT_MS - 1, silent_ms(10)) && life.look(SILENT_MS, silent_ms(10)));
        assert!(!life.is_usable(SILENT_MS) && !life.look(SILENT_MS + 1, silent_ms(10)), "told once");
        life.hear(SILENT_MS + 50, 3);
        assert!(life.is_usable(SILENT_MS + 50));
        assert!(silent_ms(2) == SILENT_MS && silent_ms(100) < silent_ms(1_000));
    }

    #[test]
    fn what_stood_still_itself_blames_nobody() {
        let mut life = alive();
        life.excuse(3_600_000, 3_600_000);
        assert!(!life.look(3_600_000 + SILENT_MS - 1, SILENT_MS));
    }

    #[test]
    fn what_was_heard_after_standing_still_is_no_later_for_that() {
        let mut life = alive();
        life.show(3_600_000);
        life.excuse(3_600_000, 3_599_000);
        assert!(life.look(3_600_000 + SILENT_MS, SILENT_MS), "{life:?}");
    }

    #[test]
    fn a_broken_connection_loses_it_until_there_is_another_or_it_lives_on_for_long() {
        let mut life = alive();
        life.lose(100);
        assert!(!life.is_usable(100));
        life.hear(200, 3);
        life.hear(300, 2 + BEATS_AFTER_LOSS - 1);
        assert_eq!(life.belief(), Belief::Lost, "this was perhaps said before");
        let mut other = life.clone();
        other.connected(400);
        assert!(other.is_usable(400));
        life.hear(6_000, 2 + BEATS_AFTER_LOSS);
        assert!(!life.is_usable(6_000) && life.is_usable(100 + HOLD_MS_MAX), "{life:?}");
    }

    #[test]
    fn what_comes_and_goes_is_used_ever_later_and_what_stays_has_no_past() {
        let mut life = alive();
        let mut pauses = Vec::new();
        let mut now_ms = 100_000;
        for _ in 0..5 {
            life.show(now_ms);
            now_ms += SILENT_MS;
            assert!(life.look(now_ms, SILENT_MS));
            life.show(now_ms);
            let went_ms = now_ms;
            while !life.is_usable(now_ms) {
                now_ms += 100;
            }
            pauses.push(now_ms - went_ms);
        }
        assert_eq!(pauses, [0, 20_000, 40_000, 60_000, 0], "a minute is past");
    }

    #[test]
    fn connections_that_only_broke_do_not_count() {
        let mut life = alive();
        for second in 0..20 {
            life.lose(second * 1_000);
            life.connected(second * 1_000 + 300);
            assert!(life.is_usable(second * 1_000 + 300));
        }
        life.lose(30_000);
        life.connected(30_000 + COMES_BACK_MS);
        assert!(life.is_usable(32_000), "the first time");
        life.lose(40_000);
        life.connected(40_000 + COMES_BACK_MS);
        assert!(!life.is_usable(42_000) && life.is_usable(60_000));
    }

    #[test]
    fn a_restart_begins_anew() {
        let mut life = alive();
        life.lose(100);
        life.restarted();
        assert!(life.hear(200, 1) && !life.is_usable(200));
        assert!(life.hear(300, 2) && life.is_usable(300));
    }
    #[test]
    fn one_that_is_started_anew_is_used_at_once_unless_it_dies_again_and_again() {
        for record_first in [true, false] {
            let mut life = alive();
            let mut pauses = Vec::new();
            for second in [10, 20, 30, 40, 50, 60] {
                life.lose(second * 1_000);
                let back_ms = second * 1_000 + 4_000;
                if record_first {
                    life.restarted();
                    life.connected(back_ms);
                } else {
                    life.connected(back_ms);
                    life.restarted();
                }
                let usable = (back_ms..).step_by(1_000).find(|&now_ms| life.is_usable(now_ms)).unwrap();
                pauses.push(usable - back_ms);
            }
            assert_eq!(pauses, [0, 0, 0, 0, 16_000, 36_000], "record first: {record_first}");
        }
    }
}
