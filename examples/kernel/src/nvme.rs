//! NVMe controllers: each namespace is a disk.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_hal::regs::Window;
use dfly_hal::{Wait, block_on};
use dfly_nvme::{Interrupts, Nvme, State};

use crate::controller::{Driver, Reaping, text};
use crate::{Controller, Disk, Kernel, NvmeFunction, Platform};

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
    let reaping = match config.interrupts {
        Interrupts::None => Reaping::Polling,
        _ => Reaping::Interrupts,
    };
    if let Err(error) = Controller::start(kernel, (name.clone(), location), irq, driver.clone(), reaping) {
        return kernel.log().say(format!("{name}: no thread for it: {error}"));
    }
    for namespace in driver.namespaces() {
        let Some(device) = driver.namespace(namespace.nsid) else { continue };
        let disk = match namespace.nsid {
            1 => name.clone(),
            nsid => format!("{name}n{nsid}"),
        };
        let description = format!("{name} namespace {}", namespace.nsid);
        kernel.add_disk(Disk { name: disk, description, device });
    }
}

impl Driver for Nvme<Arc<dyn Platform>, Box<dyn Window>> {
    fn interrupt(&self) {
        Nvme::interrupt(self);
    }

    fn wake(&self) {
        Nvme::interrupt(self);
    }

    fn work(&self, w: &mut dyn Wait) {
        let _ = block_on(w, Nvme::work(self), None);
    }

    fn poll(&self) {
        Nvme::poll(self);
    }

    fn stopped(&self) -> Option<String> {
        match self.state() {
            State::Dead(why) => Some(why.to_string()),
            _ => None,
        }
    }

    fn detach(&self, w: &mut dyn Wait) -> Result<(), String> {
        Nvme::detach(self, w).map_err(|why| why.to_string())
    }

    fn variables(&self) -> Vec<(String, String)> {
        let (info, stats) = (self.info(), self.stats());
        let rows = [
            ("model", text(&info.model)),
            ("serial", text(&info.serial)),
            ("firmware", text(&info.firmware)),
            ("version", format!("{}.{}", info.version >> 16, info.version >> 8 & 0xff)),
            ("state", format!("{:?}", self.state())),
            ("queues", info.queues.to_string()),
            ("queue_depth", info.queue_depth.to_string()),
            ("max_transfer_bytes", info.max_transfer_bytes.to_string()),
            ("submitted", stats.submitted.to_string()),
            ("completed", stats.completed.to_string()),
            ("errors", stats.errors.to_string()),
            ("doorbells", stats.doorbells.to_string()),
        ];
        rows.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }
}
