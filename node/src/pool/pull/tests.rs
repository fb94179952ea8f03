//! Schedules of answers, breaks and lies against the planner of pulls.

use proptest::prelude::*;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::limits::OBJECT_GROUP_BYTES;

use super::*;

fn object(groups: u64) -> ObjectRef {
    ObjectRef { id: ObjectId([groups as u8; 32]), bytes: groups * OBJECT_GROUP_BYTES }
}

fn peers(count: u8) -> Vec<NodeId> {
    (0..count).map(|index| NodeId([index; 32])).collect()
}

fn orders(pull: &mut Pull, now_ms: u64) -> Vec<Order> {
    let mut orders = Vec::new();
    while let Next::Ask(order) = pull.next(now_ms) {
        orders.push(order);
        assert!(orders.len() <= LANES_MAX, "more questions at once than allowed");
    }
    orders
}

fn finish(pull: &mut Pull, order: Order, now_ms: u64) {
    match order.part {
        Part::Outline => pull.outlined(order.ticket, now_ms),
        Part::Groups { first, count } => {
            (first..first + count).for_each(|group| {
                pull.got(order.ticket, group, now_ms);
            });
        }
    }
    pull.ended(order.ticket, End::Finished, now_ms);
}

#[test]
fn an_outline_comes_first_and_then_all_peers_are_used() {
    let mut pull = Pull::new(&[object(64)], &peers(2));
    let first = orders(&mut pull, 0);
    assert_eq!(first.iter().map(|order| order.part).collect::<Vec<_>>(), [Part::Outline]);
    finish(&mut pull, first[0], 1);
    let runs = orders(&mut pull, 1);
    assert_eq!(runs.len(), LANES_MAX);
    for peer in peers(2) {
        assert_eq!(runs.iter().filter(|order| order.peer == peer).count(), LANES_PER_PEER_MAX);
    }
    // The second one has brought nothing so far.
    assert_eq!(pull.next(1), Next::Wait(Some(1 + DOUBLE_UNPROVEN_AFTER_MS)));
}

#[test]
fn small_objects_are_pulled_several_at_once() {
    let mut pull = Pull::new(&[object(1), object(1), object(1)], &peers(1));
    let asked = orders(&mut pull, 0);
    assert_eq!(asked.iter().map(|order| order.goal).collect::<Vec<_>>(), [0, 1, 2]);
    asked.into_iter().for_each(|order| finish(&mut pull, order, 1));
    assert_eq!(pull.next(1), Next::Done);
}

#[test]
fn what_a_liar_brought_before_stays_and_the_rest_comes_from_another() {
    let mut pull = Pull::new(&[object(16)], &peers(2));
    let outline = orders(&mut pull, 0)[0];
    finish(&mut pull, outline, 0);
    let asked = orders(&mut pull, 0);
    let lie = asked[0];
    let Part::Groups { first, count } = lie.part else { panic!("{lie:?}") };
    assert!(count > 1);
    assert_eq!(pull.got(lie.ticket, first, 1), Noted { fresh: true, complete: false });
    pull.ended(lie.ticket, End::Wrong, 1);
    asked[1..].iter().for_each(|order| finish(&mut pull, *order, 2));
    while let Next::Ask(order) = pull.next(2) {
        assert_ne!(order.peer, lie.peer, "a liar is not asked again");
        assert_ne!(order.part, lie.part);
        finish(&mut pull, order, 2);
    }
    assert_eq!(pull.next(2), Next::Done);
}

