//! One CPU: its run queue, its wake list, its slots, and how it goes from one thread to the next.

use alloc::boxed::Box;
use core::panic::Location;
use core::time::Duration;
use core::{mem, ptr};

use dfly_hal::sync::Lock;
use dfly_hal::sync::atomic::{AtomicU8, Ordering, fence};
use dfly_hal::sync::cell::UnsafeCell;
use dfly_hal::sync::hint::Backoff;
use dfly_hal::{CpuId, Instant};
use dfly_msgport::{Own, Pending};

use crate::platform::Platform;
use crate::sched::arch::{self, Context, Stack};
use crate::sched::critical::{Attention, Sections};
use crate::sched::cx::Cx;
use crate::sched::error::{RunError, SpawnError};
use crate::sched::handle::Exit;
use crate::sched::info::{CpuStats, ThreadId, ThreadState};
use crate::sched::link::AtomicRef;
use crate::sched::policy::{Policy, Queue};
use crate::sched::preempt::{self, set_here};
use crate::sched::scheduler::Scheduler;
use crate::sched::seen::Counter;
use crate::sched::stack_size::StackSize;
use crate::sched::thread::{Main, Thread};
use crate::sched::wake::{Chain, Pushed, WakeList};
use crate::sleep::{Channel, Left, Sleepers};
use crate::spec::{Priority, RunTime, Spec};
use crate::token::Link;
use crate::trace::Kind;

/// What a scheduler knows of one CPU.
#[repr(align(128))]
pub(crate) struct Cpu {
    /// Woken and new threads, from anybody.
    wakes: WakeList<Thread>,
    id: CpuId,
    scheduler: &'static Scheduler,
    /// See `Role`.
    role: AtomicU8,
    /// The thread that runs, for who asks from an interrupt or a panic.
    current: AtomicRef<Thread>,
    /// Where the caller of `run` is suspended while a thread runs.
    idle: Context,
    pub(crate) sections: Sections,
    local: UnsafeCell<Local>,
    sleepers: Sleepers<Thread>,
    /// All slots, ever: a list that only grows.
    slots: AtomicRef<Thread>,
    /// Slots that may be used again, by size of their stack.
    free: Lock<[FreeList; StackSize::COUNT]>,
    pub(crate) counts: Counts,
}

/// Touched by the CPU in thread or idle context only, and inside of a section, so by nobody that interrupts it.
struct Local {
    run_queue: Queue,
    /// The thread that was preempted last; it links to the one that it has preempted. As long as there is one, whoever runs
    /// has preempted it, and goes back to it.
    victim: Option<&'static Thread>,
    /// The thread that was just switched away from for good: whoever is switched to sees to it.
    departed: Option<Departed>,
    /// When the context that runs was switched to, if that is measured.
    since: Option<Instant>,
    /// The CPU has announced its sleep and not looked at its wakes since.
    announced: bool,
}

