//! Promises of the whole core: rules that no input can reach yet, and properties over arbitrary inputs. The
//! traces of particular situations are in `tests/raft/`.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn options() -> Options {
    Options {
        id: ServerId(1),
        address: "one".into(),
        election_timeout_ms: 3000,
        heartbeat_timeout_ms: 500,
        snapshot_threshold: 4,
        snapshot_trailing: 6,
        trailing_strategy: TrailingStrategy::Static,
        log_memory_bytes: 0,
    }
}

/// Voters with these ids.
fn voters(ids: &[u64]) -> Configuration {
    let server = |id: &u64| Server { id: ServerId(*id), address: format!("s{id}"), role: Role::Voter };
    Configuration { servers: ids.iter().map(server).collect() }
}

fn change(term: u64, configuration: &Configuration) -> Entry {
    Entry { term: Term(term), kind: EntryKind::Change, payload: configuration.encode() }
}

fn command(term: u64, content: u64) -> Entry {
    let payload = Bytes::copy_from_slice(&content.to_le_bytes());
    Entry { term: Term(term), kind: EntryKind::Command, payload }
}

fn start_of(term: u64, entries: Vec<Entry>) -> Start {
    Start { term: Term(term), voted_for: None, snapshot: None, first_index: Index(1), entries }
}

fn started(start: Start) -> Raft {
    let mut raft = Raft::new(options(), 1);
    step(&mut raft, Input::Start(start));
    raft
}

/// Steps at the time of the step before; the input must be accepted.
fn step(raft: &mut Raft, input: Input) -> Outputs {
    let mut out = Outputs::new();
    raft.step(raft.now, input, &mut out).unwrap();
    out
}

fn propose(token: u64, contents: &[u64]) -> Input {
    let commands = contents.iter().map(|content| command(0, *content).payload).collect();
    Input::Propose { token: Token(token), commands }
}

/// Makes a leader of a server that could not become one by itself.
fn force_leader(raft: &mut Raft) {
    let mut leader = Leader::new(raft.now, raft.options.lease_ms(), raft.log.last_index());
    leader.follow_configuration(raft.configurations.current(), raft.options.id, raft.log.last_index());
    raft.standing = Standing::Leader(Box::new(leader));
}

/// Appends a configuration the way a membership change will.
fn append_configuration(raft: &mut Raft, configuration: Configuration) -> Seq {
    let appended = raft.append_as_leader(vec![change(raft.term.0, &configuration)]);
    raft.configurations.push(appended.first_index, configuration);
    let Output::Append { seq, .. } = appended.into_output() else { panic!("not an append") };
    seq
}

#[test]
fn a_leader_among_others_does_not_commit_alone() {
    for ids in [&[1, 2][..], &[1, 2, 3]] {
        let mut raft = started(start_of(1, vec![change(1, &voters(ids))]));
        force_leader(&mut raft);
        step(&mut raft, propose(7, &[1]));
        assert_eq!(step(&mut raft, Input::Persisted { seq: Seq(1) }), [], "{} voters", ids.len());
        assert_eq!(raft.status().commit_index, Index(1));
    }
}

#[test]
fn a_leader_that_does_not_vote_does_not_count_itself() {
    let mut raft = started(start_of(1, vec![change(1, &voters(&[2]))]));
    force_leader(&mut raft);
    step(&mut raft, propose(7, &[1]));
    assert_eq!(step(&mut raft, Input::Persisted { seq: Seq(1) }), []);
}

#[test]
fn the_quorum_is_counted_in_the_configuration_in_force_committed_or_not() {
    let mut raft = started(start_of(1, vec![change(1, &voters(&[1]))]));
    let seq = append_configuration(&mut raft, voters(&[1, 2]));
    assert_eq!(step(&mut raft, Input::Persisted { seq }), []);
    assert_eq!(raft.status().configuration, &voters(&[1, 2]));
}

