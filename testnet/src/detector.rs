//! The committed detector of handwritten digits in its two sizes, pictures of them with their truth, and
//! what counts as found.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use stormo::card::Detection;

use crate::binary::workspace_root;
use crate::digits::BadFile;

/// The sizes, smaller first.
pub const SIZES: [&str; 2] = ["n", "s"];

/// A digit in a picture, as it is or as it was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Marked {
    /// The digit.
    pub digit: u8,
    /// Left, top, right, bottom in pixels of the picture.
    pub box_px: [f64; 4],
    /// How sure the detector is; 1 of what is there.
    pub score: f64,
}

/// A picture of digits in a hand that nothing was learnt from.
#[derive(Debug, Clone)]
pub struct Picture {
    /// File name.
    pub name: String,
    /// The digits in it.
    pub truth: Vec<Marked>,
    /// What each size finds in it by the script that trained them, surest first.
    pub found: BTreeMap<String, Vec<Marked>>,
}

/// The trained network of a size.
pub fn model(size: &str) -> PathBuf {
    workspace_root().join(format!("testnet/models/detector_{size}.onnx"))
}

/// The card of both sizes.
pub fn card() -> PathBuf {
    workspace_root().join("testnet/models/detector.toml")
}

/// The folder of the pictures.
pub fn folder() -> PathBuf {
    workspace_root().join("testnet/models/detector")
}

/// All pictures, by name.
///
/// # Errors
/// When their list is missing or damaged.
pub fn load() -> Result<Vec<Picture>, BadFile> {
    #[derive(Deserialize)]
    struct Entry {
        digits: Vec<[f64; 5]>,
        #[serde(flatten)]
        found: BTreeMap<String, Vec<[f64; 6]>>,
    }
    let path = folder().join("truth.json");
    let bad = |what: String| BadFile { path: path.clone(), what };
    let text = fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
    let known: BTreeMap<String, Entry> =
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let marked = |[digit, left, top, right, bottom, score]: [f64; 6]| Marked {
        digit: digit as u8,
        box_px: [left, top, right, bottom],
        score,
    };
    let picture = |(name, entry): (String, Entry)| {
        let truth = entry
            .digits
            .into_iter()
            .map(|[digit, left, top, right, bottom]| marked([digit, left, top, right, bottom, 1.0]));
        let found = entry.found.into_iter();
        let found = found.map(|(size, rows)| (size, rows.into_iter().map(marked).collect())).collect();
        Picture { name, truth: truth.collect(), found }
    };
    Ok(known.into_iter().map(picture).collect())
}

impl From<&Detection> for Marked {
    fn from(detection: &Detection) -> Self {
        let digit = u8::try_from(detection.index).unwrap_or(u8::MAX);
        Self { digit, box_px: detection.box_px.map(f64::from), score: f64::from(detection.score) }
    }
}

/// Intersection over union of two boxes.
pub fn iou(one: &[f64; 4], other: &[f64; 4]) -> f64 {
    let size = |[left, top, right, bottom]: &[f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let shared = [one[0].max(other[0]), one[1].max(other[1]), one[2].min(other[2]), one[3].min(other[3])];
    let shared = size(&shared);
    shared / (size(one) + size(other) - shared)
}

/// For each thing found, surest first, which of the truth it is: the same digit, overlapping by `iou_min`
/// at least, and found by none before.
pub fn matches(found: &[Marked], truth: &[Marked], iou_min: f64) -> Vec<Option<usize>> {
    let mut free = vec![true; truth.len()];
    let best = |marked: &Marked| {
        let may = (0..truth.len()).filter(|index| free[*index] && truth[*index].digit == marked.digit);
        let overlaps = may.map(|index| (iou(&marked.box_px, &truth[index].box_px), index));
        let (overlap, index) = overlaps.max_by(|one, other| one.0.total_cmp(&other.0))?;
        let is_found = overlap >= iou_min;
        free[index] &= !is_found;
        is_found.then_some(index)
    };
    found.iter().map(best).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn digit(digit: u8, box_px: [f64; 4]) -> Marked {
        Marked { digit, box_px, score: 1.0 }
    }

    #[test]
    fn boxes_overlap_by_what_they_share() {
        let one = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(iou(&one, &one), 1.0);
        assert_eq!(iou(&one, &[5.0, 0.0, 15.0, 10.0]), 50.0 / 150.0);
        assert_eq!(iou(&one, &[20.0, 20.0, 30.0, 30.0]), 0.0);
    }

    #[test]
    fn a_digit_is_found_once_and_by_its_own_reading() {
        let truth = [digit(3, [0.0, 0.0, 10.0, 10.0]), digit(3, [20.0, 0.0, 30.0, 10.0])];
        let found = [
            digit(3, [0.0, 0.0, 10.0, 9.0]),
            digit(3, [0.0, 0.0, 10.0, 10.0]),
            digit(8, [20.0, 0.0, 30.0, 10.0]),
            digit(3, [20.0, 0.0, 30.0, 8.0]),
        ];
        assert_eq!(matches(&found, &truth, 0.5), [Some(0), None, None, Some(1)]);
    }

    #[test]
    fn the_committed_pictures_are_listed_with_what_is_in_them() {
        let pictures = load().unwrap();
        let entries = fs::read_dir(folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = names.filter(|name| name.ends_with(".jpg")).collect();
        assert_eq!(files, pictures.iter().map(|picture| picture.name.clone()).collect());
        for picture in &pictures {
            assert!(picture.truth.iter().all(|marked| marked.digit <= 9));
            assert!(SIZES.iter().all(|size| picture.found.contains_key(*size)));
        }
        assert!(pictures.iter().any(|picture| picture.truth.is_empty()));
    }
}
