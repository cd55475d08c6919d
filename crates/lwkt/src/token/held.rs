//! What lends a token's data.
//!
//! The rule behind all of it: `&T` borrows the context, `&mut T` borrows it mutably, and so does whatever blocks. A context
//! of a thread can be used only if no context inside of it can, and no `Held` of one; so nothing of a token is lent while
//! its thread might give it up, and `&mut` of a thread's tokens is lent once.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use super::Token;
use crate::sched::Cx;
use crate::sched::thread::Thread;

/// Lends the data of a token that a thread [holds](Cx::hold).
///
/// It holds nothing itself: the context that came with it does, and dropping or forgetting this changes nothing.
#[must_use = "it lends the token's data; if only the order matters, keep the context"]
pub struct Held<'a, T: ?Sized> {
    token: &'a Token<T>,
    thread: &'static Thread,
    /// Of one thread.
    _here: PhantomData<*mut ()>,
}

/// Lends the data of a token that a thread [holds together with others](Cx::hold_shared).
///
/// It holds nothing itself, as [`Held`].
#[must_use = "it lends the token's data; if only the order matters, keep the context"]
pub struct HeldShared<'a, T: ?Sized>(Held<'a, T>);

impl<'a, T: ?Sized> Held<'a, T> {
    #[inline]
    pub(super) fn new(token: &'a Token<T>, cx: &Cx<'_>) -> Self {
        Self { token, thread: cx.slot(), _here: PhantomData }
    }

    /// The data, until the thread might block, or take another token.
    ///
    /// # Panics
    /// If `cx` is of another thread.
    #[inline]
    #[track_caller]
    pub fn get<'r>(&'r self, cx: &'r Cx<'_>) -> &'r T {
        self.check(cx);
        // SAFETY: the thread of `cx` holds the token: a hold of it lasts at least as long as there is both this and a
        // context to be used. It does not give it up while `cx` is borrowed, nobody else has it exclusively, and its own
        // `&mut` borrow `cx` mutably.
        self.token.data.with(|data| unsafe { &*data })
    }

    /// The data, to be changed, until the thread might block, take another token, or look at any other data.
    ///
    /// # Panics
    /// If `cx` is of another thread.
    #[inline]
    #[track_caller]
    pub fn get_mut<'r>(&'r mut self, cx: &'r mut Cx<'_>) -> &'r mut T {
        self.check(cx);
        // SAFETY: as in `get`, exclusively; and all that this thread lends of its tokens borrows `cx`.
        self.token.data.with_mut(|data| unsafe { &mut *data })
    }

    #[inline]
    #[track_caller]
    fn check(&self, cx: &Cx<'_>) {
        if !ptr::eq(self.thread, cx.slot()) {
            foreign(self.thread, cx);
        }
    }
}

impl<'a, T: ?Sized + Sync> HeldShared<'a, T> {
    #[inline]
    pub(super) fn new(token: &'a Token<T>, cx: &Cx<'_>) -> Self {
        Self(Held::new(token, cx))
    }

    /// The data, until the thread might block, or take another token.
    ///
    /// # Panics
    /// If `cx` is of another thread.
    #[inline]
    #[track_caller]
    pub fn get<'r>(&'r self, cx: &'r Cx<'_>) -> &'r T {
        self.0.get(cx)
    }
}

/// The data of two tokens at once.
///
/// # Panics
/// If both are of the same token, or `cx` is of another thread.
#[inline]
#[track_caller]
pub fn get2_mut<'r, A: ?Sized, B: ?Sized>(
    a: &'r mut Held<'_, A>,
    b: &'r mut Held<'_, B>,
    cx: &'r mut Cx<'_>,
) -> (&'r mut A, &'r mut B) {
    a.check(cx);
    b.check(cx);
    disjoint(a.token, b.token);
    // SAFETY: as in `get_mut`, and these are two tokens.
    let a = a.token.data.with_mut(|data| unsafe { &mut *data });
    // SAFETY: as above.
    let b = b.token.data.with_mut(|data| unsafe { &mut *data });
    (a, b)
}

