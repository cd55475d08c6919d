//! What a request costs beyond the command list (bar N2): the same light device behind bare command tables and behind the
//! driver, in turns.
//!
//! `cargo bench -p dfly-ahci --features model,std`. The device completes commands when PxCI is written and moves no data: what
//! is left is tables, headers, registers, and for the driver everything from the request to its completion.

#[path = "../tests/host/machine.rs"]
mod machine;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Instant;

use dfly_ahci::model::{Drive, HostMemory, Model};
use dfly_ahci::spec::{CAP, GHC, IS, Port};
use dfly_ahci::{Ahci, Config};
use dfly_bio::{Bio, BlockDevice, Buf, Image, JobList, PendingBio};
use dfly_hal::ThreadWait;
use dfly_hal::regs::Window;

/// Rounds, in each of which both give a sample.
const ROUNDS: usize = 301;
/// Batches of a sample.
const REPEAT: usize = 40;
/// Words of a header, and of a table with one entry.
const HEADER: usize = 8;
const TABLE: usize = 36;

/// A model that brings the port up, and then a device that does nothing but complete: it looks at each header and at the
/// command of its table, as a device must.
struct Light {
    model: Model<HostMemory>,
    list: AtomicU32,
    list_high: AtomicU32,
    lit: std::sync::atomic::AtomicBool,
    is: AtomicU32,
    px: AtomicU32,
}

impl Light {
    /// What a device looks at.
    fn look(&self, new: u32) {
        let list = u64::from(self.list_high.load(Ordering::Relaxed)) << 32
            | u64::from(self.list.load(Ordering::Relaxed));
        for slot in (0..32).filter(|slot| new >> slot & 1 != 0) {
            let word = |at: u64| {
                let at = std::ptr::with_exposed_provenance_mut::<u32>(at as usize);
                // SAFETY: the command list and the tables that the driver named, which live as long as the adapter runs and
                // are accessed atomically by both sides.
                unsafe { AtomicU32::from_ptr(at) }.load(Ordering::Relaxed)
            };
            let header = list + 32 * slot;
            let table = u64::from(word(header + 12)) << 32 | u64::from(word(header + 8));
            black_box((word(header), word(table), word(table + 4), word(table + 0x80)));
        }
    }
}

impl Window for Light {
    fn read32(&self, offset: usize) -> u32 {
        if self.lit.load(Ordering::Relaxed) {
            match offset {
                o if o == IS.offset() => return self.is.load(Ordering::Relaxed),
                o if o == Port(0).is().offset() => return self.px.load(Ordering::Relaxed),
                o if o == Port(0).sact().offset() || o == Port(0).ci().offset() => return 0,
                _ => {}
            }
        }
        self.model.read32(offset)
    }
    fn write32(&self, offset: usize, value: u32) {
        if self.lit.load(Ordering::Relaxed) {
            match offset {
                o if o == Port(0).sact().offset() => return,
                o if o == Port(0).ci().offset() => {
                    self.look(value);
                    // Set Device Bits.
                    self.px.store(8, Ordering::Relaxed);
                    return self.is.store(1, Ordering::Relaxed);
                }
                o if o == Port(0).is().offset() => return self.px.store(0, Ordering::Relaxed),
                o if o == IS.offset() => return self.is.store(0, Ordering::Relaxed),
                _ => {}
            }
        }
        match offset {
            o if o == Port(0).clb().offset() => self.list.store(value, Ordering::Relaxed),
            o if o == Port(0).clbu().offset() => self.list_high.store(value, Ordering::Relaxed),
            _ => {}
        }
        self.model.write32(offset, value);
    }
}

/// Bare tables and headers, and a device that looks at them. Nothing is checked, nobody is told.
struct Bare {
    list: Vec<AtomicU32>,
    tables: Vec<AtomicU32>,
    ci: AtomicU32,
}

impl Bare {
    fn new() -> Self {
        let words = |count| (0..count).map(|_| AtomicU32::new(0)).collect();
        Self { list: words(32 * HEADER), tables: words(32 * TABLE), ci: AtomicU32::new(0) }
    }

    fn batch(&self, depth: usize) {
        for slot in 0..depth {
            let table = &self.tables[slot * TABLE..][..TABLE];
            // The frame, and one entry of the PRDT.
            for (i, word) in table[..5].iter().chain(&table[32..]).enumerate() {
                word.store(i as u32, Ordering::Relaxed);
            }
            for (i, word) in self.list[slot * HEADER..][..HEADER].iter().enumerate() {
                word.store(i as u32, Ordering::Relaxed);
            }
        }
        fence(Ordering::Release);
        let new = ((1_u64 << depth) - 1) as u32;
        self.ci.store(new, Ordering::Relaxed);
        for slot in 0..depth {
            let (header, table) = (&self.list[slot * HEADER..], &self.tables[slot * TABLE..]);
            let word = |word: &AtomicU32| word.load(Ordering::Relaxed);
            black_box((word(&header[0]), word(&header[2]), word(&header[3])));
            black_box((word(&table[0]), word(&table[1]), word(&table[32])));
        }
        self.ci.store(0, Ordering::Relaxed);
        let mut done = new & !self.ci.load(Ordering::Acquire);
        while done != 0 {
            black_box(done.trailing_zeros());
            done &= done - 1;
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
        // SAFETY: `Ahci` drives the model, with memory of `HostDma`.
        let memory = unsafe { HostMemory::new() };
        let model = Model::new(memory, vec![Some(Drive::disk(512, Image::new(1 << 20)))]);
        assert!(CAP.read(&model).sncq() && !GHC.read(&model).is_gone());
        let window = Arc::new(Light {
            model,
            list: AtomicU32::new(0),
            list_high: AtomicU32::new(0),
            lit: false.into(),
            is: AtomicU32::new(0),
            px: AtomicU32::new(0),
        });
        let ahci = Ahci::attach(window.clone(), machine::host(), Config::default(), &mut ThreadWait::new());
        let ahci = ahci.expect("a sound adapter");
        let device = ahci.disk(0).expect("a disk at port 0");
        window.lit.store(true, Ordering::Relaxed);
        let mut requests = Requests { device, idle: Vec::new(), pending: Vec::with_capacity(depth) };
        for _ in 0..depth {
            let mut bio = Bio::new();
            bio.read(0, Buf::alloc(4096, 4096).expect("memory"));
            requests.idle.push(bio);
        }
        let bare = Bare::new();
        let (mut floors, mut ours) = (Vec::new(), Vec::new());
        let before = ahci.stats();
        for _ in 0..ROUNDS {
            floors.push(nanoseconds(depth, || bare.batch(depth)));
            ours.push(nanoseconds(depth, || requests.batch(|| ahci.poll())));
        }
        let (floor, ours) = (least(&floors), least(&ours));
        let after = ahci.stats();
        let batches = (after.batches - before.batches) as f64 / (ROUNDS * REPEAT) as f64;
        println!(
            "depth {depth:2}: tables and device alone {floor:6.1} ns, driver {ours:6.1} ns a request: {:4.1}x; {batches:.2} issues a batch",
            ours / floor,
        );
        window.lit.store(false, Ordering::Relaxed);
    }
}
