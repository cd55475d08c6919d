//! The long lock: blocks through [`Wait`], first come, first served.
//!
//! `state` decides who holds the lock; `queue` lists who waits. A waiter's node is part of its pinned [`Acquire`], so
//! waiting allocates nothing. Three rules carry the proof (`DESIGN.md` has it in full):
//!
//! 1. `state` turns `FREE` only by `HELD -> FREE` (nobody waits) or, under the queue's lock, with the queue empty. So
//!    whoever finds it `FREE` passes nobody who waits.
//! 2. A node is put into the queue only under its lock, and only after `state` was seen to be held and was made
//!    `QUEUED`; so the holder's `HELD -> FREE` fails and it looks into the queue. No wake-up is lost.
//! 3. With somebody waiting, the lock is never set free: the holder hands it to the first node. A node that got it and is
//!    dropped instead hands it on.

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

use super::atomic::{AtomicU8, Ordering};
use super::cell::UnsafeCell;
use super::wait_queue::{Place, WaitQueue, Waiter};
use crate::{Instant, TimedOut, Wait, block_on};

/// Nobody holds the lock, nobody waits.
const FREE: u8 = 0;
/// Held; the queue is empty.
const HELD: u8 = 1;
/// Held; somebody may be in the queue.
const QUEUED: u8 = 2;

/// A lock that may be held across I/O: who finds it taken blocks, in order of arrival.
///
/// - Thread context only, and not while a [`Lock`](super::Lock) is held. [`try_lock`](Self::try_lock) and dropping a guard never
///   block, but spin shortly, so an interrupt handler must not call them either.
/// - First come, first served: the lock is handed over, so nobody who waits is passed and none waits for ever.
/// - A wait can be given up at any moment (a deadline, a dropped future): the lock goes on to the next.
/// - Nothing is allocated. Uncontended, taking and releasing cost one atomic read-modify-write each.
/// - Locking twice in one thread waits for ever.
///
/// ```
/// use dfly_hal::sync::WaitLock;
/// # fn doc(w: &mut dyn dfly_hal::Wait, disk: impl Fn(&mut u32, &mut dyn dfly_hal::Wait)) {
/// static INODE: WaitLock<u32> = WaitLock::new(0);
/// let mut inode = INODE.lock(w);
/// disk(&mut inode, w);                      // blocks; others wait for the inode meanwhile
/// # }
/// ```
pub struct WaitLock<T: ?Sized> {
    state: AtomicU8,
    queue: WaitQueue<()>,
    data: UnsafeCell<T>,
}

// SAFETY: the lock lends its data to one guard at a time, so to share the lock is to send the data.
unsafe impl<T: ?Sized + Send> Sync for WaitLock<T> {}

impl<T> WaitLock<T> {
    /// A free lock around `data`.
    #[cfg(not(loom))]
    pub const fn new(data: T) -> Self {
        Self { state: AtomicU8::new(FREE), queue: WaitQueue::new(), data: UnsafeCell::new(data) }
    }

    /// A free lock around `data`.
    #[cfg(loom)]
    pub fn new(data: T) -> Self {
        Self { state: AtomicU8::new(FREE), queue: WaitQueue::new(), data: UnsafeCell::new(data) }
    }

    /// The data, with the lock taken apart.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> WaitLock<T> {
    /// Takes the lock, blocking through `w` until it is free.
    pub fn lock(&self, w: &mut dyn Wait) -> WaitGuard<'_, T> {
        if let Some(guard) = self.try_lock() {
            return guard;
        }
        let mut acquire = pin!(self.acquire());
        loop {
            // A waiter that comes back early is sent again; the place in the queue stays.
            if let Ok(guard) = block_on(w, acquire.as_mut(), None) {
                return guard;
            }
        }
    }

    /// Takes the lock, blocking through `w` until it is free or `deadline` has passed.
    pub fn lock_until(&self, w: &mut dyn Wait, deadline: Instant) -> Result<WaitGuard<'_, T>, TimedOut> {
        if let Some(guard) = self.try_lock() {
            return Ok(guard);
        }
        let mut acquire = pin!(self.acquire());
        block_on(w, acquire.as_mut(), Some(deadline)).or_else(|TimedOut| {
            // It may have been handed over while the waiter was giving up.
            match acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(guard) => Ok(guard),
                Poll::Pending => Err(TimedOut),
            }
        })
    }

    /// Takes the lock if it is free. Never blocks.
    #[inline]
    pub fn try_lock(&self) -> Option<WaitGuard<'_, T>> {
        // Acquire: sees what the last holder wrote (pairs with the Release of `HELD -> FREE` and of `QUEUED -> FREE`).
        match self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Some(WaitGuard::new(self)),
            Err(_) => None,
        }
    }

    /// The lock as a future, for an executor. It takes its place in the queue when it is first polled, and gives it up
    /// when it is dropped. A future that is forgotten keeps its place, and the lock will stay with it.
    pub fn acquire(&self) -> Acquire<'_, T> {
        Acquire { lock: self, waiter: self.queue.waiter() }
    }

    /// The data, without locking: `&mut self` proves that nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` is exclusive, and the reference lives no longer.
        self.data.with_mut(|data| unsafe { &mut *data })
    }

    #[inline]
    fn release(&self) {
        // Release: the next holder sees what this one wrote (pairs with the Acquire in `try_lock` and `poll`).
        if self.state.compare_exchange(HELD, FREE, Ordering::Release, Ordering::Relaxed).is_err() {
            self.hand_over();
        }
    }

    /// Gives the lock to the first in the queue, or sets it free if all of them have gone.
    #[cold]
    fn hand_over(&self) {
        let next = {
            let mut queue = self.queue.lock();
            let Some(waker) = queue.choose() else {
                // Release: as in `release`.
                self.state.store(FREE, Ordering::Release);
                return;
            };
            if queue.is_empty() {
                // Relaxed: the chosen one learns of its turn under the queue's lock, so after this.
                self.state.store(HELD, Ordering::Relaxed);
            }
            waker
        };
        // Outside the queue's lock: a waker is somebody else's code. The node may be gone by now; the waker is ours.
        next.wake();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for WaitLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(data) => f.debug_tuple("WaitLock").field(&&*data).finish(),
            None => f.write_str("WaitLock(<taken>)"),
        }
    }
}

