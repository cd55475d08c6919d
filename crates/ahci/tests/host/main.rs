//! Where devices see the process's own memory: nothing is copied, and nothing is allocated for a request.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lend;
mod machine;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use std::sync::Arc;

use dfly_ahci::model::{Drive, HostMemory, Model};
use dfly_ahci::{Ahci, Config, Interrupts};
use dfly_alloc_count::allocator_calls;
use dfly_bio::{Bio, BlockDevice, Buf, Image, JobList, PendingBio};
use dfly_hal::{SpinWait, ThreadWait};
use machine::host;

fn model(bytes: usize) -> Arc<Model<HostMemory>> {
    // SAFETY: `Ahci` drives the model, with memory of `HostDma`.
    let memory = unsafe { HostMemory::new() };
    Arc::new(Model::new(memory, vec![Some(Drive::disk(512, Image::from_bytes(&vec![7; bytes]).unwrap()))]))
}

#[test]
#[cfg_attr(miri, ignore = "megabytes, word by word, take minutes")]
fn the_adapter_gets_the_buffers_own_address_and_a_request_allocates_nothing() {
    let model = model(1 << 20);
    let ahci = Ahci::attach(model.clone(), host(), Config::default(), &mut ThreadWait::new()).unwrap();
    let device = ahci.disk(0).unwrap();
    let mut poll = || {
        ahci.poll();
    };
    let w = &mut SpinWait::new(&mut poll);
    let buf = Buf::alloc(64 << 10, 4096).unwrap();
    let address = buf.as_ptr().addr();
    let mut bio = Bio::new();
    bio.read(4096, buf);
    let mut bio = bio.call(&device, w);
    let mut last = None;
    let calls = allocator_calls(|| {
        for round in 0..200 {
            let buf = bio.take_buf().unwrap();
            assert_eq!(buf.as_ptr().addr(), address);
            match round % 4 {
                0 => bio.read(8192, buf),
                1 => bio.write(8192, buf).fua(),
                2 => bio.read(0, buf),
                _ => bio.write(16384, buf),
            };
            bio = bio.call(&device, w);
            assert_eq!(bio.status(), Ok(()));
        }
        last = Some(bio);
    });
    assert_eq!(calls, 0);
    let bio = last.unwrap();
    assert_eq!(model.counts().last_addr, address as u64);
    assert_eq!(bio.bytes().next().unwrap(), [7; 64 << 10]);
}

#[test]
#[cfg_attr(miri, ignore = "megabytes, word by word, take minutes")]
fn full_slots_parking_and_splitting_allocate_nothing() {
    let ahci = Ahci::attach(model(4 << 20), host(), Config::default(), &mut ThreadWait::new()).unwrap();
    let device = ahci.disk(0).unwrap();
    // Some fit, some are split; together they fill the slots many times.
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
        while ahci.poll() > 0 {}
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
    let config = Config { interrupts: Interrupts::One, max_transfer_bytes: 4096, ..Config::default() };
    let ahci = Ahci::attach(model(64 << 10), host(), config, &mut ThreadWait::new()).unwrap();
    let waker = uncounted();
    let cx = &mut Context::from_waker(&waker);
    while ahci.interrupt() || pin!(ahci.work()).poll(cx).is_ready() {
        ahci.poll();
    }
    let calls = allocator_calls(|| {
        for _ in 0..if cfg!(miri) { 2 } else { 100 } {
            ahci.interrupt();
            ahci.wake();
            assert!(pin!(ahci.work()).poll(cx).is_ready());
            ahci.poll();
            assert!(pin!(ahci.work()).poll(cx).is_pending());
        }
    });
    assert_eq!(calls, 0);
}
