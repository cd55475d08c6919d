//! Tokens in an interrupt.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use super::Token;
use crate::ipi::IrqCx;

/// Holds a token in a context that cannot wait, so it is not given up before this is dropped. If it is forgotten, the
/// token stays taken.
#[must_use = "the token is released where this is dropped"]
pub struct IrqHeld<'a, T: ?Sized> {
    token: &'a Token<T>,
    /// Of one CPU.
    _here: PhantomData<*mut ()>,
}

impl IrqCx<'_> {
    /// Holds `token` exclusively, if nobody has it: neither another CPU nor the thread that was interrupted. Never waits.
    #[track_caller]
    pub fn try_hold<'a, T: ?Sized>(&'a self, token: &'a Token<T>) -> Option<IrqHeld<'a, T>> {
        if !token.word.try_exclusive() {
            return None;
        }
        token.word.site().took(Location::caller());
        Some(IrqHeld { token, _here: PhantomData })
    }
}

impl<T: ?Sized> Deref for IrqHeld<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the token is held exclusively until this is dropped, and only this lends the data.
        self.token.data.with(|data| unsafe { &*data })
    }
}

impl<T: ?Sized> DerefMut for IrqHeld<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this is borrowed mutably.
        self.token.data.with_mut(|data| unsafe { &mut *data })
    }
}

impl<T: ?Sized> Drop for IrqHeld<'_, T> {
    fn drop(&mut self) {
        self.token.word.release_exclusive();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for IrqHeld<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IrqHeld").field(&&**self).finish()
    }
}
