//! How far two readings of the same image agree: the unit in which the loss of a variant or a codec is
//! told.

use super::boxes::overlap;
use super::{Detection, Meaning};

/// Overlap (intersection over union) from which two boxes are the same object, as in PASCAL VOC.
const SAME_OVERLAP: f32 = 0.5;

/// Of so many answers so many are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Answers that both give.
    pub same: u64,
    /// Answers of both, those of classifiers counted once.
    pub answers: u64,
}

impl Agreement {
    /// Of one image: for classes whether the likeliest is the same; for detections those of one reading
    /// that have a partner of the same class in the other, counted from both sides. Readings without a
    /// meaning count nothing.
    pub fn of(one: &Meaning, other: &Meaning) -> Self {
        match (one, other) {
            (Meaning::Classes(one), Meaning::Classes(other)) => {
                let likeliest = |classes: &[super::Class]| classes.first().map(|class| class.index);
                Self { same: u64::from(likeliest(one) == likeliest(other)), answers: 1 }
            }
            (Meaning::Detections(one), Meaning::Detections(other)) => {
                Self { same: 2 * matched(one, other), answers: (one.len() + other.len()) as u64 }
            }
            _ => Self::default(),
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { same: self.same + other.same, answers: self.answers + other.answers }
    }

    /// The share of answers that are the same; `None` when there were none.
    pub fn share(self) -> Option<f64> {
        (self.answers > 0).then(|| self.same as f64 / self.answers as f64)
    }
}

/// Pairs of the same class and place, the surest first; each detection is in one pair at most.
fn matched(one: &[Detection], other: &[Detection]) -> u64 {
    let mut left: Vec<&Detection> = other.iter().collect();
    let mut pairs = 0;
    for detection in one {
        let partners = left.iter().enumerate().filter(|(_, partner)| partner.index == detection.index);
        let overlaps = partners.map(|(at, partner)| (at, overlap(&detection.box_px, &partner.box_px)));
        let nearest = overlaps.max_by(|(_, one), (_, other)| one.total_cmp(other));
        if let Some((at, _)) = nearest.filter(|(_, overlap)| *overlap >= SAME_OVERLAP) {
            left.swap_remove(at);
            pairs += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Class;

    fn detection(index: usize, left: f32) -> Detection {
        Detection { label: index.to_string(), index, score: 0.9, box_px: [left, 0.0, left + 10.0, 10.0] }
    }

    #[test]
    fn detections_are_matched_once_by_class_and_place() {
        let one = Meaning::Detections(vec![detection(1, 0.0), detection(1, 1.0), detection(2, 50.0)]);
        let other = Meaning::Detections(vec![detection(1, 0.5), detection(3, 50.0)]);
        let agreement = Agreement::of(&one, &other);
        assert_eq!(agreement, Agreement { same: 2, answers: 5 });
        assert_eq!(agreement.share(), Some(0.4));
        assert_eq!(Agreement::of(&other, &other).share(), Some(1.0));
        assert_eq!(Agreement::of(&Meaning::Detections(vec![]), &Meaning::Detections(vec![])).share(), None);
    }

    #[test]
    fn classes_agree_in_the_likeliest() {
        let class = |index| Class { label: String::new(), index, score: 0.5 };
        let classes = |first, second| Meaning::Classes(vec![class(first), class(second)]);
        assert_eq!(Agreement::of(&classes(3, 4), &classes(3, 5)), Agreement { same: 1, answers: 1 });
        assert_eq!(Agreement::of(&classes(3, 4), &classes(4, 3)), Agreement { same: 0, answers: 1 });
    }
}
