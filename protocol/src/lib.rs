//! What two stormo nodes must agree on: names, records, plans, frames, refusals and their bounds.
//! No I/O, no async, no clock.

pub mod codec;
pub mod control;
pub mod coordinate;
pub mod exchange;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod model;
pub mod object;
pub mod plan;
pub mod profile;
pub mod refusal;
pub mod state;
pub mod tensor;
