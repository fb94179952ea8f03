//! The block graph of a model as text for `dot`, or as a picture that needs no other program.

use std::fmt::Write;

use super::table::{bytes, ms};
use crate::serve::json::ModelView;

/// Pixels of the picture.
const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 40.0;
/// Where blocks lie, and above them the cuts.
const BLOCKS_TOP: f64 = 270.0;
const BLOCKS_HEIGHT: f64 = 40.0;
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
    for cut in 0..=last {
        let from = cut.checked_sub(1).map_or("in".to_owned(), |block| format!("b{block}"));
        let to = if cut == last { "out".to_owned() } else { format!("b{cut}") };
        let style = if cut > 0 && is_thin(model, cut) { ", penwidth=3, color=forestgreen" } else { "" };
        let _ = writeln!(text, "  {from} -> {to} [label=\"{}\"{style}];", bytes(model.cuts[cut].bytes));
    }
    text.push('}');
    text
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
         input</text>\n",
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
         stroke-width=\"3\"><title>cut {cut}: {} ({})</title></line>",
        bytes(model.cuts[cut].bytes),
        escaped(&model.cuts[cut].tensors.join(" "))
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::json::{BlockView, CutView};
    use stormo_protocol::model::BlockKind;

    fn model() -> ModelView {
        let block = |time_ms| BlockView {
            kind: BlockKind::Graph,
            time_ms,
            mflop: 1.0,
            weights_bytes: 10,
            peak_activation_bytes: 20,
        };
        let cut = |bytes, name: &str| CutView { bytes, tensors: vec![name.to_owned()] };
        ModelView {
            name: "m".into(),
            version: 1,
            variant: "base".into(),
            ort_level: "all".into(),
            card: false,
            weights_bytes: 20,
            blocks: vec![block(1.0), block(3.0)],
            cuts: vec![cut(100, "x"), cut(50, "<a>"), cut(400, "y")],
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
    }
}
