//! A thread, as the scheduler sees it: a slot that is used again and never freed.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::task::{RawWaker, RawWakerVTable, Waker};
use core::time::Duration;

use dfly_hal::Instant;
use dfly_hal::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use dfly_msgport::Job;

use crate::arch::Context;
use crate::cpu::Cpu;
use crate::cx::Cx;
use crate::handle::{Exit, Outcome};
use crate::info::{ThreadId, ThreadInfo, ThreadState};
use crate::link::AtomicRef;
use crate::spec::{Name, Priority, Spec};
use crate::stack::Stack;
use crate::wake::{Hook, Node};

/// What a thread runs.
pub(crate) type Main = Box<dyn FnOnce(&mut Cx<'_>) + Send>;

/// One thread after the other lives here, all with the same stack and on the same CPU.
///
/// A slot is leaked when it is made, so a pointer to it needs no count: a waker that comes too late wakes whoever has
/// the slot now, and that one looks and finds nothing new.
#[repr(align(64))]
pub(crate) struct Thread {
    /// What wakers touch.
    pub(crate) hook: Hook<Thread>,
    /// When the timer goes off that was set last and has not gone off yet, in nanoseconds; [`NO_TIMER`] if none.
    timer: AtomicU64,
    pub(crate) cpu: &'static Cpu,
    pub(crate) context: Context,
    pub(crate) stack: Stack,
    /// Touched by who spawns, before the CPU knows of the thread; after that by the CPU.
    owned: UnsafeCell<Owned>,
    /// The next slot of the CPU; set before the slot can be found.
    pub(crate) next_slot: AtomicRef<Thread>,
    /// For who looks from elsewhere: written by who owns the slot, so without read-modify-writes.
    pub(crate) seen: Seen,
}

#[derive(Default)]
struct Owned {
    main: Option<Main>,
    exit: Option<Job<Exit>>,
}

const NO_TIMER: u64 = u64::MAX;

// SAFETY: `owned` is touched as its comment says, through the unsafe functions below; `context` by the unsafe functions
// of the CPU; all else is `Sync`.
unsafe impl Sync for Thread {}

impl Node for Thread {
    #[inline]
    fn hook(&self) -> &Hook<Self> {
        &self.hook
    }
}

impl Thread {
    /// An empty slot.
    pub(crate) fn new(cpu: &'static Cpu, stack: Stack) -> Self {
        Self {
            hook: Hook::new(),
            timer: AtomicU64::new(NO_TIMER),
            cpu,
            context: Context::new(),
            stack,
            owned: UnsafeCell::default(),
            next_slot: AtomicRef::none(),
            seen: Seen::default(),
        }
    }

    /// Puts a new thread into the slot.
    ///
    /// # Safety
    /// The caller owns the slot, which is empty.
    pub(crate) unsafe fn fill(&'static self, id: ThreadId, spec: &Spec, main: Main, exit: Job<Exit>) {
        // SAFETY: the slot is empty, so no thread is on its stack.
        unsafe { self.stack.paint() };
        let this = core::ptr::from_ref(self).cast();
        // SAFETY: the caller owns the slot, and `begin` does not return.
        unsafe { self.context.prepare(&self.stack, begin, this) };
        // SAFETY: the caller owns the slot.
        unsafe { *self.owned.get() = Owned { main: Some(main), exit: Some(exit) } };
        self.seen.fill(id, spec);
        self.hook.spawned();
    }

    /// Takes the thread out again that was put in last and has not begun.
    ///
    /// # Safety
    /// The caller owns the slot.
    pub(crate) unsafe fn empty(&self) {
        self.seen.set_state(FREE);
        // SAFETY: the caller owns the slot.
        drop(unsafe { core::mem::take(&mut *self.owned.get()) });
    }

    /// What completes the thread's handle, once.
    ///
    /// # Safety
    /// The caller is the thread, or its CPU after that has stopped to run threads.
    pub(crate) unsafe fn take_exit(&self) -> Option<Job<Exit>> {
        // SAFETY: as promised by the caller.
        let owned = unsafe { &mut *self.owned.get() };
        owned.exit.take()
    }

    /// Wakes the thread if it is blocked, and remembers it if it is about to be. From any context.
    #[inline]
    fn wake(&'static self) {
        if self.hook.notify() {
            // A CPU that has stopped refuses it, and there is nobody to tell.
            let _refused = self.cpu.deliver(self);
        }
    }

    /// Wakes the thread at `at`, unless an earlier timer of its will: then it looks at the clock again. So a thread has
    /// few timers however often it waits.
    pub(crate) fn set_timer(&'static self, at: Instant) {
        let at_ns = at.as_nanos();
        if self.timer.load(Ordering::Relaxed) <= at_ns {
            return;
        }
        // Before the timer is set: it may go off at once. Relaxed: the wake that follows its going off orders this.
        self.timer.store(at_ns, Ordering::Relaxed);
        self.cpu.platform().wake_at(at, &self.waker(&TIMER));
    }

    fn timer_went_off(&'static self) {
        self.timer.store(NO_TIMER, Ordering::Relaxed);
        self.wake();
    }

    /// A waker without a count: cloning and dropping do nothing.
    pub(crate) fn waker(&'static self, vtable: &'static RawWakerVTable) -> Waker {
        let this = core::ptr::from_ref(self).cast();
        // SAFETY: the functions of both tables expect a `&'static Thread`, are thread-safe, and own nothing.
        unsafe { Waker::from_raw(RawWaker::new(this, vtable)) }
    }

    /// What is to be seen of the thread in the slot, if there is one.
    pub(crate) fn info(&self) -> Option<ThreadInfo> {
        self.seen.read(self)
    }
}

/// Of the waker that a thread's futures get.
pub(crate) static WAKER: RawWakerVTable =
    RawWakerVTable::new(|this| RawWaker::new(this, &WAKER), wake, wake, |_| ());

/// Of the waker that the clock gets.
static TIMER: RawWakerVTable =
    RawWakerVTable::new(|this| RawWaker::new(this, &TIMER), timer_went_off, timer_went_off, |_| ());

fn wake(this: *const ()) {
    // SAFETY: a waker is made of a `&'static Thread`.
    let this: &'static Thread = unsafe { &*this.cast() };
    this.wake();
}

fn timer_went_off(this: *const ()) {
    // SAFETY: as above.
    let this: &'static Thread = unsafe { &*this.cast() };
    this.timer_went_off();
}

/// Where a thread begins and ends, on its own stack.
extern "sysv64" fn begin(this: *const ()) {
    // SAFETY: `fill` has passed a `&'static Thread`.
    let this: &'static Thread = unsafe { &*this.cast() };
    // SAFETY: this is the thread, and it has just been switched to.
    unsafe { this.cpu.arrived() };
    this.hook.resume();
    // SAFETY: this is the thread; nobody else touches its slot now.
    let main = unsafe { &mut *this.owned.get() }.main.take();
    // SAFETY: this is the thread, and it has no other context.
    let mut cx = unsafe { Cx::new(this) };
    let outcome = main.map_or(Outcome::Returned, |main| run(main, &mut cx));
    this.seen.set_state(EXITING);
    // SAFETY: this is the thread.
    if let Some(mut exit) = unsafe { this.take_exit() } {
        exit.outcome = outcome;
        exit.complete();
    }
    // SAFETY: this is the thread, and nothing is left on its stack that needs to be dropped.
    unsafe { this.cpu.exit(this) }
}

#[cfg(feature = "std")]
fn run(main: Main, cx: &mut Cx<'_>) -> Outcome {
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;
    // What the thread shares is `Send`, and says itself what a panic does to it; the context is not used again.
    let run = AssertUnwindSafe(|| {
        main(cx);
        cx.check_stack();
    });
    match catch_unwind(run) {
        Ok(()) => Outcome::Returned,
        Err(payload) => {
            // A payload whose drop panics has no one to catch it.
            core::mem::forget(catch_unwind(AssertUnwindSafe(|| drop(payload))));
            Outcome::Panicked
        }
    }
}

#[cfg(not(feature = "std"))]
fn run(main: Main, cx: &mut Cx<'_>) -> Outcome {
    main(cx);
    cx.check_stack();
    Outcome::Returned
}

/// What is seen of a slot from elsewhere. A number of 0 says that it is being written.
#[derive(Default)]
pub(crate) struct Seen {
    id: AtomicU64,
    name: [AtomicU64; 4],
    priority: AtomicU8,
    state: AtomicU8,
    pub(crate) switches: Counter,
    pub(crate) wakes: Counter,
    pub(crate) run_ns: Counter,
}

pub(crate) const FREE: u8 = 0;
const NEW: u8 = 1;
pub(crate) const READY: u8 = 2;
pub(crate) const RUNNING: u8 = 3;
pub(crate) const BLOCKED: u8 = 4;
const EXITING: u8 = 5;

impl Seen {
    fn fill(&self, id: ThreadId, spec: &Spec) {
        self.id.store(0, Ordering::Relaxed);
        // Release, and the Acquire fence of `read`: who sees anything of what follows sees the 0 too.
        fence(Ordering::Release);
        for (to, word) in self.name.iter().zip(spec.name.to_words()) {
            to.store(word, Ordering::Relaxed);
        }
        self.priority.store(spec.priority.get(), Ordering::Relaxed);
        self.state.store(NEW, Ordering::Relaxed);
        for counter in [&self.switches, &self.wakes, &self.run_ns] {
            counter.set(0);
        }
        // Release pairs with the first load of `read`.
        self.id.store(id.0, Ordering::Release);
    }

    fn read(&self, thread: &Thread) -> Option<ThreadInfo> {
        let id = self.id.load(Ordering::Acquire);
        let words = core::array::from_fn(|i| self.name.get(i).map_or(0, |word| word.load(Ordering::Relaxed)));
        let info = ThreadInfo {
            id: ThreadId(id),
            name: Name::from_words(words),
            cpu: thread.cpu.id(),
            priority: self.priority(),
            state: match self.state.load(Ordering::Relaxed) {
                NEW => ThreadState::New,
                READY => ThreadState::Ready,
                RUNNING => ThreadState::Running,
                BLOCKED => ThreadState::Blocked,
                EXITING => ThreadState::Exiting,
                _ => return None,
            },
            switches: self.switches.get(),
            wakes: self.wakes.get(),
            run_time: Duration::from_nanos(self.run_ns.get()),
            stack_bytes: thread.stack.size().bytes(),
            stack_used_bytes: Some(thread.stack.used_bytes()),
        };
        // Acquire: pairs with the fence of `fill`.
        fence(Ordering::Acquire);
        (id != 0 && self.id.load(Ordering::Relaxed) == id).then_some(info)
    }

    pub(crate) fn id(&self) -> ThreadId {
        ThreadId(self.id.load(Ordering::Relaxed))
    }

    pub(crate) fn priority(&self) -> Priority {
        Priority::new(self.priority.load(Ordering::Relaxed)).unwrap_or_default()
    }

    pub(crate) fn name(&self) -> Name {
        Name::from_words(core::array::from_fn(|i| {
            self.name.get(i).map_or(0, |word| word.load(Ordering::Relaxed))
        }))
    }

    pub(crate) fn is_free(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FREE
    }

    pub(crate) fn is_new(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NEW
    }

    pub(crate) fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }
}

/// A count with one writer: a load and a store, no read-modify-write.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }
}