/// A thread that does not come back to its CPU by itself.
#[derive(Clone, Copy)]
pub(crate) enum Departed {
    /// It has ended, and its slot is free.
    Ended(&'static Thread),
    /// It goes on at another CPU.
    Moves(&'static Thread, &'static Cpu),
    /// It goes on where somebody says.
    GivenAway(&'static Thread),
}

/// Linked as the run queue is: a slot is on one of them.
#[derive(Clone, Copy, Default)]
struct FreeList {
    first: Option<&'static Thread>,
}

impl FreeList {
    fn push(&mut self, slot: &'static Thread) {
        slot.hook.set_next(self.first.replace(slot));
    }

    fn pop(&mut self) -> Option<&'static Thread> {
        let slot = self.first?;
        self.first = slot.hook.next();
        Some(slot)
    }
}

#[derive(Default)]
pub(crate) struct Counts {
    exited: Counter,
    switches: Counter,
    preemptions: Counter,
    pub(crate) preemptions_put_off: Counter,
    spawned: Counter,
    wakes_local: Counter,
    wakes_remote: Counter,
    ipis: Counter,
    halts: Counter,
    moved_here: Counter,
    token_collisions: Counter,
    idle_ns: Counter,
}

/// So often it is tried to take the tokens of the most important thread, before one that is less important may run.
const FIRST_TRIES: u32 = if cfg!(loom) { 1 } else { 5 };

/// Nobody runs threads here yet.
const OFF: u8 = 0;
/// Somebody does: `local` and all slots that the CPU knows of are theirs.
const ON: u8 = 1;
/// Nobody will again.
const LEFT: u8 = 2;

// SAFETY: `local` and `idle` are touched by the unsafe functions below, whose callers are this CPU, or who has made the
// `role` theirs; all else is `Sync`.
unsafe impl Sync for Cpu {}

impl Cpu {
    pub(crate) fn new(
        id: CpuId,
        scheduler: &'static Scheduler,
        attention: &'static Attention,
        policy: Option<Box<dyn Policy>>,
    ) -> Self {
        Self {
            wakes: WakeList::new(),
            id,
            scheduler,
            role: AtomicU8::new(OFF),
            current: AtomicRef::none(),
            idle: Context::new(),
            sections: Sections::new(attention),
            local: UnsafeCell::new(Local {
                run_queue: Queue::new(scheduler, id, policy),
                victim: None,
                departed: None,
                since: None,
                announced: false,
            }),
            sleepers: Sleepers::new(),
            slots: AtomicRef::none(),
            free: Lock::new([FreeList::default(); StackSize::COUNT]),
            counts: Counts::default(),
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> CpuId {
        self.id
    }

    #[inline]
    pub(crate) fn scheduler(&self) -> &'static Scheduler {
        self.scheduler
    }

    #[inline]
    pub(crate) fn platform(&self) -> &'static dyn Platform {
        self.scheduler.platform()
    }

    /// Whether it runs threads: its sections count from then on.
    #[cfg(not(any(feature = "std", loom)))]
    pub(crate) fn runs(&self) -> bool {
        self.role.load(Ordering::Relaxed) == ON
    }

    pub(crate) fn current(&self) -> Option<&'static Thread> {
        self.current.load()
    }

    #[inline]
    pub(crate) fn sleepers(&self) -> &Sleepers<Thread> {
        &self.sleepers
    }

    /// All slots, the newest first.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &'static Thread> {
        core::iter::successors(self.slots.load(), |slot| slot.next_slot.load())
    }

    pub(crate) fn stats(&self) -> CpuStats {
        let Counts {
            exited,
            switches,
            preemptions,
            preemptions_put_off,
            spawned,
            wakes_local,
            wakes_remote,
            ipis,
            halts,
            moved_here,
            token_collisions,
            idle_ns,
        } = &self.counts;
        CpuStats {
            spawned: spawned.get(),
            exited: exited.get(),
            switches: switches.get(),
            preemptions: preemptions.get(),
            preemptions_put_off: preemptions_put_off.get(),
            wakes_local: wakes_local.get(),
            wakes_remote: wakes_remote.get(),
            ipis: ipis.get(),
            halts: halts.get(),
            moved_here: moved_here.get(),
            token_collisions: token_collisions.get(),
            idle_time: Duration::from_nanos(idle_ns.get()),
        }
    }
}

/// New threads, by anybody.
impl Cpu {
    /// Makes a thread; what is returned completes when it ends.
    pub(crate) fn spawn(
        &'static self,
        size: StackSize,
        id: ThreadId,
        spec: &Spec,
        main: Main,
    ) -> Result<Pending<Exit>, SpawnError> {
        let slot = self.take_slot(size)?;
        let (exit, ended) = Own::new(Exit::default()).waitable();
        // SAFETY: an empty slot, ours.
        if !unsafe { slot.fill(id, spec, main, exit) } {
            self.free_slot(slot);
            return Err(SpawnError::NoMemory(size.bytes()));
        }
        if self.deliver(slot) {
            // SAFETY: it was refused, so it is still ours.
            unsafe { slot.empty() };
            self.free_slot(slot);
            return Err(SpawnError::Stopped);
        }
        Ok(ended)
    }

