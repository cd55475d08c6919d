//! What a thread that does not run wants to have before it does.

use core::cell::Cell;
use core::ptr::NonNull;

use dfly_hal::sync::hint::spin_loop;

use super::chain::{Link, Order};
use super::word::Manners;

/// So often a set is tried in the order of its chain; then it is by address.
const UNSORTED: u32 = 3;
/// So often a share lets those pass who wait to have its token alone; then it is its turn, too.
const COURTESY: u32 = if cfg!(loom) { 5 } else { 32 };

/// The tokens of a thread that is off its CPU: the CPU takes them on its behalf, all or none.
#[derive(Default)]
pub(crate) struct Wanted {
    /// On the stack of the thread. None if it wants nothing, or runs.
    chain: Cell<Option<NonNull<Link<'static>>>>,
    /// How often in a row they were not to be had.
    failures: Cell<u32>,
}

impl Wanted {
    /// Says what the thread wants to have when it runs again. It holds nothing of it.
    ///
    /// # Safety
    /// The caller is the thread, or its CPU, and `chain` stays where it is until the thread runs again.
    #[inline]
    pub(crate) unsafe fn set(&self, chain: Option<&Link<'_>>) {
        self.chain.set(chain.map(|link| NonNull::from(link).cast()));
    }

    /// Says that the thread has tried already, and that this was counted.
    ///
    /// # Safety
    /// The caller is the thread, or its CPU.
    pub(crate) unsafe fn has_failed(&self) {
        self.failures.set(1);
    }

    /// Tries `tries` times, at least once, to take what the thread wants. If it says yes, the thread runs next.
    ///
    /// # Safety
    /// The caller is the thread's CPU, and the thread does not run.
    #[inline]
    pub(crate) unsafe fn take(&self, tries: u32) -> bool {
        let Some(chain) = self.chain.get() else { return true };
        // SAFETY: `set` was promised that it stays until the thread runs, and it does not.
        let taken = self.try_to_take(unsafe { chain.as_ref() }, tries);
        if taken {
            self.chain.set(None);
        }
        taken
    }

    #[cold]
    fn try_to_take(&self, chain: &Link<'_>, tries: u32) -> bool {
        let mut left = tries;
        loop {
            let failures = self.failures.get();
            let order = if failures < UNSORTED { Order::Chain } else { Order::Address };
            let manners = if failures < COURTESY { Manners::Polite } else { Manners::Insistent };
            let Err(busy) = chain.take_all(order, manners) else {
                self.failures.set(0);
                return true;
            };
            if failures == 0 {
                busy.site().collided();
            }
            self.failures.set(failures.saturating_add(1));
            left = left.saturating_sub(1);
            if left == 0 {
                return false;
            }
            spin_loop();
        }
    }
}
