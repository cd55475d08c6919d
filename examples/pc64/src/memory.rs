//! Page tables: everything is mapped one to one, each part with its own rights.
//!
//! | what | rights |
//! |---|---|
//! | the page at 0, the pages below stacks | none: a null pointer and an overflow are faults |
//! | the kernel's code; its constants; its variables | execute; read; write |
//! | ordinary memory | write |
//! | everything else below 4 GiB, and BARs above | write, uncached |

use alloc::boxed::Box;
use core::alloc::Layout;
use core::arch::{asm, global_asm};
use core::hint::spin_loop;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use dfly_hal::CpuId;
use dfly_hal::sync::Lock;
use dfly_lwkt::StackMemory;
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use crate::boot::BootInfo;
use crate::firmware::overlaps;
use crate::{cpu, heap, interrupts, panic};

global_asm!(include_str!("asm/copy.s"), options(att_syntax));

const SMALL: u64 = 4096;
const LARGE: u64 = 2 << 20;
/// What the boot's tables map.
const BOOT_END: u64 = 4 << 30;
/// Memory above this stays unused.
const MOST_MEMORY: u64 = 1 << 40;
/// Firmware's and the trampoline's; nothing there is given to the heap.
const LOW_END: u64 = 1 << 20;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static boot_stack_guard: u8;
    static boot_stack_top: u8;
}

/// Where a symbol of the linker's script is.
macro_rules! address {
    ($symbol:ident) => {
        (&raw const $symbol).expose_provenance() as u64
    };
}

/// Where the kernel is.
pub fn image() -> Range<u64> {
    address!(__image_start)..address!(__image_end)
}

/// Where its code is.
pub fn text() -> Range<u64> {
    address!(__text_start)..address!(__text_end)
}

/// Gives ordinary memory to the heap, and puts the final page tables in place. Once, on the boot CPU.
pub fn init(info: &BootInfo) {
    heap::claim(info, LOW_END..BOOT_END);
    let end = info.ram().map(|ram| ram.end).max().unwrap_or(0).clamp(BOOT_END, MOST_MEMORY);
    let mut tables = Tables(Box::leak(Table::new()));
    for at in (0..end).step_by(LARGE as usize) {
        let is_ram = info.ram().any(|ram| overlaps(&ram, &(at..at + LARGE)));
        tables.set(at, LARGE, if is_ram { WRITE } else { DEVICE });
    }
    tables.set_all(text(), EXECUTE);
    tables.set_all(text().end..address!(__rodata_end), READ);
    tables.set(0, SMALL, NONE);
    tables.set(address!(boot_stack_guard), SMALL, NONE);
    *TABLES.lock() = Some(tables);
    activate();
    heap::claim(info, BOOT_END..MOST_MEMORY);
}

/// Whether `range` can be part of a stack, for who follows one in a panic.
pub fn may_be_stack(range: &Range<u64>) -> bool {
    let (bottom, top) = (address!(boot_stack_guard) + SMALL, address!(boot_stack_top));
    (bottom <= range.start && range.end <= top) || heap::holds_all_in_panic(range)
}

/// Puts the page tables in place on this CPU.
pub fn activate() {
    if let Some(tables) = &*TABLES.lock() {
        let root =
            PhysFrame::containing_address(PhysAddr::new(ptr::from_ref(tables.0).expose_provenance() as u64));
        // SAFETY: the tables map one to one all that is in use, with the rights that it needs.
        unsafe { Cr3::write(root, Cr3Flags::empty()) };
    }
}

/// Registers of devices: the `len` bytes at `at`, uncached. `None` where that is ordinary memory, or no place for them.
pub fn device(at: u64, len: u64) -> Option<NonNull<u8>> {
    let range = at..at.checked_add(len).filter(|&end| at >= LOW_END && end <= addresses_end())?;
    if overlaps(&range, &image()) || heap::holds(&range) {
        return None;
    }
    // Below, all is mapped; above, what was not mapped needs no CPU to forget anything.
    let pages = (at & !(LARGE - 1)..range.end).step_by(LARGE as usize).filter(|&page| page >= BOOT_END);
    // Neither does memory lose its caches to a neighbour.
    if pages.clone().any(|page| heap::holds(&(page..page + LARGE))) {
        return None;
    }
    let mut tables = TABLES.lock();
    let tables = tables.as_mut()?;
    pages.for_each(|page| tables.set(page, LARGE, DEVICE));
    NonNull::new(ptr::with_exposed_provenance_mut(usize::try_from(at).ok()?))
}

/// Where the CPU's physical addresses end, or the lower half of its virtual ones.
fn addresses_end() -> u64 {
    const SIZES: u32 = 0x8000_0008;
    const VIRTUAL_BITS: u32 = 47;
    let sizes: u32;
    // SAFETY: every CPU in 64-bit mode has the instruction and this leaf. `rbx`, which the compiler keeps, is put back.
    unsafe {
        asm!("push rbx", "cpuid", "pop rbx", inout("eax") SIZES => sizes, out("ecx") _, out("edx") _);
    }
    1 << (sizes & 0xff).min(VIRTUAL_BITS)
}

