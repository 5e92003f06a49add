use super::*;

const LEADER: ServerId = ServerId(1);
const ROLES: [Role; 3] = [Role::Voter, Role::Standby, Role::Spare];
const SIZE_MAX: usize = 7;

/// Online, in the failure domain 0.
fn member(id: u64, role: Role) -> Member {
    Member { id: ServerId(id), role, online: Some(Metadata::default()) }
}

fn offline(id: u64, role: Role) -> Member {
    Member { online: None, ..member(id, role) }
}

fn placed(id: u64, role: Role, failure_domain: u64, weight: u64) -> Member {
    Member { online: Some(Metadata { failure_domain, weight }), ..member(id, role) }
}

fn targets(voters: usize, standbys: usize) -> Targets {
    Targets { voters, standbys }
}

/// Every change until there is none, decided anew after each.
fn changes(members: &[Member], targets: Targets) -> Vec<(u64, Role)> {
    let mut members = members.to_vec();
    let mut changes = Vec::new();
    while let Some(RoleChange { id, role }) = next_change(&members, targets, LEADER) {
        let changed = members.iter_mut().find(|member| member.id == id).unwrap();
        assert_ne!(changed.role, role, "a change that changes nothing");
        changed.role = role;
        changes.push((id.0, role));
        assert!(changes.len() <= 2 * members.len(), "no end: {changes:?}");
    }
    changes
}

fn online_voters(members: &[Member]) -> usize {
    members.iter().filter(|m| m.role == Role::Voter && m.online.is_some()).count()
}

fn has_quorum(members: &[Member]) -> bool {
    online_voters(members) > members.iter().filter(|m| m.role == Role::Voter).count() / 2
}

