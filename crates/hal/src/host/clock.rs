//! The operating system's clock.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt;
use core::task::Waker;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use crate::{Clock, Instant};

/// The host's monotonic clock. It starts at the first call in this process.
pub fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let start = START.get_or_init(std::time::Instant::now);
    Instant::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The host's monotonic clock with timers. All of them tell the same time, [`now`]; each has a thread of its own for its
/// timers, started by the first [`wake_at`](Clock::wake_at) and ended when the clock is dropped, which forgets the
/// timers that are left. A timer allocates.
#[derive(Default)]
pub struct HostClock {
    timers: Arc<Timers>,
    thread: OnceLock<JoinHandle<()>>,
}

#[derive(Default)]
struct Timers {
    queue: Mutex<Queue>,
    /// An earlier timer, or the end, has come.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// By time, then by order of arrival.
    due: BTreeMap<(Instant, u64), Waker>,
    arrivals: u64,
    ended: bool,
}

impl HostClock {
    /// A clock.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Clock for HostClock {
    fn now(&self) -> Instant {
        now()
    }

    fn wake_at(&self, at: Instant, waker: &Waker) {
        if at <= now() {
            return waker.wake_by_ref();
        }
        // Cloned before the queue is locked: a waker is somebody else's code.
        let waker = waker.clone();
        let mut queue = self.timers.lock();
        queue.arrivals += 1;
        let key = (at, queue.arrivals);
        queue.due.insert(key, waker);
        let first = queue.due.first_key_value().is_some_and(|(&first, _)| first == key);
        drop(queue);
        self.thread.get_or_init(|| {
            let timers = self.timers.clone();
            thread::spawn(move || timers.run())
        });
        if first {
            self.timers.changed.notify_one();
        }
    }
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code of others runs under the lock, so a poisoned queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut queue = self.lock();
        while !queue.ended {
            let Some(first) = queue.due.first_entry() else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = first.key().0.saturating_since(now());
            if left.is_zero() {
                let waker = first.remove();
                drop(queue);
                waker.wake();
                queue = self.lock();
            } else {
                queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Drop for HostClock {
    fn drop(&mut self) {
        let mut queue = self.timers.lock();
        queue.ended = true;
        let forgotten = core::mem::take(&mut queue.due);
        drop(queue);
        drop(forgotten);
        self.timers.changed.notify_one();
        if let Some(thread) = self.thread.take()
            // A waker that owned the last handle to the clock drops it on the timers' own thread, which ends by itself.
            && thread.thread().id() != thread::current().id()
        {
            // It ends unless a waker panicked, and that has been reported.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for HostClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostClock").field("now", &now()).finish_non_exhaustive()
    }
}
