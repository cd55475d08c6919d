//! What a request costs beyond the rings (bar N1b): the same light device behind bare rings and behind the driver, in turns.
//!
//! `cargo bench -p dfly-nvme --features model,std`. The device completes a command when its doorbell is rung and moves no
//! data: what is left is entries, doorbells, phase tags, and for the driver everything from the request to its completion.

#[path = "../tests/host/machine.rs"]
mod machine;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Instant;

use dfly_bio::{Bio, BlockDevice, Buf, Image, JobList, PendingBio};
use dfly_hal::ThreadWait;
use dfly_hal::dma::DevAddr;
use dfly_hal::regs::Window;
use dfly_hal::sync::Lock;
use dfly_nvme::model::{DeviceMemory, Disk, HostMemory, Model};
use dfly_nvme::spec::{Command, DOORBELLS, Opcode};
use dfly_nvme::{Config, Nvme};
use zerocopy::FromBytes;

/// Words of a submission and of a completion entry.
const SQE: usize = 16;
const CQE: usize = 4;
/// Rounds, in each of which both give a sample.
const ROUNDS: usize = 301;
/// Batches of a sample.
const REPEAT: usize = 40;

/// A queue pair of a device that does nothing but complete.
struct Light {
    sq: &'static [AtomicU32],
    cq: &'static [AtomicU32],
    head: usize,
    tail: usize,
    phase: u32,
}

impl Light {
    fn ring(&mut self, to: usize) {
        let (entries, room) = (self.sq.len() / SQE, self.cq.len() / CQE);
        while self.head != to {
            let cid = self.sq[self.head * SQE].load(Ordering::Relaxed) >> 16;
            self.head = if self.head + 1 == entries { 0 } else { self.head + 1 };
            let entry = &self.cq[self.tail * CQE..][..CQE];
            entry[0].store(0, Ordering::Relaxed);
            // Queue 1 has read up to here; then the phase, last.
            entry[2].store(1 << 16 | self.head as u32, Ordering::Relaxed);
            entry[3].store(self.phase << 16 | cid, Ordering::Release);
            self.tail += 1;
            if self.tail == room {
                self.tail = 0;
                self.phase ^= 1;
            }
        }
    }
}

