//! A member by itself: what it does when, and what it answers.

use super::testing::{about, address, exchange, id, member, said_by, sign, started};
use super::*;
use stormo_protocol::ids::{DeploymentId, ObjectId, VariantId};
use stormo_protocol::model::ObjectRef;
use stormo_protocol::state::{Deployment, Division, Hosted, Signed, Topic, Variant, Wished};

use crate::mesh::FORGET_MS;

fn wish(removed: bool) -> Heard {
    let manifest = ObjectRef { id: ObjectId([1; 32]), bytes: 1 };
    let variants = vec![Variant { label: "base".into(), manifest, accuracy: None }];
    let wished = Wished { replicas: 1, division: Division::Whole };
    let deployment = Deployment {
        name: "digits".into(),
        version: 1,
        publisher: id(1),
        variants,
        removed,
        removed_unix_s: 0,
        begun_unix_s: 0,
        wished,
    };
    let body = deployment.to_bytes();
    Heard::read(Signed { topic: Topic::Deployment, author: id(1), signature: vec![], body }).unwrap()
}

/// What a clock that ticks each 100 ms makes a member do until then; records are signed as they are wanted.
fn ticks(member: &mut Member, from_ms: u64, until_ms: u64) -> Vec<(u64, MemberAction)> {
    let mut done = Vec::new();
    for now_ms in (from_ms..until_ms).step_by(100) {
        for action in member.handle(now_ms, MemberEvent::Tick) {
            if action == MemberAction::Sign {
                sign(member, now_ms);
            }
            done.push((now_ms, action));
        }
    }
    done
}

fn count(done: &[(u64, MemberAction)], of: impl Fn(&MemberAction) -> bool) -> usize {
    done.iter().filter(|(_, action)| of(action)).count()
}

fn dials(done: &[(u64, MemberAction)], to: &str) -> usize {
    count(done, |action| matches!(action, MemberAction::Dial(address) if address.starts_with(to)))
}

/// A record heard by gossip.
fn hears(member: &mut Member, now_ms: u64, node: NodeId) -> Vec<MemberAction> {
    member.handle(now_ms, MemberEvent::Heard(vec![said_by(node, 1, 1)]))
}

#[test]
fn it_asks_a_neighbour_twice_a_second_and_says_nothing_if_nothing_is_new() {
    let mut member = member(9);
    for peer in [1, 2] {
        let actions = member.handle(0, MemberEvent::Connected(id(peer)));
        assert!(
            matches!(&actions[..], [MemberAction::Exchange { peer: asked, .. }] if *asked == id(peer)),
            "a stranger is asked at once: {actions:?}"
        );
        member.handle(0, MemberEvent::Answered { peer: id(peer), news: Some(News::default()) });
        member.handle(0, MemberEvent::Probed { peer: id(peer), bytes_per_second: Some(1_000_000) });
    }
    let mut asked = BTreeMap::new();
    for now_ms in (0..60_000).step_by(100) {
        for action in member.handle(now_ms, MemberEvent::Tick) {
            match action {
                MemberAction::Exchange { peer, .. } => {
                    *asked.entry(peer).or_insert(0) += 1;
                    member.handle(now_ms, MemberEvent::Answered { peer, news: Some(News::default()) });
                }
                // The rates that were probed are worth a record; the first is called out once.
                MemberAction::Sign => sign(&mut member, now_ms),
                MemberAction::Gossip => assert_eq!(now_ms, CALL_AFTER_MS),
                other => panic!("at {now_ms} ms: {other:?}"),
            }
        }
    }
    assert!(asked.values().all(|times| (30..=90).contains(times)), "{asked:?}");
    assert!((100..=125).contains(&asked.values().sum()), "{asked:?}");
    assert!(member.stamp().sequence <= 2, "{:?}", member.stamp());
}

#[test]
fn who_does_not_answer_is_not_asked_meanwhile() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    let done = ticks(&mut member, 0, SYNC_TIMEOUT_MS);
    assert_eq!(count(&done, |action| matches!(action, MemberAction::Exchange { .. })), 0);
    let done = ticks(&mut member, SYNC_TIMEOUT_MS, SYNC_TIMEOUT_MS + 1_000);
    assert_eq!(count(&done, |action| matches!(action, MemberAction::Exchange { .. })), 1);
}

