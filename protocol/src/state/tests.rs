//! Records: round trips, bounds, golden bytes.

use super::*;
use crate::ids::ObjectId;
use crate::limits::PLACES_MAX;
use crate::profile::WorkClass;
use crate::refusal::Refusal;
use proptest::prelude::*;

fn record() -> NodeRecord {
    NodeRecord {
        node: NodeId([1; 32]),
        stamp: Stamp { generation: 2, sequence: 3 },
        machine: Machine {
            label: "camera".into(),
            class: Class::Device,
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".into()],
            cores: 4,
            speeds: Speeds::new([5000.0; 5]),
            memory_budget_bytes: 1 << 30,
        },
        load: Load {
            memory_used_bytes: 5,
            utilisation_permille: 250,
            cold_us: 8000,
            cold_us_per_mb: 900,
            leaving: false,
        },
        offer: Offer { computes: true, stores: false, open: true },
        hosted: vec![Hosted {
            variant: VariantId { deployment: DeploymentId([3; 16]), index: 0 },
            first: 0,
            end: 4,
            time_us: 1500,
            p95_us: 1700,
            queue_wait_us: 0,
        }],
        links: vec![LinkEstimate { peer: NodeId([2; 32]), round_trip_us: 300, bytes_per_second: 1 << 27 }],
        coordinate: Coordinate::of([12_000.0, -3_000.0], 400.0, 0.1),
        goals: vec![HostingGoal {
            variant: VariantId { deployment: DeploymentId([3; 16]), index: 1 },
            first: 0,
            end: 4,
            progress: GoalProgress::Loading { done_permille: 500 },
        }],
        domains: vec!["site:home".parse().unwrap(), "power:ups".parse().unwrap()],
        demands: vec![Demand { deployment: DeploymentId([3; 16]), per_minute: 64 }],
    }
}

#[test]
fn a_record_that_says_nothing_of_it_offers_everything() {
    let bytes = record().to_bytes();
    let (tag, section) = (8u16.to_le_bytes(), [1, 0, 1]);
    let at = bytes.windows(9).position(|part| part == [&tag[..], &3u32.to_le_bytes(), &section].concat());
    let at = at.unwrap();
    let older = [&bytes[..at], &bytes[at + 9..]].concat();
    let expected = NodeRecord { offer: Offer { computes: true, stores: true, open: true }, ..record() };
    assert_eq!(NodeRecord::from_bytes(&older), Ok(expected));
}

#[test]
fn a_place_that_is_none_costs_only_the_place() {
    let (mut record, sound) = (record(), record().to_bytes());
    let place = crate::codec::encode(&record.coordinate.unwrap());
    let at = sound.windows(place.len()).position(|part| part == place).unwrap();
    record.coordinate = None;
    for absurd in [vec![0xfd; place.len()], vec![0; place.len() - 1]] {
        let length = (absurd.len() as u32).to_le_bytes();
        let broken = [&sound[..at - 4], &length[..], &absurd, &sound[at + place.len()..]].concat();
        assert_eq!(NodeRecord::from_bytes(&broken), Ok(record.clone()));
    }
}

#[test]
fn records_round_trip_and_stay_small() {
    let bytes = record().to_bytes();
    assert!(bytes.len() <= 1024, "{} bytes", bytes.len());
    assert_eq!(NodeRecord::from_bytes(&bytes), Ok(record()));
}

#[test]
fn the_largest_record_fits_its_limit() {
    let mut largest = record();
    largest.machine.addresses = vec!["/ip6/2001:db8:1111:2222:3333:4444:5555:6666/tcp/40001".into(); 8];
    largest.hosted =
        vec![
            Hosted { time_us: u64::MAX, p95_us: u64::MAX, queue_wait_us: u64::MAX, ..largest.hosted[0] };
            64
        ];
    largest.links = vec![LinkEstimate { bytes_per_second: u64::MAX, ..largest.links[0] }; 32];
    let progress = GoalProgress::Refused(u16::MAX);
    largest.goals = vec![HostingGoal { first: 63, end: 66, progress, ..largest.goals[0] }; 32];
    largest.domains = vec![Domain { kind: DomainKind::Power, name: "x".repeat(64) }; 16];
    largest.demands = vec![Demand { per_minute: u32::MAX, ..largest.demands[0] }; 16];
    assert_eq!(NodeRecord::from_bytes(&largest.to_bytes()), Ok(largest));
}

