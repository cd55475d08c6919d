//! The driver over the model, on the HAL's fake machine: which bounces, poisons, scatters and counts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dfly_bio::{Bio, BlockDevice, Buf, BufVec, Failure, Image, JobList, PendingBio};
use dfly_hal::fake::FakeHal;
use dfly_hal::{Clock, SpinWait, ThreadWait, block_on};
use dfly_nvme::model::{Abilities, Disk, Fault, Mistake, Model};
use dfly_nvme::{AttachError, Config, Interrupts, Nvme, State, Stopped};

type TestModel = Model<Arc<FakeHal>>;
type TestNvme = Nvme<Arc<FakeHal>, Arc<TestModel>>;

struct Bench {
    hal: Arc<FakeHal>,
    model: Arc<TestModel>,
}

fn pattern(at: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((at + i) / 512 * 31 + (at + i)) as u8).collect()
}

fn disk(block_bytes: u32, bytes: usize) -> Disk {
    Disk::new(block_bytes, Image::from_bytes(&pattern(0, bytes)).unwrap())
}

impl Bench {
    fn new(disks: Vec<Disk>, abilities: Abilities) -> Self {
        let hal = Arc::new(FakeHal::new());
        let model = Arc::new(Model::with(hal.clone(), disks, abilities));
        Self { hal, model }
    }

    fn small() -> Self {
        Self::new(vec![disk(512, 4 << 20)], Abilities::default())
    }

    fn try_attach(&self, config: Config) -> Result<TestNvme, AttachError> {
        let mut idle = || {
            self.hal.advance_to_next();
        };
        Nvme::attach(self.model.clone(), self.hal.clone(), config, &mut SpinWait::new(&mut idle))
    }

    fn attach(&self, config: Config) -> TestNvme {
        self.try_attach(config).unwrap()
    }

    /// No mistake was seen, and nothing is left.
    fn is_clean(&self) {
        assert_eq!(self.hal.faults(), []);
        assert!(self.hal.leaks().is_empty(), "{:?}", self.hal.leaks());
        assert_eq!(self.model.counts().misuse, 0);
    }
}

fn read(at: u64, len: usize) -> Bio {
    let mut bio = Bio::new();
    bio.read(at, Buf::alloc(len, 4096).unwrap());
    bio
}

fn write(at: u64, data: &[u8]) -> Bio {
    let mut buf = Buf::alloc(data.len(), 4096).unwrap();
    buf.copy_from_slice(data);
    let mut bio = Bio::new();
    bio.write(at, buf);
    bio
}

fn wait(nvme: &TestNvme, pending: PendingBio) -> Bio {
    let mut poll = || {
        nvme.poll();
    };
    pending.wait(&mut SpinWait::new(&mut poll))
}

fn call(nvme: &TestNvme, nsid: u32, bio: Bio) -> Bio {
    wait(nvme, bio.start(&nvme.namespace(nsid).unwrap()))
}

fn bytes(bio: &Bio) -> Vec<u8> {
    bio.bytes().flatten().copied().collect()
}

#[test]
fn identify_finds_both_block_sizes_and_the_limits() {
    let bench = Bench::new(
        vec![disk(512, 1 << 20), disk(4096, 1 << 20)],
        Abilities { mdts: 3, ..Default::default() },
    );
    let nvme = bench.attach(Config::default());
    assert_eq!(nvme.info().max_transfer_bytes, 32 << 10);
    assert_eq!(&nvme.info().serial[..7], b"MODEL-1");
    let sizes: Vec<_> = nvme.namespaces().iter().map(|n| (n.nsid, n.block_bytes(), n.blocks)).collect();
    assert_eq!(sizes, [(1, 512, 2048), (2, 4096, 256)]);
    assert!(nvme.namespace(3).is_none());
    for (nsid, at) in [(1, 512 * 7), (2, 4096 * 7)] {
        let bio = call(&nvme, nsid, read(at, 8192));
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(at, 8192)));
    }
    // Longer than one command may be: split, and put together.
    let bio = call(&nvme, 2, read(4096, 200 << 10));
    assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(4096, 200 << 10)));
    assert_eq!(bench.model.counts().commands, 2 + 7);
    let (end, odd) = (read((1 << 20) - 4096, 8192), read(512, 4096));
    assert_eq!(call(&nvme, 2, end).status(), Err(Failure::OutOfRange));
    assert_eq!(call(&nvme, 2, odd).status(), Err(Failure::Misaligned));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn writes_reach_the_medium_with_fua_and_flush() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let data: Vec<u8> = (0..40960_u32).map(|i| (i / 7) as u8).collect();
    let mut bio = write(8192, &data);
    bio.fua();
    assert_eq!(call(&nvme, 1, bio).status(), Ok(()));
    let mut flush = Bio::new();
    flush.flush();
    assert_eq!(call(&nvme, 1, flush).status(), Ok(()));
    let mut medium = vec![0; data.len()];
    assert!(bench.model.peek(1, 8192, &mut medium));
    assert_eq!(medium, data);
    let counts = bench.model.counts();
    assert_eq!((counts.fua, counts.flushes), (1, 1));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn without_a_write_cache_a_flush_asks_nobody() {
    let bench = Bench::new(vec![disk(512, 1 << 20)], Abilities { vwc: 0, ..Default::default() });
    let nvme = bench.attach(Config::default());
    let mut flush = Bio::new();
    flush.flush();
    assert_eq!(call(&nvme, 1, flush).status(), Ok(()));
    assert_eq!(bench.model.counts().flushes, 0);
}

