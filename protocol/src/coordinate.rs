//! Where a node is in the space of round trips: what tells how far two nodes are that never measured it.

use serde::{Deserialize, Serialize};

/// A unit of the coordinates, microseconds.
const UNIT_US: f64 = 10.0;
/// Nothing is further from the middle than this, units: ten seconds.
const PLACE_MAX: i32 = 1_000_000;

/// A point of a plane and a height above it, which stands for the way from a node to the network: the round trip between
/// two nodes is their distance in the plane and both heights (Dabek, Cox, Kaashoek and Morris, "Vivaldi", SIGCOMM 2004).
/// Whole numbers: what a peer says is never infinite, and is out of range or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinate {
    plane: [i32; 2],
    height: u32,
    /// How far foretold round trips were off lately, thousandths of them.
    error_permille: u16,
}

impl Coordinate {
    /// From microseconds and a share; `None` if that is no number or out of range.
    pub fn of(plane_us: [f64; 2], height_us: f64, error: f64) -> Option<Self> {
        let whole =
            |us: f64| (us.abs() <= f64::from(PLACE_MAX) * UNIT_US).then(|| (us / UNIT_US).round() as i32);
        let plane = [whole(plane_us[0])?, whole(plane_us[1])?];
        let height = whole(height_us)?;
        let error_permille = (0.0..=1.0).contains(&error).then(|| (error * 1_000.0).round() as u16)?;
        let coordinate = Self { plane, height: u32::try_from(height).ok()?, error_permille };
        Some(coordinate)
    }

    /// The same, if it is one that [`Coordinate::of`] makes.
    pub fn sane(self) -> Option<Self> {
        let inside = self.plane.iter().all(|place| place.unsigned_abs() <= PLACE_MAX as u32);
        (inside && self.height <= PLACE_MAX as u32 && self.error_permille <= 1_000).then_some(self)
    }

    /// The point in the plane, microseconds.
    pub fn plane_us(self) -> [f64; 2] {
        self.plane.map(|place| f64::from(place) * UNIT_US)
    }

    /// The height, microseconds.
    pub fn height_us(self) -> f64 {
        f64::from(self.height) * UNIT_US
    }

    /// How far foretold round trips were off lately: 0 to 1, a share of them.
    pub fn error(self) -> f64 {
        f64::from(self.error_permille) / 1_000.0
    }

    /// How far it moved to another place of the same node, microseconds.
    pub fn moved_us(self, to: Self) -> f64 {
        let ([x, y], [to_x, to_y]) = (self.plane_us(), to.plane_us());
        (x - to_x).hypot(y - to_y) + (self.height_us() - to.height_us()).abs()
    }

    /// The round trip to another node as both coordinates foretell it, microseconds.
    pub fn round_trip_us(self, other: Self) -> f64 {
        let ([x, y], [other_x, other_y]) = (self.plane_us(), other.plane_us());
        (x - other_x).hypot(y - other_y) + self.height_us() + other.height_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};
    use proptest::prelude::*;

    #[test]
    fn what_is_no_place_is_refused() {
        let refused = [
            Coordinate::of([f64::NAN, 0.0], 0.0, 0.5),
            Coordinate::of([0.0, f64::NEG_INFINITY], 0.0, 0.5),
            Coordinate::of([1e8, 0.0], 0.0, 0.5),
            Coordinate::of([0.0, 0.0], -20.0, 0.5),
            Coordinate::of([0.0, 0.0], 0.0, 1.1),
            Coordinate::of([0.0, 0.0], 0.0, f64::NAN),
        ];
        assert_eq!(refused, [None; 6]);
        let absurd = [
            Coordinate { plane: [i32::MIN, 0], height: 0, error_permille: 0 },
            Coordinate { plane: [0, 0], height: u32::MAX, error_permille: 0 },
            Coordinate { plane: [0, 0], height: 0, error_permille: 1_001 },
        ];
        assert_eq!(absurd.map(Coordinate::sane), [None; 3]);
    }

    #[test]
    fn a_round_trip_is_the_way_in_the_plane_and_both_heights() {
        let one = Coordinate::of([3_000.0, 0.0], 500.0, 0.1).unwrap();
        let other = Coordinate::of([0.0, 4_000.0], 1_500.0, 0.1).unwrap();
        assert_eq!((one.round_trip_us(other), other.round_trip_us(one)), (7_000.0, 7_000.0));
        assert!(encode(&one).len() <= 11, "bytes in a record: {}", encode(&one).len());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_place_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(place) = decode::<Coordinate, 64>(&bytes).ok().and_then(Coordinate::sane) {
                prop_assert!(place.round_trip_us(place).is_finite());
                prop_assert_eq!(Coordinate::of(place.plane_us(), place.height_us(), place.error()), Some(place));
            }
        }
    }
}
