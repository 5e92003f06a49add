//! The leader's side of replication: what is sent when, and what the answers mean (dissertation 3.5, 10.2).
//! Part of the core.

use super::input::Peer;
use super::leader::Leader;
use super::lease::Leases;
use super::log::Log;
use super::message::{AppendEntries, AppendEntriesResult, Message};
use super::output::{Output, Outputs};
use super::planted::Bug;
use super::progress::{Mode, Progress};
use super::types::{Entry, Index, Role, ServerId, Stamp, Term, Time};
use super::{Raft, Standing};
use crate::config::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, INSTALL_SNAPSHOT_TIMEOUT_MS};

/// What an entry costs on the wire besides its payload.
const ENTRY_HEADER_SIZE: usize = 16;

impl Raft {
    /// Sends what is due to every server that replicates.
    pub(super) fn replicate(&mut self, out: &mut Outputs) {
        self.replicate_to_all(false, out);
    }

    /// Shows every server that replicates that this leader is there, whatever there is to send.
    pub(super) fn heartbeat(&mut self, out: &mut Outputs) {
        self.replicate_to_all(true, out);
    }

    fn replicate_to_all(&mut self, heartbeat: bool, out: &mut Outputs) {
        for n in 0..self.configurations.current().servers.len() {
            let id = self.configurations.current().servers[n].id;
            self.replicate_to(id, heartbeat, out);
        }
    }

    /// Sends to one server what is due. With `heartbeat`, at least one message.
    pub(super) fn replicate_to(&mut self, id: ServerId, heartbeat: bool, out: &mut Outputs) {
        let Standing::Leader(leader) = &mut self.standing else { return };
        let Some(server) = self.configurations.current().get(id) else { return };
        let promoted = leader.promotion.as_ref().is_some_and(|promotion| promotion.id == id);
        if id == self.options.id || (server.role == Role::Spare && !promoted) {
            return;
        }
        let Leader { progress, leases, .. } = &mut **leader;
        let Some(progress) = progress.get_mut(&id) else { return };
        let sender = Sender {
            log: &self.log,
            now: self.now,
            term: self.term,
            commit_index: self.commit_index,
            heartbeat_ms: self.options.heartbeat_timeout_ms,
            reading: self.reading.contains_key(&id),
        };
        let reading = &mut self.reading;
        sender.run(progress, leases, heartbeat, |output| {
            let address = server.address.clone();
            out.push(match output {
                ToSend::Append(message) => {
                    Output::Send { to: id, address, message: Message::AppendEntries(message), after: None }
                }
                ToSend::Snapshot(index) => Output::SendSnapshot { to: id, address, term: self.term, index },
                ToSend::FromDisk { first, last } => {
                    reading.insert(id, first);
                    Output::ReadEntries { to: id, first, last }
                }
            });
        });
    }

    pub(super) fn receive_append_result(
        &mut self,
        from: &Peer,
        result: &AppendEntriesResult,
        out: &mut Outputs,
    ) {
        self.note_lease_promise(from.id, result.features.stamp().is_some());
        if result.term > self.term {
            self.adopt_term(result.term, out);
            return;
        }
        let counts_c_servers = self.has(Bug::LeaseCountsCServers);
        let from_arrival = self.has(Bug::LeaseFromArrival);
        let ignores_refusal = self.has(Bug::PipelineIgnoresRefusal);
        let stale = result.term < self.term && !self.has(Bug::StaleResultCounts);
        let Standing::Leader(leader) = &mut self.standing else { return };
        // A sole voter leads without an entry of its own.
        let own_entries = match self.log.term_at(leader.term_start) {
            Some(term) if term < self.term => leader.term_start.next(),
            _ => leader.term_start,
        };
        if stale || !self.configurations.current().contains(from.id) {
            return;
        }
        let stamp = match result.features.stamp() {
            None if counts_c_servers => Some(leader.leases.newest()),
            Some(_) if from_arrival => Some(leader.leases.stamp(self.now)),
            stamp => stamp,
        };
        let Some(progress) = leader.progress.get_mut(&from.id) else { return };
        progress.answered();
        progress.counted = stamp.is_none();
        if let Some(stamp) = stamp {
            // Stamps that were never given out prove nothing.
            progress.stamp = progress.stamp.max(leader.leases.known(stamp));
        }
        if progress.marker_answered(result.rejected) {
            // It says nothing about the log.
        } else if result.rejected > Index(0) {
            if progress.mode == Mode::Pipeline && ignores_refusal {
                return;
            }
            let heartbeat_ms = self.options.heartbeat_timeout_ms;
            // A heartbeat that was refused where the snapshot ends does not refuse the snapshot.
            let of_heartbeat = stamp.is_some_and(|stamp| stamp > Stamp(0));
            if !(of_heartbeat && matches!(progress.mode, Mode::Snapshot { .. })) {
                progress.rejected(self.now, heartbeat_ms, result.rejected, result.last_index);
            }
        } else {
            // The follower's log may be longer than ours, of an older term.
            let last = result.last_index.min(self.log.last_index());
            let news = match stamp {
                Some(_) => progress.succeeded(last),
                // C servers say what they store, even if it is not ours.
                None => progress.succeeded_with_tail(last, own_entries),
            };
            if news {
                self.commit_by_counting(out);
            }
            self.promote_if_caught_up(from.id, out);
        }
        self.confirm_reads(out);
        self.time_out_target(out);
        self.replicate_to(from.id, false, out);
    }

