//! Where in a card something stands, so that an error can name its line and field.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::CARD_BYTES_MAX;

/// What is wrong with a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// Longer than any card needs.
    #[error("the card has {0} bytes, above the limit of {CARD_BYTES_MAX}")]
    Size(usize),
    /// No TOML, or a field that is missing, unknown or of the wrong type.
    #[error("line {line} of the card (`{text}`): {why}")]
    Written {
        /// From 1.
        line: usize,
        /// That line, without blanks around it.
        text: String,
        /// What the parser says.
        why: String,
    },
    /// A value that a field cannot have.
    #[error("line {line} of the card, field `{field}`: {why}")]
    Value {
        /// From 1.
        line: usize,
        /// Section and name.
        field: String,
        /// What would be right.
        why: String,
    },
}

/// A card's text with the places of its fields.
pub(super) struct Places<'a> {
    text: &'a str,
    root: DeTable<'a>,
}

impl<'a> Places<'a> {
    pub(super) fn of(text: &'a str) -> Result<Self, CardError> {
        if text.len() > CARD_BYTES_MAX {
            return Err(CardError::Size(text.len()));
        }
        let root = DeTable::parse(text).map_err(|error| written(text, &error))?;
        Ok(Self { text, root: root.into_inner() })
    }

    /// Reads the whole text as one type.
    pub(super) fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, CardError> {
        toml::from_str(self.text).map_err(|error| written(self.text, &error))
    }

    /// An error about a field, such as `input.std`, `extra_input.0.name` or `output.tensors.boxes`.
    pub(super) fn wrong(&self, field: &str, why: impl Into<String>) -> CardError {
        let at = self.place(field).map_or(0, |(place, _)| place.start);
        CardError::Value { line: line_of(self.text, at), field: field.to_owned(), why: why.into() }
    }

    /// From a field's key to the end of its value.
    pub(super) fn key_and_value(&self, section: &str, key: &str) -> Option<Range<usize>> {
        let (name, value) = self.root.get(section)?.get_ref().as_table()?.get_key_value(key)?;
        Some(name.span().start..value.span().end)
    }

    /// The innermost part of a path that is there: a field that is missing is reported where its
    /// section begins.
    fn place(&self, field: &str) -> Option<(Range<usize>, &DeValue<'a>)> {
        let mut parts = field.split('.');
        let first = self.root.get(parts.next()?)?;
        let mut found = (first.span(), first.get_ref());
        for part in parts {
            let next = match part.parse::<usize>() {
                Ok(index) => found.1.get(index),
                Err(_) => found.1.get(part),
            };
            let Some(next) = next else { break };
            found = (next.span(), next.get_ref());
        }
        Some(found)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn written(text: &str, error: &toml::de::Error) -> CardError {
    let line = line_of(text, error.span().map_or(0, |span| span.start));
    let quoted = text.lines().nth(line - 1).unwrap_or_default().trim().chars().take(80).collect();
    CardError::Written { line, text: quoted, why: error.message().to_owned() }
}