#[test]
fn entries_of_older_terms_commit_only_with_one_of_the_current_term() {
    // Dissertation figure 3.8: entry 2 is on a quorum, yet another leader may still replace it.
    let entries = vec![change(1, &voters(&[1])), command(1, 1)];
    let mut raft = started(start_of(2, entries));
    raft.commit_index = Index(1);
    let mut out = Outputs::new();
    raft.commit_by_counting(&mut out);
    assert_eq!(out, []);
    step(&mut raft, propose(7, &[2]));
    let out = step(&mut raft, Input::Persisted { seq: Seq(1) });
    assert_eq!(out[0], Output::Commit { up_to: Index(3) });
}

#[test]
fn a_follower_awaits_its_disk_only_when_it_is_handed_the_leadership() {
    let mut raft = started(start_of(1, vec![change(1, &voters(&[1, 2]))]));
    let from = || Peer { id: ServerId(2), address: "s2".into() };
    let (term, index) = (Term(2), Index(2));
    let append = message::AppendEntries {
        term,
        prev_index: Index(1),
        prev_term: Term(1),
        leader_commit: Index(1),
        entries: vec![command(2, 1)],
        stamp: Stamp(0),
    };
    step(&mut raft, Input::Receive { from: from(), message: Message::AppendEntries(append) });
    assert!(!raft.awaits_disk(), "its answer is all that waits");
    let timeout = message::TimeoutNow { term, last_index: index, last_term: term };
    step(&mut raft, Input::Receive { from: from(), message: Message::TimeoutNow(timeout) });
    assert!(raft.awaits_disk());
    step(&mut raft, Input::Persisted { seq: Seq(2) });
    assert_eq!(raft.status().state, State::Candidate);
    assert!(raft.awaits_disk(), "its own vote does not count before");
}

#[test]
fn a_truncated_configuration_is_given_up_for_the_one_before_it() {
    let mut raft = started(start_of(1, vec![change(1, &voters(&[1]))]));
    let seq = append_configuration(&mut raft, voters(&[1, 2]));
    step(&mut raft, propose(7, &[1]));
    let out = step(&mut raft, Input::DiskFailed { seq });
    assert_eq!(out.last(), Some(&Output::ConfigurationChanged { configuration: voters(&[1]) }));
    assert_eq!(raft.status().configuration, &voters(&[1]));
    assert_eq!(raft.status().last_index, Index(1));
}

#[test]
fn a_disk_failure_keeps_what_others_have_committed() {
    let mut raft = started(start_of(1, vec![change(1, &voters(&[1, 2, 3]))]));
    force_leader(&mut raft);
    step(&mut raft, propose(7, &[1]));
    step(&mut raft, propose(8, &[2]));
    // Servers 2 and 3 store entry 2 while our own disk is still writing it.
    raft.advance_commit(Index(2), &mut Outputs::new());
    step(&mut raft, Input::DiskFailed { seq: Seq(1) });
    assert_eq!(raft.status().last_index, Index(2));
    assert!(raft.entry(Index(2)).is_some());
}

#[test]
fn a_snapshot_never_contains_a_configuration_that_is_not_committed_at_its_index() {
    let mut raft = started(start_of(1, vec![change(1, &voters(&[1]))]));
    step(&mut raft, propose(7, &[1, 2, 3]));
    step(&mut raft, Input::Persisted { seq: Seq(1) });
    append_configuration(&mut raft, voters(&[1, 2]));
    let out = step(&mut raft, Input::Applied { index: Index(4) });
    let Some(Output::TakeSnapshot { configuration, configuration_index, .. }) = out.last() else {
        panic!("no snapshot in {out:?}");
    };
    assert_eq!((configuration, *configuration_index), (&voters(&[1]), Index(1)));
}

#[test]
fn time_may_stand_still_but_not_go_back() {
    let mut raft = started(start_of(1, vec![]));
    let mut out = Outputs::new();
    assert_eq!(raft.step(Time(5), Input::Tick, &mut out), Ok(()));
    assert_eq!(raft.step(Time(5), Input::Tick, &mut out), Ok(()));
    let error = StepError::ClockWentBack { before: Time(5), now: Time(4) };
    assert_eq!(raft.step(Time(4), Input::Tick, &mut out), Err(error));
    assert_eq!(raft.deadline(), None);
}

