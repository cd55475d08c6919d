//! A thread, as the scheduler sees it: a slot that is used again and never freed.

use alloc::boxed::Box;
use core::panic::Location;
// `core`'s atomic, not the facade's: it is one CPU's.
use core::sync::atomic::AtomicBool as OwnBool;
use core::task::{RawWaker, RawWakerVTable, Waker};

use dfly_hal::Instant;
use dfly_hal::sync::atomic::{AtomicU64, Ordering};
use dfly_hal::sync::cell::UnsafeCell;
use dfly_msgport::Job;

use crate::sched::arch::Stack;
use crate::sched::arch::{self, Context};
use crate::sched::cpu::Cpu;
use crate::sched::cx::Cx;
use crate::sched::handle::{Exit, Outcome};
use crate::sched::info::{ThreadId, ThreadInfo, ThreadState};
use crate::sched::link::AtomicRef;
use crate::sched::migrate::Parting;
use crate::sched::preempt::set_here;
use crate::sched::seen::Seen;
use crate::sched::wake::{Hook, Node};
use crate::sleep::{Place, Sleeper};
use crate::spec::Spec;
use crate::token::Wanted;

/// What a thread runs.
pub(crate) type Main = Box<dyn FnOnce(&mut Cx<'_>) + Send>;

/// One thread after the other lives here, all with the same stack.
///
/// A slot is leaked when it is made, so a pointer to it needs no count: a waker that comes too late wakes whoever has
/// the slot now, and that one looks and finds nothing new.
#[repr(align(64))]
pub(crate) struct Thread {
    /// What wakers touch.
    pub(crate) hook: Hook<Thread>,
    /// When the timer goes off that was set last and has not gone off yet, in nanoseconds; [`NO_TIMER`] if none.
    timer: AtomicU64,
    /// The CPU on whose list the slot is.
    pub(crate) home: &'static Cpu,
    /// The CPU that the thread belongs to: written by that CPU, or by who spawns.
    cpu: AtomicRef<Cpu>,
    /// A policy has been told that it is ready. Of its CPU.
    queued: OwnBool,
    /// For who was given the thread.
    pub(crate) parting: Parting,
    pub(crate) context: Context,
    pub(crate) stack: Stack,
    /// Touched by who spawns, before the CPU knows of the thread; after that by the CPU.
    owned: UnsafeCell<Owned>,
    /// The tokens that it wants back before it runs again: of the thread and its CPU.
    pub(crate) wanted: Wanted,
    /// Where it sleeps.
    pub(crate) place: Place<Thread>,
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

// SAFETY: `owned` is touched as its comment says, through the unsafe functions below; `context` and `wanted` by the unsafe
// functions of the CPU; all else is `Sync`.
unsafe impl Sync for Thread {}

impl Node for Thread {
    #[inline]
    fn hook(&self) -> &Hook<Self> {
        &self.hook
    }

    #[inline]
    fn rank(&self) -> u8 {
        self.seen.sub_priority()
    }
}

impl Sleeper for Thread {
    #[inline]
    fn place(&self) -> &Place<Self> {
        &self.place
    }

    fn is_urgent(&self) -> bool {
        self.seen.priority().is_interrupt()
    }
}

impl Thread {
    /// The CPU that the thread belongs to.
    #[inline]
    pub(crate) fn cpu(&self) -> &'static Cpu {
        self.cpu.load().unwrap_or(self.home)
    }

    /// The thread belongs to `cpu` from now on. By that, or by who spawns.
    pub(crate) fn set_cpu(&self, cpu: Option<&'static Cpu>) {
        self.cpu.store(cpu);
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Relaxed)
    }

    pub(crate) fn set_queued(&self, queued: bool) {
        self.queued.store(queued, Ordering::Relaxed);
    }

    /// An empty slot.
    pub(crate) fn new(cpu: &'static Cpu, stack: Stack) -> Self {
        Self {
            hook: Hook::new(),
            timer: AtomicU64::new(NO_TIMER),
            home: cpu,
            cpu: AtomicRef::none(),
            queued: OwnBool::new(false),
            parting: Parting::new(),
            context: Context::new(),
            stack,
            owned: UnsafeCell::new(Owned::default()),
            wanted: Wanted::default(),
            place: Place::new(),
            next_slot: AtomicRef::none(),
            seen: Seen::default(),
        }
    }

    /// Puts a new thread into the slot; returns whether it could.
    ///
    /// # Safety
    /// The caller owns the slot, which is empty.
    pub(crate) unsafe fn fill(&'static self, id: ThreadId, spec: &Spec, main: Main, exit: Job<Exit>) -> bool {
        // SAFETY: the slot is empty, so no thread is on its stack.
        unsafe { self.stack.paint() };
        let this = core::ptr::from_ref(self).cast();
        // SAFETY: the caller owns the slot, and the last thing that `begin` does is to leave.
        if !unsafe { self.context.prepare(&self.stack, begin, this) } {
            return false;
        }
        // SAFETY: the caller owns the slot.
        unsafe { self.owned(|owned| *owned = Owned { main: Some(main), exit: Some(exit) }) };
        self.seen.fill(id, spec);
        self.hook.spawned();
        true
    }

    /// Takes the thread out again that was put in last and has not begun.
    ///
    /// # Safety
    /// The caller owns the slot.
    pub(crate) unsafe fn empty(&self) {
        self.seen.set_free();
        self.context.cancel();
        // SAFETY: the caller owns the slot.
        drop(unsafe { self.owned(core::mem::take) });
    }

    /// Whether the thread has ever run.
    ///
    /// # Safety
    /// As for [`take_exit`](Self::take_exit).
    pub(crate) unsafe fn has_begun(&self) -> bool {
        // SAFETY: as promised by the caller.
        unsafe { self.owned(|owned| owned.main.is_none()) }
    }

    /// What completes the thread's handle, once.
    ///
    /// # Safety
    /// The caller is the thread, or its CPU after that has stopped to run threads.
    pub(crate) unsafe fn take_exit(&self) -> Option<Job<Exit>> {
        // SAFETY: as promised by the caller.
        unsafe { self.owned(|owned| owned.exit.take()) }
    }

    /// # Safety
    /// The caller owns the slot, and `f` does not come here again.
    unsafe fn owned<R>(&self, f: impl FnOnce(&mut Owned) -> R) -> R {
        // SAFETY: as promised by the caller.
        self.owned.with_mut(|owned| f(unsafe { &mut *owned }))
    }

    /// Wakes the thread if it is blocked, and remembers it if it is about to be. From any context.
    #[inline]
    fn wake(&'static self) {
        if self.hook.notify() {
            // A CPU that has stopped refuses it, and there is nobody to tell.
            let _refused = self.cpu().deliver(self);
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
        let not_set = NotSet(&self.timer);
        self.cpu().platform().wake_at(at, &self.waker(&TIMER));
        core::mem::forget(not_set);
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

/// A clock that panics has set no timer.
struct NotSet<'a>(&'a AtomicU64);

impl Drop for NotSet<'_> {
    fn drop(&mut self) {
        self.0.store(NO_TIMER, Ordering::Relaxed);
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
extern "C" fn begin(this: *const ()) {
    // SAFETY: `fill` has passed a `&'static Thread`.
    let this: &'static Thread = unsafe { &*this.cast() };
    let cpu = this.cpu();
    arch::enter(cpu.id(), cpu.scheduler().platform_address());
    set_here(Some(cpu));
    // SAFETY: this is the thread, and it has just been switched to.
    unsafe { cpu.arrived() };
    this.hook.resume();
    // SAFETY: this is the thread; nobody else touches its slot now.
    let main = unsafe { this.owned(|owned| owned.main.take()) };
    // SAFETY: this is the thread, and it has no other context.
    let mut cx = unsafe { Cx::new(this) };
    let outcome = main.map_or(Outcome::Returned, |main| run(main, &mut cx));
    this.seen.set_state(ThreadState::Exiting);
    // No callback from here on: nobody would catch its panic.
    this.cpu().sections.open();
    // A sleep that was forgotten: the slot may be another CPU's next.
    this.cpu().leave_sleep(this);
    // SAFETY: this is the thread.
    if let Some(mut exit) = unsafe { this.take_exit() } {
        exit.outcome = outcome;
        exit.complete();
    }
    this.cpu().sections.forget();
    if !arch::ON_THE_CPUS_OWN {
        // The OS thread speaks for no CPU any more.
        set_here(None);
    }
    // SAFETY: this is the thread, and nothing is left on its stack that needs to be dropped.
    unsafe { this.cpu().exit(this) }
}

#[cfg(feature = "std")]
fn run(main: Main, cx: &mut Cx<'_>) -> Outcome {
    let returned = returns(|| whole(main, cx));
    // Also after a panic, which may be of the overflow's making.
    let is_whole = returns(|| cx.check_stack());
    if returned && is_whole { Outcome::Returned } else { Outcome::Panicked }
}

/// What a thread does between its first switch, in whose section it is, and its last.
fn whole(main: Main, cx: &mut Cx<'_>) {
    cx.slot().cpu().leave();
    main(cx);
    let me = cx.slot();
    me.cpu().check_no_section(me, "ends", Location::caller());
}

/// Whether `f` returns, and does not panic.
#[cfg(feature = "std")]
fn returns(f: impl FnOnce()) -> bool {
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;
    // What the thread shares is `Send`, and says itself what a panic does to it; the context is only looked at again.
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else { return true };
    // A payload whose drop panics has no one to catch it.
    core::mem::forget(catch_unwind(AssertUnwindSafe(|| drop(payload))));
    false
}

#[cfg(not(feature = "std"))]
fn run(main: Main, cx: &mut Cx<'_>) -> Outcome {
    whole(main, cx);
    cx.check_stack();
    Outcome::Returned
}
