//! The spin port: a queue under a short lock, with as many receivers as there are.

use core::fmt;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

use dfly_hal::sync::Lock;
use dfly_hal::sync::wait_queue::{Place, WaitQueue, Waiter};
use dfly_hal::{Instant, TimedOut, Wait, block_on};

use super::receive::{Class, Classes, Event, end_recalled, is_recalled, wake};
use super::{Port, PortStats, Put};
use crate::{Body, Job, List, Unanswered};

/// A port that every thread may send to and any number of threads receive from. DragonFly: `lwkt_initport_spin`.
///
/// Urgent messages are received first, else it is first come, first served. One receiver is woken for a message. When
/// the last [`Receiver`] is dropped, or [`close`](Self::close) is called, the port is closed for good: what is queued,
/// and what comes later, goes back as [`PortClosed`](Unanswered::PortClosed). A port that had no receiver yet queues.
///
/// Sending and receiving take one short lock each: thread context only, never blocks. Nothing is allocated.
pub struct SpinPort<T: Body> {
    state: Lock<State<T>>,
    /// Who sleeps here. Its lock is taken inside of the state's.
    sleepers: WaitQueue<()>,
}

struct State<T: Body> {
    queue: Classes<T>,
    is_closed: bool,
    receivers: usize,
    /// How many are in `sleepers`.
    asleep: usize,
    stats: PortStats,
}

impl<T: Body> SpinPort<T> {
    /// An open port.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { state: Lock::new(State::new()), sleepers: WaitQueue::new() }
    }

    /// An open port.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { state: Lock::new(State::new()), sleepers: WaitQueue::new() }
    }

    /// The right to receive. The last one to be dropped closes the port.
    pub fn receiver(&self) -> Receiver<'_, T> {
        let mut state = self.state.lock();
        state.receivers += 1;
        Receiver { port: self, sweeps_seen: state.stats.sweeps }
    }

    /// Closes the port for good. What is queued goes back as [`PortClosed`](Unanswered::PortClosed), from here.
    pub fn close(&self) {
        let queued = {
            let mut state = self.state.lock();
            state.is_closed = true;
            let queued = state.queue.take();
            state.stats.refused += queued.len() as u64;
            queued
        };
        self.wake_all();
        queued.for_each(|job| job.refuse(Unanswered::PortClosed));
    }

    /// What the port has done so far.
    pub fn stats(&self) -> PortStats {
        self.state.lock().stats
    }

    /// How many jobs are queued.
    pub fn len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Whether no job is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn wake_all(&self) {
        loop {
            // A waker is foreign code: not under the lock.
            let Some(waker) = self.choose(&mut self.state.lock()) else { return };
            waker.wake();
        }
    }

    /// Takes the receiver that has slept longest out of the queue.
    #[inline]
    fn choose(&self, state: &mut State<T>) -> Option<Waker> {
        if state.asleep == 0 { None } else { self.choose_one(state) }
    }

    #[cold]
    fn choose_one(&self, state: &mut State<T>) -> Option<Waker> {
        state.asleep -= 1;
        state.stats.wakes += 1;
        self.sleepers.lock().choose()
    }
}

impl<T: Body> Port<T> for SpinPort<T> {
    fn put(&self, mut job: Job<T>) -> Put<T> {
        let class = Class::of(&job);
        let receipt = job.receipt();
        let waker = {
            let mut state = self.state.lock();
            if state.is_closed {
                state.stats.refused += 1;
                drop(state);
                job.mark(Unanswered::PortClosed);
                return Put::Done(job);
            }
            state.push(job, class);
            self.choose(&mut state)
        };
        wake(receipt, waker);
        Put::Async
    }

    fn sweep(&self) {
        let found = {
            let mut state = self.state.lock();
            state.stats.sweeps += 1;
            let found = state.queue.take_recalled();
            state.stats.recalled += found.len() as u64;
            found
        };
        found.for_each(end_recalled);
        self.wake_all();
    }
}

impl<T: Body> State<T> {
    const fn new() -> Self {
        let stats = PortStats {
            queued: 0,
            urgent: 0,
            received: 0,
            recalled: 0,
            refused: 0,
            sweeps: 0,
            wakes: 0,
            high_water: 0,
        };
        Self { queue: Classes::new(), is_closed: false, receivers: 0, asleep: 0, stats }
    }

    fn push(&mut self, job: Job<T>, class: Class) {
        self.queue.push(job, class);
        self.stats.queued += 1;
        self.stats.urgent += u64::from(class == Class::Urgent);
        self.stats.high_water = self.stats.high_water.max(self.queue.len());
    }

    /// The next job; as an error one that was recalled, to be [ended](end_recalled) without the lock.
    fn pop(&mut self) -> Option<Result<Job<T>, Job<T>>> {
        let job = self.queue.pop()?;
        Some(if is_recalled(&job) {
            self.stats.recalled += 1;
            Err(job)
        } else {
            self.stats.received += 1;
            Ok(job)
        })
    }

