//! The block graph of a model as text for `dot`, or as a picture that needs no other program.

use std::fmt::Write;

use super::models::{branch_of, coded};
use super::table::{bytes, ms};
use crate::serve::json::{CutView, ModelView, RegionView};

/// Pixels of the picture.
const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 40.0;
/// Where blocks lie, and above them the cuts.
const BLOCKS_TOP: f64 = 270.0;
const BLOCKS_HEIGHT: f64 = 40.0;
/// Below them, in turns, the branches of parallel regions.
const BRANCHES_TOP: f64 = 316.0;
const BRANCHES_HEIGHT: f64 = 10.0;
const BRANCH_COLOURS: [&str; 3] = ["#d98c3f", "#7a5fb5", "#3f9fa8"];
/// Narrowest block, so that each can be seen and pointed at.
const BLOCK_WIDTH_MIN: f64 = 4.0;

fn is_thin(model: &ModelView, cut: usize) -> bool {
    model.cuts[cut].bytes < model.cuts[0].bytes
}

/// For Graphviz: blocks as boxes, cuts as edges, thin ones heavy.
pub(super) fn dot(model: &ModelView) -> String {
    let mut text =
        format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n  in [shape=plain];\n", model.name);
    let last = model.blocks.len();
    for (index, block) in model.blocks.iter().enumerate() {
        let weights = bytes(block.weights_bytes);
        let _ = writeln!(text, "  b{index} [label=\"{index}\\n{} ms\\n{weights}\"];", ms(block.time_ms));
    }
    text.push_str("  out [shape=plain];\n");
    let before = |cut: usize| cut.checked_sub(1).map_or("in".to_owned(), |block| format!("b{block}"));
    let behind = |cut: usize| if cut == last { "out".to_owned() } else { format!("b{cut}") };
    let borders: Vec<usize> = model.regions.iter().flat_map(borders).collect();
    for cut in (0..=last).filter(|cut| !borders.contains(cut)) {
        let style = if cut > 0 && is_thin(model, cut) { ", penwidth=3, color=forestgreen" } else { "" };
        let (label, tip) = (bytes(model.cuts[cut].bytes), codecs(&model.cuts[cut]));
        let (from, to) = (before(cut), behind(cut));
        let _ = writeln!(text, "  {from} -> {to} [label=\"{label}\", tooltip=\"{label} {tip}\"{style}];");
    }
    for region in &model.regions {
        let (first, end) = ends(region);
        for branch in &region.branches {
            let [start, stop] = branch.blocks.map(usize::from);
            let (reads, makes) = (bytes(branch.reads.bytes), bytes(branch.makes.bytes));
            let _ = writeln!(text, "  {} -> b{start} [label=\"{reads}\"];", before(first));
            let _ = writeln!(text, "  b{} -> {} [label=\"{makes}\"];", stop - 1, behind(end));
        }
    }
    text.push('}');
    text
}

/// Cuts before and behind a region.
fn ends(region: &RegionView) -> (usize, usize) {
    let first = region.branches.first().map_or(0, |branch| branch.blocks[0]);
    (usize::from(first), region.branches.last().map_or(0, |branch| usize::from(branch.blocks[1])))
}

/// Cuts that its branches are drawn with instead: before, between and behind them.
fn borders(region: &RegionView) -> Vec<usize> {
    let (first, _) = ends(region);
    let stops = region.branches.iter().map(|branch| usize::from(branch.blocks[1]));
    std::iter::once(first).chain(stops).collect()
}

/// A picture: blocks as wide as their time, above each cut a bar as high as the logarithm of its bytes.
pub(super) fn svg(model: &ModelView) -> String {
    let total: f64 = model.blocks.iter().map(|block| block.time_ms).sum::<f64>().max(f64::MIN_POSITIVE);
    let spare = WIDTH - 2.0 * MARGIN - BLOCK_WIDTH_MIN * model.blocks.len() as f64;
    let widths = model.blocks.iter().map(|block| BLOCK_WIDTH_MIN + spare * block.time_ms / total);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"16\">{}: {} blocks, {} ms; green cuts are thinner than the \
         input, branches of parallel regions are coloured</text>\n",
        escaped(&model.name),
        model.blocks.len(),
        ms(total)
    );
    let mut left = MARGIN;
    bar(&mut text, model, 0, left);
    for (index, width) in widths.enumerate() {
        let block = &model.blocks[index];
        let _ = writeln!(
            text,
            "<rect x=\"{left:.1}\" y=\"{BLOCKS_TOP}\" width=\"{width:.1}\" height=\"{BLOCKS_HEIGHT}\" \
             fill=\"#cfdcec\" stroke=\"#35567d\"><title>block {index}: {} ms, {:.1} MFLOP, {} of weights</title></rect>",
            ms(block.time_ms),
            block.mflop,
            bytes(block.weights_bytes)
        );
        if let Some((place, name)) = branch_of(model, index) {
            let colour = BRANCH_COLOURS[place % BRANCH_COLOURS.len()];
            let _ = writeln!(
                text,
                "<rect x=\"{left:.1}\" y=\"{BRANCHES_TOP}\" width=\"{width:.1}\" height=\"{BRANCHES_HEIGHT}\" \
                 fill=\"{colour}\"><title>branch {name}</title></rect>"
            );
        }
        left += width;
        bar(&mut text, model, index + 1, left);
    }
    text.push_str("</svg>");
    text
}

