//! A machine from its parts, and its CPUs at work.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use dfly_hal::CpuId;
use kernel::{BootError, Kernel, Machine, Session, Terminal, Verdict};

use crate::host::host;
use crate::{Adapter, Drive};

/// A machine that can be booted.
pub struct Vkernel {
    /// How many CPUs it has; none counts as one.
    pub cpus: u32,
    /// Its NVMe controllers, each with a disk: `nvme0`, `nvme1`, ...
    pub drives: Vec<Drive>,
    /// Its AHCI adapters: `ahci0`, `ahci1`, ...
    pub adapters: Vec<Adapter>,
    /// Its console.
    pub terminal: Arc<dyn Terminal>,
    /// What its shell does.
    pub session: Session,
}

/// Why a machine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The kernel did not boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The host gives no thread for a CPU.
    #[error("no thread for {0}: {1}")]
    Thread(CpuId, #[source] io::Error),
}

/// A machine at work. Dropping it lets it go on alone.
pub struct Running {
    /// Its kernel.
    pub kernel: &'static Kernel,
    cpus: Vec<JoinHandle<Verdict>>,
}

impl Vkernel {
    /// Boots: each CPU is a host thread from now on. Several machines may run in a process. What a kernel keeps for ever
    /// stays allocated when it has ended.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn boot(self) -> Result<Running, StartError> {
        let host = Arc::new(host(self.cpus));
        let functions = self.drives.into_iter().enumerate();
        let adapters = self.adapters.into_iter().enumerate();
        let kernel = Kernel::boot(Machine {
            name: "vkernel",
            platform: host.clone(),
            terminal: self.terminal,
            nvme: functions.map(|(unit, drive)| drive.into_function(unit)).collect(),
            ahci: adapters.map(|(unit, adapter)| adapter.into_function(unit)).collect(),
            session: self.session,
        })?;
        let mut running = Running { kernel, cpus: Vec::new() };
        for id in (0..self.cpus.max(1)).map(CpuId) {
            let host = host.clone();
            let cpu = thread::Builder::new().name(id.to_string()).spawn(move || {
                let _this = host.machine().attach(id);
                // Refused only if the thread is no CPU.
                kernel.run().unwrap_or(Verdict::Failure)
            });
            match cpu {
                Ok(cpu) => running.cpus.push(cpu),
                Err(error) => {
                    // Not joined: a CPU that threads are left on keeps its host thread.
                    kernel.scheduler().stop();
                    return Err(StartError::Thread(id, error));
                }
            }
        }
        Ok(running)
    }
}

impl Running {
    /// Waits until the machine has been shut down, and returns how its session ended.
    pub fn join(self) -> Verdict {
        let verdicts = self.cpus.into_iter().map(|cpu| cpu.join().unwrap_or(Verdict::Failure));
        verdicts
            .reduce(|one, other| if one == Verdict::Success { other } else { one })
            .unwrap_or(Verdict::Failure)
    }
}
