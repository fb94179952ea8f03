//! A scenario's file as it is written, before anything is checked but names and types of fields.

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) about: Spanned<String>,
    pub(super) topology: Spanned<String>,
    pub(super) seed: Option<u64>,
    pub(super) duration_s: Spanned<f64>,
    pub(super) deploy: Vec<Spanned<DeployEntry>>,
    pub(super) load: Vec<Spanned<LoadEntry>>,
    #[serde(default)]
    pub(super) fault: Vec<Spanned<FaultEntry>>,
    pub(super) expect: Option<Spanned<ExpectEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployEntry {
    pub(super) name: Spanned<String>,
    pub(super) model: Spanned<String>,
    pub(super) at: Spanned<String>,
    pub(super) parts: Option<Spanned<u16>>,
    pub(super) replicas: Option<Spanned<u16>>,
    #[serde(default)]
    pub(super) placement: Vec<PlaceEntry>,
    pub(super) ort_level: Option<Spanned<String>>,
    pub(super) accuracy: Option<Spanned<f64>>,
    pub(super) card: Option<Spanned<String>>,
    pub(super) samples: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) variant: Vec<VariantEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlaceEntry {
    pub(super) node: Spanned<String>,
    pub(super) blocks: Spanned<Vec<u16>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantEntry {
    pub(super) label: Spanned<String>,
    pub(super) model: Spanned<String>,
    pub(super) accuracy: Option<Spanned<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoadEntry {
    pub(super) deploy: Spanned<String>,
    pub(super) at: Spanned<Vec<Spanned<String>>>,
    pub(super) clients: Option<Spanned<u16>>,
    pub(super) rate_per_s: Option<Spanned<f64>>,
    pub(super) capacity_share: Option<Spanned<f64>>,
    pub(super) arrivals: Option<Spanned<String>>,
    pub(super) from_s: Option<Spanned<f64>>,
    pub(super) for_s: Option<Spanned<f64>>,
    pub(super) inputs: Option<Spanned<u16>>,
    pub(super) timeout_ms: Option<Spanned<u32>>,
    pub(super) max_latency_ms: Option<Spanned<f64>>,
    pub(super) min_accuracy: Option<Spanned<f64>>,
    pub(super) variant: Option<Spanned<String>>,
    pub(super) redundancy: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultEntry {
    pub(super) kind: Option<Spanned<String>>,
    pub(super) at_s: Option<Spanned<f64>>,
    pub(super) for_s: Option<Spanned<f64>>,
    pub(super) times: Option<Spanned<u32>>,
    pub(super) every_s: Option<Spanned<f64>>,
    pub(super) node: Option<Spanned<String>>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) to: Option<Spanned<String>>,
    pub(super) both_ways: Option<Spanned<bool>>,
    pub(super) groups: Option<Spanned<Vec<Vec<Spanned<String>>>>>,
    pub(super) cpu_share: Option<Spanned<f64>>,
    pub(super) memory_bytes: Option<Spanned<u64>>,
    pub(super) level: Option<Spanned<f64>>,
    pub(super) offset_s: Option<Spanned<f64>>,
    pub(super) up_bits_per_s: Option<Spanned<u64>>,
    pub(super) down_bits_per_s: Option<Spanned<u64>>,
    pub(super) rate_bits_per_s: Option<Spanned<u64>>,
    pub(super) queue_bytes: Option<Spanned<u64>>,
    pub(super) latency_ms: Option<Spanned<f64>>,
    pub(super) jitter_ms: Option<Spanned<f64>>,
    pub(super) loss: Option<Spanned<f64>>,
    pub(super) reorder: Option<Spanned<f64>>,
    pub(super) duplicate: Option<Spanned<f64>>,
    pub(super) corrupt: Option<Spanned<f64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectEntry {
    pub(super) lost_max: Option<Spanned<u64>>,
    pub(super) wrong_max: Option<Spanned<u64>>,
    pub(super) answered_twice_max: Option<Spanned<u64>>,
    pub(super) failed_share_max: Option<Spanned<f64>>,
    pub(super) rejected_share_max: Option<Spanned<f64>>,
    pub(super) unknown_share_max: Option<Spanned<f64>>,
    pub(super) answers_min: Option<Spanned<u64>>,
    pub(super) p50_ms_max: Option<Spanned<f64>>,
    pub(super) p99_ms_max: Option<Spanned<f64>>,
    pub(super) added_p99_ms_max: Option<Spanned<f64>>,
    pub(super) affected_min: Option<Spanned<u64>>,
    pub(super) progress_within_s: Option<Spanned<f64>>,
    pub(super) progress_latency_ms_max: Option<Spanned<f64>>,
    pub(super) left_out_within_s: Option<Spanned<f64>>,
    pub(super) back_within_s: Option<Spanned<f64>>,
    pub(super) restored_within_s: Option<Spanned<f64>>,
    pub(super) formed_within_s: Option<Spanned<f64>>,
    pub(super) own_memory_mib_max: Option<Spanned<f64>>,
    pub(super) avoided_within_s: Option<Spanned<f64>>,
    pub(super) false_losses_max: Option<u64>,
    pub(super) healthy_left_out_s_max: Option<Spanned<f64>>,
    pub(super) goodput_share_min: Option<Spanned<f64>>,
    pub(super) reject_within_ms_max: Option<Spanned<f64>>,
    pub(super) divided_share_min: Option<Spanned<f64>>,
    pub(super) memory_growth_mib_per_h_max: Option<Spanned<f64>>,
    pub(super) descriptors_growth_max: Option<u64>,
    pub(super) threads_growth_max: Option<u64>,
    pub(super) warm_up_s: Option<Spanned<f64>>,
    pub(super) generator_share_max: Option<Spanned<f64>>,
}
