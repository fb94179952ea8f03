//! FastestDet: one output [1, 5 + classes, rows, columns] over the whole input: objectness, offset of
//! the centre (through tanh), size (through a sigmoid, in shares of the input), class scores. The
//! score is objectness^0.6 x class^0.4.

use stormo_protocol::tensor::Tensor;

use super::{Candidate, around, best};
use crate::card::geometry::Frame;
use crate::card::outputs::{Numbers, ReadError};

pub(super) fn candidates(
    outputs: &[Tensor],
    name: &str,
    classes: usize,
    threshold: f32,
    frame: &Frame,
) -> Result<Vec<Candidate>, ReadError> {
    let numbers = Numbers::of(outputs, name)?;
    let expected = format!("[1, {}, rows, columns]", 5 + classes);
    let [attributes, rows, columns] = numbers.dims::<3>(&expected)?;
    if attributes != 5 + classes {
        return Err(numbers.wrong_shape(expected));
    }
    let [width, height] = frame.input_px.map(|px| px as f32);
    let sigmoid = |value: f32| 1.0 / (1.0 + (-value).exp());
    let mut candidates = Vec::new();
    for cell in 0..rows * columns {
        let at = |attribute: usize| numbers.values[attribute * rows * columns + cell];
        let Some((index, class)) = best((0..classes).map(|class| at(5 + class))) else { continue };
        let score = at(0).powf(0.6) * class.powf(0.4);
        if score > threshold {
            let x = ((cell % columns) as f32 + at(1).tanh()) / columns as f32;
            let y = ((cell / columns) as f32 + at(2).tanh()) / rows as f32;
            let size = [sigmoid(at(3)) * width, sigmoid(at(4)) * height];
            candidates.push(Candidate { index, score, sides: around([x * width, y * height], size) });
        }
    }
    Ok(candidates)
}
