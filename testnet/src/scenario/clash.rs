//! Which faults of a schedule contradict each other, so that one would undo the other or meet nothing; and whom a
//! fault that chooses its node itself must spare. Arithmetic on schedules.

use std::collections::BTreeSet;

use super::faults::{FaultKind, Scheduled, Target};

/// Why a fault cannot follow an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// That one still acts on the same thing.
    SameThing,
    /// That one keeps the node down, or standing still, as long as this one acts.
    Down,
    /// That one emptied the battery, which nothing has charged since.
    NoPower,
    /// The battery is charged again, but nothing has started the node since.
    Off,
}

/// Two faults of a schedule, by their places in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clashing {
    /// The earlier one.
    pub before: usize,
    /// The one that cannot be done.
    pub after: usize,
    /// Why.
    pub clash: Clash,
}

/// The first contradiction of a schedule in order of time.
pub fn first(faults: &[Scheduled]) -> Option<Clashing> {
    let pair = |after: usize| {
        (0..after).find_map(|before| {
            let clash = between(&faults[before], &faults[after])?;
            Some(Clashing { before, after, clash })
        })
    };
    (0..faults.len())
        .find_map(pair)
        .or_else(|| (0..faults.len()).find_map(|before| unpowered(faults, before)))
}

/// Whether a fault contradicts one that is not later.
pub fn between(before: &Scheduled, fault: &Scheduled) -> Option<Clash> {
    let is_over =
        if before.kind.is_momentary() { before.at_us < fault.at_us } else { end_us(before) <= fault.at_us };
    if is_over {
        return None;
    }
    if before.kind.shares_with(&fault.kind) {
        return Some(Clash::SameThing);
    }
    let is_hidden = hides(before, fault) || (before.at_us == fault.at_us && hides(fault, before));
    is_hidden.then_some(Clash::Down)
}

/// Whether a node that another fault is done to is down, or stands still, as long as that one acts.
fn hides(loss: &Scheduled, other: &Scheduled) -> bool {
    let Some(Target::Node(down)) = loss.kind.target() else { return false };
    let is_down = loss.kind.is_loss() && !loss.kind.is_momentary();
    is_down && other.kind.labels().contains(&down.as_str()) && end_us(other) <= end_us(loss)
}

/// What follows an empty battery before the node is charged and started again.
fn unpowered(faults: &[Scheduled], before: usize) -> Option<Clashing> {
    let FaultKind::Battery(Target::Node(label), level) = &faults[before].kind else { return None };
    if *level > 0.0 {
        return None;
    }
    let mut is_charged = false;
    for (after, fault) in faults.iter().enumerate().skip(before + 1) {
        if !matches!(fault.kind.target(), Some(Target::Node(node)) if node == label) {
            continue;
        }
        match fault.kind {
            FaultKind::Battery(_, level) if level > 0.0 => is_charged = true,
            FaultKind::Restart(_) if is_charged => return None,
            _ => {
                let clash = if is_charged { Clash::Off } else { Clash::NoPower };
                return Some(Clashing { before, after, clash });
            }
        }
    }
    None
}

/// Labels of the nodes that other faults name while one acts: a fault that chooses its node leaves these alone, or
/// theirs might meet nothing.
pub fn named_meanwhile(faults: &[Scheduled], place: usize) -> BTreeSet<&str> {
    let own = &faults[place];
    let meanwhile = |other: &&Scheduled| {
        other.at_us <= end_us(own) && (other.at_us >= own.at_us || end_us(other) > own.at_us)
    };
    let others = faults.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, other)| other);
    let targets = others.filter(meanwhile).filter_map(|other| other.kind.target());
    targets
        .filter_map(|target| if let Target::Node(label) = target { Some(label.as_str()) } else { None })
        .collect()
}

