//! The scheduler: its CPUs, and what their users ask of it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use dfly_hal::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use dfly_hal::{CpuId, Instant};

use crate::platform::Platform;
use crate::sched::arch;
use crate::sched::cpu::Cpu;
use crate::sched::critical::Attention;
use crate::sched::cx::Cx;
use crate::sched::error::{ConfigError, RunError, SpawnError};
use crate::sched::handle::Handle;
use crate::sched::info::{CpuStats, ThreadId, ThreadInfo};
use crate::sched::ipis::{Ipis, SchedulerCpus};
use crate::sched::link::AtomicRef;
use crate::sched::policy::Policy;
use crate::sched::registry;
use crate::sched::stack_size::StackSize;
use crate::sched::thread::Thread;
use crate::sleep::Masks;
use crate::spec::{Config, Spec};
use crate::trace::{Event, Kind, Trace};

/// Threads on the CPUs of one machine.
///
/// It is never freed, and neither is a thread's slot: that is why a waker needs no count, and may be used by an interrupt
/// handler at any time. A process may have several.
pub struct Scheduler {
    platform: Arc<dyn Platform>,
    config: Config,
    stopped: AtomicBool,
    last_id: AtomicU64,
    ipis: Ipis,
    /// One for each CPU of the platform. Filled once the scheduler has its address, because each knows its scheduler.
    cpus: Box<[AtomicRef<Cpu>]>,
    /// Which CPUs have sleepers.
    sleeping: Masks,
    trace: Option<Trace>,
}

