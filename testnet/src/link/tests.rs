//! Links as others count on them: order, rate, bounds, shares, and sameness for equal seeds.

use proptest::prelude::*;

use super::*;

const SECOND_US: u64 = 1_000_000;

fn plain() -> LinkSpec {
    LinkSpec::default()
}

fn share() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), 0.0..1.0]
}

prop_compose! {
    fn any_spec()(
        rate_bits_per_s in proptest::option::of(1_000_u64..10_000_000_000),
        queue_bytes in 1_u64..1_000_000,
        latency_us in 0_u64..200_000,
        jitter_percent in 0_u64..=100,
        loss in share(), reorder in share(), duplicate in share(), corrupt in share(),
        cut in proptest::bool::weighted(0.1),
    ) -> LinkSpec {
        let jitter_us = latency_us * jitter_percent / 100;
        LinkSpec { rate_bits_per_s, queue_bytes, latency_us, jitter_us, loss, reorder, duplicate, corrupt, cut }
    }
}

/// Packets: how long after the one before, and how many bytes.
fn any_packets() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0_u64..20_000, 1_u64..65_536), 1..200)
}

fn fates(link: &mut Link, packets: &[(u64, u64)]) -> Vec<(u64, Fate)> {
    let mut now_us = 0;
    let offer = |&(pause_us, bytes): &(u64, u64)| {
        now_us += pause_us;
        (now_us, link.offer(now_us, bytes))
    };
    packets.iter().map(offer).collect()
}

proptest! {
    #[test]
    fn equal_seeds_give_equal_fates(spec in any_spec(), seed: u64, packets in any_packets()) {
        let (mut one, mut other) = (Link::new(spec, seed), Link::new(spec, seed));
        prop_assert_eq!(fates(&mut one, &packets), fates(&mut other, &packets));
        prop_assert_eq!(one.counts(), other.counts());
    }

    #[test]
    fn nothing_arrives_before_it_can(spec in any_spec(), seed: u64, packets in any_packets()) {
        spec.check().unwrap();
        let mut link = Link::new(spec, seed);
        for ((now_us, fate), (_, bytes)) in fates(&mut link, &packets).into_iter().zip(packets) {
            let takes_us = spec.rate_bits_per_s.map_or(0, |rate| bytes * 8 * SECOND_US / rate);
            for delivery in fate.deliveries() {
                prop_assert!(delivery.at_us >= now_us + takes_us + spec.latency_us - spec.jitter_us);
            }
        }
    }

    #[test]
    fn nothing_overtakes_unless_held_back(spec in any_spec(), seed: u64, packets in any_packets()) {
        let mut link = Link::new(LinkSpec { reorder: 0.0, ..spec }, seed);
        let arrivals: Vec<u64> = fates(&mut link, &packets)
            .into_iter()
            .flat_map(|(_, fate)| fate.deliveries().map(|delivery| delivery.at_us))
            .collect();
        prop_assert!(arrivals.is_sorted(), "{arrivals:?}");
    }

    #[test]
    fn the_wait_is_bounded_by_the_queue(spec in any_spec(), seed: u64, packets in any_packets()) {
        let mut link = Link::new(spec, seed);
        let mut now_us = 0;
        for (pause_us, bytes) in packets {
            now_us += pause_us;
            link.offer(now_us, bytes);
            // One packet of any length is taken by an empty queue.
            prop_assert!(link.backlog_bytes(now_us) <= spec.queue_bytes.max(65_536));
        }
    }

    #[test]
    fn the_rate_is_never_exceeded(rate in 10_000_u64..10_000_000_000, packets in any_packets()) {
        let mut link = Link::new(LinkSpec { rate_bits_per_s: Some(rate), ..plain() }, 1);
        let mut bits = 0;
        let mut end_us = 0;
        for ((_, fate), (_, bytes)) in fates(&mut link, &packets).into_iter().zip(&packets) {
            for delivery in fate.deliveries() {
                bits += bytes * 8;
                end_us = delivery.at_us;
            }
        }
        // A microsecond for the last packet's time, which is rounded down.
        prop_assert!(u128::from(bits) * 1_000_000 <= u128::from(rate) * u128::from(end_us + 1));
    }

    #[test]
    fn every_packet_is_counted_once(spec in any_spec(), seed: u64, packets in any_packets()) {
        let mut link = Link::new(spec, seed);
        let delivered = fates(&mut link, &packets)
            .into_iter().filter(|(_, fate)| fate.deliveries().next().is_some()).count() as u64;
        let counts = link.counts();
        prop_assert_eq!(counts.offered, packets.len() as u64);
        prop_assert_eq!(counts.offered, delivered + counts.lost + counts.queue_full + counts.cut);
    }

    #[test]
    fn settings_may_change_at_any_time(
        specs in proptest::collection::vec((any_spec(), any_packets()), 1..6), seed: u64,
    ) {
        let mut link = Link::new(plain(), seed);
        let (mut now_us, mut last_us) = (0, 0);
        for (spec, packets) in specs {
            link.set(now_us, LinkSpec { reorder: 0.0, ..spec });
            if spec.cut {
                last_us = 0;
            }
            for (pause_us, bytes) in packets {
                now_us += pause_us;
                for delivery in link.offer(now_us, bytes).deliveries() {
                    prop_assert!(link.arrives(&delivery));
                    prop_assert!(delivery.at_us >= now_us.max(last_us));
                    last_us = delivery.at_us;
                }
            }
        }
    }
}

