//! Reading a classifier: the likeliest classes.

use stormo_protocol::tensor::Tensor;

use super::outputs::{Numbers, ReadError};
use super::{Class, Labels};

/// Classes that a card shows unless it says otherwise: the "top 5" of ImageNet's error.
pub(super) const TOP_DEFAULT: usize = 5;

/// What a card says of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Classes {
    pub tensor: String,
    /// Whether the output is logits that still need one.
    pub softmax: bool,
    pub top: usize,
    pub labels: Labels,
}

impl Classes {
    pub(super) fn read(&self, outputs: &[Tensor]) -> Result<Vec<Class>, ReadError> {
        let labels = self.labels.list()?;
        let scores = Numbers::of(outputs, &self.tensor)?;
        if scores.values.len() != labels.len() {
            return Err(scores.wrong_shape(format!("{} numbers, one per label", labels.len())));
        }
        if scores.values.iter().any(|score| !score.is_finite()) {
            return Err(ReadError::NotFinite(self.tensor.clone()));
        }
        let mut scores = scores.values.into_owned();
        if self.softmax {
            softmax(&mut scores);
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.truncate(self.top);
        let class = |index: usize| Class { label: labels[index].clone(), index, score: scores[index] };
        Ok(order.into_iter().map(class).collect())
    }
}

/// In place; the largest is subtracted first, so that nothing overflows.
pub(super) fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}
