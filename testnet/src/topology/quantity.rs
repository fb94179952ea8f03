//! Sizes, rates, times and energies as they are written (a number, a space, a unit), and shares: each with its bounds.

use std::ops::{Bound, RangeBounds};

use toml::Spanned;

use super::Wrong;
use super::file::Written;

/// Units of a size, and their bytes.
const SIZES: [(&str, f64); 7] = [
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1024.0 * 1024.0),
    ("GiB", 1024.0 * 1024.0 * 1024.0),
    ("TiB", 1024.0 * 1024.0 * 1024.0 * 1024.0),
];
/// Units of a rate, and their bits per second.
const RATES: [(&str, f64); 6] =
    [("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9), ("kB/s", 8e3), ("MB/s", 8e6), ("GB/s", 8e9)];
/// Units of a time, and their microseconds.
const TIMES: [(&str, f64); 3] = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
/// Units of an energy, and their joules.
const ENERGIES: [(&str, f64); 3] = [("J", 1.0), ("kJ", 1e3), ("Wh", 3.6e3)];

/// What can be asked for: of what kind, between which bounds. Bounds are written as files write them.
#[derive(Clone, Copy)]
pub(super) struct Quantity {
    what: &'static str,
    units: &'static [(&'static str, f64)],
    least: &'static str,
    most: &'static str,
    /// Why nothing less will do; empty where that needs no words.
    why: &'static str,
    example: &'static str,
}

/// Of a link, an uplink or a downlink.
pub(super) const RATE: Quantity = Quantity {
    what: "a rate",
    units: &RATES,
    least: "0.001 kbit/s",
    most: "1000 Gbit/s",
    why: "",
    example: "20 Mbit/s",
};
/// A latency, or how far it strays.
pub(super) const TIME: Quantity =
    Quantity { what: "a time", units: &TIMES, least: "0 us", most: "60 s", why: "", example: "5 ms" };
/// What waits for a link's rate.
pub(super) const QUEUE: Quantity =
    Quantity { what: "a size", units: &SIZES, least: "0.001 kB", most: "1 GiB", why: "", example: "64 KiB" };
/// What a node is told that partitions may take.
pub(super) const BUDGET: Quantity = Quantity { most: "1 TiB", example: "64 MiB", ..QUEUE };
/// What the kernel lets a node have.
pub(super) const MEMORY: Quantity = Quantity {
    least: "32 MiB",
    why: ", with less of which a node does not start,",
    example: "256 MiB",
    ..BUDGET
};
/// A node with less of one cannot keep its key and its list of objects.
pub(super) const DISK: Quantity = Quantity { least: "1 MiB", ..MEMORY };
/// What a battery holds.
pub(super) const ENERGY: Quantity = Quantity {
    what: "an energy",
    units: &ENERGIES,
    least: "1 J",
    most: "1000000 kJ",
    why: "",
    example: "20 kJ",
};

impl Quantity {
    /// Bytes, bits per second, microseconds or joules of a text.
    pub(super) fn read(self, key: &str, text: &Spanned<Written>) -> Result<u64, Wrong> {
        let Self { what, units, least, most, why, example } = self;
        let written = text.get_ref().0.as_str();
        let bound = |bound: &str, without: f64| in_units(bound, units).unwrap_or(without);
        let bounds = bound(least, 0.0)..=bound(most, 0.0);
        match in_units(written, units).filter(|number| bounds.contains(number)) {
            Some(number) => Ok(number.round() as u64),
            None => {
                let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
                let message = format!(
                    "{key} `{written}`: {what} from {least}{why} to {most}, like \"{example}\" ({})",
                    names.join(", ")
                );
                Err(Wrong::at(&text.span(), &message))
            }
        }
    }

    /// The same of a text that may be missing.
    pub(super) fn read_if_any(
        self,
        key: &str,
        text: Option<&Spanned<Written>>,
    ) -> Result<Option<u64>, Wrong> {
        text.map(|text| self.read(key, text)).transpose()
    }
}

/// A number of this kind within bounds, which not-a-number is not; `what` says them, with an example.
pub(super) fn number(
    key: &str,
    what: &str,
    bounds: (Bound<f64>, Bound<f64>),
    given: &Spanned<f64>,
) -> Result<f64, Wrong> {
    let number = *given.get_ref();
    if bounds.contains(&number) {
        Ok(number)
    } else {
        Err(Wrong::at(&given.span(), &format!("{key} {number}: {what}")))
    }
}

fn in_units(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let (_, worth) = units.iter().find(|(name, _)| *name == unit.trim())?;
    // Digits and a point only: a double could also be read from `inf`, `1e9` and `-1`.
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    Some(number.parse::<f64>().ok().filter(|_| plain)? * worth)
}

#[cfg(test)]
mod tests {
    use super::super::{DISK_BYTES_MIN, MEMORY_BYTES_MIN};
    use super::*;
    use crate::link::{LATENCY_US_MAX, QUEUE_BYTES_MAX, RATE_BITS_PER_S_MAX};

    #[test]
    fn quantities_have_a_unit() {
        let sizes = ["1 B", "1", "-1 MiB", "inf GB", "1e3 kB", "", "MiB", ". MB"];
        assert!(sizes.iter().all(|size| in_units(size, &SIZES).is_none()));
        assert_eq!(in_units(" 3 KiB ", &SIZES), Some(3072.0));
        assert_eq!(in_units("1.5 GiB", &SIZES), Some(f64::from(3 << 29)));
        assert_eq!(in_units("5 MB/s", &RATES), Some(40_000_000.0));
        assert_eq!(in_units("0.5 ms", &TIMES), Some(500.0));
    }

    #[test]
    fn bounds_are_written_as_they_are() {
        let bytes = 1.0..=(1_u64 << 40) as f64;
        for (quantity, least, most) in [
            (RATE, 1.0, RATE_BITS_PER_S_MAX as f64),
            (TIME, 0.0, LATENCY_US_MAX as f64),
            (QUEUE, 1.0, QUEUE_BYTES_MAX as f64),
            (BUDGET, *bytes.start(), *bytes.end()),
            (MEMORY, MEMORY_BYTES_MIN as f64, *bytes.end()),
            (DISK, DISK_BYTES_MIN as f64, *bytes.end()),
            (ENERGY, 1.0, 1e9),
        ] {
            let read = |text: &str| {
                let spanned = Spanned::new(0..0, Written(text.to_owned()));
                quantity.read("any", &spanned).map(|read| read as f64).map_err(|wrong| wrong.message)
            };
            assert_eq!((read(quantity.least), read(quantity.most)), (Ok(least), Ok(most)));
            let example = read(quantity.example).unwrap();
            assert!((least..=most).contains(&example));
            for beyond in ["99999999999999 GiB", "99999 Gbit/s", "0.0000001 kB", "61 s", "99999999 Wh"] {
                let said = read(beyond).unwrap_err();
                assert!(said.contains(&format!("to {}, like", quantity.most)), "{said}");
            }
        }
    }
}
