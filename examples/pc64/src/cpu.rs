//! CPUs: what each has of its own, which one this is, and starting the others.

use alloc::boxed::Box;
use core::arch::{asm, global_asm};
use core::hint::spin_loop;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use core::time::Duration;

use dfly_hal::CpuId;
use x86_64::VirtAddr;
use x86_64::instructions::{interrupts, tables::load_tss};
use x86_64::registers::model_specific::GsBase;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use crate::{apic, clock, interrupts as vectors, memory, panic};

global_asm!(include_str!("asm/trampoline.s"), options(att_syntax));

/// More CPUs are left asleep.
pub const MOST: usize = 64;
/// The stack on which a CPU boots and idles.
const STACK_BYTES: usize = 128 << 10;
const INTERRUPT_STACK_BYTES: usize = 16 << 10;
/// Where the trampoline is copied to: a page below 1 MiB that is nobody's by now, and that the startup IPI names.
pub const TRAMPOLINE: Range<u64> = 0x8000..0x9000;
/// The APIC has settled after an INIT.
const INIT_WAIT: Duration = Duration::from_millis(10);
/// A CPU that has not come up by then is told again, and then given up: a hypervisor may have been elsewhere for long.
const START_WAITS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// What a CPU has of its own; `gs` leads to it.
#[repr(C)]
#[derive(Debug)]
pub struct Cpu {
    id: u32,
    /// How deep in interrupt handlers it is.
    interrupts: AtomicU32,
    apic: u32,
    state: AtomicU32,
    /// IPIs that it took.
    pub ipis: AtomicU64,
    /// Interrupts that it took.
    pub taken: AtomicU64,
}

impl Cpu {
    const fn new(id: u32, apic: u32) -> Self {
        Self {
            id,
            interrupts: AtomicU32::new(0),
            apic,
            state: AtomicU32::new(STARTING),
            ipis: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// Whether it comes up within `wait`.
    fn comes_up(&self, wait: Duration) -> bool {
        let deadline = clock::now().saturating_add(wait);
        // Acquire: what it did before is done.
        while self.state.load(Ordering::Acquire) != UP && clock::now() < deadline {
            spin_loop();
        }
        self.state.load(Ordering::Acquire) == UP
    }

    /// Decides how its start ended, unless that has been decided.
    fn settle(&self, state: u32) -> bool {
        let is_settled =
            self.state.compare_exchange(STARTING, state, Ordering::AcqRel, Ordering::Acquire).is_ok();
        // Pairs with the one in `interrupt_others_at_once`: it finds this CPU up, or this CPU sees that the machine ends.
        fence(Ordering::SeqCst);
        is_settled
    }

    /// Its number at the interrupt controller.
    pub fn apic(&self) -> u32 {
        self.apic
    }
}

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static ap_stack_top: AtomicU64;
    static ap_argument: AtomicPtr<Cpu>;
}

const STARTING: u32 = 0;
const UP: u32 = 1;
const GIVEN_UP: u32 = 2;

static BOOT_CPU: Cpu = Cpu::new(0, 0);
static CPUS: [AtomicPtr<Cpu>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];
static COUNT: AtomicU32 = AtomicU32::new(1);

/// The boot CPU knows who it is from here on. The first thing that the kernel does.
pub fn init() {
    own(&BOOT_CPU);
}

fn own(cpu: &'static Cpu) {
    GsBase::write(VirtAddr::from_ptr(cpu));
}

/// The CPU that the caller runs on: the truth as long as the caller cannot be moved.
#[inline]
pub fn this() -> CpuId {
    let id: u32;
    // SAFETY: `gs` leads to this CPU's `Cpu`, since its very start; `id` is its first field.
    unsafe { asm!("mov {:e}, gs:[0]", out(reg) id, options(nostack, preserves_flags, readonly)) };
    CpuId(id)
}

/// Whether the caller is an interrupt handler.
#[inline]
pub fn in_interrupt() -> bool {
    let depth: u32;
    // SAFETY: as in `this`; `interrupts` is its second field.
    unsafe { asm!("mov {:e}, gs:[4]", out(reg) depth, options(nostack, preserves_flags, readonly)) };
    depth > 0
}

/// How many CPUs run.
pub fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// The CPU `id`, if there is one.
pub fn get(id: CpuId) -> Option<&'static Cpu> {
    // Acquire: sees what `announce` wrote.
    let cpu = CPUS.get(id.index())?.load(Ordering::Acquire);
    // SAFETY: null, or a `&'static Cpu` that `announce` put there.
    unsafe { cpu.as_ref() }
}

fn announce(cpu: &'static Cpu) {
    if let Some(place) = CPUS.get(cpu.id as usize) {
        place.store(ptr::from_ref(cpu).cast_mut(), Ordering::Release);
    }
}

