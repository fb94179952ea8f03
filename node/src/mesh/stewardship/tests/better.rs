//! What begins soon in a young mesh, and what moves to where it lies better once that has stayed.

use super::*;

#[test]
fn a_young_mesh_gives_parts_to_one_that_joins_at_once() {
    for class in [Class::Edge, Class::Device] {
        let mut desk = Desk::new();
        desk.own = record(1, 1, class);
        let look = |desk: &mut Desk, second: u64, others: &[u8]| {
            others.iter().for_each(|node| desk.hears(second * 1000, &record(*node, second + 1, class)));
            orders(desk.look(second * 1000)).next()
        };
        look(&mut desk, 0, &[]);
        stewarded(&mut desk, 2, &[1]);
        (1..10).for_each(|second| assert_eq!(look(&mut desk, second, &[]), None));
        // It has just begun, so it is neither steward itself nor waited for.
        let given = look(&mut desk, 10, &[2]).map(|order| hosts_of(&order));
        assert_eq!(given, Some([1, 2].map(id).to_vec()), "{class:?}");
    }
}

#[test]
fn a_host_that_may_still_be_starting_is_waited_for() {
    for was_there in [false, true] {
        let mut desk = Desk::new();
        let mut given = None;
        desk.look(0);
        let deployment = stewarded(&mut desk, 1, &[3]);
        for second in 1..60 {
            if was_there && second < 8 {
                let host = record(3, second + 1, Class::Device);
                desk.hears(second * 1000, &NodeRecord { hosted: hosted(deployment), ..host });
            }
            if was_there && second == 8 {
                desk.view.lost(8_000, id(3));
            }
            given = given.or(orders(desk.look(second * 1000)).next().map(|order| (second, hosts_of(&order))));
        }
        // Once it was heard, three seconds away are a loss.
        assert_eq!(given, Some((if was_there { 11 } else { 30 }, vec![id(1)])));
    }
}

/// A desk of node 1, steward of two replicas which nodes 2 and 3 of one site host; node 4 of another site comes after ten
/// seconds. What is ordered, and when.
fn orders_once_another_site_is_there(
    division: &Division,
    stays: impl Fn(u64) -> bool,
) -> Vec<(u64, Vec<NodeId>)> {
    let in_site = |node: u8, second: u64, site: &str| {
        let domains = vec![format!("site:{site}").parse().unwrap()];
        NodeRecord { domains, ..record(node, second + 1, Class::Edge) }
    };
    let mut desk = Desk::new();
    // It has no memory for it.
    desk.own.machine.memory_budget_bytes = 10;
    let mut deployment = None;
    let mut given: Vec<(u64, Vec<NodeId>)> = Vec::new();
    for second in 0..400 {
        for (node, site) in [(2, "attic"), (3, "attic"), (4, "garden")] {
            let mut host = in_site(node, second, site);
            let hosts = given.last().map_or([2, 3].map(id).to_vec(), |(_, hosts)| hosts.clone());
            if let Some(deployment) = deployment.filter(|_| hosts.contains(&id(node))) {
                host.hosted = hosted(deployment);
            }
            if node == 4 && (second < 10 || !stays(second)) {
                desk.since_ms.remove(&id(4));
                desk.view.lost(second * 1000, id(4));
                continue;
            }
            host.stamp.generation =
                1 + desk.since_ms.get(&id(node)).map_or(second, |since_ms| since_ms / 1000);
            desk.hears(second * 1000, &host);
        }
        let actions = desk.look(second * 1000);
        if second == 40 {
            let wished = Wished { replicas: 2, division: division.clone() };
            deployment = Some(stewarded_as(&mut desk, wished, &[2, 3]));
        }
        for order in orders(actions) {
            desk.deployments.apply(&world::signed(&order));
            given.push((second, hosts_of(&order)));
        }
    }
    given
}

#[test]
fn replicas_are_spread_anew_once_a_better_place_has_stayed() {
    let given = orders_once_another_site_is_there(&Division::Whole, |_| true);
    let [(second, hosts)] = &given[..] else { panic!("{given:?}") };
    assert!((100..105).contains(second) && hosts.contains(&id(4)) && hosts.len() == 2, "{given:?}");
    // Who comes and goes is not followed.
    assert_eq!(orders_once_another_site_is_there(&Division::Whole, |second| second % 45 > 5), []);
}

#[test]
fn what_was_placed_by_name_goes_back_once_its_host_has_stayed() {
    let told = |nodes: [u8; 2]| {
        Division::Told(nodes.map(|node| Place { node: id(node), variant: 0, first: 0, end: 4 }).to_vec())
    };
    let given = orders_once_another_site_is_there(&told([3, 4]), |_| true);
    let [(second, hosts)] = &given[..] else { panic!("{given:?}") };
    assert!((100..105).contains(second) && *hosts == [3, 4].map(id), "{given:?}");
    assert_eq!(orders_once_another_site_is_there(&told([3, 4]), |second| second % 45 > 5), []);
    // Whoever names hosts that share a site means it.
    assert_eq!(orders_once_another_site_is_there(&told([2, 3]), |_| true), []);
}

