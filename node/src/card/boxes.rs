//! Boxes that a detector proposes, and which of those that overlap stay.

use super::Detection;
use super::geometry::Frame;

/// Candidates that take part; the surest stay. As in Ultralytics' `max_nms`.
const CANDIDATES_MAX: usize = 30_000;

/// What a detector proposes at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub index: usize,
    pub score: f32,
    /// Left, top, right, bottom.
    pub sides: [f32; 4],
}

/// Non-maximum suppression: how far boxes may overlap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Suppression {
    /// Share of their union above which two boxes are the same object.
    pub iou: f32,
    /// Whether only boxes of one class suppress each other.
    pub class_aware: bool,
    pub kept_max: usize,
}

impl Suppression {
    /// The candidates that stay, surest first.
    pub(super) fn keep(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(CANDIDATES_MAX);
        let mut kept: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            if kept.len() == self.kept_max {
                break;
            }
            let same = |other: &Candidate| {
                (!self.class_aware || other.index == candidate.index)
                    && overlap(&other.sides, &candidate.sides) > self.iou
            };
            if !kept.iter().any(same) {
                kept.push(candidate);
            }
        }
        kept
    }
}

fn area(sides: &[f32; 4]) -> f32 {
    (sides[2] - sides[0]).max(0.0) * (sides[3] - sides[1]).max(0.0)
}

/// Intersection over union.
pub(super) fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let common = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

/// From candidates in pixels of the input to detections in pixels of the image.
pub(super) fn detections(
    mut candidates: Vec<Candidate>,
    suppression: &Suppression,
    frame: &Frame,
    labels: &[String],
) -> Vec<Detection> {
    candidates.iter_mut().for_each(|candidate| candidate.sides = frame.to_image(candidate.sides));
    candidates.retain(|candidate| candidate.sides.iter().all(|side| side.is_finite()));
    let named = |candidate: Candidate| {
        Some(Detection {
            label: labels.get(candidate.index)?.clone(),
            index: candidate.index,
            score: candidate.score,
            box_px: frame.clamp(candidate.sides)?,
        })
    };
    suppression.keep(candidates).into_iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: usize, score: f32, sides: [f32; 4]) -> Candidate {
        Candidate { index, score, sides }
    }

    fn scores(suppression: &Suppression, candidates: &[Candidate]) -> Vec<f32> {
        suppression.keep(candidates.to_vec()).iter().map(|candidate| candidate.score).collect()
    }

    const HALF: Suppression = Suppression { iou: 0.5, class_aware: true, kept_max: 10 };

    #[test]
    fn overlap_is_intersection_over_union() {
        assert_eq!(overlap(&[0.0, 0.0, 2.0, 2.0], &[1.0, 0.0, 3.0, 2.0]), 2.0 / 6.0);
        assert_eq!(overlap(&[0.0, 0.0, 1.0, 1.0], &[2.0, 2.0, 3.0, 3.0]), 0.0);
        assert_eq!(overlap(&[1.0; 4], &[1.0; 4]), 0.0);
    }

    #[test]
    fn the_surest_of_overlapping_boxes_stays() {
        let boxes = [
            candidate(0, 0.6, [0.0, 0.0, 10.0, 10.0]),
            candidate(0, 0.9, [1.0, 0.0, 11.0, 10.0]),
            candidate(0, 0.7, [30.0, 0.0, 40.0, 10.0]),
        ];
        assert_eq!(scores(&HALF, &boxes), [0.9, 0.7]);
        assert_eq!(scores(&Suppression { iou: 0.9, ..HALF }, &boxes), [0.9, 0.7, 0.6]);
        assert_eq!(scores(&Suppression { kept_max: 1, ..HALF }, &boxes), [0.9]);
    }

    #[test]
    fn a_suppressed_box_suppresses_nothing() {
        let row = [0.9, 0.8, 0.7].iter().zip([0.0, 4.0, 8.0]);
        let boxes: Vec<Candidate> =
            row.map(|(score, left)| candidate(0, *score, [left, 0.0, left + 14.0, 10.0])).collect();
        assert_eq!(scores(&HALF, &boxes), [0.9, 0.7]);
    }

    #[test]
    fn classes_suppress_each_other_only_if_told_so() {
        let boxes = [candidate(0, 0.9, [0.0, 0.0, 10.0, 10.0]), candidate(1, 0.8, [0.0, 0.0, 10.0, 10.0])];
        assert_eq!(scores(&HALF, &boxes), [0.9, 0.8]);
        assert_eq!(scores(&Suppression { class_aware: false, ..HALF }, &boxes), [0.9]);
    }
}