    /// An empty slot with a stack of this size, which is the caller's.
    fn take_slot(&'static self, size: StackSize) -> Result<&'static Thread, SpawnError> {
        if let Some(slot) = self.free.lock().get_mut(size.index()).and_then(FreeList::pop) {
            // The last thread here may have moved.
            slot.set_cpu(Some(self));
            return Ok(slot);
        }
        let stack = Stack::new(size, self.platform()).ok_or(SpawnError::NoMemory(size.bytes()))?;
        let slot: &'static Thread = Box::leak(Box::new(Thread::new(self, stack)));
        // The lock is for others who add a slot; who looks needs none.
        let _free = self.free.lock();
        slot.next_slot.store(self.slots.load());
        self.slots.store(Some(slot));
        Ok(slot)
    }

    /// Gives back a slot that is the caller's and empty.
    fn free_slot(&self, slot: &'static Thread) {
        if let Some(list) = self.free.lock().get_mut(slot.stack.size().index()) {
            list.push(slot);
        }
    }
}

/// From anybody.
impl Cpu {
    /// Puts a thread on the wake list and sees to it that the CPU looks. The caller has moved the thread to WOKEN.
    /// Returns whether it was refused: the CPU has stopped, and the thread is the caller's.
    pub(crate) fn deliver(&self, thread: &'static Thread) -> bool {
        let from_elsewhere = self.scheduler.this() != self.id;
        thread.hook.set_from_elsewhere(from_elsewhere);
        // Before the push: afterwards it may be anybody's.
        let priority = thread.seen.priority();
        match self.wakes.push(thread) {
            // An interrupt on this very CPU ends its halt by itself.
            Pushed::FoundAsleep if from_elsewhere => self.raise_ipi(),
            Pushed::Queued if priority.is_interrupt() && preempt::is_enabled() => {
                self.ask_to_preempt(priority, from_elsewhere);
            }
            Pushed::FoundAsleep | Pushed::Queued => {}
            Pushed::Closed => return true,
        }
        false
    }

    /// A thread that may preempt has been put on the wake list of this CPU, which is awake.
    #[cold]
    fn ask_to_preempt(&self, priority: Priority, from_elsewhere: bool) {
        if from_elsewhere {
            // Who runs there may change at this moment, so it is not asked.
            self.sections.attention().call();
            return self.raise_ipi();
        }
        if self.current().is_some_and(|current| current.seen.priority() < priority) {
            self.sections.attention().call();
            if self.sections.count() == 0 {
                self.attend();
            } else {
                self.counts.preemptions_put_off.add(1);
            }
        }
    }

    /// Sees to it that the CPU looks at what was asked of its sleepers.
    pub(crate) fn nudge(&self) {
        let from_elsewhere = self.scheduler.this() != self.id;
        if self.wakes.end_sleep() {
            if from_elsewhere {
                self.raise_ipi();
            }
        } else if self.sleepers.any_urgent() && preempt::is_enabled() {
            // It may preempt.
            self.sections.attention().call();
            if from_elsewhere {
                self.raise_ipi();
            } else if self.sections.count() == 0 {
                self.attend();
            }
        }
    }

    fn raise_ipi(&self) {
        self.scheduler.note(|| Kind::Ipi { to: self.id });
        self.platform().raise_ipi(self.id);
    }

    /// Ends the CPU, once the scheduler says that it is stopped.
    pub(crate) fn stop(&self) {
        // Acquire and Release: the role is that of a lock around `local`.
        if self.role.compare_exchange(OFF, LEFT, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // SAFETY: nobody has run threads here, and nobody will.
            unsafe { self.abandon() };
        } else {
            self.platform().raise_ipi(self.id);
        }
    }
}

/// By this CPU, in thread or idle context.
impl Cpu {
    /// Runs threads until the scheduler is stopped. See [`Leave`] for when it calls `stays`.
    pub(crate) fn run(&'static self, stays: &dyn Fn()) -> Result<(), RunError> {
        // Acquire: see `stop`.
        match self.role.compare_exchange(OFF, ON, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {}
            Err(ON) => return Err(RunError::Running(self.id)),
            Err(_) => return Err(RunError::Stopped),
        }
        let _leave = Leave { cpu: self, stays, before: set_here(Some(self)) };
        // Refused only on no CPU.
        let _ = self.scheduler.ipis().start();
        let mut backoff = Backoff::new();
        while !self.scheduler.is_stopped() {
            let now = self.now();
            self.sections.open();
            // SAFETY: the role is ours, and this is the idle context.
            let next = unsafe { self.pick() };
            // SAFETY: as above.
            if let Some(fault) = unsafe { self.local(|local| local.run_queue.take_fault()) } {
                fault.raise();
            }
            if next.is_some() {
                // SAFETY: as above, and the thread is suspended: it was on the run queue.
                unsafe { self.switch(None, next, now) };
                backoff = Backoff::new();
            }
            // SAFETY: as above.
            let waits_for_tokens = next.is_none() && unsafe { self.any_is_ready() };
            self.leave();
            if waits_for_tokens {
                // Whoever has the tokens of those that are ready does not say when they come free.
                backoff.snooze();
            } else if next.is_none() {
                // SAFETY: as above.
                unsafe { self.idle() };
            }
        }
        Ok(())
    }

