//! Which server should have which role: what role management changes next, and who takes over from a server
//! that leaves. Pure: decided from the configuration, from who answered, and from the targets.
//!
//! The rules, in this order:
//!
//! 1. A server that does not answer becomes a spare.
//! 2. Too few voters: of those that answer, the best other server becomes one.
//! 3. Too many voters: the worst becomes a spare, or a stand-by if there are too few of them; never the
//!    leader.
//! 4. The same for stand-bys, which come from the spares and go back there.
//!
//! Better is who shares its failure domain with fewer servers that have the role; then who weighs less; then
//! who is closer to the role (a stand-by has the log already); then who was added first.
//!
//! Every step leaves the voters that answer a quorum. Without one nothing is changed at all: a leader that a
//! majority does not answer is about to lose its leadership, or has a fault of its own, and the fewer voters
//! it would go on with might be itself alone.

use crate::raft::{Role, ServerId};

/// What a server tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Servers with the same number are likely to fail together.
    pub failure_domain: u64,
    /// Servers with less weight are preferred.
    pub weight: u64,
}

/// A server of the configuration, and whether it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Identity.
    pub id: ServerId,
    /// Its role.
    pub role: Role,
    /// Its answer, if there was one.
    pub online: Option<Metadata>,
}

/// How many servers should have a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// Voters; at least the leader stays one.
    pub voters: usize,
    /// Stand-bys.
    pub standbys: usize,
}

/// A server and the role that it should get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    /// The server.
    pub id: ServerId,
    /// Its new role.
    pub role: Role,
}

/// What the leader should change next; `None` if all is as it should be, or cannot be made so.
pub fn next_change(members: &[Member], targets: Targets, leader: ServerId) -> Option<RoleChange> {
    let is_voter = |member: &&Member| member.role == Role::Voter;
    let voters = members.iter().filter(is_voter).count();
    let online = members.iter().filter(is_voter).filter(|voter| voter.online.is_some()).count();
    let leader_votes = members.iter().any(|m| m.id == leader && m.role == Role::Voter && m.online.is_some());
    if !leader_votes || online < voters / 2 + 1 {
        return None;
    }
    let planned = plan(members, targets, leader);
    let changes = members.iter().zip(planned).filter(|(member, role)| member.role != *role);
    let (member, role) = changes.min_by_key(|(member, role)| urgency(member, *role))?;
    Some(RoleChange { id: member.id, role })
}

/// The servers that could take over `role` from `leaving`, best first.
pub fn successors(members: &[Member], leaving: ServerId, role: Role) -> Vec<ServerId> {
    let mut plan = Plan::new(members);
    plan.roles.iter_mut().zip(members).filter(|(_, m)| m.id == leaving).for_each(|(r, _)| *r = Role::Spare);
    let mut successors: Vec<usize> =
        plan.candidates(role).filter(|&position| members[position].id != leaving).collect();
    successors.sort_by_key(|&position| plan.rank(position, role));
    successors.into_iter().map(|position| members[position].id).collect()
}

/// Voters that do not answer weaken the quorum, so they go first; a new voter comes before one is given up.
fn urgency(member: &Member, planned: Role) -> u8 {
    match (member.role, planned) {
        (Role::Voter, _) if member.online.is_none() => 0,
        (_, _) if member.online.is_none() => 1,
        (_, Role::Voter) => 2,
        (Role::Voter, _) => 3,
        _ => 4,
    }
}

fn plan(members: &[Member], targets: Targets, leader: ServerId) -> Vec<Role> {
    let mut plan = Plan::new(members);
    for (role, target) in [(Role::Voter, targets.voters), (Role::Standby, targets.standbys)] {
        plan.grow(role, target);
        plan.shrink(role, target, leader);
    }
    plan.roles
}

/// The roles that the members should have, in their order.
struct Plan<'a> {
    members: &'a [Member],
    roles: Vec<Role>,
}

impl Plan<'_> {
    /// Everybody keeps the role, except who does not answer.
    fn new(members: &[Member]) -> Plan<'_> {
        let role = |member: &Member| member.online.map_or(Role::Spare, |_| member.role);
        Plan { members, roles: members.iter().map(role).collect() }
    }

    fn holders(&self, role: Role) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(move |&position| self.roles[position] == role)
    }

    /// Who answers and could get the role.
    fn candidates(&self, role: Role) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(move |&position| {
            let has_less = match role {
                Role::Voter => self.roles[position] != Role::Voter,
                Role::Standby => self.roles[position] == Role::Spare,
                Role::Spare => false,
            };
            has_less && self.members[position].online.is_some()
        })
    }

    /// Less is better.
    fn rank(&self, position: usize, role: Role) -> (usize, u64, u8, usize) {
        let metadata = |position: usize| self.members[position].online.unwrap_or_default();
        let Metadata { failure_domain, weight } = metadata(position);
        let near = self.holders(role).filter(|&other| metadata(other).failure_domain == failure_domain);
        let distance = match self.members[position].role {
            Role::Voter => 0,
            Role::Standby => 1,
            Role::Spare => 2,
        };
        (near.count(), weight, distance, position)
    }

    fn grow(&mut self, role: Role, target: usize) {
        while self.holders(role).count() < target {
            let best = self.candidates(role).min_by_key(|&position| self.rank(position, role));
            let Some(best) = best else { return };
            self.roles[best] = role;
        }
    }

    fn shrink(&mut self, role: Role, target: usize, leader: ServerId) {
        while self.holders(role).count() > target {
            let others = self.holders(role).filter(|&position| self.members[position].id != leader);
            let Some(worst) = others.max_by_key(|&position| self.rank(position, role)) else { return };
            self.roles[worst] = Role::Spare;
        }
    }
}

#[cfg(test)]
#[path = "roles_test.rs"]
mod tests;
