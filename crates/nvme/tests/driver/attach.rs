//! Attach, identify, detach, drop.

use std::sync::Arc;

use dfly_bio::{BlockDevice, Failure, Image};
use dfly_hal::dma::Dma;
use dfly_hal::regs::Window;
use dfly_hal::{Clock, Cpus, SpinWait};
use dfly_nvme::model::{Abilities, Disk, Fault, Mistake};
use dfly_nvme::{Config, Nvme, State, Stopped};

use crate::bench::{Bench, bytes, call, disk, pattern, read};

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
fn no_more_queues_than_granted_or_cpus() {
    for (cpus, granted, queues) in [(1, 64, 1), (4, 64, 4), (4, 2, 2), (4, 1, 1)] {
        let abilities = Abilities { queues: granted, ..Default::default() };
        let bench = Bench::with_cpus(cpus, vec![disk(512, 1 << 20)], abilities);
        let nvme = bench.attach(Config::default());
        assert_eq!(nvme.info().queues, queues);
        drop(nvme);
        bench.is_clean();
    }
}

/// What a kernel names its machine.
trait Platform: Dma + Clock + Cpus {}
impl<T: Dma + Clock + Cpus> Platform for T {}

#[test]
fn a_kernel_may_forget_the_types_of_its_machine_and_of_the_window() {
    let bench = Bench::small();
    let (platform, window): (Arc<dyn Platform>, Box<dyn Window>) =
        (bench.hal.clone(), Box::new(bench.model.clone()));
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    let nvme: Nvme<Arc<dyn Platform>, Box<dyn Window>> =
        Nvme::attach(window, platform, Config::default(), &mut SpinWait::new(&mut idle)).unwrap();
    let disk: Arc<dyn BlockDevice> = nvme.namespace(1).unwrap();
    let mut poll = || {
        nvme.poll();
    };
    let bio = read(4096, 8192).call(&disk, &mut SpinWait::new(&mut poll));
    assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(4096, 8192)));
    drop((nvme, disk));
    bench.is_clean();
}

#[test]
fn the_admin_rings_wrap_and_the_list_of_namespaces_goes_on() {
    for (disks, most, used) in [(200, 1024, 200), (1100, 1500, 1100), (1100, 1024, 1024), (1100, 1025, 1025)]
    {
        let disks = (0..disks).map(|_| Disk::new(512, Image::new(4096))).collect();
        let bench = Bench::new(disks, Abilities::default());
        let nvme = bench.attach(Config { max_namespaces: most, queue_depth: 2, ..Config::default() });
        let nsids: Vec<_> = nvme.namespaces().iter().map(|info| info.nsid).collect();
        assert_eq!(nsids, (1..=used).collect::<Vec<_>>());
        let (first, last) = (call(&nvme, 1, read(0, 4096)), call(&nvme, used, read(0, 4096)));
        assert_eq!((first.status(), last.status()), (Ok(()), Ok(())));
        drop(nvme);
        bench.is_clean();
    }
}

#[test]
fn a_controller_that_runs_already_is_taken_over() {
    let bench = Bench::small();
    // As the firmware left it.
    let nvme = bench.attach(Config::default());
    std::mem::forget(nvme);
    let nvme = bench.attach(Config::default());
    let bio = call(&nvme, 1, read(4096, 512));
    assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(4096, 512)));
    drop(nvme);
    assert_eq!((bench.hal.faults().len(), bench.model.counts().misuse), (0, 0));
}

#[test]
fn requests_that_are_split_and_wait_are_answered_when_the_driver_goes() {
    let bench = Bench::small();
    let nvme = bench.attach(Config { queue_depth: 2, max_transfer_bytes: 4096, ..Config::default() });
    let device = nvme.namespace(1).unwrap();
    bench.model.inject(Fault::Io(Mistake::Drop));
    let pending: Vec<_> = (0..3).map(|i| read(i * 65536, 65536).start(&device)).collect();
    drop(nvme);
    for pending in pending {
        let status = pending.try_take().unwrap().status();
        assert!(matches!(status, Err(Failure::Aborted | Failure::Gone)), "{status:?}");
    }
    drop(device);
    bench.is_clean();
}

#[test]
fn detach_lets_requests_that_were_taken_end_and_takes_no_others() {
    let bench = Bench::small();
    // Room for one piece of a page at a time.
    let nvme = bench.attach(Config { queue_depth: 2, max_transfer_bytes: 4096, ..Config::default() });
    let device = nvme.namespace(1).unwrap();
    let pending: Vec<_> = (0..3).map(|i| read(i * 65536, 65536).start(&device)).collect();
    let mut late = None;
    let mut idle = || {
        late.get_or_insert_with(|| read(0, 512).start(&device));
        bench.hal.advance_to_next();
    };
    nvme.detach(&mut SpinWait::new(&mut idle)).unwrap();
    for (i, pending) in pending.into_iter().enumerate() {
        let bio = pending.try_take().unwrap();
        assert_eq!((bio.status(), bytes(&bio)), (Ok(()), pattern(i as u64 * 65536, 65536)));
    }
    assert_eq!(late.unwrap().try_take().unwrap().status(), Err(Failure::Gone));
    drop((nvme, device));
    bench.is_clean();
}

#[test]
fn detach_waits_for_a_controller_that_is_being_stopped() {
    let bench = Bench::small();
    let nvme = bench.attach(Config::default());
    let device = nvme.namespace(1).unwrap();
    bench.model.inject(Fault::Stuck);
    let pending = read(0, 512).start(&device);
    bench.hal.advance(std::time::Duration::from_secs(30));
    nvme.poll();
    assert_eq!(nvme.state(), State::Stopping(Stopped::Timeout));
    let mut idle = || {
        bench.hal.advance_to_next();
    };
    assert_eq!(nvme.detach(&mut SpinWait::new(&mut idle)), Err(Stopped::Timeout));
    assert_eq!(nvme.state(), State::Dead(Stopped::Timeout));
    assert_eq!(pending.try_take().unwrap().status(), Err(Failure::Lost));
}