#[test]
fn what_others_plan_by_is_called_out_and_the_rest_waits() {
    let mut member = member(9);
    let variant = VariantId { deployment: DeploymentId([1; 16]), index: 0 };
    let hosted = vec![Hosted { variant, first: 0, end: 4, time_us: 900, p95_us: 1_000, queue_wait_us: 0 }];
    let about = About { hosted, ..about(9) };
    assert_eq!(member.handle(10, MemberEvent::Is(about.clone())), [MemberAction::Sign, MemberAction::Gossip]);
    sign(&mut member, 10);
    let mut busy = about.clone();
    busy.load.utilisation_permille = 200;
    assert_eq!(member.handle(20, MemberEvent::Is(busy)), []);
    let done = ticks(&mut member, 100, 4_000);
    assert_eq!(count(&done, |action| *action == MemberAction::Sign), 1);
    assert_eq!(count(&done, |action| *action == MemberAction::Gossip), 0);
}

#[test]
fn a_newcomer_calls_out_once_however_many_connections_it_makes() {
    let mut member = member(9);
    let mut done = Vec::new();
    for peer in 1..=20 {
        let now_ms = u64::from(peer) * 500;
        let actions = member.handle(now_ms, MemberEvent::Connected(id(peer)));
        done.extend(actions.into_iter().map(|action| (now_ms, action)));
        done.extend(ticks(&mut member, now_ms, now_ms + 500));
    }
    assert_eq!(count(&done, |action| *action == MemberAction::Gossip), 1);
}

/// gossipsub takes no message twice, so a record that was called out before is renewed for that.
#[test]
fn no_record_is_called_out_twice() {
    for listens_ms in [None, Some(10), Some(CALL_AFTER_MS)] {
        let mut member = member(9);
        member.handle(0, MemberEvent::Connected(id(1)));
        let mut called = Vec::new();
        for now_ms in (0..3_000).step_by(10) {
            let mut actions = Vec::new();
            if listens_ms == Some(now_ms) {
                let mut about = about(9);
                about.machine.addresses.push(address(8));
                actions.extend(member.handle(now_ms, MemberEvent::Is(about)));
            }
            actions.extend(member.handle(now_ms, MemberEvent::Tick));
            for action in actions {
                match action {
                    MemberAction::Sign => sign(&mut member, now_ms),
                    MemberAction::Gossip => called.push(member.stamp()),
                    _ => {}
                }
            }
        }
        assert!(!called.is_empty(), "{listens_ms:?}");
        assert!(called.windows(2).all(|pair| pair[0] < pair[1]), "{listens_ms:?}: {called:?}");
    }
}

#[test]
fn a_neighbour_is_probed_until_its_rate_is_known() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    let probes =
        |done: Vec<(u64, MemberAction)>| count(&done, |action| *action == MemberAction::Probe(id(1)));
    assert_eq!(probes(ticks(&mut member, 0, 4_050)), 2);
    member.handle(4_050, MemberEvent::Probed { peer: id(1), bytes_per_second: None });
    assert_eq!(probes(ticks(&mut member, 4_100, 6_050)), 1);
    member.handle(6_050, MemberEvent::Probed { peer: id(1), bytes_per_second: Some(2_000_000) });
    member.handle(6_050, MemberEvent::RoundTrip { peer: id(1), micros: 500.0 });
    assert_eq!(probes(ticks(&mut member, 6_100, 20_000)), 0);
    let [link] = member.links().estimates()[..] else { panic!("one link") };
    assert_eq!((link.peer, link.bytes_per_second), (id(1), 2_000_000));
}

