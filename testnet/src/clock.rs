//! Wall clocks that can be put wrong: a library between a node and the system's clock (libfaketime, by Wolfgang
//! Hommel and others) adds what a file says. The clock that only counts stays as it is, as it does when
//! a machine's wall clock is set.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian and others put the library, for programs of several threads.
const LIBRARIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// Whether clocks can be moved here; what to do if not.
///
/// # Errors
/// When the library is not installed.
pub fn is_possible() -> Result<(), String> {
    library().map(drop)
}

fn library() -> Result<&'static Path, String> {
    let found = LIBRARIES.iter().map(Path::new).find(|path| path.is_file());
    found.ok_or_else(|| "there is no libfaketime (Debian: `apt-get install libfaketime`)".to_owned())
}

/// Lets a process have a clock of its own, by a file in this folder; it is right at first.
pub(crate) fn give(command: &mut Command, folder: &Path) -> io::Result<()> {
    let library = library().map_err(io::Error::other)?;
    let file = file_in(folder);
    // One that starts again finds its clock as it was.
    if !file.exists() {
        set(folder, 0.0)?;
    }
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// Puts it off by so many seconds.
pub(crate) fn set(folder: &Path, offset_s: f64) -> io::Result<()> {
    let unfinished = folder.join(".clock");
    fs::write(&unfinished, format!("{offset_s:+}\n"))?;
    fs::rename(unfinished, file_in(folder))
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("clock")
}

/// The library keeps memory and a semaphore for each process, which stay where it is killed: they go when the process is
/// forgotten.
pub(crate) fn note_process(folder: &Path, pid: u32) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(processes_in(folder))?;
    writeln!(file, "{pid}")
}

/// Removes what the library kept for the processes that were noted in folders of this one.
pub(crate) fn forget_processes(run: &Path) {
    forget_in(run, Path::new("/dev/shm"));
}

fn forget_in(run: &Path, shared_memory: &Path) {
    for node in fs::read_dir(run).into_iter().flatten().flatten() {
        let noted = fs::read_to_string(processes_in(&node.path())).unwrap_or_default();
        for pid in noted.lines().filter_map(|line| line.parse::<u32>().ok()) {
            for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
                // One that ended by itself has removed them.
                let _ = fs::remove_file(shared_memory.join(name));
            }
        }
    }
}

fn processes_in(folder: &Path) -> PathBuf {
    folder.join("clock-of")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_kept_for_killed_processes_goes_and_no_more() {
        let (run, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = run.path().join("node");
        fs::create_dir(&node).unwrap();
        [41, 42].into_iter().for_each(|pid| note_process(&node, pid).unwrap());
        let names = ["faketime_shm_41", "sem.faketime_sem_41", "sem.faketime_sem_42", "faketime_shm_43"];
        names.iter().for_each(|name| fs::write(shared.path().join(name), "").unwrap());
        forget_in(run.path(), shared.path());
        let left: Vec<_> =
            fs::read_dir(shared.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["faketime_shm_43"]);
    }
}
