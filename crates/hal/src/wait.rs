//! Waiting: who may block, and how.
//!
//! A function that may block takes `w: &mut dyn Wait`, per call, and never stores it. So its signature says that it
//! may block, and a thread's context that protects data can refuse to be lent while a reference into that data lives.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

use crate::Instant;

/// The deadline of a wait passed. What was waited for is still the caller's and can be waited for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the wait timed out")]
pub struct TimedOut;

/// Whoever may wait: an LWKT thread's context, a parked host thread, a polling loop.
pub trait Wait {
    /// Blocks the caller until `f` completes, or until `deadline` has passed.
    fn wait(&mut self, f: Pin<&mut dyn Future<Output = ()>>, deadline: Option<Instant>) -> Result<(), TimedOut>;
}

impl<W: Wait + ?Sized> Wait for &mut W {
    fn wait(&mut self, f: Pin<&mut dyn Future<Output = ()>>, deadline: Option<Instant>) -> Result<(), TimedOut> {
        (**self).wait(f, deadline)
    }
}

/// Waits for `f` and returns its output. Pass `&mut future` to keep the future when the wait times out.
pub fn block_on<W, F>(w: &mut W, f: F, deadline: Option<Instant>) -> Result<F::Output, TimedOut>
where
    W: Wait + ?Sized,
    F: Future,
{
    let mut f = pin!(f);
    // What is ready at once costs no indirect call.
    if let Poll::Ready(v) = f.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(v);
    }
    let mut out = None;
    let keep = async { out = Some(f.await) };
    w.wait(pin!(keep), deadline)?;
    out.ok_or(TimedOut)
}

/// A waiter that looks again and again, and calls `poll` between two looks: for early boot, for tests, for a CPU that
/// polls its device.
pub struct SpinWait<'a> {
    poll: &'a mut dyn FnMut(),
    now: Option<&'a dyn Fn() -> Instant>,
}

impl<'a> SpinWait<'a> {
    /// A waiter without a clock: deadlines never pass.
    pub fn new(poll: &'a mut dyn FnMut()) -> Self {
        Self { poll, now: None }
    }

    /// A waiter that keeps deadlines by `now`.
    pub fn with_clock(poll: &'a mut dyn FnMut(), now: &'a dyn Fn() -> Instant) -> Self {
        Self { poll, now: Some(now) }
    }
}

impl Wait for SpinWait<'_> {
    fn wait(&mut self, mut f: Pin<&mut dyn Future<Output = ()>>, deadline: Option<Instant>) -> Result<(), TimedOut> {
        let mut cx = Context::from_waker(Waker::noop());
        while f.as_mut().poll(&mut cx).is_pending() {
            (self.poll)();
            if let (Some(at), Some(now)) = (deadline, self.now)
                && now() >= at
            {
                return Err(TimedOut);
            }
            core::hint::spin_loop();
        }
        Ok(())
    }
}

#[cfg(feature = "std")]
pub use thread::ThreadWait;

#[cfg(feature = "std")]
mod thread {
    use super::*;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use std::thread::{self, Thread};

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
        fn wake_by_ref(self: &Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Parks the calling host thread. Make one per thread and keep it: making it allocates, waiting does not.
    pub struct ThreadWait {
        waker: Waker,
    }

    impl ThreadWait {
        /// A waiter for the current thread.
        pub fn new() -> Self {
            Self { waker: Arc::new(Unpark(thread::current())).into() }
        }
    }

    impl Default for ThreadWait {
        fn default() -> Self {
            Self::new()
        }
    }

    impl Wait for ThreadWait {
        fn wait(&mut self, mut f: Pin<&mut dyn Future<Output = ()>>, deadline: Option<Instant>) -> Result<(), TimedOut> {
            let mut cx = Context::from_waker(&self.waker);
            while f.as_mut().poll(&mut cx).is_pending() {
                match deadline {
                    None => thread::park(),
                    Some(at) => {
                        let left = at.saturating_since(crate::host::now());
                        if left.is_zero() {
                            return Err(TimedOut);
                        }
                        thread::park_timeout(left);
                    }
                }
            }
            Ok(())
        }
    }
}
