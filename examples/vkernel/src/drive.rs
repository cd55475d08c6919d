//! NVMe controllers: models, each with one disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dfly_bio::{Access, Failure};
use dfly_hammer_image::Volume;
use dfly_nvme::model::{Abilities, Counts, Disk, Fault, FileMedium, HostMemory, Medium, Model};
use dfly_nvme::{Config, Interrupts};
use kernel::{Irq, NvmeFunction};

use crate::host::device_memory;

/// Bytes of a block, unless something else is said.
const BLOCK_BYTES: u32 = 512;

/// An NVMe controller with a disk, to be built into a machine.
pub struct Drive {
    model: Arc<Model<HostMemory>>,
    irq: Arc<Irq>,
    /// How the kernel is to drive it.
    pub config: Config,
}

/// The back side of a controller, for as long as anybody cares.
#[derive(Clone)]
pub struct BackSide(Arc<Model<HostMemory>>);

impl Drive {
    /// The file at `path`, for reading only: nothing ever writes to it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(Disk::new(BLOCK_BYTES, FileMedium::open(path, Access::ReadOnly)?)))
    }

    /// A volume in memory, for reading only.
    pub fn volume(volume: Volume) -> Self {
        Self::new(Disk::new(BLOCK_BYTES, ReadOnly(volume)))
    }

    /// Any disk.
    pub fn new(disk: Disk) -> Self {
        Self::with(disk, Abilities::default())
    }

    /// Any disk, behind a controller that can do this.
    pub fn with(disk: Disk, abilities: Abilities) -> Self {
        let irq = Arc::new(Irq::new());
        let raised = irq.clone();
        let model = Model::with(device_memory(), vec![disk], abilities);
        let model = model.interrupting(Box::new(move |_vector| raised.raise()));
        let interrupts = Interrupts::Message { vectors: abilities.vectors };
        let config = Config { interrupts, ..Config::default() };
        Self { model: Arc::new(model), irq, config }
    }

    /// Where to make things go wrong, before the machine boots and while it runs.
    pub fn back_side(&self) -> BackSide {
        BackSide(self.model.clone())
    }

    pub(crate) fn into_function(self, unit: usize) -> NvmeFunction {
        NvmeFunction {
            location: format!("model{unit}"),
            window: Box::new(self.model),
            config: self.config,
            irq: self.irq,
        }
    }
}

// Not the model itself: that is a register window, and who writes to it names memory.
impl BackSide {
    /// Something goes wrong from now on, or with a command to come.
    pub fn inject(&self, fault: Fault) {
        self.0.inject(fault);
    }

    /// What the controller counted so far.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

/// A volume in memory as a medium that cannot be written.
pub struct ReadOnly(pub Volume);

impl Medium for ReadOnly {
    fn size_bytes(&self) -> u64 {
        self.0.size()
    }
    fn access(&self) -> Access {
        Access::ReadOnly
    }
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Failure> {
        self.0.read_at(at, to).map_err(|_| Failure::OutOfRange)
    }
    fn write(&mut self, _at: u64, _from: &[u8]) -> Result<(), Failure> {
        Err(Failure::WriteProtected)
    }
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