#[test]
fn two_hundred_requests_pass_a_ring_of_63_with_four_doorbells() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    // Straight to the queue: a splitter hands on as it gets children.
    let mut batch = JobList::new();
    let mut pending = Vec::new();
    for i in 0..200_u64 {
        let (job, p) = read(i * 4096, 4096).waitable();
        batch.push(job);
        pending.push(p);
    }
    device.submit(batch);
    assert_eq!(bench.model.counts().sq_doorbells, 1);
    let mut done = 0;
    while done < 200 {
        let now = nvme.poll();
        assert!(now > 0 && now <= 63);
        done += now;
    }
    assert_eq!(bench.model.counts().sq_doorbells, 4);
    for (i, p) in pending.into_iter().enumerate() {
        let bio = p.try_take().unwrap();
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(i as u64 * 4096, 4096)));
    }
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn rings_of_every_small_size_and_stride_wrap() {
    for depth in [2, 3, 4, 5, 7, 63, 64] {
        let bench =
            Bench::new(vec![disk(512, 1 << 20)], Abilities { dstrd: depth as u8 % 5, ..Default::default() });
        let nvme = bench.attach(Config { queue_depth: depth, ..Config::default() });
        for i in 0..300_u64 {
            let at = i % 200 * 512;
            let bio = call(&nvme, 1, read(at, 512));
            assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(at, 512)), "{depth} {i}");
        }
        drop(nvme);
        bench.is_clean();
    }
}

#[test]
fn identifiers_wrap_at_65536_uses() {
    let bench = Bench::small();
    let nvme = bench.attach(Config { queue_depth: 2, ..Config::default() });
    let device = nvme.namespace(1).unwrap();
    let mut bio = read(0, 512);
    for _ in 0..66_000 {
        let buf = bio.take_buf().unwrap();
        bio.read(512, buf);
        bio = wait(&nvme, bio.start(&device));
        assert_eq!(bio.status(), Ok(()));
    }
    assert_eq!((nvme.state(), nvme.stats().completed), (State::Live, 66_000));
}

#[test]
fn scattered_memory_goes_whole_where_pages_allow_and_in_pieces_where_not() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let scattered = |lens: &[(usize, usize)]| {
        let mut parts = BufVec::with_capacity(lens.len()).unwrap();
        for &(len, align) in lens {
            parts.push(Buf::alloc(len, align).unwrap()).unwrap();
        }
        let mut bio = Bio::new();
        bio.read(1024, parts);
        bio
    };
    let bio = call(&nvme, 1, scattered(&[(4096, 4096), (8192, 4096), (4096, 4096), (512, 4096)]));
    assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(1024, 16896)));
    assert_eq!(bench.model.counts().commands, 1);
    let bio = call(&nvme, 1, scattered(&[(512, 4096), (1024, 4096), (4096, 4096)]));
    assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(1024, 5632)));
    assert_eq!(bench.model.counts().commands, 4);
    // Half a block in each: no command can say that.
    assert!(call(&nvme, 1, scattered(&[(256, 4096), (256, 4096)])).status().is_err());
    drop(nvme);
    bench.is_clean();
}

