//! Hosts that fell silent in the middle of a request: plans leave them out at once and take them back slowly, a
//! circuit breaker for each (Nygard, *Release It!*, 2nd edition 2018, chapter 5). A suspect comes back by an
//! answer to a question of its own, or by a sign about a request that it has already, never by a request that is
//! risked on it. The first time it is back with the answer: a link that turned long looks like silence
//! for a moment. Each relapse doubles the time before that. Only who leaves the question unanswered as well, and says
//! nothing of its own meanwhile, is *silent*: requests that wait for it are sent elsewhere. For all that is not a request,
//! what owners see and where partitions are hosted, it is *lost* if that goes on: a connection that loses packets may be still
//! for a second or two (TCP tries again after 0.2, 0.6, 1.4 and 3 s), and others hear from its host meanwhile.
//!
//! Where requests do not wait for silence, since another host does in its place what one takes long for, nobody accuses that one:
//! it is *doubted*, and asked once. Only if that stays unanswered, and it says nothing else, it is a suspect.

use std::collections::BTreeMap;

use stormo_protocol::ids::NodeId;

/// A suspect that was one before stays out for so long at least: at its first relapse, and at most.
const HOLD_MS: (u64, u64) = (1_000, 8_000);
/// Between two questions whether it lives.
const ASK_MS: u64 = 250;
/// Who says something of its own at least so often lives, though questions do not get through to it: nodes exchange states
/// twice a second.
const LIFE_MS: u64 = 700;
/// Who is silent is lost so long after it was accused, and after the last sign of it that came here or to others.
const LOST_AFTER_MS: u64 = 2_000;
/// A node that was back for so long is a suspect for the first time again.
const FORGIVEN_MS: u64 = 60_000;
/// Who is doubted is asked no more often.
const DOUBT_EACH_MS: u64 = 1_000;
/// Suspects that are remembered; nodes of one mesh that carry requests at once are fewer.
const REMEMBERED_MAX: usize = 1_024;

/// A node that was accused.
#[derive(Debug)]
struct Suspect {
    /// Whether plans leave it out.
    is_out: bool,
    /// Whether it is out, left a question unanswered since, and said nothing else meanwhile.
    is_silent: bool,
    /// When it said something else last.
    heard_ms: Option<u64>,
    relapses: u32,
    /// Not back before.
    hold_until_ms: u64,
    ask_at_ms: u64,
    /// When it was accused or came back last.
    changed_ms: u64,
}

/// A node that takes long.
#[derive(Debug)]
struct Doubt {
    since_ms: u64,
    is_asked: bool,
    /// Whether it gave a sign since.
    is_over: bool,
}

/// All that were accused lately, or doubted.
#[derive(Debug, Default)]
pub struct Suspects {
    by_node: BTreeMap<NodeId, Suspect>,
    doubted: BTreeMap<NodeId, Doubt>,
}

impl Suspects {
    /// A node fell silent, or its stream broke; it is to be asked now. Accusations of one that is out already are of
    /// the same outage: many requests meet it.
    pub fn accuse(&mut self, now_ms: u64, node: NodeId) {
        let known = self.by_node.get(&node);
        if known.is_some_and(|suspect| suspect.is_out) {
            return;
        }
        self.doubted.remove(&node);
        self.make_room();
        let relapses = self.by_node.get(&node).map_or(0, |suspect| suspect.relapses + 1);
        let doubled = relapses.checked_sub(1).map(|times| HOLD_MS.0.saturating_mul(1 << times.min(16)));
        let hold_ms = doubled.unwrap_or(0).min(HOLD_MS.1);
        let suspect = Suspect {
            is_out: true,
            is_silent: false,
            heard_ms: None,
            relapses,
            hold_until_ms: now_ms + hold_ms,
            ask_at_ms: now_ms,
            changed_ms: now_ms,
        };
        self.by_node.insert(node, suspect);
    }

