//! How sleepers are woken, from anywhere.

use alloc::boxed::Box;

use dfly_hal::CpuId;
use dfly_hal::sync::NoPreemption;
use dfly_hal::sync::atomic::{Ordering, fence};

use super::BUCKETS;
use super::ident::Channel;
use super::request::{Count, Request};
use crate::ipi::{AtomicCpuMask, CpuMask};
use crate::sched::{Cpu, Scheduler};

/// For each bucket the CPUs that have a sleeper in it: set and cleared by the CPU itself.
pub(crate) struct Masks(Box<[AtomicCpuMask]>);

impl Masks {
    pub(crate) fn new() -> Self {
        Self((0..BUCKETS).map(|_| AtomicCpuMask::default()).collect())
    }

    /// Relaxed: the fences in `Cx::interlock` and `Scheduler::wake` order it.
    pub(crate) fn insert(&self, channel: Channel, cpu: CpuId) {
        self.0[channel.bucket()].insert(cpu, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bucket: usize, cpu: CpuId) {
        self.0[bucket].remove(cpu, Ordering::Relaxed);
    }

    fn cpus(&self, channel: Channel) -> CpuMask {
        self.0[channel.bucket()].load(Ordering::Relaxed)
    }
}

/// Waking sleepers: from any context, interrupt handlers, IPI callbacks and foreign host threads included. Never waits
/// and never fails.
///
/// A CPU looks at what was asked of it when it next picks a thread, and at once if it sleeps. More than 64 wake-ups that it
/// has not looked at yet become one for all its sleepers, which look again.
impl Scheduler {
    /// Wakes all threads that sleep on `channel`.
    pub fn wakeup(&self, channel: impl Into<Channel>) {
        self.wake(channel.into(), Count::All, |there| there);
    }

    /// Wakes at least one of the threads that sleep on `channel`, if there are any, and at most one on each CPU; of those of
    /// one CPU the one that has slept longest.
    pub fn wakeup_one(&self, channel: impl Into<Channel>) {
        self.wake(channel.into(), Count::One, |there| there);
    }

    /// Wakes the threads of `cpu` that sleep on `channel`.
    pub fn wakeup_on(&self, cpu: CpuId, channel: impl Into<Channel>) {
        self.wake(channel.into(), Count::All, |there| there & CpuMask::of(cpu));
    }

    /// Wakes one of the threads of `cpu` that sleep on `channel`, if there are any.
    pub fn wakeup_one_on(&self, cpu: CpuId, channel: impl Into<Channel>) {
        self.wake(channel.into(), Count::One, |there| there & CpuMask::of(cpu));
    }

    fn wake(&self, channel: Channel, count: Count, which: impl FnOnce(CpuMask) -> CpuMask) {
        // With the fence in `Cx::interlock`: either this sees the sleeper's bit, or the sleeper sees what the caller did.
        fence(Ordering::SeqCst);
        let there = which(self.sleeping().cpus(channel));
        if !there.is_empty() {
            self.ask(there, channel, count);
        }
    }

    fn ask(&self, there: CpuMask, channel: Channel, count: Count) {
        // Others stop at a request that is half written.
        let _alone = NoPreemption::new();
        let this = self.this();
        let cpus = || there.iter().filter_map(|id| self.cpu(id));
        for cpu in cpus() {
            let from_elsewhere = cpu.id() != this;
            cpu.sleepers().ask(Request { channel, count, from_elsewhere });
        }
        // With the fence in `Cpu::idle`: either the CPU sees the request before it halts, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        cpus().for_each(Cpu::nudge);
    }
}