/// Each cluster of this size up to the order of its servers, with the leader first: every server in one of
/// the three roles, online or not.
fn clusters(size: usize) -> Vec<Vec<Member>> {
    let mut all = vec![vec![(0, 0)]];
    for _ in 1..size {
        all = all
            .into_iter()
            .flat_map(|cluster: Vec<(usize, usize)>| {
                let last = if cluster.len() > 1 { cluster[cluster.len() - 1] } else { (0, 0) };
                let states = (0..ROLES.len()).flat_map(|role| [(role, 0), (role, 1)]);
                states
                    .filter(move |state| *state >= last)
                    .map(move |state| [&cluster[..], &[state]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    let build = |cluster: Vec<(usize, usize)>| {
        let states = (1..).zip(cluster);
        let states = states.map(|(id, (role, is_offline))| match is_offline {
            0 => member(id, ROLES[role]),
            _ => offline(id, ROLES[role]),
        });
        states.collect()
    };
    all.into_iter().map(build).collect()
}

/// Calls `check` for every cluster, with several distributions over failure domains and weights.
fn for_every_cluster(check: impl Fn(&[Member], Targets)) {
    let mut count = 0;
    for size in 1..=SIZE_MAX {
        for mut members in clusters(size) {
            for (domains, weights) in [(1, 1), (2, 3), (3, 2), (7, 1)] {
                for (member, position) in members.iter_mut().zip(0u64..) {
                    let place = Metadata { failure_domain: position % domains, weight: position % weights };
                    member.online = member.online.map(|_| place);
                }
                for (voters, standbys) in [(0, 0), (1, 2), (2, 0), (3, 0), (3, 3), (4, 1), (5, 2), (9, 9)] {
                    check(&members, targets(voters, standbys));
                    count += 1;
                }
            }
        }
    }
    assert!(count > 20_000, "only {count} clusters");
}

#[test]
fn no_change_takes_the_quorum_away_or_demotes_the_leader() {
    for_every_cluster(|members, targets| {
        let mut members = members.to_vec();
        while let Some(RoleChange { id, role }) = next_change(&members, targets, LEADER) {
            assert!(has_quorum(&members), "changed without a majority: {members:?}");
            assert_ne!(id, LEADER, "{members:?}");
            let before = members.clone();
            members.iter_mut().find(|member| member.id == id).unwrap().role = role;
            assert!(has_quorum(&members), "{before:?} to {members:?}");
        }
    });
}

#[test]
fn each_server_changes_at_most_once_until_nothing_is_left_to_do() {
    for_every_cluster(|members, targets| {
        let changes = changes(members, targets);
        let mut ids: Vec<u64> = changes.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), changes.len(), "{changes:?} of {members:?}");
    });
}

#[test]
fn targets_are_met_as_far_as_servers_answer_and_who_does_not_is_a_spare() {
    for_every_cluster(|members, targets| {
        let mut end = members.to_vec();
        for (id, role) in changes(members, targets) {
            end.iter_mut().find(|member| member.id.0 == id).unwrap().role = role;
        }
        if !has_quorum(members) {
            assert_eq!(end, members, "without a majority nothing changes");
            return;
        }
        let online = members.iter().filter(|member| member.online.is_some()).count();
        let voters = targets.voters.clamp(1, online);
        assert_eq!(online_voters(&end), voters, "{end:?}");
        let standbys = end.iter().filter(|member| member.role == Role::Standby).count();
        assert_eq!(standbys, targets.standbys.min(online - voters), "{end:?}");
        assert!(end.iter().all(|member| member.online.is_some() || member.role == Role::Spare), "{end:?}");
    });
}

#[test]
fn voters_are_spread_over_as_many_failure_domains_as_there_are() {
    // Whoever joins as a spare, in whatever order of domains.
    for domains in 1..=4u64 {
        for shift in 0..domains {
            let mut members: Vec<Member> =
                (1..=7).map(|id| placed(id, Role::Spare, (id / 2 + shift) % domains, 0)).collect();
            members[0].role = Role::Voter;
            for (id, role) in changes(&members, targets(3, 0)) {
                members.iter_mut().find(|member| member.id.0 == id).unwrap().role = role;
            }
            let voters = members.iter().filter(|member| member.role == Role::Voter);
            let used: std::collections::BTreeSet<u64> =
                voters.map(|voter| voter.online.unwrap().failure_domain).collect();
            assert_eq!(used.len() as u64, domains.min(3), "{members:?}");
        }
    }
}

#[test]
fn a_new_voter_comes_from_another_failure_domain_then_weighs_less_then_has_the_log_then_was_first() {
    use Role::{Spare, Standby, Voter};
    let leader = placed(1, Voter, 5, 0);
    let chosen = |others: [Member; 2]| {
        changes(&[&[leader.clone()][..], &others].concat(), targets(2, 9)).first().copied()
    };
    let to_voter = |id| Some((id, Voter));
    assert_eq!(chosen([placed(2, Standby, 5, 0), placed(3, Spare, 6, 9)]), to_voter(3));
    assert_eq!(chosen([placed(2, Standby, 6, 8), placed(3, Spare, 6, 7)]), to_voter(3));
    // The difference of these weights has no bit among its lower 32.
    assert_eq!(chosen([placed(2, Standby, 6, 1 << 32), placed(3, Spare, 6, 0)]), to_voter(3));
    assert_eq!(chosen([placed(2, Spare, 6, 7), placed(3, Standby, 6, 7)]), to_voter(3));
    assert_eq!(chosen([placed(2, Spare, 6, 7), placed(3, Spare, 6, 7)]), to_voter(2));
    assert_eq!(chosen([offline(2, Spare), offline(3, Spare)]), None);
}

#[test]
fn the_voter_to_give_up_shares_its_domain_then_weighs_more_then_was_last() {
    use Role::Voter;
    let given_up = |others: [Member; 3]| {
        let leader = placed(1, Voter, 1, 99);
        changes(&[&[leader][..], &others].concat(), targets(3, 0))
    };
    let to_spare = |id| vec![(id, Role::Spare)];
    assert_eq!(
        given_up([placed(2, Voter, 1, 0), placed(3, Voter, 2, 9), placed(4, Voter, 3, 9)]),
        to_spare(2)
    );
    assert_eq!(
        given_up([placed(2, Voter, 2, 5), placed(3, Voter, 3, 6), placed(4, Voter, 4, 5)]),
        to_spare(3)
    );
    assert_eq!(
        given_up([placed(2, Voter, 2, 5), placed(3, Voter, 3, 5), placed(4, Voter, 4, 5)]),
        to_spare(4)
    );
}

#[test]
fn a_surplus_voter_becomes_a_missing_stand_by_in_one_step() {
    let members = [member(1, Role::Voter), member(2, Role::Voter), member(3, Role::Spare)];
    assert_eq!(changes(&members, targets(1, 1)), [(2, Role::Standby)]);
}

#[test]
fn an_unreachable_voter_goes_before_its_successor_comes() {
    let members = [
        member(1, Role::Voter),
        member(2, Role::Spare),
        member(3, Role::Standby),
        offline(4, Role::Standby),
        offline(5, Role::Voter),
        member(6, Role::Voter),
    ];
    let expected = [(5, Role::Spare), (4, Role::Spare), (3, Role::Voter), (2, Role::Standby)];
    assert_eq!(changes(&members, targets(3, 1)), expected);
}

#[test]
fn a_leader_that_a_majority_does_not_answer_changes_nothing() {
    let two = [member(1, Role::Voter), offline(2, Role::Voter), member(3, Role::Spare)];
    assert_eq!(changes(&two, targets(3, 0)), []);
    let four =
        [member(1, Role::Voter), member(2, Role::Voter), offline(3, Role::Voter), offline(4, Role::Voter)];
    assert_eq!(changes(&four, targets(3, 0)), []);
}

#[test]
fn a_leader_that_is_no_voter_any_more_changes_nothing() {
    let members = [member(1, Role::Spare), member(2, Role::Voter), member(3, Role::Spare)];
    assert_eq!(next_change(&members, targets(3, 0), LEADER), None);
    assert_eq!(next_change(&members[1..], targets(3, 0), LEADER), None);
    assert_eq!(next_change(&[], targets(3, 0), LEADER), None);
}

#[test]
fn successors_are_online_have_less_than_the_role_and_come_best_first() {
    use Role::{Spare, Standby, Voter};
    let members = [
        placed(1, Voter, 1, 0),
        placed(2, Voter, 2, 0),
        placed(3, Spare, 2, 0),
        placed(4, Standby, 3, 1),
        placed(5, Spare, 1, 0),
        offline(6, Standby),
    ];
    let of = |leaving, role| -> Vec<u64> {
        successors(&members, ServerId(leaving), role).into_iter().map(|id| id.0).collect()
    };
    // The domain of the server that leaves counts as free.
    assert_eq!(of(1, Voter), [5, 4, 3]);
    assert_eq!(of(2, Voter), [3, 4, 5]);
    assert_eq!(of(4, Standby), [3, 5]);
    assert_eq!(of(3, Spare), []);
    assert_eq!(successors(&members[..1], LEADER, Voter), []);
}
