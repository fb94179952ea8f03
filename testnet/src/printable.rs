//! Texts of files and arguments as a terminal may show them: what would move its cursor, change its colours or turn
//! the direction of reading is written out.

use std::borrow::Cow;

/// A text whose control characters are written as `\u{1b}`; ends of lines and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(moves) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if moves(letter) {
            shown.extend(letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    shown.into()
}

fn moves(letter: char) -> bool {
    // Marks that turn the direction of what follows: Unicode Standard Annex 9.
    let is_turning =
        matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_turning || (letter.is_control() && !matches!(letter, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_but_letters() {
        assert_eq!(printable("plain → ok\n\ttoo"), "plain → ok\n\ttoo");
        assert_eq!(printable("\u{1b}[2Jgone\r\u{7}"), "\\u{1b}[2Jgone\\u{d}\\u{7}");
        assert_eq!(printable("a\u{202e}b\u{9b}"), "a\\u{202e}b\\u{9b}");
    }
}
