//! Ports and reply ports that do one thing.

use core::fmt;

use super::{Port, Put};
use crate::{Body, Job, Own, Sink, Unanswered};

/// A port that is a function, called in the sender's context. DragonFly: `lwkt_initport_putonly`.
///
/// ```
/// use dfly_hal::SpinWait;
/// use dfly_msgport::{Msg, Put, PutOnly, Request};
///
/// let double = PutOnly::new(|mut r: Request<u32>| {
///     **r *= 2;
///     Put::Done(r)
/// });
/// let mut nothing = || ();
/// let answer = Msg::with(21).call(&double, &mut SpinWait::new(&mut nothing));
/// assert_eq!(**answer, 42);
/// ```
pub struct PutOnly<F>(F);

impl<F> PutOnly<F> {
    /// A port of which `put` is `f`.
    pub const fn new<T: Body>(f: F) -> Self
    where
        F: Fn(Job<T>) -> Put<T> + Send + Sync,
    {
        Self(f)
    }
}

impl<T: Body, F: Fn(Job<T>) -> Put<T> + Send + Sync> Port<T> for PutOnly<F> {
    fn put(&self, job: Job<T>) -> Put<T> {
        (self.0)(job)
    }
}

/// A port that is never open: what is sent to it comes back at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NullPort;

impl<T: Body> Port<T> for NullPort {
    fn put(&self, mut job: Job<T>) -> Put<T> {
        job.mark(Unanswered::PortClosed);
        Put::Done(job)
    }
}

/// A port that must never be sent to: panics in the sender. DragonFly: `lwkt_initport_panic`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicPort;

impl<T: Body> Port<T> for PanicPort {
    /// # Panics
    /// Always; the job comes back to its originator as orphaned.
    fn put(&self, _job: Job<T>) -> Put<T> {
        panic!("a message to a port that must not be sent to")
    }
}

/// A reply port that is a function, called in the replier's context. DragonFly: `lwkt_initport_replyonly`.
///
/// It must not block, and not send from there what may be answered at once (see [`Sink::accept`]).
pub struct ReplyOnly<F>(F);

impl<F> ReplyOnly<F> {
    /// A reply port that gives what comes back to `f`.
    pub const fn new<T: Body>(f: F) -> Self
    where
        F: Fn(Own<T>) + Send + Sync,
    {
        Self(f)
    }
}

impl<T: Body, F: Fn(Own<T>) + Send + Sync> Sink<T> for ReplyOnly<F> {
    fn accept(&self, done: Own<T>) {
        (self.0)(done);
    }
}

/// A reply port that lets everything go home: to its pool, or freed. DragonFly: `lwkt_initport_replyonly_null`, and
/// the auto-free port. [`Own::post`] does without a reply port at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NullReply;

impl<T: Body> Sink<T> for NullReply {
    fn accept(&self, done: Own<T>) {
        drop(done);
    }
}

/// A reply port of messages that must never be replied to: panics in the replier. DragonFly: `lwkt_initport_panic`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicReply;

impl<T: Body> Sink<T> for PanicReply {
    /// # Panics
    /// Always; the message goes home.
    fn accept(&self, _done: Own<T>) {
        panic!("a reply to a message that must not be replied to")
    }
}

impl<F> fmt::Debug for PutOnly<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutOnly").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for ReplyOnly<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyOnly").finish_non_exhaustive()
    }
}
