//! Waiting for a blocking lock.

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::panic::Location;
use core::pin::{Pin, pin};
// `core`'s: touched with the queue locked only.
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use core::task::{Context, Poll};

use dfly_hal::sync::wait_queue::{Place, Waiter};
use dfly_hal::{Instant, Wait, block_on};

use super::error::{Cause, LockError};
use super::guard::{ExclusiveGuard, SharedGuard};
use super::rw::{Ask, Entry, RwLock, Want};

/// How a lock is held: [`Exclusive`] or [`Shared`].
pub trait Mode: sealed::Mode {}

/// Alone.
#[derive(Debug)]
pub enum Exclusive {}

/// With others who read.
#[derive(Debug)]
pub enum Shared {}

impl Mode for Exclusive {}
impl Mode for Shared {}

mod sealed {
    use super::{ExclusiveGuard, Location, RwLock, SharedGuard};

    pub trait Mode {
        type Guard<'a, T: ?Sized + 'a>;

        /// Whoever calls this has the lock.
        fn guard<'a, T: ?Sized>(lock: &'a RwLock<T>, at: &'static Location<'static>) -> Self::Guard<'a, T>;
    }

    impl Mode for super::Exclusive {
        type Guard<'a, T: ?Sized + 'a> = ExclusiveGuard<'a, T>;

        fn guard<'a, T: ?Sized>(lock: &'a RwLock<T>, at: &'static Location<'static>) -> Self::Guard<'a, T> {
            ExclusiveGuard::new(lock, at)
        }
    }

    impl Mode for super::Shared {
        type Guard<'a, T: ?Sized + 'a> = SharedGuard<'a, T>;

        fn guard<'a, T: ?Sized>(lock: &'a RwLock<T>, at: &'static Location<'static>) -> Self::Guard<'a, T> {
            SharedGuard::new(lock, at)
        }
    }
}

/// Stages of a place: it has not completed yet; it was aborted and has not completed since; it has completed.
const FRESH: u8 = 0;
const ABORTED: u8 = 1;
const DONE: u8 = 2;

/// A place in the queue of a blocking lock: DragonFly's `mtx_link`. Completes with the guard, an [`ExclusiveGuard`] or a
/// [`SharedGuard`].
///
/// - It takes its place when it is first polled, and gives it up when it is dropped. What it had been given by then goes
///   on to the next. One that is forgotten keeps its place, and in its turn the lock.
/// - The callback of a link is the waker: called once by whoever hands the lock over, with nothing locked; not called
///   if the first poll gets the lock.
/// - [`abort`](Self::abort) ends the wait from anywhere.
///
/// ```
/// use std::pin::pin;
/// use std::task::{Context, Poll, Wake, Waker};
/// use dfly_lwkt::lock::{Cause, Mtx};
///
/// struct Callback;
/// impl Wake for Callback {
///     fn wake(self: std::sync::Arc<Self>) { /* the lock is ours: queue the work that wants it */ }
/// }
/// let waker = Waker::from(std::sync::Arc::new(Callback));
/// let mut context = Context::from_waker(&waker);
///
/// let lock = Mtx::new(1);
/// let held = lock.try_lock();
/// let mut link = pin!(lock.acquire());
/// assert!(link.as_mut().poll(&mut context).is_pending());
/// drop(held);                                             // calls back
/// let Poll::Ready(Ok(guard)) = link.as_mut().poll(&mut context) else { panic!() };
/// assert!(!link.as_ref().abort(), "too late");
/// # use std::future::Future; let _ = (guard, Cause::Aborted);
/// ```
#[must_use = "a future does nothing until it is polled"]
pub struct Acquire<'a, T: ?Sized, M: Mode> {
    lock: &'a RwLock<T>,
    waiter: Waiter<'a, Ask>,
    ask: Ask,
    at: &'static Location<'static>,
    stage: AtomicU8,
    _mode: PhantomData<fn() -> M>,
}

impl<'a, T: ?Sized, M: Mode> Acquire<'a, T, M> {
    /// Ends the wait: the future completes with [`Cause::Aborted`], and its waker is called. One that has not been
    /// polled yet does so when it is. Returns whether it came in time; if not, the lock has been handed over, and the
    /// future completes with the guard or has done so.
    ///
    /// Whoever polls a future by `&mut` has it alone, [`block_on`](dfly_hal::block_on) included: one that others may abort is
    /// pinned where both see it, and polled there between their looks.
    ///
    /// Thread context, any thread; never blocks.
    pub fn abort(self: Pin<&Self>) -> bool {
        let mut queue = self.lock.queue().lock();
        let place = queue.place(self.waiter());
        let in_time = match place {
            Place::Outside => self.stage.load(Relaxed) != DONE,
            Place::Inside => true,
            Place::Chosen | Place::Refused => false,
        };
        if in_time {
            self.stage.store(ABORTED, Relaxed);
        }
        let waker = queue.refuse(self.waiter());
        drop(queue);
        if let Some(waker) = waker {
            // Who came behind may have room now.
            self.lock.settle();
            waker.wake();
        }
        in_time
    }

