//! What is known of times: which ranges of blocks to measure, the time of every range from those measured,
//! carried over to other nodes, and what runs and loads teach. Pure; measuring itself is done in
//! `deploy` and `engine`.

mod choice;
mod estimate;
mod fit;
mod least;
mod loads;
mod recent;
mod structure;

pub use choice::{BlockRange, dependent, families};
pub use estimate::{Estimate, Measured, Predictor};
pub use fit::{Fitted, fit};
pub use loads::Loads;
pub use recent::Recent;
pub use structure::Structure;

#[cfg(test)]
mod tests;
