//! Runs the scripts in `tests/raft/`: commands to one Raft core, and the trace they must produce.
//!
//! A script is a sequence of blocks. A block is commands, a line `----`, and the expected trace up to the
//! next empty line. Lines that start with `#` explain. `UPDATE_SCENARIOS=1 cargo test --test raft_scenarios`
//! rewrites the traces; review the difference before committing it.
//!
//! ```text
//! new id=1 threshold=4 trailing=2 strategy=dynamic     a server; every key but id has a default
//!     memory=0                                             bytes of the log that may be in memory
//! start term=2 vote=1 first=5                          what its disk holds; indented lines follow:
//!   snapshot 4 t1 change@1 1@one/voter                   last index, term, configuration's index, servers
//!   5 t2 command aa                                      one entry of the log: index, term, kind, content
//!   6 t2 barrier
//!   7 t2 change 1@one/voter 2@two/standby
//!   8 t2 change garbage                                  a configuration that cannot be read
//! propose 7 aa bb                                      token, commands
//! barrier 8                                            token
//! persisted 1 / disk-failed 1                          request
//! disk-full 1 5                                        request, last index on disk
//! applied 3 / snapshot-taken 3 64 / snapshot-failed 3  index, size in bytes
//! tick / expire                                        expire: at the deadline
//! at 3000                                              time of the next input; else a millisecond later
//! from 2 request-vote t5 7/t4 disrupt                  messages; also request-pre-vote; c: from a C server
//! from 2 vote t5 granted                               also pre-vote, denied
//! from 2 append t5 7/t4 commit=6 stamp=3               indented lines follow: one entry each, without index
//! from 2 append-result t5 last=8 stamp=3               rejected=7 refuses
//! from 2 install t5 7/t4 change@1 1@one/voter
//! from 2 timeout-now t5 7/t4
//! unreachable 2 / connection-lost 2
//! read 9 / transfer 9 2                                token, and to whom
//! change 9 add 2 two / change 9 assign 2 voter / change 9 remove 2
//! snapshot-sent 2 ok / snapshot-installed 7 ok         or failed
//! entries-read 2                                       for whom; indented lines follow: one entry each
//! status / log / deadline                              prints the server
//! ```

// A broken script ends the test; that is what a panic is for here.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use dqlite::raft::message::{
    AppendEntries, AppendEntriesResult, Features, InstallSnapshot, RequestVote, RequestVoteResult,
    SnapshotData, TimeoutNow,
};
use dqlite::raft::{
    Change, Configuration, Entry, EntryKind, Index, Input, Message, Options, Output, Outputs, Peer, Raft,
    Role, Seq, Server, ServerId, SnapshotPoint, Stamp, Start, State, Term, Time, Token, TrailingStrategy,
};
use std::fmt::Write;
use std::path::Path;

#[test]
fn every_script_produces_its_trace() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/raft");
    let mut scripts: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut failures = String::new();
    for path in scripts {
        let script = std::fs::read_to_string(&path).unwrap();
        let traced = run_script(&path, &script);
        if traced == script {
            continue;
        }
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&path, traced).unwrap();
        } else {
            let line =
                script.lines().zip(traced.lines()).take_while(|(expected, got)| expected == got).count();
            let got = traced.lines().nth(line).unwrap_or("(end of script)");
            let expected = script.lines().nth(line).unwrap_or("(end of script)");
            writeln!(failures, "{}:{}\n  expected: {expected}\n  got:      {got}", path.display(), line + 1)
                .unwrap();
        }
    }
    assert!(failures.is_empty(), "\n{failures}UPDATE_SCENARIOS=1 rewrites the traces\n");
}

