//! Which wishes count, versions, orders that are held, and what was taken back.

use super::named::REPLACED_MS;
use super::orders::{ORDERS_PER_VERSION_MAX, UNKNOWN_VERSIONS_MAX};
use super::*;
use proptest::prelude::*;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::state::{Division, Place, Signed, Topic, Wished};

fn heard(name: &str, publisher: u8, version: u64, removed: bool) -> Heard {
    signed(&wish(name, publisher, version, removed))
}

fn wish(name: &str, publisher: u8, version: u64, removed: bool) -> Deployment {
    let manifest = ObjectRef { id: ObjectId([version as u8; 32]), bytes: 1 };
    let variant = Variant { label: "base".into(), manifest, accuracy: None };
    Deployment {
        name: name.into(),
        version,
        publisher: NodeId([publisher; 32]),
        variants: vec![variant],
        removed,
        removed_unix_s: 0,
        begun_unix_s: 0,
        wished: Wished { replicas: 1, division: Division::Whole },
    }
}

fn signed(deployment: &Deployment) -> Heard {
    let (author, body) = (deployment.publisher, deployment.to_bytes());
    Heard::read(Signed { topic: Topic::Deployment, author, signature: vec![], body }).unwrap()
}

#[test]
fn the_highest_version_counts_and_removal_stays() {
    let mut deployments = Deployments::default();
    assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::News);
    assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::News);
    assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::Old);
    assert_eq!(deployments.apply(&heard("a", 1, 2, true)), Applied::News);
    assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::Old);
    assert!(deployments.by_name("a").is_none());
    assert_eq!(deployments.apply(&heard("a", 1, 3, false)), Applied::News);
    assert_eq!(deployments.by_name("a").unwrap().version, 3);
}

#[test]
fn two_publishers_of_a_name_end_alike_everywhere() {
    for order in [[1, 2], [2, 1]] {
        let mut deployments = Deployments::default();
        for publisher in order {
            deployments.apply(&heard("a", publisher, u64::from(publisher), false));
        }
        assert_eq!(deployments.by_name("a").unwrap().publisher, NodeId([1; 32]));
    }
}

#[test]
fn what_another_lacks_is_told() {
    let (mut a, mut b) = (Deployments::default(), Deployments::default());
    a.apply(&heard("x", 1, 1, false));
    b.apply(&heard("x", 1, 1, false));
    a.apply(&heard("x", 1, 1, true));
    let news = a.unknown_to(&b.digest());
    assert_eq!(news.len(), 1);
    assert_eq!(b.apply(&news[0]), Applied::News);
    assert!(a.unknown_to(&b.digest()).is_empty());
}

fn order(of: &Heard, sequence: u64, steward: u8) -> Heard {
    let Said::Deployment(deployment) = of.said() else { panic!("a wish") };
    let steward = NodeId([steward; 32]);
    let places = vec![Place { node: steward, variant: 0, first: 0, end: 1 }];
    let body = Order { deployment: deployment.id(), sequence, steward, places }.to_bytes();
    Heard::read(Signed { topic: Topic::Order, author: steward, signature: vec![], body }).unwrap()
}

fn version(deployments: &Deployments) -> Option<u64> {
    deployments.serving("a").map(|serving| serving.version)
}

#[test]
fn the_version_before_serves_until_the_newest_is_ready_and_stays_a_while() {
    let mut deployments = Deployments::default();
    deployments.apply(&heard("a", 1, 1, false));
    deployments.settle(0, |_| true);
    deployments.apply(&heard("a", 1, 2, false));
    assert_eq!(version(&deployments), Some(1));
    deployments.settle(1, |known| known.version == 1);
    assert_eq!((version(&deployments), deployments.live().count()), (Some(1), 2));
    // One that never got ready does not push out the one that serves.
    deployments.apply(&heard("a", 1, 3, false));
    assert_eq!((version(&deployments), deployments.live().count()), (Some(1), 2));
    deployments.settle(2, |_| true);
    assert_eq!((version(&deployments), deployments.live().count()), (Some(3), 2));
    // The newest loses its hosts for a moment.
    deployments.settle(3, |known| known.version == 1);
    assert_eq!(version(&deployments), Some(1));
    deployments.settle(4, |_| true);
    deployments.settle(4 + REPLACED_MS, |_| true);
    assert_eq!((version(&deployments), deployments.live().count()), (Some(3), 1));
    deployments.apply(&heard("a", 1, 4, false));
    deployments.apply(&heard("a", 1, 4, true));
    assert_eq!((version(&deployments), deployments.live().count()), (None, 0));
}