// ---- properties ----

/// Fixed, so that a run can be repeated; `PROPTEST_CASES` widens the search.
fn config() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

fn any_configuration() -> impl Strategy<Value = Configuration> {
    prop_oneof![Just(voters(&[1])), Just(voters(&[1, 2])), Just(voters(&[2])), Just(voters(&[]))]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (0..3u64, any::<u64>()).prop_map(|(term, content)| command(term, content)),
        1 => (0..3u64, any_configuration()).prop_map(|(term, configuration)| change(term, &configuration)),
        1 => (0..3u64).prop_map(|term| Entry { kind: EntryKind::Change, ..command(term, 9) }),
        1 => (0..3u64).prop_map(|term| Entry { kind: EntryKind::Barrier, ..command(term, 0) }),
    ]
}

fn any_index() -> impl Strategy<Value = Index> {
    prop_oneof![9 => 0..12u64, 1 => any::<u64>()].prop_map(Index)
}

fn any_start() -> impl Strategy<Value = Start> {
    let snapshot = (any_index(), 0..3u64, any_configuration(), any_index()).prop_map(
        |(index, term, configuration, configuration_index)| SnapshotPoint {
            index,
            term: Term(term),
            configuration,
            configuration_index,
        },
    );
    let entries = proptest::collection::vec(any_entry(), 0..8);
    (0..4u64, proptest::option::of(snapshot), any_index(), entries).prop_map(
        |(term, snapshot, first_index, entries)| Start {
            term: Term(term),
            voted_for: None,
            snapshot,
            first_index,
            entries,
        },
    )
}

fn any_term() -> impl Strategy<Value = Term> {
    prop_oneof![9 => 0..6u64, 1 => any::<u64>()].prop_map(Term)
}

