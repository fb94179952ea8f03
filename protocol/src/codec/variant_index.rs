//! The place of an enum's variant as an encoding has it, for enums whose variants later versions may add to.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// Which variant, counted from 0.
pub(crate) struct VariantIndex(pub u32);

impl<'de> Deserialize<'de> for VariantIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = u32;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u32<E>(self, number: u32) -> Result<u32, E> {
                Ok(number)
            }
            fn visit_u64<E>(self, number: u64) -> Result<u32, E> {
                Ok(u32::try_from(number).unwrap_or(u32::MAX))
            }
        }
        deserializer.deserialize_identifier(Number).map(Self)
    }
}