#[test]
fn records_of_builds_without_the_later_sections_are_read() {
    let mut record = record();
    let mut bytes = record.to_bytes();
    let sections = [
        crate::codec::encode(&record.demands).len(),
        crate::codec::encode(&record.domains.iter().map(Domain::to_wire).collect::<Vec<_>>()).len(),
        crate::codec::encode(&record.goals).len(),
    ];
    let clear: [fn(&mut NodeRecord); 3] =
        [|record| record.demands.clear(), |record| record.domains.clear(), |record| record.goals.clear()];
    // They are the last ones, each behind a head of six bytes.
    for (length, clear) in sections.into_iter().zip(clear) {
        bytes.truncate(bytes.len() - (length + 6));
        clear(&mut record);
        assert_eq!(NodeRecord::from_bytes(&bytes), Ok(record.clone()));
        assert_eq!(record.to_bytes(), bytes, "what there is nothing of takes no bytes");
    }
}

#[test]
fn domains_that_cannot_be_are_refused_and_kinds_of_later_versions_left_out() {
    let with = |domains: &[(u8, &str)]| {
        let bytes = NodeRecord { domains: vec![], demands: vec![], ..record() }.to_bytes();
        let section = crate::codec::SectionWriter::default().with(DOMAINS, &domains).into_bytes();
        NodeRecord::from_bytes(&[bytes, section].concat()).map(|record| record.domains)
    };
    assert_eq!(with(&[(1, "home"), (9, "moon")]), Ok(vec!["site:home".parse().unwrap()]));
    assert!(with(&[(1, "../x")]).is_err() && with(&[(1, &"x".repeat(65))]).is_err());
    assert!(with(&[(1, "x"); 17]).is_err());
}

#[test]
fn numbers_that_break_arithmetic_are_clamped_and_excess_is_refused() {
    let bytes = record().to_bytes();
    let (known, broken) = (5000.0f64.to_le_bytes(), f64::NAN.to_le_bytes());
    let at = bytes.windows(8).position(|window| window == known).unwrap();
    let bytes = [&bytes[..at], &broken, &bytes[at + 8..]].concat();
    let speeds = NodeRecord::from_bytes(&bytes).unwrap().machine.speeds;
    assert_eq!(speeds.of(WorkClass::Convolution), Speeds::RANGE.0);
    let mut many = record();
    many.links = vec![many.links[0]; 33];
    assert_eq!(NodeRecord::from_bytes(&many.to_bytes()), Err(DecodeError::Malformed));
}

fn variant(label: &str, accuracy: Option<f64>) -> Variant {
    Variant {
        label: label.into(),
        manifest: ObjectRef { id: ObjectId([4; 32]), bytes: 100 },
        accuracy: accuracy.and_then(Accuracy::of),
    }
}

fn deployment() -> Deployment {
    Deployment {
        name: "digits".into(),
        version: 1,
        publisher: NodeId([1; 32]),
        variants: vec![variant("base", Some(0.98)), variant("int8", None)],
        removed: false,
        removed_unix_s: 0,
        begun_unix_s: 0,
        wished: Wished { replicas: 2, division: Division::Whole },
    }
}

#[test]
fn deployments_round_trip_and_versions_differ() {
    let known = deployment();
    assert_eq!(Deployment::from_bytes(&known.to_bytes()), Ok(known.clone()));
    assert_ne!(known.id(), Deployment { version: 2, ..known.clone() }.id());
    let other = Deployment { variants: vec![known.variants[0].clone()], ..known.clone() };
    assert_ne!(known.id(), other.id());
    let indices: Vec<u8> = known.variants().map(|(id, _)| id.index).collect();
    assert_eq!(indices, [0, 1]);
}

#[test]
fn since_when_a_name_is_deployed_is_a_section_that_earlier_versions_skip() {
    let begun = Deployment { begun_unix_s: 1_790_000_000, ..deployment() };
    assert_eq!(Deployment::from_bytes(&begun.to_bytes()), Ok(begun.clone()));
    assert!(begun.to_bytes().starts_with(&deployment().to_bytes()));
    // Those that skip it mean the same version.
    assert_eq!(begun.id(), deployment().id());
}

