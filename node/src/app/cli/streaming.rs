//! The command line of `stormo stream`.

use clap::Args;

use super::values::{parse_rate, parse_size};
use super::{ApiArgs, AskArgs};

/// `stormo stream`.
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub struct StreamArgs {
    /// The model.
    pub name: String,
    /// A folder of images (or .npy and .npz files), taken by name; one such file; or `-`: JPEG or PNG images one after
    /// the other on standard input, such as `ffmpeg -i CAMERA -f image2pipe -c:v mjpeg -` writes.
    pub source: String,
    /// Frames a second that the source gives [default: as fast as they are answered, or come]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub fps: Option<f64>,
    /// Frames that are asked about at once.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub window: u16,
    /// Answer every frame, in order; the source waits while all are busy. This is the default.
    #[arg(long)]
    pub in_order: bool,
    /// While all are busy only the newest frame waits, older ones are dropped, and so are answers that come too late: for
    /// cameras, where only now counts.
    #[arg(long, conflicts_with = "in_order")]
    pub newest: bool,
    /// How often the folder or file is gone through; 0: until it is interrupted.
    #[arg(long, value_name = "COUNT", default_value_t = 1, conflicts_with = "watch")]
    pub times: u64,
    /// Watch the folder: files that come into it are frames too, until it is interrupted.
    #[arg(long)]
    pub watch: bool,
    /// Standard input gives frames of so many pixels, each of 3 bytes (RGB), as `ffmpeg -f rawvideo -pix_fmt rgb24 -` writes.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
    pub raw: Option<[u32; 2]>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ask: AskArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub api: ApiArgs,
}
