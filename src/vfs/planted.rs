//! Known defects of the way of a transaction from SQLite to its readers, in this module and those above it,
//! ready to be switched on for all databases of a VFS, so that the simulator can prove that it finds them.
//! Without the feature `planted-bugs` every switch is the constant `false`.

use super::{Database, Vfs};

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One defect.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];
        }
    };
}

bugs! {
    /// A transaction is shown to readers when its entry is appended.
    PublishAtAppend,
    /// A client is answered when its entry is appended.
    AnswerAtAppend,
    /// A client is answered when its entry is durable on the leader.
    AnswerWhenDurableHere,
    /// What was computed on the speculative view is answered before that is committed.
    AnswerIgnoresBase,
    /// Who leads no longer says "not leader" of what may be in the log.
    LostIsNotLeader,
    /// A transaction that was built on dropped ones is proposed all the same.
    VoidIsProposed,
    /// What was speculative while a session held the write lock stays when it lets go.
    VoidStaysSpeculative,
    /// Reads are not confirmed.
    ReadUnconfirmed,
    /// Publishing does not tell readers which pages the frames hold.
    PublishForgetsPages,
    /// An abort leaves the frames of the newest transaction.
    AbortKeepsNewestFrames,
    /// Whoever wrote goes on reading the speculative view.
    ReaderStaysSpeculative,
    /// Readers are shown the speculative view.
    ReaderIsSpeculative,
    /// A checkpoint happens under readers.
    CheckpointUnderReaders,
    /// A checkpoint does not enter the speculative frames into the index again.
    CheckpointForgetsSpeculation,
    /// An image contains what is speculative.
    CaptureIsSpeculative,
    /// A follower's databases are restored under open transactions.
    RestoreUnderReaders,
}

/// The defect of a VFS, if it has one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// Whether a defect is switched on.
    #[inline(always)]
    pub(super) fn has(self, bug: Bug) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.bug == Some(bug);
        #[cfg(not(feature = "planted-bugs"))]
        {
            let _ = bug;
            false
        }
    }
}

impl Vfs {
    /// Switches a defect on, in databases that are created from now on.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Bug) {
        self.planted.bug = Some(bug);
    }

    /// Whether a defect is switched on.
    #[inline(always)]
    pub fn has(&self, bug: Bug) -> bool {
        self.planted.has(bug)
    }
}

impl Database {
    /// Whether a defect is switched on.
    #[inline(always)]
    pub fn has(&self, bug: Bug) -> bool {
        self.planted.has(bug)
    }
}
