//! Critical sections: a count for each CPU. While it is not 0, nothing takes the CPU away from what runs there. What wants
//! to is noted, and is done when the outermost section ends.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;
// `core`'s atomics, not the facade's, for what one CPU and its interrupts share: it has no order to be modelled.
use core::sync::atomic::{AtomicBool as OwnBool, AtomicUsize as OwnCount, compiler_fence};

use dfly_hal::CpuId;
use dfly_hal::sync::atomic::{AtomicBool, Ordering};

use crate::sched::cpu::Cpu;
use crate::sched::cx::Cx;
use crate::sched::link::AtomicRef;
use crate::sched::preempt;
use crate::sched::thread::Thread;

/// How many of the open sections are known by their place.
const PLACES: usize = 4;

/// Somebody wants a CPU to look at its IPI messages, its clock or its woken threads, at its next safe point. Set by
/// anybody, in a place of its own, which its CPU reads at the end of each section.
#[repr(align(128))]
pub(crate) struct Attention(AtomicBool);

impl Attention {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Asks for it.
    #[inline]
    pub(crate) fn call(&self) {
        // Release: what is to be looked at is seen (pairs with the Acquire in `take`).
        self.0.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_called(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A read-modify-write: whoever calls later than this finds the flag cleared and sets it again, and of whoever has
    /// called before, everything is seen.
    fn take(&self) {
        self.0.swap(false, Ordering::Acquire);
    }
}

/// A CPU's sections.
pub(crate) struct Sections {
    count: OwnCount,
    /// Of the section that opened as the n-th.
    places: [AtomicRef<Location<'static>>; PLACES],
    /// The clock has ticked, and nobody has looked.
    ticked: OwnBool,
    /// Somebody else's turn has come.
    pub(crate) turn_is_over: OwnBool,
    attention: &'static Attention,
}

impl Sections {
    pub(crate) fn new(attention: &'static Attention) -> Self {
        Self {
            count: OwnCount::new(0),
            places: core::array::from_fn(|_| AtomicRef::none()),
            ticked: OwnBool::new(false),
            turn_is_over: OwnBool::new(false),
            attention,
        }
    }

    #[inline]
    pub(crate) fn attention(&self) -> &'static Attention {
        self.attention
    }

    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Opens a section of the scheduler's own.
    #[inline]
    pub(crate) fn open(&self) {
        self.count.store(self.count() + 1, Ordering::Relaxed);
        // An interrupt from here on sees it.
        compiler_fence(Ordering::SeqCst);
    }

    /// Opens a section of somebody's who can be named.
    #[inline]
    pub(crate) fn open_at(&self, place: &'static Location<'static>) {
        if let Some(slot) = self.places.get(self.count()) {
            slot.store(Some(place));
        }
        self.open();
    }

    /// Closes one; returns whether it was the last. What was put off meanwhile waits for the next.
    #[inline]
    pub(crate) fn close(&self) -> bool {
        compiler_fence(Ordering::SeqCst);
        let count = self.count();
        let Some(left) = count.checked_sub(1) else { unbalanced() };
        self.count.store(left, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        left == 0
    }

    /// All of them have been forgotten.
    pub(crate) fn forget(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    /// Where the youngest section that is still open was opened, if each ended before the ones around it.
    fn place(&self) -> Option<&'static Location<'static>> {
        self.places.get(self.count().checked_sub(1)?)?.load()
    }
}

#[cold]
fn unbalanced() -> ! {
    panic!("the end of a critical section that did not begin on this CPU")
}

/// By the CPU itself.
impl Cpu {
    /// Ends a section; after the last one does what was put off.
    #[inline]
    pub(crate) fn leave(&self) {
        if self.sections.close() && self.sections.attention.is_called() {
            self.attend();
        }
    }

    /// # Panics
    /// If the thread `me`, which is about to wait, yield or end, is not to be preempted.
    #[inline]
    pub(crate) fn check_no_section(&self, me: &Thread, does: &str, at: &Location<'_>) {
        if self.sections.count() != 0 {
            self.in_section(me, does, at);
        }
    }

    #[cold]
    fn in_section(&self, me: &Thread, does: &str, at: &Location<'_>) -> ! {
        let (place, count) = (Place(self.sections.place()), self.sections.count());
        panic!(
            "{me} {does} at {at} inside of a critical section or with a short lock: {place} ({count} open)"
        )
    }

    /// Handles IPIs, ticks and preempting threads that were put off, unless something else keeps this CPU to itself. By its
    /// running thread or its idle context, without a section.
    #[cold]
    pub(crate) fn attend(&self) {
        // The idle context is nobody's: it always may, also where a thread waits while it unwinds.
        let may = || self.current().is_none() || (!self.platform().in_interrupt() && !is_panicking());
        if preempt::is_here(self) && may() {
            self.attend_with(|| (), || ());
        }
    }

    /// Whether an interrupt that ends now should go through [`interrupt_exit`](Self::interrupt_exit).
    #[inline]
    pub(crate) fn needs_interrupt_exit(&self) -> bool {
        let is_called = self.sections.attention.is_called() && self.current().is_some();
        if is_called && self.sections.count() != 0 {
            self.counts.preemptions_put_off.add(1);
            return false;
        }
        is_called
    }

    /// The same as [`attend`](Self::attend), by an interrupt on its way back to the thread.
    pub(crate) fn interrupt_exit(&self, let_in: fn(), keep_out: fn()) {
        if preempt::is_here(self) && self.current().is_some() && !is_panicking() {
            self.attend_with(let_in, keep_out);
        }
    }

    fn attend_with(&self, let_in: impl Fn(), keep_out: impl Fn()) {
        while self.sections.count() == 0 && self.sections.attention.is_called() {
            self.sections.open();
            let round = Round { sections: &self.sections };
            let_in();
            self.sections.attention.take();
            let ipis = self.scheduler().ipis();
            if self.sections.ticked.load(Ordering::Relaxed) {
                // Another tick in between is the same one.
                self.sections.ticked.store(false, Ordering::Relaxed);
                if let Some(me) = self.current() {
                    // SAFETY: the caller is the running thread.
                    unsafe { self.end_turn(me) };
                }
                ipis.tick();
            } else {
                ipis.drain();
            }
            if preempt::is_enabled()
                && let Some(me) = self.current()
            {
                // SAFETY: the caller is the running thread, and the round ends with this.
                unsafe { self.let_preempt(me) };
            }
            keep_out();
            drop(round);
        }
    }

    /// The clock has ticked.
    pub(crate) fn tick(&self) {
        self.sections.ticked.store(true, Ordering::Relaxed);
        self.sections.attention.call();
    }
}

/// A round of `attend_with`, which a callback's panic ends, too.
struct Round<'a> {
    sections: &'a Sections,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.sections.close();
    }
}

/// While an OS thread unwinds, no other thread may use it.
pub(crate) fn is_panicking() -> bool {
    #[cfg(feature = "std")]
    return std::thread::panicking();
    #[cfg(not(feature = "std"))]
    false
}

struct Place(Option<&'static Location<'static>>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => place.fmt(f),
            None => f.write_str("at an unknown place"),
        }
    }
}

