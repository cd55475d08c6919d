//! A machine that is a process: its CPUs are host threads.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::task::Waker;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use dfly_hal::host::{AttachError, HostClock, HostCpu, HostCpus, now};
use dfly_hal::{Clock, CpuId, Cpus, Instant};

use crate::platform::Platform;
use crate::sched::arch;
use crate::sched::error::ConfigError;
use crate::sched::scheduler::Scheduler;
use crate::spec::Config;

#[cfg(all(own_stacks, unix, not(miri)))]
pub use crate::sched::overflow::name_overflows;

/// Does nothing here, where an OS thread stands in for each thread: Rust says itself whose stack has overflowed.
///
/// # Errors
/// None.
#[cfg(not(all(own_stacks, unix, not(miri))))]
pub fn name_overflows() -> io::Result<()> {
    Ok(())
}

/// CPUs that are host threads, with the host's clock. A CPU halts by parking its thread.
#[derive(Debug)]
pub struct HostPlatform {
    cpus: HostCpus,
    /// None once the timers have ended.
    clock: RwLock<Option<HostClock>>,
}

impl HostPlatform {
    /// A machine of `cpus` CPUs, at least one; no thread is any of them yet.
    pub fn new(cpus: u32) -> Self {
        Self { cpus: HostCpus::new(cpus), clock: RwLock::new(Some(HostClock::new())) }
    }

    /// Makes the calling thread the CPU `id`, until what is returned is dropped.
    pub fn attach(&self, id: CpuId) -> Result<HostCpu, AttachError> {
        self.cpus.attach(id)
    }

    /// Ends the thread that the timers have, for a scheduler keeps its platform for ever. Timers that are left are
    /// forgotten, and later ones go off at once: call it when the scheduler's CPUs have ended, for before that a thread
    /// that waits for one of them would miss its deadline.
    fn end_timers(&self) {
        // Nothing panics under the lock but wakers.
        let clock = self.clock.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(clock);
    }
}

// SAFETY: all of it is said by `HostCpus`, or by the scheduler for a thread that a CPU waits for.
unsafe impl Cpus for HostPlatform {
    fn this(&self) -> CpuId {
        arch::stand_in(core::ptr::from_ref(self).cast()).unwrap_or_else(|| self.cpus.this())
    }

    fn count(&self) -> u32 {
        self.cpus.count()
    }

    fn raise_ipi(&self, to: CpuId) {
        self.cpus.raise_ipi(to);
    }
}

impl Clock for HostPlatform {
    fn now(&self) -> Instant {
        now()
    }

    fn wake_at(&self, at: Instant, waker: &Waker) {
        match &*self.clock.read().unwrap_or_else(PoisonError::into_inner) {
            Some(clock) => clock.wake_at(at, waker),
            None => waker.wake_by_ref(),
        }
    }
}

impl Platform for HostPlatform {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        // An IPI unparks, and an unpark that comes first is kept: so this is the closed window.
        if !ready() {
            thread::park();
        }
    }
}

/// Why the CPUs of a [`Machine`] could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host gives no thread.
    #[error("no thread for {0}: {1}")]
    Thread(CpuId, #[source] io::Error),
}

/// Host threads that run the CPUs of a scheduler. Dropping it stops the scheduler, and waits for the CPUs.
///
/// A CPU that threads are left on keeps its host thread for ever, see [`Scheduler::run`]; it is not waited for any longer.
///
/// ```
/// use dfly_hal::{CpuId, ThreadWait};
/// use dfly_lwkt::{Config, host::Machine};
/// let machine = Machine::start(2, Config::default())?;
/// let hello = machine.scheduler().spawn(CpuId(1), "hello".into(), |cx| {
///     assert_eq!(cx.cpu(), CpuId(1));
/// })?;
/// hello.join(&mut ThreadWait::new())?;
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Machine {
    scheduler: &'static Scheduler,
    /// With what says that the host thread stays for ever.
    cpus: Vec<(JoinHandle<()>, Receiver<()>)>,
    /// Whose timers end with the machine.
    host: Option<Arc<HostPlatform>>,
}

impl Machine {
    /// Starts `cpus` CPUs, at least one, with the host's clock.
    pub fn start(cpus: u32, config: Config) -> Result<Self, StartError> {
        let platform = Arc::new(HostPlatform::new(cpus));
        let attach = platform.clone();
        let mut machine = Self::start_with(platform.clone(), config, move |id| attach.attach(id))?;
        machine.host = Some(platform);
        Ok(machine)
    }

    /// Starts the CPUs of a platform of the caller's. Each host thread calls `attach` with the number of the CPU that it
    /// is to be, and keeps what that returns until the CPU ends; a thread that is refused ends at once.
    pub fn start_with<P, A, E>(
        platform: Arc<P>,
        config: Config,
        attach: impl Fn(CpuId) -> Result<A, E> + Clone + Send + 'static,
    ) -> Result<Self, StartError>
    where
        P: Platform + 'static,
    {
        let count = platform.count();
        let scheduler = Scheduler::new(platform, config)?;
        let mut machine = Self { scheduler, cpus: Vec::new(), host: None };
        for id in (0..count).map(CpuId) {
            let attach = attach.clone();
            let (say, stays) = channel();
            let cpu = thread::Builder::new().name(format!("{id}")).spawn(move || {
                let _attached = attach(id);
                // Refused only where it is no CPU, or the machine was stopped before it began.
                let _ = scheduler.run_or_stay(&|| {
                    let _nobody_listens = say.send(());
                });
            });
            machine.cpus.push((cpu.map_err(|error| StartError::Thread(id, error))?, stays));
        }
        Ok(machine)
    }

    /// What it runs.
    pub fn scheduler(&self) -> &'static Scheduler {
        self.scheduler
    }

    /// Waits until the scheduler is stopped, by whomever, and its CPUs have ended.
    ///
    /// # Panics
    /// On a CPU of the machine, which would wait for itself.
    pub fn wait(mut self) {
        assert!(!self.is_mine(), "a CPU of the machine waits for the machine's end");
        self.join();
    }

    /// Whether the caller is one of its threads or CPUs.
    fn is_mine(&self) -> bool {
        self.scheduler.this() != CpuId::NONE
    }

    fn join(&mut self) {
        for (cpu, stays) in self.cpus.drain(..) {
            // The other end is dropped where the thread ends.
            if stays.recv().is_err() {
                // A CPU panics only where its platform does, and that has been reported.
                let _ = cpu.join();
            }
        }
        if let Some(host) = self.host.take() {
            host.end_timers();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.scheduler.stop();
        // A thread of its own that drops it is among those that the stop leaves where they are.
        if !self.is_mine() {
            self.join();
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("scheduler", &self.scheduler).finish_non_exhaustive()
    }
}
