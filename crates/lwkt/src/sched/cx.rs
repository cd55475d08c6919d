//! The running thread's context.

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::panic::Location;
use core::pin::Pin;
use core::task::Context;

use dfly_hal::{CpuId, Instant, TimedOut, Wait};

use crate::sched::info::ThreadId;
use crate::sched::scheduler::Scheduler;
use crate::sched::thread::{Thread, WAKER};
use crate::token::{Link, Mode, Word};

/// The running thread, in its own hands: what it may wait with.
///
/// A thread gets a `&mut Cx` when it begins, passes it to whatever may block, and cannot give it to another thread or
/// keep it beyond its end. To hold a [token](crate::token) borrows this context and gives an inner one, which is used in
/// its place for as long as the hold lasts. What blocks gives up all tokens of the thread, whatever context it is
/// given, and has them again when it returns.
pub struct Cx<'a> {
    thread: &'static Thread,
    /// The hold that this context is for, and those before it. None for the thread's first context.
    link: Option<Link<'a>>,
    /// One thread's, and not to be kept.
    _here: PhantomData<&'a mut *mut ()>,
}

impl Cx<'_> {
    /// # Safety
    /// The caller is `thread` and has no other context. The context does not leave it.
    pub(crate) unsafe fn new(thread: &'static Thread) -> Self {
        Self { thread, link: None, _here: PhantomData }
    }

    /// A context inside of this one, which releases `word` when it is dropped. The caller has it, as `mode` says.
    #[inline]
    pub(crate) fn inside<'a>(
        &'a mut self,
        word: &'a Word,
        mode: Mode,
        at: &'static Location<'static>,
    ) -> Cx<'a> {
        let link = Some(Link { word, mode, at, outer: self.chain() });
        Cx { thread: self.thread, link, _here: PhantomData }
    }

    /// All that the thread holds, innermost first.
    #[inline]
    pub(crate) fn chain(&self) -> Option<&Link<'_>> {
        self.link.as_ref()
    }

    /// Blocks until the thread has `word`, as `mode` says, and all that it holds.
    ///
    /// # Panics
    /// If the thread has overflowed its stack, or has a section open.
    pub(crate) fn block_for(&mut self, word: &Word, mode: Mode, at: &'static Location<'static>) {
        self.check_stack();
        self.thread.cpu().block_for(self, at, |outer| Link { word, mode, at, outer });
    }

    /// Lets other threads of the same or a higher priority run, if any are ready, and gives all tokens up for as long.
    /// Returns when it is this thread's turn again. Threads of a lower priority do not run before this one blocks.
    ///
    /// # Panics
    /// If the thread has overflowed its stack, or has a short lock or a critical section that it has forgotten.
    #[track_caller]
    pub fn yield_now(&mut self) {
        self.check_stack();
        self.thread.cpu().yield_from(self);
    }

    /// The scheduler that runs this thread.
    pub fn scheduler(&self) -> &'static Scheduler {
        self.thread.cpu().scheduler()
    }

    /// This thread's number.
    pub fn thread(&self) -> ThreadId {
        self.thread.seen.id()
    }

    /// The CPU that this thread is on: always the same, but for [`migrate`](Self::migrate) and
    /// [`give_away`](Self::give_away).
    pub fn cpu(&self) -> CpuId {
        self.thread.cpu().id()
    }

    /// The thread, in whose own hands this is.
    #[inline]
    pub(crate) fn slot(&self) -> &'static Thread {
        self.thread
    }

    /// # Panics
    /// If the thread has overflowed its stack: nothing that it wrote can be trusted.
    #[inline]
    pub(crate) fn check_stack(&self) {
        if !self.thread.stack.is_whole() {
            overflowed(self.thread);
        }
    }
}

impl Drop for Cx<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.release();
        }
    }
}

/// `thread 7 (main) on cpu0`
impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} ({}) on {}", self.seen.id(), self.seen.name(), self.cpu().id())
    }
}

#[cold]
fn overflowed(thread: &Thread) -> ! {
    panic!("{thread} has overflowed its stack of {} bytes", thread.stack.size().bytes())
}

/// Blocks by running other threads, or halting the CPU if there are none. Deadlines are the platform's clock's.
///
/// All tokens of the thread are given up while it is blocked, and it has all of them when it goes on; it may go on later
/// for that. The future is polled with the tokens held.
///
/// A wait neither allocates nor takes a lock. One with a deadline sets a timer of the platform's clock, unless an
/// earlier one of this thread is still to come.
///
/// # Panics
/// If the thread has overflowed its stack.
impl Wait for Cx<'_> {
    fn wait(
        &mut self,
        mut f: Pin<&mut dyn Future<Output = ()>>,
        deadline: Option<Instant>,
    ) -> Result<(), TimedOut> {
        let thread = self.thread;
        let waker = thread.waker(&WAKER);
        let mut context = Context::from_waker(&waker);
        let mut late = false;
        while f.as_mut().poll(&mut context).is_pending() {
            if late {
                return Err(TimedOut);
            }
            let is_late = |at| thread.cpu().platform().now() >= at;
            late = deadline.is_some_and(is_late);
            if late {
                continue;
            }
            if let Some(at) = deadline {
                thread.set_timer(at);
            }
            self.check_stack();
            thread.cpu().block(self);
            late = deadline.is_some_and(is_late);
        }
        Ok(())
    }
}

impl fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("thread", &self.thread()).field("cpu", &self.cpu()).finish()
    }
}
