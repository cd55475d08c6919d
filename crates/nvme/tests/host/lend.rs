//! Memory is lent and comes back, in small amounts: what Miri looks at. Once on the fake machine, which copies, and once on
//! the process's own memory, which a model on the other side of the window reaches by its address.

use std::sync::Arc;
use std::time::Duration;

use dfly_bio::{Bio, Buf, BufVec, Failure, Image, PendingBio, SharedBuf};
use dfly_hal::SpinWait;
use dfly_hal::fake::FakeHal;
use dfly_nvme::model::{DeviceMemory, Disk, Fault, HostMemory, Mistake, Model};
use dfly_nvme::{Config, Nvme, NvmeHal, State, Stopped};

const CONFIG: Config = Config {
    queue_depth: 3,
    max_queues: 1,
    max_namespaces: 1,
    max_transfer_bytes: 8192,
    io_timeout: Duration::from_secs(30),
    admin_timeout: Duration::from_secs(60),
    interrupts: dfly_nvme::Interrupts::None,
};

fn read(at: u64, len: usize) -> Bio {
    let mut bio = Bio::new();
    bio.read(at, Buf::alloc(len, 4096).unwrap());
    bio
}

fn write(at: u64, byte: u8, len: usize) -> Bio {
    let mut buf = Buf::alloc(len, 512).unwrap();
    buf.fill(byte);
    let mut bio = Bio::new();
    bio.write(at, buf);
    bio
}

/// Every way that memory goes to the controller and comes back.
fn lend<H: NvmeHal + Clone + 'static, M: DeviceMemory + 'static>(hal: H, memory: M, idle: &mut dyn FnMut()) {
    let image = Image::from_bytes(&[7; 64 << 10]).unwrap();
    let model = Arc::new(Model::new(memory, vec![Disk::new(512, image)]));
    let w = &mut SpinWait::new(idle);
    let nvme = Nvme::attach(model.clone(), hal.clone(), CONFIG, w).unwrap();
    let device = nvme.namespace(1).unwrap();
    let end = |pending: PendingBio| {
        while !pending.is_done() {
            nvme.poll();
        }
        pending.try_take().unwrap()
    };

    // Whole, at crooked places, split, and more than there is room for.
    let mut scattered = BufVec::with_capacity(3).unwrap();
    for len in [512, 4096, 1024] {
        scattered.push(Buf::alloc(len, 4096).unwrap()).unwrap();
    }
    let mut bio = Bio::new();
    bio.read(0, scattered);
    let mut pending = vec![bio.start(&device), write(512, 9, 1536).start(&device)];
    pending.extend((0..4).map(|i| read(i * 4096, 20480).start(&device)));
    for pending in pending {
        let bio = end(pending);
        assert_eq!(bio.status(), Ok(()));
        assert!(bio.bytes().flatten().all(|&byte| byte == 7 || byte == 9));
    }

    // What is written may be read by others meanwhile.
    let shared = SharedBuf::alloc(4096, 4096).unwrap();
    let mut bio = Bio::new();
    bio.write(8192, shared.freeze());
    let pending = bio.start(&device);
    assert!(shared.iter().all(|&byte| byte == 0));
    assert_eq!(end(pending).status(), Ok(()));
    let mut medium = [1; 4096];
    assert!(model.peek(1, 8192, &mut medium) && medium == [0; 4096]);

    // In flight and waiting when the driver goes.
    for mistake in [Mistake::Drop, Mistake::Duplicate, Mistake::UnknownCid] {
        model.inject(Fault::Io(mistake));
    }
    let pending: Vec<_> = (0..5).map(|i| read(i * 512, 8192 + 512).start(&device)).collect();
    nvme.poll();
    drop(nvme);
    for pending in pending {
        let mut bio = pending.try_take().unwrap();
        assert!(matches!(bio.status(), Ok(()) | Err(Failure::Aborted | Failure::Gone)), "{:?}", bio.status());
        // The memory is ours again.
        bio.take_buf().unwrap().fill(1);
    }
}

#[test]
fn on_a_machine_that_copies() {
    let hal = Arc::new(FakeHal::new());
    let mut idle = || {
        hal.advance_to_next();
    };
    lend(hal.clone(), hal.clone(), &mut idle);
    assert_eq!(hal.faults(), []);
    assert!(hal.leaks().is_empty());
}

#[test]
fn where_it_lies() {
    // SAFETY: `Nvme` drives the model, with memory of `HostDma`.
    let memory = unsafe { HostMemory::new() };
    lend(crate::machine::host(), memory, &mut || ());
}

#[test]
fn a_controller_that_vanishes_gives_memory_back() {
    let hal = Arc::new(FakeHal::new());
    let image = Image::from_bytes(&[7; 64 << 10]).unwrap();
    let model = Arc::new(Model::new(hal.clone(), vec![Disk::new(512, image)]));
    let mut idle = || {
        hal.advance_to_next();
    };
    let nvme = Nvme::attach(model.clone(), hal.clone(), CONFIG, &mut SpinWait::new(&mut idle)).unwrap();
    let device = nvme.namespace(1).unwrap();
    model.inject(Fault::AllOnes);
    let pending: Vec<_> = (0..4).map(|i| read(i * 512, 12288).start(&device)).collect();
    hal.advance(Duration::from_secs(1));
    nvme.poll();
    assert_eq!(nvme.state(), State::Dead(Stopped::Gone));
    for pending in pending {
        let mut bio = pending.try_take().unwrap();
        assert_eq!(bio.status(), Err(Failure::Gone));
        bio.take_buf().unwrap().fill(1);
    }
    drop((nvme, device));
    assert_eq!(hal.faults(), []);
    assert!(hal.leaks().is_empty());
}
