//! What the device tree says of the machine.

use core::ops::Range;
use core::ptr;

use fdt::Fdt;

use crate::arch;

unsafe extern "C" {
    static __image_end: u8;
}

/// What differs from one machine to the next.
#[derive(Debug)]
pub struct Machine {
    /// How many CPUs there are; they are numbered from 0.
    pub cpus: u32,
    /// Memory that nobody uses.
    pub free: Range<usize>,
    /// What the counter counts in a second.
    pub hertz: u64,
    /// The options, as `-append` gave them.
    pub options: &'static str,
}

impl Machine {
    /// Reads the tree at `at`. Panics where there is none: nothing can be done without.
    pub fn read(at: usize) -> Self {
        // SAFETY: QEMU has put it there, and nobody writes to it.
        let tree = unsafe { Fdt::from_ptr(ptr::with_exposed_provenance(at)) }.expect("a device tree");
        let start = (&raw const __image_end).expose_provenance();
        let is_ours = |region: &fdt::standard_nodes::MemoryRegion| {
            let first = region.starting_address.expose_provenance();
            (first..first + region.size.unwrap_or(0)).contains(&start)
        };
        let memory = tree.memory().regions().find(is_ours).expect("memory where the image is");
        let end = memory.starting_address.expose_provenance() + memory.size.unwrap_or(0);
        // The tree is below the image, or near the end of memory.
        let free = start..if at > start { at } else { end };
        Self {
            cpus: tree.cpus().count() as u32,
            free,
            hertz: arch::frequency(&tree),
            options: tree.chosen().bootargs().unwrap_or(""),
        }
    }
}
