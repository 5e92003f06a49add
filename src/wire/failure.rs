//! The failures that the server makes itself, each with its code and its exact text: clients compare them.
//! Failures from SQLite carry SQLite's extended code and message and are not listed here.

/// The code of a failure that is not a code of SQLite: an unknown database in DUMP.
pub const CODE_NOT_FOUND: u64 = 1002;
/// The code of a failure that is not a code of SQLite: a request that was not understood.
pub const CODE_PARSE: u64 = 1005;
/// SQLITE_IOERR_NOT_LEADER, a code of dqlite's: 10 | 40 << 8.
pub const CODE_NOT_LEADER: u64 = 10250;
/// SQLITE_IOERR_LEADERSHIP_LOST, a code of dqlite's: 10 | 41 << 8. The outcome of the request is unknown.
pub const CODE_LEADERSHIP_LOST: u64 = 10506;

const ERROR: u64 = 1;
const BUSY: u64 = 5;
const NOMEM: u64 = 7;
const IOERR: u64 = 10;
const NOTFOUND: u64 = 12;
const FULL: u64 = 13;
const PROTOCOL: u64 = 15;

/// A failure with a fixed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text} (code {code})")]
pub struct Failure {
    /// What the client sees as the code.
    pub code: u64,
    /// What the client sees as the message.
    pub text: &'static str,
}