#[test]
fn a_peer_that_breaks_off_is_asked_again_later_and_given_up_in_the_end() {
    let mut pull = Pull::new(&[object(1)], &peers(1));
    let mut now_ms = 0;
    for round in 1..=BREAKS_MAX {
        let asked = orders(&mut pull, now_ms);
        assert_eq!(asked.len(), 1);
        pull.ended(asked[0].ticket, End::Broken, now_ms);
        match pull.next(now_ms) {
            Next::Wait(Some(wake_ms)) if round < BREAKS_MAX => now_ms = wake_ms,
            Next::Failed(0) if round == BREAKS_MAX => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
    assert_eq!(pull.fates(0), [(NodeId([0; 32]), Fate::Broke)]);
}

#[test]
fn a_peer_that_lacks_one_object_still_gives_the_other() {
    let mut pull = Pull::new(&[object(1), object(1)], &peers(1));
    let asked = orders(&mut pull, 0);
    pull.ended(asked[0].ticket, End::NotThere, 0);
    assert_eq!(pull.next(0), Next::Failed(0));
    assert_eq!(pull.fates(0)[0].1, Fate::Lacks);
    assert_eq!(pull.fates(1)[0].1, Fate::Fine);
}

#[test]
fn what_stalls_at_the_end_is_asked_of_another_peer_too() {
    let mut pull = Pull::new(&[object(1), object(1), object(1)], &peers(2));
    let asked = orders(&mut pull, 0);
    let stalled = asked[0];
    assert_eq!(asked[2].peer, stalled.peer);
    asked[1..].iter().for_each(|order| finish(&mut pull, *order, 0));
    assert_eq!(pull.next(0), Next::Wait(Some(DOUBLE_AFTER_MS)));
    let Next::Ask(double) = pull.next(DOUBLE_AFTER_MS) else { panic!("nothing is doubled") };
    assert_ne!(double.peer, stalled.peer);
    assert!(pull.got(double.ticket, 0, 2100).complete);
    assert!(!pull.got(stalled.ticket, 0, 2200).fresh);
    assert_eq!(pull.next(2200), Next::Done);
}

#[test]
fn a_peer_that_brings_nothing_costs_a_moment_and_is_asked_for_nothing_more() {
    let objects: Vec<ObjectRef> = (0..20).map(|_| object(1)).collect();
    let (mut pull, frozen) = (Pull::new(&objects, &peers(3)), peers(1)[0]);
    let bring = |pull: &mut Pull, now_ms| {
        let mut vain = 0;
        loop {
            let asked = orders(pull, now_ms);
            vain += asked.iter().filter(|order| order.peer == frozen).count();
            let (_, others): (Vec<Order>, Vec<Order>) =
                asked.into_iter().partition(|order| order.peer == frozen);
            if others.is_empty() {
                return vain;
            }
            others.into_iter().for_each(|order| finish(pull, order, now_ms));
        }
    };
    assert!((1..=LANES_PER_PEER_MAX).contains(&bring(&mut pull, 0)));
    assert_eq!(pull.next(0), Next::Wait(Some(DOUBLE_UNPROVEN_AFTER_MS)));
    assert_eq!(bring(&mut pull, DOUBLE_UNPROVEN_AFTER_MS), 0);
    assert_eq!(pull.next(DOUBLE_UNPROVEN_AFTER_MS), Next::Done);
}

#[test]
fn what_an_earlier_run_left_is_not_asked_for() {
    let mut pull = Pull::new(&[object(4)], &peers(1));
    assert!(!pull.found(0, &[0, 1, 3]));
    let asked = orders(&mut pull, 0);
    assert_eq!(
        asked.iter().map(|order| order.part).collect::<Vec<_>>(),
        [Part::Groups { first: 2, count: 1 }]
    );
    assert!(pull.got(asked[0].ticket, 2, 0).complete);
}

#[test]
fn without_peers_it_fails_at_once() {
    assert_eq!(Pull::new(&[object(1)], &[]).next(0), Next::Failed(0));
    assert_eq!(Pull::new(&[], &[]).next(0), Next::Done);
}

/// How an honest world could answer the next question under way.
#[derive(Debug, Clone, Copy)]
enum Fortune {
    Come,
    ComeInPart(End),
    End(End),
    Late(u64),
}

fn fortune() -> impl Strategy<Value = Fortune> {
    let end = prop_oneof![
        1 => Just(End::NotThere),
        1 => Just(End::Busy),
        1 => Just(End::Wrong),
        4 => Just(End::Broken),
    ];
    prop_oneof![
        6 => Just(Fortune::Come),
        2 => end.clone().prop_map(Fortune::ComeInPart),
        2 => end.prop_map(Fortune::End),
        2 => (0u64..4000).prop_map(Fortune::Late),
    ]
}

/// Plays a schedule, then goes on with its last fortune for ever; gives the questions asked.
fn play(pull: &mut Pull, schedule: &[(Fortune, usize)], last: End, asked_max: usize) -> (Next, usize) {
    let (mut now_ms, mut asked) = (0, 0);
    let mut under_way: Vec<Order> = Vec::new();
    let mut fortunes = schedule.iter().copied();
    loop {
        match pull.next(now_ms) {
            Next::Ask(order) => {
                under_way.push(order);
                asked += 1;
                assert!(under_way.len() <= LANES_MAX && asked <= asked_max, "{asked} questions");
                continue;
            }
            Next::Wait(wake_ms) if under_way.is_empty() => {
                now_ms = wake_ms.expect("nothing under way and nothing to wait for");
                continue;
            }
            Next::Wait(_) => {}
            end @ (Next::Done | Next::Failed(_)) => return (end, asked),
        }
        let (fortune, pick) = fortunes.next().unwrap_or((Fortune::End(last), 0));
        if let Fortune::Late(ms) = fortune {
            now_ms += ms;
            continue;
        }
        let order = under_way.swap_remove(pick % under_way.len());
        match (fortune, order.part) {
            (Fortune::Come, _) | (Fortune::End(End::Finished), _) => finish(pull, order, now_ms),
            (Fortune::ComeInPart(end), Part::Groups { first, .. }) => {
                pull.got(order.ticket, first, now_ms);
                pull.ended(order.ticket, end, now_ms);
            }
            (Fortune::ComeInPart(end) | Fortune::End(end), _) => pull.ended(order.ticket, end, now_ms),
            (Fortune::Late(_), _) => {}
        }
    }
}

proptest! {
    #[test]
    fn any_schedule_ends_with_everything_or_a_reason_in_bounded_questions(
        sizes in proptest::collection::vec(1u64..24, 1..6),
        count in 0u8..5,
        schedule in proptest::collection::vec((fortune(), any::<usize>()), 0..200),
        last in prop_oneof![Just(End::Finished), Just(End::Broken), Just(End::Wrong), Just(End::Busy)],
    ) {
        let objects: Vec<ObjectRef> = sizes.iter().map(|size| object(*size)).collect();
        let mut pull = Pull::new(&objects, &peers(count));
        let units: usize = sizes.iter().map(|size| *size as usize + 1).sum();
        // Each peer may fail so often in a row between two new units, on all of its lanes.
        let failures = LANES_PER_PEER_MAX * (BREAKS_MAX + BUSY_MAX) as usize + sizes.len() + 1;
        let asked_max = 2 * units + usize::from(count) * failures * (units + 1);
        let (end, _) = play(&mut pull, &schedule, last, asked_max);
        match end {
            Next::Done => prop_assert!(pull.goals.iter().all(|goal| goal.groups.iter().all(|unit| *unit == Unit::Here))),
            Next::Failed(goal) => {
                prop_assert!(pull.fates(goal).iter().all(|(_, fate)| *fate != Fate::Fine));
                prop_assert!(pull.goals[goal].left > 0);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn one_honest_peer_is_enough(
        sizes in proptest::collection::vec(1u64..24, 1..6),
        schedule in proptest::collection::vec(prop_oneof![
            Just(End::NotThere), Just(End::Wrong), Just(End::Broken), Just(End::Busy)], 0..60),
    ) {
        let objects: Vec<ObjectRef> = sizes.iter().map(|size| object(*size)).collect();
        let mut pull = Pull::new(&objects, &peers(3));
        let mut lies = schedule.into_iter();
        let mut now_ms = 0;
        loop {
            match pull.next(now_ms) {
                Next::Ask(order) if order.peer == NodeId([2; 32]) => finish(&mut pull, order, now_ms),
                Next::Ask(order) => pull.ended(order.ticket, lies.next().unwrap_or(End::Broken), now_ms),
                Next::Wait(wake_ms) => now_ms = wake_ms.expect("something to wait for"),
                Next::Done => break,
                Next::Failed(goal) => prop_assert!(false, "object {goal} failed"),
            }
        }
    }
}
