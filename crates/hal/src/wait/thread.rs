//! A host thread that waits by parking itself.

use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Waker};

use alloc::sync::Arc;
use alloc::task::Wake;

#[cfg(loom)]
use loom::thread::{self, Thread};
#[cfg(not(loom))]
use std::thread::{self, Thread};

use super::{TimedOut, Wait};
use crate::Instant;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Parks the calling host thread. Make one per thread and keep it: making it allocates, waiting does not.
///
/// Deadlines are told by [`host::now`](crate::host::now).
///
/// ```
/// use dfly_hal::{ThreadWait, block_on};
/// let mut w = ThreadWait::new();
/// assert_eq!(block_on(&mut w, async { 7 }, None), Ok(7));
/// ```
pub struct ThreadWait {
    signal: Arc<Signal>,
    waker: Waker,
    // It wakes the thread that made it, so it stays there.
    _here: PhantomData<*mut ()>,
}

struct Signal {
    thread: Thread,
    /// Somebody woke us. `unpark` alone would not do: whatever parks inside `poll` may eat its token.
    woken: AtomicBool,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release: whoever was woken sees what happened before (pairs with the Acquire in `ThreadWait::woken`). If the
        // signal stands already, whoever set it unparks.
        if !self.woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

impl ThreadWait {
    /// A waiter for the current thread.
    pub fn new() -> Self {
        let signal = Arc::new(Signal { thread: thread::current(), woken: AtomicBool::new(false) });
        Self { waker: signal.clone().into(), signal, _here: PhantomData }
    }

    fn woken(&self) -> bool {
        // Acquire: pairs with the Release in `Signal::wake_by_ref`.
        self.signal.woken.swap(false, Ordering::Acquire)
    }

    /// Sleeps until somebody wakes us or the deadline has passed; says whether it has.
    #[cfg(not(loom))]
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let left = || deadline.map(|at| at.saturating_since(crate::host::now()));
        while !self.woken() {
            match left() {
                None => thread::park(),
                Some(left) if left.is_zero() => return true,
                Some(left) => thread::park_timeout(left),
            }
        }
        // A future that is woken all the time must not outlive its deadline.
        left().is_some_and(|left| left.is_zero())
    }

    /// loom knows no time: a deadline passes at the first chance, as it may for a thread that was off its processor.
    #[cfg(loom)]
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        while !self.woken() {
            if deadline.is_some() {
                thread::yield_now();
                return true;
            }
            thread::park();
        }
        false
    }
}

impl Default for ThreadWait {
    fn default() -> Self {
        Self::new()
    }
}

impl Wait for ThreadWait {
    fn wait(
        &mut self,
        mut f: Pin<&mut dyn Future<Output = ()>>,
        deadline: Option<Instant>,
    ) -> Result<(), TimedOut> {
        let mut cx = Context::from_waker(&self.waker);
        let mut late = false;
        while f.as_mut().poll(&mut cx).is_pending() {
            if late {
                return Err(TimedOut);
            }
            late = self.sleep(deadline);
        }
        Ok(())
    }
}
