//! What the boot loader says: memory, command line, modules, by PVH's start info (Xen's `hvm_start_info`, version 1).

use core::arch::global_asm;
use core::ops::Range;

use crate::firmware::{self, u32_at, u64_at};
use crate::{cpu, serial};

global_asm!(include_str!("asm/entry.s"), options(att_syntax));

/// Where the boot CPU enters, from `entry.s`.
#[unsafe(no_mangle)]
extern "C" fn boot_cpu_main(start_info: u32) -> ! {
    cpu::init();
    serial::init();
    let Some(info) = BootInfo::read(start_info.into()) else { panic!("no start info at {start_info:#x}") };
    crate::boot_cpu(&info)
}

const MAGIC: u32 = 0x336e_c578;
/// More than any machine has; the rest is ignored.
const MOST_RANGES: usize = 64;
const LONGEST_COMMAND_LINE: usize = 4096;
/// The kind of memory range that is ordinary memory (E820).
const RAM: u32 = 1;

/// What the boot loader says.
#[derive(Debug)]
pub struct BootInfo {
    /// Ordinary memory, as far as `ram_count` goes.
    ram: [(u64, u64); MOST_RANGES],
    ram_count: usize,
    /// The options, as `-append` gave them.
    pub command_line: &'static str,
    /// The first module, as `-initrd` gave it.
    pub module: Option<&'static [u8]>,
    /// Where ACPI's tables begin.
    pub rsdp: u64,
}

impl BootInfo {
    /// Reads the start info at `at`. Panics where options or a script were given that cannot be had: without them the
    /// machine would do something else than it was told.
    pub fn read(at: u64) -> Option<Self> {
        let info = firmware::bytes(at, 56)?;
        if u32_at(info, 0)? != MAGIC || u32_at(info, 4)? < 1 {
            return None;
        }
        let (mut ram, mut ram_count) = ([(0, 0); MOST_RANGES], 0);
        let entries = (u32_at(info, 48)? as usize).min(MOST_RANGES);
        for entry in firmware::bytes(u64_at(info, 40)?, entries * 24)?.chunks_exact(24) {
            if u32_at(entry, 16)? == RAM {
                ram[ram_count] = (u64_at(entry, 0)?, u64_at(entry, 8)?);
                ram_count += 1;
            }
        }
        let module = (u32_at(info, 12)? > 0).then(|| module(info).expect("a module is where none can be"));
        let command_line = match u64_at(info, 24)? {
            0 => "",
            at => firmware::text(at, LONGEST_COMMAND_LINE).expect("the options are no text, or too long"),
        };
        Some(Self { ram, ram_count, command_line, module, rsdp: u64_at(info, 32)? })
    }

    /// Ordinary memory.
    pub fn ram(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ram.iter().take(self.ram_count).map(|&(start, len)| start..start.saturating_add(len))
    }
}

/// The first module of the start info.
fn module(info: &[u8]) -> Option<&'static [u8]> {
    let entry = firmware::bytes(u64_at(info, 16)?, 32)?;
    firmware::bytes(u64_at(entry, 0)?, usize::try_from(u64_at(entry, 8)?).ok()?)
}