/// Copies the script, with the trace of each block in place of the expected one.
fn run_script(path: &Path, script: &str) -> String {
    let mut server = None;
    let mut result = String::new();
    let mut lines = script.lines().enumerate().peekable();
    let mut trace = String::new();
    while let Some((number, line)) = lines.next() {
        writeln!(result, "{line}").unwrap();
        if line == "----" {
            while lines.next_if(|(_, line)| !line.is_empty()).is_some() {}
            result.push_str(if trace.is_empty() { "(nothing)\n" } else { &trace });
            trace.clear();
        } else if !line.is_empty() && !line.starts_with('#') {
            let mut details = Vec::new();
            while let Some((_, detail)) = lines.next_if(|(_, line)| line.starts_with("  ")) {
                writeln!(result, "{detail}").unwrap();
                details.push(detail.trim());
            }
            let at = format!("{}:{}: {line}", path.display(), number + 1);
            run_command(&mut server, line, &details, &mut trace).unwrap_or_else(|why| panic!("{at}: {why}"));
        }
    }
    assert!(trace.is_empty(), "{}: the last block has no ----", path.display());
    result
}

/// A server and the time of its last input: every input comes a millisecond after the one before.
struct Simulated {
    raft: Raft,
    now: Time,
    /// Time of the next input, if it was set.
    next: Option<Time>,
}

fn run_command(
    server: &mut Option<Simulated>,
    line: &str,
    details: &[&str],
    trace: &mut String,
) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words[0] == "new" {
        *server =
            Some(Simulated { raft: Raft::new(parse_options(&words[1..])?, 1), now: Time(0), next: None });
        return Ok(());
    }
    let server = server.as_mut().ok_or("no server yet")?;
    match words[0] {
        "at" => {
            let now = Time(number(words.get(1))?);
            server.next = Some(now);
        }
        "deadline" => {
            let deadline = server.raft.deadline().map_or("none".into(), |time| time.to_string());
            writeln!(trace, "deadline {deadline}").unwrap();
        }
        "status" => trace.push_str(&print_status(&server.raft)),
        "log" => {
            let first = server.raft.status().first_index.0;
            for index in first..=server.raft.status().last_index.0 {
                let whole = server.raft.entry(Index(index)).map(print_entry);
                let term = server.raft.term_at(Index(index)).unwrap();
                writeln!(trace, "{index} {}", whole.unwrap_or_else(|| format!("t{term} on disk"))).unwrap();
            }
        }
        _ => {
            let input = if words[0] == "expire" {
                server.next = Some(server.raft.deadline().ok_or("there is no deadline")?.max(server.now));
                Input::Tick
            } else {
                parse_input(&words, details)?
            };
            let mut outputs = Outputs::new();
            server.now = server.next.take().unwrap_or(server.now.next());
            if let Err(error) = server.raft.step(server.now, input, &mut outputs) {
                writeln!(trace, "error: {error}").unwrap();
            }
            for output in &outputs {
                writeln!(trace, "{}", print_output(output)).unwrap();
            }
        }
    }
    Ok(())
}

fn number(word: Option<&&str>) -> Result<u64, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("{word:?} is not a number"))
}

fn parse_options(words: &[&str]) -> Result<Options, String> {
    let mut options = Options {
        id: ServerId(1),
        address: "one".into(),
        election_timeout_ms: 3000,
        heartbeat_timeout_ms: 500,
        snapshot_threshold: 1024,
        snapshot_trailing: 8192,
        trailing_strategy: TrailingStrategy::Static,
        log_memory_bytes: usize::MAX,
    };
    for word in words {
        match word.split_once('=') {
            Some(("id", value)) => options.id = ServerId(number(Some(&value))?),
            Some(("election", value)) => options.election_timeout_ms = number(Some(&value))?,
            Some(("heartbeat", value)) => options.heartbeat_timeout_ms = number(Some(&value))?,
            Some(("threshold", value)) => options.snapshot_threshold = number(Some(&value))?,
            Some(("trailing", value)) => options.snapshot_trailing = number(Some(&value))?,
            Some(("memory", value)) => options.log_memory_bytes = number(Some(&value))? as usize,
            Some(("strategy", "dynamic")) => options.trailing_strategy = TrailingStrategy::Dynamic,
            _ => return Err(format!("unknown option {word:?}")),
        }
    }
    Ok(options)
}

