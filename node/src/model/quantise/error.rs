//! Why a model cannot be made small, each with what to do.

use super::super::error::ModelError;

/// Why a model cannot be quantised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantiseError {
    /// The model itself.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Nothing in it would run on small integers.
    #[error("the model has nothing to quantise: no Conv, Gemm or MatMul with stored FP32 weights{hint}")]
    NothingToDo {
        /// Why, where that can be said.
        hint: String,
    },
    /// It was done already.
    #[error("the model is quantised already (node `{node}`): give the FP32 model that it was made of")]
    AlreadyQuantised {
        /// The first such node.
        node: String,
    },
    /// Per-channel scales exist since opset 13, and a node means something else there.
    #[error(
        "the model is of opset {opset}, int8 needs 13, and node `{node}` cannot be raised to it ({why}): \
         export the model again with opset 13 or later"
    )]
    Opset {
        /// The model's.
        opset: i64,
        /// The node.
        node: String,
        /// What stands in the way.
        why: &'static str,
    },
    /// Calibration met numbers that no range holds.
    #[error("`{tensor}` holds numbers that are not finite on a sample: check the samples and the model")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// Nobody told what the tensor's values are like.
    #[error("nothing was seen of `{tensor}`: give at least one sample")]
    Unseen {
        /// The tensor.
        tensor: String,
    },
    /// A prefix that fits no node.
    #[error("--keep-float {prefix}: no node and no tensor of the model begins so")]
    NoSuchPrefix {
        /// As given.
        prefix: String,
    },
}
