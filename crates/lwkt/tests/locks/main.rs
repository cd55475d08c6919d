//! What the locks do.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod abuse;
mod lockmgr;
mod model;
mod mtx;
mod serializer;
mod spin;

#[cfg(not(miri))]
mod cost;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A look that wakes nobody.
pub(crate) fn look<F: Future>(f: Pin<&mut F>) -> Poll<F::Output> {
    f.poll(&mut Context::from_waker(Waker::noop()))
}

/// Counts how often it is called.
#[derive(Default)]
pub(crate) struct Calls(AtomicU32);

impl Calls {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A deadline that passes soon.
pub(crate) fn soon() -> dfly_hal::Instant {
    dfly_hal::host::now().saturating_add(std::time::Duration::from_millis(2))
}

/// The message that `f` panics with.
pub(crate) fn panic_of(f: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let payload = std::panic::catch_unwind(f).unwrap_err();
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}