#[test]
fn strangers_of_a_small_mesh_are_dialled_at_once() {
    let mut member = member(9);
    member.handle(10, MemberEvent::Connected(id(7)));
    let dial = MemberAction::Dial(format!("{}/p2p/{}", address(1), id(1)));
    let reachable = MemberAction::Reachable { node: id(1), addresses: vec![address(1)] };
    assert_eq!(hears(&mut member, 20, id(1)), [reachable, dial]);
    assert_eq!(hears(&mut member, 30, id(1)), [], "nothing new");
    let pauses: Vec<u64> = ticks(&mut member, 100, 40_000)
        .into_iter()
        .filter(|(_, action)| matches!(action, MemberAction::Dial(_)))
        .map(|(at_ms, _)| at_ms)
        .collect();
    assert!((3..=8).contains(&pauses.len()), "after pauses that grow: {pauses:?}");
}

#[test]
fn the_mesh_is_joined_again_while_nobody_of_it_is_there() {
    let mut member = started(Member::new(id(9), 1, vec![address(7)], 1));
    assert_eq!(member.handle(0, MemberEvent::Started), [MemberAction::Dial(address(7))]);
    // Somebody else is a neighbour, as on an island: the address is tried on, though rarely.
    member.handle(10, MemberEvent::Connected(id(3)));
    let tried = dials(&ticks(&mut member, 100, 300_000), &address(7));
    assert!((10..=20).contains(&tried), "{tried} times in five minutes");
    // Whoever is found there counts as being there as long as it lives.
    member.handle(300_000, MemberEvent::Found { peer: id(7), address: address(7) });
    member.handle(300_000, MemberEvent::Connected(id(7)));
    assert_eq!(dials(&ticks(&mut member, 300_100, 310_000), &address(7)), 0);
    member.handle(310_000, MemberEvent::Disconnected(id(7)));
    assert!(dials(&ticks(&mut member, 310_100, 400_000), &address(7)) > 0);
}

#[test]
fn a_lost_neighbour_is_dialled_at_once_and_looked_for_ever_after() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    hears(&mut member, 0, id(1));
    assert!(member.view().is_usable(0, id(1)));
    let dial = MemberAction::Dial(format!("{}/p2p/{}", address(1), id(1)));
    assert_eq!(member.handle(100, MemberEvent::Disconnected(id(1))), [MemberAction::Lost(id(1)), dial]);
    assert!(!member.view().is_usable(101, id(1)));
    let done = ticks(&mut member, 200, 100 + FORGET_MS);
    assert!((50..=61).contains(&dials(&done, &address(1))), "once a second: {}", dials(&done, &address(1)));
    let done = ticks(&mut member, 100 + FORGET_MS, 2 * FORGET_MS);
    assert!(member.view().get(id(1)).is_none() && dials(&done, &address(1)) > 50);
    let rarely = dials(&ticks(&mut member, 700_000, 1_000_000), &address(1));
    assert!((10..=60).contains(&rarely), "{rarely} times in five minutes");
    member.handle(1_000_000, MemberEvent::Connected(id(1)));
    assert_eq!(dials(&ticks(&mut member, 1_000_100, 1_010_000), &address(1)), 0);
}

#[test]
fn a_connection_closed_on_purpose_loses_nobody() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    hears(&mut member, 0, id(1));
    member.handle(50, MemberEvent::Parting(id(1)));
    member.handle(100, MemberEvent::Disconnected(id(1)));
    assert!(member.view().is_usable(101, id(1)));
}

#[test]
fn a_connection_that_failed_long_before_it_broke_loses_nobody_either() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    hears(&mut member, 0, id(1));
    let beat = |beat| News {
        beats: vec![Held { node: id(1).into(), stamp: Stamp { generation: 1, sequence: 1 }, beat }],
        ..News::default()
    };
    for second in 1..=20 {
        member.handle(second * 1_000, MemberEvent::Told { peer: id(2), news: beat(second) });
    }
    member.handle(20_000, MemberEvent::Disconnected(id(1)));
    assert!(member.view().is_usable(20_000, id(1)), "others hear it");
}

