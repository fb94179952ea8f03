//! What a machine draws, as its owner says: plans count with it what a request costs the node where it entered.

use std::str::FromStr;

use crate::plan::Watts;

/// More than a rack of servers draws, W.
const WATTS_MAX: f64 = 1e5;
/// More than any radio takes for one request, J.
const TAIL_J_MAX: f64 = 1e3;

/// Power of the whole machine, and what its radio takes once for each request that moves anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    /// While it idles, computes on one core, sends, receives.
    pub watts: Watts,
    /// The radio's tail, mJ.
    pub tail_mj: f64,
}

impl Power {
    /// Of a process that has this share of a core at most: while it computes by the clock, the core does so for that
    /// share of the time.
    pub fn within(self, core_share: f64) -> Self {
        let Watts { idle, compute, .. } = self.watts;
        Self { watts: Watts { compute: idle + (compute - idle) * core_share, ..self.watts }, ..self }
    }
}

impl FromStr for Power {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut idle, mut compute, mut send, mut receive, mut tail_j) = (None, None, None, None, None);
        for part in text.split(',').map(str::trim) {
            let wrong = || format!("`{part}`: use KEY=NUMBER, such as compute=3.0");
            let (key, number) = part.split_once('=').ok_or_else(wrong)?;
            let (place, most, unit) = match key.trim() {
                "idle" => (&mut idle, WATTS_MAX, "W"),
                "compute" => (&mut compute, WATTS_MAX, "W"),
                "send" => (&mut send, WATTS_MAX, "W"),
                "receive" => (&mut receive, WATTS_MAX, "W"),
                "tail" => (&mut tail_j, TAIL_J_MAX, "J"),
                other => {
                    return Err(format!("there is no `{other}`: use idle, compute, send, receive and tail"));
                }
            };
            let number: f64 = number.trim().parse().map_err(|_| wrong())?;
            if !(0.0..=most).contains(&number) {
                return Err(format!("`{part}`: from 0 to {most} {unit}"));
            }
            if place.replace(number).is_some() {
                return Err(format!("`{}` is there twice", key.trim()));
            }
        }
        let (Some(idle), Some(compute)) = (idle, compute) else {
            return Err("say idle and compute at least, such as idle=0.4,compute=3.0".to_owned());
        };
        let (send, receive) = (send.unwrap_or(idle), receive.unwrap_or(idle));
        if [compute, send, receive].iter().any(|busy| *busy < idle) {
            return Err("these are of the whole machine, so none is less than idle".to_owned());
        }
        let watts = Watts { idle, compute, send, receive };
        Ok(Self { watts, tail_mj: tail_j.unwrap_or(0.0) * 1000.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_as_when_idle() {
        let power: Power = "idle=0.5, compute=3, tail=0.02".parse().unwrap();
        let watts = Watts { idle: 0.5, compute: 3.0, send: 0.5, receive: 0.5 };
        assert_eq!(power, Power { watts, tail_mj: 20.0 });
        assert_eq!(power.within(0.2).watts.compute, 1.0);
    }

    #[test]
    fn what_is_no_power_is_told() {
        let wrong = |text: &str| text.parse::<Power>().unwrap_err();
        assert!(wrong("idle=1").contains("compute"));
        assert!(wrong("idle=1,compute=2,volts=3").contains("`volts`"));
        assert!(wrong("idle=1,idle=2,compute=3").contains("twice"));
        assert!(wrong("idle=2,compute=1").contains("less than idle"));
        assert!(
            ["", "idle", "idle=x,compute=1", "idle=-1,compute=1", "idle=NaN,compute=1"]
                .iter()
                .all(|text| text.parse::<Power>().is_err())
        );
    }
}
