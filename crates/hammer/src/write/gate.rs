//! The gate: many readers, or one who changes what they read.

use dfly_hal::Wait;
use dfly_hal::sync::atomic::{AtomicUsize, Ordering};
use dfly_hal::sync::{WaitGuard, WaitLock};

/// Readers at once, at most.
const LANES: usize = 8;

/// Lanes side by side: a reader takes any one, who wants to be alone takes all, in order.
///
/// So both are as fair as a [`WaitLock`], and readers on different lanes touch no common word but the hint. A thread that
/// has a lane must not ask for another.
pub(crate) struct Gate {
    lanes: [WaitLock<()>; LANES],
    /// Where the next reader looks first.
    hint: AtomicUsize,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { lanes: core::array::from_fn(|_| WaitLock::new(())), hint: AtomicUsize::new(0) }
    }

    /// Keeps changes out. May block.
    pub(crate) fn share(&self, w: &mut dyn Wait) -> WaitGuard<'_, ()> {
        // Relaxed: a wrong hint costs time only.
        let first = self.hint.fetch_add(1, Ordering::Relaxed);
        let (behind, before) = self.lanes.split_at(first % LANES);
        let mut lanes = before.iter().chain(behind);
        match lanes.clone().find_map(WaitLock::try_lock) {
            Some(lane) => lane,
            // There is at least one lane.
            None => lanes.next().unwrap_or(&self.lanes[0]).lock(w),
        }
    }

    /// Keeps everybody out. May block.
    pub(crate) fn alone(&self, w: &mut dyn Wait) -> [WaitGuard<'_, ()>; LANES] {
        self.lanes.each_ref().map(|lane| lane.lock(w))
    }
}