impl Scheduler {
    /// A scheduler for the CPUs of `platform`, of which none runs threads yet.
    ///
    /// It is leaked on purpose, one for each machine, and with it the platform.
    pub fn new(platform: Arc<dyn Platform>, config: Config) -> Result<&'static Self, ConfigError> {
        Self::make(platform, config, &mut |_| None)
    }

    /// The same, with a policy for each CPU that says in which order its threads run.
    pub fn with_policy(
        platform: Arc<dyn Platform>,
        config: Config,
        policy: &mut dyn FnMut(CpuId) -> Box<dyn Policy>,
    ) -> Result<&'static Self, ConfigError> {
        Self::make(platform, config, &mut |cpu| Some(policy(cpu)))
    }

    fn make(
        platform: Arc<dyn Platform>,
        config: Config,
        policy: &mut dyn FnMut(CpuId) -> Option<Box<dyn Policy>>,
    ) -> Result<&'static Self, ConfigError> {
        StackSize::for_bytes(config.stack_bytes).map_err(ConfigError::Stack)?;
        let count = platform.count();
        if count == 0 {
            return Err(ConfigError::NoCpu);
        }
        let attention: &'static [Attention] =
            Box::leak((0..count).map(|_| Attention::new()).collect::<Box<[_]>>());
        let ipis = Ipis::new(SchedulerCpus::new(platform.clone(), attention))?;
        let scheduler: &'static Self = Box::leak(Box::new(Self {
            platform,
            config,
            stopped: AtomicBool::new(false),
            last_id: AtomicU64::new(0),
            ipis,
            cpus: (0..count).map(|_| AtomicRef::none()).collect(),
            sleeping: Masks::new(),
            trace: Trace::new(count, config.trace_events),
        }));
        for ((id, cpu), attention) in (0..).map(CpuId).zip(&scheduler.cpus).zip(attention) {
            cpu.store(Some(Box::leak(Box::new(Cpu::new(id, scheduler, attention, policy(id))))));
        }
        registry::add(scheduler);
        Ok(scheduler)
    }

    /// Makes the calling CPU run threads, until [`stop`](Self::stop). The caller's own stack is where the CPU is idle.
    ///
    /// Threads that were spawned before wait for it. On a host the CPU is the calling OS thread, and its threads never
    /// leave it, so they share its thread-locals: what one of them puts there is seen by the others while it waits, and a
    /// "scope" that a library keeps in a thread-local is confused if scopes of two threads overlap. So do not wait
    /// inside of one (`scoped-tls`, an entered runtime or span).
    ///
    /// With the feature `std`, where threads run on that OS thread (the table in the [crate's page](crate)): if threads
    /// that have begun are left at the stop, this **does not return**, but parks the OS thread for ever, because they
    /// may have lent its thread-locals. Whoever waits for these threads is told all the same, and so is whoever waits for
    /// a [`host`](crate::host) machine. End your threads before you stop, if you want to join the OS thread. Without
    /// `std` it always returns: its caller sees to it that nothing that those threads have lent ends.
    pub fn run(&'static self) -> Result<(), RunError> {
        self.run_or_stay(&|| ())
    }

    /// As [`run`](Self::run); calls `stays` before it parks for ever.
    pub(crate) fn run_or_stay(&'static self, stays: &dyn Fn()) -> Result<(), RunError> {
        let this = self.this();
        self.cpu(this).ok_or(RunError::NotACpu(this))?.run(stays)
    }

    /// Makes every CPU leave [`run`](Self::run) at its next switch, for good. Threads that are left stay where they are and
    /// never run again; whoever waits for their end is told. A CPU whose thread neither blocks nor yields does not leave.
    /// From any thread or host thread, not from an interrupt.
    pub fn stop(&self) {
        // Release and Acquire: what was done before the stop is seen by a CPU that leaves.
        self.stopped.store(true, Ordering::Release);
        self.cpus().for_each(Cpu::stop);
    }

    /// Whether [`stop`](Self::stop) was called.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Makes a thread on `cpu`, where it stays, that calls `f` and ends. From any thread or host thread.
    ///
    /// This is where memory is allocated: a box for `f`, a message for its end, and a stack unless that of an ended thread
    /// can be used again. What the [platform](Platform::stack) gives may have a guard page below it: then an overflow is a
    /// fault. Otherwise a thread that overflows it writes to memory that is not its own, and that is found at its next
    /// switch, by a panic that names it. [`ThreadInfo::stack_is_guarded`] says which.
    ///
    /// With the feature `std` a panic of `f` ends this thread only.
    pub fn spawn(
        &'static self,
        cpu: CpuId,
        spec: Spec,
        f: impl FnOnce(&mut Cx<'_>) + Send + 'static,
    ) -> Result<Handle, SpawnError> {
        let cpu = self.cpu(cpu).ok_or(SpawnError::NoSuchCpu(cpu))?;
        let size = StackSize::for_bytes(spec.stack_bytes.unwrap_or(self.config.stack_bytes))?;
        if self.is_stopped() {
            return Err(SpawnError::Stopped);
        }
        let id = ThreadId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        cpu.spawn(size, id, &spec, Box::new(f)).map(|ended| Handle::new(id, ended))
    }

    /// What CPUs ask of each other: closures that run on another CPU, in the order in which they were sent
    /// ([`send`](Ipis::send)), or on many together ([`run_on`](Ipis::run_on), [`interlocked`](Ipis::interlocked)).
    ///
    /// A CPU takes part while it [runs](Self::run). It handles messages in its [interrupt handler](Self::ipi); where
    /// nothing interrupts a thread, as on a host, at its next safe point: when it switches, when a critical section
    /// ends, a short lock with [`enable_preemption`](crate::enable_preemption), and when it is idle. So a thread of a
    /// host that computes without any of these keeps others waiting. A callback that panics ends the thread that it is
    /// called on, or the CPU where that is idle.
    pub fn ipis(&self) -> &Ipis {
        &self.ipis
    }

    /// What the machine's IPI handler calls: handles the calling CPU's messages, unless the code that was interrupted is in
    /// a critical section, which handles them when it ends. A handler that ends with
    /// [`interrupt_exit`](Self::interrupt_exit) need not call it.
    pub fn ipi(&self) {
        if self.cpu(self.this()).is_some_and(|cpu| cpu.sections.count() == 0) {
            self.ipis.drain();
        }
    }

    /// Whether the interrupt that ends now on the calling CPU should go through [`interrupt_exit`](Self::interrupt_exit). From
    /// the interrupt, when its handler is done.
    pub fn needs_interrupt_exit(&self) -> bool {
        self.cpu(self.this()).is_some_and(Cpu::needs_interrupt_exit)
    }

    /// What an interrupt of a machine does last: handles messages and ticks, and lets interrupt threads preempt the thread
    /// that was interrupted. It returns when that one is to go on, which may take a while. Does nothing if the thread is in
    /// a critical section, whose end then does it, or if the CPU was idle.
    ///
    /// On the stack of the interrupted thread (other interrupts need the CPU's own before this returns), with interrupts
    /// off, the interrupt controller told that the interrupt is over, and [`Platform::in_interrupt`] no more. Interrupts
    /// are let in by `let_in` and off again after `keep_out`, and when this returns.
    pub fn interrupt_exit(&self, let_in: fn(), keep_out: fn()) {
        if let Some(cpu) = self.cpu(self.this()) {
            cpu.interrupt_exit(let_in, keep_out);
        }
    }

    /// The handler of the scheduler clock on the calling CPU: some 100 times in a second at most, where the CPU is not
    /// idle. Whoever runs [should yield](Cx::should_yield) to its equals, and passive IPI messages are handled.
    pub fn tick(&self) {
        if let Some(cpu) = self.cpu(self.this()) {
            cpu.tick();
        }
    }

    /// The thread that runs on the calling CPU. From any context, panics and interrupts included.
    pub fn current(&self) -> Option<ThreadInfo> {
        self.cpu(self.this())?.current()?.info()
    }

    /// Shows every thread that has not ended, in no order. Takes no lock, so a thread may be shown as it was a moment ago,
    /// or one be left out that has just begun. From any context.
    pub fn threads(&self, each: &mut dyn FnMut(&ThreadInfo)) {
        self.cpus().flat_map(Cpu::slots).filter_map(Thread::info).for_each(|info| each(&info));
    }

    /// Shows the events that were kept, those of a CPU in the order in which it did them. Nothing without a
    /// [trace](crate::trace). From any context; events that are written meanwhile may be left out.
    pub fn trace(&self, each: &mut dyn FnMut(&Event)) {
        if let Some(trace) = &self.trace {
            trace.read(each);
        }
    }

    /// Writes down what the caller does.
    #[inline]
    pub(crate) fn note(&self, kind: impl FnOnce() -> Kind) {
        if cfg!(feature = "trace")
            && let Some(trace) = &self.trace
        {
            // A clock that panics may not unwind a thread that is on its way: the event is left out.
            let Some(at) = self.moment() else { return };
            trace.write(Event { at, cpu: self.this(), kind: kind() });
        }
    }

    #[cfg(feature = "std")]
    fn moment(&self) -> Option<Instant> {
        let now = core::panic::AssertUnwindSafe(|| self.platform.now());
        // Nor may the payload's drop.
        std::panic::catch_unwind(now).map_err(core::mem::forget).ok()
    }

    #[cfg(not(feature = "std"))]
    fn moment(&self) -> Option<Instant> {
        Some(self.platform.now())
    }

    /// What `cpu` has done. From any context.
    pub fn cpu_stats(&self, cpu: CpuId) -> Option<CpuStats> {
        self.cpu(cpu).map(Cpu::stats)
    }

    /// The machine that it runs on.
    pub fn platform(&self) -> &dyn Platform {
        &*self.platform
    }

    pub(crate) fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    #[inline]
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The CPU that the caller is on.
    #[inline]
    pub(crate) fn this(&self) -> CpuId {
        arch::stand_in(self.platform_address()).unwrap_or_else(|| self.platform.this())
    }

    /// What tells the platform from others.
    #[inline]
    pub(crate) fn platform_address(&self) -> *const () {
        Arc::as_ptr(&self.platform).cast()
    }

    #[inline]
    pub(crate) fn sleeping(&self) -> &Masks {
        &self.sleeping
    }

    pub(crate) fn cpu(&self, id: CpuId) -> Option<&'static Cpu> {
        self.cpus.get(id.index())?.load()
    }

    pub(crate) fn cpus(&self) -> impl Iterator<Item = &'static Cpu> {
        self.cpus.iter().filter_map(AtomicRef::load)
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("cpus", &self.cpus.len())
            .field("config", &self.config)
            .field("stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}