#[test]
fn who_joins_between_two_versions_hears_of_the_one_that_serves() {
    for gossiped_first in [None, Some(2)] {
        let (mut one, mut late) = (Deployments::default(), Deployments::default());
        one.apply(&heard("a", 1, 1, false));
        one.settle(0, |_| true);
        one.apply(&heard("a", 1, 2, false));
        one.apply(&order(&heard("a", 1, 1, false), 2, 7));
        one.settle(1, |known| known.version == 1);
        if let Some(version) = gossiped_first {
            late.apply(&heard("a", 1, version, false));
        }
        late.settle(2, |known| known.version == 1);
        (0..2).for_each(|_| exchange(&mut one, &mut late));
        assert_eq!((version(&late), late.live().count()), (Some(1), 2), "{gossiped_first:?}");
        assert_eq!(late.orders(late.live().nth(1).unwrap().id()).len(), 1);
        assert_eq!(one.unknown_to(&late.digest()).len() + late.unknown_to(&one.digest()).len(), 0);
        // Once the newest is ready, nobody tells of the one before, nor hears of it again.
        late.settle(3, |_| true);
        late.settle(3 + REPLACED_MS, |_| true);
        exchange(&mut one, &mut late);
        assert_eq!((version(&late), late.live().count()), (Some(2), 1));
        one.settle(4, |_| true);
        assert_eq!(one.unknown_to(&Deployments::default().digest()).len(), 2, "the newest, and the order");
    }
}

#[test]
fn of_versions_before_the_newest_only_one_that_serves_is_held() {
    let mut deployments = Deployments::default();
    deployments.apply(&heard("a", 1, 4, false));
    assert_eq!(deployments.apply(&heard("a", 2, 3, false)), Applied::Old, "another publisher's");
    assert_eq!(deployments.apply(&heard("a", 1, 3, true)), Applied::Old, "taken back");
    assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::News);
    assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::Old);
    deployments.settle(1, |_| false);
    assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::News);
    assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::Old);
    assert_eq!(deployments.live().map(|known| known.version).collect::<Vec<_>>(), [4, 2]);
    deployments.apply(&heard("a", 1, 4, true));
    assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::Old, "all of it was taken back");
    // Nor one from before the name was deployed anew.
    deployments.apply(&signed(&Deployment { begun_unix_s: TODAY_S, ..wish("a", 1, 5, false) }));
    assert_eq!(deployments.apply(&heard("a", 1, 3, false)), Applied::Old);
    assert_eq!(deployments.live().count(), 1);
}

#[test]
fn where_neither_version_is_ready_the_newest_counts() {
    let mut deployments = Deployments::default();
    deployments.apply(&heard("a", 1, 1, false));
    deployments.apply(&heard("a", 1, 2, false));
    deployments.settle(0, |_| false);
    assert_eq!(version(&deployments), Some(2));
}

#[test]
fn orders_are_held_by_steward_passed_on_and_go_with_their_version() {
    let (mut a, mut b) = (Deployments::default(), Deployments::default());
    let wish = heard("a", 1, 1, false);
    // Before the wish itself.
    assert_eq!(a.apply(&order(&wish, 2, 7)), Applied::News);
    assert_eq!(a.apply(&order(&wish, 2, 7)), Applied::Old);
    assert_eq!(a.apply(&order(&wish, 3, 7)), Applied::News);
    assert_eq!(a.apply(&order(&wish, 2, 8)), Applied::News);
    a.apply(&wish);
    for heard in a.unknown_to(&b.digest()) {
        assert_eq!(b.apply(&heard), Applied::News);
    }
    assert!(a.unknown_to(&b.digest()).is_empty());
    let id = b.by_name("a").unwrap().id();
    assert_eq!(b.orders(id).len(), 2);
    b.forget_orders_below(id, (3, NodeId([7; 32])));
    assert_eq!(b.orders(id).len(), 1);
    b.apply(&heard("a", 1, 1, true));
    assert!(b.orders(id).is_empty());
    assert_eq!(b.apply(&order(&wish, 9, 7)), Applied::Old, "its version is over");
}