fn parse_input(words: &[&str], details: &[&str]) -> Result<Input, String> {
    let token = || number(words.get(1)).map(Token);
    let seq = || number(words.get(1)).map(Seq);
    let index = || number(words.get(1)).map(Index);
    Ok(match words[0] {
        "start" => Input::Start(parse_start(&words[1..], details)?),
        "tick" => Input::Tick,
        "propose" => Input::Propose {
            token: token()?,
            commands: words[2..].iter().map(|word| command(word)).collect(),
        },
        "barrier" => Input::Barrier { token: token()? },
        "persisted" => Input::Persisted { seq: seq()? },
        "disk-full" => Input::DiskFull { seq: seq()?, stored: Index(number(words.get(2))?) },
        "disk-failed" => Input::DiskFailed { seq: seq()? },
        "applied" => Input::Applied { index: index()? },
        "snapshot-taken" => Input::SnapshotTaken { index: index()?, size_bytes: number(words.get(2))? },
        "snapshot-failed" => Input::SnapshotFailed { index: index()? },
        "retry-snapshot" => Input::RetrySnapshot,
        "from" => {
            let id = number(words.get(1))?;
            let from = Peer { id: ServerId(id), address: address_of(id) };
            Input::Receive { message: parse_message(from.id, &words[2..], details)?, from }
        }
        "unreachable" => Input::PeerUnreachable { id: ServerId(number(words.get(1))?) },
        "connection-lost" => Input::ConnectionLost { leader: ServerId(number(words.get(1))?) },
        "read" => Input::Read { token: token()? },
        "change" => Input::Change { token: token()?, change: parse_change(&words[2..])? },
        "transfer" => {
            let to = words.get(2).map(|_| number(words.get(2)).map(ServerId)).transpose()?;
            Input::Transfer { token: token()?, to }
        }
        "snapshot-sent" => {
            let ok = words.get(2) == Some(&"ok");
            Input::SnapshotSent { to: ServerId(number(words.get(1))?), ok }
        }
        "entries-read" => {
            Input::EntriesRead { to: ServerId(number(words.get(1))?), entries: parse_entries(details)? }
        }
        "snapshot-installed" => Input::SnapshotInstalled { index: index()?, ok: words.get(2) == Some(&"ok") },
        unknown => return Err(format!("unknown command {unknown:?}")),
    })
}

fn address_of(id: u64) -> String {
    let names = ["zero", "one", "two", "three", "four", "five"];
    names.get(id as usize).map_or_else(|| format!("s{id}"), |name| name.to_string())
}

fn parse_change(words: &[&str]) -> Result<Change, String> {
    let id = || number(words.get(1)).map(ServerId);
    Ok(match words.first() {
        Some(&"add") => {
            let address = words.get(2).ok_or("an address is missing")?.to_string();
            Change::Add { id: id()?, address }
        }
        Some(&"assign") => Change::Assign { id: id()?, role: parse_role(words.get(2))? },
        Some(&"remove") => Change::Remove { id: id()? },
        _ => return Err("a change is add, assign or remove".into()),
    })
}

fn parse_role(word: Option<&&str>) -> Result<Role, String> {
    match word {
        Some(&"voter") => Ok(Role::Voter),
        Some(&"standby") => Ok(Role::Standby),
        Some(&"spare") => Ok(Role::Spare),
        _ => Err(format!("unknown role {word:?}")),
    }
}

/// A position in a log: `3/t2`.
fn parse_position(word: Option<&&str>) -> Result<(Index, Term), String> {
    let (index, term) = word.and_then(|word| word.split_once('/')).ok_or("a position is written 3/t2")?;
    Ok((Index(number(Some(&index))?), parse_term(Some(&term))?))
}

