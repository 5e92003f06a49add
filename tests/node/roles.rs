//! Role management and handover: the leader gives servers their roles, and a server that is about to stop
//! gives away its own.

use crate::cluster::{Cluster, PATIENCE, SPARE, STANDBY, VOTER};
use crate::support::{Client, Failure, TestNode, free_address};
use dqlite::node::{Error, ErrorKind, Node};
use dqlite::wire::request::Request;
use dqlite::wire::response::Response;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than a handover may take.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(17);

fn managed(_: u64, node: &Node) {
    node.enable_role_management().unwrap();
}

fn unmanaged(_: u64, _: &Node) {}

fn node(cluster: &Cluster, position: usize) -> &Node {
    &cluster.members[position].node.as_ref().unwrap().node
}

/// Of all nodes that run.
fn for_each_node(cluster: &Cluster, change: impl Fn(&Node)) {
    cluster.members.iter().filter_map(|m| m.node.as_ref()).for_each(|running| change(&running.node));
}

fn ask_roles(client: &mut Client) -> Result<Vec<u64>, Failure> {
    match client.call(Request::Cluster { format: 1 })? {
        Response::Servers(servers) => Ok(servers.iter().map(|server| server.role).collect()),
        other => panic!("{other:?}"),
    }
}

/// In the order in which they were added, as the leader knows them.
fn roles(cluster: &Cluster) -> Vec<u64> {
    cluster.on_leader(ask_roles)
}

fn wait_for_roles(cluster: &Cluster, expected: impl Fn(&[u64]) -> bool) {
    let begin = Instant::now();
    loop {
        let now = roles(cluster);
        if expected(&now) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "the roles stay {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn count(roles: &[u64], role: u64) -> usize {
    roles.iter().filter(|other| **other == role).count()
}

fn refused(outcome: Result<(), Error>, text: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Failed);
    assert!(error.message.contains(text), "{}", error.message);
}

#[test]
fn spares_are_promoted_until_the_targets_are_met_and_targets_may_change() {
    let cluster = Cluster::with_roles(&[VOTER, SPARE, SPARE, SPARE, SPARE], |id, node| {
        managed(id, node);
        node.set_target_standbys(1).unwrap();
    });
    wait_for_roles(&cluster, |roles| (count(roles, VOTER), count(roles, STANDBY)) == (3, 1));
    for_each_node(&cluster, |node| node.set_target_voters(5).unwrap());
    wait_for_roles(&cluster, |roles| count(roles, VOTER) == 5);
    for_each_node(&cluster, |node| node.set_target_voters(-1).unwrap());
    wait_for_roles(&cluster, |roles| (count(roles, VOTER), count(roles, STANDBY)) == (1, 1));
    cluster.exec("CREATE TABLE t (n INTEGER)");
}

#[test]
fn a_voter_that_is_gone_becomes_a_spare_another_takes_its_place_and_it_can_come_back() {
    let mut cluster = Cluster::with_roles(&[VOTER, VOTER, VOTER, SPARE], managed);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let gone = (cluster.leader_index() + 1) % 3;
    cluster.members[gone].stop();
    wait_for_roles(&cluster, |roles| roles[gone] == SPARE && count(roles, VOTER) == 3);
    cluster.exec("INSERT INTO t VALUES (1)");
    cluster.members[gone].start();
    for_each_node(&cluster, |node| node.set_target_voters(4).unwrap());
    wait_for_roles(&cluster, |roles| count(roles, VOTER) == 4);
    cluster.converge();
}

#[test]
fn voters_come_from_different_failure_domains_and_weigh_less() {
    let cluster = Cluster::with_roles(&[VOTER, SPARE, SPARE, SPARE, SPARE], |id, node| {
        node.set_failure_domain([1, 1, 2, 2, 3][id as usize - 1]).unwrap();
    });
    for (position, weight) in [(1, 0), (2, 5), (3, 1), (4, 9)] {
        let mut client = Client::connect(cluster.members[position].address).unwrap();
        client.call(Request::Weight { weight }).unwrap();
    }
    assert_eq!(roles(&cluster), [VOTER, SPARE, SPARE, SPARE, SPARE], "nobody asked for role management");
    for_each_node(&cluster, |node| node.enable_role_management().unwrap());
    wait_for_roles(&cluster, |roles| roles == [VOTER, SPARE, SPARE, VOTER, VOTER]);
}

#[test]
fn a_leader_and_then_a_follower_give_their_role_to_the_spare_there_is() {
    let cluster = Cluster::with_roles(&[VOTER, VOTER, VOTER, SPARE], unmanaged);
    let old = cluster.leader_index();
    node(&cluster, old).handover().unwrap();
    assert_ne!(cluster.leader_index(), old);
    let mut expected = vec![VOTER; 4];
    expected[old] = SPARE;
    assert_eq!(roles(&cluster), expected);

    // Nothing to give up: nothing changes.
    node(&cluster, old).handover().unwrap();
    assert_eq!(roles(&cluster), expected);

    let leader = cluster.leader_index();
    let follower = (0..4).find(|position| ![old, leader].contains(position)).unwrap();
    node(&cluster, follower).handover().unwrap();
    expected.swap(old, follower);
    assert_eq!(roles(&cluster), expected);
    assert_eq!(cluster.leader_index(), leader);
    cluster.exec("CREATE TABLE t (n INTEGER)");
}

