//! A stage as it is sent. What builds before forks knew is written as they wrote it; the place of a branch takes a form
//! of the codec's field that they do not read, so that they refuse a plan with a fork as malformed.

use std::fmt;

use serde::de::{EnumAccess, Error, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Stage;
use crate::codec::VariantIndex;
use crate::codec::payload::Codec;
use crate::ids::NodeId;

/// Stands where codecs have their number, which stay below.
const BRANCH: u32 = 128;

#[derive(Serialize, Deserialize)]
pub(super) struct WireStage {
    node: NodeId,
    first: u16,
    end: u16,
    input: Input,
    backups: Vec<NodeId>,
}

/// How the input is coded, and the place of a branch.
struct Input {
    codec: Codec,
    branch: Option<u16>,
}

impl From<WireStage> for Stage {
    fn from(wire: WireStage) -> Self {
        let WireStage { node, first, end, input: Input { codec, branch }, backups } = wire;
        Self { node, first, end, codec, backups, branch }
    }
}

impl From<Stage> for WireStage {
    fn from(stage: Stage) -> Self {
        let Stage { node, first, end, codec, backups, branch } = stage;
        Self { node, first, end, input: Input { codec, branch }, backups }
    }
}

impl Serialize for Input {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.branch {
            None => self.codec.serialize(serializer),
            Some(place) => {
                serializer.serialize_newtype_variant("Input", BRANCH, "branch", &(self.codec, place))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Input", &[], Inputs)
    }
}

struct Inputs;

impl<'de> Visitor<'de> for Inputs {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a codec, or a branch's codec and place")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Input, A::Error> {
        let (VariantIndex(index), rest) = data.variant()?;
        if index == BRANCH {
            let (codec, place) = rest.newtype_variant()?;
            return Ok(Input { codec, branch: Some(place) });
        }
        rest.unit_variant()?;
        let codec = u8::try_from(index).ok().and_then(Codec::from_number);
        let codec = codec.ok_or_else(|| A::Error::custom("a codec of a later version"))?;
        Ok(Input { codec, branch: None })
    }
}