/// What TCP does where packets are lost in one direction only: this node still hears the other one, whose answers never
/// come since nothing gets there, and its own kernel gives the connection up.
#[test]
fn a_connection_that_carried_nothing_one_way_loses_nobody() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    hears(&mut member, 0, id(1));
    for second in 1..=12 {
        ticks(&mut member, second * 1_000 - 900, second * 1_000);
        member.handle(second * 1_000, MemberEvent::Told { peer: id(1), news: News::default() });
    }
    member.handle(12_500, MemberEvent::Disconnected(id(1)));
    assert!(member.view().is_usable(12_500, id(1)), "it spoke a moment ago");
    ticks(&mut member, 12_600, 17_000);
    assert!(!member.view().is_usable(17_000, id(1)), "and is silent since");
}

/// A member with a neighbour whose pings are answered each second until then, each after so long.
fn with_neighbour(micros: f64, until_ms: u64) -> Member {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    hears(&mut member, 0, id(1));
    for now_ms in (0..until_ms).step_by(1_000) {
        member.handle(now_ms, MemberEvent::RoundTrip { peer: id(1), micros });
        ticks(&mut member, now_ms, now_ms + 1_000);
    }
    member
}

/// Its answers may still come, from behind much else: if they are old, nothing that this one said lately has arrived, and
/// the other end closes for that.
#[test]
fn whose_connection_breaks_in_the_middle_of_a_talk_is_left_out_at_once_and_not_if_answers_were_old() {
    for (micros, is_lost) in [(500.0, true), (3_000_000.0, true), (7_000_000.0, false)] {
        let mut member = with_neighbour(micros, 20_000);
        member.handle(20_000, MemberEvent::Disconnected(id(1)));
        assert_eq!(!member.view().is_usable(20_000, id(1)), is_lost, "answered after {micros} us");
    }
}

/// Others give its connections up meanwhile, and it may read their answers before it hears that.
#[test]
fn who_stood_still_blames_nobody_for_a_connection_that_is_gone() {
    for (stood_ms, is_lost) in [(1_000, true), (10_000, false)] {
        let (mut member, now_ms) = (with_neighbour(500.0, 20_000), 20_000 + stood_ms);
        member.handle(now_ms, MemberEvent::Tick);
        member.handle(now_ms, MemberEvent::RoundTrip { peer: id(1), micros: 500.0 });
        member.handle(now_ms, MemberEvent::Disconnected(id(1)));
        assert_eq!(!member.view().is_usable(now_ms, id(1)), is_lost, "it stood still for {stood_ms} ms");
    }
}

/// A message of megabytes may take longer than a connection, or a node, may be silent.
#[test]
fn who_sends_bytes_is_no_more_given_up_than_who_sends_messages() {
    let (mut member, until_ms) = (member(9), 30_000);
    member.handle(0, MemberEvent::Connected(id(1)));
    hears(&mut member, 0, id(1));
    let (mut closed, mut left_out) = (Vec::new(), Vec::new());
    for now_ms in (100..60_000).step_by(100) {
        for peer in member.quiet(now_ms) {
            let ago_ms = now_ms - now_ms.min(until_ms);
            member.handle(now_ms, MemberEvent::Carried { peer, ago_ms });
        }
        let done = member.handle(now_ms, MemberEvent::Tick);
        closed.extend(done.contains(&MemberAction::Close(id(1))).then_some(now_ms));
        left_out.extend((!member.view().is_usable(now_ms, id(1))).then_some(now_ms));
    }
    assert!(closed.first().is_some_and(|at_ms| (36_000..37_000).contains(at_ms)), "{closed:?}");
    assert!(left_out.first().is_some_and(|at_ms| (33_500..34_000).contains(at_ms)), "{left_out:?}");
}

/// What it wrote before it was stopped, or died, may come later.
#[test]
fn bytes_bring_nobody_back() {
    let mut member = with_neighbour(500.0, 10_000);
    ticks(&mut member, 10_000, 14_000);
    assert!(!member.view().is_usable(14_000, id(1)), "it is silent");
    member.handle(14_000, MemberEvent::Carried { peer: id(1), ago_ms: 0 });
    assert!(!member.view().is_usable(14_000, id(1)));
}

