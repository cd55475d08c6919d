//! Threads that are OS threads, of which a CPU lets one go on at a time: for hosts without a switch in assembly, and for
//! Miri and loom.
//!
//! Slow, and all that a thread does is as with the switch, except that threads of one CPU do not share its
//! thread-locals, and that the host looks after their stacks.

use core::cell::Cell;
use core::ops::Range;
use std::sync::{Mutex, PoisonError};

#[cfg(loom)]
use loom::thread::{self, Builder, Thread};
#[cfg(not(loom))]
use std::thread::{self, Builder, Thread};

use dfly_hal::CpuId;
use dfly_hal::sync::atomic::{AtomicU8, Ordering};
use dfly_hal::sync::cell::UnsafeCell;

use crate::platform::Platform;
use crate::sched::stack_size::StackSize;

/// Each thread is an OS thread, and what its frames lend is its own.
pub(crate) const ON_THE_CPUS_OWN: bool = false;

/// How large the OS thread's stack is to be.
pub(crate) struct Stack(StackSize);

impl Stack {
    #[expect(clippy::unnecessary_wraps, reason = "as where it allocates")]
    pub(crate) fn new(size: StackSize, _platform: &dyn Platform) -> Option<Self> {
        Some(Self(size))
    }

    pub(crate) fn size(&self) -> StackSize {
        self.0
    }

    /// # Safety
    /// None: as where there is one.
    pub(crate) unsafe fn paint(&self) {}

    pub(crate) fn is_whole(&self) -> bool {
        true
    }

    /// By the host.
    pub(crate) fn is_guarded(&self) -> bool {
        true
    }

    /// The host knows, and says whose it was.
    pub(crate) fn guard(&self) -> Range<usize> {
        0..0
    }

    pub(crate) fn used_bytes(&self) -> Option<usize> {
        None
    }
}

/// Where an OS thread waits until it is its turn.
pub(crate) struct Context {
    turn: AtomicU8,
    /// Where a stack pointer is kept elsewhere: written by who leaves, read by who goes there, so that a model sees it
    /// where they are not ordered.
    sp: UnsafeCell<()>,
    /// Who waits.
    thread: Mutex<Option<Thread>>,
}

/// Not yet.
const WAIT: u8 = 0;
/// Now.
const GO: u8 = 1;
/// Not at all, for a thread that has not begun.
const NEVER: u8 = 2;

/// What an OS thread calls when it is its turn for the first time.
struct Start {
    main: extern "C" fn(*const ()),
    argument: *const (),
    context: *const Context,
}

// SAFETY: there is nothing in the cell.
unsafe impl Sync for Context {}

// SAFETY: pointers to what is never freed and `Sync`: `prepare` asks for it.
unsafe impl Send for Start {}

impl Context {
    pub(crate) fn new() -> Self {
        Self { turn: AtomicU8::new(WAIT), sp: UnsafeCell::new(()), thread: Mutex::new(None) }
    }

    /// Makes the context a thread that begins with `main(argument)`; returns whether the host gives one.
    ///
    /// # Safety
    /// The caller owns the context, which is never freed, and `argument` may be sent to the thread. `main` returns as
    /// soon as it has [left](Self::leave).
    pub(crate) unsafe fn prepare(
        &self,
        stack: &Stack,
        main: extern "C" fn(*const ()),
        argument: *const (),
    ) -> bool {
        self.turn.store(WAIT, Ordering::Relaxed);
        self.sp.with_mut(|_| ());
        let start = Start { main, argument, context: self };
        // The host's own code in a thread wants more than a kernel's.
        let builder = Builder::new().stack_size(stack.size().bytes().max(256 << 10));
        builder.spawn(move || start.run()).is_ok()
    }

    /// Undoes `prepare` if the thread has not begun. One that has stays where it is, see `switch`.
    pub(crate) fn cancel(&self) {
        self.set(NEVER);
    }

    /// Lets `to` go on and waits until somebody switches back.
    ///
    /// # Safety
    /// None: safe as it is, and `unsafe` as where it is not.
    pub(crate) unsafe fn switch(&self, to: &Self) {
        to.sp.with(|_| ());
        self.sp.with_mut(|_| ());
        to.set(GO);
        // One that was cancelled has begun, and has nowhere to return to: it waits for ever.
        while !self.wait() {}
    }

    /// Lets `to` go on, for a thread that returns at once.
    ///
    /// # Safety
    /// As for `switch`.
    pub(crate) unsafe fn leave(&self, to: &Self) {
        // First: what ends after that, as thread-locals do, must not speak for a CPU that is at work elsewhere.
        STANDS_FOR.with(|here| here.set(None));
        to.sp.with(|_| ());
        self.sp.with_mut(|_| ());
        to.set(GO);
    }

    fn set(&self, turn: u8) {
        // Release: what the CPU has done is seen by whom it is handed to (pairs with the Acquire in `wait`).
        self.turn.swap(turn, Ordering::Release);
        // Whoever waits says who it is before it looks, and both are read-modify-writes: one of them sees the other.
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }

    /// Returns whether it is ever the caller's turn.
    fn wait(&self) -> bool {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        loop {
            match self.turn.swap(WAIT, Ordering::Acquire) {
                WAIT => thread::park(),
                turn => return turn == GO,
            }
        }
    }
}

impl Start {
    fn run(self) {
        // SAFETY: never freed.
        if unsafe { &*self.context }.wait() {
            (self.main)(self.argument);
        }
    }
}

#[cfg(not(loom))]
std::thread_local! {
    /// The platform and the CPU of it that this OS thread stands in for.
    static STANDS_FOR: Cell<Option<(*const (), CpuId)>> = const { Cell::new(None) };
}
#[cfg(loom)]
loom::thread_local! {
    static STANDS_FOR: Cell<Option<(*const (), CpuId)>> = Cell::new(None);
}

/// What a thread does first: from now on its OS thread is the CPU, which waits meanwhile.
pub(crate) fn enter(cpu: CpuId, platform: *const ()) {
    STANDS_FOR.with(|here| here.set(Some((platform, cpu))));
}

/// The CPU of `platform` that the caller stands in for, if any.
pub(crate) fn stand_in(platform: *const ()) -> Option<CpuId> {
    // A thread that ends stands for nothing any more.
    let here = STANDS_FOR.try_with(Cell::get).ok().flatten();
    here.filter(|&(of, _)| of == platform).map(|(_, cpu)| cpu)
}
