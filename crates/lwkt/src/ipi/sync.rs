//! Functions that run on many CPUs together (`cpusync`).
//!
//! The function is lent, not sent: it lives on the caller's stack, and the caller stays until the last CPU has called it.

use dfly_hal::sync::NoPreemption;
use dfly_hal::sync::atomic::{AtomicBool, Ordering, fence};
use dfly_hal::sync::hint::Backoff;
use dfly_hal::{CpuId, Cpus};

use super::cx::IrqCx;
use super::error::{SendError, SyncError};
use super::mask::CpuMask;
use super::queues::{Cpu, IpiQueues, Ticket, add};
use super::raw::{Errand, Loan, TakenErrand};

impl<C: Cpus, const DEPTH: usize> IpiQueues<C, DEPTH> {
    /// Runs `f` once on each CPU of a mask that takes part, and returns when all have: `lwkt_cpusync_quick`. They run it when
    /// it comes to them, not together; on the calling CPU, if it is in the mask, it runs last. Returns the CPUs that ran it,
    /// also those where it panicked: a panic belongs to the CPU that `f` runs on. Of the calling CPU it goes on from
    /// here, once the others have run `f`.
    ///
    /// Thread context; spins, draining, as long as the longest stretch without interrupts on any of the CPUs. `f` must be
    /// short and cannot wait.
    pub fn run_on(&self, mask: &CpuMask, f: impl Fn(&IrqCx<'_>) + Sync) -> Result<CpuMask, SyncError> {
        let _here = NoPreemption::new();
        let (me, cpu) = self.this().ok_or(SyncError::NotACpu)?;
        let mut errand = self.take_errand(me, cpu)?;
        let mask = *mask & self.online();
        let turn = self.turn();
        errand.lend(&f, mask.len() as usize, &turn, |loan| {
            let mut round = Round { errand: &cpu.errand, left: mask };
            round.tell(me, |to| self.send(to, move |cx| cx.post().run_errand(cx, me, loan)))?;
            // No place to be skipped from here on, whether the function panics or not.
            if round.left.remove(me) {
                self.run_here(me, cpu, loan);
            }
            Ok::<_, SyncError>(())
        })?;
        Ok(mask)
    }

    /// [`interlocked`](Self::interlocked) with nothing between: `f` runs on all CPUs of the mask while none of them does
    /// anything else. `lwkt_cpusync_simple`.
    pub fn run_together(&self, mask: &CpuMask, f: impl Fn(&IrqCx<'_>) + Sync) -> Result<CpuMask, SyncError> {
        self.interlocked(mask, |&mask| mask, f)
    }

    /// Stops the CPUs of a mask that take part, calls `body` here with those, then lets each of them run `f` and go on:
    /// `lwkt_cpusync_interlock` and `lwkt_cpusync_deinterlock`. Returns when all have run it. The calling CPU, if it is
    /// in the mask, runs `f` after `body`.
    ///
    /// A stopped CPU is in its drain: no thread of it runs, and no callback that was sent before; it goes on calling what
    /// is sent to it. So `body` and `f` may not wait for anything that a thread on those CPUs holds, and `body` may not block:
    /// its CPU is not preempted, and the others stay stopped meanwhile. If such a callback panics, its CPU stays stopped,
    /// calls nothing more but `f`, and unwinds once it may go on; an `f` that panics there, too, ends the program.
    ///
    /// One interlock at a time: another CPU that asks for one meanwhile waits, and may itself be stopped meanwhile, so two
    /// that aim at each other both get their turn, one after the other. Thread context; spins, draining.
    pub fn interlocked<R>(
        &self,
        mask: &CpuMask,
        body: impl FnOnce(&CpuMask) -> R,
        f: impl Fn(&IrqCx<'_>) + Sync,
    ) -> Result<R, SyncError> {
        let _here = NoPreemption::new();
        let (me, cpu) = self.this().ok_or(SyncError::NotACpu)?;
        let mut errand = self.take_errand(me, cpu)?;
        let _interlock = self.take_interlock();
        let mask = *mask & self.online();
        let others = mask - CpuMask::of(me);
        let turn = self.turn();
        errand.lend(&f, mask.len() as usize, &turn, |loan| {
            cpu.go.store(false, Ordering::Relaxed);
            cpu.to_stop.store(others.len() as usize, Ordering::Relaxed);
            // Dropped also where `body` panics: all go on.
            let _release = Release { queues: self, me, cpu, here: mask.contains(me).then_some(loan) };
            let mut round = Round { errand: &cpu.errand, left: others };
            round.tell(me, |to| self.send(to, move |cx| cx.post().hold(cx.cpu(), me)))?;
            // Acquire: what the others did before they stopped (pairs with the Release in `stay_stopped`).
            while cpu.to_stop.load(Ordering::Acquire) != 0 {
                turn();
            }
            Ok(body(&mask))
        })
    }

    /// One turn of a loop that waits for other CPUs.
    fn turn(&self) -> impl Fn() {
        let backoff = Backoff::new();
        move || {
            self.drain();
            backoff.snooze();
        }
    }

    /// Runs the function of a loan as a callback of the calling CPU.
    fn run_here(&self, me: CpuId, cpu: &Cpu, loan: Loan) {
        let _nest = self.enter(me, cpu);
        cpu.errand.run(loan, &IrqCx::new(self, me, me));
    }

    fn take_errand<'a>(&self, me: CpuId, cpu: &'a Cpu) -> Result<TakenErrand<'a>, SyncError> {
        if cpu.is_nested() {
            return Err(SyncError::InCallback);
        }
        let errand = cpu.errand.take().ok_or(SyncError::Busy(me))?;
        add(&cpu.own.0.syncs);
        // With the fence in `stop`: see there.
        fence(Ordering::SeqCst);
        Ok(errand)
    }

    fn take_interlock(&self) -> Interlock<'_> {
        let turn = self.turn();
        // Acquire: the last one is over (pairs with the Release in `Interlock::drop`).
        let take = || self.interlock.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        // Looks before it tries, so as to leave the cache line where it is.
        while self.interlock.load(Ordering::Relaxed) || take().is_err() {
            turn();
        }
        Interlock { taken: &self.interlock }
    }

