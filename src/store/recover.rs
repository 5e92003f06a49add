//! A configuration forced upon the log, for a cluster that lost too many servers to elect a leader; and where
//! the log of a directory ends, by which the directory to do this to is chosen. Runs on the caller's thread.
//!
//! The configuration becomes the last entry of the log, in a closed segment of its own. As any last one it is
//! in force at once, and committed when a majority of its voters has it.
//!
//! Its term is [`FORCED_TERM_STEP`] above the highest of the log, and the metadata are raised to it before
//! the entry is written. The C library writes term 1. What the large step is for:
//!
//! * Entries of one index and term are taken for the same everywhere. Neither the term of the log nor the
//!   next one would do: servers that are thought lost may have written in them, and would keep what they have
//!   in place of this entry when they come back.
//! * A log with the entry wins every election against one without.
//! * If the same configuration is forced upon several directories, the logs keep their order: the one that
//!   was ahead still is, and the others follow it. The step is fixed for this.
//!
//! An empty directory is given term 1, as at a bootstrap.

use super::directory::{Directory, LockedDirectory, write_closed};
use super::error::{Error, describe};
use super::inspect;
use super::load::{self, AutoRecovery};
use super::metadata::Metadata;
use crate::config::FORCED_TERM_STEP;
use crate::raft::{Configuration, Entry, EntryKind, Index, Term};
use std::io::{self, Read};

/// The entry that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Its index, now the last.
    pub index: Index,
    /// Its term, now the current one unless that was higher.
    pub term: Term,
}

impl LockedDirectory {
    /// Writes the configuration behind the last entry. The log is loaded before, with all that this does to
    /// the files.
    pub fn recover(
        &mut self,
        configuration: &Configuration,
        recovery: AutoRecovery,
    ) -> Result<Recovered, Error> {
        let checked = |content: &mut dyn Read| io::copy(content, &mut io::sink()).map_err(|e| e.to_string());
        let loaded = self.load_with(recovery, checked).map_err(|error| match error {
            Error::Load(reason) => Error::Recover(format!("io: {reason}")),
            other => other,
        })?;
        let index = loaded.next_index();
        let term = match loaded.highest_term() {
            Term(0) => Term(1),
            highest => forced_term(highest)?,
        };
        if self.metadata.term < term {
            let written = self.metadata.write(&*self.fs, &self.path, term, None);
            written.map_err(|e| Error::Recover(format!("io: {e}")))?;
        }
        let entry = Entry { term, kind: EntryKind::Change, payload: configuration.encode() };
        write_closed(&*self.fs, &self.path, index, &[entry])
            .map_err(|e| Error::Recover(describe("io: write a segment in", &self.path, &e)))?;
        Ok(Recovered { index, term })
    }
}

/// A term that nobody can have been in.
pub(super) fn forced_term(highest: Term) -> Result<Term, Error> {
    let term = highest.0.checked_add(FORCED_TERM_STEP).filter(|term| *term <= u64::MAX / 2);
    term.map(Term).ok_or_else(|| Error::Recover(format!("io: there is no term far enough above {highest}")))
}

impl Directory {
    /// Index and term of the last entry, or of the snapshot if the log is empty; both 0 if there is none
    /// either. Changes nothing. A damaged end counts only as far as a start would keep it.
    pub fn last_entry(&self, recovery: AutoRecovery) -> Result<(Index, Term), Error> {
        let _lock = inspect::lock_if_present(&self.path)?;
        let metadata = Metadata::read(&*self.fs, &self.path)?;
        let found = load::preview(&*self.fs, &self.path, metadata, recovery)?;
        Ok((Index(found.next_index().0 - 1), found.last_term()))
    }
}

#[cfg(test)]
#[path = "recover_test.rs"]
mod tests;
