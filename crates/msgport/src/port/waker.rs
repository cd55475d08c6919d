//! The waker port: no lock at all, and one receiver, which is whatever a waker wakes.

use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use dfly_hal::sync::atomic::{AtomicUsize, Ordering};
use dfly_hal::{Instant, TimedOut, Wait, block_on};

use super::receive::{Class, Classes, Event, end_recalled, is_recalled, wake};
use super::{Port, PortStats, Put};
use crate::carrier::{Inbox, Sleep, Taker};
use crate::{Body, Job, List, Unanswered};

/// A port that everybody sends to, interrupt handlers included, and one task receives from: a thread, or a future on any
/// executor.
///
/// Sending takes no lock: one atomic read-modify-write, and the wake of a receiver that sleeps. The receiver takes all
/// that has come in one piece, so urgent messages overtake what came with them and not what it has already. For the
/// same reason [`withdraw`](crate::Pending::withdraw) finds nothing here, and an abort waits for the receiver to look.
///
/// When its [`WakerReceiver`] is dropped the port is closed for good, as a [`SpinPort`](super::SpinPort) is.
pub struct WakerPort<T: Body> {
    inbox: Inbox<T>,
    sweeps: AtomicUsize,
}

impl<T: Body> WakerPort<T> {
    /// An open port.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { inbox: Inbox::new(), sweeps: AtomicUsize::new(0) }
    }

    /// An open port.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { inbox: Inbox::new(), sweeps: AtomicUsize::new(0) }
    }

    /// The right to receive; `None` if somebody has it.
    pub fn receiver(&self) -> Option<WakerReceiver<'_, T>> {
        let taker = self.inbox.claim()?;
        // Relaxed: what was asked back before there was a receiver is found in the queue.
        let sweeps_seen = self.sweeps.load(Ordering::Relaxed);
        Some(WakerReceiver {
            port: self,
            taker,
            ready: Classes::new(),
            sweeps_seen,
            stats: PortStats::default(),
        })
    }

    /// Closes the port for good. What is queued goes back as [`PortClosed`](Unanswered::PortClosed), from here; what
    /// the receiver took already, it is still given.
    pub fn close(&self) {
        let (queued, waker) = self.inbox.close();
        waker.into_iter().for_each(Waker::wake);
        let mut in_order = List::new();
        queued.for_each(|job| in_order.push_front(job));
        in_order.for_each(|job| job.refuse(Unanswered::PortClosed));
    }
}

impl<T: Body> Port<T> for WakerPort<T> {
    fn put(&self, mut job: Job<T>) -> Put<T> {
        let receipt = job.receipt();
        match self.inbox.push(job) {
            Ok(waker) => {
                wake(receipt, waker);
                Put::Async
            }
            Err(mut job) => {
                job.mark(Unanswered::PortClosed);
                Put::Done(job)
            }
        }
    }

    fn sweep(&self) {
        // Release: a receiver that sees the count sees whose wish it stands for (pairs with the Acquire in `is_swept`).
        // The nudge that follows has one that is going to sleep see the count.
        self.sweeps.fetch_add(1, Ordering::Release);
        self.inbox.nudge().into_iter().for_each(Waker::wake);
    }
}

/// The right to receive from a [`WakerPort`].
pub struct WakerReceiver<'p, T: Body> {
    port: &'p WakerPort<T>,
    taker: Taker<'p, T>,
    /// Taken from the inbox, and not yet given out.
    ready: Classes<T>,
    sweeps_seen: usize,
    stats: PortStats,
}

impl<T: Body> WakerReceiver<'_, T> {
    /// The next job, if there is one. Never blocks. DragonFly: `lwkt_getport`.
    pub fn get(&mut self) -> Option<Job<T>> {
        loop {
            if self.ready.len() == 0 {
                self.refill();
            }
            let job = self.ready.pop()?;
            if !is_recalled(&job) {
                self.stats.received += 1;
                return Some(job);
            }
            self.stats.recalled += 1;
            end_recalled(job);
        }
    }

    /// The next job; or `None`: the port is closed. Blocks. For receivers that answer what they have before they take
    /// the next. DragonFly: `lwkt_waitport`.
    pub fn wait(&mut self, w: &mut (impl Wait + ?Sized)) -> Option<Job<T>> {
        loop {
            // Without a deadline a waiter has no reason to give up; one that does is asked again.
            match block_on(w, self.next(), None) {
                Ok(Event::Arrived(job)) => return Some(job),
                Ok(Event::Closed) => return None,
                Ok(Event::Recall) | Err(TimedOut) => {}
            }
        }
    }

    /// What comes next, or that nothing came until `deadline`. Blocks. For receivers that keep jobs.
    pub fn wait_event(
        &mut self,
        w: &mut (impl Wait + ?Sized),
        deadline: Option<Instant>,
    ) -> Result<Event<T>, TimedOut> {
        block_on(w, self.next(), deadline)
    }

    /// What comes next, on any executor. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Event<T> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// What comes next, or registers the waker of `cx`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event<T>> {
        loop {
            if self.is_swept() {
                return Poll::Ready(Event::Recall);
            }
            if let Some(job) = self.get() {
                return Poll::Ready(Event::Arrived(job));
            }
            if self.port.inbox.is_closed() {
                return Poll::Ready(Event::Closed);
            }
            match self.taker.sleep(cx.waker()) {
                Sleep::News => {}
                // It has seen the nudge of a sweep that found it awake, if there was one.
                Sleep::Armed if self.is_swept() => return Poll::Ready(Event::Recall),
                Sleep::Armed => return Poll::Pending,
            }
        }
    }

    /// What this receiver has seen. Counted is what comes out of the queue: sending counts nothing here.
    pub fn stats(&self) -> PortStats {
        self.stats
    }

    fn is_swept(&mut self) -> bool {
        let sweeps = self.port.sweeps.load(Ordering::Acquire);
        let seen = core::mem::replace(&mut self.sweeps_seen, sweeps);
        self.stats.sweeps += sweeps.wrapping_sub(seen) as u64;
        if sweeps == seen {
            return false;
        }
        // What was asked back and has been taken from the inbox is not seen by the sweep.
        let found = self.ready.take_recalled();
        self.stats.recalled += found.len() as u64;
        found.for_each(end_recalled);
        true
    }

    /// Takes what has come; `ready` is empty.
    fn refill(&mut self) {
        for job in self.taker.take() {
            let class = Class::of(&job);
            self.ready.push_front(job, class);
        }
        self.stats.queued += self.ready.len() as u64;
        self.stats.urgent += self.ready.urgent() as u64;
        self.stats.high_water = self.stats.high_water.max(self.ready.len());
    }
}

impl<T: Body> Drop for WakerReceiver<'_, T> {
    fn drop(&mut self) {
        self.port.close();
        self.ready.take().for_each(|job| job.refuse(Unanswered::PortClosed));
    }
}

impl<T: Body> Drop for WakerPort<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T: Body> Default for WakerPort<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Body> fmt::Debug for WakerPort<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakerPort").field("is_closed", &self.inbox.is_closed()).finish_non_exhaustive()
    }
}

impl<T: Body> fmt::Debug for WakerReceiver<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakerReceiver").field("stats", &self.stats).finish_non_exhaustive()
    }
}
