//! Inference over the Open Inference Protocol (JSON form), for tensors of 32-bit floats, and the
//! comparison of answers.

use serde::{Deserialize, Serialize};
use stormo::serve::json::as_text;
use stormo_protocol::ids::PlanId;

/// What a call sends.
#[derive(Debug, Clone, Serialize)]
pub struct InferRequest {
    /// Idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Inputs by name.
    pub inputs: Vec<FloatTensor>,
    /// How to run it.
    pub parameters: RequestParameters,
}

/// A tensor in the protocol's JSON. The shortest decimal form of a float reads back as the same
/// float, so nothing is lost on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloatTensor {
    /// Name in the model.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// `FP32`.
    pub datatype: String,
    /// Elements, row by row.
    pub data: Vec<f32>,
}

/// Parameters of a call.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RequestParameters {
    /// Run exactly this plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_id: Option<String>,
    /// The variant to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Accuracy that is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_accuracy: Option<f64>,
    /// Deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// When backups are sent the same: `warm`, `hedge` or `duplicate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redundancy: Option<&'static str>,
}

/// What a call answers.
#[derive(Debug, Clone, Deserialize)]
pub struct InferAnswer {
    /// Name of the model.
    pub model_name: String,
    /// Version of its deployment.
    pub model_version: String,
    /// The caller's id, or the node's.
    #[serde(default)]
    pub id: Option<String>,
    /// Outputs by name.
    pub outputs: Vec<FloatTensor>,
    /// How it ran.
    pub parameters: AnswerParameters,
}

/// How a request ran.
#[derive(Debug, Clone, Deserialize)]
pub struct AnswerParameters {
    /// The plan.
    #[serde(with = "as_text")]
    pub plan_id: PlanId,
    /// Label of the variant.
    pub variant: String,
    /// Peer ids of those who ran it, in order, with commas between.
    pub nodes: String,
    /// How tensors were coded before each stage and behind the last, with commas between.
    pub codecs: String,
    /// From arrival at the node to the result there.
    pub latency_ms: f64,
    /// Whether it came after the latency asked for.
    pub late: bool,
    /// Key of `/v1/requests/{id}` at the node where the request entered.
    pub request_id: String,
}

impl InferRequest {
    /// A request with one input.
    pub fn new(name: &str, shape: &[u64], data: Vec<f32>) -> Self {
        let input =
            FloatTensor { name: name.to_owned(), shape: shape.to_vec(), datatype: "FP32".to_owned(), data };
        Self { id: None, inputs: vec![input], parameters: RequestParameters::default() }
    }

    /// The same, by this variant.
    pub fn by_variant(mut self, label: &str) -> Self {
        self.parameters.variant = Some(label.to_owned());
        self
    }

    /// The same, run by exactly this plan.
    pub fn by_plan(mut self, plan: PlanId) -> Self {
        self.parameters.plan_id = Some(plan.to_string());
        self
    }
}

/// How far two answers to the same input are apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Every bit is the same.
    pub is_identical: bool,
    /// Largest difference of two elements, relative to the largest element.
    pub relative: f64,
}

impl Difference {
    /// No difference.
    pub const NONE: Self = Self { is_identical: true, relative: 0.0 };

    /// Between a reference and another answer; `None` when names, shapes or types differ.
    pub fn between(reference: &[FloatTensor], other: &[FloatTensor]) -> Option<Self> {
        let is_comparable = |(a, b): (&FloatTensor, &FloatTensor)| {
            a.name == b.name && a.shape == b.shape && a.datatype == b.datatype && a.data.len() == b.data.len()
        };
        if reference.len() != other.len() || !reference.iter().zip(other).all(is_comparable) {
            return None;
        }
        let pairs = reference.iter().zip(other).map(|(a, b)| Self::of_elements(&a.data, &b.data));
        Some(pairs.fold(Self::NONE, Self::larger))
    }

    /// The larger of two.
    pub fn larger(self, other: Self) -> Self {
        Self {
            is_identical: self.is_identical && other.is_identical,
            relative: self.relative.max(other.relative),
        }
    }

    /// Between elements of two arrays of the same length. Where either is no finite number both must be the
    /// same, or they are infinitely far apart; and no such element is the largest, since beside an infinite one
    /// all others would differ by nothing.
    pub(crate) fn of_elements(reference: &[f32], other: &[f32]) -> Self {
        let is_identical = reference.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits());
        if is_identical {
            return Self::NONE;
        }
        let finite = reference.iter().filter(|a| a.is_finite());
        let largest = finite.map(|a| f64::from(a.abs())).fold(f64::MIN_POSITIVE, f64::max);
        let apart = reference.iter().zip(other).map(|(a, b)| match (a.is_finite(), b.is_finite()) {
            (true, true) => (f64::from(*a) - f64::from(*b)).abs(),
            // What is no number has many forms, which say the same.
            _ if a == b || (a.is_nan() && b.is_nan()) => 0.0,
            _ => f64::INFINITY,
        });
        Self { is_identical, relative: apart.fold(0.0, f64::max) / largest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data: &[f32]) -> Vec<FloatTensor> {
        InferRequest::new("y", &[1, data.len() as u64], data.to_vec()).inputs
    }

    #[test]
    fn a_float_reads_back_bit_by_bit() {
        let data = [0.1, f32::MIN_POSITIVE, 1.0 / 3.0, 16_777_217.0, 5e-45, -0.0];
        let text = serde_json::to_string(&tensor(&data)).unwrap();
        let back: Vec<FloatTensor> = serde_json::from_str(&text).unwrap();
        assert_eq!(Difference::between(&tensor(&data), &back), Some(Difference::NONE));
    }

    #[test]
    fn differences_are_relative_to_the_largest() {
        let apart = Difference::between(&tensor(&[4.0, 1.0]), &tensor(&[4.0, 1.5])).unwrap();
        assert_eq!(apart, Difference { is_identical: false, relative: 0.125 });
        let apart = Difference::between(&tensor(&[1.0, 1.0]), &tensor(&[f32::NAN, 1.0])).unwrap();
        assert_eq!(apart.relative, f64::INFINITY);
        let (infinite, none) = (f32::INFINITY, f32::NAN);
        let relative = |reference: &[f32], other: &[f32]| {
            Difference::between(&tensor(reference), &tensor(other)).unwrap().relative
        };
        assert_eq!(relative(&[infinite, 4.0, none], &[infinite, 5.0, -none]), 0.25);
        assert_eq!(relative(&[infinite, 4.0], &[-infinite, 4.0]), f64::INFINITY);
        assert_eq!(relative(&[infinite, 4.0], &[none, 4.0]), f64::INFINITY);
        assert_eq!(relative(&[infinite, 4.0], &[f32::MAX, 4.0]), f64::INFINITY);
        assert_eq!(relative(&[1.0, 4.0], &[infinite, 4.0]), f64::INFINITY);
        assert_eq!(Difference::between(&tensor(&[1.0]), &tensor(&[1.0, 2.0])), None);
    }
}