#[test]
fn a_connection_that_carries_nothing_is_given_up() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    let done = ticks(&mut member, 100, 60_000);
    let closed: Vec<u64> = done
        .iter()
        .filter(|(_, action)| *action == MemberAction::Close(id(1)))
        .map(|(at_ms, _)| *at_ms)
        .collect();
    assert!(closed.first().is_some_and(|at_ms| (6_000..7_000).contains(at_ms)), "{closed:?}");
}

fn far(index: u16) -> NodeId {
    let mut id = [7; 32];
    id[..2].copy_from_slice(&index.to_be_bytes());
    NodeId(id)
}

#[test]
fn in_a_large_mesh_it_dials_some_and_lets_surplus_neighbours_go() {
    let mut member = member(9);
    let heard = (0..300).map(|index| said_by(far(index), 1, 1)).collect();
    let mut done: Vec<_> =
        member.handle(0, MemberEvent::Heard(heard)).into_iter().map(|action| (0, action)).collect();
    assert_eq!(dials(&done, ""), 8);
    for index in 0..60 {
        member.handle(10, MemberEvent::Connected(far(index)));
    }
    done.clear();
    for now_ms in (100..40_000).step_by(100) {
        for index in 0..60 {
            member.handle(now_ms, MemberEvent::RoundTrip { peer: far(index), micros: 100.0 });
        }
        for action in member.handle(now_ms, MemberEvent::Tick) {
            if let MemberAction::Part(peer) = action {
                member.handle(now_ms, MemberEvent::Disconnected(peer));
                done.push((now_ms, action));
            }
        }
    }
    assert_eq!((done.len(), member.connected().len()), (36, 24));
    assert!(done[0].0 >= 3_000, "not those that have just come: {:?}", done[0]);
}

#[test]
fn a_member_that_is_outdone_by_itself_speaks_louder() {
    let mut member = member(9);
    let copy = said_by(id(9), 5, 1);
    let actions = member.handle(0, MemberEvent::Heard(vec![copy.clone()]));
    assert_eq!(actions, [MemberAction::Outdone, MemberAction::Sign, MemberAction::Gossip]);
    sign(&mut member, 0);
    assert!(member.stamp() > Stamp { generation: 5, sequence: 1 });
    assert_eq!(member.handle(1, MemberEvent::Heard(vec![copy])), [], "it is louder now");
}

#[test]
fn an_exchange_brings_both_what_they_lack() {
    let (mut asked, mut asker) = (member(1), member(2));
    asked.handle(0, MemberEvent::Heard(vec![wish(true), said_by(id(3), 1, 1), said_by(id(4), 1, 9)]));
    asker.handle(0, MemberEvent::Heard(vec![wish(false), said_by(id(4), 1, 8), said_by(id(5), 1, 1)]));
    let done = exchange(0, &mut asker, &mut asked);
    assert!(done.contains(&MemberAction::Wished));
    assert!(asker.deployments().known("digits").is_some_and(|deployment| deployment.removed));
    let known = |member: &Member| -> Vec<(u8, u64)> {
        member.view().iter().map(|known| (known.record.node.0[0], known.record.stamp.sequence)).collect()
    };
    assert_eq!(known(&asker), [(1, 1), (3, 1), (4, 9), (5, 1)]);
    assert_eq!(known(&asked), [(2, 1), (3, 1), (4, 9), (5, 1)]);
    assert!(!asker.view().is_usable(0, id(3)), "nobody has seen it live");
    let MemberAction::Exchange { exchange, .. } = asker.ask(10, id(1)) else { panic!("it asks") };
    let news = asked.answer(10, id(2), &exchange);
    assert!(news.heard.is_empty() && news.wanted.is_empty(), "neither lacks anything: {news:?}");
}

#[test]
fn a_newcomer_hears_of_a_large_mesh_page_by_page() {
    let (mut asked, mut asker) = (member(1), member(2));
    asker.handle(0, MemberEvent::Connected(id(1)));
    asked.handle(0, MemberEvent::Heard((0..1_000).map(|index| said_by(far(index), 1, 1)).collect()));
    exchange(0, &mut asker, &mut asked);
    assert_eq!((asker.view().len(), asked.view().len()), (1_001, 1_001));
}

