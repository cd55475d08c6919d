//! NVMe controllers: attached at boot, each with a thread that reaps, let go at shutdown.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use dfly_hal::regs::Window;
use dfly_hal::sync::Lock;
use dfly_hal::sync::atomic::{AtomicBool, Ordering};
use dfly_hal::{Clock as _, CpuId, Cpus as _, Wait, block_on, sleep_until};
use dfly_lwkt::{Cx, Handle, Priority, SpawnError, Spec};
use dfly_nvme::{Interrupts, Nvme, State, Stopped};

use crate::{Disk, Irq, Kernel, NvmeFunction, Platform};

/// How often a controller without interrupts is polled.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

type Driver = Nvme<Arc<dyn Platform>, Box<dyn Window>>;

/// An NVMe controller at work.
pub struct Controller {
    /// `nvme0`. Its first namespace has the same name as a disk; the others are `nvme0n2` and so on.
    pub name: String,
    /// Where it is.
    pub location: String,
    /// Its interrupt.
    pub irq: Arc<Irq>,
    driver: Arc<Driver>,
    ending: AtomicBool,
    reaper: Lock<Option<Handle>>,
}

impl Controller {
    /// What the driver knows and counts.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Attaches what the platform found, says how it went, and adds its disks.
    pub(crate) fn attach(kernel: &'static Kernel, unit: usize, function: NvmeFunction, w: &mut dyn Wait) {
        let NvmeFunction { location, window, config, irq } = function;
        let name = format!("nvme{unit}");
        let driver = match Nvme::attach(window, kernel.platform().clone(), config, w) {
            Ok(driver) => Arc::new(driver),
            Err(error) => return kernel.log().say(format!("{name}: at {location}: {error}")),
        };
        let info = driver.info();
        kernel.log().say(format!(
            "{name}: at {location}: {} (serial {}, firmware {}), {} queues of {}",
            text(&info.model),
            text(&info.serial),
            text(&info.firmware),
            info.queues,
            info.queue_depth,
        ));
        for skipped in driver.skipped() {
            kernel.log().say(format!("{name}: {skipped}"));
        }
        let wake = driver.clone();
        irq.connect(move || wake.interrupt());
        let controller = Arc::new(Self {
            name,
            location,
            irq,
            driver,
            ending: AtomicBool::new(false),
            reaper: Lock::new(None),
        });
        if let Err(error) = controller.start_reaper(kernel, unit, config.interrupts) {
            return kernel.log().say(format!("{}: no thread for it: {error}", controller.name));
        }
        for namespace in controller.driver.namespaces() {
            let Some(device) = controller.driver.namespace(namespace.nsid) else { continue };
            let (bytes, block) = (device.limits().bytes(), device.limits().block_bytes);
            let name = match namespace.nsid {
                1 => controller.name.clone(),
                nsid => format!("{}n{nsid}", controller.name),
            };
            let description = format!("{} namespace {}", controller.name, namespace.nsid);
            kernel
                .log()
                .say(format!("{name}: {description}: {} MiB in blocks of {block} bytes", bytes >> 20));
            kernel.disks().add(Disk { name, description, device });
        }
        kernel.keep(controller);
    }

    /// The thread that hands completions out: on another CPU than the shell's, if there is one.
    fn start_reaper(
        self: &Arc<Self>,
        kernel: &'static Kernel,
        unit: usize,
        interrupts: Interrupts,
    ) -> Result<(), SpawnError> {
        let cpu = CpuId(((unit + 1) % kernel.platform().count() as usize) as u32);
        let spec = Spec::new(&self.name).priority(Priority::INT_MED);
        let this = self.clone();
        let reap = move |cx: &mut Cx<'_>| this.reap(kernel, interrupts, cx);
        *self.reaper.lock() = Some(kernel.scheduler().spawn(cpu, spec, reap)?);
        Ok(())
    }

    fn reap(&self, kernel: &Kernel, interrupts: Interrupts, w: &mut dyn Wait) {
        // Acquire: pairs with the Release in `detach`.
        while !self.ending.load(Ordering::Acquire) {
            if interrupts == Interrupts::None {
                let soon = kernel.platform().now().saturating_add(POLL_INTERVAL);
                let _ = block_on(w, sleep_until(kernel.platform(), soon), Some(soon));
            } else {
                let _ = block_on(w, self.driver.work(), None);
            }
            self.driver.poll();
            if let State::Dead(why) = self.driver.state() {
                return kernel.log().say(format!("{}: stopped: {why}", self.name));
            }
        }
    }

    /// Ends the thread, and lets the controller go in order. Blocks.
    pub(crate) fn detach(&self, w: &mut dyn Wait) -> Result<(), Stopped> {
        self.ending.store(true, Ordering::Release);
        self.driver.interrupt();
        let reaper = self.reaper.lock().take();
        if let Some(reaper) = reaper {
            // A reaper that panicked has said so.
            let _ = reaper.join(w);
        }
        self.driver.detach(w)
    }
}

/// What a device says of itself: padded with blanks, and perhaps no text at all.
fn text(bytes: &[u8]) -> String {
    let printable = |&b: &u8| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' };
    bytes.trim_ascii().iter().map(printable).collect()
}
