//! Where we answer otherwise than the recorded C nodes, and which transcripts are not replayed, each with its
//! reason.
//!
//! "R n" is recommendation n of the wire protocol specification: crashes and hangs are not reproduced, and
//! answers that no client can rely on are made right.

use super::replay::{Difference, Instead};

/// A transcript that is not replayed.
pub struct NotReplayed {
    pub case: &'static str,
    pub why: &'static str,
}

/// A transcript that was recorded in a cluster of three.
pub struct InACluster {
    pub case: &'static str,
    /// Which node each connection goes to, as the note in the transcript says.
    pub connections: &'static [(&'static str, usize)],
    /// Before this step nodes 2 and 3 were killed.
    pub only_node_1_from: Option<usize>,
}

/// In the order of the recording: each one found the cluster as the one before had left it.
pub const IN_A_CLUSTER: &[InACluster] = &[
    InACluster { case: "cluster-3-nodes", connections: &[("A", 1)], only_node_1_from: None },
    InACluster { case: "follower", connections: &[("A", 2)], only_node_1_from: None },
    InACluster {
        case: "leadership-lost",
        connections: &[("A", 1), ("B", 1), ("C", 2)],
        only_node_1_from: None,
    },
    InACluster { case: "quorum-lost", connections: &[("A", 1)], only_node_1_from: Some(5) },
];

/// Cases where 1.11.1 and 1.18.6 answered the same requests differently: the transcript of 1.18.6 counts.
pub const SUPERSEDED_BY_1_18_6: &[NotReplayed] = &[
    NotReplayed { case: "cluster-bad-format", why: "1.11.1 took formats above 1 for 1" },
    NotReplayed { case: "dump", why: "1.11.1 sent the WAL apart, 1.18.6 folds it in" },
    NotReplayed { case: "dump-missing", why: "1.11.1 sent two empty files for an unknown database" },
    NotReplayed { case: "exec-returning-then-write", why: "1.11.1 said \"another row available\", code 100" },
    NotReplayed { case: "exec-select-then-query", why: "1.11.1 said \"another row available\", code 100" },
    NotReplayed { case: "exec-sql-rows-yielded", why: "1.11.1 said \"another row available\", code 100" },
    NotReplayed { case: "follower", why: "1.11.1 took PREPARE on any node" },
    NotReplayed { case: "heartbeat", why: "1.11.1 did not answer" },
    NotReplayed { case: "membership", why: "1.11.1 had another text" },
    NotReplayed { case: "not-leader", why: "1.11.1 took OPEN and PREPARE on any node" },
    NotReplayed { case: "params-all-types-v0", why: "1.11.1 left stale bytes in the padding of a blob" },
    NotReplayed { case: "params-bad-type-exec", why: "1.11.1 answered with code 1005" },
    NotReplayed { case: "params-bad-type-query", why: "1.11.1 answered with code 1005" },
    NotReplayed { case: "params-too-many-exec", why: "1.11.1 refused surplus parameters" },
    NotReplayed { case: "params-too-many-query", why: "1.11.1 reported SQLite's range error" },
    NotReplayed { case: "params-truncated-body", why: "1.11.1 answered with code 1005" },
    NotReplayed { case: "prepare-v0-nonempty-tail", why: "1.11.1 ignored the tail" },
    NotReplayed { case: "quorum-lost", why: "1.11.1 said \"disk I/O error\"" },
    NotReplayed { case: "query-prepared-v0", why: "1.11.1 kept the parameters of the last run" },
    NotReplayed { case: "query-sql-no-columns", why: "1.11.1 did not execute a statement without columns" },
    NotReplayed { case: "transfer-errors", why: "1.11.1 had other texts" },
    NotReplayed { case: "unknown-request-type", why: "1.11.1 did not answer" },
];

/// What a library does not even reproduce of its own recording.
pub const NEVER_THE_SAME: &[NotReplayed] = &[
    NotReplayed { case: "describe-bad-format", why: "the C process dies after its answer" },
    NotReplayed { case: "dump", why: "the salts of the WAL are random" },
    NotReplayed { case: "params-all-types-v0", why: "C leaves stale bytes in the padding of a blob" },
];

