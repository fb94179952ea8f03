//! Batteries that drain by the work really done: energy out of times in states and the watts that a machine
//! takes in them. Arithmetic only; who measured the times is the caller's business.

/// What a battery and its machine are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatterySpec {
    /// What it holds when it is full, joules.
    pub capacity_j: f64,
    /// How full it is at first, 0 to 1.
    pub level: f64,
    /// What the machine takes.
    pub watts: Watts,
}

/// Power of a whole machine, watts, by what it does. Of two things done at once both count, each with what it
/// takes beyond an idle machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watts {
    /// Nothing.
    pub idle: f64,
    /// Computing on one core.
    pub compute: f64,
    /// Sending at the rate of its uplink.
    pub send: f64,
    /// Receiving at the rate of its downlink.
    pub receive: f64,
}

/// Time spent in each state, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// By the clock.
    pub time_us: u64,
    /// Of all cores together.
    pub compute_us: u64,
    /// In which the uplink was busy.
    pub send_us: u64,
    /// In which the downlink was busy.
    pub receive_us: u64,
}

impl Watts {
    /// What was taken, joules.
    pub fn energy_j(&self, spent: Spent) -> f64 {
        let beyond = |watts: f64, time_us: u64| (watts - self.idle).max(0.0) * time_us as f64;
        let Spent { time_us, compute_us, send_us, receive_us } = spent;
        let microjoules = self.idle * time_us as f64
            + beyond(self.compute, compute_us)
            + beyond(self.send, send_us)
            + beyond(self.receive, receive_us);
        microjoules / 1e6
    }
}

/// A battery in use.
#[derive(Debug, Clone, PartialEq)]
pub struct Battery {
    spec: BatterySpec,
    left_j: f64,
    drawn_j: f64,
    /// Over the time of the last draw.
    watts: f64,
}

impl Battery {
    /// As full as its spec says.
    pub fn new(spec: BatterySpec) -> Self {
        let left_j = spec.capacity_j * spec.level;
        Self { spec, left_j, drawn_j: 0.0, watts: spec.watts.idle }
    }

    /// Takes out what was spent; an empty one gives nothing more.
    pub fn draw(&mut self, spent: Spent) {
        let energy_j = self.spec.watts.energy_j(spent);
        if spent.time_us > 0 {
            self.watts = energy_j * 1e6 / spent.time_us as f64;
        }
        self.drawn_j += energy_j.min(self.left_j);
        self.left_j = (self.left_j - energy_j).max(0.0);
    }

    /// Sets it to a share of its capacity.
    pub fn set_level(&mut self, level: f64) {
        self.left_j = self.spec.capacity_j * level.clamp(0.0, 1.0);
    }

    /// How full it is, 0 to 1.
    pub fn level(&self) -> f64 {
        self.left_j / self.spec.capacity_j
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.left_j <= 0.0
    }

    /// What was taken out so far, joules.
    pub fn drawn_j(&self) -> f64 {
        self.drawn_j
    }

    /// What it looks like, by the names and units of Linux's class `power_supply`
    /// (`Documentation/ABI/testing/sysfs-class-power`): microwatt-hours, microwatts, percent.
    pub fn power_supply(&self) -> [(&'static str, String); 8] {
        let microwatt_hours = |joules: f64| (joules / 3600.0 * 1e6).round().to_string();
        [
            ("type", "Battery".to_owned()),
            ("scope", "System".to_owned()),
            ("present", "1".to_owned()),
            ("status", "Discharging".to_owned()),
            ("capacity", (self.level() * 100.0).round().to_string()),
            ("energy_full", microwatt_hours(self.spec.capacity_j)),
            ("energy_now", microwatt_hours(self.left_j)),
            ("power_now", (self.watts * 1e6).round().to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WATTS: Watts = Watts { idle: 0.4, compute: 3.0, send: 1.6, receive: 0.9 };
    const SECOND: u64 = 1_000_000;

    fn spent(time_us: u64, compute_us: u64, send_us: u64, receive_us: u64) -> Spent {
        Spent { time_us, compute_us, send_us, receive_us }
    }

    #[test]
    fn each_state_takes_its_watts() {
        let energy_j = |all| WATTS.energy_j(all);
        let is =
            |all, joules: f64| assert!((energy_j(all) - joules).abs() < 1e-9, "{all:?}: {}", energy_j(all));
        is(spent(10 * SECOND, 0, 0, 0), 4.0);
        is(spent(10 * SECOND, 10 * SECOND, 0, 0), 30.0);
        is(spent(10 * SECOND, 0, 10 * SECOND, 0), 16.0);
        is(spent(10 * SECOND, 0, 0, 5 * SECOND), 6.5);
        // Two cores and the radio at once.
        is(spent(SECOND, 2 * SECOND, SECOND, 0), 0.4 + 2.0 * 2.6 + 1.2);
    }

    #[test]
    fn a_battery_is_seen_as_linux_shows_it() {
        let mut battery = Battery::new(BatterySpec { capacity_j: 3_600.0, level: 0.5, watts: WATTS });
        battery.draw(spent(100 * SECOND, 0, 0, 0));
        let shown = battery.power_supply();
        let of = |name: &str| &shown.iter().find(|(found, _)| *found == name).unwrap().1;
        assert_eq!(of("energy_full"), "1000000");
        assert_eq!(of("energy_now"), "488889");
        assert_eq!((of("capacity").as_str(), of("power_now").as_str()), ("49", "400000"));
        battery.set_level(0.05);
        assert!((battery.level() - 0.05).abs() < 1e-12 && (battery.drawn_j() - 40.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn no_more_is_drawn_than_was_there(level in 0.0..1.0_f64, draws in proptest::collection::vec((0..100 * SECOND, 0..200 * SECOND, 0..100 * SECOND), 0..40)) {
            let spec = BatterySpec { capacity_j: 500.0, level, watts: WATTS };
            let mut battery = Battery::new(spec);
            for (time_us, compute_us, send_us) in draws {
                let before = battery.level();
                battery.draw(spent(time_us, compute_us, send_us, 0));
                prop_assert!(battery.level() <= before && battery.level() >= 0.0);
                prop_assert!((battery.drawn_j() + battery.level() * 500.0 - level * 500.0).abs() < 1e-6);
            }
        }
    }
}
