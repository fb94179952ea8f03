//! What topologies and scenarios have in common as files: found by their names, read within a bound, and what is
//! wrong with them told by its line.

use std::io;
use std::path::{Path, PathBuf};

use stormo::files;

use crate::binary::workspace_root;

/// Longest file that is read: thousands of nodes, or faults, fit.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a file is: a bare name (`loopback`) means one of the workspace's in a folder, unless there is such a file
/// here.
pub(crate) fn locate(named: &Path, folder: &str) -> PathBuf {
    if is_bare(named) && !named.is_file() {
        workspace_root().join(folder).join(named).with_extension("toml")
    } else {
        named.to_owned()
    }
}

/// Whether a path is a name alone, without folder and extension.
pub(crate) fn is_bare(named: &Path) -> bool {
    named.components().count() == 1 && named.extension().is_none()
}

pub(crate) fn read(path: &Path) -> io::Result<String> {
    files::read_text(path, FILE_BYTES_MAX)
}

/// The line of a place in a text, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// What is wrong with a text that is no such file: the place, and the field unless the message names it.
pub(crate) fn misread(text: &str, error: &toml::de::Error) -> (usize, String) {
    let Some(at) = error.span().map(|span| span.start) else { return (0, error.message().to_owned()) };
    let message = error.message();
    match field_before(text, at) {
        Some(field) if !message.contains("field `") => (at, format!("`{field}`: {message}")),
        _ => (at, message.to_owned()),
    }
}

/// The key that a value is of: the nearest one before an equals sign, or the name of the table that is one.
fn field_before(text: &str, at: usize) -> Option<&str> {
    if let Some(table) = text.get(at..)?.strip_prefix('[') {
        let line = table.lines().next()?.trim_start_matches('[');
        // A list as a value has its key before it on the line.
        if text[..at]
            .lines()
            .next_back()
            .is_none_or(|before| text[..at].ends_with('\n') || before.trim().is_empty())
        {
            return line.split(']').next().map(str::trim).filter(|name| !name.is_empty());
        }
    }
    let (before, _) = text.get(..at)?.rsplit_once('=')?;
    let field = before.trim_end();
    let is_of_key = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    Some(&field[field.trim_end_matches(is_of_key).len()..]).filter(|field| !field.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_an_end_are_read() {
        let refused = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(refused.contains("is a device or pipe"), "{refused}");
    }

    #[test]
    fn bare_names_are_those_of_the_workspace() {
        assert_eq!(locate(Path::new("home"), "topologies"), workspace_root().join("topologies/home.toml"));
        assert_eq!(locate(Path::new("./home.toml"), "topologies"), Path::new("./home.toml"));
        assert_eq!(field_before("a = 1\nlink = { between = [1, 2] }", 28), Some("between"));
        assert_eq!(field_before("[node", 3), None);
        assert_eq!(field_before("about = 1\n[node]\nlabel = 1\n", 10), Some("node"));
        assert_eq!(field_before("about = 1\nblocks = [1]\n", 19), Some("blocks"));
        assert_eq!((line_of("a\nb\nc", 0), line_of("a\nb\nc", 4)), (1, 3));
    }
}