#[test]
fn two_parts_on_one_node_go_apart_once_another_has_stayed() {
    let mut desk = Desk::new();
    let name = |desk: &Desk| names_of(desk, id(1)).swap_remove(0);
    let place = |node: u8, first, end| Place { node: id(node), variant: 0, first, end };
    let mut places = vec![place(2, 0, 2), place(2, 2, 4)];
    let mut deployment = None;
    let mut given = Vec::new();
    for second in 0..300 {
        for node in [2, 3] {
            let mut host = record(node, second + 1, Class::Edge);
            let listed = places.iter().filter(|place| place.node == id(node));
            host.hosted = deployment.map_or(vec![], |deployment| {
                let of_it = listed.flat_map(|place| hosted_part(deployment, place.first, place.end));
                of_it.collect()
            });
            desk.hears(second * 1000, &host);
        }
        desk.own.machine.memory_budget_bytes = 10;
        for order in orders(desk.look(second * 1000)) {
            desk.deployments.apply(&world::signed(&order));
            places.clone_from(&order.places);
            given.push((second, order));
        }
        if second == 70 {
            let name = name(&desk);
            desk.deployments.apply(&wish(&name, 2, 1, 1, Division::Parts(2), false));
            let known = desk.deployments.by_name(&name).unwrap().id();
            let order = Order { deployment: known, sequence: 1, steward: id(2), places: places.clone() };
            desk.deployments.apply(&world::signed(&order));
            deployment = Some(known);
        }
    }
    let [(second, order)] = &given[..] else { panic!("{given:?}") };
    assert!((130..135).contains(second), "{given:?}");
    assert_eq!(hosts_of(order).into_iter().collect::<BTreeSet<_>>(), [2, 3].map(id).into());
}

#[test]
fn a_variant_that_no_place_is_told_for_keeps_its_replicas() {
    let mut desk = Desk::new();
    let place = |node: u8, variant| Place { node: id(node), variant, first: 0, end: 4 };
    let mut given = None;
    let mut deployment = None;
    for second in 0..60 {
        for node in [2, 3, 4].into_iter().filter(|node| *node != 3 || second < 45) {
            let mut host = record(node, second + 1, Class::Edge);
            host.hosted = deployment.filter(|_| node < 4).map_or(vec![], hosted);
            let other = host.hosted.iter().map(|of_base| {
                let variant = VariantId { index: 1, ..of_base.variant };
                Hosted { variant, ..*of_base }
            });
            host.hosted = host.hosted.iter().copied().chain(other).collect();
            desk.hears(second * 1000, &host);
        }
        if second == 45 {
            desk.view.lost(45_000, id(3));
        }
        given = given.or(orders(desk.look(second * 1000)).next());
        if second == 40 {
            let name = names_of(&desk, id(1)).swap_remove(0);
            desk.deployments.apply(&wish(&name, 2, 1, 2, Division::Told(vec![place(2, 0)]), false));
            let known = desk.deployments.by_name(&name).unwrap().id();
            let places = vec![place(2, 0), place(2, 1), place(3, 1)];
            desk.deployments.apply(&world::signed(&Order {
                deployment: known,
                sequence: 1,
                steward: id(2),
                places,
            }));
            deployment = Some(known);
        }
    }
    let places = given.expect("it is healed").places;
    let hosts = |variant| places.iter().filter(|place| place.variant == variant).count();
    assert_eq!((hosts(0), hosts(1)), (1, 2), "{places:?}");
    assert!(places.iter().all(|place| place.node != id(3)), "{places:?}");
}

#[test]
fn hosts_that_are_not_ordered_any_more_wait_for_one_that_is_not_for_each_other() {
    let (mut desk, deployment, steward) = settled(2);
    desk.deployments.apply(&order_of(deployment, 1, id(2), &[1, 2]));
    desk.look(40_000);
    desk.deployments.apply(&order_of(deployment, 2, steward, &[3, 4]));
    desk.own.hosted = hosted(deployment);
    let key = PartitionKey { variant: VariantId { deployment, index: 0 }, first: 0, end: 4 };
    let held = [Held { key, progress: Ok(()), is_ordered: true, used_ms: 0 }];
    let mut keeping = Keeping::default();
    let mut dropped = None;
    for second in 41..300 {
        for node in [2, 3, 4] {
            // 4 never gets ready.
            let has_it = node == 2 || node == 3 && second >= 200;
            let hosted = if has_it { hosted(deployment) } else { vec![] };
            desk.hears(second * 1000, &NodeRecord { hosted, ..record(node, second + 1, Class::Edge) });
        }
        desk.look(second * 1000);
        let Desk { view, deployments, stewardship, own, .. } = &desk;
        let around = Around { now_ms: second * 1000, own, view, deployments, stewardship };
        if keeping.look(&around, &held).contains(&KeepAction::Drop(key)) {
            dropped.get_or_insert(second);
        }
    }
    assert_eq!(dropped, Some(200));
}
