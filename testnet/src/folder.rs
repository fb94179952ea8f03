//! The temporary folder of one mesh: data of its nodes and their logs. Removed at the end; what a
//! killed process left behind is removed by the next one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::ground::disk;
use crate::owner::{Owner, PREFIX};
use crate::run_lock::{self, Life, RunList, RunLock};

/// Folders of failed runs, kept for their logs: no number follows, so nobody removes them.
const KEPT_PREFIX: &str = "stormo-testnet-kept-";

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct RunFolder {
    folder: tempfile::TempDir,
    /// Last: it must not be free before the folder is gone.
    _lock: RunLock,
}

impl RunFolder {
    /// A new folder in the system's place for temporary files.
    ///
    /// # Errors
    /// When it cannot be made, or locked.
    pub fn create() -> io::Result<Self> {
        let prefix = Owner::this().prefix();
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let lock = RunLock::take(folder.path())?;
        RunList::of_user().add(folder.path());
        Ok(Self { folder, _lock: lock })
    }

    /// Removes the folders that killed runs left, in the system's place for temporary files or where these were kept.
    pub(crate) fn remove_stale() {
        let list = RunList::of_user();
        for folder in list.folders() {
            if !folder.exists() || remove_if_stale(&folder) {
                list.remove(&folder);
            }
        }
        let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
        entries.for_each(|entry| {
            remove_if_stale(&entry.path());
        });
    }

    /// Whether the run of this name lives, as far as its folder is to be found.
    pub(crate) fn life_of(run_id: &str) -> Life {
        let folder = RunList::of_user().folder_of(run_id);
        run_lock::life_of_folder(&folder.unwrap_or_else(|| std::env::temp_dir().join(run_id)))
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
        clock::forget_processes(self.path());
        let path = self.path().to_owned();
        let kept = kept_name(&path);
        if fs::rename(&path, &kept).is_ok() { kept } else { path }
    }
}

fn kept_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(name.replacen(PREFIX, KEPT_PREFIX, 1))
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        clock::forget_processes(self.path());
        RunList::of_user().remove(self.path());
    }
}

/// Removes a folder if it is that of a run that is gone, and unmounts what is mounted there; whether it is gone. What
/// cannot be removed (another user's) stays.
fn remove_if_stale(folder: &Path) -> bool {
    let owner = folder.file_name().and_then(|name| name.to_str()).and_then(Owner::of);
    let is_stale = |owner: &Owner| run_lock::is_dead(run_lock::life_of_folder(folder), owner, folder);
    if !owner.is_some_and(|owner| is_stale(&owner)) {
        return false;
    }
    disk::unmount_below(folder);
    clock::forget_processes(folder);
    fs::remove_dir_all(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_only_folders_of_runs_that_are_gone() {
        let within = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let folder = within.path().join(name);
            fs::create_dir_all(folder.join("node")).unwrap();
            let lock = RunLock::take(&folder).unwrap();
            (folder, lock)
        };
        // Both as from another namespace: no process here has that number and start.
        let (dead, lock) = made("stormo-testnet-1-41-abc");
        let (alive, _held) = made("stormo-testnet-1-42-abc");
        drop(lock);
        assert!(remove_if_stale(&dead) && !dead.exists());
        assert!(!remove_if_stale(&alive) && alive.join("node").is_dir());
        for name in ["stormo-testnet-kept-1-41-abc", "stormo-testnet-1-41", "other-1-41-abc"] {
            let (other, lock) = made(name);
            drop(lock);
            assert!(!remove_if_stale(&other) && other.is_dir(), "{name}");
        }
    }

    #[test]
    fn a_folder_goes_with_its_owner_unless_kept() {
        let gone = RunFolder::create().unwrap();
        let (path, run_id) = (gone.path().to_owned(), gone.run_id().to_owned());
        assert!(path.is_dir());
        assert_eq!(RunFolder::life_of(&run_id), Life::Alive);
        drop(gone);
        assert!(!path.exists());
        assert_eq!(RunFolder::life_of(&run_id), Life::Unknown);

        let kept = RunFolder::create().unwrap().keep();
        assert!(kept.is_dir());
        assert_eq!(Owner::of(kept.file_name().unwrap().to_str().unwrap()), None);
        fs::remove_dir_all(kept).unwrap();
    }
}
