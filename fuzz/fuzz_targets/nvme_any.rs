//! The NVMe driver against a controller that answers anything: any value in any register, any completion at any time, any
//! mistake with a command, any byte in what Identify says.
//!
//! Whatever it does, the driver does not panic, comes to an end, answers every request, and gives the controller nothing to
//! read or write that is not lent to it. The input is what the controller does, byte by byte; what is left out is done
//! right, so the empty input is a sound controller.
#![no_main]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use dfly_bio::{Bio, Buf, Failure, Image, PendingBio};
use dfly_hal::dma::DevAddr;
use dfly_hal::fake::{self, FakeHal};
use dfly_hal::regs::Window;
use dfly_hal::{Clock, CpuId, SpinWait};
use dfly_nvme::model::{Abilities, Disk, Fault, Mistake, Model};
use dfly_nvme::spec::{
    ACQ, AQA, ASQ, Aqa, CAP, CC, Cc, Command, Completion, DOORBELLS, IdentifyWhat, Opcode, StatusField,
};
use dfly_nvme::{Config, Interrupts, Nvme, State};
use libfuzzer_sys::fuzz_target;
use zerocopy::{FromZeros, IntoBytes};

/// What is done with a controller that could be attached, at most.
const STEPS: usize = 48;
/// Bytes of each disk.
const DISK: usize = 1 << 18;

static IMAGE: LazyLock<Image> = LazyLock::new(|| Image::from_bytes(&vec![0x5a; DISK]).unwrap());

/// A controller that does not stop keeps what it may still use: that is no mistake, and [`FakeHal`] counts those that are.
/// So memory in use rises slowly; a run of hours wants a higher limit of it.
#[unsafe(no_mangle)]
extern "C" fn __lsan_is_turned_off() -> std::ffi::c_int {
    1
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes.to_vec(), 0);
    let (setup, depth) = (input.byte(), input.byte());
    let mut machine = fake::Config::default();
    machine.cpus = 1 + u32::from(setup % 3);
    let hal = Arc::new(FakeHal::with(machine));
    let mut disks = vec![Disk::new(512, IMAGE.clone())];
    if setup & 8 != 0 {
        disks.push(Disk::new(4096, IMAGE.clone()));
    }
    let controller = Arc::new(Any {
        model: Model::with(hal.clone(), disks, Abilities { to: 2, ..Abilities::default() }),
        hal: hal.clone(),
        state: Mutex::new(Seen { input, ..Seen::default() }),
        sound: AtomicBool::new(true),
        sound_registers: AtomicBool::new(true),
        sound_capabilities: AtomicBool::new(true),
    });
    let config = Config {
        queue_depth: [2, 3, 8, 64][usize::from(depth % 4)],
        max_transfer_bytes: 16 << 10,
        max_namespaces: 4,
        io_timeout: Duration::from_secs(3),
        admin_timeout: Duration::from_secs(2),
        interrupts: match setup >> 4 & 3 {
            0 | 1 => Interrupts::None,
            2 => Interrupts::Pin,
            _ => Interrupts::Message { vectors: 3 },
        },
        ..Config::default()
    };
    let mut idle = || {
        if !hal.advance_to_next() {
            hal.advance(Duration::from_millis(1));
        }
    };
    let mut lost = false;
    match Nvme::attach(controller.clone(), hal.clone(), config, &mut SpinWait::new(&mut idle)) {
        Ok(nvme) => lost = drive(&controller, nvme),
        Err(error) => {
            let _ = error.to_string();
            assert!(!controller.is(&controller.sound), "{error} of a sound controller");
        }
    }
    if controller.is(&controller.sound_capabilities) {
        assert_eq!(hal.faults(), []);
    }
    if controller.is(&controller.sound_registers) && !lost {
        assert!(hal.leaks().is_empty(), "{:?}", hal.leaks());
    }
});

