//! Where a play's results go, and that those of an earlier one stay: they are moved into a folder of their own.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Held while a play writes there.
const HELD: &str = ".playing";

/// A folder that one play writes its results to.
#[derive(Debug)]
pub(crate) struct Results {
    /// Where what an earlier play left there is now.
    pub(crate) earlier: Option<PathBuf>,
    _held: File,
}

impl Results {
    /// Makes the folder. What has a name of a result already is moved to `earlier-1` in it, or the next number.
    ///
    /// # Errors
    /// When another play writes there, or the system refuses.
    pub(crate) fn open(folder: &Path, is_result: impl Fn(&str) -> bool) -> Result<Self> {
        let shown = || folder.display().to_string();
        let unwritable =
            || format!("{}: results cannot be written there; --out takes another folder", shown());
        fs::create_dir_all(folder).with_context(unwritable)?;
        let held = File::create(folder.join(HELD)).with_context(unwritable)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{}: another play writes there until it ends; wait for it, or give another --out",
                    shown()
                )
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(shown),
        }
        let earlier = set_aside(folder, is_result).with_context(shown)?;
        Ok(Self { earlier, _held: held })
    }
}

/// Moves what an earlier play left into a new folder, if there is anything.
fn set_aside(folder: &Path, is_result: impl Fn(&str) -> bool) -> io::Result<Option<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| is_result(name)));
    }
    // A play that failed before it began leaves empty folders; none that holds something goes.
    names.retain(|name| fs::remove_dir(folder.join(name)).is_err());
    if names.is_empty() {
        return Ok(None);
    }
    // After the last, so that they stay in order when somebody removes one.
    let mut last = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().ok();
        let number = name.and_then(|name| name.strip_prefix("earlier-")?.parse::<u32>().ok());
        last = last.max(number.unwrap_or(0));
    }
    let earlier = folder.join(format!("earlier-{}", u64::from(last) + 1));
    fs::create_dir(&earlier)?;
    names.iter().try_for_each(|name| fs::rename(folder.join(name), earlier.join(name)))?;
    Ok(Some(earlier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_plays_left_stays_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let is_result = |name: &str| name == "report.json" || name == "logs";
        for play in 1..=3 {
            let results = Results::open(&path, is_result).unwrap();
            let earlier = (play > 1).then(|| path.join(format!("earlier-{}", play - 1)));
            assert_eq!(results.earlier, earlier);
            fs::create_dir(path.join("logs")).unwrap();
            fs::write(path.join("logs/one.log"), play.to_string()).unwrap();
            fs::write(path.join("report.json"), play.to_string()).unwrap();
            // Not a play's: nobody moves it.
            fs::write(path.join("notes.txt"), play.to_string()).unwrap();
        }
        for (place, play) in [("earlier-1", "1"), ("earlier-2", "2"), (".", "3")] {
            for file in ["report.json", "logs/one.log"] {
                assert_eq!(fs::read_to_string(path.join(place).join(file)).unwrap(), play);
            }
        }
        assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "3");
        fs::remove_dir_all(path.join("earlier-1")).unwrap();
        assert_eq!(Results::open(&path, is_result).unwrap().earlier, Some(path.join("earlier-3")));
    }

    #[test]
    fn a_play_that_left_nothing_is_no_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let is_result = |name: &str| name == "logs";
        for _ in 0..3 {
            assert_eq!(Results::open(folder.path(), is_result).unwrap().earlier, None);
            fs::create_dir(folder.path().join("logs")).unwrap();
        }
        fs::write(folder.path().join("logs/one.log"), "1").unwrap();
        let earlier = folder.path().join("earlier-1");
        assert_eq!(Results::open(folder.path(), is_result).unwrap().earlier, Some(earlier));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_told_with_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Results::open(&file.path().join("out"), |_| false).unwrap_err();
        assert!(format!("{refused:#}").contains("--out takes another folder: "), "{refused:#}");
    }

    #[test]
    fn two_plays_at_a_time_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Results::open(folder.path(), |_| false).unwrap();
        let refused = Results::open(folder.path(), |_| false).unwrap_err().to_string();
        assert!(refused.contains("another play writes there until it ends"), "{refused}");
        drop(first);
        assert!(Results::open(folder.path(), |_| false).is_ok());
    }
}
