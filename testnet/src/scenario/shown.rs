//! What a scenario demands of faults that its own cannot show: nobody needs to play it to know that the demand
//! will not hold.

use super::{FaultKind, Scenario, Scheduled};
use crate::judge::{AFTERMATH_US, covered_us};

/// What nobody could excuse must be looked at for so long.
const UNEXCUSED_US_MIN: u64 = 3_000_000;

/// A demand that the faults cannot show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unshown {
    /// Its name in files.
    pub field: &'static str,
    /// Why not.
    pub why: String,
}

impl Scenario {
    /// Demands that cannot hold with the faults that there are.
    pub fn unshown(&self) -> Vec<Unshown> {
        let expect = &self.expect;
        let mut unshown = Vec::new();
        let mut needs = |field, is_demanded: bool, is_shown: bool, why: String| {
            if is_demanded && !is_shown {
                unshown.push(Unshown { field, why });
            }
        };
        // A battery that runs empty is a fault that no file schedules.
        let is_open = self.topology.nodes.iter().any(|node| node.battery.is_some());
        let has_any = is_open || !self.faults.is_empty();
        let none = || "there is no fault".to_owned();
        needs("added_p99_ms_max", expect.added_p99_ms_max.is_some(), has_any, none());
        needs("affected_min", expect.affected_min.is_some_and(|least| least > 0), has_any, none());
        needs("restored_within_s", expect.restored_within_ms.is_some(), has_any, none());
        let mut lasts = |field, within_ms: Option<f64>, longest_us: Option<u64>, what: &str| {
            let within_us = within_ms.unwrap_or(0.0) * 1000.0;
            let is_shown = is_open || longest_us.is_some_and(|longest_us| longest_us as f64 >= within_us);
            needs(field, within_ms.is_some(), is_shown, format!("no {what} lasts for {} s", within_us / 1e6));
        };
        let end_us = |fault: &Scheduled| fault.for_us.map_or(self.duration_us, |for_us| fault.at_us + for_us);
        let losses = || {
            let is_loss =
                |fault: &&Scheduled| fault.kind.is_loss() && !matches!(fault.kind, FaultKind::Restart(_));
            self.faults.iter().filter(is_loss)
        };
        let cuts = || self.faults.iter().filter(|fault| self.cuts_off_an_entry(&fault.kind));
        let lost = losses().chain(cuts()).map(|fault| end_us(fault) - fault.at_us);
        // Whoever ends of too little memory stays down.
        let squeezed = self.faults.iter().filter(|fault| matches!(fault.kind, FaultKind::Memory(..)));
        let lost = lost.chain(squeezed.map(|fault| self.duration_us - fault.at_us));
        let what = "kill, freeze, power loss, lack of memory or cut from where requests enter";
        lasts("left_out_within_s", expect.left_out_within_ms, lost.max(), what);
        let restarts = self.faults.iter().filter(|fault| matches!(fault.kind, FaultKind::Restart(_)));
        let returns = losses().chain(cuts()).filter_map(|fault| Some(fault.at_us + fault.for_us?));
        let back = restarts.map(|fault| fault.at_us).chain(returns).map(|at_us| self.duration_us - at_us);
        lasts("back_within_s", expect.back_within_ms, back.max(), "time after a node's return");
        let slow = self.faults.iter().filter(|fault| !fault.kind.is_loss() && !fault.kind.is_split());
        let slow = slow.map(|fault| end_us(fault) - fault.at_us);
        lasts(
            "avoided_within_s",
            expect.avoided_within_ms,
            slow.max(),
            "fault of a processor, a link or a disk",
        );
        // While something is cut, and a moment longer, anybody may take anybody for lost.
        let splits = self.faults.iter().filter(|fault| fault.kind.is_split());
        let excused = splits.map(|fault| [fault.at_us, end_us(fault).saturating_add(AFTERMATH_US)]);
        let open_us = self.duration_us - covered_us(excused, [0, self.duration_us]);
        let has_time = open_us >= UNEXCUSED_US_MIN;
        let why = || {
            let (least_s, after_s) = (UNEXCUSED_US_MIN / 1_000_000, AFTERMATH_US / 1_000_000);
            format!(
                "cuts and partitions, and {after_s} s after each, excuse all but {} s; {least_s} s are wanted",
                open_us as f64 / 1e6
            )
        };
        needs("false_losses_max", expect.false_losses_max.is_some(), has_time, why());
        needs("healthy_left_out_s_max", expect.healthy_left_out_ms_max.is_some(), has_time, why());
        self.late_progress().into_iter().for_each(|late| unshown.push(late));
        unshown
    }

    /// Whether a fault cuts the link of a node where requests enter, in a direction or both.
    fn cuts_off_an_entry(&self, kind: &FaultKind) -> bool {
        let FaultKind::Cut { from, to, .. } = kind else { return false };
        let entries = self.loads.iter().flat_map(|load| &load.at);
        let mut labels = entries.filter_map(|place| self.topology.nodes.get(*place)).map(|node| &node.label);
        labels.any(|label| label == from || label == to)
    }

    /// Progress of which no request could tell, since the load is over.
    fn late_progress(&self) -> Option<Unshown> {
        let within_us = (self.expect.progress_within_ms? * 1000.0) as u64;
        let changes = self.faults.iter().map(|fault| fault.at_us + fault.for_us.unwrap_or(0));
        let changed_us = changes.max().unwrap_or(0);
        let loaded_us = self.loads.iter().map(|load| load.until_us).max().unwrap_or(0);
        let seconds = |us: u64| us as f64 / 1e6;
        let why = format!(
            "the last fault ends at {} s, and the load at {} s: no request would be sent {} s after the fault; make the load \
             longer, or give `progress_within_s` (5 unless given) less",
            seconds(changed_us),
            seconds(loaded_us),
            seconds(within_us)
        );
        let is_late = changed_us.saturating_add(within_us) >= loaded_us;
        is_late.then_some(Unshown { field: "progress_within_s", why })
    }
}