/// Sends requests until the input ends, and waits for the last. Returns whether any was lost.
fn drive(controller: &Arc<Any>, nvme: Nvme<Arc<FakeHal>, Arc<Any>>) -> bool {
    let hal = &controller.hal;
    let devices: Vec<_> = nvme.namespaces().iter().map(|info| nvme.namespace(info.nsid).unwrap()).collect();
    let mut pending: Vec<PendingBio> = Vec::new();
    for _ in 0..STEPS {
        let [what, which, at, len] = controller.seen().input.bytes();
        let _here = hal.attach(CpuId(u32::from(which >> 4) % dfly_hal::Cpus::count(&**hal))).unwrap();
        match what % 8 {
            0..4 => {
                let Some(device) = devices.get(usize::from(which) % devices.len().max(1)) else { continue };
                let mut bio = Bio::new();
                // Blocks of either size, also beyond the end, also many commands long.
                let (at, len) = (u64::from(at) * 2048, usize::from(len % 32 + 1) * 2048);
                match what % 4 {
                    0 | 1 => bio.read(at, Buf::alloc(len, 4096).unwrap()),
                    2 => bio.write(at, {
                        let mut buf = Buf::alloc(len, 512).unwrap();
                        buf.fill(0x5a);
                        buf
                    }),
                    _ => bio.flush(),
                };
                if what & 0x10 != 0 {
                    bio.deadline(hal.now().saturating_add(Duration::from_millis(u64::from(what))));
                }
                pending.push(bio.start(device));
            }
            4 => hal.advance(Duration::from_millis(u64::from(at) * 16)),
            5 => nvme.interrupt(),
            _ => drop(nvme.poll()),
        }
    }
    for _ in 0..40 {
        hal.advance(Duration::from_millis(500));
        // One at a time, where the queue has room for one.
        while nvme.poll() > 0 {}
    }
    // Unless it was believed about how long it takes to stop.
    let answered = pending.iter().all(PendingBio::is_done);
    assert!(answered || !controller.is(&controller.sound_capabilities), "unanswered: {:?}", nvme.state());
    let _ = (nvme.stats(), nvme.skipped(), nvme.info(), format!("{:?}", nvme.state()));
    if pending.len() % 2 == 0 {
        let mut idle = || {
            if !hal.advance_to_next() {
                hal.advance(Duration::from_millis(1));
            }
        };
        let detached = nvme.detach(&mut SpinWait::new(&mut idle));
        assert!(matches!(nvme.state(), State::Dead(_)), "{detached:?}");
    }
    drop(nvme);
    let mut lost = false;
    for pending in pending {
        let bio = pending.try_take().expect("a request is answered when the driver is gone");
        lost |= bio.status() == Err(Failure::Lost);
        let sound = matches!(
            bio.status(),
            Ok(()) | Err(Failure::OutOfRange | Failure::Misaligned | Failure::Timeout)
        );
        assert!(sound || !controller.is(&controller.sound), "{:?} of a sound controller", bio.status());
        if bio.status() == Ok(()) && controller.is(&controller.sound) {
            // As slices: the fuzzer looks at every comparison.
            assert!(bio.bytes().all(|run| run == &[0x5a; DISK][..run.len()]));
        }
    }
    lost
}

/// What the controller will do, followed by zeroes without end.
#[derive(Default)]
struct Input(Vec<u8>, usize);

impl Input {
    fn byte(&mut self) -> u8 {
        self.1 += 1;
        self.0.get(self.1 - 1).copied().unwrap_or(0)
    }
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }
    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }
}

/// A queue pair as seen from the controller's side of the window.
#[derive(Clone, Copy, Default)]
struct Rings {
    qid: u16,
    sq: u64,
    cq: u64,
    size_z: u16,
    tail: u16,
    head: u16,
    phase: bool,
}

#[derive(Default)]
struct Seen {
    input: Input,
    aqa: u32,
    asq: [u32; 2],
    acq: [u32; 2],
    rings: Vec<Rings>,
    /// The commands shown last.
    cids: Vec<(u16, u16)>,
}

/// A sound model behind a window that lies, with a hand in the rings.
struct Any {
    model: Model<Arc<FakeHal>>,
    hal: Arc<FakeHal>,
    state: Mutex<Seen>,
    /// It did nothing wrong so far.
    sound: AtomicBool,
    sound_registers: AtomicBool,
    sound_capabilities: AtomicBool,
}

