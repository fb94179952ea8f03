//! Wall clocks that can be put wrong: a library between a node and the system's clock (libfaketime, by Wolfgang
//! Hommel and others) adds what a file says. The clock that only counts stays as it is, as it does when
//! a machine's wall clock is set.

use std::fs;
use std::io;
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
