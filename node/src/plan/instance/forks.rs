//! What of a written model may run beside itself: regions of branches, strips of rows, the items of a batch.

use std::collections::HashSet;

use super::file::{self, ByNode, File};
use super::{BadInstance, TIME, within};
use crate::plan::forks::{Forks, Strips, UNITS_MAX};
use crate::plan::split::{Branch, Region};

/// Of each variant; nodes in the order that problems have them in.
pub(super) fn forks(file: &File) -> Result<Vec<Forks>, BadInstance> {
    if !(1..=UNITS_MAX).contains(&file.batch) {
        let (place, value) = ("batch".to_owned(), f64::from(file.batch));
        return Err(BadInstance::Number { place, value, bounds: "from 1 to 65536" });
    }
    let names: HashSet<&str> = file.nodes.iter().map(|node| node.name.as_str()).collect();
    let of_variant = |(index, variant): (usize, &file::Variant)| {
        Ok(Forks {
            regions: regions(index, variant)?,
            strips: strips((file, &names), index, variant)?,
            items: file.batch,
        })
    };
    file.variants.iter().enumerate().map(of_variant).collect()
}

fn regions(index: usize, variant: &file::Variant) -> Result<Vec<Region>, BadInstance> {
    let blocks = variant.cut_bytes.len() - 1;
    let region = |(place, region): (usize, &file::Region)| {
        let branch = |branch: &file::Branch| Branch {
            first: branch.blocks[0],
            end: branch.blocks[1],
            in_bytes: branch.in_bytes.0,
            out_bytes: branch.out_bytes.0,
        };
        let mut branches: Vec<Branch> = region.branches.iter().map(branch).collect();
        branches.sort_by_key(|branch| branch.first);
        let region = Region { branches, past_bytes: region.past_bytes.0 };
        if region.is_valid(blocks) {
            return Ok(region);
        }
        let place = format!("variants[{index}] `{}`: regions[{place}]", variant.name);
        Err(BadInstance::Region { place, blocks })
    };
    variant.regions.iter().enumerate().map(region).collect()
}

fn strips(
    (file, names): (&File, &HashSet<&str>),
    index: usize,
    variant: &file::Variant,
) -> Result<Vec<Strips>, BadInstance> {
    let blocks = variant.cut_bytes.len() - 1;
    let of = |(place, strip): (usize, &file::Strip)| {
        let place = |field: &str| format!("variants[{index}] `{}`: strips[{place}].{field}", variant.name);
        let [first, end] = strip.blocks;
        if first >= end || usize::from(end) > blocks {
            return Err(BadInstance::Range { place: place("blocks"), first, end, blocks });
        }
        if !(2..=UNITS_MAX).contains(&strip.rows) {
            let value = f64::from(strip.rows);
            return Err(BadInstance::Number { place: place("rows"), value, bounds: "from 2 to 65536" });
        }
        if let ByNode::Each(times) = &strip.halo_ms
            && let Some(name) = times.keys().find(|name| !names.contains(name.as_str()))
        {
            return Err(BadInstance::Unknown { place: place("halo_ms"), name: name.clone(), list: "nodes" });
        }
        let halo_ms = file.nodes.iter().map(|node| {
            let halo_ms = match &strip.halo_ms {
                ByNode::All(halo_ms) => *halo_ms,
                ByNode::Each(times) => times.get(&node.name).copied().unwrap_or(0.0),
            };
            within(place("halo_ms"), halo_ms, TIME)?;
            Ok(halo_ms * node.slowdown)
        });
        let halo_ms = halo_ms.collect::<Result<_, BadInstance>>()?;
        let halo_bytes = strip.halo_bytes.0;
        Ok(Strips { first, end, rows: strip.rows, halo_bytes, halo_ms })
    };
    variant.strips.iter().enumerate().map(of).collect()
}
