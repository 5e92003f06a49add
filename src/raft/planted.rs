//! Known defects of Raft implementations, ready to be switched on, so that the simulator can prove that it
//! finds them. Without the feature `planted-bugs` every switch is the constant `false`.

use super::Raft;

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
    /// Every server behaves like C's towards leases: it votes whenever it has lost its leader, and marks all
    /// elections as asked for once the first one was.
    NoPromise,
    /// An answer leaves before the vote or term it speaks of is durable.
    AnswerBeforeVoteIsDurable,
    /// A higher term seen in a message is not persisted.
    TermNotPersisted,
    /// A server votes again in a term.
    VoteTwice,
    /// A vote is given whatever the candidate's log.
    VoteIgnoresLog,
    /// Only the last index of the candidate counts, not its last term.
    VoteIgnoresLastTerm,
    /// Last term and last index must both be at least ours, instead of the pair (async-raft).
    VoteComparesSeparately,
    /// A server that is no voter in its own configuration gives no vote (C).
    NonVoterRefusesVote,
    /// A voter that demoted itself does not campaign, though that is not committed (C).
    DemotedVoterGivesUp,
    /// A sole voter leads without a new term whatever was before (C).
    SoleVoterKeepsTerm,
    /// A candidate that a leader asked to campaign, or whose election failed, goes on disrupting leaders (the
    /// former in C). No lease is in danger: to be elected against its holder takes the holder's first entry,
    /// and whoever receives that becomes a follower. But no leadership lasts if such a candidate is deaf.
    DisruptForever,
    /// A follower acknowledges entries before they are durable.
    AcknowledgeBeforePersist,
    /// A leader counts its own entries before they are durable.
    LeaderCountsUnpersisted,
    /// Entries of older terms commit by counting (C up to raft 0.17).
    CommitOlderTerm,
    /// Stand-bys count for the quorum (async-raft).
    StandbysCount,
    /// Half of the voters are a quorum.
    HalfIsQuorum,
    /// A leader that is no voter counts itself.
    RemovedLeaderCountsItself,
    /// A leader goes on after its removal or demotion is committed.
    RemovedLeaderStays,
    /// A follower commits up to its own last entry, without knowing that the leader has it (async-raft).
    CommitUnmatched,
    /// What follows the entries of a message is deleted, even if it agrees (async-raft).
    TruncateMatchingTail,
    /// A conflicting entry is kept.
    KeepConflictingTail,
    /// AppendEntries is accepted whatever precedes it.
    NoConsistencyCheck,
    /// Success reports all that is stored, not what was shown to match (C, defect D12).
    SuccessReportsLastStored,
    /// Answers to messages of an earlier term count.
    StaleResultCounts,
    /// A refusal does not end the pipeline.
    PipelineIgnoresRefusal,
    /// A configuration is in force when committed.
    ConfigurationAtCommit,
    /// A truncated configuration stays in force.
    ConfigurationNotRolledBack,
    /// A change may follow one that is not committed.
    TwoChangesAtOnce,
    /// A change may precede the first commit of its term (dissertation erratum).
    ChangeBeforeTermCommit,
    /// A snapshot contains the configuration in force (C, defect D13).
    SnapshotOfUncommittedConfiguration,
    /// A snapshot may be ahead of the log on disk.
    SnapshotAheadOfDisk,
    /// A snapshot is asked for after more was committed than it should contain.
    SnapshotAfterCommit,
    /// A snapshot is installed over a log that has more.
    InstallOlderSnapshot,
    /// Entries are appended while a snapshot is installed.
    AppendDuringInstallation,
    /// An entry leaves memory before it is applied.
    EvictBeforeApplied,
    /// An entry leaves memory before it is durable.
    EvictBeforeDurable,
    /// Entries that were read back are sent whatever happened meanwhile, also to the leadership.
    ReadBackOutlivesLeadership,
    /// Entries that were read back are not compared with the log.
    ReadBackNotCompared,
    /// A read is answered by whoever believes to lead (C).
    ReadWithoutRound,
    /// A read is confirmed by one answer less than a quorum (async-raft).
    ReadQuorumTooSmall,
    /// A new leader reads before it knows what is committed.
    ReadBeforeTermCommit,
    /// A barrier that is appended for reads confirms them before it is committed.
    ReadBeforeBarrierCommit,
    /// Reads wait for stamps, though too few of those that send them back are there.
    ReadWaitsForStamps,

    /// The lease runs from the arrival of an answer.
    LeaseFromArrival,
    /// The promise lasts no longer than the lease, whatever the clocks do.
    LeaseWithoutMargin,
    /// A restarted voter forgets its promise.
    LeaseForgottenByRestart,
    /// The lease goes on when the leadership is handed over.
    LeaseAfterTransfer,
    /// The lease comes back after a transfer that failed.
    LeaseBackAfterTransfer,
    /// Answers of C servers count for the lease.
    LeaseCountsCServers,
    /// The end of a connection is taken for the death of the leader.
    ConnectionLostIsDeath,
}

impl Raft {
    /// Switches a defect on.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Bug) {
        self.bug = Some(bug);
    }

    /// Whether a defect is switched on.
    #[inline(always)]
    pub(super) fn has(&self, bug: Bug) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.bug == Some(bug);
        #[cfg(not(feature = "planted-bugs"))]
        {
            let _ = bug;
            false
        }
    }
}
