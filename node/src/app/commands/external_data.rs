//! Reads the data that a model keeps in files beside it, when the user asks for that. A model names those
//! files itself, so it reaches nothing outside the folder that it lies in.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use crate::model::ExternalPart;

/// The bytes of one part.
///
/// # Errors
/// In words that follow "cannot be read from `file` beside the model".
pub(super) fn read(folder: &Path, part: &ExternalPart) -> Result<Vec<u8>, String> {
    let path = Path::new(&part.location);
    if !path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
        return Err("it lies outside the model's folder, where no model may read".to_owned());
    }
    let told = |error: std::io::Error| error.to_string();
    let folder = folder.canonicalize().map_err(told)?;
    let path = folder.join(path).canonicalize().map_err(told)?;
    if !path.starts_with(&folder) {
        return Err("it is a link to outside the model's folder, where no model may read".to_owned());
    }
    // Before it is opened: opening a pipe would wait for its writer.
    let metadata = fs::metadata(&path).map_err(told)?;
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    let end = part.offset.checked_add(part.bytes);
    if end.is_none_or(|end| end > metadata.len()) {
        return Err(format!(
            "it has {} bytes, and {} are to begin at {}",
            metadata.len(),
            part.bytes,
            part.offset
        ));
    }
    let mut file = File::open(&path).map_err(told)?;
    file.seek(SeekFrom::Start(part.offset)).map_err(told)?;
    let length = usize::try_from(part.bytes).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).map_err(told)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(location: &str, offset: u64, bytes: u64) -> ExternalPart {
        ExternalPart { location: location.to_owned(), offset, bytes }
    }

    #[test]
    fn files_of_the_folder_are_read_and_no_others() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("secret"), b"secret").unwrap();
        let folder = outer.path().join("model");
        fs::create_dir_all(folder.join("data")).unwrap();
        fs::write(folder.join("data/w.bin"), b"0123456789").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
        std::os::unix::fs::symlink("data/w.bin", folder.join("inner")).unwrap();
        assert_eq!(read(&folder, &part("data/w.bin", 2, 3)), Ok(b"234".to_vec()));
        assert_eq!(read(&folder, &part("./inner", 0, 10)), Ok(b"0123456789".to_vec()));
        let refused = |location: &str, offset, bytes, says: &str| {
            let error = read(&folder, &part(location, offset, bytes)).expect_err(location);
            assert!(error.contains(says), "{location}: {error}");
        };
        let secret = outer.path().join("secret");
        for location in ["../secret", "data/../../secret", secret.to_str().unwrap(), "/dev/zero"] {
            refused(location, 0, 6, "outside the model's folder");
        }
        refused("link", 0, 6, "a link to outside");
        refused("up/secret", 0, 6, "a link to outside");
        refused("data", 0, 1, "no file");
        refused("nothing", 0, 1, "No such file");
        refused("data/w.bin", 8, 3, "has 10 bytes, and 3 are to begin at 8");
        refused("data/w.bin", u64::MAX, 2, "has 10 bytes");
    }
}
