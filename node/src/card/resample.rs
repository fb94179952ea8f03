//! Resizing with a triangle filter as wide as the reduction, in the arithmetic of Pillow's
//! `Image.resize(..., BILINEAR)` (`Resample.c`): fixed-point weights of 22 bits, first along x, then
//! along y, rounded to 8 bits after each (as all releases before 13; that one turns the passes round for
//! some sizes, at most one level away). Models were trained on pixels that went that way, and it
//! takes half the time of the `image` crate's resize in floating point.

use super::decode::Pixels;

const WEIGHT_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

/// The weights with which source pixels make one pixel of the result.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// For the pixels `from..from + count` of a line resized from `source` to `resized` pixels.
fn taps(source: u32, resized: u32, from: u32, count: u32) -> Vec<Taps> {
    let scale = f64::from(source) / f64::from(resized);
    let support = scale.max(1.0);
    let one = |position: u32| {
        let center = (f64::from(position) + 0.5) * scale;
        let first = ((center - support + 0.5) as i64).max(0);
        let end = ((center + support + 0.5) as i64).min(i64::from(source));
        let triangle =
            |at: i64| (1.0 - (((first + at) as f64 - center + 0.5) * (1.0 / support)).abs()).max(0.0);
        let raw: Vec<f64> = (0..end - first).map(triangle).collect();
        let sum: f64 = raw.iter().sum();
        let fixed = |weight: &f64| (0.5 + weight / sum * f64::from(1 << WEIGHT_BITS)) as i32;
        Taps { first: first as usize, weights: raw.iter().map(fixed).collect() }
    };
    (from..from + count).map(one).collect()
}

fn rounded(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// The window at `from_px` of `size_px` pixels out of `source` resized to `resized_px`.
pub(super) fn resample(source: Pixels, resized_px: [u32; 2], from_px: [u32; 2], size_px: [u32; 2]) -> Pixels {
    if [source.width, source.height] == resized_px && resized_px == size_px {
        return source;
    }
    let rows = taps(source.height, resized_px[1], from_px[1], size_px[1]);
    let first_row = rows.first().map_or(0, |row| row.first);
    let end_row = rows.last().map_or(0, |row| row.first + row.weights.len());
    let columns = taps(source.width, resized_px[0], from_px[0], size_px[0]);
    let same_width = source.width == resized_px[0] && from_px[0] == 0 && size_px[0] == resized_px[0];
    let channels = source.channels;
    let narrowed = if same_width {
        source.data
    } else if channels == 1 {
        along_x::<1>(&source, &columns, first_row..end_row)
    } else {
        along_x::<3>(&source, &columns, first_row..end_row)
    };
    let skipped_rows = if same_width { 0 } else { first_row };
    let data = along_y(&narrowed, &rows, skipped_rows, size_px[0] as usize * channels);
    Pixels { width: size_px[0], height: size_px[1], channels, data }
}

fn along_x<const CHANNELS: usize>(
    source: &Pixels,
    columns: &[Taps],
    rows: std::ops::Range<usize>,
) -> Vec<u8> {
    let row_bytes = source.width as usize * CHANNELS;
    let mut out = vec![0; rows.len() * columns.len() * CHANNELS];
    let lines = source.data.chunks_exact(row_bytes).skip(rows.start);
    for (line, out) in lines.zip(out.chunks_exact_mut(columns.len() * CHANNELS)) {
        for (taps, out) in columns.iter().zip(out.chunks_exact_mut(CHANNELS)) {
            let mut sums = [HALF; CHANNELS];
            let pixels = line[taps.first * CHANNELS..].chunks_exact(CHANNELS);
            for (weight, pixel) in taps.weights.iter().zip(pixels) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = rounded(sum);
            }
        }
    }
    out
}

fn along_y(lines: &[u8], rows: &[Taps], skipped_rows: usize, row_bytes: usize) -> Vec<u8> {
    let mut out = vec![0; rows.len() * row_bytes];
    let mut sums = vec![0i32; row_bytes];
    for (taps, out) in rows.iter().zip(out.chunks_exact_mut(row_bytes)) {
        sums.fill(HALF);
        let from = (taps.first - skipped_rows) * row_bytes;
        for (weight, line) in taps.weights.iter().zip(lines[from..].chunks_exact(row_bytes)) {
            for (sum, value) in sums.iter_mut().zip(line) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = rounded(*sum);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: u32, height: u32, channels: usize) -> Pixels {
        let level = |at: usize| ((at * 37 + at / 5 * 91) % 256) as u8;
        let data = (0..width as usize * height as usize * channels).map(level).collect();
        Pixels { width, height, channels, data }
    }

    /// Expected numbers are Pillow 12.3's for the same pattern.
    #[test]
    fn smaller_is_what_pillow_makes() {
        let colour = resample(pattern(7, 5, 3), [3, 4], [0, 0], [3, 4]);
        let expected = [
            89, 109, 92, 132, 101, 136, 118, 149, 147, 173, 131, 176, 157, 118, 151, 131, 124, 150, 119, 98,
            108, 116, 95, 110, 116, 123, 96, 146, 130, 152, 145, 176, 161, 117, 184, 135,
        ];
        assert_eq!(colour.data, expected);
        let grey = resample(pattern(7, 5, 1), [3, 2], [0, 0], [3, 2]);
        assert_eq!(grey.data, [94, 107, 110, 158, 161, 145]);
    }

    #[test]
    fn larger_is_what_pillow_makes() {
        let pixels = resample(pattern(5, 4, 3), [7, 6], [0, 0], [7, 6]);
        assert_eq!(pixels.data[..9], [0, 37, 74, 63, 100, 43, 96, 133, 52]);
        assert_eq!(pixels.data[119..], [16, 69, 158, 49, 38, 75, 112]);
    }

    #[test]
    fn one_side_alone_is_what_pillow_makes() {
        let pixels = resample(pattern(6, 6, 3), [6, 3], [0, 0], [6, 3]);
        assert_eq!(pixels.data[..9], [99, 136, 102, 102, 152, 119, 156, 85, 122]);
    }

    #[test]
    fn a_window_is_cut_from_the_whole() {
        let whole = resample(pattern(20, 16, 3), [15, 12], [0, 0], [15, 12]);
        let window = resample(pattern(20, 16, 3), [15, 12], [4, 3], [7, 6]);
        for row in 0..6 {
            let from = ((row + 3) * 15 + 4) * 3;
            assert_eq!(window.data[row * 21..(row + 1) * 21], whole.data[from..from + 21]);
        }
        let same_width = resample(pattern(20, 16, 3), [20, 12], [0, 3], [20, 6]);
        let whole = resample(pattern(20, 16, 3), [20, 12], [0, 0], [20, 12]);
        assert_eq!(same_width.data, whole.data[3 * 60..9 * 60]);
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let pixels = pattern(6, 6, 1);
        assert_eq!(resample(pixels.clone(), [6, 6], [0, 0], [6, 6]), pixels);
    }
}
