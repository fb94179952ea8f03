//! Members and what they say, for tests of this room.

use stormo_protocol::ids::NodeId;
use stormo_protocol::profile::Speeds;
use stormo_protocol::state::{Class, Load, Machine, NodeRecord, Offer, Signed, Stamp, Topic};

use super::{About, Member, MemberAction, MemberEvent};
use crate::mesh::Heard;

pub(in crate::mesh) fn id(node: u8) -> NodeId {
    NodeId([node; 32])
}

pub(in crate::mesh) fn address(node: u8) -> String {
    format!("/ip4/10.0.0.{node}/tcp/4001")
}

pub(in crate::mesh) fn about(node: u8) -> About {
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
        domains: vec![],
        demands: vec![],
    }
}

pub(in crate::mesh) fn signed(record: &NodeRecord) -> Signed {
    Signed { topic: Topic::Node, author: record.node, signature: vec![], body: record.to_bytes() }
}

/// What a node like [`about`] says of itself.
pub(in crate::mesh) fn record_of(node: NodeId, generation: u64, sequence: u64) -> NodeRecord {
    let About { machine, load, offer, hosted, goals, domains, demands } = about(node.0[0]);
    let stamp = Stamp { generation, sequence };
    NodeRecord {
        node,
        stamp,
        machine,
        load,
        offer,
        hosted,
        links: vec![],
        coordinate: None,
        goals,
        domains,
        demands,
    }
}

pub(in crate::mesh) fn said_by(node: NodeId, generation: u64, sequence: u64) -> Heard {
    Heard::read(signed(&record_of(node, generation, sequence))).expect("it speaks for itself")
}

/// A member that knows itself and has signed a first record.
pub(in crate::mesh) fn member(node: u8) -> Member {
    started(Member::new(id(node), 1, vec![], u64::from(node)))
}

pub(in crate::mesh) fn started(mut member: Member) -> Member {
    let actions = member.handle(0, MemberEvent::Is(about(member.own.0[0])));
    assert_eq!(actions, [MemberAction::Sign]);
    sign(&mut member, 0);
    member
}

/// What a driver does when its member wants a record.
pub(in crate::mesh) fn sign(member: &mut Member, now_ms: u64) {
    let record = member.next_record().expect("it knows itself");
    member.signed(now_ms, Heard::read(signed(&record)).expect("it speaks for itself"));
}

/// One exchange between two members from question to last word, as drivers carry it out, however many pages it takes;
/// gives what else the asker wants done.
pub(in crate::mesh) fn exchange(now_ms: u64, asker: &mut Member, asked: &mut Member) -> Vec<MemberAction> {
    let mut rest = Vec::new();
    let mut todo = vec![asker.ask(now_ms, asked.own)];
    while let Some(action) = todo.pop() {
        match action {
            MemberAction::Exchange { peer, exchange } if peer == asked.own => {
                let news = Some(asked.answer(now_ms, asker.own, &exchange));
                todo.extend(asker.handle(now_ms, MemberEvent::Answered { peer, news }));
            }
            MemberAction::Tell { wanted, .. } => {
                let news = asker.told(now_ms, &wanted);
                asked.handle(now_ms, MemberEvent::Told { peer: asker.own, news });
            }
            other => rest.push(other),
        }
    }
    rest
}