    /// Blocks the thread until somebody wakes it, unless somebody has woken it since it last began to look.
    ///
    /// # Panics
    /// If it has a section open: it is not to be preempted.
    #[inline]
    #[track_caller]
    pub(crate) fn block(&self, cx: &mut Cx<'_>) {
        let me = cx.slot();
        self.check_no_section(me, "waits", Location::caller());
        // What the platform does comes first: a panic in it leaves everything as it was.
        let now = self.now();
        // From here on to the end of the switch nothing else may run on this thread.
        self.sections.open();
        if me.hook.block() {
            me.seen.set_state(ThreadState::Blocked);
            self.scheduler.note(|| Kind::Block { thread: me.seen.id() });
            // SAFETY: a context is its thread's own, on its CPU, in thread context; and `cx` stays where it is.
            unsafe { self.give_way(me, cx.chain(), cx.chain(), now) };
        }
        me.hook.resume();
        self.leave();
    }

    /// Gives up what the thread holds until it can have that and one token `more`. Others run meanwhile.
    ///
    /// # Panics
    /// As [`block`](Self::block).
    pub(crate) fn block_for<'a>(
        &self,
        cx: &'a mut Cx<'_>,
        at: &'static Location<'static>,
        more: impl FnOnce(Option<&'a Link<'a>>) -> Link<'a>,
    ) {
        let me = cx.slot();
        self.check_no_section(me, "waits for a token", at);
        let now = self.now();
        let held = cx.chain();
        let wanted = more(held);
        let token = core::ptr::from_ref(wanted.word).addr();
        self.scheduler.note(|| Kind::Contention { thread: me.seen.id(), token });
        self.sections.open();
        self.counts.token_collisions.add(1);
        // SAFETY: a context is its thread's own, on its CPU, in thread context.
        unsafe { self.local(|local| self.join_the_ready(local, me)) };
        // SAFETY: as above.
        unsafe { me.wanted.has_failed() };
        // SAFETY: as above, and `cx` and `wanted` stay where they are.
        unsafe { self.give_way(me, held, Some(&wanted), now) };
        // The caller does not know yet that it has one more, should a callback panic.
        let taken = OnUnwind(&wanted);
        self.leave();
        mem::forget(taken);
    }

    /// Lets threads that are as important run, if there are any.
    ///
    /// # Panics
    /// As [`block`](Self::block).
    #[inline]
    #[track_caller]
    pub(crate) fn yield_from(&self, cx: &mut Cx<'_>) {
        let me = cx.slot();
        self.check_no_section(me, "yields", Location::caller());
        let now = self.now();
        let mine = me.seen.priority();
        let join_the_others = |local: &mut Local| {
            self.collect(local);
            let turn = self.scheduler.is_stopped() || local.run_queue.best().is_some_and(|best| best >= mine);
            if turn {
                self.join_the_ready(local, me);
            }
            turn
        };
        self.sections.open();
        // SAFETY: a context is its thread's own, on its CPU, in thread context.
        if unsafe { self.local(join_the_others) } {
            // SAFETY: as above, and `cx` stays where it is.
            unsafe { self.give_way(me, cx.chain(), cx.chain(), now) };
        }
        self.leave();
    }

