//! Sizes, rates and times as they are written: a number, a space, a unit.

use toml::Spanned;

use super::Wrong;

/// Units of a size, and their bytes.
const SIZES: [(&str, f64); 6] = [
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("GiB", 1024.0 * 1024.0 * 1024.0),
];
/// Units of a rate, and their bits per second.
const RATES: [(&str, f64); 6] =
    [("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9), ("kB/s", 8e3), ("MB/s", 8e6), ("GB/s", 8e9)];
/// Units of a time, and their microseconds.
const TIMES: [(&str, f64); 3] = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
/// Units of an energy, and their joules.
const ENERGIES: [(&str, f64); 3] = [("J", 1.0), ("kJ", 1e3), ("Wh", 3.6e3)];
/// Above this, not every whole number is a double.
const WHOLE_MAX: f64 = (1_u64 << 53) as f64;

/// A kind of quantity, for messages.
#[derive(Clone, Copy)]
pub(super) enum Quantity {
    Size,
    Rate,
    Time,
    Energy,
}

impl Quantity {
    /// Bytes, bits per second, microseconds or joules of a text.
    pub(super) fn read(self, key: &str, text: &Spanned<String>) -> Result<u64, Wrong> {
        let (units, example, least) = match self {
            Self::Size => (&SIZES[..], "a size like \"64 MiB\"", 1),
            Self::Rate => (&RATES[..], "a rate like \"20 Mbit/s\"", 1),
            Self::Time => (&TIMES[..], "a time like \"5 ms\"", 0),
            Self::Energy => (&ENERGIES[..], "an energy like \"20 kJ\"", 1),
        };
        in_units(text.get_ref(), units).filter(|number| *number >= least).ok_or_else(|| {
            let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
            let message = format!("{key} `{}`: {example} ({})", text.get_ref(), names.join(", "));
            Wrong::at(&text.span(), &message)
        })
    }

    /// The same of a text that may be missing.
    pub(super) fn read_if_any(self, key: &str, text: Option<&Spanned<String>>) -> Result<Option<u64>, Wrong> {
        text.map(|text| self.read(key, text)).transpose()
    }
}

fn in_units(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let (_, worth) = units.iter().find(|(name, _)| *name == unit.trim())?;
    // Digits and a point only: a double could also be read from `inf`, `1e9` and `-1`.
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = number.parse::<f64>().ok().filter(|_| plain)? * worth;
    (number <= WHOLE_MAX).then_some(number.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_a_unit() {
        let sizes = ["1 B", "1", "-1 MiB", "inf GB", "1e3 kB", "99999999999999 GiB", "", "MiB", ". MB"];
        assert!(sizes.iter().all(|size| in_units(size, &SIZES).is_none()));
        assert_eq!(in_units(" 3 KiB ", &SIZES), Some(3072));
        assert_eq!(in_units("1.5 GiB", &SIZES), Some(3 << 29));
        assert_eq!(in_units("5 MB/s", &RATES), Some(40_000_000));
        assert_eq!(in_units("0.5 ms", &TIMES), Some(500));
    }
}