fn parse_message(from: ServerId, words: &[&str], details: &[&str]) -> Result<Message, String> {
    let term = parse_term(words.get(1))?;
    let has = |word: &str| words.contains(&word);
    let value = |key: &str| {
        let found = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        found.map(|value| number(Some(&value))).transpose()
    };
    // A C server says nothing about leases.
    let keeps_lease = !has("c");
    let stamp = Stamp(value("stamp")?.unwrap_or(0));
    let features = if keeps_lease { Features::lease(stamp) } else { Features(0) };
    Ok(match words[0] {
        "request-vote" | "request-pre-vote" => {
            let (last_index, last_term) = parse_position(words.get(2))?;
            let pre_vote = words[0] == "request-pre-vote";
            let disrupt_leader = has("disrupt");
            Message::RequestVote(RequestVote {
                term,
                candidate: from,
                last_index,
                last_term,
                disrupt_leader,
                pre_vote,
                keeps_lease,
            })
        }
        "vote" | "pre-vote" => {
            let pre_vote = Some(words[0] == "pre-vote");
            Message::RequestVoteResult(RequestVoteResult {
                term,
                granted: has("granted"),
                pre_vote,
                keeps_lease,
            })
        }
        "append" => {
            let (prev_index, prev_term) = parse_position(words.get(2))?;
            let leader_commit = Index(value("commit")?.unwrap_or(0));
            let entries = parse_entries(details)?;
            Message::AppendEntries(AppendEntries {
                term,
                prev_index,
                prev_term,
                leader_commit,
                entries,
                stamp,
            })
        }
        "append-result" => {
            let rejected = Index(value("rejected")?.unwrap_or(0));
            let last_index = Index(value("last")?.ok_or("last= is missing")?);
            Message::AppendEntriesResult(AppendEntriesResult { term, rejected, last_index, features })
        }
        "install" => {
            let (last_index, last_term) = parse_position(words.get(2))?;
            let configuration_index = words.get(3).and_then(|word| word.strip_prefix("change@"));
            Message::InstallSnapshot(InstallSnapshot {
                term,
                last_index,
                last_term,
                configuration_index: Index(number(configuration_index.as_ref())?),
                configuration: parse_configuration(&words[4..])?,
                data: SnapshotData::new(Bytes::from_static(b"databases")),
            })
        }
        "timeout-now" => {
            let (last_index, last_term) = parse_position(words.get(2))?;
            Message::TimeoutNow(TimeoutNow { term, last_index, last_term })
        }
        unknown => return Err(format!("unknown message {unknown:?}")),
    })
}

/// Without their indexes.
fn parse_entries(details: &[&str]) -> Result<Vec<Entry>, String> {
    let entry = |detail: &&str| {
        let words: Vec<&str> = std::iter::once("0").chain(detail.split_whitespace()).collect();
        parse_entry(&words)
    };
    details.iter().map(entry).collect()
}

fn parse_start(words: &[&str], details: &[&str]) -> Result<Start, String> {
    let mut start =
        Start { term: Term(0), voted_for: None, snapshot: None, first_index: Index(1), entries: Vec::new() };
    for detail in details {
        let words: Vec<&str> = detail.split_whitespace().collect();
        if words[0] == "snapshot" {
            let snapshot = parse_snapshot(&words)?;
            start.first_index = snapshot.index.next();
            start.snapshot = Some(snapshot);
            continue;
        }
        let index = Index(number(words.first())?);
        if start.entries.is_empty() {
            start.first_index = index;
        }
        if index.0 != start.first_index.0 + start.entries.len() as u64 {
            return Err(format!("entry {index} does not follow the one before it"));
        }
        start.entries.push(parse_entry(&words)?);
    }
    for word in words {
        match word.split_once('=') {
            Some(("term", value)) => start.term = Term(number(Some(&value))?),
            Some(("vote", value)) => start.voted_for = Some(ServerId(number(Some(&value))?)),
            Some(("first", value)) => start.first_index = Index(number(Some(&value))?),
            _ => return Err(format!("unknown word {word:?}")),
        }
    }
    Ok(start)
}