    /// Whether somebody's turn has come who is more important than the thread, or as important and a tick has passed.
    #[inline]
    pub(crate) fn should_yield(&self, me: &Thread) -> bool {
        self.sections.open();
        // Ticks and messages that wait come first.
        self.leave();
        let is_over = self.sections.turn_is_over.load(Ordering::Relaxed);
        if !is_over && self.wakes.is_empty() && !self.sleepers.is_asked() {
            return false;
        }
        self.sections.open();
        let collect = |local: &mut Local| {
            self.collect(local);
            local.run_queue.best()
        };
        // SAFETY: the caller is the thread, on this CPU.
        let best = unsafe { self.local(collect) };
        let mine = me.seen.priority();
        let should = best.is_some_and(|best| best > mine || is_over && best == mine);
        self.sections.turn_is_over.store(should, Ordering::Relaxed);
        self.leave();
        should
    }

    /// The thread that runs waits for its turn.
    fn join_the_ready(&self, local: &mut Local, me: &'static Thread) {
        me.seen.set_state(ThreadState::Ready);
        local.run_queue.push(me);
    }

    /// Gives up what the thread holds, lets others run, and returns when it is the thread's turn and it has `wanted`.
    ///
    /// # Safety
    /// The caller is `me`, on this CPU, in thread context; it is blocked or on the run queue, and holds `held`. Both
    /// chains stay where they are until this returns.
    #[inline]
    unsafe fn give_way(
        &self,
        me: &'static Thread,
        held: Option<&Link<'_>>,
        wanted: Option<&Link<'_>>,
        now: Option<Instant>,
    ) {
        if let Some(held) = held {
            held.give_up();
        }
        // SAFETY: as promised by the caller.
        unsafe { me.wanted.set(wanted) };
        // SAFETY: as above.
        let next = unsafe { self.pick() };
        if next.is_some_and(|next| ptr::eq(next, me)) {
            me.seen.set_state(ThreadState::Running);
        } else {
            // SAFETY: `me` is the caller, and `next` is suspended: it was on the run queue, and is another thread.
            unsafe { self.switch(Some(me), next, now) };
        }
    }

    /// Ends the thread. Where threads have stacks of their own it does not return.
    ///
    /// # Safety
    /// The caller is `me`, on its own stack, and returns at once where this returns.
    pub(crate) unsafe fn exit(&self, me: &'static Thread) {
        let now = self.now();
        self.sections.open();
        // SAFETY: the caller is on this CPU, in thread context.
        unsafe { self.local(|local| local.departed = Some(Departed::Ended(me))) };
        // SAFETY: as above.
        let next = unsafe { self.pick() };
        // SAFETY: as above.
        let to = unsafe { self.turn_to(Some(me), next, now) };
        // SAFETY: as above, and `next` is suspended.
        unsafe { me.context.leave(to) };
    }

    /// What a context does first when it was switched to: it sees to the thread that has departed, whose stack nobody is on
    /// any more.
    ///
    /// # Safety
    /// The caller is on this CPU, in thread or idle context, and was switched to. A section is open, which it has now.
    #[inline]
    pub(crate) unsafe fn arrived(&self) {
        // SAFETY: as promised by the caller.
        let departed = unsafe { self.local(|local| local.departed.take()) };
        if let Some(departed) = departed {
            self.settle(departed);
        }
    }

    #[inline(never)]
    fn settle(&self, departed: Departed) {
        match departed {
            Departed::Ended(slot) => {
                slot.seen.set_free();
                self.counts.exited.add(1);
                slot.home.free_slot(slot);
            }
            Departed::Moves(thread, to) => self.send_on(thread, to),
            Departed::GivenAway(thread) => self.gave_away(thread),
        }
    }

    /// Gives up what the thread `me` holds, `held`, and switches away from it. When this returns, the thread is where it was
    /// sent, and the section that was open here is one there.
    ///
    /// # Safety
    /// The caller is `me`, on this CPU, with a section open; `held` stays where it is. It calls [`arrived`](Self::arrived)
    /// of the CPU that it is on then.
    pub(crate) unsafe fn switch_away(
        &self,
        me: &'static Thread,
        held: Option<&Link<'_>>,
        how: Departed,
        now: Option<Instant>,
    ) {
        if let Some(held) = held {
            held.give_up();
        }
        // SAFETY: as promised by the caller.
        unsafe { me.wanted.set(held) };
        // SAFETY: as above.
        unsafe { self.local(|local| local.departed = Some(how)) };
        // SAFETY: as above.
        let next = unsafe { self.pick() };
        // SAFETY: as above, and `next` is suspended.
        let to = unsafe { self.turn_to(Some(me), next, now) };
        // SAFETY: as above.
        unsafe { me.context.switch(to) };
    }

