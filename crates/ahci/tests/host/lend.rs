//! Memory is lent and comes back, in small amounts: what Miri looks at. Once on the fake machine, which copies, and once on
//! the process's own memory, which a model on the other side of the window reaches by its address.

use std::sync::Arc;
use std::time::Duration;

use dfly_ahci::model::{DeviceMemory, Drive, Fault, HostMemory, Mistake, Model, Pattern, Queueing};
use dfly_ahci::{Ahci, AhciHal, Config, Interrupts, LinkPower, State, Stopped};
use dfly_bio::{Bio, Buf, BufVec, Failure, Image, PendingBio, SharedBuf};
use dfly_hal::SpinWait;
use dfly_hal::fake::FakeHal;

const CONFIG: Config = Config {
    max_transfer_bytes: 8192,
    io_timeout: Duration::from_secs(30),
    flush_timeout: Duration::from_secs(60),
    attach_timeout: Duration::from_secs(30),
    interrupts: Interrupts::None,
    link_power: LinkPower::Performance,
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

fn drive() -> Option<Drive> {
    let mut drive = Drive::disk(512, Image::from_bytes(&[7; 64 << 10]).unwrap());
    drive.queueing = Queueing::Depth(3);
    Some(drive)
}

/// Every way that memory goes to the adapter and comes back.
fn lend<H: AhciHal + Clone + 'static, M: DeviceMemory + 'static>(hal: H, memory: M, tick: &dyn Fn()) {
    let model = Arc::new(Model::new(memory, vec![drive()]));
    let mut idle = tick;
    let w = &mut SpinWait::new(&mut idle);
    let ahci = Ahci::attach(model.clone(), hal.clone(), CONFIG, w).unwrap();
    let device = ahci.disk(0).unwrap();
    let end = |pending: PendingBio| {
        while !pending.is_done() {
            tick();
            ahci.poll();
        }
        pending.try_take().unwrap()
    };

    // Whole, at crooked places, split, and more than there is room for.
    let mut scattered = BufVec::with_capacity(3).unwrap();
    for len in [510, 4096, 1026] {
        scattered.push(Buf::alloc(len, 2).unwrap()).unwrap();
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
    assert!(model.peek(0, 8192, &mut medium) && medium == [0; 4096]);

    // One of several fails, and the others are issued again.
    model.inject(Fault::Command(Pattern { skip: 1, ..Pattern::NEXT }, Mistake::Status(0x41, 0x40)));
    let pending: Vec<_> = (0..4).map(|i| read(i * 512, 512).start(&device)).collect();
    let failed = pending.into_iter().map(end).filter(|bio| bio.status() == Err(Failure::Media)).count();
    assert_eq!(failed, 1);

    // In flight and waiting when the driver goes.
    let all = Pattern { times: 9, ..Pattern::NEXT };
    model.inject(Fault::Command(all, Mistake::Drop));
    let pending: Vec<_> = (0..5).map(|i| read(i * 512, 8192 + 512).start(&device)).collect();
    ahci.poll();
    drop(ahci);
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
    lend(hal.clone(), hal.clone(), &|| hal.advance(Duration::from_micros(500)));
    assert_eq!(hal.faults(), []);
    assert!(hal.leaks().is_empty());
}

#[test]
fn where_it_lies() {
    // SAFETY: `Ahci` drives the model, with memory of `HostDma`.
    let memory = unsafe { HostMemory::new() };
    lend(crate::machine::host(), memory, &|| ());
}

#[test]
fn an_adapter_that_vanishes_gives_memory_back() {
    let hal = Arc::new(FakeHal::new());
    let model = Arc::new(Model::new(hal.clone(), vec![drive()]));
    let mut idle = || {
        hal.advance_to_next();
    };
    let ahci = Ahci::attach(model.clone(), hal.clone(), CONFIG, &mut SpinWait::new(&mut idle)).unwrap();
    let device = ahci.disk(0).unwrap();
    model.inject(Fault::AllOnes);
    let pending: Vec<_> = (0..5).map(|i| read(i * 512, 12288).start(&device)).collect();
    hal.advance(Duration::from_secs(1));
    ahci.poll();
    assert_eq!(ahci.state(), State::Dead(Stopped::Gone));
    for pending in pending {
        let mut bio = pending.try_take().unwrap();
        assert_eq!(bio.status(), Err(Failure::Gone));
        bio.take_buf().unwrap().fill(1);
    }
    drop((ahci, device));
    assert_eq!(hal.faults(), []);
    assert!(hal.leaks().is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "it leaks, which is what it is for")]
fn what_an_adapter_that_does_not_stop_may_use_is_not_used_again() {
    let hal = Arc::new(FakeHal::new());
    let model = Arc::new(Model::new(hal.clone(), vec![drive()]));
    let mut idle = || {
        hal.advance_to_next();
    };
    let ahci = Ahci::attach(model.clone(), hal.clone(), CONFIG, &mut SpinWait::new(&mut idle)).unwrap();
    let device = ahci.disk(0).unwrap();
    model.inject(Fault::StuckEngine(0));
    model.inject(Fault::StuckReset);
    model.inject(Fault::Command(Pattern { times: 9, ..Pattern::NEXT }, Mistake::Drop));
    let pending: Vec<_> = (0..3).map(|i| read(i * 512, 512).start(&device)).collect();
    hal.advance(CONFIG.io_timeout);
    for _ in 0..10 {
        ahci.poll();
        hal.advance(Duration::from_millis(500));
    }
    assert_eq!(ahci.state(), State::Dead(Stopped::Stuck));
    for pending in pending {
        let mut bio = pending.try_take().unwrap();
        assert_eq!(bio.status(), Err(Failure::Lost));
        assert!(bio.take_buf().is_none());
    }
    drop((ahci, device));
    assert_eq!((hal.faults(), hal.leaks().mappings.len()), (Vec::new(), 3));
}
