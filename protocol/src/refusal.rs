//! Why a node refuses: numbered reasons. A peer gets a number, never our error text.

use std::fmt;

use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::VariantIndex;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// A numbered reason. The numbers are on the wire: never reuse one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Refusal {
            $($(#[$doc])* $name = $number,)*
        }

        impl Refusal {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

refusals! {
    /// The frame or message breaks the protocol.
    BadFrame = 1, "the message breaks the protocol";
    /// No plan of this id was announced for this request.
    UnknownPlan = 2, "no such plan was announced";
    /// The deployment (or this version of it) is not known here.
    UnknownDeployment = 3, "the deployment is not known there";
    /// The plan does not name this node for this stage.
    NotMyStage = 4, "the plan does not name that node for this stage";
    /// Tensors do not match what the stage expects.
    WrongTensors = 5, "the tensors do not match what the partition expects";
    /// The queue is full.
    Overloaded = 6, "its queue is full; try again later";
    /// The partition does not fit the memory budget.
    NoMemory = 7, "the partition does not fit its memory budget";
    /// An object of the model could not be had from any peer.
    MissingObject = 8, "the model could not be fetched from any peer";
    /// The runtime could not load the partition.
    LoadFailed = 9, "its runtime could not load the partition (its log says why)";
    /// The runtime failed while running the partition.
    RunFailed = 10, "its runtime failed on the partition (its log says why)";
    /// The deadline passed.
    DeadlinePassed = 11, "the deadline passed";
    /// The stage's host could not be reached, or fell silent.
    SuccessorLost = 12, "it could not be reached, or fell silent";
    /// The request was cancelled.
    Cancelled = 13, "the request was cancelled";
    /// The node is shutting down.
    Leaving = 14, "the node is leaving the mesh";
    /// The object is not stored here.
    NoObject = 15, "the object is not stored there";
    /// A result that nobody here waits for.
    NotWaiting = 16, "nobody waits for this result there";
    /// These tensors are there already, or on their way.
    Duplicate = 17, "it has these tensors already";
    /// The disk does not take the objects.
    Storage = 18, "its disk does not take the model (full, or failing)";
    /// The encoded image of a request cannot be decoded.
    BadImage = 19, "the image cannot be read: no JPEG or PNG, damaged, or too large";
    /// The payload is coded in a way that the plan does not name for this edge.
    WrongCodec = 20, "the tensors are not coded as the plan says";
    /// The owner of the node lets it run nothing for others.
    NotOffered = 21, "its owner lets it run nothing for others (--roles)";
    /// Its owner lets it work for nobody else now.
    Closed = 22, "its owner lets it take no work of others now (--roles, --hours, `stormo work`)";
    /// The partition would take memory that the owner keeps free for other programs.
    KeptFree = 23, "its owner keeps that memory free for other programs (--keep-free-memory)";
    /// The model does not take these values: an index out of range, a text that is no number.
    BadValue = 24, "the model does not take these values (the log of that node says why)";
    /// A reason that only later versions know.
    Later = 25, "for a reason that this version of stormo does not know (the log of that node says which)";
    /// It hosts as many parts as a node may.
    HostsMost = 26, "it hosts as many parts of models as a node may; take a model back (`stormo undeploy`) or add nodes";
}

/// In messages a refusal is its place in the list above, as a derived encoding has it: its number less 1.
impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant("Refusal", *self as u32 - 1, "refusal")
    }
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Refusal", &[], Places)
    }
}

/// Reads a refusal; one of a later version is [`Refusal::Later`].
struct Places;

impl<'de> Visitor<'de> for Places {
    type Value = Refusal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place of a reason")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Refusal, A::Error> {
        let (place, nothing) = data.variant::<VariantIndex>()?;
        nothing.unit_variant()?;
        let number = place.0.checked_add(1).and_then(|number| u16::try_from(number).ok());
        Ok(number.map_or(Refusal::Later, Refusal::from_number_of_any_version))
    }
}

impl Refusal {
    /// From the number on the wire.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|refusal| *refusal as u16 == number)
    }

    /// The same; a number of a later version is [`Refusal::Later`].
    pub fn from_number_of_any_version(number: u16) -> Self {
        Self::from_number(number).unwrap_or(Self::Later)
    }

    /// Whether what was sent is needed no longer, by nobody: it is there already, or the request is over.
    pub fn is_of_the_unneeded(self) -> bool {
        matches!(self, Self::Duplicate | Self::NotWaiting | Self::Cancelled)
    }

    /// Whether the same request may succeed elsewhere or later; otherwise every host says the same.
    pub fn may_succeed_elsewhere(self) -> bool {
        !matches!(
            self,
            Self::BadFrame
                | Self::WrongTensors
                | Self::WrongCodec
                | Self::BadImage
                | Self::BadValue
                | Self::DeadlinePassed
                | Self::Cancelled
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[test]
    fn numbers_are_distinct_and_come_back() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_number(*refusal as u16), Some(*refusal));
        }
        assert_eq!(Refusal::from_number(0), None);
    }

    #[test]
    fn those_of_later_versions_are_understood_as_that() {
        for refusal in Refusal::ALL {
            let bytes = encode(refusal);
            // As builds before had it: the place in the list, as a variable-length number.
            assert_eq!(bytes, [*refusal as u8 - 1]);
            assert_eq!(decode::<Refusal, 8>(&bytes), Ok(*refusal));
        }
        for later in [&[200u8][..], &[251, 0xff, 0xff], &[252, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(decode::<Refusal, 8>(later), Ok(Refusal::Later));
        }
        assert!(decode::<Refusal, 8>(&[]).is_err() && decode::<Refusal, 8>(&[3, 0]).is_err());
    }
}
