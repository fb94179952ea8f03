//! A member by itself: what it does when, and what it answers.

use std::sync::Arc;

use super::*;
use stormo_protocol::ids::ObjectId;
use stormo_protocol::model::ObjectRef;
use stormo_protocol::profile::Speeds;
use stormo_protocol::state::{Class, Deployment, Division, Signed, Topic, Variant, Wished};

use crate::mesh::{FORGET_MS, FRESH_MS};

const OWN: NodeId = NodeId([9; 32]);

fn id(node: u8) -> NodeId {
    NodeId([node; 32])
}

fn about(node: u8) -> About {
    About {
        machine: Machine {
            label: format!("node-{node}"),
            class: Class::Edge,
            addresses: vec![address(node)],
            cores: 2,
            speeds: Speeds::new([1000.0; 5]),
            memory_budget_bytes: 1 << 20,
        },
        load: Load {
            memory_used_bytes: 0,
            utilisation_permille: 0,
            cold_us: 0,
            cold_us_per_mb: 0,
            leaving: false,
        },
        offer: Offer::default(),
        hosted: vec![],
        goals: vec![],
    }
}

fn address(node: u8) -> String {
    format!("/ip4/10.0.0.{node}/tcp/4001")
}

/// The record that a node gives out.
fn said_by(member: &Member) -> Heard {
    let record = member.record(about(member.own.0[0]));
    let signed =
        Signed { topic: Topic::Node, author: member.own, signature: vec![], body: record.to_bytes() };
    Heard::read(signed).unwrap()
}

fn wish(removed: bool) -> Heard {
    let manifest = ObjectRef { id: ObjectId([1; 32]), bytes: 1 };
    let variants = vec![Variant { label: "base".into(), manifest, accuracy: None }];
    let wished = Wished { replicas: 1, division: Division::Whole };
    let deployment =
        Deployment { name: "digits".into(), version: 1, publisher: id(1), variants, removed, wished };
    let body = deployment.to_bytes();
    Heard::read(Signed { topic: Topic::Deployment, author: id(1), signature: vec![], body }).unwrap()
}

fn member(node: u8) -> Member {
    Member::new(id(node), 1, vec![])
}

/// What a clock that ticks each 100 ms makes a member do until then.
fn ticks(member: &mut Member, from_ms: u64, until_ms: u64) -> Vec<(u64, MemberAction)> {
    let times = (from_ms..until_ms).step_by(100);
    times
        .flat_map(|now_ms| {
            member.handle(now_ms, MemberEvent::Tick).into_iter().map(move |action| (now_ms, action))
        })
        .collect()
}

