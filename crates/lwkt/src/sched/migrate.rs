//! How a thread gets to another CPU: it moves itself, or lets somebody else say where it goes on.
//!
//! Either way it is switched away from first, and it is the context after it that sends it on: so its stack is nobody's when
//! it arrives. It travels on the wake list of the CPU that it goes to, which makes itself its owner when it takes it.

use core::fmt;
use core::mem::ManuallyDrop;
use core::panic::Location;

use dfly_hal::CpuId;
use dfly_hal::sync::atomic::{AtomicUsize, Ordering};

use crate::sched::arch;
use crate::sched::cpu::{Cpu, Departed};
use crate::sched::critical::is_panicking;
use crate::sched::cx::Cx;
use crate::sched::error::MigrateError;
use crate::sched::info::{ThreadId, ThreadState};
use crate::sched::preempt::set_here;
use crate::sched::thread::Thread;
use crate::trace::Kind;

/// Where the two meet that a thread which was given away waits for: its CPU, when it has left it, and whoever says where
/// it goes on. The one that comes second sends it there.
pub(crate) struct Parting(AtomicUsize);

/// Nobody has come.
const HERE: usize = 0;
/// The thread is off its stack.
const OUT: usize = 1;
/// It goes on at the CPU with this number and more.
const GOAL: usize = 2;

impl Parting {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(HERE))
    }

    /// (15) To HERE, by the thread before it gives itself away.
    fn begin(&self) {
        self.0.store(HERE, Ordering::Relaxed);
    }

    /// (16) HERE to OUT, by its CPU; the goal if that was said before, which stays: whoever else says one comes too late.
    fn is_out(&self) -> Option<CpuId> {
        // Release: who says the goal takes a thread that is off its stack (pairs with the Acquire in `goes_to`). Acquire:
        // sees what they did before.
        let before = self.0.compare_exchange(HERE, OUT, Ordering::AcqRel, Ordering::Acquire).err()?;
        before.checked_sub(GOAL).map(|cpu| CpuId(cpu as u32))
    }

    /// (17) To a goal, by whoever says it; whether the thread is out, and so theirs.
    fn goes_to(&self, cpu: CpuId) -> bool {
        // Acquire and Release: see `is_out`.
        self.0.swap(cpu.index() + GOAL, Ordering::AcqRel) == OUT
    }
}

/// A thread that runs nowhere until whoever has this says where it goes on: [`Cx::give_away`]. To drop it lets the thread
/// go on where it was; to forget it, never. From any context, and from any thread or host thread.
///
/// Whoever waits for the thread's end is not told of the scheduler's stop before this is dropped.
#[must_use = "the thread waits for it"]
pub struct Descheduled {
    thread: &'static Thread,
    from: &'static Cpu,
}

impl Descheduled {
    /// The thread.
    pub fn thread(&self) -> ThreadId {
        self.thread.seen.id()
    }

    /// The CPU that it was on.
    pub fn cpu(&self) -> CpuId {
        self.from.id()
    }

    /// Lets it go on at `to`: one message, at the most one IPI.
    ///
    /// # Errors
    /// It cannot go there, and goes on where it was. That the CPU left at this very moment the thread does not say.
    pub fn resume_on(self, to: CpuId) -> Result<(), MigrateError> {
        let goal = self.from.may_move(to);
        let this = ManuallyDrop::new(self);
        this.go(goal.as_ref().map_or(this.from, |goal| goal));
        goal.map(drop)
    }

    fn go(&self, to: &'static Cpu) {
        if self.thread.parting.goes_to(to.id()) {
            self.from.send_on(self.thread, to);
        }
    }
}

impl Drop for Descheduled {
    fn drop(&mut self) {
        self.go(self.from);
    }
}

impl fmt::Debug for Descheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descheduled").field("thread", &self.thread()).field("cpu", &self.cpu()).finish()
    }
}