    /// Goes from one context to another; `None` is the idle one. Returns when somebody goes back to `from`.
    ///
    /// # Safety
    /// The caller is `from`, on this CPU, with a section open, and `to` is suspended, here.
    #[inline]
    unsafe fn switch(
        &self,
        from: Option<&'static Thread>,
        to: Option<&'static Thread>,
        now: Option<Instant>,
    ) {
        // SAFETY: as promised by the caller.
        let to = unsafe { self.turn_to(from, to, now) };
        let from = from.map_or(&self.idle, |from| &from.context);
        // SAFETY: as promised by the caller.
        unsafe { from.switch(to) };
        // SAFETY: switched to just now.
        unsafe { self.arrived() };
    }

    /// Notes that `to` runs from now on.
    ///
    /// # Safety
    /// As for `switch`.
    #[inline]
    unsafe fn turn_to(
        &self,
        from: Option<&'static Thread>,
        to: Option<&'static Thread>,
        now: Option<Instant>,
    ) -> &Context {
        // SAFETY: as promised by the caller.
        let since = unsafe { self.local(|local| mem::replace(&mut local.since, now)) };
        if let (Some(from), Some(since), Some(now)) = (from, since, now) {
            from.seen.run_ns.add(now.saturating_since(since).as_nanos() as u64);
        }
        self.counts.switches.add(1);
        let id = |thread: Option<&'static Thread>| thread.map(|thread| thread.seen.id());
        self.scheduler.note(|| Kind::Switch { from: id(from), to: id(to) });
        self.current.store(to);
        self.sections.turn_is_over.store(false, Ordering::Relaxed);
        let Some(to) = to else { return &self.idle };
        to.seen.switches.add(1);
        to.seen.set_state(ThreadState::Running);
        &to.context
    }