#[test]
fn the_only_voter_promotes_its_successor_first() {
    let mut cluster = Cluster::with_roles(&[VOTER, SPARE], unmanaged);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    node(&cluster, 0).handover().unwrap();
    cluster.members[0].stop();
    assert_eq!(cluster.leader_index(), 1);
    assert_eq!(roles(&cluster), [SPARE, VOTER]);
    cluster.exec("INSERT INTO t VALUES (1)");
}

#[test]
fn a_stand_by_gives_its_role_to_a_spare() {
    let cluster = Cluster::with_roles(&[VOTER, STANDBY, SPARE], unmanaged);
    // It learns of its role from the log.
    let begin = Instant::now();
    let mut client = Client::connect(cluster.members[1].address).unwrap();
    while ask_roles(&mut client).unwrap() != [VOTER, STANDBY, SPARE] {
        assert!(begin.elapsed() < PATIENCE);
    }
    node(&cluster, 1).handover().unwrap();
    assert_eq!(roles(&cluster), [VOTER, SPARE, STANDBY]);
    // Nobody is left who has less.
    node(&cluster, 1).stop().unwrap();
    let mut client = Client::connect(cluster.members[2].address).unwrap();
    while ask_roles(&mut client).unwrap() != [VOTER, SPARE, STANDBY] {
        assert!(begin.elapsed() < PATIENCE);
    }
    refused(node(&cluster, 2).handover(), "no other server that is there has less than this role");
    assert_eq!(roles(&cluster), [VOTER, SPARE, STANDBY]);
}

#[test]
fn a_leader_without_a_successor_for_its_role_gives_up_leadership_and_says_what_it_keeps() {
    let cluster = Cluster::of(3);
    let old = cluster.leader_index();
    refused(node(&cluster, old).handover(), "leadership was given up, but this server keeps its role");
    assert_ne!(cluster.leader_index(), old);
    assert_eq!(roles(&cluster), [VOTER, VOTER, VOTER]);
    let follower = (0..3).find(|position| ![old, cluster.leader_index()].contains(position)).unwrap();
    refused(node(&cluster, follower).handover(), "no other server that is there has less than this role");
    assert_eq!(roles(&cluster), [VOTER, VOTER, VOTER]);
}

#[test]
fn who_is_alone_or_not_running_or_in_no_cluster_is_told_so() {
    let directory = TempDir::new().unwrap();
    let created = Node::create(1, "127.0.0.1:1", directory.path()).unwrap();
    assert_eq!(created.handover().unwrap_err().kind, ErrorKind::Misuse);
    drop(created);

    let alone = TestNode::start(directory.path());
    refused(alone.node.handover(), "it is the only server of its cluster");
    alone.open("test.db").exec("CREATE TABLE t (n INTEGER)").unwrap();
    alone.node.stop().unwrap();
    assert_eq!(alone.node.handover().unwrap_err().kind, ErrorKind::Misuse);

    let directory = TempDir::new().unwrap();
    let stranger = TestNode::start_member(7, free_address(), directory.path(), |_| {});
    refused(stranger.node.handover(), "no cluster that it belongs to");
}

#[test]
fn a_handover_that_nobody_answers_fails_in_time() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader_index();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|other| cluster.members[*other].stop());
    let begin = Instant::now();
    // It may have stepped down before.
    assert!(node(&cluster, leader).handover().is_err());
    // And it has stepped down now, if it had not.
    refused(node(&cluster, leader).handover(), "");
    assert!(begin.elapsed() < 2 * HANDOVER_PATIENCE);
}

#[test]
fn a_stop_ends_a_handover_and_of_two_handovers_one_is_refused() {
    let mut cluster = Cluster::of(3);
    let here = cluster.leader_index();
    let others = [(here + 1) % 3, (here + 2) % 3];
    others.iter().for_each(|other| cluster.members[*other].stop());
    let begin = Instant::now();
    // From then on a handover waits for a leader that does not come.
    let mut client = Client::connect(cluster.members[here].address).unwrap();
    while !matches!(client.call(Request::Leader), Ok(Response::Server { id: 0, .. })) {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    let left = node(&cluster, here);
    std::thread::scope(|scope| {
        let handovers = [scope.spawn(|| left.handover()), scope.spawn(|| left.handover())];
        // The one that is refused.
        while !handovers.iter().any(|handover| handover.is_finished()) {
            assert!(begin.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        left.stop().unwrap();
        let texts = handovers.map(|handover| handover.join().unwrap().unwrap_err().message);
        assert!(texts.iter().any(|text| text.contains("under way already")), "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("stopped meanwhile")), "{texts:?}");
    });
    assert_eq!(left.handover().unwrap_err().kind, ErrorKind::Misuse);
}

#[test]
fn a_handover_ends_role_management_until_the_host_asks_for_it_again() {
    let mut cluster = Cluster::with_roles(&[VOTER], managed);
    refused(node(&cluster, 0).handover(), "it is the only server of its cluster");
    cluster.join_as(2, SPARE);
    // More than two rounds.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(roles(&cluster), [VOTER, SPARE]);
    node(&cluster, 0).enable_role_management().unwrap();
    wait_for_roles(&cluster, |roles| roles == [VOTER, VOTER]);
}
