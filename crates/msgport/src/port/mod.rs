//! Ports: where messages are sent to. The receiver decides whether it answers at once or later.

mod call;
mod layer;
mod message;
mod receive;
mod special;
mod spin;
mod waker;

pub use layer::{Layer, ShortCut};
pub use message::{Message, Msg, Request, Sent};
pub use receive::Event;
pub use special::{NullPort, NullReply, PanicPort, PanicReply, PutOnly, ReplyOnly};
pub use spin::{Receiver, SpinPort};
pub use waker::{WakerPort, WakerReceiver};

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::{Body, Job};

/// Somewhere to send messages to. Object-safe: `Arc<dyn Port<T>>` is a port.
///
/// A port is usually one of those here; a type of one's own is a *handler*: it looks at the job in the sender's
/// context and answers it at once, keeps it for later, or puts it to another port.
pub trait Port<T: Body>: Send + Sync {
    /// Takes a job, in the sender's context: answers it and gives it back, which is a function call, without a queue
    /// or a switch; or keeps it and completes it later, from wherever that is.
    ///
    /// Whether it may block or be called from an interrupt handler is the port's to say. The ports here never block.
    /// To keep a job and never complete it hangs who waits for it; to drop it does not.
    fn put(&self, job: Job<T>) -> Put<T>;

    /// The originator of some job that was put here wants it [back](crate::Pending::abort): looks for such jobs and
    /// ends them where that can be done at once, and tells the receiver. A layer tells the port below it.
    ///
    /// Called after the wish was recorded, in thread context. The default does nothing: then a wish is found where
    /// the job is looked at next.
    fn sweep(&self) {}
}

/// What [`Port::put`] did: `EASYNC`, or anything else.
#[must_use = "what is done is to be given to its originator"]
pub enum Put<T: Body> {
    /// Answered at once: here it is.
    Done(Job<T>),
    /// Kept: it will be completed.
    Async,
}

impl<T: Body> fmt::Debug for Put<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done(_) => "Done",
            Self::Async => "Async",
        })
    }
}

macro_rules! pointers {
    ($($pointer:ty),*) => {$(
        impl<T: Body, P: Port<T> + ?Sized> Port<T> for $pointer {
            fn put(&self, job: Job<T>) -> Put<T> {
                (**self).put(job)
            }
            fn sweep(&self) {
                (**self).sweep();
            }
        }
    )*};
}

pointers!(&P, Box<P>, Arc<P>);

/// What a port has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortStats {
    /// Jobs that were put into the queue.
    pub queued: u64,
    /// Those of them that were urgent.
    pub urgent: u64,
    /// Jobs that a receiver was given.
    pub received: u64,
    /// Jobs that ended in the queue because they were withdrawn or aborted.
    pub recalled: u64,
    /// Jobs that came back because the port was closed: before they were queued, or while they were.
    pub refused: u64,
    /// How often somebody asked for a job back.
    pub sweeps: u64,
    /// How often a receiver that slept was woken.
    pub wakes: u64,
    /// The most that were queued at a time.
    pub high_water: usize,
}
