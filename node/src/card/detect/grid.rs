//! Detectors that write scores [1, cells, classes] and boxes [1, cells, n] for each of several grids.
//! NanoDet: the distance of each side as a distribution over 0, 1, 2, ... strides. YuNet: offset of
//! the centre and logarithm of the size, and a score that is the root of class times objectness.

use stormo_protocol::tensor::Tensor;

use super::{Candidate, Grid, around, best};
use crate::card::classes::softmax;
use crate::card::geometry::Frame;
use crate::card::outputs::{Numbers, ReadError};

/// Most bins of a distance's distribution; NanoDet has 8, GFL 17.
const BINS_MAX: usize = 64;

/// A cell: its column and row, and the pixels from one to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    column: f32,
    row: f32,
    stride_px: f32,
}

/// From a cell and its numbers to a box in pixels of the input; `None` if there are not as many
/// numbers as the family writes.
type BoxOf = fn(Cell, &[f32]) -> Option<[f32; 4]>;

pub(super) fn candidates(
    outputs: &[Tensor],
    grids: &[Grid],
    classes: usize,
    threshold: f32,
    frame: &Frame,
    box_of: BoxOf,
) -> Result<Vec<Candidate>, ReadError> {
    let mut candidates = Vec::new();
    for grid in grids {
        let [columns, rows] = frame.input_px.map(|side| side.div_ceil(grid.stride_px) as usize);
        let cells = columns * rows;
        let read = |name: &str, each: Option<usize>| {
            let numbers = Numbers::of(outputs, name)?;
            let expected = format!("[1, {cells}, {}]", each.map_or("n".into(), |each| each.to_string()));
            let [got_cells, got_each] = numbers.dims::<2>(&expected)?;
            if got_cells != cells || each.unwrap_or(got_each) != got_each || got_each == 0 {
                return Err(numbers.wrong_shape(expected));
            }
            Ok((numbers, got_each))
        };
        let (scores, _) = read(&grid.scores, Some(classes))?;
        let (boxes, box_numbers) = read(&grid.boxes, None)?;
        let objectness = grid.objectness.as_ref().map(|name| read(name, Some(1))).transpose()?;
        for (cell, scores) in scores.values.chunks_exact(classes).enumerate() {
            let Some((index, score)) = best(scores.iter().copied()) else { continue };
            let score = match &objectness {
                Some((objectness, _)) => (score * objectness.values[cell]).clamp(0.0, 1.0).sqrt(),
                None => score,
            };
            if score > threshold {
                let place = Cell {
                    column: (cell % columns) as f32,
                    row: (cell / columns) as f32,
                    stride_px: grid.stride_px as f32,
                };
                let numbers = &boxes.values[cell * box_numbers..(cell + 1) * box_numbers];
                let sides = box_of(place, numbers)
                    .ok_or_else(|| boxes.wrong_shape("as many numbers per cell as the family writes"))?;
                candidates.push(Candidate { index, score, sides });
            }
        }
    }
    Ok(candidates)
}

/// NanoDet (Generalised Focal Loss, arXiv 2006.04388): left, top, right, bottom, each the mean of a
/// softmax over bins, in strides, from the middle of the cell.
pub(super) fn distances(cell: Cell, numbers: &[f32]) -> Option<[f32; 4]> {
    let bins = numbers.len() / 4;
    if bins == 0 || bins > BINS_MAX || !numbers.len().is_multiple_of(4) {
        return None;
    }
    let distance = |side: usize| {
        let mut shares = [0.0; BINS_MAX];
        let shares = &mut shares[..bins];
        shares.copy_from_slice(&numbers[side * bins..(side + 1) * bins]);
        softmax(shares);
        let mean: f32 = shares.iter().enumerate().map(|(bin, share)| bin as f32 * share).sum();
        mean * cell.stride_px
    };
    let middle = 0.5 * (cell.stride_px - 1.0);
    let (x, y) = (cell.column * cell.stride_px + middle, cell.row * cell.stride_px + middle);
    Some([x - distance(0), y - distance(1), x + distance(2), y + distance(3)])
}

/// YuNet: centre as an offset from the cell's corner, size as a logarithm, both in strides.
pub(super) fn center_and_size(cell: Cell, numbers: &[f32]) -> Option<[f32; 4]> {
    let &[dx, dy, log_width, log_height] = numbers else { return None };
    let center = [(cell.column + dx) * cell.stride_px, (cell.row + dy) * cell.stride_px];
    Some(around(center, [log_width, log_height].map(|side| side.exp() * cell.stride_px)))
}