#[test]
fn status_codes_are_told_apart() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    for (sct, sc, failure) in [
        (2, 0x81, Failure::Media),
        (2, 0x82, Failure::Integrity),
        (0, 0x20, Failure::WriteProtected),
        (0, 0x81, Failure::NoSpace),
        (1, 0x00, Failure::Device),
        (7, 0x00, Failure::Device),
    ] {
        bench.model.inject(Fault::Io(Mistake::Status(sct, sc)));
        assert_eq!(call(&nvme, 1, read(0, 512)).status(), Err(failure));
    }
    assert_eq!((nvme.state(), nvme.stats().errors), (State::Live, 6));
    assert_eq!(call(&nvme, 1, read(0, 512)).status(), Ok(()));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn attach_to_a_broken_controller_ends_in_an_error_in_time() {
    for (fault, expected) in [
        (Fault::AllOnes, AttachError::Gone),
        (Fault::NeverReady, AttachError::NotInTime { csts: 0 }),
        (Fault::FatalStatus, AttachError::Fatal),
    ] {
        let bench = Bench::small();
        let before = bench.hal.now();
        bench.model.inject(fault);
        assert_eq!(bench.try_attach(Config::default()).err(), Some(expected));
        assert!(bench.hal.now().saturating_since(before) < Duration::from_secs(20));
        bench.is_clean();
    }
}

#[test]
fn an_unknown_or_repeated_completion_stops_the_controller_and_answers_everything() {
    for mistake in [Mistake::UnknownCid, Mistake::Duplicate, Mistake::WrongQueue, Mistake::BadHead] {
        let bench = Bench::small();
        let nvme = bench.attach(Config::default());
        let device = nvme.namespace(1).unwrap();
        bench.model.inject(Fault::Io(mistake));
        let pending: Vec<_> = (0..4).map(|i| read(i * 512, 512).start(&device)).collect();
        for pending in pending {
            let status = wait(&nvme, pending).status();
            assert!(matches!(status, Ok(()) | Err(Failure::Aborted)), "{status:?}");
        }
        assert!(matches!(nvme.state(), State::Dead(Stopped::Broken(_))), "{:?}", nvme.state());
        assert_eq!(call(&nvme, 1, read(0, 512)).status(), Err(Failure::Gone));
        drop((nvme, device));
        bench.is_clean();
    }
}

#[test]
fn a_swallowed_request_times_out_and_its_neighbours_are_answered() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    bench.model.inject(Fault::Io(Mistake::Drop));
    bench.model.inject(Fault::Io(Mistake::Drop));
    let mut first = read(0, 512);
    first.deadline(bench.hal.now().saturating_add(Duration::from_secs(2)));
    let first = first.start(&device);
    let second = read(512, 512).start(&device);
    assert_eq!(nvme.poll(), 0);
    bench.hal.advance(Duration::from_millis(1900));
    assert_eq!(nvme.poll(), 0);
    bench.hal.advance(Duration::from_millis(200));
    assert_eq!(nvme.poll(), 2);
    assert_eq!(wait(&nvme, first).status(), Err(Failure::Timeout));
    assert_eq!(wait(&nvme, second).status(), Err(Failure::Aborted));
    assert_eq!(nvme.state(), State::Dead(Stopped::Timeout));
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn removal_and_fatal_status_are_noticed_within_a_second() {
    for (fault, why, failure) in [
        (Fault::AllOnes, Stopped::Gone, Failure::Gone),
        (Fault::FatalStatus, Stopped::Fatal, Failure::Aborted),
    ] {
        let bench = Bench::small();
        let nvme = bench.attach(Config::default());
        let device = nvme.namespace(1).unwrap();
        bench.model.inject(fault);
        let pending = read(0, 512).start(&device);
        bench.hal.advance(Duration::from_secs(1));
        nvme.poll();
        assert_eq!(wait(&nvme, pending).status(), Err(failure));
        assert_eq!(nvme.state(), State::Dead(why));
        drop((nvme, device));
        bench.is_clean();
    }
}

