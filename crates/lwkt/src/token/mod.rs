//! Tokens: what a thread holds while it runs, and gives up while it is blocked.

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

/// Data that belongs to whoever holds the token, while they run.
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

    /// Its name, where it was taken last, and how often a thread had to wait for it. From any context.
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