#[test]
fn orders_are_bounded() {
    let mut deployments = Deployments::default();
    let wish = heard("a", 1, 1, false);
    deployments.apply(&wish);
    for steward in 2..=20 {
        deployments.apply(&order(&wish, u64::from(steward), steward));
    }
    let id = deployments.by_name("a").unwrap().id();
    let held: Vec<u64> = deployments.orders(id).iter().map(|given| given.order.sequence).collect();
    assert!(held.len() == ORDERS_PER_VERSION_MAX && held.iter().all(|sequence| *sequence > 12), "{held:?}");
    for version in 0..1000 {
        deployments.apply(&order(&heard("b", 1, version, false), 1, 1));
    }
    assert!(deployments.orders.versions() <= UNKNOWN_VERSIONS_MAX + 1);
}

#[test]
fn orders_that_cannot_count_leave_room_for_those_that_may() {
    let mut deployments = Deployments::default();
    let wish = heard("a", 1, 1, false);
    deployments.apply(&wish);
    let id = deployments.by_name("a").unwrap().id();
    deployments.note_stewards(id, [NodeId([7; 32])]);
    let lie = |deployments: &mut Deployments, liar| {
        deployments.apply(&order(&wish, u64::MAX, liar));
    };
    (20..28).for_each(|liar| lie(&mut deployments, liar));
    assert_eq!(deployments.orders(id).len(), ORDERS_PER_VERSION_MAX);
    assert_eq!(deployments.apply(&order(&wish, 2, 7)), Applied::News, "the steward's");
    assert_eq!(deployments.apply(&order(&wish, 1, 1)), Applied::News, "the publisher's first");
    assert_eq!(deployments.apply(&order(&wish, 2, 1)), Applied::News, "the publisher's next is in its place");
    (30..50).for_each(|liar| lie(&mut deployments, liar));
    let held = deployments.orders(id);
    assert!(held.len() == ORDERS_PER_VERSION_MAX && held.iter().any(|given| given.order.steward.0[0] == 7));
}

/// Taken back at a time by its publisher's clock.
fn taken_back(name: &str, version: u64, unix_s: u64) -> Heard {
    signed(&Deployment { removed_unix_s: unix_s, ..wish(name, 1, version, true) })
}

/// What an exchange between two does.
fn exchange(one: &mut Deployments, other: &mut Deployments) {
    for heard in one.unknown_to(&other.digest()) {
        other.apply(&heard);
    }
    for heard in other.unknown_to(&one.digest()) {
        one.apply(&heard);
    }
}

const DAY_MS: u64 = 24 * 3_600_000;
/// A day of the year 2026, seconds since 1970.
const TODAY_S: u64 = 1_790_000_000;

fn on_day(day: u64, all: &mut [&mut Deployments]) {
    let (now_ms, unix_s) = (day * DAY_MS, TODAY_S + day * DAY_MS / 1000);
    all.iter_mut().for_each(|deployments| deployments.note_time(now_ms, unix_s));
}