/// What we answer instead. The frames are made here by hand, not by the encoders under test.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        case: "rows-error-first-step",
        step: 4,
        instead: Instead::Frame(|_| failure(1, "integer overflow")),
        why: "R 6: a failure is not preceded by the rows that were begun",
    },
    Difference {
        case: "rows-error-mid-batch",
        step: 4,
        instead: Instead::Frame(|_| failure(1, "integer overflow")),
        why: "R 6: a failure is not preceded by the rows that were begun",
    },
    Difference {
        case: "rows-error-zero-columns",
        step: 8,
        instead: Instead::Frame(|_| failure(1555, "UNIQUE constraint failed: t.a")),
        why: "R 6: a failure is not preceded by the rows that were begun",
    },
    Difference {
        case: "rows-error-returning-constraint",
        step: 8,
        instead: Instead::Frame(|_| failure(1555, "UNIQUE constraint failed: t.a")),
        why: "R 6: a failure is not preceded by the rows that were begun",
    },
    Difference {
        case: "rows-boolean-bad-type",
        step: 8,
        instead: Instead::Frame(|_| {
            frame(
                7,
                &[
                    &1u64.to_le_bytes(),
                    b"b\0\0\0\0\0\0\0",
                    &[3, 0, 0, 0, 0, 0, 0, 0],
                    b"x\0\0\0\0\0\0\0",
                    &[0xff; 8],
                ],
            )
        }),
        why: "R 4: a text in a BOOLEAN column is sent as a text; C dies",
    },
    Difference {
        case: "rows-header-over-page",
        step: 4,
        instead: Instead::Frame(|part| with_row(part, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
        why: "R 7: every frame has a row, even if the names fill it; C sends empty ones for ever",
    },
    Difference {
        case: "rows-header-over-page",
        step: 5,
        instead: Instead::Frame(|part| [&part[..part.len() - 8], &[0xff; 8]].concat()),
        why: "R 7: and so the result ends",
    },
    Difference {
        case: "exec-returning-then-write",
        step: 8,
        instead: Instead::Frame(|_| frame(6, &[&1u64.to_le_bytes(), &1u64.to_le_bytes()])),
        why: "R 5: the refused INSERT is undone, so that the next one gets row 1; C dies",
    },
    Difference {
        case: "stmt-finalize-hole",
        step: 10,
        instead: Instead::Frame(|_| failure(12, "no statement with the given id")),
        why: "R 2: a finalized statement does not exist; C dies",
    },
    Difference {
        case: "open-memory-write",
        step: 2,
        instead: Instead::Frame(|_| failure(14, "database name ':memory:' is reserved: choose another")),
        why: "D4: C dies at the first write, and C peers would die at its log entry",
    },
    Difference {
        case: "open-memory-write",
        step: 4,
        instead: Instead::Frame(|_| failure(12, "no database opened")),
        why: "D4: the same",
    },
    Difference {
        case: "open-name-too-long",
        step: 2,
        instead: Instead::Frame(|_| failure(14, "a database name has at most 511 bytes, none of them NUL")),
        why: "R 14: a failed OPEN is answered; C closes the connection",
    },
    Difference {
        case: "params-bad-type-query",
        step: 4,
        instead: Instead::Frame(|_| failure(1, "bind parameters")),
        why: "R 9: a parameter that cannot be bound is no I/O error",
    },
    Difference {
        case: "params-bad-type-query",
        step: 6,
        instead: Instead::Frame(|_| failure(1, "bind parameters")),
        why: "R 9: a parameter that cannot be bound is no I/O error",
    },
    Difference {
        case: "params-bad-type-query",
        step: 8,
        instead: Instead::Frame(|_| failure(1, "bind parameters")),
        why: "R 9: a parameter that cannot be bound is no I/O error",
    },
    Difference {
        case: "params-too-many-query",
        step: 4,
        instead: Instead::Frame(|_| failure(1, "bind parameters")),
        why: "R 9: a parameter that cannot be bound is no I/O error",
    },
    Difference {
        case: "params-too-many-query",
        step: 8,
        instead: Instead::Frame(|_| failure(1, "bind parameters")),
        why: "R 9: a parameter that cannot be bound is no I/O error",
    },
    Difference {
        case: "interrupt-mid-stream",
        step: 6,
        instead: Instead::OrSkipTo(8),
        why: "R 12: INTERRUPT stops a running query, and how far it got by then is a matter of timing",
    },
    Difference {
        case: "interrupt-mid-stream",
        step: 7,
        instead: Instead::OrSkipTo(8),
        why: "R 12: INTERRUPT stops a running query, and how far it got by then is a matter of timing",
    },
    Difference {
        case: "dump",
        step: 8,
        // Offset 32 is where the first page begins.
        instead: Instead::Except(&[32 + 24..32 + 28, 32 + 92..32 + 100]),
        why: "change counter and SQLite version in the database header",
    },
];

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len().is_multiple_of(8), "a body of {} bytes", body.len());
    let words = u32::try_from(body.len() / 8).unwrap().to_le_bytes();
    [&words[..], &[kind, 0, 0, 0], &body].concat()
}

fn failure(code: u64, text: &str) -> Vec<u8> {
    let mut text = text.as_bytes().to_vec();
    text.resize((text.len() + 1).next_multiple_of(8), 0);
    frame(0, &[&code.to_le_bytes(), &text])
}

/// A recorded frame with one more row before the marker at its end.
fn with_row(recorded: &[u8], row: &[u8]) -> Vec<u8> {
    let (body, marker) = recorded[8..].split_at(recorded.len() - 16);
    frame(recorded[4], &[body, row, marker])
}