    /// Gives the place up. Returns whether the lock had been handed over by then: it is the caller's now.
    fn give_up(self: Pin<&Self>) -> bool {
        let mut queue = self.lock.queue().lock();
        let was = queue.place(self.waiter());
        let waker = queue.leave(self.waiter());
        drop(queue);
        if was == Place::Inside {
            // Who came behind may have room now.
            self.lock.settle();
        }
        // Somebody else's code, so last: nobody is left waiting where it panics.
        drop(waker);
        was == Place::Chosen
    }

    fn waiter(self: Pin<&Self>) -> Pin<&Waiter<'a, Ask>> {
        // SAFETY: the waiter is pinned with its future: nothing moves it out.
        unsafe { self.map_unchecked(|this| &this.waiter) }
    }

    fn error(&self, cause: Cause) -> LockError {
        LockError::new(cause, self.lock.site())
    }
}

impl<'a, T: ?Sized, M: Mode> Future for Acquire<'a, T, M> {
    type Output = Result<M::Guard<'a, T>, LockError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_ref();
        let lock = this.lock;
        // Cloned before the queue is locked, and the old one dropped after: a waker is somebody else's code.
        let waker = cx.waker().clone();
        let mut queue = lock.queue().lock();
        let aborted = this.stage.swap(FRESH, Relaxed) == ABORTED;
        let outcome = match queue.place(this.waiter()) {
            Place::Outside if aborted => Err(Cause::Aborted),
            Place::Outside => match lock.enter(&mut queue, this.ask) {
                Entry::LetIn => Ok(()),
                Entry::Refused(cause) => Err(cause),
                Entry::Waits if this.ask.want == Want::Upgrade => {
                    queue.push_front(this.waiter(), this.ask, waker);
                    return Poll::Pending;
                }
                Entry::Waits => {
                    queue.push_back(this.waiter(), this.ask, waker);
                    return Poll::Pending;
                }
            },
            Place::Inside => {
                let old = queue.replace_waker(this.waiter(), waker);
                drop(queue);
                drop(old);
                return Poll::Pending;
            }
            place @ (Place::Chosen | Place::Refused) => {
                queue.leave(this.waiter());
                match place {
                    Place::Chosen => Ok(()),
                    _ if aborted => Err(Cause::Aborted),
                    _ => Err(Cause::Cancelled),
                }
            }
        };
        this.stage.store(DONE, Relaxed);
        drop(queue);
        Poll::Ready(match outcome {
            Ok(()) => Ok(M::guard(lock, this.at)),
            Err(cause) => Err(this.error(cause)),
        })
    }
}

impl<T: ?Sized, M: Mode> Drop for Acquire<'_, T, M> {
    fn drop(&mut self) {
        if !self.waiter.has_entered() {
            return;
        }
        // SAFETY: it was pinned when it entered, and is not moved any more.
        let this = unsafe { Pin::new_unchecked(&*self) };
        if this.give_up() {
            match this.ask.want {
                Want::Exclusive => this.lock.release_exclusive(),
                Want::Shared => this.lock.release_shared(),
                // What was given for the whole, the share, is held by somebody else still.
                Want::Upgrade => this.lock.downgrade(),
            }
        }
    }
}

impl<T: ?Sized, M: Mode> fmt::Debug for Acquire<'_, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("ask", &self.ask).field("at", &self.at).finish_non_exhaustive()
    }
}

/// For the locks.
impl<T: ?Sized> RwLock<T> {
    /// A place in the queue. For `Want::Upgrade`, whoever calls this has a share as long as the future lives, and
    /// forgets it when the future completes with a guard.
    #[track_caller]
    pub(super) fn acquire<M: Mode>(&self, ask: Ask) -> Acquire<'_, T, M> {
        let (waiter, at) = (self.queue().waiter(), Location::caller());
        Acquire { lock: self, waiter, ask, at, stage: AtomicU8::new(FRESH), _mode: PhantomData }
    }

    /// Blocks through `w`. As for `acquire`.
    #[cold]
    #[track_caller]
    pub(super) fn wait<M: Mode>(
        &self,
        ask: Ask,
        w: &mut dyn Wait,
        deadline: Option<Instant>,
    ) -> Result<M::Guard<'_, T>, LockError> {
        self.site().collided();
        let mut acquire = pin!(self.acquire::<M>(ask));
        loop {
            if let Ok(outcome) = block_on(w, acquire.as_mut(), deadline) {
                return outcome;
            }
            if deadline.is_some() {
                // It may have been handed over while the waiter was giving up.
                let in_time = acquire.as_ref().give_up();
                let late = || LockError::new(Cause::TimedOut, self.site());
                return if in_time { Ok(M::guard(self, acquire.at)) } else { Err(late()) };
            }
            // A waiter that comes back early is sent again; the place in the queue stays.
        }
    }
}
