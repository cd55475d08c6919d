//! Disks by name. `devfs` will take this over.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_bio::{BlockDevice, BlockOpen, OpenError};
use dfly_hal::Wait;
use dfly_hal::sync::Lock;

/// A disk.
#[derive(Clone)]
pub struct Disk {
    /// `nvme0`: after the controller, so that a controller that fails does not give its name to another's disk.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// The disk itself.
    pub device: Arc<dyn BlockDevice>,
}

/// The disks of the machine, in the order in which they were found. Thread context; never blocks.
#[derive(Default)]
pub struct Disks {
    disks: Lock<Vec<Disk>>,
}

impl Disks {
    /// Adds a disk; its name is its alone, which who adds it sees to.
    pub(crate) fn add(&self, disk: Disk) {
        self.disks.lock().push(disk);
    }

    /// All of them.
    pub fn list(&self) -> Vec<Disk> {
        self.disks.lock().clone()
    }
}

impl BlockOpen for Disks {
    fn open_block(&self, name: &[u8], _w: &mut dyn Wait) -> Result<Arc<dyn BlockDevice>, OpenError> {
        let disks = self.disks.lock();
        let found = disks.iter().find(|disk| disk.name.as_bytes() == name);
        found.map(|disk| disk.device.clone()).ok_or(OpenError::NotFound)
    }
}