/// Memory for a thread's stack; it stays. The page below it faults, on every CPU. Not from a CPU that takes no interrupts
/// while others do the same.
pub fn stack(bytes: usize) -> Option<StackMemory> {
    let stack = own_stack(bytes)?;
    forget_everywhere();
    Some(stack)
}

/// Memory for a CPU's own stack; it stays. The page below it faults: on this CPU, and on those that start later.
pub fn own_stack(bytes: usize) -> Option<StackMemory> {
    let layout = Layout::from_size_align(bytes.checked_add(SMALL as usize)?, SMALL as usize).ok()?;
    // SAFETY: the length is not 0.
    let guard = NonNull::new(unsafe { alloc::alloc::alloc(layout) })?;
    // SAFETY: allocated just now, and leaked.
    unsafe { take_away(guard) };
    // SAFETY: inside of what was allocated.
    let bottom = unsafe { guard.add(SMALL as usize) };
    // SAFETY: the rest of that; the page below is not mapped any more.
    Some(unsafe { StackMemory::new(bottom, bytes, SMALL as usize) })
}

/// Takes the page at `at` away. Other CPUs that know it may go on using it until they are [told](forget_everywhere).
///
/// # Safety
/// Nobody will use it.
pub unsafe fn take_away(at: NonNull<u8>) {
    let at = at.as_ptr().expose_provenance() as u64;
    if let Some(tables) = &mut *TABLES.lock() {
        tables.set(at, SMALL, NONE);
    }
    x86_64::instructions::tlb::flush(x86_64::VirtAddr::new(at));
}

/// Whether a page that is not mapped is there to guard a stack: nothing else in the kernel's memory is not mapped.
pub fn is_guard(at: u64) -> bool {
    image().contains(&at) || heap::holds_all_in_panic(&(at..at + 1))
}

/// How often every CPU was told to forget translations, and which of these each has heard.
static TOLD: AtomicU64 = AtomicU64::new(0);
static HEARD: [AtomicU64; cpu::MOST] = [const { AtomicU64::new(0) }; cpu::MOST];

/// Has every CPU forget translations of pages that are not mapped any more. A CPU may be told to while it waits here.
pub fn forget_everywhere() {
    // Release and Acquire in both: who has heard of this sees the tables as they are now.
    let told = TOLD.fetch_add(1, Ordering::AcqRel) + 1;
    cpu::tell_others(interrupts::FORGET);
    let has_heard = |id: CpuId| HEARD[id.index()].load(Ordering::Acquire) >= told;
    for id in cpu::others() {
        while !has_heard(id) && !panic::is_ending() {
            spin_loop();
        }
    }
}

/// The interrupt handler: forgets all translations, as this CPU was told.
pub fn forget() {
    let told = TOLD.load(Ordering::Acquire);
    x86_64::instructions::tlb::flush_all();
    HEARD[cpu::this().index()].fetch_max(told, Ordering::Release);
}

static TABLES: Lock<Option<Tables>> = Lock::new(None);

const PRESENT: u64 = 1;
const IS_LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 63;
const NONE: u64 = 0;
const EXECUTE: u64 = PRESENT;
const READ: u64 = PRESENT | NO_EXECUTE;
const WRITE: u64 = READ | 2;
/// Uncached.
const DEVICE: u64 = WRITE | 0x18;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    fn new() -> Box<Self> {
        Box::new(Self([const { AtomicU64::new(NONE) }; 512]))
    }
}

/// The root of the page tables, which are never freed. Who holds it changes them; CPUs read them at any time: what an entry
/// leads to is there before the entry (Release).
struct Tables(&'static Table);

impl Tables {
    /// Maps the page of `size` at `at` to itself.
    fn set(&mut self, at: u64, size: u64, rights: u64) {
        let mut table = self.0;
        let mut covers = 512 << 30;
        loop {
            let entry = &table.0[(at / covers % 512) as usize];
            if covers == size {
                let is_large = if size > SMALL { IS_LARGE } else { 0 };
                entry.store(if rights == NONE { NONE } else { at | rights | is_large }, Ordering::Release);
                return;
            }
            covers /= 512;
            let mut next = entry.load(Ordering::Relaxed);
            if next & PRESENT == 0 || next & IS_LARGE != 0 {
                next = split(next, covers);
                entry.store(next, Ordering::Release);
            }
            // SAFETY: made by `split`, and never freed.
            table = unsafe { &*ptr::with_exposed_provenance((next & ADDRESS) as usize) };
        }
    }

    fn set_all(&mut self, range: Range<u64>, rights: u64) {
        range.step_by(SMALL as usize).for_each(|at| self.set(at, SMALL, rights));
    }
}

/// A table of pages of `size` that maps what `entry` mapped; as an entry.
fn split(entry: u64, size: u64) -> u64 {
    let mut table = Table::new();
    if entry & PRESENT != 0 {
        let is_large = if size > SMALL { IS_LARGE } else { 0 };
        for (page, new) in (0_u64..).zip(&mut table.0) {
            *new.get_mut() = ((entry & !IS_LARGE) + page * size) | is_large;
        }
    }
    ptr::from_mut(Box::leak(table)).expose_provenance() as u64 | PRESENT | 2
}
