//! Where devices see the process's own memory: nothing is copied, and nothing is allocated for a request, from the page of
//! a file system's cache to the PRP entry.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lend;
mod machine;

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use dfly_alloc_count::allocator_calls;
use dfly_bio::{Bio, BlockDevice, Buf, Image, JobList, PendingBio};
use dfly_hal::dma::DevAddr;
use dfly_hal::{SpinWait, ThreadWait};
use dfly_hammer::{Hammer, MountOptions};
use dfly_hammer_image::{Builder, Content};
use dfly_nvme::model::{DeviceMemory, Disk, HostMemory, Model};
use dfly_nvme::spec::{Command, Opcode};
use dfly_nvme::{Config, Interrupts, Nvme};
use dfly_vfs::{Call, FileSystem, Name};
use machine::host;
use zerocopy::FromBytes;

/// What the controller reads: commands, and entries of PRP lists.
struct Overheard {
    memory: HostMemory,
    heard: Mutex<Vec<Heard>>,
}

enum Heard {
    Command(Command),
    /// Of the list of the command before it.
    Entry(u64),
}

impl DeviceMemory for Overheard {
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool {
        let read = self.memory.read(at, to);
        if let Ok(command) = Command::read_from_bytes(to) {
            self.heard.lock().unwrap().push(Heard::Command(command));
        } else if let Ok(entry) = <[u8; 8]>::try_from(&*to) {
            self.heard.lock().unwrap().push(Heard::Entry(u64::from_le_bytes(entry)));
        }
        read
    }
    fn write(&self, at: DevAddr, from: &[u8]) -> bool {
        self.memory.write(at, from)
    }
}

impl Overheard {
    fn new() -> Arc<Self> {
        // SAFETY: `Nvme` drives the model, with memory of `HostDma`.
        let memory = unsafe { HostMemory::new() };
        // Room for all, so that to listen allocates nothing.
        Arc::new(Self { memory, heard: Mutex::new(Vec::with_capacity(1 << 15)) })
    }

    /// The pages that the latest read of all those that begin at `start` was told to fill.
    fn pages_of_read(&self, start: u64) -> Vec<u64> {
        let heard = self.heard.lock().unwrap();
        let is_it = |heard: &Heard| matches!(heard, Heard::Command(c) if c.opcode == Opcode::READ && c.prp1.get() == start);
        let Some(index) = heard.iter().rposition(is_it) else { return Vec::new() };
        let entries = heard.iter().skip(index + 1).map_while(|heard| match heard {
            Heard::Entry(entry) => Some(*entry),
            Heard::Command(_) => None,
        });
        [start].into_iter().chain(entries).collect()
    }
}

#[test]
fn the_controller_gets_the_buffers_own_address_and_a_request_allocates_nothing() {
    let hal = host();
    let image = Image::from_bytes(&[7; 1 << 20]).unwrap();
    // SAFETY: `Nvme` drives it, with memory of `HostDma`.
    let memory = unsafe { HostMemory::new() };
    let model = Arc::new(Model::new(memory, vec![Disk::new(512, image)]));
    let config = Config { queue_depth: 4, ..Config::default() };
    let nvme = Nvme::attach(model.clone(), hal, config, &mut ThreadWait::new()).unwrap();
    let device = nvme.namespace(1).unwrap();
    let mut poll = || {
        nvme.poll();
    };
    let w = &mut SpinWait::new(&mut poll);
    let buf = Buf::alloc(64 << 10, 4096).unwrap();
    let address = buf.as_ptr().addr();
    let mut bio = Bio::new();
    bio.read(4096, buf);
    let mut bio = bio.call(&device, w);
    let mut last = None;
    let calls = allocator_calls(|| {
        for round in 0..if cfg!(miri) { 2 } else { 200 } {
            let buf = bio.take_buf().unwrap();
            assert_eq!(buf.as_ptr().addr(), address);
            if round % 2 == 0 {
                bio.read(8192, buf);
            } else {
                bio.write(8192, buf);
            }
            bio = bio.call(&device, w);
            assert_eq!(bio.status(), Ok(()));
        }
        last = Some(bio);
    });
    assert_eq!(calls, 0);
    let bio = last.unwrap();
    assert_eq!(model.counts().last_prp1, address as u64);
    assert_eq!(bio.bytes().next().unwrap(), [7; 64 << 10]);
}

