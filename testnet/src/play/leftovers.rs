//! What a run leaves behind although it should not.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::history::{FaultEvent, History};
use crate::mesh::Mesh;
use crate::owner::RUN_VARIABLE;

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
        let Some(name) = self.folder.file_name() else { return left };
        let groups = groups_named(name);
        left.extend(groups.iter().map(|group| format!("the control group {}", group.display())));
        left.extend(processes_of(name).iter().map(|told| format!("the process {told}")));
        let files = files_named(&std::env::temp_dir(), name);
        left.extend(
            files
                .iter()
                .filter(|path| **path != self.folder)
                .map(|path| format!("the file {}", path.display())),
        );
        left
    }
}

/// Processes that a run of this name started, and what these started: all have its name in their environment.
fn processes_of(run: &OsStr) -> Vec<String> {
    let wanted = [RUN_VARIABLE.as_bytes(), b"=", run.as_bytes()].concat();
    let pids = entries("/proc".as_ref()).filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_of_it = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    let told = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        format!("{pid} ({})", words.join(" ").trim_end())
    };
    pids.filter(is_of_it).map(told).collect()
}

/// What has the name of a run in its own, and lies directly in a folder.
fn files_named(folder: &Path, run: &OsStr) -> Vec<PathBuf> {
    let run = run.as_bytes();
    let has_it =
        |entry: &fs::DirEntry| entry.file_name().as_bytes().windows(run.len()).any(|part| part == run);
    entries(folder).filter(has_it).map(|entry| entry.path()).collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
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

/// Nodes whose process ended though nobody killed it and nothing that was done to them ends it, in words.
pub(super) fn ended_by_themselves(mesh: &mut Mesh, history: &History) -> Vec<String> {
    let mut ended = Vec::new();
    for node in mesh.nodes_mut() {
        let Some(status) = node.ended_by_itself() else { continue };
        let place = history.nodes.iter().position(|label| label == node.label());
        let is_meant = |place: usize| {
            let of_it = |fault: &&FaultEvent| fault.nodes.contains(&(place as u16));
            // What followed from a fault: an empty battery, too little memory. A node that was to be killed is
            // ended by us, and one that was to stand still has no reason to end.
            let follows =
                |fault: &FaultEvent| fault.is_loss && fault.times.is_none() && fault.failed.is_none();
            history.faults.iter().filter(of_it).any(follows)
        };
        if !place.is_some_and(is_meant) {
            let log = node.log_end();
            let last = log.lines().last().unwrap_or_default().to_owned();
            ended.push(format!("{} ended by itself ({status}): {last}", node.label()));
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::folder::RunFolder;

    #[test]
    fn processes_and_files_of_a_run_are_found() {
        let folder = RunFolder::create().unwrap();
        let name = folder.path().file_name().unwrap().to_owned();
        let traces = Traces { folder: folder.path().to_owned() };
        assert_eq!(traces.left().len(), 1, "the folder itself: {:?}", traces.left());
        let beside = std::env::temp_dir().join(format!("socket-of-{}", name.to_string_lossy()));
        fs::write(&beside, "").unwrap();
        // A child of a child, whose parent is gone.
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 1000 >/dev/null & echo $!"])
            .env(RUN_VARIABLE, &name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(parent.stdout.as_mut().unwrap(), &mut said).unwrap();
        parent.wait().unwrap();
        drop(folder);
        let left = traces.left();
        let pid: u32 = said.trim().parse().unwrap();
        crate::signals::send(pid, crate::signals::Signal::Kill).unwrap();
        fs::remove_file(&beside).unwrap();
        assert_eq!(
            left,
            [format!("the process {pid} (sleep 1000)"), format!("the file {}", beside.display())]
        );
    }
}