fn parse_term(word: Option<&&str>) -> Result<Term, String> {
    number(word.and_then(|word| word.strip_prefix('t')).as_ref()).map(Term)
}

fn parse_snapshot(words: &[&str]) -> Result<SnapshotPoint, String> {
    let configuration_index = words.get(3).and_then(|word| word.strip_prefix("change@"));
    Ok(SnapshotPoint {
        index: Index(number(words.get(1))?),
        term: parse_term(words.get(2))?,
        configuration: parse_configuration(&words[4..])?,
        configuration_index: Index(number(configuration_index.as_ref())?),
    })
}

fn parse_entry(words: &[&str]) -> Result<Entry, String> {
    let term = parse_term(words.get(1))?;
    let (kind, payload) = match words[2..] {
        ["command", text] => (EntryKind::Command, command(text)),
        ["barrier"] => (EntryKind::Barrier, Bytes::from_static(&[0; 8])),
        ["change", "garbage"] => (EntryKind::Change, Bytes::from_static(&[0xff; 8])),
        ["change", ref servers @ ..] => (EntryKind::Change, parse_configuration(servers)?.encode()),
        _ => return Err(format!("unknown entry {words:?}")),
    };
    Ok(Entry { term, kind, payload })
}

fn parse_configuration(words: &[&str]) -> Result<Configuration, String> {
    let server = |word: &&str| {
        let (id, rest) = word.split_once('@').ok_or("a server is written 1@one/voter")?;
        let (address, role) = rest.split_once('/').ok_or("a server is written 1@one/voter")?;
        Ok(Server {
            id: ServerId(number(Some(&id))?),
            address: address.into(),
            role: parse_role(Some(&role))?,
        })
    };
    Ok(Configuration { servers: words.iter().map(server).collect::<Result<_, String>>()? })
}

