//! Finds ONNX Runtime's shared library on this machine, or has it obtained.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::pip;

/// Oldest version that is used; older ones were never tried with this node.
pub const OLDEST_VERSION: Version = Version { major: 1, minor: 29, patch: 0 };
/// Largest library that is read; official builds for processors have 35 MB.
pub(super) const LIBRARY_BYTES_MAX: u64 = 512 << 20;
/// How all library files begin; versions follow.
const FILE_PREFIX: &str = "libonnxruntime.so";

/// A version of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1 so far.
    pub major: u32,
    /// Raised with each release.
    pub minor: u32,
    /// Raised with corrections.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Where to look, in this order.
#[derive(Debug, Clone, Default)]
pub struct LibrarySearch {
    /// The file that the user names with `ORT_DYLIB_PATH`. Then nothing else is looked at.
    pub explicit: Option<PathBuf>,
    /// The binary's folder.
    pub beside_binary: Option<PathBuf>,
    /// The system's library folders; see [`system_folders`].
    pub system: Vec<PathBuf>,
    /// The node's data directory.
    pub data: Option<PathBuf>,
    /// The user's cache directory of this program: where an obtained library is kept.
    pub cache: Option<PathBuf>,
    /// Ways to call pip, tried in order; see [`pip_programs`].
    pub pip: Vec<Vec<String>>,
}

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The file that the user named is not usable.
    #[error(
        "ORT_DYLIB_PATH names {path}, but {problem}. It must name a libonnxruntime.so of version {OLDEST_VERSION} or newer."
    )]
    Explicit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// None was found and none could be obtained.
    #[error(
        "ONNX Runtime was not found on this machine, and could not be obtained: {0}\n\
         Either set ORT_DYLIB_PATH to a libonnxruntime.so of version {OLDEST_VERSION} or newer, or make \
         `python3 -m pip` work here (with a network) and start again."
    )]
    Obtain(#[from] pip::ObtainError),
}

/// Library folders of the usual systems, those of the running machine's kind first.
pub fn system_folders() -> Vec<PathBuf> {
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    [
        "/usr/local/lib".to_owned(),
        format!("/usr/local/lib/{multiarch}"),
        format!("/usr/lib/{multiarch}"),
        "/usr/local/lib64".to_owned(),
        "/usr/lib64".to_owned(),
        "/usr/lib".to_owned(),
    ]
    .map(PathBuf::from)
    .to_vec()
}

/// The usual ways to call pip.
pub fn pip_programs() -> Vec<Vec<String>> {
    [&["python3", "-m", "pip"][..], &["pip3"], &["pip"]]
        .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
        .to_vec()
}

/// The library to open. Blocks: up to ten minutes when it must be obtained, with `progress` told
/// meanwhile in sentences for the user.
///
/// # Errors
/// When the named file is unusable, or none was found and none could be obtained.
pub fn find_or_obtain(search: &LibrarySearch, progress: &dyn Fn(&str)) -> Result<PathBuf, LibraryError> {
    if let Some(path) = &search.explicit {
        return explicit(path);
    }
    let folders = search.beside_binary.iter().chain(&search.system).chain(&search.data);
    if let Some(path) = folders.filter_map(|folder| newest_in(folder)).next() {
        return Ok(path);
    }
    Ok(pip::cached_or_obtained(search.cache.as_deref(), &search.pip, progress)?)
}

fn explicit(path: &Path) -> Result<PathBuf, LibraryError> {
    let wrong = |problem: String| Err(LibraryError::Explicit { path: path.to_owned(), problem });
    // Absolute, since the loader would look for a relative one beside the binary.
    let absolute = match path.canonicalize() {
        Ok(absolute) if absolute.is_file() => absolute,
        Ok(_) => return wrong("that is no file".into()),
        Err(error) => return wrong(format!("it cannot be read ({error})")),
    };
    match version_of(&absolute) {
        Some(version) if version < OLDEST_VERSION => wrong(format!("that is version {version}")),
        // A private build may tell no version; the loader then checks what interface it offers.
        _ => Ok(absolute),
    }
}

/// The newest usable library of a folder. One whose version is not known is left alone here, since
/// nobody asked for it by name.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let found = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let rest = name.strip_prefix(FILE_PREFIX)?;
        let versions_only = rest.chars().all(|c| c == '.' || c.is_ascii_digit());
        let path = entry.path().canonicalize().ok().filter(|path| versions_only && path.is_file())?;
        let version = version_of(&path).filter(|version| *version >= OLDEST_VERSION)?;
        Some((version, path))
    });
    found.max().map(|(_, path)| path)
}

