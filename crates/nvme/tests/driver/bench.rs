//! A fake machine with a model in it, and short words for requests.

use std::sync::{Arc, Mutex};

use dfly_bio::{Bio, Buf, Image, PendingBio};
use dfly_hal::SpinWait;
use dfly_hal::fake::{self, FakeHal};
use dfly_nvme::model::{Abilities, Disk, Model};
use dfly_nvme::{AttachError, Config, Nvme};

pub(crate) type TestModel = Model<Arc<FakeHal>>;
pub(crate) type TestNvme = Nvme<Arc<FakeHal>, Arc<TestModel>>;

pub(crate) struct Bench {
    pub(crate) hal: Arc<FakeHal>,
    pub(crate) model: Arc<TestModel>,
    /// The vectors of the interrupts so far.
    pub(crate) raised: Arc<Mutex<Vec<u16>>>,
}

pub(crate) fn pattern(at: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((at + i) / 512 * 31 + (at + i)) as u8).collect()
}

pub(crate) fn disk(block_bytes: u32, bytes: usize) -> Disk {
    Disk::new(block_bytes, Image::from_bytes(&pattern(0, bytes)).unwrap())
}

impl Bench {
    pub(crate) fn new(disks: Vec<Disk>, abilities: Abilities) -> Self {
        Self::with_cpus(1, disks, abilities)
    }

    pub(crate) fn with_cpus(cpus: u32, disks: Vec<Disk>, abilities: Abilities) -> Self {
        let mut config = fake::Config::default();
        config.cpus = cpus;
        Self::with_hal(config, disks, abilities)
    }

    pub(crate) fn with_hal(config: fake::Config, disks: Vec<Disk>, abilities: Abilities) -> Self {
        let hal = Arc::new(FakeHal::with(config));
        let raised = Arc::new(Mutex::new(Vec::new()));
        let log = raised.clone();
        let model = Model::with(hal.clone(), disks, abilities)
            .interrupting(Box::new(move |vector| log.lock().unwrap().push(vector)));
        Self { hal, model: Arc::new(model), raised }
    }

    /// The vectors of the interrupts since the last call.
    pub(crate) fn interrupts(&self) -> Vec<u16> {
        std::mem::take(&mut self.raised.lock().unwrap())
    }

    pub(crate) fn small() -> Self {
        Self::new(vec![disk(512, 4 << 20)], Abilities::default())
    }

    pub(crate) fn try_attach(&self, config: Config) -> Result<TestNvme, AttachError> {
        let mut idle = || {
            self.hal.advance_to_next();
        };
        Nvme::attach(self.model.clone(), self.hal.clone(), config, &mut SpinWait::new(&mut idle))
    }

    pub(crate) fn attach(&self, config: Config) -> TestNvme {
        self.try_attach(config).unwrap()
    }

    /// No mistake was seen, and nothing is left.
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.hal.faults(), []);
        assert!(self.hal.leaks().is_empty(), "{:?}", self.hal.leaks());
        assert_eq!(self.model.counts().misuse, 0);
    }
}

pub(crate) fn read(at: u64, len: usize) -> Bio {
    let mut bio = Bio::new();
    bio.read(at, Buf::alloc(len, 4096).unwrap());
    bio
}

pub(crate) fn write(at: u64, data: &[u8]) -> Bio {
    let mut buf = Buf::alloc(data.len(), 4096).unwrap();
    buf.copy_from_slice(data);
    let mut bio = Bio::new();
    bio.write(at, buf);
    bio
}

pub(crate) fn wait(nvme: &TestNvme, pending: PendingBio) -> Bio {
    let mut poll = || {
        nvme.poll();
    };
    pending.wait(&mut SpinWait::new(&mut poll))
}

pub(crate) fn call(nvme: &TestNvme, nsid: u32, bio: Bio) -> Bio {
    wait(nvme, bio.start(&nvme.namespace(nsid).unwrap()))
}

pub(crate) fn bytes(bio: &Bio) -> Vec<u8> {
    bio.bytes().flatten().copied().collect()
}
