//! Values on the command line that are more than a word or a number, and what to say where they are wrong.

use std::time::Duration;

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::model::is_valid_name;

use super::VariantArg;

/// Bytes: a number, with KiB, MiB, GiB, kB, MB or GB if wanted.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("use a number of bytes, or one with KiB, MiB, GiB, kB, MB or GB".into()),
    };
    let number: u64 = number.parse().map_err(|_| "use a number of bytes, such as 512MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is more than any machine has".to_owned())
}

/// A time with its unit, in milliseconds.
pub(super) fn parse_time_ms(text: &str) -> Result<f64, String> {
    let wrong = || "use a time above 0 with its unit, such as 200ms or 30s".to_owned();
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if number.is_finite() && number > 0.0 { Ok(number * factor) } else { Err(wrong()) }
}

/// An energy with its unit, in joules.
pub(super) fn parse_energy_j(text: &str) -> Result<f64, String> {
    let wrong = || "use an energy above 0 with its unit, such as 0.5J or 200mJ".to_owned();
    let (number, factor) = match text.strip_suffix("mJ") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('J').ok_or_else(wrong)?, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if number.is_finite() && number > 0.0 { Ok(number * factor) } else { Err(wrong()) }
}

/// Frames a second.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|number| (0.001..=10_000.0).contains(number));
    number.ok_or_else(|| "use a number of frames a second from 0.001 to 10000, such as 25".to_owned())
}

/// Raw frames are packed without loss for the node, which takes 32 MiB.
const RAW_PIXELS_MAX: u64 = 8_000_000;

/// Width and height of an image, pixels.
pub(super) fn parse_size(text: &str) -> Result<[u32; 2], String> {
    let sides =
        text.split_once('x').and_then(|(width, height)| Some([width.parse().ok()?, height.parse().ok()?]));
    let sides = sides.filter(|sides: &[u32; 2]| {
        let pixels = u64::from(sides[0]) * u64::from(sides[1]);
        (1..=RAW_PIXELS_MAX).contains(&pixels)
    });
    sides.ok_or_else(|| {
        "use the width and height in pixels, 8 million in all at most, such as 640x480".to_owned()
    })
}

pub(super) fn parse_accuracy(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|number| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| "use a number above 0 and at most 1, such as 0.95".to_owned())
}

/// The longest that a request may wait for others, milliseconds.
const BATCH_WITHIN_MS_MAX: f64 = 1000.0;

pub(super) fn parse_batch_within(text: &str) -> Result<Duration, String> {
    let ms = text.parse::<f64>().ok().filter(|ms| (0.0..=BATCH_WITHIN_MS_MAX).contains(ms));
    let ms = ms.ok_or_else(|| {
        format!("`{text}` is no time from 0 to {BATCH_WITHIN_MS_MAX} milliseconds, such as 2")
    })?;
    Ok(Duration::from_secs_f64(ms / 1000.0))
}

pub(super) fn parse_share_below_1(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|number| (0.0..1.0).contains(number));
    number.ok_or_else(|| "use a share from 0 to below 1, such as 0.5".to_owned())
}

pub(super) fn parse_variant(text: &str) -> Result<VariantArg, String> {
    let wrong = || format!("`{text}` is no variant; an example: small=small.onnx:0.57");
    let (label, rest) = text.split_once('=').ok_or_else(wrong)?;
    if !is_valid_name(label) {
        return Err(format!(
            "`{label}` is no label for a variant: use 1 to 64 letters, digits, dots, dashes or underscores"
        ));
    }
    // A file's name may hold a colon; what is a number is meant as one.
    let (file, accuracy) = match rest.rsplit_once(':') {
        Some((file, share)) if share.parse::<f64>().is_ok() => (file, Some(parse_accuracy(share)?)),
        _ => (rest, None),
    };
    if file.is_empty() {
        return Err(wrong());
    }
    Ok(VariantArg { label: label.to_owned(), file: file.into(), accuracy })
}

pub(super) fn parse_codec(text: &str) -> Result<Codec, String> {
    Codec::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Codec::ALL.into_iter().map(Codec::name).collect();
        format!("the codecs are: {}", names.join(", "))
    })
}

pub(super) fn parse_shape(text: &str) -> Result<(String, Vec<u64>), String> {
    let wrong = || format!("`{text}` is no shape; an example: image=1x3x224x224");
    // Names of inputs may hold an equals sign; shapes do not.
    let (name, dims) = text.rsplit_once('=').ok_or_else(wrong)?;
    let dims: Result<Vec<u64>, _> = dims.split('x').map(str::parse).collect();
    let dims = dims.map_err(|_| wrong())?;
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), dims)) }
}

/// Where the gRPC API listens, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcArg {
    /// Nowhere.
    Off,
    /// There.
    At(std::net::SocketAddr),
}

impl GrpcArg {
    /// The address.
    pub fn address(self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl std::str::FromStr for GrpcArg {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::At) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_units() {
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert!(parse_bytes("12 parsec").is_err());
        assert!(parse_bytes("99999999999GiB").is_err());
        assert_eq!(parse_time_ms("200ms"), Ok(200.0));
        assert_eq!(parse_time_ms("1.5s"), Ok(1500.0));
        assert!(parse_time_ms("10").is_err());
        assert!(parse_time_ms("-1s").is_err());
        assert_eq!(parse_energy_j("2J"), Ok(2.0));
        assert_eq!(parse_energy_j("250 mJ"), Ok(0.25));
        assert!(["2", "0J", "J", "NaNJ", "infJ"].iter().all(|text| parse_energy_j(text).is_err()));
        assert_eq!(parse_shape("a=b=1x3"), Ok(("a=b".into(), vec![1, 3])));
        assert!(parse_shape("image").is_err());
        assert_eq!(parse_accuracy("0.95"), Ok(0.95));
        assert!(["0", "1.1", "NaN", "high"].iter().all(|text| parse_accuracy(text).is_err()));
        assert_eq!(parse_share_below_1("0.25"), Ok(0.25));
        assert!(["1", "-0.1", "NaN", "half"].iter().all(|text| parse_share_below_1(text).is_err()));
        let variant =
            |file: &str, accuracy| Ok(VariantArg { label: "n".to_owned(), file: file.into(), accuracy });
        assert_eq!(parse_variant("n=a.onnx:0.5"), variant("a.onnx", Some(0.5)));
        assert_eq!(parse_variant("n=c:a=b.onnx"), variant("c:a=b.onnx", None));
        assert!(
            ["n", "n=", "=a.onnx", "../n=a.onnx", "n=a.onnx:1.5"]
                .iter()
                .all(|text| parse_variant(text).is_err())
        );
        assert_eq!(parse_codec("int8+lz4"), Ok(Codec::Int8Lz4));
        assert!(parse_codec("jpeg").is_err());
    }
}