#[test]
fn a_plain_link_delivers_at_once() {
    let mut link = Link::new(plain(), 1);
    assert!(link.spec().is_plain());
    let delivery = Delivery { at_us: 17, corrupted: false, cuts: 0 };
    assert_eq!(link.offer(17, 65_535), Fate::Once(delivery));
}

#[test]
fn rate_and_latency_add_up() {
    let spec = LinkSpec { rate_bits_per_s: Some(8_000_000), latency_us: 5_000, ..plain() };
    let mut link = Link::new(spec, 1);
    let arrivals: Vec<u64> =
        (0..3).flat_map(|_| link.offer(100, 1_000).deliveries()).map(|delivery| delivery.at_us).collect();
    assert_eq!(arrivals, [6_100, 7_100, 8_100]);
    assert_eq!(link.backlog_bytes(1_100), 2_000);
}

#[test]
fn a_full_queue_drops_and_an_empty_one_takes_anything() {
    let spec = LinkSpec { rate_bits_per_s: Some(8_000_000), queue_bytes: 2_500, ..plain() };
    let mut link = Link::new(spec, 1);
    let taken = (0..5).filter(|_| link.offer(0, 1_000).deliveries().next().is_some()).count();
    assert_eq!(taken, 2);
    assert_eq!(link.counts().queue_full, 3);
    assert!(matches!(link.offer(SECOND_US, 60_000), Fate::Once(_)));
}

#[test]
fn a_cut_loses_what_is_under_way_and_what_waits() {
    let spec = LinkSpec { rate_bits_per_s: Some(8_000), latency_us: 50_000, ..plain() };
    let mut link = Link::new(spec, 1);
    let Fate::Once(delivery) = link.offer(0, 1_000) else { panic!("it is taken") };
    link.set(10, LinkSpec { cut: true, ..spec });
    assert!(!link.arrives(&delivery));
    assert_eq!(link.offer(20, 1_000), Fate::Cut);
    link.set(30, spec);
    assert!(!link.arrives(&delivery));
    let Fate::Once(delivery) = link.offer(40, 1) else { panic!("it is mended") };
    assert_eq!(delivery.at_us, 40 + 1_000 + 50_000, "nothing waits from before the cut");
    assert!(link.arrives(&delivery));
}

#[test]
fn another_setting_than_a_cut_loses_nothing() {
    let mut link = Link::new(LinkSpec { latency_us: 50_000, ..plain() }, 1);
    let Fate::Once(delivery) = link.offer(0, 1) else { panic!("it is taken") };
    link.set(10, LinkSpec { loss: 1.0, ..plain() });
    assert!(link.arrives(&delivery));
    assert_eq!(link.offer(20, 1), Fate::Lost);
}