#[test]
fn heartbeats_pass_from_member_to_member() {
    let (mut one, mut two, mut three) = (member(1), member(2), member(3));
    for second in 0..20 {
        let now_ms = second * 1_000;
        exchange(now_ms, &mut one, &mut two);
        exchange(now_ms, &mut two, &mut three);
        for member in [&mut one, &mut two, &mut three] {
            ticks(member, now_ms, now_ms + 1_000);
        }
    }
    assert!(three.view().is_usable(20_000, id(1)) && one.view().is_usable(20_000, id(3)));
    // One is gone: the others tell each other on, and nothing new of it.
    for second in 20..30 {
        let now_ms = second * 1_000;
        exchange(now_ms, &mut two, &mut three);
        ticks(&mut two, now_ms, now_ms + 1_000);
        ticks(&mut three, now_ms, now_ms + 1_000);
    }
    assert!(!three.view().is_usable(30_000, id(1)) && !two.view().is_usable(30_000, id(1)));
    assert!(three.view().is_usable(30_000, id(2)) && two.view().is_usable(30_000, id(3)));
}

#[test]
fn a_member_that_stood_still_blames_nobody() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    hears(&mut member, 0, id(1));
    ticks(&mut member, 100, 1_000);
    member.handle(3_600_000, MemberEvent::Tick);
    assert!(member.view().is_usable(3_600_000, id(1)));
    let next_ms = 3_600_000 + 10_000;
    ticks(&mut member, 3_600_100, next_ms);
    assert!(!member.view().is_usable(next_ms, id(1)), "but silence is silence");
}

/// What others pass on may be of any age, and a connection stands for a while after its other end is dead.
#[test]
fn a_record_that_comes_late_shows_nobody_alive() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    member.handle(0, MemberEvent::Heard(vec![said_by(id(1), 1, 1)]));
    ticks(&mut member, 0, 2_000);
    member.handle(2_000, MemberEvent::Heard(vec![said_by(id(1), 1, 2)]));
    ticks(&mut member, 2_000, 4_000);
    assert!(!member.view().is_usable(4_000, id(1)));
    member.handle(4_000, MemberEvent::Heard(vec![said_by(id(1), 2, 1)]));
    assert!(member.view().is_usable(4_000, id(1)), "it was started anew");
}

#[test]
fn what_waited_while_a_member_stood_still_proves_only_what_was_before() {
    let mut member = member(9);
    for peer in [1, 2] {
        hears(&mut member, 0, id(peer));
        member.handle(0, MemberEvent::Connected(id(peer)));
    }
    ticks(&mut member, 0, 1_000);
    // From 900 ms on nothing is done here; one of them speaks on after that.
    let woke_ms = 2_400;
    for peer in [1, 2] {
        member.handle(woke_ms, MemberEvent::RoundTrip { peer: id(peer), micros: 1_000.0 });
    }
    ticks(&mut member, woke_ms, 3_000);
    member.handle(3_000, MemberEvent::RoundTrip { peer: id(2), micros: 1_000.0 });
    ticks(&mut member, 3_000, 4_900);
    assert_eq!([1, 2].map(|peer| member.view().is_usable(4_900, id(peer))), [false, true]);
}

