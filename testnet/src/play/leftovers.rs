//! What a run leaves behind although it should not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::history::History;
use crate::mesh::Mesh;

/// Where named network namespaces are.
const NAMESPACES: &str = "/var/run/netns";

/// What is there before a run.
#[derive(Debug)]
pub(super) struct Surroundings {
    folders: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Surroundings {
    pub(super) fn now() -> Self {
        // Of this process alone: others may run meshes meanwhile.
        let own = format!("stormo-testnet-{}-", std::process::id());
        let folders = names(&std::env::temp_dir()).into_iter().filter(|name| name.starts_with(&own));
        let own = std::process::id().to_string();
        let namespaces = names(Path::new(NAMESPACES)).into_iter();
        let namespaces = namespaces.filter(|name| name.contains("stormo") && name.contains(&own));
        Self { folders: folders.collect(), namespaces: namespaces.collect() }
    }

    /// What is there now and was not then, in words.
    pub(super) fn left_since(&self) -> Vec<String> {
        let now = Self::now();
        let folders = now.folders.difference(&self.folders).map(|name| format!("the folder {name}"));
        let namespaces =
            now.namespaces.difference(&self.namespaces).map(|name| format!("the namespace {name}"));
        folders.chain(namespaces).collect()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Nodes whose process ended though no fault ended it, in words.
pub(super) fn ended_by_themselves(mesh: &mut Mesh, history: &History) -> Vec<String> {
    let mut ended = Vec::new();
    for node in mesh.nodes_mut() {
        let Some(status) = node.ended() else { continue };
        let place = history.nodes.iter().position(|label| label == node.label());
        let is_meant = |place: usize| {
            let of_it = |fault: &&crate::history::FaultEvent| fault.nodes.contains(&(place as u16));
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
