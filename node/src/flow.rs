//! One request under way: what its origin and the hosts of its stages do next. Pure: events in,
//! actions out; the driver owns clocks, buffers and streams, and tensors never appear here.

mod copies;
mod hedges;
mod origin;
mod patience;
#[cfg(test)]
mod schedules;
mod stage;
mod suspects;

pub use hedges::{Hedges, Part};
pub use origin::{Failure, Origin, OriginAction, OriginEvent};
pub use patience::patience_ms;
pub use stage::{Stage, StageAction, StageEvent};
pub use suspects::Suspects;
