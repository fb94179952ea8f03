//! Which tensors share a scale, and what it is. What a node only moves keeps its scale; what is
//! concatenated shares one where that costs little, since then nothing has to be rounded again.

use std::collections::HashMap;

use super::choose::Net;
use super::kinds::Kind;
use super::range::{Range, Steps};

/// A part of a concatenation may have a range so much narrower than the whole: below that it would lose
/// one of its 8 bits.
const NARROWEST_SHARE: f32 = 0.5;

/// Scales of tensors; those that share one lead to the same root.
pub(super) struct Scales {
    leads_to: Vec<usize>,
    ranges: HashMap<usize, Range>,
}

impl Scales {
    /// `ranges` of all tensors that become small integers.
    pub(super) fn choose(net: &Net, small: &[bool], ranges: HashMap<usize, Range>) -> Self {
        let mut scales = Self { leads_to: (0..net.links.names.len()).collect(), ranges };
        let nodes = net.links.order.iter().copied().filter(|node| small[*node]);
        for node in nodes.clone().filter(|node| net.kinds[*node] == Kind::Moves) {
            for input in net.data_inputs(node) {
                // What is moved lies within what it is moved from, as far as the samples go.
                net.made(node).iter().for_each(|made| scales.join(input, *made));
            }
        }
        for node in nodes.filter(|node| net.kinds[*node] == Kind::Joins) {
            let members: Vec<usize> = net.data_inputs(node).chain(net.made(node).iter().copied()).collect();
            let whole = members.iter().filter_map(|tensor| scales.range(*tensor)).reduce(Range::with);
            let Some(whole) = whole else { continue };
            let fits = |scales: &Self, tensor: usize| {
                scales.range(tensor).is_some_and(|range| range.width() >= NARROWEST_SHARE * whole.width())
            };
            let together: Vec<usize> = members.into_iter().filter(|tensor| fits(&scales, *tensor)).collect();
            together.windows(2).for_each(|pair| scales.join(pair[0], pair[1]));
        }
        scales
    }

    fn root(&self, tensor: usize) -> usize {
        let mut root = tensor;
        while self.leads_to[root] != root {
            root = self.leads_to[root];
        }
        root
    }

    /// `to`'s scale becomes that of `tensor` too.
    fn join(&mut self, to: usize, tensor: usize) {
        let (root, other) = (self.root(to), self.root(tensor));
        if root == other {
            return;
        }
        self.leads_to[other] = root;
        if let Some(range) = self.ranges.remove(&other) {
            let joined = self.ranges.get(&root).map_or(range, |known| known.with(range));
            self.ranges.insert(root, joined);
        }
    }

    fn range(&self, tensor: usize) -> Option<Range> {
        self.ranges.get(&self.root(tensor)).copied()
    }

    /// The scale of a tensor that becomes small integers.
    pub(super) fn steps(&self, tensor: usize) -> Option<Steps> {
        self.range(tensor).map(Range::steps)
    }

    /// A number that tensors of the same scale share.
    pub(super) fn group(&self, tensor: usize) -> usize {
        self.root(tensor)
    }
}
