//! The holds of a thread: a list on its stack, from the innermost to the outermost.
//!
//! A link is in a context, which borrows the context before it. So a link never outlives the one before it, and the list
//! needs neither allocation nor a limit. It is written once; whether its tokens are held at the moment is known to whoever
//! walks it.

use core::iter;
use core::panic::Location;
use core::ptr;

use super::word::{Manners, Word};

/// One hold.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    pub(crate) word: &'a Word,
    pub(crate) mode: Mode,
    /// Where it was taken.
    pub(crate) at: &'static Location<'static>,
    pub(crate) outer: Option<&'a Link<'a>>,
}

/// What a hold has of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
    /// Nothing: a link further out has it, and stays for longer.
    Nested,
}

/// In which order the tokens of a chain are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The innermost first: it is the one that its thread waits for, if for any, so a failure disturbs no other token.
    Chain,
    /// By address: of those who want the same tokens, one gets them all, however their programs are nested.
    Address,
}

impl<'a> Link<'a> {
    /// The links that have something of their token, innermost first. No token comes twice.
    fn holds(&self) -> impl Iterator<Item = &Link<'a>> {
        iter::successors(Some(self), |link| link.outer).filter(|link| link.mode != Mode::Nested)
    }

    /// The link that has `word`, if any has.
    pub(super) fn find(&self, word: &Word) -> Option<&Link<'a>> {
        self.holds().find(|link| ptr::eq(link.word, word))
    }

    /// Releases all tokens of the chain, which are held.
    pub(crate) fn give_up(&self) {
        self.holds().for_each(Self::release);
    }

    /// Takes all tokens of the chain, of which none is held, or none: then it says which one was not to be had.
    pub(crate) fn take_all(&self, order: Order, manners: Manners) -> Result<(), &'a Word> {
        match order {
            Order::Chain => {
                for link in self.holds() {
                    if !link.try_take(manners) {
                        self.holds().take_while(|taken| !ptr::eq(*taken, link)).for_each(Self::release);
                        return Err(link.word);
                    }
                }
            }
            Order::Address => {
                let mut last = 0;
                let above = |last| move |link: &&Link<'a>| link.address() > last;
                while let Some(link) = self.holds().filter(above(last)).min_by_key(|link| link.address()) {
                    let address = link.address();
                    if !link.try_take(manners) {
                        self.holds().filter(|taken| taken.address() < address).for_each(Self::release);
                        return Err(link.word);
                    }
                    last = address;
                }
            }
        }
        Ok(())
    }

    /// One attempt of somebody who will try again.
    fn try_take(&self, manners: Manners) -> bool {
        match self.mode {
            Mode::Exclusive => {
                self.word.try_exclusive() || {
                    self.word.request();
                    false
                }
            }
            Mode::Shared => self.word.try_shared(manners),
            Mode::Nested => true,
        }
    }

    #[inline]
    pub(crate) fn release(&self) {
        match self.mode {
            Mode::Exclusive => self.word.release_exclusive(),
            Mode::Shared => self.word.release_shared(),
            Mode::Nested => {}
        }
    }

    fn address(&self) -> usize {
        ptr::from_ref(self.word).addr()
    }
}