#[test]
fn what_was_taken_back_takes_no_room_of_what_is_wished() {
    let mut deployments = Deployments::default();
    on_day(0, &mut [&mut deployments]);
    for name in 0..2 * TOMBSTONES_MAX {
        assert!(deployments.has_room());
        assert_eq!(deployments.apply(&heard(&format!("n{name}"), 1, 1, false)), Applied::News);
        let removal = taken_back(&format!("n{name}"), 1, TODAY_S + name as u64);
        assert_eq!(deployments.apply(&removal), Applied::News);
    }
    assert_eq!(deployments.removals().count(), TOMBSTONES_MAX);
    assert!(deployments.known("n255").is_none() && deployments.known("n256").is_some(), "the newest stay");
    // What others remember beyond that is not taken in again and again.
    assert_eq!(deployments.apply(&taken_back("n3", 1, TODAY_S + 3)), Applied::Old);
    for name in 0..DEPLOYMENTS_MAX {
        assert_eq!(deployments.apply(&heard(&format!("live{name}"), 1, 1, false)), Applied::News);
    }
    assert!(!deployments.has_room());
    assert_eq!(deployments.apply(&heard("one-more", 1, 1, false)), Applied::Refused);
    assert_eq!(
        deployments.apply(&heard("n300", 1, 2, false)),
        Applied::Refused,
        "nor in the room of a removal"
    );
    assert_eq!(deployments.apply(&heard("live7", 1, 2, false)), Applied::News);
    assert_eq!(deployments.apply(&taken_back("live7", 2, TODAY_S + 9999)), Applied::News);
    assert_eq!(deployments.apply(&heard("one-more", 1, 1, false)), Applied::News);
    assert_eq!(deployments.removals().count(), TOMBSTONES_MAX);
}

#[test]
fn nothing_returns_from_a_part_of_the_mesh_that_was_away_for_six_days() {
    let (mut one, mut other) = (Deployments::default(), Deployments::default());
    on_day(0, &mut [&mut one, &mut other]);
    for name in 0..TOMBSTONES_MAX {
        one.apply(&heard(&format!("n{name}"), 1, 1, false));
    }
    exchange(&mut one, &mut other);
    assert_eq!(other.live().count(), TOMBSTONES_MAX);
    for name in 0..TOMBSTONES_MAX {
        one.apply(&taken_back(&format!("n{name}"), 1, TODAY_S + name as u64));
    }
    (1..=6).for_each(|day| on_day(day, &mut [&mut one, &mut other]));
    exchange(&mut one, &mut other);
    assert_eq!((one.live().count(), other.live().count()), (0, 0));
    assert_eq!(other.removals().count(), TOMBSTONES_MAX);
}

#[test]
fn a_clock_that_is_ahead_does_not_bring_back_what_others_take_back_later() {
    let (mut one, mut other) = (Deployments::default(), Deployments::default());
    on_day(0, &mut [&mut one, &mut other]);
    for name in 0..TOMBSTONES_MAX {
        let ahead_s = one.next_removal_s(TODAY_S + 400 * DAY_MS / 1000);
        one.apply(&taken_back(&format!("n{name}"), 1, ahead_s));
    }
    one.apply(&heard("last", 1, 1, false));
    exchange(&mut one, &mut other);
    // By a right clock, and by one of 1970.
    for (version, unix_s) in [(1, TODAY_S), (2, 0)] {
        one.apply(&heard("last", 1, version, false));
        exchange(&mut one, &mut other);
        let removal = taken_back("last", version, one.next_removal_s(unix_s));
        assert_eq!(one.apply(&removal), Applied::News);
        exchange(&mut one, &mut other);
        let is_over = |deployments: &Deployments| deployments.known("last").is_some_and(|wish| wish.removed);
        assert!(is_over(&one) && is_over(&other), "version {version}");
    }
}

#[test]
fn after_a_week_all_forget_though_they_tell_each_other() {
    let (mut one, mut other) = (Deployments::default(), Deployments::default());
    on_day(0, &mut [&mut one, &mut other]);
    one.apply(&heard("a", 1, 1, false));
    one.apply(&taken_back("a", 1, TODAY_S));
    // The other hears of it three days later, and so keeps it for longer.
    on_day(3, &mut [&mut one, &mut other]);
    exchange(&mut one, &mut other);
    on_day(8, &mut [&mut one, &mut other]);
    assert!(one.known("a").is_none() && other.known("a").is_some());
    exchange(&mut one, &mut other);
    assert!(one.known("a").is_none(), "it is not told round for ever");
    on_day(11, &mut [&mut one, &mut other]);
    assert!(other.known("a").is_none());
}