macro_rules! failures {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:expr, $text:literal;)*) => {
        $($(#[doc = $doc])+ pub const $name: Failure = Failure { code: $code, text: $text };)*

        /// Every failure of this list.
        pub const ALL: &[Failure] = &[$($name),*];
    };
}

failures! {
    /// PREPARE and QUERY_SQL of a text without a statement. Go takes code 0 as a broken connection.
    EMPTY_STATEMENT = 0, "empty statement";
    /// PREPARE schema 0 and QUERY_SQL with more than one statement.
    NONEMPTY_TAIL = ERROR, "nonempty statement tail";
    /// PREPARE, EXEC, QUERY, EXEC_SQL, QUERY_SQL with a schema above 1.
    UNKNOWN_SQL_SCHEMA = ERROR, "unrecognized schema version";
    /// A parameter that cannot be decoded or bound.
    BIND_PARAMETERS = ERROR, "bind parameters";
    /// EXEC or EXEC_SQL of a statement that returns a row.
    ROWS_YIELDED = ERROR, "rows yielded when none expected for EXEC request";
    /// TRANSFER that left this node leader.
    TRANSFER_FAILED = ERROR, "leadership transfer failed";
    /// OPEN on a connection that has a database.
    ALREADY_OPEN = BUSY, "a database for this connection is already open";
    /// A statement that met a running checkpoint.
    CHECKPOINT_IN_PROGRESS = BUSY, "checkpoint in progress";
    /// A writer that waited longer than the busy timeout for another one's transaction.
    DATABASE_LOCKED = BUSY, "database is locked";
    /// ADD, ASSIGN, REMOVE while another change is not committed.
    CHANGE_IN_PROGRESS = BUSY, "a configuration change is already in progress";
    /// PREPARE without memory for another statement.
    STATEMENT_NOT_ADDED = NOMEM, "stmt registry add failed";
    /// A request that was cancelled, by a close or a stop, before it ran.
    EXEC_FAILED = IOERR, "leader exec failed";
    /// There is no space for the log: nothing was written anywhere. Reads go on, and writes as soon as there
    /// is space. The text begins like SQLite's own.
    DISK_FULL = FULL, "database or disk is full: no space left in the data directory of the node";
    /// No OPEN on this connection, or the database was lost with the leadership. Clients match the text.
    NO_DATABASE = NOTFOUND, "no database opened";
    /// EXEC, QUERY, FINALIZE of a statement that does not exist.
    NO_STATEMENT = NOTFOUND, "no statement with the given id";
    /// DESCRIBE with a format other than 0.
    BAD_FORMAT = PROTOCOL, "bad format version";
    /// DUMP of a database that this node does not know; the grammar is part of the protocol.
    NO_SUCH_DATABASE = CODE_NOT_FOUND, "database does not exists";
    /// A request type that does not exist, HEARTBEAT included.
    UNKNOWN_TYPE = CODE_PARSE, "unrecognized request type";
    /// A schema other than 0 where only 0 exists.
    UNKNOWN_SCHEMA = CODE_PARSE, "unrecognized schema version";
    /// CLUSTER with a format above 1.
    UNKNOWN_CLUSTER_FORMAT = CODE_PARSE, "unrecognized cluster format";
    /// A header that announces no body. C never answers it.
    EMPTY_BODY = CODE_PARSE, "request body is empty";
    /// The request needs the leader and this node is not it.
    NOT_LEADER = CODE_NOT_LEADER, "not leader";
    /// ADD, ASSIGN, REMOVE, TRANSFER refused by Raft, because a transfer is under way, for instance.
    SERVER_NOT_LEADER = CODE_NOT_LEADER, "server is not the leader";
    /// Leadership was lost while the request waited for its commit: it may or may not survive.
    LEADERSHIP_LOST = CODE_LEADERSHIP_LOST, "leadership lost";
    /// The same for ADD, ASSIGN, REMOVE.
    SERVER_LOST_LEADERSHIP = CODE_LEADERSHIP_LOST, "server has lost leadership";
    /// REMOVE of an unknown server; TRANSFER to itself, to an unknown server or to one that is not a voter.
    BAD_SERVER_ID = ERROR, "server ID is not valid";
    /// ADD of an id that is taken.
    DUPLICATE_SERVER_ID = ERROR, "server ID already in use";
    /// ADD of an address that is taken.
    DUPLICATE_SERVER_ADDRESS = ERROR, "server address already in use";
    /// ASSIGN of the role that the server has, or of a role that does not exist.
    BAD_SERVER_ROLE = ERROR, "server role is not valid";
    /// ASSIGN of an unknown server; TRANSFER to anyone without a candidate.
    RESOURCE_NOT_FOUND = ERROR, "Resource not found";
    /// A server that has to be reached cannot be.
    NO_CONNECTION = ERROR, "no connection to remote server available";
    /// The operation was given up.
    CANCELED = ERROR, "operation canceled";
    /// The node is stopping.
    SHUTTING_DOWN = ERROR, "server is shutting down";
    /// Raft ran out of memory.
    OUT_OF_MEMORY = ERROR, "out of memory";
    /// An entry is larger than a segment or a message can hold.
    TOO_BIG = ERROR, "data is too big";
    /// The disk failed.
    IO_ERROR = ERROR, "I/O error";
    /// An argument is out of range.
    INVALID_PARAMETER = ERROR, "Invalid parameter";
    /// A file may not be used.
    NO_ACCESS = ERROR, "No access to resource";
    /// The disk is full.
    NO_SPACE = ERROR, "Not enough disk space";
    /// A limit of the system or of Raft was met.
    LIMIT_EXCEEDED = ERROR, "System or raft limit met or exceeded";
    /// The state of the node forbids the operation for the moment.
    BUSY_OPERATION = ERROR, "operation can't be performed at this time";
    /// A name or a path is too long.
    NAME_TOO_LONG = ERROR, "resource name too long";
    /// What is on disk is damaged.
    CORRUPT = ERROR, "persisted data is corrupted";
    /// What was received or stored cannot be decoded.
    MALFORMED = ERROR, "encoded data is malformed";
    /// A bootstrap of a cluster that exists.
    CANNOT_BOOTSTRAP = ERROR, "bootstrap only works on new clusters";
    /// Everything else.
    UNKNOWN_ERROR = ERROR, "unknown error";
}

/// Text of a failed open in DUMP; the code is SQLite's.
pub const TEXT_DUMP_OPEN: &str = "failed to open database";
/// Text of a failed read of the database in DUMP; the code is SQLite's.
pub const TEXT_DUMP_DATABASE: &str = "failed to dump main database file";
/// Text of a failed read of the WAL in DUMP; the code is SQLite's.
pub const TEXT_DUMP_WAL: &str = "failed to dump WAL file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_clients_compare_are_verbatim() {
        for (failure, code, text) in [
            (EMPTY_STATEMENT, 0, "empty statement"),
            (NONEMPTY_TAIL, 1, "nonempty statement tail"),
            (BIND_PARAMETERS, 1, "bind parameters"),
            (ROWS_YIELDED, 1, "rows yielded when none expected for EXEC request"),
            (ALREADY_OPEN, 5, "a database for this connection is already open"),
            (CHECKPOINT_IN_PROGRESS, 5, "checkpoint in progress"),
            (DATABASE_LOCKED, 5, "database is locked"),
            (NO_DATABASE, 12, "no database opened"),
            (NO_STATEMENT, 12, "no statement with the given id"),
            (NO_SUCH_DATABASE, 1002, "database does not exists"),
            (DISK_FULL, 13, "database or disk is full: no space left in the data directory of the node"),
            (NOT_LEADER, 10250, "not leader"),
            (LEADERSHIP_LOST, 10506, "leadership lost"),
        ] {
            assert_eq!(failure, Failure { code, text });
        }
    }

    #[test]
    fn no_failure_is_listed_twice() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(!ALL[i + 1..].contains(a) || *a == UNKNOWN_SQL_SCHEMA, "{a} is listed twice");
        }
    }

    #[test]
    fn the_leadership_codes_are_extended_codes_of_ioerr() {
        assert_eq!(CODE_NOT_LEADER, 10 | 40 << 8);
        assert_eq!(CODE_LEADERSHIP_LOST, 10 | 41 << 8);
    }
}
