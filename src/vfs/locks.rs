//! The eight WAL locks of one database, counted over all its file handles. Pure bookkeeping: nothing ever
//! waits.

/// A set of lock slots, one bit each.
pub(super) type LockMask = u8;

/// The lock that makes its holder the only writer.
pub(super) const WRITE: LockMask = 1;
/// The lock of checkpoints, which SQLite is never given: checkpoints are ours.
pub(super) const CHECKPOINT: LockMask = 1 << 1;

/// The five locks of readers.
pub(super) const READ: LockMask = 0b1111_1000;

const SLOTS: usize = 8;
const EXCLUSIVE: i32 = -1;

/// Somebody else holds a lock that is in the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

/// Per slot: 0 free, -1 exclusive, n > 0 shared by n handles.
#[derive(Debug, Default)]
pub(super) struct LockTable([i32; SLOTS]);

/// The mask of `count` slots from `first` on; `None` if SQLite asks for slots that do not exist.
pub(super) fn mask_of(first: i32, count: i32) -> Option<LockMask> {
    let (first, count) = (usize::try_from(first).ok()?, usize::try_from(count).ok()?);
    (count > 0 && first + count <= SLOTS).then(|| ((1u16 << (first + count)) - (1u16 << first)) as LockMask)
}

impl LockTable {
    /// Adds a shared holder to every slot of the mask, or to none.
    pub(super) fn acquire_shared(&mut self, mask: LockMask) -> Result<(), Conflict> {
        if self.any(mask, |slot| slot < 0) {
            return Err(Conflict);
        }
        self.for_each(mask, |slot| *slot += 1);
        Ok(())
    }

    /// Takes every slot of the mask alone, or none.
    pub(super) fn acquire_exclusive(&mut self, mask: LockMask) -> Result<(), Conflict> {
        if self.any(mask, |slot| slot != 0) {
            return Err(Conflict);
        }
        self.for_each(mask, |slot| *slot = EXCLUSIVE);
        Ok(())
    }

    /// Removes one shared holder from every slot of the mask.
    pub(super) fn release_shared(&mut self, mask: LockMask) {
        assert!(!self.any(mask, |slot| slot <= 0), "shared release of {mask:#04x} in {self:?}");
        self.for_each(mask, |slot| *slot -= 1);
    }

    /// Frees slots held exclusively.
    pub(super) fn release_exclusive(&mut self, mask: LockMask) {
        assert!(!self.any(mask, |slot| slot != EXCLUSIVE), "exclusive release of {mask:#04x} in {self:?}");
        self.for_each(mask, |slot| *slot = 0);
    }

    /// Whether nobody holds any of the slots of the mask.
    pub(super) fn are_free(&self, mask: LockMask) -> bool {
        !self.any(mask, |slot| slot != 0)
    }

    fn any(&self, mask: LockMask, test: impl Fn(i32) -> bool) -> bool {
        self.0.iter().enumerate().any(|(i, slot)| mask & (1 << i) != 0 && test(*slot))
    }

    fn for_each(&mut self, mask: LockMask, change: impl Fn(&mut i32)) {
        self.0
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| mask & (1 << i) != 0)
            .for_each(|(_, slot)| change(slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_several_slots_takes_all_or_none() {
        let mut locks = LockTable::default();
        locks.acquire_shared(0b0000_1000).unwrap();
        assert_eq!(locks.acquire_exclusive(0b0001_1100), Err(Conflict));
        assert!(locks.are_free(0b0001_0100));
        locks.acquire_exclusive(0b0001_0000).unwrap();
        assert_eq!(locks.acquire_shared(0b0001_1000), Err(Conflict));
        locks.release_shared(0b0000_1000);
        locks.release_exclusive(0b0001_0000);
        assert!(locks.are_free(0xff));
    }

    #[test]
    fn shared_holders_are_counted() {
        let mut locks = LockTable::default();
        locks.acquire_shared(2).unwrap();
        locks.acquire_shared(2).unwrap();
        locks.release_shared(2);
        assert_eq!(locks.acquire_exclusive(2), Err(Conflict));
        locks.release_shared(2);
        locks.acquire_exclusive(2).unwrap();
    }

    #[test]
    fn only_the_eight_slots_have_a_mask() {
        assert_eq!(mask_of(0, 1), Some(WRITE));
        assert_eq!(mask_of(0, 8), Some(0xff));
        assert_eq!(mask_of(3, 5), Some(0xf8));
        for (first, count) in [(0, 9), (8, 1), (-1, 1), (0, 0), (7, 2), (0, -1)] {
            assert_eq!(mask_of(first, count), None, "{first} {count}");
        }
    }
}
