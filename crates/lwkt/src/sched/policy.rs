//! Which of the ready threads of a CPU runs next, and who may say so.
//!
//! The mechanism trusts no policy: it keeps account of what a thread does, and compares each answer with it.

use alloc::boxed::Box;
use core::fmt;
use core::ptr;

use dfly_hal::CpuId;

use crate::sched::info::ThreadId;
use crate::sched::run_queue::RunQueue;
use crate::sched::scheduler::Scheduler;
use crate::sched::thread::Thread;
use crate::spec::{Name, Priority};

/// A thread, as a [`Policy`] sees it. It is no more than a name: to keep one is no claim to the thread.
#[derive(Clone, Copy)]
pub struct ReadyThread(&'static Thread);

impl ReadyThread {
    /// Its number.
    pub fn id(self) -> ThreadId {
        self.0.seen.id()
    }

    /// Its name.
    pub fn name(self) -> Name {
        self.0.seen.name()
    }

    /// How important it is.
    pub fn priority(self) -> Priority {
        self.0.seen.priority()
    }

    /// How important among those of its priority.
    pub fn sub_priority(self) -> u8 {
        self.0.seen.sub_priority()
    }
}

impl PartialEq for ReadyThread {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for ReadyThread {}

impl fmt::Debug for ReadyThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Keeps the ready threads of one CPU, and says which of them runs next. There is one for each CPU, for
/// [`Scheduler::with_policy`](crate::Scheduler::with_policy); without, a CPU keeps 32 lists by priority, each by sub-priority,
/// equals in the order in which they came.
///
/// It is called by its CPU only, in a critical section, from threads, from the idle context and where interrupts end: so it
/// neither waits nor takes long, and had better not allocate. It decides nothing but the order: which thread is ready,
/// where it runs and what it holds is the scheduler's.
///
/// A policy that panics, that names a thread which is not ready, is not its CPU's or was not asked for, ends its CPU: the
/// idle context panics, and says which policy named whom.
pub trait Policy: Send {
    /// A thread is ready: it is new, was woken, has yielded, or has come from another CPU.
    fn enqueue(&mut self, thread: ReadyThread);

    /// Names the thread that runs next, and forgets it. Before that, `fits` is asked: it says whether the thread can run, and
    /// whoever it says yes to is the answer. Threads that do not fit stay.
    fn pick(&mut self, fits: &mut dyn FnMut(ReadyThread) -> bool) -> Option<ReadyThread>;

    /// The priority of the most important thread that is ready. A thread that yields goes on if it is more important.
    fn best(&self) -> Option<Priority>;

    /// The clock has ticked. Whether `running` [should yield](crate::Cx::should_yield) to its equals: by default always.
    fn tick(&mut self, running: ReadyThread) -> bool {
        let _ = running;
        true
    }
}

/// The ready threads of a CPU, kept by the lists or by a policy.
pub(crate) struct Queue {
    fixed: RunQueue<Thread>,
    own: Option<Box<Own>>,
}

struct Own {
    scheduler: &'static Scheduler,
    cpu: CpuId,
    policy: Box<dyn Policy>,
    /// Nothing is asked of it any more.
    fault: Option<Fault>,
}

/// What a policy did wrong.
pub(crate) enum Fault {
    Named {
        cpu: CpuId,
        thread: &'static Thread,
        what: &'static str,
    },
    #[cfg(feature = "std")]
    Panicked(Box<dyn core::any::Any + Send>),
}

impl Fault {
    /// # Panics
    /// Always: it says what was wrong.
    pub(crate) fn raise(self) -> ! {
        match self {
            Self::Named { cpu, thread, what } => panic!("the policy of {cpu} names {thread}, which {what}"),
            #[cfg(feature = "std")]
            Self::Panicked(payload) => std::panic::resume_unwind(payload),
        }
    }
}

impl Queue {
    pub(crate) fn new(scheduler: &'static Scheduler, cpu: CpuId, policy: Option<Box<dyn Policy>>) -> Self {
        let own = policy.map(|policy| Box::new(Own { scheduler, cpu, policy, fault: None }));
        Self { fixed: RunQueue::new(), own }
    }

    #[inline]
    pub(crate) fn push(&mut self, thread: &'static Thread) {
        match &mut self.own {
            None => self.fixed.push(thread, thread.seen.priority()),
            Some(own) => own.push(thread),
        }
    }

    /// As [`RunQueue::pop`].
    #[inline]
    pub(crate) fn pop(&mut self, fits: impl FnMut(&'static Thread) -> bool) -> Option<&'static Thread> {
        match &mut self.own {
            None => self.fixed.pop(fits),
            Some(own) => own.pop(fits),
        }
    }

    /// As [`RunQueue::pop_above`].
    pub(crate) fn pop_above(
        &mut self,
        priority: Priority,
        mut fits: impl FnMut(&'static Thread) -> bool,
    ) -> Option<&'static Thread> {
        match &mut self.own {
            None => self.fixed.pop_above(priority, fits),
            Some(own) => match own.best() {
                Some(best) if best > priority => {
                    own.pop(|thread| thread.seen.priority() > priority && fits(thread))
                }
                _ => None,
            },
        }
    }

    #[inline]
    pub(crate) fn best(&mut self) -> Option<Priority> {
        match &mut self.own {
            None => self.fixed.best(),
            Some(own) => own.best(),
        }
    }

    /// Whether a tick ends the turn of `running`.
    pub(crate) fn tick(&mut self, running: &'static Thread) -> bool {
        self.own
            .as_mut()
            .is_none_or(|own| own.ask(|policy| policy.tick(ReadyThread(running))).unwrap_or(true))
    }

    /// What the policy did wrong, if it did.
    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        self.own.as_mut()?.fault.take()
    }
}

impl Own {
    /// Asks the policy; nothing after a fault. A panic is kept for the idle context: here a thread may be half asleep.
    fn ask<R>(&mut self, question: impl FnOnce(&mut dyn Policy) -> R) -> Option<R> {
        if self.fault.is_some() {
            return None;
        }
        #[cfg(feature = "std")]
        {
            // It is not asked again.
            let answer = core::panic::AssertUnwindSafe(|| question(&mut *self.policy));
            match std::panic::catch_unwind(answer) {
                Ok(answer) => Some(answer),
                Err(payload) => {
                    self.fault = Some(Fault::Panicked(payload));
                    None
                }
            }
        }
        #[cfg(not(feature = "std"))]
        Some(question(&mut *self.policy))
    }

    fn push(&mut self, thread: &'static Thread) {
        thread.set_queued(true);
        self.ask(|policy| policy.enqueue(ReadyThread(thread)));
    }

    fn pop(&mut self, mut fits: impl FnMut(&'static Thread) -> bool) -> Option<&'static Thread> {
        let (cpu, scheduler) = (self.cpu, self.scheduler);
        let fault = |thread, what| Some(Fault::Named { cpu, thread, what });
        let wrong_with = |thread: &'static Thread| match thread.is_queued() {
            _ if !ptr::eq(thread.cpu().scheduler(), scheduler) => fault(thread, "is another scheduler's"),
            _ if thread.cpu().id() != cpu => fault(thread, "is another CPU's"),
            false => fault(thread, "is not ready"),
            true => None,
        };
        let (mut chosen, mut wrong) = (None, None);
        let mut ask = |ReadyThread(thread): ReadyThread| {
            wrong = wrong.take().or_else(|| wrong_with(thread));
            // Who fits has its tokens, and has to run: nobody else is asked.
            let is_it = wrong.is_none() && chosen.is_none() && fits(thread);
            if is_it {
                chosen = Some(thread);
            }
            is_it
        };
        let answer = self.ask(|policy| policy.pick(&mut ask)).flatten();
        let wrong = wrong.or_else(|| match (chosen, answer) {
            (Some(chosen), Some(ReadyThread(answer))) if ptr::eq(chosen, answer) => None,
            (None, None) => None,
            (_, Some(ReadyThread(answer))) => {
                wrong_with(answer).or_else(|| fault(answer, "does not fit, or was not asked for"))
            }
            (Some(chosen), None) => fault(chosen, "fits, and then says that nobody does"),
        });
        if self.fault.is_none() {
            self.fault = wrong;
        }
        if self.fault.is_some() {
            return None;
        }
        chosen.inspect(|thread| thread.set_queued(false))
    }

    fn best(&mut self) -> Option<Priority> {
        self.ask(|policy| policy.best()).flatten()
    }
}