/// Virtual time: gossipsub itself remembers a message for a minute only.
#[test]
fn what_is_said_again_after_two_minutes_is_not_believed() {
    let mut member = member(9);
    let record = said_by(id(1), 1, 7);
    let held = |beat| Held { node: id(1).into(), stamp: Stamp { generation: 1, sequence: 7 }, beat };
    let told = |beat| News { heard: vec![record.clone()], beats: vec![held(beat)], ..News::default() };
    for (now_ms, beat) in [(0, 100), (1_000, 101)] {
        member.handle(now_ms, MemberEvent::Answered { peer: id(2), news: Some(told(beat)) });
    }
    assert!(member.view().is_usable(1_000, id(1)));
    ticks(&mut member, 1_100, 121_000);
    assert!(member.view().get(id(1)).is_none(), "it is gone");
    for replayed in [
        MemberEvent::Heard(vec![record.clone()]),
        MemberEvent::Told { peer: id(2), news: told(101) },
        MemberEvent::Answered { peer: id(2), news: Some(told(100)) },
    ] {
        member.handle(121_000, replayed);
        assert!(member.view().get(id(1)).is_none());
    }
    // What it said last came to others only: it is new here, and no sign of life either.
    let last = Held { stamp: Stamp { generation: 1, sequence: 8 }, ..held(103) };
    let news = News { heard: vec![said_by(id(1), 1, 8)], beats: vec![last], ..News::default() };
    member.handle(121_000, MemberEvent::Told { peer: id(2), news });
    assert!(member.view().get(id(1)).is_none(), "said before it died");
    let older = Exchange { held: vec![held(101)], ..Exchange::default() };
    assert_eq!(member.answer(121_000, id(2), &older).wanted, [], "nor asked for");
    hears(&mut member, 121_000, id(1));
    assert!(member.view().get(id(1)).is_none(), "an older one neither");
}

#[test]
fn who_starts_again_joins_where_others_were() {
    let mut before = member(9);
    hears(&mut before, 0, id(1));
    before.handle(0, MemberEvent::Connected(id(1)));
    let kept = before.memorable();
    assert_eq!(kept, [format!("{}/p2p/{}", address(1), id(1))]);
    let mut again = member(9);
    again.remember(kept);
    assert!(!again.handle(0, MemberEvent::Started).is_empty());
    again.handle(10, MemberEvent::Connected(id(2)));
    assert_eq!(dials(&ticks(&mut again, 100, 60_000), &address(1)), 0, "it has found the mesh");
}

#[test]
fn the_owner_is_told_once_that_joining_fails() {
    let mut member = Member::new(id(9), 1, vec![address(7)], 1);
    let failed = || MemberEvent::DialFailed { address: address(7), reason: "refused".into() };
    assert!(matches!(member.handle(0, failed())[..], [MemberAction::CannotJoin { .. }]));
    assert_eq!(member.handle(1, failed()), []);
}

#[test]
fn who_is_silent_is_asked_and_then_others_are_before_it_is_left_out() {
    let mut member = member(9);
    for node in [1, 2] {
        hears(&mut member, 0, id(node));
        member.handle(0, MemberEvent::Connected(id(node)));
        member.handle(0, MemberEvent::Answered { peer: id(node), news: Some(News::default()) });
    }
    let mut asked = Vec::new();
    let mut left_out_ms = None;
    for now_ms in (100..5_000).step_by(100) {
        member.handle(now_ms, MemberEvent::RoundTrip { peer: id(2), micros: 500.0 });
        for action in member.handle(now_ms, MemberEvent::Tick) {
            match action {
                MemberAction::Exchange { peer, .. } => {
                    asked.push((now_ms, peer));
                    // The other one answers at once, and knows nothing new.
                    if peer == id(2) {
                        member.handle(now_ms, MemberEvent::Answered { peer, news: Some(News::default()) });
                    }
                }
                MemberAction::Sign => sign(&mut member, now_ms),
                _ => {}
            }
        }
        if !member.view().is_usable(now_ms, id(1)) {
            left_out_ms = left_out_ms.or(Some(now_ms));
        }
    }
    let left_out_ms = left_out_ms.unwrap();
    let within = |from_ms, until_ms| asked.iter().filter(|(ms, _)| (from_ms..until_ms).contains(ms)).count();
    assert!(asked.iter().any(|(ms, peer)| *ms < left_out_ms && *peer == id(1)), "{asked:?}");
    let (before, doubted) = (within(0, 1_500), within(left_out_ms - 1_500, left_out_ms));
    assert!(doubted >= 2 * before, "{before} exchanges, and {doubted} while it was doubted: {asked:?}");
    assert!(within(left_out_ms + 100, left_out_ms + 1_600) <= before + 1, "{asked:?}");
}