#[test]
fn it_speaks_each_second_and_asks_its_neighbours_in_turn() {
    let mut member = member(9);
    for peer in [1, 2] {
        let actions = member.handle(0, MemberEvent::Connected(id(peer)));
        assert!(
            matches!(actions[..], [MemberAction::Announce, MemberAction::Ask { peer: asked, .. }] if asked == id(peer))
        );
    }
    for peer in [1, 2] {
        member.handle(0, MemberEvent::Probed { peer: id(peer), bytes_per_second: Some(1_000_000) });
    }
    let done = ticks(&mut member, 0, 8_050);
    let spoke: Vec<u64> = done
        .iter()
        .filter(|(_, action)| *action == MemberAction::Announce)
        .map(|(at_ms, _)| *at_ms)
        .collect();
    assert_eq!(spoke, (1..=8).map(|second| second * 1_000).collect::<Vec<_>>());
    let asked: Vec<(u64, NodeId)> = done
        .iter()
        .filter_map(|(at_ms, action)| match action {
            MemberAction::Ask { peer, .. } => Some((*at_ms, *peer)),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [(2_000, id(2)), (4_000, id(1)), (6_000, id(2)), (8_000, id(1))]);
    assert_eq!(member.due_ms(), 9_000);
}

#[test]
fn a_starved_member_speaks_once_for_what_it_missed() {
    let mut member = member(9);
    let late = member.handle(7_350, MemberEvent::Tick);
    assert_eq!(late.iter().filter(|action| **action == MemberAction::Announce).count(), 1);
    assert_eq!(ticks(&mut member, 7_400, 8_350), []);
    assert_eq!(member.handle(8_350, MemberEvent::Tick), [MemberAction::Announce]);
}

#[test]
fn a_neighbour_is_probed_until_its_rate_is_known() {
    let mut member = member(9);
    member.handle(0, MemberEvent::Connected(id(1)));
    let probes = |done: Vec<(u64, MemberAction)>| {
        done.into_iter().filter(|(_, action)| *action == MemberAction::Probe(id(1))).count()
    };
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
fn strangers_are_dialled_at_once_and_the_mesh_only_while_alone() {
    let mut member = Member::new(OWN, 1, vec![address(7)]);
    assert_eq!(member.handle(0, MemberEvent::Started), [MemberAction::Dial(address(7))]);
    member.handle(10, MemberEvent::Connected(id(7)));
    let stranger = said_by(&super::tests::member(1));
    let dial = MemberAction::Dial(format!("{}/p2p/{}", address(1), id(1)));
    assert_eq!(member.handle(20, MemberEvent::Heard(vec![stranger.clone()])), std::slice::from_ref(&dial));
    assert_eq!(member.handle(30, MemberEvent::Heard(vec![stranger])), [], "nothing new");
    let again: Vec<_> =
        ticks(&mut member, 100, 1_050).into_iter().filter(|(_, action)| *action == dial).collect();
    assert_eq!(again.len(), 1, "after a pause: {again:?}");
    assert_eq!(
        ticks(&mut member, 1_100, 3_000)
            .iter()
            .filter(|(_, action)| matches!(action, MemberAction::Dial(to) if *to == address(7)))
            .count(),
        0
    );
}

#[test]
fn a_lost_neighbour_is_left_out_until_it_speaks_and_forgotten_after_long_silence() {
    let (mut member, mut other) = (member(9), member(1));
    member.handle(0, MemberEvent::Connected(id(1)));
    other.renew();
    member.handle(0, MemberEvent::Heard(vec![said_by(&other)]));
    assert!(member.view().is_usable(FRESH_MS - 1, id(1)));
    assert_eq!(member.handle(100, MemberEvent::Disconnected(id(1))), [MemberAction::Lost(id(1))]);
    assert!(!member.view().is_usable(101, id(1)));
    other.renew();
    member.handle(200, MemberEvent::Heard(vec![said_by(&other)]));
    assert!(member.view().is_usable(201, id(1)));
    ticks(&mut member, 300, 200 + FORGET_MS);
    assert!(member.view().get(id(1)).is_some());
    ticks(&mut member, 200 + FORGET_MS, 3_000 + FORGET_MS);
    assert!(member.view().get(id(1)).is_none());
}

#[test]
fn a_member_that_is_outdone_by_itself_speaks_louder() {
    let (mut member, mut copy) = (member(9), Member::new(OWN, 5, vec![]));
    copy.renew();
    let actions = member.handle(0, MemberEvent::Heard(vec![said_by(&copy)]));
    assert_eq!(actions, [MemberAction::Outdone, MemberAction::Announce]);
    assert!(member.record(about(9)).stamp > copy.record(about(9)).stamp);
    assert_eq!(member.handle(1, MemberEvent::Heard(vec![said_by(&copy)])), [], "it is louder now");
}

#[test]
fn an_exchange_brings_what_the_asker_lacks() {
    let (mut asked, mut asker) = (member(1), member(2));
    asked.handle(0, MemberEvent::Heard(vec![wish(true)]));
    asker.handle(0, MemberEvent::Heard(vec![wish(false)]));
    asked.renew();
    let ask = asker.handle(0, MemberEvent::Connected(id(1))).pop();
    let Some(MemberAction::Ask { known, deployments, .. }) = ask else { panic!("{ask:?}") };
    let news = asked.news(Some(said_by(&asked)), &known, &deployments);
    assert_eq!((news.heard.len(), news.more), (2, false));
    assert_eq!(asker.handle(1, MemberEvent::Heard(news.heard)), [MemberAction::Wished]);
    assert!(asker.deployments().known("digits").is_some_and(|deployment| deployment.removed));
    assert!(asker.view().get(id(1)).is_some());
}

#[test]
fn an_answer_is_bounded_and_says_so() {
    let mut member = member(9);
    for index in 0..=NEWS_MAX as u32 {
        let mut node = [7; 32];
        node[..4].copy_from_slice(&index.to_le_bytes());
        member.handle(0, MemberEvent::Heard(vec![said_by_id(NodeId(node))]));
    }
    let news = member.news(None, &[], &[]);
    assert_eq!((news.heard.len(), news.more), (NEWS_MAX, true));
}

fn said_by_id(node: NodeId) -> Heard {
    let mut other = Member::new(node, 1, vec![]);
    other.renew();
    let heard = said_by(&other);
    assert_eq!(Arc::strong_count(heard.signed()), 1);
    heard
}

#[test]
fn the_owner_is_told_once_that_joining_fails() {
    let mut member = Member::new(OWN, 1, vec![address(7)]);
    let failed = || MemberEvent::DialFailed { address: address(7), reason: "refused".into() };
    assert!(matches!(member.handle(0, failed())[..], [MemberAction::CannotJoin { .. }]));
    assert_eq!(member.handle(1, failed()), []);
}
