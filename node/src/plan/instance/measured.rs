//! What nodes measured and hand-written instances rarely have: what each range takes beyond its blocks, and each cut by
//! stormo's own codecs. `stormo plan --export` writes it.

use stormo_protocol::codec::payload::Codec;

use super::file::{ByVariant, File, MeasuredCoding, Node, Variant};
use super::{BadInstance, SHARE, TIME, within};
use crate::plan::coding::Coding;
use crate::plan::problem::Extra;

const ANY_FACTOR: (f64, f64, &str) = (0.0, 1e9, "from 0 to 1e9");

/// Checks all of it, and that it contradicts nothing else.
pub(super) fn check(file: &File) -> Result<(), BadInstance> {
    for (index, variant) in file.variants.iter().enumerate() {
        let place = |field: &str| format!("variants[{index}] `{}`: {field}", variant.name);
        let blocks = variant.cut_bytes.len() - 1;
        let length = |place: String, found: usize, expected: usize, of: &str| match found == expected {
            true => Ok(()),
            false => Err(BadInstance::Length { place, found, expected: format!("{expected}, {of}") }),
        };
        if !variant.extra_ms.is_empty() {
            length(place("extra_ms"), variant.extra_ms.len(), blocks, "one list for each first block")?;
        }
        for (first, list) in variant.extra_ms.iter().enumerate() {
            let of = "one for each last block from the first on";
            length(place(&format!("extra_ms[{first}]")), list.len(), blocks - first, of)?;
            list.iter().try_for_each(|extra_ms| within(place("extra_ms"), *extra_ms, TIME))?;
        }
        if variant.codings.is_empty() {
            continue;
        }
        length(place("codings"), variant.codings.len(), blocks + 1, "one list for each cut")?;
        if !file.codecs.is_empty() {
            let place = place("codings");
            return Err(BadInstance::Both { place, other: "codecs" });
        }
        for (cut, codings) in variant.codings.iter().enumerate() {
            let mut left = Codec::ALL[1..].to_vec();
            for MeasuredCoding { codec, .. } in codings {
                let Some(index) = left.iter().position(|left| left == codec) else {
                    let place = format!("{}[{cut}]", place("codings"));
                    return Err(BadInstance::Codec { place, codec: codec.name() });
                };
                left.swap_remove(index);
            }
        }
        for coding in variant.codings.iter().flatten() {
            within(place("codings: encode_ms"), coding.encode_ms, TIME)?;
            within(place("codings: decode_ms"), coding.decode_ms, TIME)?;
            within(place("codings: loss"), coding.loss, SHARE)?;
        }
    }
    for (index, node) in file.nodes.iter().enumerate() {
        let place = format!("nodes[{index}] `{}`: memory_free_bytes", node.name);
        if node.memory_free_bytes.is_some() && node.memory_bytes.is_some() {
            return Err(BadInstance::Both { place, other: "memory_bytes" });
        }
    }
    Ok(())
}

/// What ranges take beyond their blocks; the lists are complete.
pub(super) fn extra(variant: &Variant) -> Extra {
    if variant.extra_ms.is_empty() {
        return Extra::none();
    }
    let extra_ms = |range: std::ops::Range<usize>| variant.extra_ms[range.start][range.end - range.start - 1];
    Extra::of(variant.cut_bytes.len() - 1, extra_ms)
}

/// Each cut by each codec that is told for it.
pub(super) fn codings(variant: &Variant) -> Vec<Vec<Coding>> {
    let cuts = variant.codings.iter().map(|cut| {
        let codings = cut.iter().map(|measured| Coding {
            codec: measured.codec,
            bytes: measured.bytes.0,
            encode_ms: measured.encode_ms,
            decode_ms: measured.decode_ms,
            loss: measured.loss,
        });
        codings.collect()
    });
    cuts.collect()
}

/// A node's factor for one variant.
pub(super) fn factor(
    node: &Node,
    field: &str,
    factors: &ByVariant<f64>,
    variant: &str,
) -> Result<f64, BadInstance> {
    let place = || format!("node `{}`: {field}", node.name);
    let factor = factors.of(variant).ok_or_else(|| BadInstance::Unknown {
        place: place(),
        name: variant.to_owned(),
        list: "variants that it has a factor for",
    })?;
    within(place(), *factor, ANY_FACTOR)?;
    Ok(*factor)
}
