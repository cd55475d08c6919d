//! Waiting for a thread's end.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use dfly_hal::{Wait, block_on};
use dfly_msgport::{Body, Pending};

use crate::sched::error::JoinError;
use crate::sched::info::ThreadId;

/// The message that a thread sends when it ends.
#[derive(Default)]
pub(crate) struct Exit {
    pub(crate) outcome: Outcome,
}

/// How a thread ended.
#[derive(Default)]
pub(crate) enum Outcome {
    /// Not at all: the message was dropped with the thread.
    #[default]
    Stopped,
    Returned,
    #[cfg_attr(not(feature = "std"), expect(dead_code, reason = "without std a panic does not end a thread"))]
    Panicked,
}

impl Body for Exit {
    type Shared = ();
    type Key = ();
    fn orphaned(&mut self) {}
}

/// A thread that was spawned. Dropping it lets the thread go on alone.
///
/// It is a future of the thread's end; [`join`](Self::join) blocks for it. A wait with a deadline, or from a host thread:
/// `block_on(w, &mut handle, deadline)`.
#[derive(Debug)]
#[must_use = "dropping it detaches the thread"]
pub struct Handle {
    id: ThreadId,
    exit: Pending<Exit>,
}

impl Handle {
    pub(crate) fn new(id: ThreadId, exit: Pending<Exit>) -> Self {
        Self { id, exit }
    }

    /// The thread's number.
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// Has the thread ended?
    pub fn is_finished(&self) -> bool {
        self.exit.is_done()
    }

    /// Blocks until the thread has ended. A thread that waits for itself waits for ever. Inside of a thread `w` is its
    /// [`Cx`](crate::Cx): what parks the OS thread, as `ThreadWait` does, would park its CPU.
    pub fn join(mut self, w: &mut dyn Wait) -> Result<(), JoinError> {
        loop {
            // Without a deadline only a waiter that does not wait gives up.
            if let Ok(ended) = block_on(w, &mut self, None) {
                return ended;
            }
        }
    }
}

impl Future for Handle {
    type Output = Result<(), JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.exit).poll(cx).map(|exit| match exit.outcome {
            Outcome::Returned => Ok(()),
            Outcome::Panicked => Err(JoinError::Panicked),
            Outcome::Stopped => Err(JoinError::Stopped),
        })
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exit")
    }
}
