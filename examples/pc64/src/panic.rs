//! The end: an exit code for QEMU; and panics and exceptions, which say what, where and by whom before it.

use core::arch::asm;
use core::panic::PanicInfo;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use dfly_hal::CpuId;
use x86_64::instructions::{hlt, interrupts};
use x86_64::registers::control::Cr2;

use crate::interrupts::Frame;
use crate::port::Port;
use crate::{cpu, memory, print, println, serial};

/// QEMU's `isa-debug-exit`, as `xtask` sets it up.
// SAFETY: it ends the machine, or nobody is there.
const DEBUG_EXIT: Port = unsafe { Port::new(0xf4) };

/// How the machine ends. QEMU's exit status is twice this plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exit {
    /// All went well: status 33.
    Success = 0x10,
    /// What was to be done failed: status 35.
    Failure = 0x11,
    /// The CPU ran into an exception: status 253.
    Exception = 0x7e,
    /// A panic: status 255.
    Panic = 0x7f,
}

/// Ends the machine; one without QEMU's device stands still.
pub fn exit(how: Exit) -> ! {
    end(how as u32)
}

fn end(code: u32) -> ! {
    DEBUG_EXIT.write32(code);
    stand_still()
}

fn stand_still() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// The CPU that ends the machine, and how.
static ENDING: AtomicU32 = AtomicU32::new(CpuId::NONE.0);
static HOW: AtomicU32 = AtomicU32::new(Exit::Panic as u32);

/// Whether the machine is ending.
pub fn is_ending() -> bool {
    ENDING.load(Ordering::Acquire) != CpuId::NONE.0
}

/// From here on this CPU alone runs. A panic that panics ends at once.
fn begin(how: Exit) {
    interrupts::disable();
    let this = cpu::this();
    match ENDING.compare_exchange(CpuId::NONE.0, this.0, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            HOW.store(how as u32, Ordering::Relaxed);
            cpu::interrupt_others_at_once();
            serial::seize();
        }
        Err(other) if other == this.0 => end(HOW.load(Ordering::Relaxed)),
        Err(_) => stand_still(),
    }
}

/// The handler of interrupts that cannot be masked: another CPU ends the machine. From anybody else it is an exception.
pub fn stop_if_told(frame: &Frame) {
    if is_ending() {
        stand_still();
    }
    exception(frame)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin(Exit::Panic);
    println!("\npanic: {}", info.message());
    if let Some(place) = info.location() {
        println!("  at {place}");
    }
    whereabouts();
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    back_trace(None, rbp);
    exit(Exit::Panic)
}

const NAMES: [&str; 22] = [
    "division by zero",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid instruction",
    "vector unit used",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack segment fault",
    "general protection fault",
    "page fault",
    "reserved",
    "floating-point error",
    "alignment check",
    "machine check",
    "vector floating-point error",
    "virtualization",
    "control protection",
];

/// The CPU cannot go on.
pub fn exception(frame: &Frame) -> ! {
    const PAGE_FAULT: u64 = 14;
    begin(Exit::Exception);
    let name = NAMES.get(frame.vector as usize).unwrap_or(&"exception");
    println!("\nexception {}: {name}, error {:#x}", frame.vector, frame.error);
    if frame.vector == PAGE_FAULT {
        let why = if frame.error & 1 == 0 { "not mapped" } else { "not allowed" };
        let what = match frame.error & 0x12 {
            0 => "read",
            2 => "write",
            _ => "execute",
        };
        let at = Cr2::read_raw();
        println!("  {what} at {at:#x}: {why}");
        if frame.error & 1 == 0 {
            name_overflow(at);
        }
    }
    println!("  at {:#x}", frame.rip);
    whereabouts();
    let Frame { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, .. } = *frame;
    println!("  rax {rax:016x}  rbx {rbx:016x}  rcx {rcx:016x}  rdx {rdx:016x}");
    println!("  rsi {rsi:016x}  rdi {rdi:016x}  rbp {rbp:016x}  rsp {rsp:016x}");
    println!("  r8  {r8:016x}  r9  {r9:016x}  r10 {r10:016x}  r11 {r11:016x}");
    println!("  r12 {r12:016x}  r13 {r13:016x}  r14 {r14:016x}  r15 {r15:016x}");
    println!("  rflags {:#x}, cs {:#x}, ss {:#x}", frame.rflags, frame.cs, frame.ss);
    back_trace(Some(frame.rip), rbp);
    exit(Exit::Exception)
}

/// Whose stack it is that the page at `at` guards, if it does.
fn name_overflow(at: u64) {
    if let Some(thread) = dfly_lwkt::overflowed_at(at as usize) {
        println!(
            "  thread {} ({}) has overflowed its stack of {} bytes",
            thread.id, thread.name, thread.stack_bytes
        );
    } else if memory::is_guard(at) {
        println!("  which is below a stack");
    }
}

fn whereabouts() {
    print!("  on {} of {}", cpu::this(), cpu::count());
    if let Some(thread) = dfly_lwkt::current() {
        print!(", thread {} ({})", thread.id, thread.name);
    }
    println!("{}", if cpu::in_interrupt() { ", in an interrupt handler" } else { "" });
}

/// Prints `first`, and where each caller goes on. `xtask` says which functions these are.
fn back_trace(first: Option<u64>, mut frame: u64) {
    /// Neither is a frame longer, nor a trace deeper, nor one that is looked at all the way.
    const LONGEST_FRAME: u64 = 1 << 20;
    const MOST_LINES: u32 = 64;
    const DEEPEST: u32 = 100_000;
    println!("back trace:");
    if let Some(at) = first {
        println!("  {at:#018x}");
    }
    let (mut last, mut repeated, mut lines) = (0, 0, 0);
    for _ in 0..DEEPEST {
        let Some((next, caller)) = frame_at(frame).filter(|(_, caller)| memory::text().contains(caller))
        else {
            break;
        };
        if caller == last {
            repeated += 1;
        } else {
            if repeated > 0 {
                println!("  {last:#018x} {repeated} times more");
            }
            (last, repeated, lines) = (caller, 0, lines + 1);
            println!("  {caller:#018x}");
        }
        if lines == MOST_LINES || next <= frame || next - frame > LONGEST_FRAME {
            break;
        }
        frame = next;
    }
    if repeated > 0 {
        println!("  {last:#018x} {repeated} times more");
    }
}

/// The caller's frame pointer and return address, from the frame at `at`; `None` where no stack can be.
fn frame_at(at: u64) -> Option<(u64, u64)> {
    let range = at..at.checked_add(16)?;
    let is_stack = at.is_multiple_of(8) && memory::may_be_stack(&range);
    let frame = ptr::with_exposed_provenance::<[u64; 2]>(usize::try_from(at).ok().filter(|_| is_stack)?);
    // SAFETY: aligned, in memory that is mapped (but for pages that guard stacks: then the exception within the panic ends
    // the machine), while this CPU alone runs.
    let [next, caller] = unsafe { frame.read_volatile() };
    Some((next, caller))
}
