//! Controllers of disks: attached at boot, each with a thread that reaps, let go at shutdown.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use dfly_hal::sync::Lock;
use dfly_hal::sync::atomic::{AtomicBool, Ordering};
use dfly_hal::{Clock as _, CpuId, Cpus as _, Wait, block_on, sleep_until};
use dfly_lwkt::{Cx, Handle, Priority, SpawnError, Spec};

use crate::{Irq, Kernel};

/// How often a controller without interrupts is polled.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// What the kernel wants of a controller's driver.
pub(crate) trait Driver: Send + Sync + 'static {
    /// For the interrupt handler.
    fn interrupt(&self);
    /// Ends the reaper's wait.
    fn wake(&self);
    /// Blocks until there is a reason to poll.
    fn work(&self, w: &mut dyn Wait);
    /// Reaps.
    fn poll(&self);
    /// Why it has stopped, if it has.
    fn stopped(&self) -> Option<String>;
    /// Lets the controller go in order. Blocks.
    fn detach(&self, w: &mut dyn Wait) -> Result<(), String>;
    /// What it knows and counts, for people.
    fn variables(&self) -> Vec<(String, String)>;
}

/// How the kernel learns that there is something to reap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaping {
    /// Interrupts wake the reaper.
    Interrupts,
    /// It looks now and then.
    Polling,
}

/// A controller at work.
pub struct Controller {
    /// `nvme0`, `ahci0`. Its first disk has the same name; the others are `nvme0n2`, `ahci0p1` and so on.
    pub name: String,
    /// Where it is.
    pub location: String,
    /// Its interrupt.
    pub irq: Arc<Irq>,
    driver: Arc<dyn Driver>,
    ending: AtomicBool,
    reaper: Lock<Option<Handle>>,
}

impl Controller {
    /// What the driver knows and counts: names and values.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.driver.variables()
    }

    /// Connects the interrupt, and starts the thread that hands completions out: on another CPU than the shell's, if there
    /// is one.
    pub(crate) fn start(
        kernel: &'static Kernel,
        (name, location): (String, String),
        irq: Arc<Irq>,
        driver: Arc<dyn Driver>,
        reaping: Reaping,
    ) -> Result<Arc<Self>, SpawnError> {
        let wake = driver.clone();
        irq.connect(move || wake.interrupt());
        let ending = AtomicBool::new(false);
        let this = Arc::new(Self { name, location, irq, driver, ending, reaper: Lock::new(None) });
        let cpu = (kernel.controllers().len() + 1) % kernel.platform().count() as usize;
        let spec = Spec::new(&this.name).priority(Priority::INT_MED);
        let reaper = this.clone();
        let reap = move |cx: &mut Cx<'_>| reaper.reap(kernel, reaping, cx);
        *this.reaper.lock() = Some(kernel.scheduler().spawn(CpuId(cpu as u32), spec, reap)?);
        kernel.keep(this.clone());
        Ok(this)
    }

    fn reap(&self, kernel: &Kernel, reaping: Reaping, w: &mut dyn Wait) {
        // Acquire: pairs with the Release in `detach`.
        while !self.ending.load(Ordering::Acquire) {
            match reaping {
                Reaping::Polling => {
                    let soon = kernel.platform().now().saturating_add(POLL_INTERVAL);
                    let _ = block_on(w, sleep_until(kernel.platform(), soon), Some(soon));
                }
                Reaping::Interrupts => self.driver.work(w),
            }
            self.driver.poll();
            if let Some(why) = self.driver.stopped() {
                return kernel.log().say(format!("{}: stopped: {why}", self.name));
            }
        }
    }

    /// Ends the thread, and lets the controller go in order. Blocks.
    pub(crate) fn detach(&self, w: &mut dyn Wait) -> Result<(), String> {
        self.ending.store(true, Ordering::Release);
        self.driver.wake();
        let reaper = self.reaper.lock().take();
        if let Some(reaper) = reaper {
            // A reaper that panicked has said so.
            let _ = reaper.join(w);
        }
        self.driver.detach(w)
    }
}

/// What a device says of itself: padded with blanks, and perhaps no text at all.
pub(crate) fn text(bytes: &[u8]) -> String {
    let printable = |&b: &u8| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' };
    bytes.trim_ascii().iter().map(printable).collect()
}
