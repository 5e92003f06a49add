//! Known defects of Raft implementations, ready to be switched on, so that the simulator can prove that it finds
//! them. Without the feature `planted-bugs` every switch is the constant `false`.

use super::Raft;

/// One defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Not a defect but a C server: it keeps no promise about leases.
    NoPromise,
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
