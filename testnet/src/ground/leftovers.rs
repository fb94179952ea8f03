//! What killed runs leave behind: control groups, with frozen processes maybe, and folders with mounts.
//! Namespaces and devices have no names and end with the processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::folder::RunFolder;
use crate::owner::Owner;
use crate::run_lock::{self, Life};
use crate::signals::{self, Signal};
use crate::wait;

/// How deep groups of runs are looked for: they are made in the group of the process that made them.
const DEPTH_MAX: usize = 6;
/// Groups that are looked at.
const GROUPS_MAX: usize = 10_000;
/// Until killed processes are gone.
const GONE_MAX: Duration = Duration::from_secs(5);

/// Removes what belongs to runs that are gone, and nothing else. What cannot be removed stays
/// for the next time.
pub fn clean() {
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = mounts(&mounted).filter(|(_, kind, _)| matches!(*kind, "cgroup" | "cgroup2"));
    let runs: Vec<PathBuf> = hierarchies.flat_map(|(point, ..)| groups_of_dead_runs(&point)).collect();
    // All ends before anything is removed: a process is in a group of each hierarchy, and none of them can be
    // removed while that of the freezer holds it.
    runs.iter().flat_map(|run| folders_in(run)).for_each(|node| end_all_in(&node));
    runs.iter().for_each(|run| remove(run));
    RunFolder::remove_stale();
}

/// Mount points with kind and options, as `/proc/self/mounts` lists them.
pub(super) fn mounts(text: &str) -> impl Iterator<Item = (PathBuf, &str, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((PathBuf::from(fields.next()?), fields.next()?, fields.next()?))
    })
}

fn groups_of_dead_runs(hierarchy: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut looked_at = 0;
    let mut next = vec![(hierarchy.to_owned(), 0)];
    while let Some((folder, depth)) = next.pop() {
        for below in folders_in(&folder) {
            looked_at += 1;
            let name = below.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match Owner::of(name) {
                Some(owner) if is_of_dead_run(name, &owner, &below) => found.push(below),
                Some(_) => {}
                None if depth < DEPTH_MAX && looked_at < GROUPS_MAX => next.push((below, depth + 1)),
                None => {}
            }
        }
    }
    found
}

/// A group of which the run's folder is not to be found may be that of a run with temporary files of its own, in a
/// container for instance: with processes in it, it is left alone.
fn is_of_dead_run(run_id: &str, owner: &Owner, group: &Path) -> bool {
    let life = RunFolder::life_of(run_id);
    let is_empty = || folders_in(group).iter().all(|node| pids_in(node).next().is_none());
    run_lock::is_dead(life, owner, group) && (life == Life::Dead || is_empty())
}

fn pids_in(node: &Path) -> impl Iterator<Item = u32> {
    let pids = fs::read_to_string(node.join("cgroup.procs")).unwrap_or_default();
    pids.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>().into_iter()
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// Kills the processes of a group. A frozen one does not notice that its owner is gone, nor a signal, until
/// it is thawed.
fn end_all_in(node: &Path) {
    for pid in pids_in(node) {
        let _ = signals::send(pid, Signal::Kill);
    }
    let _ = fs::write(node.join("freezer.state"), "THAWED");
    let _ = fs::write(node.join("cgroup.freeze"), "0");
}

/// Removes the groups of a dead run once its processes are gone.
fn remove(run: &Path) {
    for node in folders_in(run) {
        wait::even_if_interrupted(GONE_MAX, || remove_empty(&node));
    }
    let _ = fs::remove_dir(run);
}

/// Removes a group; whether it is gone.
pub(super) fn remove_empty(group: &Path) -> bool {
    match fs::remove_dir(group) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