/// Runs an interrupt handler on this CPU.
pub fn interrupted(handler: impl FnOnce(&Cpu)) {
    if let Some(cpu) = get(this()) {
        cpu.interrupts.fetch_add(1, Ordering::Relaxed);
        cpu.taken.fetch_add(1, Ordering::Relaxed);
        handler(cpu);
        cpu.interrupts.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Interrupt stacks, descriptor tables and interrupt controller of this CPU. Interrupts stay off.
pub fn set_up() {
    let tss = Box::leak(Box::new(TaskStateSegment::new()));
    let mut stacks = tss.interrupt_stack_table;
    stacks[..vectors::STACKS].fill_with(|| VirtAddr::new(own_stack(INTERRUPT_STACK_BYTES)));
    tss.interrupt_stack_table = stacks;
    let gdt = Box::leak(Box::new(GlobalDescriptorTable::new()));
    // The same selectors as in the boot's table.
    gdt.append(Descriptor::kernel_code_segment());
    gdt.append(Descriptor::kernel_data_segment());
    let selector = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the selector of the TSS that was appended just now.
    unsafe { load_tss(selector) };
    vectors::load();
    apic::enable();
}

/// Where a stack of a CPU begins that was made for it.
fn own_stack(bytes: usize) -> u64 {
    let stack = memory::own_stack(bytes).expect("memory for a CPU's stack");
    (stack.bottom().as_ptr().expose_provenance() + stack.bytes()) as u64
}

/// Starts the other CPUs, of which `apics` are the APIC numbers; they run `then`. Once, on the boot CPU.
pub fn start_others(apics: &[u32]) {
    let boot = Box::leak(Box::new(Cpu::new(0, apic::id())));
    announce(boot);
    own(boot);
    boot.settle(UP);

    // SAFETY: both are in the image, one behind the other.
    let len = unsafe { (&raw const trampoline_end).offset_from_unsigned(&raw const trampoline_start) };
    let to = ptr::with_exposed_provenance_mut::<u8>(TRAMPOLINE.start as usize);
    // SAFETY: that page of low memory is mapped, and nobody uses it.
    unsafe { ptr::copy_nonoverlapping(&raw const trampoline_start, to, len) };

    for &apic in apics.iter().filter(|&&apic| apic != boot.apic) {
        let id = COUNT.load(Ordering::Relaxed);
        if id as usize == MOST {
            break;
        }
        let cpu: &'static Cpu = Box::leak(Box::new(Cpu::new(id, apic)));
        announce(cpu);
        // SAFETY: a variable of the image, which only this function writes.
        unsafe { &ap_stack_top }.store(own_stack(STACK_BYTES), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { &ap_argument }.store(ptr::from_ref(cpu).cast_mut(), Ordering::Release);
        apic::init(apic);
        clock::spin(INIT_WAIT);
        if !START_WAITS.iter().any(|&wait| {
            apic::start(apic, TRAMPOLINE.start);
            cpu.comes_up(wait)
        }) && cpu.settle(GIVEN_UP)
        {
            // It may still come, on this stack and with this number; so no other takes its place.
            crate::println!("cpu{id} (APIC {apic}) does not start; no more CPUs are started");
            break;
        }
        COUNT.store(id + 1, Ordering::Release);
    }
}

/// Where another CPU enters first, from `entry.s`, on a small stack that it shares with those before it.
#[unsafe(no_mangle)]
extern "C" fn ap_activate() {
    memory::activate();
}

/// Where another CPU enters, from `entry.s`, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn other_cpu_main(cpu: &'static Cpu) -> ! {
    own(cpu);
    set_up();
    // Nobody counts on it any more, or the machine ended before it could be told.
    if !cpu.settle(UP) || panic::is_ending() {
        loop {
            x86_64::instructions::hlt();
        }
    }
    crate::other_cpu()
}

/// Halts until an interrupt, unless `ready`. Nothing that makes it ready is missed in between.
pub fn halt(ready: &dyn Fn() -> bool) {
    interrupts::disable();
    if ready() { interrupts::enable() } else { interrupts::enable_and_hlt() }
}

/// Takes interrupts from here on.
pub fn interrupts_on() {
    interrupts::enable();
}

/// Every other CPU that runs.
pub fn others() -> impl Iterator<Item = CpuId> {
    let this = this();
    (0..count()).map(CpuId).filter(move |&id| id != this)
}

/// Interrupts every other CPU.
pub fn tell_others(vector: vectors::Vector) {
    others().filter_map(get).for_each(|cpu| apic::interrupt(cpu.apic, vector));
}

/// Ends the halt of every other CPU.
pub fn wake_others() {
    tell_others(vectors::IPI);
}

/// Interrupts every other CPU, whether or not it takes interrupts: those that are up. One that has no gates yet, or is
/// the firmware's, would reset the machine.
pub fn interrupt_others_at_once() {
    // See `settle`.
    fence(Ordering::SeqCst);
    (0..MOST as u32)
        .map(CpuId)
        .filter(|&id| id != this())
        .filter_map(get)
        .filter(|cpu| cpu.state.load(Ordering::Acquire) == UP)
        .for_each(|cpu| apic::interrupt_at_once(cpu.apic));
}

/// Interrupts that all CPUs took.
pub fn interrupts_taken() -> u64 {
    (0..count()).filter_map(|id| get(CpuId(id))).map(|cpu| cpu.taken.load(Ordering::Relaxed)).sum()
}
