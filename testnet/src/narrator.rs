//! What a command tells the user while it works, and the list of what it checked.

use std::io::Write;

use serde::Serialize;
use stormo_testnet::printable::printable;

use crate::table::Table;
use crate::told;

/// Something that was looked at, and whether it held.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// What must be so.
    pub(crate) what: String,
    /// Whether it is.
    pub(crate) holds: bool,
}

/// Tells on standard output, or on standard error where that is for JSON.
#[derive(Debug)]
pub(crate) struct Narrator {
    is_json: bool,
    checks: Vec<Check>,
}

impl Narrator {
    /// With standard output kept free for JSON, or not.
    pub(crate) fn new(is_json: bool) -> Self {
        Self { is_json, checks: Vec::new() }
    }

    /// A chapter's title.
    pub(crate) fn title(&self, text: &str) {
        self.tell("");
        self.tell(&format!("── {text}"));
    }

    /// An empty line.
    pub(crate) fn gap(&self) {
        self.tell("");
    }

    /// A line or more.
    pub(crate) fn say(&self, text: &str) {
        text.lines().for_each(|line| self.tell(&format!("  {line}")));
    }

    /// A table.
    pub(crate) fn table(&self, table: &Table) {
        table.lines().iter().for_each(|line| self.tell(&format!("  {line}")));
    }

    /// Notes whether something held, and says so.
    pub(crate) fn check(&mut self, holds: bool, what: &str) {
        self.tell(&format!("  {} {what}", mark(holds)));
        self.checks.push(Check { what: what.to_owned(), holds });
    }

    /// All that was checked.
    pub(crate) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Once more all that was checked.
    pub(crate) fn summary(&self) {
        self.checks.iter().for_each(|check| self.tell(&format!("  {} {}", mark(check.holds), check.what)));
    }

    /// Prints the document, its checks included, where JSON was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn print_json<T: Serialize>(&self, told: &T, seconds: f64) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Document<'a, T> {
            #[serde(flatten)]
            told: &'a T,
            checks: &'a [Check],
            seconds: f64,
        }
        if self.is_json {
            let document = Document { told, checks: &self.checks, seconds };
            told::document(&serde_json::to_string_pretty(&document)?);
        }
        Ok(())
    }

    fn tell(&self, line: &str) {
        let line = line.trim_end();
        if self.is_json {
            // Whoever reads the errors may have gone as well.
            let _ = writeln!(std::io::stderr(), "{}", printable(line));
        } else {
            told::line(format_args!("{line}"));
        }
    }
}

fn mark(holds: bool) -> char {
    if holds { '✓' } else { '✗' }
}
