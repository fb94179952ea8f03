//! Weights as signed 8-bit integers with a scale for each output channel, and what is added as 32-bit
//! integers of the product's scale.

use super::kinds::Weighted;

/// Largest weight; symmetric, so that zero is exact and the sign costs nothing.
const LARGEST: f32 = 127.0;
/// Largest sum in 32 bits that leaves as much room again for the products.
const BIAS_MAX: f32 = (1u32 << 30) as f32;

/// A weighted node's numbers, made small.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SmallWeights {
    /// In the order of the weights as they were.
    pub weights: Vec<i8>,
    /// One per output channel.
    pub scales: Vec<f32>,
    /// One per output channel, in steps of the input's scale times the channel's.
    pub bias: Option<Vec<i32>>,
}

/// Where the output channels of stored weights lie: `[outer, channels, inner]`.
#[derive(Debug, Clone, Copy)]
struct Layout {
    channels: usize,
    inner: usize,
}

impl Layout {
    fn of(dims: &[usize], axis: usize) -> Self {
        Self { channels: dims[axis], inner: dims[axis + 1..].iter().product() }
    }

    fn channel(self, index: usize) -> usize {
        index / self.inner % self.channels
    }
}

/// Makes a node's weights small. `bias` has one number per channel, one for all, or none; `means` are
/// those of the input channels, if known: the mean of what rounding the weights changes is then taken
/// out of the bias (Nagel et al., "Data-Free Quantization", 2019, section 4.2).
pub(super) fn make_small(
    node: &Weighted,
    dims: &[usize],
    weights: &[f32],
    bias: &[f32],
    input_scale: f32,
    means: &[f64],
) -> SmallWeights {
    let layout = Layout::of(dims, node.output_axis);
    let bias: Vec<f32> = match bias {
        [] => vec![0.0; layout.channels],
        [all] => vec![*all * node.beta; layout.channels],
        each => each.iter().map(|value| value * node.beta).collect(),
    };
    let mut scales = vec![0f32; layout.channels];
    for (index, weight) in weights.iter().enumerate() {
        let scale = &mut scales[layout.channel(index)];
        *scale = scale.max((weight * node.alpha).abs() / LARGEST);
    }
    for (scale, bias) in scales.iter_mut().zip(&bias) {
        // A channel of next to no weights must still let its bias fit 32 bits.
        *scale = scale.max(bias.abs() / (input_scale * BIAS_MAX));
        if !scale.is_normal() {
            *scale = 1.0;
        }
    }
    let small: Vec<i8> = weights
        .iter()
        .enumerate()
        .map(|(index, weight)| {
            let steps = weight * node.alpha / scales[layout.channel(index)];
            steps.round_ties_even().clamp(-LARGEST, LARGEST) as i8
        })
        .collect();
    let moved = mean_errors(node, dims, layout, weights, &small, &scales, means);
    let is_needed = bias.iter().any(|value| *value != 0.0) || moved.iter().any(|value| *value != 0.0);
    let in_steps = |((bias, moved), scale): ((&f32, f64), &f32)| {
        let steps = (f64::from(*bias) - moved) / (f64::from(input_scale) * f64::from(*scale));
        steps.round_ties_even() as i32
    };
    let bias = is_needed.then(|| bias.iter().zip(moved).zip(&scales).map(in_steps).collect());
    SmallWeights { weights: small, scales, bias: bias.filter(|_| node.takes_bias) }
}

/// Output channel -> by how much rounding the weights moves the mean of its results.
fn mean_errors(
    node: &Weighted,
    dims: &[usize],
    layout: Layout,
    weights: &[f32],
    small: &[i8],
    scales: &[f32],
    means: &[f64],
) -> Vec<f64> {
    let mut moved = vec![0.0; layout.channels];
    let input_layout = Layout::of(dims, 1 - node.output_axis);
    if means.len() != input_layout.channels * node.groups {
        return moved;
    }
    let per_group = layout.channels / node.groups;
    for (index, (weight, small)) in weights.iter().zip(small).enumerate() {
        let channel = layout.channel(index);
        let input = channel / per_group * input_layout.channels + input_layout.channel(index);
        let error = f64::from(*small) * f64::from(scales[channel]) - f64::from(weight * node.alpha);
        moved[channel] += error * means[input];
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn convolution(groups: usize) -> Weighted {
        Weighted {
            weights: 0,
            bias: None,
            output_axis: 0,
            input_axis: Some(1),
            groups,
            alpha: 1.0,
            beta: 1.0,
            floats_out: false,
            takes_bias: true,
            slower: false,
        }
    }

    proptest! {
        #[test]
        fn no_weight_moves_by_more_than_half_a_step_of_its_channel(
            axis in 0usize..2,
            (dims, weights) in (1usize..5, 1usize..5, 1usize..4).prop_flat_map(|(a, b, c)| {
                (Just([a, b, c]), prop::collection::vec(-5f32..5.0, a * b * c))
            }),
        ) {
            let node = Weighted { output_axis: axis, ..convolution(1) };
            let made = make_small(&node, &dims, &weights, &[], 0.1, &[]);
            prop_assert_eq!(made.scales.len(), dims[axis]);
            for (index, (weight, small)) in weights.iter().zip(&made.weights).enumerate() {
                // The place along each axis, by division: another way than the code's.
                let place = [index / (dims[1] * dims[2]), index / dims[2] % dims[1]];
                let scale = made.scales[place[axis]];
                prop_assert!((f32::from(*small) * scale - weight).abs() <= scale * 0.501);
            }
        }

        #[test]
        fn the_bias_takes_back_what_rounding_moves_on_average(
            weights in prop::collection::vec(-1f32..1.0, 4 * 2 * 3),
            means in prop::collection::vec(0f64..10.0, 4),
        ) {
            // Four outputs in two groups over two channels each, three weights per channel.
            let made = make_small(&convolution(2), &[4, 2, 3], &weights, &[0.5], 0.01, &means);
            let bias = made.bias.expect("there is one");
            for channel in 0..4 {
                let mean = |value: &dyn Fn(usize) -> f64| -> f64 {
                    (0..6).map(|at| value(channel * 6 + at) * means[channel / 2 * 2 + at / 3]).sum()
                };
                let exact = mean(&|at| f64::from(weights[at])) + 0.5;
                let scale = f64::from(made.scales[channel]);
                let rounded =
                    mean(&|at| f64::from(made.weights[at]) * scale) + f64::from(bias[channel]) * scale * 0.01;
                prop_assert!((exact - rounded).abs() <= scale * 0.01, "{} {}", exact, rounded);
            }
        }
    }

    #[test]
    fn a_dead_channel_keeps_its_bias() {
        let made = make_small(&convolution(1), &[2, 1, 1], &[0.0, 1e-30], &[3.0, -7.0], 1e-3, &[]);
        let back = |channel: usize| {
            f64::from(made.bias.as_ref().unwrap()[channel]) * 1e-3 * f64::from(made.scales[channel])
        };
        assert!((back(0) - 3.0).abs() < 1e-6 && (back(1) + 7.0).abs() < 1e-6, "{made:?}");
    }

    #[test]
    fn factors_of_a_product_go_into_its_numbers() {
        let node = Weighted { alpha: 2.0, beta: 0.5, output_axis: 1, ..convolution(1) };
        let made = make_small(&node, &[2, 1], &[1.0, -0.5], &[4.0], 1.0, &[]);
        assert_eq!(made.weights, [127, -64]);
        assert!((made.scales[0] * 127.0 - 2.0).abs() < 1e-6);
        assert_eq!(made.bias, Some(vec![127]));
    }
}
