//! AHCI adapters: each port with a device that can be read has a disk.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_ahci::{Ahci, Interrupts, PortState, State};
use dfly_hal::regs::Window;
use dfly_hal::{Wait, block_on};

use crate::controller::{Driver, Reaping, text};
use crate::{AhciFunction, Controller, Disk, Kernel, Platform};

/// Attaches what the platform found, says how it went, and adds its disks.
pub(crate) fn attach(kernel: &'static Kernel, unit: usize, function: AhciFunction, w: &mut dyn Wait) {
    let AhciFunction { location, window, config, irq } = function;
    let name = format!("ahci{unit}");
    let driver = match Ahci::attach(window, kernel.platform().clone(), config, w) {
        Ok(driver) => Arc::new(driver),
        Err(error) => return kernel.log().say(format!("{name}: at {location}: {error}")),
    };
    let info = driver.info();
    kernel.log().say(format!(
        "{name}: at {location}: version {:x}.{:x}, {} ports of {} slots",
        info.version >> 16,
        info.version >> 8 & 0xff,
        info.ports.count_ones(),
        info.slots,
    ));
    let reaping = match config.interrupts {
        Interrupts::None => Reaping::Polling,
        _ => Reaping::Interrupts,
    };
    if let Err(error) = Controller::start(kernel, (name.clone(), location), irq, driver.clone(), reaping) {
        return kernel.log().say(format!("{name}: no thread for it: {error}"));
    }
    for port in driver.ports() {
        match driver.port(port).map(|port| port.state) {
            Some(PortState::Unusable(why)) => {
                kernel.log().say(format!("{name}: port {port} is not used: {why}"))
            }
            Some(PortState::Dead(why)) => {
                kernel.log().say(format!("{name}: port {port} was given up: {why}"))
            }
            _ => {}
        }
        let (Some(device), Some(info)) = (driver.disk(port), driver.disk_info(port)) else { continue };
        let disk = match port {
            0 => name.clone(),
            port => format!("{name}p{port}"),
        };
        let (model, serial) = (text(&info.model), text(&info.serial));
        let description = format!("{name} port {port}, {model} (serial {serial})");
        kernel.add_disk(Disk { name: disk, description, device });
    }
}

impl Driver for Ahci<Arc<dyn Platform>, Box<dyn Window>> {
    fn interrupt(&self) {
        Ahci::interrupt(self);
    }

    fn wake(&self) {
        Ahci::wake(self);
    }

    fn work(&self, w: &mut dyn Wait) {
        let _ = block_on(w, Ahci::work(self), None);
    }

    fn poll(&self) {
        Ahci::poll(self);
    }

    fn stopped(&self) -> Option<String> {
        match self.state() {
            State::Dead(why) => Some(why.to_string()),
            _ => None,
        }
    }

    fn detach(&self, w: &mut dyn Wait) -> Result<(), String> {
        Ahci::detach(self, w).map_err(|why| why.to_string())
    }

    fn variables(&self) -> Vec<(String, String)> {
        let (info, stats) = (self.info(), self.stats());
        let rows = [
            ("version", format!("{:x}.{:x}", info.version >> 16, info.version >> 8 & 0xff)),
            ("state", format!("{:?}", self.state())),
            ("slots", info.slots.to_string()),
            ("issued", stats.issued.to_string()),
            ("queued", stats.queued.to_string()),
            ("batches", stats.batches.to_string()),
            ("completed", stats.completed.to_string()),
            ("errors", stats.errors.to_string()),
            ("timeouts", stats.timeouts.to_string()),
            ("retries", stats.retries.to_string()),
            ("recoveries", stats.recoveries.to_string()),
            ("resets", stats.resets.to_string()),
        ];
        let mut all: Vec<_> = rows.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        for port in self.ports() {
            let Some(at) = self.port(port) else { continue };
            all.push((format!("port{port}.state"), format!("{:?}", at.state)));
            if let Some(disk) = at.disk {
                for (name, value) in
                    [("model", &disk.model[..]), ("serial", &disk.serial), ("firmware", &disk.firmware)]
                {
                    all.push((format!("port{port}.{name}"), text(value)));
                }
                all.push((format!("port{port}.queue_depth"), disk.queue_depth.to_string()));
            }
        }
        all
    }
}