#[test]
fn a_wrong_clock_brings_nothing_back() {
    let (mut one, mut wrong) = (Deployments::default(), Deployments::default());
    one.note_time(0, TODAY_S);
    // Ten years ahead.
    wrong.note_time(0, TODAY_S + 3650 * DAY_MS / 1000);
    one.apply(&heard("a", 1, 1, false));
    exchange(&mut one, &mut wrong);
    one.apply(&taken_back("a", 1, TODAY_S));
    exchange(&mut one, &mut wrong);
    wrong.note_time(DAY_MS, TODAY_S + 3651 * DAY_MS / 1000);
    assert!(wrong.known("a").is_some_and(|known| known.removed));
    // One that was told nothing yet hears of it in the old state first.
    let mut late = Deployments::default();
    late.note_time(0, TODAY_S + 3650 * DAY_MS / 1000);
    late.apply(&heard("a", 1, 1, false));
    exchange(&mut one, &mut late);
    assert!(late.by_name("a").is_none());
}

/// What the publisher, node 1, says with its next `deploy`.
fn deployed(publisher: &mut Deployments, unix_s: u64, replicas: u16) -> Heard {
    deployed_by(1, publisher, unix_s, replicas)
}

/// As [`deployed`], by another node, which has heard so much.
fn deployed_by(node: u8, publisher: &mut Deployments, unix_s: u64, replicas: u16) -> Heard {
    let Next { version, begun_unix_s } = publisher.next("a", NodeId([node; 32]), unix_s);
    let wished = Wished { replicas, division: Division::Whole };
    let said = signed(&Deployment { begun_unix_s, wished, ..wish("a", node, version, false) });
    assert_eq!(publisher.apply(&said), Applied::News);
    said
}

/// What it says with `undeploy`.
fn undeployed(publisher: &mut Deployments, unix_s: u64) -> Heard {
    let known = publisher.by_name("a").unwrap().clone();
    let said = signed(&Deployment { removed: true, removed_unix_s: unix_s, ..known });
    assert_eq!(publisher.apply(&said), Applied::News);
    said
}

fn state(deployments: &Deployments) -> Option<(u64, u64, u16)> {
    deployments.by_name("a").map(|known| (known.version, known.begun_unix_s, known.wished.replicas))
}

#[test]
fn a_removal_that_only_one_remembers_takes_nothing_new_away() {
    // Five versions and no time, as earlier versions of this program said it, or with one.
    for (has_time, versions) in [(false, 5), (true, 5), (true, 1)] {
        let (mut one, mut away) = (Deployments::default(), Deployments::default());
        on_day(0, &mut [&mut one, &mut away]);
        match has_time {
            true => (0..versions).for_each(|_| drop(deployed(&mut one, TODAY_S, 1))),
            false => assert_eq!(one.apply(&heard("a", 1, versions, false)), Applied::News),
        }
        exchange(&mut one, &mut away);
        undeployed(&mut one, TODAY_S + 1);
        exchange(&mut one, &mut away);
        assert!(away.known("a").is_some_and(|known| known.removed && known.version == versions));
        on_day(8, &mut [&mut one]);
        let again_s = TODAY_S + 8 * DAY_MS / 1000;
        deployed(&mut one, again_s, 2);
        assert_eq!(state(&one), Some((1, again_s, 2)), "versions begin anew");
        // Off meanwhile: to itself it is still the day when it heard of it, whatever its wall clock says.
        away.note_time(0, again_s);
        exchange(&mut one, &mut away);
        exchange(&mut away, &mut one);
        assert_eq!([state(&one), state(&away)], [Some((1, again_s, 2)); 2]);
        // And the new one can be taken back, and deployed at once again.
        undeployed(&mut one, again_s);
        exchange(&mut one, &mut away);
        assert_eq!([state(&one), state(&away)], [None; 2]);
        deployed(&mut one, again_s, 1);
        exchange(&mut away, &mut one);
        assert_eq!([state(&one), state(&away)], [Some((2, again_s, 1)); 2]);
    }
}

