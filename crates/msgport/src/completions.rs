//! A queue of messages that came back.

use core::fmt;
use core::future::poll_fn;
use core::mem;
use core::task::{Context, Poll, Waker};

use dfly_hal::sync::Lock;
use dfly_hal::{Instant, TimedOut, Wait, block_on};

use crate::Returned;
use crate::body::{Body, Sink};
use crate::carrier::Own;

/// A reply queue: send many messages to it, then drain what came back and send the next ones from that loop.
///
/// It has room for one waiter. A second one takes the first one's place and wakes it, so none is lost; but they would
/// wake each other in turn, so let one wait.
pub struct Completions<T: Body> {
    queue: Lock<Queue<T>>,
}

struct Queue<T: Body> {
    done: Returned<T>,
    waker: Option<Waker>,
}

impl<T: Body> Completions<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self { queue: Lock::new(Queue { done: Returned::new(), waker: None }) }
    }

    /// All that came back, in order, perhaps none. Never blocks.
    pub fn drain(&self) -> Returned<T> {
        mem::take(&mut self.queue.lock().done)
    }

    /// All that came back, at least one; or registers the waker of `cx`.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<Returned<T>> {
        {
            let mut q = self.queue.lock();
            if !q.done.is_empty() {
                return Poll::Ready(mem::take(&mut q.done));
            }
            if q.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                return Poll::Pending;
            }
        }
        // To clone, to wake and to drop a waker is foreign code: not under the lock.
        let waker = cx.waker().clone();
        let replaced = {
            let mut q = self.queue.lock();
            if !q.done.is_empty() {
                return Poll::Ready(mem::take(&mut q.done));
            }
            q.waker.replace(waker)
        };
        // Who is somebody else looks again. Not `will_wake`: that may take one task's wakers for two, and a task that
        // wakes itself whenever it looks never sleeps. A waker without data does not say whose it is.
        if let Some(other) = replaced
            && (other.data().is_null() || other.data() != cx.waker().data())
        {
            other.wake();
        }
        Poll::Pending
    }

    /// Waits until something came back, and gives all that did.
    pub fn wait<W: Wait + ?Sized>(
        &self,
        w: &mut W,
        deadline: Option<Instant>,
    ) -> Result<Returned<T>, TimedOut> {
        block_on(w, poll_fn(|cx| self.poll_drain(cx)), deadline)
    }
}

impl<T: Body> Sink<T> for Completions<T> {
    fn accept(&self, done: Own<T>) {
        let waker = {
            let mut q = self.queue.lock();
            q.done.push(done);
            q.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T: Body> Default for Completions<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Body> fmt::Debug for Completions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").finish_non_exhaustive()
    }
}
