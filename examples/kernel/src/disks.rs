//! Disks by name. `devfs` will take this over.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_bio::{BlockDevice, BlockOpen, OpenError};
use dfly_hal::Wait;
use dfly_hal::sync::Lock;

/// A disk.
#[derive(Clone)]
pub struct Disk {
    /// `nvme0`.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// The disk itself.
    pub device: Arc<dyn BlockDevice>,
}

/// The disks of the machine. Thread context; never blocks.
#[derive(Default)]
pub struct Disks {
    /// By driver and unit, so that they sort as people count.
    disks: Lock<BTreeMap<(&'static str, u32), Disk>>,
}

impl Disks {
    /// Adds a disk of `driver` under its next unit number, and returns its name.
    pub fn add(&self, driver: &'static str, description: String, device: Arc<dyn BlockDevice>) -> String {
        let mut disks = self.disks.lock();
        let unit =
            disks.range((driver, 0)..=(driver, u32::MAX)).next_back().map_or(0, |(&(_, unit), _)| unit + 1);
        let name = format!("{driver}{unit}");
        disks.insert((driver, unit), Disk { name: name.clone(), description, device });
        name
    }

    /// All of them.
    pub fn list(&self) -> Box<[Disk]> {
        self.disks.lock().values().cloned().collect::<Vec<_>>().into()
    }
}

impl BlockOpen for Disks {
    fn open_block(&self, name: &[u8], _w: &mut dyn Wait) -> Result<Arc<dyn BlockDevice>, OpenError> {
        let disks = self.disks.lock();
        let found = disks.values().find(|disk| disk.name.as_bytes() == name);
        found.map(|disk| disk.device.clone()).ok_or(OpenError::NotFound)
    }
}