fn bar(text: &mut String, model: &ModelView, cut: usize, at: f64) {
    let largest = model.cuts.iter().map(|cut| cut.bytes).max().unwrap_or(1);
    let scale = |count: u64| ((count + 1) as f64).ln();
    let height = (BLOCKS_TOP - 60.0) * scale(model.cuts[cut].bytes) / scale(largest);
    let colour = if cut > 0 && is_thin(model, cut) { "#2e8b57" } else { "#b0b0b0" };
    let top = BLOCKS_TOP - height;
    let _ = writeln!(
        text,
        "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{BLOCKS_TOP}\" y2=\"{top:.1}\" stroke=\"{colour}\" \
         stroke-width=\"3\"><title>cut {cut}: {} {} ({})</title></line>",
        bytes(model.cuts[cut].bytes),
        escaped(&codecs(&model.cuts[cut])),
        escaped(&model.cuts[cut].tensors.join(" "))
    );
}

/// What codecs make of a cut.
fn codecs(cut: &CutView) -> String {
    let coded = [true, false].map(|lossless| coded(cut, lossless)).into_iter();
    coded.filter(|text| !text.is_empty()).map(|text| format!("= {text}")).collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::json::{BlockView, BranchView, CodecView};
    use stormo_protocol::codec::payload::Codec;
    use stormo_protocol::model::BlockKind;

    fn model() -> ModelView {
        let block = |time_ms| BlockView {
            kind: BlockKind::Graph,
            time_ms,
            mflop: 1.0,
            weights_bytes: 10,
            peak_activation_bytes: 20,
        };
        let codec = |codec, bytes, loss| CodecView { codec, bytes, encode_ms: 0.1, decode_ms: 0.1, loss };
        let codecs = |bytes| {
            vec![
                codec(Codec::ShuffleLz4, bytes / 2, Some(0.0)),
                codec(Codec::F16, bytes / 2, Some(0.0)),
                codec(Codec::Int8, bytes / 4, Some(0.125)),
            ]
        };
        let cut =
            |bytes, name: &str| CutView { bytes, codecs: codecs(bytes), tensors: vec![name.to_owned()] };
        ModelView {
            ready: true,
            name: "m".into(),
            version: 1,
            variant: "base".into(),
            accuracy: None,
            variants: vec![],
            ort_level: "all".into(),
            card: None,
            time_ms: 3.0,
            weights_bytes: 20,
            blocks: vec![block(1.0), block(3.0)],
            cuts: vec![cut(100, "x"), cut(50, "<a>"), cut(400, "y")],
            regions: vec![],
            loss_samples: 0,
            batch_items_max: None,
            inputs: vec![],
            outputs: vec![],
        }
    }

    #[test]
    fn thin_cuts_are_marked_and_names_are_escaped() {
        let (dot, svg) = (dot(&model()), svg(&model()));
        assert_eq!(dot.matches("forestgreen").count(), 1);
        assert_eq!(svg.matches("#2e8b57").count(), 1);
        assert!(svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
        assert!(dot.contains("100 B int8 (12.5 %)") && svg.contains("100 B int8 (12.5 %)"), "{dot}");
    }

    #[test]
    fn branches_leave_one_block_and_meet_in_another() {
        let mut model = model();
        let block = model.blocks[0].clone();
        model.blocks.extend([block.clone(), block]);
        model.cuts.extend([model.cuts[2].clone(), model.cuts[2].clone()]);
        let view = |cut: usize| model.cuts[cut].clone();
        let branch = |blocks| BranchView { blocks, reads: view(1), makes: view(2) };
        model.regions = vec![RegionView { branches: vec![branch([1, 2]), branch([2, 3])] }];
        let (dot, svg) = (dot(&model), svg(&model));
        for edge in ["in -> b0", "b0 -> b1", "b0 -> b2", "b1 -> b3", "b2 -> b3", "b3 -> out"] {
            assert_eq!(dot.matches(&format!("  {edge} ")).count(), 1, "{edge} in {dot}");
        }
        assert!(!dot.contains("b1 -> b2") && svg.contains("branch 1a") && svg.contains("branch 1b"));
    }
}
