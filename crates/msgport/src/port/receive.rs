//! What a receiver is told, and the queue with two classes that ports keep.

use core::fmt;
use core::task::Waker;

use crate::carrier::Recall;
use crate::{Body, Job, List, Unanswered};

/// What a receiver that waits on its port is told.
#[must_use = "a job that is dropped is answered as orphaned"]
pub enum Event<T: Body> {
    /// A job: complete it, forward it, or keep it for later.
    Arrived(Job<T>),
    /// The originator of some job asks for it back: a receiver that keeps jobs looks through them for those with
    /// [`Job::is_abort_asked`]. One that keeps none, or forwards none, need not care.
    Recall,
    /// The port is closed and its queue is empty: nothing comes any more.
    Closed,
}

impl<T: Body> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arrived(_) => "Arrived",
            Self::Recall => "Recall",
            Self::Closed => "Closed",
        })
    }
}

/// Which of two queues.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Normal,
    Urgent,
}

impl Class {
    /// Asks the body, which is foreign code: not under a lock.
    pub(super) fn of<T: Body>(job: &Job<T>) -> Self {
        if job.is_urgent() { Self::Urgent } else { Self::Normal }
    }
}

/// Jobs in the order in which they are taken: urgent ones first, each class in its order of arrival.
pub(super) struct Classes<T: Body> {
    urgent: List<T>,
    normal: List<T>,
}

impl<T: Body> Classes<T> {
    pub(super) const fn new() -> Self {
        Self { urgent: List::new(), normal: List::new() }
    }

    pub(super) fn push(&mut self, job: Job<T>, class: Class) {
        match class {
            Class::Urgent => self.urgent.push(job),
            Class::Normal => self.normal.push(job),
        }
    }

    /// Before all others of its class: for those that come in the order of their arrival turned round.
    pub(super) fn push_front(&mut self, job: Job<T>, class: Class) {
        match class {
            Class::Urgent => self.urgent.push_front(job),
            Class::Normal => self.normal.push_front(job),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Job<T>> {
        if self.urgent.is_empty() { self.normal.pop() } else { self.urgent.pop() }
    }

    pub(super) const fn len(&self) -> usize {
        self.urgent.len() + self.normal.len()
    }

    pub(super) const fn urgent(&self) -> usize {
        self.urgent.len()
    }

    /// Takes out all, in the order in which they would have been taken one by one.
    pub(super) fn take(&mut self) -> List<T> {
        let mut all = core::mem::take(&mut self.urgent);
        all.append(&mut self.normal);
        all
    }

    /// Takes out those that were recalled.
    pub(super) fn take_recalled(&mut self) -> List<T> {
        let mut found = self.urgent.extract(is_recalled);
        found.append(&mut self.normal.extract(is_recalled));
        found
    }
}

pub(super) fn is_recalled<T: Body>(job: &Job<T>) -> bool {
    job.recalled() != Recall::No
}

/// Wakes who wanted a receipt, then the receiver, which may run at once.
#[inline]
pub(super) fn wake(receipt: Option<Waker>, receiver: Option<Waker>) {
    if let Some(waker) = receipt {
        waker.wake();
    }
    if let Some(waker) = receiver {
        waker.wake();
    }
}

/// Ends a job that was recalled before anybody began with it.
pub(super) fn end_recalled<T: Body>(job: Job<T>) {
    match job.recalled() {
        Recall::Abort => job.refuse(Unanswered::Aborted),
        // The wish to withdraw may have been taken back between two looks; it was there.
        Recall::Withdraw | Recall::No => job.refuse(Unanswered::Withdrawn),
    }
}