    pub(super) fn peer_unreachable(&mut self, id: ServerId) {
        if let Standing::Leader(leader) = &mut self.standing
            && let Some(progress) = leader.progress.get_mut(&id)
        {
            progress.lost();
        }
    }

    pub(super) fn snapshot_sent(&mut self, to: ServerId, ok: bool) {
        if let Standing::Leader(leader) = &mut self.standing
            && let Some(progress) = leader.progress.get_mut(&to)
            && matches!(progress.mode, Mode::Snapshot { .. })
        {
            if ok { progress.snapshot_sent() } else { progress.lost() }
        }
    }

    /// Everything a leader does by the clock.
    pub(super) fn leader_tick(&mut self, out: &mut Outputs) {
        self.check_quorum(out);
        self.promotion_tick(out);
        self.read_tick(out);
        if let Standing::Leader(leader) = &mut self.standing {
            for progress in leader.progress.values_mut() {
                if let Mode::Snapshot { since, .. } = progress.mode
                    && self.now.0 >= since.0 + INSTALL_SNAPSHOT_TIMEOUT_MS
                {
                    progress.lost();
                }
            }
        }
        self.replicate(out);
    }

    /// A leader that a quorum has not answered for an election timeout steps down, so that its clients look
    /// for another one (dissertation 6.2).
    fn check_quorum(&mut self, out: &mut Outputs) {
        let Standing::Leader(leader) = &mut self.standing else { return };
        if self.now.0 < leader.quorum_checked.0 + self.options.election_timeout_ms {
            return;
        }
        leader.quorum_checked = self.now;
        let configuration = self.configurations.current();
        let own_id = self.options.id;
        let heard = |id: ServerId| id == own_id || leader.progress.get(&id).is_some_and(|p| p.recent);
        let contacts = configuration.voters().filter(|voter| heard(voter.id)).count();
        let quorum = configuration.quorum();
        for progress in leader.progress.values_mut() {
            if !std::mem::take(&mut progress.recent) {
                progress.forget_fetched();
            }
        }
        if contacts < quorum {
            self.step_down(out);
        }
    }

    /// When a leader has something to do by the clock.
    pub(super) fn leader_deadline(&self, leader: &Leader) -> Option<Time> {
        let configuration = self.configurations.current();
        let own_id = self.options.id;
        let heartbeats = configuration.servers.iter().filter_map(|server| {
            let promoted = leader.promotion.as_ref().is_some_and(|promotion| promotion.id == server.id);
            if server.id == own_id || (server.role == Role::Spare && !promoted) {
                return None;
            }
            let last_send = leader.progress.get(&server.id)?.last_send;
            Some(last_send.map_or(self.now, |sent| Time(sent.0 + self.options.heartbeat_timeout_ms)))
        });
        let quorum_check = (!configuration.is_sole_voter(own_id))
            .then_some(Time(leader.quorum_checked.0 + self.options.election_timeout_ms));
        heartbeats.chain(quorum_check).chain(self.promotion_deadline(leader)).min()
    }
}

enum ToSend {
    Append(AppendEntries),
    Snapshot(Index),
    /// Once these are in memory.
    FromDisk {
        first: Index,
        last: Index,
    },
}

/// What a message to a follower is made from.
struct Sender<'a> {
    log: &'a Log,
    now: Time,
    term: Term,
    commit_index: Index,
    heartbeat_ms: u64,
    /// Entries for this follower are being read back.
    reading: bool,
}

