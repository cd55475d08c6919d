//! The kernel as a whole: booted once, run by every CPU, ended by a verdict.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_hal::sync::Lock;
use dfly_hal::{CpuId, Cpus as _, Wait};
use dfly_lwkt::{Config, RunError, Scheduler, SpawnError, Spec};
use dfly_vfs::{MountTable, mem::MemFs};

use crate::{
    AhciFunction, Controller, Disk, Disks, Log, Machine, NvmeFunction, Platform, Session, Terminal, ahci,
    nvme, shell,
};

/// The init thread and the shell mount file systems, which takes 22 KiB of stack.
pub(crate) const INIT_STACK_BYTES: usize = 128 << 10;

/// How the machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The shell was left, or every line of the script did what it was to do.
    Success,
    /// A line of the script failed.
    Failure,
}

/// Why a machine did not boot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// No scheduler.
    #[error("the scheduler: {0}")]
    Scheduler(#[from] dfly_lwkt::ConfigError),
    /// No thread.
    #[error("the init thread: {0}")]
    Init(#[from] SpawnError),
}

/// The kernel. One for each machine, and it stays for ever.
pub struct Kernel {
    name: &'static str,
    platform: Arc<dyn Platform>,
    terminal: Arc<dyn Terminal>,
    scheduler: &'static Scheduler,
    log: Log,
    disks: Disks,
    mounts: MountTable,
    controllers: Lock<Vec<Arc<Controller>>>,
    verdict: Lock<Verdict>,
}

impl Kernel {
    /// Boots `machine`: from now on its CPUs may [`run`](Self::run).
    pub fn boot(machine: Machine) -> Result<&'static Self, BootError> {
        let Machine { name, platform, terminal, nvme, ahci, session } = machine;
        let scheduler = Scheduler::new(platform.clone(), Config::default())?;
        let log = Log::new(platform.clone(), terminal.clone());
        let kernel: &'static Self = Box::leak(Box::new(Self {
            name,
            platform,
            terminal,
            scheduler,
            log,
            disks: Disks::default(),
            mounts: MountTable::new(Arc::new(MemFs::new()), b"mem"),
            controllers: Lock::default(),
            // What a machine says that ends without having been asked to.
            verdict: Lock::new(Verdict::Failure),
        }));
        let spec = Spec::new("init").stack_bytes(INIT_STACK_BYTES);
        // It ends with the machine: nobody waits for it.
        drop(scheduler.spawn(CpuId(0), spec, move |cx| kernel.init(nvme, ahci, session, cx))?);
        Ok(kernel)
    }

    /// Runs threads on the calling CPU until the machine is shut down.
    ///
    /// # Errors
    /// The caller is no CPU of the machine, or runs threads already.
    pub fn run(&self) -> Result<Verdict, RunError> {
        match self.scheduler.run() {
            // A CPU may come when all is over.
            Ok(()) | Err(RunError::Stopped) => Ok(*self.verdict.lock()),
            Err(error) => Err(error),
        }
    }

    fn init(
        &'static self,
        nvme: Vec<NvmeFunction>,
        ahci: Vec<AhciFunction>,
        session: Session,
        w: &mut dyn Wait,
    ) {
        self.log.say(format!(
            "dfly {} on {}, {} CPUs",
            env!("CARGO_PKG_VERSION"),
            self.name,
            self.platform.count()
        ));
        for (unit, function) in nvme.into_iter().enumerate() {
            nvme::attach(self, unit, function, w);
        }
        for (unit, function) in ahci.into_iter().enumerate() {
            ahci::attach(self, unit, function, w);
        }
        let verdict = shell::run(self, session, w);
        self.shutdown(verdict, w);
    }

    /// Lets the controllers go, and ends the machine. Every CPU leaves [`run`](Self::run).
    fn shutdown(&self, verdict: Verdict, w: &mut dyn Wait) {
        let controllers = core::mem::take(&mut *self.controllers.lock());
        for controller in controllers {
            if let Err(why) = controller.detach(w) {
                self.log.say(format!("{}: not shut down: {why}", controller.name));
            }
        }
        *self.verdict.lock() = verdict;
        self.log.say("the machine is down");
        self.scheduler.stop();
    }

    /// Adds a disk, and says so.
    pub(crate) fn add_disk(&self, disk: Disk) {
        let limits = disk.device.limits();
        let (mib, block) = (limits.bytes() >> 20, limits.block_bytes);
        self.log.say(format!("{}: {}: {mib} MiB in blocks of {block} bytes", disk.name, disk.description));
        self.disks.add(disk);
    }

    pub(crate) fn keep(&self, controller: Arc<Controller>) {
        self.controllers.lock().push(controller);
    }

    /// What it runs on: `vkernel`, `pc64`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The machine.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// The console.
    pub fn terminal(&self) -> &Arc<dyn Terminal> {
        &self.terminal
    }

    /// The threads.
    pub fn scheduler(&self) -> &'static Scheduler {
        self.scheduler
    }

    /// The messages.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The disks.
    pub fn disks(&self) -> &Disks {
        &self.disks
    }

    /// The tree of names. Its root is in memory.
    pub fn mounts(&self) -> &MountTable {
        &self.mounts
    }

    /// The controllers at work.
    pub fn controllers(&self) -> Vec<Arc<Controller>> {
        self.controllers.lock().clone()
    }
}