impl<T: Default> Default for WaitLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// The right to the data of a [`WaitLock`]. Nothing is disabled while it lives: its holder may block, and the guard may
/// go to another thread.
#[must_use = "the lock is released where the guard is dropped"]
pub struct WaitGuard<'a, T: ?Sized> {
    lock: &'a WaitLock<T>,
    // `Send` and `Sync` where `&mut T` is.
    _data: PhantomData<&'a mut T>,
}

impl<'a, T: ?Sized> WaitGuard<'a, T> {
    /// Whoever calls this holds the lock.
    fn new(lock: &'a WaitLock<T>) -> Self {
        Self { lock, _data: PhantomData }
    }
}

impl<T: ?Sized> Deref for WaitGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and `&self` keeps it alive and its `deref_mut` away.
        self.lock.data.with(|data| unsafe { &*data })
    }
}

impl<T: ?Sized> DerefMut for WaitGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and `&mut self` makes this its only reference.
        self.lock.data.with_mut(|data| unsafe { &mut *data })
    }
}

impl<T: ?Sized> Drop for WaitGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.release();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for WaitGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A place in the queue of a [`WaitLock`]. Completes with the guard.
#[must_use = "a future does nothing until it is polled"]
pub struct Acquire<'a, T: ?Sized> {
    lock: &'a WaitLock<T>,
    waiter: Waiter<'a, ()>,
}

impl<'a, T: ?Sized> Acquire<'a, T> {
    fn waiter(self: Pin<&Self>) -> Pin<&Waiter<'a, ()>> {
        // SAFETY: the waiter is pinned with its future: nothing moves it out.
        unsafe { self.map_unchecked(|this| &this.waiter) }
    }
}

impl<'a, T: ?Sized> Future for Acquire<'a, T> {
    type Output = WaitGuard<'a, T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (lock, waiter) = (self.lock, self.as_ref().waiter());
        // Cloned before the queue is locked, and the old one dropped after: a waker is somebody else's code.
        let waker = cx.waker().clone();
        let mut queue = lock.queue.lock();
        match queue.place(waiter) {
            Place::Outside => {
                // Acquire: as in `try_lock`.
                if lock.state.swap(QUEUED, Ordering::Acquire) == FREE {
                    // The queue is empty (rule 1): nobody is passed.
                    lock.state.store(HELD, Ordering::Relaxed);
                    drop(queue);
                    return Poll::Ready(WaitGuard::new(lock));
                }
                queue.push_back(waiter, (), waker);
                Poll::Pending
            }
            Place::Chosen => {
                queue.leave(waiter);
                drop(queue);
                Poll::Ready(WaitGuard::new(lock))
            }
            // Nobody refuses.
            Place::Inside | Place::Refused => {
                let old = queue.replace_waker(waiter, waker);
                drop(queue);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl<T: ?Sized> Drop for Acquire<'_, T> {
    fn drop(&mut self) {
        if !self.waiter.has_entered() {
            return;
        }
        // SAFETY: it was pinned when it entered, and is not moved any more.
        let waiter = unsafe { Pin::new_unchecked(&self.waiter) };
        let mut queue = self.lock.queue.lock();
        let was = queue.place(waiter);
        let waker = queue.leave(waiter);
        drop(queue);
        drop(waker);
        if was == Place::Chosen {
            // Rule 3: it held the lock without knowing.
            self.lock.release();
        }
    }
}

impl<T: ?Sized> fmt::Debug for Acquire<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").finish_non_exhaustive()
    }
}
