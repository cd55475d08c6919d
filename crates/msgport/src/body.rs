//! What travels, and the two kinds of stations on its way back.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::task::Waker;

use crate::{Job, Own};

/// What a message carries: the sender's request and the receiver's answer in one value.
///
/// The methods are called by the carrier, in the context of whoever completes the job (thread context, by the rule
/// that interrupt handlers only wake the reaper). They must not block.
pub trait Body: Send + Sized + 'static {
    /// What children of a [split](Job::split) may touch while their parent is frozen: usually the first error, in an
    /// atomic. Made new for every split.
    type Shared: Send + Sync + Default;

    /// Whoever shows a value of this type gets `&mut Self`: see [`Own::body_mut`].
    ///
    /// `()` says that the body owns all it points to, so that anybody may write to it or swap it for another. A body
    /// that points into somebody else's memory (a piece of its frozen parent, say) names a type that only its own
    /// crate can construct; then only the methods that its crate gives it can change it.
    type Key;

    /// A receiver dropped the job without completing it. Records that as the job's result.
    fn orphaned(&mut self);

    /// It is being sent: forgets how its last journey ended.
    fn sent(&mut self) {}

    /// It goes back without an answer, for this reason. Records that as the job's result.
    fn unanswered(&mut self, why: Unanswered) {
        let _ = why;
        self.orphaned();
    }

    /// Ports with a queue take urgent messages first. Constant from sending to completion.
    fn is_urgent(&self) -> bool {
        false
    }

    /// Takes the waker that is to be woken, once, when the message first stands in a port's queue.
    fn take_receipt(&mut self) -> Option<Waker> {
        None
    }

    /// Takes the hook that runs next on the way back, nearest to the device first.
    fn pop_hook(&mut self) -> Option<HookRef<Self>> {
        None
    }

    /// This body is a child of a split and is complete: folds its result into `parent`.
    fn child_done(&mut self, parent: &Self::Shared) {
        let _ = parent;
    }

    /// This body was split, and its last child is complete: takes the result from `shared`.
    fn all_children_done(&mut self, shared: &Self::Shared) {
        let _ = shared;
    }

    /// The node goes home to its [`Pool`](crate::Pool): gives up what the body holds. A body in a box of its own is
    /// dropped instead. A child is reset or dropped before its parent is told, so nothing that points into the parent
    /// is left.
    fn reset(&mut self) {}
}

/// Why a message came back without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// A receiver took it and dropped it: a defect of that receiver, or its death.
    #[error("dropped by its receiver unanswered")]
    Orphaned,
    /// Its originator [aborted](crate::Pending::abort) it.
    #[error("aborted")]
    Aborted,
    /// Its originator [withdrew](crate::Pending::withdraw) it before anybody began with it.
    #[error("withdrawn")]
    Withdrawn,
    /// The port takes no messages: it was closed, or its last receiver is gone.
    #[error("the port is closed")]
    PortClosed,
}

/// A body that owns all it points to, so [`Own`] and [`Job`] give `&mut` to it freely.
pub trait Plain: Body<Key = ()> {}

impl<T: Body<Key = ()>> Plain for T {}

/// The bottom of the way back: the message is its originator's again.
pub trait Sink<T: Body>: Send + Sync {
    /// Takes the completed message. Called in the completer's context; must not block.
    ///
    /// Queue it and let a loop send the next one: a sink that sends from here recurses on a device that completes
    /// inside its `submit`. [`Completions`](crate::Completions) is such a queue.
    fn accept(&self, done: Own<T>);
}

/// A layer on the way back: the job is still travelling.
pub trait Hook<T: Body>: Send + Sync {
    /// Looks at the job on its way back. Called in the completer's context; must not block.
    ///
    /// Returns the job to let it go on at once, without recursion; or keeps it, returns `None`, and completes it
    /// later (after a retry, or when a worker has decrypted it).
    fn passing(&self, job: Job<T>) -> Option<Job<T>>;
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $trait:ident) => {
        $(#[$doc])*
        pub struct $name<T: Body>(Handle<dyn $trait<T>>);

        impl<T: Body> Deref for $name<T> {
            type Target = dyn $trait<T>;
            fn deref(&self) -> &Self::Target {
                match &self.0 {
                    Handle::Counted(c) => &**c,
                    Handle::Static(s) => *s,
                }
            }
        }

        impl<T: Body> Clone for $name<T> {
            fn clone(&self) -> Self {
                Self(match &self.0 {
                    Handle::Counted(c) => Handle::Counted(c.clone()),
                    Handle::Static(s) => Handle::Static(*s),
                })
            }
        }

        impl<T: Body> From<Arc<dyn $trait<T>>> for $name<T> {
            fn from(counted: Arc<dyn $trait<T>>) -> Self {
                Self(Handle::Counted(counted))
            }
        }

        impl<T: Body, S: $trait<T> + 'static> From<Arc<S>> for $name<T> {
            fn from(counted: Arc<S>) -> Self {
                Self(Handle::Counted(counted))
            }
        }

        impl<T: Body> From<&'static dyn $trait<T>> for $name<T> {
            fn from(fixed: &'static dyn $trait<T>) -> Self {
                Self(Handle::Static(fixed))
            }
        }

        impl<T: Body, S: $trait<T> + 'static> From<&'static S> for $name<T> {
            fn from(fixed: &'static S) -> Self {
                Self(Handle::Static(fixed))
            }
        }

        impl<T: Body> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

enum Handle<D: ?Sized + 'static> {
    Counted(Arc<D>),
    Static(&'static D),
}

handle! {
    /// A [`Sink`], counted or static: the static one costs no count and needs no allocation.
    SinkRef, Sink
}
handle! {
    /// A [`Hook`], counted or static: the static one costs no count and needs no allocation.
    HookRef, Hook
}
