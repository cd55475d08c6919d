//! The AHCI driver against an adapter that answers anything: any value in any register, any mistake with a command, any word in
//! what IDENTIFY says, devices that come and go.
//!
//! Whatever it does, the driver does not panic, comes to an end, answers every request, and gives the adapter nothing to read or
//! write that is not lent to it. The input is what the adapter does, byte by byte; what is left out is done right, so the empty
//! input is a sound adapter.
#![no_main]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use dfly_ahci::model::{Abilities, Drive, Fault, Mistake, Model, Pattern, QueueErrors, Queueing};
use dfly_ahci::spec::{Command, PortInterrupts, Taskfile, Transport};
use dfly_ahci::{Ahci, Config, Interrupts, LinkPower, PassThrough, State};
use dfly_bio::{Bio, Buf, Failure, Image, PendingBio};
use dfly_hal::fake::FakeHal;
use dfly_hal::regs::Window;
use dfly_hal::{Clock, SpinWait};
use libfuzzer_sys::fuzz_target;

/// What is done with an adapter that could be attached, at most.
const STEPS: usize = 48;
/// Bytes of each disk.
const DISK: usize = 1 << 18;

static IMAGE: LazyLock<Image> = LazyLock::new(|| Image::from_bytes(&vec![0x5a; DISK]).unwrap());

/// An adapter that does not stop keeps what it may still use: that is no mistake, and [`FakeHal`] counts those that are. So
/// memory in use rises slowly; a run of hours wants a higher limit of it.
#[unsafe(no_mangle)]
extern "C" fn __lsan_is_turned_off() -> std::ffi::c_int {
    1
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes.to_vec(), 0);
    let [setup, kinds, how] = input.bytes();
    let hal = Arc::new(FakeHal::new());
    let drive = |kind: u8| {
        let mut drive = match kind % 4 {
            0 => Drive::disk(512, IMAGE.clone()),
            1 => Drive::disk(4096, IMAGE.clone()),
            2 => Drive::reader(IMAGE.clone()),
            _ => return None,
        };
        drive.logs = kind & 4 == 0;
        drive.lba48 = kind & 8 == 0;
        if kind & 16 != 0 {
            drive.queueing = Queueing::None;
        }
        Some(drive)
    };
    let abilities = Abilities {
        ncs_z: [31, 0, 3, 7][usize::from(setup % 4)],
        s64a: setup & 4 == 0,
        sss: setup & 8 != 0,
        bios: setup & 16 != 0,
        settling: u64::from(setup >> 5),
        queue_errors: [QueueErrors::AllSent, QueueErrors::Unsent, QueueErrors::Finish][usize::from(how % 3)],
        ..Abilities::default()
    };
    let adapter = Arc::new(Any {
        model: Model::with(hal.clone(), vec![drive(kinds & 0x1c), drive(kinds)], abilities),
        state: Mutex::new(input),
        sound: AtomicBool::new(true),
        sound_registers: AtomicBool::new(true),
    });
    let config = Config {
        max_transfer_bytes: 16 << 10,
        io_timeout: Duration::from_secs(3),
        flush_timeout: Duration::from_secs(4),
        attach_timeout: Duration::from_secs(2),
        interrupts: if how & 0x40 == 0 { Interrupts::None } else { Interrupts::One },
        link_power: [LinkPower::Performance, LinkPower::Partial, LinkPower::Slumber]
            [usize::from(how >> 4 & 3) % 3],
    };
    let mut idle = || {
        if !hal.advance_to_next() {
            hal.advance(Duration::from_millis(1));
        }
    };
    let mut lost = false;
    match Ahci::attach(adapter.clone(), hal.clone(), config, &mut SpinWait::new(&mut idle)) {
        Ok(ahci) => lost = drive_it(&adapter, &hal, ahci),
        Err(error) => {
            let _ = error.to_string();
            assert!(!adapter.is(&adapter.sound), "{error} of a sound adapter");
        }
    }
    // What CAP says about addresses is believed; nothing else gets the adapter where it may not go.
    if adapter.is(&adapter.sound_registers) {
        assert_eq!(hal.faults(), []);
        if !lost {
            assert!(hal.leaks().is_empty(), "{:?}", hal.leaks());
        }
    }
});

