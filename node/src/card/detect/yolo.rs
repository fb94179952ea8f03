//! YOLOv8, v9, v11: one output [1, 4 + classes, places]; YOLOv5, v7: [1, places, 5 + classes] with an
//! objectness before the classes. Either order of the last two axes is taken with either. A place has
//! centre x, centre y, width, height in pixels of the input, then the scores, already from 0 to 1.

use stormo_protocol::tensor::Tensor;

use super::{Candidate, around};
use crate::card::outputs::{Numbers, ReadError};

/// Places looked at together, so that memory is read in runs whichever axis is last.
const TILE: usize = 64;

pub(super) fn candidates(
    outputs: &[Tensor],
    name: &str,
    objectness: bool,
    classes: usize,
    threshold: f32,
) -> Result<Vec<Candidate>, ReadError> {
    let numbers = Numbers::of(outputs, name)?;
    let first_class = if objectness { 5 } else { 4 };
    let attributes = first_class + classes;
    let expected = format!("[1, {attributes}, places] or [1, places, {attributes}]");
    let [rows, columns] = numbers.dims::<2>(&expected)?;
    // When both axes have that length, each generation's own order decides.
    let attributes_first = rows == attributes && (columns != attributes || !objectness);
    let (places, attribute_step, place_step) = match (attributes_first, columns == attributes) {
        (true, _) => (columns, columns, 1),
        (false, true) => (rows, 1, columns),
        (false, false) => return Err(numbers.wrong_shape(expected)),
    };
    let at = |attribute: usize, place: usize| numbers.values[attribute * attribute_step + place * place_step];
    let mut candidates = Vec::new();
    for first in (0..places).step_by(TILE) {
        let tile = first..places.min(first + TILE);
        let mut best = [(0, f32::NEG_INFINITY); TILE];
        for class in 0..classes {
            for (place, best) in tile.clone().zip(&mut best) {
                let score = at(first_class + class, place);
                if score > best.1 {
                    *best = (class, score);
                }
            }
        }
        for (place, (index, score)) in tile.zip(best) {
            let score = if objectness { score * at(4, place) } else { score };
            if score > threshold {
                let [x, y, width, height] = [0, 1, 2, 3].map(|side| at(side, place));
                candidates.push(Candidate { index, score, sides: around([x, y], [width, height]) });
            }
        }
    }
    Ok(candidates)
}
