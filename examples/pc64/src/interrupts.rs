//! Interrupts: the table of gates, and who is called for which vector.
//!
//! A handler runs on a stack of its CPU, with interrupts off, and switches to no other thread; it takes no lock, and
//! neither allocates nor frees. What it finds out it tells by waking somebody. If that one is to preempt the thread that was
//! interrupted, it does so after the handler, on that thread's stack.

use alloc::boxed::Box;
use core::arch::global_asm;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use dfly_lwkt::Scheduler;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts::{disable, enable};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use crate::{apic, clock, cpu, memory, panic};

global_asm!(include_str!("asm/stubs.s"), options(att_syntax));

/// The number of an interrupt at the CPU.
pub type Vector = u8;

/// From another CPU, which has taken a page away.
pub const FORGET: Vector = 0xfc;
/// From another CPU.
pub const IPI: Vector = 0xfd;
/// From the CPU's own timer.
pub const TIMER: Vector = 0xfe;
/// From nobody.
pub const SPURIOUS: Vector = 0xff;

const NON_MASKABLE: u64 = 2;
const DOUBLE_FAULT: usize = 8;
const MACHINE_CHECK: usize = 18;
const EXCEPTIONS: u64 = 32;
/// The first that devices get: above the exceptions, and where the 8259 would come in.
const FIRST: Vector = 0x30;
const LAST: Vector = 0xef;

/// How many interrupt stacks a CPU has. A handler never comes again on its own: interrupts are off in it, and an exception
/// ends the machine.
pub const STACKS: usize = 5;

/// The interrupt stack of a vector, from 1 on.
const fn stack_of(vector: usize) -> u64 {
    match vector {
        DOUBLE_FAULT => 2,
        MACHINE_CHECK => 3,
        2 => 4,
        0..32 => 5,
        _ => 1,
    }
}

/// What was interrupted, as `stubs.s` and the CPU leave it on the stack.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// What is called for a vector.
type Handler = Box<dyn Fn() + Send + Sync>;

static HANDLERS: [AtomicPtr<Handler>; 256] = [const { AtomicPtr::new(ptr::null_mut()) }; 256];
static NEXT: AtomicU8 = AtomicU8::new(FIRST);

/// Calls `handler` for a vector of its own, from now on. `None` when there is no vector left.
pub fn connect(handler: impl Fn() + Send + Sync + 'static) -> Option<Vector> {
    let next = |vector| (vector <= LAST).then_some(vector + 1);
    let vector = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
    let handler: Handler = Box::new(handler);
    // Release: who takes the interrupt sees the handler.
    HANDLERS.get(usize::from(vector))?.store(Box::into_raw(Box::new(handler)), Ordering::Release);
    Some(vector)
}

unsafe extern "C" {
    static interrupt_stubs: [[u8; 16]; 256];
}

/// The table of gates, made by the first CPU that asks.
static GATES: AtomicPtr<[[u64; 2]; 256]> = AtomicPtr::new(ptr::null_mut());

/// Loads the table of gates on this CPU.
pub fn load() {
    if GATES.load(Ordering::Acquire).is_null() {
        let mut gates = Box::new([[0; 2]; 256]);
        for (vector, gate) in gates.iter_mut().enumerate() {
            // SAFETY: the address alone is taken.
            let stub = unsafe { &raw const interrupt_stubs[vector] }.expose_provenance() as u64;
            *gate = [gate_of(stub, stack_of(vector)), stub >> 32];
        }
        GATES.store(Box::into_raw(gates), Ordering::Release);
    }
    let base = VirtAddr::from_ptr(GATES.load(Ordering::Acquire));
    let table = DescriptorTablePointer { limit: size_of::<[[u64; 2]; 256]>() as u16 - 1, base };
    // SAFETY: 256 gates to stubs, which stay.
    unsafe { lidt(&table) };
}

/// The low half of an interrupt gate to `stub`, on interrupt stack `stack`.
const fn gate_of(stub: u64, stack: u64) -> u64 {
    const CODE: u64 = 8;
    const INTERRUPT_GATE: u64 = 0x8e;
    stub & 0xffff | CODE << 16 | stack << 32 | INTERRUPT_GATE << 40 | (stub >> 16 & 0xffff) << 48
}

static SCHEDULER: AtomicPtr<Scheduler> = AtomicPtr::new(ptr::null_mut());

/// From now on interrupts let this scheduler's threads preempt each other, and the clock ticks for it.
pub fn serve(scheduler: &'static Scheduler) {
    SCHEDULER.store(ptr::from_ref(scheduler).cast_mut(), Ordering::Release);
}

/// The scheduler that is served.
pub fn scheduler() -> Option<&'static Scheduler> {
    // SAFETY: null, or what `serve` was given.
    unsafe { SCHEDULER.load(Ordering::Acquire).as_ref() }
}

/// Where the stubs enter. Whether they are to go on with [`interrupt_exit`].
#[unsafe(no_mangle)]
extern "C" fn interrupt_entry(frame: &Frame) -> bool {
    match frame.vector {
        NON_MASKABLE => panic::stop_if_told(frame),
        0..EXCEPTIONS => panic::exception(frame),
        vector if vector == u64::from(SPURIOUS) => return false,
        vector => cpu::interrupted(|cpu| {
            match vector as Vector {
                // What it is for is seen to by whoever was halted, or by the scheduler when this ends.
                IPI => {
                    cpu.ipis.fetch_add(1, Ordering::Relaxed);
                }
                FORGET => memory::forget(),
                TIMER => clock::interrupt(),
                vector => {
                    let handler =
                        HANDLERS.get(usize::from(vector)).map(|place| place.load(Ordering::Acquire));
                    // SAFETY: null, or a handler that `connect` put there for good.
                    if let Some(handler) = handler.and_then(|handler| unsafe { handler.as_ref() }) {
                        handler();
                    }
                }
            }
            apic::end_of_interrupt();
        }),
    }
    scheduler().is_some_and(Scheduler::needs_interrupt_exit)
}

/// Where the stubs go on, on the stack of the interrupted thread.
#[unsafe(no_mangle)]
extern "C" fn interrupt_exit() {
    if let Some(scheduler) = scheduler() {
        scheduler.interrupt_exit(enable, disable);
    }
}