/// The model's way to memory, which learns where the I/O rings are.
struct Tap(HostMemory, Lock<[Option<&'static [AtomicU32]>; 2]>);

impl DeviceMemory for Tap {
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool {
        let read = self.0.read(at, to);
        if let Ok(command) = Command::read_from_bytes(to) {
            let entries = (command.cdw10.get() >> 16) as usize + 1;
            let ring = |words: usize| {
                let base = std::ptr::with_exposed_provenance(command.prp1.get() as usize);
                // SAFETY: a ring of so many words, by the driver's word, which lives as long as the controller runs and is
                // accessed atomically by both sides.
                unsafe { std::slice::from_raw_parts(base, entries * words) }
            };
            match command.opcode {
                Opcode::ADMIN_CREATE_SQ => self.1.lock()[0] = Some(ring(SQE)),
                Opcode::ADMIN_CREATE_CQ => self.1.lock()[1] = Some(ring(CQE)),
                _ => {}
            }
        }
        read
    }
    fn write(&self, at: DevAddr, from: &[u8]) -> bool {
        self.0.write(at, from)
    }
}

/// A model for the admin queue, and a light device for the I/O queue.
struct Device {
    model: Model<Arc<Tap>>,
    tap: Arc<Tap>,
    light: Lock<Option<Light>>,
}

impl Window for Device {
    fn read32(&self, offset: usize) -> u32 {
        self.model.read32(offset)
    }
    fn write32(&self, offset: usize, value: u32) {
        match offset.checked_sub(DOORBELLS.offset()) {
            Some(8) => {
                let mut light = self.light.lock();
                let light = light.get_or_insert_with(|| {
                    let [sq, cq] = self.tap.1.lock().map(|ring| ring.expect("the queue was created"));
                    Light { sq, cq, head: 0, tail: 0, phase: 1 }
                });
                light.ring(value as usize);
            }
            Some(12) => {}
            _ => self.model.write32(offset, value),
        }
    }
}

/// Bare rings and the light device: entries, a doorbell, phase tags. Nothing is checked, nobody is told.
struct Bare {
    light: Light,
    tail: usize,
    head: usize,
    phase: u32,
}

impl Bare {
    fn new(entries: usize) -> Self {
        let ring = |words: usize| -> &'static [AtomicU32] {
            Vec::leak((0..entries * words).map(|_| AtomicU32::new(0)).collect())
        };
        let light = Light { sq: ring(SQE), cq: ring(CQE), head: 0, tail: 0, phase: 1 };
        Self { light, tail: 0, head: 0, phase: 1 }
    }

    fn batch(&mut self, depth: usize) {
        let entries = self.light.sq.len() / SQE;
        for cid in 0..depth as u32 {
            let entry = &self.light.sq[self.tail * SQE..][..SQE];
            for (i, word) in entry.iter().enumerate() {
                word.store(if i == 0 { cid << 16 | 2 } else { i as u32 }, Ordering::Relaxed);
            }
            self.tail = if self.tail + 1 == entries { 0 } else { self.tail + 1 };
        }
        fence(Ordering::Release);
        self.light.ring(self.tail);
        for _ in 0..depth {
            let entry = &self.light.cq[self.head * CQE..][..CQE];
            assert_eq!(entry[3].load(Ordering::Acquire) >> 16 & 1, self.phase);
            black_box(entry[2].load(Ordering::Relaxed));
            self.head += 1;
            if self.head == entries {
                self.head = 0;
                self.phase ^= 1;
            }
        }
    }
}

/// Requests that go round and round.
struct Requests {
    device: Arc<dyn BlockDevice>,
    idle: Vec<Bio>,
    pending: Vec<PendingBio>,
}

impl Requests {
    fn batch(&mut self, poll: impl Fn() -> usize) {
        let mut batch = JobList::new();
        for mut bio in self.idle.drain(..) {
            let buf = bio.take_buf().expect("the memory came back");
            bio.read(4096, buf);
            let (job, pending) = bio.waitable();
            batch.push(job);
            self.pending.push(pending);
        }
        self.device.submit(batch);
        while poll() > 0 {}
        for pending in self.pending.drain(..) {
            let bio = pending.try_take().expect("completed");
            assert_eq!(bio.status(), Ok(()));
            self.idle.push(bio);
        }
    }
}

fn nanoseconds(requests: usize, mut batch: impl FnMut()) -> f64 {
    let begin = Instant::now();
    (0..REPEAT).for_each(|_| batch());
    begin.elapsed().as_secs_f64() * 1e9 / (REPEAT * requests) as f64
}

/// The sample that was disturbed least.
fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn main() {
    for depth in [1, 32] {
        // SAFETY: `Nvme` drives the model, with memory of `HostDma`.
        let tap = Arc::new(Tap(unsafe { HostMemory::new() }, Lock::new([None; 2])));
        let model = Model::new(tap.clone(), vec![Disk::new(512, Image::new(1 << 20))]);
        let window = Device { model, tap, light: Lock::new(None) };
        let nvme = Nvme::attach(window, machine::host(), Config::default(), &mut ThreadWait::new());
        let nvme = nvme.expect("a sound controller");
        let device = nvme.namespace(1).expect("namespace 1");
        let mut requests = Requests { device, idle: Vec::new(), pending: Vec::with_capacity(depth) };
        for _ in 0..depth {
            let mut bio = Bio::new();
            bio.read(0, Buf::alloc(4096, 4096).expect("memory"));
            requests.idle.push(bio);
        }
        let mut bare = Bare::new(64);
        let (mut floors, mut ours) = (Vec::new(), Vec::new());
        let before = nvme.stats();
        for _ in 0..ROUNDS {
            floors.push(nanoseconds(depth, || bare.batch(depth)));
            ours.push(nanoseconds(depth, || requests.batch(|| nvme.poll())));
        }
        let (floor, ours) = (least(&floors), least(&ours));
        let after = nvme.stats();
        let doorbells = (after.doorbells - before.doorbells) as f64 / (ROUNDS * REPEAT) as f64;
        println!(
            "depth {depth:2}: rings and device alone {:6.1} ns, driver {:6.1} ns a request: {:4.1}x; {doorbells:.2} doorbells a batch",
            floor,
            ours,
            ours / floor,
        );
    }
}
