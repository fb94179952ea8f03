//! Views by themselves: which record counts, who is told of, what is remembered.

use super::*;
use crate::mesh::member::testing::{id, record_of, said_by, signed};

const OWN: NodeId = NodeId([200; 32]);

fn view() -> View {
    View::new(OWN)
}

fn heard(node: u8, generation: u64, sequence: u64) -> Heard {
    said_by(id(node), generation, sequence)
}

fn held(node: u8, generation: u64, sequence: u64, beat: u64) -> Held {
    Held { node: id(node).into(), stamp: Stamp { generation, sequence }, beat }
}

/// A view that knows a node to live.
fn knowing(node: u8) -> View {
    let mut view = view();
    view.apply(0, &heard(node, 1, 1), Some(1));
    view.hear(0, &[held(node, 1, 1, 1)]);
    view.show(0, id(node));
    view
}

fn numbered(index: u32) -> NodeId {
    let mut id = [9; 32];
    id[..4].copy_from_slice(&index.to_be_bytes());
    NodeId(id)
}

#[test]
fn the_newest_record_wins_whatever_the_order() {
    let mut view = view();
    assert_eq!(view.apply(0, &heard(1, 1, 5), None), Applied::News);
    assert_eq!(view.apply(1, &heard(1, 1, 4), None), Applied::Old);
    assert_eq!(view.apply(1, &heard(1, 1, 5), None), Applied::Old);
    assert_eq!(view.apply(2, &heard(1, 2, 0), None), Applied::News);
    assert_eq!(view.get(id(1)).unwrap().record.stamp, Stamp { generation: 2, sequence: 0 });
}

#[test]
fn nobody_speaks_for_another() {
    let record = heard(1, 1, 1).signed().as_ref().clone();
    assert!(Heard::read(stormo_protocol::state::Signed { author: id(2), ..record }).is_none());
    assert_eq!(view().apply(0, &said_by(OWN, 9, 9), None), Applied::Old, "nor for this node");
}

#[test]
fn records_alone_are_no_signs_of_life() {
    let mut view = view();
    for sequence in 1..50 {
        view.apply(sequence * 100, &heard(1, 1, sequence), None);
        assert!(!view.is_usable(sequence * 100, id(1)));
    }
    view.hear(5_000, &[held(1, 1, 49, 7)]);
    assert!(!view.is_usable(5_000, id(1)), "of whatever age");
    view.hear(5_100, &[held(1, 1, 49, 8)]);
    assert!(view.is_usable(5_100, id(1)));
}

#[test]
fn a_heartbeat_counts_in_its_generation() {
    let mut view = knowing(1);
    view.hear(1_000, &[held(1, 2, 0, 500)]);
    assert_eq!(view.get(id(1)).unwrap().heard_ms, 0);
    view.apply(2_000, &heard(1, 2, 1), Some(3));
    view.hear(2_000, &[held(1, 2, 1, 3)]);
    view.hear(3_000, &[held(1, 2, 1, 4), held(3, 1, 1, 1)]);
    assert_eq!(view.get(id(1)).unwrap().heard_ms, 3_000);
}

#[test]
fn who_leaves_is_used_no_more_and_not_looked_for() {
    let mut view = knowing(1);
    assert!(view.is_usable(0, id(1)));
    let mut record = record_of(id(1), 1, 2);
    record.load.leaving = true;
    view.apply(1, &Heard::read(signed(&record)).unwrap(), None);
    assert!(!view.is_usable(1, id(1)));
    view.lost(2, id(1));
    assert_eq!(view.missing().count(), 0);
    assert_eq!(view.look(FORGET_MS), vec![id(1)]);
    assert_eq!(view.missing().count(), 0);
}

#[test]
fn the_forgotten_are_looked_for_and_come_back_by_a_newer_heartbeat_only() {
    let mut view = knowing(1);
    view.hear(0, &[held(1, 1, 1, 5)]);
    assert!(view.look(FORGET_MS - 1).is_empty() && view.missing().count() == 1);
    assert_eq!(view.look(FORGET_MS), vec![id(1)]);
    let missing: Vec<_> = view.missing().map(|(node, addresses, _)| (node, addresses.len())).collect();
    assert_eq!(missing, [(id(1), 1)]);
    // Up to 15 it may have given before it fell silent, with a record that did not come here.
    for (sequence, beat) in [(1, None), (1, Some(4)), (1, Some(5)), (1, Some(15)), (2, None), (2, Some(15))] {
        assert_eq!(view.apply(FORGET_MS, &heard(1, 1, sequence), beat), Applied::Old);
    }
    assert_eq!(view.apply(FORGET_MS, &heard(1, 1, 1), Some(65)), Applied::News);
    view.hear(FORGET_MS, &[held(1, 1, 1, 65)]);
    assert!(view.is_usable(FORGET_MS, id(1)), "it lived on");
    assert_eq!(view.missing().count(), 0);
}

