//! How a blocked thread is found by its wakers: one word for each thread, one list for each CPU. Lock-free, and safe to
//! enter from an interrupt at any instruction. The numbered transitions are in DESIGN.md.

use dfly_hal::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::sched::link::{AtomicHead, AtomicRef, Head};

/// The thread runs, or waits for its turn without having to be woken.
const RUNNING: u8 = 0;
/// As RUNNING, and somebody woke it since it last looked.
const NOTIFIED: u8 = 1;
/// It is not to run before somebody wakes it.
const BLOCKED: u8 = 2;
/// It was BLOCKED, and whoever woke it has put it on its CPU's list, or is about to.
const WOKEN: u8 = 3;

/// What is on a wake list or a run queue: never on two of them, never freed.
pub(crate) trait Node: Sync + Sized + 'static {
    fn hook(&self) -> &Hook<Self>;

    /// How important it is among its equals.
    fn rank(&self) -> u8;
}

/// The part of a thread that wakers touch.
pub(crate) struct Hook<T: Node> {
    state: AtomicU8,
    /// The waker that moved it to WOKEN was on another CPU, or on none.
    from_elsewhere: AtomicBool,
    /// Of the wake list while WOKEN, of the run queue later.
    link: AtomicRef<T>,
}

impl<T: Node> Hook<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU8::new(RUNNING),
            from_elsewhere: AtomicBool::new(false),
            link: AtomicRef::none(),
        }
    }

    /// (1) RUNNING to BLOCKED, by the thread itself. Refused if somebody has woken it: then it looks again.
    #[inline]
    pub(crate) fn block(&self) -> bool {
        // Release: a waker that puts it on a list does so after all that the thread did to its link (pairs with the
        // Acquire in `notify`).
        self.state.compare_exchange(RUNNING, BLOCKED, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// (2) To RUNNING, by the thread itself before it looks at what it waits for.
    #[inline]
    pub(crate) fn resume(&self) {
        // A read-modify-write, so that no wake gets lost between a load and a store. Acquire: what each waker did
        // before is seen (pairs with the Release in `notify`).
        self.state.swap(RUNNING, Ordering::Acquire);
    }

    /// (3) RUNNING to NOTIFIED or BLOCKED to WOKEN, by anybody. Returns whether it was BLOCKED: then the caller, and
    /// nobody else, puts it on its CPU's wake list.
    #[inline]
    pub(crate) fn notify(&self) -> bool {
        // Release and Acquire: see `resume` and `block`.
        self.state.fetch_or(NOTIFIED, Ordering::AcqRel) == BLOCKED
    }

    /// (4) To WOKEN, by whoever spawns the thread, who then puts it on its CPU's wake list.
    pub(crate) fn spawned(&self) {
        // The list publishes it.
        self.state.store(WOKEN, Ordering::Relaxed);
    }

    pub(crate) fn is_from_elsewhere(&self) -> bool {
        self.from_elsewhere.load(Ordering::Relaxed)
    }

    pub(crate) fn set_from_elsewhere(&self, from_elsewhere: bool) {
        self.from_elsewhere.store(from_elsewhere, Ordering::Relaxed);
    }

    /// Whoever has the node on its list owns the link; the list's own order publishes it.
    #[inline]
    pub(crate) fn next(&self) -> Option<&'static T> {
        self.link.load()
    }

    #[inline]
    pub(crate) fn set_next(&self, next: Option<&'static T>) {
        self.link.store(next);
    }
}

/// The woken threads of one CPU: pushed by anybody, taken in whole by the CPU.
pub(crate) struct WakeList<T: Node> {
    head: AtomicHead<T>,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The CPU is awake and will look before it sleeps.
    Queued,
    /// The CPU sleeps or is about to, and no earlier push has noticed: it must be interrupted.
    FoundAsleep,
    /// The CPU has left; the node is the caller's.
    Closed,
}

impl<T: Node> WakeList<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicHead::empty() }
    }

    /// (5) Adds the caller's node.
    #[inline]
    pub(crate) fn push(&self, node: &'static T) -> Pushed {
        let mut head = self.head.load();
        loop {
            if let Head::Closed = head {
                return Pushed::Closed;
            }
            match self.head.push(head, node, &node.hook().link) {
                Ok(()) if matches!(head, Head::Asleep) => return Pushed::FoundAsleep,
                Ok(()) => return Pushed::Queued,
                Err(now) => head = now,
            }
        }
    }

    /// (6) Takes all there is, first pushed first, and ends the sleep that was announced. By the CPU only.
    #[inline]
    pub(crate) fn take(&self) -> Chain<T> {
        match self.head.load() {
            Head::Empty | Head::Closed => Chain { first: None },
            Head::Asleep | Head::Node(_) => Chain::reversed(self.head.take(Head::Empty)),
        }
    }

    /// (7) Says that the CPU sleeps unless somebody has pushed meanwhile; returns whether it may. By the CPU only.
    #[inline]
    pub(crate) fn announce_sleep(&self) -> bool {
        // It publishes nothing: the push that finds it, or the failure, decides.
        self.head.exchange(Head::Empty, Head::Asleep).is_ok()
    }

    /// Whether a push has ended the sleep that was announced.
    #[inline]
    pub(crate) fn is_awake(&self) -> bool {
        !matches!(self.head.load(), Head::Asleep)
    }

    /// (7a) Ends the sleep that was announced, if one was; returns whether the CPU must be interrupted, as after a push. By
    /// anybody.
    #[inline]
    pub(crate) fn end_sleep(&self) -> bool {
        // It publishes nothing: what the CPU is to look at is ordered by the caller's fence.
        matches!(self.head.load(), Head::Asleep) && self.head.exchange(Head::Asleep, Head::Empty).is_ok()
    }

    /// Whether there is nothing to take.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.head.load(), Head::Empty)
    }

    /// (8) Takes all there is and refuses what comes after. By the CPU only.
    pub(crate) fn close(&self) -> Chain<T> {
        Chain::reversed(self.head.take(Head::Closed))
    }
}

/// Nodes taken from a wake list, in the order in which they were pushed.
pub(crate) struct Chain<T: Node> {
    first: Option<&'static T>,
}

impl<T: Node> Chain<T> {
    fn reversed(mut rest: Option<&'static T>) -> Self {
        let mut first = None;
        while let Some(node) = rest {
            rest = node.hook().next();
            node.hook().set_next(first);
            first = Some(node);
        }
        Self { first }
    }
}

impl<T: Node> Iterator for Chain<T> {
    type Item = &'static T;
    #[inline]
    fn next(&mut self) -> Option<&'static T> {
        let node = self.first?;
        // Read before the node is given away: it may go to another queue.
        self.first = node.hook().next();
        Some(node)
    }
}
