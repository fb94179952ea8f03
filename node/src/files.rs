//! Small files of ours, which must be whole or absent: written beside, synced, then renamed. And files that
//! somebody names to us: regular ones only, within a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a small file that only its owner may read.
///
/// # Errors
/// What the system says.
pub fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o600)
}

/// Writes a small file.
///
/// # Errors
/// What the system says.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, 0o644)
}

/// Opens a file to read it, if it is a regular one.
///
/// # Errors
/// What the system says, or that it is a folder, a device or a pipe.
pub fn open(path: &Path) -> io::Result<File> {
    // Before it is opened: opening a pipe would wait for its writer.
    let found = fs::metadata(path)?;
    if found.is_file() {
        return File::open(path);
    }
    Err(if found.is_dir() {
        io::Error::new(io::ErrorKind::IsADirectory, "is a directory; give the path of a file")
    } else {
        let text = "is a device or pipe, which may have no end; give the path of a file";
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Reads a regular file of at most so many bytes.
///
/// # Errors
/// As [`open`], or `FileTooLarge`.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    let mut length = file.metadata()?.len();
    if length <= bytes_max {
        bytes.try_reserve_exact(length as usize)?;
        // It may grow meanwhile, and some file systems tell 0 for what has a length.
        length = file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)? as u64;
    }
    if length > bytes_max {
        let text = format!("has more than {bytes_max} bytes, the most that are read of such a file");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Reads a regular file of at most so many bytes as text.
///
/// # Errors
/// As [`read`], or `InvalidData`.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, bytes_max)?);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is no text (it is not UTF-8)"))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("partial-{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_within_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(folder.path(), 9).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read(&folder.path().join("none"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        // Opening the pipe would wait for ever: nobody writes to it.
        for endless in [pipe.as_path(), Path::new("/dev/zero")] {
            assert_eq!(read(endless, 9).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_whose_length_is_told_as_0_is_bounded_too() {
        let path = Path::new("/proc/self/status");
        assert_eq!(fs::metadata(path).unwrap().len(), 0);
        assert!(read_text(path, 1 << 20).unwrap().contains("VmRSS"));
        assert_eq!(read(path, 100).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
