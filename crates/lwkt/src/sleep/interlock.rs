//! How a thread goes to sleep.

use core::fmt;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

use dfly_hal::sync::atomic::{Ordering, fence};
use dfly_hal::{Instant, TimedOut, Wait};

use super::ident::Channel;
use crate::sched::Cx;

/// Sleeping.
impl<'a> Cx<'a> {
    /// The first step to sleep on `channel`: from now on no [`wakeup`](crate::Scheduler::wakeup) for it gets lost. The
    /// caller then looks whether it still has to wait, and sleeps by [`Interlock::wait`], or drops what is returned.
    ///
    /// What the caller sees then is what any waker wrote before whose wake-up came too early: a Relaxed load is enough.
    pub fn interlock(&mut self, channel: impl Into<Channel>) -> Interlock<'_, 'a> {
        let channel = channel.into();
        let thread = self.slot();
        thread.cpu().enter_sleep(thread, channel);
        // With the fence in `Scheduler::wake`: either the waker sees this CPU's bit, or this thread sees what the waker
        // did to the condition.
        fence(Ordering::SeqCst);
        Interlock { cx: self, channel }
    }

    /// Sleeps on `channel` as long as `condition` says so: looks with the interlock held, sleeps, and looks again after
    /// each wake-up. `condition` must not wait.
    pub fn sleep_while(
        &mut self,
        channel: impl Into<Channel>,
        deadline: Option<Instant>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), TimedOut> {
        let channel = channel.into();
        while condition() {
            let sleep = self.interlock(channel);
            if !condition() {
                break;
            }
            if sleep.wait(deadline).is_err() {
                return if condition() { Err(TimedOut) } else { Ok(()) };
            }
        }
        Ok(())
    }
}

/// A thread that is about to sleep. It has its context, so it does nothing else that waits in between.
///
/// Dropping it gives the sleep up. Forgetting it does no harm: a wake-up that comes too late wakes for no reason.
#[must_use = "it is what one sleeps with"]
pub struct Interlock<'c, 'a> {
    cx: &'c mut Cx<'a>,
    channel: Channel,
}

impl<'a> Interlock<'_, 'a> {
    /// Sleeps until a wake-up, or until `deadline` has passed by the machine's clock. Every wake-up after the interlock
    /// counts; one that came shortly before may, if this CPU has not looked at it yet. A wake-up that comes at the same moment as the deadline is one or the other, for both sides: a
    /// [`wakeup_one`](crate::Scheduler::wakeup_one) that chose this thread is `Ok`.
    ///
    /// Allocates nothing, but for what the platform's clock needs for a deadline.
    ///
    /// # Panics
    /// As a [wait](Cx#impl-Wait-for-Cx<'_>) does.
    pub fn wait(self, deadline: Option<Instant>) -> Result<(), TimedOut> {
        let thread = self.cx.slot();
        thread.cpu().fall_asleep(thread);
        let place = &thread.place;
        let woken = pin!(poll_fn(|_| if place.is_woken() { Poll::Ready(()) } else { Poll::Pending }));
        // What counts is what this CPU's queues say.
        let _ = self.cx.wait(woken, deadline);
        if self.leave() { Ok(()) } else { Err(TimedOut) }
    }

    /// The thread's context, to look at what its tokens guard.
    pub fn cx(&self) -> &Cx<'a> {
        self.cx
    }

    /// What is slept on.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// Leaves the queue; returns whether a wake-up came first.
    fn leave(&self) -> bool {
        let thread = self.cx.slot();
        thread.cpu().leave_sleep(thread)
    }
}

impl Drop for Interlock<'_, '_> {
    fn drop(&mut self) {
        // A wake-up that this thread has not heard of, because it unwinds or looks no more, is another one's.
        if self.leave() {
            self.cx.scheduler().wakeup_one(self.channel);
        }
    }
}

impl fmt::Debug for Interlock<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interlock").field("channel", &self.channel).finish_non_exhaustive()
    }
}
