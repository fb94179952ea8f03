//! Plain tables for people: columns as wide as their longest cell.

/// Where the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these column titles.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let (titles, aligns) = columns.iter().map(|(title, align)| ((*title).to_owned(), *align)).unzip();
        Self { aligns, rows: vec![titles] }
    }

    /// Adds a row; cells that are missing stay empty.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// The lines, titles first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.aligns.len()).map(width_of).collect();
        self.rows.iter().map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row.iter().zip(&self.aligns).zip(widths).map(|((cell, align), width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("stage", Align::Left), ("ms", Align::Right), ("node", Align::Left)]);
        table.row(["0 → 1".to_owned(), "12.50".to_owned(), "a".to_owned()]);
        table.row(["total".to_owned(), "7.00".to_owned()]);
        assert_eq!(table.lines(), ["stage     ms  node", "0 → 1  12.50  a", "total   7.00"]);
    }
}