    /// A node takes long, and others did its work; it is to be asked, unless it was a moment ago.
    pub fn doubt(&mut self, now_ms: u64, node: NodeId) {
        self.doubted.retain(|_, doubt| now_ms < doubt.since_ms + DOUBT_EACH_MS);
        if !self.is_out(node) && self.doubted.len() < REMEMBERED_MAX {
            let doubt = Doubt { since_ms: now_ms, is_asked: false, is_over: false };
            self.doubted.entry(node).or_insert(doubt);
        }
    }

    fn make_room(&mut self) {
        if self.by_node.len() >= REMEMBERED_MAX {
            let oldest = self.by_node.iter().min_by_key(|(_, suspect)| (suspect.is_out, suspect.changed_ms));
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.by_node.remove(&oldest);
            }
        }
    }

    /// Whether plans leave it out.
    pub fn is_out(&self, node: NodeId) -> bool {
        self.by_node.get(&node).is_some_and(|suspect| suspect.is_out)
    }

    /// Whether it does not answer questions either, as far as is known.
    pub fn is_silent(&self, node: NodeId) -> bool {
        self.by_node.get(&node).is_some_and(|suspect| suspect.is_silent)
    }

    /// All that plans leave out.
    pub fn out(&self) -> Vec<NodeId> {
        self.by_node.iter().filter(|(_, suspect)| suspect.is_out).map(|(node, _)| *node).collect()
    }

    /// Who is to be asked now whether it lives.
    pub fn to_ask(&mut self, now_ms: u64) -> Vec<NodeId> {
        self.by_node
            .retain(|_, suspect| suspect.is_out || now_ms.saturating_sub(suspect.changed_ms) < FORGIVEN_MS);
        let due =
            self.by_node.iter_mut().filter(|(_, suspect)| suspect.is_out && suspect.ask_at_ms <= now_ms);
        let due = due.map(|(node, suspect)| {
            suspect.ask_at_ms = now_ms + ASK_MS;
            *node
        });
        let doubted = self.doubted.iter_mut().filter(|(_, doubt)| !doubt.is_asked && !doubt.is_over);
        let doubted = doubted.map(|(node, doubt)| {
            doubt.is_asked = true;
            *node
        });
        due.chain(doubted).collect()
    }

    /// Who is known no more is asked no more.
    pub fn keep(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.by_node.retain(|node, _| is_known(*node));
        self.doubted.retain(|node, _| is_known(*node));
    }

    /// A node answered, or gave a sign. It is back if it was out for long enough.
    pub fn answered(&mut self, now_ms: u64, node: NodeId) {
        self.undoubted(node);
        let Some(suspect) = self.by_node.get_mut(&node).filter(|suspect| suspect.is_out) else { return };
        suspect.is_silent = false;
        if suspect.hold_until_ms <= now_ms {
            (suspect.is_out, suspect.changed_ms) = (false, now_ms);
        }
    }

    /// A node asked or told something. That shows that it lives, not that requests get through to it.
    pub fn heard(&mut self, now_ms: u64, node: NodeId) {
        self.undoubted(node);
        if let Some(suspect) = self.by_node.get_mut(&node) {
            (suspect.is_silent, suspect.heard_ms) = (false, Some(now_ms));
        }
    }

    fn undoubted(&mut self, node: NodeId) {
        if let Some(doubt) = self.doubted.get_mut(&node) {
            doubt.is_over = true;
        }
    }

    /// Whether it is taken for lost by all that is no request. `shown_ms` is its last sign of life, by itself or by others'
    /// word.
    pub fn is_lost(&self, now_ms: u64, node: NodeId, shown_ms: u64) -> bool {
        let suspect = self.by_node.get(&node).filter(|suspect| suspect.is_silent);
        suspect.is_some_and(|suspect| now_ms >= suspect.changed_ms.max(shown_ms) + LOST_AFTER_MS)
    }

    /// A node left a question unanswered.
    pub fn unanswered(&mut self, now_ms: u64, node: NodeId) {
        if self.doubted.remove(&node).is_some_and(|doubt| !doubt.is_over) {
            self.accuse(now_ms, node);
        }
        if let Some(suspect) = self.by_node.get_mut(&node) {
            let lives = suspect.heard_ms.is_some_and(|heard_ms| now_ms < heard_ms + LIFE_MS);
            suspect.is_silent = suspect.is_out && !lives;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: NodeId = NodeId([1; 32]);

    /// Milliseconds from the accusation until it is back, when it answers each question.
    fn out_ms(suspects: &mut Suspects, from_ms: u64) -> u64 {
        suspects.accuse(from_ms, NODE);
        for now_ms in (from_ms..).step_by(100) {
            if !suspects.to_ask(now_ms).is_empty() {
                suspects.answered(now_ms, NODE);
            }
            if !suspects.is_out(NODE) {
                return now_ms - from_ms;
            }
        }
        unreachable!()
    }

    #[test]
    fn each_relapse_doubles_the_time_out_until_all_is_forgiven() {
        let mut suspects = Suspects::default();
        let mut now_ms = 0;
        let mut times = Vec::new();
        for _ in 0..8 {
            let took_ms = out_ms(&mut suspects, now_ms);
            times.push(took_ms);
            now_ms += took_ms + 1;
        }
        let is_about = |(took_ms, hold_ms): (&u64, u64)| (hold_ms..hold_ms + 2 * ASK_MS).contains(took_ms);
        let holds_ms = [0, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000, 8_000];
        assert!(times.iter().zip(holds_ms).all(is_about), "{times:?}");
        suspects.to_ask(now_ms + FORGIVEN_MS);
        assert!(out_ms(&mut suspects, now_ms + FORGIVEN_MS) < 500);
    }

    #[test]
    fn only_who_leaves_a_question_unanswered_is_silent() {
        let mut suspects = Suspects::default();
        suspects.unanswered(0, NODE);
        assert!(!suspects.is_silent(NODE), "nobody accused it");
        suspects.accuse(0, NODE);
        assert_eq!(
            (suspects.to_ask(0), suspects.is_silent(NODE)),
            (vec![NODE], false),
            "it is asked at once"
        );
        suspects.unanswered(500, NODE);
        assert!(suspects.is_silent(NODE) && suspects.is_out(NODE));
        suspects.answered(700, NODE);
        assert!(!suspects.is_silent(NODE) && !suspects.is_out(NODE));
        suspects.accuse(1_000, NODE);
        suspects.unanswered(1_500, NODE);
        suspects.answered(1_500, NODE);
        assert!(
            !suspects.is_silent(NODE) && suspects.is_out(NODE),
            "it lives; plans wait until the hold has passed"
        );
        suspects.answered(2_000, NODE);
        suspects.unanswered(2_000, NODE);
        assert!(!suspects.is_silent(NODE), "a question from before its return");
    }

    #[test]
    fn who_is_doubted_is_out_only_if_it_leaves_its_question_unanswered_and_says_nothing() {
        let mut suspects = Suspects::default();
        suspects.doubt(0, NODE);
        suspects.doubt(10, NODE);
        assert_eq!((suspects.to_ask(10), suspects.to_ask(20)), (vec![NODE], vec![]), "it is asked once");
        assert!(!suspects.is_out(NODE));
        for sign in [Suspects::answered, Suspects::heard] {
            sign(&mut suspects, 100, NODE);
            suspects.unanswered(500, NODE);
            assert!(!suspects.is_out(NODE) && !suspects.is_silent(NODE));
            suspects.doubt(DOUBT_EACH_MS, NODE);
            assert_eq!(suspects.to_ask(DOUBT_EACH_MS), [NODE]);
        }
        suspects.unanswered(DOUBT_EACH_MS + 500, NODE);
        assert!(suspects.is_out(NODE) && suspects.is_silent(NODE));
        suspects.answered(DOUBT_EACH_MS + 800, NODE);
        assert!(!suspects.is_out(NODE));
    }

    #[test]
    fn who_speaks_but_does_not_answer_lives_and_stays_out() {
        let mut suspects = Suspects::default();
        suspects.accuse(0, NODE);
        suspects.heard(300, NODE);
        suspects.unanswered(500, NODE);
        assert!(suspects.is_out(NODE) && !suspects.is_silent(NODE), "its link may be full");
        suspects.unanswered(300 + LIFE_MS, NODE);
        assert!(suspects.is_silent(NODE));
        suspects.heard(1_100, NODE);
        assert!(suspects.is_out(NODE) && !suspects.is_silent(NODE));
    }

    #[test]
    fn who_is_silent_is_lost_unless_others_hear_from_it() {
        let mut suspects = Suspects::default();
        assert!(!suspects.is_lost(LOST_AFTER_MS, NODE, 0), "nobody accused it");
        suspects.accuse(1_000, NODE);
        let lost_ms = 1_000 + LOST_AFTER_MS;
        assert!(!suspects.is_lost(lost_ms, NODE, 0), "it was not asked");
        suspects.unanswered(1_500, NODE);
        assert!(!suspects.is_lost(lost_ms - 1, NODE, 700) && suspects.is_lost(lost_ms, NODE, 700));
        assert!(
            !suspects.is_lost(lost_ms, NODE, 1_700) && suspects.is_lost(1_700 + LOST_AFTER_MS, NODE, 1_700)
        );
        suspects.heard(lost_ms, NODE);
        assert!(!suspects.is_lost(lost_ms, NODE, 700));
    }

    #[test]
    fn a_silent_one_stays_out_and_is_asked_at_a_steady_rate() {
        let mut suspects = Suspects::default();
        suspects.accuse(0, NODE);
        let asked = (0..60_000).step_by(100).filter(|now_ms| !suspects.to_ask(*now_ms).is_empty()).count();
        assert!((190..=240).contains(&asked), "{asked} questions in a minute");
        assert!(suspects.is_out(NODE) && suspects.out() == [NODE]);
        suspects.accuse(59_000, NODE);
        suspects.answered(60_000, NODE);
        assert!(!suspects.is_out(NODE), "accused while out, it is the same outage");
    }

    proptest! {
        #[test]
        fn whatever_happens_an_answer_after_the_longest_hold_brings_anyone_back(
            events in proptest::collection::vec((0..4_000_u64, 0..5_u8, any::<bool>()), 0..200),
        ) {
            let mut suspects = Suspects::default();
            let mut now_ms = 0;
            for (pause_ms, node, is_answer) in events {
                now_ms += pause_ms;
                let node = NodeId([node; 32]);
                if is_answer { suspects.answered(now_ms, node) } else { suspects.accuse(now_ms, node) }
                prop_assert!(is_answer || suspects.is_out(node));
                prop_assert!(!suspects.is_silent(node));
                suspects.to_ask(now_ms);
            }
            now_ms += HOLD_MS.1;
            let mut asked = suspects.to_ask(now_ms);
            asked.sort_unstable();
            prop_assert_eq!(&asked, &suspects.out());
            asked.into_iter().for_each(|node| suspects.answered(now_ms, node));
            prop_assert!(suspects.out().is_empty());
        }

        #[test]
        fn no_more_are_remembered_than_there_is_room_for(count in 1_000..1_300_u32) {
            let mut suspects = Suspects::default();
            for index in 0..count {
                let mut node = [0; 32];
                node[..4].copy_from_slice(&index.to_le_bytes());
                suspects.accuse(u64::from(index), NodeId(node));
            }
            prop_assert!(suspects.out().len() == (count as usize).min(REMEMBERED_MAX));
        }
    }

    #[test]
    fn who_is_known_no_more_is_no_suspect() {
        let mut suspects = Suspects::default();
        let [gone, there] = [1, 2].map(|index| NodeId([index; 32]));
        [gone, there].into_iter().for_each(|node| suspects.accuse(0, node));
        suspects.keep(|node| node == there);
        assert_eq!((suspects.out(), suspects.to_ask(600_000)), (vec![there], vec![there]));
    }
}