/// Sends requests until the input ends, and waits for the last. Returns whether any was lost.
fn drive_it(adapter: &Arc<Any>, hal: &Arc<FakeHal>, ahci: Ahci<Arc<FakeHal>, Arc<Any>>) -> bool {
    let mut pending: Vec<PendingBio> = Vec::new();
    for _ in 0..STEPS {
        let [what, which, at, len] = adapter.input().bytes();
        match what % 8 {
            0..4 => {
                let Some(device) = ahci.disk(which % 2) else { continue };
                let mut bio = Bio::new();
                // Blocks of every size, also beyond the end, also many commands long.
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
                pending.push(bio.start(&device));
            }
            4 => hal.advance(Duration::from_millis(u64::from(at) * 16)),
            5 => {
                ahci.interrupt();
            }
            6 if what & 0x80 != 0 => {
                let identify = PassThrough {
                    taskfile: Taskfile::plain(Command(
                        [0xec, 0xb0, 0xe5, 0xff, 0xe7, 0xe0, 0x2f, 0xa1][usize::from(at % 8)],
                    )),
                    cdb: None,
                    transport: if len & 1 == 0 { Transport::None } else { Transport::In },
                    timeout: Duration::from_millis(200),
                };
                let mut data = vec![0; if len & 1 == 0 { 0 } else { 512 }];
                let mut idle = || {
                    if !hal.advance_to_next() {
                        hal.advance(Duration::from_millis(1));
                    }
                };
                let _ = ahci.pass_through(which % 3, identify, &mut data, &mut SpinWait::new(&mut idle));
            }
            _ => drop(ahci.poll()),
        }
    }
    // Every deadline, and what recovery takes after the last of them.
    for _ in 0..400 {
        hal.advance(Duration::from_millis(100));
        while ahci.poll() > 0 {}
    }
    let answered = pending.iter().all(PendingBio::is_done);
    assert!(
        answered || !adapter.is(&adapter.sound_registers),
        "unanswered: {:?} {:?}",
        ahci.state(),
        ahci.port(0)
    );
    let _ = (ahci.stats(), ahci.info(), ahci.changes(), format!("{:?} {:?}", ahci.state(), ahci.port(1)));
    if pending.len() % 2 == 0 {
        let mut idle = || {
            if !hal.advance_to_next() {
                hal.advance(Duration::from_millis(1));
            }
        };
        let detached = ahci.detach(&mut SpinWait::new(&mut idle));
        assert!(matches!(ahci.state(), State::Dead(_)), "{detached:?}");
    }
    drop(ahci);
    let mut lost = false;
    for pending in pending {
        let bio = pending.try_take().expect("a request is answered when the driver is gone");
        lost |= bio.status() == Err(Failure::Lost);
        let sound = matches!(
            bio.status(),
            Ok(())
                | Err(Failure::OutOfRange | Failure::Misaligned | Failure::Timeout | Failure::WriteProtected)
        );
        assert!(sound || !adapter.is(&adapter.sound), "{:?} of a sound adapter", bio.status());
        if bio.status() == Ok(()) && adapter.is(&adapter.sound) {
            // As slices: the fuzzer looks at every comparison.
            assert!(bio.bytes().all(|run| run == &[0x5a; DISK][..run.len()]));
        }
    }
    lost
}

/// What the adapter will do, followed by zeroes without end.
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
}

/// A sound model behind a window that lies.
struct Any {
    model: Model<Arc<FakeHal>>,
    state: Mutex<Input>,
    /// It did nothing wrong so far.
    sound: AtomicBool,
    sound_registers: AtomicBool,
}

impl Any {
    fn input(&self) -> MutexGuard<'_, Input> {
        self.state.lock().unwrap()
    }

    fn is(&self, flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }

    /// Perhaps something goes wrong, before or after what the driver does.
    fn mischief(&self, input: &mut Input) {
        let what = input.byte();
        if what < 210 {
            return;
        }
        self.sound.store(false, Ordering::Relaxed);
        match what {
            210..=229 => {
                let [kind, status, error, which, skip, times] = input.bytes();
                let mistake = match kind % 10 {
                    0 => Mistake::Drop,
                    1 => Mistake::Delay(u64::from(status)),
                    2 => Mistake::Duplicate,
                    3 => Mistake::Corrupt,
                    4 => Mistake::Status(status, error),
                    5 => Mistake::Nothing,
                    6 => Mistake::Silent,
                    7 => Mistake::Interface,
                    8 => Mistake::HostBus,
                    _ => Mistake::Vanish,
                };
                let command = match which % 8 {
                    0 => Some(Command::IDENTIFY_DEVICE),
                    1 => Some(Command::READ_LOG_EXT),
                    2 => Some(Command::PACKET),
                    3 => Some(Command::FLUSH_CACHE_EXT),
                    4 => Some(Command::IDENTIFY_PACKET_DEVICE),
                    _ => None,
                };
                let pattern = Pattern {
                    port: (which & 8 != 0).then_some(which >> 4 & 1),
                    command,
                    lbas: None,
                    skip: u32::from(skip % 8),
                    times: u32::from(times % 8 + 1),
                };
                self.model.inject(Fault::Command(pattern, mistake));
            }
            230..=235 => {
                let [word, port] = input.bytes();
                let value = input.word() as u16;
                self.model.inject(Fault::Identify { port: port % 2, word, value });
            }
            236 | 237 => {
                let port = input.byte() % 2;
                self.model.inject(Fault::Spurious(port, PortInterrupts::from_bits(input.word())));
            }
            238 | 239 => drop(self.model.unplug(input.byte() % 2)),
            240 | 241 => self.model.plug(input.byte() % 2, Drive::disk(512, IMAGE.clone())),
            242 => self.model.inject(Fault::StuckEngine(input.byte() % 2)),
            243 => self.model.inject(Fault::StuckBusy(input.byte() % 2)),
            244 => self.model.inject(Fault::NoLink(input.byte() % 2, u32::from(input.byte() % 6))),
            245 => self.model.inject(Fault::StuckReset),
            246 => self.model.inject(Fault::AllOnes),
            247 => self.model.inject(Fault::AllOnesAfter(u64::from(input.byte()))),
            _ => {}
        }
    }
}

impl Window for Any {
    fn read32(&self, offset: usize) -> u32 {
        let mut input = self.input();
        self.mischief(&mut input);
        let honest = self.model.read32(offset);
        let value = match input.byte() {
            0..=239 => honest,
            240..=242 => u32::MAX,
            243..=245 => 0,
            246..=250 => honest ^ 1 << (input.byte() % 32),
            _ => input.word(),
        };
        if value != honest {
            self.sound.store(false, Ordering::Relaxed);
            self.sound_registers.store(false, Ordering::Relaxed);
        }
        value
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut input = self.input();
        self.model.write32(offset, value);
        self.mischief(&mut input);
    }
}
