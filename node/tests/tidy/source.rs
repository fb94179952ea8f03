//! A Rust file as the rules read it: code apart from comments and strings, each line knowing whether
//! it belongs to tests. A scanner, no parser: it knows the lexical rules of Rust and counts brackets.

use std::ops::Range;

/// One file of the tree.
pub(crate) struct Source {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
    /// What the `use` statements import, each path in full, with its line.
    pub(crate) imports: Vec<Import>,
}

pub(crate) struct Line {
    pub(crate) number: usize,
    /// As written.
    pub(crate) text: String,
    /// Without comments, and with nothing inside strings and character literals.
    pub(crate) code: String,
    pub(crate) comment: String,
    pub(crate) is_test: bool,
}

pub(crate) struct Import {
    pub(crate) line: usize,
    pub(crate) path: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = apart(text);
        let is_of_tests = |part: &str| part == "tests" || part == "tests.rs";
        let whole = path.split('/').any(is_of_tests) || code.contains("#![cfg(test)]");
        let mut is_test = vec![whole; text.lines().count() + 1];
        for item in test_items(&code) {
            is_test[line_of(&code, item.start) - 1..line_of(&code, item.end)].fill(true);
        }
        let mut lines = Vec::new();
        for (position, ((text, code), comment)) in
            text.lines().zip(code.lines()).zip(comments.lines()).enumerate()
        {
            let (text, code, comment) = (text.to_owned(), code.to_owned(), comment.to_owned());
            lines.push(Line { number: position + 1, text, code, comment, is_test: is_test[position] });
        }
        Self { path: path.to_owned(), lines, imports: imports(&code) }
    }

    /// Marks the whole file as one that only tests see.
    pub(crate) fn mark_as_test(&mut self) {
        self.lines.iter_mut().for_each(|line| line.is_test = true);
    }

    /// Without extension, files and folders of the modules declared here for tests alone.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let folder = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main")) => folder,
            _ => stem,
        };
        let declared = |line: &Line| {
            let name = line.code.trim().strip_suffix(';')?.rsplit_once("mod ")?.1.trim().to_owned();
            line.is_test.then(|| format!("{folder}/{name}"))
        };
        self.lines.iter().filter_map(declared).collect()
    }

    /// Whether a line names something, as code or as a part of an import.
    pub(crate) fn naming<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a Line> {
        let imported = |line: &Line| {
            self.imports.iter().any(|import| import.line == line.number && names(&import.path, word))
        };
        self.lines.iter().filter(move |line| names(&line.code, word) || imported(line))
    }
}

/// Whether `code` has `word` with no longer identifier around it.
pub(crate) fn names(code: &str, word: &str) -> bool {
    let in_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let open_start = !word.starts_with(in_name);
    let open_end = !word.ends_with(in_name);
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        (open_start || !before.is_some_and(in_name)) && (open_end || !after.is_some_and(in_name))
    })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// The code and the comments of a file, each at the places where they stand, blanks elsewhere.
fn apart(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::new(), String::new());
    let mut at = 0;
    while let Some(letter) = text[at..].chars().next() {
        let comment = comment_end(text, at);
        let literal = string_end(text, at).or_else(|| character_end(text, at));
        let end = comment.or(literal).unwrap_or(at + letter.len_utf8());
        for letter in text[at..end].chars() {
            let blank = if letter == '\n' { '\n' } else { ' ' };
            comments.push(if comment.is_some() { letter } else { blank });
            code.push(if comment.or(literal).is_none() { letter } else { blank });
        }
        at = end;
    }
    (code, comments)
}

fn comment_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    if rest.starts_with("//") {
        return Some(at + rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut place) = (0_usize, 0);
    while place < rest.len() {
        let step = &rest[place..];
        depth = match step {
            _ if step.starts_with("/*") => depth + 1,
            _ if step.starts_with("*/") => depth - 1,
            _ => {
                place += step.chars().next().map_or(1, char::len_utf8);
                continue;
            }
        };
        place += 2;
        if depth == 0 {
            break;
        }
    }
    Some(at + place)
}

/// The end of a string that begins here, plain or raw; a prefix such as `b` may stand before it.
fn string_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let in_name = text[..at].ends_with(|letter: char| letter.is_alphanumeric() && !"bc".contains(letter));
    if let Some(raw) = rest.strip_prefix('r').filter(|_| !in_name) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let open = at + 1 + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            return Some(text[open..].find(&close).map_or(text.len(), |found| open + found + close.len()));
        }
    }
    rest.starts_with('"').then(|| at + 1 + escaped_length(&rest[1..], '"'))
}