#[test]
fn the_time_of_a_removal_is_a_section_that_earlier_versions_skip() {
    let removed = Deployment { removed: true, removed_unix_s: 1_790_000_000, ..deployment() };
    assert_eq!(Deployment::from_bytes(&removed.to_bytes()), Ok(removed.clone()));
    assert_eq!(removed.id(), deployment().id());
    // What says no time is written as it was before there was one.
    let timeless = Deployment { removed_unix_s: 0, ..removed.clone() };
    assert!(removed.to_bytes().starts_with(&timeless.to_bytes()));
    assert_eq!(Deployment::from_bytes(&timeless.to_bytes()), Ok(timeless));
}

#[test]
fn deployments_that_cannot_be_are_refused() {
    let refused = |wrong: Deployment| {
        assert_eq!(Deployment::from_bytes(&wrong.to_bytes()), Err(DecodeError::Malformed), "{wrong:?}");
    };
    refused(Deployment { name: "../x".into(), ..deployment() });
    refused(Deployment { variants: vec![], ..deployment() });
    refused(Deployment { variants: vec![variant("../x", None)], ..deployment() });
    refused(Deployment { variants: vec![variant("a", None), variant("a", Some(0.5))], ..deployment() });
    let impossible = Variant { accuracy: Some(Accuracy(1_000_001)), ..variant("a", None) };
    refused(Deployment { variants: vec![impossible], ..deployment() });
    let many = |count: usize| (0..count).map(|index| variant(&format!("{index:0>64}"), Some(0.123_456)));
    refused(Deployment { variants: many(VARIANTS_MAX + 1).collect(), ..deployment() });
    refused(Deployment { wished: Wished { replicas: 0, division: Division::Whole }, ..deployment() });
    refused(Deployment { wished: Wished { replicas: 1, division: Division::Parts(65) }, ..deployment() });
    let place = Place { node: NodeId([255; 32]), variant: 7, first: 64, end: 66 };
    let told = |count| Wished { replicas: u16::MAX, division: Division::Told(vec![place; count]) };
    refused(Deployment { wished: told(0), ..deployment() });
    refused(Deployment { wished: told(PLACES_MAX + 1), ..deployment() });
    let longest =
        Deployment { removed: true, removed_unix_s: u64::MAX, begun_unix_s: u64::MAX, ..deployment() };
    let most = Deployment { wished: told(PLACES_MAX), ..longest };
    assert_eq!(Deployment::from_bytes(&most.to_bytes()), Ok(most));
    let most = Deployment { name: "n".repeat(64), variants: many(VARIANTS_MAX).collect(), ..deployment() };
    assert_eq!(Deployment::from_bytes(&most.to_bytes()), Ok(most));
}

#[test]
fn an_accuracy_is_a_share() {
    assert_eq!([-0.1, 1.1, f64::NAN].map(Accuracy::of), [None; 3]);
    assert_eq!(
        [0.0, 0.5, 1.0].map(|share| Accuracy::of(share).map(Accuracy::share)),
        [Some(0.0), Some(0.5), Some(1.0)]
    );
    assert!(Accuracy::of(0.3) < Accuracy::of(0.4));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = NodeRecord::from_bytes(&bytes);
        let _ = Deployment::from_bytes(&bytes);
        let _ = Signed::from_bytes(&bytes);
    }
}

#[test]
fn a_node_with_as_many_parts_as_may_be_has_no_memory_for_more() {
    let mut record = NodeRecord { goals: vec![], hosted: vec![], ..record() };
    record.machine.memory_budget_bytes = 1000;
    record.load.memory_used_bytes = 10;
    let hosted = self::record().hosted.swap_remove(0);
    record.hosted = vec![hosted; HOSTED_MAX - 1];
    assert!(!record.is_full() && record.free_bytes() == 990);
    // What it refused takes no place, what it loads does.
    let goal = |progress| HostingGoal { variant: record.hosted[0].variant, first: 0, end: 1, progress };
    record.goals = vec![goal(GoalProgress::Refused(Refusal::NoMemory as u16))];
    assert!(!record.is_full());
    record
        .goals
        .push(HostingGoal { progress: GoalProgress::Loading { done_permille: 0 }, ..record.goals[0] });
    assert!(record.is_full() && record.free_bytes() == 0);
}
