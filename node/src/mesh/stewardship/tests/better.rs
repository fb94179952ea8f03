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