    /// The thread to run next: the one that the caller has preempted, or from the run queue, with its tokens; none where
    /// the CPU is to be idle, or is to end. Threads whose tokens are not to be had are passed over.
    ///
    /// # Safety
    /// The caller is on this CPU, in thread or idle context.
    #[inline]
    unsafe fn pick(&self) -> Option<&'static Thread> {
        if self.scheduler.is_stopped() {
            return None;
        }
        let mut tries = FIRST_TRIES;
        let has_its_tokens = |thread: &'static Thread| {
            let tries = mem::replace(&mut tries, 1);
            // SAFETY: this is the CPU of the thread, which is on the run queue and so does not run.
            unsafe { thread.wanted.take(tries) }
        };
        let next = |local: &mut Local| {
            if let Some(victim) = local.victim {
                // It keeps its tokens.
                local.victim = victim.hook.next();
                return Some(victim);
            }
            self.collect(local);
            local.run_queue.pop(has_its_tokens)
        };
        // SAFETY: as promised by the caller.
        unsafe { self.local(next) }
    }

    /// Lets more important threads of an interrupt's priority run before `me` goes on, one after the other, each until it
    /// waits, yields or ends. Not those whose tokens are not to be had, which `me` may hold.
    ///
    /// # Safety
    /// The caller is `me`, on this CPU, with a section open, which is at its end but for this.
    pub(crate) unsafe fn let_preempt(&self, me: &'static Thread) {
        let mine = me.seen.priority();
        while !self.scheduler.is_stopped() {
            let now = self.now();
            let has_its_tokens = |thread: &'static Thread| {
                // SAFETY: this is the CPU of the thread, which is on the run queue and so does not run.
                unsafe { thread.wanted.take(1) }
            };
            let next = |local: &mut Local| {
                self.collect(local);
                let above = mine.max(Priority::BELOW_INTERRUPT);
                let next = local.run_queue.pop_above(above, has_its_tokens);
                if next.is_some() {
                    me.hook.set_next(local.victim.replace(me));
                } else if local.run_queue.best().is_some_and(|best| best > mine) {
                    self.sections.turn_is_over.store(true, Ordering::Relaxed);
                }
                next
            };
            // SAFETY: as promised by the caller.
            let Some(next) = (unsafe { self.local(next) }) else { return };
            self.counts.preemptions.add(1);
            self.scheduler.note(|| Kind::Preempt { thread: me.seen.id(), by: next.seen.id() });
            me.seen.set_state(ThreadState::Preempted);
            // SAFETY: as above, and `next` was on the run queue. Nobody puts `me` on a list meanwhile: it is not blocked.
            unsafe { self.switch(Some(me), Some(next), now) };
        }
    }

    /// The clock has ticked while the thread `me` ran.
    ///
    /// # Safety
    /// The caller is `me`, on this CPU, with a section open.
    pub(crate) unsafe fn end_turn(&self, me: &'static Thread) {
        // SAFETY: as promised by the caller.
        let is_over = unsafe { self.local(|local| local.run_queue.tick(me)) };
        self.sections.turn_is_over.store(is_over, Ordering::Relaxed);
    }

    /// Whether threads are ready that were not picked.
    ///
    /// # Safety
    /// As for `pick`.
    unsafe fn any_is_ready(&self) -> bool {
        // SAFETY: as promised by the caller.
        unsafe { self.local(|local| local.run_queue.best().is_some()) }
    }

    /// Puts woken and new threads on the run queue.
    #[inline]
    fn collect(&self, local: &mut Local) {
        self.enqueue(local, self.wakes.take());
        let masks = self.scheduler.sleeping();
        let wake = &mut |thread: &'static Thread, from_elsewhere| {
            // If not, somebody else has woken it, too, and has put it on the wake list.
            if thread.hook.notify() {
                self.ready(local, thread, from_elsewhere);
            }
        };
        self.sleepers.serve(wake, &mut |bucket| masks.remove(bucket, self.id));
        local.announced = false;
    }

    fn enqueue(&self, local: &mut Local, woken: Chain<Thread>) {
        for thread in woken {
            self.ready(local, thread, thread.hook.is_from_elsewhere());
        }
    }

    /// Puts a thread on the run queue that was woken, or is new.
    fn ready(&self, local: &mut Local, thread: &'static Thread, from_elsewhere: bool) {
        // Whoever found the CPU asleep came first.
        if mem::take(&mut local.announced) && from_elsewhere {
            self.counts.ipis.add(1);
        }
        match thread.seen.state() {
            Some(ThreadState::New) => self.counts.spawned.add(1),
            Some(ThreadState::Moving) => {
                self.counts.moved_here.add(1);
                thread.set_cpu(self.scheduler.cpu(self.id));
            }
            _ => {
                thread.seen.wakes.add(1);
                let count = if from_elsewhere { &self.counts.wakes_remote } else { &self.counts.wakes_local };
                count.add(1);
            }
        }
        thread.seen.set_state(ThreadState::Ready);
        self.scheduler.note(|| Kind::Wake { thread: thread.seen.id() });
        local.run_queue.push(thread);
    }

    /// The thread, which is on this CPU and calls this, is about to sleep on `channel`.
    pub(crate) fn enter_sleep(&self, thread: &'static Thread, channel: Channel) {
        // One that was forgotten may still be there.
        self.leave_sleep(thread);
        self.sections.open();
        if self.sleepers.enter(thread, channel) {
            self.scheduler.sleeping().insert(channel, self.id);
        }
        self.leave();
    }

    /// The thread, which is on this CPU and calls this, sleeps, unless a wake-up came first.
    pub(crate) fn fall_asleep(&self, thread: &'static Thread) {
        self.sections.open();
        thread.place.fall_asleep();
        self.leave();
    }

    /// The thread, which is on this CPU and calls this, sleeps on nothing any more; returns whether a wake-up came first.
    pub(crate) fn leave_sleep(&self, thread: &'static Thread) -> bool {
        self.sections.open();
        let left = self.sleepers.leave(thread);
        if let Left::Emptied(bucket) = left {
            self.scheduler.sleeping().remove(bucket, self.id);
        }
        self.leave();
        left == Left::Woken
    }

    /// Halts until something happens.
    ///
    /// # Safety
    /// The caller is on this CPU, in the idle context.
    unsafe fn idle(&self) {
        let begin = self.platform().now();
        if !self.wakes.announce_sleep() {
            return;
        }
        self.sections.open();
        // SAFETY: as promised by the caller.
        unsafe { self.local(|local| local.announced = true) };
        self.sections.close();
        self.counts.halts.add(1);
        let attention = self.sections.attention();
        // With the fence in `Scheduler::wakeup`: either this sees what was asked, or the waker sees the CPU asleep.
        fence(Ordering::SeqCst);
        let is_ready = || {
            self.wakes.is_awake()
                || self.sleepers.is_asked()
                || attention.is_called()
                || self.scheduler.is_stopped()
        };
        self.platform().halt(&is_ready);
        self.counts.idle_ns.add(self.platform().now().saturating_since(begin).as_nanos() as u64);
    }

    /// Takes no more threads, and tells those who wait for the ones that are left. Returns whether any of those has begun.
    ///
    /// # Safety
    /// The caller has the CPU's role, and no thread will be switched to any more.
    unsafe fn abandon(&self) -> bool {
        // SAFETY: as promised by the caller.
        unsafe { self.local(|local| self.enqueue(local, self.wakes.close())) };
        let mut any_has_begun = false;
        for slot in self.scheduler.cpus().flat_map(Cpu::slots) {
            // First: a thread that has moved on since this CPU had it shows a later state, and with it whose it is.
            let state = slot.seen.state();
            if !ptr::eq(slot.cpu(), self) {
                continue;
            }
            match state {
                // In the hands of a spawner, who will be refused.
                None | Some(ThreadState::New) => continue,
                // In somebody else's hands; it may come back to nobody.
                Some(ThreadState::Moving) => {
                    any_has_begun = true;
                    continue;
                }
                _ => {}
            }
            // SAFETY: the thread is of this CPU and does not run.
            any_has_begun |= unsafe { slot.has_begun() };
            slot.context.cancel();
            // SAFETY: as above.
            drop(unsafe { slot.take_exit() });
        }
        any_has_begun
    }

    /// # Safety
    /// The caller is on this CPU, in thread or idle context, with a section open, or has its role; `f` neither switches nor
    /// comes here again.
    #[inline]
    unsafe fn local<R>(&self, f: impl FnOnce(&mut Local) -> R) -> R {
        // SAFETY: as promised by the caller, so nobody else has a reference.
        self.local.with_mut(|local| f(unsafe { &mut *local }))
    }

    #[inline]
    pub(crate) fn now(&self) -> Option<Instant> {
        match self.scheduler.config().run_time {
            RunTime::Measured => Some(self.platform().now()),
            RunTime::NotMeasured => None,
        }
    }
}

