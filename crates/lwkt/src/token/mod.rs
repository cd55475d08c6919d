//! DragonFly's tokens: data that belongs to whoever holds its token, while they run.
//!
//! A lock is held until it is released. A token is held while its thread is on a CPU, or preempted: when the thread blocks,
//! it gives up all the tokens that it holds, whoever blocked it and however deep inside, and when it goes on it has all of
//! them again. So threads may take tokens in any order and none deadlocks, and one can hold a token over a call that may
//! wait without keeping others out meanwhile. In exchange, what a token protects may have changed after every such
//! call: it is looked at anew.
//!
//! Here the compiler sees to that. A hold gives an inner context ([`Cx`](crate::Cx)), which is used in place of the outer one
//! as long as it lasts; references into the data borrow the context; and whatever may block borrows it mutably.
//!
//! ```
//! use dfly_hal::Wait;
//! use dfly_lwkt::Cx;
//! use dfly_lwkt::token::Token;
//!
//! static QUEUE: Token<Vec<u32>> = Token::named("queue", Vec::new());
//!
//! fn serve(cx: &mut Cx<'_>, read: fn(u32, &mut dyn Wait) -> bool) {
//!     let (mut cx, mut queue) = cx.hold(&QUEUE);
//!     while let Some(block) = queue.get_mut(&mut cx).pop() {
//!         if !read(block, &mut cx) {                    // may block: others use the queue meanwhile
//!             queue.get_mut(&mut cx).push(block);
//!             return;                                   // released, as by `?` or a panic
//!         }
//!     }
//! }
//! ```
//!
//! ```compile_fail,E0502
//! # use dfly_lwkt::{Cx, token::Token};
//! fn broken(cx: &mut Cx<'_>, names: &Token<Vec<u32>>) -> u32 {
//!     let (mut cx, names) = cx.hold(names);
//!     let first = &names.get(&cx)[0];
//!     cx.yield_now();                                   // error: `cx` is borrowed
//!     *first
//! }
//! ```
//!
//! | | may block? | from an interrupt? | a token that the thread has already |
//! |---|---|---|---|
//! | [`Cx::hold`](crate::Cx::hold) | yes, if somebody else has it | no | at once; a panic if it is shared |
//! | [`Cx::hold_shared`](crate::Cx::hold_shared) | yes, if somebody else has it alone, or waits to | no | at once |
//! | [`Cx::try_hold`](crate::Cx::try_hold), [`try_hold_shared`](crate::Cx::try_hold_shared) | no | no | at once; `Err` if it is shared and wanted alone |
//! | [`IrqCx::try_hold`](crate::ipi::IrqCx::try_hold) | no | yes | refused |
//!
//! # What holds for all of them
//!
//! - **Nothing is allocated**, and the number of holds is not limited: a hold is a few words on the stack.
//! - **Contended**, a thread looks a few times, and then its CPU runs others. A release wakes nobody and interrupts nobody: who
//!   wants the token looks again, and a CPU on which everybody waits for tokens does not halt.
//! - **Fairness** is that of looking again: nobody is in a queue. Who waits to have a token alone goes before those who come to share
//!   it. Beside a CPU that takes a token again and again without a pause, others wait for their luck.
//! - **Forgetting** a hold, a context or a future is memory-safe. The token stays taken for ever, and who waits for it does so, too;
//!   the thread that has forgotten it included.
//! - **A panic** releases what it unwinds through. Nothing is poisoned.
//! - **In a critical section** tokens can be read, not taken: [`Cx::critical`](crate::Cx::critical) borrows the context. With a short lock
//!   taken, a hold that is contended panics.
//! - **A token tells** who has it how ([`Token::holders`]), where it was taken last, and how often somebody waited
//!   ([`Token::site`]); a CPU, how often its threads gave way ([`CpuStats::token_collisions`](crate::CpuStats::token_collisions)).
//!
//! The manual page is `token(9)`; DESIGN.md lists where a rule differs.

mod chain;
mod held;
mod hold;
mod irq;
#[cfg(loom)]
#[doc(hidden)]
pub mod model;
mod pool;
mod wanted;
mod word;

use core::fmt;

use dfly_hal::sync::cell::UnsafeCell;

use crate::lock::{Holders, Site, const_fn};

pub(crate) use chain::{Link, Mode};
pub use held::{Held, HeldShared, get2_mut, get3_mut};
pub use irq::IrqHeld;
pub use pool::{Pooled, TokenPool};
pub(crate) use wanted::Wanted;
pub(crate) use word::Word;

/// Data that belongs to whoever [holds](crate::Cx::hold) the token, while they run. See the [module's page](self).
pub struct Token<T: ?Sized> {
    word: Word,
    data: UnsafeCell<T>,
}

// SAFETY: the data is lent as `&mut T` to one thread at a time, so it is sent; as `&T` to several only where it is `Sync`
// (`Cx::hold_shared` asks for it).
unsafe impl<T: ?Sized + Send> Sync for Token<T> {}

impl<T> Token<T> {
    const_fn! {
        /// A free token around `data`, without a name.
        pub fn new(data: T) -> Self {
            Self { word: Word::new(None), data: UnsafeCell::new(data) }
        }
    }

    const_fn! {
        /// A free token around `data`.
        pub fn named(name: &'static str, data: T) -> Self {
            Self { word: Word::new(Some(name)), data: UnsafeCell::new(data) }
        }
    }

    /// The data, with the token taken apart.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> Token<T> {
    /// The data: `&mut self` proves that nobody holds the token, unless a hold was forgotten.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` is exclusive, and the reference lives no longer.
        self.data.with_mut(|data| unsafe { &mut *data })
    }

    /// Its name, where it was taken last, and how often a thread gave way for it. From any context.
    pub fn site(&self) -> &Site {
        self.word.site()
    }

    /// Who had it at one moment: how many threads, however often each. From any context.
    pub fn holders(&self) -> Holders {
        self.word.holders()
    }

    fn name(&self) -> Named<'_> {
        Named(&self.word)
    }
}

impl<T: Default> Default for Token<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Token<T> {
    fn from(data: T) -> Self {
        Self::new(data)
    }
}

impl<T: ?Sized> fmt::Debug for Token<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("Token");
        f.field("holders", &self.holders()).field("site", self.site()).finish_non_exhaustive()
    }
}

/// A token's name in a message.
struct Named<'a>(&'a Word);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.site().name() {
            Some(name) => write!(f, "token \"{name}\""),
            None => f.write_str("a token without a name"),
        }
    }
}
