//! What topologies and scenarios have in common as files: found by their names, read within a bound, and what is
//! wrong with them told by its line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use stormo::files;
use stormo_protocol::limits::NAME_BYTES_MAX;
use stormo_protocol::model::is_valid_name;

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

/// A number as people write it: one of hundreds of digits by its power of ten.
pub(crate) fn short(number: f64) -> String {
    let is_plain = number == 0.0 || !number.is_finite() || (1e-9..1e15).contains(&number.abs());
    if is_plain { number.to_string() } else { format!("{number:e}") }
}

/// Whether a path is a name alone, without folder and extension.
pub(crate) fn is_bare(named: &Path) -> bool {
    named.components().count() == 1 && named.extension().is_none()
}

pub(crate) fn read(path: &Path) -> io::Result<String> {
    files::read_text(path, FILE_BYTES_MAX)
}

/// Why a file cannot be read; where there is none, with the one that may be meant, or those of the workspace.
pub(crate) fn unread(named: &Path, folder: &str, cause: io::Error) -> io::Error {
    if cause.kind() != io::ErrorKind::NotFound {
        return cause;
    }
    let meant = named.with_extension("toml");
    if !is_bare(named) && named.extension().is_none() && meant.is_file() {
        return io::Error::new(cause.kind(), format!("{cause}; there is {}", meant.display()));
    }
    let by_name = if is_bare(named) { "" } else { "by name " };
    io::Error::new(cause.kind(), format!("{cause}; {by_name}there are: {}", names(folder).join(", ")))
}

/// Names of the workspace's files in a folder, in order.
pub(crate) fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(workspace_root().join(folder)).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|path| path.extension() == Some("toml".as_ref()));
    let mut names: Vec<String> =
        files.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort_unstable();
    names
}

/// Why a text cannot be the name of a node, a domain, a deployment or a variant. Names appear in URLs, file names,
/// tables and command lines.
pub(crate) fn check_name(text: &str) -> Result<(), String> {
    let shown: String = text.chars().take(NAME_BYTES_MAX).collect();
    if text.len() > NAME_BYTES_MAX {
        return Err(format!("`{shown}...`: {} bytes; a name has at most {NAME_BYTES_MAX}", text.len()));
    }
    // A command would take it for an option.
    if is_valid_name(text) && !text.starts_with('-') {
        return Ok(());
    }
    Err(format!("`{shown}`: letters, digits, `.`, `_` and `-`, not starting with `.` or `-`"))
}

/// The line of a place in a text, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// What is wrong with a text that is no such file: the place, and the field unless the message names it.
pub(crate) fn misread(text: &str, error: &toml::de::Error) -> (usize, String) {
    let message = plain(error.message());
    let Some(at) = error.span().map(|span| span.start) else { return (0, message) };
    match field_before(text, at) {
        Some(field) if !message.contains("field `") => (at, format!("`{field}`: {message}")),
        _ => (at, message),
    }
}

/// What a reader wants, in words of the file instead of this program's.
fn plain(message: &str) -> String {
    let Some((before, wanted)) = message.rsplit_once("expected ") else { return message.to_owned() };
    let whole = |most: u64| format!("a whole number from 0 to {most}");
    let wanted = match wanted {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.starts_with("enum ") => "one of its words".to_owned(),
        other => other.to_owned(),
    };
    let before = before.replace("invalid type: map,", "invalid type: table,");
    format!("{}expected {wanted}", before.replace("invalid type: sequence,", "invalid type: list,"))
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
    fn names_are_told_what_they_lack() {
        assert_eq!(check_name("a-1_b.c"), Ok(()));
        let told = |text: &str| check_name(text).unwrap_err();
        let letters = "letters, digits, `.`, `_` and `-`, not starting with `.` or `-`";
        for text in ["", "-help", ".hidden", "a b", "a/b", "ä", "@host", "\u{1b}[2J"] {
            assert_eq!(told(text), format!("`{text}`: {letters}"));
        }
        assert_eq!(
            told(&"a".repeat(65)),
            format!("`{}...`: 65 bytes; a name has at most 64", "a".repeat(64))
        );
        assert_eq!(check_name(&"a".repeat(64)), Ok(()));
        assert!(told(&"ä".repeat(40)).ends_with("80 bytes; a name has at most 64"));
    }

    #[test]
    fn a_name_that_is_none_is_told_those_that_are() {
        let cause = || io::Error::from(io::ErrorKind::NotFound);
        let told = unread(Path::new("nosuch"), "topologies", cause()).to_string();
        assert!(told.contains("; there are: campus, demo, handheld, home, "), "{told}");
        let path = unread(Path::new("here/nosuch.toml"), "topologies", cause()).to_string();
        assert!(path.contains("; by name there are: campus, "), "{path}");
        let folder = tempfile::tempdir().unwrap();
        let meant = folder.path().join("one.toml");
        fs::write(&meant, "").unwrap();
        let told = unread(&folder.path().join("one"), "topologies", cause()).to_string();
        assert!(told.ends_with(&format!("; there is {}", meant.display())), "{told}");
    }

    #[test]
    fn what_is_wanted_is_said_in_words_of_the_file() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only that it cannot be read matters")]
        struct File {
            count: Option<toml::Spanned<u16>>,
            long: Option<u64>,
            share: Option<toml::Spanned<f64>>,
            is_so: Option<bool>,
            list: Option<Vec<Inner>>,
            inner: Option<toml::Spanned<Inner>>,
            word: Option<Word>,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Inner {}
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum Word {
            One,
        }
        let cases = [
            ("count = -1", "`count`: invalid value: integer `-1`, expected a whole number from 0 to 65535"),
            (
                "count = 1.5",
                "`count`: invalid type: floating point `1.5`, expected a whole number from 0 to 65535",
            ),
            ("long = -1", "`long`: invalid value: integer `-1`, expected a whole number, 0 or more"),
            ("share = \"x\"", "`share`: invalid type: string \"x\", expected a number"),
            ("is_so = 1", "`is_so`: invalid type: integer `1`, expected true or false"),
            ("list = 1", "`list`: invalid type: integer `1`, expected a list"),
            ("list = [1]", "`list`: invalid type: integer `1`, expected a table"),
            ("[list]", "`list`: invalid type: table, expected a list"),
            ("inner = 1", "`inner`: invalid type: integer `1`, expected a table"),
            ("word = \"two\"", "`word`: unknown variant `two`, expected `one`"),
            ("word = 1", "`word`: wanted string or table"),
        ];
        for (text, says) in cases {
            assert_eq!(misread(text, &toml::from_str::<File>(text).unwrap_err()).1, says, "{text}");
        }
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