    /// What a receiver is to be told, if there is anything. An error as in [`Self::pop`].
    fn look(&mut self, sweeps_seen: &mut u64) -> Option<Result<Event<T>, Job<T>>> {
        // First: a steady stream of jobs must not hide it.
        if *sweeps_seen != self.stats.sweeps {
            *sweeps_seen = self.stats.sweeps;
            return Some(Ok(Event::Recall));
        }
        match self.pop() {
            None if self.is_closed => Some(Ok(Event::Closed)),
            job => job.map(|job| job.map(Event::Arrived)),
        }
    }
}

/// The right to receive from a [`SpinPort`]: one for each thread that does.
pub struct Receiver<'p, T: Body> {
    port: &'p SpinPort<T>,
    sweeps_seen: u64,
}

impl<T: Body> Receiver<'_, T> {
    /// The next job, if there is one. Never blocks. DragonFly: `lwkt_getport`.
    pub fn get(&mut self) -> Option<Job<T>> {
        loop {
            // The guard is gone before the job is ended.
            let taken = self.port.state.lock().pop()?;
            match taken {
                Ok(job) => return Some(job),
                Err(recalled) => end_recalled(recalled),
            }
        }
    }

    /// The next jobs, at most `max`, in order, for one turn of the lock. Never blocks.
    pub fn get_up_to(&mut self, max: usize) -> List<T> {
        let (mut jobs, mut recalled) = (List::new(), List::new());
        {
            let mut state = self.port.state.lock();
            while jobs.len() < max
                && let Some(job) = state.pop()
            {
                match job {
                    Ok(job) => jobs.push(job),
                    Err(job) => recalled.push(job),
                }
            }
        }
        recalled.for_each(end_recalled);
        jobs
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
        let port = self.port;
        let waiter = pin!(port.sleepers.waiter());
        let mut sleep = Sleep { port, waiter: waiter.as_ref(), has_event: false };
        poll_fn(|cx| sleep.poll(&mut self.sweeps_seen, cx)).await
    }
}

impl<T: Body> Drop for Receiver<'_, T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.port.state.lock();
            state.receivers -= 1;
            state.receivers
        };
        if left == 0 {
            self.port.close();
        }
    }
}

/// A receiver that may be asleep.
struct Sleep<'s, 'p, T: Body> {
    port: &'p SpinPort<T>,
    waiter: Pin<&'s Waiter<'p, ()>>,
    /// The event that it was woken for, or another, was given out.
    has_event: bool,
}

impl<T: Body> Sleep<'_, '_, T> {
    fn poll(&mut self, sweeps_seen: &mut u64, cx: &mut Context<'_>) -> Poll<Event<T>> {
        let mut waker: Option<Waker> = None;
        loop {
            let mut state = self.port.state.lock();
            match state.look(sweeps_seen) {
                Some(Ok(event)) => {
                    drop(state);
                    self.has_event = true;
                    return Poll::Ready(event);
                }
                Some(Err(recalled)) => {
                    drop(state);
                    end_recalled(recalled);
                }
                None => match waker.take() {
                    // To clone a waker is foreign code: not under the lock. Then look again.
                    None => {
                        drop(state);
                        waker = Some(cx.waker().clone());
                    }
                    Some(waker) => {
                        let old = self.lie_down(&mut state, waker);
                        drop(state);
                        drop(old);
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Enters the queue of sleepers, or stays in it with another waker. Returns a waker to be dropped.
    fn lie_down(&self, state: &mut State<T>, waker: Waker) -> Option<Waker> {
        let mut sleepers = self.port.sleepers.lock();
        if sleepers.place(self.waiter) == Place::Inside {
            return sleepers.replace_waker(self.waiter, waker);
        }
        let old = sleepers.leave(self.waiter);
        sleepers.push_back(self.waiter, (), waker);
        state.asleep += 1;
        old
    }
}

impl<T: Body> Drop for Sleep<'_, '_, T> {
    fn drop(&mut self) {
        // Who never lay down has nothing to undo: only its own thread put it there.
        if !self.waiter.has_entered() {
            return;
        }
        let (own, next) = {
            let mut state = self.port.state.lock();
            let mut sleepers = self.port.sleepers.lock();
            let place = sleepers.place(self.waiter);
            let own = sleepers.leave(self.waiter);
            drop(sleepers);
            match place {
                Place::Inside => {
                    state.asleep -= 1;
                    (own, None)
                }
                // It was woken for a job and gives up instead: somebody else is to look.
                Place::Chosen if !self.has_event && state.queue.len() > 0 => {
                    (own, self.port.choose(&mut state))
                }
                _ => (own, None),
            }
        };
        drop(own);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<T: Body> Drop for SpinPort<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T: Body> Default for SpinPort<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Body> fmt::Debug for SpinPort<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (queued, receivers) = (state.queue.len(), state.receivers);
        drop(state);
        f.debug_struct("SpinPort")
            .field("queued", &queued)
            .field("receivers", &receivers)
            .finish_non_exhaustive()
    }
}

impl<T: Body> fmt::Debug for Receiver<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("port", self.port).finish_non_exhaustive()
    }
}