#[test]
fn a_new_rate_holds_for_the_bytes_that_wait() {
    let slow = LinkSpec { rate_bits_per_s: Some(8_000), queue_bytes: 10_000, ..plain() };
    let mut link = Link::new(slow, 1);
    let told: Vec<u64> = (0..5).flat_map(|_| link.offer(0, 1_000).deliveries()).map(|d| d.at_us).collect();
    assert_eq!(told.last(), Some(&(5 * SECOND_US)));
    link.set(0, LinkSpec { rate_bits_per_s: Some(8_000_000), ..slow });
    assert_eq!(link.backlog_bytes(0), 5_000);
    let Fate::Once(behind) = link.offer(0, 1_000) else { panic!("there is room for it") };
    assert_eq!(behind.at_us, 5 * SECOND_US, "it waits for those before it");
    link.set(0, LinkSpec { rate_bits_per_s: Some(800), ..slow });
    assert_eq!(link.backlog_bytes(0), 6_000);
    let Fate::Once(behind) = link.offer(0, 1_000) else { panic!("there is room for it") };
    assert_eq!(behind.at_us, 70 * SECOND_US);
}

#[test]
fn shares_are_kept() {
    let spec = LinkSpec { loss: 0.1, reorder: 0.2, duplicate: 0.3, corrupt: 0.05, ..plain() };
    let mut link = Link::new(spec, 42);
    for now_us in 0..100_000 {
        link.offer(now_us, 100);
    }
    let counts = link.counts();
    let close = |count: u64, of: f64, share: f64| (count as f64 / of - share).abs() < 0.005;
    let arrived = (counts.offered - counts.lost) as f64;
    assert!(close(counts.lost, 100_000.0, 0.1), "{counts:?}");
    assert!(close(counts.reordered, arrived, 0.2), "{counts:?}");
    assert!(close(counts.duplicated, arrived, 0.3), "{counts:?}");
    assert!(close(counts.corrupted, arrived, 0.05), "{counts:?}");
}

#[test]
fn jitter_strays_evenly_and_within_its_bounds() {
    let mut link = Link::new(LinkSpec { latency_us: 20_000, jitter_us: 5_000, ..plain() }, 3);
    let latencies: Vec<u64> = (0..100_000)
        .map(|number| number * 1_000)
        .flat_map(|now_us| link.offer(now_us, 1).deliveries().map(move |delivery| delivery.at_us - now_us))
        .collect();
    let mean_us = latencies.iter().sum::<u64>() / latencies.len() as u64;
    let (least, most) = (latencies.iter().min().unwrap(), latencies.iter().max().unwrap());
    assert!((19_800..20_200).contains(&mean_us), "{mean_us}");
    assert!((15_000..15_200).contains(least) && (24_800..=25_000).contains(most), "{least} {most}");
}

#[test]
fn held_back_packets_are_overtaken() {
    let mut link = Link::new(LinkSpec { reorder: 0.1, ..plain() }, 5);
    let arrivals: Vec<u64> = (0..1_000)
        .flat_map(|number| link.offer(number * 100, 1).deliveries())
        .map(|delivery| delivery.at_us)
        .collect();
    let overtaken = arrivals.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 50, "{overtaken}");
}

#[test]
fn what_no_link_can_be_is_refused() {
    let wrong = [
        LinkSpec { rate_bits_per_s: Some(0), ..plain() },
        LinkSpec { queue_bytes: 0, ..plain() },
        LinkSpec { latency_us: LATENCY_US_MAX + 1, ..plain() },
        LinkSpec { latency_us: 4, jitter_us: 5, ..plain() },
        LinkSpec { loss: -0.1, ..plain() },
        LinkSpec { corrupt: f64::NAN, ..plain() },
        LinkSpec { duplicate: 1.1, ..plain() },
    ];
    for spec in wrong {
        assert!(spec.check().is_err(), "{spec:?}");
        // And yet nothing of it ends the process.
        let mut link = Link::new(spec, 1);
        for number in 0..10 {
            link.offer(number * 1_000, 1_500);
        }
    }
    assert_eq!(plain().check(), Ok(()));
}
