//! Numbers with what they count, of one or of several.

use std::fmt::Display;

/// `1 fault`, `2 faults`, `3 tries`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    if count == N::from(1) {
        return format!("{count} {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_from_several() {
        assert_eq!(counted(1_usize, "fault"), "1 fault");
        assert_eq!(
            (counted(0_u64, "fault"), counted(2_u16, "fault")),
            ("0 faults".into(), "2 faults".into())
        );
        assert_eq!((counted(1_u8, "try"), counted(3_u8, "try")), ("1 try".into(), "3 tries".into()));
        assert_eq!(counted(2_u8, "way"), "2 ways");
    }
}