#[test]
fn a_deployment_that_only_one_remembers_takes_nothing_new_away() {
    // The same model in the same version too, which has the same id.
    for versions in [1, 5] {
        let (mut one, mut away) = (Deployments::default(), Deployments::default());
        on_day(0, &mut [&mut one, &mut away]);
        (0..versions).for_each(|_| drop(deployed(&mut one, TODAY_S, 1)));
        exchange(&mut one, &mut away);
        undeployed(&mut one, TODAY_S + 1);
        on_day(8, &mut [&mut one, &mut away]);
        let again_s = TODAY_S + 8 * DAY_MS / 1000;
        deployed(&mut one, again_s, 2);
        exchange(&mut away, &mut one);
        assert_eq!([state(&one), state(&away)], [Some((1, again_s, 2)); 2]);
        assert_eq!([one.live().count(), away.live().count()], [1; 2], "nor is it a version before");
        assert_eq!(one.unknown_to(&away.digest()).len() + away.unknown_to(&one.digest()).len(), 0);
    }
}

fn publisher(deployments: &Deployments) -> Option<u8> {
    deployments.by_name("a").map(|known| known.publisher.0[0])
}

#[test]
fn a_name_that_was_taken_back_or_over_is_the_last_ones_that_claimed_it() {
    // Whoever has the smaller id, and whether the first took it back.
    for ([first, second], is_taken_back) in [([1, 2], true), ([2, 1], true), ([1, 2], false), ([2, 1], false)]
    {
        let (mut one, mut away) = (Deployments::default(), Deployments::default());
        let before = deployed_by(first, &mut one, TODAY_S, 1);
        away.apply(&before);
        if is_taken_back {
            undeployed(&mut one, TODAY_S + 1);
        }
        let taken = deployed_by(second, &mut one, TODAY_S + 2, 1);
        assert_eq!(publisher(&one), Some(second));
        // One that was away knows the first's alone, and tells it round.
        exchange(&mut away, &mut one);
        exchange(&mut one, &mut away);
        assert_eq!([publisher(&one), publisher(&away)], [Some(second); 2]);
        assert_eq!((one.apply(&before), one.live().count()), (Applied::Old, 1));
        // The first may have it again once the second took it back, also by a clock that stands still.
        undeployed(&mut one, TODAY_S + 2);
        let again = deployed_by(first, &mut one, TODAY_S, 1);
        away.apply(&again);
        assert_eq!([away.apply(&taken), away.apply(&before)], [Applied::Old; 2]);
        assert_eq!(publisher(&away), Some(first));
    }
}

#[test]
fn two_that_claim_a_name_at_the_same_moment_end_alike_everywhere() {
    let mut known = Deployments::default();
    deployed_by(9, &mut known, TODAY_S, 1);
    let removal = undeployed(&mut known, TODAY_S);
    let [one, other] = [3, 4].map(|node| {
        let mut half = Deployments::default();
        half.apply(&removal);
        deployed_by(node, &mut half, TODAY_S + 5, 1)
    });
    for order in [[&one, &other, &removal], [&other, &one, &removal], [&removal, &other, &one]] {
        let mut deployments = Deployments::default();
        for heard in order {
            deployments.apply(heard);
        }
        assert_eq!(publisher(&deployments), Some(3));
    }
}

#[test]
fn a_clock_that_goes_backwards_changes_no_order_of_versions() {
    let mut deployments = Deployments::default();
    deployed(&mut deployments, TODAY_S, 1);
    deployed(&mut deployments, 7, 1);
    assert_eq!(state(&deployments), Some((2, TODAY_S, 1)));
    undeployed(&mut deployments, 7);
    deployed(&mut deployments, 8, 1);
    assert_eq!(state(&deployments), Some((3, TODAY_S, 1)));
}

#[test]
fn a_removal_long_over_takes_nothing_of_another_publisher_away() {
    let (mut one, mut away) = (Deployments::default(), Deployments::default());
    on_day(0, &mut [&mut one, &mut away]);
    away.apply(&taken_back("a", 5, TODAY_S));
    on_day(8, &mut [&mut one]);
    away.note_time(0, TODAY_S + 8 * DAY_MS / 1000);
    deployed_by(2, &mut one, TODAY_S + 8 * DAY_MS / 1000, 1);
    exchange(&mut away, &mut one);
    assert_eq!([publisher(&one), publisher(&away)], [Some(2); 2]);
}

