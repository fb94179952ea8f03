//! ONNX graph -> order, cuts, blocks and weights; a range of blocks -> an ONNX model of its own; the
//! pre-scan of models that strangers wrote. Pure: bytes in, bytes out; whoever calls runs the models.

mod branches;
mod choose;
mod computing;
mod constants;
mod dag;
mod data;
mod divide;
mod envelope;
mod error;
mod expanded;
mod external;
mod extract;
mod fixed;
mod flops;
mod graph;
mod links;
mod messages;
mod order;
mod parallel;
#[cfg(test)]
mod properties;
mod quantise;
mod quantised;
mod scan;
mod shaping;
mod skeleton;
#[cfg(test)]
mod testing;
mod varying;

pub use divide::{DivideOptions, Division, divide};
pub use error::ModelError;
pub use external::{ExternalPart, import_external};
pub use extract::{Partition, PartitionWeight, extract};
pub use graph::{Graph, InputDecl, ProbeModel};
pub use quantise::{Candidate, Observed, QuantiseError, Quantiser, RangeMethod, Watched, raise_opset};
pub use skeleton::Skeleton;
