//! How a thread takes tokens.

use core::panic::Location;

use dfly_hal::sync::hint::Backoff;

use super::chain::{Link, Mode};
use super::held::{Held, HeldShared};
use super::word::{Manners, Word};
use super::{Named, Token};
use crate::sched::Cx;

/// So often a thread looks before it gives up what it holds, and its CPU to others.
const LOOKS: u32 = if cfg!(loom) { 0 } else { 7 };

/// Tokens.
///
/// Each `hold` gives an inner context, which borrows this one for as long as the hold lasts: tokens are released in
/// the reverse order, whatever way the scope is left. It also gives what lends the data, by the inner context or one
/// inside it.
///
/// A token that this thread holds already is had at once, and costs no atomic operation: exclusively inside of an exclusive
/// hold, shared inside of any. Sharing it and wanting it alone inside of that is what nobody could ever grant.
impl Cx<'_> {
    /// Holds `token` exclusively. If somebody else has it, this waits a moment, and then **blocks**: the thread gives up all
    /// that it holds, and goes on when it has that and `token`.
    ///
    /// ```
    /// # #[cfg(feature = "std")] {
    /// # use dfly_hal::{CpuId, ThreadWait};
    /// # use dfly_lwkt::{Config, Cx, host::Machine};
    /// use dfly_lwkt::token::{Token, get2_mut};
    ///
    /// static NAMES: Token<Vec<&str>> = Token::named("names", Vec::new());
    /// static COUNT: Token<usize> = Token::named("count", 0);
    ///
    /// fn add(cx: &mut Cx<'_>, name: &'static str) -> usize {
    ///     let (mut cx, mut names) = cx.hold(&NAMES);
    ///     let (mut cx, mut count) = cx.hold(&COUNT);      // may block: no reference into NAMES may live here
    ///     let (names, count) = get2_mut(&mut names, &mut count, &mut cx);
    ///     names.push(name);
    ///     *count += 1;
    ///     *count
    /// }
    /// # let machine = Machine::start(1, Config::default())?;
    /// # let main = machine.scheduler().spawn(CpuId(0), "main".into(), |cx| assert_eq!((add(cx, "a"), add(cx, "b")), (1, 2)))?;
    /// # main.join(&mut ThreadWait::new())?;
    /// # }
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If this thread shares the token; if it has overflowed its stack.
    #[inline]
    #[track_caller]
    pub fn hold<'a, T: ?Sized>(&'a mut self, token: &'a Token<T>) -> (Cx<'a>, Held<'a, T>) {
        let at = Location::caller();
        let mode = if token.word.try_exclusive() {
            Mode::Exclusive
        } else {
            self.hold_slowly(&token.word, Mode::Exclusive, at)
        };
        token.word.site().took(at);
        let held = Held::new(token, self);
        (self.inside(&token.word, mode, at), held)
    }

    /// Holds `token` together with others who share it: to read. Blocks as [`hold`](Self::hold).
    ///
    /// Who waits to have it alone goes first, for a while.
    ///
    /// # Panics
    /// If the thread has overflowed its stack.
    #[inline]
    #[track_caller]
    pub fn hold_shared<'a, T: ?Sized + Sync>(
        &'a mut self,
        token: &'a Token<T>,
    ) -> (Cx<'a>, HeldShared<'a, T>) {
        let at = Location::caller();
        let mode = if !self.has(&token.word) && token.word.share() {
            Mode::Shared
        } else {
            self.hold_slowly(&token.word, Mode::Shared, at)
        };
        token.word.site().took(at);
        let held = HeldShared::new(token, self);
        (self.inside(&token.word, mode, at), held)
    }

    /// As [`hold`](Self::hold), if nobody else has the token and this thread does not share it; otherwise it gives this
    /// context back. Never blocks.
    #[inline]
    #[track_caller]
    pub fn try_hold<'a, T: ?Sized>(
        &'a mut self,
        token: &'a Token<T>,
    ) -> Result<(Cx<'a>, Held<'a, T>), &'a mut Self> {
        let at = Location::caller();
        let mode = if token.word.try_exclusive() {
            Mode::Exclusive
        } else {
            match self.chain().and_then(|chain| chain.find(&token.word)) {
                Some(outer) if outer.mode == Mode::Exclusive => Mode::Nested,
                _ => return Err(self),
            }
        };
        token.word.site().took(at);
        let held = Held::new(token, self);
        Ok((self.inside(&token.word, mode, at), held))
    }

    /// As [`hold_shared`](Self::hold_shared), if nobody else has the token exclusively; otherwise it gives this context
    /// back. Never blocks, and lets nobody pass who waits.
    #[inline]
    #[track_caller]
    pub fn try_hold_shared<'a, T: ?Sized + Sync>(
        &'a mut self,
        token: &'a Token<T>,
    ) -> Result<(Cx<'a>, HeldShared<'a, T>), &'a mut Self> {
        let at = Location::caller();
        let mode = if self.has(&token.word) {
            Mode::Nested
        } else if token.word.try_shared(Manners::Insistent) {
            Mode::Shared
        } else {
            return Err(self);
        };
        token.word.site().took(at);
        let held = HeldShared::new(token, self);
        Ok((self.inside(&token.word, mode, at), held))
    }

    #[inline]
    fn has(&self, word: &Word) -> bool {
        self.chain().is_some_and(|chain| chain.find(word).is_some())
    }

    /// Gets what was not to be had at once.
    #[cold]
    fn hold_slowly(&mut self, word: &Word, mode: Mode, at: &'static Location<'static>) -> Mode {
        match self.chain().and_then(|chain| chain.find(word)) {
            Some(outer) if mode == Mode::Exclusive && outer.mode == Mode::Shared => {
                self.wants_alone_what_it_shares(outer, at)
            }
            Some(_) => return Mode::Nested,
            None => {}
        }
        let backoff = Backoff::new();
        // Whoever has it is on another CPU.
        let looks = if self.scheduler().platform().count() == 1 { 0 } else { LOOKS };
        for _ in 0..looks {
            backoff.snooze();
            let taken = match mode {
                Mode::Exclusive => word.try_exclusive(),
                _ => word.try_shared(Manners::Polite),
            };
            if taken {
                return mode;
            }
        }
        // Not before: the holder wants this line to release the token.
        word.site().collided();
        self.block_for(word, mode, at);
        mode
    }

    #[cold]
    fn wants_alone_what_it_shares(&self, outer: &Link<'_>, at: &'static Location<'static>) -> ! {
        panic!(
            "{} wants {} exclusively at {at}, and shares it since {}",
            self.slot(),
            Named(outer.word),
            outer.at
        )
    }
}
