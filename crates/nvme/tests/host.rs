//! Where devices see the process's own memory: nothing is copied, and nothing is allocated for a request.

use std::ops::Range;
use std::ptr::NonNull;
use std::task::Waker;

use dfly_alloc_count::allocator_calls;
use dfly_bio::{Bio, Buf, Image};
use dfly_hal::dma::{CoherentMem, Constraints, Direction, Dma, DmaError, Mapping, SegmentSink};
use dfly_hal::host::{HostClock, HostCpus, HostDma};
use dfly_hal::{Clock, CpuId, Cpus, Instant, SpinWait, ThreadWait};
use dfly_nvme::model::{Disk, HostMemory, Model};
use dfly_nvme::{Config, Nvme};

struct Host {
    clock: HostClock,
    cpus: HostCpus,
}

// SAFETY: `HostDma` keeps the promises.
unsafe impl Dma for Host {
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError> {
        HostDma.alloc_coherent(len, constraints)
    }
    unsafe fn free_coherent(&self, mem: CoherentMem) {
        // SAFETY: passed on.
        unsafe { HostDma.free_coherent(mem) }
    }
    unsafe fn map(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError> {
        // SAFETY: passed on.
        unsafe { HostDma.map(cpu, len, direction, constraints, sink) }
    }
    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: passed on.
        unsafe { HostDma.unmap(mapping) }
    }
    unsafe fn sync_for_device(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { HostDma.sync_for_device(mapping, range) }
    }
    unsafe fn sync_for_cpu(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { HostDma.sync_for_cpu(mapping, range) }
    }
    fn wmb(&self) {
        HostDma.wmb();
    }
    fn rmb(&self) {
        HostDma.rmb();
    }
}

impl Clock for Host {
    fn now(&self) -> Instant {
        self.clock.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.clock.wake_at(at, waker);
    }
}

// SAFETY: `HostCpus` keeps the promises.
unsafe impl Cpus for Host {
    fn this(&self) -> CpuId {
        self.cpus.this()
    }
    fn count(&self) -> u32 {
        self.cpus.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.cpus.raise_ipi(to);
    }
}

#[test]
fn the_controller_gets_the_buffers_own_address_and_a_request_allocates_nothing() {
    let hal = std::sync::Arc::new(Host { clock: HostClock::new(), cpus: HostCpus::new(1) });
    let image = Image::from_bytes(&[7; 1 << 20]).unwrap();
    // SAFETY: `Nvme` drives it, with memory of `HostDma`.
    let memory = unsafe { HostMemory::new() };
    let model = std::sync::Arc::new(Model::new(memory, vec![Disk::new(512, image)]));
    let nvme = Nvme::attach(model.clone(), hal, Config::default(), &mut ThreadWait::new()).unwrap();
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
        for round in 0..200 {
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
