//! A fake machine with a model in it, and short words for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Model};
use dfly_ahci::{Ahci, AttachError, Config};
use dfly_bio::{Bio, BlockDevice, Buf, Image, JobList, PendingBio};
use dfly_hal::SpinWait;
use dfly_hal::fake::{self, FakeHal};

pub(crate) type TestModel = Model<Arc<FakeHal>>;
pub(crate) type TestAhci = Ahci<Arc<FakeHal>, Arc<TestModel>>;

pub(crate) struct Bench {
    pub(crate) hal: Arc<FakeHal>,
    pub(crate) model: Arc<TestModel>,
    /// Interrupts so far.
    pub(crate) raised: Arc<AtomicU64>,
}

pub(crate) fn pattern(at: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((at + i) / 512 * 31 + (at + i)) as u8).collect()
}

pub(crate) fn image(bytes: usize) -> Image {
    Image::from_bytes(&pattern(0, bytes)).unwrap()
}

pub(crate) fn disk(block_bytes: u32, bytes: usize) -> Option<Drive> {
    Some(Drive::disk(block_bytes, image(bytes)))
}

impl Bench {
    pub(crate) fn new(drives: Vec<Option<Drive>>, abilities: Abilities) -> Self {
        Self::with_hal(fake::Config::default(), drives, abilities)
    }

    pub(crate) fn with_hal(config: fake::Config, drives: Vec<Option<Drive>>, abilities: Abilities) -> Self {
        let hal = Arc::new(FakeHal::with(config));
        let raised = Arc::new(AtomicU64::new(0));
        let log = raised.clone();
        let model = Model::with(hal.clone(), drives, abilities).interrupting(Box::new(move || {
            log.fetch_add(1, Ordering::Relaxed);
        }));
        Self { hal, model: Arc::new(model), raised }
    }

    pub(crate) fn small() -> Self {
        Self::new(vec![disk(512, 4 << 20)], Abilities::default())
    }

    /// Interrupts since the last call.
    pub(crate) fn interrupts(&self) -> u64 {
        self.raised.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn try_attach(&self, config: Config) -> Result<TestAhci, AttachError> {
        let mut idle = || {
            self.hal.advance_to_next();
        };
        Ahci::attach(self.model.clone(), self.hal.clone(), config, &mut SpinWait::new(&mut idle))
    }

    pub(crate) fn attach(&self, config: Config) -> TestAhci {
        self.try_attach(config).unwrap()
    }

    /// Looks at the adapter, each time a little later, until all are back.
    pub(crate) fn wait_all(&self, ahci: &TestAhci, pending: Vec<PendingBio>) -> Vec<Bio> {
        for _ in 0..400_000 {
            if pending.iter().all(PendingBio::is_done) {
                return pending.into_iter().map(|p| p.try_take().unwrap()).collect();
            }
            self.hal.advance(Duration::from_micros(500));
            ahci.poll();
        }
        panic!("not answered: {:?}, {:?}", ahci.state(), ahci.port(0));
    }

    pub(crate) fn wait(&self, ahci: &TestAhci, pending: PendingBio) -> Bio {
        self.wait_all(ahci, vec![pending]).remove(0)
    }

    pub(crate) fn call(&self, ahci: &TestAhci, port: u8, bio: Bio) -> Bio {
        self.wait(ahci, bio.start(&ahci.disk(port).unwrap()))
    }

    /// Lets time go by, and the driver work.
    pub(crate) fn pass(&self, ahci: &TestAhci, time: Duration) {
        for _ in 0..time.as_millis().max(1) {
            self.hal.advance(Duration::from_millis(1));
            ahci.poll();
        }
    }

    /// No mistake was seen, and nothing is left.
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.hal.faults(), []);
        assert!(self.hal.leaks().is_empty(), "{:?}", self.hal.leaks());
        assert_eq!(self.model.counts().misuse, 0);
    }
}

/// Submits all of these in one batch.
pub(crate) fn submit(device: &dyn BlockDevice, bios: impl IntoIterator<Item = Bio>) -> Vec<PendingBio> {
    let mut batch = JobList::new();
    let pending = bios.into_iter().map(|bio| {
        let (job, pending) = bio.waitable();
        batch.push(job);
        pending
    });
    let pending = pending.collect();
    device.submit(batch);
    pending
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

pub(crate) fn flush() -> Bio {
    let mut bio = Bio::new();
    bio.flush();
    bio
}

pub(crate) fn bytes(bio: &Bio) -> Vec<u8> {
    bio.bytes().flatten().copied().collect()
}