impl Cx<'_> {
    /// Goes on at the CPU `to`, where the thread belongs from now on, when it is its turn there: one message, at most one
    /// IPI, and a switch on each side. All tokens are given up meanwhile, as in every wait. If it is there already,
    /// nothing happens. A CPU that does not run yet keeps it waiting.
    ///
    /// # Errors
    /// The thread is where it was. On a host whose threads run on the OS thread that is their CPU it may not move unless the
    /// scheduler was made with [`Config::threads_may_move`](crate::Config::threads_may_move).
    ///
    /// # Panics
    /// If the thread has overflowed its stack, or has a short lock or a critical section that it has forgotten.
    #[track_caller]
    pub fn migrate(&mut self, to: CpuId) -> Result<(), MigrateError> {
        self.check_stack();
        let me = self.slot();
        let from = me.cpu();
        from.check_no_section(me, "migrates", Location::caller());
        if to == from.id() {
            return Ok(());
        }
        if is_panicking() {
            return Err(MigrateError::Unwinding);
        }
        let goal = from.may_move(to)?;
        from.depart(self, Departed::Moves(me, goal));
        if core::ptr::eq(me.cpu(), goal) { Ok(()) } else { Err(MigrateError::Left(to)) }
    }

    /// Gives the thread itself to `to`, and waits until that, or whoever has it from there, says where it goes on. Wakes
    /// meanwhile are remembered and do not end the wait. All tokens are given up.
    ///
    /// # Panics
    /// As [`migrate`](Self::migrate); if the thread unwinds; and where `to` does, then without the wait.
    #[track_caller]
    pub fn give_away(&mut self, to: impl FnOnce(Descheduled)) {
        self.check_stack();
        let me = self.slot();
        let from = me.cpu();
        from.check_no_section(me, "gives itself away", Location::caller());
        assert!(!is_panicking(), "{me} gives itself away while it unwinds");
        me.parting.begin();
        to(Descheduled { thread: me, from });
        from.check_no_section(me, "gives itself away", Location::caller());
        from.depart(self, Departed::GivenAway(me));
    }
}

impl Cpu {
    /// The CPU `to`, if threads of this one may move there.
    fn may_move(&self, to: CpuId) -> Result<&'static Cpu, MigrateError> {
        let goal = self.scheduler().cpu(to).ok_or(MigrateError::NoSuchCpu(to))?;
        let stays = to != self.id()
            && arch::ON_THE_CPUS_OWN
            && !cfg!(target_os = "none")
            && !self.scheduler().config().moves();
        if stays { Err(MigrateError::ThreadLocals) } else { Ok(goal) }
    }

    /// Switches away from the thread; returns on the CPU where it goes on.
    fn depart(&self, cx: &mut Cx<'_>, how: Departed) {
        let me = cx.slot();
        // A sleep that was forgotten.
        self.leave_sleep(me);
        let now = self.now();
        self.sections.open();
        // SAFETY: the caller is `me`, on this CPU, and has no section open but this; `cx` stays where it is.
        unsafe { self.switch_away(me, cx.chain(), how, now) };
        let cpu = me.cpu();
        arch::enter(cpu.id(), cpu.scheduler().platform_address());
        set_here(Some(cpu));
        // SAFETY: the caller is on this CPU by now, and was switched to.
        unsafe { cpu.arrived() };
        cpu.leave();
    }

    /// What follows a thread that has been given away and is off its stack. By its CPU.
    pub(crate) fn gave_away(&self, thread: &'static Thread) {
        thread.seen.set_state(ThreadState::Moving);
        if let Some(goal) = thread.parting.is_out() {
            self.send_on(thread, self.scheduler().cpu(goal).unwrap_or(thread.cpu()));
        }
    }

    /// Sends a thread to `to`, or back here if that has left. The thread is the caller's, off its stack, and on no list.
    pub(crate) fn send_on(&self, thread: &'static Thread, to: &'static Cpu) {
        thread.seen.set_state(ThreadState::Moving);
        self.scheduler().note(|| Kind::Migrate { thread: thread.seen.id(), to: to.id() });
        if to.deliver(thread) && thread.cpu().deliver(thread) {
            // Both have left, with the scheduler's stop, and nobody runs the thread again.
            // SAFETY: it is the caller's.
            drop(unsafe { thread.take_exit() });
        }
    }
}