/// Releases a token that nobody has a context for.
struct OnUnwind<'a>(&'a Link<'a>);

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Ends a CPU, whether `run` returns or a panic of the platform goes through it.
///
/// Threads that have begun and are left stand on the stack of nobody, but on a host their frames may have lent a
/// thread-local of the OS thread that the CPU is, which would be gone with it. So that one does not return: it calls
/// `stays` and parks for ever.
struct Leave<'a> {
    cpu: &'a Cpu,
    stays: &'a dyn Fn(),
    /// The CPU that the OS thread was before.
    before: Option<&'static Cpu>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        // What a panic of the platform has left open.
        self.cpu.sections.forget();
        // Others that wait for this CPU are served first. Refused only inside of a callback.
        let _ = self.cpu.scheduler.ipis().stop();
        set_here(self.before);
        // SAFETY: the role is the caller's, who is in the idle context and switches to no thread any more.
        let any_is_left = unsafe { self.cpu.abandon() };
        self.cpu.role.store(LEFT, Ordering::Release);
        if cfg!(feature = "std") && arch::ON_THE_CPUS_OWN && any_is_left {
            (self.stays)();
            stay();
        }
    }
}

#[cfg(feature = "std")]
fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// A machine's CPU has no thread-locals that end.
#[cfg(not(feature = "std"))]
fn stay() {}
