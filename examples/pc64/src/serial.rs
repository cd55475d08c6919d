//! The serial line COM1: bytes out, polled; bytes in, announced by an interrupt.

use core::fmt;
use core::future::poll_fn;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;

use atomic_waker::AtomicWaker;
use dfly_hal::sync::Lock;

use crate::acpi::Madt;
use crate::apic::{self, IoApic};
use crate::interrupts;
use crate::port::Port;

/// The interrupt of the ISA bus that it raises.
const IRQ: u8 = 4;

const BASE: u16 = 0x3f8;
// SAFETY: the registers of a 16550: nothing there touches memory. The same holds for the others.
const DATA: Port = unsafe { Port::new(BASE) };
// SAFETY: see above.
const INTERRUPTS: Port = unsafe { Port::new(BASE + 1) };
// SAFETY: see above.
const FIFO: Port = unsafe { Port::new(BASE + 2) };
// SAFETY: see above.
const LINE: Port = unsafe { Port::new(BASE + 3) };
// SAFETY: see above.
const MODEM: Port = unsafe { Port::new(BASE + 4) };
// SAFETY: see above.
const STATUS: Port = unsafe { Port::new(BASE + 5) };

const RECEIVED: u8 = 1;
const EMPTY: u8 = 1 << 5;
/// What reads where there is no serial line.
const NOBODY: u8 = 0xff;
/// What the transmitter takes when it is empty.
const FIFO_BYTES: usize = 16;
/// Looks at a transmitter that is not ready, before it is written to nevertheless: whoever reads may take minutes.
const PATIENCE: u32 = 1 << 30;
/// A panic does not wait so long.
const PANIC_PATIENCE: u32 = 1 << 20;

static LINE_IN_USE: Lock<()> = Lock::new(());
static SEIZED: AtomicBool = AtomicBool::new(false);
static READER: AtomicWaker = AtomicWaker::new();

/// 115200 baud, 8 bits, no parity, FIFOs on, no interrupts yet.
pub fn init() {
    INTERRUPTS.write8(0);
    LINE.write8(0x80);
    DATA.write8(1);
    INTERRUPTS.write8(0);
    LINE.write8(0x03);
    FIFO.write8(0x07);
    // DTR, RTS, and OUT2, which lets the interrupt through.
    MODEM.write8(0x0b);
}

/// Writes text, not mixed with that of another CPU: a carriage return goes before each line feed. From threads; and from
/// wherever a panic is, once the line is [seized](seize).
pub fn write_text(text: &[u8]) {
    let _held = (!SEIZED.load(Ordering::Relaxed)).then(|| LINE_IN_USE.lock());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match line.split_last() {
            Some((b'\n', line)) => {
                put(line);
                put(b"\r\n");
            }
            _ => put(line),
        }
    }
}

fn put(bytes: &[u8]) {
    let patience = if SEIZED.load(Ordering::Relaxed) { PANIC_PATIENCE } else { PATIENCE };
    for chunk in bytes.chunks(FIFO_BYTES) {
        let mut looks = 0;
        while STATUS.read8() & EMPTY == 0 && looks < patience {
            looks += 1;
            spin_loop();
        }
        chunk.iter().for_each(|&byte| DATA.write8(byte));
    }
}

/// Takes the line away from whoever has it, and will not be taken away: what is left is a panic's.
pub fn seize() {
    SEIZED.store(true, Ordering::Relaxed);
}

/// Connects the interrupt of received bytes to the boot CPU; whether there is one.
pub fn connect(madt: &Madt) -> bool {
    let number = madt.isa_interrupt(IRQ);
    let Some((io_apic, vector)) = IoApic::serving(madt, number).zip(interrupts::connect(interrupt)) else {
        return false;
    };
    io_apic.route(number, vector, apic::id());
    true
}

/// The interrupt handler: wakes the reader, which turns the interrupt on again.
fn interrupt() {
    INTERRUPTS.write8(0);
    READER.wake();
}

/// The next byte. For one reader at a time.
pub async fn read() -> u8 {
    poll_fn(|cx| {
        if let Some(byte) = take() {
            return Poll::Ready(byte);
        }
        READER.register(cx.waker());
        INTERRUPTS.write8(RECEIVED);
        // What came before the interrupt was on.
        take().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

fn take() -> Option<u8> {
    let status = STATUS.read8();
    (status & RECEIVED != 0 && status != NOBODY).then(|| DATA.read8())
}

/// The line as a destination of formatted text, with the line ends of a terminal.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_text(text.as_bytes());
        Ok(())
    }
}

/// Writes formatted text to the serial line.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        // The console never fails.
        let _ = core::fmt::Write::write_fmt(&mut $crate::serial::Console, format_args!($($arg)*));
    }};
}

/// Writes a line of formatted text to the serial line.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => { $crate::print!("{}\n", format_args!($($arg)*)) };
}