/// The version of a library: from its file name behind all links, else from the mark that ONNX
/// Runtime's build puts on its symbols. Nothing of the library is executed.
pub fn version_of(library: &Path) -> Option<Version> {
    let path = library.canonicalize().ok()?;
    let name = path.file_name()?.to_str()?;
    let in_name = name.strip_prefix(FILE_PREFIX).and_then(|rest| parse_version(rest.strip_prefix('.')?));
    in_name.or_else(|| version_mark(&path))
}

/// The symbols' version, as in `VERS_1.32.0`.
const MARK: &[u8] = b"VERS_";
/// Longest version that is looked for behind the mark, bytes.
const VERSION_BYTES_MAX: usize = 24;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

fn version_mark(path: &Path) -> Option<Version> {
    let mut file = File::open(path).ok()?.take(LIBRARY_BYTES_MAX);
    let mut window = Vec::new();
    loop {
        let read = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut window).ok()?;
        let marks = window.windows(MARK.len()).enumerate().filter(|(_, bytes)| *bytes == MARK);
        for (start, _) in marks {
            let text = &window[start + MARK.len()..];
            let length =
                text.iter().take(VERSION_BYTES_MAX).take_while(|byte| byte.is_ascii_graphic()).count();
            // A version that reaches the end of the window is read again with the next chunk.
            if read > 0 && length == text.len() {
                continue;
            }
            if let Some(version) = std::str::from_utf8(&text[..length]).ok().and_then(parse_version) {
                return Some(version);
            }
        }
        if read == 0 {
            return None;
        }
        let overlap = MARK.len() + VERSION_BYTES_MAX;
        window.drain(..window.len().saturating_sub(overlap));
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.split('.').map(str::parse);
    let (major, minor, patch) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    parts.next().is_none().then_some(Version { major, minor, patch })
}

/// SHA-256 of a file of bounded size, as lower-case hexadecimal digits.
pub(super) fn sha256_of(file: &mut impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut file.take(LIBRARY_BYTES_MAX), &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(folder: &Path) -> LibrarySearch {
        LibrarySearch { data: Some(folder.to_owned()), ..LibrarySearch::default() }
    }

    fn silent(_: &str) {}

    #[test]
    fn the_newest_that_is_new_enough_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libonnxruntime.so.1.28.3", "libonnxruntime.so.1.30.1", "libonnxruntime.so.1.9.0"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        std::fs::write(folder.path().join("libonnxruntime.so.1.99.0.bak"), b"").unwrap();
        let found = find_or_obtain(&search(folder.path()), &silent).unwrap();
        assert!(found.ends_with("libonnxruntime.so.1.30.1"), "{found:?}");
    }

    #[test]
    fn a_version_is_read_from_the_symbols_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        // The mark lies across the border of two chunks.
        let mut bytes = vec![0; CHUNK_BYTES - 8];
        bytes.extend(b"VERS_1.31.2\0");
        bytes.extend([7; 100]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(version_of(&path), Some(Version { major: 1, minor: 31, patch: 2 }));
        bytes.truncate(CHUNK_BYTES - 8);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(version_of(&path), None);
        bytes.extend(b"VERS_1.32.0");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(version_of(&path).map(|version| version.minor), Some(32));
    }

    #[test]
    fn a_named_file_is_taken_or_the_reason_told() {
        let folder = tempfile::tempdir().unwrap();
        let named =
            |name: &str| LibrarySearch { explicit: Some(folder.path().join(name)), ..Default::default() };
        std::fs::write(folder.path().join("libonnxruntime.so.1.20.0"), b"").unwrap();
        std::fs::write(folder.path().join("private.so"), b"").unwrap();
        let old = find_or_obtain(&named("libonnxruntime.so.1.20.0"), &silent).unwrap_err().to_string();
        assert!(old.contains("version 1.20.0") && old.contains("ORT_DYLIB_PATH"), "{old}");
        let missing = find_or_obtain(&named("none.so"), &silent).unwrap_err().to_string();
        assert!(missing.contains("cannot be read"), "{missing}");
        assert!(find_or_obtain(&named("private.so"), &silent).is_ok());
    }

    #[test]
    fn without_any_the_user_is_told_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_or_obtain(&search(folder.path()), &silent).unwrap_err().to_string();
        assert!(error.contains("ORT_DYLIB_PATH") && error.contains("pip"), "{error}");
    }
}