/// The thread that made it is neither preempted nor moved while this lives, and no IPI message is handled on its CPU: what
/// is of this CPU may be touched.
///
/// It borrows the thread's context, so that waiting meanwhile does not compile. Entering and leaving are a few loads and
/// stores of the CPU's own memory. What was put off is done when the outermost section ends, which includes that
/// interrupt threads run. A section that is forgotten ends with its thread, which panics at its next wait.
///
/// ```compile_fail
/// # fn thread(cx: &mut dfly_lwkt::Cx<'_>) {
/// let section = cx.critical();
/// cx.yield_now(); // not now
/// drop(section);
/// # }
/// ```
#[must_use = "the section ends where this is dropped"]
pub struct Crit<'a> {
    cpu: &'static Cpu,
    /// One thread's, on its CPU.
    _here: PhantomData<(&'a (), *mut ())>,
}

impl Crit<'_> {
    /// The CPU that the thread is on: the truth as long as this lives.
    pub fn cpu(&self) -> CpuId {
        self.cpu.id()
    }

    #[inline]
    pub(crate) fn on(&self) -> &'static Cpu {
        self.cpu
    }
}

impl Drop for Crit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cpu.leave();
    }
}

impl fmt::Debug for Crit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Crit").field(&self.cpu()).finish()
    }
}

impl Cx<'_> {
    /// Whether it is somebody else's turn: a more important thread of this CPU is ready, or one that is as important and a
    /// [tick](crate::Scheduler::tick) has passed since this one was switched to. For loops that compute: a few loads and
    /// stores, most of the time.
    #[inline]
    pub fn should_yield(&self) -> bool {
        let me = self.slot();
        me.cpu().should_yield(me)
    }

    /// Begins a critical section, in the name of the caller.
    #[inline]
    #[track_caller]
    pub fn critical(&self) -> Crit<'_> {
        let cpu = self.slot().cpu();
        cpu.sections.open_at(Location::caller());
        Crit { cpu, _here: PhantomData }
    }
}