/// The text, filled up with zeros to whole words. "odd" stands for a command of one byte.
fn command(text: &str) -> Bytes {
    if text == "odd" {
        return Bytes::from_static(b"!");
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.into()
}

fn print_configuration(configuration: &Configuration) -> String {
    let role = |role| match role {
        Role::Voter => "voter",
        Role::Standby => "standby",
        Role::Spare => "spare",
    };
    if configuration.servers.is_empty() {
        return "without servers".into();
    }
    let server = |server: &Server| format!("{}@{}/{}", server.id, server.address, role(server.role));
    configuration.servers.iter().map(server).collect::<Vec<_>>().join(" ")
}

fn print_entry(entry: &Entry) -> String {
    let term = entry.term;
    match entry.kind {
        EntryKind::Command => {
            let text = String::from_utf8_lossy(&entry.payload);
            format!("t{term} command {}", text.trim_end_matches('\0'))
        }
        EntryKind::Barrier => format!("t{term} barrier"),
        EntryKind::Change => match Configuration::decode(entry.payload.clone()) {
            Ok(configuration) => format!("t{term} change {}", print_configuration(&configuration)),
            Err(_) => format!("t{term} change garbage"),
        },
    }
}

fn print_role(state: State, term: Term, leader: Option<ServerId>) -> String {
    let state = match state {
        State::Follower => "follower",
        State::Candidate => "candidate",
        State::Leader => "leader",
    };
    let leader = leader.map_or("unknown".into(), |leader| leader.to_string());
    format!("{state} in term {term}, leader {leader}")
}

fn print_message(message: &Message) -> String {
    match message {
        Message::RequestVote(RequestVote {
            term, last_index, last_term, disrupt_leader, pre_vote, ..
        }) => {
            let pre = if *pre_vote { "pre-" } else { "" };
            let disrupt = if *disrupt_leader { " disrupt" } else { "" };
            format!("request {pre}vote t{term} log {last_index}/t{last_term}{disrupt}")
        }
        Message::RequestVoteResult(RequestVoteResult { term, granted, pre_vote, .. }) => {
            let pre = if *pre_vote == Some(true) { "pre-" } else { "" };
            format!("{pre}vote t{term} {}", if *granted { "granted" } else { "denied" })
        }
        Message::AppendEntries(AppendEntries {
            term,
            prev_index,
            prev_term,
            leader_commit,
            entries,
            stamp,
        }) => {
            let mut out = format!("append t{term} {prev_index}/t{prev_term} commit={leader_commit}");
            write!(out, " stamp={stamp}").unwrap();
            for entry in entries {
                write!(out, ", {}", print_entry(entry)).unwrap();
            }
            out
        }
        Message::AppendEntriesResult(AppendEntriesResult { term, rejected, last_index, features }) => {
            let stamp = features.stamp().map_or("none".into(), |stamp| stamp.to_string());
            match rejected.0 {
                0 => format!("append-result t{term} ok {last_index} stamp={stamp}"),
                _ => format!("append-result t{term} rejected {rejected} hint {last_index} stamp={stamp}"),
            }
        }
        Message::InstallSnapshot(InstallSnapshot { term, last_index, last_term, .. }) => {
            format!("install t{term} {last_index}/t{last_term}")
        }
        Message::TimeoutNow(TimeoutNow { term, last_index, last_term }) => {
            format!("timeout-now t{term} {last_index}/t{last_term}")
        }
    }
}

fn print_output(output: &Output) -> String {
    match output {
        Output::PersistVote { term, voted_for, seq } => {
            let vote = voted_for.map_or("none".into(), |id| id.to_string());
            format!("disk {seq}: term {term}, vote {vote}")
        }
        Output::Append { first_index, entries, seq } => {
            let entries: Vec<String> = entries.iter().map(print_entry).collect();
            format!("disk {seq}: append from {first_index}: {}", entries.join(", "))
        }
        Output::Send { to, message, after, .. } => {
            let after = after.map_or(String::new(), |seq| format!(" after disk {seq}"));
            format!("to {to}{after}: {}", print_message(message))
        }
        Output::SendSnapshot { to, term, index, .. } => format!("to {to}: snapshot {index} in term {term}"),
        Output::ReadEntries { to, first, last } => format!("read {first} to {last} for {to}"),
        Output::InstallSnapshot { snapshot, .. } => {
            let SnapshotPoint { index, term, configuration, configuration_index } = snapshot;
            let configuration = print_configuration(configuration);
            format!("install snapshot {index} t{term} change@{configuration_index} {configuration}")
        }
        Output::Truncate { from, seq } => format!("disk {seq}: truncate from {from}"),
        Output::Accepted { token, first_index, term } => {
            format!("accepted {token}: from {first_index} in term {term}")
        }
        Output::Commit { up_to } => format!("commit {up_to}"),
        Output::Complete { token, result: Ok(index) } => format!("complete {token}: index {index}"),
        Output::Complete { token, result: Err(refusal) } => format!("complete {token}: {refusal}"),
        Output::TakeSnapshot { index, term, configuration, configuration_index } => {
            let configuration = print_configuration(configuration);
            format!("take snapshot {index} t{term} change@{configuration_index} {configuration}")
        }
        Output::RoleChanged { state, term, leader } => print_role(*state, *term, *leader),
        Output::ConfigurationChanged { configuration } => {
            format!("configuration {}", print_configuration(configuration))
        }
    }
}

fn print_status(raft: &Raft) -> String {
    let status = raft.status();
    let mut out = print_role(status.state, status.term, status.leader);
    write!(out, ", vote {}", status.voted_for.map_or("none".into(), |id| id.to_string())).unwrap();
    write!(out, ", configuration {}\n  ", print_configuration(status.configuration)).unwrap();
    write!(out, "snapshot {}, log {} to {}", status.snapshot_index, status.first_index, status.last_index)
        .unwrap();
    write!(out, " t{}, persisted {}", status.last_term, status.persisted_index).unwrap();
    writeln!(out, ", committed {}, applied {}", status.commit_index, status.applied_index).unwrap();
    out
}