/// Its machine slept, and its clock with it: its heartbeats go on where they were.
#[test]
fn a_forgotten_one_is_believed_over_a_connection_to_it() {
    let mut view = knowing(1);
    view.hear(0, &[held(1, 1, 1, 5)]);
    view.look(FORGET_MS);
    assert_eq!(view.apply(FORGET_MS, &heard(1, 1, 1), Some(6)), Applied::Old);
    view.connected(FORGET_MS, id(1));
    assert_eq!(view.apply(FORGET_MS, &heard(1, 1, 1), Some(6)), Applied::News);
}

#[test]
fn views_and_what_they_remember_are_bounded() {
    let mut view = view();
    let all = VIEW_RECORDS_MAX as u32;
    for index in 0..all {
        assert_eq!(view.apply(u64::from(index), &said_by(numbered(index), 1, 1), None), Applied::News);
    }
    assert_eq!(view.apply(0, &said_by(numbered(all), 1, 1), None), Applied::Refused);
    let later_ms = FORGET_MS + u64::from(all);
    assert_eq!(view.look(later_ms).len(), all as usize);
    view.apply(later_ms, &said_by(numbered(all), 1, 1), None);
    view.look(later_ms + FORGET_MS);
    assert_eq!((view.gone.len(), view.gone.contains_key(&numbered(0))), (all as usize, false));
}

#[test]
fn a_comparison_finds_what_either_lacks() {
    let mut ours = view();
    for node in 1..=4 {
        ours.apply(0, &heard(node, 1, 5), Some(10));
        ours.hear(0, &[held(node, 1, 5, 10)]);
    }
    let own = said_by(OWN, 1, 1);
    let own = Some(Own { heard: &own, stamp: Stamp { generation: 1, sequence: 1 }, beat: 3 });
    // 1 is older there, 2 has a newer heartbeat there, 3 an older one, 4 is unknown there, 5 here.
    let theirs =
        [held(1, 1, 4, 99), held(2, 1, 5, 11), held(3, 1, 5, 9), held(5, 1, 1, 1), held(255, 1, 1, 1)];
    let difference = ours.compare(own, &theirs);
    let told: Vec<NodeId> = difference.heard.iter().map(|heard| heard.signed().author).collect();
    assert_eq!(told, [id(1), id(4), OWN]);
    let beats: Vec<ShortId> = difference.beats.iter().map(|held| held.node).collect();
    assert_eq!(beats, [id(1), id(3), id(4), OWN].map(ShortId::from));
    assert_eq!(difference.wanted, [id(5), id(255)].map(ShortId::from));
    let newer = ours.compare(own, &[held(4, 1, 6, 1)]);
    assert_eq!(newer.wanted, [ShortId::from(id(4))]);
    assert_eq!(ours.digest(own).len(), 5);
}

#[test]
fn the_dead_are_not_told_of() {
    let mut view = knowing(1);
    view.look(30_000);
    assert_eq!(view.get(id(1)).unwrap().belief(), Belief::Silent);
    let digest = view.digest(None);
    assert_eq!(digest, [held(1, 1, 1, 0)]);
    let difference = view.compare(None, &[]);
    assert!(difference.heard.is_empty() && difference.beats.is_empty());
    // Who does not know it does not ask for it, and who believes in it says its heartbeat, not its record.
    assert!(self::view().compare(None, &digest).wanted.is_empty());
    let mut other = knowing(1);
    other.hear(0, &[held(1, 1, 1, 5)]);
    let difference = other.compare(None, &digest);
    assert_eq!((difference.heard.len(), difference.beats), (0, vec![held(1, 1, 1, 5)]));
    view.hear(30_000, &[held(1, 1, 1, 5)]);
    assert!(view.is_usable(30_000, id(1)), "it lives, after all");
}

#[test]
fn an_answer_comes_in_pages() {
    let mut view = view();
    for index in 0..EXCHANGE_RECORDS_MAX as u32 + 1 {
        view.apply(0, &said_by(numbered(index), 1, 1), None);
    }
    let first = view.compare(None, &[]);
    assert_eq!(
        (first.heard.len(), first.beats.len(), first.more),
        (EXCHANGE_RECORDS_MAX, EXCHANGE_RECORDS_MAX, true)
    );
    let second = view.compare(None, &first.beats);
    assert_eq!((second.heard.len(), second.more), (1, false));
}
