//! Messages and outputs as lines of a trace, and as a C server would send them.

use dqlite::raft::message::{AppendEntries, AppendEntriesResult, Features, RequestVote, RequestVoteResult};
use dqlite::raft::{Index, Message, Output};

/// What a C server would have sent. As a leader it tells of everything committed, wherever the message ends.
pub fn as_plain(message: Message, commit_index: Index) -> Message {
    match message {
        Message::AppendEntries(append) => {
            Message::AppendEntries(AppendEntries { leader_commit: commit_index, ..append })
        }
        Message::RequestVote(vote) => Message::RequestVote(RequestVote { keeps_lease: false, ..vote }),
        Message::RequestVoteResult(result) => {
            Message::RequestVoteResult(RequestVoteResult { keeps_lease: false, ..result })
        }
        Message::AppendEntriesResult(result) => {
            Message::AppendEntriesResult(AppendEntriesResult { features: Features(0), ..result })
        }
        other => other,
    }
}

pub fn describe_message(message: &Message) -> String {
    match message {
        Message::AppendEntries(m) => format!(
            "append t{} {}/t{} commit={} stamp={} entries={:?}",
            m.term,
            m.prev_index,
            m.prev_term,
            m.leader_commit,
            m.stamp,
            m.entries.iter().map(|entry| (entry.term.0, entry.kind)).collect::<Vec<_>>()
        ),
        Message::AppendEntriesResult(m) => format!(
            "append-result t{} rejected={} last={} stamp={:?}",
            m.term,
            m.rejected,
            m.last_index,
            m.features.stamp()
        ),
        Message::InstallSnapshot(m) => format!("install t{} {}/t{}", m.term, m.last_index, m.last_term),
        other => format!("{other:?}"),
    }
}

pub fn describe(output: &Output) -> Option<String> {
    Some(match output {
        Output::Send { to, message, after, .. } => {
            format!("to {to} after {after:?}: {}", describe_message(message))
        }
        Output::Append { first_index, entries, seq } => {
            format!("disk {seq}: append {} entries from {first_index}", entries.len())
        }
        Output::InstallSnapshot { snapshot, .. } => format!("install snapshot {}", snapshot.index),
        Output::ConfigurationChanged { configuration } => {
            let servers =
                configuration.servers.iter().map(|server| format!("{}/{}", server.id, server.role.name()));
            format!("configuration {}", servers.collect::<Vec<_>>().join(" "))
        }
        Output::Accepted { .. } => return None,
        other => format!("{other:?}"),
    })
}