/// The data of three tokens at once.
///
/// # Panics
/// If two of them are of the same token, or `cx` is of another thread.
#[inline]
#[track_caller]
pub fn get3_mut<'r, A: ?Sized, B: ?Sized, C: ?Sized>(
    a: &'r mut Held<'_, A>,
    b: &'r mut Held<'_, B>,
    c: &'r mut Held<'_, C>,
    cx: &'r mut Cx<'_>,
) -> (&'r mut A, &'r mut B, &'r mut C) {
    c.check(cx);
    disjoint(a.token, c.token);
    disjoint(b.token, c.token);
    // SAFETY: as in `get_mut`, and none of the others is this token.
    let c = c.token.data.with_mut(|data| unsafe { &mut *data });
    let (a, b) = get2_mut(a, b, cx);
    (a, b, c)
}

/// # Panics
/// If both are the same token: then there would be two `&mut` of its data.
#[inline]
#[track_caller]
fn disjoint<A: ?Sized, B: ?Sized>(a: &Token<A>, b: &Token<B>) {
    assert!(!ptr::eq(&a.word, &b.word), "both are holds of {}", a.name());
}

#[cold]
#[track_caller]
fn foreign(held: &Thread, cx: &Cx<'_>) -> ! {
    panic!("a hold of {held} was used with the context of {}", cx.slot())
}

impl<T: ?Sized> fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("token", &self.token.site())
            .field("thread", &self.thread.seen.id())
            .finish()
    }
}

impl<T: ?Sized> fmt::Debug for HeldShared<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldShared")
            .field("token", &self.0.token.site())
            .field("thread", &self.0.thread.seen.id())
            .finish()
    }
}

#[cfg(all(test, feature = "std", not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::string::String;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use dfly_hal::{CpuId, ThreadWait};

    use super::*;
    use crate::sched::host::Machine;
    use crate::spec::Config;

    /// No safe code has contexts of two threads in one place; this makes sure of what happens if some did.
    #[test]
    fn a_hold_is_of_no_use_with_the_context_of_another_thread() {
        let machine = Machine::start(1, Config::default()).unwrap();
        let (say, slots) = channel();
        let has_looked = Arc::new(AtomicBool::new(false));
        let looked = has_looked.clone();
        let first = machine.scheduler().spawn(CpuId(0), "first".into(), move |cx| {
            say.send(cx.slot()).unwrap();
            while !looked.load(Ordering::Relaxed) {
                cx.yield_now();
            }
        });
        let second = machine.scheduler().spawn(CpuId(0), "second".into(), move |cx| {
            let token = Token::new(1);
            // SAFETY: it is only looked at.
            let mut foreign = unsafe { Cx::new(slots.recv().unwrap()) };
            let (mut cx, mut held) = cx.hold(&token);
            let refused = |f: &mut dyn FnMut()| {
                let panic = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
                let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                assert!(said.starts_with("a hold of thread 2 (second)"), "{said}");
                assert!(said.contains("thread 1 (first)"), "{said}");
            };
            refused(&mut || _ = held.get(&foreign));
            refused(&mut || _ = held.get_mut(&mut foreign));
            *held.get_mut(&mut cx) += 1;
            let (mut cx, mut other) = cx.hold(&token);
            refused(&mut || _ = get2_mut(&mut held, &mut other, &mut foreign));
            let (cx, shared) = cx.hold_shared(&token);
            refused(&mut || _ = shared.get(&foreign));
            assert_eq!(*shared.get(&cx), 2);
            has_looked.store(true, Ordering::Relaxed);
        });
        for thread in [second, first] {
            thread.unwrap().join(&mut ThreadWait::new()).unwrap();
        }
    }
}
