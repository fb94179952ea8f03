//! Whether a run lives: it keeps a lock on a file in its folder, which the kernel takes away with its process, whatever
//! namespace that is in. Where the folder is, wherever temporary files are kept, a list of this user's runs tells.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::owner::Owner;

/// In each run's folder; locked under the second name before it has the first.
const LOCK: &str = "lock";
const LOCK_BEFORE: &str = "lock.new";
/// The list of runs: links to their folders. Not where this process keeps temporary files: others look, too.
const LISTS: &str = "/tmp";
/// What is younger and has no lock may be about to get one.
const YOUNG: Duration = Duration::from_secs(60);

/// What is known of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its process runs.
    Alive,
    /// It does not.
    Dead,
    /// There is nothing to tell by.
    Unknown,
}

/// The lock of a run.
#[derive(Debug)]
pub(crate) struct RunLock {
    /// Locked as long as it is open, by this process alone: what it starts does not inherit it.
    _locked: File,
}

impl RunLock {
    /// Of a new run, whose folder this is.
    pub(crate) fn take(folder: &Path) -> io::Result<Self> {
        let before = folder.join(LOCK_BEFORE);
        let file = File::create_new(&before)?;
        file.lock()?;
        fs::rename(before, folder.join(LOCK))?;
        Ok(Self { _locked: file })
    }
}

/// Whether the run that made this folder lives.
pub(crate) fn life_of_folder(folder: &Path) -> Life {
    let Ok(file) = File::open(folder.join(LOCK)) else { return Life::Unknown };
    // Shared, so that those who look at one time do not take each other for the run.
    match file.try_lock_shared() {
        Ok(()) => Life::Dead,
        Err(TryLockError::WouldBlock) => Life::Alive,
        Err(TryLockError::Error(_)) => Life::Unknown,
    }
}

/// Whether what bears the name of a run may be removed: nobody tells of a life.
pub(crate) fn is_dead(life: Life, owner: &Owner, of_it: &Path) -> bool {
    match life {
        Life::Alive => false,
        Life::Dead => true,
        // Made by an older testnet, or by one that is about to take its lock. In another namespace the number of its
        // process means nothing.
        Life::Unknown => !owner.is_alive() && !is_young(of_it),
    }
}

fn is_young(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|since| since < YOUNG))
}

/// The runs of this user, wherever their folders are.
#[derive(Debug)]
pub(crate) struct RunList {
    folder: PathBuf,
}

impl RunList {
    /// The list that all testnets of this user share.
    pub(crate) fn of_user() -> Self {
        Self::within(Path::new(LISTS))
    }

    fn within(folder: &Path) -> Self {
        Self { folder: folder.join(format!("stormo-testnet-runs-{}", rustix::process::geteuid().as_raw())) }
    }

    /// Notes where a run's folder is. Where that cannot be noted, only those find it who keep temporary files there.
    pub(crate) fn add(&self, folder: &Path) {
        let _ = fs::DirBuilder::new().mode(0o700).create(&self.folder);
        if let Some(name) = folder.file_name().filter(|_| self.is_own()) {
            let _ = std::path::absolute(folder).and_then(|folder| symlink(folder, self.folder.join(name)));
        }
    }

    /// Forgets a run.
    pub(crate) fn remove(&self, folder: &Path) {
        if let Some(name) = folder.file_name().filter(|_| self.is_own()) {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// Where the folder of a run is.
    pub(crate) fn folder_of(&self, run_id: &str) -> Option<PathBuf> {
        let noted = self.is_own().then(|| fs::read_link(self.folder.join(run_id)).ok()).flatten();
        noted.filter(|folder| folder.file_name().is_some_and(|name| name == run_id))
    }

    /// Folders of all runs that are noted.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| self.folder_of(&name)).collect()
    }

    /// Whether nobody else could write into it: what it names is removed.
    fn is_own(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        fs::symlink_metadata(&self.folder)
            .is_ok_and(|of| of.is_dir() && of.uid() == own && of.mode() & 0o022 == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_run_lives_as_long_as_its_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(life_of_folder(folder.path()), Life::Unknown);
        let lock = RunLock::take(folder.path()).unwrap();
        assert_eq!([life_of_folder(folder.path()), life_of_folder(folder.path())], [Life::Alive; 2]);
        drop(lock);
        assert_eq!(life_of_folder(folder.path()), Life::Dead);
    }

    #[test]
    fn what_has_no_lock_yet_is_left_alone_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let gone = Owner::of("stormo-testnet-1-1-abc").unwrap();
        assert!(!gone.is_alive());
        assert!(!is_dead(Life::Unknown, &gone, folder.path()));
        assert!(is_dead(Life::Dead, &Owner::this(), folder.path()), "another process, in another namespace");
        let file = File::open(folder.path()).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * YOUNG).unwrap();
        assert!(is_dead(Life::Unknown, &gone, folder.path()));
        assert!(!is_dead(Life::Unknown, &Owner::this(), folder.path()));
        assert!(!is_dead(Life::Alive, &gone, folder.path()), "its process has another number there");
    }

    #[test]
    fn only_an_own_list_is_believed() {
        let within = tempfile::tempdir().unwrap();
        let list = RunList::within(within.path());
        let run = within.path().join("stormo-testnet-1-1-abc");
        assert_eq!(list.folders(), Vec::<PathBuf>::new());
        list.add(&run);
        assert_eq!(list.folders(), vec![run.clone()]);
        assert_eq!(list.folder_of("stormo-testnet-1-1-abc"), Some(run.clone()));
        symlink("/home", list.folder.join("stormo-testnet-1-1-abd")).unwrap();
        assert_eq!(list.folders(), vec![run.clone()], "a name that its folder does not have");
        fs::set_permissions(&list.folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(list.folders(), Vec::<PathBuf>::new(), "others may have written there");
        fs::set_permissions(&list.folder, fs::Permissions::from_mode(0o700)).unwrap();
        list.remove(&run);
        assert_eq!(list.folder_of("stormo-testnet-1-1-abc"), None);
    }
}