/// When a fault is undone; never, for most that are not.
fn end_us(fault: &Scheduled) -> u64 {
    match fault.for_us {
        Some(for_us) => fault.at_us.saturating_add(for_us),
        None if matches!(fault.kind, FaultKind::Restart(_)) => fault.at_us,
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::LinkChange;
    use super::*;

    fn node(label: &str) -> Target {
        Target::Node(label.to_owned())
    }

    /// A fault from one second on, for some or for ever.
    fn fault(kind: FaultKind, at_s: u64, for_s: Option<u64>) -> Scheduled {
        Scheduled { line: 0, kind, at_us: at_s * 1_000_000, for_us: for_s.map(|for_s| for_s * 1_000_000) }
    }

    fn told(faults: &[Scheduled]) -> Option<(usize, usize, Clash)> {
        first(faults).map(|found| (found.before, found.after, found.clash))
    }

    #[test]
    fn what_a_down_node_would_not_notice_contradicts() {
        let kill = |at_s, for_s| fault(FaultKind::Kill(node("a")), at_s, for_s);
        let cpu = |at_s, for_s| fault(FaultKind::Cpu(node("a"), 0.1), at_s, for_s);
        assert_eq!(told(&[kill(1, None), cpu(2, Some(1))]), Some((0, 1, Clash::Down)));
        assert_eq!(told(&[kill(1, None), cpu(2, None)]), Some((0, 1, Clash::Down)));
        assert_eq!(told(&[kill(1, Some(5)), cpu(2, Some(4))]), Some((0, 1, Clash::Down)));
        assert_eq!(told(&[cpu(1, Some(4)), kill(1, None)]), Some((0, 1, Clash::Down)));
        // It is there before, or afterwards.
        assert_eq!(told(&[kill(1, Some(5)), cpu(2, Some(5))]), None);
        assert_eq!(told(&[cpu(1, None), kill(2, None)]), None);
        assert_eq!(told(&[kill(1, Some(5)), cpu(6, None)]), None);
        let link = FaultKind::Link {
            from: "b".to_owned(),
            to: "a".to_owned(),
            both_ways: false,
            change: LinkChange::default(),
        };
        assert_eq!(told(&[kill(1, None), fault(link, 2, Some(1))]), Some((0, 1, Clash::Down)));
        let frozen = fault(FaultKind::Freeze(node("a")), 1, Some(5));
        assert_eq!(told(&[frozen.clone(), cpu(2, Some(1))]), Some((0, 1, Clash::Down)));
        assert_eq!(told(&[frozen, kill(2, None)]), Some((0, 1, Clash::SameThing)));
        let restart = fault(FaultKind::Restart(node("a")), 1, None);
        assert_eq!(told(&[restart, cpu(1, Some(1))]), None);
    }

    #[test]
    fn an_empty_battery_must_be_charged_and_its_node_started() {
        let battery = |at_s, level| fault(FaultKind::Battery(node("a"), level), at_s, None);
        let kill = |at_s| fault(FaultKind::Kill(node("a")), at_s, None);
        let restart = |at_s| fault(FaultKind::Restart(node("a")), at_s, None);
        assert_eq!(told(&[battery(1, 0.0), kill(2)]), Some((0, 1, Clash::NoPower)));
        assert_eq!(told(&[battery(1, 0.0), restart(2)]), Some((0, 1, Clash::NoPower)));
        assert_eq!(told(&[battery(1, 0.0), battery(2, 0.0)]), Some((0, 1, Clash::NoPower)));
        assert_eq!(told(&[battery(1, 0.0), battery(2, 0.5), kill(3)]), Some((0, 2, Clash::Off)));
        assert_eq!(told(&[battery(1, 0.0), battery(2, 0.5), restart(3), kill(4)]), None);
        assert_eq!(told(&[battery(1, 0.5), battery(1, 0.2)]), Some((0, 1, Clash::SameThing)));
        assert_eq!(told(&[battery(1, 0.5), battery(2, 0.2), kill(3)]), None);
        let killed_for_a_while = fault(FaultKind::Kill(node("a")), 1, Some(5));
        assert_eq!(told(&[killed_for_a_while, battery(2, 0.0)]), Some((0, 1, Clash::SameThing)));
    }

    #[test]
    fn who_is_named_meanwhile_is_not_chosen() {
        let faults = [
            fault(FaultKind::Kill(node("over")), 1, Some(2)),
            fault(FaultKind::Freeze(node("during")), 2, Some(2)),
            fault(FaultKind::Kill(Target::Host), 3, Some(5)),
            fault(FaultKind::Kill(Target::Host), 3, Some(5)),
            fault(FaultKind::Cpu(node("same time"), 0.1), 3, None),
            fault(FaultKind::Restart(node("later")), 7, None),
            fault(FaultKind::Kill(node("behind")), 9, None),
        ];
        assert_eq!(told(&faults), None);
        assert_eq!(named_meanwhile(&faults, 2), BTreeSet::from(["during", "same time", "later"]));
    }
}
