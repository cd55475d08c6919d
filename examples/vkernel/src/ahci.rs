//! AHCI adapters: models, each with one disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dfly_ahci::model::{Abilities, Counts, Drive, Fault, FileMedium, HostMemory, Model};
use dfly_ahci::{Config, Interrupts};
use dfly_bio::Access;
use kernel::{AhciFunction, Irq};

use crate::host::device_memory;

/// Bytes of a block.
const BLOCK_BYTES: u32 = 512;

/// An AHCI adapter with disks, to be built into a machine.
pub struct Adapter {
    model: Arc<Model<HostMemory>>,
    irq: Arc<Irq>,
    /// How the kernel is to drive it.
    pub config: Config,
}

/// The back side of an adapter, for as long as anybody cares.
#[derive(Clone)]
pub struct AdapterBack(Arc<Model<HostMemory>>);

impl Adapter {
    /// The file at `path` as the only disk, for reading only: nothing ever writes to it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let drive = Drive::disk(BLOCK_BYTES, FileMedium::open(path, Access::ReadOnly)?);
        Ok(Self::with(vec![Some(drive)], Abilities::default()))
    }

    /// Any devices, at ports 0 and up, behind an adapter that can do this.
    pub fn with(drives: Vec<Option<Drive>>, abilities: Abilities) -> Self {
        let irq = Arc::new(Irq::new());
        let raised = irq.clone();
        let model = Model::with(device_memory(), drives, abilities);
        let model = model.interrupting(Box::new(move || raised.raise()));
        let config = Config { interrupts: Interrupts::One, ..Config::default() };
        Self { model: Arc::new(model), irq, config }
    }

    /// Where to make things go wrong, before the machine boots and while it runs.
    pub fn back_side(&self) -> AdapterBack {
        AdapterBack(self.model.clone())
    }

    pub(crate) fn into_function(self, unit: usize) -> AhciFunction {
        AhciFunction {
            location: format!("model{unit}"),
            window: Box::new(self.model),
            config: self.config,
            irq: self.irq,
        }
    }
}

// Not the model itself: that is a register window, and who writes to it names memory.
impl AdapterBack {
    /// Something goes wrong from now on, or with a command to come.
    pub fn inject(&self, fault: Fault) {
        self.0.inject(fault);
    }

    /// Pulls the device of a port out.
    pub fn unplug(&self, port: u8) -> Option<Drive> {
        self.0.unplug(port)
    }

    /// Plugs a device in.
    pub fn plug(&self, port: u8, drive: Drive) {
        self.0.plug(port, drive);
    }

    /// What the adapter counted so far.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}