impl Any {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.lock().unwrap()
    }

    fn is(&self, flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }

    /// Whether a device may touch `len` bytes at `at` now.
    fn is_lent(&self, at: u64, len: u64) -> bool {
        let lent = self.hal.leaks().coherent;
        lent.iter().any(|&(start, n)| at >= start.0 && at + len <= start.0 + n as u64)
    }

    /// Perhaps something goes wrong, before or after what the driver does.
    fn mischief(&self, seen: &mut Seen) {
        let what = seen.input.byte();
        if what < 200 {
            return;
        }
        self.sound.store(false, Ordering::Relaxed);
        match what {
            200..=214 => {
                let [kind, sct, sc, opcode] = seen.input.bytes();
                let mistake = match kind % 9 {
                    0 => Mistake::UnknownCid,
                    1 => Mistake::Duplicate,
                    2 => Mistake::WrongQueue,
                    3 => Mistake::BadHead,
                    4 => Mistake::OldHead,
                    5 => Mistake::Status(sct % 8, sc),
                    6 => Mistake::Drop,
                    7 => Mistake::Nothing,
                    _ => Mistake::Silent,
                };
                self.model.inject(match opcode {
                    0..128 => Fault::Io(mistake),
                    _ => Fault::Admin([0x06, 0x09, 0x05, 0x01][usize::from(opcode % 4)], mistake),
                });
            }
            215..=224 => {
                let [what, value] = seen.input.bytes();
                let offset = seen.input.half() % 600;
                self.model.inject(Fault::Identify { what: IdentifyWhat(what % 3), offset, value });
            }
            225 => self.model.inject(Fault::FatalStatus),
            226 => self.model.inject(Fault::NeverReady),
            227 => {
                self.sound_registers.store(false, Ordering::Relaxed);
                self.model.inject(Fault::Stuck);
            }
            228 => self.model.inject(Fault::AllOnes),
            229 => self.model.inject(Fault::AllOnesAfter(u64::from(seen.input.byte()))),
            _ => self.scribble(seen),
        }
    }

    /// Writes a completion: the one that is expected next, of the latest command, as far as the input does not say
    /// otherwise.
    fn scribble(&self, seen: &mut Seen) {
        let [which, how, which_cid] = seen.input.bytes();
        let rings = match seen.rings.get(usize::from(which) % seen.rings.len().max(1)) {
            Some(&rings) => rings,
            None => return,
        };
        let mine: Vec<u16> =
            seen.cids.iter().filter(|(qid, _)| *qid == rings.qid).map(|&(_, cid)| cid).collect();
        let cid = mine.iter().rev().nth(usize::from(which_cid) % mine.len().max(1)).copied().unwrap_or(0);
        let bit = |n: u8| how >> n & 1 != 0;
        let mut entry = Completion::new_zeroed();
        entry.result.set(if bit(0) { seen.input.word() } else { 0 });
        entry.cid.set(if bit(1) { seen.input.half() } else { cid });
        entry.sqid.set(if bit(2) { seen.input.half() } else { rings.qid });
        entry.sqhd.set(if bit(3) { seen.input.half() % 64 } else { rings.tail });
        let status = StatusField::from_bits(if bit(4) { seen.input.half() } else { 0 });
        entry.status.set(status.with_phase(rings.phase != bit(5)).into_bits());
        let index = if bit(6) { seen.input.half() % (rings.size_z + 1) } else { rings.head };
        let at = rings.cq + 16 * u64::from(index);
        if self.is_lent(at, 16) {
            self.hal.device_write(DevAddr(at), entry.as_bytes()).unwrap();
        }
    }

    /// Looks at what the driver writes.
    fn overhear(&self, seen: &mut Seen, offset: usize, value: u32) {
        let pair = |words: [u32; 2]| u64::from(words[1]) << 32 | u64::from(words[0]);
        match offset {
            o if o == AQA.offset() => seen.aqa = value,
            o if o == ASQ.offset() => seen.asq[0] = value,
            o if o == ASQ.offset() + 4 => seen.asq[1] = value,
            o if o == ACQ.offset() => seen.acq[0] = value,
            o if o == ACQ.offset() + 4 => seen.acq[1] = value,
            o if o == CC.offset() => {
                seen.rings.clear();
                if Cc::from_bits(value).en() {
                    let size_z = Aqa::from_bits(seen.aqa).asqs_z();
                    let (sq, cq) = (pair(seen.asq), pair(seen.acq));
                    seen.rings.push(Rings { sq, cq, size_z, phase: true, ..Rings::default() });
                }
            }
            o if o >= DOORBELLS.offset() => {
                let index = (o - DOORBELLS.offset()) / 4;
                let value = value as u16;
                let Some(rings) = seen.rings.iter_mut().find(|rings| usize::from(rings.qid) == index / 2)
                else {
                    return;
                };
                if index % 2 == 1 {
                    rings.phase ^= value < rings.head;
                    rings.head = value;
                    return;
                }
                let before = if value == 0 { rings.size_z } else { value - 1 };
                rings.tail = value;
                let (qid, at) = (rings.qid, rings.sq + 64 * u64::from(before));
                let mut command = Command::new_zeroed();
                if !self.is_lent(at, 64) || self.hal.device_read(DevAddr(at), command.as_mut_bytes()).is_err()
                {
                    return;
                }
                seen.cids.push((qid, command.cid.get()));
                let made = command.cdw10.get();
                let (made, size_z) = (made as u16, (made >> 16) as u16);
                match command.opcode {
                    Opcode::ADMIN_CREATE_CQ if qid == 0 => {
                        let cq = command.prp1.get();
                        seen.rings.push(Rings { qid: made, cq, size_z, phase: true, ..Rings::default() });
                    }
                    Opcode::ADMIN_CREATE_SQ if qid == 0 => {
                        if let Some(rings) = seen.rings.iter_mut().find(|rings| rings.qid == made) {
                            rings.sq = command.prp1.get();
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

impl Window for Any {
    fn read32(&self, offset: usize) -> u32 {
        let mut seen = self.seen();
        self.mischief(&mut seen);
        let honest = self.model.read32(offset);
        let value = match seen.input.byte() {
            0..=239 => honest,
            240..=242 => u32::MAX,
            243..=245 => 0,
            246..=250 => honest ^ 1 << (seen.input.byte() % 32),
            _ => seen.input.word(),
        };
        if value != honest {
            self.sound.store(false, Ordering::Relaxed);
            self.sound_registers.store(false, Ordering::Relaxed);
            if offset < CAP.offset() + 8 {
                self.sound_capabilities.store(false, Ordering::Relaxed);
            }
        }
        value
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut seen = self.seen();
        self.overhear(&mut seen, offset, value);
        self.model.write32(offset, value);
        self.mischief(&mut seen);
    }
}
