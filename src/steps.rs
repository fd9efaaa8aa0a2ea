//! The steps that keep what a flush has promised, by name, so that the tests can leave one out at a
//! time and see that they would notice.

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A step that protects something.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        #[cfg(feature = "simulation")]
        impl Step {
            /// All of them.
            pub const ALL: &'static [Step] = &[$(Step::$name,)*];
        }
    };
}

steps! {
    // Flush.
    /// Bytes reach the disk in a flush.
    SyncData,
    /// The table does.
    SyncRegions,
    /// And not before the bytes.
    SyncDataFirst,
    /// An entry leaves the durable one of its slot alone.
    AlternateSides,
    /// So does a header.
    AlternateHeaders,
    /// What an interrupted flush has left is overwritten, where the slot has a region,
    RewriteAbandoned,
    /// and where it has none.
    VacateAbandoned,
    /// A flush that failed leaves what it should have written to the next.
    CollectAgain,
    /// After a failed sync nothing is accepted.
    StopAfterFailedSync,
    /// Nor after a panic.
    StopAfterPanic,
    /// A region is flushed as it was when the epoch ended.
    CutAtEndOfEpoch,
    /// An entry's tail does not outlive the bytes that it stands for.
    DropStaleTails,
    /// A closed database does not need its tails.
    SyncTailsAtClose,

    // Opening, creating, closing.
    /// Before anything is changed, what was found is on the disk: the identity,
    SettleIdentity,
    /// the tails of entries,
    StoreTails,
    /// bytes,
    SettleData,
    /// those a failed sync has kept from the disk,
    RereadData,
    /// entries,
    SettleEntries,
    /// the header,
    SettleHeader,
    /// really.
    SettleRegions,
    /// Both files are in the directory before one of them says so.
    SyncDirectory,
    /// The table is there before the identity.
    SyncNewTable,
    /// The identity is there before the file grows.
    GrowAfterSettling,
    /// What an interrupted creation has left is no damage.
    ForgiveUnfinishedCreation,

    // Recovery.
    /// A header counts only with all of its entries.
    CheckDigest,
    /// Otherwise the one before does.
    FallBack,
    /// Damage to a header is noticed.
    CheckHeader,
    /// To an entry.
    CheckEntry,
    /// No older header stands in for a damaged one.
    RefuseDamagedHeader,
    /// No older table for one that was damaged after its flush.
    RefuseImpossibleDamage,

    // Space.
    /// An extent is free when no durable table has it,
    KeepDurableExtents,
    /// and none that a flush in progress is writing.
    KeepExtentsInFlight,
    /// The same for a slot.
    KeepDurableSlots,
    /// An extent is free when no view is on it.
    KeepViewedExtents,
    /// Bytes are given back when they are behind the durable length,
    KeepDurableTails,
    /// behind that of earlier tables that may still be found,
    KeepEarlierTails,
    /// and behind all views.
    KeepViewedTails,
    /// Blocks are there before a store.
    AllocateFirst,
    /// A compaction takes them from no region that relies on them,
    ForgetAllocated,
    /// nor from neighbours in the same piece.
    SparePiecesInUse,

    // The mirror.
    /// A mirror from before the system was started is none,
    CheckBootId,
    /// nor is one of other files,
    CheckMirroredFiles,
    /// nor one beside a table that its process did not write,
    CheckMirroredTable,
    /// nor one whose regions cannot be.
    CheckMirroredPlaces,
    /// After a failed sync a mirror is none.
    DistrustAfterFailedSync,
    /// Nor after a panic.
    DistrustAfterPanic,
    /// A change counts when all of it is written.
    CommitAfterWriting,
    /// A copy does not count while it is being written.
    ClearCopyFirst,
    /// A change that was not completed is not brought into use by the next one.
    ClearUncommitted,
    /// An extent of the durable table is kept although the mirror does not have it.
    KeepDurableExtentsAtOpen,
    /// The flush after an open syncs what the last process has written.
    SyncMirroredBytes,
}

impl Step {
    /// Whether to take the step: always, but in a test of the tests.
    #[cfg(not(feature = "simulation"))]
    #[inline(always)]
    pub(crate) const fn taken(self) -> bool {
        let _ = self;
        true
    }

    /// Whether to take the step: always, but in a test of the tests.
    #[cfg(feature = "simulation")]
    #[inline]
    pub(crate) fn taken(self) -> bool {
        self as usize != OMITTED.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Leaves this step out from now on, in the whole process.
    #[cfg(feature = "simulation")]
    pub fn omit(self) {
        OMITTED.store(self as usize, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(feature = "simulation")]
static OMITTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);
