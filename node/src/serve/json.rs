//! The JSON of the mesh API under `/v1`, shared by the server, the commands and the test mesh.
//! Units are in the names. Fields are only ever added.

mod deployments;
mod events;
mod health;
mod models;
mod nodes;
mod requests;

use serde::{Deserialize, Serialize};

pub use deployments::*;
pub use events::*;
pub use health::*;
pub use models::*;
pub use nodes::*;
pub use requests::*;

/// Ids appear as text.
pub mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    /// Writes an id.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Display, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When the text is no such id.
    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>
    where
        T::Err: Display,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// What every failed call answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorView {
    /// What went wrong and what to do.
    pub error: String,
}
