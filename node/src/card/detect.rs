//! Reading detectors: each family's arithmetic from its outputs to candidate boxes. What all share
//! (threshold, suppression, the way back to the image) is the same for every family.

mod fastestdet;
mod grid;
#[cfg(test)]
mod tests;
mod yolo;

use stormo_protocol::tensor::Tensor;

use super::boxes::{Candidate, Suppression, detections};
use super::geometry::Frame;
use super::outputs::ReadError;
use super::{Detection, Labels};

/// Most detections of one image unless the card says otherwise; Ultralytics' `max_det`.
pub(super) const DETECTIONS_DEFAULT: usize = 300;

/// What a card says of a detector.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Detector {
    pub family: Family,
    /// Score from which a candidate counts.
    pub threshold: f32,
    pub suppression: Suppression,
    pub labels: Labels,
}

/// How a detector writes what it found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Family {
    Yolo { tensor: String, objectness: bool },
    Nanodet(Vec<Grid>),
    Yunet(Vec<Grid>),
    FastestDet { tensor: String },
}

/// The outputs for one grid of cells over the input.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    pub stride_px: u32,
    pub scores: String,
    pub boxes: String,
    pub objectness: Option<String>,
}

impl Detector {
    pub(super) fn read(&self, outputs: &[Tensor], frame: &Frame) -> Result<Vec<Detection>, ReadError> {
        let labels = self.labels.list()?;
        let (threshold, classes) = (self.threshold, labels.len());
        let candidates = match &self.family {
            Family::Yolo { tensor, objectness } => {
                yolo::candidates(outputs, tensor, *objectness, classes, threshold)?
            }
            Family::FastestDet { tensor } => {
                fastestdet::candidates(outputs, tensor, classes, threshold, frame)?
            }
            Family::Nanodet(grids) => {
                grid::candidates(outputs, grids, classes, threshold, frame, grid::distances)?
            }
            Family::Yunet(grids) => {
                grid::candidates(outputs, grids, classes, threshold, frame, grid::center_and_size)?
            }
        };
        Ok(detections(candidates, &self.suppression, frame, labels))
    }
}

/// The largest of some scores and its place; the first of equals, `None` if there is no number.
fn best(scores: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    scores.enumerate().fold(None, |best, (index, score)| match best {
        Some((_, top)) if score <= top || score.is_nan() => best,
        None if score.is_nan() => None,
        _ => Some((index, score)),
    })
}

/// A box around a centre.
fn around(center: [f32; 2], size: [f32; 2]) -> [f32; 4] {
    let [x, y] = center;
    let [half_width, half_height] = size.map(|side| side / 2.0);
    [x - half_width, y - half_height, x + half_width, y + half_height]
}
