//! The temporary folder of one mesh: data of its nodes and their logs. Removed at the end; what a
//! killed process left behind is removed by the next one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::signals;

/// Then comes the number of the process that made the folder.
const PREFIX: &str = "stormo-testnet-";
/// Folders of failed runs, kept for their logs: no number follows, so nobody removes them.
const KEPT_PREFIX: &str = "stormo-testnet-kept-";

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct RunFolder {
    folder: tempfile::TempDir,
}

impl RunFolder {
    /// A new folder in the system's place for temporary files, after removing stale ones there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create() -> io::Result<Self> {
        let within = std::env::temp_dir();
        remove_stale(&within, signals::is_alive);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        Ok(Self { folder: tempfile::Builder::new().prefix(&prefix).tempdir_in(within)? })
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

/// Removes the folders of processes that are gone. What cannot be removed (another user's) stays.
fn remove_stale(within: &Path, is_alive: impl Fn(u32) -> bool) {
    let Ok(entries) = fs::read_dir(within) else { return };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(owner_of);
        if owner.is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner_of(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_only_folders_of_processes_that_are_gone() {
        let within = tempfile::tempdir().unwrap();
        let names = [
            "stormo-testnet-41-abc",
            "stormo-testnet-42-abc",
            "stormo-testnet-kept-41-abc",
            "stormo-testnet-41",
            "other-41-abc",
        ];
        for name in names {
            fs::create_dir_all(within.path().join(name).join("node")).unwrap();
        }
        remove_stale(within.path(), |pid| pid == 42);
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
        assert_eq!(owner_of(kept.file_name().unwrap().to_str().unwrap()), None);
        fs::remove_dir(kept).unwrap();
    }
}
