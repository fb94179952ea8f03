//! Who asks.

use stormo_protocol::frame::Redundancy;
use toml::Spanned;

use super::super::entries::LoadEntry;
use super::super::{Deploy, LoadSpec, Pace, Rate};
use super::{Around, Wrong, micros, within, within_if};

/// Callers of a closed loop: below what a node takes as connections.
const CLIENTS_MAX: u16 = 256;
/// Requests a second: above what two cores can send and answer.
const RATE_MAX: f64 = 20_000.0;
/// A shorter load sends nothing, or shows nothing.
const SENDING_S_MIN: f64 = 0.1;
/// Distinct inputs, each with a reference of its own.
const INPUTS_MAX: u16 = 256;
/// Deadlines: the longest that a node takes without being asked is 30 s.
const TIMEOUT_MS_MAX: u32 = 120_000;
/// Unless the scenario says otherwise: far above any answer's time here, so that a loss does not pass for one.
const TIMEOUT_MS: u32 = 10_000;
const INPUTS: u16 = 10;

pub(super) fn read(
    around: &Around,
    deploys: &[Deploy],
    entries: Vec<Spanned<LoadEntry>>,
) -> Result<Vec<LoadSpec>, Wrong> {
    entries.iter().map(|entry| one(around, deploys, entry)).collect()
}

fn one(around: &Around, deploys: &[Deploy], entry: &Spanned<LoadEntry>) -> Result<LoadSpec, Wrong> {
    let span = entry.span();
    let entry = entry.get_ref();
    let deploy = entry.deploy.get_ref();
    let deployed = deploys.iter().find(|other| other.name == *deploy).ok_or_else(|| {
        Wrong::at(&entry.deploy.span(), format!("`deploy`: nothing is deployed as `{deploy}`"))
    })?;
    let at =
        entry.at.get_ref().iter().map(|label| around.node("at", label)).collect::<Result<Vec<_>, _>>()?;
    if at.is_empty() {
        return Err(Wrong::at(&entry.at.span(), "`at` names no node where requests enter"));
    }
    if let Some(variant) = &entry.variant {
        let named = variant.get_ref();
        let is_known = named == "base" || deployed.variants.iter().any(|(label, ..)| label == named);
        if !is_known {
            let message = format!("`variant`: `{deploy}` has no variant `{named}`");
            return Err(Wrong::at(&variant.span(), message));
        }
    }
    let total_s = around.duration_us as f64 / 1e6;
    let from_s = within_if("from_s", entry.from_s.as_ref(), 0.0, total_s - SENDING_S_MIN)?.unwrap_or(0.0);
    let for_s = within_if("for_s", entry.for_s.as_ref(), SENDING_S_MIN, total_s)?;
    let until_us = for_s.map_or(around.duration_us, |for_s| micros(from_s) + micros(for_s));
    if let Some(for_s) = entry.for_s.as_ref().filter(|_| until_us > around.duration_us) {
        let message = format!(
            "`for_s` is {}; from {from_s} s on it ends behind the scenario's {total_s} s",
            for_s.get_ref()
        );
        return Err(Wrong::at(&for_s.span(), message));
    }
    let pace = pace(entry, &span)?;
    if let (Some(rate), Pace::Open { rate: Rate::PerSecond(per_s), .. }) = (&entry.rate_per_s, pace) {
        let sending_s = until_us.saturating_sub(micros(from_s)) as f64 / 1e6;
        if per_s * sending_s < 1.0 {
            let message = format!("`rate_per_s` is {per_s}; in {sending_s} s that sends nothing");
            return Err(Wrong::at(&rate.span(), message));
        }
    }
    let bounded = |field: &str, value: Option<&Spanned<u32>>, default: u32, max: u32| match value {
        Some(value) if !(1..=max).contains(value.get_ref()) => {
            let message = format!("`{field}` is {}; it must be from 1 to {max}", value.get_ref());
            Err(Wrong::at(&value.span(), message))
        }
        value => Ok(value.map_or(default, |value| *value.get_ref())),
    };
    let inputs = entry.inputs.as_ref().map(|value| *value.get_ref()).unwrap_or(INPUTS);
    if !(1..=INPUTS_MAX).contains(&inputs) {
        let at = entry.inputs.as_ref().map_or(span.clone(), Spanned::span);
        return Err(Wrong::at(&at, format!("`inputs` is {inputs}; it must be from 1 to {INPUTS_MAX}")));
    }
    Ok(LoadSpec {
        deploy: deploy.clone(),
        at,
        pace,
        from_us: micros(from_s),
        until_us,
        inputs,
        timeout_ms: bounded("timeout_ms", entry.timeout_ms.as_ref(), TIMEOUT_MS, TIMEOUT_MS_MAX)?,
        max_latency_ms: within_if("max_latency_ms", entry.max_latency_ms.as_ref(), 0.001, 1e6)?,
        min_accuracy: within_if("min_accuracy", entry.min_accuracy.as_ref(), 1e-6, 1.0)?,
        variant: entry.variant.as_ref().map(|variant| variant.get_ref().clone()),
        redundancy: entry.redundancy.as_ref().map(redundancy).transpose()?,
    })
}

fn redundancy(given: &Spanned<String>) -> Result<Redundancy, Wrong> {
    let text = given.get_ref();
    Redundancy::named(text).ok_or_else(|| {
        let known = Redundancy::ALL.map(Redundancy::name).join(", ");
        Wrong::at(&given.span(), format!("`redundancy`: `{text}` is none of {known}"))
    })
}

fn pace(entry: &LoadEntry, span: &std::ops::Range<usize>) -> Result<Pace, Wrong> {
    let is_poisson = match entry.arrivals.as_ref().map(|arrivals| (arrivals.get_ref().as_str(), arrivals)) {
        None | Some(("poisson", _)) => true,
        Some(("even", _)) => false,
        Some((other, arrivals)) => {
            let message = format!("`arrivals`: `{other}` is neither `poisson` nor `even`");
            return Err(Wrong::at(&arrivals.span(), message));
        }
    };
    match (&entry.clients, &entry.rate_per_s, &entry.capacity_share) {
        (Some(clients), None, None) => {
            let given = *clients.get_ref();
            if !(1..=CLIENTS_MAX).contains(&given) {
                let message = format!("`clients` is {given}; it must be from 1 to {CLIENTS_MAX}");
                return Err(Wrong::at(&clients.span(), message));
            }
            if let Some(arrivals) = &entry.arrivals {
                let message =
                    "`arrivals` is for loads with a rate; callers of a closed loop wait for answers";
                return Err(Wrong::at(&arrivals.span(), message));
            }
            Ok(Pace::Closed { clients: given })
        }
        (None, Some(rate), None) => {
            let rate = Rate::PerSecond(within("rate_per_s", rate, 0.01, RATE_MAX)?);
            Ok(Pace::Open { rate, is_poisson })
        }
        (None, None, Some(share)) => {
            let rate = Rate::OfCapacity(within("capacity_share", share, 0.01, 10.0)?);
            Ok(Pace::Open { rate, is_poisson })
        }
        _ => Err(Wrong::at(span, "a load has exactly one of `clients`, `rate_per_s`, `capacity_share`")),
    }
}
