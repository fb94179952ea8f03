//! What a run leaves behind although it should not.

use std::fs;
use std::path::{Path, PathBuf};

use crate::history::{FaultEvent, History};
use crate::mesh::Mesh;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// How deep groups of a run are looked for, and how many groups.
const DEPTH_MAX: usize = 6;
const GROUPS_MAX: usize = 10_000;

/// What a run makes on this machine goes by the name of its folder, which no other run has.
#[derive(Debug)]
pub(super) struct Traces {
    folder: PathBuf,
}

impl Traces {
    /// Of a mesh that runs.
    pub(super) fn of(mesh: &Mesh) -> Self {
        Self { folder: mesh.folder().to_owned() }
    }

    /// What is still there, in words.
    pub(super) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.folder.exists() {
            left.push(format!("the folder {}", self.folder.display()));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        left.extend(
            points
                .filter(|point| Path::new(point).starts_with(&self.folder))
                .map(|point| format!("the mount {point}")),
        );
        let groups = self.folder.file_name().map(groups_named).unwrap_or_default();
        left.extend(groups.iter().map(|group| format!("the control group {}", group.display())));
        left
    }
}

fn groups_named(name: &std::ffi::OsStr) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut looked_at = 0;
    let mut next = vec![(PathBuf::from(GROUPS), 0)];
    while let Some((folder, depth)) = next.pop() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            looked_at += 1;
            if entry.file_name() == name {
                found.push(entry.path());
            } else if depth < DEPTH_MAX && looked_at < GROUPS_MAX {
                next.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// Nodes whose process ended though no fault ended it, in words.
pub(super) fn ended_by_themselves(mesh: &mut Mesh, history: &History) -> Vec<String> {
    let mut ended = Vec::new();
    for node in mesh.nodes_mut() {
        let Some(status) = node.ended() else { continue };
        let place = history.nodes.iter().position(|label| label == node.label());
        let is_meant = |place: usize| {
            let of_it = |fault: &&FaultEvent| fault.nodes.contains(&(place as u16));
            history.faults.iter().filter(of_it).any(|fault| fault.is_loss && fault.healed_us.is_none())
        };
        if !place.is_some_and(is_meant) {
            let log = node.log_end();
            let last = log.lines().last().unwrap_or_default().to_owned();
            ended.push(format!("{} ended by itself ({status}): {last}", node.label()));
        }
    }
    ended
}