fn any_message() -> impl Strategy<Value = Message> {
    use message::*;
    let flags = || (any::<bool>(), any::<bool>(), any::<bool>());
    let vote = (any_term(), 0..4u64, any_index(), any_term(), flags()).prop_map(
        |(term, candidate, last_index, last_term, (disrupt_leader, pre_vote, keeps_lease))| {
            let candidate = ServerId(candidate);
            Message::RequestVote(RequestVote {
                term,
                candidate,
                last_index,
                last_term,
                disrupt_leader,
                pre_vote,
                keeps_lease,
            })
        },
    );
    let result =
        (any_term(), flags(), any::<bool>()).prop_map(|(term, (granted, pre, keeps_lease), known)| {
            let pre_vote = known.then_some(pre);
            Message::RequestVoteResult(RequestVoteResult { term, granted, pre_vote, keeps_lease })
        });
    let entries = proptest::collection::vec(any_entry(), 0..4);
    let append = (any_term(), any_index(), 0..3u64, any_index(), entries, any::<u64>()).prop_map(
        |(term, prev_index, prev_term, leader_commit, entries, stamp)| {
            let (prev_term, stamp) = (Term(prev_term), Stamp(stamp));
            Message::AppendEntries(AppendEntries {
                term,
                prev_index,
                prev_term,
                leader_commit,
                entries,
                stamp,
            })
        },
    );
    let append_result = (any_term(), any_index(), any_index(), any::<u64>()).prop_map(
        |(term, rejected, last_index, features)| {
            let features = Features(features);
            Message::AppendEntriesResult(AppendEntriesResult { term, rejected, last_index, features })
        },
    );
    let install = (any_term(), any_index(), any_term(), any_index(), any_configuration()).prop_map(
        |(term, last_index, last_term, configuration_index, configuration)| {
            Message::InstallSnapshot(InstallSnapshot {
                term,
                last_index,
                last_term,
                configuration_index,
                configuration,
                data: SnapshotData::new(Bytes::new()),
            })
        },
    );
    let timeout = (any_term(), any_index(), any_term()).prop_map(|(term, last_index, last_term)| {
        Message::TimeoutNow(TimeoutNow { term, last_index, last_term })
    });
    // Boxed, since the generators of such unions would otherwise fill the stack of a test.
    prop_oneof![
        1 => vote.boxed(),
        3 => result.boxed(),
        4 => append.boxed(),
        3 => append_result.boxed(),
        1 => install.boxed(),
        1 => timeout.boxed(),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let role = prop_oneof![Just(Role::Voter), Just(Role::Standby), Just(Role::Spare)];
    prop_oneof![
        (0..5u64, "[a-z\\x00]{0,3}").prop_map(|(id, address)| Change::Add { id: ServerId(id), address }),
        (0..5u64, role).prop_map(|(id, role)| Change::Assign { id: ServerId(id), role }),
        (0..5u64).prop_map(|id| Change::Remove { id: ServerId(id) }),
    ]
}

/// What comes from other servers, or is about them.
fn any_cluster_input() -> impl Strategy<Value = Input> {
    let peer = || (0..4u64).prop_map(|id| Peer { id: ServerId(id), address: format!("s{id}") });
    let id = || (0..4u64).prop_map(ServerId);
    let token = || any::<u64>().prop_map(Token);
    prop_oneof![
        12 => (peer(), any_message()).prop_map(|(from, message)| Input::Receive { from, message }).boxed(),
        1 => id().prop_map(|id| Input::PeerUnreachable { id }),
        1 => id().prop_map(|leader| Input::ConnectionLost { leader }),
        1 => token().prop_map(|token| Input::Read { token }),
        1 => (token(), any_change()).prop_map(|(token, change)| Input::Change { token, change }),
        1 => (token(), proptest::option::of(id())).prop_map(|(token, to)| Input::Transfer { token, to }),
        1 => (id(), any::<bool>()).prop_map(|(to, ok)| Input::SnapshotSent { to, ok }),
        1 => (any_index(), any::<bool>()).prop_map(|(index, ok)| Input::SnapshotInstalled { index, ok }),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    let seq = || prop_oneof![9 => 0..10u64, 1 => any::<u64>()].prop_map(Seq);
    let payload = (0..3usize).prop_map(|words| Bytes::from(vec![1; words * 8 + words / 2]));
    let commands = proptest::collection::vec(payload, 0..4);
    prop_oneof![
        1 => any_start().prop_map(Input::Start).boxed(),
        20 => any_cluster_input().boxed(),
        3 => Just(Input::Tick),
        6 => seq().prop_map(|seq| Input::Persisted { seq }),
        1 => seq().prop_map(|seq| Input::DiskFailed { seq }),
        6 => (any::<u64>(), commands)
            .prop_map(|(token, commands)| Input::Propose { token: Token(token), commands }),
        4 => any::<u64>().prop_map(|token| Input::Barrier { token: Token(token) }),
        6 => any_index().prop_map(|index| Input::Applied { index }),
        3 => (any_index(), 0..200u64)
            .prop_map(|(index, size_bytes)| Input::SnapshotTaken { index, size_bytes }),
        2 => any_index().prop_map(|index| Input::SnapshotFailed { index }),
    ]
}

/// Mostly scripts that begin with a start that succeeds, or nothing would happen in them.
fn any_script() -> impl Strategy<Value = Vec<Input>> {
    let sole_voter = start_of(2, vec![change(1, &voters(&[1])), command(1, 1)]);
    let one_of_two = start_of(2, vec![change(1, &voters(&[1, 2])), command(1, 1)]);
    let first = prop_oneof![
        2 => Just(Input::Start(sole_voter)),
        3 => Just(Input::Start(one_of_two)),
        1 => any_input(),
    ];
    (first, proptest::collection::vec(any_input(), 0..60)).prop_map(|(first, mut script)| {
        script.insert(0, first);
        script
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_input_in_any_state_yields_outputs_or_an_error_that_changes_nothing(
        script in any_script(),
        dynamic in any::<bool>(),
    ) {
        let trailing_strategy = if dynamic { TrailingStrategy::Dynamic } else { TrailingStrategy::Static };
        let mut raft = Raft::new(Options { trailing_strategy, ..options() }, 1);
        let mut out = Outputs::new();
        // Long enough apart for timeouts to pass.
        for (now, input) in (0..).step_by(400).map(Time).zip(script) {
            let before = format!("{raft:?}");
            let awaits_disk = raft.awaits_disk() || !matches!(input, Input::Persisted { .. });
            out.clear();
            // Never a panic: the core's own assertions are part of what is tested here.
            if raft.step(now, input.clone(), &mut out).is_err() {
                prop_assert_eq!(&out, &[]);
                prop_assert_eq!(before, format!("{raft:?}"), "an error changed the server: {:?}", input);
            }
            let can_wait = |output: &Output| matches!(output, Output::TakeSnapshot { .. });
            prop_assert!(awaits_disk || out.iter().all(can_wait), "somebody waited for {:?}", out);
        }
    }

    #[test]
    fn the_same_inputs_produce_the_same_outputs(script in any_script()) {
        let run = || {
            let mut raft = Raft::new(options(), 1);
            let mut out = Outputs::new();
            let results: Vec<_> = (0..).map(Time).zip(script.clone())
                .map(|(now, input)| raft.step(now, input, &mut out))
                .collect();
            (results, out)
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn what_was_completed_or_committed_survives_every_crash(
        script in proptest::collection::vec(any_event(), 1..120),
    ) {
        let mut machine = Machine::boot();
        for event in script {
            machine.happen(event);
        }
    }
}

/// What happens to a server with a driver that keeps the contract.
#[derive(Debug, Clone)]
enum Event {
    Propose {
        commands: usize,
    },
    Barrier,
    /// The disk makes some requests durable and reports the last of them.
    Sync {
        requests: usize,
    },
    /// Some more requests become durable; before the report, or after a failure, the power goes.
    Crash {
        requests: usize,
        trailing: u64,
    },
    DiskFails,
    Applied,
    SnapshotEnds {
        taken: bool,
    },
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1..4usize).prop_map(|commands| Event::Propose { commands }),
        3 => Just(Event::Barrier),
        6 => (1..4usize).prop_map(|requests| Event::Sync { requests }),
        2 => (0..4usize, 0..8u64).prop_map(|(requests, trailing)| Event::Crash { requests, trailing }),
        1 => Just(Event::DiskFails),
        5 => Just(Event::Applied),
        2 => any::<bool>().prop_map(|taken| Event::SnapshotEnds { taken }),
    ]
}

/// A server, its disk, and what the world was told.
struct Machine {
    raft: Raft,
    /// The durable log from index 1 on.
    disk: Vec<Entry>,
    snapshot: Option<SnapshotPoint>,
    /// Requests the disk has not carried out.
    queue: Vec<(Seq, Index, Vec<Entry>)>,
    disk_failed: bool,
    taking: Option<SnapshotPoint>,
    /// Every entry ever committed, from index 1 on.
    committed: Vec<Entry>,
    /// Tokens of this run that wait for their completion, in order.
    waiting: Vec<Token>,
    next_token: u64,
}

impl Machine {
    fn boot() -> Machine {
        let mut machine = Machine {
            raft: Raft::new(options(), 1),
            disk: vec![change(1, &voters(&[1]))],
            snapshot: None,
            queue: Vec::new(),
            disk_failed: false,
            taking: None,
            committed: Vec::new(),
            waiting: Vec::new(),
            next_token: 1,
        };
        machine.restart(0);
        machine
    }

    fn restart(&mut self, trailing: u64) {
        self.raft = Raft::new(options(), 1);
        self.queue.clear();
        self.waiting.clear();
        self.taking = None;
        self.disk_failed = false;
        let snapshot_index = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index.0);
        let dropped = snapshot_index.saturating_sub(trailing);
        self.input(Input::Start(Start {
            snapshot: self.snapshot.clone(),
            first_index: Index(dropped + 1),
            ..start_of(1, self.disk[dropped as usize..].to_vec())
        }));
        assert_eq!(self.raft.status().state, State::Leader);
        assert_eq!(self.raft.status().commit_index.0, self.disk.len() as u64);
        assert_eq!(self.committed, self.disk);
    }

    fn happen(&mut self, event: Event) {
        let token = Token(self.next_token);
        self.next_token += 1;
        match event {
            Event::Propose { commands } => {
                self.waiting.push(token);
                let contents: Vec<u64> = (0..commands as u64).map(|n| token.0 * 10 + n).collect();
                self.input(propose(token.0, &contents));
            }
            Event::Barrier => {
                self.waiting.push(token);
                let last_index = self.raft.status().last_index;
                self.input(Input::Barrier { token });
                if !self.waiting.contains(&token) && self.raft.status().state == State::Leader {
                    assert_eq!(self.raft.status().applied_index, last_index);
                }
            }
            Event::Sync { requests } => {
                if let Some(seq) = self.write(requests) {
                    self.input(Input::Persisted { seq });
                }
            }
            Event::Crash { requests, trailing } => {
                self.write(requests);
                self.restart(trailing);
            }
            Event::DiskFails => {
                if let Some((seq, ..)) = self.queue.first().filter(|_| !self.disk_failed) {
                    let seq = *seq;
                    self.disk_failed = true;
                    self.input(Input::DiskFailed { seq });
                    assert_eq!(self.waiting, [], "somebody was left waiting");
                }
            }
            Event::Applied => {
                let index = self.raft.status().commit_index;
                self.input(Input::Applied { index });
            }
            Event::SnapshotEnds { taken } => {
                let Some(point) = self.taking.take() else { return };
                let index = point.index;
                if taken {
                    self.snapshot = Some(point);
                    self.input(Input::SnapshotTaken { index, size_bytes: 64 });
                } else {
                    self.input(Input::SnapshotFailed { index });
                }
            }
        }
    }

    /// Makes up to `requests` durable, in order. Returns the last of them.
    fn write(&mut self, requests: usize) -> Option<Seq> {
        if self.disk_failed {
            return None;
        }
        let mut last = None;
        for (seq, first_index, entries) in self.queue.drain(..requests.min(self.queue.len())) {
            assert_eq!(first_index.0, self.disk.len() as u64 + 1, "the disk was given a gap");
            self.disk.extend(entries);
            last = Some(seq);
        }
        last
    }

    fn input(&mut self, input: Input) {
        for output in step(&mut self.raft, input) {
            match output {
                Output::Append { first_index, entries, seq } => self.queue.push((seq, first_index, entries)),
                Output::Commit { up_to } => self.commit(up_to),
                Output::Complete { token, result } => {
                    assert_eq!(self.waiting.first(), Some(&token), "completions are in log order");
                    self.waiting.remove(0);
                    match result {
                        Ok(index) => assert!(index.0 <= self.committed.len() as u64, "completed too early"),
                        Err(_) => assert!(self.disk_failed),
                    }
                }
                Output::TakeSnapshot { index, term, configuration, configuration_index } => {
                    assert!(self.taking.is_none() && !self.disk_failed);
                    self.taking = Some(SnapshotPoint { index, term, configuration, configuration_index });
                }
                Output::Accepted { .. }
                | Output::RoleChanged { .. }
                | Output::ConfigurationChanged { .. } => {}
                Output::PersistVote { .. }
                | Output::Truncate { .. }
                | Output::Send { .. }
                | Output::SendSnapshot { .. }
                | Output::ReadEntries { .. }
                | Output::InstallSnapshot { .. } => panic!("a sole voter needs no {output:?}"),
            }
        }
    }

    /// Commits must be durable, and the same entries in every run.
    fn commit(&mut self, up_to: Index) {
        assert!(up_to.0 <= self.disk.len() as u64, "{up_to} was committed before it was durable");
        let applied = self.raft.status().applied_index.0;
        for index in applied + 1..=up_to.0 {
            let entry = self.raft.entry(Index(index)).expect("an entry to apply is in memory");
            match self.committed.get(index as usize - 1) {
                Some(committed) => assert_eq!(committed, entry, "committed entry {index} changed"),
                None => self.committed.push(entry.clone()),
            }
        }
    }
}