impl Sender<'_> {
    fn run(
        &self,
        progress: &mut Progress,
        leases: &mut Leases,
        heartbeat: bool,
        mut send: impl FnMut(ToSend),
    ) {
        let due = |sent: Time| self.now.0 >= sent.0 + self.heartbeat_ms;
        let again = progress.last_send.is_none_or(due);
        let mut heartbeat = heartbeat || again;
        let mut reading = self.reading;
        if again && progress.counted && progress.needs_marker() {
            let index = progress.send_marker(self.now);
            send(ToSend::Append(self.message(index, self.term, Vec::new(), leases)));
            return;
        }
        loop {
            let may_send = progress.may_send();
            let probe = may_send && matches!(progress.mode, Mode::Probe { .. });
            let news = may_send && progress.next <= self.log.last_index();
            // A probe is worth sending without entries: its answer tells where the logs agree.
            if !(heartbeat || probe || news) {
                return;
            }
            let in_snapshot = matches!(progress.mode, Mode::Snapshot { .. });
            let prev = self.prev(progress).filter(|_| !in_snapshot && !self.replaces_by_snapshot(progress));
            if prev.is_none() && progress.may_send_snapshot(self.now) {
                progress.send_snapshot(self.now, self.log.snapshot_index());
                send(ToSend::Snapshot(self.log.snapshot_index()));
                continue;
            }
            // What a probe carries is sent again when an answer is overdue, not with every heartbeat.
            let pipeline = progress.mode == Mode::Pipeline;
            let with_entries = may_send || (again && !pipeline);
            let Some((prev_index, prev_term)) = prev.filter(|_| with_entries || pipeline) else {
                // What the server needs is gone or on its way. A heartbeat shows that we are there, and
                // whether it is, which is worth knowing before a snapshot is sent. It attaches to an entry of
                // our term, so that a C server that agrees has nothing of others behind it.
                if heartbeat || probe {
                    let (prev_index, prev_term) = (self.log.last_index(), self.log.last_term());
                    progress.sent_heartbeat(self.now, prev_index);
                    send(ToSend::Append(self.message(prev_index, prev_term, Vec::new(), leases)));
                }
                return;
            };
            let from_memory = !with_entries || self.has_in_memory(progress);
            if !from_memory && !reading && progress.may_read(self.now) {
                reading = true;
                let last = Index(self.log.first_whole().0 - 1);
                send(ToSend::FromDisk { first: progress.next, last });
            }
            if !from_memory && !heartbeat {
                return;
            }
            let with_entries = with_entries && from_memory;
            let (entries, size) = if with_entries { self.batch(progress) } else { (Vec::new(), 0) };
            progress.sent(self.now, Index(prev_index.0 + entries.len() as u64), size);
            send(ToSend::Append(self.message(prev_index, prev_term, entries, leases)));
            heartbeat = false;
        }
    }

    /// Where the next message attaches; `None` if the entries behind it are only in the snapshot.
    fn prev(&self, progress: &Progress) -> Option<(Index, Term)> {
        let index = Index(progress.next.0 - 1);
        if progress.next < self.log.first_index() {
            return None;
        }
        self.log.term_at(index).map(|term| (index, term))
    }

    /// Whether the snapshot has what cannot be read back.
    fn replaces_by_snapshot(&self, progress: &Progress) -> bool {
        progress.reads_in_vain()
            && self.log.is_evicted(progress.next)
            && progress.next <= self.log.snapshot_index()
    }

    fn has_in_memory(&self, progress: &Progress) -> bool {
        !self.log.is_evicted(progress.next) || !progress.fetched().is_empty()
    }

    /// The entries of the next message, and their size.
    fn batch(&self, progress: &Progress) -> (Vec<Entry>, usize) {
        match progress.fetched() {
            [] => batch(self.log.entries_from(progress.next)),
            fetched => batch(fetched.iter()),
        }
    }

    fn message(
        &self,
        prev_index: Index,
        prev_term: Term,
        entries: Vec<Entry>,
        leases: &mut Leases,
    ) -> AppendEntries {
        let stamp = leases.stamp(self.now);
        // A C server applies whatever it stores up to this index, also entries of others behind the message.
        let end = Index(prev_index.0 + entries.len() as u64);
        AppendEntries {
            term: self.term,
            prev_index,
            prev_term,
            leader_commit: self.commit_index.min(end),
            entries,
            stamp,
        }
    }
}

/// The first of these entries, as many as one message may have, and their size.
fn batch<'a>(from: impl Iterator<Item = &'a Entry>) -> (Vec<Entry>, usize) {
    let mut size = 0;
    let mut entries = Vec::new();
    for entry in from.take(APPEND_ENTRIES_MAX) {
        let more = entry.payload.len() + ENTRY_HEADER_SIZE;
        if !entries.is_empty() && size + more > APPEND_BYTES_MAX {
            break;
        }
        size += more;
        entries.push(entry.clone());
    }
    (entries, size)
}