#[test]
#[cfg_attr(miri, ignore = "megabytes, word by word, take minutes")]
fn the_pages_of_a_file_systems_cache_are_what_commands_point_to_and_warm_paths_allocate_nothing() {
    const FILE_BYTES: u64 = 4 << 20;
    let mut fs = Builder::default();
    let root = fs.root();
    fs.file(root, "big", Content::pattern(1, FILE_BYTES));
    let built = fs.finish().unwrap();
    let mut image = Image::new(built.volumes[0].size());
    for (at, chunk) in built.volumes[0].chunks() {
        image.write(at, chunk).unwrap();
    }
    let memory = Overheard::new();
    let model = Arc::new(Model::new(memory.clone(), vec![Disk::new(512, image)]));
    let nvme = Nvme::attach(model.clone(), host(), Config::default(), &mut ThreadWait::new()).unwrap();
    let device = nvme.namespace(1).unwrap();
    let mut poll = || {
        nvme.poll();
    };
    let w = &mut SpinWait::new(&mut poll);
    let mut options = MountOptions::default();
    // Less than the file: each read of it goes to the device.
    options.cache_bytes = 1 << 20;
    let fs = Hammer::mount(&[device], options, w).unwrap();
    let big = fs.nresolve(&mut Call::new(w), fs.root(), Name::new(b"big").unwrap()).unwrap().node;

    let mut handed_out = Vec::new();
    for at in (0..FILE_BYTES).step_by(16384) {
        let read = fs.read(&mut Call::new(w), big, at, 16384, &mut |bytes| {
            let (start, len) = (bytes.as_ptr().addr() as u64, bytes.len());
            assert_eq!((start % 4096, len), (0, 16384), "a page of the cache");
            // What the latest command for this memory said: the cache uses it again and again.
            let pages: Vec<_> = (0..4).map(|i| start + i * 4096).collect();
            assert_eq!(memory.pages_of_read(start), pages, "at {at}");
            handed_out.push(start);
            ControlFlow::Continue(())
        });
        assert_eq!(read.unwrap(), 16384);
    }
    assert_eq!(handed_out.len(), (FILE_BYTES / 16384) as usize);

    // And the whole way, from the file system to the ring and back, asks the allocator for nothing.
    let before = (nvme.stats(), fs.cache_stats());
    memory.heard.lock().unwrap().clear();
    let mut bytes = 0;
    let calls = allocator_calls(|| {
        let mut sink = |run: &[u8]| {
            bytes += run.len() as u64;
            ControlFlow::Continue(())
        };
        fs.read(&mut Call::new(w), big, 0, FILE_BYTES, &mut sink).unwrap();
    });
    let after = (nvme.stats(), fs.cache_stats());
    assert_eq!((calls, bytes), (0, FILE_BYTES));
    let commands = after.0.submitted - before.0.submitted;
    assert_eq!(commands, after.1.misses - before.1.misses, "a command for each page that was missing");
    // The cache holds 64 of the file's 256 pages, so at least 192 are missing; which ones those are depends on a hash with
    // a random seed.
    assert!(commands >= FILE_BYTES / 16384 * 3 / 4, "{commands}");
    let doorbells = after.0.doorbells - before.0.doorbells;
    assert!(doorbells * 8 <= commands, "{doorbells} doorbells for {commands} commands: one for a batch");
}

#[test]
#[cfg_attr(miri, ignore = "megabytes, word by word, take minutes")]
fn full_queues_parking_and_splitting_allocate_nothing() {
    let memory = Overheard::new();
    let model = Arc::new(Model::new(memory, vec![Disk::new(512, Image::new(4 << 20))]));
    let config = Config { queue_depth: 8, ..Config::default() };
    let nvme = Nvme::attach(model, host(), config, &mut ThreadWait::new()).unwrap();
    let device = nvme.namespace(1).unwrap();
    // Some fit, some are split; together they fill the queue many times.
    let lens = (0..64).map(|i| if i % 8 == 0 { 600 << 10 } else { 4096 });
    let mut bios: Vec<Bio> = lens
        .map(|len| {
            let mut bio = Bio::new();
            bio.read(0, Buf::alloc(len, 4096).unwrap());
            bio
        })
        .collect();
    let mut pending: Vec<PendingBio> = Vec::with_capacity(64);
    let mut round = || {
        let mut batch = JobList::new();
        for mut bio in bios.drain(..) {
            let buf = bio.take_buf().unwrap();
            bio.read(4096, buf);
            let (job, p) = bio.waitable();
            batch.push(job);
            pending.push(p);
        }
        device.submit(batch);
        while nvme.poll() > 0 {}
        for p in pending.drain(..) {
            let bio = p.try_take().unwrap();
            assert_eq!(bio.status(), Ok(()));
            bios.push(bio);
        }
    };
    round();
    assert_eq!(allocator_calls(|| (0..5).for_each(|_| round())), 0);
}

/// A waker as that of a kernel's thread: a number, not a count.
fn uncounted() -> Waker {
    const TABLE: RawWakerVTable = RawWakerVTable::new(|it| RawWaker::new(it, &TABLE), |_| (), |_| (), |_| ());
    // SAFETY: the functions do nothing with the pointer.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) }
}

#[test]
fn a_handler_and_its_reaper_allocate_and_free_nothing() {
    let memory = Overheard::new();
    let model = Arc::new(Model::new(memory, vec![Disk::new(512, Image::new(1 << 20))]));
    let config = Config { interrupts: Interrupts::Pin, queue_depth: 2, ..Config::default() };
    let nvme = Nvme::attach(model, host(), config, &mut ThreadWait::new()).unwrap();
    let waker = uncounted();
    let cx = &mut Context::from_waker(&waker);
    while pin!(nvme.work()).poll(cx).is_ready() {}
    let calls = allocator_calls(|| {
        for _ in 0..if cfg!(miri) { 2 } else { 100 } {
            nvme.interrupt();
            assert!(pin!(nvme.work()).poll(cx).is_ready());
            nvme.poll();
            assert!(pin!(nvme.work()).poll(cx).is_pending());
        }
    });
    assert_eq!(calls, 0);
}