/// The end of a character literal that begins here; a lifetime is none.
fn character_end(text: &str, at: usize) -> Option<usize> {
    let inner = text[at..].strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let is_literal = first == '\\' || inner[first.len_utf8()..].starts_with('\'');
    is_literal.then(|| at + 1 + escaped_length(inner, '\''))
}

/// Bytes up to and with the first `close` that no backslash escapes.
fn escaped_length(text: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        if letter == close && !escaped {
            return at + close.len_utf8();
        }
        escaped = letter == '\\' && !escaped;
    }
    text.len()
}

/// Where items stand that only tests see, with their attributes.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let attributes = ["#[cfg(test)]", "#[cfg(all(test,"];
    let starts = attributes.iter().flat_map(|attribute| code.match_indices(attribute));
    starts.map(|(start, _)| start..item_end(code, start)).collect()
}

/// The last byte of the item that begins here: its `;`, or the `}` of its body.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in code[start..].char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' if depth <= 1 => return start + at,
            '}' => depth -= 1,
            ';' if depth == 0 => return start + at,
            _ => {}
        }
    }
    code.len().saturating_sub(1)
}

fn imports(code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let starts = code[..at].trim_end_matches([' ', '\t']).ends_with(['\n', '{', '}', ';', ')']);
        if at == 0 || starts || code[..at].ends_with("pub ") {
            let tree = code[at + 4..].split(';').next().unwrap_or_default();
            let mut paths = Vec::new();
            expand("", tree, &mut paths);
            found.extend(paths.into_iter().map(|path| Import { line: line_of(code, at), path }));
        }
    }
    found
}

/// Every path of a `use` tree, each with `::` behind it.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let (mut depth, mut start) = (0_usize, 0);
    let mut branches = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                branches.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[start..]);
    for branch in branches.iter().map(|branch| branch.trim()).filter(|branch| !branch.is_empty()) {
        match branch.split_once('{') {
            Some((prefix, inner)) => {
                let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
                expand(&format!("{before}{}", prefix.trim()), inner, paths);
            }
            None => {
                let name = branch.split_whitespace().next().unwrap_or_default();
                paths.push(format!("{before}{name}::"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> String {
        Source::new("a.rs", text).lines.iter().map(|line| line.code.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(code_of("a(); // b\n/* c /* d */\ne */ f();"), "a();\n\n     f();\n");
        assert_eq!(
            code_of(r##"let s = "x\"y"; t(r#"u"v"#, b"w");"##).matches(char::is_alphabetic).count(),
            6
        );
        assert_eq!(code_of("fn f<'a>(x: &'a str) { g('\"', '\\'', 'é'); h() }").matches('h').count(), 1);
    }

    #[test]
    fn a_comment_keeps_its_words() {
        let source = Source::new("a.rs", "let a = \"b\"; // why\n");
        assert_eq!(source.lines[0].comment.trim(), "// why");
    }

    #[test]
    fn test_items_end_with_their_bodies() {
        let text = "fn a() {}\n#[cfg(test)]\nfn b(x: [u8; 2]) {\n  { c(\"}\") }\n}\nfn d() {}\n\
                    #[cfg(test)]\nmod e;\nfn f() {}\n";
        let source = Source::new("node/src/x.rs", text);
        let tests: Vec<_> = source.lines.iter().filter(|line| line.is_test).map(|line| line.number).collect();
        assert_eq!(tests, [2, 3, 4, 5, 7, 8]);
        assert_eq!(source.test_modules(), ["node/src/x/e"]);
        assert_eq!(Source::new("node/src/lib.rs", text).test_modules(), ["node/src/e"]);
    }

    #[test]
    fn files_of_tests_are_tests() {
        for (path, is_test) in
            [("node/src/a/tests.rs", true), ("node/tests/a.rs", true), ("node/src/a.rs", false)]
        {
            assert_eq!(Source::new(path, "fn a() {}\n").lines[0].is_test, is_test, "{path}");
        }
    }

    #[test]
    fn an_import_is_known_by_its_whole_path() {
        let source = Source::new("a.rs", "use std::{env, fs::{self, File}};\npub(crate) use b as c;\n");
        let paths: Vec<_> = source.imports.iter().map(|import| import.path.as_str()).collect();
        assert_eq!(paths, ["std::env::", "std::fs::self::", "std::fs::File::", "b::"]);
        assert!(source.naming("std::fs").any(|line| line.number == 1));
    }

    #[test]
    fn a_longer_name_is_another_name() {
        assert!(names("let x = rand::random();", "rand"));
        assert!(!names("operand.is_random()", "rand"));
        assert!(names("a.b().await?", ".await"));
        assert!(names("ort::init()", "ort::"));
        assert!(!names("effort::init()", "ort::"));
    }
}
