//! The temporary folder of one mesh: data of its nodes and their logs. Removed at the end; what a
//! killed process left behind is removed by the next one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ground::disk;
use crate::owner::{Owner, PREFIX};

/// Folders of failed runs, kept for their logs: no number follows, so nobody removes them.
const KEPT_PREFIX: &str = "stormo-testnet-kept-";

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct RunFolder {
    folder: tempfile::TempDir,
}

impl RunFolder {
    /// A new folder in the system's place for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create() -> io::Result<Self> {
        let prefix = Owner::this().prefix();
        Ok(Self { folder: tempfile::Builder::new().prefix(&prefix).tempdir()? })
    }

    /// Removes what killed runs left in the system's place for temporary files.
    pub(crate) fn remove_stale() {
        remove_stale(&std::env::temp_dir(), Owner::is_alive);
    }

    /// Its name, which no other run has.
    pub(crate) fn run_id(&self) -> &str {
        self.path().file_name().and_then(|name| name.to_str()).unwrap_or(PREFIX)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps it, under a name that no later run takes for stale; says where it is now.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        let path = self.path().to_owned();
        let kept = kept_name(&path);
        if fs::rename(&path, &kept).is_ok() { kept } else { path }
    }
}

fn kept_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(name.replacen(PREFIX, KEPT_PREFIX, 1))
}

/// Removes the folders of processes that are gone, and unmounts what is mounted there. What cannot be
/// removed (another user's) stays.
fn remove_stale(within: &Path, is_alive: impl Fn(&Owner) -> bool) {
    let Ok(entries) = fs::read_dir(within) else { return };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(Owner::of);
        if owner.is_some_and(|owner| !is_alive(&owner)) {
            disk::unmount_below(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_only_folders_of_processes_that_are_gone() {
        let within = tempfile::tempdir().unwrap();
        let names = [
            "stormo-testnet-1-41-abc",
            "stormo-testnet-1-42-abc",
            "stormo-testnet-kept-1-41-abc",
            "stormo-testnet-1-41",
            "other-1-41-abc",
        ];
        for name in names {
            fs::create_dir_all(within.path().join(name).join("node")).unwrap();
        }
        let alive = Owner::of("stormo-testnet-1-42-abc");
        remove_stale(within.path(), |owner| Some(*owner) == alive);
        let left: Vec<bool> = names.iter().map(|name| within.path().join(name).exists()).collect();
        assert_eq!(left, [false, true, true, true, true]);
    }

    #[test]
    fn a_folder_goes_with_its_owner_unless_kept() {
        let gone = RunFolder::create().unwrap();
        let path = gone.path().to_owned();
        assert!(path.is_dir());
        drop(gone);
        assert!(!path.exists());

        let kept = RunFolder::create().unwrap().keep();
        assert!(kept.is_dir());
        assert_eq!(Owner::of(kept.file_name().unwrap().to_str().unwrap()), None);
        fs::remove_dir(kept).unwrap();
    }
}
