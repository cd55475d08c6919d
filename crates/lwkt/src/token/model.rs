//! What the models of `tests/loom_token.rs` look at: the holds of a thread, without the thread.

use core::panic::Location;

use super::Token;
use super::chain::{Link, Mode};
use super::wanted::Wanted;

/// A hold, inside of others.
#[derive(Debug)]
pub struct Hold<'a>(Link<'a>);

impl<'a> Hold<'a> {
    /// Exclusive.
    pub fn alone<T>(token: &'a Token<T>, outer: Option<&'a Hold<'a>>) -> Self {
        Self::new(token, Mode::Exclusive, outer)
    }

    /// Together with others.
    pub fn shared<T>(token: &'a Token<T>, outer: Option<&'a Hold<'a>>) -> Self {
        Self::new(token, Mode::Shared, outer)
    }

    #[track_caller]
    fn new<T>(token: &'a Token<T>, mode: Mode, outer: Option<&'a Hold<'a>>) -> Self {
        let outer = outer.map(|hold| &hold.0);
        Self(Link { word: &token.word, mode, at: Location::caller(), outer })
    }

    /// Releases it and all outside of it.
    pub fn give_up(&self) {
        self.0.give_up();
    }

    /// As a thread that asks for this share for the first time: holds it, if it says yes.
    pub fn share(&self) -> bool {
        self.0.word.share()
    }

    /// Calls `f` with all of them held, which a CPU tries so often.
    pub fn with<R>(&self, mut tries: u32, f: impl FnOnce() -> R) -> Option<R> {
        let wanted = Wanted::default();
        // SAFETY: nobody runs meanwhile, and the chain stays where it is.
        unsafe { wanted.set(Some(&self.0)) };
        // SAFETY: as above.
        while !unsafe { wanted.take(1) } {
            tries = tries.checked_sub(1)?;
            loom::thread::yield_now();
        }
        let result = f();
        self.give_up();
        Some(result)
    }
}