#[test]
fn what_comes_back_from_before_a_name_was_forgotten_takes_nothing_away() {
    // Whether what comes back is wished or taken back.
    for is_wished in [true, false] {
        let (mut before, mut away) = (Deployments::default(), Deployments::default());
        deployed_by(2, &mut before, TODAY_S, 1);
        undeployed(&mut before, TODAY_S + 1);
        let wished = deployed_by(1, &mut before, TODAY_S + 2, 1);
        let removed = undeployed(&mut before, TODAY_S + 3);
        away.apply(if is_wished { &wished } else { &removed });
        // Behind many other removals, say.
        let mut after = Deployments::default();
        deployed_by(2, &mut after, TODAY_S + 9, 1);
        exchange(&mut after, &mut away);
        exchange(&mut away, &mut after);
        assert_eq!([publisher(&after), publisher(&away)], [Some(2); 2]);
    }
}

#[test]
fn a_name_is_taken_over_also_by_a_node_whose_clock_is_days_behind() {
    let behind_s = TODAY_S - 10 * DAY_MS / 1000;
    let (mut wrong, mut right) = (Deployments::default(), Deployments::default());
    wrong.note_time(0, behind_s);
    right.note_time(0, TODAY_S);
    let wish = deployed_by(1, &mut right, TODAY_S, 1);
    wrong.apply(&wish);
    let Next { version, begun_unix_s } = wrong.next("a", NodeId([2; 32]), behind_s);
    let known = wrong.by_name("a").unwrap().clone();
    let publisher = NodeId([2; 32]);
    let removal = signed(&Deployment {
        publisher,
        version,
        begun_unix_s,
        removed: true,
        removed_unix_s: behind_s,
        ..known
    });
    assert_eq!([wrong.apply(&removal), right.apply(&removal)], [Applied::News; 2]);
    assert!(wrong.by_name("a").is_none() && right.by_name("a").is_none());
    assert_eq!([wrong.apply(&wish), right.apply(&wish)], [Applied::Old; 2]);
}

#[test]
fn two_that_take_the_last_room_end_alike_everywhere() {
    let (mut one, mut other) = (Deployments::default(), Deployments::default());
    for name in 1..DEPLOYMENTS_MAX {
        one.apply(&heard(&format!("n{name}"), 1, 1, false));
    }
    exchange(&mut one, &mut other);
    let last =
        |name, publisher| signed(&Deployment { begun_unix_s: TODAY_S, ..wish(name, publisher, 1, false) });
    assert_eq!([one.apply(&last("xa", 1)), other.apply(&last("xb", 2))], [Applied::News; 2]);
    exchange(&mut one, &mut other);
    exchange(&mut other, &mut one);
    let names = |all: &Deployments| all.newest().map(|wish| wish.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    assert_eq!(names(&one).len(), DEPLOYMENTS_MAX);
    assert!(one.by_name("xa").is_some());
}

/// Any wish for one name, also two of one version that differ, as from a data folder that was put back.
fn any_wish() -> impl Strategy<Value = Heard> {
    (1u8..4, 0u64..3, 1u64..4, any::<bool>(), 1u16..3).prop_map(
        |(publisher, begun_unix_s, version, removed, replicas)| {
            let wished = Wished { replicas, division: Division::Whole };
            signed(&Deployment { begun_unix_s, wished, ..wish("a", publisher, version, removed) })
        },
    )
}

proptest! {
    /// Two nodes that heard different things in any order say the same once they told each other.
    #[test]
    fn all_agree_whatever_they_heard_first(
        first in proptest::collection::vec(any_wish(), 0..8), second in proptest::collection::vec(any_wish(), 0..8),
    ) {
        let (mut one, mut other) = (Deployments::default(), Deployments::default());
        for heard in &first {
            one.apply(heard);
        }
        for heard in &second {
            other.apply(heard);
        }
        exchange(&mut one, &mut other);
        exchange(&mut other, &mut one);
        prop_assert_eq!(one.known("a"), other.known("a"));
        // And hears of the same whoever hears all of it, backwards.
        let mut late = Deployments::default();
        for heard in second.iter().rev().chain(first.iter().rev()) {
            late.apply(heard);
        }
        prop_assert_eq!(late.known("a"), one.known("a"));
    }
}
