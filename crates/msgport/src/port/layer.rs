//! Ports in front of ports.

use core::fmt;

use super::{Port, Put};
use crate::{Body, Job};

/// A port in front of another: looks at each job on its way down, changes it, answers it, or sends it elsewhere.
///
/// What is to be done on the way back is a [`Hook`](crate::Hook) of the body.
///
/// ```
/// use dfly_hal::SpinWait;
/// use dfly_msgport::{Layer, Msg, Port, Put, PutOnly, Request};
///
/// let server = PutOnly::new(|mut r: Request<u32>| { **r += 1; Put::Done(r) });
/// // Answers what is zero itself.
/// let port = Layer::new(server, |r: Request<u32>, below: &dyn Port<_>| {
///     if **r == 0 { Put::Done(r) } else { below.put(r) }
/// });
/// let mut nothing = || ();
/// let w = &mut SpinWait::new(&mut nothing);
/// assert_eq!(**Msg::with(0).call(&port, w), 0);
/// assert_eq!(**Msg::with(1).call(&port, w), 2);
/// ```
pub struct Layer<P, F> {
    below: P,
    look: F,
}

impl<P, F> Layer<P, F> {
    /// A layer over `below`, which `look` is given with each job.
    pub const fn new<T: Body>(below: P, look: F) -> Self
    where
        P: Port<T>,
        F: Fn(Job<T>, &dyn Port<T>) -> Put<T> + Send + Sync,
    {
        Self { below, look }
    }
}

impl<T, P, F> Port<T> for Layer<P, F>
where
    T: Body,
    P: Port<T>,
    F: Fn(Job<T>, &dyn Port<T>) -> Put<T> + Send + Sync,
{
    fn put(&self, job: Job<T>) -> Put<T> {
        (self.look)(job, &self.below)
    }

    fn sweep(&self) {
        self.below.sweep();
    }
}

/// The self-message short cut: a service that sends to its own port would wait for itself, so what it sends is handled
/// at once instead.
///
/// ```
/// use std::thread;
/// use dfly_hal::SpinWait;
/// use dfly_msgport::{Msg, Put, Request, ShortCut, SpinPort};
///
/// let me = thread::current().id();
/// let handle = |mut r: Request<u32>| { **r += 1; Put::Done(r) };
/// let port = ShortCut::new(SpinPort::new(), move || thread::current().id() == me, handle);
/// let mut nothing = || ();
/// assert_eq!(**Msg::with(1).call(&port, &mut SpinWait::new(&mut nothing)), 2);
/// ```
pub struct ShortCut<P, I, H> {
    port: P,
    is_receiver: I,
    handle: H,
}

impl<P, I, H> ShortCut<P, I, H> {
    /// `port`, whose receiver is whoever `is_receiver` says yes to, and handles a job by `handle`.
    pub const fn new<T: Body>(port: P, is_receiver: I, handle: H) -> Self
    where
        P: Port<T>,
        I: Fn() -> bool + Send + Sync,
        H: Fn(Job<T>) -> Put<T> + Send + Sync,
    {
        Self { port, is_receiver, handle }
    }

    /// The port behind the short cut, to receive from.
    pub const fn port(&self) -> &P {
        &self.port
    }
}

impl<T, P, I, H> Port<T> for ShortCut<P, I, H>
where
    T: Body,
    P: Port<T>,
    I: Fn() -> bool + Send + Sync,
    H: Fn(Job<T>) -> Put<T> + Send + Sync,
{
    fn put(&self, job: Job<T>) -> Put<T> {
        if (self.is_receiver)() { (self.handle)(job) } else { self.port.put(job) }
    }

    fn sweep(&self) {
        self.port.sweep();
    }
}

impl<P: fmt::Debug, F> fmt::Debug for Layer<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("below", &self.below).finish_non_exhaustive()
    }
}

impl<P: fmt::Debug, I, H> fmt::Debug for ShortCut<P, I, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShortCut").field("port", &self.port).finish_non_exhaustive()
    }
}
