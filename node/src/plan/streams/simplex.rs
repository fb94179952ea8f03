//! The revised simplex method for packing programmes: as much as can be of columns that are no less than zero, with one
//! of each row at most. Columns and rows may come while it goes on. How Dantzig did it, with an inverse that is kept
//! and a limit of pivots: what is found at any time is a packing.

/// What counts as zero.
const TINY: f64 = 1e-11;
/// Pivots between two new columns.
const PIVOTS_MAX: usize = 2_000;

const NONE: usize = usize::MAX;

/// What is in the basis.
#[derive(Clone, Copy, PartialEq)]
enum Basic {
    Slack,
    Column(usize),
}

/// Rows go by numbers that whoever asks gives them; those that no column has are no part of it.
pub(super) struct Simplex {
    /// Which row a number is; `NONE` if it is none yet.
    rows: Vec<usize>,
    numbers: Vec<usize>,
    /// Of the basis, by rows.
    inverse: Vec<Vec<f64>>,
    basis: Vec<Basic>,
    /// How much there is of each in the basis.
    amounts: Vec<f64>,
}

impl Simplex {
    pub(super) fn new() -> Self {
        Self { rows: vec![], numbers: vec![], inverse: vec![], basis: vec![], amounts: vec![] }
    }

    /// The sum of all columns' amounts.
    pub(super) fn rate(&self) -> f64 {
        self.amounts().map(|(_, amount)| amount).sum()
    }

    /// Columns that there is something of.
    pub(super) fn amounts(&self) -> impl Iterator<Item = (usize, f64)> {
        let columns = || {
            self.basis.iter().zip(&self.amounts).filter_map(|(basic, amount)| match basic {
                Basic::Column(column) => Some((*column, *amount)),
                Basic::Slack => None,
            })
        };
        let least = TINY * columns().map(|(_, amount)| amount).fold(0.0, f64::max);
        columns().filter(move |(_, amount)| *amount > least)
    }

    /// What each row is worth, by its number; none is below zero.
    pub(super) fn prices(&self) -> Vec<f64> {
        let mut prices = vec![0.0; self.rows.len()];
        for (number, price) in self.numbers.iter().zip(self.row_prices()) {
            prices[*number] = price.max(0.0);
        }
        prices
    }

    /// The most of these columns; those in the basis must be among them.
    pub(super) fn solve<'a, C>(&mut self, columns: impl Fn() -> C)
    where
        C: Iterator<Item = (usize, &'a [(usize, f64)])>,
    {
        for (_, busy) in columns() {
            busy.iter().for_each(|(number, _)| self.add_row(*number));
        }
        for _ in 0..PIVOTS_MAX {
            let prices = self.row_prices();
            let cost = |busy: &[(usize, f64)]| -> f64 {
                busy.iter().map(|(number, busy_ms)| busy_ms * prices[self.rows[*number]]).sum()
            };
            // The slack of a row whose price is below zero is worth that much.
            let slack = (0..prices.len()).min_by(|one, other| prices[*one].total_cmp(&prices[*other]));
            let column = columns().map(|(index, busy)| (cost(busy), index, busy));
            let column = column.min_by(|one, other| one.0.total_cmp(&other.0));
            let highest = prices.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            let slack_gain = slack.map_or(0.0, |row| -prices[row] / highest);
            let column_gain = column.map_or(0.0, |column| 1.0 - column.0);
            if slack_gain.max(column_gain) <= TINY {
                return;
            }
            let (entering, basic) = match (column, slack) {
                (Some((_, index, busy)), _) if column_gain >= slack_gain => {
                    let rows = busy.iter().map(|(number, busy_ms)| (self.rows[*number], *busy_ms));
                    (self.direction(rows), Basic::Column(index))
                }
                (_, Some(row)) => (self.direction(std::iter::once((row, 1.0))), Basic::Slack),
                _ => return,
            };
            if !self.pivot(&entering, basic) {
                return;
            }
        }
    }

    fn add_row(&mut self, number: usize) {
        if self.rows.len() <= number {
            self.rows.resize(number + 1, NONE);
        }
        if self.rows[number] != NONE {
            return;
        }
        // No column in the basis uses it, so its slack stands by itself.
        let row = self.numbers.len();
        self.inverse.iter_mut().for_each(|of| of.push(0.0));
        let mut unit = vec![0.0; row + 1];
        unit[row] = 1.0;
        self.inverse.push(unit);
        self.basis.push(Basic::Slack);
        self.amounts.push(1.0);
        self.numbers.push(number);
        self.rows[number] = row;
    }

    fn row_prices(&self) -> Vec<f64> {
        let mut prices = vec![0.0; self.numbers.len()];
        for (basic, row) in self.basis.iter().zip(&self.inverse) {
            if matches!(basic, Basic::Column(_)) {
                prices.iter_mut().zip(row).for_each(|(price, entry)| *price += entry);
            }
        }
        prices
    }

    fn direction(&self, column: impl Iterator<Item = (usize, f64)> + Clone) -> Vec<f64> {
        let of_row = |row: &Vec<f64>| column.clone().map(|(index, entry)| row[index] * entry).sum();
        self.inverse.iter().map(of_row).collect()
    }

    /// Takes a column in for the one that is used up first; false if nothing is.
    fn pivot(&mut self, direction: &[f64], entering: Basic) -> bool {
        let scale = direction.iter().copied().fold(0.0, f64::max);
        let mut leaving: Option<(f64, usize)> = None;
        for (row, entry) in direction.iter().enumerate().filter(|(_, entry)| **entry > TINY * scale) {
            let ratio = self.amounts[row].max(0.0) / entry;
            let is_first = leaving.is_none_or(|(least, known)| {
                ratio < least * (1.0 - TINY) || (ratio <= least * (1.0 + TINY) && *entry > direction[known])
            });
            if is_first {
                leaving = Some((ratio, row));
            }
        }
        let Some((ratio, out)) = leaving else { return false };
        let pivot = direction[out];
        self.inverse[out].iter_mut().for_each(|entry| *entry /= pivot);
        let pivot_row = self.inverse[out].clone();
        for (row, factor) in
            direction.iter().enumerate().filter(|(row, factor)| *row != out && **factor != 0.0)
        {
            self.amounts[row] -= ratio * factor;
            self.inverse[row].iter_mut().zip(&pivot_row).for_each(|(entry, above)| *entry -= factor * above);
        }
        self.amounts[out] = ratio;
        self.basis[out] = entering;
        true
    }
}
