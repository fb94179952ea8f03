//! What each kind of fault does to a mesh, and what undoes it. A node that is to start again is started here and
//! not waited for.

use crate::link::LinkSpec;
use crate::mesh::{FaultError, Mesh};
use crate::scenario::FaultKind;

/// What undoes a fault.
#[derive(Debug, Clone)]
pub(super) enum Undo {
    /// Nothing is left to undo.
    Nothing,
    Start(String),
    Thaw(String),
    /// Links as they were.
    Links(Vec<(String, String, LinkSpec)>),
    /// Every cut goes.
    Heal,
    Cpu(String, Option<f64>),
    Memory(String, Option<u64>),
    FreeDisk(String),
    Clock(String),
    /// Rates of all that is sent and received.
    Uplink(String, Option<u64>, Option<u64>),
}

/// Does a fault; to this node, if it is one on a node.
pub(super) fn do_it(mesh: &mut Mesh, kind: &FaultKind, target: Option<&str>) -> Result<Undo, FaultError> {
    let label = target.unwrap_or_default();
    let spec = mesh.nodes().iter().find(|node| node.label() == label).map(|node| node.spec.clone());
    match kind {
        FaultKind::Kill(_) => mesh.kill(label).map(|()| Undo::Start(label.to_owned())),
        FaultKind::PowerLoss(_) => mesh.power_loss(label).map(|()| Undo::Start(label.to_owned())),
        FaultKind::Restart(_) => mesh.begin_restart(label).map(|()| Undo::Nothing),
        FaultKind::Freeze(_) => mesh.freeze(label).map(|()| Undo::Thaw(label.to_owned())),
        FaultKind::Cpu(_, share) => {
            let before = spec.and_then(|spec| spec.cpu_share);
            mesh.set_cpu(label, Some(*share)).map(|()| Undo::Cpu(label.to_owned(), before))
        }
        FaultKind::Memory(_, bytes) => {
            let before = spec.and_then(|spec| spec.memory_bytes);
            mesh.set_memory(label, Some(*bytes)).map(|()| Undo::Memory(label.to_owned(), before))
        }
        FaultKind::Disk(_) => mesh.fill_disk(label).map(|()| Undo::FreeDisk(label.to_owned())),
        FaultKind::Battery(_, level) => mesh.set_battery(label, *level).map(|()| Undo::Nothing),
        FaultKind::Clock(_, offset_s) => {
            mesh.set_clock(label, *offset_s).map(|()| Undo::Clock(label.to_owned()))
        }
        FaultKind::Uplink { up_bits_per_s, down_bits_per_s, .. } => {
            let before = spec.map(|spec| (spec.uplink_bits_per_s, spec.downlink_bits_per_s));
            let (up, down) = before.unwrap_or_default();
            let done = mesh.set_uplink(label, *up_bits_per_s, *down_bits_per_s);
            done.map(|()| Undo::Uplink(label.to_owned(), up, down))
        }
        FaultKind::Partition(groups) => {
            let groups: Vec<Vec<&str>> =
                groups.iter().map(|group| group.iter().map(String::as_str).collect()).collect();
            let groups: Vec<&[&str]> = groups.iter().map(Vec::as_slice).collect();
            mesh.partition(&groups).map(|()| Undo::Heal)
        }
        FaultKind::Link { from, to, both_ways, change } => {
            change_links(mesh, from, to, *both_ways, |spec| change.of(&spec))
        }
        FaultKind::Cut { from, to, both_ways } => {
            change_links(mesh, from, to, *both_ways, |spec| LinkSpec { cut: true, ..spec })
        }
    }
}

fn change_links(
    mesh: &mut Mesh,
    from: &str,
    to: &str,
    both_ways: bool,
    change: impl Fn(LinkSpec) -> LinkSpec,
) -> Result<Undo, FaultError> {
    let mut before = Vec::new();
    let ways = [(from, to), (to, from)];
    for (from, to) in ways.into_iter().take(if both_ways { 2 } else { 1 }) {
        let spec = mesh.link(from, to)?;
        mesh.set_link(from, to, &change(spec))?;
        before.push((from.to_owned(), to.to_owned(), spec));
    }
    Ok(Undo::Links(before))
}

pub(super) fn undo_it(mesh: &mut Mesh, undo: &Undo) -> Result<(), FaultError> {
    match undo {
        Undo::Nothing => Ok(()),
        Undo::Start(label) => mesh.begin_restart(label),
        Undo::Thaw(label) => mesh.thaw(label),
        Undo::Links(before) => before.iter().try_for_each(|(from, to, spec)| mesh.set_link(from, to, spec)),
        Undo::Heal => mesh.heal(),
        Undo::Cpu(label, share) => mesh.set_cpu(label, *share),
        Undo::Memory(label, bytes) => mesh.set_memory(label, *bytes),
        Undo::Clock(label) => mesh.set_clock(label, 0.0),
        Undo::FreeDisk(label) => mesh.free_disk(label),
        Undo::Uplink(label, up, down) => mesh.set_uplink(label, *up, *down),
    }
}