#[test]
fn a_controller_that_cannot_be_stopped_keeps_the_memory_and_the_request_is_answered() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    bench.model.inject(Fault::Stuck);
    let mut bio = read(0, 512);
    bio.deadline(bench.hal.now().saturating_add(Duration::from_secs(1)));
    let pending = bio.start(&device);
    bench.hal.advance(Duration::from_secs(1));
    nvme.poll();
    assert_eq!(nvme.state(), State::Stopping(Stopped::Timeout));
    // CAP.TO is 7.5 s.
    bench.hal.advance(Duration::from_secs(8));
    nvme.poll();
    let mut bio = wait(&nvme, pending);
    assert_eq!(bio.status(), Err(Failure::Lost));
    assert!(bio.take_buf().is_none());
    drop((nvme, device));
    assert!(!bench.hal.leaks().is_empty(), "the controller may still use its memory");
    assert_eq!(bench.hal.faults(), []);
}

#[test]
fn dropping_the_driver_answers_everything_and_namespaces_that_outlive_it_are_gone() {
    let bench = Bench::small();
    let nvme = bench.attach(Config { queue_depth: 4, ..Config::default() });
    let device = nvme.namespace(1).unwrap();
    for _ in 0..3 {
        bench.model.inject(Fault::Io(Mistake::Drop));
    }
    let pending: Vec<_> = (0..10).map(|i| read(i * 512, 512).start(&device)).collect();
    drop(nvme);
    for pending in pending {
        let status = pending.try_take().unwrap().status();
        assert!(matches!(status, Err(Failure::Aborted | Failure::Gone)), "{status:?}");
    }
    assert_eq!(read(0, 512).start(&device).try_take().unwrap().status(), Err(Failure::Gone));
    drop(device);
    bench.is_clean();
}

#[test]
fn detach_waits_for_what_is_under_way() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let pending = read(0, 512).start(&nvme.namespace(1).unwrap());
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    nvme.detach(&mut SpinWait::new(&mut idle)).unwrap();
    assert_eq!(pending.try_take().unwrap().status(), Ok(()));
    assert_eq!(nvme.state(), State::Dead(Stopped::Detached));
    assert_eq!(nvme.detach(&mut SpinWait::new(&mut idle)), Err(Stopped::Detached));
    drop(nvme);
    bench.is_clean();
}

#[test]
fn an_interrupt_wakes_the_reaper_and_a_masked_pin_is_unmasked_by_poll() {
    let hal = Arc::new(FakeHal::new());
    let raised = Arc::new(AtomicU64::new(0));
    let count = raised.clone();
    let model = Model::new(hal.clone(), vec![disk(512, 1 << 20)]).interrupting(Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let model = Arc::new(model);
    let config = Config { interrupts: Interrupts::Pin, ..Config::default() };
    let mut idle = || {
        hal.advance_to_next();
    };
    let nvme = Nvme::attach(model, hal.clone(), config, &mut SpinWait::new(&mut idle)).unwrap();
    let before = raised.load(Ordering::Relaxed);
    let pending = read(0, 512).start(&nvme.namespace(1).unwrap());
    assert_eq!(raised.load(Ordering::Relaxed), before + 1);
    nvme.interrupt();
    let second = read(512, 512).start(&nvme.namespace(1).unwrap());
    assert_eq!(raised.load(Ordering::Relaxed), before + 1, "masked");
    block_on(&mut ThreadWait::new(), nvme.work(), None).unwrap();
    assert_eq!(nvme.poll(), 2);
    assert!(pending.is_done() && second.is_done());
    let third = read(512, 512).start(&nvme.namespace(1).unwrap());
    assert_eq!(raised.load(Ordering::Relaxed), before + 2);
    drop(third);
}

#[test]
fn no_more_queues_than_granted_or_cpus() {
    for (cpus, granted, queues) in [(1, 64, 1), (4, 64, 4), (4, 2, 2), (4, 1, 1)] {
        let mut config = dfly_hal::fake::Config::default();
        config.cpus = cpus;
        let hal = Arc::new(FakeHal::with(config));
        let abilities = Abilities { queues: granted, ..Default::default() };
        let model = Arc::new(Model::with(hal.clone(), vec![disk(512, 1 << 20)], abilities));
        let mut idle = || {
            hal.advance_to_next();
        };
        let nvme =
            Nvme::attach(model, hal.clone(), Config::default(), &mut SpinWait::new(&mut idle)).unwrap();
        assert_eq!(nvme.info().queues, queues);
    }
}
