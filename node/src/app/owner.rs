//! What the owner of a node lets others have of it, as it was said at start: roles, hours, what is kept free. No
//! clock is read here.

use std::fmt;
use std::str::FromStr;

use stormo_protocol::state::Offer;

const MINUTES_OF_DAY: u16 = 24 * 60;

/// What a node does for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// It runs parts of models.
    pub compute: bool,
    /// It gives objects.
    pub store: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { compute: true, store: true }
    }
}

impl FromStr for Roles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut roles = Self { compute: false, store: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "compute" => roles.compute = true,
                "store" => roles.store = true,
                "none" if text.trim() == "none" => {}
                _ => {
                    return Err(format!(
                        "`{word}` is no role: use compute, store, both with a comma, or none"
                    ));
                }
            }
        }
        Ok(roles)
    }
}

/// Times of day, from a minute up to and without another; a span may go over midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours(Vec<(u16, u16)>);

impl Hours {
    /// Whether a minute of the day, counted from midnight, is among them.
    pub fn contains(&self, minute: u16) -> bool {
        self.0.iter().any(|(from, to)| {
            if from < to { (*from..*to).contains(&minute) } else { minute >= *from || minute < *to }
        })
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spans = text.split(',').map(|span| {
            let wrong = || format!("`{}` are no hours: use times of day such as 22:00-07:00", span.trim());
            let (from, to) = span.trim().split_once('-').ok_or_else(wrong)?;
            let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
            if from % MINUTES_OF_DAY == to % MINUTES_OF_DAY {
                return Err(format!("`{}` begins when it ends; leave --hours out for always", span.trim()));
            }
            Ok((from % MINUTES_OF_DAY, to))
        });
        Ok(Self(spans.collect::<Result<_, _>>()?))
    }
}

/// The minute of a time of day, 24:00 included.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |digits: &str| {
        let is_one = (1..=2).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| is_one)
    };
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|_| minutes.len() == 2)?);
    (minutes < 60 && hours * 60 + minutes <= MINUTES_OF_DAY).then_some(hours * 60 + minutes)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (from, to)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)?;
        }
        Ok(())
    }
}

/// All that the owner said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnerLimits {
    /// What it does for others.
    pub roles: Roles,
    /// When; always if absent.
    pub hours: Option<Hours>,
    /// Memory that stays available to other programs, bytes.
    pub keep_free_memory_bytes: u64,
    /// Share of the cores that stays free for other programs.
    pub keep_free_cpu: f64,
}

impl OwnerLimits {
    /// What others may have at a minute of the day.
    pub fn offer(&self, minute: u16) -> Offer {
        Offer {
            computes: self.roles.compute,
            stores: self.roles.store,
            open: self.hours.as_ref().is_none_or(|hours| hours.contains(minute)),
        }
    }

    /// Cores that parts of models may keep busy, of so many; 0 if none is left.
    pub fn cores_of(&self, cores: usize) -> usize {
        // Half of two is one, whatever a float makes of it.
        (cores as f64 * (1.0 - self.keep_free_cpu) + 1e-9).floor() as usize
    }

    /// Memory that partitions may take in all: what is taken, and what is available beyond what stays free.
    pub fn memory_budget_bytes(&self, budget_bytes: u64, used_bytes: u64, available_bytes: u64) -> u64 {
        if self.keep_free_memory_bytes == 0 {
            return budget_bytes;
        }
        let room = available_bytes.saturating_sub(self.keep_free_memory_bytes);
        budget_bytes.min(used_bytes.saturating_add(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_go_over_midnight() {
        let night: Hours = "22:00-07:00".parse().unwrap();
        assert!([22 * 60, 23 * 60 + 59, 0, 6 * 60 + 59].iter().all(|minute| night.contains(*minute)));
        assert!([7 * 60, 12 * 60, 21 * 60 + 59].iter().all(|minute| !night.contains(*minute)));
        let two: Hours = "8:30-9:00, 20:00-24:00".parse().unwrap();
        assert!(two.contains(8 * 60 + 30) && two.contains(23 * 60 + 59));
        assert!(!two.contains(9 * 60) && !two.contains(0));
        assert_eq!(two.to_string(), "08:30-09:00,20:00-24:00");
    }

    #[test]
    fn what_is_no_time_is_refused_in_words() {
        for wrong in [
            "",
            "22:00",
            "22-7",
            "25:00-07:00",
            "22:60-07:00",
            "24:01-1:00",
            "+1:00-2:00",
            "a:b-c:d",
            "1:0-2:00",
        ] {
            let error = wrong.parse::<Hours>().unwrap_err();
            assert!(error.contains("such as 22:00-07:00"), "{wrong}: {error}");
        }
        assert!("07:00-07:00".parse::<Hours>().unwrap_err().contains("begins when it ends"));
        assert!("00:00-24:00".parse::<Hours>().unwrap_err().contains("begins when it ends"));
    }

    #[test]
    fn roles() {
        let read = |text: &str| text.parse::<Roles>();
        assert_eq!(read("compute,store"), Ok(Roles::default()));
        assert_eq!(read("store"), Ok(Roles { compute: false, store: true }));
        assert_eq!(read("none"), Ok(Roles { compute: false, store: false }));
        for wrong in ["", "computer", "compute,none", "compute;store"] {
            assert!(read(wrong).unwrap_err().contains("is no role"), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_free() {
        let limits =
            OwnerLimits { keep_free_memory_bytes: 100, keep_free_cpu: 0.5, ..OwnerLimits::default() };
        assert_eq!([1, 2, 3, 8].map(|cores| limits.cores_of(cores)), [0, 1, 1, 4]);
        assert_eq!(limits.memory_budget_bytes(1000, 50, 400), 350);
        assert_eq!(limits.memory_budget_bytes(200, 50, 400), 200);
        assert_eq!(limits.memory_budget_bytes(1000, 50, 80), 50);
        assert_eq!(OwnerLimits::default().memory_budget_bytes(1000, 50, 0), 1000);
        assert_eq!(OwnerLimits::default().cores_of(3), 3);
    }
}
