//! Tables for people: columns as wide as they need to be, as many as the terminal has room for, and units.

use std::io::IsTerminal;

use crate::app::config;

/// Narrower than this nothing is fitted to: it would say nothing any more.
const WIDTH_MIN: usize = 40;

/// Rows under a heading, two spaces between columns.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let columns: Vec<Column> = heading.iter().map(|name| Column::always(name)).collect();
    let rows: Vec<Vec<Cell>> =
        rows.iter().map(|row| row.iter().map(|text| plain(text.clone())).collect()).collect();
    fitted(&columns, &rows, &Screen::unbounded())
}

/// What is known of where tables are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    /// Characters of a line; unbounded if absent.
    width: Option<usize>,
    has_colours: bool,
}

impl Screen {
    /// Standard output: without colours and as wide as it likes where it is no terminal.
    pub(super) fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self::unbounded();
        }
        let width = ratatui::crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns));
        Self { width: width.map(|width| width.max(WIDTH_MIN)), has_colours: config::wants_colours() }
    }

    /// Characters of a line; unbounded if absent.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    #[cfg(test)]
    pub(super) fn fixed(width: usize) -> Self {
        Self { width: Some(width), has_colours: false }
    }

    fn unbounded() -> Self {
        Self { width: None, has_colours: false }
    }
}

/// How good what a cell says is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Tone {
    /// What switches a terminal to it; `None` for what needs no colour.
    fn ansi(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\x1b[32m"),
            Self::Doubtful => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

/// What stands in a row under a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

pub(super) fn plain(text: impl Into<String>) -> Cell {
    toned(text, Tone::Plain)
}

pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column<'a> {
    name: &'a str,
    /// Where there is no room for all, those with the greatest number go first; 0 stays.
    goes: u8,
}

impl<'a> Column<'a> {
    pub(super) const fn always(name: &'a str) -> Self {
        Self { name, goes: 0 }
    }

    pub(super) const fn with_room(name: &'a str, goes: u8) -> Self {
        Self { name, goes }
    }
}

/// A table that a screen has room for: columns are left out, then the last one is cut off.
pub(super) fn fitted(columns: &[Column<'_>], rows: &[Vec<Cell>], screen: &Screen) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.chain([columns[column].name.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width_of).collect();
    let shown = with_room(columns, &widths, screen.width);
    let line = |cells: Vec<&Cell>| {
        let mut line = String::new();
        let mut used = 0;
        for (place, (cell, column)) in cells.into_iter().zip(&shown).enumerate() {
            let gap = if place == 0 { 0 } else { 2 };
            line.push_str(&"  "[..gap]);
            used += gap;
            let room = screen.width.map_or(usize::MAX, |width| width.saturating_sub(used));
            let text = cut(&cell.text, room);
            let length = text.chars().count();
            match cell.tone.ansi().filter(|_| screen.has_colours) {
                Some(colour) => line.push_str(&format!("{colour}{text}\x1b[0m")),
                None => line.push_str(&text),
            }
            let is_last = place + 1 == shown.len();
            let pad = if is_last { 0 } else { widths[*column].min(room).saturating_sub(length) };
            line.extend(std::iter::repeat_n(' ', pad));
            used += length + pad;
        }
        line.trim_end().to_owned()
    };
    let heading: Vec<Cell> = shown.iter().map(|column| plain(columns[*column].name)).collect();
    let nothing = plain("");
    let mut lines = vec![line(heading.iter().collect())];
    lines.extend(
        rows.iter()
            .map(|row| line(shown.iter().map(|column| row.get(*column).unwrap_or(&nothing)).collect())),
    );
    lines.join("\n")
}

/// Which columns there is room for; the last one of those that stay may be cut to the width of its heading.
fn with_room(columns: &[Column<'_>], widths: &[usize], width: Option<usize>) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(width) = width else { return shown };
    let needed = |shown: &[usize]| {
        let last = shown.last().map_or(0, |last| widths[*last] - columns[*last].name.chars().count());
        let all: usize = shown.iter().map(|column| widths[*column] + 2).sum();
        all.saturating_sub(last + 2)
    };
    while needed(&shown) > width {
        let Some(goes) = shown
            .iter()
            .copied()
            .filter(|column| columns[*column].goes > 0)
            .max_by_key(|column| columns[*column].goes)
        else {
            break;
        };
        shown.retain(|column| *column != goes);
    }
    shown
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// Bytes for people. Everywhere powers of ten, as disks and networks count: 1 MB are 1,000,000 bytes.
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

/// Milliseconds for people.
pub(super) fn ms(time: f64) -> String {
    if time < 10.0 { format!("{time:.2}") } else { format!("{time:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\nlonger  2");
    }

    #[test]
    fn what_has_no_room_is_left_out_or_cut() {
        let columns = [Column::always("NAME"), Column::with_room("KIND", 1), Column::always("HOSTS")];
        let rows =
            [vec![plain("one"), toned("edge", Tone::Good), plain("a very long list of what it hosts")]];
        let at = |width| fitted(&columns, &rows, &Screen { width, has_colours: false });
        assert_eq!(at(None), "NAME  KIND  HOSTS\none   edge  a very long list of what it hosts");
        assert_eq!(at(Some(24)), "NAME  KIND  HOSTS\none   edge  a very long…");
        assert_eq!(at(Some(16)), "NAME  HOSTS\none   a very lo…");
        // Whatever the width, no line is longer.
        for width in 14..60 {
            assert!(
                at(Some(width)).lines().all(|line| line.chars().count() <= width),
                "{width}: {}",
                at(Some(width))
            );
        }
    }

    #[test]
    fn colours_take_no_room() {
        let columns = [Column::always("STATE"), Column::always("N")];
        let rows = [vec![toned("lost", Tone::Bad), plain("1")]];
        let shown = fitted(&columns, &rows, &Screen { width: Some(40), has_colours: true });
        assert_eq!(shown, "STATE  N\n\x1b[31mlost\x1b[0m   1");
    }
}
