//! What the publisher of a deployment wishes, who is to host which blocks of it as its steward says, and how
//! far a host is with that.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, SectionReader, SectionWriter};
use crate::ids::{DeploymentId, NodeId, VariantId};
use crate::limits::{BLOCKS_MAX, ORDER_BYTES_MAX, PLACES_MAX, VARIANTS_MAX};
use crate::refusal::Refusal;

/// Blocks of a variant on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Who hosts them.
    pub node: NodeId,
    /// Which of the deployment's variants.
    pub variant: u8,
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
}

/// How the blocks of each variant are spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Division {
    /// All on one node; where that fits on none, as the planner finds best.
    Whole,
    /// Into so many parts of about equal time, each on a node of its own.
    Parts(u16),
    /// As somebody said; a host that is lost is replaced all the same.
    Told(Vec<Place>),
}

/// What is wished besides the model itself, so that any node can place it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wished {
    /// Nodes that host each block; at least 1.
    pub replicas: u16,
    /// How the blocks are spread.
    pub division: Division,
}

impl Wished {
    /// Whether it can be meant.
    pub(super) fn is_sound(&self) -> bool {
        let divides = match &self.division {
            Division::Whole => true,
            Division::Parts(parts) => (1..=BLOCKS_MAX).contains(&usize::from(*parts)),
            Division::Told(places) => are_sound(places),
        };
        self.replicas >= 1 && divides
    }
}

fn are_sound(places: &[Place]) -> bool {
    // A card's ends are two blocks more.
    let is_sound = |place: &Place| {
        place.first < place.end
            && usize::from(place.end) <= BLOCKS_MAX + 2
            && usize::from(place.variant) < VARIANTS_MAX
    };
    (1..=PLACES_MAX).contains(&places.len()) && places.iter().all(is_sound)
}

/// Who is to host what of one version of a deployment. It says all there is to host: what it does not list
/// is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which version.
    pub deployment: DeploymentId,
    /// Counts the orders for this version; the publisher's first placement is 1.
    pub sequence: u64,
    /// Who gives it.
    pub steward: NodeId,
    /// Who hosts what.
    pub places: Vec<Place>,
}

const ORDER: u16 = 1;
const PLACES: u16 = 2;

impl Order {
    /// Of two orders for one version, the greater counts.
    pub fn rank(&self) -> (u64, NodeId) {
        (self.sequence, self.steward)
    }

    /// The bytes that the steward signs.
    pub fn to_bytes(&self) -> Vec<u8> {
        SectionWriter::default()
            .with(ORDER, &(self.deployment, self.sequence, self.steward))
            .with(PLACES, &self.places)
            .into_bytes()
    }

    /// Reads and checks an order.
    ///
    /// # Errors
    /// When the bytes are too long or malformed, or list nothing, too much or ranges that cannot be.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        const L: usize = ORDER_BYTES_MAX;
        if bytes.len() > L {
            return Err(DecodeError::TooLong { got: bytes.len(), limit: L });
        }
        let sections = SectionReader::new(bytes)?;
        let (deployment, sequence, steward) = sections.required::<_, L>(ORDER)?;
        let places = sections.required::<Vec<Place>, L>(PLACES)?;
        let order = Self { deployment, sequence, steward, places };
        let is_sound = order.sequence >= 1 && are_sound(&order.places);
        if is_sound { Ok(order) } else { Err(DecodeError::Malformed) }
    }
}

/// A range of blocks that a node was ordered to host and does not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostingGoal {
    /// Whose blocks.
    pub variant: VariantId,
    /// First block.
    pub first: u16,
    /// One past the last block.
    pub end: u16,
    /// How far it is.
    pub progress: GoalProgress,
}

/// How far a host is with what it was ordered to host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoalProgress {
    /// It pulls and loads.
    Loading {
        /// Share of the objects that are there, thousandths.
        done_permille: u16,
    },
    /// It does not, by the number of a [`Refusal`]; it tries again later.
    Refused(u16),
}

impl GoalProgress {
    /// Why it does not host, if so. A number that only later versions know says as much as that it failed.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Loading { .. } => None,
            Self::Refused(number) => Some(Refusal::from_number_of_any_version(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(node: u8) -> Place {
        Place { node: NodeId([node; 32]), variant: 0, first: 0, end: 4 }
    }

    fn order(places: Vec<Place>) -> Order {
        Order { deployment: DeploymentId([1; 16]), sequence: 3, steward: NodeId([9; 32]), places }
    }

    #[test]
    fn orders_round_trip_up_to_their_bound() {
        let far = Place { variant: 7, first: 64, end: 66, ..place(255) };
        for places in [vec![place(1)], vec![far; PLACES_MAX]] {
            let order = Order { sequence: u64::MAX, ..order(places) };
            assert_eq!(Order::from_bytes(&order.to_bytes()), Ok(order));
        }
    }

    #[test]
    fn orders_that_cannot_be_are_refused() {
        let impossible = [
            order(vec![]),
            order(vec![place(1); PLACES_MAX + 1]),
            order(vec![Place { first: 4, ..place(1) }]),
            order(vec![Place { end: 67, ..place(1) }]),
            order(vec![Place { variant: 8, ..place(1) }]),
            Order { sequence: 0, ..order(vec![place(1)]) },
        ];
        for wrong in impossible {
            assert!(Order::from_bytes(&wrong.to_bytes()).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Order::from_bytes(&bytes);
        }
    }
}
