//! A message of whatever content, for those who need no body of their own.

use core::fmt;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::task::Waker;

use crate::{Body, Job, Own, Pending, Unanswered};

/// A message with content of any type: request and answer in one value, and how the last journey ended.
///
/// Its four states are the carrier's types: [`Msg`] (idle or replied), [`Request`] (received), [`Sent`] (under way,
/// seen from its originator). The content is reached through all but the last.
pub struct Message<M> {
    content: M,
    outcome: Result<(), Unanswered>,
    urgency: Urgency,
    receipt: Option<Waker>,
}

/// A message at rest, in its originator's hand: not yet sent, or back.
pub type Msg<M> = Own<Message<M>>;
/// A message in a receiver's hand: [`reply`](Job::reply) to it, or forward it.
pub type Request<M> = Job<Message<M>>;
/// A message under way, seen from its originator.
pub type Sent<M> = Pending<Message<M>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Normal,
    Urgent,
}

impl<M: Send + 'static> Message<M> {
    /// A body, for a [`Pool`](crate::Pool) of messages; alone it is made by [`Msg::with`].
    pub const fn new(content: M) -> Self {
        Self { content, outcome: Ok(()), urgency: Urgency::Normal, receipt: None }
    }

    /// How the last journey ended: answered, or why not. `Ok` before the first.
    ///
    /// Whether an answer is a good one is the content's to say.
    pub const fn outcome(&self) -> Result<(), Unanswered> {
        self.outcome
    }

    /// Makes it one that ports take first. DragonFly: `MSGF_PRIORITY`. It stays so until [`set_normal`](Self::set_normal).
    pub const fn set_urgent(&mut self) {
        self.urgency = Urgency::Urgent;
    }

    /// Makes it one that waits its turn.
    pub const fn set_normal(&mut self) {
        self.urgency = Urgency::Normal;
    }

    /// `waker` is woken once, when the message first stands in a port's queue. DragonFly: `MSGF_RECEIPT`.
    pub fn set_receipt(&mut self, waker: Waker) {
        self.receipt = Some(waker);
    }

    /// The content, with the message taken apart.
    pub fn into_content(self) -> M {
        self.content
    }
}

impl<M: Send + 'static> Body for Message<M> {
    type Shared = ();
    type Key = ();

    fn sent(&mut self) {
        self.outcome = Ok(());
    }

    fn orphaned(&mut self) {
        self.outcome = Err(Unanswered::Orphaned);
    }

    fn unanswered(&mut self, why: Unanswered) {
        self.outcome = Err(why);
    }

    fn is_urgent(&self) -> bool {
        self.urgency == Urgency::Urgent
    }

    fn take_receipt(&mut self) -> Option<Waker> {
        mem::take(&mut self.receipt)
    }
}

impl<M: Send + 'static> Own<Message<M>> {
    /// A message with this content, in a box of its own. Allocates; what is done with it later does not.
    pub fn with(content: M) -> Self {
        Self::new(Message::new(content))
    }
}

impl<M: Send + 'static> Job<Message<M>> {
    /// Answers it: the content is the answer. DragonFly: `lwkt_replymsg`.
    pub fn reply(self) {
        self.complete();
    }
}

impl<M> Deref for Message<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.content
    }
}

impl<M> DerefMut for Message<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.content
    }
}

impl<M: Default> Default for Message<M> {
    fn default() -> Self {
        Self { content: M::default(), outcome: Ok(()), urgency: Urgency::Normal, receipt: None }
    }
}

impl<M: fmt::Debug> fmt::Debug for Message<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("content", &self.content)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}