    pub(super) fn hold_here(&self, me: CpuId, master: CpuId) {
        if let Some(cpu) = self.cpu(me) {
            cpu.own.0.held_by.store(master.index() + 1, Ordering::Relaxed);
        }
    }

    /// The known place: the end of the outermost drain, where no callback is under way. The CPU stays here while another
    /// one wants it stopped, also where a callback panics that it is sent meanwhile.
    pub(super) fn stay_stopped(&self, me: CpuId, cpu: &Cpu) {
        let held_by = &cpu.own.0.held_by;
        let Some(master) = held_by.load(Ordering::Relaxed).checked_sub(1) else { return };
        let from = CpuId(master as u32);
        let Some(master) = self.cpu(from) else { return };
        // Release: see `interlocked`.
        master.to_stop.fetch_sub(1, Ordering::Release);
        let held = Held { queues: self, me, cpu, master, from };
        let backoff = Backoff::new();
        // The other side of it is in `Held::drop`.
        while !master.go.load(Ordering::Relaxed) {
            self.pass(me, cpu);
            backoff.snooze();
        }
        drop(held);
    }
}

/// A CPU that has said that it is stopped: it goes on when its master says so, and not before, whatever panics.
struct Held<'a, C: Cpus, const DEPTH: usize> {
    queues: &'a IpiQueues<C, DEPTH>,
    me: CpuId,
    cpu: &'a Cpu,
    master: &'a Cpu,
    from: CpuId,
}

impl<C: Cpus, const DEPTH: usize> Drop for Held<'_, C, DEPTH> {
    fn drop(&mut self) {
        let backoff = Backoff::new();
        // Nothing is called here, which might panic again: the rest is left to the next drain.
        // Acquire: what the master did meanwhile (pairs with the Release in `Go::drop`).
        while !self.master.go.load(Ordering::Acquire) {
            backoff.snooze();
        }
        // Before the master may be done: the next one wants to be seen.
        self.cpu.own.0.held_by.store(0, Ordering::Relaxed);
        let errand = &self.master.errand;
        errand.run(errand.loan(), &IrqCx::new(self.queues, self.me, self.from));
    }
}

/// The CPUs that still have to be told. Nobody waits for those that never are, because telling failed. One of which that
/// is not known, because telling panicked, counts as not told: its message may find the loan over, or no call left.
struct Round<'a> {
    errand: &'a Errand,
    left: CpuMask,
}

impl Round<'_> {
    /// Tells all but the calling CPU.
    fn tell(
        &mut self,
        me: CpuId,
        mut tell: impl FnMut(CpuId) -> Result<Ticket, SendError>,
    ) -> Result<(), SendError> {
        for to in (self.left - CpuMask::of(me)).iter_from(me) {
            tell(to)?;
            self.left.remove(to);
        }
        Ok(())
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.errand.skip(self.left.len() as usize);
    }
}

/// The end of an interlock: runs the function here, if it is to run here, and lets the others go on.
struct Release<'a, C: Cpus, const DEPTH: usize> {
    queues: &'a IpiQueues<C, DEPTH>,
    me: CpuId,
    cpu: &'a Cpu,
    here: Option<Loan>,
}

impl<C: Cpus, const DEPTH: usize> Drop for Release<'_, C, DEPTH> {
    fn drop(&mut self) {
        // Dropped last, and where the function panics, too.
        let _go = Go { cpu: self.cpu };
        if let Some(loan) = self.here {
            self.queues.run_here(self.me, self.cpu, loan);
        }
    }
}

struct Go<'a> {
    cpu: &'a Cpu,
}

impl Drop for Go<'_> {
    fn drop(&mut self) {
        // Release: see `stay_stopped`.
        self.cpu.go.store(true, Ordering::Release);
    }
}

/// Nobody else has CPUs stopped, until this is dropped.
struct Interlock<'a> {
    taken: &'a AtomicBool,
}

impl Drop for Interlock<'_> {
    fn drop(&mut self) {
        // Release: see `take_interlock`.
        self.taken.store(false, Ordering::Release);
    }
}
